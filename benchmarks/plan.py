"""Plans what is measured, at which sizes, in which jobs. It does not import JAX, so the parent process stays small."""

import argparse
import dataclasses
from collections.abc import Iterator
from typing import Any

from jax_diffse.errors import UserError

SYSTEMS = {  # name -> config and variants
    'c_gen': 'dr_diffuse:c_gen', 'diffusion': 'dr_diffuse:diffusion', 'refiner': 'dr_diffuse:refiner',
    'dccrn': 'dccrn', 'segan': 'segan', 'diffgmm': 'diffgmm', 'diffgmm_small': 'diffgmm:small',
    'noise_unet': 'noise_unet',
    'sgmse': 'sgmse', 'sgmse_small': 'sgmse:small', 'bridge': 'bridge', 'flowse': 'flowse',
    'diffiner': 'diffiner', 'diffiner_small': 'diffiner:small', 'diffiner_compact': 'compact_diffiner',
}
PARTS = ('systems', 'scaling', 'pipeline', 'starts', 'metrics', 'nisqa', 'losses', 'streaming')


@dataclasses.dataclass(frozen=True)
class Size:
    """The sizes of all measurements; the command line may override those of systems."""

    batch: int = 2
    seconds: float = 3.0
    steps: tuple[int, ...] = (1, 6)
    repeats: int = 5
    quick: bool = False  # systems in their size 'quick'
    points: tuple[int, ...] = (1, 2, 4, 8)  # batch sizes, and lengths in seconds
    devices: tuple[int, ...] = (1, 2, 4)  # simulated ones
    pipeline_seconds: float = 10.0
    starts: tuple[int, ...] = (20, 20_000, 1_000_000)  # numbers of files
    processes: tuple[int, ...] = (1, 4)  # that start at once
    pairs: int = 16  # for metrics
    files: int = 32  # for NISQA
    nisqa_models: tuple[str, ...] = ('nisqa_v2', 'nisqa_v2_mos_only', 'nisqa_tts')
    nisqa_rates: tuple[int, ...] = (16_000, 48_000)
    stream_seconds: float = 10.0


FULL = Size()
QUICK = Size(batch=1, seconds=1.0, steps=(1,), repeats=1, quick=True, points=(1, 2), devices=(1, 2),
             pipeline_seconds=1.0, starts=(20,), processes=(1,), pairs=2, files=2, nisqa_models=('nisqa_v2',),
             nisqa_rates=(16_000,), stream_seconds=1.0)


@dataclasses.dataclass(frozen=True)
class Job:
    """A module of this package and the arguments of its `run`, in a process of its own."""

    part: str
    settings: dict[str, Any]
    label: str = ''  # of what it measures within the part
    simulated: int = 0  # number of simulated devices; 0: use the real ones

    def __str__(self):
        return f'{self.part} {self.label}'.strip()


def size_of(args: argparse.Namespace) -> Size:
    """The sizes that the command line gives."""
    given = {name: getattr(args, name) for name in ('batch', 'seconds', 'steps', 'repeats')}
    return dataclasses.replace(QUICK if args.quick else FULL,
                               **{name: value for name, value in given.items() if value is not None})


def check(flag: str, names: list[str], known) -> None:
    """Raises a `UserError` for an unknown name."""
    for name in names:
        if name not in known:
            raise UserError(f'{flag}: {name!r} does not exist, expected some of {", ".join(known)}')


def jobs(args: argparse.Namespace, size: Size, hardware: dict[str, Any]) -> Iterator[Job]:
    """Yields the jobs in the order of `PARTS`; `hardware` is the result of `machine.hardware`."""
    common = {'dtype': args.dtype, 'repeats': size.repeats}
    for name in args.systems:
        config = quick(SYSTEMS[name]) if size.quick else SYSTEMS[name]
        yield Job('systems', {'name': name, 'config': config, 'batch': size.batch, 'seconds': size.seconds,
                              'steps': size.steps, **common}, name)
    simulate = hardware['platform'] == 'cpu'
    for count in size.devices if simulate else powers_of_two(hardware['devices']):
        yield Job('scaling', {'axis': 'devices', 'points': [count], **common}, f'over devices, {count}',
                  count if simulate else 0)
    for axis in ('batch', 'seconds'):
        yield Job('scaling', {'axis': axis, 'points': size.points, **common}, f'over {axis}')
    yield Job('pipeline', {'seconds': size.pipeline_seconds, 'speech': args.speech, 'noise': args.noise})
    yield Job('starts', {'counts': size.starts, 'processes': size.processes})
    yield Job('metrics', {'files': size.pairs})
    yield Job('nisqa', {'models': size.nisqa_models, 'rates': size.nisqa_rates, 'files': size.files,
                        'repeats': size.repeats})
    yield Job('losses', {'repeats': 10 * size.repeats})
    yield Job('streaming', {'seconds': size.stream_seconds})


def quick(config: str) -> str:
    """'NAME:VARIANTS' in the size 'quick'."""
    name, _, variants = config.partition(':')
    return ','.join([f'{name}:quick', *(variant for variant in variants.split(',') if variant not in ('', 'small'))])


def powers_of_two(largest: int) -> list[int]:
    return [2**i for i in range(largest.bit_length())]
