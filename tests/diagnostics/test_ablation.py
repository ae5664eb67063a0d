import importlib

import numpy as np
import pytest
import torch
import xarray as xr

from workbench.diagnostics import ablation, as_rows, diagnose, diagnostics
from workbench.model import record
from workbench.result import check, difference, open_tree, save

ROWS, LENGTH = 16, 12
SAME = [("attention", "attention_out"), ("feedforward", "feedforward_in")]
SAME += [("feedforward", "feedforward_out")]
module = importlib.import_module("workbench.diagnostics.ablation")


def made_rows(*, groups=ROWS):
    ids = torch.from_numpy(np.random.default_rng(5).integers(0, 257, (ROWS, LENGTH + 1)))
    group = np.broadcast_to(np.arange(ROWS)[:, None] % groups, (ROWS, LENGTH))
    return as_rows(ids[:, :-1], ids[:, 1:], group=group)


def bits(model, rows, replace=None):
    with torch.no_grad(), record(model, replace=replace or {}):
        log_p = model(rows.inputs).double().log_softmax(dim=-1)
    return -float(log_p.gather(-1, rows.targets[..., None]).mean()) / np.log(2)


def test_means_by_hand(tiny_network):
    rows = made_rows()
    found = check(ablation(tiny_network, rows))
    names = [
        "visit.0.attention_out",
        "visit.0.feedforward_out",
        "visit.1.value",
        "visit.1.head_out",
    ]
    with torch.no_grad(), record(tiny_network, names) as seen:
        tiny_network(rows.inputs)

    def put(name, head=None):
        """Write the mean over rows and positions, with the shape of what it replaces."""
        mean = seen[name].mean(dim=(0, 1) if seen[name].ndim == 3 else (0, 2), keepdim=True)

        def edit(tensor):
            whole = mean.expand_as(tensor)
            if head is None:
                return whole
            chosen = torch.arange(tensor.shape[1])[None, :, None, None] == head
            return torch.where(chosen, whole, tensor)

        return {name: edit}

    base = bits(tiny_network, rows)
    expected = {
        "block": bits(tiny_network, rows, put(names[0]) | put(names[1])),
        "attention": bits(tiny_network, rows, put(names[0])),
        "feedforward": bits(tiny_network, rows, put(names[1])),
    }
    for part, total in expected.items():
        assert float(found.cost.sel(visit=0, part=part)) == pytest.approx(total - base, abs=2e-6)
    value = bits(tiny_network, rows, put(names[2])) - base
    assert float(found.cost.sel(visit=1, part="value")) == pytest.approx(value, abs=2e-6)
    head = bits(tiny_network, rows, put(names[3], head=2)) - base
    assert float(found.head_cost.sel(visit=1, head=2)) == pytest.approx(head, abs=2e-6)


def test_zero_is_the_weights_at_zero_and_equal_places_are_equal(tiny_network):
    rows = made_rows()
    found = ablation(tiny_network, rows)
    base = bits(tiny_network, rows)
    kept = tiny_network.blocks[1].attn.proj.weight.detach().clone()
    with torch.no_grad():
        tiny_network.blocks[1].attn.proj.weight.zero_()
    cost = bits(tiny_network, rows) - base
    assert float(found.zero_cost.sel(visit=1, part="attention")) == pytest.approx(cost, abs=2e-6)
    with torch.no_grad():
        tiny_network.blocks[1].attn.proj.weight.copy_(kept)
    for name in ("cost", "cost_standard_error", "zero_cost", "verdict"):
        for part, same in SAME:
            assert (found[name].sel(part=part).values == found[name].sel(part=same).values).all()
    none = found.zero_cost.sel(part=["query", "key"]).values
    np.testing.assert_allclose(none[:, 0], none[:, 1], atol=1e-6)  # either way all scores are 0


def own_rows(model):
    """Rows whose targets are what the model itself predicts, so that every live part helps."""
    inputs = made_rows().inputs
    with torch.no_grad():
        return as_rows(inputs, model(inputs).argmax(dim=-1))


def test_dead_parts_are_free_and_their_healthy_twins_are_not(tiny_network):
    healthy = ablation(tiny_network, own_rows(tiny_network))
    assert (healthy.verdict.sel(part=["block", "attention", "feedforward"]) == "needed").all()
    assert (healthy.head_verdict != "free").all()
    assert healthy.head_verdict.sel(visit=0, head=1) == "needed"
    with torch.no_grad():
        tiny_network.blocks[0].attn.proj.weight[:, 4:8] = 0  # what head 1 writes with
        tiny_network.blocks[1].mlp.proj.weight[:] = 0
        tiny_network.blocks[1].attn.proj.weight[:] = 0
    planted = ablation(tiny_network, own_rows(tiny_network))
    told = planted.head_verdict.sel(visit=0).values
    assert told[1] == "free" and (told[[0, 2, 3]] != "free").all()
    assert planted.head_cost.sel(visit=0, head=1) == 0
    assert (planted.verdict.sel(visit=1) == "free").all()
    assert (planted.head_verdict.sel(visit=1) == "free").all()
    assert (planted.verdict.sel(visit=0, part=["block", "feedforward"]) == "needed").all()


@pytest.mark.parametrize(
    ("cost", "error", "told"),
    [
        (0.0, 0.0, "free"),
        (0.001, 0.001, "free"),
        (-0.02, 0.001, "harmful"),
        (0.003, 0.002, "unjudged"),  # within noise, but it may well be above the floor
        (0.003, 0.0001, "unjudged"),  # beyond noise, but below the floor
        (0.02, 0.02, "unjudged"),
        (0.02, 0.001, "needed"),
        (0.02, np.nan, "unjudged"),
        (np.nan, np.nan, "unjudged"),
    ],
)
def test_verdict_asks_for_noise_and_floor(cost, error, told):
    given = np.array([cost]), np.array([error])
    assert module._verdict(*given, judged=True).tolist() == [told]
    assert module._verdict(*given, judged=False).tolist() == ["unjudged"]


def test_few_groups_have_no_verdict(tiny_network):
    found = ablation(tiny_network, made_rows(groups=4))
    assert found.attrs["groups"] == 4 and (found.verdict == "unjudged").all()
    assert (found.head_verdict == "unjudged").all() and np.isfinite(found.cost).all()


def test_what_is_too_much_work_is_left_out_in_order(tiny_network, monkeypatch):
    rows = made_rows()
    whole = ablation(tiny_network, rows)
    forward = rows.inputs.numel() * sum(each.numel() for each in tiny_network.parameters())
    for forwards, measured in ((28, {"", "head_"}), (12, {""}), (2, set())):
        monkeypatch.setattr(module, "WORK", forward * forwards)
        found = ablation(tiny_network, rows)
        for prefix in ("", "head_", "zero_"):
            assert np.isfinite(found[f"{prefix}cost"]).all() == (prefix in measured)
            if prefix in measured:
                xr.testing.assert_identical(found[f"{prefix}cost"], whole[f"{prefix}cost"])


def test_it_is_found_measured_and_saved_with_the_others(tiny_network, tiny_data, tmp_path):
    before = {name: each.clone() for name, each in tiny_network.state_dict().items()}
    assert diagnostics()["ablation"].tier == "intervention"
    found = diagnose(tiny_network, tiny_data, only=["ablation"])["ablation"]
    assert all(torch.equal(before[n], each) for n, each in tiny_network.state_dict().items())
    save({"ablation": found}, tmp_path / "d.nc", provenance={})
    again = open_tree(tmp_path / "d.nc")["ablation"].to_dataset()
    assert again.verdict.values.tolist() == found.verdict.values.tolist()
    n_group = found.attrs["groups"]
    assert again.sizes == {"visit": 2, "part": 9, "head": 4, "group": n_group}


def test_two_networks_are_compared_on_the_same_groups(tiny_network):
    rows = own_rows(tiny_network)
    one = ablation(tiny_network, rows)
    with torch.no_grad():
        tiny_network.blocks[0].mlp_scale.mul_(1.001)
    two = ablation(tiny_network, rows)
    found = difference(one, two)
    at = {"visit": 1, "part": "attention"}
    bits = (one.cost_by_group - two.cost_by_group).sel(at).values
    again = np.random.default_rng(1).integers(0, ROWS, (20_000, ROWS))  # a bootstrap of the rows
    spread = (bits[again].sum(axis=1) / one.bytes_by_group.values[again].sum(axis=1)).std()
    error = float(found.cost_standard_error.sel(at))
    assert error == pytest.approx(spread, rel=0.1)
    assert error < 0.1 * float(one.cost_standard_error.sel(at)), "far below the quadrature"
    elsewhere = two.assign_coords(group=two.group + 1)
    elsewhere = elsewhere.isel(group=slice(1, None))
    loose = difference(one, elsewhere).cost_standard_error.sel(at)
    assert float(loose) > 10 * error
