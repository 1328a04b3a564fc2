"""Fixtures of trainings: a toy system, and a corpus for it."""

import pytest

from jax_diffse import systems
from tests.toys import Trainable
from tests.training.tiny import write_corpus


@pytest.fixture(autouse=True, scope='module')
def toy_system():
    """Registers `Trainable` as the system `toy`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(systems.SYSTEMS, 'toy', Trainable)
        yield


@pytest.fixture(scope='module')
def corpus(tmp_path_factory):
    return write_corpus(tmp_path_factory.mktemp('corpus'))
