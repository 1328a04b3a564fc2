"""Data sets that are opened as a process does that has just started, and compared; what the emulator was asked for."""

import dataclasses

import numpy as np

from jax_diffse.data import DataConfig, manifest, open_source


def uploaded(upload, folders):
    """The same folders in the bucket."""
    return dataclasses.replace(folders, **{field.name: upload(getattr(folders, field.name)) for field in
                                           dataclasses.fields(folders) if getattr(folders, field.name)})


def opened(folders, split='train', **settings):
    """Opens a split as a process does that has just started."""
    manifest._seen.clear()
    return open_source(DataConfig(train=folders, test=folders, held_out=0.3, **settings), split)


def assert_same(found, expected, crops=6):
    """The same utterances, examples and samples."""
    assert [found.info(i) for i in range(len(found))] == [expected.info(i) for i in range(len(expected))]
    for i in range(crops):
        i %= len(expected)
        np.testing.assert_array_equal(found.draw(i, 3000, np.random.default_rng(i)),
                                      expected.draw(i, 3000, np.random.default_rng(i)))
        np.testing.assert_array_equal(found.read(i), expected.read(i))


def media(store):
    """The number of bytes of each request so far that read an object, or a part of it."""
    return [request.received for request in store.requests if 'alt=media' in request.path and request.received > 300]


def sizes(store, bucket, start=''):
    return sorted(len(found.data) for name, found in store.buckets[bucket.removeprefix('gs://')].items()
                  if name.startswith(start))
