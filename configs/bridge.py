"""The Schroedinger bridge: an estimate of clean speech from any state between clean and noisy speech, 50 steps.

Paper:     Jukic et al., "Schroedinger Bridge for Generative Speech Enhancement", Interspeech 2024; in the form and with
           the network of Richter et al., "Investigating Training Objectives for Generative Speech Enhancement", ICASSP
           2025.
Command:   python train.py --config bridge --workdir runs/bridge
           python evaluate.py --workdir runs/bridge --output runs/bridge/report
           With the PESQ loss: --config bridge:pesq
           On accelerators: --config.train.batch_size=N, 8 for each device, and --config.model.network.dtype=bfloat16.
Data:      voicebank_demand (28 speakers), or your folders.
Published: on VoiceBank-DEMAND at 50 network evaluations: PESQ 2.91, ESTOI 0.88, SI-SDR 19.4 dB; with the PESQ loss 3.45
           and about 14 dB (tables of other papers). The released weights were trained for 900 000 steps of 32 examples
           of VoiceBank-DEMAND and EARS-WHAM.
Measured:  the published size and length were never run in full.
Hardware:  one evaluation of the network takes 267 billion multiplications per 2.04 s.
"""

from ml_collections import ConfigDict

from jax_diffse import experiment

VARIANTS = {
    'loss': {'pesq': 'with the PESQ loss, weight 5e-4'},
    'sampler': {'sde': 'sample with noise; training is the same'},
    **experiment.CONTINUOUS,
    'faithfulness': {'released': 'the released code: the network is asked at the time that a step leads to, small '
                                 'numbers are added to divisors, and the L1 term vanishes in batches of one'},
}
DEFAULTS = {'data': 'voicebank'}


def get_config(variant: str = '') -> ConfigDict:
    """The corrected experiment, with the comma-separated variants applied."""
    chosen = experiment.choose(variant, VARIANTS, DEFAULTS)
    return experiment.continuous('bridge', chosen, 900_000, {
        'padding': 'reflection',
        'steps': 50,  # of sampling, one network evaluation each
        'k': 2.6,  # of the diffusion coefficient sqrt(c) k^t
        'c': 0.4,
        't_min': 1e-4,  # the last time of sampling
        'preconditioning': {
            'objective': 'data_prediction',
            'network_scaling': 'none',  # or '1/t'; '1/sigma' with `released` alone
            'c_in': '1',  # or 'edm'
            'c_out': '1',  # or 'sigma', 'edm'; '1/sigma' with `released` alone
            'c_skip': '0',  # or 'edm'
            'sigma_data': 0.1,  # of 'edm'
        },
        'sampler': chosen.sampler or 'ode',
        'l1_weight': 1e-3,  # of the distance of waveforms
        'pesq_weight': 5e-4 if chosen.loss == 'pesq' else 0.0,
        'released': chosen.faithfulness == 'released',
    }, {'division': 'none'}).lock()
