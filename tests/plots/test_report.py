import html
import json
import re
import subprocess
import sys

import pytest
from plotly.offline import get_plotlyjs

from workbench import readings, result
from workbench.folder import PROJECT, InputError, append_jsonl, create_run
from workbench.plots.report import HEADINGS, HOW_TO_READ, open_diagnosis, run_facts, write_report

HOSTILE = "</script><script>alert(1)</script><img src=https://evil.example/x>"
EVALUATION = {
    "bits_per_byte": 1.23456,
    "standard_error": 0.01234,
    "protocol": "full",
    "context": 256,
    "tokens": 54321,
    "documents": 17,
}


def make_run(root, name, groups, *, metrics=(), **fields):
    """A run folder as training and diagnosis leave it, without either."""
    run = create_run(name, root=root)
    record = {
        "status": "finished",
        "steps_done": 400,
        "parameters": 812345,
        "model": {"n_layer": 4, "d_model": 128},
        "data": {"name": "docs", "corpus_hash": "abcdef0123456789"},
        "environment": {"packages": {"torch": "2.99"}, "code": "c0de"},
        "evaluation": EVALUATION,
    }
    run.update(**{**record, **fields})
    for line in metrics:
        append_jsonl(run.metrics, line)
    result.save(groups, run.path / "diagnosis.nc", provenance={"name": name})
    return run


def written(runs, tmp_path):
    write_report(runs, tmp_path / "page.html")
    text = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert text.count(get_plotlyjs()) == 1
    return text.replace(get_plotlyjs(), "")


@pytest.fixture
def groups(synthetic):
    return {name: synthetic[name]() for name in HEADINGS}


@pytest.fixture
def pair(synthetic, groups, tmp_path):
    """A run on text, and a planted one on a closed world without training metrics."""
    text = {name: group for name, group in groups.items() if name != "routing_audit"}
    planted = {name: synthetic[name](planted=True) for name in HEADINGS}
    return [
        make_run(tmp_path / "runs", "plain", text, metrics=synthetic["training"](steps=40)),
        make_run(tmp_path / "runs", "planted", planted),
    ]


def sections(text):
    """Split the page at its parts: name to headings."""
    found = {}
    for part in text.split('<div class="part"')[1:]:
        name = re.search("<h2>(.*?)</h2>", part)[1]
        found[name] = re.findall("<h3>(.*?)</h3>", part)
    return found


def test_page_holds_every_run_with_what_was_measured(pair, groups, tmp_path):
    text = written(pair, tmp_path)
    assert "<title>Diagnosis of plain and planted</title>" in text
    every = list(HEADINGS.values())
    assert sections(text) == {
        "plain": ["Training", *(each for each in every if each != "Routing audit")],
        "planted": every,
    }
    words = html.unescape(text)
    for run in pair:
        tree = open_diagnosis(run)
        for name in tree.children:
            assert readings.reading(name, tree[name].to_dataset()) in words
    assert text.count('type="application/json"') == 1 + 5 + 6
    assert set(HOW_TO_READ) == set(HEADINGS)


def test_figures_are_those_of_the_saved_results(pair, tmp_path):
    text = written(pair[1:], tmp_path)
    specs = [json.loads(raw) for raw in re.findall(r'application/json">(.*?)</script>', text)]
    assert len(specs) == len(HEADINGS)
    assert all(spec["data"] for spec in specs)
    assert written(pair[1:], tmp_path) == text


def test_page_loads_nothing(pair, tmp_path):
    text = written(pair, tmp_path)
    assert not re.findall(r"https?://|//cdn|@import|<link|<iframe|src=", text)
    assert "default-src 'none'" in text


def test_facts_are_those_of_the_record(pair):
    facts = run_facts(pair[0].record())
    assert facts["bits per byte"] == "1.2346 +- 0.0123"
    assert facts["protocol"] == "full, context 256"
    assert facts["scored"] == "54,321 tokens, 17 documents"
    assert (facts["parameters"], facts["steps"], facts["status"]) == ("812,345", 400, "finished")
    assert facts["corpus"] == "docs (abcdef012345)"
    unjudged = run_facts({"status": "failed"})
    assert "bits per byte" not in unjudged and unjudged["steps"] == "unknown"
    single = run_facts({"evaluation": {**EVALUATION, "standard_error": None}})
    assert single["bits per byte"] == "1.2346"


def test_hostile_text_of_a_run_is_escaped(groups, tmp_path):
    prior = groups["logit_prior"]
    hostile = {name: ("record", [HOSTILE] * prior.sizes["record"]) for name in ("winner", "rival")}
    groups["logit_prior"] = prior.assign_coords(hostile)
    run = make_run(
        tmp_path / "runs",
        "hostile",
        groups,
        status="finished",
        steps_done=HOSTILE,
        model={"n_layer": HOSTILE, "d_model": 1},
        data={"name": HOSTILE, "corpus_hash": HOSTILE},
        environment={"packages": {"torch": HOSTILE}, "code": HOSTILE},
        evaluation={**EVALUATION, "protocol": HOSTILE},
    )
    text = written([run], tmp_path)
    assert "alert(1)" in text
    assert "<script>alert" not in text and "<img" not in text
    assert len(re.findall("<script", text)) == len(re.findall("</script", text))


def test_run_without_a_diagnosis_is_refused(pair, tmp_path):
    (pair[1].path / "diagnosis.nc").unlink()
    with pytest.raises(InputError, match="no weights"):
        write_report(pair, tmp_path / "page.html")
    (pair[1].path / "model.safetensors").touch()
    with pytest.raises(InputError, match="no file.*diagnose planted"):
        write_report(pair, tmp_path / "page.html")
    assert not list(tmp_path.glob("*.html")) and not list(tmp_path.glob(".*"))


@pytest.mark.parametrize("share", [0, 0.01, 0.3, 0.7, 0.99])
def test_damaged_diagnosis_is_refused(pair, tmp_path, share):
    path = pair[0].path / "diagnosis.nc"
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(InputError, match="a damaged file"):
        write_report(pair, tmp_path / "page.html")
    assert not (tmp_path / "page.html").exists()


def test_a_file_of_another_kind_is_refused(pair):
    (pair[0].path / "diagnosis.nc").write_text("not netCDF", encoding="utf-8")
    with pytest.raises(InputError, match="a damaged file"):
        open_diagnosis(pair[0])


def test_earlier_page_survives_a_refusal(pair, tmp_path):
    write_report(pair, tmp_path / "page.html")
    before = (tmp_path / "page.html").read_bytes()
    (pair[0].path / "run.json").write_text("{", encoding="utf-8")
    with pytest.raises(InputError):
        write_report(pair, tmp_path / "page.html")
    assert (tmp_path / "page.html").read_bytes() == before


def test_report_is_written_where_torch_is_not_installed(pair, tmp_path):
    program = (
        "import sys; sys.modules['torch'] = None\n"
        "from pathlib import Path\n"
        "from workbench.folder import RunFolder\n"
        "from workbench.plots.report import write_report\n"
        f"write_report([RunFolder(Path({str(pair[0].path)!r}))], Path('alone.html'))"
    )
    (tmp_path / "away").mkdir()
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path / "away",
        env={"PYTHONPATH": str(PROJECT), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "away" / "alone.html").stat().st_size > 1e6
