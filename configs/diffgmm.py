"""DiffGMM: diffusion from clean speech to the noisy recording; the reverse process models noise as a Gaussian mixture.

Paper:     Wang et al., "DiffGMM", arXiv 2406.09154. No equation, hyper-parameter or table of it was available; every
           value below is ours (docs/diffgmm.md).
Command:   python train.py --config diffgmm --workdir runs/diffgmm
           python evaluate.py --workdir runs/diffgmm --output runs/diffgmm/report
           Ablations: --config diffgmm:k3 (K components), evaluate.py --steps 4 (S sampling steps)
Data:      voicebank_demand (28 speakers).
Birds:     BirdSoundsDenoising, 14 120 recordings from the wild, each with a version denoised by hand (Zhang and Li,
           "BirdSoundsDenoising: Deep Visual Audio Denoising for Bird Sounds", WACV 2023,
           doi.org/10.5281/zenodo.7191406). Its folders Training and Valid, each with Raw_audios and Denoised_audios,
           are expected in ./BirdSoundsDenoising; --config.data.train.clean=DIR and so on name the four
           folders elsewhere. Files are resampled to 16 kHz when they are read.
           python train.py --config diffgmm:birds --workdir runs/birds
           python evaluate.py --workdir runs/birds --output runs/birds/report --metrics sdr,si_sdr \\
             --clean BirdSoundsDenoising/Valid/Denoised_audios --noisy BirdSoundsDenoising/Valid/Raw_audios
Published: "perceptual and SDR improvements", and SDR improvements on bird song; we know neither figures nor the split
           of the birds.
Measured:  the published size and length were never run in full, nor the birds, whose data were not available. Short
           trainings of a smaller network: docs/diffgmm.md.
Hardware:  400 steps of a network of 1.4 million parameters took 8 to 13 minutes on two cores of an AMD EPYC.
"""

from ml_collections import ConfigDict

from jax_diffse import experiment

COMPONENTS = {'k1': 1, 'k2': 2, 'k3': 3, 'k5': 5, 'k8': 8}
VARIANTS = {
    'components': {name: f'mixtures with K = {count}' for name, count in COMPONENTS.items()},
    'data': experiment.DATA | {'birds': 'bird song: BirdSoundsDenoising in the current folder'},
    'size': {'small': '3.2 of 34.3 million parameters: fewer channels, shorter kernels', 'quick': experiment.QUICK},
    'length': {'short': f'{experiment.SHORT}: 400 steps of 8 x 1.02 s, enough for an ablation'},
}
DEFAULTS = {'components': 'k5', 'data': 'voicebank'}


def get_config(variant: str = '') -> ConfigDict:
    """The experiment, with the comma-separated variants applied."""
    chosen = experiment.choose(variant, VARIANTS, DEFAULTS)
    config = experiment.sections('diffgmm', {
        'network': {
            'components': COMPONENTS[chosen.components],  # of the mixture, K
            'widths': (64, 128, 256, 512),  # channels of each level
            'blocks': 3,  # residual blocks per level, in the encoder and in the decoder
            'kernel': 9,  # size of convolutions, samples
            'groups': 8,  # of group normalisation
            'dtype': 'float32',  # 'bfloat16' for accelerators: activations and products only
        },
        'training_steps': 10,  # levels between clean and noisy speech
        'power': 1.5,  # of the levels, (t / training_steps)^power
        'noise_scale': 0.05,  # noise that the chain adds, in units of the noisy recording's RMS
        'steps': 6,  # of sampling
        'temperature': 0.0,  # of sampling: 0 subtracts the mixtures' means, 1 draws from them
        'nll_weight': 0.1,  # of the likelihood, added to the loss of the predicted noise
        'nll_warmup': 5000 * 32,  # training examples over which nll_weight rises from 0
        'stft_weight': 1.0,  # of the multi-resolution spectral distance, added to that of waveforms
    })
    _set_data(config, chosen.data)
    config.train.update(
        steps=200_000, batch_size=32, crop_seconds=1.024,
        ema_decay=0.999, eval_every=2000, eval_seconds=3.0, save_every=2000)
    config.optimizer.update(learning_rate=2e-4, clip_norm=1.0, decay='cosine')
    if chosen.length == 'short':
        config.model.nll_warmup = 1600  # half of the examples
        config.train.update(
            steps=400, batch_size=8,
            ema_decay=0.995,  # averaging helps short runs more
            eval_every=200, save_every=200, log_every=25)
        config.optimizer.update(learning_rate=1e-3, warmup_steps=50)
    if chosen.size == 'small':
        config.model.network.update(widths=(24, 48, 96, 192), kernel=5)
    elif chosen.size == 'quick':
        config.model.network.update(widths=(8, 16), blocks=1, kernel=5)
        config.model.update(training_steps=4, steps=2, nll_warmup=20)
        experiment.make_quick(config)
        config.train.crop_seconds = 1.024
    return config.lock()


def _set_data(config: ConfigDict, data: str) -> None:
    if data == 'birds':
        config.data.update(name='folders', resample=True, skip_bad=True)  # skips stereo and silent files
        for split, folder in (('train', 'Training'), ('validation', 'Valid')):
            config.data[split].update(clean=f'BirdSoundsDenoising/{folder}/Denoised_audios',
                                      noisy=f'BirdSoundsDenoising/{folder}/Raw_audios')
        return
    experiment.set_data(config, data)
    if data == 'folders':
        config.data.update(snr_db=(-10.0, -5.0, 0.0, 5.0, 10.0, 15.0, 20.0), clip_seconds=3.0)  # as in dccrn.py
