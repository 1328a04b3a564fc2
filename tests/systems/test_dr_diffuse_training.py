"""DR-DiffuSE: the training of every stage against the original PyTorch code."""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jax_diffse import conversion
from jax_diffse.conversion import layouts
from jax_diffse.diffusion import ddpm
from jax_diffse.systems.dr_diffuse import TRAINING, DrDiffuse
from jax_diffse.training import state as training
from jax_diffse.training.vector import to_trees
from tests import reference
from tests.numerics.precision import double, wide

# Programs that run once or twice: most of their time is their compilation.
jit = functools.partial(jax.jit, compiler_options={'xla_backend_optimization_level': 0})

LEARNING_RATE = 1e-3  # of the released code, as the L2 of OptimizerConfig's default
# As the released code: padding frames take part, the released guidance, and the training stages of the fixtures.
RELEASED = {'mask_padding': False, 'guidance': 'released'}
SYSTEMS = {
    'base_train': DrDiffuse(**RELEASED),
    'diffuse_train': DrDiffuse('diffusion', **RELEASED),
    'diffusec_train': DrDiffuse('diffusion', denoiser='diffusec', condition='noisy', **RELEASED),
    'refiner_train': DrDiffuse('refiner', **RELEASED),
}


def to_jax(x):
    return jnp.moveaxis(jnp.asarray(x), 1, -1)


def to_torch(x):
    return np.moveaxis(np.asarray(x), -1, 1)


def make_batch(feats, labels, frames):
    """A batch whose waveforms have so many frames, with the spectra as they are."""
    return {'noisy_spec': to_jax(feats), 'clean_spec': to_jax(labels), 'num_samples': (jnp.asarray(frames) - 1) * 160}


@dataclasses.dataclass(frozen=True)
class Step:
    """One training step of a stage with everything random given, and what came of it."""

    system: DrDiffuse
    group: str
    variables: Any
    batch: Any
    random: tuple  # of the loss: (t, noise), the draws, or nothing
    gradient: Any
    batch_stats: Any
    metrics: Any

    def in_torch(self, collection: str, tree) -> dict[str, np.ndarray]:
        kind = 'dr-diffuse-diffusec' if self.system.denoiser == 'diffusec' else 'dr-diffuse-diffuse'
        kind = {'c_gen': 'dr-diffuse-base', 'refiner': 'dr-diffuse-refiner'}.get(self.group, kind)
        return layouts.to_torch(conversion.KINDS[kind].entries({}), {collection: {self.group: tree}})


def loss_of(system: DrDiffuse, random: tuple) -> Callable:
    """The loss of the system's stage with its random numbers given."""
    if system.stage == 'c_gen':
        return system.losses['c_gen']
    if system.stage == 'diffusion':
        return lambda variables, batch, key: system.denoiser_loss(variables, batch, *random)
    return lambda variables, batch, key: system.refiner_loss(variables, batch, recorded(random[0], system.steps))


def recorded(noise, steps: int) -> ddpm.Draw:
    """The draws `[2 S - 1, B, ...]` in the order of the released code: the start, then two per step but the last."""
    def draw(level, which):
        return noise[0 if which == ddpm.START else 1 + 2 * (steps - 1 - level) + (which == ddpm.GUIDANCE)]

    return draw


@functools.partial(jit, static_argnums=0)
def gradient_step(system: DrDiffuse, variables, batch, random):
    """Gradient, statistics and metrics of one replica."""
    keys = jax.random.split(jax.random.key(0), len(batch['num_samples']))

    def replica(batch, random):
        group = next(iter(system.losses))
        return training.group_gradient(loss_of(system, random), group, variables, batch, keys, accumulate=1)

    result = jax.vmap(replica, axis_name=training.AXIS)(*jax.tree.map(lambda x: x[None], (batch, random)))
    return to_trees(jax.tree.map(lambda x: x[0], result))


def take_step(system: DrDiffuse, variables, batch, random: tuple = ()) -> Step:
    group, random = next(iter(system.losses)), jax.tree.map(jnp.asarray, random)
    return Step(system, group, variables, batch, random, *gradient_step(system, variables, batch, random))


@functools.partial(jit, static_argnums=(0, 1))
def train_output(system, group, variables, *inputs):
    own = {collection: groups[group] for collection, groups in variables.items()}
    return system._network(group).apply(own, *inputs, train=True, mutable=['batch_stats'])[0]


def merge(*trees):
    """Converted groups -> one variables tree."""
    return {collection: functools.reduce(dict.__or__, (tree[collection] for tree in trees)) for collection in trees[0]}


def adam_step(params, gradient):
    """The difference that the first step makes; of all parameters in one vector, for which little is compiled."""
    leaves, tree = jax.tree.flatten(params)
    params, gradient = (jnp.asarray(np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(values)]))
                        for values in (params, gradient))
    optimizer = training.make_optimizer(training.OptimizerConfig())
    direction, _ = optimizer.update(gradient, optimizer.init(params), params)
    ends = np.cumsum([leaf.size for leaf in leaves])[:-1]
    steps = np.split(-LEARNING_RATE * np.asarray(direction), ends)
    return tree.unflatten([step.reshape(leaf.shape) for step, leaf in zip(steps, leaves, strict=True)])


@functools.cache
def fixture_step(case: str) -> tuple[reference.Fixture, Step]:
    """The step of a case of the fixtures."""
    fixture = reference.load('dr_diffuse_sampling' if case == 'refiner_train' else 'dr_diffuse_nets')
    batch = make_batch(*(fixture.inputs[f'{case}/{key}'] for key in ('feats', 'labels', 'frame_list')))
    parts = {'base_train': {'dr-diffuse-base': 'base_train/'},
             'diffuse_train': {'dr-diffuse-base': 'c_gen/', 'dr-diffuse-diffuse': 'diffuse_train/'},
             'diffusec_train': {'dr-diffuse-diffusec': 'diffusec_train/'},
             'refiner_train': {'dr-diffuse-base': 'c_gen/', 'dr-diffuse-diffuse': 'diffuse/',
                               'dr-diffuse-refiner': 'refiner_train/'}}[case]
    variables = merge(*(conversion.from_weights(kind, fixture.state_dict(prefix)) for kind, prefix in parts.items()))
    random = ()
    if f'{case}/t' in fixture.inputs:
        random = (fixture.inputs[f'{case}/t'], to_jax(fixture.inputs[f'{case}/noise'][0]))
    elif f'{case}/noise' in fixture.inputs:
        random = (np.stack([to_jax(draw) for draw in fixture.inputs[f'{case}/noise']]),)
    return fixture, take_step(SYSTEMS[case], variables, batch, random)


@pytest.mark.parity
@pytest.mark.parametrize('case', SYSTEMS)
def test_training_loss_gradient_and_statistics(case):
    fixture, step = fixture_step(case)
    fixture.check(f'{case}/loss', step.metrics['loss'])
    fixture.check_table(f'{case}/bn', step.in_torch('batch_stats', step.batch_stats[step.group]))
    gradient = step.in_torch('params', step.gradient)
    unused = set(gradient) - set(fixture.names(f'{case}/grad'))
    assert unused == {name for name in gradient if name.startswith('c_deliver.de_') and '.de1.' in name}
    assert not any(np.any(gradient.pop(name)) for name in unused)
    fixture.check_table(f'{case}/grad', gradient, relative=1e-2, of_largest=1e-6)
    # Single slopes may differ where an input crosses zero between two correct computations; the rest agrees.
    norms = dict(zip(fixture.names(f'{case}/grad'), fixture[f'{case}/grad/fingerprint'][:, 0], strict=True))
    errors = [abs(np.linalg.norm(gradient[name]) - norm) / norm for name, norm in norms.items()
              if norm > 1e-6 * max(norms.values())]
    assert np.quantile(errors, 0.98) < 1e-3


@pytest.mark.parity
def test_training_output_of_c_gen():
    fixture, step = fixture_step('base_train')
    output = train_output(step.system, step.group, step.variables, step.batch['noisy_spec'])
    fixture.check('base_train/est_comp', to_torch(output))


@pytest.mark.parity
@pytest.mark.parametrize('case', ['diffuse_train', 'diffusec_train'])
def test_training_input_and_output_of_the_denoisers(case):
    fixture, step = fixture_step(case)
    t, noise = step.random
    x_t = ddpm.diffuse(step.batch['clean_spec'], noise, jnp.asarray(TRAINING.alpha_bar, jnp.float32)[t])
    fixture.check(f'{case}/x_t', to_torch(x_t))
    condition = step.batch['noisy_spec']
    if case == 'diffuse_train':
        condition = jit(step.system._condition)(step.variables, condition, None)
        fixture.check(f'{case}/condition', to_torch(condition))
    output = train_output(step.system, step.group, step.variables, x_t, condition, t)
    fixture.check(f'{case}/est_noise', to_torch(output))


@pytest.mark.parity
def test_training_input_and_output_of_the_refiner():
    fixture, step = fixture_step('refiner_train')
    system, spec = step.system, step.batch['noisy_spec']

    @jit
    def refiner_input(variables, spec, noise):
        condition = system._condition(variables, spec, None)
        x = system._sample(variables, condition, None, recorded(noise, system.steps))
        return system._refiner_input(x, spec)

    x = refiner_input(step.variables, spec, step.random[0])
    fixture.check('refiner_train/refiner_in', to_torch(x))
    fixture.check('refiner_train/est_comp', to_torch(train_output(system, step.group, step.variables, x)))


@pytest.mark.parity
def test_optimizer_step():
    """With small gradients, where gradient, L2 and epsilon all count and the step is a smooth function.

    The gradient is computed in float64: in float32 it depends on the CPU, and on some by more than the step may differ.
    """
    fixture, step = fixture_step('base_train')
    with double():
        exact = take_step(step.system, wide(step.variables), wide(step.batch)).gradient
    gradient = jax.tree.map(lambda g: 1e-5 * np.asarray(g, np.float32), exact)
    update = adam_step(step.variables['params']['c_gen'], gradient)
    fixture.check_table('base_train/update', step.in_torch('params', update), relative=5e-5)


@pytest.mark.parity
def test_three_adam_steps():
    fixture = reference.load('dr_diffuse_nets')
    optimizer = training.make_optimizer(training.OptimizerConfig())
    params = jnp.asarray(fixture.inputs['adam/param'])
    state, history = optimizer.init(params), []
    for i in range(3):
        direction, state = optimizer.update(jnp.asarray(fixture.inputs[f'adam/grad{i}']), state, params)
        params = optax.apply_updates(params, -LEARNING_RATE * direction)
        history.append(params)
    fixture.check('adam/params', np.stack(history))


@pytest.mark.parity
def test_golden_training_step_of_c_gen():
    golden = reference.load_golden('dr_diffuse/train_base.npz')
    variables = golden_variables('dr-diffuse-base=base.pth')
    step = take_step(SYSTEMS['base_train'], variables, golden_batch(golden))
    golden.check('loss', step.metrics['loss'])
    output = train_output(step.system, step.group, step.variables, step.batch['noisy_spec'])
    golden.check('est_comp_train', to_torch(output))
    statistics = step.in_torch('batch_stats', step.batch_stats['c_gen'])
    for name in set(golden.after('buffer/')) & set(statistics):  # torch also counts the batches
        golden.check(f'buffer/{name}', statistics[name])
    check_golden_gradient(golden, step.in_torch('params', step.gradient))
    check_golden_step(golden, step)


@pytest.mark.parity
@pytest.mark.parametrize(('name', 'case', 'files'), [
    ('train_ddpm_diffuse', 'diffuse_train', ('dr-diffuse-base=base.pth', 'dr-diffuse-diffuse=diffuse.pth')),
    ('train_ddpm_diffusec', 'diffusec_train', ('dr-diffuse-diffusec=diffusec.pth',)),
    ('train_refiner', 'refiner_train',
     ('dr-diffuse-base=base.pth', 'dr-diffuse-diffuse=diffuse.pth', 'dr-diffuse-refiner=refiner.pth')),
])
def test_golden_training_step_of_the_later_stages(name, case, files):
    golden = reference.load_golden(f'dr_diffuse/{name}.npz')
    system, noise = SYSTEMS[case], np.moveaxis(golden['noise'], -3, -1)
    if 't' in golden:
        random = (golden['t'], noise)
    else:  # the draws of the sampler: the start's, then two for each step but the last
        system, random = dataclasses.replace(system, steps=(len(noise) + 1) // 2), (noise,)
    step = take_step(system, golden_variables(*files), golden_batch(golden), random)
    golden.check('loss', step.metrics['loss'])
    gradient = step.in_torch('params', step.gradient)
    statistics = step.in_torch('batch_stats', step.batch_stats[step.group])
    for key in golden.keys():
        what, _, weight = key.partition('/')
        if what == 'grad':
            stored = golden[key]
            reference.assert_close(gradient[weight], stored, 1e-2 * np.max(np.abs(stored)), key)
        elif what == 'buffer' and weight in statistics:
            golden.check(key, statistics[weight])


def golden_variables(*files: str):
    pairs = [file.split('=') for file in files]
    return merge(*(conversion.from_weights(kind, conversion.read_state_dict(reference.golden(f'dr_diffuse/{name}')))
                   for kind, name in pairs))


def golden_batch(golden):
    return make_batch(golden['feats'], golden['labels'], golden['frame_list'])


def stored(golden, what: str, sizes) -> dict[str, tuple[np.ndarray, int]]:
    """Name -> what is kept of its array, and of how many elements it is one: all (`what/NAME`) or every k-th
    (`what_sub/NAME`), k the least that keeps no more than some number, which the lengths that are kept tell."""
    sub = {name: golden[f'{what}_sub/{name}'] for name in golden.after(f'{what}_sub/')}
    longest = max(map(len, sub.values()), default=1)
    limit = next(limit for limit in range(longest, 2 * longest) if all(
        -(-sizes[name] // -(-sizes[name] // limit)) == len(kept) for name, kept in sub.items()))
    return {name: (golden[f'{what}/{name}'], 1) for name in golden.after(f'{what}/')} | {
        name: (kept, -(-sizes[name] // limit)) for name, kept in sub.items()}


def check_golden_gradient(golden, gradient):
    norms = dict(zip(map(str, golden['param_names']), golden['grad_norm'], strict=True))
    largest, sizes = max(norms.values()), {name: value.size for name, value in gradient.items()}
    for name, (expected, every) in stored(golden, 'grad', sizes).items():
        atol = 1e-2 * norms[name] + 1e-6 * largest
        reference.assert_close(gradient[name].ravel()[::every], expected.ravel(), atol, f'gradient of {name}')


def check_golden_step(golden, step: Step):
    """Parameters after the step by the gradients that are stored, where both are: of a gradient of rounding noise, the
    sign decides."""
    before = step.in_torch('params', step.variables['params'][step.group])
    sizes = {name: value.size for name, value in before.items()}
    gradients, after = stored(golden, 'grad', sizes), stored(golden, 'post', sizes)
    assert set(after) == set(before)
    both = {name: math.lcm(gradients[name][1], after[name][1]) for name in after}  # every so many elements
    gradient, expected = ({name: kept[name][0].ravel()[::every // kept[name][1]] for name, every in both.items()}
                          for kept in (gradients, after))
    params = {name: before[name].ravel()[::every] for name, every in both.items()}
    found = jax.tree.map(np.add, params, adam_step(params, gradient))
    for name, value in found.items():
        reference.assert_close(value, expected[name], 1e-6 + 1e-6 * np.abs(value), name)
