"""The cases of `jax-diffse enhance`."""

import json
import os
import shutil

import numpy as np
import soundfile

from jax_diffse import pretrained
from tests.bad_input.givens import INF, NAN, halved, halved_file, joined, kept, mp3, mp3_in_wav, several
from tests.bad_input.world import Case, cut, data, empty_folder, fifo, link, meta, sound, wav

# ------------------------------------------------------------------------------------------------------- enhance

ENHANCE = 'jax-diffse enhance --workdir runs/half --output out'
LIVE = 'jax-diffse enhance --workdir runs/half --stdin-pcm 16000'
REFINE = 'jax-diffse enhance --workdir runs/prior --output out'
SAMPLE = 'jax-diffse enhance --workdir runs/sampler --output out'
PACKAGED = 'jax-diffse enhance -o out'
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
    Case('no steps', f'{SAMPLE} --steps 0 in', (A,), 2,
         'steps=0: takes 1 to 10'),
    Case('a key that only the authors of Diffiner have', f'{REFINE} --model clip_denoised=True in', (A,), 2,
         'config.model.clip_denoised'),
    Case('results named by the setting', f'{SAMPLE} --name-by-setting --steps 2 in', (A,), 0,
         'enhanced, in a folder of its own', lambda: kept('in/a.wav', 'out/sampler_steps=2/a.wav')),
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
    Case('--stdin-pcm with a system that cannot', LIVE, (), 2,
         'Half needs the whole recording and cannot stream; use a DCCRN run'),
    Case('--stdin-pcm with files', f'{LIVE} in', (A,), 2, 'drop files'),
    Case('--stdin-pcm with --output', f'{LIVE} --output out', (), 2, 'drop --output'),
    Case('--stdin-pcm with options of files', f'{LIVE} --strength 0.5 --chunk-seconds 8', (), 2,
         'drop --strength and --chunk-seconds'),
    Case('--stdin-pcm with a rate of 0', LIVE.replace('16000', '0'), (), 2, '--stdin-pcm=0: expected a sample rate'),
    Case('--stdin-pcm with a rate in kHz', LIVE.replace('16000', '16k'), (), 2, "invalid int value: '16k'"),
    Case('--stdin-pcm without a rate', LIVE.replace(' 16000', ''), (), 2, 'expected one argument'),
    Case('--stdin-pcm of a run that is not there', LIVE.replace('half', 'gone'), (), 2, 'runs/gone'),
    Case('neither --output nor --stdin-pcm', 'jax-diffse enhance --workdir runs/half in', (A,), 2,
         'required: --output, or --stdin-pcm'),
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


def packaged(file: str, change) -> object:
    """Copies the files of the packaged enhancer to a folder that stands for the package's, and changes one."""
    def make():
        os.mkdir('pretrained')
        for name in ('dccrn.json', 'dccrn.npz'):
            shutil.copyfile(pretrained.FOLDER / name, f'pretrained/{name}')
        change(f'pretrained/{file}')

    return make


def flip(path: str) -> None:
    """Changes one bit in the middle of a file."""
    with open(path, 'r+b') as file:
        file.seek(os.path.getsize(path) // 2)
        byte = file.read(1)[0]
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte ^ 1]))


BOX = [
    Case('no run: the packaged enhancer', f'{PACKAGED} in', (A,), 0, 'enhanced'),
    Case('the packaged enhancer, with a bit of its weights flipped', f'{PACKAGED} in',
         (A, packaged('dccrn.npz', flip)), 2,
         r'dccrn.npz: a file of package:dccrn is missing or damaged \(it does not match its checksum\); install'),
    Case('the packaged enhancer, cut off', f'{PACKAGED} in',
         (A, packaged('dccrn.npz', lambda path: os.truncate(path, 1000))), 2,
         'dccrn.npz: .* does not match its checksum'),
    Case('the packaged enhancer without its weights', f'{PACKAGED} in', (A, packaged('dccrn.npz', os.remove)), 2,
         r'dccrn.npz: a file of package:dccrn is missing or damaged \(No such file'),
    Case('the packaged enhancer without its config', f'{PACKAGED} in', (A, packaged('dccrn.json', os.remove)), 2,
         r'dccrn.json: .*No such file'),
    Case('the packaged enhancer with a config that is cut off', f'{PACKAGED} in',
         (A, packaged('dccrn.json', lambda path: os.truncate(path, 100))), 2, r'dccrn.json: .*damaged'),
    Case('the packaged enhancer and something to refine', f'{PACKAGED} --preceding runs/half in', (A,), 2,
         'package:dccrn: .*omit --processed and --preceding'),
    Case('a model that the package lacks', f'{PACKAGED} --workdir package:unet in', (A,), 2,
         'package:unet: no model of this package has this name, expected package:dccrn'),
]
