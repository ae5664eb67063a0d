"""Muon: against the polar factor, torch's own Muon and plain loops."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from workbench.training import Muon, orthogonalize
from workbench.training.muon import COEFFICIENTS

REACHED = {"standard": (0.68, 1.2), "polar_express": (0.85, 1.15)}  # singular values left
POLAR_EXPRESS = [
    (8.1566, -22.4833, 15.8788),
    (4.0429, -2.8089, 0.5),
    (3.8917, -2.7725, 0.5061),
    (3.2858, -2.3681, 0.4645),
    (2.3465, -1.7098, 0.4232),
]


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def directions(rows, columns, rank, *, seed):
    """Orthonormal left and right singular vectors, ``(rows, rank)`` and ``(rank, columns)``."""
    left, _ = torch.linalg.qr(draw(rows, rank, seed=seed))
    right, _ = torch.linalg.qr(draw(columns, rank, seed=seed + 1))
    return left, right.mT


# --- orthogonalize ---------------------------------------------------------------------------


@given(
    st.sampled_from(list(COEFFICIENTS)),
    st.integers(1, 20),
    st.integers(1, 20),
    st.integers(0, 20),
    st.floats(1, 10),
    st.sampled_from([1e-2, 1.0, 1e6]),
    st.integers(0, 1000),
)
def test_singular_vectors_stay_and_singular_values_near_one(
    name, rows, columns, rank, spread, scale, seed
):
    """Any shape and any rank: the directions of the polar factor, and nothing outside them."""
    rank = min(rank, rows, columns)
    left, right = directions(rows, columns, rank, seed=seed)
    values = scale * spread ** -torch.linspace(0, 1, rank, dtype=torch.float64)
    found = orthogonalize(left @ torch.diag(values) @ right, dtype=torch.float64, coefficients=name)
    inner = left.mT @ found @ right.mT
    reached = inner.diagonal()
    low, high = REACHED[name]
    assert found.shape == (rows, columns)
    assert ((reached > low) & (reached < high)).all()
    torch.testing.assert_close(found, left @ torch.diag(reached) @ right, atol=1e-9, rtol=0)


@pytest.mark.parametrize("shape", [(32, 32), (64, 16), (16, 64), (1, 9), (9, 1)])
def test_polar_express_is_nearer_to_the_polar_factor(shape):
    matrix = draw(*shape)
    left, _, right = torch.linalg.svd(matrix, full_matrices=False)
    away = {
        name: float(
            (orthogonalize(matrix, dtype=torch.float64, coefficients=name) - left @ right)
            .square()
            .mean()
            .sqrt()
        )
        for name in COEFFICIENTS
    }
    assert away["polar_express"] < 0.7 * away["standard"]


@pytest.mark.parametrize("steps", [1, 3, 5, 7])
def test_the_quintics_by_hand(steps):
    """A diagonal matrix is a polynomial in each singular value, apart from the others."""
    values = torch.tensor([0.9, 0.3, 0.1], dtype=torch.float64)
    published = {
        "standard": [(3.4445, -4.7750, 2.0315)] * steps,
        "polar_express": (POLAR_EXPRESS + POLAR_EXPRESS[-1:] * 2)[:steps],
    }
    for name, quintics in published.items():
        x = values / (values.square().sum().sqrt() + 1e-7)
        for a, b, c in quintics:
            x = a * x + b * x**3 + c * x**5
        found = orthogonalize(
            torch.diag(values), steps=steps, dtype=torch.float64, coefficients=name
        )
        torch.testing.assert_close(found, torch.diag(x), atol=1e-12, rtol=0)


@pytest.mark.parametrize("name", COEFFICIENTS)
@pytest.mark.parametrize("shape", [(3, 5, 9), (3, 9, 5), (2, 2, 4, 4)])
def test_a_batch_is_its_matrices(name, shape):
    stack = draw(*shape)
    together = orthogonalize(stack, dtype=torch.float64, coefficients=name).flatten(0, -3)
    for one, found in zip(stack.flatten(0, -3), together, strict=True):
        alone = orthogonalize(one, dtype=torch.float64, coefficients=name)
        torch.testing.assert_close(found, alone)


@pytest.mark.parametrize("name", COEFFICIENTS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_zero_stays_zero_among_others(name, dtype):
    stack = draw(3, 4, 6).float()
    stack[1] = 0
    found = orthogonalize(stack, dtype=dtype, coefficients=name)
    assert not found[1].any() and found.isfinite().all() and found[0].any()


@pytest.mark.parametrize("name", COEFFICIENTS)
def test_bfloat16_is_a_coarser_same(name):
    exact = orthogonalize(draw(16, 16), coefficients=name)
    rough = orthogonalize(draw(16, 16), dtype=torch.bfloat16, coefficients=name)
    assert rough.dtype == torch.bfloat16
    assert (rough.float() - exact).abs().max() < 0.1


def test_what_is_given_is_left_alone():
    update = draw(6, 4)
    orthogonalize(update, dtype=torch.float64)
    assert torch.equal(update, draw(6, 4))


# --- Muon ------------------------------------------------------------------------------------

SHAPES = [(6, 6), (12, 6), (6, 12), (12, 6), (6, 12), (6, 6), (3, 7), (1, 5)]


def published(weight, gradients, *, lr, momentum, decay=0.0, normalize=False):
    """Follow the published update for one matrix, in its own words."""
    buffer = torch.zeros_like(weight)
    for gradient in gradients:
        buffer = momentum * buffer + gradient
        g = gradient + momentum * buffer
        if normalize:
            g = torch.stack([row / max(float(row.norm()), 1e-7) for row in g])
        x = g / (g.norm() + 1e-7)
        if g.size(0) > g.size(1):
            x = x.T
        for _ in range(5):
            a = x @ x.T
            b = -4.7750 * a + 2.0315 * a @ a
            x = 3.4445 * x + b @ x
        if g.size(0) > g.size(1):
            x = x.T
        weight = (1 - lr * decay) * weight
        weight = weight - lr * max(1, g.size(0) / g.size(1)) ** 0.5 * x
    return weight


def walk(optimizer, weights, *, steps):
    """Take steps of drawn gradients, the same for every optimizer."""
    for step in range(steps):
        for index, weight in enumerate(weights):
            shape = tuple(weight.shape)
            weight.grad = draw(*shape, seed=1000 * step + index).to(weight.dtype)
        optimizer.step()


def start(dtype=torch.float64):
    return [nn.Parameter(draw(*s, seed=90 + i).to(dtype)) for i, s in enumerate(SHAPES)]


@pytest.mark.parametrize("decay", [0.0, 0.9])
@pytest.mark.parametrize("normalize", [False, True])
def test_muon_is_the_published_update_matrix_by_matrix(decay, normalize):
    weights = start()
    muon = Muon(
        weights,
        lr=0.03,
        momentum=0.9,
        weight_decay=decay,
        dtype="float64",
        normalize_rows=normalize,
    )
    walk(muon, weights, steps=4)
    for index, (shape, weight) in enumerate(zip(SHAPES, weights, strict=True)):
        gradients = [draw(*shape, seed=1000 * step + index) for step in range(4)]
        expected = published(
            draw(*shape, seed=90 + index),
            gradients,
            lr=0.03,
            momentum=0.9,
            decay=decay,
            normalize=normalize,
        )
        torch.testing.assert_close(weight.data, expected)


def theirs_and_ours(adjust, *, dtype):
    """Walk torch's Muon and ours twenty steps; ours takes its rates shape by shape."""
    theirs, ours = start(), start()
    rate = {"original": lambda rows, columns: 0.02}
    rate["match_rms_adamw"] = lambda rows, columns: (
        0.02 * 0.2 * max(rows, columns) ** 0.5 / max(1, rows / columns) ** 0.5
    )
    groups = [{"params": [each], "lr": rate[adjust](*each.shape)} for each in ours]
    for group in groups:  # torch decays by the rate before its adjustment
        group["weight_decay"] = 0.5 * 0.02 / group["lr"]
    torch_muon = torch.optim.Muon(
        theirs, lr=0.02, momentum=0.9, weight_decay=0.5, adjust_lr_fn=adjust
    )
    walk(torch_muon, theirs, steps=20)
    walk(Muon(groups, lr=0.02, momentum=0.9, dtype=dtype), ours, steps=20)
    return theirs, ours


@pytest.mark.parametrize("adjust", ["original", "match_rms_adamw"])
def test_muon_walks_with_that_of_torch(adjust, monkeypatch):
    """With its iteration in float64, which it would do in bfloat16 whatever is asked."""
    monkeypatch.setattr(torch.Tensor, "bfloat16", lambda tensor: tensor.clone())
    for one, other in zip(*theirs_and_ours(adjust, dtype="float64"), strict=True):
        torch.testing.assert_close(one.data, other.data, atol=1e-6, rtol=0)


def test_muon_walks_with_that_of_torch_in_its_own_precision():
    walked = zip(*theirs_and_ours("original", dtype="bfloat16"), start(), strict=True)
    for one, other, begun in walked:
        apart, moved = ((one - each).detach().norm() for each in (other, begun))
        assert apart < 0.02 * moved


def test_equal_shapes_together_are_each_alone():
    together, alone = start(), start()
    walk(Muon(together, lr=0.1, dtype="float64"), together, steps=3)
    for index, weight in enumerate(alone):
        muon = Muon([weight], lr=0.1, dtype="float64")
        for step in range(3):
            weight.grad = draw(*SHAPES[index], seed=1000 * step + index)
            muon.step()
        torch.testing.assert_close(weight, together[index])


def test_equal_shapes_of_another_dtype_or_device_are_apart():
    wide, narrow = nn.Parameter(draw(4, 6)), nn.Parameter(draw(4, 6).float())
    elsewhere = nn.Parameter(torch.empty(4, 6, device="meta", dtype=torch.float64))
    elsewhere.grad = torch.empty_like(elsewhere)
    wide.grad, narrow.grad = draw(4, 6, seed=1), draw(4, 6, seed=1).float()
    Muon([wide, narrow, elsewhere], lr=0.1, dtype="float64").step()
    assert narrow.dtype == torch.float32 and elsewhere.is_meta
    torch.testing.assert_close(wide.float(), narrow)
    expected = published(draw(4, 6), [draw(4, 6, seed=1)], lr=0.1, momentum=0.95)
    torch.testing.assert_close(wide.data, expected)


def test_normalized_rows_forget_their_length():
    """Without it the length of a row counts; with it no longer."""
    length = torch.tensor([[0.01], [1.0], [30.0], [1.0]], dtype=torch.float64)
    for normalize in (True, False):
        moved = []
        for factor in (1, length):
            weight = nn.Parameter(torch.zeros(4, 6, dtype=torch.float64))
            weight.grad = factor * draw(4, 6)
            Muon([weight], lr=0.1, dtype="float64", normalize_rows=normalize).step()
            moved.append(weight.detach())
        assert torch.allclose(*moved, atol=1e-6) == normalize


@pytest.mark.parametrize("normalize", [True, False])
def test_a_zero_gradient_only_decays(normalize):
    weight = nn.Parameter(draw(4, 6))
    weight.grad = torch.zeros_like(weight)
    Muon([weight], lr=0.1, weight_decay=0.5, normalize_rows=normalize).step()
    torch.testing.assert_close(weight.data, 0.95 * draw(4, 6))


def test_a_matrix_without_gradient_stays_undecayed():
    used, unused = nn.Parameter(draw(4, 4)), nn.Parameter(draw(4, 4, seed=1))
    used.grad = draw(4, 4, seed=2)
    muon = Muon([used, unused], lr=0.1, weight_decay=0.5)
    muon.step()
    assert torch.equal(unused, draw(4, 4, seed=1)) and not torch.equal(used, draw(4, 4))
    assert unused not in muon.state


def test_muon_leaves_gradients_as_they_were():
    weight = nn.Parameter(draw(4, 6))
    weight.grad = draw(4, 6, seed=2)
    Muon([weight], lr=0.1, normalize_rows=True).step()
    assert torch.equal(weight.grad, draw(4, 6, seed=2))


def test_muon_continues_from_its_saved_state():
    def trained(restart):
        weights = start(torch.float32)
        muon = Muon(weights, lr=0.1)
        walk(muon, weights, steps=2)
        if restart:
            saved, muon = muon.state_dict(), Muon(weights, lr=0.3, momentum=0.1)
            muon.load_state_dict(saved)
        walk(muon, weights, steps=2)
        return weights

    for one, other in zip(trained(True), trained(False), strict=True):
        assert torch.equal(one, other)
