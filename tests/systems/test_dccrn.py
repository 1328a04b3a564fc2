"""DCCRN: its losses and its training against the original PyTorch code, and the contract of a system."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from jax_diffse import conversion, systems
from jax_diffse.conversion import layouts
from jax_diffse.errors import UserError
from jax_diffse.losses import released
from jax_diffse.systems.base import shapes
from jax_diffse.systems.dccrn import Dccrn, LossWeights
from tests import reference
from tests.networks.test_dccrn import golden_network

# The study's weights, as the specification of the released code gives them.
MODES = {
    'MSE': {'mse': 1}, 'SDR': {'sdr': 1}, 'SI-SNR': {'si_snr': 1}, 'SI-SDR': {'si_sdr': 1},
    'MSE+LMS': {'mse': 1000, 'lms': 1}, 'MSE+SI-SNR': {'mse': 100, 'si_snr': 1}, 'MSE+PMSQE': {'mse': 1, 'pmsqe': 1},
    'SI-SNR+SI-SDR': {'si_snr': 1, 'si_sdr': 1}, 'SDR+LMS': {'sdr': 1, 'lms': 2}, 'SDR+PMSQE': {'sdr': 1, 'pmsqe': 15},
    'SI-SNR+LMS': {'si_snr': 1, 'lms': 2}, 'SI-SNR+PMSQE': {'si_snr': 1, 'pmsqe': 8},
}
# Programs that run once: most of their time is their compilation. The second rounds as one reference set needs it.
jit, jit_exact = (functools.partial(jax.jit, compiler_options={'xla_backend_optimization_level': i}) for i in (0, 1))
TINY = {'channels': (4, 8, 8), 'lstm_units': 8}


def system_of(mode, **fields):
    return Dccrn(loss=LossWeights(**{k: float(v) for k, v in MODES[mode].items()}), **fields)


def make_batch(system, clean, noisy, lengths=None):
    lengths = jnp.asarray([x.shape[0] for x in noisy] if lengths is None else lengths)
    clean, noisy = jnp.asarray(clean), jnp.asarray(noisy)
    return {'clean': clean, 'noisy': noisy, 'num_samples': lengths, 'index': jnp.arange(len(lengths)),
            'clean_spec': system.front_end.analyze(clean, lengths),
            'noisy_spec': system.front_end.analyze(noisy, lengths)}


def mean_loss(system, estimate, batch):
    """Of a batch of estimated waveforms, LMS on their spectra, as the authors' `loss` takes it."""
    terms = system.terms(estimate, system.front_end.analyze(estimate, batch['num_samples']), batch)
    weights = {name: getattr(system.loss, name) for name in terms}
    return jnp.mean(sum(weights[name] * term for name, term in terms.items()) / sum(weights.values()))


@jax.jit
def released_losses(batch):
    """Mode -> value and gradient; of all at once, as most of the time goes into compilation."""
    return {mode: jax.value_and_grad(functools.partial(
        mean_loss, system_of(mode, released_losses=True, mask_padding=False)))(batch['noisy'], batch) for mode in MODES}


@pytest.mark.parity
def test_released_losses_and_their_gradients():
    fixture = reference.load('losses')
    found = released_losses(make_batch(Dccrn(), fixture.inputs['label'], fixture.inputs['est']))
    for mode, (value, gradient) in found.items():
        fixture.check(f'mode/{mode}', value)
        fixture.check(f'mode/{mode}/grad', gradient)


def exact(mode, estimate, target):
    """A released loss of waveforms alone and its gradient, in float64 by the formulas of the specification.

    Also its size: the weighted mean of its terms' magnitudes, of which the loss may be a small difference.
    """
    x, y = (torch.tensor(np.asarray(v, np.float64)) for v in (estimate, target))
    x.requires_grad_()
    scale = torch.sum(x * y, 1, keepdim=True) / (torch.sum(y**2, 1, keepdim=True) + 1e-8)
    along, across = torch.sum((scale * y)**2, 1), torch.sum((x - scale * y)**2, 1)
    sdr = torch.sum(y**2, 1)**2 / (torch.sum((x - y)**2, 1)**2 + 1e-8)  # of squared energies
    terms = {'mse': torch.mean((x - y)**2), 'sdr': -10 * torch.mean(torch.log10(sdr)),
             'si_snr': -10 * torch.mean(torch.log10(along / (across + 1e-8) + 1e-8)),
             'si_sdr': -10 * torch.log10(torch.mean(along / across) + 1e-8)}
    total = sum(MODES[mode].values())
    value, size = (sum(weight * of(terms[name]) for name, weight in MODES[mode].items()) / total
                   for of in (lambda term: term, torch.abs))
    return value.item(), torch.autograd.grad(value, x)[0].numpy(), size.item()


@pytest.mark.parity
def test_golden_losses_and_their_gradients():
    """Of losses of waveforms, ours and the reference are each compared with float64: the reference rounds as well, and
    where two terms nearly cancel, or few samples have most of the gradient, by more than is left of them."""
    golden = reference.load_golden('dccrn/losses.npz')
    found = released_losses(make_batch(Dccrn(), golden['label'], golden['est']))
    for mode, (value, gradient) in found.items():
        stored = golden[f'{mode}/value'], golden[f'{mode}/grad_strided']
        gradient = gradient[:, ::int(golden['grad_stride'])]
        if {'lms', 'pmsqe'} & set(MODES[mode]):
            golden.check(f'{mode}/value', value)
            golden.check(f'{mode}/grad_strided', gradient)
            continue
        expected, expected_gradient, size = exact(mode, golden['est'], golden['label'])
        expected_gradient = expected_gradient[:, ::int(golden['grad_stride'])]
        atol = reference.FLOOR * np.maximum(np.sqrt(np.mean(expected_gradient**2)), np.abs(expected_gradient))
        for whose, (a, b) in (('ours', (value, gradient)), ('theirs', stored)):
            reference.assert_close(a, expected, reference.FLOOR * size, f'{mode}/value, {whose}')
            reference.assert_close(b, expected_gradient, atol, f'{mode}/grad, {whose}')


@pytest.mark.parity
def test_released_si_snr_of_pieces():
    fixture = reference.load('losses')
    found = released.si_snr_of_pieces(*(jnp.asarray(fixture.inputs[name]) for name in ('est', 'label')))
    np.testing.assert_allclose(-found, np.mean(fixture['item/SI-SNR_of_chunks'], axis=1), rtol=1e-5)


def train_step(system, variables, batch, jit=jit):
    """Loss, statistics and gradients of one training step, the latter two under torch's names."""
    def objective(params):
        out = system.losses['dccrn']({**variables, 'params': params}, batch, None)
        return jnp.mean(out.loss), out.batch_stats

    mesh = jax.make_mesh((1,), ('data',), (jax.sharding.AxisType.Auto,), devices=jax.devices()[:1])
    step = jax.shard_map(jax.value_and_grad(objective, has_aux=True), mesh=mesh, in_specs=jax.P(), out_specs=jax.P(),
                         check_vma=False)
    (loss, stats), gradients = jit(step)(variables['params'])
    as_torch = functools.partial(layouts.to_torch, conversion.KINDS['dccrn'].entries(dataclasses.asdict(system)))
    return loss, as_torch({'batch_stats': stats}), as_torch({'params': gradients})


def released_batch(system, noisy, clean):
    """Without the tail beyond a multiple of the hop, which the released network drops; its last frames hear of it."""
    length = noisy.shape[1] // system.hop * system.hop
    batch = make_batch(system, clean[:, :length], noisy[:, :length])
    tail = system.front_end.analyze(jnp.asarray(noisy), jnp.full(len(noisy), noisy.shape[1]))
    return batch | {'noisy_spec': tail[:, :batch['noisy_spec'].shape[1]]}


@pytest.mark.parity
@pytest.mark.parametrize(('prefix', 'mode'), [('clstm/', 'SI-SNR'), ('clstm/', 'SI-SNR+LMS'), ('lstm/', 'SI-SNR'),
                                              ('cbn/', 'SI-SNR')])
def test_training_step_of_the_released_code(prefix, mode):
    fixture = reference.load('dccrn_training')
    weights = fixture.state_dict(prefix)
    _, fields = conversion.describe({'dccrn': weights})
    system = systems.build('dccrn', fields | {'released_losses': True, 'loss': MODES[mode]})
    batch = released_batch(system, fixture.inputs[f'{prefix}noisy'], fixture.inputs[f'{prefix}clean'])
    loss, buffers, gradients = train_step(system, conversion.from_weights('dccrn', weights), batch)
    key = prefix if mode == 'SI-SNR' else f'{prefix}{mode}/'
    fixture.check(f'{key}loss', loss)
    zero = {str(name) for name in fixture[f'{prefix}grad/zero']}
    largest = max(np.linalg.norm(gradient) for gradient in gradients.values())
    for name in zero:  # in front of a normalisation: what is stored is rounding
        assert np.linalg.norm(gradients[name]) < 1e-5 * largest, name
        gradients[name] = np.zeros_like(gradients[name])
    fixture.check_table(f'{key}grad', gradients, of_largest=2e-6)
    if mode == 'SI-SNR':
        fixture.check_table(f'{prefix}buffers', buffers)
        for name in ('encoder.1.1', 'decoder.0.1'):
            for kind in ('RMr', 'RMi', 'RVrr', 'RVri', 'RVii') if prefix == 'cbn/' else ('running_mean', 'running_var'):
                fixture.check(f'{prefix}buffers/{name}.{kind}', buffers[f'{name}.{kind}'])


@pytest.mark.parity
@pytest.mark.parametrize('part', ['a_clstm', 'b_cbn', 'c_lstm'])
def test_golden_training_step(part):
    golden = reference.load_golden(f'dccrn/train_{part}.npz')
    weights, fields = golden_network(str(golden['checkpoint']).removeprefix('dccrn_').removesuffix('.pt'))
    system = systems.build('dccrn', fields | {'released_losses': True, 'loss': MODES[str(golden['loss_mode'])]})
    loss, _, gradients = train_step(system, conversion.from_weights('dccrn', weights),
                                    released_batch(system, golden['noisy'], golden['clean']), jit_exact)
    golden.check('loss', loss)
    for name in golden.after('grad/'):
        golden.check(f'grad/{name}', gradients[name])


@pytest.fixture(scope='module')
def variables():
    return reference.random_variables(shapes(Dccrn(**TINY)))


def noise(batch, length, seed=0):
    return jnp.asarray(0.1 * np.random.default_rng(seed).standard_normal((batch, length)), jnp.float32)


def test_init_draws_what_the_specification_says():
    """Convolutions N(0, 0.05^2) without bias, LSTMs uniform within 1 / sqrt(units), norms the identity."""
    params = Dccrn(channels=(16, 32), lstm_units=64).init(jax.random.key(1))['params']['dccrn']
    kernel = params['encoder_1']['real']['kernel']
    assert np.std(kernel) == pytest.approx(0.05, rel=0.1) and not np.any(params['encoder_1']['real']['bias'])
    recurrent = params['recurrent']['layer0_real']['recurrent']['kernel']
    assert 0.9 * 32 ** -0.5 < np.max(np.abs(recurrent)) <= 32 ** -0.5
    assert np.all(params['encoder_0']['norm']['scale'] == 1)


@pytest.mark.parametrize('mask_padding', [True, False])
def test_every_sample_comes_back_and_padding_changes_none(variables, mask_padding):
    """Nor does it where padding takes part in the training: the released code enhances files without any."""
    system = Dccrn(**TINY, mask_padding=mask_padding)
    x = noise(2, 1730)
    padded = jnp.pad(x, ((0, 0), (0, 1000))).at[1, 1234:].set(0)
    enhance = jit(lambda x, lengths: system.enhance(variables, x, lengths, None))
    enhanced = enhance(padded, jnp.array([1730, 1234]))
    alone = [enhance(x[i:i + 1, :n], jnp.array([n]))[0] for i, n in enumerate((1730, 1234))]
    for i, expected in enumerate(alone):
        assert np.any(expected[-30:])
        np.testing.assert_allclose(enhanced[i, :len(expected)], expected, atol=1e-6)
        assert not np.any(enhanced[i, len(expected):])


def test_silence_stays_silent_with_finite_gradients(variables):
    system = Dccrn(**TINY, loss=LossWeights(1, 1, 1, 1, 1, 1))
    zeros = np.zeros((1, 1600), np.float32)
    lengths = jnp.array([1600])
    assert not np.any(jit(lambda x: system.enhance(variables, x, lengths, None))(jnp.asarray(zeros)))
    batch = make_batch(system, zeros, zeros)

    def objective(params):
        return jnp.mean(system.losses['dccrn']({**variables, 'params': params}, batch, None, train=False).loss)

    value, gradient = jit(jax.value_and_grad(objective))(variables['params'])
    assert np.isfinite(value) and all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(gradient))


def test_padding_examples_have_no_weight_and_padding_no_part_in_the_loss(variables):
    system = Dccrn(**TINY, loss=LossWeights(1, 1, 1, 1, 1, 1))
    clean, noisy = noise(3, 2000), noise(3, 2000, seed=1)
    lengths = np.array([2000, 1450, 0])
    real = np.arange(2000) < lengths[:, None]
    validate = jit(lambda batch: system.losses['dccrn'](variables, batch, None, train=False))
    out = validate(make_batch(system, np.where(real, clean, 0), np.where(real, noisy, 0), lengths))
    np.testing.assert_array_equal(out.weight, [1, 1, 0])
    assert np.all(np.isfinite(out.loss))
    alone = make_batch(system, clean[1:2, :1450], noisy[1:2, :1450])
    expected = validate(alone)
    np.testing.assert_allclose(out.loss[1], expected.loss[0], rtol=1e-4)
    for name, term in expected.metrics.items():
        np.testing.assert_allclose(out.metrics[name][1], term[0], rtol=1e-4, err_msg=name)


def test_the_loss_is_the_weighted_mean_of_its_terms(variables):
    system = Dccrn(**TINY, loss=LossWeights(mse=2.0, sdr=6.0))
    batch = make_batch(system, noise(2, 900), noise(2, 900, seed=1))
    out = jit(lambda batch: system.losses['dccrn'](variables, batch, None, train=False))(batch)
    assert set(out.metrics) == {'mse', 'sdr'}
    np.testing.assert_allclose(out.loss, (2 * out.metrics['mse'] + 6 * out.metrics['sdr']) / 8, rtol=1e-6)


@pytest.mark.parametrize('masking', ['E', 'C', 'R'])
def test_losses_that_ignore_the_sign_of_the_output_tell_it(variables, masking):
    system = Dccrn(**TINY, masking=masking, loss=LossWeights(si_snr=1.0, pmsqe=1.0))
    noisy, lengths = noise(2, 2000), jnp.array([2000, 1600])
    noisy = jnp.where(jnp.arange(2000)[None] < lengths[:, None], noisy, 0)

    @jit
    def run(variables, clean):
        batch = make_batch(system, clean, noisy, lengths)
        out = system.losses['dccrn'](variables, batch, None, train=False)
        return out.loss, out.metrics['inverted'], system.enhance(variables, noisy, lengths, None)

    output = run(variables, noisy)[-1]
    clean = output * jnp.array([[1.0], [-1.0]])  # the second example's output is inverted
    loss, inverted, _ = run(variables, clean)
    other_loss, other_inverted, negated = run(system.negated(variables), clean)
    np.testing.assert_array_equal(inverted, [0, 1])
    np.testing.assert_array_equal(other_inverted, [1, 0])
    np.testing.assert_allclose(negated, -output, atol=1e-5 * np.abs(output).max())
    np.testing.assert_allclose(other_loss, loss, rtol=1e-3)


def test_only_the_released_output_is_clamped(variables):
    x = 30 * noise(1, 800)
    pair = [Dccrn(**TINY, masking='C', clamp=clamp) for clamp in (False, True)]
    free, clamped = jit(lambda x: [system.enhance(variables, x, jnp.array([800]), None) for system in pair])(x)
    assert np.max(np.abs(free)) > 1
    np.testing.assert_allclose(clamped, np.clip(free, -1, 1))


@pytest.mark.parametrize(('fields', 'message'), [
    ({'masking': 'X'}, "config.model: masking must be one of .*, got 'X'"),
    ({'channels': (4,) * 9}, 'config.model: channels: expected 1 or more blocks that halve 256 bins, got 9'),
    ({'channels': (3, 4)}, 'channels, lstm_units: expected even numbers, .* got'),
    ({'loss': {'mse': 0.0, 'si_snr': 0.0}}, 'config.model.loss: expected weights of 0 or more, and not all 0'),
    ({'loss': {'pesq': 1.0}}, 'config.model.loss.pesq: unknown key, expected one of mse, si_snr'),
    ({'hop': 150}, 'expected a window of whole hops, 2 or more, and .* got 400 samples, hop 150'),
    ({'n_fft': 256, 'window': 200, 'hop': 50, 'loss': {'lms': 1.0}}, 'loss.lms is defined for n_fft 512, got 256'),
])
def test_fields_that_do_not_fit_are_named(fields, message):
    with pytest.raises(UserError, match=message):
        systems.build('dccrn', fields)
