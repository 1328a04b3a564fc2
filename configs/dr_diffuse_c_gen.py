"""DR-DiffuSE, stage 1: the condition generator c_gen, on VoiceBank-DEMAND.

Paper:     Tai et al., "Revisiting Denoising Diffusion Probabilistic Models for Speech Enhancement", AAAI 2023.
Command:   python train.py --config configs/dr_diffuse_c_gen.py --workdir runs/c_gen
Data:      voicebank_demand (28 speakers; 770 pairs of p226 and p287 held out for validation), downloaded by TFDS.
Published: c_gen alone, on the 824 test pairs, as the authors re-tested their released code: PESQ 3.088, CSIG 4.390,
           CBAK 3.587, COVL 3.764, SSNR 9.80, STOI 0.948. Validated, and stopped early, on the test set.
Measured:  not yet: nobody has run this config in full. What was measured is in configs/dr_diffuse_c_gen_short.py.

Variants, joined by commas:
  quick     the same code path, small, on the embedded spoken_demo data: a minute on two CPU cores.
  released  as the released code: padding frames take part in the network and its batch statistics.
"""

from ml_collections import ConfigDict

VARIANTS = ('quick', 'released')


def get_config(variant: str = '') -> ConfigDict:
    """The experiment, with the comma-separated variants applied."""
    variants = [name for name in variant.split(',') if name]
    for name in variants:
        if name not in VARIANTS:
            raise ValueError(f'unknown variant {name!r}, expected {", ".join(VARIANTS)}')
    config = ConfigDict({
        'system': 'dr_diffuse',
        'model': {
            'stage': 'c_gen',
            'channels': 64,  # of encoder and decoders
            'temporal_groups': 3,  # of six dilated units each
            'compression': 'sqrt',  # magnitude ** 0.5
            'mask_padding': 'released' not in variants,  # real frames do not depend on padding
            'dtype': 'float32',  # 'bfloat16' for accelerators: activations and products only
        },
        'data': {
            'name': 'voicebank_demand/28spk',  # or 'folders', see docs/data.md
            'data_dir': '',  # of TFDS; '': ~/tensorflow_datasets
            'train': {'clean': '', 'noisy': '', 'speech': '', 'noise': ''},  # folders: pairs, or speech and noise
            'validation': {'clean': '', 'noisy': '', 'speech': '', 'noise': ''},  # '': speakers held out of train
            'test': {'clean': '', 'noisy': '', 'speech': '', 'noise': ''},
            'held_out': 0.05,  # share of the training speakers and noises held out where validation names nothing
            'snr_db': (0.0, 5.0, 10.0, 15.0),  # of mixtures made on the fly
            'snr_uniform': False,  # draw from the whole range, not from the list
            'test_snr_db': (2.5, 7.5, 12.5, 17.5),  # of the listed test mixtures
            'sample_rate': 16_000,  # Hz
            'min_seconds': 0.25,  # shorter files are refused
            'skip_bad': False,  # leave files that cannot be used out, rather than stop
        },
        'train': {
            'steps': 50 * 1350,  # 50 epochs of the 10 802 training pairs
            'batch_size': 8,
            'crop_seconds': 3.0,
            'accumulate': 1,  # parts a batch is taken in
            'ema_decay': 0.0,  # the authors keep no averaged weights
            'eval_every': 1350,  # an epoch
            'eval_seconds': 0.0,  # whole utterances
            'save_every': 1350,
            'log_every': 50,
            'early_stop': 5,  # validations without a new best
            'max_minutes': 0.0,
            'seed': 2023,
        },
        'optimizer': {
            'learning_rate': 1e-3,
            'l2': 1e-7,  # coupled, as torch's Adam
            'clip_norm': 0.0,
            'decay': 'plateau',  # halved after plateau_patience validations without a new best
            'warmup_steps': 0,
            'plateau_patience': 3,
        },
        'log': {'audio_examples': 2, 'wandb_project': ''},
        'parallel': {'mapper': 'shard_map'},  # or 'pmap'
    })
    if 'quick' in variants:
        config.model.update(channels=16, temporal_groups=1)
        config.data.name = 'spoken_demo'
        config.train.update(steps=40, batch_size=4, crop_seconds=1.0, eval_every=20, eval_seconds=2.0, save_every=20,
                            log_every=10)
    return config.lock()
