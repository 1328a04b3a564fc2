"""Metrics of degenerate signals: a possible value, or NaN with a reason."""

import warnings

import numpy as np
import pytest

from jax_diffse.metrics import COMPARING, score
from tests.reference import waveform

# Ranges of published definitions: P.862.1 and P.862.2, correlations, clips of Hansen and Pellom and of Hu and Loizou.
RANGES = {'pesq_wb': (1, 4.65), 'pesq_nb': (1, 4.55), 'stoi': (-1, 1), 'estoi': (-1, 1), 'ssnr': (-10, 35),
          'wss': (0, np.inf), 'csig': (1, 5), 'cbak': (1, 5), 'covl': (1, 5)}
LENGTH = 8000  # samples


def signals(rate):
    """Name -> clean and degraded."""
    rng = np.random.default_rng(0)
    speech = waveform('numerics', 'speech', LENGTH, rate).astype(np.float64)
    noise = 0.02 * rng.standard_normal(LENGTH)
    silence, click = np.zeros(LENGTH), np.eye(1, LENGTH, 4000)[0]
    half = np.where(np.arange(LENGTH) < LENGTH // 2, speech, 0.0)
    pairs = {'silence': (silence, silence), 'silent clean': (silence, speech), 'silent estimate': (speech, silence),
             'equal': (speech, speech), 'noisy': (speech, speech + noise), 'anti-phase': (speech, -speech),
             'constant': (silence + 0.5, silence + 0.5), 'constant estimate': (speech, silence + 0.5),
             'constant, off': (silence + 0.5, silence + 0.4), 'a click': (click, click),
             'click for speech': (speech, click), 'clipped': (speech, np.clip(9 * speech, -1, 1)),
             'square wave': (np.sign(speech), np.sign(speech + noise)), 'half silent': (half, half),
             'the other half': (half, speech - half), 'noise for speech': (speech, noise),
             'white': (noise, noise[::-1]),
             'NaN': (speech, np.where(click, np.nan, speech)), 'infinite': (np.where(click, np.inf, speech), speech)}
    for name, level in {'loud': 1e6, 'quiet': 1e-20, 'hardly there': 1e-160, 'beyond squares': 1e200}.items():
        pairs |= {name: (level * speech, level * (speech + noise)), f'{name} estimate': (speech, level * speech)}
    for length in (0, 1, 2, 100, 479, 600, 601, 2000, 3999):
        pairs[f'{length} samples'] = (speech[:length] + 0.1, (speech + noise)[:length] + 0.1)
    pairs['lengths that differ'] = (speech, speech[:-1])
    return pairs


@pytest.mark.parametrize('rate', [8000, 16_000])
def test_every_value_is_possible_or_comes_with_a_reason(rate):
    for name, (clean, degraded) in signals(rate).items():
        with warnings.catch_warnings():
            warnings.simplefilter('error')  # undefined values need a reason, not a warning
            found = score(clean, degraded, rate, COMPARING)
        for metric, value in found.values.items():
            what = f'{name}: {metric} {value}'
            if np.isnan(value):
                assert found.reasons[metric] and '\n' not in found.reasons[metric], what
                assert 'Error:' not in found.reasons[metric], f'{what}: {found.reasons[metric]}'  # foreseen, not caught
            else:
                low, high = RANGES.get(metric, (-np.inf, np.inf))
                assert metric not in found.reasons and low - 1e-9 <= value <= high + 1e-9 and np.isfinite(value), what


def test_perfection_is_the_best_value_and_anti_phase_is_not():
    pairs = signals(16_000)
    equal, noisy, opposite = (score(*pairs[name], 16_000).values for name in ('equal', 'noisy', 'anti-phase'))
    for metric in ('pesq_wb', 'pesq_nb', 'stoi', 'estoi', 'ssnr'):
        assert equal[metric] >= noisy[metric] and equal[metric] > RANGES[metric][1] - 0.01, metric
    assert equal['llr'] < noisy['llr'] and equal['wss'] < noisy['wss']
    assert opposite['ssnr'] < noisy['ssnr']
