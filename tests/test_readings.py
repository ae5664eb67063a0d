"""Readings name the planted fault, leave the healthy twin alone, and say when they cannot judge."""

import re
import runpy
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

from workbench import readings
from workbench.result import difference

MAKERS = runpy.run_path(str(Path(__file__).parent / "plots" / "conftest.py"))["MAKERS"]


@pytest.mark.parametrize("noun", sorted(MAKERS))
def test_reading_is_one_or_two_sentences_of_plain_text(noun):
    for settings in ({"schedule": "always"}, {}) if noun == "training" else ({"planted": True}, {}):
        text = getattr(readings, noun)(MAKERS[noun](**settings))
        sentences = re.split(r"\. (?=[A-Z])", text)
        assert len(sentences) <= 2 and text.endswith(".") and len(text) < 420
        assert re.search(r"\d", text) and "nan" not in text
        assert text == getattr(readings, noun)(MAKERS[noun](**settings))


def test_effective_rank_names_the_thin_matrix_and_no_healthy_one():
    planted = readings.effective_rank(MAKERS["effective_rank"](planted=True))
    assert planted.startswith("Block 2 feedforward out has effective rank 32.2, 0.31 of random")
    healthy = readings.effective_rank(MAKERS["effective_rank"]())
    assert healthy.startswith("No matrix stands out") and "compressible" not in healthy


def test_effective_rank_at_initialization_and_where_unmeasured():
    untrained = MAKERS["effective_rank"](steps=[0, 100]).isel(step=[0])
    assert "no trace of training" in readings.effective_rank(untrained)
    gap = MAKERS["effective_rank"]()
    gap.effective_rank_ratio[3] = np.nan
    assert "(1 of 26 not judged)" in readings.effective_rank(gap)
    gap.effective_rank_ratio[:] = np.nan
    assert readings.effective_rank(gap).startswith("Not able to judge")


def test_effective_rank_names_the_embedding_without_a_block():
    ds = MAKERS["effective_rank"]()
    ds.effective_rank_ratio[0] = 0.2
    assert readings.effective_rank(ds).startswith("Embedding has effective rank")


def test_value_residual_names_idle_bypassed_and_negative_visits():
    planted = readings.value_residual(MAKERS["value_residual"](planted=True))
    assert "visit 3 under 1%" in planted.lower()
    assert "visit 5 over 95%" in planted and "visit 4 subtracting" in planted
    healthy = readings.value_residual(MAKERS["value_residual"]())
    assert "55% of the mixed value at visit 4 (mix +0.62)" in healthy
    assert healthy.endswith("Every visit blends the two.")
    nothing = MAKERS["value_residual"]().isel(visit=[0])
    assert readings.value_residual(nothing).startswith("Not able to judge")


def test_logit_prior_attributes_wins_and_does_not_claim_cause():
    planted = readings.logit_prior(MAKERS["logit_prior"](planted=True))
    assert planted.startswith("40 of 60 winners (67%) win on their context alone")
    assert "20 need them and are wrong, most often '\u2423n' (20 times;" in planted
    assert "attribution to its bias" in planted and "caus" not in planted
    assert "over validation tokens" in planted
    healthy = readings.logit_prior(MAKERS["logit_prior"]())
    assert healthy.startswith("All 60 winners win on their context") and "2.53" in healthy
    right = MAKERS["logit_prior"]()
    right.verdict[:10] = "prior"
    text = readings.logit_prior(right)
    assert "None of those is wrong" in text and "attribution" not in text


def test_logit_prior_does_not_judge_a_handful_or_gaps():
    few = readings.logit_prior(MAKERS["logit_prior"](records=4))
    assert few == "Not able to judge from only 4 records; verdicts so far: context 4."
    gap = MAKERS["logit_prior"]()
    gap.margin[0] = np.nan
    assert readings.logit_prior(gap).startswith("Not able to judge from margins")


def test_logit_prior_reads_larger_part_and_hides_control_characters():
    ds = MAKERS["logit_prior"](planted=True, tokens=["a", "\x1b[2J", "b"])
    ds["bias"], ds["prior"] = ds.prior.copy(), ds.bias.copy()
    text = readings.logit_prior(ds.drop_vars("correct"))
    assert "'\\x1b[2J'" in text and "\x1b" not in text
    assert "attribution to its prior" in text and "wrong" not in text


def test_routing_audit_names_the_collapsed_profile_only_when_there_is_one():
    planted = readings.routing_audit(MAKERS["routing_audit"](planted=True))
    assert planted.startswith(
        "1 of 4 judged profiles collapsed to one answer; profile owner owns 0"
    )
    assert "100% of its records answered '<b>n'" in planted and "prediction collapse" in planted
    healthy = readings.routing_audit(MAKERS["routing_audit"]())
    assert healthy.startswith("All 4 judged profiles own every target")
    assert "collapse" not in healthy and "unknowns" not in healthy


def test_routing_audit_is_not_fooled_by_permuted_answers():
    ds = MAKERS["routing_audit"](planted=True).isel(profile=[0, 1, 3])
    text = readings.routing_audit(ds)
    assert text.startswith("No profile collapsed, but profile color owns 1 of 4 targets")
    assert "3 more appear only as answers to other records" in text


def test_routing_audit_says_what_it_cannot_judge():
    single = MAKERS["routing_audit"]().isel(profile=[4])
    assert readings.routing_audit(single).startswith("Not able to judge: no profile has two")
    gap = MAKERS["routing_audit"]()
    gap.owned_coverage[0] = np.nan
    assert "1 of 4 profiles are unmeasured" in readings.routing_audit(gap)
    few = MAKERS["routing_audit"](planted=True)
    few.records[:] = 3
    assert "few records" in readings.routing_audit(few)


def test_routing_audit_does_not_blame_a_model_whose_contexts_cannot_decide():
    ds = MAKERS["routing_audit"](planted=True)
    ds["context_gate_passed"] = ("profile", [True, True, False, True, True])
    assert readings.routing_audit(ds).startswith("No profile collapsed, but profile color")
    ds["context_gate_passed"] = ("profile", [False] * 5)
    assert readings.routing_audit(ds).startswith("Not able to judge")


def test_token_loss_names_the_costly_and_the_dear_class():
    healthy = readings.token_loss(MAKERS["token_loss"]())
    assert healthy.startswith("Word start tokens cost most: 0.849 +- 0.025 of 1.305 bit/byte")
    assert "no class costs more for how common it is" in healthy
    planted = readings.token_loss(MAKERS["token_loss"](planted=True, error=False))
    assert "the dearest for how common they are is digit" in planted
    assert "standard error" not in planted and "1 class with under 200 tokens" in planted


def test_token_loss_says_when_errors_cannot_order_two_classes():
    ds = MAKERS["token_loss"]()
    assert "separable" not in readings.token_loss(ds)
    ds["lead_standard_error"] = ds.contribution * 0 + 0.4
    assert "not separable from continuation (0.315)" in readings.token_loss(ds)


def test_token_loss_needs_tokens():
    ds = MAKERS["token_loss"]()
    ds["tokens"] = ds.tokens // 1000
    assert readings.token_loss(ds).startswith("Not able to judge")


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ("healthy", "began to fall after step 28"),
        ("cosine", "began to fall after step"),
        ("never", "The warmdown never fired"),
        ("always", "The warmdown fired from the first step, with no plateau"),
        ("warmup", "the end of the warmup, with no plateau"),
    ],
)
def test_training_calls_out_the_schedule(schedule, expected):
    text = readings.training(MAKERS["training"](schedule=schedule))
    assert expected in text and "After step 400 the training loss is" in text
    assert "best 1.520 at step 250" in text


def test_training_calls_out_a_warmdown_cut_short_and_missing_data():
    cut = MAKERS["training"]()[:340]
    assert "the warmdown did not finish" in readings.training(cut)
    assert readings.training([]) == "Not able to judge: no training loss was logged."
    bare = [{"step": 1, "loss": 2.0, "validation_bits_per_byte": None}]
    assert readings.training(bare) == (
        "After step 1 the training loss is 2.000 nat/token. "
        "Not able to judge the learning rate from 0 logged values."
    )


@given(st.text(max_size=60))
def test_visible_text_is_printable_and_short(text):
    shown = readings.visible(text)
    assert shown.isprintable() and " " not in shown
    if len(text) <= 28 and text.isprintable() and " " not in text:
        assert shown == text


def test_self_test_names_what_failed_and_its_limit():
    ds = xr.Dataset(
        {
            "value": ("check", [2.5, 1e-7]),
            "limit": ("check", [1e-5, 1e-3]),
            "passed": ("check", [False, True]),
        },
        coords={"check": ["causality", "batch_invariance"]},
    )
    failed = readings.reading("self_test", ds)
    assert failed.startswith("1 of 2 self-tests failed") and "causality (2.5, at most" in failed
    assert "batch" not in failed
    assert readings.reading("self_test", ds.isel(check=[1])) == "All 1 self-tests passed."


def test_reading_is_the_function_of_that_name():
    for noun in set(MAKERS) - {"training"}:
        ds = MAKERS[noun](planted=True)
        assert readings.reading(noun, ds) == getattr(readings, noun)(ds)


def test_promotion_is_a_verdict_with_the_first_red_check():
    planted = MAKERS["routing_audit"](planted=True)
    stopped = planted.assign_attrs(promote=0, first_red="probe", red_profiles=1)
    said = readings.routing_audit(stopped)
    assert said.startswith(
        "Do not promote: the first red check is probe (is probe fine?), in 1 of 4"
    )
    assert (
        "such as owner" in said
        and "never saw the fact that they are asked, blame the trunk in 1" in said
    )
    healthy = MAKERS["routing_audit"]().assign_attrs(promote=1, first_red="")
    assert readings.promotion(healthy).startswith("Promote: none of 4 profiles")
    healthy["macro_recall"] = healthy.accuracy.copy(data=[1.0, 0.95, 0.79, 0.9, 0.1])
    assert readings.promotion(healthy).startswith(
        "Right answers are as few as 100% of records (macro recall 0.79), in profile owner. Promote"
    ), "a profile with one target does not count"
    fell = healthy.assign_attrs(promote=0, below_floor=2)
    assert "2 profiles cover fewer targets than at step 0" in readings.promotion(fell)
    assert "nothing is judged" in readings.promotion(healthy.assign_attrs(promote=0))
    assert readings.promotion(planted) == "", "a diagnosis without a ladder has no verdict"


def test_two_audits_are_compared_with_their_error():
    mine, other = MAKERS["routing_audit"](), MAKERS["routing_audit"](planted=True)
    for ds in (mine, other):
        ds["accuracy_standard_error"] = ("profile", [0.05] * 5, mine.accuracy.attrs)
    said = readings.routing_audit(difference(mine, other))
    assert said.startswith(
        "Accuracy differs most in profile owner: +1.000 +- 0.071, beyond twice its"
    )
    assert "another seed" in said
    assert "within twice" in readings.routing_audit(difference(mine, mine))


def test_targets_checkpoints_and_records_are_counted():
    planted = MAKERS["routing_audit"](planted=True)
    assert readings.profile_targets(planted).startswith(
        "Of 17 targets in 5 profiles 8 are owned (given to a record that asks for them), 3 merely"
    )
    assert "1 profiles end below their floor of step 0; the largest loss is 0.25 in owner at step "
    assert "0.25 in owner at step 100" in readings.checkpoints(planted)
    assert "No profile ever covers fewer" in readings.checkpoints(MAKERS["routing_audit"]())
    planted["above_floor"] = planted.above_floor * np.nan
    assert "no floor to compare with" in readings.checkpoints(planted)
    said = readings.routing_records(MAKERS["routing_records"](planted=True))
    assert "6 get '\u2423n'" in said or "get '\u2423n'" in said
