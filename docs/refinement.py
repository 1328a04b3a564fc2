"""Prints a table, and draws a figure, of a prior's refinement of other enhancers' outputs, from several reports.

    python -m docs.refinement OUTPUT.png REPORT...

REPORT is a folder that `jax-diffse evaluate` wrote with --preceding or --processed. Reports with the same preceding
enhancer and the same list of files form a group, at any numbers of sampling steps.
"""

import argparse
import collections
import json
import pathlib

import matplotlib

matplotlib.use('Agg')
import matplotlib.pyplot as plt

from jax_diffse.evaluation.tables import number

METRICS = ('pesq_wb', 'stoi', 'estoi', 'si_sdr', 'ssnr', 'csig', 'cbak', 'covl', 'nisqa_v2_mos', 'nisqa_v2_noi',
           'nisqa_v2_dis', 'nisqa_v2_col', 'nisqa_v2_loud')  # the table has those that all reports have
DRAWN = ('pesq_wb', 'estoi', 'si_sdr')


def read(folders: list[str]) -> dict[tuple[str, str, int], list[dict]]:
    """(Preceding enhancer, sampler, number of files) -> summaries, sorted by sampling steps."""
    found = collections.defaultdict(list)
    for folder in folders:
        summary = json.loads(pathlib.Path(folder, 'summary.json').read_text(encoding='utf-8'))
        preceding = summary['preceding'].get('folder') or summary['preceding']['workdir']
        found[pathlib.Path(preceding).name, summary['config']['model']['sampler'], summary['files']].append(summary)
    return {key: sorted(group, key=lambda summary: summary['sampling_steps']) for key, group in sorted(found.items())}


def means(summary: dict, stage: str, metrics: list[str]) -> str:
    """The cells of a row; empty where the clean speech has no value."""
    found = [(metric, summary['statistics'][stage].get(metric, {'mean': None})['mean']) for metric in metrics]
    return ' | '.join('' if mean is None else number(mean, metric) for metric, mean in found)


def table(groups: dict) -> str:
    """Makes rows for the inputs, then one per number of steps: means, and the number of files with lower PESQ."""
    every = [summary for summaries in groups.values() for summary in summaries]
    metrics = [metric for metric in METRICS if all(metric in summary['metrics'] for summary in every)]
    lines = [f'| | NFE | {" | ".join(metrics)} | files made worse (pesq_wb) |',
             '|---|' + '--:|' * (len(metrics) + 2)]
    for (preceding, sampler, files), summaries in groups.items():
        for name, stage in (('clean', 'clean'), (f'noisy, {files} files', 'noisy'), (preceding, 'preceding')):
            if stage in summaries[0]['statistics']:
                lines.append(f'| {name} | | {means(summaries[0], stage, metrics)} | |')
        for summary in summaries:
            worse = summary['statistics']['refined']['pesq_wb']['against']['preceding']['worse']
            lines.append(f'| {preceding}, {sampler} | {summary["sampling_steps"]} | '
                         f'{means(summary, "refined", metrics)} | {worse} of {files} |')
    return '\n'.join(lines)


def draw(groups: dict, path: str) -> None:
    """Draws a panel per metric: the mean against the number of evaluations; the inputs are dashed."""
    figure, axes = plt.subplots(1, len(DRAWN), figsize=(11, 3.4), layout='constrained')
    for axis, metric in zip(axes, DRAWN, strict=True):
        several = [(key, summaries) for key, summaries in groups.items() if len(summaries) > 1]
        for i, ((preceding, _, files), summaries) in enumerate(several):
            steps = [summary['sampling_steps'] for summary in summaries]
            values = [summary['statistics']['refined'][metric]['mean'] for summary in summaries]
            axis.plot(steps, values, color=f'C{i}', marker='o', markersize=3, label=f'{preceding}, {files} files')
            axis.axhline(summaries[0]['statistics']['preceding'][metric]['mean'], color=f'C{i}', linestyle='--',
                         linewidth=1)
        axis.set(title=metric, xlabel='network evaluations', xscale='log')
        axis.grid(alpha=0.3)
    axes[0].legend(frameon=False, fontsize=8)
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('output', metavar='OUTPUT.png')
    parser.add_argument('reports', nargs='+', metavar='REPORT')
    args = parser.parse_args()
    groups = read(args.reports)
    draw(groups, args.output)
    print(table(groups))


if __name__ == '__main__':
    main()
