"""TensorFlow as this project uses it: on the CPU only, and quiet. All of `data` imports it from here.

    from jax_diffse.data.tf import tf
"""

import contextlib
import os

os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '2')  # read when TensorFlow is loaded


@contextlib.contextmanager
def _quiet():
    """Drops what is written to file descriptor 2: TensorFlow prints there before it reads its log level."""
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


@contextlib.contextmanager
def _without_keras():
    """Keeps TensorFlow from importing Keras, and Matplotlib with it, which take a third of the import time.

    `tf.keras` still loads them when it is used.
    """
    name = 'TF_USE_LEGACY_KERAS'  # then TensorFlow looks for another Keras, which is not installed
    kept = os.environ.get(name)
    os.environ[name] = '1'
    try:
        yield
    finally:
        del os.environ[name]
        if kept is not None:
            os.environ[name] = kept


with _quiet(), _without_keras():
    import tensorflow as tf

    # Otherwise TensorFlow would reserve the memory of the accelerators, which JAX needs.
    for _kind in ('GPU', 'TPU'):
        tf.config.set_visible_devices([], _kind)

__all__ = ['tf']
