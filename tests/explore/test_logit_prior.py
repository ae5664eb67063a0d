"""The panel of predictions without a browser: choose a set, decide, slide, look inside."""

import shutil

import numpy as np
import pytest
from tiny_runs import trained

from workbench import explore, text
from workbench.diagnostics import diagnose, save_diagnosis, what_to_mend
from workbench.evaluation import open_run
from workbench.folder import InputError, find_run
from workbench.plots.by_run import by_run
from workbench.text import IGNORED

GROUPS = ["logit_prior", "damping", "unigram_prior", "logit_lens"]


def diagnosed(name, data, *, steps, **model):
    """Train a network of two blocks for a few updates and diagnose it."""
    run = trained(name, data, steps=steps, **model)
    opened = open_run(run.path)
    save_diagnosis(opened, diagnose(opened, only=GROUPS))
    return run.name


@pytest.fixture(scope="module")
def names(tiny_data):
    """Two runs on text, the second with more updates."""
    return diagnosed("margins-a", tiny_data, steps=4), diagnosed("margins-b", tiny_data, steps=8)


@pytest.fixture
def panel(names):
    return explore.logit_prior(names[0])


def test_panel_opens_on_the_saved_margins_and_a_decision(panel, names):
    margins, decision = panel.views
    assert (margins.plot, decision.plot) == ("logit_prior", "components")
    saved = explore.Subject(names[0]).group("logit_prior")
    np.testing.assert_array_equal(margins.data.margin, saved.margin)
    assert decision.data.attrs["decision"] in decision.sentence.lower()
    assert decision.data.attrs["failed"] == int((~saved.correct).sum())


def test_a_click_on_a_row_chooses_its_failed_predictions(panel):
    bars = panel._figures[0].data[0]
    assert bars.meta == {"sets": "chosen"} and len(bars.customdata) == len(bars.y)
    at = next(
        at for at, each in enumerate(bars.customdata) if each in panel.controls["chosen"].options
    )
    panel.controls["chosen"].value = bars.customdata[at]
    margins, decision = panel.views
    assert not margins.data.correct.values.any()
    assert set(margins.data.profile.values) == {bars.customdata[at]}
    assert decision.data.attrs["failed"] == margins.data.sizes["record"]


def test_sliders_answer_from_cached_states(panel):
    panel.controls["detail"].value = "what if"
    assert panel.table.sizes["setting"] == 6 and "setting" not in panel.table.attrs
    panel.controls["prior_kept"].value = 0.5
    first = panel.table
    assert first.attrs["setting"] == 6 and float(first.prior_kept[6]) == 0.5
    curve = first.isel(setting=np.flatnonzero(first.prior_kept[:6].values == 0.5))
    np.testing.assert_allclose(first.change[6], curve.change.item(), atol=1e-6)
    panel.controls["prior_kept"].value = 0.3
    assert panel.views[-1].data.attrs["setting"] == 6
    assert "Keeping 30% of the prior" in panel.views[-1].sentence


def test_components_of_a_typed_prompt_and_of_a_confusion(panel):
    panel.controls["detail"].value = "components"
    panel.controls["chosen"].value = "a typed prompt"
    panel.controls["words"].value = "a bad => face"
    margins, inside = panel.views
    assert margins.data.sizes["record"] == 1 and margins.sentence.startswith("Not able to judge")
    assert inside.data.attrs["worst_residual"] < 1e-4 * inside.data.attrs["logit_range"]
    assert "prompt='a bad', target='face'" in panel.code()
    panel.controls["words"].value = ""
    panel.controls["chosen"].value = "a confusion"
    data = panel.views[0].data
    assert len(set(data.winner_id.values)) == len(set(data.target_id.values)) == 1


def test_the_code_gives_the_numbers(panel):
    panel.controls["detail"].value = "components"
    scope = {}
    exec("from workbench import diagnostics, evaluation", scope)
    *lines, last = panel.code().splitlines()
    exec("\n".join(lines), scope)
    np.testing.assert_array_equal(scope["explained"].margin, panel.views[0].data.margin)
    found = eval(last, scope)
    np.testing.assert_allclose(found.contribution, panel.table.contribution, atol=1e-9)


@pytest.mark.parametrize(
    ("detail", "plot"), [("frequency", "unigram_prior"), ("logit lens", "logit_lens")]
)
def test_saved_details(panel, detail, plot):
    panel.controls["detail"].value = detail
    assert panel.views[-1].plot == plot and len(panel.views[-1].figure.data) > 0


def test_tokens_of_another_panel_are_handed_over(names):
    sample = explore.Subject(names[0]).sample
    offsets = sample.cut.offsets[sample.cut.targets != IGNORED][:20]
    panel = explore.logit_prior(names[0], tokens=offsets)
    assert panel.selection["chosen"] == "handed over"
    found = panel.views[0].data
    np.testing.assert_array_equal(found.target_id, sample.data.validation.ids[offsets])


def test_two_runs_are_compared_on_the_same_records(names):
    panel = explore.logit_prior(*names)
    margins, decision = panel.views
    pair = [explore.Subject(name).group("logit_prior") for name in names]
    for part in ("bias", "prior", "context"):
        expected = float((pair[0][part] - pair[1][part]).mean())
        assert float(margins.data["mean"].sel(component=part)) == pytest.approx(expected)
    assert margins.data.attrs["compared"] == 1 and "same predictions" in margins.sentence
    assert decision.data.run.values.tolist() == list(names)
    assert all(f"{name}: " in decision.sentence for name in names)
    panel.controls["show"].value = names[1]
    np.testing.assert_array_equal(panel.views[0].data.margin, pair[1].margin)


@pytest.mark.parametrize("detail", ["decision", "what if", "components", "frequency", "logit lens"])
def test_every_detail_shows_both_runs_as_each_is_alone(names, detail):
    both = explore.logit_prior(*names)
    both.controls["detail"].value = detail
    for name, (label, found) in zip(names, by_run(both.table), strict=True):
        one = both.look(show=name)[1].data
        assert label == name and len(both.views[1].figure.data) > 1
        for variable in one.drop_dims("record", errors="ignore").data_vars:
            np.testing.assert_array_equal(found[variable].values, one[variable].values)


def test_a_closed_world_with_a_planted_bias_is_mended_at_the_bias(names):
    data = text.open_data("closed-world", vocab_size=512)
    name = diagnosed("margins-world", data, steps=16, output_bias=True)
    opened = open_run(name)
    before = diagnose(opened, only=["logit_prior", "damping"])
    opened.model.lm_bias.data[data.tokenizer.pieces.index("of")] += 9.0
    save_diagnosis(opened, diagnose(opened, only=["logit_prior", "damping"]))
    panel = explore.logit_prior(name)
    assert panel.views[1].data.attrs["decision"] == "bias"
    assert panel.views[1].sentence.startswith("Mend the bias.")
    shutil.rmtree(find_run(name).path)
    healthy = what_to_mend(before["logit_prior"], before["damping"])
    assert healthy.attrs["decision"] != "bias"


def test_a_run_that_does_not_exist_is_named(names):
    with pytest.raises(InputError):
        explore.logit_prior("no-such-run")
