"""The README's commands and Python, and those of the systems' pages for one's own folders, run as they stand but at
`:quick` size, in the order in which they are written."""

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

from jax_diffse import cli, config

ROOT = pathlib.Path(__file__).parents[2]
README = (ROOT / 'README.md').read_text(encoding='utf-8')

SMALLER = {'dccrn': ['channels=(4,4)'], 'demo': ['channels=(4,4)'], 'dr_diffuse': ['temporal_groups=0', 'channels=8'],
           'diffgmm': ['steps=1'], 'diffiner': ['respacing=ddim2'], 'segan': ['channels=(4,4)'],
           'compact_diffiner': ['respacing=2'], 'sgmse': ['steps=1'], 'bridge': ['steps=1'], 'flowse': ['steps=1']}


def blocks(language: str, text: str = README) -> list[str]:
    return re.findall(rf'^```{language}\n(.*?)^```', text, re.MULTILINE | re.DOTALL)


def commands(text: str) -> list[list[str]]:
    lines = text.replace('\\\n', ' ').splitlines()
    return [words for words in (shlex.split(line, comments=True) for line in lines) if words]


def recipe(target: str) -> list[list[str]]:
    """The Python commands of a Makefile's target."""
    found = re.search(rf'^{target}:.*\n((?:\t.*\n)+)', (ROOT / 'Makefile').read_text(encoding='utf-8'), re.MULTILINE)
    assert found, f'README names make {target}, which the Makefile lacks'
    return [words for words in commands(found[1].replace('$(BIN)/', '')) if words[0] == 'python']


def as_quick(words: list[str]) -> list[str]:
    """The same command at a size for tests, run without installation."""
    words = ['python', '-m', 'jax_diffse', *words[1:]] if words[0] == 'jax-diffse' else [*words]
    if command_of(words) == 'evaluate':
        words += ['--limit', '2']
    if command_of(words) == 'train':
        i = words.index('--config') + 1
        name, _, variants = words[i].partition(':')
        kept = (variant for variant in variants.split(',') if variant not in ('', 'small', 'short'))
        words[i] = ','.join([f'{name}:quick', *kept])
        words += ['--config.train.steps=2', '--config.train.eval_every=2', '--config.log.audio_examples=0',
                  '--config.train.crop_seconds=0.25', '--config.train.eval_seconds=0.25',
                  *(f'--config.model.{field}' for field in SMALLER[name])]
    return words


def command_of(words: list[str]) -> str:
    """train, evaluate, ...: of `python -m jax_diffse COMMAND` or `python COMMAND.py`."""
    return words[3] if words[1] == '-m' else words[1].removesuffix('.py')


def python_block() -> str:
    """The README's Python, with a training of two steps and an evaluation of two files."""
    text, = blocks('python')
    for end, more in (("'dccrn:quick', 'runs/quick'", "overrides={'train.steps': 2, 'train.eval_every': 2}"),
                      ("'runs/quick', 'runs/quick/report'", 'data=jax_diffse.EvaluationData(limit=2)')):
        assert f'{end})' in text
        text = text.replace(f'{end})', f'{end}, {more})')
    return text


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
    for name in ('train.py', 'evaluate.py', 'enhance.py', 'configs', 'jax_diffse', 'examples'):
        (folder / name).symlink_to(ROOT / name)
    for where, count in (('speech', 4), ('noise', 4), ('pairs/clean', 2), ('pairs/noisy', 2), ('outputs', 2),
                         ('recordings', 1)):
        (folder / where).mkdir(parents=True)
        for i in range(count):
            t = np.arange(24_000) / 16_000
            tone = 0.1 * np.sin(2 * np.pi * (200 + 50 * i) * t) * (1 + np.sin(20 * t))
            soundfile.write(folder / where / f'{i}.wav', tone + 0.01 * rng.standard_normal(24_000), 16_000)
    return folder


@pytest.mark.slow
def test_blocks(clone, tmp_path_factory):
    pytest.importorskip('espeakng_loader', reason='the demo speaks with espeak-ng')
    data, steps = tmp_path_factory.mktemp('tfds'), []
    for words in (words for block in blocks('bash') for words in commands(block)):
        steps += recipe(words[1]) if words[0] == 'make' else [words]
    steps = [as_quick(step) for step in steps if step[0] != 'pip' and step[1:3] != ['-m', 'pytest']]
    assert {'train', 'evaluate', 'enhance', 'score'} == {command_of(step) for step in steps}
    run(steps, clone, data)
    for left in ('runs/examples/report/index.html', 'runs/demo/report/index.html',
                 'runs/dr_diffuse/report/summary.json', 'enhanced/0.wav'):
        assert (clone / left).exists()

    (clone / 'block.py').write_text(f'{python_block()}\nassert enhanced.shape == noisy.shape')
    run([['python', 'block.py']], clone, data)
    noisy = ROOT / 'examples' / 'noisy' / 'p232_035.flac'
    assert soundfile.info(clone / 'enhanced.wav').frames == soundfile.info(noisy).frames
    assert (clone / 'runs/quick/report/index.html').exists()


@pytest.mark.slow
def test_pages_of_systems(clone, tmp_path_factory):
    """Each page's section on one's own folders, in an order in which each finds the runs that it names."""
    steps = []
    for page in ('dccrn', 'diffiner', 'segan', 'diffgmm', 'sgmse'):
        text = (ROOT / 'docs' / f'{page}.md').read_text(encoding='utf-8').partition('\n## On your own folders\n')[2]
        steps += [as_quick(words) for block in blocks('bash', text) for words in commands(block)]
    assert {word for words in steps for word in words if word.endswith(('runs/prior', 'runs/compact', 'runs/diffgmm'))}
    run(steps, clone, tmp_path_factory.mktemp('tfds'))
    for left in ('runs/dccrn', 'runs/prior', 'runs/compact', 'runs/diffgmm'):
        assert (clone / left / 'report/summary.json').exists(), left
    assert (clone / 'refined/0.wav').exists() and (clone / 'runs/steps/sweep.json').exists()


def test_it_is_short():
    assert len(README.split()) <= 700


def test_files_and_flags_in_the_text_exist():
    for path in re.findall(r'\]\((?!http)([^)#]+)', README):
        assert (ROOT / path).exists(), path
    known = {option for command in cli.COMMANDS for action in cli.parser(command)._actions
             for option in action.option_strings}
    assert {'--steps', '--stream'} <= set(re.findall(r'(?<![\w-])--(?!config\.)[a-z][a-z-]*', README)) <= known


def test_configs_in_the_text_exist():
    names = re.findall(rf"['` ]((?:{'|'.join(SMALLER)}):[\w+,]+)['`]", README)
    assert names
    for name in names:
        config.load(name)
