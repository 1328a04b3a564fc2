"""DR-DiffuSE, stage 2 as an ablation: the DDPM with the denoiser DiffuSEC, which concatenates the condition.

Paper:     Tai et al., "Revisiting Denoising Diffusion Probabilistic Models for Speech Enhancement", AAAI 2023.
Command:   python train.py --config configs/dr_diffuse_diffusec.py --workdir runs/diffusec --config.init_from=runs/c_gen
           With the noisy spectrogram as the condition (variant noisy) there is nothing to start from.
Published: monitor plots of the released code show a test error of the noise of about 0.11 after 48 000 steps, 0.12 with
           the noisy spectrogram as the condition.
Measured:  not yet: nobody has run this config in full.

Data, hyper-parameters and variants are in dr_diffuse.py, the chain that this is a stage of.
"""

from ml_collections import ConfigDict

from configs import dr_diffuse
from jax_diffse.config import stage_config


def get_config(variant: str = '') -> ConfigDict:
    """The stage alone."""
    config = stage_config(dr_diffuse.get_config(variant), 'diffusion')
    config.model.denoiser = 'diffusec'
    return config
