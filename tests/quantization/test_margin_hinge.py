"""The hinge: what it sums, where it is silent, and the decisions that it saves."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from workbench.model import new_network, preset
from workbench.quantization import integer_grid, nearest, with_values
from workbench.quantization.margin_hinge import (
    logit_noise,
    margin_hinge,
    measured_margin,
    survival,
)

CRITICAL = torch.tensor([3, 7])
CRITICAL_FOUR = torch.arange(4)


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


@pytest.fixture(scope="module")
def world():
    """128 contexts, of which 16 call for a critical token, by three to two over one rival."""
    generator = torch.Generator().manual_seed(0)
    chances = torch.softmax(1.2 * torch.randn(128, 128, generator=generator), dim=-1)
    chances[:, :4] = 0
    chances[112:] = 0
    for at in range(16):
        chances[112 + at, at % 4], chances[112 + at, 20 + at] = 0.6, 0.4

    def batch(n_row, seed):
        draw = torch.Generator().manual_seed(seed)
        ids = torch.randint(0, 128, (n_row, 16), generator=draw)
        drawn = torch.multinomial(chances[ids.flatten()], 1, generator=draw)
        return ids, drawn.reshape(ids.shape)

    return batch


def at_three_bits(model):
    """Quantise every matrix to seven values a row."""
    state = model.state_dict().items()
    grids = {n: nearest(w, integer_grid(w, bits=3)) if w.ndim == 2 else w for n, w in state}
    return with_values(model, grids)


def trained_on(batch, *, margin):
    """Train a block for 300 updates; a margin turns the hinge on."""
    shape = {"n_layer": 1, "n_head": 2, "n_kv_head": 1, "d_model": 24, "vocab_size": 128}
    model = new_network(preset("demo", **shape, tie_embeddings=False), seed=0)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for step in range(300):
        optimizer.param_groups[0]["lr"] = 0.01 * min(1, 2 * (1 - step / 300))
        ids, targets = batch(24, step)
        logits = model(ids)
        loss = F.cross_entropy(logits.flatten(0, 1), targets.flatten())
        if margin:
            lacking = margin_hinge(logits, targets, CRITICAL_FOUR, margin=margin)
            loss = loss + lacking / targets.numel()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model.eval()


def test_decisions_that_three_bits_would_lose_survive_with_the_measured_margin(world):
    """A third of thin decisions and more go; with the hinge none in twenty, at equal loss."""
    ids, targets = world(200, 777)
    plain = trained_on(world, margin=0.0)
    with torch.no_grad():
        exact, quantized = plain(ids), at_three_bits(plain)(ids)
    before = survival(exact, quantized, targets, CRITICAL_FOUR)
    hinged = trained_on(world, margin=measured_margin(exact, quantized))
    with torch.no_grad():
        loud, still = hinged(ids), at_three_bits(hinged)(ids)
    after = survival(loud, still, targets, CRITICAL_FOUR)
    assert before["right"] > 150 and before["kept"] < 0.7 * before["right"]
    assert after["right"] > 150 and after["kept"] > 0.95 * after["right"]
    losses = [float(F.cross_entropy(z.flatten(0, 1), targets.flatten())) for z in (exact, loud)]
    assert losses[1] < 1.02 * losses[0]
