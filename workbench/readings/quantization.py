"""What quantisation costs say: who pays, what foretells it, and where more bytes would help."""

import numpy as np
import xarray as xr

from workbench.readings.notation import with_error
from workbench.readings.phrasing import capital, listed

AGREE = 0.5  # rank correlation below which two errors do not tell the same


def quantization(ds: xr.Dataset) -> str:
    """Name the dearest matrix and the class that pays most, and the predictor to trust.

    Parameters
    ----------
    ds : Dataset
        Result of the diagnostic of the same name.
    """
    if not np.isfinite(ds.cost.values).all():
        return "Not able to judge: what some matrix costs is not finite."
    total, dear = float(ds.cost_together), ds.isel(matrix=int(ds.cost.values.argmax()))
    lead = f"The artifact of {ds.attrs['bytes']:,} bytes costs {_cost(ds, 'cost_together')}"
    if total <= 2 * float(ds.cost_together_standard_error):
        return f"{lead}, which is noise: fewer bytes may do. {predictors(ds)}"
    most = ds.isel(token_class=int(ds.cost_by_class.values.argmax()))
    apart = abs(float(ds.residual)) > 2 * float(ds.residual_standard_error)
    how = "compound" if ds.residual > 0 else "overlap"
    return (
        f"{lead}: dearest is {_name(dear)}, alone {_cost(dear, 'cost')}, and "
        f"{most.token_class.item()} tokens pay {float(most.cost_by_class) / total:.0%}; one by one "
        f"its parts cost {float(ds.cost_summed) / total:.0%} of that{f', so they {how}' * apart}. "
        f"{predictors(ds)}"
    )


def predictors(ds: xr.Dataset) -> str:
    """Say which predictor to trust with the bytes of each matrix, and which error misleads."""
    noise = int((ds.cost <= 2 * ds.cost_standard_error).sum())
    lead = f"Of {ds.sizes['matrix']} matrices ({noise} within noise) the costs are"
    if not (ds.rho_low > 0).any():
        return f"{lead} foretold by no predictor."
    best = ds.isel(predictor=int(np.nanargmax(ds.rho.values)))
    pair = np.argsort([ds.weight_error.values, ds.output_error.values], axis=1).argsort(axis=1)
    agree = float(np.asarray(np.corrcoef(pair))[0, 1])
    warning = "; beware, errors of weights and of outputs rank matrices differently"
    return (
        f"{lead} best foretold by {best.predictor.item().replace('_', ' ')} (rho "
        f"{float(best.rho):+.2f}, 95 % {float(best.rho_low):.2f} to {float(best.rho_high):.2f})"
        f"{f'{warning} (rho {agree:+.2f})' * (agree < AGREE)}."
    )


def quantized_tokens(ds: xr.Dataset) -> str:
    """Say which class pays most, whether the rarer half of the text does, and what changes."""
    most, share = ds.isel(token_class=int(ds.cost_by_class.values.argmax())), ds.cost_by_decile
    kl = with_error(ds.divergence, ds.divergence_standard_error)
    return (
        f"Of {_cost(ds, 'cost_together')} {most.token_class.item()} tokens pay "
        f"{_cost(most, 'cost_by_class')}; the rarer half of the training tokens pays "
        f"{float(share[:5].sum()) / (float(share.sum()) or 1):.0%}. The divergence is {kl} "
        f"nat/token; {int(ds.agreeing):,}/{ds.attrs['tokens']:,} first predictions stay."
    )


def quantized_bytes(ds: xr.Dataset) -> str:
    """Say where another bit a weight would buy most: it saves three quarters of a cost."""
    worth, large = ds.cost / (ds.rows * ds.columns), ds.isel(matrix=int(ds.bytes.values.argmax()))
    lead = f"Of {ds.attrs['bytes']:,} bytes {_name(large)} takes {int(large.bytes):,}."
    told = (ds.cost > 0) & ~(ds.cost <= 2 * ds.cost_standard_error)
    if not told.any():
        return f"{lead} No matrix alone costs more than noise: there is none to give more bits."
    at = int(worth.where(told).fillna(-1).values.argmax())
    here, typical = ds.isel(matrix=at), float(abs(worth).median()) or 1.0
    return (
        f"{lead} Another bit a "
        f"weight buys most in {_name(here)}: {int(here.rows * here.columns) / 8:,.0f} bytes for "
        f"about three quarters of {_cost(here, 'cost')}, {float(worth[at]) / typical:.1f} times "
        "what they buy in the median matrix."
    )


def survival(ds: xr.Dataset) -> str:
    """Compare lost first places with what margins foretell, for all targets and the rare."""
    told = []
    for part in ("all", "rare"):
        one = ds.sel(part=part)
        count, share = one.kept_first, one.flip_predicted.fillna(0)
        expected, lost = float((count * share).sum()), int(one.flipped.sum())
        error = float(np.sqrt((count * share * (1 - share)).sum()))
        verdict = "more" if lost > expected else "fewer"
        verdict = "as" if abs(lost - expected) <= 2 * error else f"{verdict} than"
        told.append(f"{part} {lost}/{int(count.sum())}, {verdict} foretold ({expected:.0f})")
    return (
        f"Of targets predicted first quantisation loses: {'; '.join(told)}. The noise is "
        f"{float(ds.noise[0]):.2f} nat, for rare targets {float(ds.noise[1]):.2f}: what must not "
        "be lost needs some 4.5 times that as margin (margin hinge)."
    )


def culprits(ds: xr.Dataset) -> str:
    """Name the tensors that break an artifact, or say that none does."""
    cost, left, healthy = (ds.attrs[name] for name in ("cost", "cost_left", "healthy"))
    after = f"({ds.attrs['passes']} forward passes; healthy is {healthy:.3g})"
    if ds.sizes["part"]:
        named = listed("culprit", ds.part.values)
        return f"{capital(named)}: in float again, {cost:.4f} bit/byte fall to {left:.4f} {after}."
    why = "healthy, within twice its error"
    if left - 2 * ds.attrs["cost_standard_error"] > healthy:
        why = "of no tensor alone: too coarse all over"
    return f"No culprit: {cost:.4f} bit/byte is {why} {after}."


def _name(point: xr.Dataset) -> str:
    """Say which matrix in words."""
    return str(point.matrix.item()).replace(".", " ")


def _cost(ds: xr.Dataset, name: str) -> str:
    """Write a cost with its error."""
    return f"{with_error(ds[name], ds[f'{name}_standard_error'], sign='+')} bit/byte"
