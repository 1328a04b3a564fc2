"""DCCRN at a quarter of its width from your own folders of speech and noise, within minutes on two CPU cores.

Command:   python train.py --config configs/dccrn_short.py:si_snr+lms --workdir runs/dccrn_si_snr_lms \\
             --config.data.train.speech=SPEECH --config.data.train.noise=NOISE
Variants as in dccrn.py; quick also reads your folders.
"""

from ml_collections import ConfigDict

from configs import dccrn


def get_config(variant: str = '') -> ConfigDict:
    """The study's experiment, shorter and smaller, so that losses can be compared."""
    config = dccrn.get_config(variant).unlock()
    config.data.name = 'folders'
    if 'quick' in variant:
        return config.lock()
    config.model.update(channels=(8, 16, 32, 64, 64, 64), lstm_units=64)
    config.train.update(
        steps=800, batch_size=4, crop_seconds=2.0,
        ema_decay=0.995,  # averaged weights are worth more the shorter the run
        eval_every=200, eval_seconds=3.0, save_every=200, log_every=25)
    config.optimizer.update(learning_rate=1e-3, decay='cosine', warmup_steps=50,
                            clip_norm=20.0)  # no more than a rare spike of PMSQE's gradient
    return config.lock()
