"""The compact refiner as a system; test_diffiner.py tests what both share."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jax_diffse import systems
from jax_diffse.diffusion import ddpm, ddrm, notebook
from jax_diffse.errors import UserError
from jax_diffse.networks.compact_unet import CompactUNetConfig
from jax_diffse.spectral import istft, stft
from jax_diffse.systems.base import shapes
from jax_diffse.systems.compact_diffiner import CompactDiffiner
from tests import reference

jit = functools.partial(jax.jit, compiler_options={'xla_backend_optimization_level': 0})
TINY = CompactDiffiner(CompactUNetConfig(widths=(2, 4), heads=1), block_frames=128, respacing='3')
RELEASED = dataclasses.replace(TINY, network=dataclasses.replace(TINY.network, released_attention=True), released=True,
                               scale=1.0, floor=1e-5**0.5, ceiling=97**0.5, respacing='5')


@pytest.fixture(scope='module')
def variables():
    return reference.random_variables(shapes(TINY))


def noise(*shape, seed=0):
    return jnp.asarray(0.1 * np.random.default_rng(seed).standard_normal(shape), jnp.float32)


def keys(count):
    return jax.random.split(jax.random.key(0), count)


def enhance(system):
    return jit(lambda variables, noisy, lengths, key, processed: system.enhance(variables, noisy, lengths, key,
                                                                                processed=processed))


@pytest.mark.parametrize('system', [TINY, RELEASED])
def test_padding_and_neighbours_change_nothing(variables, system):
    """Not even where the network itself mixes the examples of a batch."""
    lengths = (20_000, 9000)
    noisy, processed = noise(2, 33_000), noise(2, 33_000, seed=1)
    real = jnp.arange(33_000)[None] < jnp.array(lengths)[:, None]
    noisy, processed = jnp.where(real, noisy, 0), jnp.where(real, processed, 0)
    run = enhance(system)
    together = run(variables, noisy, jnp.array(lengths), keys(2), processed)
    alone = run(variables, noisy[1:, :17_000], jnp.array(lengths[1:]), keys(2)[1:], processed[1:, :17_000])
    assert np.std(alone[0, :9000]) > 0.01
    np.testing.assert_allclose(together[1, :9000], alone[0, :9000], atol=1e-4 * np.max(np.abs(alone)))
    assert not np.any(together[1, 9000:])


def test_released_refinement_is_of_padded_segments(variables):
    """Two segments of 16 384 samples, each as its spectrogram of 65 frames and silence, drawn for by itself."""
    noisy, processed, key = noise(1, 30_000), noise(1, 30_000, seed=1), keys(1)
    found = enhance(RELEASED)(variables, noisy, jnp.array([30_000]), key, processed)[0]
    schedule = RELEASED._levels(None)

    @jit
    def by_hand(noisy, processed, key):
        spec, estimate = (jnp.pad(stft(x[None], 512, 256)[:, :, 1:], ((0, 0), (0, 63), (0, 0), (0, 0)))
                          for x in (noisy, processed))
        draw = ddpm.frame_draws(key[None], (128, 256, 2))
        sigma_hat = jnp.sqrt(jnp.clip(jnp.sum((spec - estimate)**2, -1, keepdims=True), 1e-5, 97))
        refined = notebook.sample(
            lambda x, t: RELEASED.unet.apply({'params': variables['params']['prior']}, x, t), draw(5, ddrm.START),
            schedule, ddrm.Observation(estimate, sigma_hat), ddrm.Diffiner(0.6, 0.8), draw)
        return istft(jnp.pad(refined, ((0, 0), (0, 0), (1, 0), (0, 0))), 256)[0]

    for i, length in enumerate((16_384, 30_000 - 16_384)):
        pieces = (jnp.pad(x[0, i * 16_384:(i + 1) * 16_384], (0, 16_384 - length)) for x in (noisy, processed))
        expected = by_hand(*pieces, jax.random.fold_in(key[0], i))[:length]
        np.testing.assert_allclose(found[i * 16_384:][:length], expected, atol=1e-4 * np.max(np.abs(expected)))


@pytest.mark.parity
def test_released_training_is_on_normalised_spectrograms():
    """The fixture's, as a crop of a longer spectrogram."""
    fixture = reference.load('compact_unet')
    data = fixture.inputs['data'][:, 0].transpose(0, 3, 2, 1)  # theirs: [B, 1, 2, F, T]
    frames, bins = data.shape[1:3]
    spec = jnp.pad(jnp.asarray(data), ((0, 0), (0, 0), (1, 0), (0, 0)))
    system = CompactDiffiner(released=True, scale=1.0)
    crop = system._crop(spec)
    assert crop.shape == (2, frames, bins, 2)
    fixture.check('train/zscore', np.transpose(crop, (0, 3, 2, 1)))
    assert np.all(np.isfinite(system._crop(jnp.zeros_like(spec))))
    np.testing.assert_allclose(CompactDiffiner()._crop(spec), 1.5 * data, rtol=1e-6)


def test_all_steps_are_taken_but_those_the_notebook_skips():
    assert CompactDiffiner().default_steps == 50
    assert CompactDiffiner(released=True).default_steps == 48
    seen = []

    def denoise(x, t):
        jax.debug.callback(lambda t: seen.append(float(t)), t[0])
        return 0.3 * x

    class Counted(CompactDiffiner):
        def _network(self, variables):
            return denoise

    for released, steps, expected in ((False, 3, [49, 24, 0]), (True, 3, [24, 12, 0])):
        seen.clear()
        system = Counted(TINY.network, block_frames=128, respacing='5', released=released, floor=0.1)
        x = noise(1, 16_000)
        jax.block_until_ready(jit(lambda x, system=system, steps=steps: system.enhance(
            None, x, jnp.array([16_000]), keys(1), steps=steps, processed=x / 2))(x))
        assert sorted(seen, reverse=True) == expected


def test_what_it_refuses():
    with pytest.raises(UserError, match='block_frames: expected at least 65, the frames of a released segment, got 64'):
        systems.build('compact_diffiner', {'released': True, 'block_frames': 64})
    with pytest.raises(UserError, match="config.model.network: activation must be one of .*, got 'tanh'"):
        systems.build('compact_diffiner', {'network': {'activation': 'tanh'}})
    with pytest.raises(UserError, match='config.model.network.channels: unknown key, expected one of widths'):
        systems.build('compact_diffiner', {'network': {'channels': 3}})
