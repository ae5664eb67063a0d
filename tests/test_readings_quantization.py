"""What is said of artifacts: who pays, what foretells it, what survives, and what to do."""

import numpy as np
import pytest
from planted_quantization import artifact, blamed, record

from workbench import readings


def test_the_dearest_matrix_and_class_are_named_and_what_foretells_the_costs():
    healthy = readings.quantization(artifact())
    assert healthy.startswith("The artifact of 9,100 bytes costs +0.0")
    assert "dearest is block 1 feedforward_out" in healthy
    assert "continuation tokens pay 50%" in healthy and "cost 100% of that. Of 13" in healthy
    assert "best foretold by predicted cost (rho +0.90, 95 % 0.60 to 1.00)" in healthy
    assert "beware" not in healthy
    planted = readings.quantization(artifact(planted=True))
    assert "dearest is block 1 value, alone +0.2000 +- 0.0010 bit/byte" in planted
    assert "cost 67% of that, so they compound" in planted
    assert planted.endswith("the costs are foretold by no predictor.")


def test_errors_that_disagree_are_warned_of():
    ds = artifact()
    ds["output_error"][:] = ds.output_error.values[::-1]
    assert "beware, errors of weights and of outputs" in readings.predictors(ds)
    assert "(rho -1.00)." in readings.predictors(ds)


def test_noise_and_gaps_are_not_judged():
    assert "which is noise: fewer bytes may do" in readings.quantization(artifact(noise=True))
    gap = artifact()
    gap["cost"][2] = np.nan
    assert readings.quantization(gap).startswith("Not able to judge")


def test_tokens_and_bytes():
    said = readings.quantized_tokens(artifact())
    assert (
        "continuation tokens pay" in said
        and "training tokens pays 75%. The divergence is 0.0500 +- 0.0020" in said
    )
    assert said.endswith("3,600/4,096 first predictions stay.")
    said = readings.quantized_bytes(artifact(planted=True))
    assert "block 1 feedforward_out takes 1,300" in said
    assert "buys most in block 1 value: 512 bytes for about three quarters of +0.2000" in said
    assert f"{0.2 / 0.007:.1f} times" in said


@pytest.mark.parametrize(("planted", "verdict"), [(False, "as foretold"), (True, "more than")])
def test_survival_is_calibrated_or_not(planted, verdict):
    said = readings.survival(artifact(planted=planted))
    assert f"400, {verdict}" in said and "0.70" in said
    ds = artifact()
    ds["flipped"][:] = 0
    assert "all 0/400, fewer than foretold (54)" in readings.survival(ds)


def test_culprits_are_named_only_where_there_are_some():
    assert readings.culprits(blamed(planted=True)).startswith(
        "Culprit block.1.value: in float again, 2.5000 bit/byte fall to 0.0040 (12 forward passes"
    )
    assert "0.0040 bit/byte is healthy" in readings.culprits(blamed())
    coarse = blamed().assign_attrs(cost=0.5, cost_left=0.5)
    assert "too coarse all over" in readings.culprits(coarse)


def test_artifacts_are_ordered_and_their_slope_is_in_decibels():
    ds = readings.artifacts(record())
    assert ds.setting.values.tolist() == ["small", "middle", "large"]
    assert np.isnan(ds.gap_standard_error.values).tolist() == [False, True, False]
    said = readings.frontier(ds)  # 16 times less for 2 bits a weight: theory exactly
    assert "6.0 dB for each bit a weight" in said and said.startswith("Small (1,000 bytes) costs")
    alone = readings.frontier(ds.isel(setting=[0]))
    assert alone.endswith("no slope to compare with theory.") and "nan" not in alone
