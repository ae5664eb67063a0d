"""Means with their standard error over groups, in memory that does not grow with the text."""

from collections.abc import Mapping

import numpy as np
import torch
import xarray as xr
from numpy.typing import NDArray
from torch import Tensor

from workbench.result import grouped_ratio, variable

BUCKETS = 64  # groups share one where there are more: the error stays honest, memory bounded
Index = tuple[int | slice, ...]


class GroupedMeans:
    """Means of named measures, summed in float64 by bucket of groups.

    Parameters
    ----------
    measures : mapping of str to str
        What each measure is, by name; the first dim.
    *shape : int
        Sizes of further dims.
    """

    def __init__(self, measures: Mapping[str, str], *shape: int) -> None:
        self.measures = dict(measures)
        self._sums = np.zeros((2, BUCKETS, len(measures), *shape))  # of values, and how many

    def add(self, values: Tensor, keep: Tensor, group: NDArray[np.int64], at: Index = ()) -> None:
        """Add values (..., R, T) of grouped rows where `keep` says so; `at` picks entries (...)."""
        keep = keep.expand_as(values)
        for sums, added in zip(self._sums, (values.where(keep, 0), keep), strict=True):
            of_row = added.sum(dim=-1, dtype=torch.float64).movedim(-1, 0).cpu().numpy()
            np.add.at(sums[(slice(None), *at)], group % BUCKETS, of_row)

    @property
    def count(self) -> NDArray[np.float64]:
        """How many values each mean is over."""
        count: NDArray[np.float64] = self._sums[1].sum(axis=0)
        return count

    def variables(self, *dims: str) -> dict[str, xr.Variable]:
        """Label the means, and their standard errors as `evaluation.ratio_error` has them.

        A mean of nothing is NaN, and so is the error where all values are of one group.
        """
        mean, error = grouped_ratio(*np.moveaxis(self._sums, 1, -1))
        found = {}
        for at, (name, what) in enumerate(self.measures.items()):
            found[name] = variable(dims, mean[at], what)
            found[f"{name}_standard_error"] = variable(dims, error[at], f"standard error of {name}")
        return found
