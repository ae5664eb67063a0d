"""What the logit prior says."""

from collections import Counter

import numpy as np
import xarray as xr

from workbench.readings.phrasing import visible

FEW_RECORDS = 5


def logit_prior(ds: xr.Dataset) -> str:
    """Count what the winners rest on, and name the wrong one that owes most to bias and prior.

    Parameters
    ----------
    ds : Dataset
        Result of the diagnostic of the same name.
    """
    count = ds.sizes["record"]
    verdicts = Counter(str(each) for each in ds.verdict.values)
    told = ", ".join(f"{name} {n}" for name, n in verdicts.most_common())
    margin = ds.margin.values.astype(float)
    if count < FEW_RECORDS or not np.isfinite(margin).all():
        why = f"only {count} records" if count < FEW_RECORDS else "margins that are not finite"
        return f"Not able to judge from {why}; verdicts so far: {told or 'none'}."
    alone = ds.verdict.values == "context"
    reference = f" over {ds.attrs['reference']}" if "reference" in ds.attrs else ""
    first = (
        f"{int(alone.sum())} of {count} winners ({alone.mean():.0%}) win on their context alone; "
        f"the rest need the output bias or the mean hidden state{reference} ({told})"
    )
    if alone.all():
        mean = float(ds.context.mean(skipna=False))
        return (
            f"All {count} winners win on their context alone, without output bias and mean hidden "
            f"state{reference}; context supplies {mean:.2f} of a mean margin of "
            f"{margin.mean():.2f} nat."
        )
    needy = ~alone
    if "correct" in ds.coords:
        needy &= ~ds.correct.values.astype(bool)
        if not needy.any():
            return f"{first}. None of those is wrong: a prior that follows the text is healthy."
    return f"{first}. {_owing(ds.isel(record=np.flatnonzero(needy)))}"


def _owing(needy: xr.Dataset) -> str:
    """Name the commonest winner of records that context alone does not decide."""
    count = needy.sizes["record"]
    wrong = " and are wrong" if "correct" in needy.coords else ""
    winner, wins = Counter(str(each) for each in needy.winner.values).most_common(1)[0]
    chosen = needy.isel(record=np.flatnonzero(needy.winner.values == winner))
    bias, prior = float(chosen.bias.mean(skipna=False)), float(chosen.prior.mean(skipna=False))
    larger = "bias" if bias >= prior else "prior"
    return (
        f"{count} need them{wrong}, most often '{visible(winner)}' ({wins} times; mean bias "
        f"{bias:+.2f}, prior {prior:+.2f} nat): an attribution to its {larger}, which removing "
        f"the {larger} would test."
    )


def what_to_mend(ds: xr.Dataset) -> str:
    """Tell the decision between bias, head and trunk, with its evidence.

    Parameters
    ----------
    ds : Dataset
        Result of `diagnostics.what_to_mend`.
    """
    said = ds.attrs
    advice = {
        "bias": "Mend the bias",
        "head": "Mend the head, whose rows align with the mean hidden state",
        "trunk": "Mend the trunk: what is missing is context",
    }
    first = advice.get(said["decision"], str(said["decision"]).capitalize())
    told = f"{first}. {said['failed']} of {said['predictions']} predictions are wrong"
    if np.isfinite(said["constant_low"]) and said["failed"]:
        share = f"{said['constant_low']:.0%} to {said['constant_high']:.0%}"
        told += f"; {said['constant']} of these winners need bias or prior (95 % interval {share})"
    gains = {part: said[f"gain_{part}"] for part in ("bias", "prior")}
    saved = [
        f"keeping less {part} saves {gain:.4f} bit/byte" for part, gain in gains.items() if gain
    ]
    return f"{told}; {' and '.join(saved) or 'keeping less bias or prior saves nothing certain'}."
