"""DCCRN with a choice of losses, on your folders of speech and noise: the protocol of the study of its losses.

Paper:     Lee et al., "DCCRN with various loss functions" (in Korean), Journal of the Acoustical Society of Korea
           40(2), 2021; the network: Hu et al., "DCCRN", Interspeech 2020.
Command:   python train.py --config configs/dccrn.py:si_snr+lms --workdir runs/dccrn \\
             --config.data.train.speech=SPEECH --config.data.train.noise=NOISE
           python evaluate.py --workdir runs/dccrn --output runs/dccrn/report --speech TEST_SPEECH --noise TEST_NOISE
           The report has a table by noise kind (seen in training or not) and SNR, as the paper does.
Data:      the paper: 3 s clips mixed at -10 to 20 dB in steps of 5, 3696 for training, as many as TIMIT has training
           utterances; its noises are not named. Here: your folders, mixed on the fly.
Published: the tables are images; the abstract says that adding a perceptual loss to MSE or SI-SNR improves the scores
           overall, and that listeners preferred its results even where scores were lower.
Measured:  not yet: nobody has run this config in full. What was measured is in configs/dccrn_short.py.

Variants, joined by commas:
  LOSS      one of mse, si_snr (default), si_sdr, sdr, lms, pmsqe, or a combination of the study's, with weights by its
            rule: mse+lms, mse+si_snr, mse+pmsqe, si_snr+si_sdr, sdr+lms, sdr+pmsqe, si_snr+lms, si_snr+pmsqe. Any
            other: --config.model.loss.TERM=WEIGHT. The loss is the weighted mean of the terms.
  quick     the same code path, small, on the embedded spoken_demo data: a minute on two CPU cores.
  released  as the released code: its losses with their mistakes (docs/dccrn.md) and its weights, the output clamped
            to [-1, 1], padding taking part in the training.
  voicebank VoiceBank-DEMAND in place of your folders, for comparison with the field.
"""

from ml_collections import ConfigDict

from configs._sections import make_quick, sections, variants_of

TERMS = ('mse', 'si_snr', 'si_sdr', 'sdr', 'lms', 'pmsqe')
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
RELEASED = COMBINATIONS | {  # weights of the released code, for its own losses
    'mse+lms': {'mse': 1000.0, 'lms': 1.0},
    'mse+si_snr': {'si_snr': 1.0, 'mse': 100.0},
    'mse+pmsqe': {'mse': 1000.0, 'pmsqe': 1.0},  # it forgets the first
    'sdr+pmsqe': {'sdr': 1.0, 'pmsqe': 15.0},
    'si_snr+pmsqe': {'si_snr': 1.0, 'pmsqe': 8.0},
}
SINGLE = {term: {term: 1.0} for term in TERMS}


def get_config(variant: str = '') -> ConfigDict:
    """The study's experiment, with the comma-separated variants applied."""
    variants = variants_of(variant, (*SINGLE, *COMBINATIONS, 'quick', 'released', 'voicebank'))
    released = 'released' in variants
    losses = SINGLE | (RELEASED if released else COMBINATIONS)
    chosen = [name for name in variants if name in losses]
    if len(chosen) > 1:
        raise ValueError(f'{" and ".join(chosen)}: expected one loss; join its terms with +')
    config = sections('dccrn', {
        'channels': (32, 64, 128, 256, 256, 256),  # of the encoder, real and imaginary parts together
        'lstm': 'complex',  # or 'real'
        'lstm_units': 256,  # real and imaginary parts together
        'lstm_layers': 2,
        'norm': 'real',  # batch normalisation; 'complex' whitens real and imaginary part together
        'masking': 'E',  # 'C': complex product; 'R': part by part
        'window': 400,  # samples
        'hop': 100,  # samples
        'n_fft': 512,
        'mask_padding': not released,  # in training; what is enhanced never depends on padding
        'clamp': released,  # the output to [-1, 1]
        'loss': {term: 0.0 for term in TERMS} | losses[chosen[0] if chosen else 'si_snr'],
        'lms_power': False,  # log-mel of power, not of magnitude
        'released_losses': released,
        'dtype': 'float32',  # 'bfloat16' for accelerators: convolutions only
    })
    config.data.update(snr_db=(-10.0, -5.0, 0.0, 5.0, 10.0, 15.0, 20.0), clip_seconds=3.0,
                       test_snr_db=(-10.0, -5.0, 0.0, 5.0, 10.0, 15.0, 20.0))
    config.train.update(
        steps=100 * 246,  # 100 epochs of 3696 utterances
        batch_size=15, eval_every=246, save_every=246)
    config.optimizer.learning_rate = 5e-4
    if 'voicebank' in variants:
        config.data.update(name='voicebank_demand/28spk', clip_seconds=0.0)
        config.train.update(steps=100 * 720, eval_every=720, save_every=720)  # epochs of 10 802 pairs
    if 'quick' in variants:
        config.model.update(channels=(8, 16, 16, 16), lstm_units=16)
        make_quick(config)
    return config.lock()
