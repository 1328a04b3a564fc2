"""DCCRN at a quarter of its width from your own folders of speech and noise, within minutes on two CPU cores.

Network:   230 000 parameters; a training step of 4 x 2 s takes 0.5 s on two cores of an AMD EPYC.
Command:   python train.py --config configs/dccrn_short.py:si_snr+lms --workdir runs/dccrn_si_snr_lms \\
             --config.data.train.speech=SPEECH --config.data.train.noise=NOISE
Measured:  50 minutes of speech and 28 of noise, 800 steps; 38 of the 824 test pairs of VoiceBank-DEMAND:

                         pesq_wb  stoi   estoi  si_sdr  ssnr  csig   cbak   covl
           noisy          1.668    0.900  0.747    6.59  1.39  2.933  2.254  2.266
           mse            1.856    0.871  0.712   11.31  4.44  2.640  2.500  2.198
           si_snr         2.059    0.898  0.749   13.25  5.94  3.211  2.730  2.598
           si_snr+lms     2.054    0.899  0.756   13.53  6.24  3.231  2.741  2.611
           si_snr+pmsqe   2.109    0.902  0.761   12.80  5.59  3.328  2.732  2.689

           Of si_snr+pmsqe with the released weights, --config.model.loss.pmsqe=8, which were the default then.
           By noise kind and SNR: docs/dccrn.md, which also has the other commands.
Hardware:  two cores of an AMD EPYC (AVX-512), shared with other work: 14 to 20 minutes each, 12 of processor time.
Not comparable with published figures: other training data, a small network, and a part of the test set.
Variants as in dccrn.py; quick also reads your folders.
"""

from ml_collections import ConfigDict

from configs import dccrn


def get_config(variant: str = '') -> ConfigDict:
    """The study's experiment, shorter and smaller, so that losses can be compared."""
    config = dccrn.get_config(variant).unlock()
    config.data.name = 'folders'
    if 'quick' in variant.split(','):
        return config.lock()
    config.model.update(channels=(8, 16, 32, 64, 64, 64), lstm_units=64)
    config.train.update(
        steps=800, batch_size=4, crop_seconds=2.0,
        ema_decay=0.995,  # averaged weights are worth more the shorter the run
        eval_every=200, eval_seconds=3.0, save_every=200, log_every=25)
    config.optimizer.update(learning_rate=1e-3, decay='cosine', warmup_steps=50,
                            clip_norm=20.0)  # no more than a rare spike of PMSQE's gradient
    return config.lock()
