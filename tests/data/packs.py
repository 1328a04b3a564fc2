"""Packed data sets, whole and interrupted."""

import pytest

from jax_diffse.data import packing
from jax_diffse.data.config import Folders
from jax_diffse.data.packing import PackOptions, pack


def packed_to(output, encoding='flac', **folders):
    """Packs folders, and returns the name of the result."""
    pack(Folders(**folders), str(output), PackOptions(encoding))
    return str(output)


def interrupt(output, count, **folders):
    """Packs folders, and is interrupted after so many recordings."""
    encode, done = packing._encode, []

    def interrupted(path, *given):
        if len(done) >= count:
            raise KeyboardInterrupt
        done.append(path)
        return encode(path, *given)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(packing, '_encode', interrupted)
        with pytest.raises(KeyboardInterrupt):
            packed_to(output, **folders)
