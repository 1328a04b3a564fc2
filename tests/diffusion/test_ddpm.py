"""Ancestral sampling: its mathematics on scalars, and every step of the original PyTorch samplers."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jax_diffse import conversion
from jax_diffse.diffusion import ddpm
from jax_diffse.diffusion.ddpm import GUIDANCE, START, STEP, Ancestral, Guidance
from jax_diffse.diffusion.schedule import Schedule, fast, from_alpha_bar, guided, linear, respaced, spaced
from jax_diffse.networks.two_branch_unet import ConditionalUNet, TwoBranchUNet
from tests import reference
from tests.diffusion import gaussian, released

FULL = linear()
SIX = fast(FULL)
NONE = Guidance()
GUIDED = [NONE, Guidance('released'), Guidance('x0'), Guidance('gradient', 1.0)]


def by_mode(guidance):
    return guidance.mode


def test_diffuse_is_the_forward_process():
    x, noise = np.random.default_rng(0).standard_normal((2, 3, 4, 5)).astype(np.float32)
    alpha_bar = np.float32([0.9, 0.5, 0.1])
    expected = [np.sqrt(a) * x[i] + np.sqrt(1 - a) * noise[i] for i, a in enumerate(alpha_bar)]
    np.testing.assert_allclose(ddpm.diffuse(x, noise, alpha_bar), expected, atol=1e-6)
    np.testing.assert_allclose(ddpm.diffuse(x, noise, jnp.float32(0.5))[1], expected[1], atol=1e-6)


def test_forward_moments():
    """Mean and variance of 400 000 draws, within four standard errors."""
    n, alpha_bar = 400_000, SIX.alpha_bar[-1]
    draw = ddpm.draws(jax.random.split(jax.random.key(0), 4), (n // 4,))
    x = np.asarray(jax.jit(lambda: ddpm.diffuse(jnp.full((4, n // 4), 2.0), draw(5, START), alpha_bar))(), np.float64)
    assert np.mean(x) == pytest.approx(2 * np.sqrt(alpha_bar), abs=4 * np.sqrt((1 - alpha_bar) / n))
    assert np.var(x) == pytest.approx(1 - alpha_bar, abs=4 * (1 - alpha_bar) * np.sqrt(2 / n))


# ------------------------------------------------------------------------------------ samplers of Gaussian targets


def moments(schedule: Schedule, denoise, guidance: Guidance = NONE, *, condition: float | None = None,
            variance: str = 'posterior'):
    """Mean and variance of the samples after each step: `([S], [S])`, in the order of sampling."""
    c = jnp.full(1 + 3 * len(schedule), condition or 0.0)

    def visit(draw):
        x = ddpm.start(c, schedule, draw, from_condition=condition is not None)
        return ddpm.sample(denoise, x, schedule, draw, condition=c, rule=Ancestral(guidance, variance),
                           trajectory=True)[1]

    return gaussian.moments(visit, len(schedule), 3)


def posterior_recursion(schedule: Schedule, target_mean: float, target_variance: float):
    """Mean and variance after each step from N(0, 1), by q(x_{s-1} | x_s, x_0 = E[x_0 | x_s])."""
    mean, variance, found = 0.0, 1.0, []
    for s in reversed(range(len(schedule))):
        level, below = schedule.alpha_bar[s], schedule.alpha_bar[s - 1] if s else 1.0
        alpha = level / below
        of_x_0 = np.sqrt(below) * (1 - alpha) / (1 - level)
        of_x_s = np.sqrt(alpha) * (1 - below) / (1 - level)
        # E[x_0 | x_s] of jointly Gaussian variables
        gain = np.sqrt(level) * target_variance / (level * target_variance + 1 - level)
        offset = target_mean - gain * np.sqrt(level) * target_mean
        mean = of_x_0 * (offset + gain * mean) + of_x_s * mean
        variance = (of_x_0 * gain + of_x_s)**2 * variance + (1 - below) / (1 - level) * (1 - alpha)
        found.append((mean, variance))
    return np.transpose(found)


@pytest.mark.parametrize('schedule', [SIX, fast(FULL, 3), respaced(FULL, 12), FULL], ids=len)
def test_moments_of_gaussian_samples(schedule):
    found = moments(schedule, gaussian.denoiser(schedule, 0.7, 0.3))
    np.testing.assert_allclose(found, posterior_recursion(schedule, 0.7, 0.3), rtol=1e-4, atol=1e-6)


def test_full_schedule_samples_the_target_itself():
    """But for its start, N(0, 1), at a level with some signal left, and its steps' variance, that for a known x_0."""
    mean, variance = moments(FULL, gaussian.denoiser(FULL, 0.7, 0.3))
    assert mean[-1] == pytest.approx(0.7, rel=0.02)
    assert variance[-1] == pytest.approx(0.3, rel=0.06)


def test_samples_have_these_moments():
    """100 000 samples with real draws, within four standard errors."""
    keys = jax.random.split(jax.random.key(1), 4)

    def run():
        draw = ddpm.draws(keys, (25_000,))
        x = ddpm.start(jnp.zeros((4, 25_000)), SIX, draw, from_condition=False)
        return ddpm.sample(gaussian.denoiser(SIX, 0.7, 0.3), x, SIX, draw)

    x = np.asarray(jax.jit(run)(), np.float64)
    mean, variance = posterior_recursion(SIX, 0.7, 0.3)[:, -1]
    assert np.mean(x) == pytest.approx(mean, abs=4 * np.sqrt(variance / x.size))
    assert np.var(x) == pytest.approx(variance, abs=4 * variance * np.sqrt(2 / x.size))


def test_the_variance_beta_is_that_of_a_standard_normal_target():
    """Ho et al., section 3.2: then samples are standard normal at every level. The last step adds no noise."""
    mean, variance = moments(SIX, gaussian.denoiser(SIX, 0.0, 1.0), variance='beta')
    np.testing.assert_allclose(variance, [*np.ones(5), 1 - SIX.beta[0]], rtol=1e-5)
    np.testing.assert_allclose(mean, 0, atol=1e-6)


def test_unknown_variances_are_refused():
    with pytest.raises(ValueError, match="variance must be one of .*, got 'fixed'"):
        ddpm.sample(lambda x, t: x, jnp.ones((1, 2)), SIX, lambda level, which: jnp.ones((1, 2)),
                    rule=Ancestral(variance='fixed'))


def test_clipped_estimates():
    """By Ho et al., eq. 7, whose x_0 is the bounded estimate; the last sample is that estimate itself."""
    x, eps, noise = np.random.default_rng(8).standard_normal((3, 2, 7)).astype(np.float32)
    run = jax.jit(lambda: ddpm.sample(lambda x, t: eps, x, SIX, lambda level, which: noise,
                                      rule=Ancestral(clip=0.5), trajectory=True))
    out, visited, _ = run()
    x_0 = np.clip((x - 0.71518 * eps) / 0.69894, -0.5, 0.5)
    assert np.sum(np.abs(x_0) == 0.5) > 3
    expected = (0.86693 * 0.35 * x_0 + np.sqrt(0.65) * 0.49843**2 * x) / 0.71518**2 + 0.412307 * noise
    np.testing.assert_allclose(visited[0], expected, atol=2e-4)
    np.testing.assert_allclose(out, np.clip((visited[-2] - 0.01 * eps) / np.sqrt(1 - 1e-4), -0.5, 0.5), atol=1e-5)


@pytest.mark.parametrize('num_steps', [1, 2, 6, 12, 200])
def test_one_evaluation_per_step(num_steps):
    schedule, seen = fast(FULL, num_steps), []

    def denoise(x, t):
        jax.debug.callback(lambda t: seen.append(np.array(t)), t, ordered=True)
        return x

    noise = jnp.ones((2, 3))
    jax.block_until_ready(jax.jit(lambda x: ddpm.sample(denoise, x, schedule, lambda level, which: noise,
                                                        condition=x, rule=Ancestral(Guidance('x0'))))(noise))
    jax.effects_barrier()
    np.testing.assert_array_equal(seen, np.repeat(schedule.t[::-1, None], 2, axis=1).astype(np.float32))


@pytest.mark.parametrize('same', [respaced(FULL, 200), fast(FULL, 200), from_alpha_bar(FULL.alpha_bar, FULL)])
def test_a_schedule_respaced_to_full_length_gives_the_same_samples(same):
    draw = ddpm.draws(jax.random.split(jax.random.key(2), 2), (8,))
    x, denoise = draw(0, START), gaussian.denoiser(FULL, 0.7, 0.3)
    expected, actual = (jax.jit(lambda s=s: ddpm.sample(denoise, x, s, draw))() for s in (FULL, same))
    np.testing.assert_allclose(actual, expected, atol=1e-5)


# -------------------------------------------------------------------------------------------------------- guidance


def first_step(guidance: Guidance, x, eps, c, step_noise, guidance_noise):
    """One step down from the noisiest of six levels, for given outputs of the network."""
    noise = {STEP: step_noise, GUIDANCE: guidance_noise}
    return jax.jit(lambda: ddpm.sample(lambda x, t: eps, x, SIX, lambda level, which: noise[which], condition=c,
                                       rule=Ancestral(guidance), trajectory=True)[1][0])()


@pytest.mark.parametrize('guidance', GUIDED, ids=by_mode)
def test_a_guided_step(guidance):
    """By hand, for beta 0.35 and the levels (sqrt of alpha_bar, sqrt of 1 - alpha_bar) below."""
    x, eps, c, step_noise, guidance_noise = np.random.default_rng(3).standard_normal((5, 2, 7)).astype(np.float32)
    (scale, std), (scale_below, std_below), sigma = (0.69894, 0.71518), (0.86693, 0.49843), 0.412307
    plain = (x - 0.35 / std * eps) / np.sqrt(0.65) + sigma * step_noise
    x_0 = (x - std * eps) / scale
    mixed = scale_below * 0.35 / std**2 * (0.5 * x_0 + 0.5 * c) + np.sqrt(0.65) * std_below**2 / std**2 * x
    k = 2 * sigma**2
    expected = {
        'none': plain,
        'released': 0.5 * plain + 0.5 * (scale * c + std * guidance_noise),
        'x0': mixed + sigma * step_noise,
        'gradient': (1 - k) * plain + k * (scale_below * c + std_below * guidance_noise),
    }[guidance.mode]
    np.testing.assert_allclose(first_step(guidance, x, eps, c, step_noise, guidance_noise), expected, atol=2e-4)


def test_x0_guidance_keeps_samples_at_their_level():
    """A network that knows the noise, the condition for target: x_s is sqrt(alpha_bar_s) c, variance 1 - alpha_bar_s.

    The released form does not: its first step mixes levels 4 and 5.
    """
    denoise, below = gaussian.denoiser(SIX, 1.0, 0.0), SIX.alpha_bar_previous[::-1]
    for weight in (0.5, 1.0):
        mean, variance = moments(SIX, denoise, Guidance('x0', weight), condition=1.0)
        np.testing.assert_allclose(mean, np.sqrt(below), rtol=1e-4)
        np.testing.assert_allclose(variance, 1 - below, rtol=1e-3, atol=1e-6)
    assert (mean[0], variance[0]) == (pytest.approx(0.867, abs=5e-4), pytest.approx(0.248, abs=5e-4))
    mean, variance = moments(SIX, denoise, Guidance('released'), condition=1.0)
    assert (mean[0], variance[0]) == (pytest.approx(0.783, abs=5e-4), pytest.approx(0.190, abs=5e-4))


def sample_with(schedule: Schedule, guidance: Guidance):
    """What `ddpm.sample` returns, of a nonlinear network."""
    draw = ddpm.draws(jax.random.split(jax.random.key(4), 2), (5,))
    x, c = draw(0, START), draw(1, START)
    return jax.jit(lambda: ddpm.sample(lambda x, t: jnp.tanh(x + 0.01 * t[:, None]), x, schedule, draw, condition=c,
                                       rule=Ancestral(guidance), trajectory=True))()


@pytest.mark.parametrize('mode', ['released', 'x0', 'gradient'])
def test_guidance_of_weight_zero_is_none(mode):
    x, *_ = sample_with(SIX, Guidance(mode, 0.0))
    expected, *_ = sample_with(SIX, NONE)
    np.testing.assert_allclose(x, expected, atol=1e-6)
    assert np.max(np.abs(sample_with(SIX, Guidance(mode, 0.5))[0] - expected)) > 1e-3


@pytest.mark.parametrize('guidance', GUIDED, ids=by_mode)
def test_the_last_step_has_neither_noise_nor_guidance(guidance):
    x, visited, eps = sample_with(SIX, guidance)
    np.testing.assert_allclose(x, (visited[-2] - 1e-4 / 0.01 * eps[-1]) / np.sqrt(1 - 1e-4), atol=1e-5)
    np.testing.assert_array_equal(x, visited[-1])


def test_gradient_guidance_beyond_the_condition_is_refused():
    """sigma is at most 0.412307 with six steps: 2 w sigma^2 is 1 for w = 2.941."""
    Guidance('gradient', 2.94).check(SIX)
    with pytest.raises(ValueError, match='too large for gradient guidance: .* reaches 1.02 with 6 steps'):
        sample_with(SIX, Guidance('gradient', 3.0))


@pytest.mark.parametrize('mode', ['released', 'x0', 'gradient'])
def test_guidance_needs_a_condition(mode):
    with pytest.raises(ValueError, match=f'{mode} guidance needs a condition'):
        ddpm.sample(lambda x, t: x, jnp.ones((1, 2)), SIX, lambda level, which: jnp.ones((1, 2)),
                    rule=Ancestral(Guidance(mode)))


@pytest.mark.parametrize('mode, weight', [('x0', 1.1), ('released', 1.1), ('gradient', -0.1), ('none', -1)])
def test_weights_out_of_range_are_refused(mode, weight):
    with pytest.raises(ValueError, match=f'guidance_weight: expected 0 to 1 .* got {weight:g}'):
        Guidance(mode, weight)


def test_unknown_guidance_is_refused():
    with pytest.raises(ValueError, match="guidance must be one of .*, got 'x1'"):
        Guidance('x1')


# ------------------------------------------------------------------------------------------------- start and draws


def test_start():
    noise, c = np.random.default_rng(5).standard_normal((2, 3, 4)).astype(np.float32)
    levels = []

    def draw(level, which):
        levels.append((int(level), which))
        return noise

    np.testing.assert_allclose(ddpm.start(c, SIX, draw), 0.69894 * c + 0.71518 * noise, atol=2e-5)
    np.testing.assert_array_equal(ddpm.start(c, SIX, draw, from_condition=False), noise)
    assert levels == 2 * [(5, START)]


def test_draws_are_those_of_the_example_whatever_its_neighbours_and_padding():
    keys = jax.random.split(jax.random.key(6), 3)
    together = ddpm.draws(keys, (12, 5, 2))(4, STEP)
    alone = ddpm.draws(keys[1:2], (7, 5, 2))(4, STEP)
    np.testing.assert_array_equal(together[1, :7], alone[0])


def test_draws_differ_between_examples_levels_and_purposes():
    draw = ddpm.draws(jax.random.split(jax.random.key(7), 2), (2,))
    values = np.stack([draw(level, which) for level in (0, 1, 5) for which in (STEP, GUIDANCE, START)])
    assert len(np.unique(values)) == values.size


def test_frame_draws_are_those_of_the_frame_whatever_follows_it():
    keys = jax.random.split(jax.random.key(9), 3)
    together = jax.jit(lambda: ddpm.frame_draws(keys, (12, 5, 2))(4, STEP))()
    alone = jax.jit(lambda: ddpm.frame_draws(keys[1:2], (7, 5, 2))(4, STEP))()
    assert together.shape == (3, 12, 5, 2)
    np.testing.assert_array_equal(together[1, :7], alone[0])


def test_frame_draws_are_independent_standard_normal():
    """Within four standard errors; and no two numbers of two examples, levels and purposes are the same."""
    draw = ddpm.frame_draws(jax.random.split(jax.random.key(10), 2), (200, 250))
    which = ((0, STEP), (0, START), (3, STEP))
    values = np.asarray(jax.jit(lambda: jnp.stack([draw(level, purpose) for level, purpose in which]))())
    n = values[0, 0].size
    np.testing.assert_allclose(values.mean(axis=(2, 3)), 0, atol=4 / np.sqrt(n))
    np.testing.assert_allclose(values.var(axis=(2, 3)), 1, atol=4 * np.sqrt(2 / n))
    assert np.max(np.abs(np.corrcoef(values.reshape(6, n)) - np.eye(6))) < 4 / np.sqrt(n)
    frames = values[0, 0]
    assert abs(np.mean(frames[1:] * frames[:-1])) < 4 / np.sqrt(n)


# ----------------------------------------------------------------------------------------- the released samplers


BASE = {'c_gen': 'base'}  # what the kind of its checkpoint calls it


@functools.cache
def network(source: str, name: str):
    """Converted variables of a network of full size, from the fixture or a checkpoint of the larger reference set."""
    if source.endswith('.npz'):
        checkpoint = reference.load_golden(source)[f'{name if name in ("c_gen", "refiner") else "ddpm"}_checkpoint']
        weights = conversion.read_state_dict(reference.golden(f'dr_diffuse/{checkpoint}'))
    else:
        weights = reference.load(source).state_dict(f'{name}/')
    kind = f'dr-diffuse-{BASE.get(name, name)}'
    return {collection: tree for collection, groups in conversion.from_weights(kind, weights).items()
            for tree in groups.values()}


def to_jax(x, multiple: int):
    """`[..., 2, T, F]` -> `[..., T, F, 2]`, zero frames appended: cases of similar length share a program."""
    x = np.moveaxis(np.asarray(x), -3, -1)
    return np.pad(x, [(0, 0)] * (x.ndim - 3) + [(0, -x.shape[-3] % multiple), (0, 0), (0, 0)])


def to_torch(x, num_frames: int):
    return np.moveaxis(np.asarray(x), -1, -3)[..., :num_frames, :]


apply_unet = jax.jit(TwoBranchUNet().apply)


def enhanced(variables, x):
    """Output of a condition generator or refiner, `[B, 2, T, F]` as in the reference."""
    frames = x.shape[2]
    outputs = [apply_unet(variables, to_jax(example[None], 40), jnp.array([frames])) for example in x]
    return to_torch(np.concatenate(outputs), frames)


@functools.partial(jax.jit, static_argnames=('two_branch', 'schedule', 'guidance'))
def visited(variables, condition, noise, num_frames, *, two_branch, schedule, guidance):
    """The start and the samples after each step `[S + 1, ...]`, the network's outputs `[S, ...]`."""
    def denoise(x, t):
        return ConditionalUNet(two_branch).apply(variables, x, condition, t, num_frames)

    def draw(level, which):
        return noise[level, which]

    x = ddpm.start(condition, schedule, draw)
    _, samples, eps = ddpm.sample(denoise, x, schedule, draw, condition=condition, rule=Ancestral(guidance),
                                  trajectory=True)
    return jnp.concatenate([x[None], samples]), eps


def placed(noise, num_steps: int, guided: bool):
    """Recorded draws by level and purpose: first the start's, then from the noisiest level down; level 0 has none."""
    rest = iter(noise)
    found = np.zeros((num_steps, 3, *np.shape(noise[0])), np.float32)
    found[-1, START] = next(rest)
    for level in range(num_steps - 1, 0, -1):
        for which in (STEP, GUIDANCE) if guided else (STEP,):
            found[level, which] = next(rest)
    assert not list(rest)
    return found


def run_released(source: str, settings: dict, feats, noise):
    """The released enhancer with recorded noise; all arrays that the reference may hold, by its names."""
    schedule = SIX if settings['fast_sampling'] else FULL
    guidance = Guidance('released', 0.5) if settings['c_guidance'] else NONE
    condition = enhanced(network(source, 'c_gen'), feats) if settings['c_gen'] else feats
    x, eps = visited(network(source, settings['denoiser']), to_jax(condition, 4),
                     to_jax(placed(noise, len(schedule), settings['c_guidance']), 4),
                     jnp.full(len(feats), feats.shape[2]), two_branch=settings['denoiser'] == 'diffuse',
                     schedule=schedule, guidance=guidance)
    x, eps = to_torch(x, feats.shape[2]), to_torch(eps, feats.shape[2])
    refiner_in = 0.5 * x[-1] + 0.5 * feats
    out = enhanced(network(source, 'refiner'), refiner_in) if settings['refine'] else x[-1]
    return {'condition': condition, 'x': x, 'eps': eps, 'refiner_in': refiner_in, 'out': out}


@pytest.mark.parity
@pytest.mark.parametrize('case', ['guided', 'plain', 'concat', 'full'])
def test_every_step_of_the_released_samplers(case):
    fixture = reference.load('dr_diffuse_sampling')
    feats, noise, settings = fixture.inputs[f'{case}/feats'], fixture.inputs[f'{case}/noise'], f'{case}/settings'
    found = run_released('dr_diffuse_sampling', fixture.json(settings), feats, noise)
    for key in ('x', 'eps'):
        fixture.check_table(f'{case}/{key}', dict(zip(fixture.names(f'{case}/{key}'), found[key], strict=True)))
    compared = [key for key in ('condition', 'refiner_in', 'out') if f'{case}/{key}/stride' in fixture]
    for key in compared:
        fixture.check(f'{case}/{key}', found[key])
    assert 'out' in compared


@pytest.mark.parity
@pytest.mark.parametrize('name', ['a_diffuse_cgen_guidance_refine', 'b_diffuse_plain', 'c_diffusec_cgen'])
def test_every_step_of_the_golden_samplers(name):
    """To 1e-4 of the rms."""
    source = f'dr_diffuse/sampler_{name}.npz'
    golden = reference.load_golden(source)
    settings = {key: bool(golden[key]) for key in ('c_gen', 'c_guidance', 'refine')}
    settings |= {'fast_sampling': len(golden['trajectory']) == len(SIX) + 1,
                 'denoiser': str(golden['ddpm_checkpoint']).removesuffix('.pth')}
    found = run_released(source, settings, golden['feats'], golden['noise'])
    steps = {f'trajectory[{k}]': (found['x'][k], expected) for k, expected in enumerate(golden['trajectory'])}
    steps |= {key: (found[key], golden[key]) for key in ('condition', 'out') if key in golden}
    for key, (actual, expected) in steps.items():
        reference.assert_close(actual, expected, 1e-4 * np.sqrt(np.mean(expected**2)), f'{golden.name}:{key}')


@pytest.mark.parity
def test_released_forward_process():
    fixture = reference.load('dr_diffuse_sampling')
    x, (noise,) = fixture.inputs['q_sample/labels'], fixture.inputs['q_sample/noise']
    alpha_bar = FULL.alpha_bar[fixture.inputs['q_sample/t']].astype(np.float32)
    fixture.check('q_sample/x_t', ddpm.diffuse(jnp.asarray(x), jnp.asarray(noise), jnp.asarray(alpha_bar)))


# ------------------------------------------------------------------------- the sampler of guided diffusion, in Diffiner


@pytest.mark.parity
@pytest.mark.parametrize('case, clip', [('ddpm', None), ('ddpm_clip', 1.0)])
def test_every_step_of_guided_diffusion(case, clip):
    """Its variance is beta; there is also one at the last step, which is not drawn."""
    fixture, levels = reference.load('diffiner_sampling'), spaced(guided(), 'ddim10')
    noise, start = released.turned(fixture.inputs[f'draws/{case}'])[::-1], released.turned(fixture.inputs['x_T'])
    with jax.disable_jit():
        out, samples, eps = ddpm.sample(released.denoiser('diffiner_sampling'), jnp.asarray(start), levels,
                                        lambda level, which: noise[level],
                                        rule=Ancestral(variance='beta', clip=clip), trajectory=True)
    fixture.check(f'{case}/out', released.turned(out))
    released.check_rows(fixture, f'{case}/sample', samples)
    scale = np.sqrt(levels.alpha_bar[::-1]).reshape(-1, 1, 1, 1, 1)
    x_0 = (np.stack([start, *samples[:-1]]) - np.sqrt(1 - scale**2) * eps) / scale
    released.check_rows(fixture, f'{case}/pred_xstart', x_0 if clip is None else np.clip(x_0, -clip, clip))


def first_step_from(levels: Schedule, x, noise: float, clip: float | None):
    """One step down from the noisiest of these levels: what follows is not looked at."""
    with jax.disable_jit():
        return ddpm.sample(released.denoiser('diffiner'), x, levels, lambda level, which: jnp.full(x.shape, noise),
                           rule=Ancestral(variance='beta', clip=clip), trajectory=True)[1][0]


@pytest.mark.parity
@pytest.mark.parametrize('case, clip', [('noclip', None), ('clip', 1.0)])
def test_mean_and_variance_of_guided_diffusion(case, clip):
    """Example 0 is at level 6 of 50, example 1 at level 0, where the variance is not drawn."""
    fixture, full = reference.load('diffiner'), spaced(guided(), 'ddim50')
    x = jnp.asarray(released.turned(fixture.inputs['x_p']))
    levels = [Schedule(full.beta[:t + 1], full.t[:t + 1]) for t in fixture.inputs['t_p']]
    means = [first_step_from(level, x, 0.0, clip) for level in levels]
    fixture.check(f'p/{case}/mean', released.turned([mean[i] for i, mean in enumerate(means)]))
    if case == 'noclip':
        noisier = first_step_from(levels[0], x, 1.0, clip)
        np.testing.assert_allclose(noisier - means[0], np.sqrt(fixture['p/variance'][0]), rtol=1e-4)
