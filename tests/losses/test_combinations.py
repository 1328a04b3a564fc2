"""The weights of the study's combinations of losses, by its rule, on mixtures made here."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import dccrn
from jax_diffse.systems.dccrn import Dccrn, LossWeights
from tests import reference

SNR_DB = np.arange(-10.0, 21.0, 5.0)  # the study's
SAMPLES = 32_000  # 2 s
BASE = {'mse': 0, 'sdr': 0, 'si_snr': 0, 'si_sdr': 0, 'lms': 1, 'pmsqe': 1}  # the study's kinds; 1: perceptual


def mixtures():
    """Speech-like signals at the mean level of the corpora in docs/dccrn.md; noise that falls by 3 dB per octave."""
    clean, noise = (np.stack([signal('mixtures', f'{name}{i}') for i in range(len(SNR_DB))]) for name, signal in (
        ('speech', lambda salt, name: reference.waveform(salt, name, SAMPLES)),
        ('noise', lambda salt, name: reference.array(salt, name, [SAMPLES]))))
    spectrum = np.fft.rfft(noise)
    noise = np.fft.irfft(spectrum / np.sqrt(np.maximum(np.arange(spectrum.shape[1]), 40)), SAMPLES)  # 40: 20 Hz
    clean = 0.068 * clean / np.std(clean, axis=1, keepdims=True)
    noise = 0.068 * noise / np.std(noise, axis=1, keepdims=True) * 10 ** (-SNR_DB / 20)[:, None]
    return jnp.asarray(clean, jnp.float32), jnp.asarray(noise, jnp.float32)


@pytest.fixture(scope='module')
def sizes():
    """Of each term, the mean magnitude: of the mixtures themselves, and with their noise lowered by 3 and 6 dB."""
    system = Dccrn(loss=LossWeights(1, 1, 1, 1, 1, 1))
    lengths = jnp.full(len(SNR_DB), SAMPLES)
    clean, noise = mixtures()

    @jax.jit
    def magnitudes(estimate):
        batch = {'clean': clean, 'clean_spec': system.front_end.analyze(clean, lengths), 'num_samples': lengths}
        terms = system.terms(estimate, system.front_end.analyze(estimate, lengths), batch)
        return {name: jnp.mean(jnp.abs(term)) for name, term in terms.items()}

    return [{name: float(size) for name, size in magnitudes(clean + gain * noise).items()}
            for gain in 10 ** (np.float32([0, -3, -6]) / 20)]


def ratio(size, weights) -> float:
    """Of the base term to the perceptual one, weighted; of two base terms the larger to the smaller."""
    a, b = sorted(weights, key=BASE.get)
    found = weights[a] * size[a] / (weights[b] * size[b])
    return found if BASE[a] < BASE[b] else max(found, 1 / found)


@pytest.mark.parametrize('name', dccrn.COMBINATIONS)
def test_the_base_term_is_as_large_as_the_perceptual_one_up_to_ten_times(sizes, name):
    """At the start and as far as a training of minutes comes (`docs/loss_weights.py` measures real ones)."""
    weights = {term: weight for term, weight in dccrn.get_config(name).model.loss.items() if weight}
    found = [ratio(size, weights) for size in sizes]
    assert all(1 - 1e-6 <= value <= 10 for value in found), found


def test_released_weights_are_for_the_released_losses(sizes):
    """On the corrected losses they leave perceptual terms too large, and of two base terms nothing of one."""
    broken = {name for name, weights in dccrn.RELEASED.items()
              if not all(1 - 1e-3 <= ratio(size, weights) <= 10 for size in sizes)}
    assert broken == {'mse+si_snr', 'sdr+pmsqe', 'si_snr+pmsqe'}
