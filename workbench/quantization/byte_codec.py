"""What codes cost in a general compressor, one symbol a byte, beside their entropy."""

import lzma
import zlib
from collections.abc import Callable, Mapping

import brotli
import numpy as np
from torch import Tensor

from workbench.quantization.grid import Codes

CODECS: Mapping[str, Callable[[bytes], bytes]] = {
    "zlib": lambda content: zlib.compress(content, 9),
    "lzma": lambda content: lzma.compress(content, preset=9 | lzma.PRESET_EXTREME),
    "brotli": lambda content: brotli.compress(content, quality=11, lgwin=24),
}


def codec_bytes(tensors: Mapping[str, Codes | Tensor], codec: str) -> int:
    """Return the bytes of a quantised model in a general compressor.

    Codes are never packed into fewer bits before: that hides their frequencies from it. The
    better of both orders, by rows and by columns, is taken; scales and plain tensors follow as
    float16.

    Parameters
    ----------
    tensors : mapping
        Codes within -128 and 127.
    codec : str
        One of `CODECS`.
    """
    codes = [each for each in tensors.values() if isinstance(each, Codes)]
    symbols = [each.codes.numpy() for each in codes]
    if any(np.abs(each).max(initial=0) > 127 for each in symbols):
        raise ValueError("codes beyond a byte")
    scales = [each.grid.row_scale for each in codes]
    scales += [each.grid.column_scale for each in codes if each.grid.column_scale is not None]
    floats = [each for each in tensors.values() if not isinstance(each, Codes)]
    rest = b"".join(each.half().numpy().tobytes() for each in (*scales, *floats))
    orders = (symbols, [each.T for each in symbols])
    laid = (b"".join(each.astype(np.int8).tobytes() for each in order) for order in orders)
    return min(len(CODECS[codec](each + rest)) for each in laid)


def entropy_bytes(codes: Codes) -> float:
    """Return the bytes that codes need by their own frequencies, order and scales left out."""
    _, count = np.unique(codes.codes.numpy(), return_counts=True)
    share = count / count.sum()
    return float(-(share * np.log2(share)).sum() * count.sum() / 8)
