"""The cases of `jax-diffse score` and of `jax-diffse evaluate --also`."""

import json
import math
import pathlib
import unicodedata

import numpy as np
import soundfile

from tests.bad_input.evaluating import EVALUATE
from tests.bad_input.world import RATE, Case, cut, data, empty_folder, fifo, link, pairs, sound, wav

SCORE = 'jax-diffse score --output report --metrics si_sdr --workers 0 --clean clean --noisy noisy'
MINE = f'{SCORE} mine=noisy'
FREE = SCORE.replace(' --clean clean --noisy noisy', '')


def scored(mean: float | None = None, **systems: int):
    """Checks the number of files that each system has a score for, and the mean of the system 'mine'."""
    def check():
        summary = json.loads(pathlib.Path('report/summary.json').read_text())
        found = {name: entries['si_sdr']['files'] for name, entries in summary['statistics'].items()}
        assert found == {'noisy': summary['files'], **systems}, found
        assert mean is None or math.isclose(summary['statistics']['mine']['si_sdr']['mean'], mean, abs_tol=0.1)
        assert pathlib.Path('report/index.html').stat().st_size > 10_000

    return check


def mine(change=lambda speech: speech, rate: int = RATE, names=('a', 'b'), suffix: str = '.wav', **kind):
    """Writes mine/: the clean speech in noise at 20 dB, changed."""
    def make():
        for name in names:
            path = next(path for path in pathlib.Path('clean').iterdir()
                        if unicodedata.normalize('NFC', path.stem) == unicodedata.normalize('NFC', name))
            speech, _ = soundfile.read(path)
            noise = np.random.default_rng(5).standard_normal(len(speech))
            noise -= speech * (noise @ speech) / (speech @ speech)
            noise *= 0.1 * np.linalg.norm(speech) / np.linalg.norm(noise)
            wav(f'mine/{name}{suffix}', change(speech + noise), rate, **kind)()

    return make


def good(given: str, make, result: str, mean: float | None = 20, count: int = 2, flags: str = '') -> Case:
    return Case(given, f'{SCORE} mine=mine{flags}', (pairs(), make), 0, result, scored(mean, mine=count))


def bad(given: str, command: str, line: str, *make) -> Case:
    return Case(given, command, (pairs(), *make), 2, line)


def one_bad(given: str, make, reason: str) -> Case:
    """Of the system's two files, b cannot be scored."""
    return good(given, lambda: (mine(names='a')(), make()), f'a report: n/a for the file, {reason}', 20, 1)


def other_forms() -> None:
    for folder, form in (('clean', 'NFC'), ('noisy', 'NFD'), ('mine', 'NFC')):
        for i, name in enumerate(('größe', 'sub/가수')):
            noise = 0.01 * np.random.default_rng(i).standard_normal((8000, 1))
            wav(f'{folder}/{unicodedata.normalize(form, name)}.wav', sound(8000) + noise * (folder != 'clean'))()


SCORING = [
    good('a system of another extension', mine(suffix='.FLAC', format='FLAC'), 'a report'),
    good('8-bit files', mine(subtype='PCM_U8'), 'a report', None),
    good('files of floating-point numbers', mine(subtype='DOUBLE'), 'a report'),
    Case('a system that lacks a file', f'{SCORE} mine=mine all=noisy', (pairs(), mine(names='a')), 0,
         'a report: its mean is over one file', scored(20, mine=1, all=2)),
    good('a file that no system has', mine(names='a'), 'a report on the other one, which lists it', 20, 1),
    good('a system with files of its own', lambda: (mine()(), wav('mine/z.wav')()), 'a report, without them'),
    good('files that are 0.1 s longer', mine(lambda x: np.append(x, np.zeros(1600))), 'a report: their ends are cut'),
    good('files that are 0.1 s shorter', mine(lambda x: x[:-1600]), 'a report: the clean speech is cut, too'),
    good('files that are late by 10 ms', mine(lambda x: np.append(np.zeros(160), x[:-160])),
         'a report, with the offset', None),
    good('files that are late by 10 ms, with --align', mine(lambda x: np.append(np.zeros(160), x[:-160])),
         'a report: the offset is removed', 20, flags=' --align'),
    good('files of opposite sign', mine(np.negative), 'a report: SI-SDR does not see the sign'),
    good('files at 48 kHz, with --resample', mine(lambda x: np.repeat(x, 3), 3 * RATE), 'a report', None,
         flags=' --resample'),
    good('two channels, with --channel', mine(lambda x: np.stack([0 * x, x], 1)), 'a report on the second one',
         flags=' --channel 2'),
    Case('names in several Unicode forms', f'{SCORE} mine=mine', (other_forms,), 0, 'a report', scored(mine=2)),
    good('a link to the folder', lambda: (mine()(), pathlib.Path('mine').rename('x'), link('mine', 'x')()), 'a report'),
    one_bad('a silent file', wav('mine/b.wav', np.zeros(8000)), 'the signal is all zero'),
    one_bad('a file with NaN', wav('mine/b.wav', np.full(8000, np.nan), subtype='FLOAT'), 'NaN or infinite samples'),
    one_bad('an empty file', data('mine/b.wav', b''), 'the file is empty'),
    one_bad('a file without samples', wav('mine/b.wav', np.zeros(0)), 'the lengths differ'),
    one_bad('text named .wav', data('mine/b.wav', b'once upon a time'), 'not readable as audio'),
    one_bad('a file that was cut off', lambda: (wav('mine/b.flac', sound(8000))(), cut('mine/b.flac', 3000)()),
            'shorter than its header claims'),
    one_bad('a link that leads nowhere', link('mine/b.wav', 'gone.wav'), 'no such file'),
    one_bad('a named pipe', lambda: (wav('mine/b.wav', sound(100))(), fifo('mine/c.wav')()), 'the lengths differ'),
    one_bad('a file of half the length', wav('mine/b.wav', sound(3000)), 'the lengths differ by 0.31 s'),
    bad('no NAME', f'{SCORE} noisy', '^error: noisy: expected NAME=DIR'),
    bad('no DIR', f'{SCORE} mine=', '^error: mine=: expected NAME=DIR'),
    bad('a path as NAME', f'{SCORE} out/mine=noisy', 'out/mine=noisy: expected NAME=DIR'),
    bad('a reserved name', f'{SCORE} clean=noisy', "clean=noisy: 'clean' is the name of another column"),
    bad('a name that is given twice', f'{MINE} mine=clean', "mine=clean: 'mine' is given twice"),
    bad('no systems', SCORE, 'required: NAME=DIR'),
    bad('a missing folder', f'{SCORE} mine=gone', '^error: gone: no such directory'),
    bad('a missing folder of clean speech', MINE.replace('--clean clean', '--clean gone'), 'gone: no such directory'),
    bad('a file in place of a folder', f'{SCORE} mine=clean/a.wav', 'clean/a.wav: no such directory'),
    bad('an empty folder', f'{SCORE} mine=mine', 'mine: no file has the name of .*; it has no audio files',
        empty_folder('mine')),
    bad('no clean speech in the folder', MINE.replace('--clean clean', '--clean mine'),
        'mine: no audio files in this directory', empty_folder('mine')),
    bad('other names', f'{SCORE} mine=mine', "mine: no file has the name of .* its files are named as 'z'",
        wav('mine/z.wav')),
    bad('noisy files of other names', MINE.replace('--noisy noisy', '--noisy mine'),
        "mine: no file has the name of .* its files are named as 'z'", wav('mine/z.wav')),
    bad('two files of one name', f'{SCORE} mine=mine', 'mine/a.wav: has the same name as mine/a.flac', mine(),
        wav('mine/a.flac')),
    bad('a system at another rate', f'{SCORE} mine=mine', 'mine/a.wav: 48000 Hz, expected 16000 Hz .2 of 4 files',
        mine(rate=48_000)),
    bad('two channels', f'{SCORE} mine=mine', 'mine/a.wav: 2 channels, expected 1; .*--channel 1',
        mine(lambda x: np.stack([x, x], 1))),
    bad('a third channel of two', f'{SCORE} mine=mine --channel 3', 'mine/a.wav: 2 channels, but channel=3',
        mine(lambda x: np.stack([x, x], 1))),
    bad('clean speech at 48 kHz', f'{SCORE} mine=mine'.replace('--clean clean', '--clean mine'),
        'files of 48000 Hz: metrics .*--sample-rate 16000', mine(rate=48_000)),
    bad('no readable clean speech', f'{SCORE} mine=noisy'.replace('--clean clean', '--clean mine'),
        'mine/a.wav: not readable as audio, nor are the other files', data('mine/a.wav', b'x')),
    bad('an unknown metric', MINE.replace('si_sdr', 'sisdr'), "metric 'sisdr' does not exist, expected some of"),
    bad('no metric', MINE.replace('si_sdr', "''"), "metric '' does not exist"),
    bad('sorted by another metric', f'{MINE} --sort stoi', '--sort=stoi: expected one of the metrics'),
    bad('a metric that compares, without clean speech', f'{FREE} mine=noisy',
        "metric 'si_sdr' compares with clean speech: give --clean"),
    bad('--align without clean speech', f'{FREE} mine=noisy --align'.replace('si_sdr', 'nisqa_v2_mos'),
        '--align needs --clean'),
    bad('a rate of 0 Hz', f'{MINE} --sample-rate 0', 'sample_rate=0: expected a rate'),
    bad('channel 0', f'{MINE} --channel 0', 'channel=0: expected 1'),
    bad('a negative tolerance', f'{MINE} --tolerance=-1', 'tolerance=-1: expected 0 or more seconds'),
    bad('a tolerance in words', f'{MINE} --tolerance much', "--tolerance: invalid float value: 'much'"),
    bad('-1 workers', f'{MINE} --workers=-1', 'workers is -1'),
    bad('an output that is a file', MINE.replace('report', 'clean/a.wav'), 'clean/a.wav: cannot create the report'),
    bad('--also without a name', f'{EVALUATE} --also noisy', '--also noisy: expected NAME=DIR'),
    bad('--also with a missing folder', f'{EVALUATE} --also mine=gone', 'gone: no such directory'),
    bad('--also for several settings', f'{EVALUATE} --also mine=noisy --workdir runs/sampler',
        '--also: is for one setting'),
    Case('--also', f'{EVALUATE} --also mine=mine', (pairs(), mine()), 0, 'a report',
         scored(20, mine=2, enhanced=2)),
]
