"""The closed-form models, inputs and draws of `sgmse_sampling.npz`, in our order of axes."""

import jax
import jax.numpy as jnp

from tests import reference
from tests.diffusion.released import turned


def fixture() -> reference.Fixture:
    return reference.load('sgmse_sampling')


def noisy():
    return jnp.asarray(turned(fixture().inputs['toy_y']))


def score(x, t):
    return (0.8 * noisy() - x) / (0.1 + t[:, None, None, None])


def estimate(x, t):
    return 0.7 * noisy() + 0.2 * t[:, None, None, None] * x


def velocity(x, t):
    return (noisy() - 0.5 * x) * (1 + t[:, None, None, None])


def draw(case: str):
    """The recorded draws, whose order of use is that of falling levels."""
    noise = jnp.asarray(turned(fixture().inputs[f'draws/{case}']))[::-1]
    return lambda level, which: noise[level]


def count(sample, network):
    """The times `[S, B]` at which a sampler evaluates a network; `sample` takes the network."""
    seen = []

    def counted(x, t):
        jax.debug.callback(lambda t: seen.append(t), t, ordered=True)
        return network(x, t)

    jax.block_until_ready(jax.jit(lambda: sample(counted))())
    jax.effects_barrier()
    return jnp.stack(seen)
