"""Diffiner's prior: a DDPM on clean speech, which refines the output of any enhancer.

Paper:     Sawata et al., "Diffiner: A Versatile Diffusion-based Generative Refiner for Speech Enhancement", Interspeech
           2023; the released code and its README's flags. One network serves Diffiner and Diffiner+.
Command:   python train.py --config diffiner --workdir runs/diffiner
           python evaluate.py --workdir runs/diffiner --preceding RUN --output runs/diffiner/report
           On one accelerator: --config.model.network.dtype=bfloat16, and --config.model.network.remat=True if memory is
           short. Within an hour on two CPU cores, from a folder of clean speech:
           python train.py --config diffiner:folders,small,short --workdir runs/prior --config.data.train.speech=SPEECH
           On a GPU, train the size small for longer: --config.train.steps=500000 --config.train.ema_decay=0.9999 (not
           tried).
Data:      the clean speech of voicebank_demand (28 speakers); utterances shorter than a block are zero-padded.
Published: only NISQA, in a table that is not public as text; SEGAN refined by Diffiner reaches a MOS of 4.372 (from a
           student's report on the paper). The authors train 750 000 steps, about three days on an A100.
Measured:  the published size and length were never run in full. `folders,small,short`: docs/diffiner.md.
Hardware:  a block of 4.1 s takes 658 GFLOP, with `small` (11 million parameters) 28. `small` takes 2 examples of 2.1 s
           per second on two cores of an AMD EPYC.
"""

from ml_collections import ConfigDict

from jax_diffse import experiment

VARIANTS = {
    'sampler': {'diffiner': 'sample with Diffiner instead of Diffiner+; training is the same'},
    'data': experiment.DATA,
    'size': {'small': '11.1 million parameters: 32 channels, five levels, one residual block each',
             'quick': experiment.QUICK},
    'length': {'short': f'{experiment.SHORT}: 1400 steps of 4 x 2.1 s'},
    'faithfulness': {'released': 'the released script: Diffiner+ with eta_b = eta_a = 0.4; blocks of 768 frames; no '
                                 'DC; an incomplete last frame fades; utterances of 4.2 s and less are dropped'},
}
DEFAULTS = {'data': 'voicebank'}


def get_config(variant: str = '') -> ConfigDict:
    """The prior, with the comma-separated variants applied."""
    chosen = experiment.choose(variant, VARIANTS, DEFAULTS)
    released = chosen.faithfulness == 'released'
    config = experiment.sections('diffiner', {
        'network': {
            'channels': 128,
            'multipliers': (1, 1, 2, 2, 4, 4),  # channels of each level, in units of `channels`
            'blocks': 3,  # residual blocks per level of the encoder, one more in the decoder
            'attention': (16, 32),  # at these reductions of resolution
            'heads': 4,
            'heads_up': 0,  # in the decoder; 0: as `heads`
            'head_channels': 0,  # channels per head, instead of `heads`; 0: use `heads`
            'qkv_order': 'legacy',  # or 'new'
            'scale_shift': True,  # the step scales and shifts normalised features; False: it is added
            'resample_blocks': False,  # change resolution within residual blocks
            'dropout': 0.0,
            'groups': 32,  # of group normalisation
            'remat': False,  # recompute blocks in the backward pass, to save memory
            'dtype': 'float32',  # 'bfloat16' for accelerators: activations and products only
        },
        'schedule': 'linear',  # of training; or 'cosine'
        'training_steps': 4000,  # of the diffusion
        'step_sampling': 'uniform',  # of steps in training; or 'loss_second_moment'
        'scale': 1.0,  # of spectrograms
        'block_frames': 768 if released else 256,  # frames that are sampled at a time; training uses at most 256
        'sampler': chosen.sampler or 'diffiner+',
        'diffiner': {'eta_a': 0.9, 'eta_b': 0.9},  # shares of fresh noise near the data, and of the observation
        'diffiner_plus': {
            'eta_a': 0.4,  # share of the network's direction near the data
            'eta_b': 0.4 if released else 0.6,  # of the observation
            'eta_c': 0.0,  # of the observation's direction
            'eta_d': 0.6,  # like eta_a, above observed_below
        },
        'respacing': 'ddim200',  # 'ddimN', 'N', or 'A,B,...' per section
        'sigma_hat': 'modulus',  # sigma_hat = |noisy - processed|; 'component': / sqrt(2)
        'floor': 0.0,  # of sigma_hat; the paper: sqrt(1e-5)
        'ceiling': 0.0,  # of sigma_hat; 0: none; the paper: sqrt(97)
        'observed_below': 0.0,  # Hz; only the prior determines higher frequencies; 0: all are observed
        'released': released,
    })
    experiment.set_data(config, chosen.data)
    if released:
        config.data.update(min_seconds=4.2, skip_bad=True)
    config.train.update(
        steps=750_000, batch_size=2, crop_seconds=4.2,  # 263 frames, of which the first 256 are used
        ema_decay=0.9999, eval_every=10_000, eval_seconds=4.2, save_every=10_000)
    config.optimizer.update(learning_rate=1e-4)
    if chosen.length == 'short':
        config.train.update(
            steps=1400, batch_size=4, crop_seconds=2.1,
            ema_decay=0.999,  # averaging helps short runs more
            eval_every=500, eval_seconds=4.2, save_every=500, log_every=25)
        config.optimizer.update(learning_rate=5e-4, decay='cosine', warmup_steps=100, clip_norm=1.0)
    if chosen.size == 'small':
        config.model.network.update(channels=32, multipliers=(1, 1, 2, 4, 8), blocks=1, attention=(16,))
    elif chosen.size == 'quick':
        config.model.update(block_frames=64, respacing='ddim10')
        config.model.network.update(channels=8, multipliers=(1, 1, 2, 2), blocks=1, attention=(8,), groups=4)
        experiment.make_quick(config)
    return config.lock()
