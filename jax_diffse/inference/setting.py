"""A run and its sampler settings: everything that determines an enhancement besides the recording."""

import dataclasses
import urllib.parse
from collections.abc import Mapping
from types import MappingProxyType

from jax_diffse import runs
from jax_diffse.errors import UserError
from jax_diffse.runs import Run
from jax_diffse.systems import base
from jax_diffse.systems.base import Sampling, System


@dataclasses.dataclass(frozen=True)
class Setting:
    """A run, its sampling steps, its seed and its preceding run."""

    run: Run
    steps: int | None = None  # of sampling; None: the system's own
    seed: int = 0  # of the sampler's noise
    preceding: Run | None = None  # for a refiner: whose output it refines, at default settings

    @property
    def sampling_steps(self) -> int | None:
        """The number of sampling steps; None for a system that does not sample."""
        return base.sampling_steps(self.run.system, self.steps)

    @property
    def evaluations(self) -> int | None:
        """Network evaluations of one enhancement; None for a system that does not sample."""
        return base.evaluations(self.run.system, self.steps)

    def check(self, processed: bool) -> None:
        """Checks that the parts go together, without loading or running anything.

        Args:
          processed: whether the output of another enhancer is given as files.

        Raises:
          UserError: a seed out of range, steps that the system does not take, or nothing, or too much, to refine.
        """
        check_seed(self.seed)
        check_steps(self.run.system, self.steps)
        check_processed(self.run, self.preceding, processed)

    def folder_name(self, model: Mapping[str, object] = MappingProxyType({})) -> str:
        """A name for a folder of results: what chose them, as in 'diffiner_eta_a=0.9_eta_b=0.9_steps=200'.

        It starts with the sampler and its values, without flags that are off, if the system has several; or else with
        the system. Sampling steps are last, for systems that sample.

        Args:
          model: fields of config.model that were overridden; those that the name lacks are added.
        """
        system, section, parts = self.run.system, '', [self.run.config.system]
        if isinstance(system, Sampling) and system.sampler_section:
            section = system.sampler_section
            values = dataclasses.asdict(getattr(system, section))
            parts = [system.sampler, *(f'{key}={value}' for key, value in values.items() if value is not False)]
        parts += [f'{key}={value}' for key, value in model.items()
                  if not section or key != 'sampler' and key.partition('.')[0] != section]
        parts += [] if self.sampling_steps is None else [f'steps={self.sampling_steps}']
        return urllib.parse.quote('_'.join(parts), safe=' +=,()')

    def record(self) -> dict:
        """Everything that determines a result besides the file, for JSON."""
        return {**_identity(self.run), 'steps': self.sampling_steps, 'seed': self.seed,
                'preceding': self.preceding and _identity(self.preceding)}


def _identity(run: Run) -> dict:
    return {'weights': run.hash, 'system': repr(run.system), 'versions': runs.versions()}


def check_preceding(run: Run, preceding: Run) -> None:
    """Checks that `run` can refine the output of `preceding`.

    Raises:
      UserError: `run` is not a refiner, `preceding` is one, or their sample rates differ.
    """
    ours, theirs = run.system.sample_rate, preceding.system.sample_rate
    _check_use(run, True)
    if preceding.system.follows:
        raise UserError(f'{preceding.workdir}: refines the output of another enhancer itself; expected a preceding run '
                        'that enhances noisy speech')
    if theirs != ours:
        raise UserError(f'{preceding.workdir}: works at {theirs} Hz, but {run.workdir} at {ours} Hz; expected a '
                        'preceding run of the same rate')


def check_processed(run: Run, preceding: Run | None, given: bool) -> None:
    """Checks that a refiner gets exactly one input to refine, and that any other system gets none.

    Args:
      run: the run.
      preceding: the run whose output it refines.
      given: whether another enhancer's output is given as files or arrays (`processed`).

    Raises:
      UserError: a refiner gets none or two, another system gets one, or the runs are incompatible.
    """
    if preceding is not None:
        check_preceding(run, preceding)
    if given and preceding is not None:
        raise UserError(f'{run.workdir}: refines one input, got files (--processed) and a run (--preceding): drop one '
                        'of them')
    _check_use(run, given or preceding is not None)


def _check_use(run: Run, processed: bool) -> None:
    """`systems.base.check_processed`, as a `UserError`."""
    try:
        base.check_processed(run.system, processed)
    except ValueError as error:
        remedy = (': omit --processed and --preceding' if processed else
                  '; give the files (--processed DIR) or a run (--preceding RUN)')
        raise UserError(f'{run.workdir}: {error}{remedy}') from error


def check_steps(system: System, steps: int | None) -> None:
    """Checks a number of sampling steps; None is the system's own and always valid.

    Raises:
      UserError: the system does not take it.
    """
    try:
        base.check_steps(system, steps)
    except ValueError as error:
        raise UserError(f'steps={steps}: {error}') from error


def check_seed(seed: int) -> None:
    """Checks the seed of a sampler's noise.

    Raises:
      UserError: it is out of range.
    """
    if not 0 <= seed < 2**32:
        raise UserError(f'seed {seed}: expected a number from 0 to {2**32 - 1}')
