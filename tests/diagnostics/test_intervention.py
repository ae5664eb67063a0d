import copy

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from workbench.diagnostics import (
    Intervention,
    Trial,
    as_rows,
    fixed,
    intervention_cost,
    sample,
    scaled,
    site_means,
    targets,
    together,
    trial,
)
from workbench.folder import InputError
from workbench.model import record
from workbench.result import check
from workbench.text import IGNORED

ROWS, LENGTH = 12, 10


def made_rows(seed=3, *, padded=True):
    """Rows whose last ones are padded on the right, with a class and a size for every target."""
    rng = np.random.default_rng(seed)
    ids = torch.from_numpy(rng.integers(0, 257, (ROWS, LENGTH + 1)))
    inputs, wanted = ids[:, :-1].clone(), ids[:, 1:].clone()
    present = torch.ones_like(inputs, dtype=torch.bool)
    if padded:
        present[ROWS // 2 :, 6:] = False
        wanted[ROWS // 2 :, 5:] = IGNORED
    rows = as_rows(inputs, wanted, present=present)
    n = len(rows.bytes)
    own = {"token_class": rng.integers(0, 8, n), "bytes": rng.integers(1, 5, n).astype(float)}
    return type(rows)(**(vars(rows) | own))


def bits_of(model, rows):
    """Score row by row with another loss function."""
    found = []
    with torch.no_grad():
        for x, y in zip(rows.inputs, rows.targets, strict=True):
            loss = F.cross_entropy(
                model(x[None])[0].double(), y, ignore_index=IGNORED, reduction="none"
            )
            found.append(loss[y != IGNORED])
    return torch.cat(found).numpy() / np.log(2)


def edited(model, change):
    twin = copy.deepcopy(model)
    with torch.no_grad():
        change(twin)
    return twin


def state_of(model):
    return {name: value.clone() for name, value in model.state_dict().items()}


BY_HAND = {  # name and how: the same in the weights
    ("visit.1.attention", "zero"): lambda m: m.blocks[1].attn.proj.weight.zero_(),
    ("visit.0.feedforward_in", "zero"): lambda m: m.blocks[0].mlp.proj.weight.zero_(),
    ("visit.0.head.2", "zero"): lambda m: m.blocks[0].attn.proj.weight[:, 8:12].zero_(),
    ("visit.1.head.1", 0.3): lambda m: m.blocks[1].attn.proj.weight[:, 4:8].mul_(0.3),
    ("visit.1.query", 1.5): lambda m: m.blocks[1].attn.q_gain.mul_(1.5),
    ("visit.1.block", 0.5): lambda m: (
        m.blocks[1].attn_scale.mul_(0.5),
        m.blocks[1].mlp_scale.mul_(0.5),
    ),
    ("visit.1", "zero"): lambda m: (m.blocks[1].attn_scale.zero_(), m.blocks[1].mlp_scale.zero_()),
    ("blocks.1.attn.q_gain.3", 2.0): lambda m: m.blocks[1].attn.q_gain[3:].mul_(2.0),
    ("value_residual.alpha.0", "zero"): lambda m: m.value_residual.alpha.zero_(),
    ("skip_weights", 0.25): lambda m: m.skip_weights.mul_(0.25),
    ("blocks.0.mlp_scale", "mean"): lambda m: m.blocks[0].mlp_scale.fill_(
        m.blocks[0].mlp_scale.mean()
    ),
}


@pytest.mark.parametrize(("target", "how"), BY_HAND, ids=lambda each: str(each))
def test_cost_is_that_of_the_hand_edited_model(tiny_network, target, how):
    rows, before = made_rows(), state_of(tiny_network)
    found = check(Trial(model=tiny_network, rows=rows).cost(target, [how]))
    twin = edited(tiny_network, BY_HAND[target, how])
    expected = (bits_of(twin, rows) - bits_of(tiny_network, rows)).sum() / rows.bytes.sum()
    assert float(found.cost[0]) == pytest.approx(expected, abs=2e-6)
    assert abs(expected) > 1e-5, "else the comparison says nothing"
    assert all(torch.equal(before[name], each) for name, each in state_of(tiny_network).items())
    assert tiny_network.tap("logits", rows.inputs) is rows.inputs, "nothing watches it any more"


def test_classes_sum_to_the_cost_and_padding_does_not_count(tiny_network):
    rows = made_rows()
    found = Trial(model=tiny_network, rows=rows).cost("visit.0", ["mean", "zero", 0.5])
    np.testing.assert_allclose(found.cost_by_class.sum("token_class"), found.cost, atol=1e-12)
    longer = vars(rows) | {"inputs": rows.inputs.where(rows.present, 7)}
    other = Trial(model=tiny_network, rows=type(rows)(**longer)).cost(
        "visit.0", ["mean", "zero", 0.5]
    )
    np.testing.assert_allclose(other.cost, found.cost, atol=1e-6)


def test_paired_errors_are_those_of_a_bootstrap_over_groups(tiny_network):
    rows = made_rows(padded=False)
    found = Trial(model=tiny_network, rows=rows).cost("visit.1.attention", ["zero"])
    twin = edited(tiny_network, BY_HAND["visit.1.attention", "zero"])
    bits, rng = bits_of(twin, rows) - bits_of(tiny_network, rows), np.random.default_rng(0)
    picks = rng.integers(0, ROWS, (4000, ROWS))
    size = np.bincount(rows.group, rows.bytes)[picks].sum(axis=1)

    def spread(chosen):
        return np.std(np.bincount(rows.group, bits * chosen)[picks].sum(axis=1) / size)

    unbiased = np.sqrt(ROWS / (ROWS - 1))
    error = float(found.cost_standard_error[0])
    assert error == pytest.approx(unbiased * spread(np.ones_like(bits)), rel=0.06)
    error = float(found.cost_by_class_standard_error[0, 4])
    assert error == pytest.approx(unbiased * spread(rows.token_class == 4), rel=0.1)


def test_one_group_has_no_error(tiny_network):
    rows = made_rows()
    alone = type(rows)(**(vars(rows) | {"group": np.zeros_like(rows.group)}))
    found = intervention_cost(tiny_network, alone, [scaled("visit.0.value", 0.5)])
    assert np.isnan(found.cost_standard_error).all() and np.isfinite(found.cost).all()


def test_scaling_by_one_costs_exactly_nothing(tiny_network):
    tried = Trial(model=tiny_network, rows=made_rows())
    for target in ("visit.0", "visit.1.head.0", "visit.1.value", "final_norm", "skip_weights"):
        found = tried.cost(target, [1.0])
        assert float(found.cost[0]) == 0 == float(found.cost_standard_error[0])


def test_means_are_over_present_positions_and_take_their_place(tiny_network):
    rows = made_rows()
    means = site_means(tiny_network, rows, ["visit.0.attention_out", "visit.1.head_out"])
    with torch.no_grad(), record(tiny_network, list(means)) as seen:
        tiny_network(rows.inputs)
    at = [(b, t) for b in range(ROWS) for t in range(LENGTH) if rows.present[b, t]]
    flat = np.mean([seen["visit.0.attention_out"][b, t].double().numpy() for b, t in at], axis=0)
    heads = np.mean([seen["visit.1.head_out"][b, :, t].double().numpy() for b, t in at], axis=0)
    np.testing.assert_allclose(means["visit.0.attention_out"], flat, atol=1e-12)
    np.testing.assert_allclose(means["visit.1.head_out"][:, 0], heads, atol=1e-12)
    change = fixed("visit.1.head_out", means["visit.1.head_out"], head=2)
    with record(tiny_network, ["visit.1.head_out"], replace=change.edits) as put, torch.no_grad():
        tiny_network(rows.inputs)
    np.testing.assert_allclose(put["visit.1.head_out"][3, 2, 5], heads[2], atol=1e-6)
    same = put["visit.1.head_out"][:, [0, 1, 3]] == seen["visit.1.head_out"][:, [0, 1, 3]]
    assert same.all(), "other heads are as they were"


def test_joined_interventions_act_at_once(tiny_network):
    rows = made_rows()
    gain = {"skip_weights": tiny_network.skip_weights.detach() * 0.25}
    both = together("both", [scaled("visit.1.query", 1.5), Intervention(name="", parameters=gain)])
    found = intervention_cost(tiny_network, rows, [both])
    twin = edited(
        tiny_network,
        lambda m: (BY_HAND["visit.1.query", 1.5](m), BY_HAND["skip_weights", 0.25](m)),
    )
    expected = (bits_of(twin, rows) - bits_of(tiny_network, rows)).sum() / rows.bytes.sum()
    assert float(found.cost[0]) == pytest.approx(expected, abs=2e-6)
    assert found.intervention.item() == "both"


def test_every_target_parses_every_way_and_says_its_name(tiny_network):
    tried = Trial(model=tiny_network, rows=made_rows())
    for target in targets(tiny_network):
        for how, said in (("mean", "to its mean"), ("zero", "x 0"), (0.5, "x 0.5")):
            made = tried.parse(target, how)
            assert made.name == f"{target} {said}"
            assert bool(made.edits) != bool(made.parameters)
    assert "value_residual.alpha.0" in targets(tiny_network)
    assert not any(name.endswith(".weight") for name in targets(tiny_network))


def test_unknown_names_are_refused_with_the_nearest(tiny_network):
    tried = Trial(model=tiny_network, rows=made_rows())
    with pytest.raises(InputError, match=r"visit\.1\.head\.1"):
        tried.parse("visit.1.heads.1", "mean")
    with pytest.raises(InputError, match="zero"):
        tried.parse("visit.1", "zeros")
    with pytest.raises(InputError, match=r"value_residual\.alpha"):
        tried.parse("value_residual.alpha.7", 0.5)


def test_two_trials_on_the_same_tokens_are_compared_token_by_token(tiny_network):
    rows = made_rows()
    twin = edited(tiny_network, lambda m: m.blocks[1].mlp_scale.mul_(1.1))
    mine, other = (Trial(model=model, rows=rows) for model in (tiny_network, twin))
    found = mine.cost("visit.0", ["mean", 0.5], other=other)
    parts = [each.cost("visit.0", ["mean", 0.5]) for each in (mine, other)]
    np.testing.assert_allclose(found.cost, parts[0].cost - parts[1].cost, atol=1e-12)
    apart = np.hypot(*(each.cost_standard_error for each in parts))
    assert (found.cost_standard_error < 0.8 * apart).all(), "pairing pays"
    assert found.attrs["compared"] == 1 and np.isnan(found.factor[0]) and found.factor[1] == 0.5
    assert (mine.cost("visit.0", [0.5], other=mine).cost_by_class == 0).all()
    elsewhere = mine.cost("visit.0", ["mean"], other=Trial(model=twin, rows=made_rows(4)))
    assert elsewhere.attrs["compared"] == 1
    assert float(elsewhere.cost_standard_error[0]) > 0.8 * float(apart[0]), "in quadrature"


def test_a_trial_of_a_run_uses_its_cached_rows(tiny_network, tiny_data):
    given = sample(tiny_network, tiny_data, sequence_length=16)
    tried = trial(given)
    assert tried.model is tiny_network and tried.rows is given.rows
