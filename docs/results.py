"""Writes docs/results.md: the published and the measured figures of every system, from stored summaries.

    python -m docs.results                                # docs/results/*.json -> docs/results.md
    python -m docs.results add REPORT NAME [--note TEXT]  # first stores a report of an evaluation in docs/results/

REPORT is a folder with summary.json, or with sweep.json and its figures. No figure in the page is typed.
"""

import argparse
import json
import pathlib
import shutil

from jax_diffse.errors import UserError, exit_with
from jax_diffse.evaluation.tables import grid, heading, number

HERE = pathlib.Path(__file__).parent
STORE = HERE / 'results'
TITLES = {'dr_diffuse': 'DR-DiffuSE', 'diffiner': 'Diffiner and Diffiner+', 'segan': 'SEGAN',
          'compact_diffiner': 'The compact prior', 'diffgmm': 'DiffGMM', 'dccrn': 'DCCRN'}
LOSSES = {'test_l_g': 'test loss L_G ↓', 'test_eps_mse': 'test loss ↓'}  # published beside metrics
BOTH = ('command', 'data', 'files', 'audio_seconds', 'date', 'metrics', 'preceding', 'seconds', 'versions')
KEPT = {'summary': (*BOTH, 'checkpoint', 'sampling_steps', 'seed', 'stages', 'statistics', 'real_time_factor',
                    'device'),
        'sweep': (*BOTH, 'seeds', 'confidence', 'inputs', 'points')}
CONFIG = ('system', 'model', 'train', 'optimizer')  # of a run's config; its data are named by folders of a machine
INTRODUCTION = """# Results

Store a report and write this page again:

```
python -m docs.results add REPORT NAME
```

`python -m docs.results` writes this page from the summaries in `docs/results/`, which `jax-diffse evaluate` wrote;
nothing here is typed. Published figures are those of others. Measured figures are this project's, on the data named, in
tables of their own. **They do not compare**: the measured systems were trained for minutes on two CPU cores with 50
minutes of speech and 28 of noise, and the published ones for days; the measured ones are scored on at most 38 of the
824 test pairs; the data of `demo` are synthetic. Nobody has run the full configs yet. Commands name configs as they
were called at their commit. Their present names, and figures measured before reports were stored, are in
[results_earlier.md](results_earlier.md).

Arrows point to the better side. NFE is the number of network evaluations of the sampler. [studies.md](studies.md)
explains how such studies are made, and [metrics.md](metrics.md) what the metrics are."""


def add(report: pathlib.Path, name: str, note: str) -> None:
    """Stores the results of an evaluation.

    Raises:
      UserError: it is not a report, it has an absolute path, or its run does not say how it was trained.
    """
    kind = next((kind for kind in KEPT if (report / f'{kind}.json').exists()), None)
    if kind is None:
        raise UserError(f'{report}: has neither summary.json nor sweep.json, expected a folder that evaluate wrote')
    found = json.loads((report / f'{kind}.json').read_text(encoding='utf-8'))
    kept = {key: found[key] for key in KEPT[kind]} | {'note': note}
    for workdir, checkpoint in checkpoints_of(kept).items():
        if not all(checkpoint['history'].get(key) for key in ('commands', 'commits', 'data', 'seconds')):
            raise UserError(f'{report}: {workdir} does not say how it was trained; train it again, in a clone')
    configs = {'': found['config']} if kind == 'summary' else found['configs']
    kept['configs'] = {run: {key: config[key] for key in CONFIG} for run, config in configs.items()}
    text = json.dumps(kept, indent=1, allow_nan=False) + '\n'
    if '"/' in text or ' /' in text:
        raise UserError(f'{report}: has an absolute path; rerun the evaluation with paths below the current folder')
    (STORE / f'{name}.json').write_text(text, encoding='utf-8')
    if kind == 'sweep':
        for figure in sorted((report / 'figures').glob('*.png')):
            shutil.copy(figure, STORE / f'{name}_{figure.name}')


def page() -> str:
    """The text of docs/results.md."""
    stored = {path.stem: json.loads(path.read_text(encoding='utf-8')) for path in sorted(STORE.glob('*.json'))}
    published = stored.pop('published')
    summaries = {name: found for name, found in stored.items() if 'points' not in found}
    sweeps = {name: found for name, found in stored.items() if 'points' in found}
    parts = [INTRODUCTION]
    for system, title in TITLES.items():
        own = {name: found for name, found in summaries.items() if found['configs']['']['system'] == system}
        parts += [f'## {title}', _published([entry for entry in published if entry['system'] == system])]
        parts += [_measured(name, found) for name, found in own.items()]
        studies = [f'`{name}`' for name, found in sweeps.items()
                   if system in {config['system'] for config in found['configs'].values()}]
        parts += [f'Measured over sampling steps or beside others: {", ".join(studies)}, below.'] if studies else []
        parts += [] if own or studies else ['Measured: not yet.']
    parts += ['## Studies of the sampler', *(_study(name, found) for name, found in sweeps.items())]
    return '\n\n'.join(parts) + '\n'


def checkpoints_of(found: dict) -> dict[str, dict]:
    """Run -> its checkpoint, for all runs of a stored entry."""
    checkpoints = [point['checkpoint'] for point in found.get('points', [])]
    checkpoints += [found[key] for key in ('checkpoint', 'preceding') if found.get(key) and 'hash' in found[key]]
    return {checkpoint['workdir']: checkpoint for checkpoint in checkpoints}


def _trainings(found: dict) -> str:
    """Describes how the runs of an entry were trained."""
    return '\n\n'.join(map(training, checkpoints_of(found).values()))


def training(checkpoint: dict) -> str:
    """Describes the training of a run and of the runs that it started from, the earliest first."""
    chain, history = [], checkpoint['history']
    while history:
        chain.insert(0, history)
        history = history['from']
    commands = dict.fromkeys(command for history in chain for command in history['commands'])
    commits = ', '.join(dict.fromkeys(commit for history in chain for commit in history['commits']))
    minutes = ' + '.join(map(_minutes, chain))
    data = '; '.join(dict.fromkeys(history['data'] for history in chain))
    return (f'Training of {_checkpoint(checkpoint)}, at commit {commits}, {minutes} minutes, on {data}:\n\n```\n'
            + '\n'.join(commands) + '\n```')


def _minutes(history: dict) -> str:
    minutes = f'{history["seconds"] / 60:.0f}'
    if 'processor_seconds' not in history:  # of a report that was stored earlier
        return minutes
    return f'{minutes} ({history["processor_seconds"] / 60:.0f} of processor time)'


def _published(entries: list[dict]) -> str:
    if not entries:
        return 'Published: no figure is known to us.'
    metrics = list(dict.fromkeys(metric for entry in entries for metric in entry['metrics']))
    rows = [[entry['what'], entry['source'], entry['data'], *(
        f'{entry["metrics"][metric]:g}' if metric in entry['metrics'] else '' for metric in metrics)]
        for entry in entries]
    headings = [LOSSES.get(metric) or heading(metric) for metric in metrics]
    notes = dict.fromkeys(entry['note'] for entry in entries if 'note' in entry)
    return '\n\n'.join(['Published:', grid(['published', 'source', 'data', *headings], 3, rows), *notes])


def _measured(name: str, found: dict) -> str:
    metrics = found['metrics']
    rows = [[row, *(_mean(entries.get(metric), metric) for metric in metrics)]
            for row, entries in found['statistics'].items()]
    steps = [] if found['sampling_steps'] is None else [f'{found["sampling_steps"]} sampling steps']
    facts = [f'{found["files"]} files, {found["audio_seconds"] / 60:.1f} min: {found["data"]}',
             ', '.join([*steps, f'seed {found["seed"]}', _checkpoint(found['checkpoint'])]),
             *([f'refines {_preceding(found)}'] if found['preceding'] else []),
             f'real-time factor {found["real_time_factor"]:.3f} on {found["device"]}; evaluation '
             f'{found["seconds"]["total"]:.0f} s',
             _versions(found)]
    return (f'Measured, `{name}`{_note(found)}:\n\n' + grid(['measured', *map(heading, metrics)], 1, rows)
            + f'\n\n{_trainings(found)}\n\nEvaluation:\n\n```\n{found["command"]}\n```\n\n'
            + '\n'.join(f'- {fact}' for fact in facts))


def _note(found: dict) -> str:
    return f' ({found["note"]})' if found['note'] else ''


def _study(name: str, found: dict) -> str:
    metrics = found['metrics']
    rows = [[row, '', '', '', *(_mean(entries.get(metric), metric) for metric in metrics)]
            for row, entries in found['inputs'].items()]
    rows += [[_series(point), *_cost(point, stage), *(interval(entries[metric], metric) for metric in metrics)]
             for i, point in enumerate(found['points']) for stage, entries in point['stages'].items()
             if stage not in point['baselines'] or point['run'] not in {p['run'] for p in found['points'][:i]}]
    devices = dict.fromkeys(device for point in found['points'] for device in point['devices'])
    runs = dict.fromkeys(f'{point["run"]}: {_checkpoint(point["checkpoint"])}' for point in found['points'])
    facts = [f'{found["files"]} files, {found["audio_seconds"] / 60:.1f} min: {found["data"]}; seeds '
             f'{", ".join(map(str, found["seeds"]))}', *runs,
             *([f'refines {_preceding(found)}'] if found['preceding'] else []),
             f'real-time factors (RTF) on {", ".join(devices)}', _versions(found)]
    pictures = '\n\n'.join(f'![{path.stem}](results/{path.name})' for path in sorted(STORE.glob(f'{name}_*.png')))
    table = grid(['measured', 'NFE', 'stage', 'RTF', *map(heading, metrics)], 1, rows)
    note = f'{found["note"]}\n\n' if found['note'] else ''
    return (f'### {name}\n\n{note}{pictures}\n\nMeans over files and their '
            f'{100 * found["confidence"]:g} % intervals:\n\n{table}\n\n{_trainings(found)}\n\nEvaluation:\n\n'
            f'```\n{found["command"]}\n```\n\n'
            + '\n'.join(f'- {fact}' for fact in facts))


def _cost(point: dict, stage: str) -> list[str]:
    """NFE, stage and real-time factor; for a stage without the sampler, only its name."""
    if stage in point['baselines']:
        return ['', stage, '']
    return [str(point['sampling_steps'] or ''), stage, f'{point["real_time_factor"]:.3f}']


def _mean(entry: dict | None, metric: str) -> str:
    return '–' if entry is None else 'n/a' if entry['mean'] is None else number(entry['mean'], metric)


def interval(entry: dict, metric: str) -> str:
    if entry['mean'] is None or entry['low'] is None:
        return _mean(entry, metric)
    return f'{number(entry["mean"], metric)} [{number(entry["low"], metric)}, {number(entry["high"], metric)}]'


def _series(point: dict) -> str:
    return ', '.join([point['run'], *(f'{key}={value}' for key, value in point['changes'].items())])


def _checkpoint(checkpoint: dict) -> str:
    return f'{checkpoint["workdir"]}, step {checkpoint["step"]}, checkpoint {checkpoint["hash"][:12]}'


def _preceding(found: dict) -> str:
    return found['preceding'].get('folder') or _checkpoint(found['preceding'])


def _versions(found: dict) -> str:
    return f'{found["date"][:10]}; ' + ', '.join(f'{name} {version}' for name, version in found['versions'].items())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest='command')
    adding = commands.add_parser('add', help='store a report in docs/results/')
    adding.add_argument('report', type=pathlib.Path, metavar='REPORT')
    adding.add_argument('name', metavar='NAME')
    adding.add_argument('--note', default='', metavar='TEXT', help='what else a reader should know')
    args = parser.parse_args()
    if args.command == 'add':
        add(args.report, args.name, args.note)
    (HERE / 'results.md').write_text(page(), encoding='utf-8')


if __name__ == '__main__':
    exit_with(main)
