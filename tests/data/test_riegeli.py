"""Where records are in a shard, against ArrayRecord's own reader."""

import numpy as np
import pytest
from array_record.python import array_record_module

from jax_diffse.data import riegeli


def test_bytes_of_records_are_found_and_cut_out(tmp_path):
    rng = np.random.default_rng(0)
    sizes = [1, 64, 65_000, 65_512, 65_536, 200_000, 3, 1_000_000, 40_000]
    records = [rng.bytes(size) for size in sizes]
    records += [bytes(100_000), bytes(100_000), records[2]]  # zeros twice, and one again
    writer = array_record_module.ArrayRecordWriter(str(tmp_path / 'shard'), 'group_size:1,uncompressed')
    for record in records:
        writer.write(b'head' + record + b'tail')
    writer.close()
    found = riegeli.find(tmp_path / 'shard', map(riegeli.Wanted.of, records))
    assert found == sorted(found)
    data = (tmp_path / 'shard').read_bytes()
    for record, offset in zip(records, found, strict=True):
        stored = data[offset:offset + riegeli.stored_size(offset, len(record))]
        assert riegeli.without_headers(stored, offset) == record
    reader = array_record_module.ArrayRecordReader(str(tmp_path / 'shard'))
    assert reader.read_all() == [b'head' + record + b'tail' for record in records]


def test_bytes_that_are_not_there_are_an_error(tmp_path):
    writer = array_record_module.ArrayRecordWriter(str(tmp_path / 'shard'), 'group_size:1,uncompressed')
    writer.write(b'x' * 1000)
    writer.close()
    with pytest.raises(ValueError, match='a record is not in the shard'):
        riegeli.find(tmp_path / 'shard', [riegeli.Wanted.of(b'y' * 100)])


@pytest.mark.parametrize(('offset', 'size', 'expected'), [
    (24, 65_512, 65_512), (24, 65_513, 65_537), (65_535, 1, 1), (65_535, 2, 26), (100, 0, 0),
    (24, 65_512 + 65_512, 65_512 + 65_536), (24, 65_512 + 65_513, 65_512 + 65_536 + 25)])
def test_headers_are_counted(offset, size, expected):
    """By hand: blocks of 65 536 bytes of which 24 are the header."""
    assert riegeli.stored_size(offset, size) == expected
