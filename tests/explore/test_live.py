"""The live panel without a browser or a training: a folder grows, is cut, breaks; buttons act."""

import asyncio
import importlib
import json
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st
from planted_training import planted_lines

from workbench import explore, readings
from workbench.explore.tail import Tail
from workbench.folder import InputError, RunFolder, append_jsonl, environment, read_jsonl, runs_root

module = importlib.import_module("workbench.explore.live")  # the function hides it


class Child:
    """What stands for a process that was begun."""

    pid, returncode = 7, None

    def __init__(self, command, *, stdin, stdout, stderr, start_new_session):
        assert start_new_session and stdout is stderr
        self.command, self.output = command, stdout

    def poll(self):
        return self.returncode

    def end(self, code, said):
        self.output.write(said.encode())
        self.returncode = code


@pytest.fixture
def run(tmp_path, monkeypatch):
    """The folder of a run under way, as `train` leaves it."""
    monkeypatch.setenv("WORKBENCH_DATA", str(tmp_path))
    folder = RunFolder(runs_root() / "tiny")
    folder.states.mkdir(parents=True)
    training = {"steps": 400, "seconds": None}
    folder.update(status="running", training=training, environment=environment())
    return folder


@pytest.fixture
def begun(monkeypatch):
    """Processes that a panel begins."""
    found = []

    def begin(command, **how):
        found.append(Child(command, **how))
        return found[-1]

    monkeypatch.setattr(module.subprocess, "Popen", begin)
    return found


def write(run, lines):
    """Add lines to the metrics of a run."""
    for line in lines:
        append_jsonl(run.metrics, line)


def drawn(figure):
    """Return what a figure shows, line by line."""
    return [(trace.name, list(trace.x), list(trace.y), trace.text) for trace in figure.data]


def buttons(panel):
    """Say which buttons can be pressed."""
    every = {"stop": panel.stop, "resume": panel.resume, "branch": panel.branch}
    return [name for name, button in every.items() if not button.disabled]


def test_a_run_is_followed_from_before_its_first_line(run):
    panel = explore.live("tiny")
    assert panel.status == "Running: step 0 of 400." and not panel.views[0].figure.data
    panel.tick()
    assert panel.controls["change"].value == 0, "nothing new, nothing drawn"
    write(run, planted_lines(100))
    panel.tick()
    assert panel.status == "Running: step 100 of 400; 1,024 token/s, about 2.5 min left."
    assert drawn(panel._figures[0]) == drawn(panel.views[0].figure)
    assert panel.controls["scalars"].options == ("alpha", "q_gain")
    panel.controls["scalars"].value = "q_gain"
    shown = panel._figures[0].data[-1]
    assert shown.name == "blocks.0.attn.q_gain.0" and shown.y[-1] == pytest.approx(2.0)
    write(run, planted_lines(50, first=101))
    panel.tick()
    assert panel._figures[0].data[-1] is shown and shown.x[-1] == 150, "in place"
    assert drawn(panel._figures[0]) == drawn(panel.views[0].figure)
    assert panel._figures[0].layout.xaxis.range == panel.views[0].figure.layout.xaxis.range
    assert "step 150 of 400" in panel._sentences[0].value
    assert "warmdown" not in panel.views[0].sentence, "it has not ended"


def test_few_points_are_sent_of_a_long_run_and_its_spike_is_among_them(run):
    lines = planted_lines(3000)
    lines[1234]["grad_norm"] = 99.0
    write(run, lines)
    panel = explore.live(run.path)
    panel.tick()
    write(run, planted_lines(10, first=3001))
    panel.tick()
    assert max(len(trace.x) for trace in panel._figures[0].data) <= module.POINTS + 2
    spiky = next(each for each in panel._figures[0].data if each.name == "gradient norm [1]")
    assert spiky.y[list(spiky.x).index(1235)] == 99.0
    sent = len(json.dumps([each.to_plotly_json() for each in panel._figures[0].data]))
    assert sent < 150_000, "bytes of an update of thirteen lines"


@given(st.data())
def test_a_tail_holds_what_the_file_holds(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("tail") / "metrics.jsonl"
    tail, made = Tail(path), 0
    for _ in range(data.draw(st.integers(1, 8))):
        if data.draw(st.booleans()) or not path.exists():
            count = data.draw(st.integers(1, 5))
            lines = [{"step": made + n, "ms": float(made + n)} for n in range(count)]
            made += count
            with path.open("a") as file:
                file.write("".join(json.dumps(line) + "\n" for line in lines))
        else:  # cut, as a resumed run does, and perhaps grown beyond where it was
            lines = path.read_bytes().splitlines(keepends=True)
            path.write_bytes(b"".join(lines[: data.draw(st.integers(0, len(lines)))]))
        if data.draw(st.booleans()):
            tail.read()
    whole = path.read_bytes()
    path.write_bytes(whole + b'{"step": 99999, "ms"')
    tail.read()
    assert tail.metrics.table().identical(readings.tabled(read_jsonl(path)))
    assert not tail.read(), "a line still being written waits"


def test_a_run_that_went_back_is_drawn_as_it_is_now(run):
    write(run, planted_lines(100))
    panel = explore.live("tiny")
    run.metrics.write_text("")
    write(run, planted_lines(60) + planted_lines(60, first=61, seed=1))
    panel.tick()
    assert panel.views[0].data.identical(explore.live("tiny").views[0].data)
    assert "step 120 of 400" in panel.status


def test_trouble_is_told_and_survived(run):
    write(run, planted_lines(10))
    panel, record = explore.live("tiny"), (run.path / "run.json").read_text()
    (run.path / "run.json").write_text("{")
    panel.tick()
    assert "InputError" in panel._message.value and "run.json" in panel._message.value
    (run.path / "run.json").write_text(record)
    with run.metrics.open("a") as file:
        file.write("<script>\n")
    panel.tick()
    assert "JSONDecodeError" in panel._message.value and "<script>" not in panel._message.value
    run.metrics.write_text(run.metrics.read_text().replace("<script>\n", ""))
    write(run, planted_lines(1, first=11))
    panel.tick()
    assert panel._message.value == "" and "step 11 of" in panel.status


def test_stop_asks_once_more_and_only_a_run_under_way(run, monkeypatch):
    panel = explore.live("tiny")
    assert buttons(panel) == ["stop"]
    panel.stop.click()
    assert panel.stop.description == "really stop?" and not run.asked_to_stop()
    monkeypatch.setattr(module, "SURE", -1.0)
    panel.sure_until = 0.0
    panel.tick()
    assert panel.stop.description == "stop", "too late"
    panel.stop.click()
    assert not run.asked_to_stop(), "it asks again"
    panel.sure_until = float("inf")
    panel.stop.click()
    assert run.asked_to_stop() and "stops after its present step" in panel._message.value
    write(run, planted_lines(10))
    panel.tick()
    assert "asked to stop" in panel.status and buttons(panel) == []
    assert "stops after its present step" in panel._message.value, "it stays while lines arrive"
    run.withdraw_stop()
    run.update(origin="watched")
    panel.tick()
    assert buttons(panel) == [], "a loop of somebody's own does not look"


def test_a_stopped_run_goes_on_in_a_process_of_its_own(run, begun):
    write(run, planted_lines(100))
    (run.path / "resume-000090.safetensors").touch()
    run.update(status="stopped", reason="asked to stop")
    panel = explore.live("tiny")
    assert panel.status == "Stopped: step 100 of 400; asked to stop; could go on from step 90."
    assert buttons(panel) == ["resume"]
    panel.resume.click()
    assert begun[0].command == [sys.executable, "-m", "workbench", "resume", "tiny"]
    assert "resume tiny (process 7)" in panel._message.value and buttons(panel) == []
    panel.tick()
    assert buttons(panel) == [], "one at a time"
    begun[0].end(2, "Executing\nerror: <no> such text\n")
    panel.tick()
    assert "status 2: error: &lt;no&gt; such text" in panel._message.value
    assert buttons(panel) == ["resume"] and not panel.launched


def test_a_branch_begins_at_a_kept_step_with_other_settings(run, begun):
    for step in (0, 50, 100):
        (run.states / f"step-{step:06d}.safetensors").touch()
    panel = explore.live("tiny")
    assert panel.controls["step"].options == (100, 50, 0)
    panel.branch.click()
    assert not begun and "expected 1 to 80 letters" in panel._message.value, "it needs a name"
    chosen = {"step": 50, "name": "other", "changes": "{steps: 60}; rm -r x"}
    for name, value in chosen.items():
        panel.controls[name].value = value
    panel.branch.click()
    given = ["-p", "step", "50", "-p", "name", "other", "-p", "changes", "{steps: 60}; rm -r x"]
    assert begun[0].command[4:] == ["tiny", *given], "a list, through no shell"
    assert "explore.live(&#x27;other&#x27;)" in panel._message.value
    (run.states / "step-000150.safetensors").touch()
    panel.tick()
    assert panel.controls["step"].options == (150, 100, 50, 0)
    assert panel.controls["step"].value == 50, "what was chosen stays"
    begun[0].end(0, "run other: finished")
    panel.tick()
    assert "status 0: run other: finished" in panel._message.value


def test_it_looks_by_itself_and_ends_with_the_run_or_with_the_panel(run, monkeypatch):
    monkeypatch.setattr(module, "PAUSE", 0)

    async def look() -> None:
        write(run, planted_lines(10))
        first, second = explore.live("tiny"), explore.live("tiny")
        write(run, planted_lines(10, first=11))
        while "step 20" not in first.status:
            await asyncio.sleep(0)
        second._view_count = 1
        await asyncio.sleep(0.01)
        second._view_count = 0
        await asyncio.sleep(0.01)
        run.metrics.write_text("")
        await asyncio.sleep(0.05)
        assert "step 20" in second.status, "what nobody looks at is not drawn"
        second.close()
        await second.task
        run.update(status="finished")
        await first.task
        assert first.status.startswith("Finished")

    asyncio.run(asyncio.wait_for(look(), timeout=30))


def test_the_latest_run_is_followed_by_default(run):
    with pytest.raises(InputError, match="expected a run under"):
        explore.live()
    write(run, planted_lines(1))
    assert explore.live().run.path == run.path


def test_what_stays_in_a_notebook_is_a_picture_and_two_sentences(run):
    write(run, planted_lines(100))
    run.update(status="finished")
    shown = explore.live("tiny")._repr_mimebundle_()
    assert "gradient noise scale" in shown["image/svg+xml"]
    assert shown["text/plain"].startswith("Finished: step 100 of 400. After step 100")
    assert len(shown["image/svg+xml"]) < 300_000
