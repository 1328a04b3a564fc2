"""DR-DiffuSE, the whole chain with one command, on VoiceBank-DEMAND: c_gen, the conditional DDPM, the refiner.

Paper:     Tai et al., "Revisiting Denoising Diffusion Probabilistic Models for Speech Enhancement", AAAI 2023, table 1.
Command:   python train.py --config configs/dr_diffuse.py --workdir runs/dr_diffuse
           The earlier stages' runs are runs/dr_diffuse/c_gen and .../diffusion; runs/dr_diffuse is the refiner's, which
           holds all networks. The same command continues where it was interrupted.
           Stage by stage: dr_diffuse_c_gen.py, dr_diffuse_diffuse.py or dr_diffuse_diffusec.py, dr_diffuse_refiner.py.
           From a c_gen that is there already: --config.init_from=RUN --config.chain="('diffusion','refiner')"
Data:      voicebank_demand (28 speakers; 770 pairs of p226 and p287 held out for validation), downloaded by TFDS.
Published: 824 test pairs. Paper: PESQ 3.09, CSIG 4.38, CBAK 3.57, COVL 3.76, SSNR 9.52, STOI 0.949. The authors'
           re-test of their released code: PESQ 3.064, CSIG 4.376, CBAK 3.550, COVL 3.742, SSNR 9.38, STOI 0.949; c_gen
           alone 3.088, 4.390, 3.587, 3.764, 9.80, 0.948. Validated, and stopped early, on the test set.
Measured:  not yet: nobody has run this config in full. What was measured is in configs/dr_diffuse_short.py.

Variants, joined by commas:
  quick     the same code path, small, on the embedded spoken_demo data: a few minutes on two CPU cores.
  released  as the released code: constant guidance with the condition at the wrong level; padding frames take part in
            the networks and their batch statistics.
  noisy     the noisy spectrogram as the condition of the DDPM; without c_gen the refiner starts from random weights.
"""

from ml_collections import ConfigDict

VARIANTS = ('quick', 'released', 'noisy')


def get_config(variant: str = '') -> ConfigDict:
    """The chain, with the comma-separated variants applied. `stages` holds what a stage changes in the rest."""
    variants = [name for name in variant.split(',') if name]
    for name in variants:
        if name not in VARIANTS:
            raise ValueError(f'unknown variant {name!r}, expected {", ".join(VARIANTS)}')
    released, noisy = 'released' in variants, 'noisy' in variants
    config = ConfigDict({
        'system': 'dr_diffuse',
        'chain': ('diffusion', 'refiner') if noisy else ('c_gen', 'diffusion', 'refiner'),
        'init_from': '',  # an earlier run that the first stage starts from; its frozen groups must come from one
        'model': {
            'stage': 'c_gen',
            'channels': 64,  # of encoder and decoders
            'temporal_groups': 3,  # of six dilated units each
            'compression': 'sqrt',  # magnitude ** 0.5
            'mask_padding': not released,  # real frames do not depend on padding
            'dtype': 'float32',  # 'bfloat16' for accelerators: activations and products only
            'denoiser': 'diffuse',  # two branches; 'diffusec': concatenation
            'condition': 'noisy' if noisy else 'c_gen',
            'steps': 6,  # of sampling
            'schedule': 'fast',  # the released six steps, or their shape with more or fewer; 'linear': training's
            'start': 'condition',  # the diffused condition; 'noise': N(0, I), as in the paper
            'guidance': 'released' if released else 'x0',  # or 'none', 'gradient' (the paper's)
            'guidance_weight': 0.5,
            'refiner_mix': 0.5,  # share of the sample in the refiner's input; the rest is the noisy spectrogram
        },
        'data': {
            'name': 'voicebank_demand/28spk',  # or 'folders', see docs/data.md
            'data_dir': '',  # of TFDS; '': ~/tensorflow_datasets
            'train': {'clean': '', 'noisy': '', 'speech': '', 'noise': ''},  # folders: pairs, or speech and noise
            'validation': {'clean': '', 'noisy': '', 'speech': '', 'noise': ''},  # '': speakers held out of train
            'test': {'clean': '', 'noisy': '', 'speech': '', 'noise': ''},
            'held_out': 0.05,  # share of the training speakers and noises held out where validation names nothing
            'snr_db': (0.0, 5.0, 10.0, 15.0),  # of mixtures made on the fly
            'snr_uniform': False,  # draw from the whole range, not from the list
            'test_snr_db': (2.5, 7.5, 12.5, 17.5),  # of the listed test mixtures
            'sample_rate': 16_000,  # Hz
            'min_seconds': 0.25,  # shorter files are refused
            'skip_bad': False,  # leave files that cannot be used out, rather than stop
        },
        'train': {
            'steps': 50 * 1350,  # 50 epochs of the 10 802 training pairs
            'batch_size': 8,
            'crop_seconds': 3.0,
            'accumulate': 1,  # parts a batch is taken in
            'ema_decay': 0.0,  # the authors keep no averaged weights
            'eval_every': 1350,  # an epoch
            'eval_seconds': 0.0,  # whole utterances
            'save_every': 1350,
            'log_every': 50,
            'early_stop': 5,  # validations without a new best
            'max_minutes': 0.0,  # of each stage
            'seed': 2023,
        },
        'optimizer': {
            'learning_rate': 1e-3,
            'l2': 1e-7,  # coupled, as torch's Adam
            'clip_norm': 0.0,
            'decay': 'plateau',  # halved after plateau_patience validations without a new best
            'warmup_steps': 0,
            'plateau_patience': 3,
        },
        'log': {'audio_examples': 2, 'wandb_project': ''},
        'parallel': {'mapper': 'shard_map'},  # or 'pmap'
        'stages': {
            'c_gen': {'model': {'stage': 'c_gen'}},
            'diffusion': {'model': {'stage': 'diffusion'}, 'optimizer': {'learning_rate': 2e-4}},
            'refiner': {'model': {'stage': 'refiner'}, 'train': {'steps': 2 * 1350}},  # 2 epochs
        },
    })
    if 'quick' in variants:
        config.model.update(channels=16, temporal_groups=1)
        config.data.name = 'spoken_demo'
        config.train.update(steps=20, batch_size=4, crop_seconds=1.0, eval_every=10, eval_seconds=2.0, save_every=10,
                            log_every=10)
        del config.stages.refiner['train']
    return config.lock()
