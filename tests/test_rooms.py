"""The rooms of the package: imports point downwards, and TensorFlow and torch are only imported in their rooms."""

import ast
import pathlib
import subprocess
import sys

PACKAGE = pathlib.Path(__file__).parents[1] / 'jax_diffse'
# Each room may import from itself and from those above it in this list.
ROOMS = ('terminal', 'interrupts', 'errors', 'files', 'launch', 'processes', 'config', 'experiment', 'platforms',
         'flops', 'spectral', 'blocks', 'audio', 'audio_files', 'losses', 'diffusion', 'networks',
         'systems', 'data', 'metrics', 'pretrained', 'runs', 'training', 'inference', 'evaluation', 'conversion',
         'planning', 'api', 'cli')
WITH_TENSORFLOW = ('data.pipeline', 'data.tf', 'data.tf_spectral', 'data.tfds_source', 'data.packing',
                   'data.builders')

WITH_EXTRAS = ('files.s3',)  # needs a package that tests do without


def modules() -> dict[str, pathlib.Path]:
    """Dotted name below the package -> file."""
    found = {}
    for path in PACKAGE.rglob('*.py'):
        parts = path.relative_to(PACKAGE).with_suffix('').parts
        found['.'.join(parts[:-1] if parts[-1] == '__init__' else parts)] = path
    return found


def imports(path: pathlib.Path, top_level_only: bool = False) -> set[str]:
    """Dotted names that a file imports, `from a import b` as `a.b`."""
    tree = ast.parse(path.read_text(encoding='utf-8'))
    found = set()
    for node in tree.body if top_level_only else ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {f'{node.module}.{alias.name}' for alias in node.names}
    return found


def test_imports_point_downwards():
    for name, path in modules().items():
        room = name.partition('.')[0]
        if room in ('', '__main__'):
            continue  # the public API, which imports from all rooms
        for imported in imports(path):
            if imported.startswith('jax_diffse.'):
                other = imported.split('.')[1]
                assert ROOMS.index(other) <= ROOMS.index(room), f'{name} imports {imported}'


def test_inference_does_not_need_training():
    for name, path in modules().items():
        if name.startswith('inference'):
            assert not any(imported.startswith('jax_diffse.training') for imported in imports(path)), name


def test_only_the_data_room_knows_tensorflow_and_only_conversion_knows_torch():
    for name, path in modules().items():
        roots = {imported.partition('.')[0] for imported in imports(path)}
        assert name.startswith('data') or not roots & {'tensorflow', 'tensorflow_datasets'}, name
        assert name.startswith('conversion') or 'torch' not in roots, name


def test_everything_else_loads_without_them():
    names = [f'jax_diffse.{name}' for name in modules()
             if name and '__main__' not in name and not name.startswith((*WITH_TENSORFLOW, *WITH_EXTRAS))]
    check = ('import importlib, sys\n'
             f'for name in {names}: importlib.import_module(name)\n'
             "print(sorted({'tensorflow', 'tensorflow_datasets', 'torch'} & set(sys.modules)))")
    done = subprocess.run([sys.executable, '-c', check], capture_output=True, text=True, cwd=PACKAGE.parent)
    assert done.stdout.strip() == '[]', done.stdout + done.stderr[-2000:]


def test_importing_the_package_does_not_import_jax():
    check = "import sys, jax_diffse; print('jax' in sys.modules)"
    done = subprocess.run([sys.executable, '-c', check], capture_output=True, text=True, cwd=PACKAGE.parent)
    assert done.stdout.strip() == 'False', done.stderr
