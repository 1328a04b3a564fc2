"""Generated noises, `[num_samples]` at 16 kHz and arbitrary level."""

import numpy as np

SAMPLE_RATE = 16_000  # Hz


def white(rng: np.random.Generator, num_samples: int) -> np.ndarray:
    """Gaussian noise with a flat spectrum."""
    return rng.standard_normal(num_samples)


def pink(rng: np.random.Generator, num_samples: int) -> np.ndarray:
    """Gaussian noise whose power falls as about 1/f: f to the power of -0.8 to -1.4, constant below 50 Hz."""
    spectrum = np.fft.rfft(rng.standard_normal(num_samples))
    hertz = np.fft.rfftfreq(num_samples, 1 / SAMPLE_RATE)
    return np.fft.irfft(spectrum * np.maximum(hertz, 50.0) ** (-rng.uniform(0.8, 1.4) / 2), num_samples)


def hum(rng: np.random.Generator, num_samples: int) -> np.ndarray:
    """Mains hum: 20 to 40 harmonics of about 50 or 60 Hz, over a floor of pink noise 20 dB below."""
    seconds = np.arange(num_samples) / SAMPLE_RATE
    mains = rng.choice([50.0, 60.0]) * rng.uniform(0.99, 1.01)
    order = np.arange(1, rng.integers(20, 41))[:, None]
    amplitude = rng.uniform(0.2, 1.0, order.shape) * order ** -rng.uniform(0.3, 1.0)
    tone = (amplitude * np.sin(2 * np.pi * mains * order * seconds + rng.uniform(0, 2 * np.pi, order.shape))).sum(0)
    return _unit(tone) + 0.1 * _unit(pink(rng, num_samples))


def impulsive(rng: np.random.Generator, num_samples: int) -> np.ndarray:
    """Knocks: 4 to 12 bursts a second that decay in 2 to 20 ms, over a floor of pink noise 26 dB below."""
    knocks = np.zeros(num_samples)
    for _ in range(1 + rng.poisson(rng.uniform(4, 12) * num_samples / SAMPLE_RATE)):
        decay = rng.uniform(0.002, 0.02) * SAMPLE_RATE
        start = rng.integers(num_samples)
        burst = rng.standard_normal(int(6 * decay)) * np.exp(-np.arange(int(6 * decay)) / decay)
        stop = min(start + len(burst), num_samples)
        knocks[start:stop] += rng.lognormal(0.0, 0.5) * burst[:stop - start]
    return _unit(knocks) + 0.05 * _unit(pink(rng, num_samples))


def modulated(rng: np.random.Generator, num_samples: int) -> np.ndarray:
    """Pink noise whose level varies by 20 dB, 2 to 6 times a second, as the level of speech does."""
    seconds = np.arange(num_samples) / SAMPLE_RATE
    swing = np.sin(2 * np.pi * rng.uniform(2, 6) * seconds + rng.uniform(0, 2 * np.pi))
    return 10 ** (swing / 2) * pink(rng, num_samples)


def babble(rng: np.random.Generator, num_samples: int, talkers: list[np.ndarray]) -> np.ndarray:
    """The sum of talkers `[N_i]` of equal level, each repeated from a random place."""
    return sum(np.roll(np.resize(_unit(talker), num_samples), rng.integers(num_samples)) for talker in talkers)


def mix(clean: np.ndarray, noise: np.ndarray, snr_db: float, level_db: float) -> tuple[np.ndarray, np.ndarray]:
    """Mixes at an SNR over the whole file -> (clean, noisy), with clean at `level_db` relative to full scale.

    If noisy would clip, both are scaled down together.
    """
    clean = 10 ** (level_db / 20) * _unit(clean)
    noisy = clean + 10 ** ((level_db - snr_db) / 20) * _unit(noise)
    gain = min(1.0, 0.99 / max(np.abs(clean).max(), np.abs(noisy).max()))
    return gain * clean, gain * noisy


def _unit(x: np.ndarray) -> np.ndarray:
    return x / np.sqrt(np.mean(x**2))
