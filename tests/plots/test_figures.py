"""Figures are read as data: traces, values, titles, and what token text may not do."""

import json
import re

import numpy as np
import plotly.graph_objects as go
import plotly.io as pio
import pytest
import xarray as xr

from workbench import plots
from workbench.plots.profile_targets import cell_names
from workbench.plots.routing_audit import worst_first
from workbench.plots.style import escaped, hover, rounded, token
from workbench.plots.training import MOST
from workbench.result import difference, variable

NOUNS = ("effective_rank", "logit_prior", "routing_audit", "token_loss", "training")
NOUNS += ("value_residual",)  # what the makers in conftest.py make
HOSTILE = ["<script>alert(1)</script>", "<b>bold</b>", "$x^2$", " the", "\n", "\x1b[31m", "%{x}"]


def named(figure: go.Figure, name: str) -> go.Scatter:
    """Return the first trace of that name."""
    return next(trace for trace in figure.data if trace.name == name)


def axis_texts(figure: go.Figure) -> list[str]:
    """Return the titles of all axes that show numbers."""
    axes = [figure.layout[key] for key in figure.layout if re.fullmatch("[xy]axis[0-9]*", key)]
    return [
        axis.title.text for axis in axes if axis.type != "category" and axis.visible is not False
    ]


@pytest.mark.parametrize("planted", [False, True])
@pytest.mark.parametrize("noun", NOUNS)
def test_figure_is_complete_plain_and_the_same_twice(synthetic, noun, planted):
    settings = {"schedule": "never" if planted else "healthy"}
    settings = settings if noun == "training" else {"planted": planted}
    made = synthetic[noun](**settings)
    before = made.copy(deep=True) if isinstance(made, xr.Dataset) else list(made)
    figure = getattr(plots, noun)(made)
    text = figure.to_json()
    assert type(figure) is go.Figure and len(figure.data) > 0
    assert text == getattr(plots, noun)(synthetic[noun](**settings)).to_json()
    assert "bdata" not in text and "uid" not in text, "plain lists only, no random ids"
    assert len(text) < 100_000
    assert figure.layout.height >= 200
    assert figure.layout.paper_bgcolor is None and figure.layout.template.layout.paper_bgcolor
    if isinstance(made, xr.Dataset):
        xr.testing.assert_identical(before, made)


def test_look_is_never_set_globally(synthetic):
    before = pio.templates.default
    plots.token_loss(synthetic["token_loss"]())
    assert pio.templates.default == before


@pytest.mark.parametrize("noun", NOUNS)
def test_every_number_axis_has_a_name_and_a_unit(synthetic, noun):
    figure = getattr(plots, noun)(synthetic[noun]())
    titles = axis_texts(figure) or [figure.layout.annotations[0].text]
    shown = [title for title in titles if title]
    assert shown
    assert all(re.search(r"\w.* \[(1|nat|bit/byte|nat/token)\]", title) for title in shown)


def test_effective_rank_cells_are_the_ratios(synthetic):
    ds = synthetic["effective_rank"](planted=True)
    figure = plots.effective_rank(ds)
    (inside,) = figure.data
    assert list(inside.y) == ["outside", "block 0", "block 1", "block 2", "block 3"]
    for index in range(ds.sizes["matrix"]):
        point = ds.isel(matrix=index)
        if int(point.block) >= 0:
            column = list(inside.x).index(str(point.role.item()))
            value = inside.z[1 + int(point.block)][column]
            assert value == pytest.approx(float(point.effective_rank_ratio), rel=1e-3)
            assert inside.customdata[1 + int(point.block)][column] == point.matrix.item()
    assert inside.text[3][list(inside.x).index("feedforward_out")] == "0.31"
    assert list(inside.text[0][:3]) == ["embedding 0.85", "head 0.92", ""]
    assert "(128 x 128)" in inside.hovertext[0][0]
    scale = figure.layout.coloraxis
    assert scale.cmax - 1 == pytest.approx(1 - scale.cmin), "symmetric around random weights"


def test_effective_rank_course_is_the_median_over_blocks(synthetic):
    ds = synthetic["effective_rank"](steps=[0, 50, 100])
    figure = plots.effective_rank(ds)
    assert len(figure.data) == 1 + 8
    ratios = ds.effective_rank_ratio.values[:, ds.role.values == "key"]
    expected = [np.median(row) for row in ratios]
    np.testing.assert_allclose(named(figure, "key").y, expected, rtol=1e-3)
    assert figure.data[0].z[1][1] == pytest.approx(float(ratios[-1, 0]), rel=1e-3), "last step"


def test_effective_rank_of_one_cell_is_the_lowest_of_its_matrices(synthetic):
    ds = synthetic["effective_rank"]()
    ds["role"] = ds.role.astype(object).where(ds.role != "value", "key")
    figure = plots.effective_rank(ds)
    both = ds.effective_rank_ratio.values[(ds.block.values == 1) & (ds.role.values == "key")]
    column = list(figure.data[0].x).index("key")
    assert figure.data[0].z[2][column] == pytest.approx(both.min(), rel=1e-3)
    assert figure.data[0].hovertext[2][column].count("<b>") == 2


def test_effective_rank_without_optional_facts_or_blocks(synthetic):
    ds = synthetic["effective_rank"]()[["effective_rank", "effective_rank_ratio"]]
    bare = ds.drop_vars(["rows", "columns"])
    assert len(plots.effective_rank(bare).data[0].y) == 5
    assert plots.effective_rank(bare.isel(matrix=[0, -1])).data[0].y == ("outside",)
    assert len(plots.effective_rank(bare.isel(matrix=slice(1, -1))).data[0].y) == 4
    gap = bare.copy(deep=True)
    gap.effective_rank_ratio[1] = np.nan
    figure = plots.effective_rank(gap)
    assert figure.data[0].z[1][0] is None and figure.data[0].text[1][0] == ""


def test_value_residual_shows_every_mixed_visit_and_no_other(synthetic):
    ds = synthetic["value_residual"]()
    figure = plots.value_residual(ds)
    lines = [trace for trace in figure.data if isinstance(trace, go.Scatter)]
    assert [line.name for line in lines[:5]] == [f"visit {visit}" for visit in range(1, 6)]
    np.testing.assert_allclose(lines[2].y, ds.alpha_effective[:, 3], rtol=1e-3)
    bars = next(trace for trace in figure.data if isinstance(trace, go.Bar))
    np.testing.assert_allclose(bars.x, ds.contribution_share[-1, 1:], rtol=1e-3)
    assert [line.line.color for line in lines[:5]] == list(bars.marker.color)
    diamonds = named(figure, "signed projection on the mixed value (the number is the bar)")
    np.testing.assert_allclose(diamonds.x, ds.contribution[-1, 1:], rtol=1e-3)
    assert "gradient share" in bars.hovertext[0]


def test_value_residual_of_one_step_and_of_a_looped_block(synthetic):
    ds = synthetic["value_residual"](n_step=1).drop_vars("contribution")
    ds["block"] = ("visit", [0, 1, 0, 1, 0, 1])
    for each in (ds, ds.isel(step=0, drop=True)):
        figure = plots.value_residual(each)
        assert [type(trace) for trace in figure.data] == [go.Bar, go.Bar, go.Scatter]
        assert figure.data[2].text[0].endswith("0.38")
        assert figure.data[0].y[1] == "visit 2 (block 0)"
        np.testing.assert_allclose(figure.data[0].x, ds.alpha_effective[0, 1:], rtol=1e-3)
    ds.alpha_effective[:] = np.nan
    assert all(len(trace.y) == 0 for trace in plots.value_residual(ds).data)


def test_logit_prior_parts_add_up_to_the_margin(synthetic):
    figure = plots.logit_prior(synthetic["logit_prior"](planted=True))
    parts = np.sum([named(figure, part).x for part in ("bias", "prior", "context")], axis=0)
    np.testing.assert_allclose(parts, named(figure, "margin").x, atol=2e-3)
    assert named(figure, "bias").y[0].startswith("owner"), "the planted profile comes first"
    verdicts = [trace for trace in figure.data[4:] if trace.x[0]]
    assert [(trace.name, trace.text[0]) for trace in verdicts] == [("bias", "20")]


def test_logit_prior_rows_are_records_when_few_and_winners_in_one_profile(synthetic):
    few = plots.logit_prior(synthetic["logit_prior"](records=4))
    assert len(few.data[0].y) == 4 and few.data[-1].text[0] == "context"
    many = synthetic["logit_prior"](records=60).drop_vars(["profile", "correct"])
    rows = plots.logit_prior(many).data[0].y
    assert sorted(rows) == [
        f"'{mark}{word}' wins  (n 20)"
        for mark, word in zip("\u2423" * 3, ["a", "mia", "n"], strict=True)
    ]


def test_routing_audit_stops_at_the_first_red_check(synthetic):
    ds = synthetic["routing_audit"](planted=True)
    (heat,) = plots.routing_audit(ds).data
    assert [label.split()[0] for label in heat.y] == list(worst_first(ds).profile.values)
    assert heat.y[0] == "owner  (0/5 owned, n 24)" and heat.y[1].startswith("color  (1/4 owned")
    assert list(heat.text[0]) == ["ok", "ok", "RED: trunk", "-", "-", "-", "-"]
    assert list(heat.z[0]) == [0, 0, 1, 3, 3, 3, 3] and heat.text[1][6] == "RED"
    assert set(heat.text[4]) == {"?"}, "one target: not able to judge"
    assert "&lt;b&gt;n" in heat.hovertext[0][0]
    healthy = plots.routing_audit(synthetic["routing_audit"]()).data[0]
    assert "RED" not in str(healthy.text)
    old = ds.drop_dims("rung").drop_vars("localised")
    assert set(plots.routing_audit(old).data[0].text[0]) == {"-"}, "a diagnosis without a ladder"


def test_routing_audit_of_two_runs_draws_differences_with_errors(synthetic):
    mine, other = synthetic["routing_audit"](), synthetic["routing_audit"](planted=True)
    for ds in (mine, other):
        ds["accuracy_standard_error"] = variable("profile", [0.03] * 5, "standard error")
    accuracy, owned = plots.routing_audit(difference(mine, other)).data
    assert accuracy.x[2] == 1.0 and owned.x[1] == 0.75
    assert accuracy.error_x.array[0] == pytest.approx(2 * 0.03 * 2**0.5, rel=1e-3)


def test_profile_targets_separates_owned_from_merely_covered(synthetic):
    ds = synthetic["routing_audit"](planted=True)
    (heat,) = plots.profile_targets(ds).data
    color = list(heat.y).index("color")
    assert sorted(heat.z[color][:4]) == [0, 2, 2, 2], "one owned, three only elsewhere"
    assert heat.z[color][4] is None, "the others have more targets"
    assert heat.text[color][3] == "'\u2423a'<br>4/4" and heat.customdata[color][3] == "color:  a"
    assert heat.meta == {"sets": "cell"}
    names = cell_names(ds)
    assert names[heat.customdata[0][0]][0] == "owner"
    assert set(names) == {name for row in heat.customdata for name in row if name}


def test_checkpoints_mark_what_is_below_the_floor(synthetic):
    (heat,) = plots.checkpoints(synthetic["routing_audit"](planted=True)).data
    assert list(heat.text[2]) == ["0/5", "0/5", "0/5!"] and heat.z[2][2] == 3
    assert heat.meta == {"sets": "step"} and list(heat.customdata[0]) == [0, 50, 100]
    (heat,) = plots.checkpoints(synthetic["routing_audit"]()).data
    assert "!" not in str(heat.text) and list(heat.text[0]) == ["0/4", "2/4", "4/4"]


def test_routing_records_lists_what_each_prompt_gets(synthetic):
    (table,) = plots.routing_records(synthetic["routing_records"](planted=True)).data
    columns = table.cells["values"]
    assert len(columns[0]) == 6 and "&lt;b&gt;it&lt;/b&gt;" in columns[0][0]
    assert columns[1][0] == "'\u2423n'" and columns[2][0] == "0.300" and columns[3][0] == "-0.200"
    assert columns[5][0].count(",") == 4 and "<i>" not in columns[5][0]


def test_token_loss_sorts_classes_by_contribution_and_leaves_out_absent_ones(synthetic):
    ds = synthetic["token_loss"](planted=True)
    figure = plots.token_loss(ds)
    bar = next(trace for trace in figure.data if isinstance(trace, go.Bar))
    assert bar.y[0] == "word_start  (n 21,000)" and len(bar.y) == 6
    assert list(bar.x) == sorted(bar.x, reverse=True)
    assert sum(bar.x) == pytest.approx(float(ds.contribution.sum()), rel=1e-3)
    np.testing.assert_allclose(bar.error_x.array, np.multiply(bar.x, 0.03), rtol=1e-2)
    shares = named(figure, "share of tokens")
    assert shares.x[0] == pytest.approx(
        float(ds.token_share.sel(token_class="word_start")), rel=1e-3
    )
    bare = plots.token_loss(synthetic["token_loss"](error=False))
    assert not next(t for t in bare.data if isinstance(t, go.Bar)).error_x.visible


def test_training_has_a_panel_for_what_was_logged(synthetic):
    metrics = synthetic["training"]()
    figure = plots.training(metrics)
    assert len(figure.data) == 5
    validation = named(figure, "validation [bit/byte]")
    assert list(validation.x) == list(range(50, 401, 50))
    assert "seconds" not in figure.to_json()
    assert figure.layout.xaxis.range == figure.layout.xaxis2.range, "panels line up"
    bare = [{"step": line["step"], "loss": line["loss"], "grad_norm": None} for line in metrics]
    assert len(plots.training(bare).data) == 2
    assert len(plots.training([]).data) == 0


def test_training_keeps_the_spike_of_a_long_run(synthetic):
    metrics = synthetic["training"](steps=5000)
    metrics[3210]["grad_norm"] = 400.0
    trace = named(plots.training(metrics), "gradient norm [1]")
    assert len(trace.x) <= MOST + 2
    assert dict(zip(trace.x, trace.y, strict=True))[3211] == 400.0
    assert trace.x[0] == 1 and trace.x[-1] == 5000


@pytest.mark.parametrize("records", [7, 70])
def test_hostile_tokens_are_inert_in_every_label(synthetic, records):
    ds = synthetic["logit_prior"](planted=True, records=records, tokens=HOSTILE)
    for each in (ds, ds.drop_vars("profile")):
        spec = json.dumps(plots.logit_prior(each).to_plotly_json())
        assert "<script" not in spec and "<b>bold" not in spec and "$" not in spec
        assert "\\u001b" not in spec, "no control character"


def test_hostile_names_are_inert_in_the_other_figures(synthetic):
    bad = "<img src=x>$a$"
    rank = synthetic["effective_rank"]()
    rank = rank.assign_coords(matrix=[f"{bad}{n}" for n in range(rank.sizes["matrix"])])
    audit = synthetic["routing_audit"]()
    audit = audit.assign_coords(profile=[f"{bad}{n}" for n in range(5)])
    audit["root_cause"] = variable("profile", [bad] * 5, "root cause")
    loss = synthetic["token_loss"]()
    loss = loss.assign_coords(token_class=[f"{bad}{n}" for n in range(8)])
    for figure in (plots.effective_rank(rank), plots.routing_audit(audit), plots.token_loss(loss)):
        text = json.dumps(figure.to_plotly_json())
        assert "<img" not in text and "$" not in text and "&lt;img" in text


def test_escaping_keeps_what_plotly_can_decode():
    assert escaped('it\'s "5" < 6 & $7$') == 'it\'s "5" &lt; 6 &amp; &#36;7&#36;'
    assert token(" a\tb\n") == "'\u2423a\u21e5b\u21b5'"
    assert token("\u202eabc") == "'\\u202eabc'", "text direction cannot be turned"
    assert len(token("x" * 100)) == 30


def test_rounded_numbers_are_plain_and_gaps_are_gaps():
    values = rounded(np.array([[1 / 3, np.inf], [-1e-7 / 3, np.nan]]))
    assert values == [0.3333, None, -3.333e-08, None]
    assert all(type(each) in (float, type(None)) for each in values)


def test_hover_tells_every_fact_with_its_unit():
    point = xr.Dataset(
        {
            "loss": variable((), 1.23456, "loss", "nat/token"),
            "count": variable((), 12345, "tokens", "token"),
            "gap": variable((), np.nan, "spread"),
            "fallen": variable((), True, "collapsed"),
            "word": variable((), "a<b", "answer"),
        }
    )
    assert hover(point, title="one") == (
        "<b>one</b><br>loss: 1.235 nat/token<br>tokens: 12,345 token<br>"
        "spread: not measured<br>collapsed: yes<br>answer: a&lt;b"
    )
