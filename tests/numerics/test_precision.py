"""float32 and bfloat16 against more precise arithmetic; `python -m docs.numerics` also measures all gradients."""

import dataclasses
import re

import jax
import numpy as np
import pytest

from jax_diffse.networks.layers import Dense
from tests.numerics import precision
from tests.reference import ROOT

LONG = ('TwoBranchUNet', 'ConditionalUNet, DiffuSE', 'GuidedUNet')


@pytest.mark.parametrize('name', [pytest.param(name, marks=[pytest.mark.slow] if name in LONG else [])
                                  for name in precision.CASES])
def test_rounding_errors_are_within_their_limits(name):
    found = precision.measure(name, gradients=name not in precision.SLOW)
    for field in dataclasses.fields(found):
        value, limit = getattr(found, field.name), getattr(precision.LIMITS[name], field.name)
        if value is not None:
            assert value < limit, f'{field.name}: {value:.1e}, at most {limit:.0e}'


def test_the_measure_tells_one_precision_from_another():
    assert precision.relative([1.0 + 2.0**-20], [1.0]) == pytest.approx(2.0**-20)
    assert 1e-9 < precision.measure('waveform.mse').forward < precision.measure('segan.Generator').half_forward


def test_float64_is_float64_throughout():
    """A sum of which float32, eps 6e-8, keeps no more than seven digits; and nothing of it stays switched on."""
    x = np.float32([[1 / 3, 1e-6, 1e-9]])
    params = {'kernel': np.ones((3, 1), np.float32), 'bias': np.zeros(1, np.float32)}
    case = precision.Case(lambda dtype: lambda params, x: Dense(1).apply({'params': params}, x), lambda: (params, x))
    (exact, _), (rounded, _) = (case.results(dtype) for dtype in ('float64', 'float32'))
    assert abs(exact.item() - np.sum(x, dtype=np.float64)) < 1e-15 < abs(rounded.item() - exact.item())
    assert rounded.dtype == np.float32 and not jax.config.jax_enable_x64


def test_the_page_states_the_limits_and_figures_within_them():
    """Also those that no other test measures; figures far below a limit ask for a closer one."""
    page = (ROOT / 'docs' / 'numerics.md').read_text(encoding='utf-8')
    rows = dict(re.findall(r'^\| (.+?) \| (.+) \|$', page, re.MULTILINE))
    assert set(precision.LIMITS) == set(precision.CASES) <= set(rows)
    for name, limits in precision.LIMITS.items():
        stated = [tuple(map(float, cell)) for cell in re.findall(r'(\S+) \((\S+)\)', rows[name])]
        assert [limit for _, limit in stated] == [limit for limit in dataclasses.astuple(limits) if limit], name
        assert all(limit / 10 < value < limit for value, limit in stated), name
