"""Labelled results: the glossary of dimensions, units, and one file a diagnosis.

Every number travels in an `xarray.Dataset` whose dims are in `DIMS` and whose variables say what
they are (``long_name``) and in which unit (``units``). A *diagnosis* is one `xarray.DataTree`, a
group per diagnostic, with its provenance as one JSON string on the root, saved as one netCDF file.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

DIMS = {  # the only dimension names a result may use: singular full words
    "run": "run being compared",
    "step": "optimizer step",
    "block": "physical block of the network (its weights), from 0 at the input",
    "visit": "execution of a block, in order; a looped block has several visits",
    "matrix": "two-dimensional weight",
    "singular": "index of a singular value, largest first",
    "head": "attention head within a block",
    "query": "position that attends",
    "key": "position attended to",
    "position": "place of a token in its context, from 0",
    "channel": "coordinate of the residual stream",
    "token": "scored token, in order of the text",
    "vocabulary": "token id",
    "token_class": "class of the target token",
    "decile": "tenth of the training tokens by frequency of the token, 0 the rarest",
    "repetition": "whether a token occurred in the context before",
    "profile": "named set of prompts that is judged together",
    "record": "one prompt with its target",
    "document": "independent text",
    "bin": "interval of a histogram",
    "scalar": "learned scalar, or a stated reduction of a learned vector",
    "hypothesis": "named explanation",
    "check": "named test with a verdict",
    "intervention": "one change made to a running model",
    "component": "part of a sum",
    "predictor": "number that may foretell another",
    "role": "kind of matrix or site within a block",
    "setting": "value of a control that was tried",
    "rung": "step of a ladder of checks",
    "target": "answer that a profile asks for",
    "part": "named part of a whole",
    "phase": "stretch of a training schedule",
    "choice": "one of the likeliest answers, best first",
    "pair": "two things that are compared",
    "group": "tokens that move together: those of one document, or of one fact",
}
UNITS = tuple("1 bit nat byte token s ms flop flop/s bit/byte nat/token byte/token".split())


def variable(
    dims: str | Sequence[str], values: Any, long_name: str, units: str = "1"
) -> xr.Variable:
    """Make a variable with its two attributes; the attrs are assigned whole, never inherited.

    Examples
    --------
    >>> variable("visit", [0.5, 0.25], "gate", "1").attrs
    {'long_name': 'gate', 'units': '1'}
    """
    return xr.Variable(dims, np.asarray(values), attrs={"long_name": long_name, "units": units})


def check(result: xr.Dataset) -> xr.Dataset:
    """Return `result` unchanged, or refuse it naming what breaks the conventions.

    Raises
    ------
    ValueError
        If a dim is not in the glossary, or a variable lacks a name or a known unit.
    """
    for dim in result.dims:
        if dim not in DIMS:
            raise ValueError(f"unknown dim {dim!r}; use one of {list(DIMS)} or add it to DIMS")
    for name, values in result.data_vars.items():
        missing = {"long_name", "units"} - set(values.attrs)
        if missing:
            raise ValueError(f"variable {name!r} lacks attrs {sorted(missing)}")
        if values.attrs["units"] not in UNITS:
            raise ValueError(f"variable {name!r} has unit {values.attrs['units']!r}; use {UNITS}")
    return result


def save(groups: Mapping[str, xr.Dataset], path: Path, *, provenance: Mapping[str, Any]) -> None:
    """Write checked results as one netCDF tree, with `provenance` as JSON on its root.

    A caller that replaces a file wraps this in `folder.replacing`.
    """
    root = xr.Dataset(attrs={"provenance": json.dumps(dict(provenance), sort_keys=True)})
    checked = {f"/{name}": check(group) for name, group in groups.items()}
    tree = xr.DataTree.from_dict({"/": root, **checked})
    tree.to_netcdf(path, engine="h5netcdf")


def open_tree(path: Path) -> xr.DataTree:
    """Read a saved diagnosis into memory and close its file.

    Raises
    ------
    OSError
        If the file is missing or is not netCDF.
    """
    with xr.open_datatree(path, engine="h5netcdf") as tree:
        return tree.load()


def provenance(tree: xr.DataTree | xr.Dataset) -> dict[str, Any]:
    """Read the provenance back from the root of a diagnosis."""
    found: dict[str, Any] = json.loads(tree.attrs.get("provenance", "{}"))
    return found


def grouped_ratio(
    numerator: NDArray[np.float64], denominator: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return ``sum(numerator) / sum(denominator)`` with its standard error.

    Parameters
    ----------
    numerator : (..., group) float64
    denominator : (group,) or (..., group) float64
        Sums over groups of observations that move together.

    Returns
    -------
    ratio, standard_error : (...) float64
        The error is NaN of fewer than two groups with a denominator.

    References
    ----------
    .. [1] Cochran, Sampling Techniques, 1977, section 6.4 (ratio estimators).
    """
    total, n_group = denominator.sum(axis=-1), (denominator > 0).sum(axis=-1)
    with np.errstate(invalid="ignore", divide="ignore"):
        ratio = numerator.sum(axis=-1) / total
        residual = numerator - ratio[..., None] * denominator
        factor = np.where(n_group > 1, n_group / (n_group - 1), np.nan)
        return ratio, np.sqrt(factor * np.square(residual).sum(axis=-1)) / total


def difference(this: xr.Dataset, other: xr.Dataset) -> xr.Dataset:
    """Subtract `other` from `this`, variable by variable, where their labels meet.

    Standard errors, which end in ``standard_error``, are added in quadrature, as those of
    independent measurements; that of a ``NAME`` with sums in ``NAME_by_group`` is paired, where the
    groups are the same (``bytes_by_group``). What is not a number is left out. The attr `compared`
    is 1.

    Raises
    ------
    ValueError
        If they say that they were measured on different text, context or numbers of tokens.
    """
    for what in ("corpus", "context", "tokens"):
        here, there = (each.attrs.get(f"measured_{what}") for each in (this, other))
        if here != there and None not in (here, there):
            raise ValueError(f"no difference: measured on {what} {here} and on {what} {there}")
    pairs = xr.align(this, other, join="inner")
    size, theirs = (each.coords.get("bytes_by_group") for each in pairs)
    paired = size is not None and theirs is not None and size.equals(theirs)
    found = {}
    for name, mine in pairs[0].data_vars.items():
        if name not in pairs[1] or mine.dtype.kind not in "iufb":
            continue
        theirs, whole = pairs[1][name], str(name).removesuffix("standard_error")
        sums = f"{whole}by_group"
        if whole == name:
            values = mine.values.astype(float) - theirs.values.astype(float)
        elif size is not None and paired and sums in pairs[0]:
            values = grouped_ratio((pairs[0][sums] - pairs[1][sums]).values, size.values)[1]
        else:
            values = np.hypot(mine.values, theirs.values)
        long_name = f"difference of {mine.attrs['long_name']}"
        found[name] = variable(
            [str(dim) for dim in mine.dims], values, long_name, mine.attrs["units"]
        )
    coords = pairs[0].coords
    return check(xr.Dataset(found, coords=coords, attrs={"compared": 1}))
