"""Wasted rows are seen, a healthy embedding is left alone."""

import sys

import numpy as np
import pytest
import torch

from workbench.diagnostics import diagnose, embedding
from workbench.evaluation import open_run

PIECES = [f"t{number}" for number in range(96)]
PARTS = {"first": np.arange(96) < 48, "few": np.arange(96) < 5}


def rows(seed=0):
    """Make 96 random rows of 16 channels."""
    return torch.randn(96, 16, generator=torch.Generator().manual_seed(seed))


def test_healthy_rows_are_near_chance_and_have_no_twin():
    found = embedding(rows(), parts=PARTS, pieces=PIECES, start=rows(1))
    assert found.rows.values.tolist() == [96, 48, 5]
    np.testing.assert_allclose(found.effective_rank_ratio[:2], 1, atol=0.05)
    np.testing.assert_allclose(found.effective_rank_start[:2], 1, atol=0.05)
    assert np.isnan(found.effective_rank_ratio[2]), "5 rows of 16 channels say nothing"
    assert found.attrs["twins"] == 0
    assert "effective_rank_start" not in embedding(rows(), parts={}, pieces=PIECES)


def test_duplicated_rows_are_found_and_located():
    weight = rows()
    weight[70] = 3 * weight[4] + 0.01 * weight[5]
    found = embedding(weight, parts={}, pieces=PIECES)
    assert found.attrs["twins"] == 2
    assert int(found.twin[70]) == 4 and int(found.twin[4]) == 70
    exact = weight.double().numpy()
    unit = exact / np.linalg.norm(exact, axis=1, keepdims=True)
    gram = unit @ unit.T - 3 * np.eye(96)
    np.testing.assert_allclose(found.twin_cosine, gram.max(axis=1), atol=1e-5)


def test_rows_of_rank_four_are_seen_in_their_part():
    weight = rows()
    weight[:48] = rows(2)[:48, :4] @ rows(3)[:4]
    found = embedding(weight, parts=PARTS, pieces=PIECES)
    whole, first = found.effective_rank_ratio.values[:2]
    assert first < 0.35 and whole > 2 * first


def test_rows_of_zeros_have_no_twin_and_chunks_do_not_matter(monkeypatch):
    weight = rows()
    weight[3] = 0
    found = embedding(weight, parts={}, pieces=PIECES)
    assert np.isnan(found.twin_cosine[3]) and np.isfinite(found.twin_cosine).sum() == 95
    monkeypatch.setattr(sys.modules[embedding.__module__], "CHUNK", 7)
    again = embedding(weight, parts={}, pieces=PIECES)
    np.testing.assert_allclose(again.twin_cosine, found.twin_cosine, atol=1e-6)
    np.testing.assert_array_equal(again.twin, found.twin)


def test_a_run_is_measured_by_class_and_decile(tiny_run):
    found = diagnose(open_run(tiny_run.path), only=["embedding", "head_rank"])["embedding"]
    assert found.sizes["part"] == 1 + 8 + 10 and found.sizes["vocabulary"] == 257
    counts = found.rows.to_series()
    assert counts.filter(like="decile").sum() == counts["all"] == 257
    assert found.effective_rank_start.values[0] == pytest.approx(1, abs=0.05)
