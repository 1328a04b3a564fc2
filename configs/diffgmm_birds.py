"""DiffGMM on bird song: BirdSoundsDenoising, 14 120 recordings from the wild and what was cut out of them by hand.

Data:      Zhang and Li, "BirdSoundsDenoising: Deep Visual Audio Denoising for Bird Sounds", WACV 2023,
           doi.org/10.5281/zenodo.7191406; its folders Training and Valid, each with Raw_audios and Denoised_audios,
           below ./BirdSoundsDenoising. Files are resampled to 16 kHz as they are read.
Command:   python train.py --config configs/diffgmm_birds.py --workdir runs/birds
           python evaluate.py --workdir runs/birds --output runs/birds/report --metrics sdr,si_sdr \\
             --clean BirdSoundsDenoising/Valid/Denoised_audios --noisy BirdSoundsDenoising/Valid/Raw_audios
           Elsewhere: --config.data.train.clean=DIR and so on, four folders.
Published: SDR improvements, it is said; no figure is known to us, nor which split was used.
Measured:  not yet: the data could not be had.
Variants as in diffgmm.py; quick also reads these folders.
"""

from ml_collections import ConfigDict

from configs import diffgmm


def get_config(variant: str = '') -> ConfigDict:
    """The experiment on pairs of equally named recordings, raw and denoised."""
    config = diffgmm.get_config(variant).unlock()
    config.data.update(name='folders', resample=True, skip_bad=True)  # stereo or silent files, say
    for split, folder in (('train', 'Training'), ('validation', 'Valid')):
        config.data[split].update(clean=f'BirdSoundsDenoising/{folder}/Denoised_audios',
                                  noisy=f'BirdSoundsDenoising/{folder}/Raw_audios')
    return config.lock()
