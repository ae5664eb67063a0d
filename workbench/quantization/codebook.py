"""RQ4: sixteen fixed levels over blocks of 32 weights, for those who deploy it.

The levels are the means of sixteen equally likely bins of a coordinate of a random unit vector in
256 dimensions. There is no zero among them, and a block of 32 is scaled by its largest weight,
which lies farther out than the last level stands for; a scale searched for is better by a fifth,
in the same format.
"""

from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import betainc, betaincinv
from torch import Tensor

from workbench.folder import InputError

BLOCK = 32  # weights that share a float16 scale
BLOCK_BYTES = 2 + BLOCK // 2
LARGEST = 8000.0  # weight whose scale float16 still holds
DIMENSIONS = 256  # of the unit vector
SHARES = np.linspace(0.7, 1.1, 25)  # of the plain scale, that a search tries


@cache
def levels() -> NDArray[np.float32]:
    """Return the sixteen levels, rising.

    Examples
    --------
    >>> [round(float(level), 5) for level in levels()[8:]]
    [0.00492, 0.01488, 0.02524, 0.03634, 0.04873, 0.06343, 0.08297, 0.12282]
    """
    shape = (DIMENSIONS - 1) / 2
    edges = betaincinv(shape, shape, np.arange(17) / 16)
    # The mean of a bin of Beta(a, a) is half the difference of the distribution of Beta(a + 1, a).
    means = 16 * 0.5 * np.diff(betainc(shape + 1, shape, edges))
    return np.asarray(2 * means - 1, dtype=np.float32)


@dataclass(frozen=True, kw_only=True)
class Blocks:
    """A matrix in RQ4: an index a weight and a scale a block, in order of the flat matrix."""

    index: Tensor  # (block, 32) uint8, 0 to 15
    scale: Tensor  # (block,) float16
    shape: tuple[int, int]

    def values(self) -> Tensor:
        """Return the matrix, (R, C) float32."""
        return (
            torch.from_numpy(levels())[self.index.long()] * self.scale.float()[:, None]
        ).reshape(self.shape)


def rq4(weight: Tensor, *, search: bool = False) -> Blocks:
    """Quantise a matrix (R, C) to RQ4.

    Parameters
    ----------
    weight : (R, C) tensor
        R times C must be a multiple of 32.
    search : bool
        Choose every scale by least squared error; by default it is the one of the format's own
        quantiser, the largest magnitude over the last level.

    Raises
    ------
    InputError
        If the weights are not a multiple of 32, not finite, or too large for a float16 scale.
    """
    if weight.numel() % BLOCK or not bool((weight.abs() <= LARGEST).all()):
        raise InputError(
            "RQ4",
            expected=f"finite weights up to {LARGEST:,.0f}, a multiple of {BLOCK} of them",
            found=f"a matrix of {tuple(weight.shape)}",
            remedy="Leave this matrix in float16.",
        )
    blocks = weight.detach().float().reshape(-1, BLOCK)
    plain = blocks.abs().amax(dim=1) / float(levels()[-1])
    least, best = torch.full((len(blocks),), torch.inf), plain.half()
    for share in SHARES if search else (1.0,):
        scale = (plain * float(share)).clamp(max=65504.0).half()
        found = _index(blocks, scale)
        gap = torch.from_numpy(levels())[found.long()] * scale.float()[:, None] - blocks
        error = gap.square().sum(dim=1)
        best, least = torch.where(error < least, scale, best), torch.minimum(error, least)
    return Blocks(index=_index(blocks, best), scale=best, shape=(weight.shape[0], weight.shape[1]))


def _index(blocks: Tensor, scale: Tensor) -> Tensor:
    """Find the nearest level of every weight; of a block without scale, the first."""
    middle = torch.from_numpy((levels()[1:] + levels()[:-1]) / 2)
    wide = scale.float()[:, None]
    share = torch.where(wide > 0, blocks / wide.clamp(min=2.0**-24), -1.0)
    return torch.bucketize(share, middle).to(torch.uint8)


def pack_blocks(blocks: Blocks) -> bytes:
    """Return 18 bytes a block: the scale, then two indices a byte, the first in the low half."""
    index = blocks.index.numpy()
    pairs = index[:, 0::2] | index[:, 1::2] << 4
    scales = blocks.scale.numpy().astype("<f2").view(np.uint8).reshape(-1, 2)
    return np.hstack([scales, pairs]).tobytes()


def unpack_blocks(content: bytes, shape: tuple[int, int]) -> Blocks:
    """Read what `pack_blocks` wrote of a matrix of this shape.

    Raises
    ------
    ValueError
        If the length does not belong to the shape, or a scale is not finite.
    """
    if len(content) * BLOCK != shape[0] * shape[1] * BLOCK_BYTES:
        raise ValueError(f"{len(content):,} bytes for a matrix of {shape}")
    rows = np.frombuffer(content, dtype=np.uint8).reshape(-1, BLOCK_BYTES)
    scale = rows[:, :2].copy().view("<f2")[:, 0].astype(np.float16)
    if not np.isfinite(scale).all():
        raise ValueError("a scale that is not finite")
    pairs = rows[:, 2:]
    index = np.stack([pairs & 15, pairs >> 4], axis=2).reshape(-1, BLOCK)
    return Blocks(index=torch.from_numpy(index), scale=torch.from_numpy(scale), shape=shape)
