"""Whether a model sends every prompt of a profile to its own answer, and if not, why."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from operator import attrgetter

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from workbench.diagnostics.branch import (
    BranchStates,
    Head,
    output_head,
    piece_order,
    profile_states,
)
from workbench.diagnostics.branch_profile import BranchProfile, branch_profile
from workbench.diagnostics.coverage import coverage_history
from workbench.diagnostics.ladder import ladder
from workbench.diagnostics.localisation import Probe, localised, mean_embedding, probe
from workbench.diagnostics.reachable import reachable
from workbench.diagnostics.root_cause import (
    HYPOTHESES,
    failed_profiles,
    failure_modes,
    profile_root_causes,
    root_cause,
)
from workbench.diagnostics.routing_risk import (
    DominantPressure,
    Imbalance,
    dominant_pressure,
    escape_risk,
    imbalance,
)
from workbench.diagnostics.sample import Diagnostic, Sample
from workbench.diagnostics.separation import Separation, separation
from workbench.evaluation import ratio_error
from workbench.model import Network
from workbench.result import check, variable
from workbench.text.context_gate import ContextGate, branches, context_gate
from workbench.text.tokenizer import Tokenizer
from workbench.text.world import Record

COLUMNS = (  # variable, where a ProfileAudit holds it, what it is, unit
    ("records", "answers.count", "records judged", "1"),
    ("skipped", "gate.skipped", "records too short for the branch", "1"),
    ("target_unique", "answers.target_unique", "different targets", "1"),
    ("predicted_unique", "answers.predicted_unique", "different predictions", "1"),
    ("target_coverage", "answers.target_coverage", "share of targets predicted anywhere", "1"),
    ("owned_coverage", "answers.owned_coverage", "share of targets predicted where due", "1"),
    ("accuracy", "answers.accuracy", "share of records predicted right", "1"),
    ("accuracy_standard_error", "error", "its standard error over facts", "1"),
    ("failed", "pressure.rows", "records predicted wrong", "1"),
    ("macro_recall", "answers.macro_recall", "accuracy averaged over targets", "1"),
    ("macro_recall_standard_error", "macro_error", "its standard error over facts", "1"),
    ("target_probability", "answers.target_probability", "mean probability of the target", "1"),
    ("target_margin", "answers.target_margin", "mean P(target) - max P(other)", "1"),
    ("target_rank", "answers.target_rank", "mean rank of the target, 1 is best", "1"),
    ("top3", "answers.top3", "share of targets among the first 3", "1"),
    ("top5", "answers.top5", "share of targets among the first 5", "1"),
    ("dominant_token", "answers.dominant_token", "most frequent prediction", "1"),
    ("dominant_rate", "answers.dominant_rate", "share of the most frequent prediction", "1"),
    ("collapsed", "collapsed", "one prediction for several targets", "1"),
    ("capacity_ceiling", "ceiling", "best coverage any hidden states could reach", "1"),
    ("row_ceiling", "answers.ceiling", "the same if the head had no bias", "1"),
    ("probed", "hidden_probe.asked", "failed records that probes were asked about", "1"),
    ("probed_facts", "hidden_probe.facts", "facts of these, each left out in turn", "1"),
    ("hidden_probe", "hidden_probe.right", "of these, told by a probe of the hidden state", "1"),
    ("hidden_probe_p_value", "hidden_probe.p_value", "p of that under shuffling", "1"),
    ("input_probe", "input_probe.right", "of these, told by a probe of the embeddings", "1"),
    ("input_probe_p_value", "input_probe.p_value", "p of that under shuffling", "1"),
    ("localised", "localised", "part at fault by the probes", "1"),
    ("separation", "separation.ratio", "different-target over same-target distance", "1"),
    ("separation_margin", "separation.margin", "mean leave-one-out centroid margin", "1"),
    ("separation_verdict", "separation.verdict", "low, apart or unjudged", "1"),
    ("escape_risk", "escape", "high, medium, low or unjudged", "1"),
    ("pressure", "pressure.pressure", "what lifts the dominant prediction", "1"),
    ("bias_advantage", "pressure.bias_advantage", "bias part of its advantage", "nat"),
    ("prior_advantage", "pressure.prior_advantage", "mean hidden state's part of it", "nat"),
    ("hidden_advantage", "pressure.hidden_advantage", "hidden part of its advantage", "nat"),
    ("constant_share", "pressure.constant_share", "share of bias and prior in it", "1"),
    ("top_target_share", "imbalance.top_share", "share of the most frequent target", "1"),
    ("hotspot", "imbalance.hotspot", "one target has half of the records or more", "1"),
    ("rare_targets", "imbalance.rare", "targets with one record", "1"),
    ("context_gate_passed", "gate.passed", "contexts can decide the answers", "1"),
    ("ambiguous_contexts", "gate.ambiguous_contexts", "contexts with several answers", "1"),
    ("missing_contexts", "gate.missing", "records whose decisive tokens are cut off", "1"),
)


@dataclass(frozen=True, kw_only=True)
class ProfileAudit:
    """Everything measured on one profile."""

    gate: ContextGate
    answers: BranchProfile
    separation: Separation
    pressure: DominantPressure
    escape: str
    imbalance: Imbalance
    error: float
    macro_error: float
    ceiling: float
    hidden_probe: Probe
    input_probe: Probe
    targets: NDArray[np.int64]  # (target,) different ids
    counts: NDArray[np.int64]  # (3, target) records, right ones, records so predicted
    reachable: NDArray[np.bool_]  # (target,)

    @property
    def localised(self) -> str:
        """Which part loses the answer of the failed records; see `localisation.localised`."""
        return localised(self.hidden_probe, self.input_probe)

    @property
    def collapsed(self) -> bool:
        """Whether a model that could have told the answers apart gives one to all."""
        return self.gate.passed and self.answers.collapsed


def routing_audit(
    model: Network,
    profiles: Mapping[str, Sequence[Record]],
    tokenizer: Tokenizer,
    *,
    context_length: int,
    mean_hidden: NDArray[np.float64] | None = None,
) -> xr.Dataset:
    """Audit how a model answers profiles of records.

    The context is judged first: where it cannot decide the answers, `root_cause` is
    ``context_gate_failed``, the numbers are there to read but say nothing about the model, and the
    profile takes no part in the hypothesis over all. A profile with one target has nothing to
    route.

    Parameters
    ----------
    model : Network
        With the site ``final_norm``, `head_weight` and `output_bias`.
    profiles : mapping of str to sequence of Record
        Such as `World.profiles`, or the user's own from `read_profiles`.
    tokenizer : Tokenizer
        The model's.
    context_length : int
        Tokens the model is given at most [token].
    mean_hidden : (channel,) float64, optional
        Over a reference text; see `workbench.diagnostics.mean_hidden`. Without it only the bias
        counts as what lifts an answer whatever the prompt.

    Returns
    -------
    Dataset
        Dims ``profile``, ``rung`` (see `ladder`) and ``target`` (`asked`, `right`, `answered`:
        records that have the target, those of them that get it, and records that get it at all;
        NaN where a profile does not ask for it). `separation` is the mean distance between hidden
        states of different targets over that of the same target, NaN where no target has two
        records. Attrs: `gate_passed`, `hypothesis`, `severity`, `shared_by_all`, `recommendation`,
        and those of `ladder`.

    Raises
    ------
    ValueError
        If there is no profile, or the model's head cannot be reproduced.
    """
    if not profiles:
        raise ValueError("routing_audit needs at least one profile")
    head = output_head(model)
    audits = {}
    for name, records in profiles.items():
        found = branches(records, tokenizer, context_length=context_length)
        audits[name] = _audit(
            context_gate(found),
            profile_states(model, found, pieces=tokenizer.pieces),
            tokenizer.pieces,
            head=head,
            embedded=mean_embedding(model, found.contexts),
            prior=None if mean_hidden is None else head.weight @ mean_hidden,
        )
    judged = {name: each.answers for name, each in audits.items() if each.gate.passed}
    overall = root_cause(judged)
    # What was not judged must not pass either, nor a set with nothing to judge.
    whole = all(each.gate.passed or each.answers.target_unique < 2 for each in audits.values())
    whole &= overall != "no_multi_target_profiles"
    shared = [each.dominant_token for each in judged.values() if each.target_unique >= 2]
    causes = {name: "context_gate_failed" for name in audits} | profile_root_causes(judged)
    attrs = {
        "gate_passed": int(whole and not failed_profiles(judged)),
        "hypothesis": overall,
        "severity": HYPOTHESES[overall][0],
        "recommendation": HYPOTHESES[overall][1],
        "shared_by_all": int(len(shared) > 1 == len(set(shared))),
        "context_length": context_length,
    }
    dataset = xr.Dataset(
        _variables(list(audits.values()), list(causes.values())),
        coords={"profile": np.array(list(audits), dtype=np.str_)},
        attrs=attrs,
    )
    dataset = dataset.merge(_by_target(audits, tokenizer.pieces))
    steps = ladder(dataset)
    return check(dataset.merge(steps).assign_attrs(steps.attrs))


def _audit(
    gate: ContextGate,
    states: BranchStates,
    pieces: Sequence[str],
    *,
    head: Head,
    embedded: NDArray[np.float64] | None,
    prior: NDArray[np.float64] | None,
) -> ProfileAudit:
    """Measure one profile."""
    target, predicted = states.target, states.predicted
    answers = branch_profile(states.logits, target, pieces=pieces)
    dominant, wrong, targets = answers.dominant, predicted != target, np.unique(target)
    can_win, rows_can = _winnable(states, targets, head)
    facts = np.array([each.fact or each.id for each in states.records], dtype=np.str_)
    lifted = dominant_pressure(
        states.scores, head.bias, target=target, predicted=predicted, dominant=dominant, prior=prior
    )
    share = lifted.bias_share if (wrong & (predicted == dominant)).any() else np.nan
    risk = escape_risk(
        head.bias, dominant=dominant, target=target, place=piece_order(pieces), share=share
    )
    asked = {"target": target, "fact": facts, "asked": wrong}
    return ProfileAudit(
        gate=gate,
        answers=replace(answers, ceiling=float(rows_can.mean()) if rows_can.size else np.nan),
        ceiling=float(can_win.mean()) if can_win.size else np.nan,
        separation=separation(states.hidden, target),
        pressure=lifted,
        escape=risk if gate.passed else "unjudged",
        imbalance=imbalance(target),
        error=_recall_error(wrong, np.ones(len(target)), facts),
        macro_error=_recall_error(wrong, 1 / (target == target[:, None]).sum(axis=1), facts),
        hidden_probe=probe(states.hidden, **asked),
        input_probe=Probe() if embedded is None else probe(embedded, **asked),
        targets=targets,
        counts=_counts(target, predicted, targets),
        reachable=rows_can,
    )


def _winnable(
    states: BranchStates, targets: NDArray[np.int64], head: Head
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Tell which targets some hidden state makes win: as the head is, and bias aside."""
    least = head.weight.shape[1] ** 0.5  # what an RMS norm makes of every state
    radius = float(np.linalg.norm(states.hidden, axis=1).max(initial=least))
    can_win = reachable(head, targets, radius=radius, won=states.predicted)
    # A bias can be mended by one number, rows within the hull of others by none.
    bare = replace(head, bias=np.zeros(len(head.bias)))
    return can_win, can_win | reachable(bare, targets, radius=radius, won=targets[can_win])


def _counts(
    target: NDArray[np.int64], predicted: NDArray[np.int64], targets: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Count records that ask for each target, of these that get it, and that get it at all."""
    asked, got = target == targets[:, None], predicted == targets[:, None]
    return np.array([asked.sum(axis=1), (asked & got).sum(axis=1), got.sum(axis=1)])


def _recall_error(
    wrong: NDArray[np.bool_], weight: NDArray[np.float64], facts: NDArray[np.str_]
) -> float:
    """Return the standard error over facts of the weighted share right; NaN with fewer than two."""
    error = ratio_error(weight * ~wrong, weight, facts) if len(wrong) else None
    return np.nan if error is None else error


def _by_target(audits: Mapping[str, ProfileAudit], pieces: Sequence[str]) -> xr.Dataset:
    """Label what is counted target by target; what a profile does not ask for is NaN."""
    used = np.unique(np.concatenate([each.targets for each in audits.values()]))
    table = np.full((4, len(audits), len(used)), np.nan)
    for row, each in enumerate(audits.values()):
        at = np.searchsorted(used, each.targets)
        table[:, row, at] = [*each.counts, each.reachable]
    names = {
        "asked": "records that ask for the target",
        "right": "of these, records that get it",
        "answered": "records that get it, whatever they ask for",
        "target_reachable": "whether some hidden state makes it win, bias aside",
    }
    found = {
        name: variable(("profile", "target"), values, long_name)
        for (name, long_name), values in zip(names.items(), table, strict=True)
    }
    coords = {"target": np.array(pieces)[used], "target_id": ("target", used)}
    return xr.Dataset(found, coords={"profile": list(audits), **coords})


def _variables(audits: Sequence[ProfileAudit], causes: Sequence[str]) -> dict[str, xr.Variable]:
    """Label the measurements, one value a profile."""
    found = {
        name: variable("profile", [attrgetter(path)(each) for each in audits], long_name, units)
        for name, path, long_name, units in COLUMNS
    }
    modes = [", ".join(failure_modes(each.answers)) if each.gate.passed else "" for each in audits]
    missing = [" ".join(token for token, _ in each.answers.missing) for each in audits]
    return found | {
        "root_cause": variable("profile", causes, "why answers are not routed"),
        "failure_modes": variable("profile", modes, "what is wrong with the answers"),
        "missing_targets": variable("profile", missing, "targets never predicted"),
    }


def audit_sample(
    sample: Sample, profiles: Mapping[str, Sequence[Record]] | None = None
) -> xr.Dataset:
    """Audit one model by given profiles, or by those of the closed world of its text."""
    world = sample.data.corpus.world
    audit = routing_audit(
        sample.model,
        world.profiles if profiles is None else profiles,
        sample.tokenizer,
        context_length=sample.sequence_length,
        mean_hidden=sample.reference[0],
    )
    if profiles is None:
        held_out = np.isin(audit.profile.values, world.held_out)
        audit["held_out"] = variable("profile", held_out, "phrasings that training never used")
    return audit


def audit_checkpoints(
    sample: Sample, profiles: Mapping[str, Sequence[Record]] | None = None
) -> xr.Dataset:
    """Audit a run's final weights and follow its coverage over the kept checkpoints.

    Parameters
    ----------
    sample : Sample
        A run with its checkpoints.
    profiles : mapping of str to sequence of Record, optional
        By default those of the closed world it was trained on.

    Returns
    -------
    Dataset
        Of `routing_audit` and `coverage_history`; the attr `promote` is 0 also where a profile
        covers fewer targets than at step 0, `below_floor` counts these.
    """
    audit = audit_sample(sample, profiles)
    asked = sample.data.corpus.world.profiles if profiles is None else profiles
    history = coverage_history(sample, asked)
    fell = int((history.above_floor.values[-1] < 0).sum())
    attrs = audit.attrs | {"promote": int(audit.attrs["promote"] and not fell), "below_floor": fell}
    return audit.merge(history).assign_attrs(attrs)


def _lacks(sample: Sample) -> str:
    """Say why there is nothing to audit."""
    world = sample.data.corpus.world
    return "the corpus has no profiles (closed-world has)" if world is None else ""


DIAGNOSTIC = Diagnostic(tier="pass", measure=audit_checkpoints, lacks=_lacks)
