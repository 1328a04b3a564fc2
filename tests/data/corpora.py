"""Small folders of noise: their waveforms, and their SNR."""

import numpy as np
import soundfile

RATE = 16_000


def wave(seed, seconds=0.5, level=0.1):
    return level * np.random.default_rng(seed).standard_normal(round(seconds * RATE))


def write(path, samples, rate=RATE, subtype=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, samples, rate, subtype=subtype)
    return path


def write_unusable(folder):
    """Writes a good file, and silent, NaN, short ones, one at another rate and one without sound."""
    bad = np.full(8000, 0.1)
    bad[7] = np.nan
    for name, samples, rate in (('good', wave(0), RATE), ('silent', np.zeros(8000), RATE), ('nan', bad, RATE),
                                ('short', wave(0, 0.1), RATE), ('rate', wave(0), 8000)):
        write(folder / f'{name}.wav', samples, rate, 'FLOAT')
    (folder / 'text.wav').write_text('no audio at all')


def wave_snr(clean, noisy):
    """SNR in dB from its definition."""
    noise = noisy.astype(np.float64) - clean
    return 10 * np.log10(np.sum(clean.astype(np.float64)**2) / np.sum(noise**2))
