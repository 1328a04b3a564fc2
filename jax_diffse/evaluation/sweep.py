"""Sweeps: many settings on one list of files, with confidence intervals, figures and a page.

Implements `jax-diffse evaluate` for several numbers of steps, values, seeds or runs. Results are cached, so rerunning
an interrupted or extended sweep computes only missing results.
"""

import dataclasses
import datetime
import itertools
import json
import os
import time
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import jax

from jax_diffse import files
from jax_diffse.errors import UserError
from jax_diffse.evaluation import bootstrap
from jax_diffse.evaluation.cache import json_safe
from jax_diffse.evaluation.evaluate import CACHE, all_versions, check, make_folder, named, refined
from jax_diffse.evaluation.evaluator import Evaluator
from jax_diffse.evaluation.options import EvaluationOptions, EvaluationSet
from jax_diffse.evaluation.report import curves, sweep_page
from jax_diffse.evaluation.sweep_results import (
    Point,
    SweepResults,
    differences_table,
    means_table,
    scores_csv,
    to_csv,
    to_markdown,
)
from jax_diffse.evaluation.utterances import read_all
from jax_diffse.inference.setting import Setting, check_processed, check_seed, check_steps
from jax_diffse.metrics import Pool, scoring
from jax_diffse.runs import Run, with_model
from jax_diffse.systems.base import Sampling, evaluations, sampling_steps

SAMPLER = 'sampler.'  # prefix of keys of the sampler that the run has chosen
PRECEDING = 'preceding'  # the stage of a refiner's input


class Variant(NamedTuple):
    """A setting without its seed."""

    run: Run  # with `changes` applied
    changes: dict[str, object]  # key in config.model -> value
    steps: int | None


def grid(runs: Sequence[Run], steps: Sequence[int | None] = (None,),
         values: Mapping[str, Sequence[object]] | None = None) -> list[Variant]:
    """Every run with every number of steps and every combination of values.

    Args:
      runs: a run that does not sample appears once, unchanged.
      steps: sampling steps; None: the run's own.
      values: key in config.model -> values; 'sampler.KEY' is KEY of the sampler that a run has chosen.

    Raises:
      UserError: steps or values that a system does not take, or steps or values although no run samples.
    """
    values, variants = values or {}, []
    for run in runs:
        if sampling_steps(run.system) is None:
            variants.append(Variant(run, {}, None))
            continue
        for chosen in itertools.product(*values.values()):
            changes = {_key(key, run): value for key, value in zip(values, chosen, strict=True)}
            changed = with_model(run, changes) if changes else run
            changes = {key: _value(changed, key) for key in changes}
            variants += [Variant(changed, changes, _checked(changed, count)) for count in steps]
    if (values or tuple(steps) != (None,)) and all(variant.steps is None for variant in variants):
        raise UserError(f'{", ".join(str(run.workdir) for run in runs)}: does not sample, so there is nothing to vary')
    return variants


def _key(key: str, run: Run) -> str:
    if not key.startswith(SAMPLER):
        return key
    name, section = key.removeprefix(SAMPLER), run.system.sampler_section
    return f'{section}.{name}' if section and name in run.config.model[section] else name


def _value(run: Run, key: str) -> object:
    """The value of a key of config.model."""
    found = run.config.model
    for part in key.split('.'):
        found = found[part]
    return found


def _checked(run: Run, steps: int | None) -> int:
    check_steps(run.system, steps)
    return sampling_steps(run.system, steps)


def parse_setting(text: str) -> tuple[str, dict[str, str], int | None]:
    """'RUN', or 'RUN@KEY=VALUE,...' where KEY may be 'steps' -> workdir, changes, steps.

    Raises:
      UserError: `text` has another form.
    """
    workdir, _, listed = text.partition('@')
    changes = {}
    for item in filter(None, listed.split(',')):
        key, separator, value = item.partition('=')
        if not separator:
            raise UserError(f'{text}: {item!r} has no value, expected RUN or RUN@KEY=VALUE,...')
        changes[key] = value
    steps = changes.pop('steps', None)
    if steps is not None and not steps.isdecimal():
        raise UserError(f'{text}: steps={steps}, expected a whole number')
    return files.given(workdir), changes, steps if steps is None else int(steps)


def sweep(variants: Sequence[Variant], data: EvaluationSet, output: str | os.PathLike,
          options: EvaluationOptions = EvaluationOptions(), *, seeds: Sequence[int] = (0,),
          preceding: Run | None = None) -> dict:
    """Measures all variants on the same files and writes tables, figures and a page.

    Args:
      variants: from `grid`; the first is the reference of differences.
      data: pairs of clean and noisy speech at the systems' rate.
      output: the folder for `sweep.json`, `sweep.csv` (means with intervals), `scores.csv` (every file), `sweep.md`,
        `figures/` (PNG and PDF) and `index.html` (one self-contained page).
      options: see `evaluate.evaluate`; audio is not saved.
      seeds: of the samplers' noise.
      preceding: the run whose output refiners refine.

    Returns:
      The content of `sweep.json`, where NaN is null.

    Raises:
      UserError: see `evaluate.evaluate`; also seeds that are negative or repeated.
    """
    check_seeds(seeds)
    check_refining(variants, preceding, options.processed is not None)
    for variant in variants:
        check(variant.run, data.source, options.metrics)
    points = _points(variants)
    output, started, metrics = files.path(output), time.perf_counter(), scoring.choose(options.metrics)
    utterances = read_all(data.source, options.processed, data.limit, data.skip_bad)
    make_folder(output)
    data.write_manifest(output)
    with Pool(options.workers) as pool:
        evaluator = Evaluator(utterances, data.source.sample_rate, metrics, options.cache or output / CACHE, pool)
        measured = [_measure(evaluator, point, variant, seeds, preceding) for point, variant in zip(points, variants)]
    results = SweepResults(tuple(metrics), tuple(seeds), tuple(point for point, _ in measured))
    summary = _summarise(results, evaluator)
    summary |= {'data': data.description, 'command': options.command,
                'preceding': refined(preceding, options.processed),
                'configs': {point.run: variant.run.config.to_dict()
                            for point, variant in reversed(list(zip(points, variants)))}}
    if jax.process_index():
        return summary  # the first process writes the report
    drawn = curves.draw(results, output / 'figures')
    summary['seconds'] = time.perf_counter() - started
    examples = sweep_page.examples(evaluator, results, [cache for _, cache in measured])
    files.write_text(output / 'sweep.json', json.dumps(json_safe(summary), indent=2, allow_nan=False) + '\n')
    files.write_text(output / 'sweep.csv', to_csv(results))
    files.write_text(output / 'scores.csv', scores_csv(results))
    files.write_text(output / 'sweep.md', to_markdown(results, 'Sweep', _notes(summary)))
    files.write_text(output / 'index.html', sweep_page.render(results, summary, drawn, examples, evaluator.sample_rate))
    print(f'\n{means_table(results)}\n', flush=True)
    if len(results.points) > 1:
        print(f'differences to {results.points[0].label}:\n\n{differences_table(results)}\n')
    print(f'report: {output / "index.html"}', flush=True)
    return summary


def check_seeds(seeds: Sequence[int]) -> None:
    """Checks the seeds of a sweep.

    Raises:
      UserError: one is out of range or named twice.
    """
    for seed in seeds:
        check_seed(seed)
    if len(set(seeds)) < len(seeds):
        raise UserError(f'seeds {", ".join(map(str, seeds))}: expected distinct numbers')


def check_refining(variants: Sequence[Variant], preceding: Run | None, given: bool) -> None:
    """Checks that refiners get exactly one input to refine, and that an input is given only if a run refines.

    Raises:
      UserError: see `check_processed`.
    """
    refining = [variant.run for variant in variants if variant.run.system.follows]
    for run in refining or [variants[0].run]:
        check_processed(run, preceding, given)


def _points(variants: Sequence[Variant]) -> list[Point]:
    """The points of variants, without results. Runs are named by the last part of their workdir if that is unique."""
    workdirs = {variant.run.workdir for variant in variants}
    short = len({workdir.name for workdir in workdirs}) == len(workdirs)
    points = [Point(run.workdir.name if short else str(run.workdir), changes, steps, evaluations(run.system, steps),
                    named(run))
              for run, changes, steps in variants]
    labels = [point.label for point in points]
    for label in labels:
        if labels.count(label) > 1:
            raise UserError(f'{label}: given twice, expected distinct settings')
    return points


def _measure(evaluator: Evaluator, point: Point, variant: Variant, seeds: Sequence[int], preceding: Run | None):
    """The point with its results, and the cache with the audio of the first seed."""
    system, found = variant.run.system, []
    baselines = (*(system.baselines if isinstance(system, Sampling) else ()), PRECEDING)
    for seed in seeds if variant.steps is not None else seeds[:1]:
        setting = Setting(variant.run, variant.steps, seed, preceding if system.follows else None)
        found.append(evaluator.measure(setting, point.label + (f', seed {seed}' if len(seeds) > 1 else '')))
    duration = sum(len(utterance.noisy) for utterance in evaluator.utterances) / evaluator.sample_rate * len(found)
    return dataclasses.replace(
        point, stages=found[0].stages,
        baselines=tuple(stage for stage in found[0].stages if stage in baselines),
        seeds=tuple(measured.results for measured in found),
        real_time_factor=sum(measured.seconds for measured in found) / duration,
        devices=tuple(dict.fromkeys(device for measured in found for device in measured.devices))), found[0].cache


def _summarise(results: SweepResults, evaluator: Evaluator) -> dict:
    return {
        'files': len(evaluator.utterances),
        'audio_seconds': sum(len(utterance.noisy) for utterance in evaluator.utterances) / evaluator.sample_rate,
        'sample_rate': evaluator.sample_rate,
        'date': datetime.datetime.now(datetime.UTC).isoformat(timespec='seconds'),
        'metrics': list(results.metrics),
        'seeds': list(results.seeds),
        'confidence': bootstrap.CONFIDENCE,
        'inputs': {row: {metric: found._asdict() for metric, found in zip(results.metrics, estimates) if found}
                   for row, estimates in results.inputs.items()},
        'points': results.tree(),
        'versions': all_versions(),
    }


def _notes(summary: dict) -> list[str]:
    """The facts at the head of `sweep.md`."""
    devices = dict.fromkeys(device for point in summary['points'] for device in point['devices'])
    runs = dict.fromkeys(f'{point["checkpoint"]["workdir"]}, step {point["checkpoint"]["step"]}, '
                         f'{point["checkpoint"]["hash"][:12]}' for point in summary['points'])
    preceding = summary['preceding'] and (summary['preceding'].get('folder') or summary['preceding']['workdir'])
    return [f'data: {summary["data"]} ({summary["files"]} files, {summary["audio_seconds"]:.1f} s)',
            *(f'checkpoint: {run}' for run in runs), *([f'preceding: {preceding}'] if preceding else []),
            f'seeds: {", ".join(map(str, summary["seeds"]))}',
            f'real-time factors on {", ".join(devices)}, without compilation']
