"""DR-DiffuSE, stage 2: the conditional DDPM with the two-branch denoiser DiffuSE, on VoiceBank-DEMAND.

Paper:     Tai et al., "Revisiting Denoising Diffusion Probabilistic Models for Speech Enhancement", AAAI 2023.
Command:   python train.py --config configs/dr_diffuse_diffuse.py --workdir runs/diffuse --config.init_from=runs/c_gen
           With the noisy spectrogram as the condition (variant noisy) there is nothing to start from.
Published: monitor plots of the released code show a test error of the noise of about 0.088 after 48 000 steps.
Measured:  not yet: nobody has run this config in full. What was measured is in configs/dr_diffuse_short.py.

Data, hyper-parameters and variants are in dr_diffuse.py, the chain that this is a stage of.
"""

from ml_collections import ConfigDict

from configs import dr_diffuse
from jax_diffse.config import stage_config


def get_config(variant: str = '') -> ConfigDict:
    """The stage alone."""
    return stage_config(dr_diffuse.get_config(variant), 'diffusion')
