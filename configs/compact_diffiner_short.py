"""The compact prior from your own folder of clean speech, in a quarter of an hour on two CPU cores.

To be measured.
"""

from ml_collections import ConfigDict

from configs import compact_diffiner


def get_config(variant: str = '') -> ConfigDict:
    """The corrected experiment with a short training."""
    config = compact_diffiner.get_config(variant).unlock()
    config.data.name = 'folders'
    if 'quick' in variant.split(','):
        return config.lock()
    config.train.update(
        steps=1500, batch_size=4, crop_seconds=2.04,  # 128 frames
        ema_decay=0.995,  # averaged weights are worth more the shorter the run
        eval_every=500, eval_seconds=4.08, save_every=500, log_every=50)
    config.optimizer.update(l2=0.0, decay='cosine', warmup_steps=50)
    return config.lock()
