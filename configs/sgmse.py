"""SGMSE+: the score of a process from clean to noisy speech, sampled in 30 steps of prediction and correction.

Paper:     Richter et al., "Speech Enhancement and Dereverberation with Diffusion-Based Generative Models", IEEE/ACM
           TASLP 31, 2023. The settings at 48 kHz: Richter et al., "EARS", Interspeech 2024.
Command:   python train.py --config sgmse --workdir runs/sgmse
           python evaluate.py --workdir runs/sgmse --output runs/sgmse/report
           On accelerators: --config.train.batch_size=N, 8 for each device, and --config.model.network.dtype=bfloat16.
           Pairs in the authors' layout, such as WSJ0-CHiME3, and EARS-WHAM at 48 kHz: docs/sgmse.md.
Data:      voicebank_demand (28 speakers), or your folders.
Published: on VoiceBank-DEMAND at 60 network evaluations: PESQ 2.93, ESTOI 0.87, SI-SDR 17.3 dB (tables of other
           papers). The authors train without an end, and choose a checkpoint by PESQ or SI-SDR in validation.
Measured:  the published size and length were never run in full.
Hardware:  one evaluation of the network takes 267 billion multiplications per 2.04 s, at 48 kHz 799.
"""

from ml_collections import ConfigDict

from jax_diffse import experiment

VARIANTS = {
    'rate': {'48k': 'the system at 48 kHz, as on EARS-WHAM, instead of 16 kHz; files at other rates are resampled'},
    'process': {'bbed': 'the process BBED, whose mean reaches the noisy speech'},
    **experiment.CONTINUOUS,
    'faithfulness': {'released': "as the released code with the corrector 'langevin' or the weighting 'edm': both "
                                 'depend on the other examples of a batch'},
}
DEFAULTS = {'data': 'voicebank'}
RATES = {
    '16k': {},
    '48k': {'sample_rate': 48_000, 'n_fft': 1534, 'hop': 384, 'exponent': 0.667, 'factor': 0.065,
            'padding': 'reflection'},
}
NETWORKS = {'16k': {}, '48k': {'attention': (), 'progressive': False, 'division': 'after'}}
PROCESSES = {
    '16k': {'theta': 1.5, 'sigma_min': 0.05, 'sigma_max': 0.5},
    '48k': {'theta': 2.0, 'sigma_min': 0.1, 'sigma_max': 1.0},
}


def get_config(variant: str = '') -> ConfigDict:
    """The published experiment, with the comma-separated variants applied."""
    chosen = experiment.choose(variant, VARIANTS, DEFAULTS)
    rate = chosen.rate or '16k'
    config = experiment.continuous('sgmse', chosen, 500_000, {
        **RATES[rate],
        'steps': 30,  # of sampling; each takes a correction and a prediction, two network evaluations
        'process': chosen.process or 'ouve',
        'ouve': PROCESSES[rate],  # stiffness, and standard deviations of the noise
        'bbed': {'k': 2.6, 'c': 0.51},  # the diffusion coefficient sqrt(c) k^t
        't_max': 0.999 if chosen.process == 'bbed' else 1.0,  # the largest time, where sampling starts
        'preconditioning': {
            'objective': 'score_matching',  # or 'denoiser'
            'network_scaling': 'none',  # or '1/sigma', '1/t'
            'c_in': '1',  # or 'edm'
            'c_out': '1',  # or 'sigma', '1/sigma', 'edm'
            'c_skip': '0',  # or 'edm'
            'sigma_data': 0.1,  # of 'edm'
        },
        'loss_weighting': '1',  # of 'denoiser'; or 'sigma^2', 'edm'
        'sampler': 'predictor_corrector',  # or the probability flow by 'euler' or 'heun'
        'corrector': 'ald',  # or 'langevin', 'none'
        'corrector_steps': 1,
        'snr': 0.5,  # of corrections
        'released': chosen.faithfulness == 'released',
    }, NETWORKS[rate])
    if rate == '48k':
        config.data.resample = True
    return config.lock()
