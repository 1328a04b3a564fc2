"""Diffiner's prior with 11 million parameters, from your own folder of clean speech, within an hour on two CPU cores.

Network:   32 channels, five levels, one residual block each; 28 GFLOP per block of 4.1 s, the published one has 658.
Command:   python train.py --config configs/diffiner_small.py --workdir runs/prior --config.data.train.speech=SPEECH
           python evaluate.py --workdir runs/prior --preceding RUN --output REPORT --clean CLEAN --noisy NOISY
Measured:  50 minutes of speech from 191 speakers, 1400 steps of 4 x 2.1 s, 0.2 % of the blocks of the published
           training; validation loss 0.0450, 0.0404 and 0.0393 after 500, 1000 and 1400 steps. As a refiner it makes
           other systems' output worse at any number of steps: wide-band PESQ of c_gen on 12 test pairs of
           VoiceBank-DEMAND goes from 2.192 to 1.197, 1.280, 1.335, 1.340 and 1.273 with 5, 10, 25, 50 and 200 steps.
           All tables and why: docs/diffiner.md. With a GPU train for longer, --config.train.steps=500000
           --config.train.ema_decay=0.9999 (not tried).
Hardware:  two cores of an AMD EPYC (AVX-512), one hour, other work beside it for a third of the time; alone it takes 2
           examples per second.
Variants as in diffiner.py; quick also reads your folder.
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
