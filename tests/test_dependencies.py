"""The installed packages, the allowed versions, and uses of the network."""

import ast
import json
import pathlib
import re
import subprocess
import sys
from importlib import metadata

import pytest
from packaging.utils import canonicalize_name

from docs import dependencies
from tests.faults.processes import environment, write_pairs

ROOT = pathlib.Path(__file__).parents[1]
# Of extras, imported where they are used. Those of object storage come with gcsfs and s3fs.
OPTIONAL = {'torch', 'wandb', 'espeakng_loader', 'speechmos', 'onnxruntime', 'fsspec', 'gcsfs', 'aiohttp', 'google',
            'requests', 's3fs', 'botocore'}


def test_the_lock_keeps_to_the_bounds():
    locked = dependencies.locked()
    for requirement in (found for extra in ('', *dependencies.EXTRAS) for found in dependencies.own(extra)):
        assert requirement.specifier.contains(locked[canonicalize_name(requirement.name)]), requirement


def test_every_requirement_has_both_bounds():
    for requirement in dependencies.own():
        assert {specifier.operator for specifier in requirement.specifier} == {'>=', '<'}, requirement


def test_the_page_tells_version_and_licence_of_every_package_of_the_lock():
    page = dependencies.PAGE.read_text(encoding='utf-8')
    rows = dict(re.findall(r'^\| (\S+) \| (\S+) \| [^|]*\w[^|]* \| [^|]+ \|$', page, re.MULTILINE))
    del rows['package']
    assert rows == dependencies.locked() and 'not said' not in page


def test_lock_and_page_are_those_of_what_is_installed():
    installed = {name: dependencies.version(name) for name in dependencies.installed()}
    if installed != dependencies.locked():
        pytest.skip('other versions than those of requirements.lock are installed')
    assert dependencies.LOCK.read_text(encoding='utf-8').splitlines()[1:] == dependencies.lock().splitlines()[1:]
    assert dependencies.PAGE.read_text(encoding='utf-8').splitlines()[-100:] == dependencies.page().splitlines()[-100:]


def test_what_is_imported_is_required():
    """Not just installed by chance, as what another package needs."""
    provided = {canonicalize_name(requirement.name) for requirement in dependencies.own()}
    modules = {module: {canonicalize_name(name) for name in names}
               for module, names in metadata.packages_distributions().items()}
    for path in (*(ROOT / 'jax_diffse').rglob('*.py'), *(ROOT / 'configs').glob('*.py'), *ROOT.glob('*.py')):
        for node in ast.walk(ast.parse(path.read_text(encoding='utf-8'))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else (
                [node.module] if isinstance(node, ast.ImportFrom) and not node.level else [])
            for root in {name.partition('.')[0] for name in names}:
                known = root in sys.stdlib_module_names | {'jax_diffse', 'configs'} | OPTIONAL
                assert known or modules[root] & provided, f'{path}: {root}'


WATCH = """
import json, runpy, sys
from jax_diffse import systems
from tests.toys import Trainable

systems.SYSTEMS['toy'] = Trainable
seen = []

def watch(event, arguments):
    if event == 'socket.getaddrinfo' or event == 'socket.connect' and isinstance(arguments[1], tuple):
        seen.append(f'{event} {arguments[:2]}')

sys.addaudithook(watch)
for command in json.loads(sys.argv[1]):
    sys.argv = command
    try:
        runpy.run_path(command[0], run_name='__main__')
    except SystemExit as stop:
        assert not stop.code, (command, stop.code)
print('seen:', json.dumps(seen))
"""


def test_no_command_uses_the_network_unasked(tmp_path):
    """Python's sockets; names that TensorFlow's own code would look up are not seen."""
    write_pairs(tmp_path, 4)
    data = [f'--config.data.train.{kind}={tmp_path / kind}' for kind in ('clean', 'noisy')]
    commands = [
        ['train.py', '--config', 'tests/faults/config.py', '--workdir', f'{tmp_path}/run', *data,
         '--config.train.steps=1'],
        ['evaluate.py', '--workdir', f'{tmp_path}/run', '--clean', f'{tmp_path}/clean', '--noisy', f'{tmp_path}/noisy',
         '--output', f'{tmp_path}/report', '--metrics', 'si_sdr', '--workers', '1'],
        ['enhance.py', '--workdir', f'{tmp_path}/run', '--output', f'{tmp_path}/out', f'{tmp_path}/noisy']]
    done = subprocess.run([sys.executable, '-c', WATCH, json.dumps(commands)], cwd=ROOT, env=environment(), text=True,
                          capture_output=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == 'seen: []' and (tmp_path / 'out' / '0.wav').exists()
