"""Every learned scalar that weighs what is mixed or written: where it stands, and is it needed.

Letters: ``S`` scalars (or vectors of them), ``C`` entries of one.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
import xarray as xr
from numpy.typing import NDArray
from torch import Tensor
from torch.func import functional_call

from workbench.diagnostics.intervention import Intervention, intervention_cost
from workbench.diagnostics.sample import Diagnostic, Rows
from workbench.model import Network, new_network
from workbench.result import check, variable
from workbench.training import next_token_loss

Changes = Mapping[str, Sequence[Intervention]]  # key of `COSTS`, the boldest first: one a scalar

SMALL = 0.002  # bit/byte: a change that costs less is free, since another seed moves as much
ENOUGH = 5  # groups of text that a verdict takes
ALPHA = "value_residual.alpha"
ROWS = {"resid_mix": ("resid_mix_stream", "resid_mix_embedding")}  # one kind a row
REMEDIES = {"zero": "remove", "own": "identity", "reset": "clamp"}  # decision where it is free
COSTS = {
    "zero": "cost of 0 in its place",
    "own": "cost of the earlier value alone, without the visit's own",
    "mean": "cost of the mean of what is mixed in",
    "reset": "cost of the initial value in its place",
}
REDUCTIONS = {
    "mean": "mean over entries",
    "distance": "root mean square distance from the initial value",
    "flipped": "share of entries whose sign has turned",
}


@dataclass(frozen=True, kw_only=True)
class Scalar:
    """A learned scalar, or a vector with one for each channel or head, and its place."""

    kind: str
    visit: int
    parameter: str  # key name
    row: int  # of `rows` equal parts of the parameter
    rows: int

    def part(self, tensor: Tensor) -> Tensor:
        """View what belongs to it in a tensor of its parameter, (C,)."""
        return tensor.view(self.rows, -1)[self.row]

    def values(self, model: Network) -> NDArray[np.float64]:
        """Return its values as applied, (C,): an alpha is read behind its gate."""
        held = model.get_parameter(self.parameter)
        used = model.value_residual.effective() if self.parameter == ALPHA else held
        found: NDArray[np.float64] = self.part(used.detach()).double().cpu().numpy()
        return found

    def set_to(self, model: Network, value: float | NDArray[np.float64]) -> Intervention:
        """Return the change that applies `value` in its place."""
        changed = model.get_parameter(self.parameter).detach().clone()
        new = torch.as_tensor(value, dtype=changed.dtype, device=changed.device)
        gated = self.parameter == ALPHA and model.value_residual.config.gate == "sigmoid"
        self.part(changed)[:] = new.logit() if gated else new
        return Intervention(name=f"{self.kind} {self.visit}", parameters={self.parameter: changed})


def scalars(model: Network) -> list[Scalar]:
    """Find every learned mixing scalar among the parameters of a network, by visit.

    In a block that is everything but matrices, named by its first visit where it has several;
    outside, the weights of skips and the alphas of the value residual, by the visit they act on.
    """
    visits, outside = model.config.visits, {"skip_weights": model.config.n_encoder, ALPHA: 1}
    found = []
    for name, parameter in model.named_parameters():
        block, kind = re.match(r"blocks\.(\d+)\.", name), name.rpartition(".")[2]
        if kind in ("weight", "bias") or not (block or name in outside):
            continue
        kinds = ROWS.get(kind, (kind,)) if block else (name.split(".")[0],) * len(parameter)
        for row, each in enumerate(kinds):
            visit = visits.index(int(block[1])) if block else outside[name] + row
            found.append(Scalar(kind=each, visit=visit, parameter=name, row=row, rows=len(kinds)))
    return sorted(found, key=lambda each: each.visit)


def gradient_shares(model: Network, rows: Rows, chosen: Sequence[Scalar]) -> NDArray[np.float64]:
    """Return each one's share of their summed gradient magnitudes, (S,); NaN when all are 0."""
    names = {each.parameter for each in chosen}
    leaves = {name: model.get_parameter(name).detach().clone().requires_grad_() for name in names}
    logits = partial(functional_call, model, leaves)
    loss = next_token_loss(logits, rows.inputs, rows.targets)  # type: ignore[arg-type]
    slopes = dict(zip(leaves, torch.autograd.grad(loss, list(leaves.values())), strict=True))
    size = np.array([float(s.part(slopes[s.parameter]).double().abs().sum()) for s in chosen])
    return size / size.sum() if size.sum() else np.full(len(size), np.nan)


def cost_table(model: Network, rows: Rows, *, changes: Changes, dim: str) -> xr.Dataset:
    """Measure alternatives to several scalars, and decide what to do with each.

    Parameters
    ----------
    changes : mapping of str to sequence of Intervention
        Keys of `COSTS`, the boldest change first; one intervention a scalar.
    dim : str
        What the scalars lie along.

    Returns
    -------
    Dataset
        For each key ``KEY_cost`` and ``KEY_cost_standard_error`` [bit/byte]; `decision`, `reason`.
    """
    found = intervention_cost(model, rows, [each for alike in changes.values() for each in alike])
    names, groups = ("cost", "cost_standard_error"), len(np.unique(rows.group))
    pairs = np.stack([found[name].values.reshape(len(changes), -1) for name in names], axis=-1)
    data = {}
    for (key, what), pair in zip(((key, COSTS[key]) for key in changes), pairs, strict=True):
        data[f"{key}_cost"] = variable(dim, pair[:, 0], what, "bit/byte")
        error = f"standard error of the {what}"
        data[f"{key}_cost_standard_error"] = variable(dim, pair[:, 1], error, "bit/byte")
    every = [dict(zip(changes, each, strict=True)) for each in pairs.swapaxes(0, 1)]
    verdicts = np.array([decided(each, groups) for each in every]).reshape(-1, 2)
    for name, column in zip(("decision", "reason"), verdicts.T, strict=True):
        data[name] = variable(dim, column, name)
    attrs = {"tokens": len(rows.bytes), "groups": groups, "small": SMALL}
    return xr.Dataset(data, attrs=attrs)


def decided(costs: Mapping[str, Sequence[float]], groups: int) -> tuple[str, str]:
    """Decide what to do with a scalar, and say why.

    Parameters
    ----------
    costs : mapping of str to (cost, standard error) [bit/byte]
        Of changes in the trained model, the boldest first; only those in `REMEDIES` count.
    groups : int
        Independent groups of text that they were measured on.

    Returns
    -------
    decision, reason : str
        ``restore`` when going back to its initial value saves more than `SMALL` and twice its
        error: it was lost, or never trained. Else the first change whose cost, with twice its
        error, stays below `SMALL`: ``remove`` (0 does as well), ``identity`` (the earlier value
        alone does) or ``clamp`` (its initial value does). ``keep`` when every change costs more
        than twice its error, else ``unjudged``.

    Examples
    --------
    >>> decided({"zero": (0.03, 0.002), "reset": (0.0004, 0.0001)}, 19)
    ('clamp', 'reset costs +0.0004 +- 0.0001 bit/byte')
    """
    unsure, back = "", costs.get("reset", (np.nan, np.nan))
    if groups >= ENOUGH and back[0] + 2 * back[1] < -SMALL:
        return "restore", f"reset saves {-back[0]:.4f} +- {back[1]:.4f} bit/byte"
    for name in (each for each in costs if each in REMEDIES):
        cost, error = costs[name]
        told = f"{name} costs {cost:+.4f} +- {error:.4f} bit/byte"
        if groups < ENOUGH or not np.isfinite(cost + error):
            return "unjudged", f"{groups} groups of text, and a verdict takes {ENOUGH}"
        if cost + 2 * error < SMALL:
            return REMEDIES[name], told
        unsure = unsure or (told if cost <= 2 * error else "")
    return ("unjudged", f"{unsure}: take more text") if unsure else ("keep", f"even {told}")


def mixing(models: Mapping[int, Network], rows: Rows) -> xr.Dataset:
    """Follow every learned mixing scalar over checkpoints, and switch each off at the last.

    A vector is reduced to its mean over channels (or heads), its root mean square distance from
    its initial value, and the share of its entries whose sign has turned. Costs are those of
    changing the whole vector in the trained model, which overstates what a model trained without
    it would lose.

    Parameters
    ----------
    models : mapping of step to Network
        Kept checkpoints of one run.
    rows : Rows
        The tokens they are measured on; see `Sample.rows`.

    Returns
    -------
    Dataset
        Dims ``step, scalar``, with coords ``kind`` and ``visit``. At the last step: `zero_cost`,
        `reset_cost` (to its initial value), their paired standard errors, `gradient_share`,
        and `decision` with its `reason`, see `decided`.
    """
    course = []
    for step in sorted(models):  # a checkpoint is loaded when asked for and not held
        model = models[step]
        chosen = scalars(model)
        course.append([each.values(model) for each in chosen])
    fresh = new_network(model.config, seed=0)
    init = [each.values(fresh) for each in chosen]
    off = [each.set_to(model, 0.0) for each in chosen]
    back = [each.set_to(model, value) for each, value in zip(chosen, init, strict=True)]
    found = cost_table(model, rows, changes={"zero": off, "reset": back}, dim="scalar")
    table = np.array([list(map(_reduced, each, init)) for each in course])
    for at, (name, what) in enumerate(REDUCTIONS.items()):
        found[name] = variable(("step", "scalar"), table[..., at], what)
    found["init"] = variable("scalar", [each.mean() for each in init], "mean initial value")
    shares = gradient_shares(model, rows, chosen)
    found["gradient_share"] = variable("scalar", shares, "share of gradient magnitude")
    names = [f"visit {each.visit} {each.kind}" for each in chosen]
    places = {
        name: ("scalar", [getattr(each, name) for each in chosen]) for name in ("kind", "visit")
    }
    return check(found.assign_coords({"step": sorted(models), "scalar": names} | places))


def _reduced(now: NDArray[np.float64], init: NDArray[np.float64]) -> list[float]:
    """Reduce a vector to one value a key of `REDUCTIONS`; an initial 0 has no sign to turn."""
    turned = float((now * init < 0).mean()) if init.all() else np.nan
    return [float(now.mean()), float(np.sqrt(np.square(now - init).mean())), turned]


DIAGNOSTIC = Diagnostic(
    tier="intervention",
    measure=lambda each: mixing(each.history, each.rows),
    lacks=lambda each: "" if scalars(each.model) else "the network has no learned mixing scalars",
)
