"""The notebook's refinement: against its PyTorch code, from waveforms, and its steps by hand."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jax_diffse import conversion
from jax_diffse.diffusion import ddrm, notebook
from jax_diffse.diffusion.ddrm import Diffiner, Observation
from jax_diffse.diffusion.schedule import Schedule, guided
from jax_diffse.networks.compact_unet import CompactUNet, CompactUNetConfig
from jax_diffse.spectral import istft, stft
from tests import reference
from tests.diffusion.released import check_rows, turned

FLOOR, CEILING = np.sqrt([1e-5, 97]).astype(np.float32)
FRAMES = 256  # of a block of the released code, and its frequency bins
TWELVE = guided('cosine', 12, largest=0.9999)


def noise_map(noisy, processed):
    return ddrm.noise_map(noisy, processed, floor=FLOOR, ceiling=CEILING)


def spectrogram(waveforms, frames=FRAMES, bins=FRAMES):
    """`[B, 1, N]` -> `[B, frames, bins, 2]`: without DC, silent behind the end."""
    spec = stft(jnp.asarray(waveforms[:, 0]), 2 * bins, bins)[:, :, 1:]
    return jnp.pad(spec, ((0, 0), (0, frames - spec.shape[1]), (0, 0), (0, 0)))


def waveform(spec):
    return istft(jnp.pad(spec, ((0, 0), (0, 0), (1, 0), (0, 0))), spec.shape[2])


@functools.cache
def network(config):
    return jax.jit(CompactUNet(config).apply, compiler_options={'xla_backend_optimization_level': 1})


def denoiser(state_dict, activation):
    """To be called by a sampler that is run without compilation: the network alone is compiled."""
    variables = {'params': conversion.from_weights('compact-unet', state_dict)['params']['prior']}
    config = CompactUNetConfig(**conversion.describe({'compact-unet': state_dict})[1]['network'], activation=activation)
    variables, run = jax.tree.map(jnp.asarray, variables), network(config)

    def denoise(x, t):
        with jax.disable_jit(False):
            return run(variables, x, t)

    return denoise


def refine(denoise, config, start, noisy, processed, noise):
    """sigma_hat, the result, what was met; the draws `noise` of each step in their order."""
    used, sigma_hat = config['timesteps'], noise_map(noisy, processed)
    full = guided('cosine', config.get('diffusion_steps', used), largest=0.9999)
    schedule = Schedule(full.beta[:used], full.t[:used])
    by_level = [jnp.asarray(turned(z)) for z in noise[::-1]]
    with jax.disable_jit():
        return sigma_hat, *notebook.sample(
            denoise, jnp.asarray(start), schedule, Observation(processed, sigma_hat),
            Diffiner(config['eta_a'], config['eta_b']),
            lambda level, which: by_level[int(level)], trajectory=True)


def check_refined(fixture, key, sigma_hat, out, x, x_0):
    """Some bins are much larger than the rms: to 1e-5 of each as well."""
    fixture.check(f'{key}/sigma_hat_squared', turned(sigma_hat**2)[:, 0])
    check_rows(fixture, f'{key}/x_t', x)
    check_rows(fixture, f'{key}/x0_pred', x_0)
    stride, expected = int(fixture[f'{key}/out/stride']), fixture[f'{key}/out/sub']
    atol = fixture.tolerance(f'{key}/out/sub') + 1e-5 * np.abs(expected)
    reference.assert_close(turned(out).ravel()[::stride], expected, atol, f'{key}/out')


# ------------------------------------------------------------------------------------------------------ released code


@pytest.mark.parity
def test_every_step_from_noisy_waveforms_to_a_refined_one():
    fixture = reference.load('compact_unet')
    inputs, config = fixture.inputs, fixture.json('config')['refine']['refine']
    noisy, processed = (spectrogram(inputs[name]) for name in ('noisy', 'enhanced'))
    fixture.check('refine/stft_noisy', turned(noisy))
    fixture.check('refine/stft_enhanced', turned(processed))
    start = turned(np.stack(inputs['draws/refine_init'], axis=1))
    sigma_hat, out, x, x_0 = refine(denoiser(fixture.state_dict(), config['activation']), config, start, noisy,
                                    processed, inputs['draws/refine'])
    check_refined(fixture, 'refine', sigma_hat, out, x, x_0)
    fixture.check('refine/waveform', waveform(out))


@pytest.mark.parity
def test_every_step_with_other_shares_and_fewer_steps():
    fixture = reference.load('compact_unet')
    inputs, config = fixture.inputs, fixture.json('config')['refine']['refine_spec']
    noisy, processed = (jnp.asarray(turned(inputs[f'spec_{name}'])) for name in ('noisy', 'enhanced'))
    start = turned(np.stack(inputs['draws/refine_spec_init'], axis=1))
    found = refine(denoiser(fixture.state_dict(), config['activation']), config, start, noisy, processed,
                   inputs['draws/refine_spec'])
    check_refined(fixture, 'refine_spec', *found)


@pytest.mark.parity
def test_golden_refinement():
    """What is stored are the first frames and samples, as many as there are."""
    golden = reference.load_golden('segan_diffiner_nb/refine.npz')

    def check_first(prefix, x):
        found, = golden.after(prefix)  # it may name a number of frames
        key = prefix + found
        golden.check(key, x[..., :golden[key].shape[-1]])

    bins, frames = golden['init_noise'].shape[-2:]
    noisy, processed = (spectrogram(golden[name], frames, bins) for name in ('noisy', 'enhanced'))
    for name, spec in (('noisy', noisy), ('segan', processed)):
        check_first(f'stft_{name}', turned(spec))
    config = {name: float(golden[name]) for name in ('eta_a', 'eta_b')}
    config |= {name: int(golden[name]) for name in ('timesteps', 'diffusion_steps')}
    denoise = denoiser(conversion.read_state_dict(reference.golden('segan_diffiner_nb/unet_relu.pt')), 'relu')
    sigma_hat, out, x, x_0 = refine(denoise, config, turned(golden['init_noise']), noisy, processed,
                                    golden['step_noise'])
    check_first('sigma_hat_squared', turned(sigma_hat**2)[:, 0])
    golden.check('x_t', turned(x)[..., :int(golden['x_t_frames'])])
    check_first('x0_pred_last', turned(x_0[-1]))
    golden.check('out', turned(out)[..., :golden['out'].shape[-1]])
    golden.check('out_norm', np.linalg.norm(out))
    y = waveform(out)
    golden.check('waveform', y[:, :golden['waveform'].shape[-1]])
    golden.check('waveform_norm', np.linalg.norm(y, axis=1))


@pytest.mark.parity
def test_spectrograms_and_noise_of_the_released_code():
    """Of waveforms that are not a whole number of hops, and of 256 frames of a longer one."""
    fixture = reference.load('compact_unet')
    wave = jnp.asarray(fixture.inputs['wave_48k'])
    fixture.check('preprocess/stft', turned(stft(wave, 512, 256)[:, :FRAMES, 1:]))
    fixture.check('preprocess/stft_short', turned(stft(wave[:, :20_000], 512, 256)[:, :, 1:]))
    y, x = (turned(fixture.inputs[f'variance_{name}']) for name in 'yx')
    fixture.check('variance', turned(noise_map(y, x)**2)[:, 0])


# --------------------------------------------------------------------------------------------------------- mathematics


def drawn(shape, seed):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def test_every_step_by_hand():
    """In float64, with a sigma_hat between any two levels and a linear network."""
    noise, start, processed = drawn((12, 2, 5), 0), drawn((2, 5), 1), 3 * drawn((2, 5), 2)
    sigma_hat = np.float32([[0.01, 0.3, 0.5, 0.8, 4]])
    out, before, estimates = (np.asarray(v, np.float64) for v in jax.jit(lambda: notebook.sample(
        lambda x, t: 0.1 * x + 0.01 * t[:, None], start, TWELVE, Observation(processed, sigma_hat),
        Diffiner(0.6, 0.9), lambda level, which: jnp.asarray(noise)[level], trajectory=True))())
    np.testing.assert_allclose(before[0], np.sqrt(np.maximum(0.9999 - sigma_hat**2, 0)) * start, rtol=1e-5)
    assert before.shape == (10, 2, 5)
    for k, t in enumerate(range(9, -1, -1)):
        level, sigma = TWELVE.alpha_bar[t], np.sqrt(TWELVE.beta[t])
        x_0 = (before[k] - np.sqrt(1 - level) * (0.1 * before[k] + 0.01 * t)) / np.sqrt(level)
        near = x_0 + 0.6 * sigma * (processed - x_0) / sigma_hat + 0.8 * sigma * noise[t]
        far = 0.1 * x_0 + 0.9 * processed + np.sqrt(np.maximum(sigma**2 - 0.81 * sigma_hat**2, 0)) * noise[t]
        np.testing.assert_allclose(estimates[k], x_0, rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(out if t == 0 else before[k + 1], np.where(sigma < sigma_hat, near, far), rtol=1e-4,
                                   atol=1e-4)


@pytest.mark.parametrize(('steps', 'shares', 'message'), [
    (2, (0.8, 0.8), 'expected more than 2 sampling steps, as the first 2 are skipped, got 2'),
    (12, (1.1, 0.8), 'eta_a must be between 0 and 1, got 1.1'),
    (12, (0.8, -1), 'eta_b must be between 0 and 1, got -1'),
])
def test_what_cannot_be_sampled_is_refused(steps, shares, message):
    x = jnp.ones((1, 2))
    with pytest.raises(ValueError, match=message):
        notebook.sample(lambda x, t: x, x, guided('cosine', steps), Observation(x, x), Diffiner(*shares),
                        lambda level, which: x)


@pytest.mark.parity
@pytest.mark.parametrize('num_steps', [50, 12])
def test_released_schedules(num_steps):
    fixture, ours = reference.load('compact_unet'), guided('cosine', num_steps, largest=0.9999)
    np.testing.assert_allclose(ours.beta, fixture[f'schedule/betas_{num_steps}'], rtol=0, atol=1e-12)
    np.testing.assert_allclose(ours.alpha_bar, fixture[f'schedule/alpha_bars_{num_steps}'], rtol=0, atol=1e-12)


@pytest.mark.parity
def test_golden_schedules():
    golden = reference.load_golden('segan_diffiner_nb/schedule.npz')
    for suffix in golden.after('betas_'):
        ours = guided('cosine', len(golden[f'betas_{suffix}']), largest=0.9999)
        for name, values in (('betas', ours.beta), ('alpha_bars', ours.alpha_bar)):
            np.testing.assert_allclose(values, golden[f'{name}_{suffix}'], rtol=0, atol=1e-12)
