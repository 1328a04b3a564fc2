"""What pyproject.toml installs: every package of the clone, and configs/ within jax_diffse."""

import pathlib
import tomllib

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
