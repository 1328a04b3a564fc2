"""Validation during training: the loss that selects the best checkpoint, and audio examples."""

from collections.abc import Iterable, Mapping

import jax
import numpy as np

from jax_diffse.metrics import score
from jax_diffse.systems.base import Refiner, System
from jax_diffse.training import parallel
from jax_diffse.training import state as state_lib
from jax_diffse.training.settings import PESQ
from jax_diffse.training.setup import Training

LISTENING_SECONDS = 4
LISTENING_STEPS = 25  # sampling steps of the audio that a prior generates for the log


class Validation:
    """Validates the weights of a training; the steps are compiled on first call."""

    def __init__(self, training: Training):
        spec = training.spec
        self._training, self._system, self._mapping = training, spec.system, spec.mapping
        self._averaged = jax.jit(lambda state: state.averaged)
        self._eval_step = spec.mapping.map(state_lib.make_eval_step(spec.system, spec.train.seed))
        self._listen = jax.jit(_generator(spec.system) if isinstance(spec.system, Refiner) else _enhancer(spec.system))
        self._primary = jax.process_index() == 0

    def __call__(self, state, step: int):
        """Validates the averaged weights and logs the result.

        Returns:
          The state, with the best loss and the learning-rate plateau updated, and the loss; None instead of the loss if
          the run must stop immediately.
        """
        training, variables = self._training, self._averaged(state)
        means = evaluate(self._eval_step, variables, training.validation_batches(), self._mapping)
        if training.stop.immediate:
            return state, None
        loss = validation_loss(self._system, means)
        training.history.inverted = any(mean > 0.5 for name, mean in means.items() if name.endswith('/inverted'))
        state = self._updated(state, loss)
        training.logger.scalars(step, {f'validation/{name}': value for name, value in means.items()},
                                f'validation loss {loss:.4g} (best {float(state.best):.4g})')
        if self._primary:
            self._log_audio(variables, step)
        return state, loss

    def _log_audio(self, variables, step: int) -> None:
        log, logger, source = self._training.spec.log, self._training.logger, self._training.validation_source
        log_audio(logger, step, self._system, self._listen, variables, source, log.audio_examples)
        if log.pesq_examples:
            log_best_and_worst(logger, step, self._system, self._listen, variables, source, log.pesq_examples)

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


def _enhancer(system):
    """Enhances speech for the log. Where the system follows another enhancer, its output is the noisy half of pairs."""
    def enhance(variables, noisy, num_samples, key):
        return system.enhance(variables, noisy, num_samples, key, processed=noisy if system.follows else None)

    return enhance


def log_audio(logger, step: int, system: System, listen, variables, source, count: int) -> None:
    """Logs the first utterances of a source, clean, noisy and enhanced, or what a prior generates."""
    for i in range(min(count, len(source))):
        if isinstance(system, Refiner):
            generated = _hear(system, listen, variables, source.read(i)[1], i)
            logger.audio(step, f'{i}/generated', generated, system.sample_rate)
        else:
            _log_stages(logger, step, source.info(i)['id'], _stages(system, listen, variables, source, i), system)


def log_best_and_worst(logger, step: int, system: System, listen, variables, source, count: int) -> None:
    """Scores `count` utterances, spread evenly over a source, in PESQ, and logs the best and the worst one.

    Utterances for which PESQ is undefined are left out.
    """
    metric, count = PESQ[system.sample_rate], min(count, len(source))
    found, reasons = [], []
    for i in (k * len(source) // count for k in range(count)):
        stages = _stages(system, listen, variables, source, i)
        scores = score(stages['clean'], stages['enhanced'], system.sample_rate, (metric,))
        reasons += scores.reasons.values()
        if metric not in scores.reasons:
            found.append((scores.values[metric], source.info(i)['id'], stages))
    if not found:
        logger.message(f'step {step}: {metric} of {count} validation utterances: undefined ({reasons[0]})')
        return
    found.sort(key=lambda entry: entry[0])
    (low, last, worst), (high, first, best) = found[0], found[-1]
    mean = float(np.mean([value for value, *_ in found]))
    logger.scalars(step, {f'validation/{metric}/{name}': value
                          for name, value in (('best', high), ('worst', low), ('mean', mean))},
                   f'{metric} of {len(found)} validation utterances: best {high:.2f} ({first}), worst {low:.2f} '
                   f'({last}), mean {mean:.2f}')
    _log_stages(logger, step, 'best_pesq', best, system)
    _log_stages(logger, step, 'worst_pesq', worst, system)


def _log_stages(logger, step: int, name: str, stages: Mapping[str, np.ndarray], system: System) -> None:
    for stage, waveform in stages.items():
        logger.audio(step, f'{name}/{stage}', waveform, system.sample_rate)


def _stages(system: System, listen, variables, source, i: int) -> dict[str, np.ndarray]:
    """The beginning of utterance i: 'clean', 'noisy' and 'enhanced'."""
    clean, noisy = (x[:LISTENING_SECONDS * system.sample_rate] for x in source.read(i))
    enhanced = _hear(system, listen, variables, noisy, i)[:len(noisy)]
    return {'clean': clean, 'noisy': noisy, 'enhanced': enhanced}


def _hear(system: System, listen, variables, noisy: np.ndarray, seed: int) -> np.ndarray:
    """What a system makes of the beginning of a waveform."""
    # On one device: only the first process logs, and a step over all devices would wait for the others.
    variables = jax.tree.map(lambda x: x.addressable_data(0), variables)
    length = LISTENING_SECONDS * system.sample_rate
    noisy, key = noisy[:length], jax.random.fold_in(jax.random.key(0), seed)[None]
    padded = np.pad(noisy, (0, length - len(noisy)))[None]
    return np.asarray(listen(variables, padded, np.array([len(noisy)]), key))[0]
