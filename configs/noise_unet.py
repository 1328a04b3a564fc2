"""The noise U-Net: a U-Net on the level of the spectrogram predicts the noise model, which is subtracted.

Paper:     none. The code is vbelz/Speech-enhancement (MIT licence), whose text is also the second half of DiffGMM's
           repository (docs/noise_unet.md). Its mistakes are corrected, unless `released` asks for them.
Command:   python train.py --config noise_unet --workdir runs/noise_unet --config.data.resample=True \\
             --config.data.train.speech=SPEECH --config.data.train.noise=NOISE
           python evaluate.py --workdir runs/noise_unet --output runs/noise_unet/report --resample \\
             --speech TEST_SPEECH --noise TEST_NOISE
           With ESC-50 as the noise, the ten classes of the authors: --config noise_unet:esc50
Data:      the authors: LibriSpeech and SiSEC, ten classes of ESC-50 and of sound pages, 10 hours of mixtures at 8 kHz.
           Here: your folders, mixed on the fly; files at other rates need config.data.resample=True.
Published: Huber loss 0.0021 in training and 0.0024 in validation, where validation knew voices and noises; no metric.
           80 ms per window of a second on a CPU, 4 s for a recording of 5 s.
Measured:  the published length was never run in full. 1000 steps of `short`: docs/noise_unet.md.
Hardware:  a step of 20 windows takes 0.8 s on two cores of an AMD EPYC.
"""

from ml_collections import ConfigDict

from jax_diffse import experiment

VARIANTS = {
    'rate': {'16k': 'the system at 16 kHz, with transforms twice as long, instead of 8 kHz'},
    'data': {name: experiment.DATA[name] for name in ('folders', 'spoken_demo')} | {
        'esc50': 'as `folders`, with the ten classes of the authors in ESC-50 as the noise: '
                 '--config.data.train.noise=ESC-50-master'},
    'size': {'quick': experiment.QUICK},
    'length': {'short': f'{experiment.SHORT}: 1500 steps of 20 windows'},
    'faithfulness': {'released': 'the released code: levels relative to the own maximum of clean and noisy windows, '
                                 'noise added by an amplitude factor, windows that do not overlap, no level, half a '
                                 'sample early, Adam as in Keras'},
}
DEFAULTS = {'data': 'folders'}
CLASSES = ('clock_tick', 'footsteps', 'church_bells', 'hand_saw', 'clock_alarm', 'fireworks', 'insects',
           'brushing_teeth', 'vacuum_cleaner', 'snoring')  # of ESC-50, nearest to the authors'


def get_config(variant: str = '') -> ConfigDict:
    """The corrected experiment, with the comma-separated variants applied."""
    chosen = experiment.choose(variant, VARIANTS, DEFAULTS)
    released, factor = chosen.faithfulness == 'released', 2 if chosen.rate == '16k' else 1
    config = experiment.sections('noise_unet', {
        'sample_rate': 8000 * factor,  # Hz
        'n_fft': 256 * factor - 1,  # samples; odd, so that the bins are a power of two
        'hop': 63 * factor,  # samples
        'frames': 128,  # of a window: 1.008 s
        'overlap': 0 if released else 64,  # frames that neighbouring windows share in enhancement
        'network': {
            'widths': (16, 32, 64, 128, 256),  # channels of each level
            'dropout': 0.5,  # behind the two lowest levels of the encoder
            'dtype': 'float32',  # 'bfloat16' for accelerators: activations and products only
        },
        'amplify': released,  # whether a bin may get louder
        'released': released,
    })
    config.data.update(
        name=experiment.DATA_SETS.get(chosen.data, 'folders'), sample_rate=8000 * factor, snr_db=(-5.0, 15.0),
        snr_uniform=True, resample=True)  # of material at 44.1 or 16 kHz
    if chosen.data == 'esc50':
        config.data.noise_classes = CLASSES
    config.train.update(
        steps=10 * 1800,  # 10 epochs of 36 000 windows
        batch_size=20, crop_seconds=1.008, eval_every=1800, eval_seconds=1.008, save_every=1800)
    config.optimizer.keras = released
    if released:
        config.data.update(noise_gain=(0.2, 0.8), segments=True)
    if chosen.length == 'short':
        config.train.update(
            steps=1500,
            ema_decay=0.995,  # averaging helps short runs more
            eval_every=250, save_every=250, log_every=50)
        config.optimizer.update(decay='cosine', warmup_steps=50)
    if chosen.size == 'quick':
        config.model.network.widths = (4, 8, 16, 16, 16)
        experiment.make_quick(config)
        config.train.update(crop_seconds=1.008, eval_seconds=1.008)
    return config.lock()
