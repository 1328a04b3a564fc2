"""The optimiser, the train state and the steps for one replica."""

import dataclasses
from collections.abc import Callable
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax

from jax_diffse.errors import UserError
from jax_diffse.systems.base import System, Variables
from jax_diffse.training.parallel import AXIS
from jax_diffse.training.vector import Vector, to_trees, to_vectors

DECAYS = ('plateau', 'cosine', 'constant')
SMALLEST_FALL = 1e-8  # the plateau rule ignores smaller reductions of the learning rate (torch's `eps`)


@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
    """Adam with coupled L2 and a learning-rate rule."""

    learning_rate: float = 1e-3
    l2: float = 1e-7  # added to the gradient as l2 * parameter, before Adam's moments
    clip_norm: float = 0.0  # of the gradient of each group; 0: no clipping
    decay: str = 'plateau'  # 'plateau': lower when validation stops improving; 'cosine': to zero at the last step
    warmup_steps: int = 0
    plateau_patience: int = 3  # tolerated validations without improvement; the next one lowers the rate
    plateau_threshold: float = 1e-4  # relative reduction of the best loss that counts as an improvement
    plateau_factor: float = 0.5  # multiplies the rate
    plateau_min_rate: float = 0.0  # lower limit of the rate
    keras: bool = False  # Keras's form of Adam, see `_scale_by_keras_adam`

    def __post_init__(self):
        if self.decay not in DECAYS:
            raise ValueError(f'decay must be one of {DECAYS}, got {self.decay!r}')
        for name in ('learning_rate', 'l2', 'clip_norm', 'warmup_steps', 'plateau_patience', 'plateau_min_rate'):
            if not 0 <= getattr(self, name) < float('inf'):
                raise ValueError(f'{name}: expected 0 or more, got {getattr(self, name)}')
        if not 0 <= self.plateau_threshold < 1:
            raise ValueError(f'plateau_threshold: expected 0 or more and less than 1, got {self.plateau_threshold}')
        if not 0 < self.plateau_factor < 1:
            raise ValueError(f'plateau_factor: expected more than 0 and less than 1, got {self.plateau_factor}')


def make_optimizer(config: OptimizerConfig) -> optax.GradientTransformation:
    """Returns the optimiser without the learning rate, which the train step applies."""
    clip = [optax.clip_by_global_norm(config.clip_norm)] if config.clip_norm else []
    adam = _scale_by_keras_adam() if config.keras else optax.scale_by_adam()
    return optax.chain(*clip, _coupled_l2(config.l2) if config.l2 else optax.identity(), adam)


def _coupled_l2(l2: float) -> optax.GradientTransformation:
    """Adds l2 * parameter to the gradient of each array, unless that gradient is zero everywhere.

    A parameter that the loss does not depend on has a zero gradient; torch's Adam skips it, while Adam would turn the
    smallest decay into full steps.
    """
    def decayed(gradient, parameter):
        return gradient + jnp.where(jnp.max(jnp.abs(gradient)) > 0, l2, 0.0) * parameter

    return optax.stateless(
        lambda gradient, params: to_vectors(jax.tree.map(decayed, to_trees(gradient), to_trees(params)), gradient))


def _scale_by_keras_adam(b1: float = 0.9, b2: float = 0.999, epsilon: float = 1e-7) -> optax.GradientTransformation:
    """Adam as Keras has it: epsilon is added before the bias correction, so that it counts more in the first steps.

    The state is that of `optax.scale_by_adam`.
    """
    def update(gradients, state, params=None):
        del params
        count = state.count + 1
        mu = jax.tree.map(lambda m, g: b1 * m + (1 - b1) * g, state.mu, gradients)
        nu = jax.tree.map(lambda v, g: b2 * v + (1 - b2) * g**2, state.nu, gradients)
        correction = jnp.sqrt(1 - b2**count) / (1 - b1**count)
        updates = jax.tree.map(lambda m, v: correction * m / (jnp.sqrt(v) + epsilon), mu, nu)
        return updates, optax.ScaleByAdamState(count, mu, nu)

    return optax.GradientTransformation(optax.scale_by_adam().init, update)


def make_schedule(config: OptimizerConfig, steps: int) -> optax.Schedule:
    """The learning rate over steps, before the plateau rule."""
    if config.decay == 'cosine':
        after = optax.cosine_decay_schedule(config.learning_rate, max(steps - config.warmup_steps, 1))
    else:
        after = optax.constant_schedule(config.learning_rate)
    if not config.warmup_steps:
        return after
    warmup = optax.linear_schedule(0.0, config.learning_rate, config.warmup_steps)
    return optax.join_schedules([warmup, after], [config.warmup_steps])


def lower_on_plateau(plateau: optax.contrib.ReduceLROnPlateauState, loss: float, config: OptimizerConfig):
    """Updates the plateau state after a validation, as torch's ReduceLROnPlateau does in its mode 'min'.

    The rate falls after more than `plateau_patience` validations without improvement. Optax's own rule lowers the rate
    one validation earlier and has no `SMALLEST_FALL`; its state is used for compatibility with earlier checkpoints.
    """
    loss, best = float(np.float32(loss)), float(plateau.best_value)
    better = loss < best * (1 - config.plateau_threshold)
    stale, scale = 0 if better else int(plateau.plateau_count) + 1, float(plateau.scale)
    if stale > config.plateau_patience:
        rate, stale = config.learning_rate * scale, 0
        lower = max(rate * config.plateau_factor, config.plateau_min_rate)
        scale = lower / config.learning_rate if rate - lower > SMALLEST_FALL else scale
    return plateau._replace(scale=np.float32(scale), best_value=np.float32(loss if better else best),
                            plateau_count=np.int32(stale))


class TrainState(flax.struct.PyTreeNode):
    """The state that a run resumes from, besides its config."""

    step: jax.Array
    params: Any  # {group: `Vector` if it is trained, else a tree}
    batch_stats: Any  # {group: tree}
    opt_state: Any  # {trained group: state, with vectors}
    ema: Any  # {trained group: `Vector`}, or {} without averaging
    plateau: Any
    best: jax.Array  # lowest validation loss so far
    stale: jax.Array  # validations since then

    @property
    def variables(self):
        """The system's variables, as trees."""
        return {'params': to_trees(self.params), 'batch_stats': self.batch_stats}

    @property
    def averaged(self):
        """The variables with averaged weights, if averaging is on."""
        return {'params': to_trees({**self.params, **self.ema}), 'batch_stats': self.batch_stats}


def create(system: System, config: OptimizerConfig, ema_decay: float, variables: Variables) -> TrainState:
    """The state of a run before its first step, from the system's initial variables."""
    optimizer = make_optimizer(config)
    trained = {group: Vector.of(variables['params'][group]) for group in system.losses}
    params = {**variables['params'], **trained}
    return TrainState(
        step=jnp.int32(0), params=params, batch_stats=variables.get('batch_stats', {}),
        opt_state={group: optimizer.init(vector) for group, vector in trained.items()},
        ema=jax.tree.map(jnp.copy, trained) if ema_decay else {},
        plateau=optax.contrib.reduce_on_plateau().init({'scale': jnp.float32(1)}),
        best=jnp.float32(jnp.inf), stale=jnp.int32(0))


def make_train_step(system: System, config: OptimizerConfig, *, steps: int, seed: int, ema_decay: float = 0.0,
                    accumulate: int = 1) -> Callable:
    """Builds `step(state, batch) -> (state, metrics)` for one replica of the mapped axis.

    Each group of `system.losses` is updated in order, with gradients of the weighted mean over the global batch.
    Metrics are scalars: the learning rate and, per group, the loss, the norms of gradient and update, and the system's
    own metrics. A non-finite loss or gradient leaves the state unchanged, so that saved checkpoints stay valid.
    """
    optimizer, schedule = make_optimizer(config), make_schedule(config, steps)
    root = jax.random.key(seed)

    def train_step(state: TrainState, batch):
        keys = example_keys(jax.random.fold_in(root, state.step), batch['num_samples'].shape[0])
        rate = schedule(state.step) * state.plateau.scale
        new, metrics, norms = state, {'learning_rate': rate}, {}
        for group, loss_fn in system.losses.items():
            gradient, batch_stats, means = group_gradient(loss_fn, group, new.variables, batch, keys, accumulate)
            update, opt_state = optimizer.update(gradient, new.opt_state[group], new.params[group])
            update = jax.tree.map(lambda u: -rate * u, update)
            new = new.replace(
                params={**new.params, group: optax.apply_updates(new.params[group], update)},
                opt_state={**new.opt_state, group: opt_state}, batch_stats=batch_stats)
            metrics |= {f'{group}/{name}': value for name, value in means.items()}
            metrics[f'{group}/gradient_norm'] = optax.tree.norm(gradient)
            norms[f'{group}/update_norm'] = optax.tree.norm(update)
        if ema_decay:
            # The decay grows with the number of updates, this one included, so that initial weights do not dominate
            # short runs: the rule of torch-ema.
            count = state.step + 1
            decay = jnp.minimum(ema_decay, (1 + count) / (10 + count))
            trained = {group: new.params[group] for group in new.ema}
            new = new.replace(ema=jax.tree.map(lambda e, p: e + (1 - decay) * (p - e), new.ema, trained))
        # Adam's update of a finite gradient is finite; the guard need not wait for its norm.
        finite = jnp.all(jnp.stack([jnp.isfinite(value) for value in metrics.values()]))
        new = jax.tree.map(lambda a, b: jnp.where(finite, a, b), new, state)
        return new.replace(step=state.step + finite), metrics | norms

    return train_step


def example_keys(key: jax.Array, count: int) -> jax.Array:
    """Keys `[count]` of this replica's examples, derived from their position in the global batch."""
    positions = jax.lax.axis_index(AXIS) * count + jnp.arange(count)
    return jax.vmap(lambda position: jax.random.fold_in(key, position))(positions)


def group_gradient(loss_fn, group, variables, batch, keys, accumulate):
    """Computes the gradient of the weighted mean loss over the global batch for one group's parameters.

    Args:
      accumulate: number of parts that the replica's examples are split into, to save memory; batch statistics are then
        those of the parts.

    Returns:
      gradient as a `Vector`, batch statistics, {'loss': mean, ...}; equal on all replicas.
    """
    params = variables['params']

    def objective(own, batch_stats, batch, keys):
        out = loss_fn({'params': {**params, group: own}, 'batch_stats': batch_stats}, batch, keys)
        sums = {name: jnp.sum(out.weight * value) for name, value in {'loss': out.loss, **out.metrics}.items()}
        return sums['loss'], (out.batch_stats, sums, jnp.sum(out.weight))

    def part(batch_stats, inputs):
        (_, (batch_stats, sums, weight)), gradient = jax.value_and_grad(objective, has_aux=True)(
            params[group], batch_stats, *inputs)
        return batch_stats, (Vector.of(gradient), sums, weight)

    if accumulate == 1:
        batch_stats, totals = part(variables['batch_stats'], (batch, keys))
    else:
        parts = jax.tree.map(lambda x: x.reshape(accumulate, -1, *x.shape[1:]), (batch, keys))
        batch_stats, totals = accumulate_parts(part, variables['batch_stats'], parts)
    gradient, sums, weight = jax.lax.psum(totals, AXIS)
    weight = jnp.maximum(weight, 1e-8)
    return jax.tree.map(lambda g: g / weight, gradient), batch_stats, {name: s / weight for name, s in sums.items()}


def accumulate_parts(part, batch_stats, parts):
    """Scans `part` over the leading axis of `parts`; carries batch statistics and sums the rest."""
    first = jax.tree.map(lambda x: x[0], parts)
    zeros = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), jax.eval_shape(part, batch_stats, first)[1])

    def body(carry, inputs):
        batch_stats, totals = carry
        batch_stats, new = part(batch_stats, inputs)
        return (batch_stats, jax.tree.map(jnp.add, totals, new)), None

    return jax.lax.scan(body, (batch_stats, zeros), parts)[0]


def make_eval_step(system: System, seed: int) -> Callable:
    """Builds `step(variables, batch) -> {name: (weighted sum, weight)}` for one replica, without any update.

    The names are those of the train step's losses and of the system's metrics. Noise depends only on the example's
    index.
    """
    root = jax.random.key(seed)

    def eval_step(variables, batch):
        keys = jax.vmap(lambda index: jax.random.fold_in(root, index))(batch['index'].astype(jnp.uint32))
        sums = {}
        for group, loss_fn in system.losses.items():
            out = loss_fn(variables, batch, keys, train=False)
            for name, value in {'loss': out.loss, **out.metrics}.items():
                sums[f'{group}/{name}'] = (jnp.sum(out.weight * value), jnp.sum(out.weight))
        return jax.lax.psum(sums, AXIS)

    return eval_step


def after_validation(state: TrainState, loss: float, config: OptimizerConfig) -> TrainState:
    """Applies the plateau rule and counts validations without a new best."""
    plateau = state.plateau
    if config.decay == 'plateau':
        plateau = lower_on_plateau(state.plateau, loss, config)
    better = loss < state.best
    return state.replace(plateau=plateau, best=jnp.where(better, loss, state.best).astype(jnp.float32),
                         stale=jnp.where(better, 0, state.stale + 1).astype(jnp.int32))


def check_finite(metrics: dict[str, float], step: int, kept: int | None) -> None:
    """Raises a UserError that names the step where a loss or norm stopped being finite."""
    bad = [name for name, value in metrics.items() if not abs(value) < float('inf')]
    if bad:
        last = 'no checkpoint was saved' if kept is None else f'the checkpoint of step {kept} is kept'
        raise UserError(f'{bad[0]} is {metrics[bad[0]]} at step {step}: training stopped, {last}; '
                        'try a lower config.optimizer.learning_rate or config.optimizer.clip_norm=1')
