"""DR-DiffuSE as a system: its stages, their networks, and its checks."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jax_diffse.systems.base import shapes
from jax_diffse.systems.dr_diffuse import VALIDATION_GRID, DrDiffuse
from tests import reference

# Programs that run once or twice: most of their time is their compilation.
jit = functools.partial(jax.jit, compiler_options={'xla_backend_optimization_level': 0})

CHAIN = DrDiffuse('refiner', channels=4, temporal_groups=1, steps=2)
C_GEN, DIFFUSION = (dataclasses.replace(CHAIN, stage=stage) for stage in ('c_gen', 'diffusion'))
LENGTHS = (1777, 960)


@pytest.fixture(scope='module')
def variables():
    """Of the whole chain."""
    return reference.random_variables(shapes(CHAIN))


@jit
def stages_at(variables, noisy, num_samples, seeds, gain):
    return CHAIN.enhance_stages(variables, noisy, num_samples, jax.vmap(jax.random.key)(seeds), gain=gain)


def stages(variables, noisy, num_samples, seeds):
    return stages_at(variables, noisy, num_samples, jnp.array(seeds), CHAIN.gain(noisy, num_samples))


def random_waves(*lengths):
    rng = np.random.default_rng(0)
    noisy = np.zeros((len(lengths), max(lengths)), np.float32)
    for row, length in zip(noisy, lengths, strict=True):
        row[:length] = 0.1 * rng.standard_normal(length)
    return jnp.asarray(noisy), jnp.array(lengths)


def test_stages_do_not_see_padding_or_neighbours(variables):
    """Also the noise of the sampler: it follows from a waveform's own key, whatever the padded length."""
    noisy, lengths = random_waves(*LENGTHS)
    together = stages(variables, noisy, lengths, [1, 2])
    assert set(together) == {'condition', 'diffusion', 'refined'}
    alone, other = (stages(variables, noisy[1:, :960], lengths[1:], [seed]) for seed in (2, 3))
    for name, waveform in together.items():
        assert waveform.shape == noisy.shape and not np.any(waveform[1, 960:])
        assert np.std(waveform[1, :960]) > 1e-3  # the comparison means something
        np.testing.assert_allclose(waveform[1, :960], alone[name][0], atol=1e-4)
        assert np.any(np.abs(alone[name] - other[name]) > 1e-4) == (name != 'condition')


def test_stages_follow_the_level_of_the_input(variables):
    noisy, lengths = random_waves(*LENGTHS)
    enhanced, louder = (stages(variables, x, lengths, [1, 2]) for x in (noisy, 8 * noisy))
    other = stages_at(variables, noisy, lengths, jnp.array([1, 2]), jnp.ones(2))
    for name, waveform in enhanced.items():
        np.testing.assert_allclose(louder[name], 8 * waveform, rtol=1e-4, atol=1e-4)
        assert np.max(np.abs(other[name] - waveform)) > 1e-3


@pytest.fixture
def simple_networks(monkeypatch):
    """c_gen halves, samples are what they start from plus the steps, the refiner changes nothing."""
    def sample(self, variables, condition, frames, draw, steps=None):
        return condition + (self.steps if steps is None else steps)

    monkeypatch.setattr(DrDiffuse, '_sample', sample)
    monkeypatch.setattr(DrDiffuse, '_apply', lambda self, group, variables, frames, x: x * {'c_gen': 0.5}.get(group, 1))


def test_what_the_stages_are_made_of(simple_networks):
    spec, draws = jax.random.normal(jax.random.key(0), (1, 11, 161, 2)), jax.random.split(jax.random.key(1), 1)
    found = dataclasses.replace(CHAIN, refiner_mix=0.25)._estimates({}, spec, jnp.array([11]), draws, 5)
    expected = {'condition': spec / 2, 'diffusion': spec / 2 + 5, 'refined': 0.25 * (spec / 2 + 5) + 0.75 * spec}
    assert list(found) == list(expected)
    for name, estimate in found.items():
        np.testing.assert_allclose(estimate, expected[name], rtol=1e-5)
    bare = dataclasses.replace(CHAIN, condition='noisy')._estimates({}, spec, jnp.array([11]), draws, None)
    assert list(bare) == ['diffusion', 'refined']
    np.testing.assert_allclose(bare['diffusion'], spec + 2, rtol=1e-5)


def test_each_stage_gives_those_before_it_and_enhance_the_last(simple_networks):
    noisy, lengths = random_waves(*LENGTHS)
    keys = jax.random.split(jax.random.key(1), 2)
    names = ['condition', 'diffusion', 'refined']
    for i, system in enumerate((C_GEN, DIFFUSION, CHAIN), start=1):
        found = system.enhance_stages({}, noisy, lengths, keys)
        assert list(found) == names[:i]
        np.testing.assert_array_equal(system.enhance({}, noisy, lengths, keys), found[names[i - 1]])
        assert system.default_steps == (None if system is C_GEN else 2)


def test_each_stage_holds_the_groups_of_those_before_it(variables):
    groups = ['c_gen', 'denoiser', 'refiner']
    assert list(variables['params']) == list(variables['batch_stats']) == groups
    assert list(shapes(C_GEN)['params']) == groups[:1]
    assert DIFFUSION._groups() == ('c_gen', 'denoiser')
    assert dataclasses.replace(CHAIN, condition='noisy')._groups() == ('denoiser', 'refiner')


def test_number_of_steps_is_checked(variables):
    noisy, lengths = random_waves(*LENGTHS)
    system = dataclasses.replace(CHAIN, condition='noisy')
    with pytest.raises(ValueError, match='expected 1 to 200 sampling steps, got 201'):
        system.enhance_stages(variables, noisy, lengths, jax.random.split(jax.random.key(0), 2), steps=201)


def test_validation_of_the_denoiser_is_fixed(monkeypatch):
    """Steps from a grid over the whole schedule, by the example's index; noise from its key: no draw of its own."""
    seen = {}

    def record(variables, batch, t, noise, train):
        seen.update(t=t, noise=noise, train=train)

    monkeypatch.setattr(DrDiffuse, 'denoiser_loss', lambda self, *args: record(*args))
    batch = {'clean_spec': jnp.zeros((9, 2, 161, 2)), 'index': jnp.arange(9)}
    keys = jax.random.split(jax.random.key(0), 9)
    DIFFUSION.losses['denoiser']({}, batch, keys, train=False)
    np.testing.assert_array_equal(seen['t'], [12, 37, 62, 87, 112, 137, 162, 187, 12])  # 25 apart, in the middle
    assert VALIDATION_GRID == 8 and not seen['train']
    first = seen['noise']
    DIFFUSION.losses['denoiser']({}, batch, keys, train=True)
    np.testing.assert_array_equal(seen['noise'], first)
    assert len(set(np.asarray(seen['t']).tolist())) > 4 and np.all((seen['t'] >= 0) & (seen['t'] < 200))


def test_evaluation_loss_uses_stored_statistics_and_weighs_by_frames(variables):
    noisy, _ = random_waves(1600, 1600)
    spec = C_GEN.front_end.analyze(noisy, jnp.array([1600, 1600]))
    batch = {'noisy_spec': spec, 'clean_spec': 0.5 * spec, 'num_samples': jnp.array([1600, 0])}
    loss = jit(lambda batch: C_GEN.losses['c_gen'](variables, batch, None, train=False))
    out = loss(batch)
    np.testing.assert_array_equal(out.weight, [11, 0])  # the second one only fills the batch
    jax.tree.map(np.testing.assert_array_equal, out.batch_stats, variables['batch_stats'])
    other = loss({**batch, 'noisy_spec': spec.at[1].set(7.0)})
    np.testing.assert_allclose(out.loss[0], other.loss[0], rtol=1e-5)


@pytest.mark.parametrize(('field', 'value'), [
    ('stage', 'c'), ('dtype', 'float16'), ('compression', 'cube'), ('denoiser', 'unet'), ('condition', 'clean'),
    ('schedule', 'slow'), ('start', 'zero'), ('guidance', 'x')])
def test_bad_fields_are_named(field, value):
    with pytest.raises(ValueError, match=f'{field} must be one of .*{value!r}'):
        DrDiffuse(**{field: value})


@pytest.mark.parametrize(('fields', 'message'), [
    ({'steps': 0}, 'expected 1 to 200 sampling steps, got 0'),
    ({'guidance_weight': 1.5}, 'guidance_weight: expected 0 to 1 .* got 1.5'),
    ({'guidance': 'gradient', 'guidance_weight': 5.0}, '2 w sigma\\^2 reaches 1.70 with 6 steps, expected at most 1'),
    ({'refiner_mix': 2.0}, 'refiner_mix must be between 0 and 1, got 2')])
def test_numbers_out_of_range_are_named(fields, message):
    with pytest.raises(ValueError, match=message):
        DrDiffuse(**fields)
