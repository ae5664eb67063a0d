"""Whether a model sends every prompt of a profile to its own answer, and if not, why."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter

import numpy as np
import xarray as xr

from workbench.diagnostics.branch import Head, output_head, piece_order, profile_states
from workbench.diagnostics.branch_profile import BranchProfile, branch_profile
from workbench.diagnostics.root_cause import (
    RootCause,
    diversity_gate,
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
from workbench.model import Network
from workbench.result import check, variable
from workbench.text.context_gate import ContextGate, branches, judge_contexts
from workbench.text.tokenizer import Tokenizer
from workbench.text.world import Record

NAN = float("nan")
COLUMNS = (  # variable, where a ProfileAudit holds it, what it is, unit
    ("records", "answers.count", "records judged", "1"),
    ("skipped", "gate.skipped", "records too short for the branch", "1"),
    ("target_unique", "answers.target_unique", "different targets", "1"),
    ("predicted_unique", "answers.predicted_unique", "different predictions", "1"),
    ("target_coverage", "answers.target_coverage", "share of targets predicted anywhere", "1"),
    ("owned_coverage", "answers.owned_coverage", "share of targets predicted where due", "1"),
    ("accuracy", "answers.accuracy", "share of records predicted right", "1"),
    ("macro_recall", "answers.macro_recall", "accuracy averaged over targets", "1"),
    ("target_probability", "answers.target_probability", "mean probability of the target", "1"),
    ("target_margin", "answers.target_margin", "mean P(target) - max P(other)", "1"),
    ("target_rank", "answers.target_rank", "mean rank of the target, 1 is best", "1"),
    ("top3", "answers.top3", "share of targets among the first 3", "1"),
    ("top5", "answers.top5", "share of targets among the first 5", "1"),
    ("dominant_token", "answers.dominant_token", "most frequent prediction", "1"),
    ("dominant_rate", "answers.dominant_rate", "share of the most frequent prediction", "1"),
    ("collapsed", "collapsed", "one prediction for several targets", "1"),
    ("separation", "separation.ratio", "different-target over same-target distance", "1"),
    ("separation_margin", "separation.margin", "mean leave-one-out centroid margin", "1"),
    ("silhouette", "separation.silhouette", "mean silhouette of targets", "1"),
    ("separation_p_value", "separation.p_value", "p of the margin under shuffling", "1"),
    ("separation_verdict", "separation.verdict", "low, apart or unjudged", "1"),
    ("escape_risk", "escape", "high, medium, low or unjudged", "1"),
    ("pressure", "pressure.pressure", "what lifts the dominant prediction", "1"),
    ("bias_advantage", "pressure.bias_advantage", "bias part of its advantage", "nat"),
    ("hidden_advantage", "pressure.hidden_advantage", "hidden part of its advantage", "nat"),
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
    branch_position: int | None = None,
    batch: int = 64,
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
    branch_position : int, optional
        Position in the completion that is judged; by default where targets first disagree.
    batch : int
        Records in one forward pass.

    Returns
    -------
    Dataset
        Dim ``profile``. `separation` is the mean distance between hidden states of different
        targets over that of the same target, NaN where no target has two records. Attrs:
        `gate_passed`, `hypothesis`, `severity`, `shared_by_all`, `audit_hypothesis`,
        `recommendation`, and as JSON `mode_counts`, `dominant_tokens`, `worst_first`.

    Raises
    ------
    ValueError
        If there is no profile, or the model's head cannot be reproduced.
    """
    if not profiles:
        raise ValueError("routing_audit needs at least one profile")
    head = output_head(model)
    audits = {
        name: _audit(
            model,
            records,
            tokenizer,
            head=head,
            context_length=context_length,
            branch_position=branch_position,
            batch=batch,
        )
        for name, records in profiles.items()
    }
    judged = {name: each.answers for name, each in audits.items() if each.gate.passed}
    overall = root_cause(judged)
    # What was not judged must not pass either.
    whole = all(each.gate.passed or each.answers.target_unique < 2 for each in audits.values())
    causes = {name: "context_gate_failed" for name in audits} | profile_root_causes(judged)
    attrs = {
        "gate_passed": int(whole and diversity_gate(judged).passed),
        "hypothesis": overall.hypothesis,
        "severity": overall.severity,
        "shared_by_all": int(overall.shared_by_all),
        "recommendation": overall.recommendation,
        "audit_hypothesis": audit_hypothesis(overall, audits),
        "mode_counts": json.dumps(overall.mode_counts),
        "dominant_tokens": json.dumps(overall.dominant_tokens),
        "worst_first": json.dumps(overall.worst_first),
        "context_length": context_length,
    }
    dataset = xr.Dataset(
        _variables(list(audits.values()), list(causes.values())),
        coords={"profile": np.array(list(audits), dtype=np.str_)},
        attrs=attrs,
    )
    return check(dataset)


def audit_hypothesis(overall: RootCause, audits: Mapping[str, ProfileAudit]) -> str:
    """Name the next thing to look into; profiles whose context gate failed do not count."""
    judged = [
        each for each in audits.values() if each.gate.passed and each.answers.target_unique >= 2
    ]
    rules = (
        (
            overall.hypothesis == "target_routing_gap",
            "routing_gap_requires_representation_and_logit_audit",
        ),
        (any(each.escape == "high" for each in judged), "output_bias_escape_risk"),
        (
            any(each.separation.verdict == "low" for each in judged),
            "representation_separation_risk",
        ),
        (any(each.imbalance.hotspot for each in judged), "profile_target_imbalance_risk"),
    )
    return next((name for holds, name in rules if holds), "no_single_audit_risk")


def _audit(
    model: Network,
    records: Sequence[Record],
    tokenizer: Tokenizer,
    *,
    head: Head,
    context_length: int,
    branch_position: int | None,
    batch: int,
) -> ProfileAudit:
    """Measure one profile."""
    found = branches(
        records, tokenizer, context_length=context_length, branch_position=branch_position
    )
    states = profile_states(model, found, pieces=tokenizer.pieces, batch=batch)
    answers = branch_profile(states.logits, states.target, pieces=tokenizer.pieces)
    lifted = dominant_pressure(
        states.scores,
        head.bias,
        target=states.target,
        predicted=states.predicted,
        dominant=answers.dominant,
    )
    stolen = (states.predicted != states.target) & (states.predicted == answers.dominant)
    risk = escape_risk(
        head.bias if head.has_bias else None,
        dominant=answers.dominant,
        target=states.target,
        place=piece_order(tokenizer.pieces),
        share=lifted.bias_share if stolen.any() else NAN,
    )
    gate = judge_contexts(found)
    return ProfileAudit(
        gate=gate,
        answers=answers,
        separation=separation(states.hidden, states.target),
        pressure=lifted,
        escape=risk if gate.passed else "unjudged",
        imbalance=imbalance(states.target),
    )


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


def _measure(sample: Sample) -> xr.Dataset:
    """Audit the profiles of a closed world."""
    world = sample.data.corpus.world
    audit = routing_audit(
        sample.model,
        world.profiles,
        sample.tokenizer,
        context_length=sample.sequence_length,
    )
    held_out = np.isin(audit.profile.values, world.held_out)
    audit["held_out"] = variable("profile", held_out, "phrasings that training never used")
    return audit


def _lacks(sample: Sample) -> str:
    """Say why there is nothing to audit."""
    world = sample.data.corpus.world
    return "the corpus has no profiles (closed-world has)" if world is None else ""


DIAGNOSTIC = Diagnostic(tier="pass", measure=_measure, lacks=_lacks)
