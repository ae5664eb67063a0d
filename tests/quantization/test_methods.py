"""What others do, on a model whose inputs are measured; each against what is known of it."""

import numpy as np
import pytest
import torch

from workbench.quantization import Codes, quantizer
from workbench.quantization.methods import METHODS, absmax, hqq, lqer, nf4, official, pruned, sdclip

MATRIX = "blocks.0.mlp.fc.weight"


@pytest.fixture(scope="module")
def made(tiny_network_shared):
    ids = torch.randint(0, 257, (60, 16), generator=torch.Generator().manual_seed(0))
    return quantizer(tiny_network_shared, ids, torch.ones_like(ids, dtype=torch.bool))


def values(tensors, name=MATRIX):
    each = tensors[name]
    return each.values() if isinstance(each, Codes) else each


def error(made, tensors):
    gap = (values(tensors) - made.model.state_dict()[MATRIX]).double()
    return float(((gap @ made.bends[MATRIX].input) * gap).sum())


@pytest.mark.parametrize("name", sorted(METHODS))
def test_every_method_quantises_every_matrix_and_finer_settings_err_less(made, name):
    method = METHODS[name]
    own = made.model.state_dict()
    found = [method.make(made, setting) for setting in method.settings]
    for tensors, size in found:
        assert list(tensors) == list(own) and 0 < size < 4 * sum(e.numel() for e in own.values())
        for each in made.bends:
            assert not torch.equal(values(tensors, each), own[each])
            assert values(tensors, each).isfinite().all()
    sizes = [size for _, size in found]
    errors = [error(made, tensors) for tensors, _ in found]
    if len({*sizes}) > 1:
        order = np.argsort(sizes)
        assert np.all(np.diff(np.array(errors)[order]) < 0), "more bytes, less error"


def test_normal_floats_have_zero_and_both_ends(made):
    weight = made.model.state_dict()[MATRIX]
    found = values(nf4(made, 64)[0]).reshape(-1, 64)  # 32 x 16: eight blocks
    share = found / found.abs().amax(dim=1, keepdim=True)
    levels = share.unique()
    assert (levels == 0).any() and share.abs().max() == 1
    published = [-0.6961928, -0.5250731, 0.0795803, 0.1609302, 0.3379152, 0.7229568]
    near = [float((levels - each).abs().min()) for each in published]
    assert max(near) < 1e-3
    assert float((found - weight.reshape(-1, 64)).square().mean() / weight.square().mean()) < 0.02


def test_a_correction_of_full_rank_leaves_nothing(made, monkeypatch):
    monkeypatch.setattr("workbench.quantization.methods.RANK", 16)
    exact = made.model.state_dict()[MATRIX]
    torch.testing.assert_close(values(lqer(made, 4)[0]), exact, atol=2e-3, rtol=0)
    monkeypatch.undo()
    assert error(made, lqer(made, 4)[0]) < error(made, absmax(made, 4)[0])


def test_pruning_sets_ones_to_zero_and_nothing_else(made):
    before, after = (each(made, 0.5)[0][MATRIX].codes for each in (sdclip, pruned))
    changed = before != after
    assert (before[changed].abs() == 1).all() and (after[changed] == 0).all()
    assert float(changed.sum() / (before.abs() == 1).sum()) == pytest.approx(0.1, abs=0.02)


def test_a_fitted_zero_beats_the_plain_one(made):
    weight = made.model.state_dict()[MATRIX]
    blocks = weight.reshape(-1, 64)
    low, high = blocks.amin(dim=1, keepdim=True), blocks.amax(dim=1, keepdim=True)
    scale = (high - low) / 7
    plain = ((blocks - low) / scale).round() * scale + low
    fitted = values(hqq(made, 3)[0]).reshape(-1, 64)

    def norm(gap):
        return float(gap.abs().pow(0.7).sum())

    assert norm(fitted - blocks) < norm(plain - blocks)


def test_the_official_scale_has_a_floor(made):
    codes = official(made, 31)[0][MATRIX]
    assert float(codes.grid.row_scale.min()) >= 1 / 31 - 1e-4
