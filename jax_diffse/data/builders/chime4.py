"""CHiME-4, simulated data: read Wall Street Journal sentences in bus, cafe, pedestrian area and street noise.

E. Vincent, S. Watanabe, A. A. Nugraha, J. Barker and R. Marxer, "An analysis of environment, microphone and data
simulation mismatches in robust speech recognition", Computer Speech and Language 46, 2017. The corpus is licensed by
the Linguistic Data Consortium (LDC2017S24 is its CHiME-3 release), so you have to put it in place yourself.

The simulated development set dt05 becomes `validation` (1640 pairs), the evaluation set et05 `test` (1320 pairs). One
channel is used: microphone 5, which faces the speaker and which published enhancement scores use. These files are read,
below `CHiME4/data/audio/16kHz/` in TFDS's manual directory (`downloads/manual` in the data directory), where {set} is
dt05 or et05 and {env} is bus, caf, ped or str:

    isolated/{set}_{env}_simu/{speaker}_{sentence}_{ENV}.CH5.wav             noisy
    isolated_ext/{set}_{env}_simu/{speaker}_{sentence}_{ENV}.CH5.Clean.wav   clean, config `aligned`
    isolated/{set}_bth/{speaker}_{sentence}_BTH.CH0.wav                      clean, config `booth`

`aligned` uses the speech component of each mixture, which is sample by sample what enhancement should give. The corpus
lacks these files; the organisers' simulation script, as extended in Kaldi's `chime4` recipe, writes them. `booth` uses
the booth recording that the mixture was simulated from. It is part of the corpus, but at another level and some samples
off.

The builder writes the list of these files to `manifest.tsv` beside the data.
"""

import dataclasses
from collections.abc import Iterator

import numpy as np
import tensorflow_datasets as tfds
from etils import epath

from jax_diffse import audio
from jax_diffse.data.builders import pairs
from jax_diffse.errors import UserError

CHANNEL = 5
ENVIRONMENTS = ('bus', 'caf', 'ped', 'str')
SETS = {'validation': 'dt05', 'test': 'et05'}
ROOT = 'CHiME4/data/audio/16kHz'  # below the manual directory
MANIFEST = 'manifest.tsv'


@dataclasses.dataclass(eq=False)
class Chime4Config(tfds.core.BuilderConfig):
    """The clean reference, and the number of pairs that there must be."""

    reference: str = 'aligned'  # or 'booth'
    num_validation: int = 1640
    num_test: int = 1320


@dataclasses.dataclass(frozen=True)
class Pair:
    """Two files of one utterance."""

    name: str
    noise: str
    noisy: epath.Path
    clean: epath.Path


class Chime4(tfds.core.GeneratorBasedBuilder):
    """Builder `chime4`, with the configs `aligned` and `booth`; it has no training split."""

    VERSION = tfds.core.Version('1.0.0')
    BUILDER_CONFIGS = [
        Chime4Config(name='aligned', description='clean: the speech component of the mixture', reference='aligned'),
        Chime4Config(name='booth', description='clean: the booth recording', reference='booth'),
    ]
    DEFAULT_BUILDER_CONFIG_NAME = 'aligned'
    MANUAL_DOWNLOAD_INSTRUCTIONS = f'Put or link the CHiME-4 corpus here as CHiME4, so that {ROOT}/isolated exists.'

    def _info(self) -> tfds.core.DatasetInfo:
        return pairs.info(self, __doc__, homepage='https://www.chimechallenge.org/challenges/chime4/')

    def _split_generators(self, dl_manager: tfds.download.DownloadManager):
        root = self._root(dl_manager)
        expected = {'validation': self.builder_config.num_validation, 'test': self.builder_config.num_test}
        splits = {split: find_pairs(root, part, self.builder_config.reference) for split, part in SETS.items()}
        for split, found in splits.items():
            pairs.check_count(len(found), expected[split], f'{root}: simulated {SETS[split]}')
        self._write_manifest(root, splits)
        return {split: self._generate_examples(found) for split, found in splits.items()}

    def _root(self, dl_manager) -> epath.Path:
        try:
            manual = dl_manager.manual_dir
        except AssertionError as error:  # TFDS raises it if the directory does not exist or is empty
            raise UserError(' '.join(str(error).split())) from error
        if not (manual / ROOT / 'isolated').is_dir():
            raise UserError(f'{manual / ROOT}/isolated: no such directory. {self.MANUAL_DOWNLOAD_INSTRUCTIONS}')
        return manual / ROOT

    def _write_manifest(self, root, splits):
        rows = ['split\tid\tnoise\tnoisy\tclean']
        rows += [f'{split}\t{pair.name}\t{pair.noise}\t{pair.noisy.relative_to(root)}\t{pair.clean.relative_to(root)}'
                 for split, found in splits.items() for pair in found]
        # This is still TFDS's temporary directory, which is renamed when all is written.
        (self.data_path / MANIFEST).write_text('\n'.join(rows) + '\n', encoding='utf-8')

    def _generate_examples(self, found: list[Pair]) -> Iterator[tuple[str, dict]]:
        for pair in found:
            clean, noisy = _read(pair.clean), _read(pair.noisy)
            if self.builder_config.reference == 'booth':
                clean, noisy = clean[:len(noisy)], noisy[:len(clean)]
            yield pairs.example(pair.name, clean, noisy, pair.name.partition('_')[0], pair.noise)


def find_pairs(root: epath.Path, part: str, reference: str) -> list[Pair]:
    """Finds the pairs of 'dt05' or 'et05', sorted by name.

    Raises:
      UserError: clean files are missing.
    """
    found = []
    for environment in ENVIRONMENTS:
        folder = root / 'isolated' / f'{part}_{environment}_simu'
        for noisy in sorted(folder.glob(f'*.CH{CHANNEL}.wav')):
            name = noisy.name.partition('.')[0]  # speaker_sentence_ENV
            found.append(Pair(name, environment, noisy, _clean(root, folder.name, name, reference)))
    missing = [pair for pair in found if not pair.clean.exists()]
    if missing:
        raise UserError(f'{missing[0].clean}: no such file, the clean partner of {missing[0].noisy.name} '
                        f'({len(missing)} of {len(found)} in {part} have none); see the docstring of {__name__}')
    return found


def _clean(root, folder, name, reference) -> epath.Path:
    if reference == 'aligned':
        return root / 'isolated_ext' / folder / f'{name}.CH{CHANNEL}.Clean.wav'
    return root / 'isolated' / f'{folder.partition("_")[0]}_bth' / f'{name.rpartition("_")[0]}_BTH.CH0.wav'


def _read(path: epath.Path) -> np.ndarray:
    return pairs.to_stored_rate(*audio.read(path), str(path))
