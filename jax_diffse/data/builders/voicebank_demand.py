"""VoiceBank-DEMAND: studio speech with noise added, the usual benchmark of speech enhancement.

C. Valentini-Botinhao, "Noisy speech database for training speech enhancement algorithms and TTS models", University of
Edinburgh, 2017, https://doi.org/10.7488/ds/2117. Licence: CC BY 4.0.

The archives are downloaded (28spk: 5 GB, 56spk: 10 GB) and read in place; nothing is extracted. This module resamples
the audio once, from 48 to 16 kHz. Training material has SNRs of 0, 5, 10 and 15 dB, the test set (speakers p232 and
p257) 2.5, 7.5, 12.5 and 17.5 dB. There is no published validation set, so two training speakers are held out for it.
"""

import dataclasses
import io
import re
import stat
import zipfile
import zlib
from collections.abc import Iterator

import numpy as np
import soundfile
import tensorflow_datasets as tfds
from etils import epath

from jax_diffse.data.builders import pairs
from jax_diffse.errors import UserError

URL = 'https://datashare.ed.ac.uk/bitstream/handle/10283/2791/'
_CITATION = """@misc{valentini2017noisy,
  author = {Valentini-Botinhao, Cassia},
  title = {Noisy speech database for training speech enhancement algorithms and {TTS} models},
  publisher = {University of Edinburgh},
  year = {2017},
  doi = {10.7488/ds/2117},
}"""


@dataclasses.dataclass(eq=False)
class VoiceBankDemandConfig(tfds.core.BuilderConfig):
    """One of the published training sets, and what it must contain."""

    speakers: int = 28  # names the archives
    validation_speakers: tuple[str, ...] = ()
    num_train: int = 0  # pairs in the training archives, validation speakers included
    num_test: int = 824


class VoicebankDemand(tfds.core.GeneratorBasedBuilder):
    """Builder `voicebank_demand`, with the configs `28spk` (which papers use) and `56spk`."""

    VERSION = tfds.core.Version('1.0.0')
    BUILDER_CONFIGS = [
        VoiceBankDemandConfig(name='28spk', description='28 English speakers', speakers=28, num_train=11_572,
                              validation_speakers=('p226', 'p287')),
        # The two training sets share no speaker, so this one holds out other speakers.
        VoiceBankDemandConfig(name='56spk', description='speakers with Scottish, American and other accents',
                              speakers=56, num_train=23_075, validation_speakers=('p234', 'p237')),
    ]
    DEFAULT_BUILDER_CONFIG_NAME = '28spk'

    def _info(self) -> tfds.core.DatasetInfo:
        return pairs.info(self, __doc__, homepage='https://doi.org/10.7488/ds/2117', citation=_CITATION)

    def _split_generators(self, dl_manager: tfds.download.DownloadManager):
        config = self.builder_config
        names = {'clean_train': f'clean_trainset_{config.speakers}spk_wav.zip',
                 'noisy_train': f'noisy_trainset_{config.speakers}spk_wav.zip',
                 'clean_test': 'clean_testset_wav.zip', 'noisy_test': 'noisy_testset_wav.zip', 'logs': 'logfiles.zip'}
        paths = dl_manager.download({key: URL + name for key, name in names.items()})
        archives = {key: Archive(path, names[key]) for key, path in paths.items()}

        train = _paired(archives['clean_train'], archives['noisy_train'], config.num_train)
        test = _paired(archives['clean_test'], archives['noisy_test'], config.num_test)
        log = read_log(archives['logs'], f'log_trainset_{config.speakers}spk.txt')
        held_out = [name for name in train if _speaker(name) in config.validation_speakers]
        kept = [name for name in train if _speaker(name) not in config.validation_speakers]
        return {
            'train': self._generate_examples(archives['clean_train'], archives['noisy_train'], kept, log),
            'validation': self._generate_examples(archives['clean_train'], archives['noisy_train'], held_out, log),
            'test': self._generate_examples(archives['clean_test'], archives['noisy_test'], test,
                                            read_log(archives['logs'], 'log_testset.txt')),
        }

    def _generate_examples(self, clean: 'Archive', noisy: 'Archive', names: list[str],
                           log: dict[str, tuple[str, float]]) -> Iterator[tuple[str, dict]]:
        for name in names:
            noise, snr_db = log.get(name, ('', np.nan))
            yield pairs.example(name, clean.read(name), noisy.read(name), _speaker(name), noise, snr_db)


class Archive:
    """The files of a published zip archive, read in place, so that no member's name becomes a path on this machine.

    Raises:
      UserError: it is not a zip archive, or has a member that leads outside of it or occurs twice.
    """

    def __init__(self, path: epath.PathLike, name: str):
        self.name = name
        try:
            self._zip = zipfile.ZipFile(path)
        except (zipfile.BadZipFile, OSError) as error:
            raise UserError(f'{name}: not readable as a zip archive ({error}); delete {path} and rerun the command'
                            ) from error
        self.members: dict[str, zipfile.ZipInfo] = {}  # by file name without folder
        for member in self._zip.infolist():
            self._add(member)
        self.utterances = sorted(file.removesuffix('.wav') for file in self.members if file.endswith('.wav'))

    def _add(self, member: zipfile.ZipInfo):
        if _hostile(member):
            raise UserError(f'{self.name}: refused, its member {member.filename!r} leads outside the archive')
        folder, _, file = member.filename.rpartition('/')
        if not file or '__MACOSX' in folder:  # a directory, or a file that macOS adds
            return
        if file in self.members:
            raise UserError(f'{self.name}: two members are named {file!r}; download the data set again')
        self.members[file] = member

    def bytes(self, file: str) -> bytes:
        """Reads the contents of a member and verifies its checksum."""
        try:
            return self._zip.read(self.members[file])
        except (zipfile.BadZipFile, zlib.error, RuntimeError, EOFError) as error:
            raise UserError(f'{self.name}: member {file} is damaged ({error}); download the data set again') from error

    def read(self, utterance: str) -> np.ndarray:
        """Reads the waveform `[N]` of a wav member, at `pairs.SAMPLE_RATE`."""
        name = f'{utterance}.wav'
        try:
            samples, rate = soundfile.read(io.BytesIO(self.bytes(name)), dtype='float32', always_2d=True)
        except soundfile.SoundFileError as error:
            raise UserError(f'{self.name}: member {name} is not readable as audio ({error})') from error
        return pairs.to_stored_rate(samples, rate, f'{self.name}: {name}')


def _hostile(member: zipfile.ZipInfo) -> bool:
    name = member.filename.replace('\\', '/')
    absolute = name.startswith('/') or re.match('[A-Za-z]:', name)
    kind = stat.S_IFMT(member.external_attr >> 16)  # 0 if the archive was not made on Unix
    return bool(absolute) or '..' in name.split('/') or kind not in (0, stat.S_IFREG, stat.S_IFDIR)


def _paired(clean: Archive, noisy: Archive, expected: int) -> list[str]:
    pairs.check_partners(clean.utterances, noisy.utterances, clean.name, noisy.name)
    pairs.check_count(len(clean.utterances), expected, noisy.name)
    return clean.utterances


def _speaker(name: str) -> str:
    return name.partition('_')[0]


def read_log(archive: Archive, member: str) -> dict[str, tuple[str, float]]:
    """Reads noise class and SNR (dB) by utterance from lines such as 'p226_001 cafeteria 15'; empty without a log."""
    if member not in archive.members:
        return {}
    rows = (line.split() for line in archive.bytes(member).decode('utf-8', 'replace').splitlines())
    return {row[0]: (row[1], float(row[2])) for row in rows if len(row) == 3}
