"""The table of cases: user mistakes, and unusual input that is valid. `runs/` holds `world.TOYS`."""

import io
import json
import os
import pathlib
import pickle
import unicodedata
import zipfile

import jax
import numpy as np
import soundfile

from jax_diffse import runs
from tests import sounds
from tests.bad_input.world import Case, cut, data, empty_folder, fifo, link, meta, pairs, sound, wav

NAN, INF = float('nan'), float('inf')


# ---------------------------------------------------------------------------------------------------------- checks


def kept(given: str, result: str) -> tuple[np.ndarray, np.ndarray]:
    """The samples `[N, C]` of a file and of its result; checks that the result is finite, of equal kind and length."""
    of = [soundfile.info(path) for path in (given, result)]
    kinds = [(found.samplerate, found.frames, found.channels, found.format, found.subtype) for found in of]
    assert kinds[0] == kinds[1], given
    before, after = (soundfile.read(path, always_2d=True)[0] for path in (given, result))
    assert np.isfinite(after).all()
    return before, after


def halved(folder: str = 'out', given: str = 'in') -> None:
    """Checks that every file has a result of its kind and length that is half as loud."""
    paths = [path for path in sorted(pathlib.Path(given).rglob('*')) if path.is_file()]
    assert paths
    for path in paths:
        samples = kept(str(path), str(pathlib.Path(folder, path.relative_to(given))))
        rms = [np.sqrt(np.mean(np.square(x), axis=0)) for x in samples]
        np.testing.assert_allclose(rms[1], 0.5 * rms[0], rtol=0.05, atol=0.004, err_msg=str(path))  # 8 bits: 1 / 256


def reported(files: int = 2) -> None:
    summary = json.loads(pathlib.Path('report/summary.json').read_text())
    assert summary['files'] == files and not summary['failures']
    assert all(np.isfinite(entry['si_sdr']['mean']) for entry in summary['statistics'].values())


def trained() -> None:
    assert runs.load('runs/new').step == 2


# ---------------------------------------------------------------------------------------------------------- inputs


class Payload:
    """Makes a file when it is unpickled."""

    def __reduce__(self):
        return os.mkdir, ('executed',)


def torch_file(path: str, weights=None, **options):
    """Writes weights with torch.save."""
    def make():
        import torch

        tensors = weights if weights is not None else {'enc1.weight': torch.zeros(16, 1, 32)}
        torch.save(tensors, path, **options)

    return make


def segan_file(path: str, value: float = 0.0, bare: bool = False):
    """Writes a generator as its notebook saves it, or only its state dict."""
    def make():
        import torch

        from jax_diffse.conversion import segan
        from jax_diffse.conversion.layouts import to_torch
        from jax_diffse.systems.base import shapes
        from jax_diffse.systems.segan import Segan

        system = Segan(channels=(4, 8), segment=1024, overlap=128)
        filled = jax.tree.map(lambda x: np.full(x.shape, value, np.float32), shapes(system))
        arrays = to_torch(segan.generator({'channels': (4, 8)}), filled)
        weights = {name: torch.from_numpy(x.copy()) for name, x in arrays.items()}
        torch.save(weights if bare else {'generator_state_dict': weights}, path)

    return make


def add_member(path: str, name: str):
    """Adds a member to a zip archive, the format of torch.save."""
    def make():
        with zipfile.ZipFile(path, 'a') as archive:
            archive.writestr(name, b'outside')

    return make


def pickled(path: str):
    return data(path, pickle.dumps({'model_state_dict': Payload()}))


def zipped_payload(path: str):
    """Writes the payload with torch.save."""
    def make():
        import torch

        torch.save({'model_state_dict': Payload()}, path)

    return make


def mp3(path: str):
    def make():
        file = io.BytesIO()
        soundfile.write(file, sound(8000), 16_000, format='MP3')
        data(path, file.getvalue())()

    return make


def at_home() -> None:
    """Makes the folder of the case the home folder; the environment is restored after the case."""
    os.environ['HOME'] = os.getcwd()


def halved_file(path: str):
    return lambda: os.truncate(path, os.path.getsize(path) // 2)


def joined(path: str, *rates: int):
    """Writes Ogg files joined end to end."""
    def make():
        whole = io.BytesIO()
        for rate in rates:
            file = io.BytesIO()
            soundfile.write(file, sound(8000, rate=rate), rate, format='OGG')
            whole.write(file.getvalue())
        data(path, whole.getvalue())()

    return make


def mp3_in_wav(path: str):
    def make():
        pathlib.Path('in').mkdir()
        data(path, sounds.mp3_in_wav(pathlib.Path('in/part.mp3')))()
        os.remove('in/part.mp3')

    return make


def several(*makes):
    return lambda: [make() for make in makes]


# ------------------------------------------------------------------------------------------------------- enhance

ENHANCE = 'jax-diffse enhance --workdir runs/half --output out'
REFINE = 'jax-diffse enhance --workdir runs/prior --output out'
A = wav('in/a.wav')


def bad_file(given: str, make, line: str, name: str = 'a.wav', **more) -> Case:
    return Case(given, f'{ENHANCE} in/{name}', (make,), 2, rf'^not enhanced: in/{name}: {line}', **more)


def good_file(given: str, *make, comes: str = 'enhanced', command: str = f'{ENHANCE} in', **more) -> Case:
    return Case(given, command, make, 0, comes, halved, **more)


FILES = [
    bad_file('no such file', wav('in/b.wav'), 'no such file'),
    bad_file('an empty file', data('in/a.wav', b''), 'the file is empty'),
    bad_file('a header without samples', wav('in/a.wav', np.zeros(0)), 'no samples', leaves=('out',)),
    bad_file('a wav that was cut off', several(A, cut('in/a.wav', 1000)), 'cut off, 478 of 1600 samples'),
    bad_file('a flac that was cut off', several(wav('in/a.flac', sound(16_000)), cut('in/a.flac', 5000)),
             'cut off or damaged, .* of 16000 samples can be read', 'a.flac', leaves=('out',)),
    *(bad_file(f'{article} {kind} file that was cut off',
               several(wav(f'in/a.{kind}', sound(16_000), format=format, subtype='PCM_16'),
                       halved_file(f'in/a.{kind}')),
               'cut off, [67][0-9]{3} of 1[56][0-9]{3} samples', f'a.{kind}')
      for article, kind, format in (('an', 'rf64', 'RF64'), ('a', 'w64', 'W64'), ('an', 'aiff', 'AIFF'),
                                    ('an', 'au', 'AU'), ('a', 'caf', 'CAF'))),
    bad_file('an mp3 that was cut off', several(mp3('in/a.mp3'), halved_file('in/a.mp3')),
             'cut off, [0-9]+ of [0-9]+ samples', 'a.mp3'),
    bad_file('MP3 in a wav file, which cannot be written', mp3_in_wav('in/a.wav'),
             'WAV with MPEG_LAYER_III, 44100 Hz and 1 channels can be read but not written'),
    bad_file('an Ogg file joined of two rates', joined('in/a.ogg', 8000, 16_000),
             'several files joined end to end, of 8000 Hz', 'a.ogg'),
    Case('text named .wav', f'{ENHANCE} in/a.wav'.replace('half', 'dccrn'),
         (data('in/a.wav', b'once upon a time\n' * 100),), 2, 'in/a.wav: not readable as audio', process=True),
    Case('a name that is not UTF-8', f'{ENHANCE} in', (data('in/\udcff.wav', b'RIFF'),), 2,
         'its name is not UTF-8; rename it'),
    bad_file('random bytes named .flac', data('in/a.flac', np.random.default_rng(0).bytes(4000)),
             'not readable as audio', 'a.flac'),
    bad_file('NaN among the samples', wav('in/a.wav', [0.1, NAN, 0.1], subtype='FLOAT'), 'holds samples that are NaN',
             leaves=('out',)),
    bad_file('infinity among the samples', wav('in/a.wav', [0.1, INF, 0.1], subtype='DOUBLE'),
             'holds samples that are NaN or inf',
             leaves=('out',)),
    bad_file('a file without read permission', A, r'cannot be read \(Permission denied\)', locked='in/a.wav'),
    bad_file('a link to itself', link('in/a.wav', 'a.wav'), 'a link that leads to no file'),
    bad_file('a link to nothing', link('in/a.wav', 'gone.wav'), 'a link that leads to no file'),
    bad_file('a named pipe, which nothing is written to', fifo('in/a.wav'), 'not a file'),
    Case('a device', f'{ENHANCE} /dev/null', (), 2, r'^not enhanced: /dev/null: not a file'),
    Case('a path below a file', f'{ENHANCE} in/a.wav/b.wav', (A,), 2, 'no such file'),
    Case('one bad file among good ones', f'{ENHANCE} in', (A, data('in/b.wav', b'RIFF'), wav('in/c.wav')), 1,
         'in/b.wav: not readable as audio', leaves=('out', 'out/.enhanced.jsonl', 'out/a.wav', 'out/c.wav')),
    Case('a link to nothing in a folder', f'{ENHANCE} in', (A, link('in/b.wav', 'gone.wav')), 1,
         'in/b.wav: a link that leads to no file', leaves=('out', 'out/.enhanced.jsonl', 'out/a.wav')),
    Case('an empty folder', f'{ENHANCE} in', (empty_folder('in'),), 2, 'in: no audio files'),
    Case('a folder of hidden files', f'{ENHANCE} in', (wav('in/._a.wav'),), 2, 'in: no audio files'),
    Case('a folder of other files', f'{ENHANCE} in', (data('in/notes.txt', b'x'),), 2, 'in: no audio files'),
    Case('an empty folder named like a file', f'{ENHANCE} in/a.wav', (empty_folder('in/a.wav'),), 2,
         'in/a.wav: no audio files'),
    Case('no input', ENHANCE, (), 2, 'expected files or folders to enhance'),
    Case('two files of one name', f'{ENHANCE} x/a.wav y/a.wav', (wav('x/a.wav'), wav('y/a.wav')), 2,
         'both x/a.wav and y/a.wav would be written here|both .*x/a.wav'),
    Case('a name with a leading dash', f'{ENHANCE} -a.wav', (wav('-a.wav'),), 2, '-a.wav'),
]
GOOD_FILES = [
    Case('a file, and a small DCCRN', f'{ENHANCE} in/a.wav'.replace('half', 'dccrn'), (A,), 0, 'enhanced',
         lambda: kept('in/a.wav', 'out/a.wav'), process=True),
    good_file('one file on its own', A, command=f'{ENHANCE} in/a.wav'),
    good_file('8-bit samples', wav('in/a.wav', subtype='PCM_U8')),
    good_file('24-bit samples', wav('in/a.wav', subtype='PCM_24'), wav('in/b.flac', subtype='PCM_24')),
    good_file('32-bit, float and double samples', wav('in/a.wav', subtype='PCM_32'), wav('in/b.wav', subtype='FLOAT'),
              wav('in/c.wav', subtype='DOUBLE')),
    good_file('mu-law and ADPCM', wav('in/a.wav', subtype='ULAW'), wav('in/b.wav', sound(1010), subtype='MS_ADPCM')),
    good_file('clipped speech', wav('in/a.wav', np.clip(sound(level=5), -1, 1))),
    good_file('float samples far beyond full scale', wav('in/a.wav', sound(level=100), subtype='FLOAT')),
    good_file('digital silence', wav('in/a.wav', np.zeros(1600)), comes='enhanced: silence'),
    good_file('a constant (DC)', wav('in/a.wav', np.full(1600, 0.25))),
    good_file('a single sample', wav('in/a.wav', np.full(1, 0.25))),
    good_file('1 to 8 channels', *(wav(f'in/{n}.wav', sound(channels=n)) for n in range(1, 9))),
    good_file('8 to 192 kHz', *(wav(f'in/{rate}.wav', rate=rate)
                                for rate in (8000, 11_025, 22_050, 44_100, 48_000, 96_000, 192_000))),
    good_file('a rate of 1 Hz and one of 7 Hz', wav('in/a.wav', np.full(20, 0.1), rate=1),
              wav('in/b.wav', np.full(20, 0.1), rate=7)),
    good_file('an mp3 file named .wav', mp3('in/a.wav')),
    good_file('a wav file named .flac', wav('in/a.flac', format='WAV'), comes='enhanced: it stays a wav file'),
    good_file('a wav file with an extension in capitals', wav('in/A.WAV', format='WAV')),
    good_file('a wav from a pipe, whose header tells no length', A, lambda: tell_no_length('in/a.wav')),
    Case('a wav whose recorder never filled in its sizes', f'{ENHANCE} in',
         (A, lambda: tell_no_length('in/a.wav', bytes(4))), 0, 'enhanced', lambda: whole('out/a.wav')),
    Case('a flac from a pipe, whose header tells no length', f'{ENHANCE} in',
         (wav('in/a.flac'), lambda: no_flac_length('in/a.flac')), 0, 'enhanced', lambda: whole('out/a.flac')),
    good_file('an mp3, Ogg, Opus, AIFF, CAF and W64 file in one folder', mp3('in/a.mp3'), wav('in/a.ogg', sound(8000)),
              wav('in/a.opus', sound(8000), format='OGG', subtype='OPUS'), wav('in/a.aiff'), wav('in/a.caf'),
              wav('in/a.w64')),
    good_file('names of 249 and 244 bytes', wav(f'in/{"x" * 245}.wav'), wav(f'in/{"録音" * 40}.wav'),
              wav(f'in/{"é" * 125}.flac')),
    good_file('names with spaces, letters of many alphabets, quotes and dashes', wav('in/a b/ c.wav'),
              wav('in/größe 日本 ≈.wav'), wav("in/it's.wav"), wav('in/--help.wav'), wav('in/a\nb.wav'),
              wav('in/[x]*.wav')),
    good_file('a name with a leading dash, behind --', wav('in/-a.wav'), command=f'{ENHANCE} -- in'),
    good_file('a folder that has a link to itself', A, link('in/loop', '.'), comes='enhanced, once'),
    Case('a link to the output among the inputs', f'{ENHANCE} in', (A, wav('out/b.wav'), link('in/far', '../out')), 0,
         'enhanced: earlier results are no inputs',
         lambda: [kept('in/a.wav', 'out/a.wav'), lacks('out/far')]),
    Case('a link to another folder', f'{ENHANCE} in', (wav('far/b.wav'), A, link('in/far', '../far')), 0,
         'enhanced: links are followed', lambda: [kept('in/a.wav', 'out/a.wav'), kept('far/b.wav', 'out/far/b.wav')]),
    good_file('an existing result', A, wav('out/a.wav', np.zeros(9)), comes='enhanced: it is replaced',
              replaces=('out/a.wav',)),
]


def whole(path: str) -> None:
    """Checks that the file holds the sound of `A`, half as loud, with a correct header."""
    np.testing.assert_allclose(soundfile.read(path)[0], 0.5 * sound()[:, 0], atol=1e-4)


def lacks(path: str) -> None:
    assert not os.path.exists(path)


def tell_no_length(path: str, size: bytes = b'\xff' * 4) -> None:
    """Replaces the lengths by the values that programs leave if they write to a pipe or are killed."""
    with open(path, 'r+b') as file:
        for place in (4, 40):
            file.seek(place)
            file.write(size)


def no_flac_length(path: str) -> None:
    with open(path, 'r+b') as file:
        file.seek(22)  # the lower 32 bits of the number of samples
        file.write(bytes(4))


OUTPUTS = [
    Case('an output that is a file', f'{ENHANCE} in/a.wav', (A, data('out', b'precious')), 2,
         'out.*: cannot be written'),
    Case('an output below a file', f'{ENHANCE}/below in/a.wav', (A, data('out', b'precious')), 2,
         'out/below.*: cannot be written'),
    Case('an output that is the folder of the input', f'{ENHANCE[:-3]}in in/a.wav', (A,), 2,
         'in/a.wav: would overwrite the input in/a.wav'),
    Case('an output in the folder of the inputs', f'{ENHANCE[:-3]}in/out in', (A,), 2,
         'in/out: is or lies in the input folder in'),
    Case('an output that is a link to the input', f'{ENHANCE} in/a.wav', (A, link('out/a.wav', '../in/a.wav')), 2,
         'out/a.wav: would overwrite the input'),
    Case('a loop of links as the output', f'{ENHANCE} in', (A, link('out', 'out')), 2, 'out.*: cannot be written'),
    Case('an output folder without write permission', f'{ENHANCE} in', (A, empty_folder('out')), 2,
         'out/a.wav: cannot be written .*Permission denied', locked='out'),
    Case('a full disk', f'{ENHANCE} in/a.wav', (wav('in/a.wav', sound(200_000)),), 2,
         'out/a.wav: cannot be written .*is the disk full', leaves=('out',), room=300_000),
    Case('a folder in the place of a result', f'{ENHANCE} in/a.wav', (A, data('out/a.wav/x', b'x')), 2,
         'out/a.wav: cannot be written|out/a.wav: is a folder'),
    Case('results and removed noise in one folder', f'{ENHANCE} --noise out in', (A,), 2, 'out/a.wav: both'),
    Case('a folder for the noise that is a file', f'{ENHANCE} --noise noise in', (A, data('noise', b'x')), 2,
         'noise/a.wav: cannot be written', leaves=('out',)),
]
FLAGS = [
    Case('no --output', 'jax-diffse enhance --workdir runs/half in', (A,), 2, '--output'),
    Case('an unknown flag', f'{ENHANCE} --strenght 1 in', (A,), 2, '--strenght'),
    Case('a strength of 2', f'{ENHANCE} --strength 2 in', (A,), 2, '--strength=2: expected a number from 0 to 1'),
    Case('a strength in words', f'{ENHANCE} --strength full in', (A,), 2, "--strength: invalid float value: 'full'"),
    Case('a strength that is not a number', f'{ENHANCE} --strength nan in', (A,), 2, '--strength=nan'),
    Case('steps in words', f'{ENHANCE} --steps abc in', (A,), 2, "--steps: invalid int value: 'abc'"),
    Case('steps for a system that does not sample', f'{ENHANCE} --steps 6 in', (A,), 2, 'steps=6: Half does not'),
    Case('no steps', 'jax-diffse enhance --workdir runs/sampler --output out --steps 0 in', (A,), 2,
         'steps=0: takes 1 to 10'),
    Case('chunks of length 0', f'{ENHANCE} --chunk-seconds 0 in', (A,), 2,
         'chunk_seconds=0: expected a number of at least 1'),
    Case('endless chunks', f'{ENHANCE} --chunk-seconds inf in', (A,), 2, 'chunk_seconds=inf: expected a number'),
    Case('a checkpoint in words', f'{ENHANCE} --checkpoint newest in', (A,), 2,
         "--checkpoint: expected 'best', 'latest' or the number"),
    Case('a missing checkpoint', f'{ENHANCE} --checkpoint 7 in', (A,), 2, 'no checkpoint of step 7'),
    Case('a key that the system lacks', 'jax-diffse enhance --workdir runs/toy --output out --model widht=3 in', (A,),
         2,
         'config.model.widht: unknown key, expected one of stage, width'),
    Case('a value of another type', 'jax-diffse enhance --workdir runs/toy --output out --model width=wide in', (A,), 2,
         "config.model.width.*'wide'"),
    Case('no value', f'{ENHANCE} --model width in', (A,), 2, "--model: expected KEY=VALUE, got 'width'"),
    Case('--stream with a system that cannot', f'{ENHANCE} --stream in', (A,), 2, 'Half needs the whole recording'),
]
RUNS = [
    Case('a missing run', 'jax-diffse enhance --workdir runs/gone --output out in', (A,), 2,
         'runs/gone: not a run', process=True),
    Case('a file in place of a run', 'jax-diffse enhance --workdir in/a.wav --output out in', (A,), 2,
         'in/a.wav: not a run'),
    Case('a folder without checkpoints', 'jax-diffse enhance --workdir in --output out in', (A,), 2, 'in: not a run'),
    Case('a run without a finished checkpoint', 'jax-diffse enhance --workdir new --output out in',
         (A, empty_folder('new/checkpoints')), 2, 'new: holds no finished checkpoint'),
    Case('a checkpoint of a newer version', f'{ENHANCE} in',
         (A, meta('runs/half', lambda meta: meta | {'format': 99})), 2, r'newer jax_diffse \(format 99'),
    Case('a checkpoint of a system that is not here', f'{ENHANCE} in',
         (A, meta('runs/half', lambda meta: meta | {'config': {'system': 'wavenet', 'model': {}}})), 2,
         "runs/half: a run of the system 'wavenet'"),
    Case('a checkpoint with the config of another system', f'{ENHANCE} in',
         (A, meta('runs/half', lambda meta: meta | {'config': {'system': 'toy', 'model': {}}})), 2,
         'runs/half: the checkpoint of step 0 does not fit its config'),
    Case('a checkpoint without its config', f'{ENHANCE} in',
         (A, meta('runs/half', lambda meta: {'format': 1})), 2, 'runs/half: .*step 0'),
    Case('a checkpoint whose config is cut off', f'{ENHANCE} in',
         (A, meta('runs/half', lambda meta: json.dumps(meta)[:50])), 2, 'runs/half: .*step 0'),
    Case('a checkpoint whose weights are cut off', f'{ENHANCE} in',
         (A, cut('runs/half/checkpoints/0/variables/manifest.ocdbt', 60)), 2, 'runs/half: the checkpoint of step 0'),
    Case('a refiner without an input to refine', f'{REFINE} in', (A,), 2,
         'runs/prior: Prior refines the output of another enhancer'),
    Case('an input to refine for a run that is not a refiner', f'{ENHANCE} --preceding runs/prior in', (A,), 2,
         'runs/half: Half enhances noisy speech by itself'),
    Case('a preceding run that is a refiner itself', f'{REFINE} --preceding runs/prior in', (A,), 2,
         'runs/prior: refines the output of another enhancer itself'),
    Case('a preceding run of another rate', f'{REFINE} --preceding runs/eight in', (A,), 2,
         'runs/eight: works at 8000 Hz'),
    Case('a processed file without a noisy one', f'{REFINE} --noisy in --processed made',
         (A, wav('in/b.wav'), wav('made/a.wav')), 1, 'in/b.wav: no file of this name in made',
         leaves=('out', 'out/.enhanced.jsonl', 'out/a.wav')),
    Case('processed files of other names', f'{REFINE} --noisy in --processed made', (A, wav('made/b.wav')), 2,
         'made: no file here has the name of one in in'),
    Case('a processed file of another length', f'{REFINE} --noisy in --processed made',
         (A, wav('made/a.wav', sound(1599))), 2, 'made/a.wav: 1599 samples, but 1600 in in/a.wav'),
    Case('a processed file at another rate', f'{REFINE} --noisy in --processed made',
         (A, wav('made/a.wav', rate=8000)), 2, 'made/a.wav: 8000 Hz, but 16000 in in/a.wav'),
    Case('a processed file of two channels', f'{REFINE} --noisy in --processed made',
         (A, wav('made/a.wav', sound(channels=2))), 2, 'made/a.wav: 2 channels, but 1 in in/a.wav'),
]

# ------------------------------------------------------------------------------------------------------ evaluate

BARE = 'jax-diffse evaluate --workdir runs/half --output report --metrics si_sdr --workers 0'
EVALUATE = f'{BARE} --clean clean --noisy noisy'
MIX = f'{BARE} --speech clean --noise noisy'


def bad_pair(given: str, make, line: str, **more) -> Case:
    return Case(given, EVALUATE, (pairs(), make), 2, line, **more)


def renamed_pairs(clean: str, noisy: str):
    """Makes pairs whose names are in these normal forms."""
    def make():
        for folders, form in ((('clean', 'others'), clean), (('others', 'noisy'), noisy)):
            pairs(*folders, names=[unicodedata.normalize(form, name) for name in ('größe', '가수')])()

    return make


def saved(count: int) -> None:
    """Checks that `count` files were saved and are readable."""
    paths = list(pathlib.Path('report/audio').rglob('*.wav'))
    assert len(paths) == count and all(soundfile.info(path).frames == 8000 for path in paths)


def of_a_builder(run: str):
    """Turns a run into one on a data set of TFDS."""
    config = {'config': {'system': 'half', 'model': {}, 'data': {'name': 'voicebank_demand/28spk'}}}
    return meta(run, lambda meta: meta | config)


EVALUATIONS = [
    Case('clean and noisy speech', EVALUATE, (pairs(),), 0, 'a report', reported),
    Case('pairs with odd names and encodings', EVALUATE,
         (pairs(names=('größe 日本/a b', '-x')), wav('clean/-x.wav', sound(8000), subtype='PCM_24'),
          wav('noisy/-x.wav', np.clip(sound(8000, level=3), -1, 1), subtype='PCM_U8')), 0, 'a report', reported),
    Case('a cache with records that are damaged', f'{EVALUATE} --cache kept',
         (pairs(), lambda: spoil_cache('kept')), 0, 'a report; damaged records are measured again', reported,
         replaces=('kept/*.json',)),
    Case('no such folder', EVALUATE, (pairs('speech'),), 2, 'clean: no such directory'),
    Case('--clean without --noisy', f'{BARE} --clean clean', (pairs(),), 2, '--clean given, expected --clean and'),
    Case('a run that names no test data', BARE, (), 2, 'runs/half: its config names no test data'),
    bad_pair('a file without a partner', wav('noisy/c.wav', sound(8000)), 'noisy/c.wav: unpaired'),
    bad_pair('a partner of another length', wav('noisy/a.wav', sound(7999)), 'noisy/a.wav: 7999 samples, but 8000'),
    bad_pair('a partner at another rate', wav('noisy/a.wav', sound(8000), rate=8000), 'noisy/a.wav: 8000 Hz, expected'),
    bad_pair('a file of two channels', wav('noisy/a.wav', sound(8000, 2)), 'noisy/a.wav: 2 channels, expected 1'),
    bad_pair('a silent file', wav('clean/a.wav', np.zeros(8000)), 'clean/a.wav: silent'),
    bad_pair('NaN among the samples', wav('clean/a.wav', np.full(8000, NAN), subtype='FLOAT'),
             'clean/a.wav: has NaN'),
    bad_pair('a file that is too short', wav('clean/a.wav', sound(100)), 'clean/a.wav: too short'),
    bad_pair('a header without samples', wav('clean/a.wav', np.zeros(0)), 'clean/a.wav: the file is empty'),
    bad_pair('a wav that was cut off', cut('clean/a.wav', 9000), 'clean/a.wav: cut off'),
    bad_pair('a link to nothing', several(link('clean/c.wav', 'gone'), wav('noisy/c.wav', sound(8000))),
             'clean/c.wav: a link that leads to no file'),
    Case('an empty folder', EVALUATE, (empty_folder('clean'), empty_folder('noisy')), 2, 'clean: no audio files'),
    Case('an output that is a file', EVALUATE, (pairs(), data('report', b'precious')), 2,
         'report: cannot create the report folder'),
    Case('a cache that is a file', f'{EVALUATE} --cache kept', (pairs(), data('kept', b'precious')), 2,
         'kept.*: cannot be written', leaves=('report',)),
    Case('saved audio that would overwrite the noisy files',
         f'{BARE} --clean clean --noisy report/audio/enhanced --save-audio',
         (pairs('clean', 'report/audio/enhanced'),), 2, 'report/audio/enhanced: lies in report/audio'),
    Case('an unknown metric', f'{EVALUATE} --metrics pesk', (pairs(),), 2, "metric 'pesk' does not exist"),
    Case('no metric', f"{EVALUATE} --metrics ''", (pairs(),), 2, 'metric'),
    Case('a limit of 0', f'{EVALUATE} --limit 0', (pairs(),), 2, 'limit=0: expected 1 or more'),
    Case('a limit in words', f'{EVALUATE} --limit few', (pairs(),), 2, "--limit: invalid int value: 'few'"),
    Case('a negative number of workers', f'{EVALUATE} --workers -1', (pairs(),), 2, 'workers is -1, expected 0'),
    Case('a negative seed', f'{EVALUATE} --seeds -1', (pairs(),), 2, 'seed -1: expected a number from 0'),
    Case('a seed in words', f'{EVALUATE} --seeds some', (pairs(),), 2,
         "--seeds: expected whole numbers, .* got 'some'"),
    Case('steps in words', f'{EVALUATE} --steps 1,two', (pairs(),), 2,
         "--steps: expected whole numbers, .* got '1,two'"),
    Case('steps for a system that does not sample', f'{EVALUATE} --steps 6', (pairs(),), 2,
         'runs/half: does not sample'),
    Case('levels in words', f'{MIX} --snr-db loud', (pairs(),), 2, "--snr-db: expected numbers, .* got 'loud'"),
    Case('a level that is not a number', f'{MIX} --snr-db nan', (pairs(),), 2,
         'test_snr_db .*expected one or more numbers'),
    Case('levels for pairs', f'{EVALUATE} --snr-db 5', (pairs(),), 2, '--snr-db needs --speech and --noise'),
    Case('clips of 10 ms', f'{MIX} --clip-seconds 0.01', (pairs(),), 2, '--clip-seconds'),
    Case('data at another rate, resampled', f'{EVALUATE} --resample',
         (pairs(), wav('noisy/a.wav', sound(22_050, rate=44_100), rate=44_100)), 0, 'a report', reported),
    Case('names in two normal forms of Unicode', EVALUATE, (renamed_pairs('NFC', 'NFD'),), 0, 'a report', reported),
    Case('a name of 40 letters that take three bytes, and saved audio', f'{EVALUATE} --save-audio',
         (pairs(names=('録音' * 20, '録音' * 41)),), 0, 'a report, and the audio', lambda: (reported(), saved(2))),
    Case('--resample without folders', f'{BARE} --resample', (of_a_builder('runs/half'),), 2,
         '--resample is for folders, but runs/half'),
    Case('a split of folders', f'{EVALUATE} --split test', (pairs(),), 2, '--split=test given with --clean'),
    Case('a run and a comparison', f'{EVALUATE} --compare a b', (pairs(),), 2, 'either --workdir or --compare'),
    Case('a setting without value', EVALUATE.replace('--workdir runs/half', '--compare runs/half@six runs/half'),
         (pairs(),), 2, "runs/half@six: 'six' has no value"),
    Case('a preceding run that is a refiner itself',
         EVALUATE.replace('half', 'prior') + ' --preceding runs/prior', (pairs(),), 2,
         'runs/prior: refines the output of another enhancer itself'),
    Case('missing processed files', EVALUATE.replace('half', 'prior') + ' --processed made',
         (pairs(), wav('made/a.wav', sound(8000))), 2, 'made/b.wav: no such file'),
    Case('a missing run', EVALUATE.replace('half', 'gone'), (pairs(),), 2, 'runs/gone: not a run'),
]


def spoil_cache(folder: str) -> None:
    """Evaluates, then damages every record in a different way."""
    from jax_diffse.data import DataConfig, open_source
    from jax_diffse.data.config import Folders
    from jax_diffse.evaluation.evaluate import evaluate
    from jax_diffse.evaluation.options import EvaluationOptions, EvaluationSet
    from jax_diffse.inference.setting import Setting

    source = open_source(DataConfig(test=Folders('clean', 'noisy')), 'test')
    options = EvaluationOptions(metrics=['si_sdr'], workers=0, cache=folder)
    evaluate(Setting(runs.load('runs/half')), EvaluationSet(source), 'first', options)
    texts = ('', '{"scores":', '[]', '{"scores": {"noisy": 3}}')
    records = sorted(path for path in pathlib.Path(folder).glob('*/*.json') if path.name != 'setting.json')
    assert len(records) == len(texts)
    for path, text in zip(records, texts):
        path.write_text(text)


# --------------------------------------------------------------------------------------------------------- train

DATA = '--config.data.train.clean=clean --config.data.train.noisy=noisy'
FOUR = pairs(names=tuple('abcd'))
TRAIN = f'jax-diffse train --config toy.py --workdir runs/new {DATA}'
REAL = f'jax-diffse train --config dccrn:folders,quick --workdir runs/new {DATA}'


def bad_key(given: str, override: str, line: str, command: str = TRAIN, **more) -> Case:
    return Case(given, f'{command} --config.{override}', (FOUR,), 2, line, **more)


def bad_data(given: str, make, line: str) -> Case:
    return Case(given, TRAIN, (FOUR, make), 2, line)


BEGUN = ('runs/new', 'runs/new/checkpoints', 'runs/new/.lock')
TRAININGS = [
    Case('pairs with odd names and encodings', TRAIN,
         (FOUR, pairs(names=('größe 日本/a b', '-x')), wav('clean/-x.wav', sound(8000), subtype='PCM_24'),
          wav('noisy/-x.wav', sound(8000, level=9), subtype='PCM_U8')), 0, 'trained', trained),
    Case('no such config', REAL.replace('dccrn', 'dccrm'), (), 2, r'--config=dccrm:folders,quick: no such config',
         process=True),
    Case('no such file of a config', REAL.replace('dccrn:folders,quick', 'mine.py'), (), 2,
         '--config=mine.py: no such file'),
    Case('the earlier name of a config', REAL.replace('dccrn:folders,quick', 'configs/dccrn_short.py:si_snr'), (), 2,
         'is now dccrn:si_snr,folders,small,short'),
    Case('a folder as the config', REAL.replace('dccrn:folders,quick', './configs'), (), 2,
         '--config=./configs: no such file'),
    Case('a config with a syntax error', TRAIN, (data('toy.py', b'def get_config(:\n  pass\n'),), 2,
         '--config=toy.py: .*syntax'),
    Case('a config that fails', TRAIN, (data('toy.py', b'import nothing_of_the_kind\n'),), 2,
         '--config=toy.py: .*nothing_of_the_kind'),
    Case('a config without get_config', TRAIN, (data('toy.py', b'x = 1\n'),), 2, '--config=toy.py: .*get_config'),
    Case('a config that is not text', TRAIN, (data('toy.py', bytes(range(256))),), 2, '--config=toy.py: '),
    Case('an unknown variant', REAL.replace('quick', 'quik'), (), 2, "unknown variant 'quik'"),
    Case('two variants of one group', REAL.replace('quick', 'quick,small'), (), 2,
         'quick and small: expected one variant of the group size'),
    Case('an unknown stage',
         REAL.replace('dccrn', 'dr_diffuse') + """ --config.chain="('c_gen','finer')\"""", (), 2,
         "config.chain: unknown stage 'finer'"),
    Case('an unknown flag', f'{REAL} --lr 3', (), 2, "unknown argument '--lr'"),
    bad_key('a misspelt key', 'train.batchsize=4', "unknown key 'batchsize'. Did you mean .batch_size", REAL),
    bad_key('a misspelt section', 'trian.steps=4', "unknown key 'trian'. Did you mean .train", REAL),
    bad_key('a number in words', 'train.steps=abc', 'steps.*abc', REAL),
    bad_key('a fraction for a whole number', 'train.steps=1.5', 'steps.*1.5', REAL),
    bad_key('no value', 'train.steps', 'unknown argument .--config.train.steps', REAL),
    bad_key('layers that do not fit the spectrum', 'model.channels=(2,2,2,2,2,2,2,2,2)', 'channels: expected 1', REAL),
    bad_key('an odd number of channels', 'model.channels=(3,)', 'expected even numbers', REAL),
    bad_key('no layers', 'model.channels=()', 'channels: expected 1 or more', REAL),
    bad_key('layers in words', 'model.channels=wide', 'channels: expected int', REAL),
    bad_key('a network of width 0', 'model.lstm_units=0', 'lstm_units', REAL),
    bad_key('a window shorter than a hop', 'model.window=50', 'window', REAL),
    bad_key('hops of length 0', 'model.hop=0', 'hop', REAL),
    bad_key('an unknown dtype', 'model.dtype=float8', 'dtype must be one of', REAL),
    bad_key('a batch that the devices cannot share', 'train.batch_size=3', 'batch_size: 3 is not a multiple of 4'),
    bad_key('an empty batch', 'train.batch_size=0', 'config.train.batch_size must be 1 or more'),
    bad_key('a negative batch size', 'train.batch_size=-4', 'config.train.batch_size must be 1 or more'),
    bad_key('a batch in 0 parts', 'train.accumulate=0', 'config.train.accumulate must be 1 or more'),
    bad_key('crops of length 0', 'train.crop_seconds=0', 'config.train.*crop_seconds'),
    bad_key('a crop length that is not a number', 'train.crop_seconds=nan', 'config.train.*crop_seconds'),
    bad_key('no validation, written as every 0 steps', 'train.eval_every=0',
            'config.train.eval_every must be 1 or more'),
    bad_key('an averaging decay of 1.5', 'train.ema_decay=1.5', 'config.train.*ema_decay'),
    bad_key('a learning rate of NaN', 'optimizer.learning_rate=nan', 'config.optimizer.*learning_rate'),
    bad_key('an unknown decay', 'optimizer.decay=linear', "decay must be one of .* got 'linear'"),
    bad_key('an unknown mapper', 'parallel.mapper=vmap', "unknown mapper 'vmap'"),
    bad_key('a share of 2 held out', 'data.held_out=2.0', 'held_out: expected a share between 0 and 1'),
    bad_key('levels that are not numbers', "data.snr_db=('low',)", 'snr_db: expected float'),
    bad_key('an unknown data set', 'data.name=voicebank',
            "config.data.name: expected one of folders, .* got 'voicebank'"),
    bad_key('data at another rate than config.data says', 'data.sample_rate=8000',
            'clean/a.wav: 16000 Hz, expected 8000 Hz', lines=9),
    bad_key('a missing run to start from', 'init_from=runs/gone', 'runs/gone: not a run',
            leaves=('runs', *BEGUN)),
    bad_key('a run of another system to start from', 'init_from=runs/dccrn', 'init_from=runs/dccrn: ',
            leaves=BEGUN),
    Case('a workdir that is a file', TRAIN, (FOUR, data('runs/new', b'precious')), 2, 'runs/new: cannot be created'),
    Case('a workdir below a file', TRAIN.replace('runs/new', 'file/new'), (FOUR, data('file', b'precious')), 2,
         'file/new: cannot be created'),
    Case('a workdir with a run of another config', TRAIN.replace('runs/new', 'runs/toy'), (FOUR,), 2,
         'runs/toy: holds a run with another config', leaves=('runs/toy/.lock',)),
    Case('a workdir whose checkpoints folder is a file', TRAIN, (FOUR, data('runs/new/checkpoints', b'precious')), 2,
         'runs/new'),
    Case('no data named', 'jax-diffse train --config toy.py --workdir runs/new', (), 2,
         'config.data.train: no folders named'),
    Case('clean speech alone of two', TRAIN.replace('train.noisy=noisy', 'train.noise=noisy'), (FOUR,), 2,
         'config.data.train: clean and noise set'),
    Case('a missing folder', TRAIN.replace('noisy=noisy', 'noisy=gone'), (FOUR,), 2,
         'gone: no such directory'),
    Case('one pair, of which none can be held out', TRAIN, (pairs(names='a'),), 2, 'none can be held out'),
    bad_data('a file without a partner', wav('noisy/e.wav', sound(8000)), 'noisy/e.wav: unpaired'),
    bad_data('a partner of another length', wav('noisy/a.wav', sound(7999)), 'noisy/a.wav: 7999 samples, but 8000'),
    bad_data('a partner at another rate', wav('noisy/a.wav', rate=48_000), 'noisy/a.wav: 48000 Hz, expected 16000'),
    bad_data('text named .wav', data('noisy/a.wav', b'once upon a time'), 'noisy/a.wav: not readable as audio'),
    bad_data('two files of one name', wav('clean/a.flac', sound(8000)), 'clean/a.wav: has the same name|a.flac'),
]

# ---------------------------------------------------------------------------------------------------------- convert

CONVERT = 'jax-diffse convert'


def bad_weights(given: str, make, line: str, kind: str = 'segan', name: str = 'x.pt', **more) -> Case:
    return Case(given, f'{CONVERT} {kind}={name} --workdir run', (make,), 2, line, **more)


def not_torch(path: str):
    return several(segan_file('whole.pt'), lambda: data(path, pathlib.Path('whole.pt').read_bytes()[:-200])())


CONVERSIONS = [
    Case("a generator of SEGAN's notebook", f'{CONVERT} segan=x.pt --workdir run', (segan_file('x.pt'),), 0,
         'a run', lambda: runs.load('run')),
    bad_weights('no such file', several(), '^error: x.pt: cannot be read .*No such file'),
    bad_weights('a named pipe, which nothing is written to', fifo('x.pt'), r'x.pt: cannot be read \(not a file\)'),
    bad_weights('a folder', empty_folder('x.pt'), r'x.pt: cannot be read \(not a file\)'),
    bad_weights('an empty file', data('x.pt', b''), 'x.pt: not a PyTorch checkpoint'),
    bad_weights('text', data('x.pt', b'once upon a time\n'), 'x.pt: (not a PyTorch|refused)'),
    bad_weights('a wav file', wav('x.pt', format='WAV'), 'x.pt: (not a PyTorch|refused)'),
    bad_weights('arrays of NumPy', lambda: np.savez('x.npz', a=np.zeros(3)), 'x.npz: (not a PyTorch|refused)',
                name='x.npz'),
    bad_weights('a file that was cut off', not_torch('x.pt'), 'x.pt: not a PyTorch checkpoint, or damaged'),
    bad_weights('a file without read permission', segan_file('x.pt'), 'x.pt: cannot be read .*Permission',
                locked='x.pt'),
    bad_weights('a pickle that would run code', pickled('x.pt'),
                '^error: x.pt: refused, it is damaged or contains code', process=True),
    bad_weights('a checkpoint that would run code', zipped_payload('x.pt'), 'x.pt: refused, it is damaged or contains'),
    bad_weights('a member that leads outside', several(segan_file('x.pt'), add_member('x.pt', '../../outside.txt')),
                r"x.pt: refused, its member '../../outside.txt' leads outside"),
    bad_weights('a member with an absolute path', several(segan_file('x.pt'), add_member('x.pt', '/tmp/outside.txt')),
                r"x.pt: refused, its member '/tmp/outside.txt' leads outside"),
    bad_weights('SEGAN given as DCCRN', segan_file('x.pt'),
                'x.pt: expected a dict .* it holds generator_state_dict', 'dccrn'),
    bad_weights('SEGAN given as Diffiner', segan_file('x.pt', bare=True),
                'x.pt: not the weights of this network', 'diffiner'),
    bad_weights("SEGAN given as DR-DiffuSE's", segan_file('x.pt', bare=True), 'x.pt: not the weights of this network',
                'dr-diffuse-base'),
    bad_weights('SEGAN given as the compact U-Net', segan_file('x.pt', bare=True),
                'x.pt: not the weights of this network', 'compact-unet'),
    bad_weights('no weights', torch_file('x.pt', {}), 'x.pt: not the weights of this network; missing: dec1.bias'),
    bad_weights('a list', torch_file('x.pt', [1, 2]), 'x.pt: expected a dict'),
    bad_weights('numbers in place of weights', torch_file('x.pt', {'enc1.bias': 3}), 'x.pt: expected a dict'),
    bad_weights('weights that are NaN', segan_file('x.pt', NAN), 'x.pt: weights that are NaN or infinite: prelu'),
    Case('an unknown kind', f'{CONVERT} sagen=x.pt --workdir run', (segan_file('x.pt'),), 2,
         'sagen=x.pt: expected KIND=FILE, KIND one of'),
    Case('no kind', f'{CONVERT} x.pt --workdir run', (segan_file('x.pt'),), 2, 'x.pt: expected KIND=FILE'),
    Case('a kind twice', f'{CONVERT} segan=x.pt segan=x.pt --workdir run', (segan_file('x.pt'),), 2,
         'segan=x.pt: segan given twice'),
    Case('no workdir', f'{CONVERT} segan=x.pt', (segan_file('x.pt'),), 2, '--workdir'),
    Case('a workdir that holds a run', f'{CONVERT} segan=x.pt --workdir runs/half', (segan_file('x.pt'),), 2,
         'runs/half: holds checkpoints already'),
    Case('a workdir that is a file', f'{CONVERT} segan=x.pt --workdir run', (segan_file('x.pt'), data('run', b'x')), 2,
         'run: cannot create the folder of the run'),
    Case('a key that the system lacks', f'{CONVERT} segan=x.pt --workdir run --model depth=3', (segan_file('x.pt'),),
         2, 'config.model.depth'),
    Case('NISQA from another file', f'{CONVERT} nisqa x.pt', (segan_file('x.pt'),), 2, 'x.pt: has the SHA-256'),
]
GS, PAIRS = 'gs://bucket/x', '--config.data.train.clean=clean --config.data.train.noisy=noisy'
ADDRESSES = [
    *(Case(f'an address for {flag}', command, (pairs(), A), 2, '^error: (s3|gs)://bucket/x: an address, expected a')
      for flag, command in (
        ('--workdir of enhance', f'jax-diffse enhance --workdir {GS} --output out in'),
        ('--output of enhance', f'jax-diffse enhance --workdir runs/half --output {GS} in'),
        ('a file', f'{ENHANCE} s3://bucket/x'), ('--noise', f'{ENHANCE} --noise {GS} in'),
        ('--processed', f'{REFINE} --noisy in --processed {GS}'), ('--preceding', f'{REFINE} --preceding {GS} in'),
        ('--workdir of evaluate', EVALUATE.replace('runs/half', GS)),
        ('--output of evaluate', EVALUATE.replace('report', GS)), ('--cache', f'{EVALUATE} --cache {GS}'),
        ('--clean', f'{BARE} --clean {GS} --noisy noisy'), ('--noise', f'{BARE} --speech clean --noise {GS}'),
        ('--compare', EVALUATE.replace('--workdir runs/half', f'--compare runs/half {GS}@steps=1')),
        ('--workdir of train', f'jax-diffse train --config toy.py --workdir {GS} {PAIRS}'),
        ('--config', f'jax-diffse train --config {GS} --workdir runs/new'),
        ('a folder of data', f'jax-diffse train --config toy.py --workdir runs/new --config.data.train.speech={GS}'),
        ('config.data.data_dir', f'jax-diffse train --config toy.py --workdir runs/new --config.data.data_dir={GS}'),
        ('config.init_from', f'jax-diffse train --config toy.py --workdir runs/new --config.init_from={GS} {PAIRS}'),
        ('a checkpoint to convert', f'jax-diffse convert segan={GS} --workdir run'),
        ('--workdir of convert', f'jax-diffse convert segan=x.pt --workdir {GS}'),
        ('a file of NISQA', f'jax-diffse convert nisqa {GS}'))),
    Case('~ in paths', 'jax-diffse enhance --workdir=~/runs/half --output=~/out ~/in', (A, at_home), 0,
         'enhanced: it is the home folder', lambda: kept('in/a.wav', 'out/a.wav')),
    Case('~ in a key of the config', 'jax-diffse train --config ~/toy.py --workdir=~/runs/new '
         '--config.data.train.clean=~/clean --config.data.train.noisy=~/noisy', (pairs(), at_home), 0, 'trained',
         trained),
]


SECTIONS = {
    'enhance: the files': FILES, 'enhance: input that works': GOOD_FILES, 'enhance: outputs': OUTPUTS,
    'enhance: flags': FLAGS, 'enhance: runs and refiners': RUNS, 'evaluate': EVALUATIONS,
    'train': TRAININGS, 'convert': CONVERSIONS, 'Paths': ADDRESSES}
CASES = [case for cases in SECTIONS.values() for case in cases]
