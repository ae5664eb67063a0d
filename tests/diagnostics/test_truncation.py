"""A truncated matrix costs what a network with that matrix written into it loses."""

import copy

import numpy as np
import pytest
import torch

from workbench.diagnostics import as_rows, truncation


@pytest.fixture
def rows(tiny_network):
    """Cache 64 random targets in four rows."""
    draw = torch.Generator().manual_seed(5)
    ids = torch.randint(0, tiny_network.config.vocab_size, (4, 17), generator=draw)
    return as_rows(ids[:, :-1], ids[:, 1:])


@pytest.mark.parametrize("name", ["block.1.feedforward_out", "embedding"])
def test_cost_is_that_of_weights_written_by_hand(tiny_network, rows, name):
    before = copy.deepcopy(tiny_network.state_dict())
    found = truncation(tiny_network, rows, matrix=name, ranks=[3, 16])
    changed = copy.deepcopy(tiny_network)
    (weight,) = (each.weight for each in changed.matrices() if each.name == name)
    left, sigma, right = np.linalg.svd(weight.detach().numpy(), full_matrices=False)
    with torch.no_grad():
        weight.copy_(torch.from_numpy((left[:, :3] * sigma[:3]) @ right[:3]))
    lost = (rows.losses(changed) - rows.losses(tiny_network)).sum() / np.log(2) / 64
    assert float(found.cost[0]) == pytest.approx(lost, abs=1e-5)
    assert float(found.cost[1]) == pytest.approx(0, abs=1e-5), "every direction kept"
    assert found.energy.values == pytest.approx([np.sum(sigma[:3] ** 2) / np.sum(sigma**2), 1])
    assert found.bytes.values.tolist() == [2 * 3 * sum(weight.shape), 2 * 16 * sum(weight.shape)]
    assert found.attrs["bytes_whole"] == 2 * weight.numel()
    assert all(torch.equal(each, before[key]) for key, each in tiny_network.state_dict().items())


def test_a_matrix_of_rank_four_is_free_to_cut_and_its_twin_is_not(tiny_network, rows):
    (weight,) = (m.weight for m in tiny_network.matrices() if m.name == "block.0.value")
    healthy = truncation(tiny_network, rows, matrix="block.0.value", ranks=[4])
    with torch.no_grad():
        left, sigma, right = torch.linalg.svd(weight, full_matrices=False)
        weight.copy_((left[:, :4] * sigma[:4]) @ right[:4])
    planted = truncation(tiny_network, rows, matrix="block.0.value", ranks=[4])
    assert abs(float(planted.cost[0])) < 1e-5 < abs(float(healthy.cost[0]))
