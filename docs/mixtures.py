"""Prints the table of DiffGMM's ablations, and of other systems beside it, from reports on one list of files.

    python -m docs.mixtures REPORT...

REPORT is a folder that `jax-diffse evaluate` wrote. It gets a row, and another row for the first step of its run alone.
"""

import argparse
import json
import pathlib

from docs.refinement import METRICS, means
from jax_diffse.errors import UserError, exit_with


def table(folders: list[str]) -> str:
    """Makes rows of means, and the number of files with lower PESQ than the noisy ones."""
    summaries = [json.loads(pathlib.Path(folder, 'summary.json').read_text(encoding='utf-8')) for folder in folders]
    if len({(summary['data'], summary['files']) for summary in summaries}) > 1:
        raise UserError(f'{", ".join(folders)}: expected reports on the same files')
    metrics = [metric for metric in METRICS if all(metric in summary['metrics'] for summary in summaries)]
    lines = [f'| | K | kappa | temperature | NFE | {" | ".join(metrics)} | files made worse (pesq_wb) |',
             '|---|' + '--:|' * (len(metrics) + 5), f'| noisy | | | | | {means(summaries[0], "noisy", metrics)} | |']
    seen = set()
    for summary in summaries:
        for stage in ('one_step', summary['stages'][-1]):
            name = f'{pathlib.Path(summary["checkpoint"]["workdir"]).name} | {_model(summary, stage)}'
            if stage in summary['statistics'] and name not in seen:
                lines.append(f'| {name} | {means(summary, stage, metrics)} | {_worse(summary, stage)} of '
                             f'{summary["files"]} |')
                seen.add(name)
    return '\n'.join(lines)


def _model(summary, stage) -> str:
    """The cells K, kappa, temperature and number of network evaluations; empty for systems without them."""
    model, steps = summary['config']['model'], 1 if stage == 'one_step' else summary['sampling_steps']
    values = (model['network']['components'], model['noise_scale'], model['temperature'], steps) if (
        summary['config']['system'] == 'diffgmm') else ('', '', '', steps or 1)
    return ' | '.join(map(str, values))


def _worse(summary, stage) -> int:
    return summary['statistics'][stage]['pesq_wb']['against']['noisy']['worse']


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('reports', nargs='+', metavar='REPORT')
    print(table(parser.parse_args().reports))


if __name__ == '__main__':
    exit_with(main)
