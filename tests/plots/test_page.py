"""The page: self-contained, safe, and whole without torch."""

import json
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest
from plotly.offline import get_plotlyjs

from workbench import plots, readings, result

BAD = "</script><script>alert(1)</script>"
VOID = {"meta", "input", "br"}


class Outline(HTMLParser):
    """Collect tags, addresses and visible text; tell whether tags close in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.open: list[str] = []
        self.words = ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        """Open a tag."""
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        """Close the tag that was opened last."""
        assert self.open.pop() == tag

    def handle_data(self, data):
        """Keep text that is neither script nor style."""
        if self.open and self.open[-1] not in ("script", "style"):
            self.words += data


@pytest.fixture(scope="module")
def small():
    """Return a figure whose labels try to end the script."""
    import plotly.graph_objects as go

    return go.Figure(go.Bar(x=[1.0], y=[BAD]), layout={"height": 321})


def without_plotly(text: str) -> str:
    """Cut the library out, which holds addresses it never loads here."""
    return text.replace(get_plotlyjs(), "")


def test_page_is_one_document_with_one_plotly_and_loads_nothing(synthetic, small):
    sections = [
        plots.Section(
            heading=noun,
            lead=getattr(readings, noun)(maker()),
            figure=getattr(plots, noun)(maker()),
        )
        for noun, maker in synthetic.items()
    ]
    parts = [plots.Part(heading=name, sections=sections) for name in ("demo", "demo-world")]
    text = plots.page("two runs", parts, facts={"bits per byte": 1.23}, note="end")
    assert text.count(get_plotlyjs()) == 1
    assert len(text.encode()) < 8e6
    rest = without_plotly(text)
    assert "http:" not in rest and "https:" not in rest and "//cdn" not in rest
    assert "@import" not in rest and "url(" not in rest
    outline = Outline(text)
    assert not outline.open
    assert all(key != "src" for key, _ in outline.attributes)
    targets = [value for key, value in outline.attributes if key == "href"]
    assert len(targets) == 2 * (1 + len(synthetic)) and all(each[0] == "#" for each in targets)
    ids = [value for key, value in outline.attributes if key == "id"]
    assert len(set(ids)) == len(ids) and {each[1:] for each in targets} <= set(ids)
    policy = next(value for key, value in outline.attributes if value and "default-src" in value)
    assert "default-src 'none'" in policy
    assert "showSendToCloud: false" in rest
    assert "prefers-color-scheme: dark" in rest and "@media print" in rest


def test_page_escapes_every_text(small):
    section = plots.Section(
        heading=BAD, lead=BAD, figure=small, how_to_read=BAD, table=[{BAD: BAD, "n": 3}]
    )
    part = plots.Part(heading=BAD, lead=BAD, facts={BAD: BAD}, sections=[section])
    text = plots.page(BAD, [section, part], facts={BAD: BAD}, note=BAD)
    outline = Outline(text)
    assert not outline.open, "no text ended a tag"
    assert outline.tags.count("script") == 4, "plotly.js, ours, and one for each figure"
    assert outline.words.count(BAD) == 22


def test_page_figures_survive_as_they_were(small):
    section = plots.Section(heading="one", figure=small)
    text = without_plotly(plots.page("t", [section]))
    (spec,) = re.findall(r'<script type="application/json">(.*?)</script>', text)
    assert json.loads(spec) == json.loads(small.to_json())
    assert "height:321px" in text
    assert "<nav" not in text, "one entry needs no contents"
    assert plots.page("t", [section]) == plots.page("t", [section])


def test_page_without_figures_tables_or_facts_is_whole():
    outline = Outline(plots.page("t", [plots.Section(heading="only words", lead="x < y")]))
    assert not outline.open and "x < y" in outline.words
    assert "dl" not in outline.tags and "table" not in outline.tags


def test_page_tables_align_numbers_and_leave_gaps_empty():
    rows = [{"class": "digit", "n": 12000, "loss": 1.23456}, {"class": "byte", "n": 0}]
    text = plots.page("t", [plots.Section(heading="h", table=[*rows, {"loss": float("nan")}])])
    assert '<td class="number">12,000</td><td class="number">1.235</td>' in text
    assert '<td class="number"></td>' in text


def test_saved_results_plot_and_read_where_torch_is_missing(synthetic, tmp_path):
    nouns = [noun for noun in synthetic if noun != "training"]
    groups = {noun: synthetic[noun](planted=True) for noun in nouns}
    result.save(groups, tmp_path / "diagnosis.nc", provenance={"seed": 0})
    program = f"""
import sys
class Wall:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "torch":
            raise ImportError("torch is walled off")
sys.meta_path.insert(0, Wall())
from pathlib import Path
from workbench import plots, readings, result
tree = result.open_tree(Path({str(tmp_path / "diagnosis.nc")!r}))
sections = [
    plots.Section(
        heading=noun,
        lead=getattr(readings, noun)(tree[noun].to_dataset()),
        figure=getattr(plots, noun)(tree[noun].to_dataset()),
    )
    for noun in {nouns!r}
]
print(len(plots.page("saved", sections)) > 4e6, "torch" in sys.modules)
"""
    root = Path(plots.__file__).resolve().parents[2]
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        capture_output=True,
        text=True,
        cwd=root,
        check=False,
    )
    assert done.stdout == "True False\n", done.stderr


def test_reopened_results_give_the_same_figures(synthetic, tmp_path):
    for noun in set(synthetic) - {"training"}:
        made = synthetic[noun](planted=True)
        result.save({noun: made}, tmp_path / f"{noun}.nc", provenance={})
        again = result.open_tree(tmp_path / f"{noun}.nc")[noun].to_dataset()
        assert getattr(plots, noun)(again).to_json() == getattr(plots, noun)(made).to_json()
        assert getattr(readings, noun)(again) == getattr(readings, noun)(made)


def test_readings_load_neither_torch_nor_plotly():
    program = "import sys, workbench.readings; print({'torch', 'plotly'} & set(sys.modules))"
    root = Path(plots.__file__).resolve().parents[2]
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, cwd=root, check=False
    )
    assert done.stdout == "set()\n", done.stderr
