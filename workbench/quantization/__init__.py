"""Grids, rounding and range coding: the fewest bytes at equal bits per byte."""

from workbench.quantization.artifact import open_artifact, pack, write_artifact
from workbench.quantization.budget import Quantizer, quantizer, with_values
from workbench.quantization.byte_codec import CODECS, codec_bytes, entropy_bytes
from workbench.quantization.calibration import calibration_rows, own_rows, training_rows
from workbench.quantization.codebook import rq4
from workbench.quantization.curvature import Curvature, curvature
from workbench.quantization.forecast import coded_bytes, gaussian_bytes
from workbench.quantization.grid import Codes, Grid, clip_search, integer_grid, nearest, ternary
from workbench.quantization.late import LateQuantization, straight_through, widest_grid
from workbench.quantization.margin_hinge import margin_hinge, measured_margin, survival
from workbench.quantization.methods import METHODS, Method
from workbench.quantization.rounding import awq_grid, dead_zone, even_slope_grid, factor, gptq
from workbench.quantization.stored import (
    Judge,
    account_table,
    artifact_path,
    evaluate_artifact,
    keep_artifact,
    open_quantized,
    verdict,
)

__all__ = [
    "CODECS",
    "METHODS",
    "Codes",
    "Curvature",
    "Grid",
    "Judge",
    "LateQuantization",
    "Method",
    "Quantizer",
    "account_table",
    "artifact_path",
    "awq_grid",
    "calibration_rows",
    "clip_search",
    "codec_bytes",
    "coded_bytes",
    "curvature",
    "dead_zone",
    "entropy_bytes",
    "evaluate_artifact",
    "even_slope_grid",
    "factor",
    "gaussian_bytes",
    "gptq",
    "integer_grid",
    "keep_artifact",
    "margin_hinge",
    "measured_margin",
    "nearest",
    "open_artifact",
    "open_quantized",
    "own_rows",
    "pack",
    "quantizer",
    "rq4",
    "straight_through",
    "survival",
    "ternary",
    "training_rows",
    "verdict",
    "widest_grid",
    "with_values",
    "write_artifact",
]
