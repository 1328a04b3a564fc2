"""DR-DiffuSE, the whole chain, from your own folders of speech and noise, within hours on two CPU cores.

Command:   python train.py --config configs/dr_diffuse_short.py --workdir runs/dr_diffuse_short \\
             --config.data.train.speech=SPEECH --config.data.train.noise=NOISE

Networks, losses and sampler are those of dr_diffuse.py; only the training is shorter than the paper's.

Measured:  TODO
Variants as in dr_diffuse.py; quick also reads your folders.
"""

from ml_collections import ConfigDict

from configs import dr_diffuse


def get_config(variant: str = '') -> ConfigDict:
    """The full experiment's config with a short training on mixtures made on the fly."""
    config = dr_diffuse.get_config(variant).unlock()
    config.data.update(name='folders', snr_db=(-5.0, 15.0), snr_uniform=True)
    if 'quick' in variant:
        return config.lock()
    config.train.update(
        steps=2300, batch_size=4, crop_seconds=2.0,
        ema_decay=0.995,  # averaged weights are worth more the shorter the run
        eval_every=250, eval_seconds=4.0, save_every=250, log_every=25, early_stop=0)
    config.optimizer.update(decay='cosine', warmup_steps=100, clip_norm=1.0)
    config.stages.diffusion.train = ConfigDict({'steps': 1000})
    config.stages.diffusion.optimizer.learning_rate = 1e-3
    config.stages.refiner.train.update(steps=160, eval_every=80)
    config.stages.refiner.optimizer = ConfigDict({'learning_rate': 5e-4, 'warmup_steps': 20})
    return config.lock()
