import csv
import dataclasses
import json
import math
import pathlib

import jax
import numpy as np
import pytest
from matplotlib.figure import Figure
from numpy.testing import assert_allclose

from configs import diffgmm, diffiner
from jax_diffse import systems
from jax_diffse.errors import UserError
from jax_diffse.evaluation import bootstrap, evaluator
from jax_diffse.evaluation.cache import json_safe
from jax_diffse.evaluation.report import curves
from jax_diffse.evaluation.sweep import grid, parse_setting
from jax_diffse.evaluation.sweep_results import Point, SweepResults
from jax_diffse.inference.enhancer import Enhancer
from jax_diffse.metrics import score
from jax_diffse.runs import Run
from tests import toys
from tests.evaluation.spread import sweep
from tests.evaluation.test_evaluate import ToySource, strict_json, toy_run

pytestmark = pytest.mark.usefixtures('drawn_once')
METRICS = ('sdr', 'llr')


class Drawn(toys.Stepped):
    """Divides by the number of steps and adds a draw."""

    def process(self, x, key, steps):
        noise = jax.vmap(lambda k: jax.random.normal(k, x.shape[1:]))(key)
        return super().process(x, key, steps) + 0.05 * noise


def named_run(system, name):
    return dataclasses.replace(toy_run(system), workdir=pathlib.Path(name), hash=name)


def run_sweep(tmp_path, variants, source=None, **options):
    source = source or ToySource(list('abc'))
    return sweep(variants, source, tmp_path / 'out', **{'metrics': METRICS, 'workers': 0, 'data': 'toy', **options})


def real_run(config):
    """A run of a real system, without weights."""
    system = systems.build(config.system, config.model)
    return Run(system, {}, config, 1, 'abc', pathlib.Path('runs/real'))


def _rows(path):
    with path.open(newline='') as file:
        return list(csv.DictReader(file))


def _sdr(source, i, waveform):
    return score(source.read(i)[0], waveform, 16000, ('sdr',)).values['sdr']


def _sdrs(source, divisor):
    """The SDR of noisy / divisor, computed by the metric."""
    return np.array([_sdr(source, i, source.read(i)[1] / divisor) for i in range(len(source))])


# ---- intervals ----


def test_intervals_agree_with_the_normal_approximation():
    values = np.random.default_rng(1).normal(3, 2, 400)
    low, high = bootstrap.interval(values)
    half = 1.96 * values.std(ddof=1) / 20
    assert_allclose([low, high], [values.mean() - half, values.mean() + half], atol=0.1 * half)
    assert bootstrap.interval(values) == (low, high)  # the same at every call


def test_intervals_cover_the_mean_as_often_as_they_say():
    rng, hits = np.random.default_rng(2), 0
    for _ in range(200):
        low, high = bootstrap.interval(rng.exponential(1.0, 60))
        hits += low <= 1.0 <= high
    assert 0.88 <= hits / 200 <= 0.985  # 0.95, a little less for skewed values (Efron & Tibshirani 1993, chapter 13)


@pytest.mark.parametrize('count', [0, 1])
def test_too_few_files_have_no_interval(count):
    found = bootstrap.estimate(np.full((1, count), 2.0))
    assert math.isnan(found.low) and math.isnan(found.high) and found.files == count
    assert math.isnan(found.mean) == (count == 0)


def test_files_without_a_value_are_left_out_and_seeds_are_spread():
    values = np.array([[1.0, 2.0, math.nan, 4.0], [3.0, 2.0, 7.0, 8.0]])
    found = bootstrap.estimate(values)
    assert (found.files, found.mean) == (3, 20 / 6)
    assert_allclose(found.seed_std, np.std([7 / 3, 13 / 3], ddof=1))


def test_differences_are_paired():
    rng = np.random.default_rng(3)
    base = rng.normal(0, 10, 50)  # files differ far more than settings do
    better = base + 0.2 + 0.1 * rng.standard_normal(50)
    found = bootstrap.difference(better[None], base[None])
    assert 0 < found.low < found.mean < found.high < 0.3 and (found.better, found.files) == (np.sum(better > base), 50)
    turned = bootstrap.difference(better[None], base[None], sign=-1)
    assert (turned.better, turned.worse, turned.mean) == (found.worse, found.better, found.mean)


# ---- the grid of settings ----


def test_the_grid_is_a_product_and_runs_without_a_sampler_appear_once():
    config = diffgmm.get_config('quick')
    variants = grid([real_run(config), toy_run(toys.LowPass())], (1, 4),
                    {'temperature': ['0', '0.5'], 'noise_scale': [0.1]})
    assert [(v.steps, v.changes) for v in variants] == [
        (steps, {'temperature': temperature, 'noise_scale': 0.1}) for temperature in (0.0, 0.5) for steps in (1, 4)
    ] + [(None, {})]
    assert [v.run.system.temperature for v in variants[:4]] == [0.0, 0.0, 0.5, 0.5]


@pytest.mark.parametrize(('variant', 'key'), [('quick', 'diffiner_plus.eta_b'), ('quick,diffiner', 'diffiner.eta_b')])
def test_keys_of_the_sampler_are_those_of_the_chosen_one(variant, key):
    found, = grid([real_run(diffiner.get_config(variant))], values={'sampler.eta_b': ['0.3']})
    assert found.changes == {key: 0.3} and found.steps == 10
    assert getattr(found.run.system, key.split('.')[0]).eta_b == 0.3
    floor, = grid([real_run(diffiner.get_config(variant))], values={'sampler.floor': ['0.01']})
    assert floor.run.system.floor == 0.01


@pytest.mark.parametrize(('steps', 'values', 'message'), [
    ((0,), {}, 'steps=0: '),
    ((11,), {}, 'steps=11: '),
    ((None,), {'network.components': ['2']}, 'runs/real: network.components: does not fit the trained weights'),
    ((None,), {'sampler.nonsense': ['2']}, 'config.model.nonsense'),
    ((None,), {'temperature': ['-1']}, 'temperature'),
])
def test_settings_that_a_run_does_not_take_are_refused_before_anything_runs(steps, values, message):
    with pytest.raises(UserError) as error:
        grid([real_run(diffgmm.get_config('quick'))], steps, values)
    assert message in str(error.value) and '\n' not in str(error.value)


def test_nothing_to_vary_is_refused():
    with pytest.raises(UserError, match='toy: does not sample'):
        grid([toy_run(toys.LowPass())], (1, 2))


@pytest.mark.parametrize(('text', 'parsed'), [
    ('runs/a', ('runs/a', {}, None)),
    ('runs/a@steps=6', ('runs/a', {}, 6)),
    ('runs/a@guidance=none,steps=25,x.y=2', ('runs/a', {'guidance': 'none', 'x.y': '2'}, 25))])
def test_settings_are_parsed(text, parsed):
    assert parse_setting(text) == parsed


@pytest.mark.parametrize('text', ['runs/a@six', 'runs/a@steps=six'])
def test_malformed_settings_are_refused(text):
    with pytest.raises(UserError, match=text):
        parse_setting(text)


# ---- measurements ----


class Twice(toys.Stepped):
    """Evaluates its network twice per step."""

    def evaluations(self, steps):
        return 2 * steps


def test_systems_are_compared_at_their_network_evaluations(tmp_path):
    """In the results, in the tables and along the axis of the figures."""
    points = run_sweep(tmp_path, grid([toy_run(toys.Stepped()), named_run(Twice(), 'runs/twice')], (1, 2)))['points']
    expected = [('toy, 1 step', 1, 1), ('toy, 2 steps', 2, 2), ('twice, 1 step', 1, 2), ('twice, 2 steps', 2, 4)]
    assert [(point['label'], point['sampling_steps'], point['network_evaluations']) for point in points] == expected
    with open(tmp_path / 'out' / 'sweep.csv') as file:
        rows = [row for row in csv.DictReader(file) if row['metric'] == 'sdr']
    assert [(row['run'], row['nfe']) for row in rows] == [('toy', '1'), ('toy', '2'), ('twice', '2'), ('twice', '4')]


def test_every_setting_is_measured_on_the_same_files(tmp_path):
    source, other = ToySource(list('abc')), named_run(toys.LowPass(), 'runs/low_pass')
    summary = run_sweep(tmp_path, grid([toy_run(toys.Stepped()), other], (2, 1, 5)), source)
    assert json_safe(summary) == strict_json(tmp_path / 'out' / 'sweep.json')
    points = summary['points']
    assert [point['label'] for point in points] == ['toy, 2 steps', 'toy, 1 step', 'toy, 5 steps', 'low_pass']
    expected = [_sdrs(source, divisor) for divisor in (2, 1, 5)]
    expected.append(np.array([_sdr(source, i, Enhancer(other)(source.read(i)[1], 16000)) for i in range(3)]))
    for point, sdr in zip(points, expected, strict=True):
        found = point['stages']['enhanced']['sdr']
        assert_allclose(found['mean'], sdr.mean(), rtol=1e-5)
        assert sdr.min() - 1e-5 <= found['low'] <= found['mean'] <= found['high'] <= sdr.max() + 1e-5
        assert found['files'] == 3
        change, difference = sdr - expected[0], point['differences']['sdr']
        assert_allclose(difference['mean'], change.mean(), atol=1e-5)
        assert (difference['better'], difference['worse']) == (np.sum(change > 1e-9), np.sum(change < -1e-9))
    assert_allclose(summary['inputs']['noisy']['sdr']['mean'], expected[1].mean(), rtol=1e-6)
    assert points[3]['sampling_steps'] is None and all(point['real_time_factor'] > 0 for point in points)


def test_tables_hold_the_numbers(tmp_path):
    summary = run_sweep(tmp_path, grid([toy_run(Drawn())], (1, 3)), seeds=(0, 5))
    out = tmp_path / 'out'
    means = {(row['nfe'], row['stage'], row['metric']): row for row in _rows(out / 'sweep.csv')}
    scores = [row for row in _rows(out / 'scores.csv') if row['stage'] == 'enhanced']
    assert len([row for row in _rows(out / 'scores.csv') if row['stage'] == 'noisy']) == 3
    for point in summary['points']:
        steps, entry = str(point['sampling_steps']), point['stages']['enhanced']['sdr']
        values = np.array([[float(row['sdr']) for row in scores if (row['nfe'], row['seed']) == (steps, seed)]
                           for seed in '05'])
        assert values.shape == (2, 3)
        assert_allclose(float(means[steps, 'enhanced', 'sdr']['mean']), values.mean(), rtol=1e-12)
        assert_allclose(entry['seed_std'], values.mean(axis=1).std(ddof=1), rtol=1e-9)
        assert entry['seed_std'] > 0
        assert f'{entry["mean"]:.2f} [{entry["low"]:.2f}, {entry["high"]:.2f}]' in (out / 'sweep.md').read_text()
    assert '## Spread over seeds' in (out / 'sweep.md').read_text()


def test_seeds_draw_different_noise_and_the_default_seed_is_0(tmp_path):
    noisy = ToySource(['a']).read(0)[1]
    found = [Enhancer(toy_run(Drawn()), seed=seed)(noisy, 16000, utterance='a') for seed in (0, 1, 0)]
    assert_allclose(found[0], found[2])
    assert np.std(found[0] - found[1]) > 0.01 * np.std(noisy)
    assert_allclose(found[0], Enhancer(toy_run(Drawn()))(noisy, 16000, utterance='a'))


def test_systems_that_do_not_sample_run_once(tmp_path):
    summary = run_sweep(tmp_path, grid([toy_run(Drawn()), named_run(toys.LowPass(), 'low_pass')], (2,)), seeds=(0, 1))
    assert math.isnan(summary['points'][1]['stages']['enhanced']['sdr']['seed_std'])
    assert len([row for row in _rows(tmp_path / 'out' / 'scores.csv') if row['run'] == 'low_pass']) == 3


@pytest.mark.parametrize(('seeds', 'message'), [((0, 0), 'seeds 0, 0'), ((-1,), 'seed -1')])
def test_invalid_seeds_are_refused(tmp_path, seeds, message):
    with pytest.raises(UserError, match=message):
        run_sweep(tmp_path, grid([toy_run(Drawn())], (2,)), seeds=seeds)


def test_the_same_setting_twice_is_refused(tmp_path):
    with pytest.raises(UserError, match='toy, 2 steps: given twice'):
        run_sweep(tmp_path, grid([toy_run(Drawn())], (2, 2)))


def test_only_refiners_get_an_input_to_refine(tmp_path):
    variants = grid([named_run(toys.Refiner(), 'prior'), named_run(toys.LowPass(), 'low_pass')])
    source, before = ToySource(list('ab')), toy_run(toys.Stepped())
    summary = run_sweep(tmp_path, variants, source, preceding=before)
    expected = [_sdr(source, i, 0.5 * source.read(i)[1] + 0.25 * source.read(i)[1] / 3) for i in range(2)]
    assert list(summary['points'][0]['stages']) == ['preceding', 'refined']
    assert summary['points'][0]['baselines'] == ['preceding']
    assert_allclose(summary['points'][0]['stages']['refined']['sdr']['mean'], np.mean(expected), rtol=1e-4)
    with pytest.raises(UserError, match='refines the output of another enhancer'):
        run_sweep(tmp_path, variants, source)


# ---- the cache ----


@pytest.fixture
def enhanced(monkeypatch):
    """Records (seed, ids) of every batch that is enhanced and not taken from the cache."""
    calls, original = [], Enhancer.in_batches

    def spy(self, waveforms, ids, processed=None):
        for batch in original(self, waveforms, ids, processed):
            calls.append((self.steps, self.seed, [ids[i] for i in batch.indices]))
            yield batch

    monkeypatch.setattr(Enhancer, 'in_batches', spy)
    return calls


def _done(calls):
    return sorted((steps, name) for steps, _, names in calls for name in names)


def test_an_extended_sweep_computes_what_is_missing(tmp_path, enhanced):
    first = run_sweep(tmp_path, grid([toy_run(toys.Stepped())], (1, 2)))
    assert _done(enhanced) == [(steps, name) for steps in (1, 2) for name in 'abc']
    enhanced.clear()
    again = run_sweep(tmp_path, grid([toy_run(toys.Stepped())], (1, 2, 4)), ToySource(list('abcd')))
    assert _done(enhanced) == [(1, 'd'), (2, 'd'), *((4, name) for name in 'abcd')]
    assert again['points'][0]['stages']['enhanced']['sdr']['files'] == 4
    enhanced.clear()
    assert run_sweep(tmp_path, grid([toy_run(toys.Stepped())], (1, 2)))['points'] == first['points']
    assert not enhanced


@pytest.mark.parametrize('options', [{'seeds': (3,)}, {'variants': grid([named_run(toys.Stepped(), 'other')], (2,))},
                                     {'source': ToySource(['a'], lengths=(5000,))}, {'metrics': (*METRICS, 'ssnr')}])
def test_another_seed_checkpoint_recording_or_metric_is_measured(tmp_path, enhanced, options):
    plain = {'variants': grid([toy_run(toys.Stepped())], (2,)), 'source': ToySource(['a'])}
    run_sweep(tmp_path, **plain)
    enhanced.clear()
    run_sweep(tmp_path, **plain | options)
    assert _done(enhanced) == [(2, 'a')]
    enhanced.clear()
    run_sweep(tmp_path, **plain | options)
    run_sweep(tmp_path, **plain)
    assert not enhanced


def test_an_interrupted_sweep_resumes(tmp_path, enhanced, monkeypatch):
    source, variants = ToySource(list('abc'), lengths=(4000, 20000, 40000)), grid([toy_run(toys.Stepped())], (2,))
    original, seen = evaluator.scoring.score, []

    def dies(clean, rows, *rest):
        if 'enhanced' in rows:
            seen.append(len(clean))
            if len(seen) == 2:
                raise KeyboardInterrupt
        return original(clean, rows, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(evaluator.scoring, 'score', dies)
        with pytest.raises(KeyboardInterrupt):
            run_sweep(tmp_path, variants, source)
    enhanced.clear()
    summary = run_sweep(tmp_path, variants, source)
    assert _done(enhanced) == [(2, 'b'), (2, 'c')]
    assert_allclose(summary['points'][0]['stages']['enhanced']['sdr']['mean'], _sdrs(source, 2).mean(), rtol=1e-5)


@pytest.mark.parametrize('damage', ['text', 'json', 'audio'])
def test_damaged_records_are_measured_anew(tmp_path, enhanced, damage):
    variants = grid([toy_run(toys.Stepped())], (2,))
    first = run_sweep(tmp_path, variants, ToySource(['a']))
    for path in (tmp_path / 'out' / 'cache').rglob('*.flac' if damage == 'audio' else '*.json'):
        if damage == 'audio':
            path.unlink()
        else:
            path.write_text({'text': path.read_text()[:40], 'json': '[]'}[damage])
    enhanced.clear()
    again = run_sweep(tmp_path, variants, ToySource(['a']))
    assert _done(enhanced) == [(2, 'a')]
    assert again['points'][0]['stages'] == first['points'][0]['stages']


def test_a_cache_serves_several_outputs(tmp_path, enhanced):
    for name in ('first', 'second'):
        sweep(grid([toy_run(toys.Stepped())], (2,)), ToySource(['a']), tmp_path / name, metrics=METRICS, workers=0,
              cache=tmp_path / 'cache')
    assert _done(enhanced) == [(2, 'a')]
    assert (tmp_path / 'second' / 'index.html').exists() and not (tmp_path / 'second' / 'cache').exists()
    setting = [json.loads(path.read_text()) for path in (tmp_path / 'cache').glob('*/setting.json')]
    assert {'steps', 'seed', 'weights', 'system', 'sources', 'versions'} <= max(setting, key=len).keys()


# ---- figures and page ----


def _results(**points):
    """Settings with given mean values: label -> (run, changes, steps, factor, value per file)."""
    def point(run, changes, steps, factor, values):
        values = np.array(values, float)[:, None, None] + np.array([0.0, 1.0, 2.0])[None, :, None]
        found = evaluator.Results([{'id': str(i)} for i in range(len(values))], ('noisy', 'condition', 'refined'),
                                ('sdr',), values, [[{}] * 3] * len(values))
        return Point(run, changes, steps, steps, {}, ('condition', 'refined'), ('condition',), (found,), factor,
                     ('cpu',))

    return SweepResults(('sdr',), (0,), tuple(point(*given) for given in points.values()))


def test_curves_show_means_bands_and_baselines():
    results = _results(a=('x', {}, 1, 0.1, [1, 3]), b=('x', {}, 6, 0.5, [2, 6]), c=('y', {}, None, 0.02, [0, 0]))
    panel = Figure().subplots()
    axis = curves._Axis('nfe', 'network evaluations', lambda p: p.evaluations, lambda p: p.series)
    curves._panel(results, axis, 0, panel)
    lines = {line.get_label(): line for line in panel.lines}
    assert list(lines) == ['noisy', 'x: condition', 'x', 'y']
    assert lines['x'].get_xydata().tolist() == [[1, 4], [6, 6]]
    assert [set(lines[name].get_ydata()) for name in ('noisy', 'x: condition', 'y')] == [{2.0}, {3.0}, {2.0}]
    low, high = bootstrap.interval(np.array([3.0, 5.0]))
    band = panel.collections[0].get_paths()[0].vertices
    assert_allclose(sorted({y for x, y in band.tolist() if x == 1}), [low, high])


def test_a_stage_that_some_points_lack_is_not_drawn():
    """DiffGMM has no `one_step` at one step, which on a busy machine may have the larger real-time factor."""
    results = _results(a=('x', {}, 1, 0.5, [1, 3]), b=('x', {}, 6, 0.1, [2, 6]))
    one, six = results.points
    six = dataclasses.replace(six, stages=('condition', 'one_step', 'refined'),
                              seeds=(_with_one_more_stage(six.seeds[0]),))
    panel = Figure().subplots()
    curves._panel(SweepResults(results.metrics, results.seeds, (one, six)),
                  curves._Axis('rtf', 'real-time factor', lambda p: p.real_time_factor, lambda p: p.series), 0, panel)
    lines = {line.get_label(): line for line in panel.lines}
    assert list(lines) == ['noisy', 'x: condition', 'x']
    assert_allclose(lines['x'].get_xydata(), [[0.1, 6], [0.5, 4]])


def _with_one_more_stage(found):
    values = np.insert(found.values, 2, -1.0, axis=1)
    return evaluator.Results(found.infos, ('noisy', 'condition', 'one_step', 'refined'), found.metrics, values,
                             [[{}] * 4] * len(values))


def test_figures_are_of_what_varies(tmp_path):
    steps = _results(a=('x', {}, 1, 0.1, [1, 3]), b=('x', {}, 6, 0.5, [2, 6]))
    assert [figure.path.name for figure in curves.draw(steps, tmp_path)] == ['nfe.png', 'rtf.png']
    assert all((tmp_path / f'{name}.pdf').read_bytes().startswith(b'%PDF') for name in ('nfe', 'rtf'))
    values = _results(a=('x', {'eta_b': 0.2, 'mode': 'a'}, 6, 0.5, [1]),
                      b=('x', {'eta_b': 0.4, 'mode': 'b'}, 6, 0.5, [2]))
    assert [figure.path.name for figure in curves.draw(values, tmp_path)] == ['eta_b.png']


def test_the_page_has_players_in_every_setting(tmp_path):
    run_sweep(tmp_path, grid([toy_run(toys.Stepped())], (1, 4)), ToySource(list('abc')))
    page = (tmp_path / 'out' / 'index.html').read_text()
    for name in 'abc':
        labels = [f'aria-label="{name}, {shown}"' for shown in ('clean', 'noisy', 'toy, 1 step', 'toy, 4 steps')]
        places = [page.index(label) for label in labels]
        assert places == sorted(places)
    assert page.count('<audio') == 12 and page.count('src="data:audio/wav') == 12
