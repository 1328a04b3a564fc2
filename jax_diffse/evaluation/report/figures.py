"""Histograms (geometry for inline SVG), spectrograms (PNG) and sound (WAV) of a page.

Images and sound are data URIs, so that the page needs no other file.
"""

import base64
import io
import math
from collections.abc import Hashable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import soundfile

RANGE_DB = 80.0  # of spectrograms, below the loudest bin of the clean speech
COLOURS = 'magma'
BINS = 24

_WINDOW, _HOP = 512, 128  # samples, of spectrograms
_EDGE = 10  # SVG units, margin on either side for the outer tick labels
WIDTH = 320  # SVG units
ROW = 40  # SVG units, height of one histogram


class Bar(NamedTuple):
    """A bar, in SVG units from the top left of its histogram."""

    x: float
    y: float
    width: float
    height: float
    centre: float  # in the metric's unit


class Tick(NamedTuple):
    """A tick of the horizontal axis."""

    x: float
    label: str


class Histogram(NamedTuple):
    """One row of a figure."""

    bars: list[Bar]
    mean: float  # position on the horizontal axis, SVG units
    count: int


class Figure(NamedTuple):
    """Stacked histograms over one horizontal axis."""

    rows: dict[Hashable, Histogram]
    ticks: list[Tick]
    zero: float | None  # position of zero, if it is on the axis


def histograms(values: Mapping[Hashable, np.ndarray], bins: int = BINS) -> Figure | None:
    """Histograms of each row's finite values over common bins; None if there is no value. Zero is an edge of a bin.

    Args:
      values: name of the row -> `[files]`; NaN is ignored.
      bins: maximum number of bins; their width is a round number.
    """
    finite = {label: row[np.isfinite(row)] for label, row in values.items()}
    together = np.concatenate([*finite.values(), np.zeros(0)])
    if not len(together):
        return None
    edges = _edges(together.min(), together.max(), bins)
    low, high = edges[0], edges[-1]

    def place(value):
        return round(float(_EDGE + (value - low) / (high - low) * (WIDTH - 2 * _EDGE)), 2)

    rows = {label: _histogram(row, edges, place) for label, row in finite.items()}
    ticks = [Tick(place(value), f'{value:.6g}'.replace('-', '−')) for value in _ticks(low, high)]
    return Figure(rows, ticks, place(0.0) if low <= 0 <= high else None)


def _histogram(row, edges, place) -> Histogram:
    counts, _ = np.histogram(row, edges)
    tallest = max(counts.max(), 1)
    bars = [Bar(place(start), round(ROW * (1 - count / tallest), 2), round(place(stop) - place(start), 2),
                round(ROW * count / tallest, 2), float(start + stop) / 2)
            for count, start, stop in zip(counts, edges[:-1], edges[1:], strict=True) if count]
    return Histogram(bars, place(row.mean()) if len(row) else math.nan, len(row))


def _edges(low: float, high: float, bins: int) -> np.ndarray:
    """Edges at multiples of a round width, so that no bin has values on both sides of zero."""
    width = _round_up((high - low) / (bins - 1) or max(abs(low), 1.0) / bins)
    first, last = math.floor(low / width), math.floor(high / width) + 1
    return np.arange(first, last + 1) * width


def _ticks(low: float, high: float) -> np.ndarray:
    step = _round_up((high - low) / 5)
    return np.arange(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1) * step


def _round_up(value: float) -> float:
    """Rounds up to 1, 2, 2.5, 5 or 10 times a power of ten."""
    power = 10.0 ** math.floor(math.log10(value))
    return next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= value * (1 - 1e-9))


def power_db(waveform: np.ndarray) -> np.ndarray:
    """Power spectrogram in dB (Hann window of 512, hop 128), `[N]` -> `[257, T]`; silence is -300 dB."""
    padded = np.pad(waveform, (_WINDOW // 2, _WINDOW // 2 + -len(waveform) % _HOP))
    frames = np.lib.stride_tricks.sliding_window_view(padded, _WINDOW)[::_HOP]
    spectrum = np.fft.rfft(frames * np.hanning(_WINDOW + 1)[:-1])
    return 10 * np.log10(np.abs(spectrum.T)**2 + 1e-30)


def spectrogram(power: np.ndarray, loudest: float, sample_rate: int) -> str:
    """Draws the output of `power_db` as a PNG in a data URI; colours span `RANGE_DB` below `loudest` (dB)."""
    from matplotlib import figure as drawing  # slow to import
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from PIL import Image

    figure = drawing.Figure(figsize=(4.2, 2.5), dpi=170, layout='constrained')
    canvas = FigureCanvasAgg(figure)
    axes = figure.subplots()
    axes.imshow(power, origin='lower', aspect='auto', cmap=COLOURS, vmin=loudest - RANGE_DB, vmax=loudest,
                extent=(0, power.shape[1] * _HOP / sample_rate, 0, sample_rate / 2000))
    axes.set_xlabel('time (s)', fontsize=9)
    axes.set_ylabel('frequency (kHz)', fontsize=9)
    axes.tick_params(labelsize=8, width=0.6)
    for spine in axes.spines.values():
        spine.set_linewidth(0.6)
    canvas.draw()
    png = io.BytesIO()
    image = Image.fromarray(np.asarray(canvas.buffer_rgba())).convert('RGB')
    image.quantize(256).save(png, format='png', optimize=True)  # a third of the size without visible change
    return _data_uri('image/png', png.getvalue())


def colour_scale(count: int = 9) -> Sequence[str]:
    """The colours of spectrograms as '#rrggbb', quietest first."""
    from matplotlib import colormaps, colors

    return [colors.to_hex(colormaps[COLOURS](x)) for x in np.linspace(0, 1, count)]


def player(waveform: np.ndarray, sample_rate: int) -> str:
    """A waveform, clipped to [-1, 1], as 16-bit WAV in a data URI."""
    wav = io.BytesIO()
    soundfile.write(wav, np.clip(waveform, -1.0, 1.0), sample_rate, format='WAV', subtype='PCM_16')
    return _data_uri('audio/wav', wav.getvalue())


def _data_uri(kind: str, content: bytes) -> str:
    return f'data:{kind};base64,{base64.b64encode(content).decode()}'
