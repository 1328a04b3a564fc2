"""The README's commands, run as they stand but at `:quick` size, in the order in which they are written."""

import json
import os
import pathlib
import re
import shlex
import subprocess
import sys

import numpy as np
import pytest
import soundfile

from jax_diffse import config

ROOT = pathlib.Path(__file__).parents[2]
README = (ROOT / 'README.md').read_text(encoding='utf-8')


SMALLER = {'dccrn': ['channels=(4,4)'], 'demo': ['channels=(4,4)'], 'diffgmm': ['steps=1'],
           'diffiner': ['respacing=ddim2'], 'segan': ['channels=(4,4)'], 'compact_diffiner': ['respacing=2'],
           'dr_diffuse': ['temporal_groups=0', 'channels=8']}


def blocks(language: str) -> list[str]:
    return re.findall(rf'^```{language}\n(.*?)^```', README, re.MULTILINE | re.DOTALL)


def commands(text: str) -> list[list[str]]:
    lines = text.replace('\\\n', ' ').splitlines()
    return [words for words in (shlex.split(line, comments=True) for line in lines) if words]


def recipe(target: str) -> list[list[str]]:
    """The Python commands of a Makefile's target."""
    found = re.search(rf'^{target}:.*\n((?:\t.*\n)+)', (ROOT / 'Makefile').read_text(encoding='utf-8'), re.MULTILINE)
    assert found, f'README names make {target}, which the Makefile lacks'
    return [words for words in commands(found[1].replace('$(BIN)/', '')) if words[0] == 'python']


def as_quick(words: list[str]) -> list[str]:
    """The same command at a size for tests."""
    words = [*words]
    if 'evaluate.py' in words:
        words += ['--limit', '2']
    words = [re.sub(r'(batch_size)=\d+', r'\1=4', word) for word in words]  # that of the other commands
    if 'train.py' in words:
        i = words.index('--config') + 1
        name, _, variants = words[i].partition(':')
        kept = (variant for variant in variants.split(',') if variant not in ('', 'small', 'short'))
        words[i] = ','.join([f'{name}:quick', *kept])
        words += ['--config.train.steps=2', '--config.train.eval_every=2', '--config.log.audio_examples=0',
                  '--config.train.crop_seconds=0.25', '--config.train.eval_seconds=0.25',
                  *(f'--config.model.{field}' for field in SMALLER[name])]
    return words


def run(commands: list[list[str]], folder: pathlib.Path, data: pathlib.Path) -> None:
    """Runs commands in one process; they must succeed."""
    # On one device. The commands share most of their programs: each is compiled once, as the session keeps them.
    flags = ' '.join(flag for flag in os.environ['XLA_FLAGS'].split() if '_device_count=' not in flag)
    env = {**os.environ, 'XLA_FLAGS': flags, 'TFDS_DATA_DIR': str(data)}
    done = subprocess.run([sys.executable, ROOT / 'tests' / 'end_to_end' / 'session.py'], cwd=folder, env=env,
                          input=json.dumps(commands), capture_output=True, text=True)
    assert done.returncode == 0, f'{done.stdout[-3000:]}\n{done.stderr[-4000:]}'


@pytest.fixture(scope='module')
def clone(tmp_path_factory):
    """A folder that looks like a clone, with what the README supposes a user has."""
    folder, rng = tmp_path_factory.mktemp('clone'), np.random.default_rng(0)
    for name in ('train.py', 'evaluate.py', 'enhance.py', 'configs', 'jax_diffse'):
        (folder / name).symlink_to(ROOT / name)
    for where, count in (('speech', 4), ('noise', 4), ('pairs/clean', 2), ('pairs/noisy', 2), ('recordings', 1)):
        (folder / where).mkdir(parents=True)
        for i in range(count):
            t = np.arange(24_000) / 16_000
            tone = 0.1 * np.sin(2 * np.pi * (200 + 50 * i) * t) * (1 + np.sin(20 * t))
            soundfile.write(folder / where / f'{i}.wav', tone + 0.01 * rng.standard_normal(24_000), 16_000)
    return folder


def test_shell_blocks(clone, tmp_path_factory):
    pytest.importorskip('espeakng_loader', reason='the demo speaks with espeak-ng')
    data, steps = tmp_path_factory.mktemp('tfds'), []
    for words in (words for block in blocks('bash') for words in commands(block)):
        steps += recipe(words[1]) if words[0] == 'make' else [words]
    steps = [as_quick(step) for step in steps if step[1:3] != ['-m', 'pytest']]
    assert {'train.py', 'evaluate.py', 'enhance.py'} == {step[1] for step in steps}
    assert {'python'} == {step[0] for step in steps}
    run(steps, clone, data)
    for left in ('runs/demo/report/index.html', 'runs/dr_diffuse/report/summary.json', 'enhanced/0.wav'):
        assert (clone / left).exists()

    # The Python block, on the run that the demo left.
    script = f'import numpy as np\nnoisy, sample_rate = np.zeros((8000, 2)) + 0.01, 8000\n{blocks("python")[0]}'
    (clone / 'block.py').write_text(f'{script}\nassert enhanced.shape == noisy.shape')
    run([['python', 'block.py']], clone, data)


def test_files_and_flags_in_the_text_exist():
    for path in re.findall(r'\]\((?!http)([^)#]+)\)', README):
        assert (ROOT / path).exists(), path
    for name in re.findall(rf'`((?:{"|".join(SMALLER)})(?::[\w+,]+)?)`', README):
        config.load(name.replace('ACTIVATION', 'relu').replace('LOSS', 'mse+lms').replace('kK', 'k3'))
    sources = {name: (ROOT / name).read_text(encoding='utf-8') for name in ('train.py', 'enhance.py', 'evaluate.py')}
    sources['train.py'] += (ROOT / 'jax_diffse' / 'processes.py').read_text(encoding='utf-8')
    flags = {'train.py': ['--distributed'],
             'enhance.py': ['--strength', '--noise', '--steps', '--stream', '--preceding', '--noisy', '--processed'],
             'evaluate.py': ['--steps', '--model', '--preceding', '--metrics']}
    for script, flag in ((script, flag) for script, own in flags.items() for flag in own):
        assert flag in README and f"'{flag}'" in sources[script]
