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

from configs._sections import make_quick, sections, variants_of

VARIANTS = ('quick', 'released', 'noisy')


def get_config(variant: str = '') -> ConfigDict:
    """The chain, with the comma-separated variants applied. `stages` holds what a stage changes in the rest."""
    variants = variants_of(variant, VARIANTS)
    released, noisy = 'released' in variants, 'noisy' in variants
    config = sections('dr_diffuse', {
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
    })
    config.chain = ('diffusion', 'refiner') if noisy else ('c_gen', 'diffusion', 'refiner')
    config.data.name = 'voicebank_demand/28spk'
    config.train.update(
        steps=50 * 1350,  # 50 epochs of the 10 802 training pairs; the authors keep no averaged weights
        batch_size=8, eval_every=1350, save_every=1350, early_stop=5)
    config.optimizer.update(
        learning_rate=1e-3, l2=1e-7,
        decay='plateau', plateau_patience=2, plateau_threshold=0.0)  # halved at the third epoch without a new best
    config.stages = ConfigDict({
        'c_gen': {'model': {'stage': 'c_gen'}},
        'diffusion': {'model': {'stage': 'diffusion'}, 'optimizer': {'learning_rate': 2e-4}},
        'refiner': {'model': {'stage': 'refiner'}, 'train': {'steps': 2 * 1350}},  # 2 epochs
    })
    if 'quick' in variants:
        config.model.update(channels=16, temporal_groups=1)
        make_quick(config)
        del config.stages.refiner['train']
    return config.lock()
