"""A thin binding of the espeak-ng speech synthesiser in the `espeakng-loader` wheel (GPL-3).

The interface is that of espeak-ng's public header `speak_lib.h`.
"""

import ctypes
import pathlib
import shutil
import tempfile

import numpy as np

from jax_diffse.errors import UserError

# From speak_lib.h: espeak_AUDIO_OUTPUT, espeak_PARAMETER, position type and character encoding.
_SYNCHRONOUS = 2
_RATE, _PITCH = 1, 3
_POS_CHARACTER, _UTF8 = 1, 1

_Callback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p)


class Synthesizer:
    """espeak-ng in its initial state: what it speaks depends only on what this object spoke before.

    Raises:
      UserError: the `demo` extra is not installed, or the library does not start.
    """

    def __init__(self):
        try:
            import espeakng_loader
        except ImportError as error:
            raise UserError('espeakng_loader: not installed, but spoken_demo needs it; pip install espeakng-loader'
                            ) from error
        self._library = _private_copy(espeakng_loader.get_library_path())
        data = espeakng_loader.get_data_path().encode()
        self.sample_rate = self._library.espeak_Initialize(_SYNCHRONOUS, 0, data, 0)  # Hz
        if self.sample_rate <= 0:
            raise UserError(f'espeak-ng: cannot start with the data in {data.decode()}; reinstall espeakng-loader')
        self._chunks: list[np.ndarray] = []
        self._callback = _Callback(self._receive)  # kept: C holds no reference
        self._library.espeak_SetSynthCallback(self._callback)

    def _receive(self, samples, count, events) -> int:
        if count > 0:
            self._chunks.append(np.ctypeslib.as_array(samples, (count,)).copy())
        return 0  # continue

    def speak(self, text: str, voice: str, rate: int, pitch: int) -> np.ndarray:
        """Speaks a sentence.

        Args:
          text: English text.
          voice: a language and a variant of the voice, as 'en-us+f2'.
          rate: words per minute, 80 to 450.
          pitch: 0 to 100, 50 is normal.

        Returns:
          float32 `[N]` in [-1, 1), at `sample_rate`.

        Raises:
          UserError: there is no such voice, or nothing was spoken.
        """
        if self._library.espeak_SetVoiceByName(voice.encode()) != 0:
            raise UserError(f'espeak-ng: no voice {voice!r}; reinstall espeakng-loader')
        self._library.espeak_SetParameter(_RATE, rate, 0)
        self._library.espeak_SetParameter(_PITCH, pitch, 0)
        self._chunks.clear()
        data = text.encode()
        self._library.espeak_Synth(data, ctypes.c_size_t(len(data) + 1), 0, _POS_CHARACTER, 0, _UTF8, None, None)
        self._library.espeak_Synchronize()
        if not self._chunks:
            raise UserError(f'espeak-ng: nothing spoken for {text!r} by {voice}')
        return np.concatenate(self._chunks).astype(np.float32) / 32_768


def _private_copy(path: str) -> ctypes.CDLL:
    # espeak-ng keeps state between sentences in static variables that it never resets, and a library that is loaded
    # twice is the same library. A copy of the file is another library, with variables of its own.
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:  # Windows cannot delete a loaded library
        copy = pathlib.Path(shutil.copy(path, folder))
        return ctypes.CDLL(str(copy))
