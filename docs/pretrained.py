"""Puts a run into the package as the enhancer that comes with it, and writes its card, docs/pretrained.md.

    python -m docs.pretrained write RUN    # a run -> the weights, config and history in jax_diffse/pretrained/
    python -m docs.pretrained speed        # measures it on one core of this machine -> docs/pretrained.json
    python -m docs.pretrained              # the above, and the reports in docs/results/ -> docs/pretrained.md

The card's scores are those of the reports that `python -m docs.results add` stored as `package_pairs` and
`package_mixtures`. Its other figures come from the run and the measurement, except the amounts of recordings, which are
those of CREDITS.txt.
"""

import argparse
import dataclasses
import json
import pathlib
import tempfile
import time
from collections.abc import Iterator

import numpy as np
import soundfile

from docs import results
from jax_diffse import launch, pretrained, runs
from jax_diffse.config import checkpoint
from jax_diffse.errors import UserError, exit_with
from jax_diffse.evaluation.tables import grid, heading, number
from jax_diffse.inference.enhancer import Enhancer
from jax_diffse.inference.streaming import StreamingEnhancer, timing
from jax_diffse.metrics import METRICS
from jax_diffse.runs import layout

HERE = pathlib.Path(__file__).parent
EXAMPLES = HERE.parent / 'examples' / 'noisy'
SPEED = HERE / 'pretrained.json'
TOLERANCE = 1e-3  # largest change of a sample by rounding the weights, of full scale 1
TESTED = {'package_pairs': 'Recorded pairs: VoiceBank-DEMAND', 'package_mixtures': 'Mixtures'}
FIGURES = TESTED | {'package_validation': 'The validation pairs'}
REQUIRED = ('pesq_wb', 'stoi', 'si_sdr')  # must be better than those of the noisy input
WIDTH = 4  # metrics per table

HEAD = """# The packaged enhancer

`package:dccrn` comes with jax_diffse. Enhancement uses it unless you name a run:

```bash
jax-diffse enhance noisy.wav -o enhanced
```

```python
enhance = jax_diffse.load()  # or load_streaming()
enhanced = enhance(noisy, sample_rate)
```

Commands that read a run accept its name, as in `jax-diffse evaluate --workdir package:dccrn`.

## What it is

"""

DATA = """## Data and licences

- Speech: 50 minutes of LibriSpeech, LibriTTS, CSTR VCTK and VoiceBank-DEMAND (CC BY 4.0) and of LJ Speech (public
  domain), in English; 325 utterances.
- Noise: 25 minutes of ESC-10 (CC0, CC BY 3.0), Speech Commands (CC BY 4.0) and ambience recordings of freesound.org
  and others (CC0, CC BY 3.0, CC BY 4.0, public domain); 244 pieces. No noise with a share-alike licence is among
  them.
- Validation, which only chose the checkpoint: 12 pairs of the speakers p226 and p287, of the training set of
  VoiceBank-DEMAND. Other utterances of p226 are in the training data.

Every author and recordist is named in `jax_diffse/pretrained/CREDITS.txt`, which is installed with the package. The
weights are under the MIT licence of this project. Files were chosen by their licence alone, packed with
`jax-diffse pack --list`, and mixed on the fly. No test speaker is in the training
data, and no setting was chosen on the test recordings. Two earlier trainings had been seen there. This one differs by
its longer windows and hops, which were chosen for speed, and by more steps."""

LIMITS = """## Limits

- It works at 16 kHz. Recordings at other rates are resampled both ways, so nothing above 8 kHz is left.
- It enhances each channel alone and uses no spatial information.
- The training speech is English, mostly read. Other languages, whispering, shouting, singing and music were not
  tested.
- The training mixtures have signal-to-noise ratios of {snr} dB, up to {noises} noises, and levels (RMS) of
  {level} dB of full scale. It does not adapt to the level: scale much quieter or louder recordings to this
  range first.
- Which kinds of noise it removes was not studied. It does not separate the speaker from other voices.
- It does not remove reverberation, echoes, clipping or artefacts of codecs.
- It is a small network after a short training. It can remove soft speech along with the noise; at high
  signal-to-noise ratios the input may be better than the output. `--strength 0.8` mixes some of the input back in.

Do not use it where a wrong word does harm, as in evidence, medicine or emergency calls. Measure the error rate of a
speech recogniser before you use it as the front end. For research on a system, train that system: the published
networks are larger and were trained longer."""


def write(folder: str, step: int | str, to: pathlib.Path = pretrained.FOLDER) -> str:
    """Writes the packaged enhancer from a run, with its averaged weights, and returns what was written, in words.

    Raises:
      UserError: no such run, one that does not say how it was trained, one that cannot stream, weights that are too
        large for the package, or that change the output by more than `TOLERANCE` when they are rounded.
    """
    run = runs.load(folder, step=step)
    if not all(run.history.get(key) for key in ('commands', 'commits', 'data', 'seconds')):
        raise UserError(f'{folder}: does not say how it was trained; train it again, in a clone')
    if any('dirty' in commit for commit in run.history['commits']):
        raise UserError(f'{folder}: was trained with local changes; train it again, at a commit')
    timing(run)  # for its check
    meta = layout.meta(layout.directory(folder) / str(run.step), folder)
    inverted = meta['history'].get('inverted', False)
    meta |= {'step': run.step, 'history': dict(run.history)}
    with tempfile.TemporaryDirectory() as temporary:
        pretrained.write(meta, run.variables, pathlib.Path(temporary))
        stored = pretrained.read(pretrained.NAME, pathlib.Path(temporary))[1]
    change = largest_change(run, stored)
    if change > TOLERANCE:
        raise UserError(f'{folder}: float16 changes the output by {change:.1e}, expected at most {TOLERANCE:g}')
    weights = pretrained.write({**meta, 'float16_change': change, 'inverted': inverted}, run.variables, to)
    return (f'{to}: step {run.step}, {weights["parameters"]} parameters in {weights["bytes"]} bytes; float16 changes '
            f'the enhanced examples by {change:.1e} at most')


def largest_change(run: runs.Run, variables) -> float:
    """The largest change of a sample of the enhanced examples, if a run had other variables."""
    enhancers = [Enhancer(used) for used in (run, dataclasses.replace(run, variables=variables))]
    return max(float(np.max(np.abs(np.subtract(*(enhance(noisy, rate) for enhance in enhancers)))))
               for noisy, rate in _examples())


def _examples() -> Iterator[tuple[np.ndarray, int]]:
    for path in sorted(EXAMPLES.glob('*.flac')):
        yield soundfile.read(path, dtype='float32')


def speed() -> dict:
    """Streams the examples three times on one core and returns the latency, the real-time factor and processor time."""
    enhancer = StreamingEnhancer(runs.load(pretrained.NAME))
    found = []
    for noisy, rate in 3 * list(_examples()):
        before, started = enhancer.step_seconds, time.process_time()
        enhancer(noisy)
        enhancer.flush()
        found.append((enhancer.step_seconds - before, time.process_time() - started, len(noisy) / rate))
    of_clock, of_process, seconds = map(sum, zip(*found))
    return {'real_time_factor': of_clock / seconds, 'cpu_seconds_per_second': of_process / seconds, 'seconds': seconds,
            'look_ahead_seconds': enhancer.look_ahead_seconds, 'latency_seconds': enhancer.latency_seconds,
            'hop_seconds': enhancer.hop / enhancer.sample_rate, 'cpu': launch.cpu(), 'cores': launch.cores()}


def page() -> str:
    """The text of docs/pretrained.md.

    Raises:
      UserError: a stored report has figures of other weights.
    """
    meta = pretrained.read(pretrained.NAME)[0]
    stored = {name: json.loads((results.STORE / f'{name}.json').read_text(encoding='utf-8')) for name in FIGURES}
    run = runs.load(pretrained.NAME)
    for name, found in stored.items():
        if found['checkpoint']['hash'] != run.hash:
            raise UserError(f'{name}: a report of other weights than those in the package; evaluate {pretrained.NAME}, '
                            'and store the report with python -m docs.results add')
    checkpoint = next(iter(stored.values()))['checkpoint']
    parts = [HEAD + _description(meta), DATA, f'## Training\n\n{results.training(checkpoint)}',
             '## Figures\n\nMeans over files with their 95 % intervals, which say how far a mean moves with other '
             f'files of the same kind.\n\n{_verdict(stored)}',
             *(_figures(title, stored[name]) for name, title in FIGURES.items()),
             _speed(json.loads(SPEED.read_text(encoding='utf-8'))), _limits(meta['config']['data'])]
    return '\n\n'.join(parts) + '\n'


def _description(meta: dict) -> str:
    model, weights, rate = meta['config']['model'], meta['weights'], meta['sample_rate'] / 1000
    channels = ', '.join(map(str, model['channels']))
    return (f'A [DCCRN](dccrn.md) with half the channels of the published network ({channels}): '
            f'{weights["parameters"]:,} parameters, stored in float16 in {weights["bytes"] / 1e6:.2f} MB. Its windows '
            f'last {model["window"] / rate:g} ms and its hops {model["hop"] / rate:g} ms (published: 25 and 6.25 ms). '
            f'The weights are moving averages. It enhances one channel at {rate:g} kHz, whole files or a stream. '
            f'Rounding to float16 changed no sample of the enhanced examples by more than '
            f'{meta["float16_change"]:.1e} of full scale.' + (
                " The training losses ignore polarity, and the trained network inverted the speech. The mask's last "
                'layer is therefore negated here.' if meta['inverted'] else ''))


def _limits(data: dict) -> str:
    ranges = {key: f'{low:g} to {high:g}' for key, (low, high) in {
        'snr': data['snr_db'], 'level': data['mixer']['level_db']}.items()}
    return LIMITS.format(**ranges, noises=data['mixer']['max_noises'])


def better(found: dict) -> dict[str, bool]:
    """Metric -> whether the mean of the enhanced files is better than that of the noisy input, for `REQUIRED`."""
    means = found['statistics']
    return {metric: means['enhanced'][metric]['mean'] > means['noisy'][metric]['mean'] for metric in REQUIRED}


def _verdict(stored: dict[str, dict]) -> str:
    """For each set: the metrics that are better, worse and not clearly either than those of the noisy input."""
    lines = []
    for name, found in stored.items():
        groups: dict[str, list[str]] = {'better': [], 'worse': [], 'no clear change': []}
        for metric in found['metrics']:
            entry, sign = found['statistics']['enhanced'][metric]['against']['noisy'], METRICS[metric].sign
            ends = sorted((sign * entry['low'], sign * entry['high']))
            groups['better' if ends[0] > 0 else 'worse' if ends[1] < 0 else 'no clear change'].append(metric)
        said = '; '.join(f'{group} in {", ".join(metrics)}' for group, metrics in groups.items() if metrics)
        lines.append(f'- {FIGURES[name]}, compared with the noisy input: {said}.')
    return '\n'.join(lines)


def _figures(title: str, found: dict) -> str:
    """Tables of a stored report: means, differences and files made worse, a few metrics at a time."""
    tables = []
    for start in range(0, len(found['metrics']), WIDTH):
        metrics = found['metrics'][start:start + WIDTH]
        rows = [[stage, *(results.interval(found['statistics'][stage][metric], metric) for metric in metrics)]
                for stage in found['stages']]
        against = {metric: found['statistics']['enhanced'][metric]['against']['noisy'] for metric in metrics}
        rows.append(['enhanced - noisy', *(_difference(entry, metric) for metric, entry in against.items())])
        rows.append(['files made worse', *(f'{entry["worse"]} of {entry["paired"]}' for entry in against.values())])
        tables.append(grid(['measured', *map(heading, metrics)], 1, rows))
    return (f'### {title}\n\n{found["files"]} files, {found["audio_seconds"] / 60:.1f} minutes: {found["data"]}'
            f'{found["note"] and ". " + found["note"]}\n\n' + '\n\n'.join(tables) + f'\n\n```\n{found["command"]}\n```')


def _difference(entry: dict, metric: str) -> str:
    values = [number(entry[name], metric, sign=True) for name in ('difference', 'low', 'high')]
    return f'{values[0]} [{values[1]}, {values[2]}]'


def _speed(found: dict) -> str:
    return (f'## Speed and latency\n\nOn {found["cores"]} of {found["cpu"]}, the real-time factor of a stream is '
            f'{found["real_time_factor"]:.2f}, measured over {found["seconds"]:.0f} s of audio '
            f'({found["cpu_seconds_per_second"]:.2f} s of processor time per second). Hops last '
            f'{1000 * found["hop_seconds"]:g} ms. The look-ahead '
            f'is {1000 * found["look_ahead_seconds"]:g} ms, and the latency {1000 * found["latency_seconds"]:g} ms '
            'plus the compute time of a hop. A first start also compiles the network; later ones take it from the '
            '[cache](howto/caches.md).')


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest='command')
    writing = commands.add_parser('write', help='put a run into the package')
    writing.add_argument('run', metavar='RUN')
    writing.add_argument('--checkpoint', type=checkpoint, default='best', metavar='best|latest|N')
    commands.add_parser('speed', help='measure it on one core of this machine')
    args = parser.parse_args()
    if args.command == 'write':
        print(write(args.run, args.checkpoint))
    elif args.command == 'speed':
        launch.use_one_core()
        SPEED.write_text(json.dumps(speed(), indent=1) + '\n', encoding='utf-8')
    else:
        (HERE / 'pretrained.md').write_text(page(), encoding='utf-8')


if __name__ == '__main__':
    exit_with(main)
