"""Probes of a network whose blocks recur see what they see in its unrolled twin."""

import numpy as np
import pytest
import torch
from recurrent_networks import BLOCKS, LOOP, looped, unrolled

from workbench import readings
from workbench.diagnostics import diagnose, diagnostics
from workbench.plots import value_residual
from workbench.quantization import curvature

BY_VISIT = ("ablation", "activation", "attention", "logit_lens", "residual", "value_residual")


@pytest.fixture(scope="module")
def pair():
    fields = {"vocab_size": 257, "d_model": 16, "recurrence": {**LOOP, "passes": 2}}
    network = looped(**fields).float().eval()
    return network, unrolled(network, list(range(6))).float().eval()


def test_every_visit_is_measured_as_in_the_twin(pair, tiny_data):
    found, theirs = (diagnose(each, tiny_data, only=BY_VISIT) for each in pair)
    assert set(found) == set(theirs) == set(BY_VISIT)
    for name in BY_VISIT:
        assert found[name].block.values.tolist() == [0, 1, 2, 1, 2, 3]
        for key, values in theirs[name].data_vars.items():
            own = found[name][key]
            if key == "gradient_share" or "reset" in key:
                continue  # of the parameters themselves, fewer here
            where = f"{name} {key}"
            if values.dtype.kind == "f":
                np.testing.assert_allclose(own, values, rtol=2e-3, atol=2e-4, err_msg=where)
            else:
                assert (own == values).all(), where
    said = readings.value_residual(found["value_residual"])
    assert "visit" in said
    labels = str(value_residual(found["value_residual"]).to_json())
    assert "visit 3 (block 1)" in labels and "visit 5 (block 3)" in labels


def test_everything_else_runs(pair, tiny_data):
    network, _ = pair
    found = diagnose(network, tiny_data)
    assert diagnostics().keys() - found.keys() == {"quantization", "routing_audit"}
    assert found["self_test"].passed.all()
    kinds = found["mixing"].set_index(scalar=["kind", "visit"]).scalar.values.tolist()
    assert {visit for kind, visit in kinds if kind == "skip_weights"} == {3, 4, 5}
    assert {visit for kind, visit in kinds if kind == "value_residual"} == {1, 2, 3, 4, 5}


def test_a_shared_matrix_bends_as_its_copies_do_together():
    network = looped().float().eval()
    twin = unrolled(network, list(range(8))).float().eval()
    rows = torch.randint(11, (64, 9), generator=torch.Generator().manual_seed(0))
    own, copies = curvature(network, rows), curvature(twin, rows)
    assert [BLOCKS.count(block) for block in range(4)] == [1, 3, 3, 1]
    for block in range(4):
        name = f"blocks.{block}.mlp.proj.weight"
        of = [copies[f"blocks.{i}.mlp.proj.weight"] for i in range(8) if BLOCKS[i] == block]
        inputs, outputs = torch.stack([c.input for c in of]), torch.stack([c.output for c in of])
        torch.testing.assert_close(own[name].input, inputs.mean(dim=0), rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(own[name].output, outputs.sum(dim=0), rtol=1e-3, atol=1e-9)
