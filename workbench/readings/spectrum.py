"""What the spectrum of one matrix, its truncation, and the embedding say."""

import numpy as np
import xarray as xr

from workbench.readings.notation import with_error
from workbench.readings.phrasing import capital, visible
from workbench.readings.rank_evidence import LOW_RANK

LOUD = 2.0  # times the median norm: a row or column above it is named
WASTED = 0.05  # of the rows: more near duplicates than this are advised upon
SELDOM = 20  # occurrences in training below which a row was hardly learned


def spectrum(ds: xr.Dataset) -> str:
    """Say how one matrix differs from chance, and which row and column stand out.

    Parameters
    ----------
    ds : Dataset
        Diagnostic `effective_rank` of one matrix, with or without ``step``.
    """
    last = ds.isel(step=-1) if "step" in ds.dims else ds
    name = capital(str(last.matrix.item()))
    if not np.isfinite(last.effective_rank_ratio):
        return f"{name} has no spectrum: it is zero, or not finite."
    top, low, high = (float(last[f"singular_value{each}"][0]) for each in ("", "_low", "_high"))
    loud = [
        f"{side} {int(last[f'{side}_peak_at'])} has {float(last[f'{side}_peak']):.1f} times"
        for side in ("row", "column")
        if last[f"{side}_peak"] > LOUD
    ] or ["no row or column has twice"]
    return (
        f"{name} has effective rank {float(last.effective_rank):.1f}, "
        f"{float(last.effective_rank_ratio):.2f} of chance; its largest singular value is "
        f"{top:.3g}, that of Gaussian matrices {low:.3g} to {high:.3g}. Kurtosis is "
        f"{float(last.kurtosis):.1f} (Gaussian: 3); {' and '.join(loud)} the median norm."
    )


def heads(ds: xr.Dataset, matrix: str) -> str:
    """Say which head of a matrix has the lowest rank; nothing for a matrix without heads.

    Parameters
    ----------
    ds : Dataset
        Diagnostic `head_rank`.
    matrix : str
        Name of a matrix, ``block.2.value``.
    """
    _, _, place = matrix.partition(".")
    block, _, role = place.partition(".")
    if role not in ds.role:
        return ""
    ratio = ds.head_rank_ratio.sel(block=int(block), role=role).dropna("head")
    if not ratio.size:
        return ""
    at = int(ratio.argmin("head"))
    low, head = float(ratio[at]), ratio["head"].values[at]
    return f" Of its {ratio.size} heads, head {head} is lowest: {low:.2f} of chance."


def head_rank(ds: xr.Dataset) -> str:
    """Name the head that uses the fewest directions for its shape.

    Parameters
    ----------
    ds : Dataset
        Diagnostic `head_rank`.
    """
    ratio = ds.head_rank_ratio.stack(place=("block", "head", "role")).dropna("place")
    if not ratio.size:
        return "Not able to judge: no head has a finite rank."
    low = ratio[int(ratio.argmin("place"))]
    return (
        f"Head {low['head'].item()} of block {low.block.item()} has the lowest rank in its "
        f"{str(low.role.item()).replace('_', ' ')}: {float(low):.2f} of chance, against a median "
        f"of {float(ratio.median()):.2f} over {ratio.size} slices of heads."
    )


def truncation(ds: xr.Dataset) -> str:
    """Say what the chosen rank costs and saves, and which rank is free.

    Parameters
    ----------
    ds : Dataset
        Diagnostic of the same name; attr `chosen` is a rank among its settings.
    """
    here, whole = ds.sel(setting=ds.attrs["chosen"]), int(ds.attrs["bytes_whole"])
    cost, error, saved = float(here.cost), float(here.cost_standard_error), whole - int(here.bytes)
    free = ds.setting.values[(ds.cost <= 2 * ds.cost_standard_error).values]
    least = f"the least rank within it is {free.min()}" if free.size else "no rank is within it"
    return (
        f"{capital(str(ds.attrs['matrix']))} at rank {ds.attrs['chosen']} adds "
        f"{with_error(cost, error)} bit/byte (+- standard error), "
        f"{'beyond' if cost > 2 * error else 'within'} twice its error. {capital(least)}; the "
        f"factors take {abs(saved):,} bytes {'less' if saved > 0 else 'more'} than {whole:,}, at 2 "
        "bytes a parameter; trained as factors, it would lose less."
    )


def embedding(ds: xr.Dataset) -> str:
    """Say whether rows of the embedding are wasted, and on which tokens.

    Parameters
    ----------
    ds : Dataset
        Diagnostic of the same name.
    """
    whole, parts = float(ds.effective_rank_ratio[0]), ds.isel(part=slice(1, None))
    said, n_row = f"The embedding has {whole:.2f} of the rank of chance", int(ds.rows[0])
    if np.isfinite(parts.effective_rank_ratio).any():
        low = parts.isel(part=int(parts.effective_rank_ratio.argmin("part")))
        ratio, few = float(low.effective_rank_ratio), int(low.rows)
        judged = "far below the whole" if ratio < LOW_RANK * whole else "near the whole"
        said += f"; lowest is {low.part.item()} with {ratio:.2f} ({few} rows), {judged}"
    near = np.argsort(-np.nan_to_num(ds.twin_cosine.values), kind="stable")[: ds.attrs["twins"]]
    rare = ""
    if "count" in ds and near.size:
        seldom = ds["count"].values[near] < SELDOM
        rare = f" {seldom.sum()} of them occur under {SELDOM} times in training"
        rare += f", {(~seldom).sum()} do not have that excuse" if not seldom.all() else ""
        near = near[np.argsort(seldom, kind="stable")]
    which = ", ".join(f"'{visible(str(each))}'" for each in ds.token.values[near[:4]])
    said += f". {near.size} of {n_row} rows have a neighbour of cosine {ds.attrs['threshold']:.2f}"
    said += f" or more{', such as ' + which if near.size else ''}.{rare + '.' if rare else ''}"
    return said + (" A smaller vocabulary would free them." if near.size > WASTED * n_row else "")
