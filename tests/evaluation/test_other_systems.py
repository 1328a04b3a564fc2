import unicodedata

import pytest
from numpy.testing import assert_allclose

from jax_diffse.errors import UserError
from jax_diffse.evaluation.other_systems import described, list_folders, listed, open_systems, parse
from jax_diffse.evaluation.scorer import Scored
from jax_diffse.evaluation.signals import Reading
from jax_diffse.evaluation.utterances import file_name
from jax_diffse.metrics import Scores
from tests.evaluation.systems import RATE, speech, write


def test_names_and_folders():
    assert parse(['a=x', ' b c =gs://bucket/y', 'größe=p=q']) == {'a': 'x', 'b c': 'gs://bucket/y', 'größe': 'p=q'}
    assert list(parse([unicodedata.normalize('NFD', 'größe=x')])) == ['größe']


@pytest.mark.parametrize(('texts', 'message'), [
    (['folder'], '^folder: expected NAME=DIR'), (['=x'], '=x: expected NAME=DIR'), (['a='], 'a=: expected NAME=DIR'),
    (['x/y=z'], 'x/y=z: expected NAME=DIR'), (['noisy=x'], "'noisy' is the name of another column"),
    (['clean=x'], "'clean' is the name of another column"), (['a=x', 'b=y', 'a=z'], "a=z: 'a' is given twice"),
    (['a\nb=x'], 'printed'), (['a=http://host/x'], 'an address of http://')])
def test_mistakes_are_named(texts, message):
    with pytest.raises(UserError, match=message):
        parse(texts)
    with pytest.raises(UserError, match='--also|http'):
        parse(texts, '--also')


def test_files_are_found_by_id_whatever_their_form_and_extension(tmp_path, capsys):
    ids = ['a', 'größe', 'sub/b', 'x.y', 'odd: "1"', 'gone']
    write(tmp_path / 'a.WAV', speech(0), format='WAV')
    write(tmp_path / f'{unicodedata.normalize("NFD", "größe")}.flac', speech(1))
    write(tmp_path / 'sub' / 'b.ogg', speech(2))
    write(tmp_path / 'x.y.wav', speech(3))
    write(tmp_path / file_name('odd: "1"'), speech(4))  # as `evaluate --save-audio` names it
    write(tmp_path / 'more.wav', speech(5))
    found = open_systems(list_folders({'mine': tmp_path}), ids, Reading(RATE))
    assert capsys.readouterr().out == ('mine: 5 of 6 files; lacks gone; not used, as they are named as no utterance: '
                                       'more\n')
    assert found.systems[0].lacking(ids) == ['gone'] and found.systems[0].unused == ('more',)
    for i, name in enumerate(ids[:-1]):
        samples = found.waveforms(i, None)['mine']
        assert_allclose(samples, speech(i), atol=0.05 if 'sub' in name else 2**-15)
    assert found.signals(5, None) == {}


@pytest.mark.parametrize(('make', 'message'), [
    (lambda folder: folder.mkdir(), 'mine: no file has the name of one of the 1 utterances, which are named as .a.; it '
                                    'has no audio files'),
    (lambda folder: write(folder / 'z.wav', speech(0)), "its files are named as 'z'"),
    (lambda folder: [write(folder / name, speech(0)) for name in ('a.wav', 'a.flac')],
     'a.wav: has the same name as .*a.flac'),
    (lambda folder: None, 'mine: no such directory'),
    (lambda folder: write(folder / 'a.wav', speech(0), 8000), 'a.wav: 8000 Hz, expected 16000 Hz')])
def test_folders_that_do_not_fit_are_refused(tmp_path, make, message):
    make(tmp_path / 'mine')
    with pytest.raises(UserError, match=message):
        open_systems(list_folders({'mine': tmp_path / 'mine'}), ['a'], Reading(RATE))


def test_summary_and_its_words(tmp_path):
    ids = ('a', 'b', 'c')
    for i, name in enumerate('ab'):
        write(tmp_path / f'{name}.wav', speech(i))
    systems = open_systems(list_folders({'mine': tmp_path}), ids, Reading(RATE))
    scores = Scores({}, {})
    found = systems.summary([{'mine': Scored(scores, 160, 0)}, {'mine': Scored(scores, -8, 5)}, {}])
    assert found['mine'] == {'folder': str(tmp_path), 'files': 2, 'lacking': ['c'], 'unused': [], 'sample_rate': RATE,
                             'tolerance': 0.25, 'offset': {'a': 160, 'b': -8}, 'excess': {'b': 5}}
    missing, late, longer = described(found, aligned=False)
    assert missing.startswith('not every system has every file')
    assert late == ('mine: 2 of 2 files are offset from the clean speech by -8 to +160 samples, median +160 (+10.0 '
                    'ms; + is late); not removed (score: --align)')
    assert longer.startswith('mine: 1 of 2 files differ in length from the clean speech by +5 samples; up to 0.25 s')
    assert 'removed before scoring' in described(found, aligned=True)[1]
    assert described({'mine': found['mine'] | {'lacking': [], 'offset': {}, 'excess': {}}}, False) == []


def test_long_lists_are_cut():
    assert listed(list('abcde')) == 'a, b, c, d, e' and listed(list('abcdefg')) == 'a, b, c, d, e and 2 more'
