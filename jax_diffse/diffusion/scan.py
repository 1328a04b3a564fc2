"""The loop over noise levels that all samplers share."""

from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
import numpy as np

Level = Mapping[str, jax.Array]  # a scalar per coefficient, and 'index', the number of the level
Model = Callable[[jax.Array, jax.Array], jax.Array]  # (x_t [B, ...], t [B]) -> score, estimate of x_0, or velocity
Step = Callable[[jax.Array, Level], tuple[jax.Array, tuple[jax.Array, ...]]]


def over_levels(step: Step, x: jax.Array, coefficients: Mapping[str, np.ndarray], trajectory: bool):
    """Runs `step` once per level, the noisiest first, in one `lax.scan`.

    Args:
      step: (x `[B, ...]`, level) -> the next x, and a tuple of arrays for the trajectory.
      x: `[B, ...]`, where sampling starts; or a tuple of such arrays, if steps carry more than a sample.
      coefficients: name -> a number per level `[S]`, the least noisy first: float64 here, float32 on the device.
      trajectory: whether to also return the second output of all steps.

    Returns:
      x after the last step; with `trajectory` a tuple of it and of each array of the steps' tuples, `[S, ...]` in the
      order of sampling.
    """
    def body(x, level):
        x, visited = step(x, level)
        return x, visited if trajectory else None

    values = {name: value.astype(np.float32) for name, value in coefficients.items()}
    values['index'] = np.arange(len(next(iter(values.values()))), dtype=np.int32)
    x, visited = jax.lax.scan(body, x, {name: jnp.asarray(value[::-1]) for name, value in values.items()})
    return (x, *visited) if trajectory else x
