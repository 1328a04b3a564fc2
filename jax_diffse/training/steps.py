"""Takes the steps of a training: dispatches them ahead of the devices, and fetches their metrics when due."""

import time
from collections.abc import Iterator

import jax
import numpy as np

from jax_diffse.training import state as state_lib
from jax_diffse.training.batches import Batches
from jax_diffse.training.setup import Training
from jax_diffse.training.speed import Speed

CACHE_HIT = '/jax/compilation_cache/cache_hits'  # JAX's event
AHEAD = 2  # steps that are dispatched before an earlier one must be done; their batches take memory


class Steps:
    """The steps of a training, from the next one on.

    On accelerators nothing waits for a step until its metrics are fetched, and the next batch is placed on the devices
    while they work.

    Args:
      training: the training.
      batches: this process's share of the training batches.
    """

    def __init__(self, training: Training, batches: Iterator[dict[str, np.ndarray]]):
        mapping = training.spec.mapping
        self.number = int(training.state.step)  # of the last step that was dispatched
        self.speed = Speed(training.spec.train.batch_size, mapping.devices)
        self._training, self._profiler = training, training.profiler
        self._step, self._asynchronous = training.train_step, mapping.asynchronous
        self._batches = Batches(batches, training.place, self.speed)
        self._pending: list[tuple[int, dict[str, jax.Array]]] = []
        self._compiled = False

    def take(self, state):
        """Dispatches the next step, which is compiled before the first one -> the state after it."""
        self.number += 1
        with self.speed.paused():
            if not self._compiled:
                self._compile(state)
            self._profiler.begin(self.number)
        with jax.profiler.StepTraceAnnotation('train', step_num=self.number):
            state, metrics = self._step(state, self._batches.take())
            if self._asynchronous and self.number < self._training.spec.train.steps:
                self._batches.prefetch()
        self._pending.append((self.number, metrics))
        self.speed.count()
        jax.block_until_ready(self._pending[:-AHEAD][-1:])
        if self._profiler.ends_with(self.number):
            jax.block_until_ready(metrics)
            with self.speed.paused():
                self._profiler.finish()
        return state

    def fetch(self) -> dict[str, float]:
        """Fetches the metrics of all steps since the last call, checks them and returns their means.

        Raises:
          UserError: one is not finite.
        """
        steps = [(step, {k: float(v) for k, v in metrics.items()}) for step, metrics in jax.device_get(self._pending)]
        self._pending.clear()
        for step, metrics in steps:
            state_lib.check_finite(metrics, step, self._training.checkpoints.latest_step)
        return {name: float(np.mean([metrics[name] for _, metrics in steps])) for name in steps[0][1]} if steps else {}

    def _compile(self, state) -> None:
        """Compiles the step for the state and the next batch; calls then use the program that this leaves with JAX."""
        batch, hits = self._batches.peek(), []

        def note(event: str, **_) -> None:
            hits.extend([event] * (event == CACHE_HIT))

        jax.monitoring.register_event_listener(note)
        started = time.perf_counter()
        try:
            self._step.lower(state, batch).compile()
        finally:
            jax.monitoring.unregister_event_listener(note)
        how = 'took the compiled training step from the cache' if hits else 'compiled the training step'
        self._training.logger.message(f'{self._training.spec.workdir}: {how} in {time.perf_counter() - started:.1f} s')
        self.speed.learn(self._step, state, batch)
        self._compiled = True
