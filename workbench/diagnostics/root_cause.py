"""From the numbers of profiles to one hypothesis about why answers are not routed."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from workbench.diagnostics.branch_profile import BranchProfile

DOMINATED = 0.999  # dominant rate from which one token is the only answer that matters
BIASED = 0.75
BURIED = 0.25  # top-5 or top-3 rate up to which targets are out of sight

SEVERITY = {
    "no_multi_target_profiles": "none",
    "global_output_prior_collapse": "critical",
    "profile_local_prediction_collapse": "critical",
    "target_routing_gap": "critical",
    "target_rank_burial": "high",
    "wrong_diversity_not_target_coverage": "high",
    "mixed_branch_diversity_gap": "medium",
    "no_branch_diversity_gap": "none",
}
RECOMMENDATION = {
    "no_multi_target_profiles": "Add profiles with at least two different targets.",
    "global_output_prior_collapse": "Split the wins of the shared token into bias, prior and "
    "context, and lower what is in the way.",
    "profile_local_prediction_collapse": "Look whether the prompts of each collapsed profile "
    "still differ in the final hidden state.",
    "target_routing_gap": "Look at separation and at the bias of the dominant tokens before "
    "training longer.",
    "target_rank_burial": "Train more on these targets: they are far from the top.",
    "wrong_diversity_not_target_coverage": "Read the confusions: predictions vary, but not with "
    "the targets.",
    "mixed_branch_diversity_gap": "Start with the worst profile and its missing targets.",
    "no_branch_diversity_gap": "Nothing to mend here.",
}


@dataclass(frozen=True, kw_only=True)
class DiversityGate:
    """Whether every profile with several targets gives each of them where it is due."""

    passed: bool  # never without a multi-target profile
    multi_target: tuple[str, ...]
    passed_profiles: tuple[str, ...]
    failed_profiles: tuple[str, ...]  # worst first
    max_dominant_rate: float  # NaN without a multi-target profile
    min_target_coverage: float


@dataclass(frozen=True, kw_only=True)
class RootCause:
    """One hypothesis over all profiles with several targets, and what it rests on."""

    hypothesis: str
    severity: str  # critical, high, medium, none
    shared_by_all: bool  # one dominant token in every multi-target profile
    mode_counts: Mapping[str, int]
    dominant_tokens: tuple[tuple[str, tuple[str, ...]], ...]  # token, profiles it dominates
    reused_dominant_tokens: tuple[str, ...]
    recommendation: str
    worst_first: tuple[str, ...]


def failure_modes(profile: BranchProfile) -> tuple[str, ...]:
    """Name everything that is wrong with the answers of one profile.

    Returns
    -------
    tuple of str
        Empty when nothing is; ``("single_target_profile",)`` when there is nothing to route.
    """
    if profile.target_unique < 2:
        return ("single_target_profile",)
    covered, gap = profile.target_coverage, profile.target_coverage < 1.0
    # A token that is as frequent among the targets is not a bias of the predictions.
    rate = profile.dominant_rate if profile.dominant_excess > 0 else 0.0
    rules = {
        "prediction_collapse": profile.predicted_unique <= 1,
        "under_diverse_predictions": 1 < profile.predicted_unique < profile.target_unique,
        "zero_target_coverage": covered <= 0.0,
        "target_coverage_gap": 0.0 < covered < 1.0,
        "single_dominant_prediction": rate >= DOMINATED,
        "dominant_prediction_bias": BIASED <= rate < DOMINATED,
        "wrong_diverse_predictions": profile.predicted_unique >= profile.target_unique and gap,
        "targets_buried": gap and profile.top5 <= BURIED,
        "targets_not_top3": gap and profile.top5 > BURIED and profile.top3 <= BURIED,
        # Every target is predicted, though not for its own records: coverage cannot see it.
        "misrouted_targets": not gap and profile.owned_coverage < 1.0,
    }
    return tuple(name for name, holds in rules.items() if holds)


def diversity_gate(profiles: Mapping[str, BranchProfile]) -> DiversityGate:
    """Judge whether predictions vary with the targets.

    A profile passes when it is not collapsed, predicts at least as many tokens as it has targets,
    and gives every target for at least one record that has it (so a permutation does not pass).

    Parameters
    ----------
    profiles : mapping of str to BranchProfile
        Those with fewer than two targets are left out.
    """
    multi = _multi_target(profiles)
    passed = tuple(name for name, profile in multi.items() if _passes(profile))
    return DiversityGate(
        passed=bool(multi) and len(passed) == len(multi),
        multi_target=tuple(multi),
        passed_profiles=passed,
        failed_profiles=tuple(name for name in _worst_first(multi) if name not in passed),
        max_dominant_rate=max(
            (each.dominant_rate for each in multi.values()), default=float("nan")
        ),
        min_target_coverage=min(
            (each.target_coverage for each in multi.values()), default=float("nan")
        ),
    )


def root_cause(profiles: Mapping[str, BranchProfile]) -> RootCause:
    """Choose the hypothesis that explains the profiles: the first that holds, worst first.

    Parameters
    ----------
    profiles : mapping of str to BranchProfile
        Those with fewer than two targets are left out.

    Returns
    -------
    RootCause
        `hypothesis` is a key of `SEVERITY`.
    """
    multi = _multi_target(profiles)
    modes = Counter(mode for each in multi.values() for mode in failure_modes(each))
    dominated: dict[str, list[str]] = {}
    for name, each in multi.items():
        dominated.setdefault(each.dominant_token, []).append(name)
    ranked = sorted(dominated.items(), key=lambda entry: (-len(entry[1]), entry[0]))
    reused = tuple(token for token, names in ranked if len(names) > 1)
    hypothesis = _hypothesis(modes, n_profile=len(multi), shares_token=bool(reused))
    return RootCause(
        hypothesis=hypothesis,
        severity=SEVERITY[hypothesis],
        shared_by_all=len(multi) > 1 and len(dominated) == 1,
        mode_counts=dict(sorted(modes.items(), key=lambda entry: (-entry[1], entry[0]))),
        dominant_tokens=tuple((token, tuple(names)) for token, names in ranked),
        reused_dominant_tokens=reused,
        recommendation=RECOMMENDATION[hypothesis],
        worst_first=_worst_first(multi),
    )


def profile_root_causes(profiles: Mapping[str, BranchProfile]) -> dict[str, str]:
    """Name the cause of every profile by itself.

    A profile gets the hypothesis it would have alone, except that a collapse onto a token that
    another profile has collapsed onto too is the global one; one target: ``single_target_profile``.
    """
    onto = Counter(
        profile.dominant_token
        for profile in profiles.values()
        if profile.target_unique >= 2 and profile.collapsed
    )
    causes = {}
    for name, profile in profiles.items():
        if profile.target_unique < 2:
            causes[name] = "single_target_profile"
        elif profile.collapsed and onto[profile.dominant_token] > 1:
            causes[name] = "global_output_prior_collapse"
        else:
            causes[name] = root_cause({name: profile}).hypothesis
    return causes


def _hypothesis(modes: Mapping[str, int], *, n_profile: int, shares_token: bool) -> str:
    """Take the first rule that holds."""
    collapsed = modes.get("prediction_collapse", 0) == n_profile
    rules = (
        (n_profile == 0, "no_multi_target_profiles"),
        (collapsed and shares_token, "global_output_prior_collapse"),
        (collapsed, "profile_local_prediction_collapse"),
        ("zero_target_coverage" in modes, "target_routing_gap"),
        ("targets_buried" in modes, "target_rank_burial"),
        ("wrong_diverse_predictions" in modes, "wrong_diversity_not_target_coverage"),
        (bool(modes), "mixed_branch_diversity_gap"),
    )
    return next((name for holds, name in rules if holds), "no_branch_diversity_gap")


def _multi_target(profiles: Mapping[str, BranchProfile]) -> dict[str, BranchProfile]:
    """Keep the profiles that have something to route."""
    return {name: each for name, each in profiles.items() if each.target_unique >= 2}


def _passes(profile: BranchProfile) -> bool:
    """Judge one profile; see `diversity_gate`."""
    return (
        not profile.collapsed
        and profile.predicted_unique >= profile.target_unique
        and profile.target_coverage >= 1.0
        and profile.owned_coverage >= 1.0
    )


def _worst_first(profiles: Mapping[str, BranchProfile]) -> tuple[str, ...]:
    """Sort names by coverage, then by dominance, then by name."""

    def badness(name: str) -> tuple[float, float, str]:
        return profiles[name].target_coverage, -profiles[name].dominant_rate, name

    names: Sequence[str] = sorted(profiles, key=badness)
    return tuple(names)
