"""The benchmark command: its arithmetic, its measurements of tiny systems, and the failures of its jobs."""

import copy
import itertools
import json
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks import __main__ as command
from benchmarks import job, measure, pipeline, plan, report, scaling
from benchmarks import systems as of_systems
from benchmarks.figures import LeftOut, figure
from jax_diffse import files, systems
from jax_diffse.errors import UserError
from jax_diffse.systems.base import Sampling
from tests import toys

HARDWARE = {'cpu': 'a CPU', 'cores': 2, 'usable_cores': 2, 'memory': 8_000_000_000, 'platform': 'cpu', 'device': 'cpu',
            'devices': 1, 'device_memory': None}
MACHINE = {'date': '2026-01-01T00:00:00+00:00', 'revision': None, 'hardware': HARDWARE, 'versions': {'python': '3'},
           'calibration': {'what': 'product', 'value': 0.1, 'unit': 's', 'repeats': 5}}


class Sampler(Sampling, toys.Trainable):
    default_steps, check_steps = 3, toys.Stepped.check_steps


def item(value, unit='s', quantity='time', subject='dccrn', what='forward', part='systems', **settings):
    return {'part': part, **figure(subject, quantity, what, value, unit, 3, settings)}


def made(*figures, calibration=0.1):
    found = {'format': report.FORMAT, 'complete': True, **copy.deepcopy(MACHINE), 'left_out': {}, 'failures': {}}
    found['calibration']['value'] = calibration
    return found | {'figures': list(figures)}


# --------------------------------------------------------------------------------------------------------------- slopes


@pytest.mark.parametrize('power', [0.0, 1.0, 1.5])
def test_the_slope_of_a_power_is_its_exponent(power):
    steps = [item(3 * size**power, part='scaling', subject='seconds', what=str(size), seconds=size, batch=1)
             for size in (1, 2, 4, 8)]
    [found] = report.slopes(steps + [item(9.0)])
    assert found['value'] == pytest.approx(power, abs=1e-9)
    assert found['settings'] == {'seconds': [1, 2, 4, 8], 'batch': 1} and found['unit'] == '1'


def test_the_slope_is_that_of_least_squares():
    # By hand: x = 0, 1, 2 and y = 0, 2, 1 in powers of two; slope = sum (x - 1)(y - 1) / sum (x - 1)^2 = 1 / 2.
    steps = [item(2.0**y, part='scaling', subject='batch', batch=2**x) for x, y in ((0, 0), (1, 2), (2, 1))]
    assert report.slopes(steps)[0]['value'] == pytest.approx(0.5)


def test_there_is_no_slope_of_one_point():
    assert report.slopes([item(1.0, part='scaling', subject='devices', devices=1)]) == []


# --------------------------------------------------------------------------------------------------------------- ratios


def test_ratios_as_they_are_and_by_the_calibration():
    # The new machine's product takes twice as long: it is half as fast.
    old = made(item(1.0), item(30.0, '1/s', 'rate'), item(100, 'B', 'memory'), calibration=0.1)
    new = made(item(3.0), item(15.0, '1/s', 'rate'), item(150, 'B', 'memory'), calibration=0.2)
    found = {row['quantity']: (row['ratio'], row['normalised']) for row in report.ratios(new, old)}
    assert found == {'time': (3.0, pytest.approx(1.5)), 'rate': (0.5, pytest.approx(1.0)), 'memory': (1.5, None)}


def test_unequal_settings_units_and_parts_are_not_compared(tmp_path):
    old = made(item(1.0, batch=2, seconds=3), item(1.0, batch=4), item(1.0, part='scaling'), item(0, 'B', what='none'))
    new = made(item(2.0, batch=1, seconds=3), item(2.0, '1/s', batch=4), item(2.0), item(5, 'B', what='none'),
               item(6.0, seconds=3, batch=2))
    [row] = report.ratios(new, old)  # the last one, whatever the order of its settings
    assert row['ratio'] == 6.0
    report.write(tmp_path, new, old)
    assert json.loads((tmp_path / 'benchmarks.json').read_text())['against']['not_compared'] == 4
    text = (tmp_path / 'benchmarks.md').read_text()
    assert '| systems | dccrn | time | forward | s | 1 | 6 | 6.000 | 6.000 |' in text


@pytest.mark.parametrize(('text', 'reason'), [
    ('{"format": 1, "figures": [', 'Expecting value'), ('[1, 2]', 'indices must be integers'),
    ('{"loss": 3}', "'format' is missing"), ('{"format": 99}', 'format 99'), ('\ufeff', 'BOM'),
    (json.dumps(made({'value': 1.0})), "'part' is missing"), (json.dumps(made(calibration=0)), 'not numbers'),
    (json.dumps(made(item(1.0) | {'value': 'fast'})), 'not numbers'),
])
def test_an_invalid_reference_is_refused_before_anything_is_measured(tmp_path, text, reason):
    (tmp_path / 'earlier.json').write_text(text, encoding='utf-8')
    with pytest.raises(UserError, match=f'^--against=.*earlier.json: not a complete benchmarks.json.*{reason}'):
        command.main(['--against', str(tmp_path / 'earlier.json'), '--output', str(tmp_path / 'out')])
    assert not (tmp_path / 'out').exists()


# -------------------------------------------------------------------------------------------------------------- writing


def test_an_interrupted_run_leaves_the_files_whole(tmp_path, monkeypatch):
    report.write(tmp_path, made(item(1.0)), None)
    before = {path.name: path.read_text() for path in tmp_path.iterdir()}

    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(files.writing.os, 'replace', interrupted)
    with pytest.raises(KeyboardInterrupt):
        report.write(tmp_path, made(item(2.0)), None)
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == before
    assert report.load(tmp_path / 'benchmarks.json')['figures'][0]['value'] == 1.0


def test_tables_have_a_row_per_subject_and_a_column_per_program():
    lines = report.table([item(2.5e6, 'B', 'temporaries'), item(4e9, 'B', 'temporaries', what='step'),
                          item(1e6, 'B', 'temporaries', 'segan', 'step')])
    assert lines == ['| temporaries (MB) | forward | step |', '|---|--:|--:|', '| dccrn | 2.5 | 4000 |',
                     '| segan |  | 1 |']


# ---------------------------------------------------------------------------------------------------------- one command


def run_with(monkeypatch, tmp_path, outcomes, *flags):
    """Runs the command on jobs with the given endings, by part; others measure one figure. -> (status, JSON, parts)."""
    started = []

    def start(each):
        started.append(str(each))
        if each.part == 'machine':
            return job.Outcome([{'part': 'machine', **copy.deepcopy(MACHINE)}], '', '')
        return outcomes.get(str(each), job.Outcome([item(1.0, '1', 'x', str(each), part=each.part)], '', ''))

    monkeypatch.setattr(job, 'start', start)
    status = command.main(['--output', str(tmp_path), *flags])
    return status, json.loads((tmp_path / 'benchmarks.json').read_text()), started


def test_a_failure_keeps_other_figures_and_sets_the_status(monkeypatch, tmp_path):
    outcomes = {'systems segan': job.Outcome([item(7.0, subject='segan')], '', 'killed'),
                'pipeline': job.Outcome([], 'no TensorFlow', '')}
    status, found, started = run_with(monkeypatch, tmp_path, outcomes, '--systems', 'segan,dccrn')
    assert status == 1 and found['complete']
    assert found['failures'] == {'systems segan': 'killed'} and found['left_out'] == {'pipeline': 'no TensorFlow'}
    assert {'segan', 'systems dccrn', 'streaming'} <= {x['subject'] for x in found['figures']}
    text = (tmp_path / 'benchmarks.md').read_text()
    assert 'systems segan failed: killed' in text and 'pipeline left out: no TensorFlow' in text
    assert {name.partition(' ')[0] for name in started} == {'machine', *plan.PARTS}


def test_synthetic_leaves_out_the_pipeline_which_is_no_failure(monkeypatch, tmp_path):
    status, found, started = run_with(monkeypatch, tmp_path, {}, '--synthetic', '--only', 'pipeline,losses')
    assert status == 0 and started == ['machine', 'losses'] and found['left_out'] == {'pipeline': '--synthetic'}


def test_results_before_an_interruption_are_kept(monkeypatch, tmp_path):
    class Interrupted(dict):
        def get(self, name, default):
            if name == 'losses':
                raise KeyboardInterrupt
            return default

    with pytest.raises(KeyboardInterrupt):
        run_with(monkeypatch, tmp_path, Interrupted(), '--only', 'metrics,losses')
    found = json.loads((tmp_path / 'benchmarks.json').read_text())
    assert not found['complete'] and [x['part'] for x in found['figures']] == ['metrics']
    assert 'Not complete' in (tmp_path / 'benchmarks.md').read_text()


@pytest.mark.parametrize(('flags', 'line'), [
    (['--systems', 'dccrn,wavenet'], "--systems: 'wavenet' does not exist, expected some of c_gen, "),
    (['--only', 'speed'], "--only: 'speed' does not exist, expected some of systems, "),
    (['--speech', 'folder'], '--speech and --noise go together'),
    (['--against', 'none.json'], '--against=none.json: cannot be read (No such file or directory)'),
])
def test_user_errors_are_one_line(flags, line, tmp_path):
    with pytest.raises(UserError) as caught:
        command.main([*flags, '--output', str(tmp_path)])
    assert str(caught.value).startswith(line) and '\n' not in str(caught.value)


def test_devices_are_simulated_on_cpus_and_real_elsewhere():
    args = command._parse(['--only', 'scaling'])

    def over_devices(hardware):
        jobs = [each for each in plan.jobs(args, plan.FULL, hardware) if 'devices' in each.label]
        return [(each.settings['points'], each.simulated) for each in jobs]

    assert over_devices(HARDWARE) == [([1], 1), ([2], 2), ([4], 4)]
    assert over_devices(HARDWARE | {'platform': 'gpu', 'devices': 6}) == [([1], 0), ([2], 0), ([4], 0)]


# -------------------------------------------------------------------------------------------------------- measurements


def test_memory_and_operations_of_a_matrix_product():
    n = 64  # 2 n^3 operations on two matrices of 4 n^2 bytes
    square = jnp.ones((n, n))
    found = {x['quantity']: x for x in measure.program('a', 'product', jax.jit(jnp.matmul), (square, square), 3, {})}
    values = {name: found[name]['value'] for name in ('operations', 'arguments', 'outputs')}
    assert values == {'operations': 2 * n**3, 'arguments': 2 * 4 * n * n, 'outputs': 4 * n * n}
    assert found['time']['repeats'] == 3 and found['time']['value'] > 0 and found['compilation']['value'] > 0


def test_a_median_is_over_the_repeats_but_for_slow_functions(monkeypatch):
    def seconds(*durations):
        times = itertools.chain.from_iterable((0.0, duration) for duration in durations)
        monkeypatch.setattr(measure.time, 'perf_counter', lambda: next(times))
        return measure.timed(lambda: (), 5)

    assert seconds(1.0, 9.0, 2.0, 4.0, 3.0) == (3.0, 5)
    assert seconds(15.0, 25.0) == (20.0, 2)


@pytest.mark.parametrize(('system', 'counts', 'columns'), [
    (toys.Trainable(), [None], ['enhancement']),
    (Sampler(), [1, 2], ['enhancement, 1 step', 'enhancement, 2 steps'])])
def test_a_system_is_measured_whole(monkeypatch, system, counts, columns):
    monkeypatch.setattr(of_systems, 'make', lambda config, dtype: system)
    monkeypatch.setattr(of_systems, 'evaluation', lambda *_: (jax.jit(jnp.matmul), (jnp.ones((8, 8)),) * 2))
    figures = list(of_systems.run('toy', 'dccrn', 'float32', 2, 0.1, [1, 2], 1))
    found = {(x['quantity'], x['what']): x for x in figures}
    assert [what for quantity, what in found if quantity == 'time'] == ['forward', *columns, 'training step']
    params = jax.eval_shape(system.init, jax.random.key(0))['params']
    assert found['parameters', 'all groups']['value'] == sum(leaf.size for leaf in jax.tree.leaves(params))
    for what, count in zip(columns, counts):
        factor, seconds = found['real-time factor', what], found['time', what]
        assert factor['value'] == pytest.approx(seconds['value'] / 0.2)  # 2 x 0.1 s
        assert seconds['settings'].get('steps') == count
        assert found['outputs', what]['value'] == 2 * 1600 * 4  # a float32 waveform each
    assert found['peak memory', 'process']['value'] > 50e6  # JAX alone has more


def test_the_batch_grows_with_the_devices(monkeypatch):
    monkeypatch.setattr(scaling, 'Dccrn', lambda **_: toys.Trainable())
    [step, rate] = [x for x in scaling.run('devices', [2], 'float32', 1) if x['quantity'] in (
        'time', 'examples per second')]
    assert step['settings']['batch'] == 4 and step['settings']['devices'] == 2
    assert rate['value'] == pytest.approx(4 / step['value'])


def test_every_system_of_the_package_has_a_benchmark_that_evaluates_its_network():
    built = {name: of_systems.make(plan.quick(config), 'float32')
             for name, config in plan.SYSTEMS.items()}
    assert {type(system) for system in built.values()} == set(systems.SYSTEMS.values())
    assert [built[name].stage for name in ('c_gen', 'diffusion', 'refiner')] == ['c_gen', 'diffusion', 'refiner']
    for name in ('c_gen', 'diffusion', 'dccrn', 'segan', 'diffgmm', 'diffiner_compact', 'flowse'):
        system = built[name]
        inputs = of_systems.noise(system, 2, 0.25)
        function, args = of_systems.evaluation(system, measure.drawn(system), inputs)
        assert 2 in jax.tree.leaves(jax.eval_shape(function, *args))[0].shape, name


def test_drawn_variables_have_the_shapes_of_drawn_ones_and_sound_statistics():
    system = toys.Trainable()
    drawn, expected = measure.drawn(system), jax.eval_shape(system.init, jax.random.key(0))
    assert jax.tree.map(jnp.shape, drawn) == jax.tree.map(lambda leaf: leaf.shape, expected)
    variances = [leaf for path, leaf in jax.tree_util.tree_leaves_with_path(drawn) if path[-1].key == 'var']
    assert variances and all(np.all(np.asarray(leaf) == 1) for leaf in variances)


# ----------------------------------------------------------------------------------------------------------------- jobs


def test_a_job_brings_its_figures_from_another_process():
    outcome = job.start(plan.Job('metrics', {'files': 1}))
    assert outcome.failure == outcome.left_out == ''
    assert {'pesq_wb', 'stoi', 'all'} <= {x['subject'] for x in outcome.figures}
    assert all(x['part'] == 'metrics' and x['value'] > 0 for x in outcome.figures)


def test_a_job_that_fails_says_why():
    settings = {'axis': 'devices', 'points': [64], 'dtype': 'float32', 'repeats': 1}
    outcome = job.start(plan.Job('scaling', settings, simulated=2))
    assert outcome == job.Outcome([], '', 'RuntimeError: 64 devices are needed, there are 2')


def test_a_process_that_is_killed_is_a_failure():
    assert 'memory' in job.ended_by(-9) and job.ended_by(-11) == 'ended by signal 11'


def test_without_tensorflow_the_pipeline_is_left_out(monkeypatch):
    monkeypatch.setitem(sys.modules, 'jax_diffse.data.pipeline', None)  # an import of it fails
    monkeypatch.delattr('jax_diffse.data.pipeline', raising=False)
    with pytest.raises(LeftOut, match='TensorFlow cannot be imported'):
        list(pipeline.run(1.0, '', ''))


PLAN = {'part': 'plans', 'what': 'training step', 'basis': "compiler's estimate", 'batch': 32, 'devices': 4,
        'flops': 1e12, 'seconds': 0.05, 'utilisation': 0.1, 'examples_per_second': 640.0, 'fits': True,
        'compile_seconds': 61.0, 'memory': {'temporaries': 2e9, 'peak': 3e9},
        'collectives': {'all-reduce': {'count': 3, 'bytes': 1}}}
PLANNER = {'date': '2026-01-02T03:04', 'revision': 'R', 'versions': {'jax': '0'}}


def test_plans_are_a_table_for_every_target_and_say_that_nothing_was_measured():
    from benchmarks import plans

    made = (PLAN | {'name': 'a', 'steps': None, 'target': 'v5e:2x2'},
            PLAN | {'name': 'b', 'steps': 6, 'target': '8 x h100', 'what': 'enhancement', 'basis': 'roofline bound'})
    found = {plan['name']: plans.record(job.Outcome([plan], '', ''), PLANNER) for plan in made}
    text = plans.markdown(found | {'x on y': plans.record(job.Outcome([], '', 'why'), PLANNER)})
    assert '**Nothing here was measured on a device.**' in text and 'x on y failed: why' in text
    assert '## Training step on v5e:2x2' in text and "Time: compiler's estimate." in text
    assert '| a | 8 | 1e+12 | 50 | 10 % | 640 | 2.00 | 3.00 | yes | 3 | 61 | 2026-01-02 | R | 0 |' in text
    assert '## Enhancement on 8 x h100' in text and '| b, 6 steps | 8 |' in text


def test_plans_stay_until_they_are_made_again(tmp_path, monkeypatch):
    def run(systems, seconds):
        def start(each):
            if each.part == 'machine':
                return job.Outcome([PLANNER], '', '')
            return job.Outcome([PLAN | each.settings | {'seconds': seconds}], '', '')

        monkeypatch.setattr(command.job, 'start', start)
        command.main(['--plan', '--output', str(tmp_path), '--targets', 'v5e:2x2', '--systems', systems])
        return {name: found['seconds'] for name, found in
                json.loads((tmp_path / 'plans.json').read_text(encoding='utf-8')).items()}

    assert run('segan,c_gen', 1.0) == {'segan on v5e:2x2': 1.0, 'c_gen on v5e:2x2': 1.0}
    assert run('c_gen', 2.0) == {'segan on v5e:2x2': 1.0, 'c_gen on v5e:2x2': 2.0}
    (tmp_path / 'plans.json').write_text('{"plans": []}', encoding='utf-8')
    with pytest.raises(UserError, match='no plans of this version'):
        run('c_gen', 3.0)


def test_every_system_is_planned_on_every_target():
    from benchmarks import plan, plans

    made = [job.settings for job in plans.jobs(list(plan.SYSTEMS), ['v5e:2x2', '8 x h100'])]
    steps = {(job['name'], job['target']) for job in made if not job['enhance']}
    assert len(steps) == 2 * len(plan.SYSTEMS)
    assert {job['name']: job['steps'] for job in made if job['enhance']} == plans.ENHANCEMENTS
