"""What an artifact costs, where the cost comes from, who pays it, and what foretells it."""

from collections.abc import Callable, Mapping
from functools import cache

import numpy as np
import pandas as pd
import torch
import xarray as xr
from numpy.typing import NDArray
from scipy.special import ndtr
from torch import Tensor

from workbench.diagnostics.effective_rank import effective_rank
from workbench.diagnostics.intervention import Intervention, added_bits
from workbench.diagnostics.sample import Diagnostic, Rows, Sample
from workbench.model import Network
from workbench.quantization import Codes, Curvature, curvature, pack, training_rows, with_values
from workbench.quantization.grid import values_of
from workbench.result import check, grouped_ratio, variable
from workbench.text import TOKEN_CLASSES, frequency_deciles

N_ROW = 64  # of training text for the curvature
NEAR = 0.05  # of a step: a weight this near a threshold of its rounding is fragile
FAR = 4.0  # standard deviations: a weight beyond is an outlier
AT_ONCE = 512  # positions whose logits are held together
EDGES = np.array([0, 0.25, 0.5, 1, 1.5, 2, 3, np.inf])  # of margins, in units of the logit noise
HEALTHY = 0.01  # bit/byte that an artifact may cost with no tensor to blame
BLAME = 0.5  # of the cost: a culprit alone costs at least so much
RANKS = ("condition_number", "kurtosis", "effective_rank_ratio")  # of `effective_rank`
ERRORS = {
    "outlier_share": ("share of weights beyond 4 standard deviations", "1"),
    "weight_error": ("squared error of the weights over their square", "1"),
    "output_error": ("squared error of what the matrix returns over its square", "1"),
    "predicted_cost": ("bits per byte that the curvature predicts (K-FAC)", "bit/byte"),
}
CODES = {
    "bits_per_weight": ("entropy of the codes of a weight", "bit"),
    "bytes": ("bytes in the artifact", "byte"),
    "saturated": ("share of codes at an end of the grid", "1"),
    "zero": ("share of weights that become zero", "1"),
    "fragile": ("share of weights within 5 % of a step of a rounding threshold", "1"),
}
SCORES = ("rho", "rho_standard_error", "rho_low", "rho_high", "matrices")
NO_CODES = {"saturated": 0.0, "fragile": np.nan}  # of a matrix that is stored as floats
Tensors = Mapping[str, Codes | Tensor]
Bends = Mapping[str, Curvature]
Deciles = NDArray[np.int8]


def quantization(
    model: Network, tensors: Tensors, *, rows: Rows, bends: Bends, decile: Deciles
) -> xr.Dataset:
    """Measure an artifact against the model that it was made of.

    A matrix is judged three times: by the error of its weights, by that of what it returns, and by
    what the text costs more when it alone is quantised. GPTQ makes the second small at the expense
    of the first, so a large error of weights is no fault by itself.

    Survival is about the targets that the model predicts first, by their margin over the best rival
    in units of the logit noise: the standard deviation over all targets of how far quantisation
    moves target and rival apart. The prediction, ``Phi(-margin / noise)``, knows one rival and one
    noise; where many rivals are near it undercounts flips.

    Parameters
    ----------
    model : Network
        Left as it was found.
    tensors : mapping
        Of `open_artifact`, made of this model.
    rows : Rows
        See `Sample.rows`.
    bends : mapping
        Of `workbench.quantization.curvature`, on other text.
    decile : (vocabulary,) int
        Of `frequency_deciles`; a target of decile 0 is rare.

    Returns
    -------
    Dataset
        By ``matrix``, with coords block, role, rows and columns: what is in `RANKS`, `ERRORS`
        and `CODES`; `cost` of quantising it alone. By ``predictor``, which are all but the codes:
        `rho`, the rank correlation with the cost over the matrices, with its 95 % interval.
        `cost_together` of the whole artifact, `cost_rest` of what is no matrix, `cost_summed` of
        both kinds one by one, and `residual` of the sum. `cost_by_class` and `cost_by_decile`,
        which each sum to the whole. `divergence` KL(model || artifact) [nat/token]; `agreeing`
        first predictions. By ``part`` (all, rare) and ``bin``: `kept_first`, targets that the
        model predicts first, `flipped` of them, and `flip_predicted`, a share; `noise` by part
        [nat]. Costs are in bit/byte and have paired standard errors over groups.

    References
    ----------
    .. [1] Fieller et al., Tests for rank correlation coefficients, 1957 (the interval of rho).
    """
    keys, other = _matrix_keys(model), with_values(model, tensors)
    values = other.state_dict()
    rest = {key: value for key, value in values.items() if key not in keys.values()}
    swaps = [*({key: values[key]} for key in keys.values()), rest, values]
    bits = added_bits(model, rows, [Intervention(name="", parameters=swap) for swap in swaps])
    deciles = decile[rows.targets[rows.targets >= 0].cpu()]
    by_class = bits[-1] * (rows.token_class == np.arange(len(TOKEN_CLASSES))[:, None])
    by_decile = bits[-1] * (deciles == np.arange(10)[:, None])
    account = pack(model.config, tensors)[1]
    per_nat = len(rows.bytes) / rows.bytes.sum() / np.log(2)
    facts = [
        _facts(each.weight.detach().double().cpu(), tensors[key], bends[key], account[key], per_nat)
        for each, key in zip(model.matrices(), keys.values(), strict=True)
    ]
    found = effective_rank(model)[list(RANKS)]
    for name, about in (ERRORS | CODES).items():
        found[name] = variable("matrix", [each[name] for each in facts], *about)
    for name, dims, of, what in (
        ("cost", "matrix", bits[:-2], "bits per byte added by this matrix alone"),
        ("cost_rest", (), bits[-2], "bits per byte added by what is no matrix"),
        ("cost_together", (), bits[-1], "bits per byte added by the artifact"),
        ("cost_summed", (), bits[:-1].sum(axis=0), "sum of the costs one by one"),
        ("residual", (), bits[-1] - bits[:-1].sum(axis=0), "cost together less the sum"),
        ("cost_by_class", "token_class", by_class, "bits per byte added, by class"),
        ("cost_by_decile", "decile", by_decile, "bits per byte added, by frequency"),
    ):
        value, error = rows.ratio(of)
        found[name] = variable(dims, value, what, "bit/byte")
        found[f"{name}_standard_error"] = variable(dims, error, f"error of {what}", "bit/byte")
    found = found.merge(_scoreboard(found)).merge(_survival(model, other, rows, deciles))
    found = found.assign_coords(token_class=list(TOKEN_CLASSES), decile=range(10))
    return check(found.assign_attrs(tokens=len(rows.bytes), bytes=sum(account.values())))


def culprits(
    model: Network, tensors: Tensors, *, rows: Rows, healthy: float = HEALTHY
) -> xr.Dataset:
    """Find the tensors that break an artifact, without trying every one.

    While the artifact costs more than is healthy, by twice the standard error, the block that costs
    most when it alone is quantised is opened, and its dearest tensor goes back to float. A tensor
    is to blame if it alone costs half of the whole; else the artifact is too coarse all over.

    Parameters
    ----------
    model : Network
    tensors : mapping
        Of `open_artifact`, made of this model.
    rows : Rows
    healthy : float
        What the artifact may cost [bit/byte]: what it cost when it was made, if that is known.

    Returns
    -------
    Dataset
        By ``part``, the tensors to blame, dearest first: `cost` alone, `cost_left` of the artifact
        once it and those before are float again. Attrs `cost` and `healthy` [bit/byte], `passes`.
    """
    values, base = with_values(model, tensors).state_dict(), rows.losses(model)

    @cache
    def cost(keys: frozenset[str]) -> tuple[float, float]:
        change = Intervention(name="", parameters={key: values[key] for key in keys})
        value, error = rows.ratio(added_bits(model, rows, [change], base=base)[0])
        return float(np.nan_to_num(value, nan=np.inf)), float(np.nan_to_num(error, posinf=0))

    def dearest(among: frozenset[str], level: Callable[[str], str]) -> frozenset[str]:
        parts = [frozenset(k for k in among if level(k) == n) for n in sorted(map(level, among))]
        return max(parts, key=cost)

    left, names = frozenset(values), {key: name for name, key in _matrix_keys(model).items()}
    steps: list[tuple[str, float, float]] = []
    while cost(left)[0] - 2 * cost(left)[1] > healthy:
        block = dearest(left, lambda key: ".".join(key.split(".")[:2]))
        (worst,) = dearest(block, str)
        alone = cost(frozenset([worst]))[0]
        if alone < BLAME * cost(left)[0]:
            break
        left -= {worst}
        steps.append((names.get(worst, worst), alone, cost(left)[0]))
    (whole, error), told = cost(frozenset(values)), np.array(steps, object).reshape(-1, 3).T
    data = {
        "cost": variable("part", told[1].astype(float), "cost of it alone", "bit/byte"),
        "cost_left": variable("part", told[2].astype(float), "cost without it", "bit/byte"),
    }
    about = {"cost": whole, "cost_standard_error": error, "healthy": healthy}
    about |= {"cost_left": cost(left)[0], "passes": cost.cache_info().misses + 1}
    return check(xr.Dataset(data, {"part": told[0].astype(str)}, about))


def _matrix_keys(model: Network) -> dict[str, str]:
    """Return the key of every matrix in the state dict, by its name."""
    keys = {id(each): key for key, each in model.named_parameters()}
    return {each.name: keys[id(each.weight)] for each in model.matrices()}


def _facts(
    weight: Tensor, each: Codes | Tensor, bend: Curvature, size: int, per_nat: float
) -> dict[str, float]:
    """Describe the error and the codes of a matrix, float64, that takes so many bytes."""
    value = values_of(each).double()
    moved, centred = value - weight, weight - weight.mean()
    energy = [float(((e @ bend.input) * e).sum()) for e in (moved, weight)]
    found = {
        "outlier_share": float((centred.abs() > FAR * centred.std()).double().mean()),
        "weight_error": float(moved.square().sum() / weight.square().sum()),
        "output_error": energy[0] / energy[1] if energy[1] > 0 else np.nan,
        "predicted_cost": bend.cost(moved) * per_nat,
        "bytes": size,
        "zero": float((value == 0).double().mean()),
    }
    if not isinstance(each, Codes):
        return found | {"bits_per_weight": 8 * size / weight.numel()} | NO_CODES
    counts = torch.unique(each.codes, return_counts=True)[1].double()
    steps = each.grid.steps(weight.shape[1]).double().clamp(min=torch.finfo(torch.float64).tiny)
    return found | {
        "bits_per_weight": float(torch.special.entr(counts / counts.sum()).sum() / np.log(2)),
        "saturated": each.saturated,
        "fragile": float((((weight / steps).remainder(1) - 0.5).abs() < NEAR).double().mean()),
    }


def _scoreboard(ds: xr.Dataset) -> xr.Dataset:
    """Correlate the rank of every predictor with that of the cost, over the matrices."""
    found = []
    for name in [*RANKS, *ERRORS]:
        both = np.stack([ds[name].values, ds.cost.values])
        both = both[:, np.isfinite(both).all(axis=0)]
        ranks, count = pd.DataFrame(both).rank(axis=1).to_numpy(), both.shape[1]
        judged = count > 3 and ranks.std(axis=1).all()
        rho = np.corrcoef(ranks)[0, 1] if judged else np.nan
        bent, reach = np.arctanh(0.999999 * rho), 1.96 * np.sqrt(1.06 / max(count - 3, 1))
        ends = np.tanh([bent - reach, bent + reach])
        found.append((rho, ends[1] / 3.92 - ends[0] / 3.92, *ends, count))
    columns = zip(SCORES, np.array(found).T, strict=True)
    what = "rank correlation with the cost of a matrix"
    data = {name: variable("predictor", column, what) for name, column in columns}
    return xr.Dataset(data, {"predictor": [*RANKS, *ERRORS]})


def _survival(model: Network, other: Network, rows: Rows, deciles: Deciles) -> xr.Dataset:
    """Compare predictions: how far apart they are, and which first places are lost."""
    at_once = max(1, AT_ONCE // rows.inputs.shape[1])
    pairs = zip(rows.inputs.split(at_once), rows.targets.split(at_once), strict=True)
    with torch.inference_mode():
        parts = [_compared(model(inputs), other(inputs), targets) for inputs, targets in pairs]
    divergence, same, margin, moved, flipped = np.concatenate(parts, axis=1)
    kl, error = grouped_ratio(rows.by_group(divergence), rows.by_group(np.ones_like(divergence)))
    chosen = np.stack([margin > 0, (margin > 0) & (deciles == 0)])[:, None]  # (part, 1, target)
    noise = [moved.std(), moved[deciles == 0].std() if (deciles == 0).any() else np.nan]
    with np.errstate(divide="ignore", invalid="ignore"):
        lead = margin / noise[0]
        here = chosen & (np.digitize(lead, EDGES) - 1 == np.arange(len(EDGES) - 1)[:, None])
        count = here.sum(axis=2)
        predicted = (here * np.nan_to_num(ndtr(-lead))).sum(axis=2) / count
    cell = ("part", "bin")
    data = {
        "divergence": variable((), kl, "KL(model || artifact)", "nat/token"),
        "divergence_standard_error": variable((), error, "error of the KL", "nat/token"),
        "agreeing": variable((), same.sum(), "equal first predictions", "token"),
        "noise": variable("part", noise, "spread of target less rival", "nat"),
        "kept_first": variable(cell, count, "targets predicted first", "token"),
        "flipped": variable(cell, (here * flipped).sum(axis=2), "of them lost", "token"),
        "flip_predicted": variable(cell, predicted, "predicted share of flips"),
    }
    coords = {"part": ["all", "rare"], "low": ("bin", EDGES[:-1]), "high": ("bin", EDGES[1:])}
    return xr.Dataset(data, coords)


def _compared(exact: Tensor, other: Tensor, targets: Tensor) -> NDArray[np.float64]:
    """Return KL, same first, margin, its change and whether it was lost, (5, target)."""
    wanted, pair = targets[targets >= 0][:, None], torch.stack([exact, other])[:, targets >= 0]
    logs, first = pair.float().log_softmax(dim=-1), pair.argmax(dim=-1)
    divergence = (logs[0].exp() * (logs[0] - logs[1])).sum(dim=-1)
    rival = pair[0].scatter(-1, wanted, -torch.inf).argmax(dim=-1, keepdim=True)
    margin, after = (each.gather(-1, wanted) - each.gather(-1, rival) for each in logs)
    lost, moved = first[1] != wanted[:, 0], (after - margin)[:, 0]
    found = [divergence, first[0] == first[1], margin[:, 0], moved, lost]
    return torch.stack([each.double() for each in found]).cpu().numpy()


def _measure(sample: Sample) -> xr.Dataset:
    """Measure the artifact of a run, its curvature on training text."""
    model, train = sample.model, sample.data.train
    texts = training_rows(train, sequence_length=sample.sequence_length, n_row=N_ROW, seed=1)
    rows, scored = (each.to(model.head_weight.device) for each in texts)
    decile = frequency_deciles(np.bincount(train.ids, minlength=model.config.vocab_size))
    tensors, bends = sample.quantized[1], curvature(model, rows, scored=scored)
    found = quantization(model, tensors, rows=sample.rows, bends=bends, decile=decile)
    assert sample.artifact is not None, "it was opened"
    return found.assign_attrs(artifact=sample.artifact.read_bytes()[-16:].hex())


DIAGNOSTIC = Diagnostic(
    tier="intervention",
    measure=_measure,
    lacks=lambda s: "" if s.artifact else "no artifact: python -m workbench quantize RUN",
)
