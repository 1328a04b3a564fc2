"""Systems with the small networks of the fixtures, as their checkpoints' hyper-parameters make them."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np

from jax_diffse import systems
from jax_diffse.conversion import ncsnpp as conversion
from jax_diffse.networks.ncsnpp import Ncsnpp, NcsnppConfig
from jax_diffse.systems.base import System
from jax_diffse.systems.continuous import GROUP
from tests import reference
from tests.diffusion.released import turned

jit = functools.partial(jax.jit, compiler_options={'xla_backend_optimization_level': 0})


@functools.partial(jax.jit, static_argnums=0)
def _evaluate(config, *args):
    return Ncsnpp(config).apply(*args)


class Compiled:
    """In place of `Ncsnpp` in systems that run without compilation: all share a program, and its gradient."""

    def __init__(self, config: NcsnppConfig):
        self.config = config

    def apply(self, *args):
        return _evaluate(self.config, *args)


def system_of(kind: str, given: dict, **changes) -> System:
    """The system of a checkpoint with the hyper-parameters `given`."""
    found = conversion.filled({'ode' if kind == 'flowse' else 'sde': conversion.KINDS[kind], **given})
    return dataclasses.replace(systems.build(kind, conversion.fields(kind, found)), **changes)


def variables_of(system: System, weights: dict) -> dict:
    """The system's variables from released weights."""
    found = conversion.variables(weights, system.network, system.front_end.num_bins)
    return {'params': {GROUP: jax.tree.map(jnp.asarray, found['params'])}, 'batch_stats': {}}


@functools.cache
def training(case: str):
    """A system, its variables, and the batch, times and noise of a training step in the fixture."""
    fixture = reference.load('sgmse_training')
    config = fixture.json('config')
    given = {**config['objectives'], **config['flows']}[case]
    kind = 'flowse' if case in config['flows'] else 'bridge' if given['sde'] == 'sbve' else 'sgmse'
    sizes = {name: value for name, value in config['model'].items() if name != 'image_size'}
    stft = {name: config['stft'][name] for name in ('n_fft', 'hop_length')}
    released = {} if kind == 'flowse' else {'released': True}
    system = system_of(kind, {'attn_resolutions': [16]} | sizes | stft | given, **released)
    variables = variables_of(system, fixture.state_dict(f"{given.get('backbone', 'ncsnpp')}."))
    count = len(fixture[f'{case}/t'])
    specs = {f'{name}_spec': jnp.asarray(turned(fixture.inputs[name])[:count]) for name in ('clean', 'noisy')}
    length = (config['stft']['num_frames'] - 1) * config['stft']['hop_length']
    waves = {name: np.zeros((count, length), np.float32) for name in ('clean', 'noisy')}  # only their size matters
    batch = {**specs, **waves, 'num_samples': np.full(count, length, np.int32), 'index': np.arange(count)}
    noise = jnp.asarray(turned(fixture.inputs['noise'])[:count]) * np.float32(0.70710678)
    return system, variables, batch, jnp.asarray(fixture[f'{case}/t']), noise
