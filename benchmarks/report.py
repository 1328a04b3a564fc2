"""Writes `benchmarks.json` and `benchmarks.md`, with the slopes of scaling and ratios to an earlier run."""

import json
import pathlib
from typing import Any

import numpy as np

from jax_diffse import files
from jax_diffse.errors import UserError

FORMAT = 1  # of benchmarks.json
SCALES = {'B': (1e6, 'MB'), 'FLOP': (1e9, 'GFLOP')}  # of tables
FASTER = {'s': 1, 's/s': 1, '1/s': -1}  # unit -> the power of the calibration time that it is proportional to
FIELDS = ('part', 'subject', 'quantity', 'what', 'unit', 'settings')  # equal in two figures that are compared

Report = dict[str, Any]


def slope(sizes: list[float], values: list[float]) -> float:
    """Fits the exponent p of value ~ size^p, by least squares over the logarithms."""
    return float(np.polyfit(np.log(sizes), np.log(values), 1)[0])


def slopes(figures: list[dict]) -> list[dict]:
    """Computes the slope of the training step's time over each axis of scaling with two or more points, as figures."""
    found = []
    steps = [x for x in figures if x['part'] == 'scaling' and x['quantity'] == 'time']
    for axis in dict.fromkeys(step['subject'] for step in steps):
        own = [step for step in steps if step['subject'] == axis]
        sizes = [step['settings'][axis] for step in own]
        if len(own) > 1:
            settings = own[0]['settings'] | {axis: sizes}
            found.append({**own[0], 'quantity': 'slope', 'what': 'log(seconds) / log(size)', 'unit': '1',
                          'value': slope(sizes, [step['value'] for step in own]), 'settings': settings})
    return found


# ----------------------------------------------------------------------------------------------------------- comparison


def load(path: str) -> Report:
    """Loads an earlier `benchmarks.json`.

    Raises:
      UserError: it cannot be read, or is another kind of file.
    """
    try:
        report = json.loads(files.path(path).read_text(encoding='utf-8'))
        if report['format'] != FORMAT:
            raise ValueError(f'format {report["format"]!r}, this version reads {FORMAT}')
        numbers = [report['calibration']['value'], *(x['value'] for x in report['figures'])]
        _ = report['date'], report['hardware'], [_key(x) for x in report['figures']]
        if not all(isinstance(x, (int, float)) for x in numbers) or numbers[0] <= 0:
            raise ValueError('values that are not numbers')
    except OSError as error:
        raise UserError(f'--against={path}: cannot be read ({files.reason(error)})') from error
    except (ValueError, KeyError, TypeError) as error:
        reason = f'{error} is missing' if isinstance(error, KeyError) else error
        raise UserError(f'--against={path}: not a complete benchmarks.json ({reason}); give one that an earlier '
                        'python -m benchmarks wrote') from error
    return report


def _key(figure: dict) -> str:
    return json.dumps([figure[name] for name in FIELDS], sort_keys=True)


def ratios(new: Report, old: Report) -> list[dict]:
    """Ratios new / old of the figures that both have under equal settings, raw and normalised by the calibration."""
    partners = {_key(figure): figure['value'] for figure in old['figures']}
    calibration, found = new['calibration']['value'] / old['calibration']['value'], []
    for figure in new['figures']:
        earlier = partners.get(_key(figure))
        if earlier:  # not 0, which the size of temporary memory may be
            ratio, power = figure['value'] / earlier, FASTER.get(figure['unit'])
            found.append({**{name: figure[name] for name in FIELDS}, 'old': earlier, 'new': figure['value'],
                          'ratio': ratio, 'normalised': None if power is None else ratio / calibration**power})
    return found


# -------------------------------------------------------------------------------------------------------------- writing


def write(folder: pathlib.Path, report: Report, earlier: Report | None) -> None:
    """Writes both files atomically.

    Raises:
      UserError: they cannot be written.
    """
    report = {**report, 'figures': report['figures'] + slopes(report['figures'])}
    if earlier:
        compared = ratios(report, earlier)
        report['against'] = {'date': earlier['date'], 'revision': earlier.get('revision'),
                             'hardware': earlier['hardware'], 'calibration': earlier['calibration'],
                             'not_compared': len(report['figures']) - len(compared), 'ratios': compared}
    for name, text in (('benchmarks.json', json.dumps(report, indent=1) + '\n'), ('benchmarks.md', markdown(report))):
        try:
            with files.atomic_write(folder / name) as partial:
                partial.write_text(text, encoding='utf-8')
        except OSError as error:
            raise UserError(f'{folder / name}: cannot be written ({error.strerror}); choose another --output') \
                from error


def markdown(report: Report) -> str:
    """The report as tables."""
    calibration = report['calibration']
    lines = ['# Benchmarks', '', f'{report["date"]}, revision {report["revision"] or "unknown"}: '
             f'{hardware(report["hardware"])}.', '',
             ', '.join(f'{name} {version}' for name, version in report['versions'].items()) + '.', '',
             f'Calibration: a {calibration["what"]} takes {calibration["value"]:.3g} s (median of '
             f'{calibration["repeats"]}).']
    if not report['complete']:
        lines += ['', 'Not complete: the run was interrupted.']
    for key, words in (('left_out', 'left out'), ('failures', 'failed')):
        for name, reason in report[key].items():
            lines += ['', f'{name} {words}: {reason}']
    for part in dict.fromkeys(x['part'] for x in report['figures']):
        figures = [x for x in report['figures'] if x['part'] == part]
        lines += ['', f'## {part.capitalize()}', '', shared_settings(figures)]
        for quantity in dict.fromkeys(x['quantity'] for x in figures):
            lines += ['', *table([x for x in figures if x['quantity'] == quantity])]
    if 'against' in report:
        lines += comparison(report['against'])
    return '\n'.join(lines) + '\n'


def hardware(found: dict) -> str:
    """Describes hardware in words."""
    memory = f' with {found["device_memory"] / 1e9:.0f} GB' if found['device_memory'] else ''
    device = '' if found['platform'] == 'cpu' else f', {found["devices"]} x {found["device"]}{memory}'
    return (f'{found["cpu"]}, {found["usable_cores"]} of {found["cores"]} cores, {found["memory"] / 1e9:.0f} GB'
            f'{device}')


def shared_settings(figures: list[dict]) -> str:
    """The settings that all figures of a part have in common."""
    shared = [f'{name} {value}' for name, value in figures[-1]['settings'].items()
              if all(x['settings'].get(name, value) == value for x in figures)]
    return f'Settings: {", ".join(shared)}.' if shared else ''


def table(figures: list[dict]) -> list[str]:
    """The table of a quantity: one row per subject, one column per `what`."""
    scale, unit = SCALES.get(figures[0]['unit'], (1, figures[0]['unit']))
    columns = sorted(dict.fromkeys(x['what'] for x in figures), key='training step'.__eq__)  # which is the last column
    cells = {(x['subject'], x['what']): number(x['value'] / scale) for x in figures}
    title = f'{figures[0]["quantity"]}{f" ({unit})" if unit not in ("1", "s/s", "1/s") else ""}'
    rows = [f'| {subject} | {" | ".join(cells.get((subject, what), "") for what in columns)} |'
            for subject in dict.fromkeys(x['subject'] for x in figures)]
    return [f'| {title} | {" | ".join(columns)} |', f'|---|{"--:|" * len(columns)}', *rows]


def number(value: float) -> str:
    """Formats a number with four digits, or with all digits before the decimal point."""
    return f'{value:.4g}' if abs(value) < 1e4 else f'{value:.0f}'


def comparison(against: dict) -> list[str]:
    """The ratios as a table."""
    lines = ['', '## Ratios, new / old', '',
             f'Old: {against["date"]}, revision {against["revision"] or "unknown"}, {hardware(against["hardware"])}; '
             f'its calibration took {against["calibration"]["value"]:.3g} s. {against["not_compared"]} figures have no '
             'partner under equal settings. Normalised: times and rates in units of each calibration.', '',
             '| part | subject | quantity | | unit | old | new | ratio | normalised |',
             '|---|---|---|---|---|--:|--:|--:|--:|']
    for row in against['ratios']:
        normalised = '' if row['normalised'] is None else f'{row["normalised"]:.3f}'
        words = ' | '.join(row[name] for name in ('part', 'subject', 'quantity', 'what', 'unit'))
        lines.append(f'| {words} | {number(row["old"])} | {number(row["new"])} | {row["ratio"]:.3f} | {normalised} |')
    return lines
