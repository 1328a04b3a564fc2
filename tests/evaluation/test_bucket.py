"""Reports and the cache of results in object storage."""

import json

import pytest
import soundfile

from jax_diffse import audio, files
from jax_diffse.errors import UserError
from jax_diffse.evaluation.cache import Record, ResultCache
from jax_diffse.evaluation.sweep import grid
from jax_diffse.inference.enhancer import Enhancer
from tests import toys
from tests.evaluation.spread import evaluate, sweep
from tests.evaluation.test_evaluate import METRICS, ToySource, toy_run

pytestmark = pytest.mark.usefixtures('drawn_once')
OPTIONS = {'metrics': METRICS, 'workers': 0, 'data': 'toy'}


@pytest.fixture
def enhanced(monkeypatch):
    """Records the ids of the files that are enhanced and not taken from the cache."""
    calls, original = [], Enhancer.in_batches

    def spy(self, waveforms, ids, processed=None):
        for batch in original(self, waveforms, ids, processed):
            calls.extend(ids[i] for i in batch.indices)
            yield batch

    monkeypatch.setattr(Enhancer, 'in_batches', spy)
    return calls


def test_a_report_is_that_on_a_disk(bucket, tmp_path, store, enhanced, capsys):
    local = evaluate(toy_run(), ToySource(list('ab')), tmp_path / 'out', save_audio=True, **OPTIONS)
    there = evaluate(toy_run(), ToySource(list('ab')), f'{bucket}/out', save_audio=True, **OPTIONS)
    assert local['statistics'] == there['statistics']
    out = files.path(f'{bucket}/out')
    assert (out / 'scores.csv').read_text() == (tmp_path / 'out' / 'scores.csv').read_text()
    assert json.loads((out / 'summary.json').read_text())['checkpoint']['hash'] == 'abc'
    names = store.names(bucket.removeprefix('gs://'), 'out/')
    assert {name.split('/')[1] for name in names} == {'audio', 'cache', 'index.html', 'scores.csv', 'summary.json',
                                                      'summary.md'}
    found = audio.read(f'{bucket}/out/audio/enhanced/a.wav')[0]
    assert (found == soundfile.read(tmp_path / 'out' / 'audio' / 'enhanced' / 'a.wav', dtype='float32',
                                    always_2d=True)[0]).all()
    assert f'report: {bucket}/out/index.html' in capsys.readouterr().out


def test_a_rerun_takes_results_from_the_cache(bucket, store, enhanced):
    first = evaluate(toy_run(), ToySource(list('ab')), f'{bucket}/out', cache=f'{bucket}/cache', **OPTIONS)
    assert sorted(enhanced) == ['a', 'b']
    enhanced.clear()
    store.requests.clear()
    again = evaluate(toy_run(), ToySource(list('abc')), f'{bucket}/second', cache=f'{bucket}/cache', **OPTIONS)
    assert enhanced == ['c'] and again['files'] == 3 and first['files'] == 2
    for name in store.names(bucket.removeprefix('gs://'), 'cache/'):
        if name.endswith('.json'):
            store.put(bucket.removeprefix('gs://'), name, b'damaged', {}, {})
    enhanced.clear()
    evaluate(toy_run(), ToySource(list('abc')), f'{bucket}/third', cache=f'{bucket}/cache', **OPTIONS)
    assert sorted(enhanced) == ['a', 'b', 'c']


def test_missing_results_cost_no_requests(bucket, store):
    cache = ResultCache(f'{bucket}/cache', {'setting': 1})
    store.requests.clear()
    assert [cache.read(f'{i:064}') for i in range(50)] == [None] * 50 and not store.requests
    other = ResultCache(f'{bucket}/cache', {'setting': 1})  # of another process
    other.write('7' * 64, Record({}, 1.0, 'cpu'), {}, 16_000)
    assert cache.read('7' * 64) is None
    cache.list_again()
    assert cache.read('7' * 64) == Record({}, 1.0, 'cpu')


def test_a_sweep_writes_its_figures(bucket, store):
    sweep(grid([toy_run(toys.Stepped())], (1, 2)), ToySource(list('ab')), f'{bucket}/sweep', **OPTIONS)
    names = [name for name in store.names(bucket.removeprefix('gs://'), 'sweep/') if '/cache/' not in name]
    assert names == ['sweep/figures/nfe.pdf', 'sweep/figures/nfe.png', 'sweep/figures/rtf.pdf',
                     'sweep/figures/rtf.png', 'sweep/index.html', 'sweep/scores.csv', 'sweep/sweep.csv',
                     'sweep/sweep.json', 'sweep/sweep.md']
    objects = store.buckets[bucket.removeprefix('gs://')]
    assert objects['sweep/figures/nfe.png'].data.startswith(b'\x89PNG')
    assert objects['sweep/figures/nfe.pdf'].data.startswith(b'%PDF')


def test_processed_files_are_found_there(bucket, tmp_path):
    source = ToySource(list('ab'))
    for i, name in enumerate('ab'):
        soundfile.write(tmp_path / f'{name}.wav', source.read(i)[1], 16_000)
        files.upload(tmp_path / f'{name}.wav', f'{bucket}/processed/{name}.wav')
    run = toy_run(toys.Refiner())
    summary = evaluate(run, source, f'{bucket}/out', processed=f'{bucket}/processed', **OPTIONS)
    assert summary['preceding'] == {'folder': f'{bucket}/processed'}
    with pytest.raises(UserError, match='where --save-audio may overwrite it'):
        evaluate(run, source, bucket, processed=f'{bucket}/audio/x', save_audio=True, **OPTIONS)


def test_an_output_that_cannot_be_written_is_refused(bucket, store, tmp_path):
    store.refused = 403
    with pytest.raises(UserError, match=f'^{bucket}/out: cannot create the report folder .no permission'):
        evaluate(toy_run(), ToySource(['a']), f'{bucket}/out', **OPTIONS)
