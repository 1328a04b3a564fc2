"""Cases of `pack`, and of packed data sets in training."""

import os

from jax_diffse.data import packed
from tests.bad_input.selections import FOUR, TRAIN
from tests.bad_input.world import Case, cut, data, pairs, sound, wav

PACK = 'jax-diffse pack --speech clean --output packed'
DATA = '--config.data.train.speech=packed'
GS = 'http://host/x'


def made(count: int):
    """Checks that a complete data set of `count` recordings is there."""
    def check():
        index = packed.index('packed')
        assert index and len(index.names()) == count and not os.path.exists(f'packed/{packed.PLAN}')

    return check


PACKING = [
    Case('a folder of speech', PACK, (FOUR,), 0, 'a packed data set', made(4)),
    Case('pairs with odd names and encodings',
         'jax-diffse pack --clean clean --noisy noisy --output packed --encoding int16',
         (pairs(names=('größe 日本/a b', '-x')), wav('clean/-x.wav', sound(8000), subtype='PCM_24'),
          wav('noisy/-x.wav', sound(8000, level=3), subtype='PCM_U8')), 0, 'a packed data set', made(2)),
    Case('no folder', 'jax-diffse pack --output packed', (), 2, 'no folder given, expected --speech, --noise, or'),
    Case('speech and noise', f'{PACK} --noise noisy', (FOUR,), 2, '--speech and --noise given, expected --speech'),
    Case('a missing folder', PACK.replace('clean', 'gone'), (), 2, 'gone: no such directory'),
    Case('a silent file', PACK, (FOUR, wav('clean/b.wav', sound(8000, level=0))), 2,
         'clean/b.wav: silent; repair or remove it, or leave it out with --skip-bad'),
    Case('a file that was cut off', PACK, (FOUR, cut('clean/a.wav', 9000)), 2, 'clean/a.wav: cut off'),
    Case('a partner of another length', 'jax-diffse pack --clean clean --noisy noisy --output packed',
         (FOUR, wav('noisy/a.wav', sound(7999))), 2, 'noisy/a.wav: 7999 samples, but 8000'),
    Case('an unknown encoding', f'{PACK} --encoding mp3', (FOUR,), 2, '--encoding: expected one of flac, int16'),
    Case('a list that is missing', f'{PACK} --list gone.txt', (FOUR,), 2, r'--list=gone.txt: cannot be read \(No such'),
    Case('a list of files elsewhere', f'{PACK} --list some.txt', (FOUR, data('some.txt', b'../noisy/a.wav\n')), 2,
         '--list=some.txt: line 1: ../noisy/a.wav does not lie in clean'),
    Case('an output with other files', PACK, (FOUR, data('packed/notes.txt', b'precious')), 2,
         'packed: exists and is not a packed data set'),
    Case('an output that is a file', PACK, (FOUR, data('packed', b'precious')), 2,
         'packed: exists and is not a packed data set'),
    Case('an output in the folder', f'{PACK}'.replace('packed', 'clean/packed'), (FOUR,), 2,
         '--output=clean/packed: lies in --speech=clean'),
    Case('an unfinished data set of other files', PACK, (FOUR, data('packed/unfinished_pack.json', b'{"digest": "x"}')),
         2, 'packed: holds a data set of other files'),
    Case('an address', PACK.replace('clean', GS), (), 2, 'http://host/x: an address of http://, expected a path'),
    Case('training on an unfinished data set', f'{TRAIN} {DATA}', (data('packed/unfinished_pack.json', b'{}'),), 2,
         'packed: a packed data set that is not finished; run its jax-diffse pack command again'),
    Case('training on a damaged data set', f'{TRAIN} {DATA}',
         (data('packed/index.columns', b'once upon a time'), data('packed/dataset_info.json', b'{}')), 2,
         'packed/index.columns: cannot be read .*pack the recordings again'),
]
