"""The front ends' functions in JAX and their twins in TensorFlow, for tests that hold for both."""

import jax.numpy as jnp
import numpy as np
import pytest

from jax_diffse import spectral


class Jax:
    """The functions under test."""

    @staticmethod
    def stft(x, n_fft, hop):
        return np.asarray(spectral.stft(jnp.asarray(x), n_fft, hop))

    @staticmethod
    def compress(spec, kind):
        return np.asarray(spectral.compress(jnp.asarray(spec), kind))

    @staticmethod
    def analyze(front_end, x):
        return np.asarray(front_end.analyze(jnp.asarray(x), jnp.full(len(x), x.shape[1])))

    @staticmethod
    def gains(waves):
        return [float(spectral.rms_gain(jnp.asarray(x)[None], jnp.array([len(x)]))[0]) for x in waves]


class Tf:
    """Their TensorFlow twins, eager."""

    @staticmethod
    def stft(x, n_fft, hop):
        from jax_diffse.data import tf_spectral

        return tf_spectral.stft(x, n_fft, hop).numpy()

    @staticmethod
    def compress(spec, kind):
        from jax_diffse.data import tf_spectral

        return np.asarray(tf_spectral.compress(spec, kind))

    @staticmethod
    def analyze(front_end, x):
        from jax_diffse.data import tf_spectral

        return tf_spectral.analyze(front_end, x).numpy()

    @staticmethod
    def gains(waves):
        from jax_diffse.data import tf_spectral

        return [float(tf_spectral.rms_gain(x)) for x in waves]


class TfInPipeline(Tf):
    """The twins traced into a tf.data pipeline."""

    @staticmethod
    def _mapped(function, x):
        from jax_diffse.data.tf import tf

        return next(iter(tf.data.Dataset.from_tensors(x).map(function))).numpy()

    @staticmethod
    def stft(x, n_fft, hop):
        from jax_diffse.data import tf_spectral

        return TfInPipeline._mapped(lambda x: tf_spectral.stft(x, n_fft, hop), x)

    @staticmethod
    def analyze(front_end, x):
        from jax_diffse.data import tf_spectral

        return TfInPipeline._mapped(lambda x: tf_spectral.analyze(front_end, x), x)

    @staticmethod
    def compress(spec, kind):
        from jax_diffse.data import tf_spectral

        return TfInPipeline._mapped(lambda spec: tf_spectral.compress(spec, kind), spec)


BACKENDS = pytest.mark.parametrize('backend', [Jax, Tf, TfInPipeline])


def padded(waves):
    longest = max(map(len, waves))
    return np.stack([np.pad(x, (0, longest - len(x))) for x in waves])


def random_waves(*lengths, seed=0):
    rng = np.random.default_rng(seed)
    return [rng.standard_normal(n).astype(np.float32) for n in lengths]
