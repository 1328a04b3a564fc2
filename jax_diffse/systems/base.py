"""What a speech-enhancement system is to training, evaluation and enhancement, none of which know its paper."""

import abc
import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax

from jax_diffse.spectral import FrontEnd

Variables = Mapping[str, Mapping[str, Any]]  # {'params': {group: tree}, 'batch_stats': {group: tree}}
Batch = Mapping[str, jax.Array]


class LossOutput(NamedTuple):
    """Result of a `LossFn` on the examples of one replica."""

    loss: jax.Array  # [B], per example
    weight: jax.Array  # [B], each example's share of the mean (its real frames, say); 0 for a padding example
    batch_stats: Mapping[str, Any]  # updated statistics of every group
    metrics: Mapping[str, jax.Array]  # name -> [B], averaged like the loss and logged


LossFn = Callable[..., LossOutput]  # (variables, batch, key [B], train=True) -> LossOutput


class System(abc.ABC):
    """One paper's enhancer as pure functions over one variables tree.

    Subclasses are frozen dataclasses; an abstract property may be a field with a default, a class attribute or a
    property. Abilities that only some systems have are the mixins `Sampling`, `Refiner` and `Streaming`.
    """

    # Validation figure that selects the best checkpoint, lower is better: 'GROUP/loss' or 'GROUP/METRIC'; None: the sum
    # of the losses.
    criterion: str | None = None
    # What the gain depends on: the root mean square of a recording ('rms') or its largest magnitude ('peak').
    level: str = 'rms'
    # Group -> groups of an earlier run that it may start from, in order of preference; others start from their own.
    origins: Mapping[str, tuple[str, ...]] = {}

    @property
    @abc.abstractmethod
    def sample_rate(self) -> int:
        """The rate of all waveforms, Hz."""

    @property
    @abc.abstractmethod
    def front_end(self) -> FrontEnd | None:
        """What the data pipeline computes spectrograms with; None for waveform systems."""

    @property
    @abc.abstractmethod
    def losses(self) -> Mapping[str, LossFn]:
        """Trained parameter group -> its loss, in the order of the updates; other groups are frozen.

        Each loss is differentiated with respect to its own group. `axis_name='data'` is bound while a loss runs in a
        train step. With `train=False` nothing may use it, and stored batch statistics are used and returned unchanged.
        """

    @abc.abstractmethod
    def init(self, key: jax.Array) -> Variables:
        """Draws initial variables."""

    @property
    def follows(self) -> bool:
        """Whether the system takes, and needs, the output of a preceding enhancer: `processed`."""
        return False

    @abc.abstractmethod
    def gain(self, noisy: jax.Array, num_samples: jax.Array) -> jax.Array:
        """The factor `[B]` that brings `noisy` to the level that the system works at.

        It may depend on the RMS alone, or on the peak alone if `level` says so: callers that enhance a recording in
        chunks measure it over the whole recording and pass the same gain to every chunk.
        """

    @abc.abstractmethod
    def _stages(self, variables: Variables, noisy: jax.Array, num_samples: jax.Array, key: jax.Array, gain: jax.Array,
                steps: int | None, processed: jax.Array | None) -> dict[str, jax.Array]:
        """`enhance_stages` with checked arguments.

        `steps` is None unless the system is `Sampling`; `processed` is an array if it `follows` an enhancer, else None.
        """

    def enhance_stages(self, variables: Variables, noisy: jax.Array, num_samples: jax.Array, key: jax.Array, *,
                       gain: jax.Array | None = None, steps: int | None = None,
                       processed: jax.Array | None = None) -> dict[str, jax.Array]:
        """Enhances waveforms, and also returns the outputs of the system's earlier stages.

        Args:
          variables: as made by `init`.
          noisy: `[B, N]`, zero beyond `num_samples`.
          num_samples: `[B]`, real lengths.
          key: `[B]` PRNG keys, one per waveform.
          gain: `[B]`, default `self.gain(noisy, num_samples)`.
          steps: sampling steps, default: the system's own number; see `Sampling.evaluations`.
          processed: `[B, N]`, the output of a preceding enhancer at the level of `noisy`, zero beyond `num_samples`.

        Returns:
          Stage -> `[B, N]`, at the level of `noisy`, zero beyond `num_samples`; the last stage is the enhancement.

        Raises:
          ValueError: `steps` or `processed` that the system has no use for; a number of steps that it does not take;
            nothing to refine.
        """
        check_steps(self, steps)
        check_processed(self, processed is not None)
        gain = self.gain(noisy, num_samples) if gain is None else gain
        return self._stages(variables, noisy, num_samples, key, gain, steps, processed)

    def enhance(self, variables: Variables, noisy: jax.Array, num_samples: jax.Array, key: jax.Array, *,
                gain: jax.Array | None = None, steps: int | None = None,
                processed: jax.Array | None = None) -> jax.Array:
        """The last of `enhance_stages` -> `[B, N]`."""
        stages = self.enhance_stages(variables, noisy, num_samples, key, gain=gain, steps=steps, processed=processed)
        return list(stages.values())[-1]


class Sampling(System):
    """A system with a sampler, which takes a number of steps.

    A step is what the system's paper counts as one; it may ask the network more than once.
    """

    baselines: tuple[str, ...] = ()  # stages that the sampler has no part in
    sampler: str = ''  # the chosen one, of a system with several
    sampler_section: str = ''  # of config.model, where the chosen sampler has one of its own

    @property
    @abc.abstractmethod
    def default_steps(self) -> int | None:
        """Sampling steps where `enhance` is given none; None where the system's fields leave the sampler out."""

    @abc.abstractmethod
    def check_steps(self, steps: int) -> None:
        """Checks a number of sampling steps, without running anything.

        Raises:
          ValueError: the sampler does not take it, or is left out.
        """

    def evaluations(self, steps: int) -> int:
        """Network evaluations of an enhancement with so many sampling steps."""
        return steps


class Refiner(System):
    """A prior of clean speech, which refines the output of a preceding enhancer."""

    @property
    def follows(self) -> bool:
        return True

    @abc.abstractmethod
    def generate(self, variables: Variables, key: jax.Array, num_samples: int, *,
                 steps: int | None = None) -> jax.Array:
        """Draws from the prior alone, to be listened to in training: `[B, num_samples]`, `key` `[B]`."""


class Invertible(System):
    """A system some of whose losses ignore the sign of its output, so that training may end with inverted speech.

    Those losses have the metric 'inverted': 1 where the output and the clean speech have a negative product, else 0.
    """

    @abc.abstractmethod
    def negated(self, variables: Variables) -> Variables:
        """The variables with which every output has the opposite sign."""


class Streaming(System):
    """A system that can enhance a recording while it comes in."""

    @property
    @abc.abstractmethod
    def hop(self) -> int:
        """Samples that one step takes and returns."""

    @property
    @abc.abstractmethod
    def delay(self) -> int:
        """Hops between the last one that was read and the last one that is ready."""

    @property
    @abc.abstractmethod
    def look_ahead(self) -> int:
        """Samples; input further ahead than that changes an output sample by less than 1e-4."""

    @abc.abstractmethod
    def stream_start(self, batch: int) -> Any:
        """The state before the first hop of `batch` recordings."""

    @abc.abstractmethod
    def stream_step(self, variables: Variables, state: Any, samples: jax.Array,
                    num_hops: jax.Array) -> tuple[jax.Array, Any]:
        """Takes the next hop and returns an earlier one; all of them together are what `enhance` returns.

        Args:
          variables: as made by `init`.
          state: after the hops before.
          samples: `[B, hop]`, zeros where the recording has ended.
          num_hops: `[B]`, hops of the whole recording; while its end is unknown, any larger number than those given.

        Returns:
          The hop `delay` hops ago `[B, hop]` (anything before the first one), and the state.
        """


def sampling_steps(system: System, steps: int | None = None) -> int | None:
    """`steps`, by default the system's own number of sampling steps; None for a system that does not sample."""
    return steps if steps is not None or not isinstance(system, Sampling) else system.default_steps


def evaluations(system: System, steps: int | None = None) -> int | None:
    """Network evaluations of an enhancement with so many sampling steps; None for a system that does not sample.

    `steps` is by default the system's own number.
    """
    count = sampling_steps(system, steps)
    return system.evaluations(count) if count is not None and isinstance(system, Sampling) else count


def check_steps(system: System, steps: int | None) -> None:
    """Checks a number of sampling steps, without running anything; None is right for all systems.

    Raises:
      ValueError: the system does not sample, or does not take so many steps.
    """
    if steps is None:
        return
    if not isinstance(system, Sampling):
        raise ValueError(f'{type(system).__name__} does not sample, so it takes no sampling steps')
    system.check_steps(steps)


def check_processed(system: System, given: bool) -> None:
    """Checks that a system that `follows` an enhancer is given its output, and that another system is not.

    Raises:
      ValueError: it should be given, or should not.
    """
    name = type(system).__name__
    if given and not system.follows:
        raise ValueError(f'{name} enhances noisy speech by itself and refines nothing')
    if not given and system.follows:
        raise ValueError(f'{name} refines the output of another enhancer: it needs `processed`')


@functools.lru_cache(maxsize=32)  # tracing a network takes seconds
def shapes(system: System) -> Variables:
    """The variables that `system.init` would draw, as `jax.ShapeDtypeStruct`s; not to be changed."""
    drawn: Variables = jax.eval_shape(system.init, jax.random.key(0))
    return drawn
