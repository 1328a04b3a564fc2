"""Every system compiles for TPUs, by the TPU compiler, which needs no TPU."""

import jax
import pytest

from jax_diffse import config
from jax_diffse.planning import plan, targets

COMPILER = [pytest.mark.slow, pytest.mark.compiler]
SYSTEMS = ('dccrn:si_snr', 'segan', 'compact_diffiner',
           *(pytest.param(name, marks=COMPILER) for name in (
               'dr_diffuse:c_gen', 'dr_diffuse:diffusion', 'dr_diffuse:refiner', 'diffgmm', 'noise_unet', 'diffiner',
               'sgmse', 'bridge', 'flowse')))
ENHANCED = {'dr_diffuse:refiner': 2, 'dccrn:si_snr': None, 'segan': None, 'diffgmm': 2, 'noise_unet': None,
            'diffiner': 2, 'compact_diffiner': 2, 'sgmse': 2, 'bridge': 2, 'flowse': 2}  # system -> sampling steps


def small(name, devices=1):
    """The system at its smallest size, in bfloat16, with one example on each device."""
    loaded = config.load(f'{name}{"," if ":" in name else ":"}quick').unlock()
    (loaded.model if 'dtype' in loaded.model else loaded.model.network).dtype = 'bfloat16'
    loaded.train.update(batch_size=devices, crop_seconds=0.5)
    return loaded.lock()


@pytest.fixture
def quickly():
    """A compiler that takes a quarter less time, as it does not look for fast programs."""
    names = 'jax_exec_time_optimization_effort', 'jax_memory_fitting_effort'
    before = [getattr(jax.config, name) for name in names]
    for name in names:
        jax.config.update(name, -1.0)
    yield
    for name, value in zip(names, before, strict=True):
        jax.config.update(name, value)


@pytest.mark.usefixtures('quickly')
@pytest.mark.parametrize('name', SYSTEMS)
def test_the_training_step_compiles(name):
    found = plan.plan_step(small(name, 4), targets.tpu('v5e:2x2'))
    assert found.fits and found.devices == 4 and found.seconds > 0
    assert found.collectives['all-reduce'].count >= 1  # the gradient's mean over the devices


@pytest.mark.slow
@pytest.mark.compiler
@pytest.mark.usefixtures('quickly')
@pytest.mark.parametrize(('name', 'topology'), [
    *((name, 'v5e:1x1') for name in ENHANCED),
    *((name, 'v5e:2x2') for name in ENHANCED if name not in ('bridge', 'flowse'))])  # which have sgmse's network
def test_the_enhancement_compiles(name, topology):
    target = targets.tpu(topology)
    found = plan.plan_enhancement(small(name), target, 1, 0.5, ENHANCED[name])
    assert found.fits and found.devices == len(target.devices) and not found.collectives


@pytest.mark.slow
def test_a_step_of_full_size_compiles_and_fits():
    """SEGAN's, which compiles fastest; docs/benchmarks.md has its estimate."""
    loaded = config.load('segan').unlock()
    loaded.model.dtype = 'bfloat16'
    loaded.train.update(batch_size=32, crop_seconds=3.0)
    found = plan.plan_step(loaded, targets.tpu('v5e:2x2'))
    assert found.fits and found.utilisation > 0.2  # the compiler's estimate; 0.08 before rows of samples
