"""The hinge: what it sums, and that it is silent where margins are kept."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from workbench.quantization.margin_hinge import (
    logit_noise,
    margin_hinge,
    measured_margin,
    survival,
)

CRITICAL = torch.tensor([3, 7])


@given(st.integers(0, 10_000), st.floats(0.1, 3.0))
def test_it_is_the_loop_over_positions(seed, margin):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(2, 5, 9, generator=generator)
    targets = torch.randint(-1, 9, (2, 5), generator=generator)
    total = 0.0
    for z, wanted in zip(logits.flatten(0, 1).tolist(), targets.flatten().tolist(), strict=True):
        if wanted < 0:
            continue
        if wanted in (3, 7):
            rival = max(value for token, value in enumerate(z) if token != wanted)
            total += max(0.0, margin - (z[wanted] - rival))
        else:
            total += max(0.0, 0.5 + max(z[3], z[7]) - z[wanted])
    found = margin_hinge(logits, targets, CRITICAL, margin=margin, guard=0.5)
    assert float(found) == pytest.approx(total, abs=1e-4)


def test_kept_margins_cost_nothing_and_pull_nowhere():
    logits = torch.zeros(1, 9)
    logits[0, 3] = 5.0
    logits.requires_grad_()
    loss = margin_hinge(logits, torch.tensor([3]), CRITICAL, margin=4.9)
    loss.backward()
    assert loss == 0 and (logits.grad == 0).all()


def test_noise_is_a_quantile_of_what_logits_move_by():
    exact = torch.zeros(1000)
    moved = torch.arange(1000) / 1000
    assert logit_noise(exact, moved) == pytest.approx(0.989, abs=1e-3)
    assert measured_margin(exact, moved) == pytest.approx(2.5 * 0.989, abs=3e-3)


def test_survival_is_counted_by_hand():
    exact = torch.eye(9)[[3, 3, 7, 5, 5]]
    rough = torch.eye(9)[[3, 4, 7, 7, 5]]
    targets = torch.tensor([3, 3, 3, 5, 5])
    found = survival(exact, rough, targets, CRITICAL)
    assert found == {"critical": 3, "right": 2, "kept": 1, "false": 1}
