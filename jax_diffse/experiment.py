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
    'dns': 'the DNS challenge at 16 kHz, its folder datasets in the current folder',
    'dns_fullband': 'the DNS challenge at 48 kHz, its folder datasets_fullband in the current folder',
    'spoken_demo': 'half an hour of speech and noise, synthesised by espeak-ng',
}
DATA_SETS = {'voicebank': 'voicebank_demand/28spk', 'folders': 'folders', 'spoken_demo': 'spoken_demo'}
DNS = {  # variant -> folders of speech, noise and room impulse responses, and of a test set
    'dns': ('datasets/clean', 'datasets/noise', 'datasets/impulse_responses', 'datasets/test_set/synthetic/no_reverb'),
    'dns_fullband': ('datasets_fullband/clean_fullband', 'datasets_fullband/noise_fullband',
                     'datasets_fullband/impulse_responses', ''),
}
QUICK = 'the same code path in a minute on two CPU cores; its default data are spoken_demo'
SHORT = 'a training of minutes to an hour on two CPU cores'


MIXER = {  # what is done to mixtures besides adding a noise at an SNR; see docs/data.md
    'rir_probability': 1.0,  # of reverberant speech, in splits that name a folder rir
    'rir_noise': False,  # also reverberate the noises of these mixtures
    'speed': (),  # (low, high): factor of tempo and pitch of the speech
    'max_noises': 1,  # a mixture has 1 to so many
    'band_hz': (),  # (low, high): upper frequency limit
    'band_probability': 1.0,  # of a band limit
    'level_db': (),  # (low, high): RMS of the noisy signal, dB of full scale
    'clip_level': (),  # (low, high): where the noisy signal is clipped, as a share of its peak
    'clip_probability': 1.0,  # of clipping
}


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
            # Folders of pairs, or of speech, noise and room impulse responses (rir), or a file of arrays; '' for
            # validation: held out of train
            'train': {'clean': '', 'noisy': '', 'speech': '', 'noise': '', 'rir': '', 'arrays': ''},
            'validation': {'clean': '', 'noisy': '', 'speech': '', 'noise': '', 'rir': '', 'arrays': ''},
            'test': {'clean': '', 'noisy': '', 'speech': '', 'noise': '', 'rir': '', 'arrays': ''},
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
            'mixer': dict(MIXER),  # of training and validation
            'test_mixer': dict(MIXER),  # of the listed test mixtures
            'target': {  # the clean signal of mixtures, in all splits
                'reverb': 'early',  # of reverberant speech; or 'dry', 'reverberant'
                'early_ms': 50.0,  # end of the early part, behind the direct path
                'band': 'full',  # of mixtures with a band limit; or 'limited', as the mixture
            },
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


def set_data(config: ConfigDict, data: str) -> None:
    """Sets the data of a variant of the group 'data', see `DATA`."""
    config.data.name = DATA_SETS.get(data, 'folders')
    if data in DNS:
        speech, noise, rir, test = DNS[data]
        config.data.train.update(speech=speech, noise=noise, rir=rir)
        if test:
            config.data.test.update(clean=f'{test}/clean', noisy=f'{test}/noisy')
        # As the challenge mixes: half of the speech is reverberant, and so is its target.
        config.data.update(snr_db=(-5.0, 25.0), snr_uniform=True, resample=True, skip_bad=True)
        config.data.mixer.update(rir_probability=0.5, level_db=(-35.0, -15.0))
        config.data.target.reverb = 'reverberant'


CONTINUOUS = {  # groups of variants that SGMSE+, the Schroedinger bridge and FlowSE share
    'data': DATA,
    'size': {'small': '4.7 million parameters: 16 channels at the top, 96 at the bottom', 'quick': QUICK},
    'length': {'short': f'{SHORT}: 1000 steps of 4 x 2.04 s'},
}


def continuous(system: str, chosen: types.SimpleNamespace, steps: int, own: Mapping,
               network: Mapping | None = None) -> ConfigDict:
    """Builds an unlocked config of SGMSE+, the Schroedinger bridge or FlowSE, which share front end and training.

    Args:
      system: 'sgmse', 'bridge' or 'flowse'.
      chosen: variants of `CONTINUOUS`, see `choose`.
      steps: of training.
      own: fields of the system's dataclass besides the network; those at 16 kHz have defaults here.
      network: fields of the network that differ from the published one of SGMSE+ at 16 kHz; default: none.
    """
    config = sections(system, {
        'network': {
            'channels': 128,
            'multipliers': (1, 1, 2, 2, 2, 2, 2),  # channels of each level, in units of `channels`
            'blocks': 2,  # residual blocks per level of the encoder, one more in the decoder
            'attention': (16,),  # numbers of bins at which levels have attention; the bottom always has it
            'progressive': True,  # every level reads the input and adds to the output
            'division': 'before',  # by the time, 'before' or 'after' the last layer, or 'none'
            'remat': False,  # recompute blocks in the backward pass, to save memory
            'dtype': 'float32',  # 'bfloat16' for accelerators: activations and products only
        } | dict(network or {}),
        'sample_rate': 16_000,  # Hz
        'n_fft': 510,  # samples; n_fft / 2 + 1 bins, which the network halves
        'hop': 128,  # samples
        'sqrt_hann': False,  # the window is the square root of Hann's
        'compression': 'power',  # of magnitudes: 'power', 'log1x', 'none'
        'exponent': 0.5,  # of the compression 'power'
        'factor': 0.15,  # of compressed spectrograms
        'padding': 'zeros',  # of frames; or 'reflection'
        'condition': 'noisy',  # speech; or 'preceding': the output of another enhancer
        't_eps': 0.03,  # the smallest time of training
    } | dict(own))
    set_data(config, chosen.data)
    config.data.sample_rate = config.model.sample_rate
    config.train.update(
        steps=steps,
        batch_size=8,  # the authors: on each device
        crop_seconds=2.04,  # 256 frames
        ema_decay=0.999, eval_every=1350, eval_seconds=2.04, save_every=1350)  # an epoch of voicebank
    config.optimizer.update(learning_rate=1e-4)
    if chosen.length == 'short':
        config.train.update(steps=1000, batch_size=4, eval_every=250, save_every=250, log_every=25)
        config.optimizer.update(learning_rate=5e-4, decay='cosine', warmup_steps=100)
    if chosen.size == 'small':
        config.model.network.update(channels=16, multipliers=(1, 2, 4, 4, 4, 4, 6))
    elif chosen.size == 'quick':
        config.model.update(steps=2)
        config.model.network.update(channels=8, multipliers=(1, 1, 1), blocks=1, attention=())
        make_quick(config)
    return config


def make_quick(config: ConfigDict) -> None:
    """Shortens the training, including every stage, to the few steps of the size 'quick'."""
    config.train.update(steps=20, batch_size=4, crop_seconds=1.0, eval_every=10, eval_seconds=2.0, save_every=10,
                        log_every=10)
    for stage in config.get('stages', {}).values():
        if 'train' in stage:
            del stage['train']
