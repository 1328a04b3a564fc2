"""One file per paper: a network, losses and a sampler make a `System` (see `base.py`)."""

from jax_diffse.config import from_config_dict
from jax_diffse.errors import UserError
from jax_diffse.systems.base import System
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

SYSTEMS = {'bridge': SchroedingerBridge, 'compact_diffiner': CompactDiffiner, 'dccrn': Dccrn, 'diffgmm': DiffGmm,
           'diffiner': Diffiner, 'dr_diffuse': DrDiffuse, 'flowse': FlowSe, 'noise_unet': NoiseUnet, 'segan': Segan,
           'sgmse': Sgmse}


def build(name: str, model) -> System:
    """Builds the system `name` with the fields in `model` (a ConfigDict or dict).

    Raises:
      UserError: an unknown system or field, or a value that the system refuses.
    """
    if name not in SYSTEMS:
        raise UserError(f'config.system: unknown system {name!r}, expected one of {", ".join(SYSTEMS)}')
    return from_config_dict(SYSTEMS[name], model, 'config.model')
