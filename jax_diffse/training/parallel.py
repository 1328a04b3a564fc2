"""Maps a per-replica step over all devices, in one place.

A step is written for one replica, with `AXIS` bound: `step(state, batch) -> (state, metrics)`. The batch is the
replica's share; state and metrics are equal on all replicas. `shard_map` over a one-axis mesh and `pmap` give equal
results.
"""

import functools
from collections.abc import Callable

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from jax_diffse.errors import UserError

AXIS = 'data'
MAPPERS = ('shard_map', 'pmap')


class Parallel:
    """The devices, and the placement of data and steps on them."""

    def __init__(self, mapper: str = 'shard_map', devices: list[jax.Device] | None = None):
        if mapper not in MAPPERS:
            raise UserError(f'config.parallel.mapper: unknown mapper {mapper!r}, expected one of {", ".join(MAPPERS)}')
        self.mapper = mapper
        self.devices = devices or jax.devices()
        self.mesh = jax.make_mesh((len(self.devices),), (AXIS,), (AxisType.Auto,), devices=self.devices)
        self._replicated = NamedSharding(self.mesh, PartitionSpec())
        self._sharded = NamedSharding(self.mesh, PartitionSpec(AXIS))
        self._local_devices = sum(device.process_index == jax.process_index() for device in self.devices)

    @property
    def asynchronous(self) -> bool:
        """Whether a call of a mapped step returns before the devices are done with it."""
        return self.devices[0].platform != 'cpu'  # see `wait_for_each_step`

    def connect(self) -> None:
        """Connects all processes to each other; call it while they are in step, before one of them compiles.

        On CPUs, XLA lets processes wait 30 s for each other at the first use of a group of devices, later half an hour.
        Without this call, one process may compile for minutes while another has the program in its cache.
        """
        if jax.process_count() > 1:
            multihost_utils.sync_global_devices('connect')  # the group of devices that JAX and Orbax use
            count = self.map(lambda _, ones: jax.lax.psum(ones.sum(), AXIS))
            jax.block_until_ready(count((), self.shard(np.ones(self._local_devices, np.float32))))

    def check_batch_size(self, batch_size: int, accumulate: int = 1) -> None:
        """Raises a UserError unless the global batch is divisible by devices and accumulation steps."""
        parts = len(self.devices) * accumulate
        if batch_size % parts:
            raise UserError(f'config.train.batch_size: {batch_size} is not a multiple of {parts} '
                            f'({len(self.devices)} devices x {accumulate} accumulation steps)')

    def replicate(self, tree):
        """Replicates host or device arrays, which are equal in every process, on all devices."""
        return jax.tree.map(
            lambda x: jax.make_array_from_process_local_data(self._replicated, np.asarray(x), np.shape(x)), tree)

    def shard(self, batch):
        """Places this process's rows of the global batch on its devices."""
        if self.mapper == 'pmap':
            local = self._local_devices
            return jax.tree.map(lambda x: np.reshape(x, (local, len(x) // local, *np.shape(x)[1:])), batch)
        return jax.tree.map(lambda x: jax.make_array_from_process_local_data(self._sharded, np.asarray(x)), batch)

    def shaped(self, state, batch):
        """Shapes of state and batch, placed as `replicate` and `shard` place arrays; to compile for absent devices."""
        def placed(tree, sharding):
            return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), tree)

        return placed(state, self._replicated), placed(batch, self._sharded)

    def map(self, step: Callable, *, donate: bool = False, sharded: bool = False) -> Callable:
        """Compiles `step(state, batch)` for all devices.

        Args:
          step: of one replica.
          donate: reuse the state's memory.
          sharded: `step` returns rows of the batch, which stay on their devices, instead of values equal on all.
        """
        donated = (0,) if donate else ()
        if self.mapper == 'pmap':
            mapped = jax.pmap(step, AXIS, in_axes=(None, 0), out_axes=0 if sharded else None, devices=self.devices,
                              donate_argnums=donated)
            if sharded or jax.process_count() == 1:
                return mapped
            return functools.wraps(mapped)(lambda *args: self._global(mapped(*args)))  # with `lower`, as of `mapped`
        mapped = jax.shard_map(step, mesh=self.mesh, in_specs=(PartitionSpec(), PartitionSpec(AXIS)),
                               out_specs=PartitionSpec(AXIS) if sharded else PartitionSpec(), check_vma=False)
        return jax.jit(mapped, donate_argnums=donated)

    def _global(self, tree):
        """Turns the arrays of `pmap`, on this process's devices, into global arrays, which Orbax can save."""
        return jax.tree.map(lambda x: jax.make_array_from_single_device_arrays(
            x.shape, self._replicated, [shard.data for shard in x.addressable_shards]), tree)


def wait_for_each_step() -> None:
    """Makes dispatch synchronous on CPUs, where concurrent steps compete for cores and memory."""
    jax.config.update('jax_cpu_enable_async_dispatch', False)
