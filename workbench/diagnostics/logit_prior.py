"""Why a token wins: output bias, the mean hidden state, or what this context adds.

A logit before the softcap is ``b + w . h``. With ``mu`` the mean of ``h`` over a reference text,
the margin of a winner over its rival is exactly the sum of three parts::

    (b_w - b_r)  +  (w_w - w_r) . mu  +  (w_w - w_r) . (h - mu)
       bias             prior                  context

The first two do not depend on the prompt. A prior that follows how often tokens occur is healthy;
a prior that wins where another answer is due is not.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from workbench.diagnostics.branch import (
    BranchStates,
    branch_states,
    output_head,
    piece_order,
)
from workbench.diagnostics.margin import RIVALS, Split, margin_split, rival_ids, verdicts
from workbench.diagnostics.prediction import sample_states
from workbench.diagnostics.routing_risk import pressure
from workbench.diagnostics.sample import Diagnostic, Sample
from workbench.folder import InputError, check_known
from workbench.model import Network
from workbench.result import check, variable
from workbench.text import TOKEN_CLASSES, class_scheme
from workbench.text.tokenizer import Tokenizer
from workbench.text.world import Record

Reference = tuple[NDArray[np.float64], str]  # mean hidden state (channel,), what it was taken over


def logit_prior(
    model: Network,
    records: Sequence[Record],
    tokenizer: Tokenizer,
    *,
    reference: Reference,
    context_length: int,
    rival: str = "target",
    token_classes: Sequence[str] | None = None,
) -> xr.Dataset:
    """Split the win of every record's prediction into bias, prior and context.

    `verdict` says what the winner rests on, by taking parts away from every logit and asking who
    wins then. ``context``: it still wins on context alone. Otherwise it needs the ``bias``, the
    ``prior``, either of them (``both``), or the two together (``joint``). The constant that a final
    norm may add to every hidden state counts as prior.

    Parameters
    ----------
    model : Network
        With the site ``final_norm``, `head_weight` and `output_bias`.
    records : sequence of Record
        Judged at the branch of their profile; those too short for it are left out.
    tokenizer : Tokenizer
        The model's.
    reference : tuple of (channel,) float64 and str
        Mean hidden state (see `workbench.diagnostics.branch.mean_hidden`), and a description of
        the text it is the mean over; it is part of the result, since another text gives another
        prior.
    context_length : int
        Tokens the model is given at most [token].
    rival : str
        ``target``: the right token where the winner is wrong, else the runner-up;
        ``runner_up``: always the runner-up.
    token_classes : sequence of str, optional
        Class name of every id; adds the coordinate `token_class` of the target.

    Returns
    -------
    Dataset
        Dim ``record``; `margin`, `bias`, `prior`, `context`, `hidden_projection` [nat], `verdict`,
        `pressure`; coords `winner`, `rival`, `target` (texts), their ids, `correct`, `profile`,
        and `group`: records of one group (a document, a fact) are one observation.

    Raises
    ------
    InputError
        If `rival` is unknown or `reference` does not fit the model.

    References
    ----------
    The split extends direct logit attribution: Elhage et al., A Mathematical Framework for
    Transformer Circuits, 2021, https://transformer-circuits.pub/2021/framework/index.html
    """
    states = branch_states(model, records, tokenizer, context_length=context_length)
    options: dict[str, Any] = {"reference": reference, "rival": rival}
    options["token_classes"] = token_classes
    dataset = explain(model, states, tokenizer.pieces, **options)
    return dataset.assign_attrs(context_length=context_length)


def explain(
    model: Network,
    states: BranchStates,
    pieces: Sequence[str],
    *,
    reference: Reference,
    rival: str = "target",
    token_classes: Sequence[str] | None = None,
) -> xr.Dataset:
    """Split the predictions of states that are already there, of records or of running text.

    Parameters
    ----------
    model : Network
        The model the states come from.
    states : BranchStates
        See `workbench.diagnostics.branch`.
    pieces : sequence of str
        Text of every id.
    reference, rival, token_classes
        See `logit_prior`.

    Returns
    -------
    Dataset
        As `logit_prior` returns.
    """
    mu, description = reference
    head = output_head(model)
    _check_input(mu, rival, channels=head.weight.shape[1])
    place = piece_order(pieces)
    rivals = rival_ids(
        states.scores, target=states.target, winner=states.predicted, place=place, rival=rival
    )
    split = margin_split(states.hidden, head, mu=mu, winner=states.predicted, rival=rivals)
    verdict = verdicts(states.scores, head, mu=mu, winner=states.predicted, place=place)
    dataset = xr.Dataset(
        _variables(split, verdict),
        coords=_coords(states, rivals, pieces=np.array(pieces), token_classes=token_classes),
        attrs={"reference": description, "rival": rival},
    )
    return check(dataset)


def _check_input(mu: NDArray[np.float64], rival: str, *, channels: int) -> None:
    """Refuse an unknown rival and a mean of another width."""
    check_known([rival], RIVALS, what="rival")
    if mu.shape != (channels,):
        raise InputError(
            "reference",
            expected=f"a mean hidden state of {channels} channels",
            found=f"shape {mu.shape}",
            remedy="Take it with mean_hidden from the same model.",
        )


def _variables(split: Split, verdict: NDArray[np.str_]) -> dict[str, xr.Variable]:
    """Label the numbers of every record."""
    hidden = split.prior + split.context
    return {
        "margin": variable("record", split.margin, "margin of winner over rival", "nat"),
        "bias": variable("record", split.bias, "output bias part of the margin", "nat"),
        "prior": variable("record", split.prior, "mean hidden state part of the margin", "nat"),
        "context": variable("record", split.context, "context part of the margin", "nat"),
        "hidden_projection": variable("record", hidden, "prior and context part", "nat"),
        "verdict": variable("record", verdict, "what the winner rests on"),
        "pressure": variable("record", pressure(split.bias, hidden), "what makes the margin"),
    }


def _coords(
    states: BranchStates,
    rivals: NDArray[np.int64],
    *,
    pieces: NDArray[np.str_],
    token_classes: Sequence[str] | None,
) -> dict[str, tuple[str, NDArray[np.generic]]]:
    """Say of every record who won, against whom, and what was right."""
    named = {
        "winner": pieces[states.predicted],
        "rival": pieces[rivals],
        "target": pieces[states.target],
        "winner_id": states.predicted,
        "rival_id": rivals,
        "target_id": states.target,
        "correct": states.predicted == states.target,
        "profile": np.array(states.profile, dtype=np.str_),
        "record": np.array([each.id for each in states.records], dtype=np.str_),
        "group": np.array([each.fact or each.id for each in states.records], dtype=np.str_),
    }
    if token_classes is not None:
        named["token_class"] = np.array(token_classes)[states.target]
    return {name: ("record", values) for name, values in named.items()}


def explain_chosen(sample: Sample, states: BranchStates) -> xr.Dataset:
    """Split the predictions of states chosen from a sample by its own reference; see `explain`."""
    classes = [TOKEN_CLASSES[index] for index in class_scheme(sample.tokenizer).base]
    about: dict[str, Any] = {"reference": sample.reference, "token_classes": classes}
    found = explain(sample.model, states, sample.tokenizer.pieces, **about)
    return found.assign_attrs(context_length=sample.sequence_length)


DIAGNOSTIC = Diagnostic(
    tier="pass",
    measure=lambda sample: explain_chosen(sample, sample_states(sample)),
    sites=("final_norm",),
)
