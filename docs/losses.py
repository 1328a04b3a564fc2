"""Draws the comparison of DCCRN's losses, and prints its tables, from the reports of several runs.

    python docs/losses.py OUTPUT.png NAME=REPORT... --pairs NAME=REPORT...

REPORT is a folder that `jax-diffse evaluate` wrote: first those on mixtures, by noise kind and SNR, then those on
pairs.
"""

import argparse
import json
import pathlib

import matplotlib

matplotlib.use('Agg')
import matplotlib.pyplot as plt

METRICS = {'pesq_wb': 'wide-band PESQ', 'stoi': 'STOI', 'si_sdr': 'SI-SDR (dB)'}
DECIMALS = {'si_sdr': 2, 'ssnr': 2}
OVERALL = ('pesq_wb', 'stoi', 'estoi', 'si_sdr', 'ssnr', 'csig', 'cbak', 'covl')


def read(arguments: list[str]) -> dict[str, dict]:
    """Reads the reports: name -> summary."""
    pairs = (argument.partition('=') for argument in arguments)
    return {name: json.loads(pathlib.Path(report, 'summary.json').read_text()) for name, _, report in pairs}


def curves(summaries: dict[str, dict], kind: str, metric: str) -> dict[str, dict[str, float]]:
    """Name -> SNR -> mean, with the noisy input first."""
    first = next(iter(summaries.values()))
    found = {'noisy': cells(first, kind, 'noisy', metric)}
    return found | {name: cells(summary, kind, 'enhanced', metric) for name, summary in summaries.items()}


def cells(summary: dict, kind: str, stage: str, metric: str) -> dict[str, float]:
    return {snr: cell['statistics'][stage][metric]['mean'] for snr, cell in summary['noise_kinds'][kind].items()}


def draw(summaries: dict[str, dict], path: str) -> None:
    """Draws a panel per noise kind and metric: the mean against SNR, a line per loss."""
    figure, axes = plt.subplots(2, len(METRICS), figsize=(11, 6), sharex=True, layout='constrained')
    for row, kind in zip(axes, ('seen', 'unseen'), strict=True):
        for axis, (metric, label) in zip(row, METRICS.items(), strict=True):
            for name, means in curves(summaries, kind, metric).items():
                means = {float(snr): mean for snr, mean in means.items() if snr != 'Avg'}
                style = {'color': 'grey', 'linestyle': '--'} if name == 'noisy' else {'marker': 'o', 'markersize': 3}
                axis.plot(list(means), list(means.values()), label=name, **style)
            axis.set(title=f'{label}, {kind} noise', xlabel='SNR (dB)' if kind == 'unseen' else None)
            axis.grid(alpha=0.3)
    axes[0, 0].legend(frameon=False, fontsize=8)
    figure.savefig(path, dpi=110)


def by_kind(summaries: dict[str, dict], metric: str) -> str:
    """The paper's table: rows of noise kind and loss, a column per SNR."""
    lines = []
    for kind in ('seen', 'unseen'):
        for name, means in curves(summaries, kind, metric).items():
            if not lines:
                lines = [f'| {METRICS[metric]} | |' + ''.join(f' {snr} |' for snr in means),
                         '|---|---|' + '--:|' * len(means)]
            values = ''.join(f' {mean:.{DECIMALS.get(metric, 3)}f} |' for mean in means.values())
            lines.append(f'| {kind} | {name} |{values}')
    return '\n'.join(lines)


def overall(summaries: dict[str, dict]) -> str:
    """Means over all files of a report, and the number of files with lower PESQ."""
    lines = ['| | ' + ' | '.join(OVERALL) + ' | files with lower pesq_wb |', '|---|' + '--:|' * (len(OVERALL) + 1)]
    first = next(iter(summaries.values()))
    for name, summary, stage in (('noisy', first, 'noisy'), *((n, s, 'enhanced') for n, s in summaries.items())):
        statistics = summary['statistics'][stage]
        values = ' | '.join(f'{statistics[metric]["mean"]:.{DECIMALS.get(metric, 3)}f}' for metric in OVERALL)
        against = statistics['pesq_wb']['against'].get('noisy')
        worse = f'{against["worse"]} of {against["paired"]}' if against else ''
        lines.append(f'| {name} | {values} | {worse} |')
    return '\n'.join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('output', metavar='OUTPUT.png')
    parser.add_argument('mixtures', nargs='+', metavar='NAME=REPORT')
    parser.add_argument('--pairs', nargs='+', metavar='NAME=REPORT')
    args = parser.parse_args()
    summaries = read(args.mixtures)
    draw(summaries, args.output)
    print('\n\n'.join([*(by_kind(summaries, metric) for metric in METRICS), overall(summaries)]))
    if args.pairs:
        print('\n' + overall(read(args.pairs)))


if __name__ == '__main__':
    main()
