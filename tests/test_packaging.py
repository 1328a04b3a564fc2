"""What pyproject.toml installs: every package of the clone, and configs/ within jax_diffse."""

import pathlib
import shutil
import subprocess
import sys
import tomllib
import zipfile

ROOT = pathlib.Path(__file__).parents[1]
SETTINGS = tomllib.loads((ROOT / 'pyproject.toml').read_text(encoding='utf-8'))['tool']['setuptools']


def test_every_package_is_installed():
    found = {'.'.join(path.parent.relative_to(ROOT).parts) for path in (ROOT / 'jax_diffse').rglob('*.py')}
    assert sorted(SETTINGS['packages']) == sorted(found | {'jax_diffse.configs'})
    assert SETTINGS['package-dir'] == {'jax_diffse.configs': 'configs'}


def test_configs_import_nothing_that_is_not_installed():
    for path in (ROOT / 'configs').glob('*.py'):
        text = path.read_text(encoding='utf-8')
        assert 'from configs' not in text and 'import configs' not in text, path.name


def test_a_wheel_has_the_packaged_enhancer(tmp_path):
    for name in ('pyproject.toml', 'requirements.txt', 'README.md', 'LICENSE'):
        shutil.copy(ROOT / name, tmp_path)
    for name in ('jax_diffse', 'configs'):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns('__pycache__'))
    build = "from setuptools import build_meta; print(build_meta.build_wheel('.'))"
    done = subprocess.run([sys.executable, '-c', build], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    with zipfile.ZipFile(tmp_path / done.stdout.split()[-1]) as wheel:
        for name in ('dccrn.npz', 'dccrn.json', 'CREDITS.txt'):
            packed = wheel.read(f'jax_diffse/pretrained/{name}')
            assert packed == (ROOT / 'jax_diffse' / 'pretrained' / name).read_bytes(), name
