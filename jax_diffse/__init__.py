"""Speech enhancement with diffusion and predictive networks, in JAX.

`jax_diffse.load(workdir)(noisy, sample_rate)` enhances an array with a trained run.
"""


def load(workdir, *, step='best'):
    """The `Enhancer` of a run; see `jax_diffse.evaluation.enhancer.load`."""
    from jax_diffse.evaluation import enhancer  # imports JAX, which whoever only wants the package need not wait for

    return enhancer.load(workdir, step=step)
