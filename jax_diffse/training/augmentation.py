"""Augmentation of the training data: samples of a trained run in place of noisy inputs.

A sample and the clean speech are one more training pair, so that a network also learns from a sampler's output. From
the released code of Tai et al., AAAI 2023: "Using a diffusion model to generate augmented data does improve
generalization (a little bit)".
"""

import dataclasses
import fractions
import logging
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jax_diffse import files, runs
from jax_diffse.errors import UserError
from jax_diffse.spectral import FrontEnd
from jax_diffse.systems.base import Batch, Refiner, System, Variables, check_steps, sampling_steps
from jax_diffse.training.parallel import Parallel
from jax_diffse.training.settings import AugmentConfig, TrainConfig

log = logging.getLogger(__name__)

SAMPLES = 2**32 - 1  # purpose of the random stream of a seed: a number that no step reaches


@dataclasses.dataclass(frozen=True)
class Augmentation:
    """Replaces the noisy input of a share of the training examples by a sample that a frozen run draws from it.

    The clean speech stays the target. With `FrontEnd.unit_rms`, both are scaled to unit RMS of the sample, as every
    other pair is to that of its noisy input.
    """

    run: runs.Run
    share: fractions.Fraction
    steps: int

    @classmethod
    def load(cls, config: AugmentConfig, init_from: str, system: System) -> 'Augmentation | None':
        """Loads the run that `config` names, by default `init_from`, to train `system`; None with share 0.

        Raises:
          UserError: no such run, one without a sampler of its own or at another rate, a number of steps that it does
            not take, or a system that has no noisy input.
        """
        if not config.share:
            if config.run:
                log.warning('config.augment.run: without effect, as config.augment.share is 0')
            return None
        if isinstance(system, Refiner):
            raise UserError(f'config.augment.share={config.share:g}: this system learns from clean speech alone; '
                            'use 0')
        if not (config.run or init_from):
            raise UserError(f'config.augment.share={config.share:g}: name the run that draws the samples, '
                            'config.augment.run or config.init_from')
        run = runs.load(files.given(config.run or init_from))
        _check_run(run, system.sample_rate)
        steps = config.steps or run.system.default_steps
        try:
            check_steps(run.system, steps)
        except ValueError as error:
            raise UserError(f'config.augment.steps={steps}: {error}') from error
        return cls(run, fractions.Fraction(config.share).limit_denominator(10**6), steps)

    def check_batch_size(self, batch_size: int, parts: int) -> None:
        """Raises a UserError unless each part of the global batch (device, accumulation step) has a whole share."""
        rows = batch_size // parts
        if (rows * self.share).denominator > 1:
            share = float(self.share)
            raise UserError(f'config.augment.share={share:g}: makes {rows * share:g} of {rows} example(s) on each of '
                            f'{parts} devices x accumulation steps, expected a whole number; use a '
                            f'config.train.batch_size that is a multiple of {parts * self.share.denominator}, not '
                            f'{batch_size}, or another share')

    def positions(self, count: int) -> np.ndarray:
        """The places of the augmented ones among `count` examples, evenly spaced; `count * share` is whole."""
        return np.array([p for p in range(count) if math.floor((p + 1) * self.share) > math.floor(p * self.share)], int)

    def placing(self, mapping: Parallel, front_end: FrontEnd | None, settings: TrainConfig) -> Callable[[Any], Batch]:
        """Returns `place(batch)`, which puts this process's rows on its devices and augments them.

        Raises:
          UserError: a batch size that `check_batch_size` refuses.
        """
        self.check_batch_size(settings.batch_size, len(mapping.devices) * settings.accumulate)
        step = mapping.map(self.make_step(front_end, settings.seed, settings.accumulate), sharded=True)
        variables = mapping.replicate(self.run.variables)
        return lambda batch: step(variables, mapping.shard(batch))

    def make_step(self, front_end: FrontEnd | None, seed: int, accumulate: int) -> Callable[[Variables, Batch], Batch]:
        """Builds `step(variables of the run, batch) -> batch` for one replica.

        The noise of a sample depends only on `seed` and the example's index. `accumulate` parts are sampled one after
        the other, to save memory.
        """
        root, system = jax.random.fold_in(jax.random.key(seed), SAMPLES), self.run.system

        def step(variables, batch):
            rows = self.positions(batch['num_samples'].shape[0])
            keys = jax.vmap(lambda index: jax.random.fold_in(root, index))(batch['index'][rows].astype(jnp.uint32))
            inputs = batch['noisy'][rows], batch['num_samples'][rows], keys
            parts = jax.tree.map(lambda x: x.reshape(accumulate, -1, *x.shape[1:]), inputs)
            samples = jax.lax.map(lambda part: system.enhance(variables, *part, steps=self.steps), parts)
            return _replaced(batch, rows, samples.reshape(inputs[0].shape), front_end)

        return step

    def record(self) -> dict[str, Any]:
        """What the data are augmented with, for the record of the training."""
        return {'share': float(self.share), 'steps': self.steps, 'workdir': str(self.run.workdir),
                'step': self.run.step, 'hash': self.run.hash, 'history': dict(self.run.history)}

    def describe(self) -> str:
        """The augmentation in words."""
        return (f'{float(self.share):g} of the noisy inputs replaced by samples of {self.run.workdir}, step '
                f'{self.run.step}, checkpoint {self.run.hash[:12]}, {self.steps} sampling steps')


def _check_run(run: runs.Run, sample_rate: int) -> None:
    name = f'config.augment.run={run.workdir}'
    if run.system.follows:
        raise UserError(f"{name}: refines another enhancer's output, expected a run that samples from noisy speech")
    if sampling_steps(run.system) is None:
        raise UserError(f'{name}: does not sample, expected a run with a sampler, such as the stage diffusion of '
                        'dr_diffuse')
    if run.system.sample_rate != sample_rate:
        raise UserError(f'{name}: works at {run.system.sample_rate} Hz, expected the {sample_rate} Hz of this config')


def _replaced(batch: Batch, rows: np.ndarray, noisy: jax.Array, front_end: FrontEnd | None) -> Batch:
    """The batch with `noisy` as the input of some rows, at the level and with the spectrograms of the pipeline."""
    clean, num_samples = batch['clean'][rows], batch['num_samples'][rows]
    new = {'clean': clean, 'noisy': noisy}
    if front_end is not None:
        gain = front_end.gain(noisy, num_samples)[:, None]
        new = {'clean': gain * clean, 'noisy': gain * noisy}
        new |= {f'{name}_spec': front_end.analyze(x, num_samples) for name, x in new.items()}
    return {**batch, **{name: batch[name].at[rows].set(x) for name, x in new.items()}}
