"""What the loss by class says."""

import math

import numpy as np
import xarray as xr

from workbench.readings.notation import with_error
from workbench.readings.phrasing import capital

FEW_TOKENS = 200
FEW_DEGREES = 3  # of freedom of the seed error: below it seeds are not judged


def token_loss(ds: xr.Dataset) -> str:
    """Name the class with most bits to win, and the one that costs most; or judge a difference.

    Parameters
    ----------
    ds : Dataset
        Result of the diagnostic of the same name, or of `token_difference`.
    """
    if "compared" in ds.attrs:
        return _verdict(ds)
    counts = ds.tokens.values.astype(float)
    rows = ds.isel(token_class=np.flatnonzero(counts >= FEW_TOKENS))
    few = int(((counts > 0) & (counts < FEW_TOKENS)).sum())
    classes = "1 class" if few == 1 else f"{few} classes"
    small = f"; {classes} with under {FEW_TOKENS} tokens not judged" if few else ""
    if not rows.sizes["token_class"] or not np.isfinite(rows.contribution.values).all():
        return f"Not able to judge: no class has {FEW_TOKENS} tokens with a finite loss{small}."
    total = float(ds.contribution.where(ds.tokens > 0, 0.0).sum(skipna=False))
    order = np.argsort(-rows.contribution.values, kind="stable")
    most = rows.isel(token_class=order[0])
    first = (
        f"{capital(_class(most))} tokens cost most: {_number(most)} "
        f"of {total:.3f} bit/byte, {float(most.loss_share):.0%} of the loss for "
        f"{float(most.token_share):.0%} of the tokens{_tie(rows, order)}"
    )
    if "excess" in ds:
        return f"{_recoverable(ds, rows)} {first}{small}."
    if "contribution_standard_error" in ds:
        small += f" {_over(ds)}"
    excess = rows.loss_share.values / rows.token_share.values
    dearest = rows.isel(token_class=int(np.argmax(excess)))
    if _class(dearest) == _class(most):
        second = "no class costs more for how common it is"
    else:
        second = (
            f"the dearest for how common they are is {_class(dearest)} "
            f"({float(dearest.loss_share):.1%} of the loss for {float(dearest.token_share):.1%})"
        )
    return f"{first}; {second}{small}."


def _recoverable(ds: xr.Dataset, rows: xr.Dataset) -> str:
    """Tell what the reference would surely save, which is in all, and what class it comes from."""
    order = np.argsort(-rows.excess.values, kind="stable")
    most, name = rows.isel(token_class=order[0]), ds.attrs["reference"].split(" (")[0].split(":")[0]
    total, error = float(ds.total_excess), float(ds.total_excess_standard_error)
    number = f"{_number(ds, 'total_')} bit/byte above {name}"
    clear = float(most.excess) > 2 * float(most.excess_standard_error)
    if not math.isfinite(total + error):
        return f"Not able to judge what is recoverable: {number}, error unknown."
    if not total > 2 * error:
        elsewhere = " and wins elsewhere" if float(most.excess) > total else ""
        lost = f"loses to {name} on {_class(most)} tokens by {_number(most, '')}{elsewhere}"
        return (
            f"In all nothing beyond error is shown to be recoverable: {number} {_over(ds)}"
            f"{f'; the network {lost}' if clear else ''}."
        )
    if not clear:
        said = f"In all {number} is recoverable {_over(ds)}"
        return f"{said}, and no class is above it beyond its error."
    return (
        f"{capital(_class(most))} tokens hold the most of it: {_number(most, '')} of {number}, "
        f"recoverable in all {_over(ds)}{_tie(rows, order, 'excess')}."
    )


def _over(ds: xr.Dataset) -> str:
    """Say what the numbers after +- are."""
    return f"(+- standard error over {ds.attrs.get('observations', 'documents')})"


def _verdict(ds: xr.Dataset) -> str:
    """Say whether a change pays, and where."""
    change, text = float(ds.total_excess), float(ds.total_excess_standard_error)
    seed = float(ds.seed_error)
    count, degrees, lost = (
        int(ds.attrs[name]) for name in ("seeds", "seed_degrees", "seeds_not_finite")
    )
    judged = math.isfinite(seed) and degrees >= FEW_DEGREES
    seeds = f"{count or 'no'} seed{'' if count == 1 else 's'}"
    known = f"{seed:.4f} from" if math.isfinite(seed) else "unknown,"
    missing = f", {lost} not finite" if lost else ""
    limit = 2 * text
    word = "it pays" if change < 0 else "it does not pay"
    if judged:  # a spread of few seeds is itself uncertain
        limit = math.hypot(limit, ds.attrs["seed_quantile"] * seed)
    else:
        word += f" on this text, not able to judge by seed ({seeds})"
    if abs(change) <= limit:
        word = "within noise"
    if not math.isfinite(change + text):
        word = "not able to judge"
    said = (
        f"{ds.attrs['run']} differs from {ds.attrs['reference']} by "
        f"{with_error(change, text, sign='+')} bit/byte {_over(ds)[:-1]}, by seed {known} "
        f"{seeds}{missing}): {word}"
    )
    at = int(np.argmax(np.abs(ds.excess.values)))
    value = float(ds.excess[at])
    if "document" in ds.dims:
        own = float(ds.bytes[at] / ds.bytes.sum())
        return f"{said}. Most by document {int(ds.document[at])}: {value:+.4f}, {own:.0%} of bytes."
    part = ds.isel(token_class=at)
    spread = float(part.excess_standard_error)
    clear = "" if abs(value) > 2 * spread else ", within its error"
    return f"{said}. Most by {_class(part)}: {with_error(value, spread, sign='+')}{clear}."


def _class(point: xr.Dataset) -> str:
    """Return a class's name in words."""
    return str(point.token_class.item()).replace("_", " ")


def _number(point: xr.Dataset, begin: str | None = None) -> str:
    """Write a contribution, or an excess, with its standard error where it was measured."""
    name = "contribution" if begin is None else f"{begin}excess"
    return with_error(point[name], point.get(f"{name}_standard_error", math.nan))


def _tie(rows: xr.Dataset, order: np.ndarray, name: str = "contribution") -> str:
    """Say so where the first class cannot be told from the second."""
    if order.size < 2:
        return ""
    most, second = (rows.isel(token_class=at) for at in order[:2])
    begin = "excess_" if name == "excess" else ""
    error = float(second.get(f"{begin}lead_standard_error", math.nan))
    if not float(most[name]) - float(second[name]) < 2 * error:
        return ""
    return f", not separable from {_class(second)} ({float(second[name]):.3f})"
