"""Diffiner's prior with 11 million parameters, from your own folder of clean speech, for two CPU cores.
"""

from ml_collections import ConfigDict

from configs import diffiner


def get_config(variant: str = '') -> ConfigDict:
    """The published experiment with a small network and a short training."""
    config = diffiner.get_config(variant).unlock()
    config.data.name = 'folders'
    if 'quick' in variant.split(','):
        return config.lock()
    config.model.network.update(channels=32, multipliers=(1, 1, 2, 4, 8), blocks=1, attention=(16,))
    config.train.update(
        steps=1400, batch_size=4, crop_seconds=2.1,
        ema_decay=0.999,  # averaged weights are worth more the shorter the run
        eval_every=500, eval_seconds=4.2, save_every=500, log_every=25)
    config.optimizer.update(learning_rate=5e-4, decay='cosine', warmup_steps=100, clip_norm=1.0)
    return config.lock()
