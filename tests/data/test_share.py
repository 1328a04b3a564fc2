"""Shares of the utterances; expected counts are worked out by hand."""

import random
import shutil

import numpy as np
import pytest
import soundfile

from jax_diffse.data import DataConfig, open_source, share
from jax_diffse.data.config import Folders
from jax_diffse.data.share import choose_share
from jax_diffse.errors import UserError


def ids(source):
    return {source.info(i)['id'] for i in range(len(source))}


def test_the_test_set_of_voicebank_demand_gives_206_of_824():
    """p232 has 393 files and p257 has 431: 98 and 108, as the student's notebook has 824 // 4."""
    names = [f'{speaker}_{k:03}' for speaker, count in (('p232', 393), ('p257', 431)) for k in range(count)]
    chosen = choose_share({name: name[:4] for name in names}, 0.25, 0)
    assert [sum(name.startswith(speaker) for name in chosen) for speaker in ('p232', 'p257')] == [98, 108]


def test_every_speaker_keeps_its_share_and_at_least_one_utterance():
    sizes = {'a': 1, 'b': 3, 'c': 10, 'd': 100}
    chosen = choose_share({f'{who}{k}': who for who, size in sizes.items() for k in range(size)}, 0.3, 5)
    assert {who: sum(name[0] == who for name in chosen) for who in sizes} == {'a': 1, 'b': 1, 'c': 3, 'd': 30}


def test_the_choice_depends_on_the_seed_and_on_no_order_or_other_name():
    names = {f's{k % 4}/{k}': f's{k % 4}' for k in range(200)}
    chosen = choose_share(names, 0.25, 1)
    shuffled = list(names.items())
    random.Random(0).shuffle(shuffled)
    assert choose_share(dict(shuffled), 0.25, 1) == chosen
    alone = {name: speaker for name, speaker in names.items() if speaker == 's2'}
    assert choose_share(alone, 0.25, 1) == chosen & alone.keys()
    assert choose_share(names, 0.25, 2) != chosen
    assert choose_share(names, 1.0, 1) == set(names)


@pytest.fixture
def corpus(tmp_path):
    """Pairs of four speakers with eight files each, the clean ones also usable as speech, and noise."""
    for k in range(32):
        for folder in ('clean', 'noisy'):
            path = tmp_path / 'corpus' / folder / f'p{k % 4}_{k:02}.wav'
            path.parent.mkdir(parents=True, exist_ok=True)
            soundfile.write(path, np.random.default_rng(k).uniform(-0.1, 0.1, 5000), 16_000)
    for k in range(4):
        path = tmp_path / 'corpus' / 'noise' / 'rain' / f'{k}.wav'
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, np.random.default_rng(k).uniform(-0.1, 0.1, 5000), 16_000)
    return tmp_path / 'corpus'


KINDS = {'pairs': {'clean': 'clean', 'noisy': 'noisy'}, 'mix': {'speech': 'clean', 'noise': 'noise'},
         'clean': {'speech': 'clean'}}


def opened(corpus, kind, split='train', **settings):
    folders = Folders(**{key: str(corpus / folder) for key, folder in KINDS[kind].items()})
    return open_source(DataConfig(train=folders, test=folders, **settings), split)


@pytest.mark.parametrize('kind', KINDS)
def test_training_and_validation_use_a_share_of_each_speaker(corpus, kind, capsys):
    """Of four speakers, one is held out: 6 of 24 files and 2 of 8 are left."""
    whole = {split: opened(corpus, kind, split) for split in ('train', 'validation')}
    part = {split: opened(corpus, kind, split, share=0.25) for split in ('train', 'validation')}
    printed = capsys.readouterr().out
    for split, used in (('train', '6 of 24 utterances'), ('validation', '2 of 8 utterances')):
        speech = [{speech_name(source, i) for i in range(len(source))} for source in (part[split], whole[split])]
        assert speech[0] < speech[1] and part[split].used == used
        assert {name: sum(x[:2] == name for x in speech[0]) for name in {x[:2] for x in speech[1]}} == dict.fromkeys(
            {x[:2] for x in speech[1]}, 2)
        assert f', a share of 0.25: {used}\n' in printed
    assert opened(corpus, kind).used == ''


def speech_name(source, i):
    return source.mixtures[i].speech.name if hasattr(source, 'mixtures') else source.info(i)['id']


def test_the_choice_does_not_depend_on_where_the_folder_is(corpus, tmp_path):
    shutil.copytree(corpus, tmp_path / 'moved')
    assert ids(opened(corpus, 'pairs', share=0.5)) == ids(opened(tmp_path / 'moved', 'pairs', share=0.5))


def test_the_share_of_training_and_its_seed_do_not_touch_the_test_set(corpus):
    assert len(opened(corpus, 'pairs', 'test', share=0.25)) == 32
    tests = [ids(opened(corpus, 'pairs', 'test', share_seed=seed, test_share=0.25)) for seed in (0, 1)]
    assert tests[0] == tests[1] and len(tests[0]) == 8
    assert ids(opened(corpus, 'pairs', share=0.5, share_seed=1)) != ids(opened(corpus, 'pairs', share=0.5))


def test_files_without_known_speakers_count_as_one_speakers(tmp_path):
    for k in range(8):
        soundfile.write(tmp_path / f'{k}.wav', np.random.default_rng(k).uniform(-0.1, 0.1, 5000), 16_000)
    folders = Folders(speech=str(tmp_path))
    assert open_source(DataConfig(test=folders, test_share=0.25), 'test').used == '2 of 8 utterances'


class Records:
    """A source that knows the speakers of its utterances: three of `a` and nine of `b`, in an order of its own."""

    sample_rate, used, names = 16_000, '', [f'{"a" if k % 4 == 0 else "b"}{k}' for k in (5, 2, 7, 8, 11, 0, 1, 9, 3, 4,
                                                                                        10, 6)]

    def __len__(self):
        return len(self.names)

    def info(self, i):
        return {'id': self.names[i], 'speaker': self.names[i][0], 'num_samples': 10}

    def read(self, i):
        return np.full(10, i, np.float32), np.full(10, -i, np.float32)

    def draw(self, i, num_samples, rng, start=None):
        return tuple(x[start:] if start else x for x in self.read(i))


def test_records_of_a_data_set_are_chosen_by_their_speaker(monkeypatch):
    source = share.take_share(Records(), 0.34, 0)  # of 3: 1.02, of 9: 3.06
    assert sorted(name[0] for name in ids(source)) == ['a', 'b', 'b', 'b'] and source.used == '4 of 12 utterances'
    for i in range(len(source)):
        place = Records.names.index(source.info(i)['id'])
        assert source.read(i)[0][0] == source.draw(i, 10, np.random.default_rng(0))[0][0] == place
    assert isinstance(share.take_share(Records(), 1.0, 0), Records)


def test_a_split_of_a_data_set_is_opened_with_its_share(monkeypatch, capsys):
    monkeypatch.setattr('jax_diffse.data.tfds_source.open_tfds', lambda name, split, data_dir: Records())
    config = DataConfig(name='voicebank_demand/28spk', share=0.34)
    assert [len(open_source(config, split)) for split in ('train', 'validation', 'test')] == [4, 4, 12]
    assert capsys.readouterr().out.splitlines() == [
        f'voicebank_demand/28spk, {split} split, a share of 0.34: 4 of 12 utterances' for split in ('train',
                                                                                                    'validation')]


@pytest.mark.parametrize('key', ['share', 'test_share'])
@pytest.mark.parametrize('value', [0.0, -0.5, 1.5, float('nan')])
def test_what_is_no_share_is_refused(key, value):
    with pytest.raises(UserError, match=rf'config.data.{key}.*above 0 and at most 1, got '):
        DataConfig(**{key: value})
