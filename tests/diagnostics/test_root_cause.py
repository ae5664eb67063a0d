from dataclasses import replace

import numpy as np
import pytest

from workbench.diagnostics.branch_profile import branch_profile
from workbench.diagnostics.root_cause import (
    HYPOTHESES,
    failed_profiles,
    failure_modes,
    profile_root_causes,
    root_cause,
)

PIECES = [chr(ord("a") + index) for index in range(20)]
A, B, C, D, M, N = 0, 1, 2, 3, 12, 13


def answered(target, predicted, *, rank=2):
    """Predict as told; the target, where it is not first, comes at `rank`."""
    logits = np.tile(-np.arange(20.0), (len(target), 1))
    for row, (right, given) in enumerate(zip(target, predicted, strict=True)):
        others = [each for each in range(20) if each not in (right, given)]
        order = [given, *others] if right == given else [given, *others[: rank - 2], right]
        order += [each for each in others if each not in order]
        logits[row, order] = -np.arange(20.0)
    return branch_profile(logits, np.array(target), pieces=PIECES)


HEALTHY = answered([A, B, C, D], [A, B, C, D])
SINGLE = answered([A, A, A], [A, A, N])
ON_N = answered([A, B, C, D], [N, N, N, N])
ON_M = answered([A, B, C, D], [M, M, M, M])
ELSEWHERE = answered([A, B, C, D], [M, N, M, N])
BURIED = answered([A, B, C, D, A], [A, B, A, B, B], rank=15)
BURIED_MOST = answered([A, B, C, D, A, B, C, D], [A, N, N, N, M, M, M, M], rank=15)
WRONG_DIVERSE = answered([A, B, C, D], [A, B, M, N])
MISSING_ONE = answered([A, B, C, D], [A, B, C, A])
SWAPPED = answered([A, B, C, D], [B, A, D, C])
NO_HEAD = replace(ON_N, ceiling=0.75)

SETS = {
    "no_multi_target_profiles": {"x": SINGLE},
    "target_unreachable": {"x": NO_HEAD, "y": ON_N},
    "global_output_prior_collapse": {"x": ON_N, "y": ON_N, "single": SINGLE},
    "profile_local_prediction_collapse": {"x": ON_N, "y": ON_M},
    "target_routing_gap": {"x": ELSEWHERE, "y": HEALTHY},
    "target_rank_burial": {"x": BURIED_MOST, "y": HEALTHY},
    "wrong_diversity_not_target_coverage": {"x": WRONG_DIVERSE, "y": HEALTHY},
    "mixed_branch_diversity_gap": {"x": MISSING_ONE, "y": HEALTHY},
    "no_branch_diversity_gap": {"x": HEALTHY, "y": HEALTHY, "single": SINGLE},
}


def test_there_is_a_case_a_severity_and_a_recommendation_for_every_hypothesis():
    assert list(SETS) == list(HYPOTHESES) and len(SETS) == 9


@pytest.mark.parametrize("expected", list(SETS))
def test_nine_hypotheses(expected):
    assert root_cause(SETS[expected]) == expected


@pytest.mark.parametrize(
    ("profile", "modes"),
    [
        (SINGLE, {"single_target_profile"}),
        (HEALTHY, set()),
        (ON_N, {"prediction_collapse", "zero_target_coverage", "single_dominant_prediction"}),
        (ELSEWHERE, {"under_diverse_predictions", "zero_target_coverage"}),
        (MISSING_ONE, {"under_diverse_predictions", "target_coverage_gap"}),
        (WRONG_DIVERSE, {"wrong_diverse_predictions", "target_coverage_gap"}),
        (SWAPPED, {"misrouted_targets"}),
        (replace(HEALTHY, ceiling=0.75), {"target_unreachable"}),
        (
            BURIED_MOST,
            {"under_diverse_predictions", "target_coverage_gap", "targets_buried"},
        ),
        (
            answered([A, B, C, D], [A, A, A, B], rank=4),
            {
                "under_diverse_predictions",
                "target_coverage_gap",
                "dominant_prediction_bias",
                "targets_not_top3",
            },
        ),
        (
            answered([A, B, C, D], [A, A, A, A], rank=15),
            {
                "prediction_collapse",
                "target_coverage_gap",
                "single_dominant_prediction",
                "targets_buried",
            },
        ),
    ],
)
def test_failure_modes(profile, modes):
    assert set(failure_modes(profile)) == modes


def test_buried_needs_most_targets_out_of_sight():
    assert BURIED.top5 == 2 / 5 and "targets_buried" not in failure_modes(BURIED)


def test_a_frequent_target_that_is_rightly_predicted_is_no_bias():
    lopsided = answered([A] * 9 + [B], [A] * 9 + [B])
    assert lopsided.dominant_rate == 0.9 and failure_modes(lopsided) == ()
    assert root_cause({"x": lopsided}) == "no_branch_diversity_gap"


def test_the_gate_passes_only_when_every_multi_target_profile_does():
    assert failed_profiles({"x": HEALTHY, "y": HEALTHY, "single": SINGLE}) == ()
    assert failed_profiles({"x": HEALTHY, "y": MISSING_ONE, "z": ON_N}) == ("z", "y")


def test_the_gate_does_not_pass_on_coverage_alone():
    assert SWAPPED.target_coverage == 1.0
    assert failed_profiles({"x": SWAPPED}) == ("x",)
    assert root_cause({"x": SWAPPED}) == "mixed_branch_diversity_gap"


def test_a_token_shared_by_some_is_enough():
    some = {"x": ON_N, "y": ON_N, "z": ON_M}
    assert root_cause(some) == "global_output_prior_collapse"
    assert root_cause({"x": ON_N, "z": ON_M}) == "profile_local_prediction_collapse"


def test_profiles_are_sorted_worst_first():
    profiles = {"good": HEALTHY, "gap": MISSING_ONE, "b": ON_N, "a": ON_N}
    assert failed_profiles(profiles) == ("a", "b", "gap")


def test_each_profile_has_its_own_cause():
    causes = profile_root_causes({"x": ON_N, "y": ON_N, "z": ON_M, "single": SINGLE})
    assert causes == {
        "x": "global_output_prior_collapse",
        "y": "global_output_prior_collapse",
        "z": "profile_local_prediction_collapse",
        "single": "single_target_profile",
    }
    causes = profile_root_causes({"x": ON_N, "y": HEALTHY, "z": WRONG_DIVERSE})
    assert profile_root_causes({"x": NO_HEAD, "y": ON_N})["x"] == "target_unreachable"
    assert causes == {
        "x": "profile_local_prediction_collapse",
        "y": "no_branch_diversity_gap",
        "z": "wrong_diversity_not_target_coverage",
    }
