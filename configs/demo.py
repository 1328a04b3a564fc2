"""The demo: a small DCCRN, trained for two minutes on two CPU cores, on speech made on the spot.

Command:   make demo
Data:      spoken_demo: sentences spoken by espeak-ng, mixed with generated noises. The test voices, the test sentences
           and two of the test noises do not occur in training. The data are made on first use; nothing is downloaded.
Measured:  pesq_wb rises from 1.13 to 1.61 and si_sdr from 10.0 to 15.0 dB on the 36 test files (docs/results.md).
           Synthetic speech: nothing follows for recordings.
Hardware:  three minutes of CPU time on two cores of an Intel Xeon that other work shared: 2.5 to make the data, to
           compile and to train, half a minute to evaluate.
Next:      --config dccrn:folders,small,short for your own recordings; --config dr_diffuse:spoken_demo,small,brief for
           the chain of DR-DiffuSE on the demo's data, in twenty minutes.
"""

from ml_collections import ConfigDict

from jax_diffse import experiment
from jax_diffse.config import load

VARIANTS = {'size': {'quick': experiment.QUICK}}
DEFAULTS = {}


def get_config(variant: str = '') -> ConfigDict:
    """The size small of dccrn.py with a training that is shorter still."""
    chosen = experiment.choose(variant, VARIANTS, DEFAULTS)
    config = load(f'dccrn:spoken_demo,short,{chosen.size or "small"}').unlock()
    config.log.audio_examples = 0  # which would compile a program of their own
    config.optimizer.update(learning_rate=4e-3, warmup_steps=20)
    if chosen.size is None:
        config.train.update(steps=300, crop_seconds=0.5,  # many short crops are worth more than fewer long ones
                            ema_decay=0.98, eval_every=150, eval_seconds=4.0, save_every=150)
    return config.lock()
