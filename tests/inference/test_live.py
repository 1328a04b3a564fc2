"""Raw audio through a pipe against `StreamingEnhancer` on the whole signal, and the ends of a pipe."""

import contextlib
import os
import pty
import signal
import subprocess
import sys
import threading

import jax
import ml_collections
import numpy as np
import pytest
import soundfile
from numpy.testing import assert_allclose, assert_array_equal

from jax_diffse import audio, runs
from jax_diffse.errors import UserError
from jax_diffse.inference.live import LiveEnhancer, enhance_pcm
from jax_diffse.inference.streaming import StreamingEnhancer
from jax_diffse.systems.dccrn import Dccrn
from tests import reference
from tests.faults.processes import ROOT, environment

RATE, MODEL = 16_000, {'channels': (2, 4), 'lstm_units': 4, 'lstm_layers': 1}


@pytest.fixture(scope='module')
def run(tmp_path_factory):
    """A tiny DCCRN."""
    folder = tmp_path_factory.mktemp('live') / 'run'
    variables = reference.random_variables(jax.eval_shape(Dccrn(**MODEL).init, jax.random.key(0)))
    runs.save(folder, ml_collections.ConfigDict({'system': 'dccrn', 'model': MODEL}), variables)
    return folder


@pytest.fixture(scope='module')
def enhancer(run):
    return StreamingEnhancer(runs.load(run))


def pcm(n, seed=0):
    return (3000 * np.random.default_rng(seed).standard_normal(n)).astype('<i2')


def expected(enhancer, samples):
    """The whole signal through `StreamingEnhancer`, as 16-bit samples."""
    enhancer.reset()
    whole = np.concatenate([enhancer(samples / np.float32(32768)), enhancer.flush()])
    return np.clip(np.round(whole * 32768), -32768, 32767)


def live_output(live, samples, size):
    data = samples.tobytes()
    parts = [live(data[i:i + 2 * size]) for i in range(0, len(data), 2 * size)] + [live.flush()]
    return np.frombuffer(b''.join(parts), '<i2')


@contextlib.contextmanager
def descriptors(given, taken):
    """Replaces the process's standard input and output."""
    kept = os.dup(0), os.dup(1)
    os.dup2(given, 0)
    os.dup2(taken, 1)
    try:
        yield
    finally:
        for descriptor, old in enumerate(kept):
            os.dup2(old, descriptor)
            os.close(old)


def piped(run, tmp_path, data, **options):
    """Enhances bytes and returns the bytes of the output."""
    (tmp_path / 'in').write_bytes(data)
    with open(tmp_path / 'in', 'rb') as given, open(tmp_path / 'out', 'wb') as taken:
        with descriptors(given.fileno(), taken.fileno()):
            enhance_pcm(run, RATE, **options)
    return (tmp_path / 'out').read_bytes()


@pytest.mark.parametrize(('n', 'size'), [(5000, 100), (4321, 7), (50, 100), (0, 100)])
def test_blocks_join_to_the_output_for_the_whole(enhancer, n, size):
    wanted = expected(enhancer, pcm(n))
    live = LiveEnhancer(enhancer, RATE)
    assert_array_equal(live_output(live, pcm(n), size), wanted)
    assert live.num_samples == live.written == n


def test_the_latency_is_that_of_the_system_and_whatever_is_loud_is_clipped(enhancer):
    live = LiveEnhancer(enhancer, RATE)
    loud = np.full(4000, 32767, '<i2') * np.where(np.arange(4000) % 160 < 80, 1, -1).astype('<i2')
    found = live_output(live, loud, live.block)
    assert_array_equal(found, expected(enhancer, loud))
    assert live.block == enhancer.hop and live.latency_seconds == enhancer.latency_seconds
    assert f'algorithmic latency {1000 * enhancer.latency_seconds:.4g} ms' in live.report()


@pytest.mark.parametrize('rate', [8000, 44_100, 48_000])
def test_other_rates_are_resampled_both_ways(enhancer, rate):
    samples = pcm(rate // 2)
    live = LiveEnhancer(enhancer, rate)
    found = live_output(live, samples, live.block)
    enhancer.reset()
    there = audio.resample(samples / np.float32(32768), rate, RATE)
    back = audio.resample(np.concatenate([enhancer(there), enhancer.flush()]), RATE, rate)[:len(samples)]
    assert_allclose(found / 32768, np.clip(back, -1, 1), atol=1e-4)
    assert enhancer.latency_seconds < live.latency_seconds < enhancer.latency_seconds + 0.3


def test_an_odd_byte_is_dropped_with_one_line(run, enhancer, tmp_path, capfd):
    samples = pcm(1234)
    found = piped(run, tmp_path, samples.tobytes() + b'x')
    assert_array_equal(np.frombuffer(found, '<i2'), expected(enhancer, samples))
    lines = capfd.readouterr().err.splitlines()
    assert lines[0].startswith('live: 0.08 s at 16000 Hz') and lines[1].startswith('processing: ')
    assert lines[2:] == ['live: the input ends within a sample; its last byte was dropped']


def test_no_input_gives_no_output(run, tmp_path, capfd):
    assert piped(run, tmp_path, b'') == b''
    assert capfd.readouterr().err.splitlines()[0].startswith('live: 0.00 s')


def test_a_reader_that_leaves_ends_the_stream(run, tmp_path, capfd):
    (tmp_path / 'in').write_bytes(pcm(20_000).tobytes())
    reading, writing = os.pipe()
    os.close(reading)
    with open(tmp_path / 'in', 'rb') as given, descriptors(given.fileno(), writing):
        enhance_pcm(run, RATE)
    os.close(writing)
    assert capfd.readouterr().err.startswith('live: ')


def test_prints_do_not_reach_the_samples(run, tmp_path, capfd, monkeypatch):
    load = runs.load

    def chatty(*arguments, **options):
        os.write(1, b'a library says hello')
        return load(*arguments, **options)

    monkeypatch.setattr(runs, 'load', chatty)
    assert len(piped(run, tmp_path, pcm(300).tobytes())) == 600
    assert 'a library says hello' in capfd.readouterr().err


@pytest.mark.parametrize('side', [0, 1])
def test_a_terminal_is_refused(run, side):
    controlling, terminal = pty.openpty()
    with open(os.devnull, 'r+b') as other:
        ends = [other.fileno()] * 2
        ends[side] = terminal
        with descriptors(*ends), pytest.raises(UserError, match=f'standard {("input", "output")[side]} is a terminal'):
            enhance_pcm(run, RATE)
    os.close(controlling)
    os.close(terminal)


@pytest.mark.parametrize('kind', ['WAV', 'FLAC', 'OGG'])
def test_audio_files_are_refused(run, tmp_path, kind):
    soundfile.write(tmp_path / 'file', pcm(4000), RATE, format=kind)
    data = (tmp_path / 'file').read_bytes()
    with pytest.raises(UserError, match=f'(?i)standard input is a {kind} file, expected raw 16-bit samples'):
        piped(run, tmp_path, data)
    assert (tmp_path / 'out').read_bytes() == b''


@pytest.mark.parametrize('rate', [0, -16_000, 999, 10 ** 7])
def test_rates_out_of_range_are_refused(run, rate):
    with pytest.raises(UserError, match=f'--stdin-pcm={rate}: expected a sample rate from 1000'):
        enhance_pcm(run, rate)


# ---- as a process ----


def start(run, *options):
    command = [sys.executable, '-m', 'jax_diffse', 'enhance', '--workdir', str(run), '--stdin-pcm', str(RATE), *options]
    return subprocess.Popen(command, cwd=ROOT, env=environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                            stderr=subprocess.PIPE)


def test_a_pipe_gives_the_samples_of_the_whole_signal(run, enhancer):
    samples = pcm(9876)
    process = start(run)
    out, err = process.communicate(samples.tobytes(), timeout=120)
    assert process.returncode == 0, err
    # One step of 16 bits: the process compiles with other options than this one.
    assert_allclose(np.frombuffer(out, '<i2'), expected(enhancer, samples), atol=1)
    assert err.decode().splitlines()[0].startswith('live: 0.62 s at 16000 Hz on one core')


def test_ctrl_c_ends_an_open_pipe_with_the_report(run, enhancer):
    process = start(run)
    process.stdin.write(pcm(4000).tobytes())
    process.stdin.flush()
    received = threading.Event()
    final = 4000 - round(RATE * enhancer.latency_seconds) + enhancer.hop
    threading.Thread(target=lambda: (process.stdout.read(2 * final), received.set()), daemon=True).start()
    assert received.wait(120)  # samples come out while the input is open
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    lines = err.decode().splitlines()
    assert process.returncode == 130 and lines[-1] == 'interrupted' and lines[0].startswith('live: 0.25 s')
    assert 'Traceback' not in err.decode()
