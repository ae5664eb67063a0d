"""Why a token wins: output bias, the mean hidden state, or what this context adds.

A logit before the softcap is ``b + w . h``. With ``mu`` the mean of ``h`` over a reference text,
the margin of a winner over its rival is exactly the sum of three parts::

    (b_w - b_r)  +  (w_w - w_r) . mu  +  (w_w - w_r) . (h - mu)
       bias             prior                  context

The first two do not depend on the prompt. A prior that follows how often tokens occur is healthy;
a prior that wins where another answer is due is not.
"""

from collections.abc import Sequence

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from workbench.diagnostics.branch import (
    BranchStates,
    branch_states,
    output_head,
    piece_order,
    states_at,
)
from workbench.diagnostics.margin import RIVALS, Split, margin_split, rival_ids, verdicts
from workbench.diagnostics.routing_risk import bias_share, pressure
from workbench.diagnostics.sample import Diagnostic, Sample
from workbench.folder import InputError, nearest
from workbench.model import Network
from workbench.result import check, variable
from workbench.text import IGNORED, TOKEN_CLASSES, class_scheme, classify
from workbench.text.tokenizer import Tokenizer
from workbench.text.world import Record

RECORDS = 512  # predictions of running text whose margins are split
EARLIEST = 16  # tokens of context before a prediction counts as one made from context

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
        `pressure`; coords `winner`, `rival`, `target` (texts), their ids, `correct`, `profile`.

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
    dataset = explain(
        model,
        states,
        tokenizer.pieces,
        reference=reference,
        rival=rival,
        token_classes=token_classes,
    )
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


def pressure_by_profile(dataset: xr.Dataset) -> xr.Dataset:
    """Average what beats the targets of each profile, over its failed records.

    Parameters
    ----------
    dataset : Dataset
        Result of `logit_prior` with ``rival="target"``.

    Returns
    -------
    Dataset
        Dim ``profile``; `records`, `failed`, the mean `bias_advantage`, `prior_advantage`,
        `context_advantage`, `hidden_advantage` [nat] over failed records (NaN without any), the
        shares `bias_share` (of bias and hidden) and `constant_share` (bias and prior, of all), and
        `pressure`, ``none`` where nothing failed.

    Raises
    ------
    ValueError
        If the rival of a failed record is not its target.
    """
    if dataset.attrs["rival"] != "target":
        raise ValueError("pressure_by_profile needs a logit_prior with rival='target'")
    profile = dataset["profile"].values
    names = list(dict.fromkeys(profile.tolist()))
    failed = ~dataset["correct"].values.astype(bool)
    parts = {part: dataset[part].values for part in ("bias", "prior", "context")}
    means = {part: np.full(len(names), np.nan) for part in parts}
    for row, name in enumerate(names):
        chosen = failed & (profile == name)
        if chosen.any():
            for part, values in parts.items():
                means[part][row] = values[chosen].mean()
    bias, hidden = means["bias"], means["prior"] + means["context"]
    counted = {
        "records": [int((profile == name).sum()) for name in names],
        "failed": [int((failed & (profile == name)).sum()) for name in names],
    }
    constant = bias_share(bias + means["prior"], means["context"])
    variables = {
        "records": variable("profile", counted["records"], "records"),
        "failed": variable("profile", counted["failed"], "records with a wrong prediction"),
        "bias_advantage": variable("profile", bias, "mean bias part of failed margins", "nat"),
        "prior_advantage": variable(
            "profile", means["prior"], "mean prior part of failed margins", "nat"
        ),
        "context_advantage": variable(
            "profile", means["context"], "mean context part of failed margins", "nat"
        ),
        "hidden_advantage": variable(
            "profile", hidden, "mean prior and context part of failed margins", "nat"
        ),
        "bias_share": variable("profile", bias_share(bias, hidden), "share of the bias"),
        "constant_share": variable("profile", constant, "share of bias and prior"),
        "pressure": variable("profile", pressure(bias, hidden), "what lifts wrong winners"),
    }
    return check(xr.Dataset(variables, coords={"profile": names}, attrs=dict(dataset.attrs)))


def _check_input(mu: NDArray[np.float64], rival: str, *, channels: int) -> None:
    """Refuse an unknown rival and a mean of another width."""
    if rival not in RIVALS:
        raise InputError(
            "rival",
            expected=" or ".join(RIVALS),
            found=repr(rival),
            remedy=nearest(rival, list(RIVALS)),
        )
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
    }
    if token_classes is not None:
        named["token_class"] = np.array(token_classes)[states.target]
    return {name: ("record", values) for name, values in named.items()}


def _measure(sample: Sample) -> xr.Dataset:
    """Split the predictions of a world's profiles, or of running text."""
    classes = [TOKEN_CLASSES[index] for index in class_scheme(sample.tokenizer).base]
    return explain(
        sample.model,
        sample_states(sample),
        sample.tokenizer.pieces,
        reference=sample.reference,
        token_classes=classes,
    ).assign_attrs(context_length=sample.sequence_length)


def sample_states(sample: Sample) -> BranchStates:
    """Take the records of a world's profiles at their branch, or predictions of running text."""
    world = sample.data.corpus.world
    if world is None:
        return text_states(sample)
    return branch_states(
        sample.model,
        [record for group in world.profiles.values() for record in group],
        sample.tokenizer,
        context_length=sample.sequence_length,
    )


def text_states(sample: Sample, *, n_record: int = RECORDS) -> BranchStates:
    """Take predictions spread over the validation text; their profile is the target's class."""
    tokenizer, length = sample.tokenizer, sample.sequence_length
    scheme = class_scheme(tokenizer)
    inputs, targets = sample.cut.inputs, sample.cut.targets
    eligible = np.argwhere((targets != IGNORED) & (np.arange(length) >= min(EARLIEST, length - 1)))
    rng = np.random.default_rng(0)
    chosen = rng.choice(len(eligible), size=min(n_record, len(eligible)), replace=False)
    records, contexts, answers = [], [], []
    for row, position in eligible[np.sort(chosen)]:
        context, target = inputs[row, : position + 1], int(targets[row, position])
        kind = int(classify(scheme, [target], context[-1:])[0])
        records.append(
            Record(
                id=f"row {row} position {position}",
                prompt=tokenizer.decode(context[-24:]),
                target=tokenizer.pieces[target],
                profile=TOKEN_CLASSES[kind],
                source="text:validation",
            )
        )
        contexts.append(context.tolist())
        answers.append(target)
    return states_at(
        sample.model,
        records=records,
        contexts=contexts,
        targets=np.array(answers, dtype=np.int64),
        pieces=tokenizer.pieces,
    )


DIAGNOSTIC = Diagnostic(tier="pass", measure=_measure)
