"""ESC-50 and ESC-10; names, columns and classes are those of the published data sets (github.com/karolpiczak)."""

import dataclasses

import numpy as np
import pytest
import soundfile

from jax_diffse import audio_files
from jax_diffse.data import DataConfig, esc, open_source
from jax_diffse.data.config import Folders
from jax_diffse.errors import UserError

RATE = 16_000
HEADER = 'filename,fold,target,category,esc10,src_file,take\n'
# The first lines of esc50.csv, and more of the same form: recordings with several takes, all in one fold.
ROWS = [('1-100032-A-0.wav', 1, 0, 'dog', True, 100032), ('1-100038-A-14.wav', 1, 14, 'chirping_birds', False, 100038)]
ROWS += [(f'{fold}-{fold}{k}0-{take}-{target}.wav', fold, target, category, False, f'{fold}{k}0')
         for fold in range(1, 6) for k, (target, category) in enumerate(((0, 'dog'), (38, 'clock_tick'), (10, 'rain')))
         for take in 'ABC']


def clips_below(root):
    return esc.clips(root, [audio_files.stem(path) for path in audio_files.list_paths(root)])


def sound(path, seed):
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, 0.05 * np.random.default_rng(seed).standard_normal(8000), RATE)


def table(root, rows=ROWS, header=HEADER):
    (root / 'meta').mkdir(exist_ok=True)
    lines = [f'{row[0]},{",".join(map(str, row[1:]))},{row[0].split("-")[2]}\n' for row in rows]
    (root / 'meta' / 'esc50.csv').write_text(header + ''.join(lines))


@pytest.fixture
def esc50(tmp_path):
    root = tmp_path / 'ESC-50-master'
    for seed, row in enumerate(ROWS):
        sound(root / 'audio' / row[0], seed)
    table(root)
    return root


@pytest.fixture
def esc10(tmp_path):
    root = tmp_path / 'ESC-10'
    for number, name in enumerate(('Dog bark', 'Rain', 'Clock tick'), 1):
        for fold in range(1, 6):
            for k, take in ((1, 'A'), (1, 'B'), (2, 'A')):
                sound(root / f'{number:03} - {name}' / f'{fold}-{number}{fold}{k}-{take}.ogg', 100 * number + fold)
    return root


@pytest.fixture
def speech(tmp_path):
    for k in range(6):
        sound(tmp_path / 'speech' / f's{k}' / 'a.wav', 1000 + k)
    return str(tmp_path / 'speech')


def opened(speech, noise, split, **settings):
    folders = Folders(speech=speech, noise=str(noise))
    return open_source(DataConfig(train=folders, test=folders, **settings), split)


def recordings(source):
    return {file.name.rpartition('/')[2].split('-')[1] for file in source.noise}


def folds(source):
    return {int(file.name.rpartition('/')[2][0]) for file in source.noise}


@pytest.mark.parametrize('part', ['', 'audio'])
def test_the_table_of_esc_50_tells_class_recording_and_fold(esc50, part):
    found = clips_below(esc50 / part)
    before = '' if part else 'audio/'
    assert len(found) == len(ROWS)
    assert found[f'{before}1-100032-A-0'] == ('dog', '100032', 1)
    assert found[f'{before}1-100038-A-14'] == ('chirping_birds', '100038', 1)


def test_the_current_folder_can_be_that_of_the_clips(esc50, monkeypatch):
    monkeypatch.chdir(esc50 / 'audio')
    assert clips_below('.')['1-100032-A-0'] == ('dog', '100032', 1)


def test_the_folders_of_esc_10_tell_the_class_as_esc_50_writes_it(esc10):
    found = clips_below(esc10)
    assert found['001 - Dog bark/1-111-B'] == ('dog_bark', '111', 1)
    assert {clip.noise_class for clip in found.values()} == {'dog_bark', 'rain', 'clock_tick'}


def test_other_folders_are_not_taken_for_esc(tmp_path):
    for name in ('rain/1-100-A-3', 'wind/2-200-A-4', '001 - Fan/hum'):
        sound(tmp_path / f'{name}.wav', 0)
    assert clips_below(tmp_path) is None


@pytest.mark.parametrize('layout', ['esc50', 'esc10'])
@pytest.mark.parametrize('share', [0.1, 0.4, 0.7])
def test_no_recording_is_on_two_sides_and_the_test_fold_is_for_tests_alone(request, speech, layout, share):
    noise = request.getfixturevalue(layout)
    train, validation, test = (opened(speech, noise, split, held_out=share) for split in ('train', 'validation',
                                                                                           'test'))
    sides = [recordings(source) for source in (train, validation, test)]
    assert all(sides) and sum(map(len, sides)) == len(set.union(*sides))
    assert folds(train) | folds(validation) == {1, 2, 3, 4} and folds(test) == {5}
    count = {'esc50': 14, 'esc10': 24}[layout]  # recordings of folds 1 to 4: 4 x 3 + 2, and 4 x 3 x 2
    assert len(sides[1]) == round(share * count) and len(sides[0]) == count - len(sides[1])


def test_another_fold_or_none_can_be_for_tests(esc50, speech):
    assert folds(opened(speech, esc50, 'test', esc_test_fold=2)) == {2}
    assert folds(opened(speech, esc50, 'train', esc_test_fold=2)) == {1, 3, 4, 5}
    for split in ('train', 'test'):
        assert folds(opened(speech, esc50, split, esc_test_fold=0, held_out=0.01)) == {1, 2, 3, 4, 5}


def test_a_line_says_which_clips_are_used(esc50, speech, capsys):
    opened(speech, esc50, 'test')
    assert f'{esc50}: ESC; 9 of 47 clips, of 3 class(es), are for test; fold 5 is for tests alone' in (
        capsys.readouterr().out)
    settings = {'noise_classes': ('rain', 'dog'), 'held_out': 0.25}
    used = {split: opened(speech, esc50, split, **settings).noise for split in ('train', 'validation')}
    printed = capsys.readouterr().out
    for split, noise in used.items():  # what is left of folds 1 to 4 after the choice of classes and the holding out
        classes = len({file.noise_class for file in noise})
        assert f'ESC; {len(noise)} of 47 clips, of {classes} class(es), are for {split}; fold 5' in printed
    assert sum(map(len, used.values())) == sum(1 for row in ROWS if row[1] != 5 and row[3] in ('rain', 'dog'))
    opened(speech, esc50, 'test', esc_test_fold=0)
    assert '47 of 47 clips, of 4 class(es), are for test; no fold is kept for tests alone' in capsys.readouterr().out


def noises(source):
    return {source.info(i)['noise'] for i in range(len(source))}


@pytest.mark.parametrize(('layout', 'dog'), [('esc50', 'dog'), ('esc10', 'dog_bark')])
def test_classes_are_chosen_and_reported_by_their_names(request, speech, layout, dog):
    noise, classes = request.getfixturevalue(layout), ('clock_tick', dog)
    train, test = (opened(speech, noise, split, noise_classes=classes) for split in ('train', 'test'))
    assert {file.noise_class for file in train.noise} == set(classes)
    kinds = {test.info(i)['noise']: test.info(i)['noise_kind'] for i in range(len(test))}
    assert kinds == {'clock_tick': 'seen', dog: 'seen', 'rain': 'unseen'}
    assert noises(opened(speech, noise, 'test', test_noise_classes=('rain',))) == {'rain'}


def test_classes_of_both_releases_have_the_same_names(esc10, esc50, speech):
    """Trained on clock ticks of ESC-10, tested on ESC-50."""
    folders = Folders(speech=speech, noise=str(esc10))
    config = DataConfig(train=folders, noise_classes=('clock_tick',), test=dataclasses.replace(
        folders, noise=str(esc50)))
    test = open_source(config, 'test')
    assert {test.info(i)['noise']: test.info(i)['noise_kind'] for i in range(len(test))} == {
        'clock_tick': 'seen', 'dog': 'unseen', 'rain': 'unseen'}


def test_classes_of_ordinary_folders_are_chosen_by_their_folder(tmp_path, speech):
    for k, name in enumerate(('rain/a', 'rain/b', 'wind/c', 'fan/d', 'fan/e')):
        sound(tmp_path / 'noise' / f'{name}.wav', k)
    train = opened(speech, tmp_path / 'noise', 'train', noise_classes=('rain', 'fan'), held_out=0.25)
    assert len(train.noise) == 3 and {file.noise_class for file in train.noise} == {'rain', 'fan'}


@pytest.mark.parametrize(('key', 'split', 'flag'), [
    ('noise_classes', 'train', ''), ('test_noise_classes', 'test', r' \(evaluate: --noise-classes\)')])
def test_an_unknown_class_lists_those_that_exist(esc50, speech, key, split, flag):
    with pytest.raises(UserError, match=rf'^config.data.{key}{flag}: no class rian in .*ESC-50-master, expected some '
                                        r'of (chirping_birds, )?clock_tick, dog, rain$'):
        opened(speech, esc50, split, **{key: ('rain', 'rian')})


def test_what_is_wrong_with_the_table_is_one_line(esc50, speech):
    path = esc50 / 'meta' / 'esc50.csv'
    for make, said in (
            (path.unlink, r'cannot be read .*No such file.*; expected the table of ESC-50'),
            (lambda: table(esc50, header=HEADER.replace('category', 'class')), 'no column category, expected file'),
            (lambda: table(esc50, [*ROWS, ('5-9-A-0.wav', 5, 0, 'dog', False, 9)]),
             r'1 of 48 files are not in .*audio, such as 5-9-A-0; restore'),
            (lambda: table(esc50, ROWS[1:]), '1 of 47 files in .* are not listed, such as 1-100032-A-0; add'),
            (lambda: table(esc50, [*ROWS[1:], ('1-100032-A-0.wav', 7, 0, 'dog', False, 9)]),
             r'line 48: expected .* fold from 1 to 5, got 1-100032-A-0.wav,7,dog,9'),
            (lambda: path.write_text('filename,fold,category,src_file\n1-100032-A-0.wav,1\n'), 'line 2: expected'),
            (lambda: path.write_bytes(b'\xff\xfe\x00'), 'cannot be read')):
        make()
        with pytest.raises(UserError, match=f'^{path}: {said}') as error:
            opened(speech, esc50, 'train')
        assert '\n' not in str(error.value)


def test_a_folder_without_clips_for_a_split_is_refused(esc10, speech):
    for path in esc10.rglob('5-*'):
        path.unlink()
    with pytest.raises(UserError, match='ESC-10: has no clips for test: config.data.esc_test_fold=5 .* 0 keeps none'):
        opened(speech, esc10, 'test')


def test_a_single_recording_cannot_be_held_out(tmp_path, speech):
    for take in 'AB':
        sound(tmp_path / 'noise' / '002 - Rain' / f'1-7-{take}.ogg', 0)
    with pytest.raises(UserError, match='has a single recording, so none can be held out'):
        opened(speech, tmp_path / 'noise', 'train')


@pytest.mark.parametrize('fold', [-1, 6])
def test_folds_are_1_to_5(fold):
    with pytest.raises(UserError, match=r'config.data.esc_test_fold: expected 0 \(none\) or a fold from 1 to 5'):
        DataConfig(esc_test_fold=fold)


def test_clips_at_44100_hz_need_resampling_and_their_padding_is_avoided(esc50, speech):
    """Clips of ESC-50 are padded with zeros to 5 s."""
    padded = np.zeros(5 * 44_100)
    padded[:10_000] = 0.1 * np.random.default_rng(0).standard_normal(10_000)
    for row in ROWS:
        soundfile.write(esc50 / 'audio' / row[0], padded, 44_100)
    with pytest.raises(UserError, match='44100 Hz, expected 16000 Hz; --config.data.resample=True'):
        opened(speech, esc50, 'train')
    train, test = (opened(speech, esc50, split, resample=True, snr_db=(0.0,)) for split in ('train', 'test'))
    for pair in [*map(test.read, range(3)), *(train.draw(k % 4, 4000, np.random.default_rng(k)) for k in range(8))]:
        assert np.all(np.isfinite(pair)) and np.abs(pair[1] - pair[0]).max() > 0
