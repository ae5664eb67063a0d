"""What the details of a loss say: cells, calibration, position, confusions, and a place in text."""

import numpy as np
import xarray as xr

FEW = 50  # tokens that are not judged
AFTERWARDS = {"token_class", "decile", "repetition"}  # known of the target alone


def parts(ds: xr.Dataset) -> str:
    """Name the cell that holds most of the excess, of those with enough tokens."""
    dims = list(ds.excess.dims)
    rows = ds[["tokens", "excess", "excess_standard_error"]].stack(case=dims)
    judged = rows.isel(case=np.flatnonzero(rows.tokens >= FEW))
    if not judged.sizes["case"]:
        return f"Not able to judge: of {rows.sizes['case']} cells none has {FEW} tokens."
    most = judged.isel(case=int(judged.excess.values.argmax()))
    where = ", ".join(f"{dim} {most[dim].item()}" for dim in dims)
    against = ds.attrs["reference"].split(" (")[0].split(":")[0]
    number = f"{_number(most, 'excess', 4)} of {float(rows.excess.sum()):.4f} bit/byte"
    few = f"{rows.sizes['case'] - judged.sizes['case']} cells with under {FEW} tokens not judged"
    if not np.isfinite(most.excess_standard_error):
        return f"Not able to judge {where}: {number}; {few}."
    if float(most.excess) <= 2 * float(most.excess_standard_error):
        return f"No cell is above {against} beyond its error; largest is {where}: {number}; {few}."
    bound = " The split is by the target, known only afterwards: others may pay for what one wins."
    if AFTERWARDS.isdisjoint(dims):
        bound = ""
    return (
        f"The most of the excess over {against} lies in {where}: {number} in "
        f"{int(most.tokens):,} tokens; {few}.{bound}"
    )


def calibration(ds: xr.Dataset, *, chosen: str = "all") -> str:
    """Say whether probabilities of the token predicted first can be believed."""
    point, count = ds.sel(token_class=chosen), int(ds.tokens.sel(token_class=chosen).sum())
    gap, error = float(point.class_gap), float(point.class_gap_standard_error)
    if count < FEW or not np.isfinite(error):
        return f"Not able to judge {chosen}: predicted first {count} times."
    word = (
        ("overconfident" if gap > 0 else "underconfident") if abs(gap) > 2 * error else "unbiased"
    )
    beyond = float(point.ece - 2 * point.ece_standard_error) > float(point.ece_expected)
    return (
        f"Where {chosen} is predicted first (n {count:,}) the model is {word}: probability minus "
        f"accuracy {_number(point, 'class_gap')}. Its calibration error {_number(point, 'ece')} is "
        f"{'more than' if beyond else 'not beyond'} the {float(point.ece_expected):.3f} of chance; "
        f"loss minus entropy {_number(point, 'class_surprise')} nat/token."
    )


def position_loss(ds: xr.Dataset) -> str:
    """Say what context and sentence ends are worth."""
    gain = _judged(ds, "context_gain", "the second half of the context is", "cheaper", "dearer")
    gap = _judged(
        ds, "sentence_gap", "first words are", "dearer than others", "cheaper than others"
    )
    own = _judged(ds, "sentence_excess", "against the reference the model does", "worse", "better")
    return f"By position {gain}; among sentences {gap}; {own} there. First positions cost " + (
        f"{_number(ds, 'first_penalty', 4)} bit/byte beyond later ones."
        if np.isfinite(ds.first_penalty)
        else "an unknown amount."
    )


def confusions(ds: xr.Dataset) -> str:
    """Name the pair that loses most, and how often."""
    if not ds.sizes["pair"]:
        return "Every target was predicted first."
    most = ds.isel(pair=0)
    return (
        f"Most bits are lost where {most.target.item()!r} stood and {most.winner.item()!r} was "
        f"predicted: {int(most.tokens)} of {int(most.of_target)} times, "
        f"{_number(most, 'contribution', 4)} bit/byte. The {ds.sizes['pair']} dearest pairs hold "
        f"{float(ds.contribution.sum()):.3f} bit/byte."
    )


def text_strip(ds: xr.Dataset) -> str:
    """Name the dearest token of a piece of text, against the reference."""
    if not ds.sizes["token"]:
        return "No such tokens."
    most = ds.isel(token=int(ds.excess.values.argmax()))
    count = "1 token" if ds.sizes["token"] == 1 else f"{ds.sizes['token']} tokens"
    return (
        f"{count}, {float(ds.excess.sum()):+.0f} bit against the reference; "
        f"most by {most.target.item()!r} at {int(most.offset)} ({float(most.excess):+.1f} bit, "
        f"probability {float(most.probability):.2g}, rank {int(most['rank'])}; first was "
        f"{most.winner.item()!r})."
    )


def _number(point: xr.Dataset, name: str, digits: int = 3) -> str:
    """Write a number with its standard error."""
    error = float(point[f"{name}_standard_error"])
    return f"{float(point[name]):.{digits}f} (standard error {error:.{digits}f})"


def _judged(ds: xr.Dataset, name: str, subject: str, above: str, below: str) -> str:
    """Say which way a difference goes, or that its error hides it."""
    value, error = float(ds[name]), float(ds[f"{name}_standard_error"])
    if not np.isfinite(error):
        return f"not measured whether {subject} {above} (too few)"
    if not abs(value) > 2 * error:
        return f"not able to tell that {subject} {above} ({_number(ds, name)} nat/token)"
    by = f"{abs(value):.3f} (standard error {error:.3f}) nat/token"
    return f"{subject} {above if value > 0 else below} by {by}"
