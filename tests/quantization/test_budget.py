"""A budget is met, what is forecast is what is coded, and text to calibrate on is what it says."""

import copy
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from workbench.folder import InputError
from workbench.model import new_network, preset
from workbench.quantization import (
    Codes,
    coded_bytes,
    curvature,
    gaussian_bytes,
    integer_grid,
    nearest,
    own_rows,
    pack,
    quantizer,
    training_rows,
    with_values,
)
from workbench.quantization.artifact import unpack
from workbench.quantization.budget import highest
from workbench.text import Tokens


@pytest.fixture(scope="module")
def made(tiny_network_shared):
    ids = torch.randint(0, 257, (40, 16), generator=torch.Generator().manual_seed(0))
    return quantizer(tiny_network_shared, ids, torch.ones_like(ids, dtype=torch.bool))


@given(at=st.floats(-8, 2), power=st.floats(0.5, 3), start=st.floats(-19, 1))
def test_the_highest_argument_is_found(at, power, start):
    most = 2 ** (power * at)
    found = highest(lambda x: 2 ** (power * x), most, start=start, slope=1.0, tolerance=0.02)
    assert found is not None and found <= at + 1e-9
    assert 2 ** (power * found) >= 0.9 * most


def test_nothing_low_enough_is_none():
    assert highest(lambda x: 5.0, 4.0, start=0.0, slope=1.0) is None


def test_a_gap_is_met_by_the_coarsest_step_that_keeps_it(made):
    ids = torch.randint(0, 257, (8, 16), generator=torch.Generator().manual_seed(3))
    with torch.inference_mode():
        exact = made.model(ids).log_softmax(dim=-1)

    def cost(model):
        with torch.inference_mode():
            other = model(ids).log_softmax(dim=-1)
        return float((exact.exp() * (exact - other)).sum(dim=-1).mean())

    step = made.costing(0.01, cost)
    assert 0.008 < cost(with_values(made.model, made.codes(step))) <= 0.01
    with pytest.raises(InputError, match="gap"):
        made.costing(1e-3, lambda model: 1.0)


@pytest.mark.parametrize("step", [0.02, 0.002])
def test_coded_bytes_are_what_the_coder_takes(made, step):
    tensors = made.codes(step)
    packed = len(pack(made.model.config, tensors)[0])
    assert coded_bytes(tensors) == pytest.approx(packed, rel=0.04)  # of a file of a few kB


@pytest.mark.parametrize(("bits", "deviations"), [(6, 12.85), (8, 20.0), (8, None), (4, None)])
def test_bytes_are_known_from_shapes(bits, deviations):
    config = preset("demo", n_layer=2, d_model=64, vocab_size=300)
    network = new_network(config, seed=0)
    with torch.no_grad():
        for each in network.parameters():
            each.normal_(generator=torch.Generator().manual_seed(each.numel()))
    grids = {
        name: nearest(each, integer_grid(each, bits=bits, deviations=deviations))
        if each.ndim == 2
        else each.half().float()
        for name, each in network.state_dict().items()
    }
    packed = len(pack(config, grids)[0])
    assert gaussian_bytes(config, bits=bits, deviations=deviations) == pytest.approx(
        packed, rel=0.02
    )


def test_a_blind_spot_of_the_calibration_is_told(made):
    told = made.conditioning()
    assert set(told.matrix.values) == set(made.bends)
    assert (told.condition_number > 1).all() and (told.dead_inputs == 0).all()
    per_input = told.tokens_per_input.sel(matrix="blocks.0.attn.c_q.weight")
    assert float(per_input) == 640 / 16


def test_padding_and_what_is_not_scored_leave_no_trace(tiny_network_shared):
    """Rows padded to any width, with anything, give the curvature of the rows alone."""
    ids = torch.randint(0, 257, (12, 10), generator=torch.Generator().manual_seed(5))
    alone = curvature(tiny_network_shared, ids)
    padded = torch.cat([ids, torch.full((12, 6), 7)], dim=1)
    counted = torch.arange(16).expand(12, 16) < 10
    beside = curvature(tiny_network_shared, padded, scored=counted)
    for name, bend in alone.items():
        assert beside[name].tokens == bend.tokens == 120
        torch.testing.assert_close(beside[name].input, bend.input, rtol=1e-4, atol=1e-7)
        torch.testing.assert_close(beside[name].output, bend.output, rtol=1e-4, atol=1e-9)


def test_training_rows_are_text_of_the_split_and_records_are_whole():
    stream = Tokens(ids=np.arange(500, dtype=np.int32), starts=np.array([0, 200]))
    rows, scored = training_rows(stream, sequence_length=20, n_row=7)
    assert rows.shape == (7, 20) and scored.all()
    assert (rows.diff(dim=1) == 1).all() and len(rows[:, 0].unique()) > 3
    again, _ = training_rows(stream, sequence_length=20, n_row=7)
    assert torch.equal(rows, again)
    answers = np.tile([False, False, True], 4)
    records = Tokens(
        ids=np.arange(12, dtype=np.int32), starts=np.array([0, 3, 6, 9]), answers=answers
    )
    rows, scored = training_rows(records, sequence_length=5, n_row=3)
    assert rows.shape == (3, 5) and scored.sum(dim=1).tolist() == [1, 1, 1]
    assert (rows[scored] % 3 == 1).all()  # the token before each answer


def test_own_rows_are_what_the_model_finds_likely(tiny_network_shared):
    rows, scored = own_rows(tiny_network_shared, first=3, n_id=200, sequence_length=12, n_row=50)
    assert rows.shape == (50, 12) and scored.all() and (rows[:, 0] == 3).all()
    assert int(rows.max()) < 200
    with torch.inference_mode():
        p = tiny_network_shared(rows[:, :-1]).log_softmax(dim=-1)
    own = -p.gather(-1, rows[:, 1:, None]).mean()
    assert float(own) < math.log(257), "likelier than chance to the model that wrote them"


def test_halves_share_nothing_and_lose_nothing():
    ids = np.arange(100, dtype=np.int32)
    several = Tokens(ids=ids, starts=np.array([0, 10, 40, 90]))
    one, two = several.halves()
    assert sorted([*one.ids, *two.ids]) == list(ids)
    assert one.ids.tolist() == [*range(40, 90)], "the longest alone, the others together"
    assert two.starts.tolist() == [0, 10, 40]
    cut, rest = several.halves(least=51)
    assert np.array_equal(np.concatenate([cut.ids, rest.ids]), ids)
    grouped = Tokens(
        ids=ids, starts=np.array([0, 10, 40, 90]), groups=np.array([5, 8, 5, 8]), answers=ids > 50
    )
    one, two = grouped.halves()
    assert one.groups.tolist() == [5, 5] or one.groups.tolist() == [8, 8]
    assert set(one.groups) != set(two.groups) and np.array_equal(one.answers, one.ids > 50)
    together = Tokens(ids=ids, starts=np.array([0, 10, 40, 90]), groups=np.array([5, 5, 5, 5]))
    assert sum(half.n_document for half in together.halves()) == 4
    first, second = Tokens(ids=ids, starts=np.array([0])).halves()
    assert np.array_equal(np.concatenate([first.ids, second.ids]), ids)


@pytest.mark.parametrize("name", ["blocks.0.mlp.fc.weight", "blocks.1.mlp.proj.weight"])
def test_where_few_positions_are_scored_a_cost_is_still_foretold(tiny_network_shared, name):
    """Only the last of sixteen: a small change of a matrix costs the divergence it makes there."""
    model = tiny_network_shared
    ids = torch.randint(0, 257, (300, 16), generator=torch.Generator().manual_seed(1))
    scored = torch.arange(16).expand(300, 16) == 15
    bend = curvature(model, ids, scored=scored)[name]
    weight = model.state_dict()[name]
    change = 0.01 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(2))
    moved = with_values(model, {**model.state_dict(), name: weight + change})
    with torch.inference_mode():
        p, q = (each(ids)[:, -1].log_softmax(dim=-1) for each in (model, moved))
    found = float((p.exp() * (p - q)).sum(dim=-1).mean())
    assert bend.cost(change) == pytest.approx(found, rel=0.6)


def test_what_the_loss_does_not_feel_takes_no_bits_and_breaks_nothing(tiny_network_shared):
    silent = copy.deepcopy(tiny_network_shared)
    with torch.no_grad():
        silent.blocks[0].mlp_scale.zero_()
    ids = torch.randint(0, 257, (20, 16), generator=torch.Generator().manual_seed(1))
    tensors = quantizer(silent, ids, torch.ones_like(ids, dtype=torch.bool)).codes(0.01)
    assert (tensors["blocks.0.mlp.fc.weight"].codes == 0).all()
    again = unpack(pack(silent.config, tensors)[0])[1]
    assert all(bool(values(each).isfinite().all()) for each in again.values())


def values(each):
    return each.values() if isinstance(each, Codes) else each


@pytest.mark.parametrize("gap", [0.0, -0.1, float("nan")])
def test_a_gap_that_is_none_is_refused(made, gap):
    with pytest.raises(InputError, match="positive number"):
        made.costing(gap, lambda model: 0.0)
