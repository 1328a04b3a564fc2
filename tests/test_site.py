"""The site that `make docs` builds: its menu, and what the API reference has of the package."""

import os
import pathlib
import pkgutil
import subprocess
import sys

import pytest
import yaml

import jax_diffse

ROOT = pathlib.Path(__file__).parents[1]


def menu() -> set[str]:
    """The pages in the menu."""
    found, entries = set(), yaml.safe_load((ROOT / 'mkdocs.yml').read_text(encoding='utf-8'))['nav']
    while entries:
        entry = entries.pop()
        value = next(iter(entry.values())) if isinstance(entry, dict) else entry
        entries += value if isinstance(value, list) else []
        found |= {value} if isinstance(value, str) else set()
    return found


def test_the_menu_has_every_page():
    docs = ROOT / 'docs'
    assert menu() == {path.relative_to(docs).as_posix() for path in docs.rglob('*.md')}


def test_the_reference_has_every_room_and_module():
    reference = '\n'.join(path.read_text(encoding='utf-8') for path in (ROOT / 'docs' / 'api').glob('*.md'))
    names = {module.name for module in pkgutil.iter_modules(jax_diffse.__path__)} - {'__main__', 'api'}
    named = {line.removeprefix('::: jax_diffse.') for line in reference.splitlines() if line.startswith(':::')}
    assert named == names | set(jax_diffse.__all__)  # `api` is where some of these are defined


def test_the_site_builds_without_a_warning(tmp_path):
    pytest.importorskip('mkdocstrings', reason='its packages are the extra docs')
    done = subprocess.run([sys.executable, '-m', 'mkdocs', 'build', '--strict', '--quiet', '--site-dir', tmp_path],
                          cwd=ROOT, env={**os.environ, 'NO_MKDOCS_2_WARNING': '1'}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    page = (tmp_path / 'api' / 'index.html').read_text(encoding='utf-8')
    assert all(f'id="jax_diffse.{name}"' in page for name in jax_diffse.__all__)
    assert all(f'<span class="doc-section-title">{title}:</span>' in page
               for title in ('Parameters', 'Returns', 'Raises', 'Attributes'))
