"""The demo: a small c_gen on the embedded spoken_demo data, in a few minutes on two CPU cores.

Command:   make demo
Data:      spoken_demo: sentences spoken by espeak-ng, mixed with generated noises; test voices, sentences and two of
           the noises do not occur in training. Made on the first use, nothing is downloaded.
Measured:  on the 36 test files pesq_wb 1.126 noisy, 1.737 enhanced (better for all 36); stoi 0.886 and 0.902, si_sdr
           10.0 and 13.9 dB; llr is undefined for 7 files, whose speech holds digital silence. Synthetic speech: nothing
           follows for recordings.
Hardware:  two cores of an AMD EPYC: 7.5 minutes from a fresh clone, installation included.
Variants as in dr_diffuse_c_gen.py.
"""

from ml_collections import ConfigDict

from configs import dr_diffuse_c_gen


def get_config(variant: str = '') -> ConfigDict:
    """c_gen with fewer channels and temporal units, trained shortly."""
    config = dr_diffuse_c_gen.get_config(variant)
    if 'quick' in variant:
        return config
    config.model.update(channels=32, temporal_groups=1)
    config.data.name = 'spoken_demo'
    config.train.update(
        steps=300, batch_size=4, crop_seconds=2.0, ema_decay=0.98,
        eval_every=100, eval_seconds=4.0, save_every=100, log_every=20, early_stop=0)
    config.optimizer.update(learning_rate=2e-3, decay='cosine', warmup_steps=20, clip_norm=1.0)
    return config
