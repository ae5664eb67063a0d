"""What codes cost in a general compressor, one symbol a byte, beside their entropy."""

import lzma
import zlib
from collections.abc import Callable, Mapping

import brotli
import numpy as np

from workbench.quantization.grid import Codes

CODECS: Mapping[str, Callable[[bytes], bytes]] = {
    "zlib": lambda content: zlib.compress(content, 9),
    "lzma": lambda content: lzma.compress(content, preset=9 | lzma.PRESET_EXTREME),
    "brotli": lambda content: brotli.compress(content, quality=11, lgwin=24),
}


def codec_bytes(codes: Codes, codec: str) -> int:
    """Return the bytes of codes in a general compressor, with their scales as float16.

    Codes are never packed into fewer bits before: that hides their frequencies from it. The
    better of both orders, by rows and by columns, is taken.

    Parameters
    ----------
    codes : Codes
        Within -128 and 127.
    codec : str
        One of `CODECS`.
    """
    symbols = codes.codes.numpy()
    if np.abs(symbols).max(initial=0) > 127:
        raise ValueError("codes beyond a byte")
    column = codes.grid.column_scale
    scales = codes.grid.row_scale.numel() + (0 if column is None else column.numel())
    orders = [symbols.astype(np.int8), np.ascontiguousarray(symbols.T.astype(np.int8))]
    return min(len(CODECS[codec](each.tobytes())) for each in orders) + 2 * scales


def entropy_bytes(codes: Codes) -> float:
    """Return the bytes that codes need by their own frequencies, order and scales left out."""
    _, count = np.unique(codes.codes.numpy(), return_counts=True)
    share = count / count.sum()
    return float(-(share * np.log2(share)).sum() * count.sum() / 8)
