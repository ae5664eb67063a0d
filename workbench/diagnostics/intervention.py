"""What a change costs: run a model with sites or parameters changed, on tokens kept in memory.

An intervention is causal where attribution is not, but it is made on a network that was trained
with the part in place: what ablation costs overstates what a network trained without it would.

Letters: ``B`` rows, ``H`` heads, ``T`` positions, ``C`` channels, ``D`` channels of a head.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import torch
import xarray as xr
from numpy.typing import NDArray
from torch import Tensor
from torch.func import functional_call

from workbench.diagnostics.sample import Rows, Sample, sample
from workbench.evaluation import OpenRun
from workbench.folder import check_known
from workbench.model import Network, record
from workbench.result import check, difference, variable
from workbench.text import TOKEN_CLASSES

Edit = Callable[[Tensor], Tensor]
How = str | float  # "mean", "zero", or a factor
N_CLASS = len(TOKEN_CLASSES)
PARTS = {  # of a visit: the sites where it is changed
    "block": ("attention_out", "feedforward_out"),
    "attention": ("attention_out",),
    "feedforward": ("feedforward_out",),
    "query": ("query",),
    "key": ("key",),
    "value": ("value",),
    "attention_out": ("attention_out",),
    "feedforward_in": ("feedforward_out",),  # what follows the hidden layer is linear
    "feedforward_out": ("feedforward_out",),
}


@dataclass(frozen=True, kw_only=True)
class Intervention:
    """A named change: other tensors at sites, or other parameters of the same shape."""

    name: str
    edits: Mapping[str, Edit] = field(default_factory=dict)  # site: what to go on with
    parameters: Mapping[str, Tensor] = field(default_factory=dict)  # key name: value


def scaled(site: str, factor: float, *, head: int | None = None) -> Intervention:
    """Multiply what passes a site, or one head (dim 1) of it; 0 is ablation to zero."""
    named = site if head is None else f"{site}.{head}"
    edit = _at_head(lambda tensor: tensor * factor, head)
    return Intervention(name=f"{named} x {factor:g}", edits={site: edit})


def fixed(site: str, mean: Tensor, *, head: int | None = None) -> Intervention:
    """Put a mean in place of what passes a site, or one head (dim 1) of it: mean ablation."""
    named = site if head is None else f"{site}.{head}"
    put = mean if head is None else mean[head]
    edit = _at_head(lambda tensor: put.to(tensor.dtype).expand_as(tensor), head)
    return Intervention(name=f"{named} to its mean", edits={site: edit})


def _at_head(change: Edit, head: int | None) -> Edit:
    """Confine a change to one head (dim 1); None: change all."""

    def edit(tensor: Tensor) -> Tensor:
        tensor = tensor.clone()
        tensor[:, head] = change(tensor[:, head])
        return tensor

    return change if head is None else edit


def together(name: str, interventions: Iterable[Intervention]) -> Intervention:
    """Join interventions at different places into one."""
    edits: dict[str, Edit] = {}
    parameters: dict[str, Tensor] = {}
    for each in interventions:
        edits |= each.edits
        parameters |= each.parameters
    return Intervention(name=name, edits=edits, parameters=parameters)


def targets(model: Network) -> dict[str, list[tuple[str, int | None]]]:
    """List the names that `Trial.parse` knows, each with the places it stands for.

    They are every site; ``visit.N`` (both its writes) and ``visit.N.PART`` for each of `PARTS`;
    ``visit.N.head.H``; every learned scale, gain, mix and bias by its parameter name, and
    ``NAME.I`` for one entry of those that have fewer than there are channels.

    Returns
    -------
    dict of str to list
        Pairs of a site and a head, or of a parameter and an index; None is all of it.
    """
    found: dict[str, list[tuple[str, int | None]]] = {}
    for visit in range(len(model.config.visits)):
        at = f"visit.{visit}"
        for part, sites in PARTS.items():
            found[f"{at}.{part}"] = [(f"{at}.{site}", None) for site in sites]
        found[at] = found[f"{at}.block"]
        heads = range(model.config.n_head)
        found |= {f"{at}.head.{head}": [(f"{at}.head_out", head)] for head in heads}
    found |= {site: [(site, None)] for site in model.sites()}
    for name, parameter in model.named_parameters():
        if not name.endswith(".weight"):
            entries = range(len(parameter) if len(parameter) < model.config.d_model else 0)
            found[name] = [(name, None)]
            found |= {f"{name}.{at}": [(name, at)] for at in entries}
    return found


def site_means(model: Network, rows: Rows, sites: Iterable[str]) -> dict[str, Tensor]:
    """Average sites over rows and present positions.

    Returns
    -------
    dict of str to tensor
        (C,) of a site (B, T, C); (H, 1, D) of a site (B, H, T, D).
    """
    found: dict[str, Tensor] = {}

    def take(site: str) -> Edit:
        def observe(tensor: Tensor) -> Tensor:
            by_token = tensor if tensor.ndim == 3 else tensor.transpose(1, 2)
            mean = by_token[rows.present].double().mean(dim=0)  # (C,) or (H, D)
            found[site] = mean if tensor.ndim == 3 else mean[:, None]
            return tensor

        return observe

    with torch.inference_mode(), record(model, replace={site: take(site) for site in sites}):
        model(rows.inputs)
    return found


def losses_under(model: Network, rows: Rows, change: Intervention) -> NDArray[np.float64]:
    """Return the loss of each scored target under an intervention, (target,) [nat]."""
    with torch.inference_mode(), record(model, replace=change.edits):
        return rows.scored(functional_call(model, dict(change.parameters), (rows.inputs,)))


def added_bits(
    model: Network,
    rows: Rows,
    interventions: Sequence[Intervention],
    *,
    base: NDArray[np.float64] | None = None,
) -> NDArray[np.float64]:
    """Return the bits that each intervention adds to each target, (intervention, target).

    `base` is what losses are compared with [nat]; by default ``rows.losses(model)``.
    """
    before = rows.losses(model) if base is None else base
    after = np.stack([losses_under(model, rows, change) for change in interventions])
    return (after - before) / np.log(2)


def intervention_cost(
    model: Network,
    rows: Rows,
    interventions: Sequence[Intervention],
    *,
    base: NDArray[np.float64] | None = None,
) -> xr.Dataset:
    """Measure what interventions add to bits per byte, in all and by class of the target token.

    Every difference is paired: the same tokens with and without. Its standard error is over
    documents (or the facts of a closed world), so it covers the choice of text and not the seed.

    Parameters
    ----------
    model : Network
        Left as it was found.
    rows : Rows
        See `Sample.rows`.
    interventions : sequence of Intervention
    base : (target,) or (intervention, target) float64, optional
        What losses are compared with [nat]; by default ``rows.losses(model)``.

    Returns
    -------
    Dataset
        Dims ``intervention, token_class``: `cost` and `cost_by_class` [bit/byte], whose sum it
        is, each with a standard error.
    """
    # All targets first, then those of each class: (1 + token_class, target).
    kinds = [np.ones_like(rows.bytes), *(rows.token_class == at for at in range(N_CLASS))]
    split = added_bits(model, rows, interventions, base=base)[:, None] * np.array(kinds)
    value, error = rows.ratio(split)
    costs = {
        "": (value, "bits per byte added"),
        "_standard_error": (error, "its paired standard error over groups"),
    }
    data, both = {}, ("intervention", "token_class")
    for end, (values, what) in costs.items():
        data[f"cost{end}"] = variable("intervention", values[:, 0], what, "bit/byte")
        data[f"cost_by_class{end}"] = variable(both, values[:, 1:], what, "bit/byte")
    coords = {"intervention": [e.name for e in interventions], "token_class": list(TOKEN_CLASSES)}
    return check(
        xr.Dataset(data, coords, attrs={"tokens": len(rows.bytes), "rows": len(rows.inputs)})
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class Trial:
    """A model on its tokens; what all interventions on it need is measured once."""

    model: Network
    rows: Rows

    @cached_property
    def base(self) -> NDArray[np.float64]:
        """Losses of the model as it is, (target,) [nat]."""
        return self.rows.losses(self.model)

    @cached_property
    def means(self) -> dict[str, Tensor]:
        """Mean of every site; see `site_means`."""
        return site_means(self.model, self.rows, self.model.sites())

    def parse(self, target: str, how: How) -> Intervention:
        """Make an intervention of a name and of what is to happen there.

        A parameter is changed as it is learned: a gate before its sigmoid. Its mean is over its
        entries (rows of a matrix), so "mean" takes from an entry what sets it apart.

        Parameters
        ----------
        target : str
            One of `targets`, such as ``visit.2.head.1``.
        how : "mean", "zero" or float
            A number is the factor that it is multiplied by.

        Raises
        ------
        InputError
            For an unknown name or change; the nearest are named.
        """
        known = targets(self.model)
        check_known([target], known, what="part, head, site or scalar")
        if isinstance(how, str):
            check_known([how], ["mean", "zero"], what="change, where it is no factor,")
        factor = 0.0 if isinstance(how, str) else how
        name = f"{target} to its mean" if how == "mean" else f"{target} x {factor:g}"
        parameters, (first, at) = dict(self.model.named_parameters()), known[target][0]
        if first in parameters:
            value, chosen = parameters[first].detach().clone(), slice(None) if at is None else at
            value[chosen] = value.mean(dim=0) if how == "mean" else value[chosen] * factor
            return Intervention(name=name, parameters={first: value})
        mean = self.means if how == "mean" else {}
        changes = [
            fixed(site, mean[site], head=head) if mean else scaled(site, factor, head=head)
            for site, head in known[target]
        ]
        return together(name, changes)

    def cost(
        self,
        target: str,
        hows: Sequence[How],
        *,
        against: str = "",
        other: "Trial | None" = None,
    ) -> xr.Dataset:
        """Measure what changes to a target cost, or cost more than elsewhere.

        Parameters
        ----------
        target : str
            See `parse`.
        hows : sequence of "mean", "zero" or float
        against : str, optional
            Another target; what the same changes to it cost is subtracted, token by token.
        other : Trial, optional
            Its costs are subtracted: token by token where both models are tried on the same
            tokens, else with errors in quadrature. The attr `compared` is then 1.

        Returns
        -------
        Dataset
            See `intervention_cost`; the factors of scaling are the coordinate `factor`.
        """
        changes, base = [self.parse(target, how) for how in hows], self.base
        if other is None and against:
            other = self
        if other is not None:
            pairs = [(getattr(self.rows, e), getattr(other.rows, e)) for e in ("inputs", "targets")]
            if not all(torch.equal(*pair) for pair in pairs):
                return difference(self.cost(target, hows), other.cost(against or target, hows))
            undone = [other.parse(against or target, how) for how in hows]
            theirs = [losses_under(other.model, other.rows, change) for change in undone]
            base = base + np.stack(theirs) - other.base
        found = intervention_cost(self.model, self.rows, changes, base=base)
        factor = [np.nan if isinstance(how, str) else how for how in hows]
        found = found.assign_coords(factor=("intervention", factor))
        return found if other is None else found.assign_attrs(compared=1)


def trial(of: OpenRun | Sample) -> Trial:
    """Try interventions on a run, or on a sample, at its cached rows."""
    tried = of if isinstance(of, Sample) else sample(of)
    return Trial(model=tried.model, rows=tried.rows)
