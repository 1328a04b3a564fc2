"""Writes requirements.lock and docs/dependencies.md from the packages that are installed.

    python -m docs.dependencies

Run it in an environment made by `make .venv/dev.stamp LOCK=`, which takes the newest packages that the bounds allow.
"""

import pathlib
import platform
import re
import tomllib
from collections.abc import Mapping
from importlib import metadata

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = pathlib.Path(__file__).parents[1]
LOCK, PAGE = ROOT / 'requirements.lock', ROOT / 'docs' / 'dependencies.md'
EXTRAS = ('demo', 'dev', 'docs')  # what `make test` installs
# Of packages whose metadata name none.
READ_THERE: Mapping[str, str] = {
    'espeakng-loader': 'MIT; the eSpeak NG in it: GPL-3.0-or-later', 'namex': 'Apache-2.0'}
INTRODUCTION = """# Dependencies

Written by `python -m docs.dependencies` from the packages that are installed; a test compares.

`requirements.txt` has the bounds of what the library needs, pyproject.toml those of its extras. Both ends were tried:
the upper ones by the tests, in the versions of `requirements.lock`, which `make` installs (`make test LOCK=` takes the
newest that the bounds allow instead); the lower ones of `requirements.txt` by {lowest}.

No command uses the network, unless it says so: a data set that TensorFlow Datasets has to download first
(`config.data.name='voicebank_demand'`, say), Weights & Biases where `config.log.wandb_project` names a project, and the
other processes of `--distributed`. A test runs a training, an evaluation and an enhancement and watches.

## Licences

jax_diffse is under the MIT licence. What a package says of its own, in the versions of the lock, Python {python}:

| package | version | licence | of what |
|---|---|---|---|
"""
LOWEST = """the same tests, on Python 3.11, with the oldest versions that they allow, other packages being the newest;
what failed raised eight bounds, and was run again"""


def installed() -> dict[str, set[str]]:
    """Package -> who asks for it: 'library' or an extra; all that these need, in turn."""
    found: dict[str, set[str]] = {}
    for extra in ('', *EXTRAS):
        for name in _needed(extra):
            found.setdefault(name, set()).add(extra or 'library')
    return dict(sorted(found.items()))


def own(extra: str = '') -> list[Requirement]:
    """What this project asks for: the library, or one of its extras."""
    if extra:
        with (ROOT / 'pyproject.toml').open('rb') as file:
            return [Requirement(text) for text in tomllib.load(file)['project']['optional-dependencies'][extra]]
    lines = (ROOT / 'requirements.txt').read_text(encoding='utf-8').splitlines()
    return [Requirement(text) for text in (line.partition('#')[0].strip() for line in lines) if text]


def _needed(extra: str) -> set[str]:
    """What these need, in turn, and is installed: not the CUDA libraries of a build for CPUs, say."""
    queue, seen = own(extra), set()
    while queue:
        requirement = queue.pop()
        name = canonicalize_name(requirement.name)
        if name not in seen:
            try:
                texts = metadata.requires(name) or ()
            except metadata.PackageNotFoundError:
                continue
            seen.add(name)
            extras = requirement.extras or {''}
            queue += [needed for needed in map(Requirement, texts)
                      if not needed.marker or any(needed.marker.evaluate({'extra': x}) for x in extras)]
    return seen


def version(name: str) -> str:
    """Without what names a build, as of torch for CPUs."""
    return metadata.version(name).partition('+')[0]


def licence(name: str) -> str:
    """What a package's metadata say."""
    found = metadata.metadata(name)
    classifiers = [text.rpartition(' :: ')[2] for text in found.get_all('Classifier', ())
                   if text.startswith('License ::') and text != 'License :: OSI Approved']
    said = (found.get('License') or '').strip().splitlines()
    return (READ_THERE.get(name) or found.get('License-Expression') or ', '.join(classifiers)
            or (said[0] if said else '') or 'not said')


def lock() -> str:
    """The text of requirements.lock."""
    head = f'# Constraints for pip: what the tests run with, on Python {platform.python_version()} '
    return f'{head}(python -m docs.dependencies)\n' + ''.join(f'{name}=={version(name)}\n' for name in installed())


def page() -> str:
    """The text of docs/dependencies.md."""
    rows = ''.join(f'| {name} | {version(name)} | {licence(name)} | {", ".join(sorted(of))} |\n'
                   for name, of in installed().items())
    major = '.'.join(platform.python_version_tuple()[:2])
    return INTRODUCTION.format(python=major, lowest=' '.join(LOWEST.split())) + rows


def locked() -> dict[str, str]:
    """Package -> version, of requirements.lock."""
    return dict(re.findall(r'^(\S+)==(\S+)$', LOCK.read_text(encoding='utf-8'), re.MULTILINE))


if __name__ == '__main__':
    LOCK.write_text(lock(), encoding='utf-8')
    PAGE.write_text(page(), encoding='utf-8')
