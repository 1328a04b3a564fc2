"""Counts the products and convolutions of a traced program, and knows what devices can do at most."""

import functools
import math
from collections.abc import Iterator

import numpy as np
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn

# Operations per second in bfloat16 (dense), by `jax.Device.device_kind`; from Google's and NVIDIA's data sheets.
PEAKS = {
    'TPU v4': 275e12,
    'TPU v5 lite': 197e12,
    'TPU v5e': 197e12,
    'TPU v5': 459e12,
    'TPU v5p': 459e12,
    'TPU v6 lite': 918e12,
    'TPU v6e': 918e12,
    'NVIDIA A100-PCIE-40GB': 312e12,
    'NVIDIA A100-SXM4-40GB': 312e12,
    'NVIDIA A100 80GB PCIe': 312e12,
    'NVIDIA A100-SXM4-80GB': 312e12,
    'NVIDIA H100 PCIe': 756e12,
    'NVIDIA H100 80GB HBM3': 989e12,
    'NVIDIA H200': 989e12,
}


def count(jaxpr: Jaxpr | ClosedJaxpr) -> float:
    """The floating-point operations of the products and convolutions of a program, such as `jit(f).trace(x).jaxpr`.

    A multiplication and an addition are two operations. The other operations of a network are few in comparison and do
    not count. A convolution counts only taps that meet a value of its input, neither its padding nor the zeros between
    dilated values. A scan counts its body times its length; a loop of unknown length counts it once; of the branches of
    a condition, the most expensive one counts. What is computed again to save memory counts again. A part that is
    mapped over devices counts as what one device computes.
    """
    jaxpr = jaxpr.jaxpr if isinstance(jaxpr, ClosedJaxpr) else jaxpr
    return sum(_count_equation(equation) for equation in jaxpr.eqns)


def _count_equation(equation: JaxprEqn) -> float:
    name, params = equation.primitive.name, equation.params
    if name == 'dot_general':
        return _count_product(equation)
    if name == 'conv_general_dilated':
        return _count_convolution(equation)
    if name == 'cond':
        return max(count(branch) for branch in params['branches'])
    return (params['length'] if name == 'scan' else 1) * sum(count(inner) for inner in _inner(params.values()))


def _inner(values) -> Iterator[Jaxpr | ClosedJaxpr]:
    """The programs within the parameters of an operation."""
    for value in values:
        if isinstance(value, (Jaxpr, ClosedJaxpr)):
            yield value
        elif isinstance(value, (tuple, list)):
            yield from _inner(value)


def _count_product(equation: JaxprEqn) -> float:
    (contracted, _), _ = equation.params['dimension_numbers']
    left, out = equation.invars[0].aval.shape, equation.outvars[0].aval.shape
    return 2.0 * math.prod(out) * math.prod(left[axis] for axis in contracted)


def _count_convolution(equation: JaxprEqn) -> float:
    params, (inputs, kernel) = equation.params, [var.aval.shape for var in equation.invars]
    out, names = equation.outvars[0].aval.shape, params['dimension_numbers']
    total = 2.0 * out[names.out_spec[0]] * out[names.out_spec[1]] * kernel[names.rhs_spec[1]]
    for i, (low, _) in enumerate(params['padding']):
        total *= _taps(inputs[names.lhs_spec[2 + i]], kernel[names.rhs_spec[2 + i]], out[names.out_spec[2 + i]],
                       params['window_strides'][i], low, params['lhs_dilation'][i], params['rhs_dilation'][i])
    return total


@functools.cache
def _taps(inputs: int, kernel: int, outputs: int, stride: int, low: int, input_dilation: int,
          kernel_dilation: int) -> int:
    """The pairs of an output and a tap that meet a value of the input, along one axis of a convolution.

    Args:
      low: the padding before the input, in places of the dilated input.
    """
    starts, offsets = stride * np.arange(outputs) - low, kernel_dilation * np.arange(kernel)
    few, many = sorted((starts, offsets), key=len)  # one axis may have as many taps as samples
    places = (many + one for one in few)
    return sum(int(np.count_nonzero((p >= 0) & (p <= input_dilation * (inputs - 1)) & (p % input_dilation == 0)))
               for p in places)
