"""SGMSE+, the Schroedinger bridge and FlowSE as systems, against the authors' losses, gradients and enhancement."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jax_diffse.conversion import layouts
from jax_diffse.conversion import ncsnpp as conversion
from jax_diffse.diffusion import ddpm
from jax_diffse.systems.continuous import GROUP
from tests import reference
from tests.diffusion.released import turned
from tests.systems.continuous import jit, system_of, training, variables_of

CASES = ('score', 'score_v2', 'score_t', 'score_edm', 'denoiser', 'denoiser_sigma', 'denoiser_edm', 'bridge',
         'bridge_l1', 'bridge_one', 'bridge_edm', 'bridge_sigma', 'flow', 'flow_mae')
GRADIENTS = ('score', 'score_edm', 'denoiser_edm', 'bridge_l1', 'bridge_one', 'flow')


@functools.cache
def losses(case, gradient=False):
    """Losses `[B]`, and the gradient of their mean."""
    system, variables, batch, t, noise = training(case)

    def mean(params):
        found = system.terms({'params': {GROUP: params}, 'batch_stats': {}}, batch, t, noise)['loss']
        return jnp.mean(found), found

    if not gradient:
        return jit(mean)(variables['params'][GROUP])[1], None
    (_, found), slope = jit(jax.value_and_grad(mean, has_aux=True))(variables['params'][GROUP])
    return found, slope


@pytest.mark.parity
@pytest.mark.parametrize('case', CASES)
def test_released_losses(case):
    fixture = reference.load('sgmse_training')
    system, _, batch, t, noise = training(case)
    fixture.check(f'{case}/loss', jnp.mean(losses(case, case in GRADIENTS)[0]))


@pytest.mark.parity
@pytest.mark.parametrize('case', GRADIENTS)
def test_released_gradients(case):
    fixture = reference.load('sgmse_training')
    system = training(case)[0]
    entries = conversion.entries(system.network, system.front_end.num_bins)
    found = layouts.to_torch(entries, {'params': losses(case, True)[1]})
    np.testing.assert_array_equal(found.pop(conversion.FROZEN), 0)
    fixture.check_table(f'grad/{case}', found, of_largest=1e-6)
