"""SEGAN, scaled down, with least-squares adversarial losses: waveform to waveform.

Paper:     Pascual et al., "SEGAN: Speech Enhancement Generative Adversarial Network", Interspeech 2017; the network and
           the training are those of a student's notebook (Stefano-Previti/Diffusion_Based_Generative_Refiner), 2.7 and
           1.4 million parameters, with the notebook's mistakes corrected (docs/segan.md).
Command:   python train.py --config configs/segan.py --workdir runs/segan
           python evaluate.py --workdir runs/segan --output runs/segan/report
           The ablation: the same with configs/segan.py:no_adversary.
Data:      voicebank_demand (28 speakers): the real noise of each pair, resampled to 16 kHz.
Published: SEGAN, 97 million parameters, another network: PESQ 2.16, CSIG 3.48, CBAK 2.94, COVL 2.80 on
           VoiceBank-DEMAND. The notebook reports no metric of its generator.
Measured:  not yet: nobody has run this config in full. What was measured is in configs/segan_short.py.

Variants, joined by commas:
  quick         the same code path, small, on the embedded spoken_demo data: a minute on two CPU cores.
  no_adversary  the L1 distance alone, without a discriminator.
  released      as the notebook: the speech of the pairs with white noise at 0, 5, 10 or 15 dB, an L1 weight of 0.001,
                segments side by side at use, and a learning rate that stays, as its plateau rule never acts.
"""

from ml_collections import ConfigDict

from configs._sections import make_quick, sections, variants_of


def get_config(variant: str = '') -> ConfigDict:
    """The corrected experiment, with the comma-separated variants applied."""
    variants = variants_of(variant, ('quick', 'no_adversary', 'released'))
    released = 'released' in variants
    config = sections('segan', {
        'channels': (8, 16, 32, 64, 128, 256),  # of the generator's encoder and of the discriminator
        'segment': 16_384,  # samples
        'overlap': 0 if released else 2048,  # samples that neighbouring segments share at use
        'pre_emphasis': 0.0,  # SEGAN: 0.95, which is slower to learn, see docs/segan.md
        'adversary': 'no_adversary' not in variants,
        'l1_weight': 0.001 if released else 100.0,  # beside the adversarial loss; SEGAN: 100
        'white_noise_db': (0.0, 5.0, 10.0, 15.0) if released else (),  # of white noise in place of the data's own
        'released': released,  # validations are judged by the generator's whole loss, not by its distance
        'dtype': 'float32',  # 'bfloat16' for accelerators: activations and products only
    })
    config.data.update(name='voicebank_demand/28spk')
    config.train.update(
        steps=65 * 1350,  # 65 epochs of 10 802 crops
        batch_size=8, crop_seconds=1.024, eval_every=1350, eval_seconds=1.024, save_every=1350)
    config.optimizer.update(
        learning_rate=1e-3 if released else 2e-4,  # SEGAN's; the notebook's can saturate the generator's tanh for good
        clip_norm=0.0 if released else 1.0,
        decay='constant' if released else 'plateau',
        plateau_patience=4, plateau_threshold=1e-3, plateau_min_rate=1e-6)  # the notebook's, had it ever acted
    if 'quick' in variants:
        config.model.update(channels=(4, 8, 16, 16, 16, 16))
        make_quick(config)
        config.train.update(crop_seconds=1.024, eval_seconds=1.024)
    return config.lock()
