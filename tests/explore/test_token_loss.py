"""The panel of losses: from class to token, and two runs, without a browser."""

import shutil

import pytest
import torch

from workbench import diagnostics, evaluation, explore
from workbench.folder import runs_root


@pytest.fixture(scope="module")
def diagnosed(tiny_run):
    """A copy of the tiny run with its losses diagnosed; and an earlier state of it."""
    names = f"{tiny_run.name}-last", f"{tiny_run.name}-early"
    for name in names:
        shutil.copytree(tiny_run.path, runs_root() / name)
    kept = sorted((runs_root() / names[1] / "checkpoints").glob("step-*.safetensors"))
    shutil.copy(kept[0], runs_root() / names[1] / "model.safetensors")
    for name in names:
        run = evaluation.open_run(name)
        diagnostics.save_diagnosis(run, diagnostics.diagnose(run, only=["token_loss"]))
    yield names
    for name in names:
        shutil.rmtree(runs_root() / name)


def test_it_goes_from_a_class_to_the_tokens_mistaken_alike(diagnosed):
    panel = explore.token_loss(diagnosed[0])
    assert (
        panel.controls["token_class"].value
        == panel.views[0].data.token_class.values[panel.views[0].data.excess.values.argmax()]
    )
    assert [view.plot for view in panel.views] == ["token_loss", "parts", "text_strip"]
    assert panel.table.offset.values.tolist() == list(range(1, 1 + panel.table.sizes["token"]))
    clickable = [trace for trace in panel.views[0].figure.data if trace.meta]
    assert {trace.meta["sets"] for trace in clickable} == {"token_class"}
    panel.controls["token"].value = 31
    ids = evaluation.open_run(diagnosed[0]).data.validation.ids
    table = panel.table
    assert int(table.offset[0]) == 31 and len(panel.views) == 6
    assert set(ids[table.offset]) == {ids[31]} and len(set(table.top1.values)) == 1
    panel.controls["token"].value = 0
    assert len(panel.views) == 3 and panel.views[2].sentence.endswith("why it was predicted.")


def click(panel, at, point):
    """Click a cell of the first clickable trace of a view."""
    trace = next(each for each in panel._figures[at].data if each.meta)
    panel._clicked(trace, type("Points", (), {"point_inds": [point]}), None)


def test_a_click_on_a_token_says_why_it_was_predicted_and_hands_it_over(diagnosed):
    panel = explore.token_loss(diagnosed[0])
    offset = int(panel.table.offset[3])
    click(panel, 2, (0, 3))
    assert panel.selection["token"] == offset
    why, inside = panel.views[3:5]
    assert "Click a token" not in panel.views[2].sentence
    states = diagnostics.chosen_states(
        sample := diagnostics.sample(evaluation.open_run(diagnosed[0])), offsets=[offset]
    )
    own = diagnostics.explain_chosen(sample, states).isel(record=0)
    for part in ("bias", "prior", "context"):
        assert float(why.data["mean"].sel(component=part)) == pytest.approx(float(own[part]))
    logits = sample.model(torch.tensor([states.contexts[0]]))[0, -1].detach()
    uncapped = sample.model.config.softcap * torch.atanh(logits / sample.model.config.softcap)
    margin = float(uncapped[int(own.winner_id)] - uncapped[int(own.rival_id)])
    assert float(why.data["mean"].sum()) == pytest.approx(margin, abs=1e-3)
    assert f"{margin:+.2f} nat" in why.sentence
    assert float(inside.data["mean"].sum()) == pytest.approx(margin, abs=1e-3)
    assert len(inside.figure.data[0].y) <= 14, "the largest parts, the others, the margin"
    click(panel, 2, (0, 5))
    assert panel.views[3].sentence != why.sentence
    handed = explore.logit_prior(diagnosed[0], tokens=panel.table)
    assert handed.controls["chosen"].value == "handed over"
    assert handed.views[0].data.sizes["record"] == panel.table.sizes["token"]
    panel.controls["token"].value = 10**8
    assert len(panel.views) == 3, "no such token"


@pytest.mark.parametrize("detail", ["confusions", "deciles", "calibration", "position_loss"])
def test_every_detail_has_a_figure_and_a_sentence(diagnosed, detail):
    panel = explore.token_loss(diagnosed[0])
    panel.controls["detail"].value = detail
    for kind in ("continuation", "digit", "control"):
        panel.controls["token_class"].value = kind
        view = panel.views[1]
        assert len(view.figure.data) and len(view.sentence) > 20 and "nan" not in view.sentence
        assert "None" not in view.sentence


def test_its_code_gives_its_numbers(diagnosed):
    panel = explore.token_loss(diagnosed[0])
    for view in panel.views:
        *setup, call = view.code.splitlines()
        scope = {"diagnostics": diagnostics, "evaluation": evaluation}
        exec("\n".join(setup), scope)
        found = eval(call, scope)
        for name in set(view.data) & set(found):
            assert found[name].broadcast_equals(view.data[name]) or "_by_" in name


def test_two_runs_differ_by_class_and_text(diagnosed):
    last, early = diagnosed
    panel = explore.token_loss(last, early)
    assert panel.selection["show"] == "difference"
    first = panel.views[0]
    scores = [evaluation.bits_per_byte(diagnostics.sample(evaluation.open_run(n)).table)
              for n in diagnosed]  # fmt: skip
    change = scores[0].bits_per_byte - scores[1].bits_per_byte
    assert float(first.data.excess.sum()) == pytest.approx(change)
    assert "it pays" in first.sentence and "by seed unknown" in first.sentence
    assert panel.table.attrs["reference"] == early
    assert first.sentence.startswith(f"{last} differs from {early} by -")
    assert panel.views[1].sentence.startswith(f"{last} less {early}: Most apart where")
    for detail in ("calibration", "position_loss"):
        panel.controls["detail"].value = detail
        assert panel.views[1].data.run.values.tolist() == [last, early]
        assert all(f"{name}: " in panel.views[1].sentence for name in diagnosed)
    panel.controls["detail"].value = "deciles"
    assert "Most apart in" in panel.views[1].sentence
    panel.controls["token"].value = 31
    for view in panel.views[3:5]:
        assert view.data.run.values.tolist() == [last, early]
        assert [bars.name for bars in view.figure.data] == [last, early]
    panel.controls["token"].value = 0
    panel.controls["show"].value = early
    assert "counting" in panel.table.attrs["reference"]
    assert panel.views[0].sentence != first.sentence
