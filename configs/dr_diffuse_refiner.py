"""DR-DiffuSE, stage 3: the refiner, trained on samples that the frozen DDPM draws on the fly, on VoiceBank-DEMAND.

Paper:     Tai et al., "Revisiting Denoising Diffusion Probabilistic Models for Speech Enhancement", AAAI 2023.
Command:   python train.py --config configs/dr_diffuse_refiner.py --workdir runs/refiner --config.init_from=runs/diffuse
           It starts as a copy of the c_gen that runs/diffuse holds. For DiffuSEC: --config.model.denoiser=diffusec
Published: the whole system, see dr_diffuse.py.
Measured:  not yet: nobody has run this config in full. What was measured is in configs/dr_diffuse_short.py.

Data, hyper-parameters and variants are in dr_diffuse.py, the chain that this is a stage of. The sampler is part of the
training: its settings (config.model.steps, schedule, start, guidance) should be those of later use.
"""

from ml_collections import ConfigDict

from configs import dr_diffuse
from jax_diffse.config import stage_config


def get_config(variant: str = '') -> ConfigDict:
    """The stage alone."""
    return stage_config(dr_diffuse.get_config(variant), 'refiner')
