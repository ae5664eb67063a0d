"""Token shards in the Parameter Golf format: a header of 256 numbers, then 16-bit ids.

The header is 256 little-endian int32: a magic number, a version, the token count, then zeros.
The ids follow as little-endian uint16, and nothing follows them.
"""

from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from workbench.folder import InputError, replacing

MAGIC, VERSION = 20240520, 1
HEADER_BYTES = 1024


def read_shard(path: Path) -> NDArray[np.uint16]:
    """Read the ids of one shard.

    Parameters
    ----------
    path : Path
        A ``.bin`` file.

    Raises
    ------
    InputError
        If there is no such file, its header is wrong, or its size is not what the header says.
    """
    path = Path(path)
    if not path.exists():
        raise _broken(path, "a token shard", "no file", "Check the path.")
    raw = path.read_bytes()
    if len(raw) < HEADER_BYTES:
        raise _broken(path, f"a header of {HEADER_BYTES} bytes", f"{len(raw)} bytes", AGAIN)
    magic, version, count = np.frombuffer(raw, dtype="<i4", count=3).tolist()
    if magic != MAGIC:
        raise _broken(path, f"magic number {MAGIC}", str(magic), "It is not a token shard.")
    if version != VERSION:
        raise _broken(path, f"version {VERSION}", str(version), "Write it again as version 1.")
    expected = HEADER_BYTES + 2 * count
    if count < 0 or len(raw) != expected:
        how = "trailing bytes" if len(raw) > expected else "truncated"
        found = f"{len(raw)} bytes ({how})"
        raise _broken(path, f"{expected} bytes for {count} tokens", found, AGAIN)
    return np.frombuffer(raw, dtype="<u2", offset=HEADER_BYTES).astype(np.uint16)


AGAIN = "Copy or download it again."


def _broken(path: Path, expected: str, found: str, remedy: str) -> InputError:
    """Say what is wrong with a shard."""
    return InputError(path, expected=expected, found=found, remedy=remedy)


def check_vocabulary(ids: NDArray[np.integer], vocab_size: int, *, where: object) -> None:
    """Refuse ids that the tokenizer does not have.

    Raises
    ------
    InputError
        If an id is `vocab_size` or more.
    """
    largest = int(ids.max(initial=0))
    if largest >= vocab_size:
        wanted = f"ids below {vocab_size}, the size of the vocabulary"
        remedy = "Use the tokenizer that wrote these shards."
        raise InputError(where, expected=wanted, found=f"id {largest}", remedy=remedy)


def write_shard(path: Path, ids: ArrayLike) -> None:
    """Replace `path` by a shard of `ids`.

    Parameters
    ----------
    path : Path
        A ``.bin`` file.
    ids : (token,) int
        Token ids, 0 to 65535.

    Raises
    ------
    InputError
        If an id does not fit in 16 bits.
    """
    values = np.asarray(ids)
    if values.size and not (values.min() >= 0 and values.max() <= 0xFFFF):
        found = f"ids from {values.min()} to {values.max()}"
        remedy = "The format holds 16 bits an id; use a smaller vocabulary."
        raise InputError(path, expected="ids from 0 to 65535", found=found, remedy=remedy)
    header = np.zeros(HEADER_BYTES // 4, dtype="<i4")
    header[:3] = MAGIC, VERSION, values.size
    with replacing(Path(path)) as scratch:
        scratch.write_bytes(header.tobytes() + values.astype("<u2").tobytes())
