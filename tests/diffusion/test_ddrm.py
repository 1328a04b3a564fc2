"""Refinement by posterior sampling: Gaussian targets, whose posterior is known, and every step of the authors' code."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jax_diffse.diffusion import ddim, ddrm
from jax_diffse.diffusion.ddrm import Diffiner, DiffinerPlus
from jax_diffse.diffusion.schedule import Schedule, guided, spaced
from tests import reference
from tests.diffusion import gaussian, released

TEN = spaced(guided(), 'ddim10')  # sigma from 0.005 to 103
MEAN, VARIANCE = 0.7, 0.3  # of the target
SAFE = 1e-5
ETA_C = DiffinerPlus(0.3, 0.6, 0.5)


def refine(rule, y, sigma_hat, draw, *, schedule=TEN, denoise=None, start=None, mask=None):
    """The result, the samples before each step and the estimates of x_0."""
    x = draw(len(schedule) - 1, ddrm.START) if start is None else start
    denoise = denoise or gaussian.denoiser(schedule, MEAN, VARIANCE)
    observation = ddrm.Observation(jnp.broadcast_to(y, x.shape), sigma_hat, mask)
    return ddrm.sample(denoise, x, schedule, observation, rule, draw,
                       trajectory=True)


def drawn(shape, seed: int = 0):
    """Draws `[10, 4, *shape]`, by level and purpose."""
    return np.random.default_rng(seed).standard_normal((10, 4, *shape)).astype(np.float32)


def refined(rule, y, sigma_hat, noise, **settings):
    """`refine` with given draws, as one program."""
    noise = jnp.asarray(noise)
    return jax.jit(lambda: refine(rule, y, sigma_hat, lambda level, which: noise[level, which], **settings))()


# ------------------------------------------------------------------------------------------- the steps, in float64


def estimated(level: float, x):
    """x_0 and the noise in x at this alpha_bar."""
    eps = np.sqrt(1 - level) * (x - np.sqrt(level) * MEAN) / (level * VARIANCE + 1 - level)
    return (x - np.sqrt(1 - level) * eps) / np.sqrt(level), eps


def step_by_hand(rule, s: int, x, y, sigma_hat, z, mask=False):
    """One step of the algorithm, bins `[B, D]`, from level s to s - 1. `z`: its draws by purpose."""
    below = TEN.alpha_bar[s - 1] if s else 1.0
    sigma = np.sqrt((1 - below) / below)
    x_0, eps = estimated(TEN.alpha_bar[s], x)
    far = (1 - rule.eta_b) * x_0 + rule.eta_b * y
    far += np.sqrt(np.maximum(sigma**2 - rule.eta_b**2 * sigma_hat**2, 0)) * z[ddrm.FAR]
    to_y = sigma * (y - x_0) / (sigma_hat + SAFE)
    if isinstance(rule, Diffiner):
        near = x_0 + np.sqrt(1 - rule.eta_a**2) * to_y + rule.eta_a * sigma * z[ddrm.NEAR]
    else:
        counts = np.broadcast_to(sigma <= sigma_hat, x.shape)
        dot, a, b = (np.sum(np.where(counts, product, 0), axis=1, keepdims=True)
                     for product in (eps * to_y, eps**2, to_y**2))
        cosine = np.divide(dot, np.sqrt(a * b), where=a * b > 0, out=np.zeros_like(dot))
        left = 1 - rule.eta_a**2 - rule.eta_c**2 - 2 * rule.eta_a * rule.eta_c * cosine
        near = x_0 + rule.eta_a * sigma * eps + rule.eta_c * to_y + sigma * np.sqrt(left) * z[ddrm.NEAR]
        free = x_0 + rule.eta_d * sigma * eps + sigma * np.sqrt(1 - rule.eta_d**2) * z[ddrm.MASKED]
        near = np.where(mask, free, near)
    return np.sqrt(below) * np.where(sigma > sigma_hat, far, near)


RULES = [Diffiner(), Diffiner(0.2, 1.0), DiffinerPlus(), DiffinerPlus(1.0, 0.0), ETA_C, DiffinerPlus(0.0, 1.0, 1.0)]
SIGMA_HATS = np.float32([[1e-3, 0.03, 0.4, 2.5, 20, 300]])


@pytest.mark.parametrize('rule, mask', [*((rule, None) for rule in RULES), (ETA_C, np.arange(6)[None] % 2 == 0)])
def test_every_step_by_hand(rule, mask):
    """With a sigma_hat between any two levels, and three different examples."""
    noise, y = drawn((3, 6)), 5 * drawn((3, 6), seed=1)[0, 0]
    settings = {} if mask is None else {'mask': jnp.asarray(mask)}
    out, before, x_0 = (np.asarray(v, np.float64) for v in refined(rule, y, SIGMA_HATS, noise, **settings))
    after = [*before[1:], out]
    np.testing.assert_array_equal(before[0], noise[-1, ddrm.START])
    for k, s in enumerate(reversed(range(10))):
        expected = step_by_hand(rule, s, before[k], y, SIGMA_HATS, noise[s], False if mask is None else mask)
        np.testing.assert_allclose(after[k], expected, rtol=1e-4, atol=1e-4, err_msg=f'level {s}')
        np.testing.assert_allclose(x_0[k], estimated(TEN.alpha_bar[s], before[k])[0], rtol=1e-3, atol=1e-4)


def recursion(rule, y):
    """Mean and variance `[6]` after every step from N(0, 1): steps are affine in the sample and in the draws."""
    mean, variance, none = np.zeros((1, 6)), np.ones((1, 6)), np.zeros(4)
    for s in reversed(range(10)):
        after, further, noisier = (step_by_hand(rule, s, x, y, SIGMA_HATS, z)
                                   for x, z in ((mean, none), (mean + 1, none), (mean, none + 1)))
        mean, variance = after, (further - after)**2 * variance + (noisier - after)**2
        yield mean[0], variance[0]


@pytest.mark.parametrize('rule', [Diffiner(), DiffinerPlus(), DiffinerPlus(0.0, 0.3, 0.8)])
def test_moments_of_refined_gaussians(rule):
    def visit(draw):
        out, before, _ = refine(rule, 1.5, SIGMA_HATS, draw)
        return jnp.concatenate([before[1:], out[None]])

    expected = np.stack(list(recursion(rule, 1.5)), axis=1)
    np.testing.assert_allclose(gaussian.moments(visit, 10, 4, (6,)), expected, rtol=1e-3, atol=1e-5)


# ------------------------------------------------------------------------------------------------- what is known


def ladder(num_levels: int, largest: float, ratio: float) -> Schedule:
    """Levels of standard deviations `largest`, `ratio` of it, and so on; and one that is twice as large."""
    sigma = np.append(largest * ratio**np.arange(num_levels)[::-1], 2 * largest)
    alpha_bar = 1 / (1 + sigma**2)
    return Schedule(1 - alpha_bar / np.append(1.0, alpha_bar[:-1]), np.arange(num_levels + 1.0))


def refined_posterior(num_levels: int, y: float, sigma_hat: float):
    """Mean and variance of the result, down to a thousandth of the observation's noise, of the ancestral sampler.

    eta_b = 1 starts it from the observation, at the level of the observation's noise. eta_a = sigma_{s-1} / sigma_s
    makes every further step that of q(x_{s-1} | x_s, x_0).
    """
    ratio = 1e-3**(1 / num_levels)
    schedule = ladder(num_levels, sigma_hat * (1 + 1e-6), ratio)  # above it: the first step is still a far one
    rule = DiffinerPlus(eta_a=ratio, eta_b=1.0)
    found = gaussian.moments(lambda draw: refine(rule, y, jnp.float32(sigma_hat), draw, schedule=schedule)[0][None],
                             len(schedule), 4)
    return np.concatenate(found)


def test_the_posterior_is_sampled():
    """Of a Gaussian target: exact in the mean, and in the variance to first order in the distance of levels."""
    y, noise = 1.9, 0.8
    mean = (MEAN * noise**2 + VARIANCE * y) / (VARIANCE + noise**2)
    variance = VARIANCE * noise**2 / (VARIANCE + noise**2)
    found = np.array([refined_posterior(n, y, noise) for n in (50, 100, 200)])
    np.testing.assert_allclose(found[:, 0], mean, rtol=1e-5)
    error = variance - found[:, 1]
    assert 0 < error[-1] < 0.05 * variance
    np.testing.assert_allclose(error[:-1] / error[1:], 2, rtol=0.1)


@pytest.mark.parametrize('rule', [Diffiner(0.9, 1.0), DiffinerPlus(0.4, 1.0)])
def test_without_noise_the_observation_is_returned(rule):
    """But for the prior's view of it at the lowest level: E[x_0 | y + sigma z], sigma = 0.005."""
    sigma = np.sqrt(1 / TEN.alpha_bar[0] - 1)
    noise, y = drawn((1, 5)), np.float32([[-3, -1, 0, 1, 30]])
    out, *_ = refined(rule, y, jnp.float32(0), noise)
    shrinkage = VARIANCE / (VARIANCE + sigma**2)
    np.testing.assert_allclose(out, MEAN + shrinkage * (y + sigma * noise[1, ddrm.FAR] - MEAN), rtol=1e-4, atol=1e-5)
    assert np.max(np.abs(out - y)) < 4 * sigma


def test_without_information_it_is_unconditional_sampling():
    """DiffinerPlus that follows the estimated noise alone is DDIM; neither has anything left to draw."""
    noise = drawn((2, 5))
    denoise = gaussian.denoiser(TEN, MEAN, VARIANCE)
    out, before, x_0 = refined(DiffinerPlus(eta_a=1.0), 1e6, jnp.float32(np.inf), noise)
    expected, after, expected_x_0 = jax.jit(lambda: ddim.sample(
        denoise, noise[-1, ddrm.START], TEN, lambda level, which: None, trajectory=True))()
    np.testing.assert_allclose(before[1:], after[:-1], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(x_0, expected_x_0, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(out, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize('sigma_hat', [1e3, np.inf])
def test_fresh_noise_alone_forgets_the_observation(sigma_hat):
    """Diffiner, eta_a = 1: x_0 + sigma z at every level, whatever was observed."""
    noise = drawn((2, 5))
    (out, before, x_0), (other, *_) = (refined(Diffiner(eta_a=1.0), y, jnp.float32(sigma_hat), noise) for y in (0, 1e6))
    np.testing.assert_array_equal(other, out)
    below = TEN.alpha_bar_previous[:0:-1, None, None]
    expected = np.sqrt(below) * x_0[:-1] + np.sqrt(1 - below) * noise[:0:-1, ddrm.NEAR]
    np.testing.assert_allclose(before[1:], expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(out, x_0[-1])


# --------------------------------------------------------------------------------------------- bins and examples


def test_masked_bins_do_not_depend_on_what_was_observed_there():
    """No observation: an infinite sigma_hat. The cosine of the others is not affected either."""
    mask, noise = jnp.array([[True, False, True, False]]), drawn((2, 4))
    sigma_hat = jnp.where(mask, jnp.inf, 30.0)
    y = np.float32([[1, 2, 3, 4]])
    one, two = (refined(ETA_C, observed, sigma_hat, noise, mask=mask)[0] for observed in (y, np.where(mask, 1e5, y)))
    np.testing.assert_array_equal(one, two)
    three = refined(ETA_C, np.where(mask, y, 2 * y), sigma_hat, noise, mask=mask)[0]
    np.testing.assert_array_equal(three[:, ::2], one[:, ::2])
    assert np.all(np.abs(three - one)[:, 1::2] > 1e-2)


def test_an_example_does_not_depend_on_its_neighbours():
    """The authors' cosine, over the whole batch, does."""
    noise, y = drawn((3, 8)), 3 * drawn((3, 8), seed=2)[0, 0]
    sigma_hat = np.abs(drawn((3, 8), seed=3)[0, 0])
    for as_released in (False, True):
        rule = DiffinerPlus(0.5, 0.6, 0.4, released=as_released)
        together = refined(rule, y, sigma_hat, noise)[0][1]
        alone = refined(rule, y[1:2], sigma_hat[1:2], noise[:, :, 1:2])[0][0]
        assert np.allclose(together, alone, atol=1e-5) == (not as_released)


def test_one_evaluation_per_level():
    seen, noise = [], jnp.ones((2, 3))

    def denoise(x, t):
        jax.debug.callback(lambda t: seen.append(np.array(t)), t, ordered=True)
        return x

    jax.block_until_ready(jax.jit(lambda: refine(DiffinerPlus(), 1.0, jnp.float32(1), lambda level, which: noise,
                                                 denoise=denoise))())
    jax.effects_barrier()
    np.testing.assert_array_equal(seen, np.repeat(TEN.t[::-1, None], 2, axis=1))


@pytest.mark.parametrize('make', [Diffiner, DiffinerPlus])
@pytest.mark.parametrize('name, value', [('eta_a', -0.1), ('eta_a', 1.1), ('eta_b', 2)])
def test_shares_out_of_range_are_refused(make, name, value):
    with pytest.raises(ValueError, match=f'{name} must be between 0 and 1, got {value:g}'):
        make(**{name: value})


def test_further_shares_out_of_range_are_refused():
    """eta_a + eta_c up to 1: more could leave a negative variance."""
    for name in ('eta_c', 'eta_d'):
        with pytest.raises(ValueError, match=f'{name} must be between 0 and 1, got -1'):
            DiffinerPlus(**{name: -1})
    with pytest.raises(ValueError, match=r'eta_a \+ eta_c must not exceed 1, .* got 0.6 \+ 0.5'):
        DiffinerPlus(eta_a=0.6, eta_c=0.5)
    DiffinerPlus(eta_a=0.5, eta_c=0.5)


def test_a_mask_without_a_rule_for_it_is_refused():
    with pytest.raises(ValueError, match='a mask needs the rule DiffinerPlus'):
        refine(Diffiner(), 1.0, jnp.float32(1), lambda level, which: jnp.ones((1, 2)), mask=jnp.ones((1, 2), bool))


def test_noise_map():
    noisy, processed = np.float32([[3, 4], [1, 1], [0, 0]]), np.float32([[0, 0], [1, 2], [0, 0]])
    np.testing.assert_allclose(ddrm.noise_map(noisy, processed), [[5], [1], [0]])
    np.testing.assert_allclose(ddrm.noise_map(noisy, processed, 'component'), [[np.sqrt(12.5)], [np.sqrt(0.5)], [0]],
                               rtol=1e-6)
    np.testing.assert_allclose(ddrm.noise_map(noisy, processed, floor=0.5, ceiling=3.0), [[3], [1], [0.5]])
    np.testing.assert_allclose(ddrm.noise_map(noisy, processed, 'component', 1.0, 3.0), [[3], [1], [1]])
    with pytest.raises(ValueError, match="kind must be one of .*, got 'power'"):
        ddrm.noise_map(noisy, processed, 'power')


# ------------------------------------------------------------------------------------------- the released samplers


CASES = {'v1': 'v1', 'v1_uneven': 'v1', 'v2': 'v2', 'v2_script': 'v2', 'v2_general': 'v2'}
GOLDEN = {'v1_diffiner': 'v1', 'v2_diffinerplus_paper_etaB': 'v2', 'v2_diffinerplus_script_etaB': 'v2',
          'v2_general_etaC_inpmask': 'v2'}
NAMES = {'v1': ('etaA_ddrm', 'etaB_ddrm'), 'v2': ('etaA', 'etaB', 'etaC', 'etaD')}


def run_released(source: str, kind: str, etas, noisy, processed, noise, mask, schedule=TEN):
    """A released sampler with recorded draws, arrays `[..., 2, F, T]`: the start's first, then from the noisiest level
    down one that is not used and one for each branch."""
    rule = Diffiner(*etas) if kind == 'v1' else DiffinerPlus(*etas, released=True)
    noisy, processed, noise = (released.turned(x) for x in (noisy, processed, np.stack(noise)))
    by_level = noise[1:].reshape(len(schedule), -1, *noise.shape[1:])[::-1]
    sigma_hat = ddrm.noise_map(noisy, processed)
    with jax.disable_jit():
        return sigma_hat, *refine(rule, noisy, sigma_hat, lambda level, which: by_level[level, 1 + which],
                                  schedule=schedule, denoise=released.denoiser(source), start=jnp.asarray(noise[0]),
                                  mask=None if mask is None else jnp.asarray(released.turned(mask) > 0))


@pytest.mark.parity
@pytest.mark.parametrize('case', CASES)
def test_every_step_of_the_released_samplers(case):
    fixture, kind = reference.load('diffiner_sampling'), CASES[case]
    inputs, settings = fixture.inputs, fixture.json('config')[kind][case]
    mask = inputs[settings['inp_mask']] if 'inp_mask' in settings else None
    sigma_hat, out, x, x_0 = run_released('diffiner_sampling', kind, [settings[name] for name in NAMES[kind]],
                                          inputs['noisy'], inputs['proc'], inputs[f'draws/{case}'], mask)
    fixture.check('noise_map', released.turned(sigma_hat)[:, 0])
    fixture.check(f'{case}/out', released.turned(out))
    released.check_rows(fixture, f'{case}/x_t', x)
    released.check_rows(fixture, f'{case}/pred_xstart', x_0)


@pytest.mark.parity
@pytest.mark.parametrize('name', GOLDEN)
def test_every_step_of_the_golden_samplers(name):
    """To 1e-4 of the rms and of each value: some are much larger than the rms."""
    golden, kind = reference.load_golden(f'diffiner/denoiser_{name}.npz'), GOLDEN[name]
    mask = golden['arg_inp_mask'] if 'arg_inp_mask' in golden and golden['arg_inp_mask'].size else None
    _, fields = released.golden_network()
    schedule = spaced(guided(fields['schedule'], fields['training_steps']), f'ddim{len(golden["x_t"])}')
    sigma_hat, out, x, x_0 = run_released('golden', kind, [float(golden[f'arg_{eta}']) for eta in NAMES[kind]],
                                          golden['noisy'], golden['proc'], golden['noise'], mask, schedule)
    found = {'noise_map': released.turned(sigma_hat)[:, 0], 'out': released.turned(out), 'x_t': released.turned(x),
             'pred_xstart_last': released.turned(x_0[-1])}
    for key, actual in found.items():
        expected = golden[key]
        atol = 1e-4 * (np.sqrt(np.mean(expected**2)) + np.abs(expected))
        if key == 'noise_map':
            actual = np.broadcast_to(actual[:, None], expected.shape)
        reference.assert_close(actual, expected, atol, f'{golden.name}:{key}')
