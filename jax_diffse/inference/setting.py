"""A run, and how it is used: everything that determines an enhancement besides the recording."""

import dataclasses

from jax_diffse import runs
from jax_diffse.runs import Run
from jax_diffse.systems.base import sampling_steps


@dataclasses.dataclass(frozen=True)
class Setting:
    """What is run on the files."""

    run: Run
    steps: int | None = None  # of sampling, where the system samples; None: its own choice
    seed: int = 0  # of the noise that a sampler draws
    preceding: Run | None = None  # whose output is refined, in its own default setting

    @property
    def sampling_steps(self) -> int | None:
        """Network evaluations of one enhancement; None for a system that does not sample."""
        return sampling_steps(self.run.system, self.steps)

    def record(self) -> dict:
        """All that decides a result, besides the file."""
        return {**_identity(self.run), 'steps': self.sampling_steps, 'seed': self.seed,
                'preceding': self.preceding and _identity(self.preceding)}


def _identity(run: Run) -> dict:
    return {'weights': run.hash, 'system': repr(run.system), 'versions': runs.versions()}
