"""Cases of data in object storage, which `gcs.shared` emulates."""

import io
import os

import numpy as np
import soundfile

from jax_diffse.data import packed
from tests import gcs
from tests.bad_input.selections import FOUR, MIX, TRAIN
from tests.bad_input.world import RATE, Case, Make, sound

SPEECH = '--config.data.train.speech=gs://bucket'
PACK = 'jax-diffse pack --speech clean --output gs://bucket'


def stored(objects: dict[str, bytes] | None = None, refused: str = '') -> Make:
    """Fills the bucket `bucket`; requests whose paths contain `refused` are forbidden."""
    def make():
        store = gcs.shared()
        os.environ.update(store.environment())
        store.buckets['bucket'] = {}
        store.refused, store.refused_part = (403, refused) if refused else (0, '')
        for name, content in (objects or {}).items():
            store.put('bucket', name, content, {}, {})

    return make


def wav(samples: np.ndarray, rate: int = RATE) -> bytes:
    """A file of audio."""
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, rate, format='WAV')
    return buffer.getvalue()


def array(samples: np.ndarray) -> bytes:
    """A file of an array."""
    buffer = io.BytesIO()
    np.save(buffer, samples)
    return buffer.getvalue()


def packed_there() -> None:
    """Checks that a packed data set of four recordings is in the bucket, and nothing on this machine."""
    names = gcs.shared().names('bucket')
    assert f'packed/{packed.INDEX}' in names and f'packed/{packed.PLAN}' not in names
    assert not os.path.exists('gs:') and len([name for name in names if 'array_record' in name]) == 1


TWO = {'speech/a.wav': wav(sound(8000)), 'speech/b.wav': wav(sound(8000))}
STORED = [
    Case('a folder packed into a bucket', f'{PACK}/packed', (FOUR, stored()), 0, 'a packed data set in the bucket',
         packed_there),
    Case('a bucket that does not exist', f'{TRAIN} --config.data.train.speech=gs://no-such-bucket/speech', (stored(),),
         2, r'gs://no-such-bucket/speech: cannot be read \(there is no such bucket\)'),
    Case('a folder that is not in the bucket', f'{TRAIN} {SPEECH}/gone', (stored(TWO),), 2,
         'gs://bucket/gone: no such directory'),
    Case('a folder of the bucket without audio', f'{TRAIN} {SPEECH}/texts', (stored({'texts/a.txt': b'a'}),), 2,
         'gs://bucket/texts: no audio files in this directory'),
    Case('a bucket without permission', f'{TRAIN} {SPEECH}/speech', (stored(TWO, refused='/b/bucket/'),), 2,
         r'gs://bucket/speech: cannot be read \(no permission'),
    Case('a silent object', f'{TRAIN} {SPEECH}/speech', (stored(TWO | {'speech/b.wav': wav(0 * sound(8000))}),), 2,
         'gs://bucket/speech/b.wav: silent; repair or remove it'),
    Case('an object that was cut off', f'{TRAIN} {SPEECH}/speech',
         (stored(TWO | {'speech/b.wav': TWO['speech/b.wav'][:9000]}),), 2, 'gs://bucket/speech/b.wav: cut off'),
    Case('an object that is empty', f'{TRAIN} {SPEECH}/speech', (stored(TWO | {'speech/b.wav': b''}),), 2,
         'gs://bucket/speech/b.wav: the file is empty'),
    Case('a silent room impulse response in a bucket',
         f'{TRAIN} {MIX}=noisy --config.data.train.rir=gs://bucket/rir',
         (FOUR, stored({'rir/a.wav': wav(sound(900)), 'rir/b.wav': wav(0 * sound(900))})), 2,
         'gs://bucket/rir/b.wav: silent in its first channel'),
    Case('an array that is not in the bucket', f'{TRAIN} --config.data.train.arrays=gs://bucket/a.npy', (stored(),), 2,
         r'gs://bucket/a.npy: cannot be read \(No such file or directory\)'),
    Case('an array in a bucket that was cut off', f'{TRAIN} --config.data.train.arrays=gs://bucket/a.npy',
         (stored({'a.npy': array(np.zeros((4, 2, 8000)))[:9000]}),), 2, 'gs://bucket/a.npy: cut off, shorter than'),
    Case('an unfinished packed data set in a bucket', f'{TRAIN} {SPEECH}/packed',
         (stored({'packed/unfinished_pack.json': b'{}'}),), 2,
         'gs://bucket/packed: a packed data set that is not finished; run its jax-diffse pack command again'),
    Case('packing into a folder of the bucket with other files', f'{PACK}/notes', (FOUR, stored({'notes/a': b'a'})), 2,
         'gs://bucket/notes: exists and is not a packed data set'),
    Case('packing into a bucket that does not exist', 'jax-diffse pack --speech clean --output gs://no-such-bucket/x',
         (FOUR, stored()), 2, r'gs://no-such-bucket/x: cannot be read \(there is no such bucket\)'),
    Case('packing into the folder itself', 'jax-diffse pack --speech gs://bucket/speech --output gs://bucket/speech/x',
         (stored(TWO),), 2, '--output=gs://bucket/speech/x: lies in --speech=gs://bucket/speech'),
]
