"""Shared code of the files in configs/: the sections of a config, variants, and the quick size.

A config file has `get_config(variant: str = '')`, which returns a locked ConfigDict, and two tables: `VARIANTS` maps
group -> name -> a description in one line, `DEFAULTS` maps group -> default name.
"""

import types
from collections.abc import Mapping

from ml_collections import ConfigDict

from jax_diffse.errors import UserError

DATA = {  # the group 'data' of every table of variants
    'voicebank': 'VoiceBank-DEMAND with 28 training speakers; TensorFlow Datasets downloads it once',
    'folders': 'your folders: --config.data.train.speech=DIR and .noise=DIR, or pairs in .clean=DIR and .noisy=DIR',
    'spoken_demo': 'half an hour of speech and noise, synthesised by espeak-ng',
}
DATA_SETS = {'voicebank': 'voicebank_demand/28spk', 'folders': 'folders', 'spoken_demo': 'spoken_demo'}
QUICK = 'the same code path in a minute on two CPU cores; its default data are spoken_demo'
SHORT = 'a training of minutes to an hour on two CPU cores'


def choose(variant: str, variants: Mapping[str, Mapping[str, str]],
           defaults: Mapping[str, str]) -> types.SimpleNamespace:
    """Parses comma-separated variants, at most one of each group.

    Args:
      variant: names in any order, such as 'small,folders'; '' for none.
      variants: group -> name -> description, with a group 'data' and a group 'size'.
      defaults: group -> default name.

    Returns:
      One attribute per group: the chosen name, its default, or None. The size 'quick' implies spoken_demo if no data
      are given.

    Raises:
      UserError: an unknown name, or two names of one group.
    """
    chosen = {}
    for name in filter(None, variant.split(',')):
        group = next((group for group, names in variants.items() if name in names), None)
        if group is None:
            expected = '; '.join(f'{group}: {", ".join(names)}' for group, names in variants.items())
            raise UserError(f'unknown variant {name!r}, expected at most one of each group: {expected}')
        if group in chosen:
            raise UserError(f'{chosen[group]} and {name}: expected one variant of the group {group}')
        chosen[group] = name
    if chosen.get('size') == 'quick':
        chosen.setdefault('data', 'spoken_demo')
    return types.SimpleNamespace(**{group: chosen.get(group, defaults.get(group)) for group in variants})


def sections(system: str, model: dict) -> ConfigDict:
    """Builds an unlocked config with neutral values, which an experiment adapts.

    Args:
      system: a name in `systems.SYSTEMS`.
      model: the fields of the system's dataclass.
    """
    return ConfigDict({
        'system': system,
        'init_from': '',  # an earlier run to start from; required if some groups are not trained
        'model': model,
        'data': {
            'name': 'folders',  # or a TFDS data set, see docs/data.md
            'data_dir': '',  # of TFDS; '': ~/tensorflow_datasets
            # Folders of pairs, or of speech and noise, or a file of arrays; '' for validation: held out of train
            'train': {'clean': '', 'noisy': '', 'speech': '', 'noise': '', 'arrays': ''},
            'validation': {'clean': '', 'noisy': '', 'speech': '', 'noise': '', 'arrays': ''},
            'test': {'clean': '', 'noisy': '', 'speech': '', 'noise': '', 'arrays': ''},
            'held_out': 0.05,  # share of the training speakers and noises held out if validation names no folders
            'share': 1.0,  # of each speaker's utterances, for training and validation
            'share_seed': 0,  # of the choice of this share
            'test_share': 1.0,  # of each speaker's utterances, for tests
            'speaker_level': 0,  # depth of the speakers' folders, 1: directly in the named one; 0: detected
            'snr_db': (0.0, 5.0, 10.0, 15.0),  # of mixtures made on the fly
            'snr_uniform': False,  # draw from the range of the list instead
            'noise_classes': (),  # of training and validation; (): all
            'test_noise_classes': (),  # of tests; (): all
            'esc_test_fold': 5,  # fold of ESC-10 and ESC-50 that is for tests alone; 0: none
            'noise_gain': (),  # (low, high): factor of the noise's amplitude instead of an SNR
            'test_snr_db': (2.5, 7.5, 12.5, 17.5),  # of the listed test mixtures
            'segments': False,  # train on consecutive segments of train.crop_seconds, not on random crops
            'clip_seconds': 0.0,  # listed mixtures are cut to their middle; 0: not cut
            'pad_seconds': 0.0,  # shorter utterances (validation, test) get zeros at their end; 0: none
            'sample_rate': 16_000,  # Hz
            'resample': False,  # accept files and data sets at another rate and resample them when read
            'min_seconds': 0.25,  # shorter files are refused
            'skip_bad': False,  # leave out unusable files instead of stopping
            'check': 'full',  # decode every file once; 'header': open it once; 'none': open it when it is used
        },
        'train': {
            'steps': 0,
            'batch_size': 8,
            'crop_seconds': 3.0,
            'accumulate': 1,  # parts that a batch is split into
            'ema_decay': 0.0,  # of averaged weights; 0: no averaging
            'eval_every': 1000,
            'eval_seconds': 0.0,  # validation utterances are cut to this; 0: not cut
            'save_every': 1000,
            'log_every': 50,
            'early_stop': 0,  # validations without a new best; 0: never
            'max_minutes': 0.0,  # of each stage; 0: no limit
            'seed': 2023,
        },
        'augment': {
            'run': '',  # a trained run with a sampler; '': init_from
            'share': 0.0,  # of the training examples, whose noisy input is replaced by a sample drawn from it
            'steps': 0,  # of sampling; 0: the run's own number
        },
        'optimizer': {
            'learning_rate': 1e-3,
            'l2': 0.0,  # coupled, as torch's Adam
            'clip_norm': 0.0,
            'decay': 'constant',  # or 'plateau', lowered when validation stops improving; 'cosine'
            'warmup_steps': 0,
            'plateau_patience': 3,  # tolerated validations without improvement; the next lowers the rate
            'plateau_threshold': 1e-4,  # relative reduction of the best loss that counts as an improvement
            'plateau_factor': 0.5,  # multiplies the rate
            'plateau_min_rate': 0.0,  # lower limit of the rate
            'keras': False,  # Adam as in Keras, with epsilon 1e-7 before the bias correction
        },
        'log': {
            'audio_examples': 2,  # validation utterances whose audio is logged
            'pesq_examples': 0,  # validation utterances that are scored in PESQ, to log the best and the worst
            'wandb_project': '',
        },
        'parallel': {'mapper': 'shard_map'},  # or 'pmap'
    })


def make_quick(config: ConfigDict) -> None:
    """Shortens the training, including every stage, to the few steps of the size 'quick'."""
    config.train.update(steps=20, batch_size=4, crop_seconds=1.0, eval_every=10, eval_seconds=2.0, save_every=10,
                        log_every=10)
    for stage in config.get('stages', {}).values():
        if 'train' in stage:
            del stage['train']
