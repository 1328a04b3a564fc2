"""Noise schedules: float64 NumPy arrays, computed on the host.

A schedule has S levels, from the least noisy (0) to the noisiest (S - 1). At level s

    x_s = sqrt(alpha_bar_s) x + sqrt(1 - alpha_bar_s) eps,    alpha_bar_s = prod of (1 - beta_r) over r = 0 ... s.
"""

import dataclasses

import numpy as np

# The released inference schedule of DR-DiffuSE, taken over from DiffWave (Kong et al., ICLR 2021).
FAST_BETA = (1e-4, 1e-3, 1e-2, 0.05, 0.2, 0.35)


@dataclasses.dataclass(frozen=True, eq=False)
class Schedule:
    """Noise levels of a diffusion process, and the step that the network gets at each.

    Raises:
      ValueError: no level, or betas that do not lie between 0 and 1.
    """

    beta: np.ndarray  # [S]
    t: np.ndarray  # [S], steps of the training schedule, fractional where a level lies between two of them

    def __post_init__(self):
        if not len(self.beta) or not np.all((self.beta > 0) & (self.beta < 1)):
            raise ValueError(f'expected one or more steps with betas between 0 and 1, got {self.beta}')

    def __len__(self) -> int:
        return len(self.beta)

    @property
    def alpha(self) -> np.ndarray:
        return 1 - self.beta

    @property
    def alpha_bar(self) -> np.ndarray:
        return np.cumprod(self.alpha)

    @property
    def alpha_bar_previous(self) -> np.ndarray:
        """alpha_bar one level down; 1 below level 0."""
        return np.append(1.0, self.alpha_bar[:-1])

    @property
    def sigma(self) -> np.ndarray:
        """Standard deviation of q(x_{s-1} | x_s, x) (Ho et al., NeurIPS 2020, eq. 7); 0 at level 0."""
        return np.sqrt((1 - self.alpha_bar_previous) / (1 - self.alpha_bar) * self.beta)


def linear(num_steps: int = 200, first: float = 1e-4, last: float = 0.05) -> Schedule:
    """Equidistant betas; by default the training schedule of DR-DiffuSE."""
    return Schedule(np.linspace(first, last, num_steps), np.arange(num_steps, dtype=np.float64))


def guided(name: str = 'linear', num_steps: int = 4000, largest: float = 0.999) -> Schedule:
    """The named schedules of guided diffusion; the default is the training schedule of Diffiner.

    'linear': betas from 0.1 / T to 20 / T, the levels of Ho et al. (2020) for any number of steps T. 'cosine':
    alpha_bar proportional to cos^2((t / T + 0.008) / 1.008 * pi / 2), betas at most `largest` (Nichol & Dhariwal,
    "Improved Denoising Diffusion Probabilistic Models", ICML 2021, eq. 17; theirs is 0.999).

    Raises:
      ValueError: an unknown name; no steps, or too few for linear betas below 1.
    """
    if name == 'linear':
        if num_steps <= 20:
            raise ValueError(f'expected more than 20 training steps, as linear betas rise to 20 / T; got {num_steps}')
        return linear(num_steps, 1e-4 * 1000 / num_steps, 0.02 * 1000 / num_steps)
    if name != 'cosine':
        raise ValueError(f"schedule must be 'linear' or 'cosine', got {name!r}")
    if num_steps < 1:
        raise ValueError(f'expected one or more training steps, got {num_steps}')
    level = np.cos((np.arange(num_steps + 1) / num_steps + 0.008) / 1.008 * np.pi / 2)**2
    return Schedule(np.minimum(1 - level[1:] / level[:-1], largest), np.arange(num_steps, dtype=np.float64))


def spaced(training: Schedule, respacing: str) -> Schedule:
    """Some of the steps of `training`, with betas that lead from one kept level to the next (Nichol & Dhariwal, 2021).

    Args:
      training: T steps.
      respacing: 'ddimN': N steps at equal whole distances from 0 on (Song et al., "Denoising Diffusion Implicit
        Models", ICLR 2021); where no distance gives N, which the authors refuse, the steps k T / N rounded down. 'N': N
        steps at equal distances, the first and last step among them. 'A,B,...': A steps of the first of equal sections,
        B of the second, ... '': all.

    Raises:
      ValueError: another form, or more steps than there are.
    """
    kept = _kept(len(training), respacing)
    alpha_bar = training.alpha_bar[kept]
    return Schedule(1 - alpha_bar / np.append(1.0, alpha_bar[:-1]), training.t[kept])


def _kept(total: int, respacing: str) -> np.ndarray:
    parts = respacing.removeprefix('ddim').split(',') if respacing else [str(total)]
    is_ddim = respacing.startswith('ddim')
    if not all(part.isdecimal() and int(part) for part in parts) or is_ddim and len(parts) > 1:
        raise ValueError(f"respacing: expected 'ddimN', 'N' or 'A,B,...' with whole numbers, got {respacing!r}")
    counts = [int(part) for part in parts]
    ends = np.cumsum([total // len(counts) + (i < total % len(counts)) for i in range(len(counts))])
    sizes = np.diff(ends, prepend=0)
    if any(count > size for count, size in zip(counts, sizes, strict=True)):
        raise ValueError(f'respacing {respacing!r}: more steps than the {total} of training')
    if is_ddim:
        count, = counts
        stride = -(-total // count)
        exact = -(-total // stride) == count
        return np.arange(0, total, stride) if exact else np.arange(count) * total // count
    # Python's round, half to even, as the authors round.
    return np.concatenate([end - size + np.array([round(k * ((size - 1) / (count - 1) if count > 1 else 1))
                                                  for k in range(count)])
                           for count, size, end in zip(counts, sizes, ends, strict=True)])


def align(beta, training: Schedule) -> Schedule:
    """A schedule with betas of its own for a network trained on another one.

    A level between two of training's gets the fractional step at which sqrt(alpha_bar), interpolated linearly, is
    the same (Chen et al., "WaveGrad", ICLR 2021; Kong et al., "DiffWave", ICLR 2021, appendix B).

    Raises:
      ValueError: a level lies outside those of the training schedule, or betas do not lie between 0 and 1.
    """
    own = Schedule(np.asarray(beta, np.float64), training.t)  # its steps are still to be found
    level, known = np.sqrt(own.alpha_bar), np.sqrt(training.alpha_bar)
    slack = 1e-12
    if level[0] > known[0] + slack or level[-1] < known[-1] - slack:
        raise ValueError(f'noise levels from {level[0]:.4f} to {level[-1]:.4f} (sqrt of alpha_bar) lie outside those '
                         f'of training, {known[0]:.4f} to {known[-1]:.4f}')
    return Schedule(own.beta, np.interp(-level, -known, training.t))


def from_alpha_bar(alpha_bar, training: Schedule) -> Schedule:
    """The aligned schedule with the levels `alpha_bar`, decreasing."""
    alpha_bar = np.asarray(alpha_bar, np.float64)
    return align(1 - alpha_bar / np.append(1.0, alpha_bar[:-1]), training)


def respaced(training: Schedule, num_steps: int) -> Schedule:
    """`num_steps` levels of `training` at equal distances, the noisiest among them.

    One step is the noisiest level, all steps are `training` itself. Otherwise levels lie between those of training, at
    equidistant fractional steps (sqrt of alpha_bar interpolated, as in `align`).

    Raises:
      ValueError: `num_steps` is not between 1 and the length of `training`.
    """
    _check(num_steps, len(training))
    if num_steps == len(training):
        return training
    t = np.linspace(0, len(training) - 1, num_steps) if num_steps > 1 else np.array([len(training) - 1.0])
    return from_alpha_bar(np.interp(t, training.t, np.sqrt(training.alpha_bar))**2, training)


def fast(training: Schedule, num_steps: int = len(FAST_BETA)) -> Schedule:
    """The released six-step schedule, and its shape with any other number of steps.

    Six steps have `FAST_BETA`. As many steps as `training` has are `training` itself, the authors' other mode. Any
    other number keeps the first and last of the six levels and lies on the same curve: the log of the signal-to-noise
    ratio alpha_bar / (1 - alpha_bar) over the steps, interpolated linearly between the six. A single step is the
    noisiest level. So sampling always starts at the level of the six steps, and only the way back is finer or coarser.
    `respaced` starts at the end of training's schedule instead.

    Raises:
      ValueError: `num_steps` is not between 1 and the length of `training`.
    """
    _check(num_steps, len(training))
    if num_steps == len(training):
        return training
    six = align(FAST_BETA, training)
    if num_steps == len(six):
        return six
    log_snr = np.log(six.alpha_bar) - np.log1p(-six.alpha_bar)
    place = np.linspace(0, len(six) - 1, num_steps) if num_steps > 1 else np.array([len(six) - 1.0])
    return from_alpha_bar(1 / (1 + np.exp(-np.interp(place, np.arange(len(six)), log_snr))), training)


def _check(num_steps: int, longest: int) -> None:
    if not 1 <= num_steps <= longest:
        raise ValueError(f'expected 1 to {longest} sampling steps, got {num_steps}')
