"""Validation during training: the loss that selects the best checkpoint, and audio examples."""

from collections.abc import Iterable, Mapping

import jax
import numpy as np

from jax_diffse.systems.base import Refiner, System
from jax_diffse.training import parallel
from jax_diffse.training import state as state_lib
from jax_diffse.training.setup import Training

LISTENING_SECONDS = 4
LISTENING_STEPS = 25  # sampling steps of the audio that a prior generates for the log


class Validation:
    """Validates the weights of a training; the steps are compiled on first call."""

    def __init__(self, training: Training):
        spec = training.spec
        self._training, self._system, self._mapping = training, spec.system, spec.mapping
        self._eval_step = spec.mapping.map(state_lib.make_eval_step(spec.system, spec.train.seed))
        self._listen = jax.jit(_generator(spec.system) if isinstance(spec.system, Refiner) else spec.system.enhance)
        self._examples = spec.log.audio_examples if jax.process_index() == 0 else 0

    def __call__(self, state, step: int):
        """Validates the averaged weights and logs the result.

        Returns:
          The state, with the best loss and the learning-rate plateau updated, and the loss; None instead of the loss if
          the run must stop immediately.
        """
        training, variables = self._training, state.averaged
        means = evaluate(self._eval_step, variables, training.validation_batches(), self._mapping)
        if training.stop.immediate:
            return state, None
        loss = validation_loss(self._system, means)
        state = self._updated(state, loss)
        training.logger.scalars(step, {f'validation/{name}': value for name, value in means.items()},
                                f'validation loss {loss:.4g} (best {float(state.best):.4g})')
        if self._examples:
            log_audio(training.logger, step, self._system, self._listen, variables,
                      training.validation_source, self._examples)
        return state, loss

    def _updated(self, state, loss: float):
        """Applies `state_lib.after_validation`; only the numbers that it changes go through the host."""
        names = ('plateau', 'best', 'stale')
        small = state.replace(**{name: jax.device_get(getattr(state, name)) for name in names})
        new = state_lib.after_validation(small, loss, self._training.spec.optimizer)
        return state.replace(**{name: self._mapping.replicate(getattr(new, name)) for name in names})


def evaluate(eval_step, variables, batches: Iterable, mapping: parallel.Parallel) -> dict[str, float]:
    """The means over all batches of the sums of `state.make_eval_step`."""
    totals: dict[str, np.ndarray] = {}
    for batch in batches:
        sums = jax.device_get(eval_step(variables, mapping.shard(batch)))
        for name, pair in sums.items():
            totals[name] = totals.get(name, np.zeros(2)) + np.array([float(x) for x in pair])
    return {name: float(total / max(weight, 1e-8)) for name, (total, weight) in totals.items()}


def validation_loss(system: System, means: Mapping[str, float]) -> float:
    """The validation loss of a system (lower is better) from the means of its losses and metrics."""
    if system.criterion:
        return means[system.criterion]
    return sum(value for name, value in means.items() if name.endswith('/loss'))


def _generator(system):
    """Generates speech with a prior, which cannot enhance by itself, for the log."""
    def generate(variables, noisy, num_samples, key):
        del num_samples
        return system.generate(variables, key, noisy.shape[1], steps=LISTENING_STEPS)

    return generate


def log_audio(logger, step: int, system: System, listen, variables, source, count: int) -> None:
    """Logs the first utterances of a source, clean, noisy and enhanced, or what a prior generates."""
    # On one device: only the first process logs, and a step over all devices would wait for the others.
    variables = jax.tree.map(lambda x: x.addressable_data(0), variables)
    length = LISTENING_SECONDS * system.sample_rate
    for i in range(min(count, len(source))):
        clean, noisy = (x[:length] for x in source.read(i))
        key = jax.random.fold_in(jax.random.key(0), i)[None]
        padded = np.pad(noisy, (0, length - len(noisy)))[None]
        heard = np.asarray(listen(variables, padded, np.array([len(noisy)]), key))[0]
        if isinstance(system, Refiner):
            logger.audio(step, f'{i}/generated', heard, system.sample_rate)
            continue
        for name, waveform in (('clean', clean), ('noisy', noisy), ('enhanced', heard[:len(noisy)])):
            logger.audio(step, f'{source.info(i)["id"]}/{name}', waveform, system.sample_rate)
