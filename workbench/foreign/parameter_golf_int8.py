"""The int8 format of Parameter Golf: a row of a large matrix is int8 times one float16 scale.

The scale of a row never falls below 1/127, whatever its range: a row whose largest weight is far
below 1 keeps few levels.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

FORMAT = "int8_clean_per_row_v1"
LARGEST = 127  # of the integers
CLIP = 0.9999984  # quantile of a row's magnitudes beyond which weights are clipped
KEPT_VALUES = 65536  # a tensor of no more values stays in floating point
CONTROL = ("attn_scale", "mlp_scale", "resid_mix", "q_gain", "skip_weight")  # if small, float32
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def quantize(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """Return what the official script saves before it compresses.

    Parameters
    ----------
    tensors : mapping
        Matrices (row, column) and small tensors of floating point, on the CPU.

    Returns
    -------
    dict
        ``quantized`` (int8), ``scales`` (float16 a row) and ``dtypes`` of large matrices,
        ``passthrough`` (float16; float32 for control tensors), and notes on both.
    """
    quantized, scales, dtypes, passthrough, original = {}, {}, {}, {}, {}
    for name, tensor in tensors.items():
        dtype = str(tensor.dtype).removeprefix("torch.")
        if tensor.numel() > KEPT_VALUES:
            quantized[name], scales[name] = _rows(tensor.float())
            dtypes[name] = dtype
        elif any(part in name for part in CONTROL):
            passthrough[name] = tensor.float()
        else:
            passthrough[name] = tensor.half()
            original[name] = dtype
    payload = {
        "__quant_format__": FORMAT,
        "quantized": quantized,
        "scales": scales,
        "dtypes": dtypes,
        "passthrough": passthrough,
    }
    if quantized:
        payload["qmeta"] = {name: {"scheme": "per_row", "axis": 0} for name in quantized}
    if original:
        payload["passthrough_orig_dtypes"] = original
    return payload


def _rows(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """Round each row of a float32 matrix to int8; the float16 scale is for reading back only."""
    limit = matrix.abs().quantile(CLIP, dim=1, keepdim=True)
    scale = (limit / LARGEST).clamp_min(1 / LARGEST)
    rounded = (matrix.clamp(-limit, limit) / scale).round().clamp(-LARGEST, LARGEST)
    return rounded.to(torch.int8), scale[:, 0].half()


def dequantize(payload: Mapping[str, Any]) -> dict[str, Tensor]:
    """Return the tensors of a payload, in the dtypes they had.

    Raises
    ------
    ValueError, LookupError, TypeError, AttributeError
        If the payload is not of this format.
    """
    if payload["__quant_format__"] != FORMAT:
        raise ValueError(f"format {payload['__quant_format__']!r}, not {FORMAT}")
    original = payload.get("passthrough_orig_dtypes", {})
    tensors = {
        name: tensor.to(DTYPES[original[name]]) if name in original else tensor
        for name, tensor in payload["passthrough"].items()
    }
    for name, integers in payload["quantized"].items():
        scale = payload["scales"][name].float()
        if integers.dtype != torch.int8 or scale.shape not in ((), integers.shape[:1]):
            raise ValueError(f"{name} is not int8 with a scale a row")
        scale = scale.reshape(-1, *[1] * (integers.ndim - 1))
        tensors[name] = (integers * scale).to(DTYPES[payload["dtypes"][name]])
    return tensors
