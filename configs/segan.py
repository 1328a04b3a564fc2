"""SEGAN, scaled down: waveform-to-waveform enhancement with least-squares adversarial losses.

Paper:     Pascual et al., "SEGAN: Speech Enhancement Generative Adversarial Network", Interspeech 2017; the network and
           the training are those of a student's notebook (Stefano-Previti/Diffusion_Based_Generative_Refiner), 2.7 and
           1.4 million parameters, with the notebook's mistakes corrected (docs/segan.md).
Command:   python train.py --config segan --workdir runs/segan
           python evaluate.py --workdir runs/segan --output runs/segan/report
           Ablation: --config segan:no_adversary
Data:      voicebank_demand (28 speakers): the real noise of each pair, resampled to 16 kHz. The notebook takes a
           quarter of the files (--config.data.share=0.25); `released` takes all, and as many steps as here.
Published: SEGAN, 97 million parameters, another network: PESQ 2.16, CSIG 3.48, CBAK 2.94, COVL 2.80 on
           VoiceBank-DEMAND. The notebook reports one figure of its generator, the adversarial loss on test segments
           with white noise, L_G = 0.0535, which is no measure of quality (docs/results.md).
Measured:  the published length was never run in full. `folders,short`: docs/segan.md.
Hardware:  1.0 s per step of 8 x 1.02 s on two cores of an AMD EPYC, 0.5 s without the adversary.
"""

from ml_collections import ConfigDict

from jax_diffse import experiment

VARIANTS = {
    'adversary': {'no_adversary': 'only the L1 distance, without a discriminator'},
    'data': experiment.DATA,
    'size': {'small': 'half the channels: 0.68 and 0.36 million parameters', 'quick': experiment.QUICK},
    'length': {'short': f'{experiment.SHORT}: 1000 steps of 8 x 1.02 s, enough to see that it learns'},
    'faithfulness': {'released': 'the notebook: consecutive segments of the speech of the pairs with white noise at 0, '
                                 '5, 10 or 15 dB, an L1 weight of 0.001, no overlap of segments in enhancement, and a '
                                 'constant learning rate, as its plateau rule never acts'},
}
DEFAULTS = {'data': 'voicebank'}


def get_config(variant: str = '') -> ConfigDict:
    """The corrected experiment, with the comma-separated variants applied."""
    chosen = experiment.choose(variant, VARIANTS, DEFAULTS)
    released = chosen.faithfulness == 'released'
    config = experiment.sections('segan', {
        'channels': (8, 16, 32, 64, 128, 256),  # of the generator's encoder and the discriminator
        'segment': 16_384,  # samples
        'overlap': 0 if released else 2048,  # samples that neighbouring segments share in enhancement
        'pre_emphasis': 0.0,  # SEGAN: 0.95, which is slower to learn, see docs/segan.md
        'adversary': chosen.adversary is None,
        'l1_weight': 0.001 if released else 100.0,  # added to the adversarial loss; SEGAN: 100
        'white_noise_db': (0.0, 5.0, 10.0, 15.0) if released else (),  # SNRs of white noise, not the data's noise
        'released': released,  # validation uses the generator's total loss instead of its distance
        'dtype': 'float32',  # 'bfloat16' for accelerators: activations and products only
    })
    experiment.set_data(config, chosen.data)
    config.data.segments = released
    config.train.update(
        steps=65 * 1350,  # 65 epochs of 10 802 crops; fewer of segments
        batch_size=8, crop_seconds=1.024, eval_every=1350, eval_seconds=1.024, save_every=1350)
    config.optimizer.update(
        learning_rate=1e-3 if released else 2e-4,  # SEGAN's; the notebook's can saturate the generator's tanh
        clip_norm=0.0 if released else 1.0,
        decay='constant' if released else 'plateau',
        plateau_patience=4, plateau_threshold=1e-3, plateau_min_rate=1e-6)  # the notebook's intended rule
    if chosen.length == 'short':
        config.train.update(
            steps=1000,
            ema_decay=0.995,  # averaging helps short runs more
            eval_every=250, save_every=250, log_every=25)
        config.optimizer.update(learning_rate=1e-3, clip_norm=0.0, decay='cosine', warmup_steps=50)
    if chosen.size == 'small':
        config.model.channels = (4, 8, 16, 32, 64, 128)
    elif chosen.size == 'quick':
        config.model.channels = (4, 8, 16, 16, 16, 16)
        experiment.make_quick(config)
        config.train.update(crop_seconds=1.024, eval_seconds=1.024)
    return config.lock()
