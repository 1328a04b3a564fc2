"""DR-DiffuSE, the whole chain, from your own folders of speech and noise, within hours on two CPU cores.

Command:   python train.py --config configs/dr_diffuse_short.py --workdir runs/dr_diffuse_short \\
             --config.data.train.speech=SPEECH --config.data.train.noise=NOISE

Networks, losses and sampler are those of dr_diffuse.py; only the training is shorter than the paper's.

Measured:  speech and noise of a mini corpus (50 minutes of LibriSpeech, LibriTTS, VCTK, LJ Speech and CMU ARCTIC from
           191 speakers; 28 minutes of 32 kinds of noise), evaluated on 12 of the 824 test pairs of VoiceBank-DEMAND:
           the first three by name of either speaker with 2 to 3 s, and with 3 to 4 s. S is the number of sampling
           steps, that is, of evaluations of the denoiser; x0 guidance; "worse" counts files with a lower pesq_wb than
           c_gen's.

                          S   pesq_wb  worse  stoi   estoi  si_sdr   ssnr  csig   cbak   covl
           noisy              1.191           0.833  0.609    3.52  -1.80  2.095  1.731  1.570
           c_gen              1.658           0.819  0.645    9.50   4.12  2.741  2.373  2.143
           diffusion      1   1.504    11     0.787  0.590    8.38   3.46  2.033  2.176  1.684
                          2   1.626    10     0.809  0.631    9.18   3.91  2.573  2.326  2.037
                          3   1.641    10     0.814  0.638    9.35   4.04  2.696  2.353  2.109
                          6   1.648     9     0.818  0.643    9.46   4.09  2.729  2.364  2.131
                         12   1.654     6     0.819  0.644    9.48   4.11  2.739  2.369  2.140
                         25   1.657     6     0.819  0.645    9.49   4.11  2.740  2.370  2.141
                         50   1.656     8     0.819  0.644    9.49   4.11  2.740  2.369  2.141
                        200   1.655     8     0.819  0.644    9.48   4.11  2.737  2.368  2.139
           refined        1   1.679     5     0.825  0.650    9.49   4.02  2.761  2.366  2.160
                          2   1.684     6     0.825  0.653    9.67   4.13  2.784  2.378  2.175
                          3   1.683     5     0.827  0.654    9.70   4.15  2.784  2.380  2.175
                          6   1.681     5     0.827  0.655    9.71   4.17  2.783  2.380  2.173
                         12   1.680     5     0.827  0.655    9.71   4.17  2.782  2.380  2.172
                         25   1.681     4     0.827  0.655    9.72   4.17  2.781  2.381  2.172
                         50   1.680     4     0.827  0.655    9.72   4.17  2.781  2.380  2.172
                        200   1.680     4     0.827  0.655    9.72   4.17  2.781  2.380  2.172

           Real-time factor in batches of 4 x 3 s: 0.27 with six steps (c_gen alone 0.03), about 0.03 for each further
           step. Larger numbers of steps were run on a busy machine, so their times are not quoted.
           On these files the diffusion output beats c_gen at no number of steps; it comes near it as steps grow. The
           refiner is a little better than c_gen, whatever the number of steps before it: its own 160 training steps,
           which c_gen did not have, may explain that as well as the samples do; nobody has run the control.
           On all 38 test pairs of the mini corpus, S = 6:

                          pesq_wb  stoi   estoi  si_sdr  ssnr  csig   cbak   covl
           noisy          1.668    0.900  0.747    6.59  1.39  2.933  2.254  2.266
           c_gen          2.149    0.887  0.767   13.09  6.89  3.366  2.866  2.735
           diffusion      2.153    0.886  0.766   13.05  6.82  3.362  2.861  2.734
           refined        2.172    0.890  0.770   13.03  6.73  3.372  2.862  2.746

           pesq_wb is lower than c_gen's for 19 of the 38 files after diffusion and for 13 after refinement, si_sdr for
           32 and for 19.
           Validation error of the noise after 1000 steps of the DDPM: 0.175 (the authors show 0.088 after 48 000).
Hardware:  two cores of an AMD EPYC (AVX-512), shared with other work: c_gen 60 minutes (dr_diffuse_c_gen_short.py),
           the DDPM about 60 minutes, the refiner 13. The DDPM was stopped and continued twice: up to step 361 its rate
           fell as for 1400 steps in all, up to 480 as for 1200, from there as below.
Not comparable with published figures: other training data, a fraction of the training, and a part of the test set.
Variants as in dr_diffuse.py; quick also reads your folders.
"""

from ml_collections import ConfigDict

from configs import dr_diffuse


def get_config(variant: str = '') -> ConfigDict:
    """The full experiment's config with a short training on mixtures made on the fly."""
    config = dr_diffuse.get_config(variant).unlock()
    config.data.update(name='folders', snr_db=(-5.0, 15.0), snr_uniform=True)
    if 'quick' in variant.split(','):
        return config.lock()
    config.train.update(
        steps=2300, batch_size=4, crop_seconds=2.0,
        ema_decay=0.995,  # averaged weights are worth more the shorter the run
        eval_every=250, eval_seconds=4.0, save_every=250, log_every=25, early_stop=0)
    config.optimizer.update(decay='cosine', warmup_steps=100, clip_norm=1.0)
    config.stages.diffusion.train = ConfigDict({'steps': 1000})
    config.stages.diffusion.optimizer.learning_rate = 1e-3
    config.stages.refiner.train.update(steps=160, eval_every=80)
    config.stages.refiner.optimizer = ConfigDict({'learning_rate': 5e-4, 'warmup_steps': 20})
    return config.lock()
