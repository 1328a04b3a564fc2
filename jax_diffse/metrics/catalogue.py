"""The metrics by name: their functions, their display and their better direction."""

from collections.abc import Callable
from typing import NamedTuple

from jax_diffse.metrics import distortion, perceptual


class Metric(NamedTuple):
    """A metric of one signal, or of a pair of signals."""

    title: str
    # Of (clean, degraded, sample_rate), or (clean, degraded, noise) if it needs the noise, or of the metrics in `of`.
    function: Callable[..., float] | None = None
    of: tuple[str, ...] = ()  # metrics that it is computed from
    decimals: int = 3
    lower_is_better: bool = False
    model: str = ''  # the networks that compute it, without a reference
    default: bool = True  # computed by default
    needs_noise: bool = False  # noisy - clean

    @property
    def needs_reference(self) -> bool:
        """Whether the metric compares with clean speech."""
        return not self.model

    @property
    def sign(self) -> int:
        """1 where higher is better, else -1."""
        return -1 if self.lower_is_better else 1


METRICS = {
    'pesq_wb': Metric('Perceptual quality, wide band, up to 4.64', perceptual.pesq_wb),
    'pesq_nb': Metric('Perceptual quality, narrow band, up to 4.55', perceptual.pesq_nb),
    'stoi': Metric('Short-time intelligibility, up to 1', perceptual.stoi),
    'estoi': Metric('Extended short-time intelligibility, up to 1', perceptual.estoi),
    'sdr': Metric('Signal to distortion, level errors included, dB', distortion.sdr, decimals=2, default=False),
    'si_sdr': Metric('Scale-invariant signal to distortion, dB', distortion.si_sdr, decimals=2),
    'si_sir': Metric('Scale-invariant signal to remaining noise, dB', distortion.si_sir, decimals=2, default=False,
                     needs_noise=True),
    'si_sar': Metric('Scale-invariant signal to artefacts, dB', distortion.si_sar, decimals=2, default=False,
                     needs_noise=True),
    'ssnr': Metric('Segmental signal to noise, dB', distortion.ssnr, decimals=2),
    'llr': Metric('Log-likelihood ratio of spectral envelopes', distortion.llr, lower_is_better=True),
    'wss': Metric('Weighted spectral slope distance, dB', distortion.wss, decimals=2, lower_is_better=True),
    'lsd': Metric('Log-spectral distance, dB', distortion.lsd, decimals=2, lower_is_better=True, default=False),
    'csig': Metric('Predicted opinion of the speech signal, 1 to 5', perceptual.csig, of=('pesq_wb', 'llr', 'wss')),
    'cbak': Metric('Predicted opinion of the background, 1 to 5', perceptual.cbak, of=('pesq_wb', 'wss', 'ssnr')),
    'covl': Metric('Predicted overall opinion, 1 to 5', perceptual.covl, of=('pesq_wb', 'llr', 'wss')),
    'dnsmos_sig': Metric('DNSMOS P.835, no reference: speech signal, about 1 to 5', model='dnsmos'),
    'dnsmos_bak': Metric('DNSMOS P.835, no reference: background, 1 (intrusive) to 5', model='dnsmos'),
    'dnsmos_ovrl': Metric('DNSMOS P.835, no reference: overall quality, about 1 to 5', model='dnsmos'),
    'dnsmos_p808': Metric('DNSMOS P.808, no reference: overall quality, about 1 to 5', model='dnsmos'),
    # NISQA's, in the order of the networks' outputs.
    'nisqa_v2_mos': Metric('NISQA, no reference: overall quality, about 1 to 5', model='nisqa_v2'),
    'nisqa_v2_noi': Metric('NISQA, no reference: noisiness, 1 (noisy) to 5', model='nisqa_v2'),
    'nisqa_v2_dis': Metric('NISQA, no reference: discontinuity, 1 (discontinuous) to 5', model='nisqa_v2'),
    'nisqa_v2_col': Metric('NISQA, no reference: coloration, 1 (coloured) to 5', model='nisqa_v2'),
    'nisqa_v2_loud': Metric('NISQA, no reference: loudness, 1 (unpleasant) to 5', model='nisqa_v2'),
    'nisqa_v2_mos_only': Metric('NISQA of overall quality only, no reference, about 1 to 5',
                                model='nisqa_v2_mos_only', default=False),
    'nisqa_tts_mos': Metric('NISQA-TTS, no reference: naturalness of synthetic speech, about 1 to 5', model='nisqa_tts',
                            default=False),
}
COMPARING = tuple(name for name, metric in METRICS.items() if metric.needs_reference)
DEFAULT = tuple(name for name in COMPARING if METRICS[name].default)  # without those of networks
