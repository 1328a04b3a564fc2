"""DR-DiffuSE, stage 1: the condition generator c_gen, on VoiceBank-DEMAND.

Paper:     Tai et al., "Revisiting Denoising Diffusion Probabilistic Models for Speech Enhancement", AAAI 2023.
Command:   python train.py --config configs/dr_diffuse_c_gen.py --workdir runs/c_gen
Published: c_gen alone, on the 824 test pairs, as the authors re-tested their released code: PESQ 3.088, CSIG 4.390,
           CBAK 3.587, COVL 3.764, SSNR 9.80, STOI 0.948. Validated, and stopped early, on the test set.
Measured:  not yet: nobody has run this config in full. What was measured is in configs/dr_diffuse_c_gen_short.py.

Data, hyper-parameters and variants are in dr_diffuse.py, the chain that this is a stage of.
"""

from ml_collections import ConfigDict

from configs import dr_diffuse
from jax_diffse.config import stage_config


def get_config(variant: str = '') -> ConfigDict:
    """The stage alone."""
    return stage_config(dr_diffuse.get_config(variant), 'c_gen')
