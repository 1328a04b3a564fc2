"""The sections that all configs share, with neutral values; each experiment says what differs.

A name with an underscore is no experiment.
"""

from collections.abc import Sequence

from ml_collections import ConfigDict


def variants_of(variant: str, known: Sequence[str]) -> list[str]:
    """The comma-separated variants, checked."""
    variants = [name for name in variant.split(',') if name]
    for name in variants:
        if name not in known:
            raise ValueError(f'unknown variant {name!r}, expected {", ".join(known)}')
    return variants


def sections(system: str, model: dict) -> ConfigDict:
    """A config without experiment, unlocked."""
    return ConfigDict({
        'system': system,
        'init_from': '',  # an earlier run to start from; groups that are not trained must come from one
        'model': model,
        'data': {
            'name': 'folders',  # or a TFDS data set, see docs/data.md
            'data_dir': '',  # of TFDS; '': ~/tensorflow_datasets
            'train': {'clean': '', 'noisy': '', 'speech': '', 'noise': ''},  # folders: pairs, or speech and noise
            'validation': {'clean': '', 'noisy': '', 'speech': '', 'noise': ''},  # '': speakers held out of train
            'test': {'clean': '', 'noisy': '', 'speech': '', 'noise': ''},
            'held_out': 0.05,  # share of the training speakers and noises held out where validation names nothing
            'speaker_level': 0,  # of the folders that are speakers, 1: directly below the named one; 0: it is found
            'snr_db': (0.0, 5.0, 10.0, 15.0),  # of mixtures made on the fly
            'snr_uniform': False,  # draw from the whole range, not from the list
            'test_snr_db': (2.5, 7.5, 12.5, 17.5),  # of the listed test mixtures
            'clip_seconds': 0.0,  # listed mixtures are cut to their middle; 0: whole
            'sample_rate': 16_000,  # Hz
            'resample': False,  # folders: take files at another rate, and resample them as they are read
            'min_seconds': 0.25,  # shorter files are refused
            'skip_bad': False,  # leave files that cannot be used out, rather than stop
        },
        'train': {
            'steps': 0,
            'batch_size': 8,
            'crop_seconds': 3.0,
            'accumulate': 1,  # parts a batch is taken in
            'ema_decay': 0.0,  # of averaged weights; 0: none are kept
            'eval_every': 1000,
            'eval_seconds': 0.0,  # validation utterances are cut to this; 0: whole
            'save_every': 1000,
            'log_every': 50,
            'early_stop': 0,  # validations without a new best; 0: never
            'max_minutes': 0.0,  # of each stage; 0: no limit
            'seed': 2023,
        },
        'optimizer': {
            'learning_rate': 1e-3,
            'l2': 0.0,  # coupled, as torch's Adam
            'clip_norm': 0.0,
            'decay': 'constant',  # or 'plateau', lowered when validation stops improving; 'cosine'
            'warmup_steps': 0,
            'plateau_patience': 3,  # validations without improvement that are tolerated: the next one lowers the rate
            'plateau_threshold': 1e-4,  # improvement: a loss below the best one by more than this share of it
            'plateau_factor': 0.5,  # that the rate is multiplied by
            'plateau_min_rate': 0.0,  # below which it does not fall
        },
        'log': {'audio_examples': 2, 'wandb_project': ''},
        'parallel': {'mapper': 'shard_map'},  # or 'pmap'
    })


def make_quick(config: ConfigDict) -> None:
    """The same code path in minutes: little training, on the embedded data."""
    config.data.name = 'spoken_demo'
    config.train.update(steps=20, batch_size=4, crop_seconds=1.0, eval_every=10, eval_seconds=2.0, save_every=10,
                        log_every=10)
