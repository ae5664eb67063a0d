"""Rank beside need: planted parts end in their corner, and sentences carry their numbers."""

import numpy as np
import pytest
import xarray as xr
from planted_ranks import embedded, evidence, groups, one_matrix, truncated

from workbench import readings
from workbench.result import difference, variable


def test_planted_parts_end_in_their_corners_and_a_healthy_twin_is_busy():
    found = evidence()
    corner = {
        name: str(found.corner.sel(matrix=name).item()).split()[0] for name in found.matrix.values
    }
    assert corner["block.0.query"] == "dead" and corner["block.1.key"] == "compressible"
    assert corner["block.2.value"] == "redundant"
    assert sum(each == "busy" for each in corner.values()) == 15
    said = readings.rank_corners(found)
    assert said.startswith("Dead (drop it): block.0.query; compressible (factor it): block.1.key; ")
    assert "redundant (share or drop it): block.2.value. 15 are busy (leave it), 0 unjudged" in said
    healthy = readings.rank_corners(evidence(planted=False))
    assert healthy.startswith("Nothing to drop, factor or share. 18 are busy")


def test_evidence_puts_each_number_with_its_matrix():
    ranks, activation, ablation = groups()
    found = readings.rank_evidence(ranks, activation=activation, ablation=ablation)
    for name in found.matrix.values:
        _, block, role = name.split(".")
        here = found.sel(matrix=name)
        assert here.activation == activation.activation_rank_ratio[int(block)].sel(role=role)
        assert here.cost == ablation.cost[int(block)].sel(part=role)
        weights = ranks.effective_rank.sel(matrix=name)
        assert float(here.initial) == pytest.approx(float(weights[1] / weights[0]))
    relative = 0.5 / activation.activation_rank.values.ravel()
    np.testing.assert_allclose(found.activation_standard_error, relative * found.activation)
    assert found.block_cost.values.tolist() == ablation.cost.sel(part="block").values.tolist()


def test_a_block_that_recurs_is_worth_what_its_dearest_visit_is():
    """The query of block 0 is dead at its first visit, and needed at its second."""
    ranks, activation, ablation = groups()
    again = [
        each.sel(visit=[0]).assign_coords(visit=[3], block=("visit", [0])).copy(deep=True)
        for each in (activation, ablation)
    ]
    again[0].activation_rank_ratio.loc[{"role": "query"}] = 0.9
    again[1].cost.loc[{"part": "query"}] = 1.0
    again[1].verdict.loc[{"part": "query"}] = "needed"
    seen, lost = (
        xr.concat(pair, "visit", data_vars="all", coords="different", join="exact", compat="equals")
        for pair in zip((activation, ablation), again, strict=True)
    )
    found = readings.rank_evidence(ranks, activation=seen, ablation=lost)
    whole = found.sel(matrix="block.0.query")
    assert float(whole.cost) == 1.0 and float(whole.activation) == 0.9
    assert not readings.rank_corners(found).startswith("Dead")
    assert found.corner.sel(matrix="block.1.key").item().startswith("compressible")


def test_an_error_across_a_border_or_an_open_cost_is_unjudged():
    ranks, activation, ablation = groups()
    wide = activation.copy(deep=True)
    wide.activation_rank_standard_error[0, 0] = 30.0
    ablation.verdict[1, 2] = "unjudged"  # block.1.key, after the column of whole blocks
    found = readings.rank_evidence(ranks, activation=wide, ablation=ablation)
    assert set(found.matrix.values[found.corner.values == "unjudged"]) == {
        "block.0.query",
        "block.1.key",
    }


def test_what_is_absent_is_said_and_not_zero():
    ranks, activation, ablation = groups()
    alone = readings.rank_evidence(ranks)
    assert not {"activation", "cost", "corner", "block_cost"} & set(alone)
    assert readings.rank_map(alone, measure="activation") == "Not measured: activation."
    assert readings.rank_corners(alone).startswith("Not measured")
    assert "initial" not in readings.rank_evidence(ranks.isel(step=[1]))
    half = readings.rank_evidence(ranks, ablation=ablation)
    assert "corner" not in half and "Worth least is the block of visit 0" in readings.rank_map(
        half, measure="alpha"
    )


def test_map_names_the_lowest_with_its_error_and_the_cheapest_block():
    said = readings.rank_map(evidence(), measure="activation")
    assert said.startswith("Lowest is block.0.query: 0.300 +- 0.010 in rank of activations")
    assert said.endswith(
        "Worth least is the block of visit 0: 0.1000 +- 0.0010 bit/byte without it "
        "(+- standard error)."
    )
    flat = evidence()
    flat["effective_rank_ratio"][:] = 1.0
    assert "judge by activations" in readings.rank_map(flat, measure="effective_rank_ratio")


def test_two_runs_are_subtracted_with_their_error():
    apart = difference(evidence(), evidence(planted=False))
    said = readings.rank_map(apart, measure="activation")
    assert said.startswith("Most apart is block.") and "more than twice its standard error" in said
    assert "+- 0.014" in said and "another seed" in said
    corners = readings.rank_corners(apart)
    assert corners.startswith("Need differs most at block.1.key: +0.") and "+- 0.0014" in corners
    same = readings.rank_corners(difference(evidence(), evidence()))
    assert "within twice its standard error" in same


def test_spectrum_compares_with_chance_and_names_loud_rows():
    said = readings.spectrum(one_matrix(peak=3.4))
    assert "largest singular value is 9, that of Gaussian matrices 3 to 4" in said
    assert said.endswith("Kurtosis is 7.5 (Gaussian: 3); row 12 has 3.4 times the median norm.")
    assert "no row or column has twice the median norm" in readings.spectrum(one_matrix())
    assert "no spectrum" in readings.spectrum(one_matrix(ratio=np.nan))


def test_heads_names_the_lowest_and_nothing_without_heads():
    ratio = np.array([[[1.0, 0.4, np.nan, 0.9]]]).transpose(0, 2, 1)
    ds = xr.Dataset(
        {"head_rank_ratio": variable(("block", "head", "role"), ratio, "rank of a head")},
        coords={"block": [0], "head": range(4), "role": ["value"]},
    )
    assert readings.heads(ds, "block.0.value") == (
        " Of its 3 heads, head 1 is lowest: 0.40 of chance."
    )
    assert readings.heads(ds, "embedding") == readings.heads(ds, "block.0.feedforward_in") == ""


def test_truncation_says_cost_bytes_and_the_free_rank():
    ds = truncated()
    said = readings.truncation(ds)
    assert said.startswith(
        "Embedding at rank 4 adds 0.500 +- 0.010 bit/byte (+- standard error), beyond"
    )
    assert "The least rank within it is 8" in said and "3,000 bytes less" in said
    assert "1,000 bytes more" in readings.truncation(ds.assign_attrs(chosen=20))
    ds.cost[:] = 1.0
    assert "No rank is" in readings.truncation(ds)


def test_embedding_says_which_rows_are_wasted_in_printable_text():
    ds = embedded(planted=True)
    said = readings.embedding(ds)
    assert "lowest is byte with 0.20 (20 rows), far below the whole" in said
    assert "such as '\\x1b', '\u2423b'" in said
    assert said.endswith("A smaller vocabulary would free them.")
    healthy = readings.embedding(embedded())
    assert "0 of 40 rows" in healthy and "near the whole" in healthy and "smaller" not in healthy


def test_a_planted_thin_head_is_named_and_nothing_measured_is_said():
    ratio = np.full((2, 4, 3), 0.98)
    ratio[1, 2, 0] = 0.2
    coords = {"block": [0, 1], "head": range(4), "role": ["query", "key", "attention_out"]}
    data = {"head_rank_ratio": variable(("block", "head", "role"), ratio, "ratio")}
    said = readings.head_rank(xr.Dataset(data, coords=coords))
    assert said.startswith("Head 2 of block 1 has the lowest rank in its query: 0.20 of chance")
    assert "median of 0.98 over 24 slices" in said
    data = {"head_rank_ratio": variable(("block", "head", "role"), ratio * np.nan, "ratio")}
    assert readings.head_rank(xr.Dataset(data, coords=coords)).startswith("Not able to judge")
