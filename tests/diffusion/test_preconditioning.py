"""Scalings of a network's input and output: the authors' outputs relative to each other, and the optima."""

import jax.numpy as jnp
import numpy as np
import pytest

from jax_diffse.diffusion.preconditioning import Preconditioning
from jax_diffse.diffusion.processes import Ouve, SbVe, complex_noise
from tests import reference
from tests.diffusion.released import turned


def rule(fixture, case):
    config = fixture.json('config')['objectives'][case]
    return Preconditioning(config.get('loss_type', 'score_matching'), config.get('network_scaling') or 'none',
                           *(config.get(name, default) for name, default in (('c_in', '1'), ('c_out', '1'),
                                                                             ('c_skip', '0'))))


def samples(fixture, case, x):
    """The elements of `[B, T, F, 2]` that the fixture stores."""
    return turned(x).ravel()[::int(fixture[f'{case}/forward/stride'])]


@pytest.mark.parity
@pytest.mark.parametrize('case, known', [('score_t', 'score_v2'), ('denoiser', 'score_v2'),
                                         ('denoiser_sigma', 'score_v2'), ('bridge_sigma', 'bridge')])
def test_released_scalings_of_the_same_network(case, known):
    """The stored elements of one case tell the network's output there, and so those of the cases with equal inputs."""
    fixture = reference.load('sgmse_training')
    process = SbVe() if 'bridge' in case else Ouve()
    clean, noisy, noise = (jnp.asarray(turned(fixture.inputs[name])) for name in ('clean', 'noisy', 'noise'))
    t = jnp.asarray(fixture[f'{case}/t'])
    x = process.diffuse(clean, noisy, complex_noise(noise), t)
    out = fixture[f'{known}/forward/sub'] * (samples(
        fixture, known, np.broadcast_to(process.std(t)[:, None, None, None], x.shape)) if known == 'score_v2' else 1.0)
    raw = np.zeros(x.size, np.float32)
    raw[::int(fixture[f'{known}/forward/stride'])] = out
    raw = turned(raw.reshape(turned(x).shape))
    found = rule(fixture, case).model(lambda x, y, t: jnp.asarray(raw), noisy, process)(x, t)
    deviation, rms = (np.add(fixture.noise[f'{case}/forward/sub'], 0.0))
    reference.assert_close(samples(fixture, case, found), fixture[f'{case}/forward/sub'],
                           reference.tolerance(deviation, rms), f'{case}/forward')


def by_formula(objective, scaling, c_in, c_out, c_skip, x, y, t):
    """With the network (x, y, t) -> 2 x + y + t, in float64; sigma_data is 0.2."""
    s, sigma = 0.2, Ouve().std(t.astype(np.float64)).reshape(-1, 1, 1, 1)
    total, t = sigma**2 + s**2, t.reshape(-1, 1, 1, 1)
    scale = {'1': 1, 'edm': total**-0.5}[c_in]
    out = (2 * scale * x + scale * y + t) / {'none': 1, '1/sigma': sigma, '1/t': t}[scaling]
    if objective == 'denoiser':
        return (out - x) / sigma**2
    return {'0': 0, 'edm': s**2 / total}[c_skip] * x + {
        '1': 1, 'sigma': sigma, '1/sigma': 1 / sigma, 'edm': sigma * s / total**0.5}[c_out] * out


@pytest.mark.parametrize('choices', [
    ('score_matching', 'none', '1', '1', '0'), ('score_matching', '1/t', '1', '1/sigma', '0'),
    ('score_matching', 'none', 'edm', 'edm', 'edm'), ('denoiser', '1/sigma', 'edm', '1', '0'),
    ('data_prediction', 'none', 'edm', 'edm', 'edm'), ('data_prediction', '1/sigma', '1', 'sigma', 'edm')])
def test_every_choice(choices):
    x, y = np.random.default_rng(0).standard_normal((2, 3, 4, 5, 2)).astype(np.float32)
    t = np.float32([0.03, 0.4, 1.0])
    found = Preconditioning(*choices, sigma_data=0.2).model(
        lambda x, y, t: 2 * x + y + t[:, None, None, None], jnp.asarray(y), Ouve())(jnp.asarray(x), jnp.asarray(t))
    expected = by_formula(*choices, x.astype(np.float64), y, t)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5 * np.max(np.abs(expected)))


def test_edm_keeps_inputs_and_targets_at_unit_variance():
    """Karras et al., eqs. 6 to 8, for data of the variance sigma_data^2 and noise of the variance sigma^2."""
    process, t = Ouve(), jnp.array([0.05, 0.5, 1.0])
    rule = Preconditioning('data_prediction', c_in='edm', c_out='edm', c_skip='edm')
    seen, zeros = [], jnp.zeros((3, 1, 1, 2))

    def network(x, y, t):
        seen.append(x)
        return zeros

    skipped = rule.model(network, zeros, process)(zeros + 1, t)[:, 0, 0, 0]
    scale_in, sigma = seen[0][:, 0, 0, 0], process.std(t)
    scale_out = rule.model(lambda x, y, t: zeros + 1, zeros, process)(zeros, t)[:, 0, 0, 0]
    np.testing.assert_allclose(scale_in**2 * (sigma**2 + 0.1**2), 1, rtol=1e-5)
    left = (1 - skipped)**2 * 0.1**2 + skipped**2 * sigma**2  # what is left for the network to predict
    np.testing.assert_allclose(left / scale_out**2, 1, rtol=1e-4)


@pytest.mark.parametrize('fields, message', [
    ({'objective': 'x0'}, "objective must be one of .*, got 'x0'"),
    ({'network_scaling': '1/sigma^2'}, "network_scaling must be one of .*, got '1/sigma\\^2'"),
    ({'c_out': 'none'}, "c_out must be one of .*, got 'none'"),
    ({'sigma_data': 0.0}, 'sigma_data: expected a positive number, got 0'),
])
def test_unknown_choices_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        Preconditioning(**fields)
