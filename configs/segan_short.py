"""SEGAN at its full size from your own folders of speech and noise, in half an hour on two CPU cores.

To be measured.
"""

from ml_collections import ConfigDict

from configs import segan


def get_config(variant: str = '') -> ConfigDict:
    """The corrected experiment with a short training."""
    config = segan.get_config(variant).unlock()
    config.data.name = 'folders'
    if 'quick' in variant.split(','):
        return config.lock()
    config.train.update(
        steps=1000, batch_size=8,
        ema_decay=0.995,  # averaged weights are worth more the shorter the run
        eval_every=250, save_every=250, log_every=25)
    config.optimizer.update(learning_rate=1e-3, clip_norm=0.0, decay='cosine', warmup_steps=50)
    return config.lock()
