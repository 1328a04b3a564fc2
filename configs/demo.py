"""The demo: a small DCCRN, trained for minutes on two CPU cores, on speech made on the spot.

Command:   make demo
Data:      spoken_demo: sentences spoken by espeak-ng, mixed with generated noises; test voices, sentences and two of
           the noises do not occur in training. Made on the first use, nothing is downloaded.
"""

from ml_collections import ConfigDict

from jax_diffse import experiment
from jax_diffse.config import load

VARIANTS = {'size': {'quick': experiment.QUICK}}
DEFAULTS = {}


def get_config(variant: str = '') -> ConfigDict:
    """The size small of dccrn.py, trained still shorter than there."""
    chosen = experiment.choose(variant, VARIANTS, DEFAULTS)
    config = load(f'dccrn:spoken_demo,short,{chosen.size or "small"}').unlock()
    return config.lock()
