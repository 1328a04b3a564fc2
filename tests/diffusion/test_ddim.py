"""DDIM: its limits, ancestral sampling and the probability-flow equation, and the authors' samples."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jax_diffse.diffusion import ddim, ddpm
from jax_diffse.diffusion.ddpm import START
from jax_diffse.diffusion.schedule import Schedule, guided, linear, respaced, spaced
from tests import reference
from tests.diffusion import gaussian, released

FULL = linear()
TWELVE = respaced(FULL, 12)


def no_draw(level, which):
    raise AssertionError('nothing is to be drawn')


def curved(x, t):
    """A network without a closed form."""
    return jnp.tanh(x + 0.01 * t[:, None])


@pytest.mark.parametrize('clip', [None, 0.8])
def test_the_noise_of_ancestral_sampling_gives_its_samples(clip):
    """Song et al., section 4.1: eta = 1 is Ho et al.'s sampler with the posterior's variance."""
    x, *noise = jnp.asarray(np.random.default_rng(0).standard_normal((13, 2, 5)), jnp.float32)
    noise = jnp.stack(noise)

    def draw(level, which):
        return noise[level]

    expected, samples, _ = jax.jit(lambda: ddpm.sample(curved, x, TWELVE, draw, rule=ddpm.Ancestral(clip=clip),
                                                       trajectory=True))()
    actual, visited, _ = jax.jit(lambda: ddim.sample(curved, x, TWELVE, draw, eta=1.0, clip=clip, trajectory=True))()
    np.testing.assert_allclose(visited, samples, atol=1e-5)
    np.testing.assert_allclose(actual, expected, atol=1e-5)


@pytest.mark.parametrize('eta', [0.0, 0.5])
def test_samples_stay_at_their_level_whatever_eta(eta):
    """With a network that knows x_0: mean sqrt(alpha_bar) x_0 and, for the noise x started with, 1 - alpha_bar."""
    def visit(draw):
        x = TWELVE.alpha_bar[-1]**0.5 * 0.7 + (1 - TWELVE.alpha_bar[-1])**0.5 * draw(11, START)
        return ddim.sample(gaussian.denoiser(TWELVE, 0.7, 0.0), x, TWELVE, draw, eta=eta, trajectory=True)[1]

    mean, variance = gaussian.moments(visit, 12, 3)
    below = TWELVE.alpha_bar_previous[::-1]
    np.testing.assert_allclose(mean, np.sqrt(below) * 0.7, rtol=1e-4)
    np.testing.assert_allclose(variance, 1 - below, rtol=1e-3, atol=1e-6)


def test_without_noise_it_solves_the_probability_flow():
    """Of a Gaussian target N(m, v): x_0 = m + sqrt(v / (a v + 1 - a)) (x - sqrt(a) m), to first order in the step."""
    mean, variance, x = 0.7, 0.3, jnp.array([-1.0, 0.2, 2.0])
    level = FULL.alpha_bar[-1]
    exact = mean + np.sqrt(variance / (level * variance + 1 - level)) * (x - np.sqrt(level) * mean)
    errors = []
    for num_steps in (25, 50, 100):
        schedule = respaced(FULL, num_steps)
        denoise = gaussian.denoiser(schedule, mean, variance)
        errors.append(jax.jit(lambda s=schedule, d=denoise: ddim.sample(d, x, s, no_draw))() - exact)
    assert np.max(np.abs(errors[-1])) < 0.05
    np.testing.assert_allclose(np.array(errors[:-1]) / np.array(errors[1:]), 2, rtol=0.15)


def test_clipped_estimates():
    """By hand: the noise of a bounded estimate is what is left of x without it (Song et al., eq. 12)."""
    x, eps = 2 * np.random.default_rng(1).standard_normal((2, 2, 7)).astype(np.float32)
    out, visited, x_0 = jax.jit(lambda: ddim.sample(lambda x, t: eps, x, TWELVE, no_draw, clip=0.5,
                                                    trajectory=True))()
    level, below = TWELVE.alpha_bar[-1], TWELVE.alpha_bar[-2]
    bounded = np.clip((x - np.sqrt(1 - level) * eps) / np.sqrt(level), -0.5, 0.5)
    noise = (x - np.sqrt(level) * bounded) / np.sqrt(1 - level)
    np.testing.assert_allclose(x_0[0], bounded, atol=1e-5)
    np.testing.assert_allclose(visited[0], np.sqrt(below) * bounded + np.sqrt(1 - below) * noise, atol=1e-5)
    np.testing.assert_array_equal(out, visited[-1])
    np.testing.assert_allclose(out, x_0[-1], atol=1e-6)


def test_one_evaluation_per_level():
    seen = []

    def denoise(x, t):
        jax.debug.callback(lambda t: seen.append(np.array(t)), t, ordered=True)
        return x

    jax.block_until_ready(jax.jit(lambda x: ddim.sample(denoise, x, TWELVE, no_draw))(jnp.ones((2, 3))))
    jax.effects_barrier()
    np.testing.assert_array_equal(seen, np.repeat(TWELVE.t[::-1, None], 2, axis=1).astype(np.float32))


@pytest.mark.parametrize('eta', [-0.1, 1.5])
def test_shares_out_of_range_are_refused(eta):
    with pytest.raises(ValueError, match=f'eta must be between 0 and 1, got {eta:g}'):
        ddim.sample(curved, jnp.ones((1, 2)), TWELVE, no_draw, eta=eta)


# ------------------------------------------------------------------------------------------------ the authors' samples


@pytest.mark.parity
@pytest.mark.parametrize('case', ['ddim_eta0', 'ddim_eta1'])
def test_every_step_of_the_released_sampler(case):
    fixture, eta = reference.load('diffiner_sampling'), 1.0 if case == 'ddim_eta1' else 0.0
    assert fixture.json('config')['plain'][case]['eta'] == eta
    noise = released.turned(fixture.inputs[f'draws/{case}'])[::-1]
    with jax.disable_jit():
        out, samples, x_0 = ddim.sample(
            released.denoiser('diffiner_sampling'), jnp.asarray(released.turned(fixture.inputs['x_T'])),
            spaced(guided(), 'ddim10'), lambda level, which: noise[level], eta=eta, trajectory=True)
    fixture.check(f'{case}/out', released.turned(out))
    released.check_rows(fixture, f'{case}/sample', samples)
    released.check_rows(fixture, f'{case}/pred_xstart', x_0)


@pytest.mark.parity
@pytest.mark.parametrize('case, clip', [('noclip', None), ('clip', 1.0)])
def test_released_estimates(case, clip):
    """Example 0 is at level 6 of 50, example 1 at level 0: the first estimates of two samplers that start there."""
    fixture, full = reference.load('diffiner'), spaced(guided(), 'ddim50')
    x, found = jnp.asarray(released.turned(fixture.inputs['x_p'])), []
    for i, level in enumerate(fixture.inputs['t_p']):
        levels = Schedule(full.beta[:level + 1], full.t[:level + 1])
        with jax.disable_jit():
            found.append(ddim.sample(released.denoiser('diffiner'), x, levels, no_draw, clip=clip,
                                     trajectory=True)[2][0][i])
    fixture.check(f'p/{case}/pred_xstart', released.turned(np.stack(found)))
