"""What a training logs of its speed, with a clock and devices whose values are given."""

import types

import numpy as np
import pytest

from jax_diffse.training import speed
from jax_diffse.training.speed import Speed


@pytest.fixture
def clock(monkeypatch):
    """A clock that only `clock.now` moves."""
    clock = types.SimpleNamespace(now=5.0)
    monkeypatch.setattr(speed.time, 'perf_counter', lambda: clock.now)
    return clock


def device(kind='NVIDIA H100 80GB HBM3', stats=None, process=0):
    return types.SimpleNamespace(device_kind=kind, process_index=process, memory_stats=lambda: stats)


def product(state, batch):
    return state @ batch


def run(clock, measured: Speed) -> dict[str, float]:
    """Two steps: 10 s, of which 3 s of waiting; the 100 s after each do not count, and waiting then does not either."""
    for waited in (1, 2):
        measured.start()
        with measured.waiting():
            clock.now += waited
        clock.now += 5 - waited
        measured.count()
        measured.stop()
        with measured.waiting():
            clock.now += 100
    measured.start()
    return measured.scalars()


def test_rates_and_times(clock):
    measured = Speed(16, [device('cpu')] * 4)
    first = run(clock, measured)
    assert first == pytest.approx({'examples_per_second': 3.2, 'examples_per_second_per_device': 0.8,
                                   'seconds_per_step': 5, 'data_wait_seconds_per_step': 1.5})
    measured.stop()
    assert run(clock, measured) == pytest.approx(first)  # of the steps since then


@pytest.mark.parametrize(('kind', 'peak'), [('NVIDIA H100 80GB HBM3', 989e12), ('TPU v5 lite', 197e12)])
def test_utilisation_is_the_share_of_the_peak(clock, kind, peak):
    """A product of [3, 4] and [4, 5] per step on each device: 120 operations in 5 s."""
    measured = Speed(16, [device(kind)] * 4)
    measured.learn(product, np.ones((3, 4)), np.ones((4, 5)))
    assert run(clock, measured)['utilisation'] == pytest.approx(120 / 5 / peak)


def test_a_device_of_unknown_peak_has_no_utilisation_and_its_step_is_not_traced(clock):
    measured = Speed(16, [device('NVIDIA H100 80GB HBM3 MIG 1g.10gb')])
    measured.learn(None, None, None)
    assert 'utilisation' not in run(clock, measured)


def test_memory_is_that_of_the_fullest_device_of_this_process(clock):
    devices = [device(stats={'bytes_in_use': 2e9, 'peak_bytes_in_use': 7e9}),
               device(stats={'bytes_in_use': 3e9, 'peak_bytes_in_use': 5e9}),
               device(stats={'bytes_in_use': 9e9, 'peak_bytes_in_use': 9e9}, process=1)]
    found = run(clock, Speed(16, devices))
    assert (found['device_memory_gb'], found['device_peak_memory_gb']) == (3, 7)
    assert not any('memory' in name for name in run(clock, Speed(16, [device(stats=None)])))
    assert 'device_peak_memory_gb' not in run(clock, Speed(16, [device(stats={'bytes_in_use': 2e9})]))
