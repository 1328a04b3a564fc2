"""FlowSE: the velocity from noisy to clean speech, followed in 5 steps.

Paper:     Lee et al., "FlowSE: Flow Matching-based Speech Enhancement", ICASSP 2025.
Command:   python train.py --config flowse --workdir runs/flowse
           python evaluate.py --workdir runs/flowse --output runs/flowse/report
           On accelerators: --config.train.batch_size=N, 8 for each device, and --config.model.network.dtype=bfloat16.
Data:      voicebank_demand (28 speakers), or your folders.
Published: on VoiceBank-DEMAND at 5 network evaluations: PESQ 3.12, ESTOI 0.88, SI-SDR 19.0 dB; another table
           has 3.05, 0.87 and 18.0 dB, and PESQ 2.86 and 19.6 dB at 1 (tables of other papers).
Measured:  the published size and length were never run in full.
Hardware:  one evaluation of the network takes 267 billion multiplications per 2.04 s.
"""

from ml_collections import ConfigDict

from jax_diffse import experiment

VARIANTS = {
    'sampler': {'heun': 'sample by the method of Heun: two network evaluations per step; training is the same'},
    **experiment.CONTINUOUS,
}
DEFAULTS = {'data': 'voicebank'}


def get_config(variant: str = '') -> ConfigDict:
    """The published experiment, with the comma-separated variants applied."""
    chosen = experiment.choose(variant, VARIANTS, DEFAULTS)
    return experiment.continuous('flowse', chosen, 1000 * 1350, {  # 1000 epochs
        'steps': 5,  # of sampling
        'sigma_min': 0.0,  # standard deviation of the noise at the clean end
        'sigma_max': 0.487,  # and at the noisy end
        't_max': 1.0,  # the largest time, where sampling starts
        'objective': 'mse',  # or 'mae', absolute errors of the velocity
        'sampler': chosen.sampler or 'euler',
    }).lock()
