"""DR-DiffuSE, a chain of three trainings: condition generator (c_gen), conditional DDPM, refiner.

Paper:     Tai et al., "Revisiting Denoising Diffusion Probabilistic Models for Speech Enhancement", AAAI 2023, table 1.
Command:   python train.py --config dr_diffuse --workdir runs/dr_diffuse
           The runs of the earlier stages are runs/dr_diffuse/c_gen and .../diffusion; runs/dr_diffuse is that of the
           refiner and holds all networks. Rerunning an interrupted command resumes it.
Stages:    python train.py --config dr_diffuse:c_gen --workdir runs/c_gen
           python train.py --config dr_diffuse:diffusion --workdir runs/diffuse --config.init_from=runs/c_gen
           python train.py --config dr_diffuse:refiner --workdir runs/refiner --config.init_from=runs/diffuse
           With `noisy`, the diffusion stage needs no config.init_from. A refiner starts as a copy of the c_gen in
           config.init_from; its training samples with config.model.steps, schedule, start and guidance, which should
           be those of later use. To continue a chain after c_gen: --config.init_from=RUN
           --config.chain="('diffusion','refiner')"
           `augmented` and `control` train the c_gen in config.init_from for as many steps as a refiner, with half of
           the noisy inputs replaced by samples of config.init_from, and without samples.
Data:      voicebank_demand (28 speakers; 770 pairs of p226 and p287 held out for validation).
Published: 824 test pairs. Paper: PESQ 3.09, CSIG 4.38, CBAK 3.57, COVL 3.76, SSNR 9.52, STOI 0.949. The authors'
           re-test of their released code: PESQ 3.064, CSIG 4.376, CBAK 3.550, COVL 3.742, SSNR 9.38, STOI 0.949; c_gen
           alone 3.088, 4.390, 3.587, 3.764, 9.80, 0.948. The authors validate, and stop early, on the test set.
           Their monitor plots show a test error of the noise of about 0.088 (DiffuSE) and 0.11 (DiffuSEC; 0.12 with
           the noisy spectrogram as its condition) after 48 000 steps.
Measured:  the published size and length were never run in full. Short trainings: docs/results_earlier.md.
Hardware:  `folders,short` on two cores of an AMD EPYC: c_gen 60 minutes, the DDPM 60, the refiner 13.
"""

from ml_collections import ConfigDict

from jax_diffse import experiment
from jax_diffse.config import stage_config

VARIANTS = {
    'stage': {
        'c_gen': 'the condition generator alone',
        'diffusion': 'the conditional DDPM alone, from config.init_from, the run of a c_gen',
        'refiner': 'the refiner alone, from config.init_from, the run of a DDPM',
        'augmented': 'c_gen trained further on samples and noisy speech, half and half, from config.init_from, the run '
                     'of a DDPM',
        'control': 'c_gen trained further without samples, for as many steps, from config.init_from',
    },
    'denoiser': {'diffusec': 'the ablation DiffuSEC, which concatenates the condition, instead of DiffuSE'},
    'condition': {'noisy': 'the noisy spectrogram as the condition: no c_gen, random initial weights of the refiner'},
    'data': experiment.DATA,
    'size': {'small': '32 of 64 channels, one of three temporal groups', 'quick': experiment.QUICK},
    'length': {
        'short': f'{experiment.SHORT} for each stage: 2300, 1000 and 160 steps',
        'brief': 'twenty minutes for the whole chain of the size small: 300, 200 and 60 steps',
    },
    'faithfulness': {'released': 'the released code: constant guidance with the condition at the wrong level; padding '
                                 'frames take part in the networks and their batch statistics'},
}
DEFAULTS = {'data': 'voicebank'}
FURTHER = ('refiner', 'augmented', 'control')  # stages that train c_gen's network further, all alike


def get_config(variant: str = '') -> ConfigDict:
    """The chain, or one stage of it. `stages` holds the changes of each stage to the rest of the config."""
    chosen = experiment.choose(variant, VARIANTS, DEFAULTS)
    released, noisy = chosen.faithfulness == 'released', chosen.condition == 'noisy'
    config = experiment.sections('dr_diffuse', {
        'stage': 'c_gen',
        'channels': 64,  # of the encoder and the decoders
        'temporal_groups': 3,  # with six dilated units each
        'compression': 'sqrt',  # magnitude ** 0.5
        'mask_padding': not released,  # real frames do not depend on padding
        'dtype': 'float32',  # 'bfloat16' for accelerators: activations and products only
        'denoiser': chosen.denoiser or 'diffuse',  # two branches; 'diffusec': concatenation
        'condition': chosen.condition or 'c_gen',
        'steps': 6,  # of sampling
        'schedule': 'fast',  # the released six steps, or their shape with more or fewer; 'linear': as in training
        'start': 'condition',  # the diffused condition; 'noise': N(0, I), as in the paper
        'guidance': 'released' if released else 'x0',  # or 'none', 'gradient' (the paper's)
        'guidance_weight': 0.5,
        'refiner_mix': 0.5,  # share of the sample in the refiner's input; the rest is the noisy spectrogram
    })
    config.chain = ('diffusion', 'refiner') if noisy else ('c_gen', 'diffusion', 'refiner')
    experiment.set_data(config, chosen.data)
    if chosen.data == 'folders':
        config.data.update(snr_db=(-5.0, 15.0), snr_uniform=True)
    config.train.update(
        steps=50 * 1350,  # 50 epochs of the 10 802 training pairs; the authors keep no averaged weights
        batch_size=8, eval_every=1350, save_every=1350, early_stop=5)
    config.optimizer.update(
        learning_rate=1e-3, l2=1e-7,
        decay='plateau', plateau_patience=2, plateau_threshold=0.0)  # halved at the third epoch without a new best
    config.stages = ConfigDict({
        'c_gen': {'model': {'stage': 'c_gen'}},
        'diffusion': {'model': {'stage': 'diffusion'}, 'optimizer': {'learning_rate': 2e-4}},
        'refiner': {'model': {'stage': 'refiner'}},
        'augmented': {'model': {'stage': 'c_gen'}, 'augment': {'share': 0.5}},
        'control': {'model': {'stage': 'c_gen'}},
    })
    for stage in FURTHER:
        config.stages[stage].train = ConfigDict({'steps': 2 * 1350})  # 2 epochs
    if chosen.length == 'short':
        _short(config)
    elif chosen.length == 'brief':
        _brief(config)
    if chosen.size == 'small':
        config.model.update(channels=32, temporal_groups=1)
    elif chosen.size == 'quick':
        config.model.update(channels=16, temporal_groups=1)
        experiment.make_quick(config)
    return stage_config(config, chosen.stage) if chosen.stage else config.lock()


def _short(config: ConfigDict) -> None:
    config.train.update(
        steps=2300, batch_size=4, crop_seconds=2.0,
        ema_decay=0.995,  # averaging helps short runs more
        eval_every=250, eval_seconds=4.0, save_every=250, log_every=25, early_stop=0)
    config.optimizer.update(decay='cosine', warmup_steps=100, clip_norm=1.0)
    config.stages.diffusion.train = ConfigDict({'steps': 1000})
    config.stages.diffusion.optimizer.learning_rate = 1e-3
    for stage in FURTHER:
        config.stages[stage].train.update(steps=160, eval_every=80)
        config.stages[stage].optimizer = ConfigDict({'learning_rate': 5e-4, 'warmup_steps': 20})


def _brief(config: ConfigDict) -> None:
    config.train.update(
        steps=300, batch_size=4, crop_seconds=2.0, ema_decay=0.98,
        eval_every=100, eval_seconds=4.0, save_every=100, log_every=20, early_stop=0)
    config.optimizer.update(learning_rate=2e-3, decay='cosine', warmup_steps=20, clip_norm=1.0)
    config.stages.diffusion.train = ConfigDict({'steps': 200, 'crop_seconds': 1.0})
    config.stages.diffusion.optimizer.learning_rate = 1e-3
    for stage in FURTHER:
        config.stages[stage].train.update(steps=60, crop_seconds=1.0, eval_every=30)
        config.stages[stage].optimizer = ConfigDict({'learning_rate': 1e-3, 'warmup_steps': 5})
