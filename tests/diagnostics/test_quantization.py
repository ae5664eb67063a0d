"""What an artifact costs, by second routes, and planted defects that are found."""

import importlib
import math
import shutil
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.stats import entropy, norm, spearmanr

from workbench import plots, readings
from workbench import quantization as library
from workbench.diagnostics import (
    as_rows,
    culprits,
    diagnose,
    diagnostics,
    quantization,
    sample,
    save_diagnosis,
)
from workbench.diagnostics import effective_rank as effective_rank_of
from workbench.evaluation import open_run
from workbench.folder import InputError
from workbench.model import new_network, preset
from workbench.quantization import Codes, integer_grid, nearest
from workbench.result import check, open_tree, save
from workbench.text import frequency_deciles

module = importlib.import_module("workbench.diagnostics.quantization")
ROWS, LENGTH, VOCABULARY = 16, 12, 65
DECILE = frequency_deciles(np.random.default_rng(1).integers(0, 40, VOCABULARY))


@pytest.fixture(scope="module")
def network():
    found = new_network(preset("demo", n_layer=2, d_model=16, vocab_size=VOCABULARY), seed=0)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in found.parameters():
            parameter.normal_(0.0, 0.3, generator=generator)
    return found.eval()


@pytest.fixture(scope="module")
def rows(network):
    """Rows whose targets the model predicts first at every other position."""
    ids = torch.from_numpy(np.random.default_rng(5).integers(0, VOCABULARY, (ROWS, LENGTH + 1)))
    targets = ids[:, 1:].clone()
    with torch.no_grad():
        targets[:, ::2] = network(ids[:, :-1]).argmax(dim=-1)[:, ::2]
    targets[0, :3] = -1
    made = as_rows(ids[:, :-1], targets)
    classes = np.random.default_rng(2).integers(0, 8, len(made.bytes))
    sizes = np.random.default_rng(3).integers(1, 5, len(made.bytes)).astype(float)
    return replace(made, token_class=classes, bytes=sizes)


@pytest.fixture(scope="module")
def quantizer(network, rows):
    return library.quantizer(network, rows.inputs, torch.ones_like(rows.inputs, dtype=torch.bool))


@pytest.fixture(scope="module")
def tensors(quantizer):
    return quantizer.codes(step=0.05)


@pytest.fixture(scope="module")
def found(network, tensors, rows, quantizer):
    given = {"rows": rows, "bends": quantizer.bends, "decile": DECILE}
    return check(quantization(network, tensors, **given))


def nats(model, rows):
    """Return the loss of every scored target, in another way."""
    with torch.no_grad():
        logits = model(rows.inputs).double()
    losses = F.cross_entropy(
        logits.transpose(1, 2), rows.targets, reduction="none", ignore_index=-1
    )
    return losses[rows.targets >= 0].numpy()


def key_of(network, name):
    (weight,) = (each.weight for each in network.matrices() if each.name == name)
    (key,) = (key for key, each in network.named_parameters() if each is weight)
    return key, weight.detach()


def exact(network):
    """Every tensor as it is."""
    return {key: each.clone() for key, each in network.state_dict().items()}


@pytest.mark.parametrize("name", ["embedding", "block.1.value", "block.0.feedforward_out"])
def test_errors_and_codes_of_a_matrix_by_hand(network, tensors, quantizer, found, rows, name):
    key, weight = key_of(network, name)
    point, each, bend = found.sel(matrix=name), tensors[key], quantizer.bends[key]
    value = each.codes * each.grid.row_scale * each.grid.column_scale
    moved = (value - weight).double().numpy()
    outer, w = bend.input.numpy(), weight.double().numpy()
    assert float(point.weight_error) == pytest.approx(
        np.linalg.norm(moved) ** 2 / np.linalg.norm(w) ** 2, rel=1e-5
    )
    outputs = [np.trace(e @ outer @ e.T) for e in (moved, w)]
    assert float(point.output_error) == pytest.approx(outputs[0] / outputs[1], rel=1e-5)
    fisher = np.kron(np.diag(bend.output.numpy()), outer)
    cost = moved.ravel() @ fisher @ moved.ravel() / 2 * len(rows.bytes) / rows.bytes.sum()
    assert float(point.predicted_cost) == pytest.approx(cost / math.log(2), rel=1e-5)
    counts = np.unique(each.codes.numpy(), return_counts=True)[1]
    assert float(point.bits_per_weight) == pytest.approx(entropy(counts, base=2))
    assert float(point.zero) == float((each.codes == 0).double().mean()) and point.saturated == 0
    steps = each.grid.steps(w.shape[1]).double().numpy()
    up, down = (np.rint(w / steps + shift) for shift in (0.05, -0.05))
    assert float(point.fragile) == pytest.approx(np.mean(up != down))
    sigma = w.std(ddof=1)
    assert float(point.outlier_share) == np.mean(np.abs(w - w.mean()) > 4 * sigma)
    account = library.pack(network.config, tensors)[1]
    assert int(point.bytes) == account[key] and found.attrs["bytes"] == sum(account.values())


def test_costs_are_those_of_models_with_other_weights(network, tensors, rows, found):
    base = nats(network, rows)
    for name in ("embedding", "block.1.query"):
        key, _ = key_of(network, name)
        one = library.with_values(network, exact(network) | {key: tensors[key]})
        bits = (nats(one, rows) - base) / math.log(2)
        assert float(found.cost.sel(matrix=name)) == pytest.approx(
            bits.sum() / rows.bytes.sum(), abs=1e-6
        )
    whole = (nats(library.with_values(network, tensors), rows) - base) / math.log(2)
    assert float(found.cost_together) == pytest.approx(whole.sum() / rows.bytes.sum(), abs=1e-6)
    summed = float(found.cost.sum() + found.cost_rest)
    assert float(found.cost_summed) == pytest.approx(summed, abs=1e-12)
    assert float(found.residual) == pytest.approx(float(found.cost_together) - summed, abs=1e-12)
    again = np.random.default_rng(1).integers(0, ROWS, (20_000, ROWS))  # a bootstrap of the rows
    sums = [np.bincount(rows.group, each) for each in (whole, rows.bytes)]
    spread = (sums[0][again].sum(axis=1) / sums[1][again].sum(axis=1)).std()
    assert float(found.cost_together_standard_error) == pytest.approx(spread, rel=0.1)


def test_classes_and_deciles_sum_to_the_whole(found, rows, network, tensors):
    for name in ("cost_by_class", "cost_by_decile"):
        assert float(found[name].sum()) == pytest.approx(float(found.cost_together), abs=1e-12)
    bits = nats(library.with_values(network, tensors), rows) - nats(network, rows)
    rare = [DECILE[target] == 0 for target in rows.targets.flatten().tolist() if target >= 0]
    expected = bits[np.array(rare)].sum() / math.log(2) / rows.bytes.sum()
    assert float(found.cost_by_decile[0]) == pytest.approx(expected, abs=1e-6)


def test_the_scoreboard_is_spearmans(found, network):
    assert found.predictor.values.tolist()[-1] == "predicted_cost"
    ranks = effective_rank_of(network)
    for name in found.predictor.values:
        values = ranks[name] if name in ranks else found[name]
        expected = spearmanr(values, found.cost)
        point = found.sel(predictor=name)
        assert float(point.rho) == pytest.approx(expected.statistic)
        assert -1 <= point.rho_low < point.rho < point.rho_high <= 1 and point.matrices == 13
        z = np.arctanh(expected.statistic) + 1.96 * math.sqrt(1.06 / 10)
        assert float(point.rho_high) == pytest.approx(np.tanh(z), abs=1e-4)


def test_survival_by_a_loop(network, tensors, rows, found):
    with torch.no_grad():
        pair = [
            model(rows.inputs).double()
            for model in (network, library.with_values(network, tensors))
        ]
    margins, moves, lost, rare, same, divergence = [], [], [], [], 0, 0.0
    for row, column in np.argwhere(rows.targets.numpy() >= 0):
        target = int(rows.targets[row, column])
        z, other = pair[0][row, column], pair[1][row, column]
        rivals = [v for v in range(VOCABULARY) if v != target]
        rival = max(rivals, key=lambda v: z[v])
        margins.append(float(z[target] - z[rival]))
        moves.append(float(other[target] - other[rival]) - margins[-1])
        lost.append(int(other.argmax()) != target)
        rare.append(DECILE[target] == 0)
        same += int(z.argmax() == other.argmax())
        divergence += float(F.kl_div(other.log_softmax(0), z.softmax(0), reduction="sum"))
    n = len(margins)
    assert int(found.agreeing) == same and 0 < same < n == found.attrs["tokens"]
    assert float(found.divergence) == pytest.approx(divergence / n, rel=1e-4)
    noise = np.std(moves)
    assert float(found.noise[0]) == pytest.approx(noise, rel=1e-4)
    expected = np.zeros((2, 7, 3))
    for margin, gone, seldom in zip(margins, lost, rare, strict=True):
        if margin > 0:
            at = sum(margin / noise >= edge for edge in found.high.values)
            for part in range(1 + bool(seldom)):
                expected[part, at] += 1, gone, norm.sf(margin / noise)
    np.testing.assert_array_equal(found.kept_first, expected[..., 0])
    np.testing.assert_array_equal(found.flipped, expected[..., 1])
    met = expected[..., 0] > 0
    chance = expected[..., 2][met] / expected[..., 0][met]
    np.testing.assert_allclose(found.flip_predicted.values[met], chance, rtol=1e-4)
    assert np.isnan(found.flip_predicted.values[~met]).all()


def test_the_two_way_formula_is_calibrated_where_there_is_one_rival():
    draw = torch.Generator().manual_seed(0)
    before = torch.randn(400, 10, 2, generator=draw)
    after = before + 0.5 * torch.randn(400, 10, 2, generator=draw)
    targets = torch.randint(0, 2, (400, 10), generator=draw)
    rows = as_rows(torch.arange(4000).view(400, 10), targets)
    models = [partial(F.embedding, weight=z.view(-1, 2)) for z in (before, after)]
    found = module._survival(*models, rows, np.zeros(4000))
    n, p, lost = (found[name].values[0] for name in ("kept_first", "flip_predicted", "flipped"))
    assert (abs(lost - n * p) <= 3 * np.sqrt(n * p * (1 - p)) + 1).all() and lost.sum() > 200
    assert (found.kept_first[0] == found.kept_first[1]).all()


def test_nothing_changed_costs_nothing(network, rows, quantizer):
    given = {"rows": rows, "bends": quantizer.bends, "decile": DECILE}
    same = check(quantization(network, exact(network), **given))
    assert (
        float(abs(same.cost).max()) == 0 == float(same.cost_together) == float(same.flipped.sum())
    )
    assert int(same.agreeing) == same.attrs["tokens"] and float(same.divergence) == 0
    assert np.isnan(same.rho.sel(predictor=["kurtosis", "weight_error"])).all()
    assert (same.bits_per_weight >= 16).all() and np.isnan(same.fragile).all()
    assert (same.saturated == 0).all()
    assert "which is noise" in readings.quantization(same)
    for noun in ("quantized_tokens", "quantized_bytes", "survival", "predictors"):
        assert "nan" not in getattr(readings, noun)(same.fillna(0))
    assert plots.quantization(same).data and plots.survival(same).data


def test_a_matrix_that_is_clipped_is_saturated_and_pays(network, rows, quantizer, tensors, found):
    key, weight = key_of(network, "block.0.value")
    clipped = nearest(weight, integer_grid(weight, bits=4, clip=0.1))
    given = {"rows": rows, "bends": quantizer.bends, "decile": DECILE}
    planted = quantization(network, {**tensors, key: clipped}, **given)
    assert float(planted.saturated.sel(matrix="block.0.value")) > 0.5
    for name in ("cost", "predicted_cost", "weight_error"):
        rise = abs(planted[name] / found[name]).values
        others = np.delete(rise, found.matrix.values.tolist().index("block.0.value"))
        assert rise.max() > 1.4 and others == pytest.approx(1.0), name
    assert abs(planted.cost).max() > 5 * abs(found.cost.sel(matrix="block.0.value"))


def scrambled(each):
    """Put the codes of a matrix elsewhere."""
    order = torch.randperm(each.codes.numel(), generator=torch.Generator().manual_seed(0))
    return Codes(codes=each.codes.flatten()[order].view_as(each.codes), grid=each.grid)


def too_large(each):
    """Read a matrix back four times as large."""
    return Codes(codes=each.codes, grid=replace(each.grid, row_scale=4 * each.grid.row_scale))


@pytest.mark.parametrize("defect", [scrambled, too_large])
@pytest.mark.parametrize("name", ["embedding", "block.0.feedforward_in", "block.1.attention_out"])
def test_a_broken_matrix_is_the_culprit_and_its_healthy_twin_is_not(
    network, rows, quantizer, name, defect
):
    healthy = quantizer.codes(step=0.002)
    key, _ = key_of(network, name)
    found = check(culprits(network, {**healthy, key: defect(healthy[key])}, rows=rows))
    assert found.part.values.tolist() == [name]
    assert found.attrs["cost"] > 0.1 > 0.01 >= found.attrs["cost_left"] == found.cost_left[-1]
    assert found.attrs["passes"] <= 20
    fine = culprits(network, healthy, rows=rows)
    assert fine.sizes["part"] == 0 and fine.attrs["passes"] == 2
    assert fine.attrs["cost"] == fine.attrs["cost_left"] <= 0.01


def test_two_broken_tensors_are_both_found_even_where_one_hides_the_other(network, rows, quantizer):
    healthy = dict(quantizer.codes(step=0.002))
    keys = [key_of(network, name)[0] for name in ("block.0.feedforward_out", "block.1.value")]
    broken = healthy | {key: scrambled(healthy[key]) for key in keys}
    found = culprits(network, broken, rows=rows)
    assert set(found.part.values) == {"block.0.feedforward_out", "block.1.value"}
    assert found.attrs["cost_left"] <= 0.01
    scalar = healthy | {"value_residual.alpha": healthy["value_residual.alpha"] + 40}
    assert culprits(network, scalar, rows=rows).part.values.tolist() == ["value_residual.alpha"]


def test_an_artifact_that_is_coarse_all_over_has_no_culprit(network, rows, quantizer):
    found = culprits(network, quantizer.codes(step=0.05), rows=rows)
    assert found.attrs["cost"] > 0.05 and found.sizes["part"] == 0
    assert found.attrs["cost_left"] == found.attrs["cost"]
    lenient = culprits(network, quantizer.codes(step=0.05), rows=rows, healthy=5.0)
    assert lenient.attrs["passes"] == 2


def test_it_is_measured_where_there_is_an_artifact_of_these_weights(tiny_run, tmp_path):
    run = open_run(shutil.copytree(tiny_run.path, tmp_path / "run"))
    assert "quantize RUN" in diagnostics()["quantization"].missing(sample(run))
    with pytest.raises(InputError, match="no artifact: python -m workbench quantize RUN"):
        diagnose(run, only=["quantization"])
    save_diagnosis(run, diagnose(run, only=["effective_rank"]))  # kept, though this comes later
    rows, scored = library.training_rows(run.data.train, sequence_length=16, n_row=16)
    made = library.quantizer(run.model, rows, scored).codes(step=0.01)
    path = run.folder.path / "artifact.wba"
    library.write_artifact(run.model.config, made, path)
    before = {name: each.clone() for name, each in run.model.state_dict().items()}
    measured = diagnose(run, only=["quantization"])["quantization"]
    assert all(torch.equal(before[name], each) for name, each in run.model.state_dict().items())
    assert measured.attrs["artifact"] == path.read_bytes()[-16:].hex()
    save({"quantization": measured}, tmp_path / "d.nc", provenance={})
    again = open_tree(tmp_path / "d.nc")["quantization"].to_dataset()
    assert again.equals(measured) and again.sizes["matrix"] == 13
    kept = open_tree(save_diagnosis(run, {"quantization": measured})).children
    assert set(kept) == {"effective_rank", "quantization"}
    whole = sample(run)
    assert set(whole.quantized[1]) == set(before)
    run.folder.update(artifact="a", artifacts={"a": {"weights": "of another model"}})
    assert sample(run).artifact is None
    run.folder.update(artifacts={"a": {"weights": run.folder.weights()}})
    assert sample(run).artifact == path
