"""c_gen from your own folders of speech and noise, within an hour on two CPU cores.

Command:   python train.py --config configs/dr_diffuse_c_gen_short.py --workdir runs/c_gen_short \\
             --config.data.train.speech=SPEECH --config.data.train.noise=NOISE

The network and the loss are those of dr_diffuse_c_gen.py; only the training is shorter than the paper's.
Variants as there.
"""

from ml_collections import ConfigDict

from configs import dr_diffuse_c_gen


def get_config(variant: str = '') -> ConfigDict:
    """The full experiment's config with a short training on mixtures made on the fly."""
    config = dr_diffuse_c_gen.get_config(variant)
    config.data.update(name='folders', snr_db=(-5.0, 15.0), snr_uniform=True)
    if 'quick' in variant:
        return config
    config.train.update(
        steps=2000, batch_size=4, crop_seconds=2.0,
        ema_decay=0.995,  # averaged weights are worth more the shorter the run
        eval_every=250, eval_seconds=4.0, save_every=250, log_every=25, early_stop=0)
    config.optimizer.update(decay='cosine', warmup_steps=100, clip_norm=1.0)
    return config
