"""DiffGMM: diffusion from clean speech to the noisy recording, its reverse process a Gaussian mixture of the noise.

Paper:     Wang et al., "DiffGMM", arXiv 2406.09154. No equation, hyper-parameter or table of it could be had: what is
           theirs and what is ours is in docs/diffgmm.md, and every value below is ours.
Command:   python train.py --config configs/diffgmm.py --workdir runs/diffgmm
           python evaluate.py --workdir runs/diffgmm --output runs/diffgmm/report
           Ablations: --config configs/diffgmm.py:k3 (K components), evaluate.py --steps 4 (S sampling steps)
Data:      voicebank_demand (28 speakers).
Published: "perceptual and SDR improvements"; no figure is known to us.
Measured:  not yet: nobody has run this config in full. What was measured is in configs/diffgmm_short.py.

Variants, joined by commas:
  kK     K components: k1, k2, k3, k5 (default) or k8; others by --config.model.network.components=K.
  small  fewer channels and shorter kernels, 3.2 of 34.3 million parameters, for CPUs.
  quick  the same code path, smaller still, on the embedded spoken_demo data: a minute on two CPU cores.
"""

from ml_collections import ConfigDict

from configs._sections import make_quick, sections, variants_of

COMPONENTS = {'k1': 1, 'k2': 2, 'k3': 3, 'k5': 5, 'k8': 8}


def get_config(variant: str = '') -> ConfigDict:
    """The experiment, with the comma-separated variants applied."""
    variants = variants_of(variant, (*COMPONENTS, 'small', 'quick'))
    chosen, small = [name for name in variants if name in COMPONENTS], 'small' in variants
    if len(chosen) > 1:
        raise ValueError(f'{" and ".join(chosen)}: expected one number of components')
    config = sections('diffgmm', {
        'network': {
            'components': COMPONENTS[chosen[0]] if chosen else 5,  # of the mixture, K
            'widths': (24, 48, 96, 192) if small else (64, 128, 256, 512),  # channels of each level
            'blocks': 3,  # residual ones of each level, on the way down and on the way up
            'kernel': 5 if small else 9,  # samples of a convolution
            'groups': 8,  # of group normalisation
            'dtype': 'float32',  # 'bfloat16' for accelerators: activations and products only
        },
        'training_steps': 10,  # levels between clean and noisy speech
        'power': 1.5,  # of the levels, (t / training_steps)^power
        'noise_scale': 0.05,  # noise that the chain adds, in units of the noisy recording's RMS
        'steps': 6,  # of sampling
        'temperature': 0.0,  # of sampling: 0 subtracts the mixtures' means, 1 draws from them
        'nll_weight': 0.1,  # of the likelihood, beside the prediction of the noise
        'nll_warmup': 5000 * 32,  # training examples over which that weight rises from 0
        'stft_weight': 1.0,  # of the multi-resolution distance of spectra, beside that of waveforms
    })
    config.data.update(name='voicebank_demand/28spk')
    config.train.update(
        steps=200_000, batch_size=32, crop_seconds=1.024,
        ema_decay=0.999, eval_every=2000, eval_seconds=3.0, save_every=2000)
    config.optimizer.update(learning_rate=2e-4, clip_norm=1.0, decay='cosine')
    if 'quick' in variants:
        config.model.network.update(widths=(8, 16), blocks=1, kernel=5)
        config.model.update(training_steps=4, steps=2, nll_warmup=20)
        make_quick(config)
        config.train.update(crop_seconds=1.024)
    return config.lock()
