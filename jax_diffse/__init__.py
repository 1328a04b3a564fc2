"""Speech enhancement with diffusion and predictive networks, in JAX.

    enhance = jax_diffse.load()  # the enhancer that comes with the package, or that of a run: load('runs/dccrn')
    enhanced = enhance(noisy, sample_rate)  # [N] or [N, C], at any rate

Every name below is documented where it is defined. Importing this package imports nothing heavy: JAX is loaded when a
name is used first.
"""

import importlib
import importlib.metadata
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jax_diffse.api import convert, evaluate, train
    from jax_diffse.evaluation.options import EvaluationData, EvaluationOptions
    from jax_diffse.evaluation.score import score
    from jax_diffse.inference.enhancer import Enhancer, load
    from jax_diffse.inference.streaming import StreamingEnhancer
    from jax_diffse.inference.streaming import load as load_streaming
    from jax_diffse.systems.base import LossOutput, System

__all__ = ['Enhancer', 'EvaluationData', 'EvaluationOptions', 'LossOutput', 'StreamingEnhancer', 'System', 'convert',
           'evaluate', 'load', 'load_streaming', 'score', 'train']

_MODULES = {
    'Enhancer': 'inference.enhancer', 'load': 'inference.enhancer',
    'StreamingEnhancer': 'inference.streaming', 'load_streaming': 'inference.streaming:load',
    'train': 'api', 'evaluate': 'api', 'convert': 'api', 'score': 'evaluation.score',
    'EvaluationData': 'evaluation.options', 'EvaluationOptions': 'evaluation.options',
    'System': 'systems.base', 'LossOutput': 'systems.base',
}

try:
    __version__ = importlib.metadata.version('jax_diffse')
except importlib.metadata.PackageNotFoundError:  # a clone that was not installed
    __version__ = '0+unknown'


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
    module, _, attribute = _MODULES[name].partition(':')
    value = globals()[name] = getattr(importlib.import_module(f'{__name__}.{module}'), attribute or name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
