"""Writes requirements.lock and docs/dependencies.md from the installed packages.

    python -m docs.dependencies

Run it in an environment made by `make .venv/dev.stamp LOCK=`, which installs the newest packages that the bounds allow.
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
# Licences of packages whose metadata name none.
READ_THERE: Mapping[str, str] = {
    'espeakng-loader': 'MIT; the eSpeak NG in it: GPL-3.0-or-later', 'namex': 'Apache-2.0'}
INTRODUCTION = """# Dependencies

Install the versions that the tests run with:

```
pip install --constraint requirements.lock .
```

`python -m docs.dependencies` writes this page and `requirements.lock` from the installed packages; a test compares
them.

`requirements.txt` has the bounds of the library's dependencies, pyproject.toml those of its extras. Both ends were
tested. The upper ends are tested in the versions of `requirements.lock`, which `make` installs (`make test LOCK=`
installs the newest versions that the bounds allow). The lower ends of `requirements.txt` were tested with the same
tests on Python 3.11, with the oldest versions that the bounds allow and the newest of all other packages. Eight
bounds were raised because tests failed, and the tests were run again.

Commands use the network only in four cases: if TensorFlow Datasets has to download a data set
(`config.data.name='voicebank_demand'`, for example), if `config.log.wandb_project` names a project of Weights & Biases,
if a path is an address of object storage, and to connect the processes of `--distributed`. A test runs a training, an
evaluation and an enhancement and checks this. onnxruntime, which the extra `dnsmos` installs, reports its use to
Microsoft from version 1.29 on; jax_diffse switches that off (`ORT_DISABLE_TELEMETRY=1`), and a test checks that nothing
of it is left.

## Licences

jax_diffse is under the MIT licence. These are the licences that the packages state, in the versions of the lock, Python
{python}:

| package | version | licence | of what |
|---|---|---|---|
"""


def installed() -> dict[str, set[str]]:
    """Package -> who needs it: 'library' or an extra, directly or through other packages."""
    found: dict[str, set[str]] = {}
    for extra in ('', *EXTRAS):
        for name in _needed(extra):
            found.setdefault(name, set()).add(extra or 'library')
    return dict(sorted(found.items()))


def own(extra: str = '') -> list[Requirement]:
    """The requirements of the library, or of one of its extras."""
    if extra:
        with (ROOT / 'pyproject.toml').open('rb') as file:
            return [Requirement(text) for text in tomllib.load(file)['project']['optional-dependencies'][extra]]
    lines = (ROOT / 'requirements.txt').read_text(encoding='utf-8').splitlines()
    return [Requirement(text) for text in (line.partition('#')[0].strip() for line in lines) if text]


def _needed(extra: str) -> set[str]:
    """All installed packages that these need, directly or through others; not CUDA libraries in a build for CPUs."""
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
    """The version without the name of a build, which torch for CPUs has."""
    return metadata.version(name).partition('+')[0]


def licence(name: str) -> str:
    """The licence in a package's metadata."""
    found = metadata.metadata(name)
    classifiers = [text.rpartition(' :: ')[2] for text in found.get_all('Classifier', ())
                   if text.startswith('License ::') and text != 'License :: OSI Approved']
    said = (found.get('License') or '').strip().splitlines()
    return (READ_THERE.get(name) or found.get('License-Expression') or ', '.join(classifiers)
            or (said[0] if said else '') or 'not said')


def lock() -> str:
    """The text of requirements.lock."""
    head = f'# Constraints for pip: the versions that the tests run with, on Python {platform.python_version()} '
    return f'{head}(python -m docs.dependencies)\n' + ''.join(f'{name}=={version(name)}\n' for name in installed())


def page() -> str:
    """The text of docs/dependencies.md."""
    rows = ''.join(f'| {name} | {version(name)} | {licence(name)} | {", ".join(sorted(of))} |\n'
                   for name, of in installed().items())
    major = '.'.join(platform.python_version_tuple()[:2])
    return INTRODUCTION.format(python=major) + rows


def locked() -> dict[str, str]:
    """Package -> version, from requirements.lock."""
    return dict(re.findall(r'^(\S+)==(\S+)$', LOCK.read_text(encoding='utf-8'), re.MULTILINE))


if __name__ == '__main__':
    LOCK.write_text(lock(), encoding='utf-8')
    PAGE.write_text(page(), encoding='utf-8')
