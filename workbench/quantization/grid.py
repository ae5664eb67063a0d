"""Grids: which values a quantised matrix can take, and the nearest of them.

A matrix W (R, C) becomes integer codes q with ``W ~ q * row_scale * column_scale``. A row has one
scale, or one for each group of columns. Scales are rounded to the precision they are stored in
before anything is divided by them, so that what is judged is what is read back.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from workbench.folder import InputError

TINY = 2.0**-24  # smallest positive float16; a smaller scale would be stored as zero
ROOTS = torch.tensor([1.0, 1.1892071, 1.4142135, 1.6817929])  # of two: quarters of an octave
CLIPS = torch.linspace(0.3, 1.0, 36)  # shares of the largest magnitude that a search tries


@dataclass(frozen=True, kw_only=True)
class Grid:
    """Scales of one matrix, and how far its codes reach."""

    row_scale: Tensor  # (R, group) float32, as stored
    column_scale: Tensor | None = None  # (C,) float32, as stored; None: all 1
    limit: int | None = None  # codes lie in [-limit, limit]; None: wherever they fall
    dead_zone: float = 0.0  # share of a step by which a number must pass the middle to round up
    shrink: float = 0.0  # share of a step by which values lie nearer to zero than their codes

    def steps(self, n_column: int) -> Tensor:
        """Return the distance between neighbouring values, (R, C) float32."""
        wide = self.row_scale.repeat_interleave(n_column // self.row_scale.shape[1], dim=1)
        return wide if self.column_scale is None else wide * self.column_scale


@dataclass(frozen=True, kw_only=True)
class Codes:
    """A quantised matrix: integers and the grid that gives them values."""

    codes: Tensor  # (R, C) int32
    grid: Grid

    def values(self) -> Tensor:
        """Return the matrix, (R, C) float32: the same to the last bit wherever it is computed."""
        return shrunken(self.codes.float(), self.grid) * self.grid.steps(self.codes.shape[1])

    @property
    def saturated(self) -> float:
        """Share of the codes at either end of a bounded grid."""
        limit = self.grid.limit
        return 0.0 if limit is None else float((self.codes.abs() == limit).float().mean())


def values_of(each: Codes | Tensor) -> Tensor:
    """Return the numbers that a tensor of a quantised model stands for."""
    return each.values() if isinstance(each, Codes) else each


def nearest(weight: Tensor, grid: Grid) -> Codes:
    """Round every weight, (R, C), to the nearest value of its grid; ties go to the even code."""
    steps = grid.steps(weight.shape[1])
    codes = rounded(torch.where(steps > 0, weight.float() / steps.clamp(min=TINY), 0), grid)
    return Codes(codes=codes.int(), grid=grid)


def rounded(shares: Tensor, grid: Grid) -> Tensor:
    """Round weights, in steps of their grid, to codes."""
    if grid.dead_zone:
        shares = shares.sign() * (shares.abs() + 0.5 - grid.dead_zone).floor()
    return bounded(shares.round(), grid)


def shrunken(codes: Tensor, grid: Grid) -> Tensor:
    """Return the values of codes in steps: less than the codes where values are shrunken."""
    return codes - grid.shrink * codes.sign() if grid.shrink else codes


def bounded(codes: Tensor, grid: Grid) -> Tensor:
    """Keep codes within the limit of their grid."""
    return codes if grid.limit is None else codes.clamp(-grid.limit, grid.limit)


def integer_grid(
    weight: Tensor,
    *,
    bits: int,
    group: int | None = None,
    clip: float | Tensor = 1.0,
    deviations: float | None = None,
) -> Grid:
    """Make a symmetric integer grid with a float16 scale a row, or a group of columns.

    Parameters
    ----------
    weight : (R, C) tensor
    bits : int
        2 to 8; codes reach from ``-(2^(bits-1) - 1)`` to its opposite.
    group : int, optional
        Columns that share a scale; must divide C. By default a whole row does.
    clip : float or (R, group) tensor
        Share of the largest magnitude that the last code stands for.
    deviations : float, optional
        Instead: root mean squares of the group that the last code stands for (SDClip).

    Raises
    ------
    InputError
        If the group does not divide the columns, or the weights are not finite.
    """
    width = weight.shape[1] if group is None else group
    if weight.shape[1] % width or not 2 <= bits <= 8:
        raise InputError(
            "grid",
            expected=f"2 to 8 bits, and groups that divide {weight.shape[1]} columns",
            found=f"{bits} bits, groups of {width}",
            remedy="Choose another group, or leave it out for one scale a row.",
        )
    if not torch.isfinite(weight).all():
        raise InputError(
            "weights", expected="finite numbers", found="NaN or infinity", remedy="Mend the model."
        )
    limit = 2 ** (bits - 1) - 1
    grouped = weight.float().unflatten(1, (-1, width))
    if deviations is None:
        reach = clip * grouped.abs().amax(dim=2)
    else:
        reach = deviations * grouped.square().mean(dim=2).sqrt()
    return Grid(row_scale=stored_half(reach / limit), limit=limit)


def stored_half(scale: Tensor) -> Tensor:
    """Round scales to float16; none that is positive becomes zero or infinite."""
    rounded = scale.clamp(max=65504).half().float()
    return torch.where(scale > 0, rounded.clamp(min=TINY), 0.0)


def clip_search(weight: Tensor, *, bits: int, group: int | None = None) -> Grid:
    """Choose the clip of every row, or group, that makes its squared error least."""
    best, least = integer_grid(weight, bits=bits, group=group), None
    for share in CLIPS.tolist():
        grid = integer_grid(weight, bits=bits, group=group, clip=share)
        gap = (nearest(weight, grid).values() - weight).square()
        error = gap.unflatten(1, (best.row_scale.shape[1], -1)).sum(dim=2)
        least = error if least is None else least
        better = error <= least
        best = replace(best, row_scale=torch.where(better, grid.row_scale, best.row_scale))
        least = torch.minimum(error, least)
    return best


def ternary(weight: Tensor) -> Codes:
    """Quantise to -1, 0 and 1 of one scale a row, fitted by least squares.

    The threshold is half the mean magnitude, as in BitNet b1.58; the scale is then refitted.
    """
    mean = weight.float().abs().mean(dim=1, keepdim=True)
    codes = (weight / mean.clamp(min=TINY)).round().clamp(-1, 1)
    fitted = (weight * codes).sum(dim=1) / codes.square().sum(dim=1).clamp(min=1)
    return Codes(codes=codes.int(), grid=Grid(row_scale=stored_half(fitted)[:, None], limit=1))


def power_scale(scale: Tensor) -> Tensor:
    """Round positive scales to quarters of an octave, which take a few bits each."""
    return scale_of(level_of(scale))


def level_of(scale: Tensor) -> Tensor:
    """Return the whole number that `scale_of` turns into this scale, int32."""
    return (len(ROOTS) * torch.log2(scale.double())).round().int()


def scale_of(level: Tensor) -> Tensor:
    """Return about ``2 ** (level / 4)`` as float32, the same to the last bit on every machine."""
    whole = torch.div(level, len(ROOTS), rounding_mode="floor")
    return torch.ldexp(ROOTS[(level - len(ROOTS) * whole).long()], whole)
