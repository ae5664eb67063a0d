"""Shards round-trip, and every way of being broken is named."""

import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from workbench.folder import InputError
from workbench.text.shards import check_vocabulary, read_shard, write_shard


def packed(ids, *, magic=20240520, version=1, count=None, tail=b""):
    """Write a shard by hand with struct: the independent route."""
    head = struct.pack("<3i", magic, version, len(ids) if count is None else count)
    return head + bytes(1024 - 12) + struct.pack(f"<{len(ids)}H", *ids) + tail


def test_written_bytes_are_the_format(tmp_path):
    write_shard(tmp_path / "a.bin", [1, 65535, 0])
    assert (tmp_path / "a.bin").read_bytes() == packed([1, 65535, 0])
    assert [each.name for each in tmp_path.iterdir()] == ["a.bin"]


@given(ids=st.lists(st.integers(0, 65535), max_size=50))
def test_round_trip(tmp_path_factory, ids):
    path = tmp_path_factory.mktemp("shard") / "a.bin"
    write_shard(path, np.array(ids, dtype=np.int64))
    again = read_shard(path)
    assert again.dtype == np.uint16
    assert again.tolist() == ids


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (packed([1, 2], magic=7), "found 7"),
        (packed([1, 2], version=2), "expected version 1; found 2"),
        (packed([1, 2], count=3), "truncated"),
        (packed([1, 2], count=-1), "trailing"),
        (packed([1, 2], tail=b"\0"), "trailing bytes"),
        (b"version https://git-lfs", "found 23 bytes"),
        (b"", "found 0 bytes"),
    ],
)
def test_broken_shards_are_named(tmp_path, content, found):
    path = tmp_path / "broken.bin"
    path.write_bytes(content)
    with pytest.raises(InputError, match=found) as caught:
        read_shard(path)
    assert "broken.bin" in str(caught.value)


def test_missing_shard(tmp_path):
    with pytest.raises(InputError, match="no file"):
        read_shard(tmp_path / "none.bin")


def test_vocabulary_bound_is_exact(tmp_path):
    write_shard(tmp_path / "a.bin", [3, 1023])
    ids = read_shard(tmp_path / "a.bin")
    check_vocabulary(ids, 1024, where="a.bin")
    with pytest.raises(InputError, match="ids below 1023"):
        check_vocabulary(ids, 1023, where="a.bin")


@pytest.mark.parametrize("ids", [[-1], [65536]])
def test_ids_that_do_not_fit_leave_the_old_file(tmp_path, ids):
    write_shard(tmp_path / "a.bin", [5])
    with pytest.raises(InputError, match="0 to 65535"):
        write_shard(tmp_path / "a.bin", ids)
    assert read_shard(tmp_path / "a.bin").tolist() == [5]
