"""Commands continue if their output goes to closed pipes, terminals with few characters or full disks."""

import os
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1]
PRINTS = """
import pathlib, sys
from jax_diffse import errors

def main():
    for i in range(20_000):
        print('line', i, flush=True)
    print('größe ↑ 録音 \\udcff', flush=True)
    print('größe ↑ 録音 \\udcff', file=sys.stderr)
    pathlib.Path(sys.argv[1]).write_text('all done')

errors.exit_with(main)
"""


def _run(tmp_path, shell: str = '', **env: str) -> subprocess.CompletedProcess:
    """Runs a command that prints much, and then writes a file, with `shell` behind it."""
    (tmp_path / 'prints.py').write_text(PRINTS, encoding='utf-8')
    command = f'"{sys.executable}" "{tmp_path / "prints.py"}" "{tmp_path / "done"}" {shell}'
    env = {**os.environ, 'PYTHONPATH': str(ROOT), **env}
    return subprocess.run(['bash', '-c', command], capture_output=True, env=env)


@pytest.mark.parametrize('shell', [
    '| head -1', '| true', '2>&1 | head -1', '>&-', '2>&-', '>&- 2>&-', '> /dev/full', '2> /dev/full', '> /dev/null'])
def test_work_continues_if_printing_fails(tmp_path, shell):
    done = _run(tmp_path, f'{shell}; exit ${{PIPESTATUS[0]}}')
    assert (tmp_path / 'done').read_text() == 'all done' and done.returncode == 0
    assert b'Traceback' not in done.stderr and b'Exception' not in done.stderr


def test_a_full_disk_is_reported_once(tmp_path):
    done = _run(tmp_path, '> /dev/full')
    assert done.stderr.count(b'output is lost (No space left on device); the work continues') == 1


@pytest.mark.parametrize('env', [{'PYTHONIOENCODING': 'ascii'}, {'PYTHONIOENCODING': 'cp1252'},
                                 {'LC_ALL': 'C', 'PYTHONUTF8': '0', 'PYTHONCOERCECLOCALE': '0'}])
def test_characters_that_the_encoding_lacks_are_escaped(tmp_path, env):
    done = _run(tmp_path, **env)
    assert done.returncode == 0 and (tmp_path / 'done').exists()
    for printed in (done.stdout, done.stderr):
        last = printed.splitlines()[-1]
        assert last.endswith(b'e \\u2191 \\u9332\\u97f3 \\udcff') and last.startswith(b'gr')


def test_a_terminal_is_still_recognised(tmp_path):
    script = 'import sys\nfrom jax_diffse import terminal\nterminal.prepare()\nprint(sys.stdout.isatty())'
    code = f'import pty, sys; pty.spawn([sys.executable, "-c", {script!r}])'
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout.strip() == 'True'
