"""The small guided U-Net of the reference files, and the order of arrays in them."""

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np

from jax_diffse import conversion
from jax_diffse.conversion import diffiner
from jax_diffse.networks.guided_unet import GuidedUNet, UNetConfig
from tests import reference

PREFIX = {'diffiner': 'model.', 'diffiner_sampling': ''}  # of the weights in a fixture


def turned(x):
    """`[..., 2, F, T]` <-> `[..., T, F, 2]`."""
    return np.swapaxes(np.asarray(x), -1, -3)


def golden_network():
    """Weights of the larger reference set, and the fields of the system, with what weights do not tell."""
    weights = conversion.read_state_dict(reference.golden('diffiner/unet_small.pt'))
    config = json.loads(reference.golden('diffiner/unet_small_config.json').read_text())
    network = {'heads': config['num_heads'], 'heads_up': max(config['num_heads_upsample'], 0),
               'head_channels': max(config['num_head_channels'], 0),
               'qkv_order': 'new' if config['use_new_attention_order'] else 'legacy'}
    return weights, {'network': diffiner.model(weights)['network'] | network, 'schedule': config['noise_schedule'],
                     'training_steps': config['diffusion_steps']}


@functools.cache
def denoiser(source: str):
    """The noise in `[B, T, F, 2]` by the weights of a fixture, or of 'golden'.

    To be called by a sampler that is run without compilation, `jax.disable_jit()`: the network is compiled once, and
    not anew into every sampler.
    """
    if source == 'golden':
        weights, fields = golden_network()
    else:
        weights = reference.load(source).state_dict(PREFIX[source])
        fields = diffiner.model(weights)
    variables = {'params': jax.tree.map(jnp.asarray, conversion.from_weights('diffiner', weights)['params']['prior'])}
    run = _network(UNetConfig(**fields['network']))

    def denoise(x, t):
        with jax.disable_jit(False):
            return run(variables, x, t)

    return denoise


@functools.cache
def _network(config: UNetConfig):
    return jax.jit(GuidedUNet(config).apply, compiler_options={'xla_backend_optimization_level': 1})


def check_rows(fixture: reference.Fixture, key: str, rows, missing: int = 0) -> None:
    """Compares what was met at each step, in our order of axes, with the fingerprints of all steps.

    `missing` is the number of steps at the end that `rows` leaves out.
    """
    expected = fixture[f'{key}/fingerprint'][:len(rows)]
    assert len(rows) + missing == len(fixture[f'{key}/fingerprint'])
    deviation, _ = fixture.noise.get(f'{key}/fingerprint', (0.0, 1.0))
    actual = np.stack([reference.fingerprint(key, turned(row)) for row in rows])
    reference.assert_close(actual, expected, reference.tolerance(deviation, 1.0) * expected[:, :1],
                           f'{fixture.name}:{key}')
