"""The platforms that a program is made for: some steps have one form for CPUs and one for accelerators."""

import contextlib
from collections.abc import Callable, Iterable

import jax

_exported = jax.make_user_context(frozenset())  # empty outside of exports; part of the keys of JAX's caches


def targets() -> frozenset[str]:
    """The platforms of the program that is traced, 'cpu' or others: this machine's, unless `exporting` says otherwise.
    """
    return _exported.value or frozenset([jax.default_backend()])


def cpu_only() -> bool:
    """Whether the program that is traced is for CPUs alone."""
    return targets() == {'cpu'}


def tpu_only() -> bool:
    """Whether the program that is traced is for TPUs alone."""
    return targets() == {'tpu'}


def exporting(platforms: Iterable[str]) -> contextlib.AbstractContextManager[None]:
    """In this context programs are traced for these platforms ('cpu', 'cuda', 'rocm', 'tpu'), whatever is at hand."""
    return _exported(frozenset(platforms))


def per_platform(cpu: Callable, other: Callable, *args: jax.Array) -> jax.Array:
    """`cpu(*args)` in programs for CPUs, `other(*args)` in others; a program for both holds both and does one."""
    found = targets()
    if cpu_only():
        return cpu(*args)
    if 'cpu' not in found:
        return other(*args)

    def traced_for(platforms, function):
        def traced(*args):
            with exporting(platforms):  # so that what is inside need not choose again
                return function(*args)

        return traced

    return jax.lax.platform_dependent(*args, cpu=traced_for({'cpu'}, cpu),
                                      default=traced_for(found - {'cpu'}, other))
