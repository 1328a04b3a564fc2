"""c_gen from your own folders of speech and noise, within an hour on two CPU cores.

Command:   python train.py --config configs/dr_diffuse_c_gen_short.py --workdir runs/c_gen_short \\
             --config.data.train.speech=SPEECH --config.data.train.noise=NOISE

The network and the loss are those of dr_diffuse_c_gen.py; only the training is shorter than the paper's.

Measured:  speech and noise of a mini corpus (50 minutes of LibriSpeech, LibriTTS, VCTK, LJ Speech and CMU ARCTIC from
           191 speakers; 28 minutes of 32 kinds of noise), evaluated on 38 of the 824 test pairs of VoiceBank-DEMAND:

                      pesq_wb  stoi   estoi  si_sdr  ssnr  csig   cbak   covl
           noisy      1.668    0.900  0.747    6.59  1.39  2.933  2.254  2.266
           enhanced   2.149    0.887  0.767   13.09  6.89  3.366  2.866  2.735

           pesq_wb fell for 4 files of 38, stoi for 31.
Hardware:  two cores of an AMD EPYC (AVX-512), 60 minutes. The machine was shared, and the run was stopped and continued
           twice: up to step 666 the rate fell as for 2000 steps in all, up to 741 as for 1750, from there as below.
Not comparable with published figures: other training data, and a part of the test set.
The first stage of dr_diffuse_short.py. Variants as in dr_diffuse.py; quick also reads your folders.
"""

from ml_collections import ConfigDict

from configs import dr_diffuse_short
from jax_diffse.config import stage_config


def get_config(variant: str = '') -> ConfigDict:
    """The stage alone."""
    return stage_config(dr_diffuse_short.get_config(variant), 'c_gen')
