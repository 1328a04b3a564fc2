"""A stand-in for NISQA, whose weights are not part of this project; DNSMOS counts as missing."""

import numpy as np

from jax_diffse.metrics import Scores, dnsmos, nisqa

SHORTEST = 1000  # samples


def install(monkeypatch, there=('nisqa_v2', 'nisqa_tts')) -> list[tuple[int, int, list[str]]]:
    """The mean absolute value for every metric, of whose models the weights of these are there.

    Returns the calls that will have been made: number of waveforms, sample rate, metrics.
    """
    calls = []

    def score_all(waveforms, sample_rate, names):
        calls.append((len(waveforms), sample_rate, list(names)))
        return [_rate(waveform, names, there) for waveform in waveforms]

    monkeypatch.setattr(nisqa, 'score_all', score_all)
    monkeypatch.setattr(nisqa, 'is_available', lambda model: model in there)
    monkeypatch.setattr(nisqa, 'how_to_get', lambda model: f'get {model}')
    monkeypatch.setattr(dnsmos, 'PACKAGES', ('no_such_package',))
    return calls


def _rate(waveform, names, there) -> Scores:
    reasons = {name: 'no weights' for name in names if nisqa.METRICS[name] not in there}
    if len(waveform) < SHORTEST:
        reasons = dict.fromkeys(names, 'too short')
    return Scores({name: np.nan if name in reasons else float(np.mean(np.abs(waveform))) for name in names}, reasons)
