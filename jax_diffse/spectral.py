"""The front ends of the papers in JAX: waveform <-> complex spectrogram, magnitude compression, level.

Waveforms are `[B, N]`; spectrograms are `[B, T, F, 2]`, real and imaginary parts last. `data/tf_spectral.py` has the
TensorFlow twins of the analysis functions.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

# Exponents of magnitude compression; 'log1x' is ln(1 + magnitude). DR-DiffuSE, released data loader. 'power' has an
# exponent of its own (SGMSE+).
POWERS = {'none': 1.0, 'sqrt': 0.5, 'cubic': 0.3}
COMPRESSIONS = (*POWERS, 'log1x', 'power')


def hann(n_fft: int) -> np.ndarray:
    """Periodic Hann window `[n_fft]`, float64."""
    return 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(n_fft) / n_fft)


def magnitude(spec: jax.Array) -> jax.Array:
    """Magnitude `[...]` of `[..., 2]`, with gradient 0 (not NaN) where the spectrogram is exactly zero."""
    power = jnp.sum(spec**2, axis=-1)
    silent = power == 0
    return jnp.where(silent, 0.0, jnp.sqrt(jnp.where(silent, 1.0, power)))


def mask_frames(x: jax.Array, num_frames: jax.Array | None, group: int = 1) -> jax.Array:
    """Sets `x[b, t]` to 0 for t >= `num_frames[b]`; `x` is `[B, T, ...]`, `num_frames` `[B]`, or None for no change.

    With a group G, each row of `x` `[B, T / G, G C]` has so many frames.
    """
    if num_frames is None:
        return x
    if group > 1:
        place = np.arange(x.shape[2]) // (x.shape[2] // group)  # of a frame in its row
        frames = group * jnp.arange(x.shape[1])[None, :, None] + place[None, None]
        return jnp.where(frames < num_frames[:, None, None], x, jnp.zeros((), x.dtype))
    real = jnp.arange(x.shape[1])[None] < num_frames[:, None]
    return jnp.where(real.reshape(real.shape + (1,) * (x.ndim - 2)), x, jnp.zeros((), x.dtype))


def pad_frames(x: jax.Array, num_frames: jax.Array, multiple: int, reflect: bool = False) -> jax.Array:
    """Pads the frames of each example behind its last one to a multiple, by zeros or by reflection.

    Reflection takes the frames before the last one in reverse order, as PyTorch does: behind n frames, frame n + i is
    frame n - 2 - i. Where an example has too few for that, zeros follow (the released SGMSE+ cannot pad these).

    Args:
      x: `[B, T, F, 2]`.
      num_frames: `[B]` real frames; later ones are replaced.
      multiple: whole number of frames that networks need.
      reflect: by reflection instead of zeros, up to the multiple of each example.

    Returns:
      `[B, T', F, 2]`, T' the next multiple from T on; zero from each example's own next multiple on.
    """
    total = -(-x.shape[1] // multiple) * multiple
    x = mask_frames(jnp.pad(x, ((0, 0), (0, total - x.shape[1]), (0, 0), (0, 0))), num_frames)
    if not reflect:
        return x
    place, real = jnp.arange(total)[None], num_frames[:, None]
    source = 2 * (real - 1) - place
    mirrored = (place >= real) & (place < -(-real // multiple) * multiple) & (source >= 0)
    frames = jnp.take_along_axis(x, jnp.where(mirrored, source, 0)[:, :, None, None], axis=1)
    return jnp.where(mirrored[:, :, None, None], frames, x)


def _reflect(x: jax.Array, pad: int, end: jax.Array | None) -> jax.Array:
    """Reflects `pad` samples at the start and at `end[b]` (default: the length) of `[B, N]` -> `[B, N + 2 pad]`."""
    if end is None:
        return jnp.pad(x, ((0, 0), (pad, pad)), mode='reflect')

    def one(x, end):
        tail = jnp.flip(jax.lax.dynamic_slice(x, (end - 1 - pad,), (pad,)))
        return jax.lax.dynamic_update_slice(jnp.pad(x, (0, pad)), tail, (end,))

    return jnp.concatenate([jnp.flip(x[:, 1:pad + 1], axis=1), jax.vmap(one)(x, end)], axis=1)


def _frames(x: jax.Array, size: int, hop: int, count: int) -> jax.Array:
    """`count` frames of `size` samples, `hop` apart, of `[B, N]` -> `[B, count, size]`."""
    parts = -(-size // hop)
    x = jnp.pad(x, ((0, 0), (0, max(0, (count + parts - 1) * hop - x.shape[1]))))
    return jnp.concatenate([x[:, k * hop:(k + count) * hop].reshape(-1, count, hop) for k in range(parts)],
                           axis=-1)[..., :size]


def _overlap_add(frames: jax.Array, hop: int) -> jax.Array:
    """Adds frames `[B, T, size]` where they overlap -> `[B, (T - 1) * hop + size]`."""
    batch, total, size = frames.shape
    parts = -(-size // hop)
    pieces = jnp.pad(frames, ((0, 0), (0, 0), (0, parts * hop - size))).reshape(batch, total, parts, hop)
    added = sum(jnp.pad(pieces[:, :, k].reshape(batch, total * hop), ((0, 0), (k * hop, (parts - 1 - k) * hop)))
                for k in range(parts))
    return added[:, :(total - 1) * hop + size]


def _window(size: int, sqrt_hann: bool = False) -> jax.Array:
    window = hann(size)
    return jnp.asarray(np.sqrt(window) if sqrt_hann else window, jnp.float32)[None, None]


def stft(x: jax.Array, n_fft: int, hop: int, end: jax.Array | None = None, *, sqrt_hann: bool = False) -> jax.Array:
    """Short-time Fourier transform: periodic Hann of n_fft samples, centred, reflect padding, not normalised.

    Args:
      x: waveforms `[B, N]`, N > n_fft / 2.
      n_fft: window and transform length in samples, even or odd.
      hop: hop in samples.
      end: `[B]`, where each waveform ends (zeros follow). Reflection happens there, and frames centred beyond it are
        zero. Default: all end at N. Each must exceed n_fft / 2.
      sqrt_hann: the window is the square root of Hann's.

    Returns:
      `[B, T, n_fft // 2 + 1, 2]` float32, T = N // hop + 1, or (N - 1) // hop + 1 for odd n_fft; equals
      `torch.stft(..., center=True)` and `librosa.stft` (`pad_mode='reflect'`) up to the order of axes.
    """
    odd = n_fft % 2
    num_frames = (x.shape[1] - odd) // hop + 1
    x = _reflect(x, n_fft // 2, end)
    spec = jnp.fft.rfft(_frames(x, n_fft, hop, num_frames) * _window(n_fft, sqrt_hann))
    return mask_frames(_pairs(spec), None if end is None else (end - odd) // hop + 1)


def istft(spec: jax.Array, hop: int, num_frames: jax.Array | None = None, *, n_fft: int | None = None,
          last_hop: bool = False, sqrt_hann: bool = False) -> jax.Array:
    """Inverse of `stft` by windowed overlap-add, divided by the summed squared window.

    Args:
      spec: `[B, T, F, 2]`.
      hop: hop in samples.
      num_frames: `[B]` real frames; later ones are ignored. Default: all.
      n_fft: window and transform length in samples, default 2 (F - 1).
      last_hop: also return the hop behind the centre of the last frame.
      sqrt_hann: the window is the square root of Hann's.

    Returns:
      `[B, (T - 1 + last_hop) * hop]` float32, zero beyond `(num_frames - 1 + last_hop) * hop`; equals `torch.istft`.
    """
    batch, total, bins, _ = spec.shape
    n_fft = n_fft or 2 * (bins - 1)
    window = _window(n_fft, sqrt_hann)
    spec = mask_frames(spec, num_frames)
    frames = jnp.fft.irfft(jax.lax.complex(spec[..., 0], spec[..., 1]), n=n_fft) * window
    weight = mask_frames(jnp.broadcast_to(window**2, (batch, total, n_fft)), num_frames)
    # Returned samples lie between the centres of two frames, or half a window behind one: the weight is at least 0.25.
    y = _overlap_add(frames, hop) / jnp.maximum(_overlap_add(weight, hop), 1e-8)
    y = y[:, n_fft // 2:n_fft // 2 + (total - 1 + last_hop) * hop]
    return mask_frames(y, None if num_frames is None else (num_frames - 1 + last_hop) * hop)


def _pairs(spec: jax.Array) -> jax.Array:
    return jnp.stack([spec.real, spec.imag], axis=-1)


def conv_stft(x: jax.Array, window: int, hop: int, n_fft: int) -> jax.Array:
    """Transform of zero-padded frames: `window - hop` zeros at both ends, a periodic Hann window, not normalised.

    This is the `ConvSTFT` of DCCRN: every sample lies in `window / hop` frames. `[B, N]`, N a multiple of `hop` ->
    `[B, N // hop + window // hop - 1, n_fft // 2 + 1, 2]`. Frame t ends with sample `(t + 1) * hop - 1`.
    """
    x = jnp.pad(x, ((0, 0), (window - hop, 0)))
    return analyze_frames(_frames(x, window, hop, x.shape[1] // hop), n_fft)


def analyze_frames(frames: jax.Array, n_fft: int) -> jax.Array:
    """Windowed transform of frames, placed in the first of `n_fft` points: `[B, T, window]` -> `[B, T, F, 2]`."""
    return _pairs(jnp.fft.rfft(frames * _window(frames.shape[-1]), n=n_fft))


def conv_istft(spec: jax.Array, window: int, hop: int) -> jax.Array:
    """Inverse of `conv_stft`: `[B, T, F, 2]` -> `[B, (T - window // hop + 1) * hop]`."""
    return _overlap_add(synthesize_frames(spec, window, hop), hop)[:, window - hop:hop - window or None]


def synthesize_frames(spec: jax.Array, window: int, hop: int) -> jax.Array:
    """Synthesises frames to overlap and add: `[B, T, F, 2]` -> `[B, T, window]`, windowed and normalised.

    Each frame is the least-squares inverse of the transform of `window` of its n points, as in DCCRN: the
    pseudo-inverse of the [2 F, window] matrix A of real and imaginary rows. As A^T A = n/2 I + (u u^T + v v^T) / 2
    with u constant and v alternating, it equals the inverse transform cut to `window` samples and corrected along u
    and v.
    """
    n_fft = 2 * (spec.shape[-2] - 1)
    ends = np.stack([np.ones(window), 1.0 - 2.0 * (np.arange(window) % 2)]).astype(np.float32)  # u and v
    real, imag = spec[..., 0], spec[..., 1]
    frames = jnp.fft.irfft(jax.lax.complex(real, imag), n=n_fft)[..., :window]
    frames += jnp.matmul(real[..., ::n_fft // 2], ends, precision='highest') / n_fft
    # Matrix products instead of sums: with sums, XLA:CPU (JAX 0.10.2) computes some shapes wrongly.
    both = jnp.matmul(frames, ends.T, precision='highest')
    frames -= jnp.matmul(both, ends, precision='highest') / (n_fft + window)
    return frames * jnp.asarray(hann(window) / (_overlap(window, hop) + 1e-8), jnp.float32)[None, None]


def _overlap(window: int, hop: int) -> np.ndarray:
    """What overlapping squared Hann windows add up to at each sample of one: `[window]`, constant from 3 hops on."""
    return np.tile(np.sum(hann(window).reshape(-1, hop)**2, axis=0), window // hop)


def compress(spec: jax.Array, kind: str, exponent: float = 0.5) -> jax.Array:
    """Compresses magnitudes and keeps phases: X |X|^(p-1), or ln(1 + |X|) X / |X|. `[..., 2]` -> `[..., 2]`.

    `kind` is one of 'none' (p = 1), 'sqrt' (0.5), 'cubic' (0.3: the released code's name), 'log1x' and 'power' (p is
    `exponent`). The gradient at 0, which has no phase, is 0.
    """
    if kind == 'none':
        return spec
    if kind == 'log1x':
        return _scaled(spec, lambda mag: jnp.log1p(mag) / mag)
    return _scaled(spec, lambda mag: mag ** (POWERS.get(kind, exponent) - 1.0))


def decompress(spec: jax.Array, kind: str, exponent: float = 0.5) -> jax.Array:
    """Inverse of `compress`. `[..., 2]` -> `[..., 2]`."""
    if kind == 'none':
        return spec
    if kind == 'log1x':
        return _scaled(spec, lambda mag: jnp.expm1(mag) / mag)
    return _scaled(spec, lambda mag: mag ** (1.0 / POWERS.get(kind, exponent) - 1.0))


def _scaled(spec, gain):
    """`spec` times a function of its magnitude, and 0 with a gradient of 0 where it is 0."""
    mag = magnitude(spec)
    silent = mag == 0
    return spec * jnp.where(silent, 0.0, gain(jnp.where(silent, 1.0, mag)))[..., None]


def rms_gain(x: jax.Array, num_samples: jax.Array) -> jax.Array:
    """The gain `sqrt(N / sum(x^2))` `[B]` that scales `x` `[B, N]` to unit RMS; 1 for digital silence."""
    energy = jnp.sum(x**2, axis=1)
    silent = energy == 0
    return jnp.where(silent, 1.0, jnp.sqrt(num_samples / jnp.where(silent, 1.0, energy)))


def peak_gain(x: jax.Array) -> jax.Array:
    """The gain `[B]` that scales `x` `[B, N]` to a largest magnitude of 1; 1 for digital silence."""
    peak = jnp.max(jnp.abs(x), axis=1)
    return 1 / jnp.where(peak < np.finfo(np.float32).tiny, 1.0, peak)


@dataclasses.dataclass(frozen=True)
class FrontEnd:
    """Turns waveforms into the input of a system's network, and its output back into waveforms.

    A waveform of n samples is zero-extended to whole hops, so that `synthesize` returns each of its samples. Padding
    behind it changes nothing. Without `whole_hops` it ends where it ends and has n // hop + 1 frames, as in SGMSE+;
    the samples behind the centre of the last frame then lie in one frame alone, unless frames of padding follow.
    """

    sample_rate: int = 16_000  # Hz
    n_fft: int = 320  # samples
    hop: int = 160  # samples
    compression: str = 'sqrt'
    unit_rms: bool = True  # scale noisy to unit RMS, and clean by the same gain
    window: int | None = None  # samples, in zero-padded frames (`conv_stft`); None: n_fft, centred frames (`stft`)
    unit_peak: bool = False  # scale noisy to a peak of 1, and clean by the same gain
    exponent: float = 0.5  # of the compression 'power'
    factor: float = 1.0  # of compressed spectrograms
    sqrt_hann: bool = False  # the window of centred frames is the square root of Hann's
    whole_hops: bool = True  # extend waveforms to whole hops; False: SGMSE+, even transforms in centred frames only

    def __post_init__(self):
        if self.compression not in COMPRESSIONS:
            raise ValueError(f'compression must be one of {COMPRESSIONS}, got {self.compression!r}')
        if self.unit_rms and self.unit_peak:
            raise ValueError('expected at most one of unit_rms and unit_peak')
        for name in ('exponent', 'factor'):
            if getattr(self, name) <= 0:
                raise ValueError(f'{name}: expected a number above 0, got {getattr(self, name):g}')
        if self.window is not None and (self.sqrt_hann or not self.whole_hops):
            raise ValueError('sqrt_hann and whole_hops=False need centred frames: window=None')
        if not self.whole_hops and (self.n_fft % 2 or self.hop > self.num_bins / 2):
            raise ValueError('whole_hops=False: expected an even n_fft and a hop of at most half the bins, got '
                             f'n_fft {self.n_fft}, hop {self.hop}')
        share = 4 if self.n_fft % 2 else 2  # the last hop of an odd transform lies behind the centres of all frames
        if self.window is None and not 1 <= self.hop <= self.n_fft // share:
            raise ValueError(f'expected a hop of 1 to n_fft / {share} samples, got hop {self.hop}, n_fft {self.n_fft}')
        if self.window is not None and (self.hop < 1 or self.window % self.hop or self.n_fft % 2
                                        or not 2 * self.hop <= self.window <= self.n_fft):
            raise ValueError('expected a window of whole hops, 2 or more, and of at most n_fft samples, and an even '
                             f'n_fft, got {self.window} samples, hop {self.hop}, n_fft {self.n_fft}')

    @property
    def num_bins(self) -> int:
        return self.n_fft // 2 + 1

    @property
    def shortest(self) -> int:
        """The minimum number of samples that are transformed."""
        if not self.whole_hops:
            return self.n_fft // 2 + 1  # what can be reflected
        return -(-self.n_fft // self.hop) * self.hop if self.window is None else self.hop

    @property
    def extra_frames(self) -> int:
        """The number of frames beyond one per hop."""
        return 1 - self.n_fft % 2 if self.window is None else self.window // self.hop - 1

    def extended(self, num_samples):
        """The number of samples that are transformed, with the extension to whole hops (int or array)."""
        whole = -(-num_samples // self.hop) * self.hop if self.whole_hops else num_samples
        return max(whole, self.shortest) if isinstance(whole, int) else jnp.maximum(whole, self.shortest)

    def num_frames(self, num_samples):
        """The number of real frames of a waveform of `num_samples` (int or array)."""
        return self.extended(num_samples) // self.hop + self.extra_frames

    def gain(self, noisy: jax.Array, num_samples: jax.Array) -> jax.Array:
        """The gain `[B]` to apply to noisy and clean before `analyze`."""
        if self.unit_peak:
            return peak_gain(noisy)
        return rms_gain(noisy, num_samples) if self.unit_rms else jnp.ones(noisy.shape[0])

    def analyze(self, x: jax.Array, num_samples: jax.Array) -> jax.Array:
        """Transforms waveforms `[B, N]` (zero beyond `num_samples [B]`) to compressed spectrograms `[B, T, F, 2]`."""
        x = jnp.pad(x, ((0, 0), (0, self.extended(x.shape[1]) - x.shape[1])))
        if self.window is None:
            spec = stft(x, self.n_fft, self.hop, self.extended(num_samples), sqrt_hann=self.sqrt_hann)
        else:
            spec = conv_stft(x, self.window, self.hop, self.n_fft)
        return self.factor * compress(spec, self.compression, self.exponent)

    def synthesize(self, spec: jax.Array, num_samples: jax.Array, length: int,
                   num_frames: jax.Array | None = None) -> jax.Array:
        """Transforms compressed spectrograms `[B, T, F, 2]` to waveforms `[B, length]`, zero beyond `num_samples`.

        With `num_frames` `[B]`, so many frames overlap and add, including padding (`pad_frames`), in centred frames.
        Default: the real ones.
        """
        spec = decompress(spec / self.factor, self.compression, self.exponent)
        if self.window is None:
            num_frames = self.num_frames(num_samples) if num_frames is None else num_frames
            y = istft(spec, self.hop, num_frames, n_fft=self.n_fft, sqrt_hann=self.sqrt_hann,
                      last_hop=self.n_fft % 2 == 1 or not self.whole_hops)
        else:
            y = conv_istft(spec, self.window, self.hop)
        return mask_frames(y[:, :length], num_samples)
