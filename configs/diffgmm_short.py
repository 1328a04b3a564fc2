"""DiffGMM, small, from your own folders of speech and noise, in minutes on two CPU cores: enough for an ablation.

Command:   python train.py --config configs/diffgmm_short.py:k5 --workdir runs/diffgmm_k5 \\
             --config.data.train.speech=SPEECH --config.data.train.noise=NOISE
Measured:  50 minutes of speech and 28 of noise, 400 steps; 38 of the 824 test pairs of VoiceBank-DEMAND, six steps:

                    pesq_wb  stoi   si_sdr  csig   covl
           noisy     1.668   0.900    6.59  2.933  2.266
           k1        1.331   0.853    7.01  2.548  1.891
           k5        1.362   0.864    7.88  2.609  1.939
           k5, one   1.516   0.881    7.71  2.781  2.105   (a single step)
           dccrn     2.059   0.898   13.25  3.211  2.598   (dccrn_short.py:si_snr, trained for no longer)

           Other K and S, and another noise_scale: docs/diffgmm.md.
Hardware:  two cores of an AMD EPYC (AVX-512), little shared: 8 to 13 minutes each; one took 17 of processor time.
Not comparable with published figures: other training data, a small network, and a part of the test set.
Variants as in diffgmm.py, whose 'small' this has already; quick also reads your folders.
"""

from ml_collections import ConfigDict

from configs import diffgmm


def get_config(variant: str = '') -> ConfigDict:
    """The experiment with a short training of a smaller network."""
    config = diffgmm.get_config(variant).unlock()
    config.data.update(name='folders', snr_db=(-10.0, -5.0, 0.0, 5.0, 10.0, 15.0, 20.0),  # as dccrn_short.py
                       clip_seconds=3.0)
    if 'quick' in variant.split(','):
        return config.lock()
    config.model.network.update(widths=(16, 32, 64, 128), kernel=5)
    config.model.nll_warmup = 1600
    config.train.update(
        steps=400, batch_size=8,
        ema_decay=0.995,  # averaged weights are worth more the shorter the run
        eval_every=200, eval_seconds=3.0, save_every=200, log_every=25)
    config.optimizer.update(learning_rate=1e-3, warmup_steps=50)
    return config.lock()
