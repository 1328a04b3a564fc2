"""The accelerators that programs are compiled for without having one: their devices and their published limits."""

import contextlib
import os
import warnings
from collections.abc import Iterator
from importlib import resources, util
from typing import Any, NamedTuple

import jax
from jax.experimental import topologies

from jax_diffse.errors import UserError
from jax_diffse.flops import PEAKS


class Limits(NamedTuple):
    """What one device can do at most, as published by its maker."""

    flops: float  # FLOP per second, bfloat16, dense
    bandwidth: float  # bytes per second, of its memory
    memory: float  # bytes
    clock: float = 0.0  # Hz, of the cycles that the TPU compiler estimates


TPUS = {  # clock = FLOP/s over the multiply-adds of the matrix units
    'v4': Limits(PEAKS['TPU v4'] / 2, 614e9, 16 * 2**30, 1.05e9),  # half a chip: each of its two cores is a device
    'v5e': Limits(PEAKS['TPU v5e'], 819e9, 16 * 2**30, 1.5e9),
    'v5p': Limits(PEAKS['TPU v5p'], 2765e9, 95 * 2**30, 1.75e9),
    'v6e': Limits(PEAKS['TPU v6e'], 1640e9, 32 * 2**30, 1.75e9),
}
GPUS = {
    'a100': Limits(PEAKS['NVIDIA A100-SXM4-80GB'], 2039e9, 80e9),
    'h100': Limits(PEAKS['NVIDIA H100 80GB HBM3'], 3352e9, 80e9),
    'h200': Limits(PEAKS['NVIDIA H200'], 4800e9, 141e9),
}
FLAT = ('1x1', '2x2', '2x4', '4x4', '4x8', '8x8', '8x16', '16x16')  # shapes of v5e and v6e
CUBES = ('2x2x1', '2x2x2', '2x2x4', '2x4x4', '4x4x4', '4x4x8', '4x8x8', '8x8x8')  # of v4 and v5p
SHAPES = {'v4': CUBES, 'v5e': FLAT, 'v5p': CUBES, 'v6e': FLAT}
GPUS_PER_HOST = 8
# The TPU library asks for these where there is no TPU; the last two are not used in compilation.
TPU_ENVIRONMENT = {'ALLOW_MULTIPLE_LIBTPU_LOAD': '1', 'TPU_SKIP_MDS_QUERY': '1',
                   'TPU_ACCELERATOR_TYPE': 'v5litepod-4', 'TPU_WORKER_HOSTNAMES': 'localhost'}
# Autotuning needs a GPU, and without it Triton finds no tiles for some products; cuBLAS takes all of them.
GPU_FLAGS = '--xla_gpu_autotune_level=0 --xla_gpu_enable_triton_gemm=false'


class Target(NamedTuple):
    """Devices to compile for."""

    name: str  # as on the command line, 'v5e:2x2' or '8 x h100'
    platform: str  # 'tpu' or 'cuda'
    devices: list[Any]  # compile-only
    hosts: int
    limits: Limits  # of one device


def tpu(topology: str) -> Target:
    """The chips of a TPU slice, such as 'v5e:16x16'.

    Raises:
      UserError: there is no such slice, or libtpu is not installed.
    """
    kind, _, shape = topology.partition(':')
    if kind not in TPUS or shape not in SHAPES[kind]:
        known = ', '.join(f'{kind}:{shape}' for shape in SHAPES[kind]) if kind in TPUS else '; '.join(
            f'{kind}:{shapes[0]} to {kind}:{shapes[-1]}' for kind, shapes in SHAPES.items())
        raise UserError(f'--topology={topology}: no such TPU slice, expected one of {known}')
    if util.find_spec('libtpu') is None:
        raise UserError("--topology needs the TPU compiler: pip install 'jax[tpu]'")
    with _quiet():
        devices = _described(f'--topology={topology}', platform='tpu', topology_name=topology, **_host_bounds(shape))
    return Target(topology, 'tpu', devices, len({device.process_index for device in devices}), TPUS[kind])


def _host_bounds(shape: str) -> dict[str, Any]:
    """What JAX must be told about slices of a part of a host."""
    return {'chips_per_host_bounds': [1, 1, 1]} if shape == '1x1' else {}


def gpus(kind: str, count: int) -> Target:
    """`count` GPUs of a kind in `GPUS`, eight in a host.

    Raises:
      UserError: no such kind or number, or the CUDA plug-in is not installed.
    """
    if kind not in GPUS:
        raise UserError(f'--gpu={kind}: unknown, expected one of {", ".join(GPUS)}')
    if count < 1 or count > GPUS_PER_HOST and count % GPUS_PER_HOST:
        raise UserError(f'--gpus={count}: expected 1 to {GPUS_PER_HOST}, or a multiple of {GPUS_PER_HOST}')
    if not any(util.find_spec(f'jax_cuda{version}_plugin') for version in (12, 13)):
        raise UserError("--gpus needs the GPU compiler: pip install 'jax[cuda13]'")
    os.environ['XLA_FLAGS'] = f'{os.environ.get("XLA_FLAGS", "")} {GPU_FLAGS}'.strip()
    hosts = -(-count // GPUS_PER_HOST)
    description = resources.files('jax_diffse.planning').joinpath(f'{kind}.txt').read_text(encoding='utf-8')
    devices = _described(f'--gpu={kind}', platform='cuda', topology_name='any',
                         topology=f'1x{hosts}x{count // hosts}', target_config=description)
    return Target(f'{count} x {kind}', 'cuda', devices, hosts, GPUS[kind])


def _described(flag: str, **description) -> list[Any]:
    try:
        return list(topologies.get_topology_desc(**description).devices)
    except Exception as error:  # jaxlib raises its own
        raise UserError(f'{flag}: the compiler cannot describe it ({" ".join(str(error).split())[:200]})') from error


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keeps the TPU library's messages about the missing TPU off standard error."""
    for name, value in TPU_ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    held, null = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(null, 2)
        with warnings.catch_warnings(action='ignore'):
            jax.devices('cpu')  # JAX looks for a TPU when it sets up its backends
            yield
    finally:
        os.dup2(held, 2)
        os.close(held)
        os.close(null)
