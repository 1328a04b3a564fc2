"""The contract of a system: the members that a subclass must have, and the checks that all systems share."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

from jax_diffse.systems import base
from jax_diffse.systems.bridge import SchroedingerBridge
from jax_diffse.systems.compact_diffiner import CompactDiffiner
from jax_diffse.systems.dccrn import Dccrn
from jax_diffse.systems.diffgmm import DiffGmm
from jax_diffse.systems.diffiner import Diffiner
from jax_diffse.systems.dr_diffuse import DrDiffuse
from jax_diffse.systems.flowse import FlowSe
from jax_diffse.systems.noise_unet import NoiseUnet
from jax_diffse.systems.segan import Segan
from jax_diffse.systems.sgmse import Sgmse
from tests import toys

STREAMING = {'hop': 1, 'delay': 0, 'look_ahead': 0, 'stream_start': None, 'stream_step': None}
SAMPLING = {'default_steps': 3, 'check_steps': None}
SYSTEM = {'sample_rate': 16_000, 'front_end': None, 'losses': {}, 'init': None, 'gain': None, '_stages': None}
NO_STEPS = ' does not sample, so it takes no sampling steps'
NOTHING_TO_REFINE = ' enhances noisy speech by itself and refines nothing'
NEEDS_INPUT = ' refines the output of another enhancer: it needs `processed`'


@pytest.mark.parametrize(('mixin', 'members'), [
    (base.System, {}), (base.Sampling, SAMPLING), (base.Refiner, {'generate': None}), (base.Streaming, STREAMING)])
def test_a_system_that_lacks_something_cannot_be_made(mixin, members):
    members = SYSTEM | members
    type('Whole', (mixin,), members)()
    for name in members:
        rest = {key: value for key, value in members.items() if key != name}
        with pytest.raises(TypeError, match=f'abstract class Lacking .*{name}'):
            type('Lacking', (mixin,), rest)()


@pytest.mark.parametrize(('system', 'kinds'), [
    (Dccrn(), (base.Streaming,)), (Segan(), ()), (NoiseUnet(), ()), (DrDiffuse('refiner'), (base.Sampling,)),
    (DiffGmm(), (base.Sampling,)), (Diffiner(), (base.Sampling, base.Refiner)),
    (CompactDiffiner(), (base.Sampling, base.Refiner)), (Sgmse(), (base.Sampling,)),
    (SchroedingerBridge(), (base.Sampling,)), (FlowSe(), (base.Sampling,))])
def test_what_a_system_can_do(system, kinds):
    assert tuple(kind for kind in (base.Streaming, base.Sampling, base.Refiner) if isinstance(system, kind)) == kinds


@pytest.mark.parametrize(('system', 'arguments', 'message'), [
    (Dccrn(), {'steps': 3}, 'Dccrn' + NO_STEPS),
    (Segan(), {'steps': 3}, 'Segan' + NO_STEPS),
    (NoiseUnet(), {'steps': 3}, 'NoiseUnet' + NO_STEPS),
    (DrDiffuse(), {'steps': 3}, 'DrDiffuse at stage c_gen' + NO_STEPS),
    (Dccrn(), {'processed': np.zeros((1, 16))}, 'Dccrn' + NOTHING_TO_REFINE),
    (Segan(), {'processed': np.zeros((1, 16))}, 'Segan' + NOTHING_TO_REFINE),
    (DrDiffuse('refiner'), {'processed': np.zeros((1, 16))}, 'DrDiffuse' + NOTHING_TO_REFINE),
    (DiffGmm(), {'processed': np.zeros((1, 16))}, 'DiffGmm' + NOTHING_TO_REFINE),
    (Sgmse(), {'processed': np.zeros((1, 16))}, 'Sgmse' + NOTHING_TO_REFINE),
    (SchroedingerBridge(), {'steps': 0}, 'expected one or more sampling steps, got 0'),
    (FlowSe(), {'processed': np.zeros((1, 16))}, 'FlowSe' + NOTHING_TO_REFINE),
    (Diffiner(), {}, 'Diffiner' + NEEDS_INPUT),
    (CompactDiffiner(released=True), {}, 'CompactDiffiner' + NEEDS_INPUT)])
def test_what_a_system_has_no_use_for_is_refused_before_anything_runs(system, arguments, message):
    for enhance in (system.enhance, system.enhance_stages):
        with pytest.raises(ValueError, match=message):
            enhance({}, np.zeros((1, 16), np.float32), np.array([16]), None, **arguments)


def test_a_number_of_steps_is_that_asked_for_or_the_system_s_own():
    assert base.sampling_steps(toys.Stepped()) == 3 and base.sampling_steps(toys.Stepped(), 7) == 7
    assert base.sampling_steps(toys.Toy()) is None and base.sampling_steps(DrDiffuse()) is None
    assert base.sampling_steps(DrDiffuse('diffusion', steps=4)) == 4


def test_evaluations_of_the_network_are_those_of_the_system_s_steps():
    assert base.evaluations(toys.Toy()) is None and base.evaluations(DrDiffuse()) is None
    assert base.evaluations(toys.Stepped()) == 3 and base.evaluations(toys.Stepped(), 7) == 7
    assert base.evaluations(Sgmse()) == 60 and base.evaluations(Sgmse(corrector_steps=2), 5) == 15
    assert base.evaluations(SchroedingerBridge()) == 50 and base.evaluations(FlowSe(sampler='heun')) == 9


@dataclasses.dataclass(frozen=True)
class Level(toys.Toy):
    """Gives the gain that it got."""

    def _stages(self, variables, noisy, num_samples, key, gain, steps, processed):
        return {'gain': gain}


def test_the_gain_is_that_given_or_the_system_s_own():
    noisy, length = jnp.array([[0.5, -0.5, 0.0, 0.0]]), jnp.array([2])
    np.testing.assert_allclose(Level().enhance({}, noisy, length, None), [2.0], rtol=1e-6)  # to unit RMS
    np.testing.assert_array_equal(Level().enhance({}, noisy, length, None, gain=jnp.array([3.0])), [3.0])
