"""A compact diffusion prior on clean speech, 46 210 parameters, which refines SEGAN's output.

Source:    Stefano-Previti/Diffusion_Based_Generative_Refiner, a student's notebook after Diffiner (Sawata et al.,
           Interspeech 2023), with its mistakes corrected (docs/segan.md).
Command:   python train.py --config compact_diffiner:relu --workdir runs/compact
           python evaluate.py --workdir runs/compact --preceding runs/segan --output runs/compact/report
Data:      the clean speech of voicebank_demand (28 speakers); utterances shorter than a block are zero-padded.
Published: test loss 0.1201 (SiLU), 0.0963 (ReLU), 0.1136 (GELU), on spectrograms at 48 kHz scaled to zero mean and unit
           variance each, so not comparable with this config. NISQA v2 of the refined speech, with ReLU: MOS 1.034,
           noisiness 2.104, discontinuity 1.469, coloration 1.568, loudness 1.216 (24 segments, three quarters of each
           padding).
Measured:  the published length was never run in full. `folders,short`: docs/segan.md.
Hardware:  0.2 s per step of 4 x 2.04 s on two cores of an AMD EPYC under other load.
"""

from ml_collections import ConfigDict

from jax_diffse import experiment

VARIANTS = {
    'activation': {name: f'{name} as the activation' for name in ('silu', 'relu', 'gelu')},
    'data': experiment.DATA,
    'size': {'quick': experiment.QUICK},
    'length': {'short': 'five minutes on two CPU cores: 1500 steps of 4 x 2.04 s'},
    'faithfulness': {'released': 'the notebook: its attention, which mixes channels and positions; training on '
                                 'normalised spectrograms, refinement of raw ones, segment by segment, by its sampler. '
                                 'Not covered: its training at 48 kHz, and one step t for all examples of a batch'},
}
DEFAULTS = {'activation': 'silu', 'data': 'voicebank'}


def get_config(variant: str = '') -> ConfigDict:
    """The corrected experiment, with the comma-separated variants applied."""
    chosen = experiment.choose(variant, VARIANTS, DEFAULTS)
    released = chosen.faithfulness == 'released'
    config = experiment.sections('compact_diffiner', {
        'network': {
            'widths': (4, 8, 16),  # channels of each level
            'heads': 2,  # of attention, at the bottom
            'groups': 2,  # of group normalisation
            'activation': chosen.activation,
            'dropout': 0.1,
            'released_attention': released,
            'dtype': 'float32',  # 'bfloat16' for accelerators: activations and products only
        },
        'schedule': 'cosine',  # of training; or 'linear'
        'training_steps': 50,  # of the diffusion
        'step_sampling': 'uniform',  # of steps in training; or 'loss_second_moment'
        'scale': 1.0 if released else 1.5,  # of spectrograms, to an rms of 1
        'block_frames': 256,  # frames that are sampled at a time
        'sampler': 'diffiner',  # or 'diffiner+'
        'diffiner': {
            'eta_a': 0.8 if released else 0.6,  # share of fresh noise; `released`: of the observation's direction
            'eta_b': 0.8,  # of the observation
        },
        'diffiner_plus': {'eta_a': 0.4, 'eta_b': 0.6, 'eta_c': 0.0, 'eta_d': 0.6},  # see diffiner.py
        'respacing': '' if released else 'ddim50',  # of sampling: all steps; fewer steps omit the highest level
        'sigma_hat': 'modulus',  # sigma_hat = |noisy - processed|; 'component': / sqrt(2)
        'floor': 1e-5 ** 0.5 if released else 0.0,  # of sigma_hat
        'ceiling': 97 ** 0.5 if released else 0.0,  # of sigma_hat; 0: none
        'observed_below': 0.0,  # Hz; only the prior determines higher frequencies; 0: all are observed
        'released': released,
    })
    experiment.set_data(config, chosen.data)
    config.train.update(
        steps=100 * 5401,  # 100 epochs of 10 802 utterances
        batch_size=2, crop_seconds=4.08,  # 256 frames
        eval_every=5401, eval_seconds=4.08, save_every=5401)
    config.optimizer.update(learning_rate=1e-3, l2=1e-4, decay='plateau', plateau_patience=4, plateau_threshold=1e-3,
                            plateau_min_rate=1e-6)
    if chosen.length == 'short':
        config.train.update(
            steps=1500, batch_size=4, crop_seconds=2.04,  # 128 frames
            ema_decay=0.995,  # averaging helps short runs more
            eval_every=500, save_every=500, log_every=50)
        config.optimizer.update(l2=0.0, decay='cosine', warmup_steps=50)
    if chosen.size == 'quick':
        config.model.update(block_frames=72 if released else 64, respacing='10' if released else 'ddim10')
        config.model.network.update(widths=(2, 4), heads=1)
        experiment.make_quick(config)
    return config.lock()
