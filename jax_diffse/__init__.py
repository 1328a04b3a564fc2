"""Speech enhancement with diffusion and predictive networks, in JAX.

`jax_diffse.load(workdir)(noisy, sample_rate)` enhances an array with a trained run, and
`jax_diffse.load_streaming(workdir)` makes what enhances it block by block, as it comes in.
"""


def load(workdir, *, step='best', preceding=None):
    """The `Enhancer` of a run; see `jax_diffse.inference.enhancer.load`."""
    from jax_diffse.inference import enhancer  # imports JAX, which whoever only wants the package need not wait for

    return enhancer.load(workdir, step=step, preceding=preceding)


def load_streaming(workdir, *, num_channels=1, step='best'):
    """The `StreamingEnhancer` of a run; see `jax_diffse.inference.streaming.load`."""
    from jax_diffse.inference import streaming

    return streaming.load(workdir, num_channels=num_channels, step=step)
