"""GPTQ: round a matrix column by column, and let later columns make up for the error of earlier.

References
----------
.. [1] Frantar et al., GPTQ, 2022, https://arxiv.org/abs/2210.17323
.. [2] Lifar et al., WaterSIC, 2026, https://arxiv.org/abs/2603.04956: a step for each column.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from workbench.quantization.curvature import Curvature
from workbench.quantization.grid import (
    TINY,
    Codes,
    Grid,
    integer_grid,
    power_scale,
    rounded,
    shrunken,
    stored_half,
)

DAMPING = 0.01  # of the mean of the diagonal
BLOCK = 64  # columns whose errors reach the columns behind them together
DEAD = 1e-8  # of the mean of the diagonal: an input below this is never on
LEAST, MOST = 2.0**-60, 2.0**30  # of the scale of a row or a column
EXACT = 2**24  # codes up to here are whole numbers in float32 too
FLOOR = 1e-3  # of the mean: least curvature of a row, since a sample may never have met it


@dataclass(frozen=True, kw_only=True)
class Factor:
    """What the order of columns makes of the curvature of their inputs."""

    upper: Tensor  # (C, C) upper Cholesky factor of the damped inverse, in order of rounding
    dead: Tensor  # (C,) bool, inputs that are never on
    condition: float  # of the damped curvature
    order: Tensor | None = None  # (C,) columns as they are rounded; None: as they stand

    @property
    def own(self) -> Tensor:
        """Diagonal of `upper` by column: the reciprocal of what an input has of its own, (C,)."""
        diagonal = self.upper.diagonal()
        return diagonal if self.order is None else diagonal[self.order.argsort()]

    @property
    def headroom(self) -> float:
        """What a step for each column gains over one step for all [dB]."""
        energy = self.own[~self.dead].square().reciprocal()
        return float(10 * torch.log10(energy.mean() / energy.log().mean().exp()))


def factor(bend: Tensor, *, damping: float = DAMPING, loudest_first: bool = False) -> Factor:
    """Factorise the curvature of inputs, (C, C), for rounding column after column.

    Parameters
    ----------
    bend : (C, C) tensor
    damping : float
        Added to the diagonal, in shares of its mean.
    loudest_first : bool
        Round in order of falling energy of the inputs; else in order of the columns.

    Raises
    ------
    ValueError
        If the damped curvature is not positive definite: it is not finite, or not a mean of outer
        products.
    """
    diagonal = bend.diagonal()
    dead = diagonal <= DEAD * diagonal.mean()
    damped = bend.double().clone()
    damped[dead], damped[:, dead] = 0, 0  # before damping, which they must not weaken
    level = float(diagonal[~dead].mean()) if (~dead).any() else 1.0
    damped.diagonal().add_(damping * level)
    damped.diagonal()[dead] = level
    order = damped.diagonal().argsort(descending=True, stable=True) if loudest_first else None
    if order is not None:
        damped = damped[order][:, order]
    root, failed = torch.linalg.cholesky_ex(damped)
    if failed or not torch.isfinite(root).all():
        raise ValueError("the curvature of the inputs is not positive definite")
    upper = torch.linalg.cholesky(torch.cholesky_inverse(root), upper=True)
    condition = float(torch.linalg.cond(damped))
    return Factor(upper=upper, dead=dead, condition=condition, order=order)


def gptq(weight: Tensor, grid: Grid, factors: Factor) -> Codes:
    """Round (R, C) weights so that the error of what they return, not their own, is small.

    Parameters
    ----------
    weight : (R, C) tensor
    grid : Grid
        Fixed from the beginning; what drifts beyond its limit saturates.
    factors : Factor
        Of `factor`. Weights of dead inputs become zero.
    """
    left = weight.double().T.clone()  # (C, R): a column is one piece of memory
    left[factors.dead] = 0
    steps = grid.steps(weight.shape[1]).double().T.contiguous()
    if factors.order is not None:
        left, steps = left[factors.order], steps[factors.order]
    codes, error = torch.zeros_like(left), torch.zeros_like(left)
    upper = factors.upper
    for first in range(0, len(left), BLOCK):
        block = slice(first, min(first + BLOCK, len(left)))
        for at in range(block.start, block.stop):
            shares = torch.where(steps[at] > 0, left[at] / steps[at].clamp(min=TINY**2), 0)
            codes[at] = rounded(shares, grid)
            error[at] = (left[at] - shrunken(codes[at], grid) * steps[at]) / upper[at, at]
            behind = slice(at + 1, block.stop)
            left[behind] -= upper[at, behind, None] * error[at]
        left[block.stop :] -= upper[block, block.stop :].T @ error[block]
    if factors.order is not None:
        codes = codes[factors.order.argsort()]
    return Codes(codes=codes.T.int().contiguous(), grid=grid)


def dead_zone(weight: Tensor, grid: Grid, factors: Factor, *, width: float = 0.05) -> Codes:
    """Round by `gptq` with a wider zero, and put the values where their weights lie on average.

    Of independent normal weights it takes fewer bits at equal error below some three bits a
    weight [1]_; through GPTQ and steps of even slope it did not, so nothing here does it unasked.

    References
    ----------
    .. [1] Sullivan, Efficient scalar quantization of exponential and Laplacian random variables,
       1996.
    """
    wide = replace(grid, dead_zone=width)
    codes = gptq(weight, wide, factors).codes
    shares = weight / grid.steps(weight.shape[1]).clamp(min=TINY)
    some = codes != 0
    gap = (codes - shares)[some] * codes[some].sign()
    shrink = float(gap.mean().clamp(0.0, 0.5).half()) if some.any() else 0.0
    return gptq(weight, replace(wide, shrink=shrink), factors)


def even_slope_grid(bend: Curvature, factors: Factor, *, step: float) -> Grid:
    """Give every weight the step at which another bit would buy the same loss everywhere.

    What GPTQ leaves of a step s at row r and column c costs ``s^2 / 24 * output_r / upper_cc^2``
    [nat/token], so steps in proportion to ``upper_cc / sqrt(output_r)`` cost the same at each
    weight of each matrix. One number, `step`, then sets the size of the whole model.

    Parameters
    ----------
    bend : Curvature
    factors : Factor
        Of ``bend.input``.
    step : float
        Step in units of the square root of the loss [nat^(1/2)].
    """
    rows = bend.output.double()
    rows = rows + FLOOR * rows.mean().clamp(min=torch.finfo(torch.float64).tiny)
    return Grid(
        # A matrix that the loss does not feel would have steps without end: all its codes are 0.
        row_scale=power_scale((step / rows.sqrt()).clamp(LEAST, MOST))[:, None],
        column_scale=power_scale(factors.own.clamp(LEAST, MOST)),
        limit=EXACT,
    )


def awq_grid(
    weight: Tensor, magnitude: Tensor, *, bits: int, power: float, deviations: float | None = None
) -> Grid:
    """Scale columns up by the magnitude of their inputs before a grid is laid over each row.

    Parameters
    ----------
    weight : (R, C) tensor
    magnitude : (C,) tensor
        Of what each column multiplies, measured; the weights' own say nothing of it.
    bits : int
    power : float
        0 changes nothing, 1 follows the magnitude.
    deviations : float, optional
        See `integer_grid`.

    References
    ----------
    .. [1] Lin et al., AWQ, 2023, https://arxiv.org/abs/2306.00978
    """
    up = magnitude.double().clamp(min=1e-12) ** power
    column = stored_half((up.max() * up.min()).sqrt() / up)
    inner = integer_grid(weight / column, bits=bits, deviations=deviations)
    return Grid(row_scale=inner.row_scale, column_scale=column, limit=inner.limit)
