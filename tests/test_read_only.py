"""Commands run without a writable home folder and site-packages."""

import os
import pathlib
import shutil
import subprocess
import sys
import sysconfig

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1]
SCRIPT = """
import pathlib, sys
import numpy as np
try:
    pathlib.Path(sys.argv[1], 'x').touch()
except OSError:
    pass
else:
    sys.exit('site-packages can be written')
from jax_diffse import audio, launch
from jax_diffse.inference import streams
from jax_diffse.metrics import nisqa
launch.tune()
x = np.sin(np.arange(44_100) / 10).astype(np.float32)
print(len(audio.resample(x, 44_100, 16_000)))
print(sum(map(len, streams.resampled([x[:, None]], 44_100, 16_000))))
print('numba' in sys.modules)  # librosa's, which compiles into these folders
print(nisqa._mel_filters(48_000, 20_000).shape)
import jax_diffse.data.pipeline, jax_diffse.training.loop, jax_diffse.evaluation.sweep
"""


def _read_only(command: str) -> list[str]:
    """A command line that runs `command` with `$1` read-only, in a mount of its own."""
    return ['unshare', '--mount', 'bash', '-c', f'mount --bind "$1" "$1" && mount -o remount,ro,bind "$1" && {command}']


@pytest.mark.skipif(not shutil.which('unshare') or os.geteuid() != 0 or subprocess.run(
    [*_read_only('true'), '', '/usr'], capture_output=True).returncode != 0, reason='only root can mount')
def test_commands_run_without_writable_folders():
    site = sysconfig.get_path('purelib')
    env = {name: value for name, value in os.environ.items() if name not in ('NUMBA_CACHE_DIR', 'JAX_DIFFSE_CACHE')}
    env |= {'HOME': '/dev/null', 'XDG_CACHE_HOME': '/dev/null/cache', 'GLIBC_TUNABLES': ''}
    done = subprocess.run([*_read_only(f'"{sys.executable}" -c "$2" "$1"'), '', site, SCRIPT], cwd=ROOT, env=env,
                          capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split('\n')[:4] == ['16000', '16000', 'False', '(48, 2049)']
