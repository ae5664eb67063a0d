"""What the details of a loss say: cells, calibration, position, confusions, and a place in text."""

import numpy as np
import xarray as xr

from workbench.readings.notation import with_error
from workbench.readings.phrasing import capital, visible

FEW = 50  # tokens that are not judged
AFTERWARDS = {"token_class", "decile", "repetition"}  # known of the target alone


def parts(ds: xr.Dataset) -> str:
    """Name the cell that holds most of the excess, or of the difference of two runs."""
    dims = list(ds.excess.dims)
    rows = ds[["tokens", "excess", "excess_standard_error"]].stack(case=dims)
    judged = rows.isel(case=np.flatnonzero(rows.tokens >= FEW))
    if not judged.sizes["case"]:
        return f"Not able to judge: of {rows.sizes['case']} cells none has {FEW} tokens."
    compared = "compared" in ds.attrs
    order = np.abs(judged.excess.values) if compared else judged.excess.values
    most = judged.isel(case=int(order.argmax()))
    where = ", ".join(f"{dim} {most[dim].item()}" for dim in dims)
    against = ds.attrs["reference"].split(" (")[0].split(":")[0]
    number = f"{_number(most, 'excess')} of {float(rows.excess.sum()):.4f} bit/byte"
    few = f"{rows.sizes['case'] - judged.sizes['case']} cells with under {FEW} tokens not judged"
    few += " (+- standard error over documents)"
    if not np.isfinite(most.excess_standard_error):
        return f"Not able to judge {where}: {number}; {few}."
    if compared:
        beyond = abs(most.excess) > 2 * most.excess_standard_error
        number += f", {'beyond' if beyond else 'within'} twice its error"
        return f"Most apart in {where}: {number}; {few}."
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
        f"loss minus entropy {_number(point, 'class_surprise')} nat/token (+- standard error over "
        "documents)."
    )


def position_loss(ds: xr.Dataset) -> str:
    """Say what context and sentence ends are worth."""
    gain = _judged(ds, "context_gain", "the second half of the context is", "cheaper", "dearer")
    gap = _judged(
        ds, "sentence_gap", "first words are", "dearer than others", "cheaper than others"
    )
    own = _judged(ds, "sentence_excess", "against the reference the model does", "worse", "better")
    said = f"{capital(gain)}. Among sentences {gap}; {own} there; first positions cost "
    return said + (
        f"{_number(ds, 'first_penalty')} bit/byte beyond later ones (+- standard error)."
        if np.isfinite(ds.first_penalty)
        else "an unknown amount."
    )


def confusions(ds: xr.Dataset) -> str:
    """Name the pair that loses most, and how often; or the pair by which two runs differ most."""
    if not ds.sizes["pair"]:
        return "Every target was predicted first."
    most, where = ds.isel(pair=0), "Most bits are lost where"
    said = f"{int(most.tokens)} of {int(most.of_target)} times"
    if "compared" in ds.attrs:
        where = "Most apart where"
        said = f"{int(most.tokens)} times against {int(most.other_tokens)}"
    return (
        f"{where} {most.target.item()!r} stood and {most.winner.item()!r} was predicted: {said}, "
        f"{_number(most, 'contribution')} bit/byte (+- standard error over documents). The "
        f"{ds.sizes['pair']} pairs of most bits hold {float(ds.contribution.sum()):.3f} bit/byte."
    )


def text_strip(ds: xr.Dataset) -> str:
    """Name the dearest token of a piece of text, against the reference."""
    if not ds.sizes["token"]:
        return "No such tokens."
    most = ds.isel(token=int(ds.excess.values.argmax()))
    against = ds.attrs.get("reference", "the reference").split(" (")[0].split(":")[0]
    one = (
        f"{most.target.item()!r} at {int(most.offset)} ({float(most.excess):+.1f} bit against "
        f"{against}, probability {float(most.probability):.2g}, rank {int(most['rank'])}; first "
        f"was {most.winner.item()!r})."
    )
    count = ds.sizes["token"]
    return (
        one if count == 1 else f"{count} tokens, {float(ds.excess.sum()):+.0f} bit; most by {one}"
    )


def why(ds: xr.Dataset) -> str:
    """Say what made a token the winner over its rival, which is the target where it was wrong.

    Parameters
    ----------
    ds : Dataset
        `logit_prior` of one record.
    """
    one = ds.isel(record=0)
    names = [f"'{visible(str(one[each].item()))}'" for each in ("winner", "rival")]
    parts = ", ".join(f"{name} {float(one[name]):+.2f}" for name in ("bias", "prior", "context"))
    rival = "runner-up" if one.correct else "target"
    return (
        f"{names[0]} over the {rival} {names[1]} by {float(one.margin):+.2f} nat: {parts}. It wins "
        f"by its {str(one.verdict.item()).replace('both', 'bias or prior, either')}."
    )


def _number(point: xr.Dataset, name: str) -> str:
    """Write a number with its standard error."""
    return with_error(point[name], point[f"{name}_standard_error"])


def _judged(ds: xr.Dataset, name: str, subject: str, above: str, below: str) -> str:
    """Say which way a difference goes, or that its error hides it."""
    value, error = float(ds[name]), float(ds[f"{name}_standard_error"])
    if not np.isfinite(error):
        return f"not measured whether {subject} {above} (too few)"
    if not abs(value) > 2 * error:
        return f"not able to tell that {subject} {above} ({_number(ds, name)} nat/token)"
    by = with_error(abs(value), error)
    return f"{subject} {above if value > 0 else below} by {by} nat/token"
