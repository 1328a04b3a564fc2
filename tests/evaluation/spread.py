"""`evaluate` and `sweep` with options as keyword arguments, for tests."""

from jax_diffse.evaluation import evaluate as evaluation
from jax_diffse.evaluation import sweep as sweeping
from jax_diffse.evaluation.options import EvaluationOptions, EvaluationSet
from jax_diffse.inference.setting import Setting


def evaluate(run, source, output, *, steps=None, seed=0, preceding=None, data='', limit=None, skip_bad=False,
             **options):
    """Evaluates one setting."""
    return evaluation.evaluate(Setting(run, steps, seed, preceding), EvaluationSet(source, data, limit, skip_bad),
                               output, EvaluationOptions(**options))


def sweep(variants, source, output, *, seeds=(0,), preceding=None, data='', limit=None, skip_bad=False, **options):
    """Measures several settings."""
    return sweeping.sweep(variants, EvaluationSet(source, data, limit, skip_bad), output, EvaluationOptions(**options),
                          seeds=seeds, preceding=preceding)
