"""Settings of all tests, made before JAX is imported: the CPU with four simulated devices."""

import os
import tempfile
from importlib import metadata

# Compilation takes most of the time. XLA's older loop emitter takes a third of the time of the newer one. The
# flag depends on the release of jaxlib, as XLA aborts at an unknown one.
COMPILED_FASTER = ['--xla_backend_optimization_level=0']
if metadata.version('jaxlib').startswith('0.10.'):
    COMPILED_FASTER += ['--xla_cpu_use_fusion_emitters=false', '--xla_cpu_parallel_codegen_split_count=1']

os.environ['JAX_PLATFORMS'] = 'cpu'
if 'PYTEST_XDIST_WORKER' not in os.environ:
    os.environ['XLA_FLAGS'] = ' '.join([os.environ.get('XLA_FLAGS', ''), '--xla_force_host_platform_device_count=4',
                                        *COMPILED_FASTER])
os.environ['CUDA_VISIBLE_DEVICES'] = ''  # for TensorFlow, which only some tests import
os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '2')
os.environ['MPLBACKEND'] = 'Agg'
os.environ.setdefault('GLIBC_TUNABLES', '')  # entry points that tests run in this process must not restart it
# Entry points must not use or fill the user's cache. All processes of a session share this cache, as tests compile many
# equal programs.
if 'PYTEST_XDIST_WORKER' not in os.environ:
    PROGRAMS = tempfile.TemporaryDirectory(prefix='jax_diffse_tests_')  # removed when this process ends
    os.environ['JAX_DIFFSE_CACHE'] = os.environ['JAX_COMPILATION_CACHE_DIR'] = PROGRAMS.name
    os.environ['JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS'] = '0'

import jax  # noqa: E402
import pytest  # noqa: E402

# Many concurrent steps on few cores starve the simulated devices' collectives.
jax.config.update('jax_cpu_enable_async_dispatch', False)
# Implicit rank promotion, which may align a vector with the wrong axis, is an error.
jax.config.update('jax_numpy_rank_promotion', 'raise')


@pytest.fixture(autouse=True, scope='module')
def _forget_programs():
    """Drops compiled programs after each module, as those of all modules would take gigabytes."""
    yield
    jax.clear_caches()


@pytest.fixture(scope='module')
def drawn_once():
    """Draws all spectrograms of one size alike, for tests of pages that do not check the images.

    Drawing them takes longer than all else that these tests do.
    """
    from jax_diffse.evaluation.report import figures

    draw, drawn = figures.spectrogram, {}

    def spectrogram(power, loudest, sample_rate):
        key = power.shape, sample_rate
        if key not in drawn:
            drawn[key] = draw(power, loudest, sample_rate)
        return drawn[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(figures, 'spectrogram', spectrogram)
        yield


@pytest.fixture(scope='session')
def store():
    """An emulator of Google Cloud Storage, which all clients of this process and of its children use.

    It serves the whole session, because TensorStore reads its address once.
    """
    from tests import gcs

    store = gcs.shared()
    with pytest.MonkeyPatch.context() as patch:
        for name, value in store.environment().items():
            patch.setenv(name, value)
        yield store


@pytest.fixture
def bucket(store):
    """The address of a new, empty bucket of `store`."""
    name = f'bucket-{len(store.buckets)}'
    store.buckets[name] = {}
    store.refused = 0
    yield f'gs://{name}'
    store.refused, store.refused_part = 0, ''
    store.fail_for(0)
