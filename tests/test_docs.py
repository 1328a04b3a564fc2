"""The pages in docs/: their code runs, and their names, files, flags and keys exist."""

import functools
import importlib
import importlib.util
import json
import pathlib
import posixpath
import re
import runpy
import shlex
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import soundfile

from jax_diffse import cli, config, runs, systems
from jax_diffse.experiment import sections
from jax_diffse.systems.dr_diffuse import TRAINING, DrDiffuse

ROOT = pathlib.Path(__file__).parents[1]
DOCS = ROOT / 'docs'
PAGES = {path.relative_to(DOCS).as_posix(): path.read_text(encoding='utf-8') for path in sorted(DOCS.rglob('*.md'))}
SCRIPTS = ('train.py', 'evaluate.py', 'enhance.py')
ADDED = {'jax_diffse/systems/spectral_mask.py', 'configs/spectral_mask.py'}  # by add_a_system.md


def blocks(page: str, language: str) -> list[str]:
    return re.findall(rf'^```{language}\n(.*?)^```', PAGES[page], re.MULTILINE | re.DOTALL)


def inline(page: str) -> list[str]:
    """What stands between backticks, outside of blocks."""
    return re.findall(r'`([^`\n]+)`', re.sub(r'^```.*?^```', '', PAGES[page], flags=re.MULTILINE | re.DOTALL))


# ------------------------------------------------------------------------------------------------- adding a system


RATE = 16_000


def tone(i: int, seconds: float = 1.5) -> np.ndarray:
    t = np.arange(int(seconds * RATE)) / RATE
    return (0.1 * np.sin(2 * np.pi * (300 + 70 * i) * t) * (1 + np.sin(20 * t))).astype(np.float32)


@pytest.fixture(scope='module')
def clone(tmp_path_factory):
    """A folder with what the page adds and supposes, in which the page's commands were run."""
    folder, rng = tmp_path_factory.mktemp('clone'), np.random.default_rng(0)
    for where, clean, noise in (('speech', 1, 0), ('noise', 0, 1), ('pairs/clean', 1, 0), ('recordings', 1, 1)):
        (folder / where).mkdir(parents=True)
        for i in range(4):
            samples = clean * tone(i) + 0.05 * noise * rng.standard_normal(len(tone(i)))
            soundfile.write(folder / where / f'{i}.wav', samples, RATE)
    (folder / 'pairs' / 'noisy').symlink_to(folder / 'recordings')
    for name in SCRIPTS:
        (folder / name).symlink_to(ROOT / name)
    (folder / 'configs').mkdir()
    code, config = blocks('add_a_system.md', 'python')
    (folder / 'configs' / 'spectral_mask.py').write_text(config)
    (folder / 'spectral_mask.py').write_text(code)
    return folder


@pytest.fixture(scope='module')
def run(clone):
    """The trained run, and what its commands left in the folder."""
    with pytest.MonkeyPatch.context() as patch:
        spec = importlib.util.spec_from_file_location('spectral_mask', clone / 'spectral_mask.py')
        module = importlib.util.module_from_spec(spec)
        patch.setitem(sys.modules, 'spectral_mask', module)
        spec.loader.exec_module(module)
        name, cls = re.search(r"^\+.*'(\w+)': (\w+)\}$", blocks('add_a_system.md', 'diff')[0], re.MULTILINE).groups()
        patch.setitem(systems.SYSTEMS, name, getattr(module, cls))
        patch.chdir(clone)
        for line in blocks('add_a_system.md', 'bash')[0].replace('\\\n', ' ').splitlines():
            words = shlex.split(line)[1:]
            if words[0] == 'train.py':
                words[2] += ':folders,quick'
                words += ['--config.train.steps=40', '--config.train.eval_every=20', '--config.log.audio_examples=0',
                          '--config.optimizer.learning_rate=0.01', '--config.model.units=32']
            patch.setattr(sys, 'argv', words)
            with pytest.raises(SystemExit) as ended:
                runpy.run_path(str(ROOT / words[0]), run_name='__main__')
            assert not ended.value.code, words
        return runs.load('runs/mask')


def test_the_added_system_learns(clone, run):
    lines = [json.loads(line) for line in (clone / 'runs/mask/log.jsonl').read_text().splitlines()]
    losses, validations = ([line[name] for line in lines if name in line]
                           for name in ('mask/loss', 'validation/mask/loss'))
    assert losses[-1] < 0.5 * losses[0] and validations[-1] < validations[0]


def test_the_added_system_enhances(clone, run):
    """Tones in white noise: better than what came in, in the report's figures and in the written files."""
    summary = json.loads((clone / 'runs/mask/report/summary.json').read_text())
    assert summary['stages'] == ['noisy', 'enhanced'] and summary['sampling_steps'] is None
    means = {stage: summary['statistics'][stage]['si_sdr']['mean'] for stage in summary['stages']}
    assert means['enhanced'] > means['noisy'] + 1
    enhanced, rate = soundfile.read(clone / 'enhanced' / '0.wav')
    noisy, _ = soundfile.read(clone / 'recordings' / '0.wav')
    assert rate == RATE and np.linalg.norm(enhanced - tone(0)) < 0.9 * np.linalg.norm(noisy - tone(0))


def test_the_added_system_keeps_the_contract(run):
    system, keys = run.system, jax.random.split(jax.random.key(0), 2)
    noisy = jnp.stack([jnp.asarray(tone(0)), jnp.asarray(tone(1))]).at[1, 9001:].set(0.0)
    lengths = jnp.array([noisy.shape[1], 9001])
    enhance = jax.jit(system.enhance_stages)
    stages = enhance(run.variables, noisy, lengths, keys)
    assert list(stages) == ['enhanced']
    both = np.asarray(stages['enhanced'])
    assert both.dtype == np.float32 and both.shape == noisy.shape and not both[1, 9001:].any() and both[1, :9001].any()
    alone = np.asarray(enhance(run.variables, noisy[1:, :9001], lengths[1:], keys[1:])['enhanced'])
    np.testing.assert_allclose(both[1, :9001], alone[0], atol=1e-4)
    # No frame sees a later one: what changes from a sample on changes nothing a window before it.
    changed = enhance(run.variables, noisy.at[:, 6000:].multiply(-0.5), lengths, keys,
                      gain=system.gain(noisy, lengths))['enhanced']
    np.testing.assert_allclose(changed[:, :6000 - 512], both[:, :6000 - 512], atol=1e-5)
    assert np.abs(np.asarray(changed - both)[:, 6000:9001]).max() > 1e-2
    for wrong, message in (({'steps': 3}, 'does not sample'), ({'processed': noisy}, 'refines nothing')):
        with pytest.raises(ValueError, match=f'SpectralMask .*{message}'):
            system.enhance(run.variables, noisy, lengths, keys, **wrong)


# ------------------------------------------------------------------------------------------------- names in the text


@pytest.mark.parametrize('page', PAGES)
def test_links_lead_somewhere(page):
    for target in re.findall(r'\]\((?!https?:)([^)\s]+)', PAGES[page]):
        path, _, anchor = target.partition('#')
        linked = posixpath.normpath(posixpath.join(posixpath.dirname(page), path)) if path else page
        assert (DOCS / linked).exists(), target
        if anchor:
            titles = re.findall(r'^#+ (.*)$', PAGES[linked], re.MULTILINE)
            assert anchor in [re.sub(r'[^\w -]', '', title.lower()).replace(' ', '-') for title in titles], target


@pytest.mark.parametrize('page', ('how_it_is_built.md', 'add_a_system.md', 'scaling.md', 'metrics.md', 'differences.md',
                                  'data.md', 'export.md'))
def test_files_flags_and_keys_exist(page):
    for name in inline(page):
        if re.fullmatch(r'[\w/]+(\.py|/)', name) and name not in ADDED:
            places = (ROOT / name, ROOT / 'jax_diffse' / name, *(ROOT / 'jax_diffse').glob(f'*/{name}'))
            assert any(place.exists() for place in places), name
    benchmarks = (ROOT / 'benchmarks' / '__main__.py').read_text(encoding='utf-8')
    foreign = {'--worker', '--command', '--zone', '--nodes', '--ntasks-per-node', '--gpus-per-node', '--cpus-per-task',
               '--time', '--signal', '--xla_force_host_platform_device_count', '--noise-scheduler',
               '--logdir'}  # of other programs
    for flag in re.findall(r'(?<![\w|-])--(?!config\.)[a-z][\w-]*', PAGES[page]):
        assert f"'{flag}'" in benchmarks or flag in foreign.union(*map(flags, cli.COMMANDS)), flag
    for key in re.findall(r'(?:--|`)config\.((?:data|train|optimizer|log|parallel)\.[a-z_.]*[a-z])', PAGES[page]):
        value = sections('', {})
        for part in key.split('.'):
            assert part in value, key
            value = value[part]


# ---------------------------------------------------------------------------------------------------- commands

# Commands on record, which name configs as they were called then, and commands that are wrong on purpose.
AS_THEY_WERE = {'results.md', 'bad_input.md'}


@functools.cache
def flags(command: str) -> frozenset[str]:
    """The flags that a command takes."""
    return frozenset(option for action in cli.parser(command)._actions for option in action.option_strings)


def commands(page: str) -> list[tuple[str, list[str]]]:
    """This project's commands in the blocks and the text of a page: name and arguments."""
    fenced = ''.join(re.findall(r'^```(?:bash)?\n(.*?)^```', PAGES[page], re.MULTILINE | re.DOTALL))
    found = []
    for line in [*fenced.replace('\\\n', ' ').splitlines(), *inline(page)]:
        try:
            words = shlex.split(line, comments=True)
        except ValueError:  # no command, but text with an apostrophe
            continue
        for i, word in enumerate(words):
            script, module = word in SCRIPTS, words[max(i - 1, 0):i + 1] == ['-m', 'jax_diffse']
            rest = words[i + 1:] if not script else [word.removesuffix('.py'), *words[i + 1:]]
            if (script or module or word == 'jax-diffse') and rest and re.match('[a-z]', rest[0]):
                end = next((n for n, other in enumerate(rest) if other in ('&', '&&', '|', ';', '>')), len(rest))
                found.append((rest[0], rest[1:end]))
    return found


WITH_COMMANDS = [page for page in PAGES if page not in AS_THEY_WERE and commands(page)]


def test_pages_have_commands():
    assert {'index.md', 'dr_diffuse.md', 'from_the_papers.md', 'howto/enhance.md',
            'tutorials/first_run.md'} <= set(WITH_COMMANDS)
    assert ('convert', ['dccrn=chkpt.pt', '--workdir', 'runs/theirs']) in commands('howto/convert.md')


@pytest.mark.parametrize('page', WITH_COMMANDS)
def test_commands_have_flags_that_exist(page):
    for command, arguments in commands(page):
        assert command in cli.COMMANDS, command
        for flag in (word.partition('=')[0] for word in arguments if re.match(r'--[a-z](?!onfig\.)', word)):
            assert flag in flags(command), f'{command} {flag}'


@pytest.mark.parametrize('page', WITH_COMMANDS)
def test_commands_name_configs_that_load(page):
    """With their variants and overrides; those with another placeholder than LOSS are left out."""
    for command, arguments in commands(page):
        named = arguments[arguments.index('--config') + 1] if command == 'train' and '--config' in arguments else 'X'
        named = named.replace('LOSS', 'mse+lms')
        if not re.search('[A-Z]', named) and named not in ADDED:
            overrides = [word for word in arguments if re.match(r'--config\.[a-z_.]+=', word)]
            config.load(str(ROOT / named) if named.startswith('configs/') else named, overrides)


# -------------------------------------------------------------------------------------------------------- figures


def test_dr_diffuse_starts_where_the_page_on_studies_says():
    """The figures of its paragraph, in their order, at every number of steps that the system takes."""
    paragraph, = re.findall(r'^With DR-DiffuSE, `--steps`.*?\n\n', PAGES['studies.md'], re.MULTILINE | re.DOTALL)
    fast, linear = (DrDiffuse(stage='refiner', schedule=schedule) for schedule in ('fast', 'linear'))
    for steps in range(1, 200):
        levels = fast._schedule(steps)
        level, t = levels.alpha_bar[-1], levels.t[-1]
        assert len(levels) == steps
        assert (level, t) == pytest.approx((fast._schedule(6).alpha_bar[-1], fast._schedule(6).t[-1]), rel=1e-9)
    lowest = {f'{system._schedule(steps).alpha_bar[-1]:.4f}'
              for system, steps in ((fast, 200), (linear, 1), (linear, 6), (linear, 200))}
    assert fast._schedule(200) is TRAINING and len(lowest) == 1
    shares = [f'{np.sqrt(share):.3f}' for alpha_bar in (level, TRAINING.alpha_bar[-1])
              for share in (alpha_bar, 1 - alpha_bar)]
    assert re.findall(r'\d+(?:\.\d+)?', paragraph) == [
        '1', '199', f'{level:.4f}', '200', *lowest, f'{t:.2f}', '0', '199', *shares, '199', '200', *lowest]


def resolve(dotted: str):
    """The object that a name below `jax_diffse` stands for; of a dataclass's or protocol's field, its annotation."""
    parts = dotted.split('.')
    for count in range(len(parts), 0, -1):
        try:
            found = importlib.import_module('.'.join(['jax_diffse', *parts[:count]]))
        except ModuleNotFoundError:
            continue
        for part in parts[count:]:
            found = getattr(found, '__annotations__', {})[part] if not hasattr(found, part) else getattr(found, part)
        return found
    raise LookupError(dotted)


def test_names_of_how_it_is_built_exist():
    dotted = (re.fullmatch(r'(?!jax\.|config\.(?:data|train|model)\b)([a-z_]\w*(?:\.\w+)+)(?<!\.py)', name)
              for name in inline('how_it_is_built.md'))
    names = {found[1] for found in dotted if found}
    assert len(names) > 30
    for name in sorted(names):
        resolve(name)


def test_tests_that_claims_are_checked_by_exist():
    """Every row of the page has a test, or says no."""
    rows = [row for row in re.findall(r'^\| (.*) \|$', PAGES['claims.md'], re.MULTILINE)
            if not row.startswith(('sentence |', '---'))]
    assert len(rows) > 60
    for row in rows:
        named = re.findall(r'([a-z_/]*test_\w+\.py)(?:::(test_\w+))?', row.rpartition(' | ')[2])
        assert named or ' | no: ' in row, row
        for file, test in named:
            assert f'def {test or "test_"}' in (ROOT / 'tests' / file).read_text(encoding='utf-8'), row
