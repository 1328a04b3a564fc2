"""Front ends: any signal is reconstructed, and frames beyond its end do not matter."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jax_diffse import spectral
from jax_diffse.spectral import COMPRESSIONS, FrontEnd
from jax_diffse.systems.compact_diffiner import CompactDiffiner
from jax_diffse.systems.dccrn import Dccrn
from jax_diffse.systems.diffiner import Diffiner
from jax_diffse.systems.dr_diffuse import DrDiffuse
from jax_diffse.systems.noise_unet import NoiseUnet
from jax_diffse.systems.sgmse import Sgmse

LENGTH = 2400  # samples, one shape for all signals of a front end: programs are compiled once
USED = [*(DrDiffuse(compression=kind).front_end for kind in COMPRESSIONS), Diffiner().front_end,
        CompactDiffiner().front_end, NoiseUnet().front_end, Sgmse().front_end, Dccrn().front_end,
        Dccrn(window=512, hop=128).front_end, Dccrn(window=512, hop=256).front_end]

seeds = st.integers(0, 2**32 - 1)
lengths = st.integers(1, LENGTH)
levels = st.floats(-12, 2)  # powers of ten: from what is hardly there to far beyond full scale


def signal(length, seed, level):
    """Noise, tones and clicks, zero beyond `length`: `[1, LENGTH]` with a peak of 10^level."""
    rng = np.random.default_rng(seed)
    t = np.arange(LENGTH)
    x = [rng.standard_normal(LENGTH), np.sin(rng.uniform(0, np.pi) * t), (rng.random(LENGTH) < 0.01) * 1.0,
         rng.standard_normal() + 0.0 * t][rng.integers(4)]
    x = np.where(t < length, x, 0.0)
    return (x * 10**level / max(np.max(np.abs(x)), 1e-300)).astype(np.float32)[None]


@functools.cache
def round_trip(front_end):
    @jax.jit
    def run(x, num_samples):
        spec = front_end.analyze(x, num_samples)
        return spec, front_end.synthesize(spec, num_samples, LENGTH)

    return run


def check(front_end, x, length):
    spec, back = round_trip(front_end)(x, jnp.array([length]))
    assert spec.shape == (1, front_end.num_frames(LENGTH), front_end.num_bins, 2) and np.isfinite(spec).all()
    assert not np.any(spec[:, front_end.num_frames(length):]) and not np.any(back[:, length:])
    np.testing.assert_allclose(back, x, rtol=0, atol=2e-5 * np.max(np.abs(x)))
    return spec


@pytest.mark.parametrize('front_end', dict.fromkeys([*USED,
                                                     FrontEnd(n_fft=400, hop=150, compression='none')]), ids=str)
@given(lengths, seeds, levels)
def test_every_signal_comes_back(front_end, length, seed, level):
    check(front_end, signal(length, seed, level), length)


@pytest.mark.parametrize('front_end', [USED[0], Diffiner().front_end, Sgmse().front_end, USED[-1]],
                         ids=['dr_diffuse', 'diffiner', 'sgmse', 'dccrn'])
@settings(max_examples=20)
@given(lengths, seeds)
def test_frames_beyond_the_end_of_a_spectrogram_do_not_matter(front_end, length, seed):
    x, num_samples = signal(length, seed, 0.0), jnp.array([length])
    spec, _ = round_trip(front_end)(x, num_samples)
    rng = np.random.default_rng(seed)
    beyond = np.arange(spec.shape[1])[None, :, None, None] >= front_end.num_frames(length)
    garbage = jnp.where(beyond, jnp.asarray(rng.standard_normal(spec.shape), jnp.float32), spec)
    back, again = (synthesize(front_end)(x, num_samples) for x in (spec, garbage))  # by the same program
    if front_end.window is None:
        np.testing.assert_array_equal(again, back)
    else:  # frames lie before their sample: those behind the last one reach none of the real samples
        np.testing.assert_allclose(again, back, rtol=0, atol=1e-6)


@functools.cache
def synthesize(front_end):
    return jax.jit(lambda spec, num_samples: front_end.synthesize(spec, num_samples, LENGTH))


@st.composite
def front_ends(draw):
    """Any valid configuration of small transforms."""
    hop = draw(st.sampled_from([5, 12, 16, 32]))
    zero_padded = draw(st.booleans())
    parts = draw(st.integers(2 + zero_padded, 6))
    window = parts * hop * (1 + parts * hop % 2)
    n_fft = window + 2 * draw(st.integers(0, 20)) if zero_padded else window
    return FrontEnd(8000, n_fft, hop, draw(st.sampled_from(COMPRESSIONS)), draw(st.booleans()),
                    window if zero_padded else None)


@settings(max_examples=8)
@given(front_ends(), lengths, seeds)
def test_any_front_end_gives_signals_back(front_end, length, seed):
    x = signal(length, seed, 0.0)
    check(front_end, x, length)


@settings(max_examples=200)
@given(st.integers(-3, 700), st.integers(-2, 200), st.sampled_from([None, -160, 1, 160, 320, 480, 700]))
def test_configurations_that_give_no_signal_back_are_refused(n_fft, hop, window):
    """Where 2 or more Hann windows overlap, every sample can be divided by what their squares add up to.

    Behind the centre of the last frame of an odd transform it is what that frame has, at least a half at hop n_fft / 4.
    """
    if window:
        valid = 0 < hop and 2 * hop <= window <= n_fft and window % hop == 0 and n_fft % 2 == 0
    else:
        valid = 0 < hop <= n_fft // (4 if n_fft % 2 else 2)
    try:
        FrontEnd(n_fft=n_fft, hop=hop, window=window)
    except ValueError:
        valid = not valid
    assert valid


@pytest.mark.parametrize('parts', range(1, 7))
def test_how_many_squared_windows_add_up_to_enough(parts):
    total = np.sum(spectral.hann(60 * parts).reshape(parts, 60)**2, axis=0)
    assert (np.ptp(total) < 1e-12) == (parts >= 3) and (np.min(total) > 0.4) == (parts >= 2)


@given(seeds, levels)
def test_compression_is_undone_at_any_level(seed, level):
    """To 2e-5 of each bin, the smallest and the largest alike."""
    spec = (10**level * np.random.default_rng(seed).standard_normal((1, 3, 4, 2))).astype(np.float32)
    for kind, back in compressions(spec).items():
        size = np.linalg.norm(spec, axis=-1, keepdims=True)
        np.testing.assert_array_less(np.abs(back - spec), np.broadcast_to(2e-5 * size + 1e-37, spec.shape), kind)


@jax.jit
def compressions(spec):
    return {kind: spectral.decompress(spectral.compress(spec, kind), kind) for kind in COMPRESSIONS}
