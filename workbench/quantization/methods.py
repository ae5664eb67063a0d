"""What the field does by hand, beside steps of even slope: whole models at a setting, in bytes.

Short forms for comparison at equal bytes; only `even_slope` makes artifacts. Every method takes
every matrix; what is no matrix stays float16. A setting is what a method is turned by: a step, bits
a code, or levels.

References
----------
.. [1] Badri and Shaji, Half-Quadratic Quantization, 2023, https://mobiusml.github.io/hqq_blog/
.. [2] Dettmers et al., QLoRA (NF4), 2023, https://arxiv.org/abs/2305.14314
.. [3] Zhang et al., LQER, 2024, https://arxiv.org/abs/2402.02446
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from scipy.special import ndtri
from torch import Tensor

from workbench.quantization.artifact import pack
from workbench.quantization.budget import Quantized, Quantizer
from workbench.quantization.byte_codec import codec_bytes
from workbench.quantization.codebook import BLOCK as RQ4_BLOCK
from workbench.quantization.codebook import BLOCK_BYTES, rq4
from workbench.quantization.grid import (
    Codes,
    Grid,
    clip_search,
    integer_grid,
    nearest,
    stored_half,
    ternary,
    values_of,
)
from workbench.quantization.rounding import awq_grid, gptq

CLIP = 0.9999984  # quantile of a row's magnitudes, in the official rule
GROUP = 64  # weights that share a scale in NF4 and in HQQ
RANK = 4  # of the correction in LQER
POWER, BETA, GROWTH, ROUNDS = 0.7, 10.0, 1.01, 20  # of HQQ
PRUNED = 0.1  # share of the codes +-1 that pruning sets to zero
Made = tuple[Quantized, int]
Rule = Callable[[str, Tensor], Codes | Tensor]


@dataclass(frozen=True, kw_only=True)
class Method:
    """A way to quantise a model, and the settings at which it is tried."""

    make: Callable[[Quantizer, float], Made]
    settings: tuple[float, ...]
    turned_by: str  # what a setting is


def even_slope(q: Quantizer, step: float) -> Made:
    """Quantise as the library does: curvature, GPTQ, range coder."""
    tensors = q.codes(step)
    return tensors, len(pack(q.model.config, tensors)[0])


def official(q: Quantizer, levels: float) -> Made:
    """Quantise by the rule of Parameter Golf, whose scales have a floor; zlib."""

    def rule(name: str, weight: Tensor) -> Codes:
        reach = weight.abs().quantile(CLIP, dim=1, keepdim=True)
        scale = stored_half((reach / levels).clamp_min(1 / levels))
        return nearest(weight, Grid(row_scale=scale, limit=int(levels)))

    return _coded(q, rule, codec="zlib")


def sdclip(q: Quantizer, step: float) -> Made:
    """Round to steps in proportion to the spread of each row; brotli."""
    return _coded(q, lambda name, w: nearest(w, integer_grid(w, bits=8, deviations=127 * step)))


def sdclip_gptq(q: Quantizer, step: float, *, embedding: float = 0.7) -> Made:
    """Round by GPTQ to such steps, those of embedding and head finer by a factor; brotli."""

    def rule(name: str, weight: Tensor) -> Codes:
        mine = step * (embedding if name in ("tok_emb.weight", "lm_head.weight") else 1.0)
        grid = integer_grid(weight, bits=8, deviations=127 * mine)
        return gptq(weight, grid, q.factors(name))

    return _coded(q, rule)


def absmax(q: Quantizer, bits: float) -> Made:
    """Scale the largest weight of a row to the last code; brotli."""
    return _coded(q, lambda name, weight: nearest(weight, integer_grid(weight, bits=int(bits))))


def clipped(q: Quantizer, bits: float) -> Made:
    """Choose the clip of each row by squared error; brotli."""
    return _coded(q, lambda name, weight: nearest(weight, clip_search(weight, bits=int(bits))))


def awq(q: Quantizer, bits: float) -> Made:
    """Scale columns by the root of what they multiply, as it was measured; brotli."""

    def rule(name: str, weight: Tensor) -> Codes:
        loud = q.bends[name].input.diagonal().sqrt()
        return nearest(weight, awq_grid(weight, loud, bits=int(bits), power=0.5))

    return _coded(q, rule)


def pruned(q: Quantizer, step: float) -> Made:
    """Set those codes +-1 of `sdclip` to zero whose input direction matters least."""
    tensors = dict(sdclip(q, step)[0])
    for name, each in tensors.items():
        if isinstance(each, Codes):
            weight, one = q.tensors[name], each.codes.abs() == 1
            cost = weight.square() - (weight - each.values()).square()
            cost = (cost * q.bends[name].input.diagonal()).float()
            last = cost[one].quantile(PRUNED) if one.any() else 0.0
            kept = torch.where(one & (cost <= last), 0, each.codes)
            tensors[name] = Codes(codes=kept, grid=each.grid)
    return tensors, codec_bytes(tensors, "brotli")


def lqer(q: Quantizer, bits: float) -> Made:
    """Add to `absmax` the best correction of low rank, weighed by the inputs, in float16."""
    tensors = dict(absmax(q, bits)[0])
    size = codec_bytes(tensors, "brotli")
    for name, bend in q.bends.items():
        weight, each = q.tensors[name], tensors[name]
        loud = bend.input.diagonal().sqrt().clamp(min=1e-12)
        left, singular, right = torch.linalg.svd((weight - values_of(each)) * loud, False)
        a = (left[:, :RANK] * singular[:RANK]).half().double()
        b = (right[:RANK] / loud).half().double()
        tensors[name] = (values_of(each) + a @ b).float()
        size += 2 * RANK * sum(weight.shape)
    return tensors, size


def nf4(q: Quantizer, group: float) -> Made:
    """Round to the sixteen quantiles of a normal distribution over each block; packed."""
    above = ndtri(torch.linspace(0.9677083, 0.5, 9).numpy()[:-1])
    below = -ndtri(torch.linspace(0.9677083, 0.5, 8).numpy()[:-1])
    levels = torch.tensor([*below, 0.0, *above]).sort().values.float() / above.max()
    middle = (levels[1:] + levels[:-1]) / 2

    def rule(blocks: Tensor) -> Tensor:
        scale = stored_half(blocks.abs().amax(dim=1, keepdim=True))
        found = torch.bucketize(blocks / scale.clamp(min=2.0**-24), middle)
        return levels[found] * scale

    return _blocked(q, rule, group=int(group), bits=4 + 16 / group)


def hqq(q: Quantizer, bits: float) -> Made:
    """Fit the zero of each group to a norm that forgives outliers; packed."""
    last = 2 ** int(bits) - 1

    def rule(w: Tensor) -> Tensor:
        beta = BETA
        low, high = w.amin(dim=1, keepdim=True), w.amax(dim=1, keepdim=True)
        scale = stored_half((high - low) / last).clamp(min=2.0**-24)
        zero = -low / scale
        for _ in range(ROUNDS):
            codes = (w / scale + zero).round().clamp(0, last)
            gap = w - (codes - zero) * scale
            shrunk = gap.sign() * (gap.abs() - gap.abs().clamp(min=1e-8) ** (POWER - 1) / beta)
            outlier = torch.where(gap.sign() == shrunk.sign(), shrunk, 0.0)
            zero = (codes - (w - outlier) / scale).mean(dim=1, keepdim=True)
            beta *= GROWTH
        zero = zero.half().float()
        codes = (w / scale + zero).round().clamp(0, last)
        return (codes - zero) * scale

    return _blocked(q, rule, group=GROUP, bits=int(bits) + 32 / GROUP)


METHODS: Mapping[str, Method] = {
    "even slope": Method(
        make=even_slope,
        settings=(0.0003, 0.0006, 0.0012, 0.0024),
        turned_by="step [nat^(1/2)]",
    ),
    "SDClip, GPTQ": Method(
        make=sdclip_gptq, settings=(0.25, 0.5, 0.75, 1.0), turned_by="step over row deviation"
    ),
    "SDClip": Method(make=sdclip, settings=(0.125, 0.25, 0.5), turned_by="step over row deviation"),
    "official": Method(make=official, settings=(127, 31, 15), turned_by="levels either side"),
    "largest weight": Method(make=absmax, settings=(8, 6, 5, 4), turned_by="bits"),
    "clip search": Method(make=clipped, settings=(6, 5, 4, 3), turned_by="bits"),
    "AWQ": Method(make=awq, settings=(6, 5, 4), turned_by="bits"),
    "+-1 pruned": Method(make=pruned, settings=(0.25, 0.5), turned_by="step over row deviation"),
    "LQER": Method(make=lqer, settings=(5, 4), turned_by="bits"),
    "HQQ": Method(make=hqq, settings=(5, 4, 3), turned_by="bits"),
    "NF4": Method(make=nf4, settings=(64,), turned_by="weights a scale"),
    "RQ4": Method(
        make=lambda q, search: _blocked(
            q,
            lambda blocks: rq4(blocks, search=bool(search)).values(),
            group=RQ4_BLOCK,
            bits=8 * BLOCK_BYTES / RQ4_BLOCK,
        ),
        settings=(0, 1),
        turned_by="1: scales by search",
    ),
    "ternary": Method(
        make=lambda q, _: _coded(q, lambda name, weight: ternary(weight)),
        settings=(3,),
        turned_by="levels",
    ),
}


def _coded(q: Quantizer, rule: Rule, *, codec: str = "brotli") -> Made:
    """Quantise every matrix by a rule; bytes of the codes in a general compressor."""
    tensors = _each(q, rule)
    return tensors, codec_bytes(tensors, codec)


def _blocked(q: Quantizer, rule: Callable[[Tensor], Tensor], *, group: int, bits: float) -> Made:
    """Quantise blocks (block, group) of every flat matrix by a rule of so many bits a weight."""

    def each(name: str, weight: Tensor) -> Tensor:
        blocks = F.pad(weight.flatten(), (0, -weight.numel() % group)).reshape(-1, group)
        return rule(blocks).flatten()[: weight.numel()].reshape(weight.shape)

    tensors = _each(q, each)
    numbers = {name: each.numel() for name, each in q.tensors.items()}
    size = sum(count * (bits if name in q.bends else 16) for name, count in numbers.items())
    return tensors, round(size / 8)


def _each(q: Quantizer, rule: Rule) -> dict[str, Codes | Tensor]:
    """Apply a rule to every matrix; the rest becomes float16."""
    named = q.tensors.items()
    return {n: rule(n, each) if n in q.bends else each.half().float() for n, each in named}
