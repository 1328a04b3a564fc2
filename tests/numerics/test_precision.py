"""float32 and bfloat16 against more exact arithmetic; `python -m docs.numerics` measures all gradients, too."""

import dataclasses

import pytest

from tests.numerics import precision


@pytest.mark.parametrize('name', precision.CASES)
def test_errors_are_within_their_limits(name):
    found = precision.measure(name, gradients=name not in precision.SLOW)
    for field in dataclasses.fields(found):
        value, limit = getattr(found, field.name), getattr(precision.LIMITS[name], field.name)
        if value is not None:
            assert value < limit, f'{field.name}: {value:.1e}, at most {limit:.0e}'


def test_the_measure_tells_one_precision_from_another():
    assert precision.relative([1.0 + 2.0**-20], [1.0]) == pytest.approx(2.0**-20)
    assert 1e-9 < precision.measure('waveform.mse').forward < precision.measure('segan.Generator').half_forward
