"""Pinning: what is kept reads at once, is safe, is one, and runs again to the same page."""

import shutil
import subprocess
import sys
from html.parser import HTMLParser

import ipywidgets as widgets
import nbformat
import pytest
import xarray as xr
from repository import PROJECT

from workbench import plots
from workbench.explore import Panel, pin
from workbench.folder import InputError
from workbench.plots.view import View
from workbench.result import variable

HOSTILE = "- <script>alert(1)</script> *not* $x^2$ `code` [a](b)\n\n# heading"
PLOTLY = "application/vnd.plotly.v1+json"


def made(level: float = 0.5, **changes) -> View:
    """A view of three token classes, as the diagnostic would give them."""
    values = {
        "tokens": variable("token_class", [10, 20, 30], "tokens", "token"),
        "token_share": variable("token_class", [1 / 6, 2 / 6, 3 / 6], "share of tokens"),
        "loss": variable("token_class", [1.0, 2.0, level], "loss", "nat/token"),
        "bits_per_byte": variable("token_class", [1.0, 2.0, level], "bits", "bit/byte"),
        "contribution": variable("token_class", [0.2, 0.4, level], "contribution", "bit/byte"),
        "loss_share": variable("token_class", [0.3, 0.3, 0.4], "share of loss"),
    }
    data = xr.Dataset(values, coords={"token_class": ["digit", "<b>", "newline"]})
    told = {"plot": "token_loss", "data": data, "sentence": f"newline is {level}", "code": "f(<x>)"}
    return View(**told | changes)


def read(folder) -> nbformat.NotebookNode:
    """Open the report."""
    notebook = nbformat.read(folder / "pinned.ipynb", as_version=4)
    nbformat.validate(notebook)
    return notebook


def test_a_pin_reads_at_once(tmp_path):
    assert pin("newlines are dear", made(), folder=tmp_path).endswith("/pinned.ipynb")
    title, imports, said, drawn = read(tmp_path).cells
    assert title.source.startswith("# Pinned") and imports.outputs == []
    assert "newlines are dear" in said.source and made().hash[:12] in said.source
    printed, shown = drawn.outputs
    assert printed.text == "newline is 0.5\n"
    assert set(shown.data) == {PLOTLY, "image/svg+xml", "text/plain"}
    assert [cell.execution_count for cell in (imports, drawn)] == [1, 2]
    assert shown.execution_count == 2
    (frozen,) = (tmp_path / "data").glob("*.nc")
    assert f'"data/{frozen.name}"' in drawn.source
    again = View.open(frozen)
    assert (again.hash, again.sentence, again.code) == (made().hash, "newline is 0.5", "f(<x>)")


def test_the_same_pin_twice_is_one(tmp_path):
    pin("once", made(), folder=tmp_path)
    before = (tmp_path / "pinned.ipynb").read_bytes()
    pin("once", made(), folder=tmp_path)
    assert (tmp_path / "pinned.ipynb").read_bytes() == before
    pin("once", made(0.25), folder=tmp_path)
    pin("twice", made(), folder=tmp_path)
    assert len(read(tmp_path).cells) == 2 + 3 * 2
    assert len(list((tmp_path / "data").glob("*.nc"))) == 2, "equal views are frozen once"
    counts = [c.execution_count for c in read(tmp_path).cells if c.cell_type == "code"]
    assert counts == [1, 2, 3, 4]


def test_a_panel_pins_all_its_views_as_they_stand(tmp_path, monkeypatch):
    level = widgets.FloatText(value=0.5)
    draw = [lambda level: made(level), lambda level: None if level < 1 else made(level + 1)]
    panel = Panel("of <run>", views=draw, controls={"level": level})
    pin("one view", panel, folder=tmp_path)
    level.value = 2.0
    pin("two views", panel, folder=tmp_path)
    cells = read(tmp_path).cells
    assert [cell.cell_type for cell in cells[2:]] == ["markdown", "code", "markdown"] + ["code"] * 2
    assert "of &lt;run&gt;" in cells[2].source
    assert cells[-1].outputs[0].text == "newline is 3.0\n"


class Tags(HTMLParser):
    """Which tags a text opens, and its words."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.words = ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)

    def handle_data(self, data):
        self.words += data


def test_no_character_of_a_sentence_is_markup(tmp_path):
    pin(HOSTILE, made(sentence=HOSTILE, code=HOSTILE), folder=tmp_path)
    source = read(tmp_path).cells[2].source
    seen = Tags(source)
    assert seen.tags == ["p", "b", "p", "pre"]
    assert " ".join(HOSTILE.split()) in seen.words
    assert "$" not in source, "no formula"
    assert source.partition("<pre>")[0].count("\n\n") == 0, "a blank line would end the HTML block"


def test_a_failed_pin_leaves_the_report_as_it_was(tmp_path, monkeypatch):
    pin("first", made(), folder=tmp_path)
    before = (tmp_path / "pinned.ipynb").read_bytes()
    monkeypatch.setattr(plots, "token_loss", None)
    with pytest.raises(TypeError):
        pin("second", made(0.75), folder=tmp_path)
    assert (tmp_path / "pinned.ipynb").read_bytes() == before
    assert not list(tmp_path.glob(".*"))


def test_only_reports_of_pins_are_appended_to(tmp_path):
    with pytest.raises(InputError, match="letters"):
        pin("x", made(), "../escape", folder=tmp_path)
    nbformat.write(nbformat.v4.new_notebook(), tmp_path / "other.ipynb")
    with pytest.raises(InputError, match="another notebook"):
        pin("x", made(), "other", folder=tmp_path)


@pytest.mark.slow
def test_the_report_runs_again_to_the_same_page_and_a_wrong_number_is_seen(tmp_path):
    pin("kept", made(), folder=tmp_path)
    shutil.copy(PROJECT / "reports" / "conftest.py", tmp_path)
    command = "-m pytest -q --nbval --nbval-current-env -p no:cacheprovider -p no:xdist --rootdir ."

    def status() -> int:
        run = [sys.executable, *command.split(), "pinned.ipynb"]
        return subprocess.run(run, cwd=tmp_path, capture_output=True, timeout=120).returncode

    assert status() == 0
    page = tmp_path / "pinned.ipynb"
    text = page.read_text(encoding="utf-8")
    page.write_text(text.replace("newline is 0.5", "newline is 0.6"), encoding="utf-8")
    assert status() == 1
