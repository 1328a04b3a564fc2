"""Measures of speech quality and intelligibility, on NumPy arrays. Imports neither JAX nor TensorFlow."""

from jax_diffse.metrics.pool import Pool
from jax_diffse.metrics.scores import DEFAULT, METRICS, Scores, score

__all__ = ['DEFAULT', 'METRICS', 'Pool', 'Scores', 'score']
