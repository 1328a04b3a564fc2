"""Hypothesis: the same examples in every run, no deadline, and no files in the checkout."""

import atexit
import shutil
import tempfile

import hypothesis
from hypothesis import configuration

STORE = tempfile.mkdtemp(prefix='jax_diffse_hypothesis_')
atexit.register(shutil.rmtree, STORE, ignore_errors=True)
configuration.set_hypothesis_home_dir(STORE)
hypothesis.settings.register_profile(
    'suite', derandomize=True, database=None, deadline=None, max_examples=40,
    suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture, hypothesis.HealthCheck.too_slow])
hypothesis.settings.load_profile('suite')
