"""The demo: the whole chain of DR-DiffuSE, small, on the embedded spoken_demo data, on two CPU cores.

Command:   make demo
Data:      spoken_demo: sentences spoken by espeak-ng, mixed with generated noises; test voices, sentences and two of
           the noises do not occur in training. Made on the first use, nothing is downloaded.
Measured:  on the 36 test files, with six sampling steps:

                        pesq_wb  stoi   estoi  si_sdr  ssnr
           noisy        1.126    0.886  0.739   10.00  7.71
           condition    1.734    0.902  0.787   13.98  9.42
           diffusion    1.745    0.901  0.785   13.89  9.38
           refined      1.729    0.905  0.796   13.82  9.22

           Against the condition generator alone, diffusion lowered pesq_wb for 5 files and estoi for 33, refinement
           pesq_wb for 20 and estoi for 7. llr is undefined for 7 files, whose speech holds digital silence. Synthetic
           speech: nothing follows for recordings.
Hardware:  two cores of an AMD EPYC: 25 minutes from a fresh clone, installation included, while the machine was also
           running tests (28 minutes of CPU time in all).
Variants as in dr_diffuse.py.
"""

from ml_collections import ConfigDict

from configs import dr_diffuse


def get_config(variant: str = '') -> ConfigDict:
    """The chain with fewer channels and temporal units, trained shortly."""
    config = dr_diffuse.get_config(variant).unlock()
    if 'quick' in variant.split(','):
        return config.lock()
    config.model.update(channels=32, temporal_groups=1)
    config.data.name = 'spoken_demo'
    config.train.update(
        steps=300, batch_size=4, crop_seconds=2.0, ema_decay=0.98,
        eval_every=100, eval_seconds=4.0, save_every=100, log_every=20, early_stop=0)
    config.optimizer.update(learning_rate=2e-3, decay='cosine', warmup_steps=20, clip_norm=1.0)
    config.stages.diffusion.train = ConfigDict({'steps': 200, 'crop_seconds': 1.0})
    config.stages.diffusion.optimizer.learning_rate = 1e-3
    config.stages.refiner.train.update(steps=60, crop_seconds=1.0, eval_every=30)
    config.stages.refiner.optimizer = ConfigDict({'learning_rate': 1e-3, 'warmup_steps': 5})
    return config.lock()
