"""What a speech-enhancement system is to the training loop, to evaluation and to `jax-diffse enhance`."""

import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol

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


class System(Protocol):
    """One paper's enhancer as pure functions over one variables tree.

    Systems inherit from this class, for `enhance` and the defaults.

    `losses` names the parameter groups that are trained, in the order they are updated; the others are frozen. Each
    loss is differentiated with respect to its own group. `axis_name='data'` is bound while a loss runs in a train
    step; with `train=False` nothing may use it, and stored batch statistics are used and returned unchanged.
    """

    sample_rate: int  # Hz
    front_end: FrontEnd | None  # what the data pipeline builds spectrograms with; None for waveform systems
    losses: Mapping[str, LossFn]
    # What a validation is judged by, lower is better: 'GROUP/loss' or 'GROUP/METRIC'; None: the sum of the losses.
    criterion: str | None = None
    default_steps: int | None = None  # sampling steps where `enhance` is given none; None: the system does not sample
    baselines: tuple[str, ...] = ()  # stages that the sampler has no part in
    sampler_section: str = ''  # of config.model, where the chosen sampler has one of its own
    refines: bool = False  # takes, and needs, the output of a preceding enhancer
    # Group -> groups of an earlier run that it may start from, in order of preference; others start from their own.
    origins: Mapping[str, tuple[str, ...]] = {}
    # Of systems that can enhance a recording as it comes in; None: the whole of it is needed.
    delay: int | None = None  # hops between the last one that is read and the last one that is ready
    hop: int  # samples
    look_ahead: int  # samples; input further ahead than that changes an output sample by less than 1e-4

    def init(self, key: jax.Array) -> Variables:
        """Draws initial variables."""

    def check_steps(self, steps: int) -> None:
        """Checks a number of sampling steps, without running anything.

        Raises:
          ValueError: `enhance` would not take it.
        """
        if self.default_steps is None:
            raise ValueError(f'{type(self).__name__} does not sample, so it takes no sampling steps')

    def gain(self, noisy: jax.Array, num_samples: jax.Array) -> jax.Array:
        """The factor `[B]` that brings `noisy` to the level that `enhance` works at; it may depend on its RMS alone.

        Long audio passes that of the whole file to every chunk.
        """

    def enhance_stages(self, variables: Variables, noisy: jax.Array, num_samples: jax.Array, key: jax.Array, *,
                       gain: jax.Array | None = None, steps: int | None = None,
                       processed: jax.Array | None = None) -> dict[str, jax.Array]:
        """Enhances waveforms, and also returns what earlier stages of the system made of them.

        Args:
          variables: as made by `init`.
          noisy: `[B, N]`, zero beyond `num_samples`.
          num_samples: `[B]`, real lengths.
          key: `[B]` PRNG keys, one per waveform.
          gain: `[B]`, default `self.gain(noisy, num_samples)`.
          steps: sampling steps (network evaluations) of systems that sample.
          processed: `[B, N]`, the output of a preceding enhancer at the level of `noisy`, zero beyond `num_samples`,
            for systems that refine one.

        Returns:
          Stage -> `[B, N]`, at the level of `noisy`, zero beyond `num_samples`; the last stage is the enhancement.
        """

    def generate(self, variables: Variables, key: jax.Array, num_samples: int, *,
                 steps: int | None = None) -> jax.Array:
        """Of systems that refine: what their prior draws by itself `[B, num_samples]`, to be listened to; `key` `[B]`.
        """

    def stream_start(self, batch: int) -> Any:
        """The state of a streaming system before the first hop of `batch` recordings."""

    def stream_step(self, variables: Variables, state: Any, samples: jax.Array,
                    num_hops: jax.Array) -> tuple[jax.Array, Any]:
        """The next hop in, an earlier one out; together the same as `enhance` of the whole.

        Args:
          variables: as made by `init`.
          state: after the hops before.
          samples: `[B, hop]`, zeros where the recording has ended.
          num_hops: `[B]`, hops of the whole recording; as long as it goes on, any number beyond those given.

        Returns:
          The hop `delay` hops ago `[B, hop]` (anything before the first one), and the state.
        """

    def enhance(self, variables: Variables, noisy: jax.Array, num_samples: jax.Array, key: jax.Array, *,
                gain: jax.Array | None = None, steps: int | None = None,
                processed: jax.Array | None = None) -> jax.Array:
        """The last of `enhance_stages` -> `[B, N]`."""
        stages = self.enhance_stages(variables, noisy, num_samples, key, gain=gain, steps=steps, processed=processed)
        return list(stages.values())[-1]


@functools.lru_cache(maxsize=32)  # tracing a network takes seconds
def shapes(system: System) -> Variables:
    """What `system.init` would draw, as `jax.ShapeDtypeStruct`s; not to be changed."""
    return jax.eval_shape(system.init, jax.random.key(0))
