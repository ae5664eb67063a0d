"""The artifact: a whole model in one file of few bytes, and where each of them went.

Layout of a ``.wba`` file, version 1, numbers little-endian::

    4 bytes   "WBA1"
    4 bytes   length of the header, uint32
    header    JSON: the configuration where it differs from the defaults; groups of columns; how far
              values are shrunken and codes reach, where they do not reach further; for
              every tensor in order of the state dict a letter: p (codes, scales of quarter
              octaves), c (codes, float16 scales a row or group), C (and one a column), h
              (float16) or f (float32)
    4 bytes   length of the range-coded stream in 4-byte words
    stream    for each tensor of codes: levels of scales of quarter octaves, then codes
    floats    in order of the state dict: float16 scales, then plain tensors
    16 bytes  SHA-256 of all before, its beginning

Reading needs the file alone. It executes nothing, and is refused before anything large is made.
"""

import hashlib
import json
import struct
from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from workbench.folder import InputError, replacing
from workbench.model import ModelConfig, Network, from_json, to_json
from workbench.quantization.grid import Codes, Grid, level_of, scale_of, values_of
from workbench.quantization.range_coder import Coder, code_matrix

MAGIC = b"WBA1"
CHECK = 16  # bytes of the checksum
MOST_HEADER = 2**16  # bytes
MOST_LAYERS = 512
MOST_ROWS = 2**14  # of matrices, beside one a byte
MOST_PER_BYTE = 256  # weights that one byte may stand for; more is a lie about the shape
Parameters = Mapping[str, Codes | Tensor]
DAMAGE = (  # what reading meets in a file that is none, or was altered by somebody who seals it
    *(ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RuntimeError),
    *(AssertionError, struct.error),
)


def write_artifact(config: ModelConfig, tensors: Parameters, path: Path) -> dict[str, int]:
    """Write a quantised model, and account for every byte.

    Parameters
    ----------
    config : ModelConfig
    tensors : mapping
        Every tensor of the state dict: `Codes`, or floats, which are stored as float16 unless
        that would change them.
    path : Path
        Replaced whole.

    Returns
    -------
    dict of str to int
        Bytes of ``header``, of each tensor, and of ``checksum``; they sum to the size of the file.
    """
    content, account = pack(config, tensors)
    with replacing(path) as scratch:
        scratch.write_bytes(content)
    return account


def pack(config: ModelConfig, tensors: Parameters) -> tuple[bytes, dict[str, int]]:
    """Return the bytes of an artifact, and what each part of it takes."""
    if odd := [name for name, each in tensors.items() if not values_of(each).isfinite().all()]:
        raise InputError(
            ", ".join(odd[:3]),
            expected="finite weights",
            found="NaN or infinity",
            remedy="Look at the model: has its training diverged?",
        )
    letters = {name: kind_of(each) for name, each in tensors.items()}
    plain = to_json(ModelConfig())
    told = {key: value for key, value in to_json(config).items() if value != plain[key]}
    groups = {
        name: each.grid.row_scale.shape[1]
        for name, each in tensors.items()
        if isinstance(each, Codes) and each.grid.row_scale.shape[1] > 1
    }
    about = {"model": told, "kinds": "".join(letters.values()), "groups": groups}
    codes = {name: each for name, each in tensors.items() if isinstance(each, Codes)}
    if shrinks := {n: each.grid.shrink for n, each in codes.items() if each.grid.shrink}:
        about["shrinks"] = shrinks
    # A grid in float16 scales is one of so many values; that of quarter octaves has no end.
    limits = {n: e.grid.limit for n, e in codes.items() if letters[n] != "p" and e.grid.limit}
    if limits:
        about["limits"] = limits
    header = json.dumps(about, separators=(",", ":")).encode()
    coder, bits, floats = Coder(), {}, {}
    for name, each in tensors.items():
        before = coder.bits
        if isinstance(each, Codes):
            _code_scales(coder, each.grid, letters[name], each.codes.shape)
            code_matrix(coder, each.codes.shape, each.codes.numpy().astype(np.int64))
            floats[name] = _float_scales(each.grid, letters[name])
        else:
            floats[name] = _as_bytes(each, letters[name])
        bits[name] = coder.bits - before
    stream = coder.words().astype("<u4").tobytes()
    body = MAGIC + struct.pack("<I", len(header)) + header + struct.pack("<I", len(stream) // 4)
    account = {"header": len(body)}
    body += stream + b"".join(floats.values())
    # The stream is one; a tensor's part of it is what its symbols cost, whole bytes in sum.
    ends = np.round(np.cumsum(list(bits.values())) / max(sum(bits.values()), 1e-9) * len(stream))
    parts = np.diff(np.insert(ends, 0, 0)).astype(int)
    account |= {name: int(part) + len(floats[name]) for name, part in zip(bits, parts, strict=True)}
    account["checksum"] = CHECK
    return body + hashlib.sha256(body).digest()[:CHECK], account


def kind_of(each: Codes | Tensor) -> str:
    """Choose how a tensor is stored."""
    if isinstance(each, Codes):
        scales = [each.grid.row_scale, each.grid.column_scale]
        known = [scale for scale in scales if scale is not None]
        if len(known) == 2 and all(_is_quarter(scale) for scale in known):
            return "p"
        return "c" if len(known) == 1 else "C"
    return "h" if torch.equal(each.half().float(), each.float()) else "f"


def _is_quarter(scale: Tensor) -> bool:
    """Tell whether scales are quarters of octaves, one a row or column."""
    one_each = scale.ndim == 1 or scale.shape[1] == 1
    return one_each and bool((scale > 0).all()) and torch.equal(scale_of(level_of(scale)), scale)


def _code_scales(coder: Coder, grid: Grid | None, letter: str, shape: Any) -> Grid:
    """Write the levels of both scales of a matrix, or read them; float scales stand elsewhere."""
    if grid is not None and letter != "p":
        return grid
    found = []
    for scale, count in zip(
        (None, None) if grid is None else (grid.row_scale[:, 0], grid.column_scale),
        shape,
        strict=True,
    ):
        level = None if scale is None else level_of(scale).numpy().astype(np.int64)
        found.append(scale_of(torch.from_numpy(coder.numbers(level, count))))
    return Grid(row_scale=found[0][:, None], column_scale=found[1])


def _float_scales(grid: Grid, letter: str) -> bytes:
    """Return the scales of a matrix that are stored as float16."""
    if letter == "p":
        return b""
    column = [] if grid.column_scale is None else [grid.column_scale]
    return b"".join(_as_bytes(scale, "h") for scale in (grid.row_scale, *column))


def _as_bytes(tensor: Tensor, letter: str) -> bytes:
    """Return a tensor as little-endian floats."""
    return tensor.detach().cpu().numpy().astype("<f2" if letter == "h" else "<f4").tobytes()


def open_artifact(path: Path) -> tuple[Network, dict[str, Codes | Tensor]]:
    """Read an artifact: the network with its quantised weights, and what they were made of.

    Raises
    ------
    InputError
        If the file is truncated, altered, of another version, or says what cannot be.
    """
    path = Path(path)
    content = path.read_bytes() if path.is_file() else b""
    try:
        config, tensors = unpack(content)
        network = Network(config)
        values = {name: values_of(each) for name, each in tensors.items()}
        if not all(bool(each.isfinite().all()) for each in values.values()):
            raise ValueError("weights that are not finite")
    except DAMAGE as error:
        raise InputError(
            path,
            expected="an artifact of this library (.wba)",
            found=str(error) or type(error).__name__,
            remedy="Copy it again, or write it again with: python -m workbench quantize.",
        ) from error
    network.load_state_dict(values)
    return network.eval(), tensors


def unpack(content: bytes) -> tuple[ModelConfig, dict[str, Codes | Tensor]]:
    """Read the bytes of an artifact.

    Raises
    ------
    ValueError
        Saying what is wrong with them; nothing large has been made then.
    """
    if content[:4] != MAGIC:
        raise ValueError(f"{len(content):,} bytes that do not begin with {MAGIC.decode()}")
    if hashlib.sha256(content[:-CHECK]).digest()[:CHECK] != content[-CHECK:]:
        raise ValueError("a checksum that does not match: the file was cut short or altered")
    (length,) = struct.unpack_from("<I", content, 4)
    if length > min(MOST_HEADER, len(content) - 12 - CHECK):
        raise ValueError("a header longer than the file")
    header = json.loads(content[8 : 8 + length])
    config = _config(header, len(content))
    with torch.device("meta"):
        shapes = {name: tuple(each.shape) for name, each in Network(config).state_dict().items()}
    size = sum(int(np.prod(shape)) for shape in shapes.values())
    if size > MOST_PER_BYTE * len(content):
        raise ValueError(f"{size:,} weights in {len(content):,} bytes")
    if len(header["kinds"]) != len(shapes) or not set(header["kinds"]) <= set("pcChf"):
        raise ValueError("kinds of tensors that are not those of its model")
    kinds = dict(zip(shapes, header["kinds"], strict=True))
    (words,) = struct.unpack_from("<I", content, 8 + length)
    start = 12 + length
    stream = np.frombuffer(content[start : start + 4 * words], dtype="<u4")
    floats = memoryview(content)[start + 4 * words : -CHECK]
    groups = {name: int(header["groups"].get(name, 1)) for name in shapes}
    _check_length(kinds, shapes, groups, len(floats))
    tensors = _tensors(Coder(stream.astype(np.uint32)), kinds, shapes, groups, floats)
    shrinks, limits = header.get("shrinks", {}), header.get("limits", {})
    for name in shrinks.keys() | limits.keys():
        each, shrink, limit = tensors[name], float(shrinks.get(name, 0.0)), limits.get(name)
        if not isinstance(each, Codes) or not 0 <= shrink <= 0.5:
            raise ValueError(f"values of {name} that are shrunken by {shrink!r}")
        if limit is not None and int(each.codes.abs().max()) > int(limit):
            raise ValueError(f"codes of {name} beyond {limit!r}")
        grid = replace(each.grid, shrink=shrink, limit=limit and int(limit))
        tensors[name] = replace(each, grid=grid)
    return config, tensors


def _config(header: Mapping[str, Any], size: int) -> ModelConfig:
    """Read the shape of the model, and refuse what a file of this size cannot hold."""
    if odd := header["model"].keys() - {each.name for each in fields(ModelConfig)}:
        raise ValueError(f"{min(odd)}, which is no field of a model")
    config = from_json(header["model"])
    inner = 2 * config.d_query + 2 * config.d_key_value + 2 * config.d_feedforward
    rows = config.vocab_size + config.n_layer * inner
    weights = config.d_model * rows
    # Counted before any of it is made; a block has six matrices, and every row costs bits.
    layers = min(MOST_LAYERS, len(header["kinds"]) // 6)
    # Visits are listed only of as many blocks as the file can hold.
    is_deep = config.n_layer > layers or len(config.visits) > MOST_LAYERS
    if is_deep or weights > MOST_PER_BYTE * size:
        raise ValueError(f"{config.n_layer:,} blocks, {weights:,} weights in {size:,} bytes")
    if rows > size + MOST_ROWS:
        raise ValueError(f"{rows:,} rows in {size:,} bytes")
    return config


def _float_shapes(
    letter: str, shape: tuple[int, ...], group: int
) -> list[tuple[tuple[int, ...], str]]:
    """List the floats that a tensor keeps outside the stream, with their types."""
    if letter in "hf":
        return [(shape, "<f2" if letter == "h" else "<f4")]
    scales: list[tuple[int, ...]] = [(shape[0], group), (shape[1],)]
    scales = scales[: "pcC".index(letter)]
    return [(each, "<f2") for each in scales]


def _check_length(
    kinds: Mapping[str, str],
    shapes: Mapping[str, tuple[int, ...]],
    groups: Mapping[str, int],
    found: int,
) -> None:
    """Refuse floats that are more or fewer than the header says."""
    for name, letter in kinds.items():
        if letter in "pcC" and (len(shapes[name]) != 2 or shapes[name][1] % max(groups[name], 1)):
            raise ValueError(f"codes of {name}, which is no matrix of such groups")
    expected = sum(
        int(np.prod(shape)) * int(kind[-1])
        for name, letter in kinds.items()
        for shape, kind in _float_shapes(letter, shapes[name], groups[name])
    )
    if expected != found:
        raise ValueError(f"{found:,} bytes of floats where {expected:,} belong")


def _tensors(
    coder: Coder,
    kinds: Mapping[str, str],
    shapes: Mapping[str, tuple[int, ...]],
    groups: Mapping[str, int],
    floats: memoryview,
) -> dict[str, Codes | Tensor]:
    """Decode every tensor, in order."""
    found: dict[str, Codes | Tensor] = {}
    at = 0
    for name, letter in kinds.items():
        parts = []
        for shape, kind in _float_shapes(letter, shapes[name], groups[name]):
            count = int(np.prod(shape))
            values = np.frombuffer(floats, dtype=kind, count=count, offset=at)
            at += values.nbytes
            if not np.isfinite(values).all():
                raise ValueError(f"{name} is not finite")
            parts.append(torch.from_numpy(values.astype(np.float32).reshape(shape)))
        if letter in "hf":
            found[name] = parts[0]
            continue
        column = parts[1] if letter == "C" else None
        stored = Grid(row_scale=parts[0], column_scale=column) if parts else None
        grid = _code_scales(coder, stored, letter, shapes[name])
        codes = code_matrix(coder, shapes[name], None)
        found[name] = Codes(codes=torch.from_numpy(codes).int(), grid=grid)
    return found
