"""DCCRN (Hu et al., Interspeech 2020) with the losses of Lee et al. ("DCCRN with various loss functions", JASK 40(2),
2021)."""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jax_diffse.losses import released, waveform
from jax_diffse.losses.log_mel import log_mel_rmse, magnitude_for_log
from jax_diffse.losses.pmsqe import pmsqe_of_waveforms, pmsqe_released
from jax_diffse.networks import dccrn
from jax_diffse.spectral import FrontEnd, analyze_frames, hann, synthesize_frames
from jax_diffse.systems.base import Invertible, LossOutput, Streaming

CHOICES = {'masking': dccrn.MASKINGS, 'lstm': ('complex', 'real'), 'norm': ('real', 'complex'),
           'dtype': ('float32', 'bfloat16')}
SIGNED = {'mse', 'sdr'}  # the losses that depend on the sign of the output


@dataclasses.dataclass(frozen=True)
class LossWeights:
    """The loss is the weighted mean of these terms; terms of weight 0 are not computed."""

    mse: float = 0.0
    si_snr: float = 0.0
    si_sdr: float = 0.0
    sdr: float = 0.0
    lms: float = 0.0
    pmsqe: float = 0.0

    def __post_init__(self):
        terms = dataclasses.asdict(self)
        if min(terms.values()) < 0 or not any(terms.values()):
            raise ValueError(f'expected weights of 0 or more, and not all 0, got {terms}')


class StreamState(NamedTuple):
    """The state of a stream between two hops."""

    network: dccrn.Streaming
    noisy: jax.Array  # [B, window - hop], the last samples
    specs: jax.Array  # [B, D, F, 2], spectra that wait for their masks
    overlap: jax.Array  # [B, window - hop], output samples that later frames still add to
    frame: jax.Array  # [], number of the next frame


@dataclasses.dataclass(frozen=True)
class Dccrn(Streaming, Invertible):
    """A predictive enhancer that masks the complex spectrogram, trained with any mixture of six losses."""

    channels: tuple[int, ...] = (32, 64, 128, 256, 256, 256)  # of the encoder, real and imaginary parts together
    lstm: str = 'complex'  # or 'real'
    lstm_units: int = 256  # real and imaginary parts together
    lstm_layers: int = 2
    norm: str = 'real'  # batch normalisation; 'complex' whitens real and imaginary part together
    masking: str = 'E'  # 'E', 'C' or 'R', see networks/dccrn.py
    window: int = 400  # samples
    hop: int = 100  # samples
    n_fft: int = 512
    mask_padding: bool = True  # False: padding takes part in the training, as in the released code
    clamp: bool = False  # clip to [-1, 1] as the released code does; clipped samples have no gradient
    loss: LossWeights = LossWeights(si_snr=1.0)
    lms_power: bool = False  # log-mel of power spectra, not of magnitudes
    released_losses: bool = False  # with the mistakes of the released code, see losses/released.py
    dtype: str = 'float32'  # of convolutions: 'float32' or 'bfloat16'

    def __post_init__(self):
        for name, known in CHOICES.items():
            if getattr(self, name) not in known:
                raise ValueError(f'{name} must be one of {known}, got {getattr(self, name)!r}')
        bins, depth = self.front_end.num_bins - 1, len(self.channels)
        if not self.channels or bins % 2**depth:
            raise ValueError(f'channels: expected 1 or more blocks that halve {bins} bins, got {depth}')
        if self.loss.lms and self.n_fft != 512:
            raise ValueError(f'loss.lms is defined for n_fft 512, got {self.n_fft}')
        if any(c < 2 or c % 2 for c in (*self.channels, self.lstm_units)):
            raise ValueError('channels, lstm_units: expected even numbers, as real and imaginary parts share them, got '
                             f'{self.channels} and {self.lstm_units}')

    @property
    def front_end(self) -> FrontEnd:
        return FrontEnd(n_fft=self.n_fft, hop=self.hop, window=self.window, compression='none', unit_rms=False)

    @property
    def sample_rate(self) -> int:
        return self.front_end.sample_rate

    @property
    def losses(self):
        return {'dccrn': self._loss}

    def init(self, key):
        spec = jax.ShapeDtypeStruct((1, 2, self.front_end.num_bins, 2), jnp.float32)
        drawn = self._network().lazy_init(key, spec)
        return {collection: {'dccrn': tree} for collection, tree in drawn.items()}

    def _network(self, axis_name: str | None = None) -> dccrn.Dccrn:
        return dccrn.Dccrn(self.channels, self.lstm, self.lstm_units, self.lstm_layers, self.norm, axis_name,
                           jnp.dtype(self.dtype))

    # ---------------------------------------------------------------------------------------------------- enhancement

    def gain(self, noisy, num_samples):
        return self.front_end.gain(noisy, num_samples)

    def _stages(self, variables, noisy, num_samples, key, gain, steps, processed):
        """The one stage 'enhanced'."""
        spec = self.front_end.analyze(noisy, num_samples)
        frames = self.front_end.num_frames(num_samples)  # the released code has no padding here
        estimate = self._masked(self._network().apply(_own(variables), spec, frames), spec)
        return {'enhanced': self._waveform(estimate, num_samples, noisy.shape[1])}

    def _masked(self, mask, spec):
        return dccrn.apply_mask(mask, spec, self.masking)

    def _waveform(self, spec, num_samples, length):
        return self._clamped(self.front_end.synthesize(spec, num_samples, length))

    def _clamped(self, x):
        return jnp.clip(x, -1.0, 1.0) if self.clamp else x

    # ------------------------------------------------------------------------------------------------------ streaming

    @property
    def delay(self) -> int:
        """One frame per block of the decoder, and the later frames that a sample lies in."""
        return len(self.channels) + self.front_end.extra_frames

    @property
    def look_ahead(self) -> int:
        """The delay, less the end of the last window where the window is below 1 %."""
        return self.delay * self.hop - int(np.sum(hann(self.window)[self.window // 2:] < 0.01))

    def stream_start(self, batch: int) -> StreamState:
        front_end, depth = self.front_end, len(self.channels)
        held = jnp.zeros((batch, front_end.window - front_end.hop))
        return StreamState(self._network().start(batch, front_end.num_bins), held,
                           jnp.zeros((batch, depth, front_end.num_bins, 2)), held, jnp.int32(0))

    def stream_step(self, variables, state: StreamState, samples, num_hops):
        front_end = self.front_end
        noisy = jnp.concatenate([state.noisy, samples], axis=1)
        specs = jnp.concatenate([state.specs, analyze_frames(noisy[:, None], front_end.n_fft)], axis=1)
        mask, network = self._network().apply(_own(variables), specs[:, -1:], state.network, state.frame,
                                              num_hops + front_end.extra_frames, method='step')
        frame = synthesize_frames(self._masked(mask, specs[:, :1]), front_end.window, front_end.hop)[:, 0]
        overlap = jnp.pad(state.overlap, ((0, 0), (0, front_end.hop))) + frame
        new = StreamState(network, noisy[:, front_end.hop:], specs[:, 1:], overlap[:, front_end.hop:], state.frame + 1)
        return self._clamped(overlap[:, :front_end.hop]), new

    # --------------------------------------------------------------------------------------------------------- losses

    def _loss(self, variables, batch, key, train=True) -> LossOutput:
        """The weighted mean of the terms."""
        del key
        spec, batch_stats = batch['noisy_spec'], variables['batch_stats']
        frames = self.front_end.num_frames(batch['num_samples']) if self.mask_padding else None
        if train:
            mask, new = self._network('data').apply(_own(variables), spec, frames, train=True, mutable=['batch_stats'])
            batch_stats = {**batch_stats, 'dccrn': new['batch_stats']}
        else:
            mask = self._network().apply(_own(variables), spec, frames)
        estimate = self._masked(mask, spec)
        length = batch['clean'].shape[1]
        waveforms = self._waveform(estimate, jnp.full_like(batch['num_samples'], length), length)
        terms = self.terms(waveforms, estimate, batch, 'data' if train else None)
        weights = {name: getattr(self.loss, name) for name in terms}
        total = sum(weights[name] * term for name, term in terms.items()) / sum(weights.values())
        weight = (batch['num_samples'] > 0).astype(jnp.float32)
        metrics = terms if len(terms) > 1 else {}
        if not SIGNED & set(terms):
            metrics = metrics | {'inverted': jnp.where(jnp.sum(waveforms * batch['clean'], axis=1) < 0, 1.0, 0.0)}
        return LossOutput(total, weight, batch_stats, metrics)

    def negated(self, variables):
        """The mask is linear in its last layer, and every kind of masking has the sign of the mask."""
        params, name = variables['params']['dccrn'], f'decoder_{len(self.channels) - 1}'
        negated = jax.tree.map(lambda x: -x, params[name])
        return {**variables, 'params': {**variables['params'], 'dccrn': {**params, name: negated}}}

    def terms(self, estimate, estimate_spec, batch, axis_name: str | None = None) -> dict[str, jax.Array]:
        """The terms of the loss, `[B]` each, before they are weighted.

        Args:
          estimate: waveforms `[B, N]`.
          estimate_spec: the masked spectrogram `[B, T, F, 2]`, which LMS reads.
          batch: has `clean`, `clean_spec` and `num_samples`.
          axis_name: mapped axis that the batch is spread over, if any.
        """
        target, real = batch['clean'], batch['num_samples'] > 0
        samples = batch['num_samples'] if self.mask_padding else None
        frames = self.front_end.num_frames(batch['num_samples']) if self.mask_padding else None
        wanted = [field.name for field in dataclasses.fields(self.loss) if getattr(self.loss, field.name)]

        def lms():
            return log_mel_rmse(magnitude_for_log(estimate_spec), magnitude_for_log(batch['clean_spec']), frames,
                                power=self.lms_power, released=self.released_losses)

        if not self.released_losses:
            of_waveforms = {'mse': waveform.mse, 'si_snr': waveform.si_snr, 'si_sdr': waveform.si_sdr,
                            'sdr': waveform.sdr, 'pmsqe': pmsqe_of_waveforms}
            return {name: lms() if name == 'lms' else of_waveforms[name](estimate, target, samples)
                    for name in wanted}
        if {'mse', 'pmsqe'} <= set(wanted):  # without the MSE, and with swapped arguments
            return {'pmsqe': pmsqe_released(target, estimate)}
        si_snr = released.si_snr_of_pieces if 'pmsqe' in wanted else waveform.si_sdr
        terms = {'mse': lambda: waveform.mse(estimate, target),
                 'si_snr': lambda: si_snr(estimate, target),
                 'si_sdr': lambda: released.si_sdr_of_batch(estimate, target, real, axis_name),
                 'sdr': lambda: released.sdr(estimate, target),
                 'lms': lms,
                 'pmsqe': lambda: pmsqe_released(estimate, target)}
        return {name: terms[name]() for name in wanted}


def _own(variables) -> dict[str, Any]:
    return {collection: groups['dccrn'] for collection, groups in variables.items()}
