"""Trained runs: the folders that training and conversion write and all other commands load."""

from jax_diffse.runs.history import versions
from jax_diffse.runs.run import Run, history_of, load, save, with_model

__all__ = ['Run', 'history_of', 'load', 'save', 'versions', 'with_model']
