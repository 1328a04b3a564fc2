"""Plans of steps for devices that are not at hand."""

import dataclasses
import json
import re
import subprocess
import sys

import jax
import pytest
from ml_collections import ConfigDict

from jax_diffse import cli, config
from jax_diffse.errors import UserError
from jax_diffse.planning import plan, remedies, table, targets
from jax_diffse.planning.programs import Cost

LIMITS = targets.Limits(1e12, 1e11, 1000.0, 1e9)
TARGET = targets.Target('v5e:2x2', 'tpu', [None] * 4, 1, LIMITS)


def made(peak=500.0, **fields):
    """A plan with this peak of memory."""
    known = {'what': plan.STEP, 'system': 'toy', 'target': 'v5e:2x2', 'devices': 4, 'hosts': 1, 'batch': 8,
             'seconds_of_audio': 3.0, 'compile_seconds': 2.0, 'flops': 1e9, 'moved': 1e8, 'collectives': {},
             'seconds': 0.01, 'basis': "compiler's estimate", 'utilisation': 0.1, 'examples_per_second': 800.0,
             'hours': 1.0, 'cores': 0.25, 'costs': [(0.005, 'a')], 'loops': [],
             'memory': {'arguments': 1.0, 'temporaries': 2.0, 'peak': peak, 'limit': LIMITS.memory}}
    return plan.Plan(**known | fields)


@pytest.mark.parametrize(('most', 'known'), [(1, 1), (7, 1), (8, 1), (7, 20), (100, 3), (0, 1), (0, 6)])
def test_the_largest_batch_is_found_whether_the_compiler_gives_up_or_the_memory_is_too_small(most, known):
    for gives_up in (True, False):
        tried = []

        def planned(size, gives_up=gives_up, tried=tried):
            tried.append(size)
            if size > most and gives_up:
                raise plan.DoesNotFitError('too large', None)
            return made(peak=999.0 if size <= most else 2000.0, batch=4 * size)

        found, best = plan.largest_batch(planned, known)
        assert found == most and (best.batch == 4 * most if most else best is None)
        assert len(tried) == len(set(tried)) <= 16  # every compilation takes minutes


@pytest.mark.parametrize(('message', 'expected'), [
    ("INTERNAL: Couldn't find output\ntile sizes",
     "^v5e:2x2: the compiler failed \\(INTERNAL: Couldn't find output tile sizes\\); the config is not at fault"),
    ('RESOURCE_EXHAUSTED: Used 20.0G of 15.7G hbm', '^needs 20.0 GiB on each device')])
def test_an_error_of_the_compiler_is_one_line(message, expected):
    class Program:
        def trace(self, *_):
            return self

        lower = trace

        def compile(self):
            raise jax.errors.JaxRuntimeError(message)

    with pytest.raises(UserError, match=expected) as error:
        plan._compiled(Program(), TARGET, ())
    assert '\n' not in str(error.value)


def small():
    return ConfigDict({'system': 'toy', 'model': {'network': {'dtype': 'float32', 'remat': False}},
                       'train': {'batch_size': 16, 'accumulate': 1}}).lock()


def needs(config):
    """Bytes that a made-up step needs with this config: parts of the batch, half in bfloat16, half with remat."""
    network = config.model.network
    return 6400 / config.train.accumulate / (2 if network.dtype == 'bfloat16' else 1) / (2 if network.remat else 1)


@pytest.mark.parametrize(('limit', 'expected'), [
    (3200, {'dtype=bfloat16': True, 'remat=True': True, 'accumulate=2': True}),
    (1600, {'dtype=bfloat16': False, 'remat=True': False, 'accumulate=2': False, 'accumulate=4': True}),
    (400, {'dtype=bfloat16': False, 'remat=True': False, 'accumulate=2': False, 'accumulate=4': False,
           'dtype=bfloat16 remat=True accumulate=4': True}),
    (100, {'dtype=bfloat16': False, 'remat=True': False, 'accumulate=2': False, 'accumulate=4': False,
           'dtype=bfloat16 remat=True accumulate=4': False})])
def test_what_would_fit_has_been_tried(limit, expected):
    """On 4 devices, each has 4 of 16 examples: they divide into 2 or 4 parts."""
    target = TARGET._replace(limits=LIMITS._replace(memory=limit))

    def planned(config, target):
        memory = {'arguments': 0, 'temporaries': 0, 'peak': needs(config), 'limit': target.limits.memory}
        return dataclasses.replace(made(), memory=memory)

    found = {words.replace('--config.model.network.', '').replace('--config.train.', ''): fits is not None
             for words, fits in remedies.tried(small(), target, planned)}
    assert found == expected


def test_the_table_names_what_is_an_estimate():
    collectives = {'all-reduce': Cost(0, 2e6, 3)}
    words = table.text(made(collectives=collectives, loops=[(0.004, 7, 'b/while')]), TARGET)
    for expected in ('4 in 1 host', '8 x 3 s, 2 per device', '3 all-reduce of 2 MB', '10 ms (compiler',
                     'not measured)', '10 % of 1 TFLOP/s', '5.000 ms  50.0 %  a', '4.000 ms  40.0 %  7 x b/while'):
        assert expected in words
    assert '0.25 cores per device, so that 16 cores feed 64 devices' in words
    assert 'does not fit' in table.text(made(peak=1001.0), TARGET)
    assert json.loads(json.dumps(table.as_json(made(collectives=collectives))))['collectives'] == {
        'all-reduce': {'count': 3, 'bytes': 2e6}}


@pytest.mark.parametrize(('arguments', 'message'), [
    ([], 'expected either --topology, or --gpus and --gpu'),
    (['--topology', 'v5e:2x2', '--gpus', '8', '--gpu', 'h100'], 'expected either --topology, or --gpus and --gpu'),
    (['--gpus', '8'], 'expected either --topology, or --gpus and --gpu'),
    (['--topology', 'v5e:3x3'], 'no such TPU slice, expected one of v5e:1x1, v5e:2x2'),
    (['--topology', 'v9:2x2'], 'no such TPU slice, expected one of v4:2x2x1 to '),
    (['--gpus', '8', '--gpu', 'k80'], '--gpu=k80: unknown, expected one of a100, h100, h200'),
    (['--gpus', '12', '--gpu', 'h100'], '--gpus=12: expected 1 to 8, or a multiple of 8'),
    (['--topology', 'v5e:2x2', '--batch-per-device', '0'], '--batch-per-device=0: expected a positive number'),
    (['--topology', 'v5e:2x2', '--steps', '3'], '--steps needs --enhance'),
    (['--topology', 'v5e:2x2', '--json', __file__ + '/plan.json'], 'plan.json: cannot be written')])
def test_mistakes_are_named_before_anything_is_compiled(arguments, message):
    with pytest.raises(UserError, match=message.replace('(', r'\(')):
        cli.run(['plan', '--config', 'dccrn:quick', *arguments])


@pytest.mark.parametrize(('arguments', 'package', 'message'), [
    (['--topology', 'v5e:2x2'], 'libtpu', r"--topology needs the TPU compiler: pip install 'jax\[tpu\]'"),
    (['--gpus', '1', '--gpu', 'h100'], 'jax_cuda', r"--gpus needs the GPU compiler: pip install 'jax\[cuda13\]'")])
def test_a_missing_compiler_is_one_line_that_installs_it(monkeypatch, arguments, package, message):
    real = targets.util.find_spec
    monkeypatch.setattr(targets.util, 'find_spec', lambda name: None if name.startswith(package) else real(name))
    with pytest.raises(UserError, match=message):
        cli.run(['plan', '--config', 'dccrn:quick', *arguments])


def test_clocks_are_those_of_the_published_peaks():
    """FLOP/s = 2 x clock x multiply-adds of all matrix units: 128 x 128 each, or 256 x 256 of v6e (Google's pages)."""
    units = {'v4': 4 * 128**2, 'v5e': 4 * 128**2, 'v5p': 8 * 128**2, 'v6e': 2 * 256**2 * 2}
    for kind, limits in targets.TPUS.items():
        assert limits.flops == pytest.approx(2 * limits.clock * units[kind], rel=0.01), kind


def test_products_that_need_autotuning_of_triton_are_planned():
    """Of the small DCCRN on an A100 they were refused, `Couldn't find output tile sizes`."""
    pytest.importorskip('jax_cuda13_plugin', reason="needs the GPU compiler: pip install 'jax[cuda13]'")
    command = [sys.executable, '-m', 'jax_diffse', 'plan', '--config', 'dccrn:quick', '--gpus', '1', '--gpu', 'a100']
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0 and 'training step on 1 x a100' in done.stdout, done.stderr[-2000:]


def test_every_gpu_has_its_description():
    for kind, limits in targets.GPUS.items():
        text = targets.resources.files('jax_diffse.planning').joinpath(f'{kind}.txt').read_text()
        values = dict(line.split(':', 1) for line in text.replace('{', '').splitlines() if ':' in line)
        found = {name.strip(): value.strip() for name, value in values.items()}
        assert float(found['memory_bandwidth']) == pytest.approx(limits.bandwidth, rel=0.01)
        assert float(found['device_memory_size']) == pytest.approx(limits.memory, rel=0.08)


# ------------------------------------------------------------------------------------------------------ with libtpu


@pytest.fixture(scope='module')
def tpu():
    pytest.importorskip('libtpu', reason='the TPU compiler is the extra dev')
    return targets.tpu


@pytest.mark.parametrize('topology', ['v5e:1x1', 'v5e:2x2'])
def test_a_step_of_a_toy_is_planned_for_a_tpu(tpu, topology, monkeypatch):
    from jax_diffse import systems
    from tests import toys

    monkeypatch.setitem(systems.SYSTEMS, 'toy', toys.Trainable)
    loaded = config.load('dccrn:quick').unlock()
    loaded.system, loaded.model = 'toy', ConfigDict({})
    loaded.train.batch_size = 8
    target = tpu(topology)
    found = plan.plan_step(loaded, target)
    devices = {'v5e:1x1': 1, 'v5e:2x2': 4}[topology]
    assert (found.devices, found.hosts, found.batch) == (devices, 1, 8) and found.fits
    assert found.seconds > 0 and found.flops > 0 and found.memory['arguments'] > 0
    assert bool(found.collectives) == (devices > 1)
    assert found.utilisation == pytest.approx(found.flops / found.seconds / 197e12)
    assert sum(seconds for seconds, _ in found.costs) <= found.seconds * 1.0001
    crop = loaded.train.crop_seconds * 16_000  # samples; 8 of them are read in the time of a step
    assert found.cores == pytest.approx(8 * crop / found.seconds / plan.SAMPLES_PER_CORE / devices)
    times = [seconds for seconds, _ in found.costs]
    assert times == sorted(times, reverse=True) and all(a >= 0 for a in times)


@pytest.mark.parametrize('system', ['Toy', 'Refiner'])
def test_the_enhancement_of_a_toy_is_planned_for_a_tpu(tpu, system, monkeypatch):
    """No device talks to another one; a refiner has a further input."""
    from jax_diffse import systems
    from tests import toys

    monkeypatch.setitem(systems.SYSTEMS, 'toy', getattr(toys, system))
    loaded = ConfigDict({'system': 'toy', 'model': {}})
    found = plan.plan_enhancement(loaded, tpu('v5e:2x2'), 2, 0.5)
    assert (found.what, found.batch, found.hours) == (plan.ENHANCEMENT, 8, None) and not found.collectives
    inputs = 2 * 8000 * 4 * (1 + (system == 'Refiner'))  # bytes of the waveforms on a device, besides their settings
    assert inputs <= found.memory['arguments'] < 1.2 * inputs


def test_a_batch_that_does_not_divide_is_refused(tpu):
    with pytest.raises(UserError, match=r'config.train.batch_size: 15 is not a multiple of 4'):
        plan.plan_step(config.load('dccrn'), tpu('v5e:2x2'))


@pytest.mark.parametrize(('arguments', 'message'), [
    (['--config.parallel.mapper=pmap'], 'config.parallel.mapper=pmap: plans are made with shard_map'),
    (['--enhance', '--steps', '3'], '--steps=3: Dccrn does not sample'),
    (['--enhance', '--seconds', '0.00001'], '--seconds=1e-05: expected a sample or more at 16000 Hz')])
def test_what_the_system_does_not_take_is_refused_before_anything_is_compiled(tpu, monkeypatch, arguments, message):
    monkeypatch.setattr(plan, '_compiled', None)  # a call would be an error of another kind
    with pytest.raises(UserError, match=message):
        cli.run(['plan', '--config', 'dccrn:quick', '--topology', 'v5e:2x2', *arguments])


def test_a_chain_has_a_plan_for_each_stage_by_name(tpu, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(plan, 'plan_step', lambda config, target: made())
    out = tmp_path / 'new' / 'plans.json'
    cli.run(['plan', '--config', 'dr_diffuse:quick', '--topology', 'v5e:1x1', '--json', str(out)])
    names = ['c_gen', 'diffusion', 'refiner']
    assert re.findall(r'^stage (.*):$', capsys.readouterr().out, re.MULTILINE) == names
    assert [found['stage'] for found in json.loads(out.read_text())] == names


def test_slices_of_every_kind_are_described(tpu):
    for kind in targets.TPUS:
        found = tpu(f'{kind}:{targets.SHAPES[kind][1]}')
        assert len(found.devices) >= 4 and len({device.device_kind for device in found.devices}) == 1
        assert {device.platform for device in found.devices} == {'tpu'}
