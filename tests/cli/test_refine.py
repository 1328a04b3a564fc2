"""Refining another system's output on VoiceBank-DEMAND as TFDS prepares it, on archives of its published layout."""

import dataclasses

import numpy as np
import pytest
import soundfile
import tensorflow_datasets as tfds
from ml_collections import ConfigDict
from numpy.testing import assert_allclose

from jax_diffse.data.builders.voicebank_demand import VoicebankDemand
from tests import toys
from tests.cli.test_evaluate import _main
from tests.data.builders.test_voicebank_demand import ARCHIVES, DUMMY, TEST, tone, write_published_layout
from tests.evaluation.test_evaluate import strict_json, toy_run

NAME = 'voicebank_demand'
SMALL = dataclasses.replace(DUMMY, name='28spk')  # in place of the default config


@pytest.fixture
def published(tmp_path, monkeypatch):
    """Downloads take the small archives in tmp_path; the data set is then prepared for real."""
    write_published_layout(tmp_path)
    paths = {key: tmp_path / name for key, name in ARCHIVES.items()}
    monkeypatch.setattr(tfds.download.DownloadManager, 'download', lambda self, urls: paths)
    monkeypatch.setattr(VoicebankDemand, 'builder_configs', {SMALL.name: SMALL})  # made of the next one, and kept
    monkeypatch.setattr(VoicebankDemand, 'BUILDER_CONFIGS', [SMALL])
    return tmp_path


@pytest.fixture
def processed(published):
    """A folder of another enhancer's output, named as the data set's files are: a tone of its own for each."""
    folder = published / 'proc_dcunet'
    folder.mkdir()
    for i, name in enumerate(TEST):
        soundfile.write(folder / f'{name}.wav', 0.2 * tone(500 + 100 * i, rate=16_000), 16_000)
    return folder


def refine(published, monkeypatch, *arguments, data):
    """Evaluates the toy refiner, which gives 0.5 noisy + 0.25 processed, as a run with these data."""
    config = ConfigDict({'data': {**data, 'data_dir': str(published / 'tfds')}})
    run = dataclasses.replace(toy_run(toys.Refiner()), config=config)
    return _main(monkeypatch, '--output', published / 'out', '--processed', published / 'proc_dcunet', '--metrics',
                 'si_sdr', '--workers', 0, '--save-audio', *arguments, run=run)


@pytest.mark.parametrize('converted', [False, True])
def test_processed_files_are_refined_by_the_ids_of_the_data_set(published, processed, monkeypatch, capsys, converted):
    """A trained run evaluates on its own data; a converted one, which has none, on those of --data-set."""
    soundfile.write(processed / 'p999_001.wav', tone(500, rate=16_000), 16_000)  # nobody's
    flags, data = (['--data-set', NAME], {}) if converted else ([], {'name': NAME})
    assert refine(published, monkeypatch, *flags, data=data) == 0
    printed = capsys.readouterr().out
    assert printed.count('proc_dcunet: 1 of 3 files are named as no utterance and are not used') == 1
    summary = strict_json(published / 'out' / 'summary.json')
    assert summary['data'] == f'{NAME}, test split' and summary['files'] == 2
    assert summary['stages'] == ['noisy', 'preceding', 'refined']
    assert summary['preceding'] == {'folder': str(processed)}
    assert list(summary['groups']['noise']) == ['bus', 'living']
    noisy = tone(1000, rate=16_000) + 0.25 * tone(3000, rate=16_000)
    for i, name in enumerate(TEST):
        refined = soundfile.read(published / 'out' / 'audio' / 'refined' / f'{name}.wav')[0]
        expected = 0.5 * noisy + 0.25 * 0.2 * tone(500 + 100 * i, rate=16_000)
        middle = slice(1000, 7000)  # TFDS resamples from 48 kHz, which blurs the ends
        assert_allclose(refined[middle], expected[middle], atol=2e-3)


def test_a_missing_processed_file_is_one_line(published, processed, monkeypatch, capsys):
    (processed / f'{TEST[1]}.wav').rename(processed / 'p999_001.wav')
    assert refine(published, monkeypatch, data={'name': NAME}) == 2
    line, = capsys.readouterr().err.splitlines()
    assert line.startswith(f'error: {processed / TEST[1]}.wav: no such file') and '--skip-bad' in line
    assert not (published / 'out').exists()
    assert refine(published, monkeypatch, '--skip-bad', data={'name': NAME}) == 0
    assert strict_json(published / 'out' / 'summary.json')['files'] == 1


@pytest.mark.parametrize('extended', [False, True])
def test_processed_files_of_extended_recordings_may_lack_the_zeros(published, processed, monkeypatch, extended):
    """The other enhancer saw the files as they are, or with the same zeros at their end."""
    plain = 0.2 * tone(500, rate=16_000)
    total = len(plain) + 800
    for name in TEST:
        soundfile.write(processed / f'{name}.wav', np.pad(plain, (0, 800)) if extended else plain, 16_000)
    assert refine(published, monkeypatch, '--pad-seconds', total / 16_000, data={'name': NAME}) == 0
    refined, preceding = (soundfile.read(published / 'out' / 'audio' / stage / f'{TEST[0]}.wav')[0]
                          for stage in ('refined', 'preceding'))
    assert len(refined) == total and not refined[len(plain):].any()
    assert_allclose(preceding, np.pad(plain, (0, 800)), atol=2e-4)  # the files have 16 bits
    soundfile.write(processed / f'{TEST[0]}.wav', plain[:-1], 16_000)
    assert refine(published, monkeypatch, '--pad-seconds', total / 16_000, data={'name': NAME}) == 2
