"""A run and its sampler settings: everything that determines an enhancement besides the recording."""

import dataclasses

from jax_diffse import runs
from jax_diffse.runs import Run
from jax_diffse.systems.base import sampling_steps


@dataclasses.dataclass(frozen=True)
class Setting:
    """A run, its sampling steps, its seed and its preceding run."""

    run: Run
    steps: int | None = None  # of sampling; None: the system's own
    seed: int = 0  # of the sampler's noise
    preceding: Run | None = None  # for a refiner: whose output it refines, at default settings

    @property
    def sampling_steps(self) -> int | None:
        """Network evaluations of one enhancement; None for a system that does not sample."""
        return sampling_steps(self.run.system, self.steps)

    def record(self) -> dict:
        """Everything that determines a result besides the file, for JSON."""
        return {**_identity(self.run), 'steps': self.sampling_steps, 'seed': self.seed,
                'preceding': self.preceding and _identity(self.preceding)}


def _identity(run: Run) -> dict:
    return {'weights': run.hash, 'system': repr(run.system), 'versions': runs.versions()}
