"""From the numbers of profiles to one hypothesis about why answers are not routed."""

from collections import Counter
from collections.abc import Mapping

from workbench.diagnostics.branch_profile import BranchProfile

DOMINATED = 0.999  # dominant rate from which one token is the only answer that matters
BIASED = 0.75
BURIED = 0.25  # top-5 or top-3 rate up to which targets are out of sight

HYPOTHESES = {  # severity and recommendation
    "no_multi_target_profiles": ("none", "Add profiles with at least two targets."),
    "target_unreachable": ("critical", "Widen the hidden state or untie the head."),
    "global_output_prior_collapse": ("critical", "Split the wins of the shared token into parts."),
    "profile_local_prediction_collapse": ("critical", "Look whether hidden states still differ."),
    "target_routing_gap": ("critical", "Look at the ladder before training longer."),
    "target_rank_burial": ("high", "Train more on these targets: they are far from the top."),
    "wrong_diversity_not_target_coverage": ("high", "Read which records get which answer."),
    "mixed_branch_diversity_gap": ("medium", "Start with the worst profile's missing targets."),
    "no_branch_diversity_gap": ("none", "Nothing to mend here."),
}


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
        "target_unreachable": profile.ceiling < 1.0,
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


def failed_profiles(profiles: Mapping[str, BranchProfile]) -> tuple[str, ...]:
    """Name the profiles whose predictions do not vary with the targets, worst first.

    A profile passes when it is not collapsed, predicts at least as many tokens as it has targets,
    and gives every target for at least one record that has it (so a permutation does not pass).

    Parameters
    ----------
    profiles : mapping of str to BranchProfile
        Those with fewer than two targets are left out; without any other, nothing has passed.
    """
    failed = {
        name: (each.target_coverage, -each.dominant_rate, name)
        for name, each in _multi_target(profiles).items()
        if each.collapsed
        or each.predicted_unique < each.target_unique
        or not each.owned_coverage >= 1.0
    }
    return tuple(sorted(failed, key=lambda name: failed[name]))


def root_cause(profiles: Mapping[str, BranchProfile]) -> str:
    """Choose the hypothesis that explains the profiles: the first that holds, worst first.

    Parameters
    ----------
    profiles : mapping of str to BranchProfile
        Those with fewer than two targets are left out.

    Returns
    -------
    str
        A key of `HYPOTHESES`.
    """
    multi = _multi_target(profiles)
    modes = Counter(mode for each in multi.values() for mode in failure_modes(each))
    dominant = Counter(each.dominant_token for each in multi.values())
    collapsed = modes["prediction_collapse"] == len(multi)
    rules = (
        (not multi, "no_multi_target_profiles"),
        ("target_unreachable" in modes, "target_unreachable"),
        (collapsed and len(dominant) < len(multi), "global_output_prior_collapse"),
        (collapsed, "profile_local_prediction_collapse"),
        ("zero_target_coverage" in modes, "target_routing_gap"),
        ("targets_buried" in modes, "target_rank_burial"),
        ("wrong_diverse_predictions" in modes, "wrong_diversity_not_target_coverage"),
        (bool(modes), "mixed_branch_diversity_gap"),
    )
    return next((name for holds, name in rules if holds), "no_branch_diversity_gap")


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
        elif profile.collapsed and onto[profile.dominant_token] > 1 and profile.ceiling >= 1:
            causes[name] = "global_output_prior_collapse"
        else:
            causes[name] = root_cause({name: profile})
    return causes


def _multi_target(profiles: Mapping[str, BranchProfile]) -> dict[str, BranchProfile]:
    """Keep the profiles that have something to route."""
    return {name: each for name, each in profiles.items() if each.target_unique >= 2}
