"""The restart of the entry points, observed from another process."""

import os
import pathlib
import subprocess
import sys

import pytest

from jax_diffse import launch

ROOT = pathlib.Path(__file__).parents[1]
SCRIPT = ('import os, sys\nfrom jax_diffse import launch\nlaunch.tune()\n'
          "print(os.getpid(), os.environ['GLIBC_TUNABLES'], sys.argv[1:])")


@pytest.fixture(autouse=True)
def without_the_programs_of_the_tests(monkeypatch):
    for name in ('JAX_COMPILATION_CACHE_DIR', 'JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS'):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv('JAX_DIFFSE_CACHE', 'off')


@pytest.mark.skipif(sys.platform != 'linux', reason='glibc is on Linux only')
@pytest.mark.parametrize('own, expected', [(None, 'glibc.malloc.hugetlb=1'), ('', ''), ('a.b.c=1', 'a.b.c=1')])
def test_the_restart_keeps_process_arguments_and_the_users_setting(own, expected):
    env = {name: value for name, value in os.environ.items() if name != 'GLIBC_TUNABLES'}
    env |= {} if own is None else {'GLIBC_TUNABLES': own}
    with subprocess.Popen([sys.executable, '-c', SCRIPT, 'a b', '--c'], cwd=ROOT, env=env, text=True,
                          stdout=subprocess.PIPE) as process:
        output = process.communicate()[0]
    assert output == f"{process.pid} {expected} ['a b', '--c']\n"


@pytest.mark.parametrize(('version', 'own', 'expected'), [
    ('0.10.2', None, launch.THREADED_CONVOLUTIONS['0.10']),
    ('0.10.2', '--a=1', f'--a=1 {launch.THREADED_CONVOLUTIONS["0.10"]}'),
    ('0.10.2', '--xla_cpu_experimental_ynn_fusion_type=x', '--xla_cpu_experimental_ynn_fusion_type=x'),
    ('0.12.0', '--a=1', '--a=1'),  # jaxlib may not know the flag
])
def test_the_flag_for_convolutions_is_given_where_it_is_known(monkeypatch, version, own, expected):
    monkeypatch.setenv('GLIBC_TUNABLES', '')  # no restart
    monkeypatch.setenv('XLA_FLAGS', own or '')
    monkeypatch.setattr(launch.metadata, 'version', lambda name: version)
    launch.tune()
    assert os.environ['XLA_FLAGS'] == expected


@pytest.mark.parametrize(('version', 'own', 'expected'), [
    ('0.10.2', '--a=1', '--a=1 --xla_cpu_use_fusion_emitters=false --xla_backend_optimization_level=1'),
    ('0.10.2', '--xla_backend_optimization_level=3',
     '--xla_backend_optimization_level=3 --xla_cpu_use_fusion_emitters=false'),
    ('0.12.0', '--a=1', '--a=1'),
])
def test_quick_compilation_keeps_the_users_flags(monkeypatch, version, own, expected):
    monkeypatch.setenv('XLA_FLAGS', own)
    monkeypatch.setattr(launch.metadata, 'version', lambda name: version)
    launch.compile_quickly()
    assert os.environ['XLA_FLAGS'] == expected


def test_jax_accepts_the_flags():
    script = 'from jax_diffse import launch\nlaunch.tune()\nlaunch.compile_quickly()\n'
    script += 'import jax\nprint(jax.device_count())'
    env = os.environ | {'XLA_FLAGS': '', 'GLIBC_TUNABLES': ''}
    done = subprocess.run([sys.executable, '-c', script], cwd=ROOT, env=env, capture_output=True, text=True)
    assert done.stdout == '1\n', done.stderr


@pytest.mark.skipif(not hasattr(os, 'sched_setaffinity'), reason='this system cannot pin a process')
def test_one_core_and_the_cpu_are_for_this_process_alone():
    script = ('import os\nfrom jax_diffse import launch\nlaunch.use_one_core()\n'
              "print(len(os.sched_getaffinity(0)), launch.cores(), os.environ['JAX_PLATFORMS'], sep=',')")
    before = os.sched_getaffinity(0)
    done = subprocess.run([sys.executable, '-c', script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == '1,one core,cpu\n' and os.sched_getaffinity(0) == before


def test_a_system_that_cannot_pin_says_so(monkeypatch):
    monkeypatch.setenv('JAX_PLATFORMS', 'cpu')
    for name in ('sched_setaffinity', 'sched_getaffinity'):
        monkeypatch.delattr(os, name, raising=False)
    launch.use_one_core()
    assert launch.cores() == 'all cores, because this system cannot bind a process to one'


def test_user_errors_of_the_scripts_are_one_line_and_status_2(tmp_path):
    for line in ('train.py --config none.py --workdir run', 'evaluate.py --workdir . --output o',
                 'enhance.py --workdir . --output o x.wav'):
        script, *words = line.split()
        done = subprocess.run([sys.executable, ROOT / script, *words], cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 2 and 'Traceback' not in done.stderr, done.stderr
        assert done.stderr.splitlines()[-1].startswith('error: ') and not list(tmp_path.iterdir())


@pytest.mark.parametrize(('env', 'expected'), [
    ({}, 'home/.cache/jax_diffse/programs'),
    ({'XDG_CACHE_HOME': 'xdg'}, 'xdg/jax_diffse/programs'),
    ({'JAX_DIFFSE_CACHE': 'own'}, 'own/programs'),
    ({'JAX_DIFFSE_CACHE': 'off'}, None),
    ({'JAX_DIFFSE_CACHE': ''}, None),
    ({'JAX_COMPILATION_CACHE_DIR': 'theirs'}, 'theirs'),
])
def test_the_folder_of_compiled_programs(tmp_path, env, expected):
    env = {name: str(tmp_path / value) if value not in launch.OFF else value for name, value in env.items()}
    base = {name: value for name, value in os.environ.items()
            if name not in ('JAX_DIFFSE_CACHE', 'XDG_CACHE_HOME', 'JAX_COMPILATION_CACHE_DIR')}
    script = ('import os\nfrom jax_diffse import launch\nlaunch.tune()\n'
              "print(os.environ.get('JAX_COMPILATION_CACHE_DIR'))")
    done = subprocess.run([sys.executable, '-c', script], cwd=ROOT, text=True, capture_output=True,
                          env=base | {'HOME': str(tmp_path / 'home'), 'GLIBC_TUNABLES': ''} | env)
    assert done.stdout.strip() == str(expected and tmp_path / expected) and not done.stderr


def test_an_unwritable_cache_is_reported_and_the_command_continues(tmp_path):
    (tmp_path / 'file').write_text('')
    script = "from jax_diffse import launch\nlaunch.tune()\nprint('on')"
    done = subprocess.run([sys.executable, '-c', script], cwd=ROOT, text=True, capture_output=True,
                          env={**os.environ, 'GLIBC_TUNABLES': '', 'JAX_DIFFSE_CACHE': str(tmp_path / 'file')})
    assert done.stdout == 'on\n' and done.stderr.count('\n') == 1 and 'JAX_DIFFSE_CACHE' in done.stderr


def test_a_cache_in_a_missing_bucket_is_reported_and_the_command_continues(store):
    script = "from jax_diffse import launch\nlaunch.tune()\nprint('on')"
    done = subprocess.run([sys.executable, '-c', script], cwd=ROOT, text=True, capture_output=True,
                          env={**os.environ, 'GLIBC_TUNABLES': '', 'JAX_DIFFSE_CACHE': 'gs://no-such-bucket/cache'})
    assert done.stdout == 'on\n'
    assert done.stderr == ('compiled programs are not cached: gs://no-such-bucket: there is no such bucket; set '
                           'JAX_DIFFSE_CACHE to another folder, or to off\n')


def test_another_process_finds_compiled_programs(tmp_path, bucket, store):
    script = ('from jax_diffse import launch\nlaunch.tune()\nimport jax, jax.numpy as jnp\n'
              "jax.config.update('jax_persistent_cache_min_compile_time_secs', 0.0)\n"
              "hits = []\njax.monitoring.register_event_listener(lambda name, **_: hits.append(name))\n"
              'jax.jit(lambda x: jnp.sin(x) @ x)(jnp.ones((8, 8))).block_until_ready()\n'
              "print(sum(name.endswith('cache_hits') for name in hits) > 0)")
    for cache in (str(tmp_path), f'{bucket}/cache'):
        env = {**os.environ, 'GLIBC_TUNABLES': '', 'JAX_DIFFSE_CACHE': cache}
        found = [subprocess.run([sys.executable, '-c', script], cwd=ROOT, env=env, text=True, capture_output=True)
                 for _ in range(2)]
        assert [done.stdout for done in found] == ['False\n', 'True\n'], found
    assert store.names(bucket.removeprefix('gs://'), 'cache/programs/')


def test_the_least_recently_used_programs_are_deleted_first(tmp_path):
    for age, name in enumerate(('new', 'middle', 'old')):
        (tmp_path / name).write_bytes(b'x' * 100)
        os.utime(tmp_path / name, (1e9 - age, 1e9 - age))
    launch.discard_oldest(tmp_path, 250)
    assert sorted(path.name for path in tmp_path.iterdir()) == ['middle', 'new']
