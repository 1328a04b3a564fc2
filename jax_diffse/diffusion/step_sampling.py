"""How training draws its diffusion steps, if not uniformly."""

import dataclasses

import jax
import jax.numpy as jnp

State = dict[str, jax.Array]


@dataclasses.dataclass(frozen=True)
class SecondMoment:
    """Draws step t with a probability proportional to sqrt(E[L_t^2]); weights of the losses preserve their mean.

    Nichol & Dhariwal, "Improved Denoising Diffusion Probabilistic Models", ICML 2021, eq. 18. Expectations are over the
    last `history` losses of each step; steps are drawn uniformly until all have as many.
    """

    num_steps: int  # T
    history: int = 10
    uniform: float = 0.001  # share of the probability that is spread evenly

    def start(self) -> State:
        """The state before any loss: `losses` `[T, history]`, the latest last, and their `counts` `[T]`."""
        return {'losses': jnp.zeros((self.num_steps, self.history)), 'counts': jnp.zeros(self.num_steps, jnp.int32)}

    def probabilities(self, state: State) -> jax.Array:
        """The probability of each step, `[T]`."""
        size = jnp.sqrt(jnp.mean(state['losses']**2, axis=1))
        learnt = (1 - self.uniform) * size / jnp.maximum(jnp.sum(size), 1e-30) + self.uniform / self.num_steps
        return jnp.where(jnp.all(state['counts'] >= self.history), learnt, 1 / self.num_steps)

    def draw(self, state: State, keys: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Steps `[B]` and the weights `[B]` of their losses, 1 / (T p_t); `keys` `[B]`."""
        probabilities = self.probabilities(state)
        t = jax.vmap(lambda key: jax.random.choice(key, self.num_steps, p=probabilities))(keys)
        return t, 1 / (self.num_steps * probabilities[t])

    def update(self, state: State, t: jax.Array, losses: jax.Array) -> State:
        """The state after the losses `[B]` of steps `t` `[B]`, one after the other."""
        def add(state, seen):
            t, loss = seen
            row = jnp.append(state['losses'][t][1:], loss)
            counts = state['counts'].at[t].add(1)
            return {'losses': state['losses'].at[t].set(row), 'counts': jnp.minimum(counts, self.history)}, None

        return jax.lax.scan(add, state, (t, losses))[0]


def grid(index: jax.Array, num_steps: int, size: int) -> jax.Array:
    """Steps `[B]` for validation: the middles of `size` equal parts of the schedule, in turn by `index` `[B]`."""
    return (2 * (index % size) + 1) * num_steps // (2 * size)
