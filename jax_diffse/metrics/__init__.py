"""Measures of speech quality and intelligibility, on NumPy arrays.

This module imports neither JAX nor TensorFlow. `nisqa`, whose metrics are outputs of a network, imports JAX.
"""

from jax_diffse.metrics.catalogue import COMPARING, DEFAULT, METRICS, Metric
from jax_diffse.metrics.pool import Pool
from jax_diffse.metrics.scores import Scores, score

__all__ = ['COMPARING', 'DEFAULT', 'METRICS', 'Metric', 'Pool', 'Scores', 'score']
