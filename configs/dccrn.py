"""DCCRN with a choice of losses, on folders of speech and noise, as in the study of its losses.

Paper:     Lee et al., "DCCRN with various loss functions" (in Korean), Journal of the Acoustical Society of Korea
           40(2), 2021; the network: Hu et al., "DCCRN", Interspeech 2020.
Command:   python train.py --config dccrn:si_snr+lms --workdir runs/dccrn \\
             --config.data.train.speech=SPEECH --config.data.train.noise=NOISE
           python evaluate.py --workdir runs/dccrn --output runs/dccrn/report --speech TEST_SPEECH --noise TEST_NOISE
           The report has a table by noise kind (seen in training or not) and SNR, as the paper does.
           Within minutes on two CPU cores: --config dccrn:si_snr+lms,folders,small,short
Losses:    the weighted mean of terms; the weights of combinations follow the study's rule (docs/dccrn.md). Others:
           --config.model.loss.TERM=WEIGHT
Data:      the paper: 3 s clips mixed at -10 to 20 dB in steps of 5, 3696 for training, as many as TIMIT has training
           utterances; its noises are not named. Here: your folders, mixed on the fly.
Published: the tables are images; the abstract says that adding a perceptual loss to MSE or SI-SNR improves the scores
           overall, and that listeners preferred its results even where scores were lower.
Measured:  the published size and length were never run in full. `folders,small,short`: docs/dccrn.md.
Hardware:  a step of 4 x 2 s of the size small takes 0.5 s on two cores of an AMD EPYC.
"""

from ml_collections import ConfigDict

from jax_diffse import experiment

TERMS = {
    'si_snr': 'negative scale-invariant SNR, dB', 'si_sdr': 'negative scale-invariant SDR, dB',
    'sdr': 'negative signal-to-distortion ratio, dB', 'mse': 'mean squared error of the waveform',
    'lms': 'multi-scale log-mel distance', 'pmsqe': "PMSQE: PESQ's disturbances made differentiable",
}
COMBINATIONS = {  # of the study, the more important term first; weights by its rule, see docs/dccrn.md
    'mse+lms': {'mse': 1500.0, 'lms': 1.0},
    'mse+si_snr': {'si_snr': 1.0, 'mse': 700.0},
    'mse+pmsqe': {'mse': 2000.0, 'pmsqe': 1.0},
    'si_snr+si_sdr': {'si_snr': 1.0, 'si_sdr': 1.0},
    'sdr+lms': {'sdr': 1.0, 'lms': 2.0},
    'sdr+pmsqe': {'sdr': 1.0, 'pmsqe': 2.0},
    'si_snr+lms': {'si_snr': 1.0, 'lms': 2.0},
    'si_snr+pmsqe': {'si_snr': 1.0, 'pmsqe': 2.0},
}
RELEASED = COMBINATIONS | {  # with the weights of the released code for its own losses
    'mse+lms': {'mse': 1000.0, 'lms': 1.0},
    'mse+si_snr': {'si_snr': 1.0, 'mse': 100.0},
    'mse+pmsqe': {'mse': 1000.0, 'pmsqe': 1.0},  # the released code omits the first
    'sdr+pmsqe': {'sdr': 1.0, 'pmsqe': 15.0},
    'si_snr+pmsqe': {'si_snr': 1.0, 'pmsqe': 8.0},
}
VARIANTS = {
    'loss': TERMS | {name: 'weighted by the rule of the study' for name in COMBINATIONS},
    'data': experiment.DATA,
    'size': {'half': 'half the width: 920 000 parameters', 'small': 'a quarter of the width: 230 000 parameters',
             'quick': experiment.QUICK},
    'length': {'short': f'{experiment.SHORT}: 800 steps of 4 x 2 s'},
    'faithfulness': {'released': 'the released code: its losses with their mistakes (docs/dccrn.md) and its weights; '
                                 'the output is clamped to [-1, 1], and padding takes part in the training'},
}
DEFAULTS = {'loss': 'si_snr', 'data': 'folders'}


def get_config(variant: str = '') -> ConfigDict:
    """The study's experiment, with the comma-separated variants applied."""
    chosen = experiment.choose(variant, VARIANTS, DEFAULTS)
    released = chosen.faithfulness == 'released'
    weights = (RELEASED if released else COMBINATIONS).get(chosen.loss, {chosen.loss: 1.0})
    config = experiment.sections('dccrn', {
        'channels': (32, 64, 128, 256, 256, 256),  # of the encoder, real plus imaginary
        'lstm': 'complex',  # or 'real'
        'lstm_units': 256,  # real plus imaginary
        'lstm_layers': 2,
        'norm': 'real',  # batch normalisation; 'complex' whitens real and imaginary parts jointly
        'masking': 'E',  # 'C': complex product; 'R': real and imaginary parts separately
        'window': 400,  # samples
        'hop': 100,  # samples
        'n_fft': 512,
        'mask_padding': not released,  # in training; enhancement never depends on padding
        'clamp': released,  # the output to [-1, 1]
        'loss': {term: 0.0 for term in TERMS} | weights,
        'lms_power': False,  # log-mel of power instead of magnitude
        'released_losses': released,
        'dtype': 'float32',  # 'bfloat16' for accelerators: convolutions only
    })
    config.data.update(snr_db=(-10.0, -5.0, 0.0, 5.0, 10.0, 15.0, 20.0), clip_seconds=3.0,
                       test_snr_db=(-10.0, -5.0, 0.0, 5.0, 10.0, 15.0, 20.0))
    experiment.set_data(config, chosen.data)
    epoch = 246  # steps: 3696 utterances
    if chosen.data == 'voicebank':
        epoch, config.data.clip_seconds = 720, 0.0  # 10 802 pairs
    config.train.update(steps=100 * epoch, batch_size=15, eval_every=epoch, save_every=epoch)
    config.optimizer.learning_rate = 5e-4
    # The study's best and worst utterance: half a minute per epoch on two CPU cores, too much for short trainings.
    config.log.pesq_examples = 0 if chosen.length or chosen.size == 'quick' else 16
    if chosen.length == 'short':
        config.train.update(
            steps=800, batch_size=4, crop_seconds=2.0,
            ema_decay=0.995,  # averaging helps short runs more
            eval_every=200, eval_seconds=3.0, save_every=200, log_every=25)
        config.optimizer.update(learning_rate=1e-3, decay='cosine', warmup_steps=50,
                                clip_norm=20.0)  # only clips rare spikes of PMSQE's gradient
    if chosen.size == 'half':
        config.model.update(channels=(16, 32, 64, 128, 128, 128), lstm_units=128)
    elif chosen.size == 'small':
        config.model.update(channels=(8, 16, 32, 64, 64, 64), lstm_units=64)
    elif chosen.size == 'quick':
        config.model.update(channels=(8, 16, 16, 16), lstm_units=16)
        experiment.make_quick(config)
    return config.lock()
