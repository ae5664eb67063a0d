"""A run while it trains, here or in another process: only its folder is read."""

import asyncio
import html
import shlex
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import IO, Any

import ipywidgets as widgets

from workbench import readings
from workbench.explore.panel import Panel, _failure, _sentence
from workbench.explore.tail import Tail, described, newest, step_of
from workbench.folder import RunFolder, find_run, runs_root, valid_name
from workbench.plots.training import reach, training_lines
from workbench.plots.view import View

PAUSE = 0.6  # s between looks at the folder
SPARED = 4  # times what a look took, that the training is left alone at least
GLANCE = 0.1  # s between looks at whether the page has drawn
PATIENCE = 10.0  # s that it is given
POINTS = 300  # of a line that is sent to the page
SURE = 5.0  # s in which a second press stops the run
TABLE = "readings.tabled(folder.read_jsonl(folder.find_run({!r}).metrics))"


class Live(Panel):
    """The panel of `live`; `tick` looks once, which happens by itself where an event loop runs."""

    def __init__(self, run: RunFolder) -> None:
        self.run, self.tail = run, Tail(run.metrics)
        self.launched: list[tuple[str, subprocess.Popen[bytes], IO[bytes]]] = []
        self.trouble, self.sure_until = "", 0.0
        self.drawn: list[Any] = []  # which lines the figure has
        self.task: asyncio.Task[None] | None = None
        record = run.record()
        self.tail.read()
        self.status = described(run, record, self.tail.metrics)
        controls = {
            "change": widgets.IntText(layout={"display": "none"}),
            "scalars": widgets.Dropdown(options=self._kinds()),
            "step": widgets.Dropdown(description="branch from step"),
            "name": widgets.Text(description="as run"),
            "changes": widgets.Text(description="with", placeholder="{warmdown_steps: 100}"),
        }
        actions = {"stop": self._stop, "resume": self._launch, "branch": self._branch}
        super().__init__(
            f"Live: {run.name}", views=[self._course], controls=controls, actions=actions
        )
        self.stop, self.resume, self.branch = self.children[1].children[-3:]
        self._view_count, self.shown = 0, False  # the page counts from here
        self._enable(record)
        self._follow()

    def tick(self) -> None:
        """Look at the folder once, draw what has changed, and say on the panel what went wrong."""
        said = self._message.value
        try:
            said = self._ended() or ("" if said == self.trouble else said)
            record = self.run.record()  # first: an ended run writes no more lines
            grown, before = self.tail.read(), self.status
            self.status = described(self.run, record, self.tail.metrics)
            self._enable(record)
            self._offer("scalars", self._kinds())
            if grown or before != self.status:
                self.controls["change"].value += 1
                self._redraw()
        except Exception as error:  # the next look may succeed
            self.trouble = said = _failure(error)
        self._message.value = said  # a redraw would take away what a button did

    def _follow(self) -> None:
        """Look again and again in the background, where an event loop runs."""
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            return
        if self.task is None or self.task.done():
            self.task = loop.create_task(self._looking())

    async def _looking(self) -> None:
        """Look until the run, and what was launched, has ended or the panel is closed.

        Not where it was shown and is no more, nor before the page has drawn what it was sent.
        """
        spent = waited = 0.0
        while self.comm is not None and (self._goes_on() or self.launched):
            pause = GLANCE if waited else max(PAUSE, SPARED * spent)
            await asyncio.sleep(pause)
            began, waited = time.monotonic(), waited + pause
            self.shown |= bool(self._view_count)
            drawing = self._figures[0]._trace_edit_in_process and waited < PATIENCE
            if not self.shown or (self._view_count and not drawing):
                self.tick()
                waited = 0.0
            spent = time.monotonic() - began

    def _goes_on(self) -> bool:
        """Tell whether there may be more to see."""
        return self.status.startswith(("Planned", "Running"))

    def _course(self, change: int, scalars: str | None) -> View:
        """Draw what was logged, under where the run stands."""
        kinds = {name: readings.scalar_kind(name) for name in self.tail.metrics.found}
        table = self.tail.metrics.table(n for n, kind in kinds.items() if kind in (None, scalars))
        said = f"{self.status} {readings.training(table, under_way=self._goes_on())}"
        options, code = {"most": POINTS, "scalars": scalars}, TABLE.format(self.run.name)
        return View(plot="training", data=table, sentence=said, code=code, options=options)

    def _show(self, at: int, view: View | None) -> None:
        """Put new numbers into the lines there are; draw anew where there are other lines."""
        lines = training_lines(view.data, **view.options) if view else []
        present = [(line.panel, line.label, line.size) for line in lines]
        if view is None or not lines or present != self.drawn:
            self.drawn = present
            super()._show(at, view)
            return
        self._sentences[at].value, widget = _sentence(view), self._figures[at]
        series = {"x": "steps", "y": "values", "text": "text"}
        new = {key: [getattr(line, name) for line in lines] for key, name in series.items()}
        axes = [name for name in widget.layout if name.startswith("xaxis")]
        widget.plotly_update(new, {f"{name}.range": reach(lines) for name in axes})
        widget._repr_mimebundle_()  # also keeps this for a page that is loaded anew

    def _kinds(self) -> tuple[str, ...]:
        """List the kinds of learned scalars."""
        kinds = set(map(readings.scalar_kind, self.tail.metrics.found))
        return tuple(sorted(kind for kind in kinds if kind))

    def _enable(self, record: dict[str, Any]) -> None:
        """Let buttons be pressed that make sense as the run stands."""
        running, asked = record["status"] == "running", self.run.asked_to_stop()
        self.stop.disabled = not running or asked or record.get("origin") == "watched"
        if time.monotonic() > self.sure_until:
            self.stop.description = "stop"
        self.resume.disabled = running or not newest(self.run) or bool(self.launched)
        kept = self.run.states.glob("step-*.safetensors")
        steps = tuple(sorted(map(step_of, kept), reverse=True))
        self.branch.disabled = not steps
        self._offer("step", steps)

    def _offer(self, name: str, options: tuple[Any, ...]) -> None:
        """Offer what there is by now; what was chosen stays."""
        control = self.controls[name]
        if control.options != options:
            chosen = control.value
            control.options = options
            control.value = chosen if chosen in options else options[0] if options else None

    def _stop(self) -> str:
        """Ask once more, then ask the run."""
        if time.monotonic() > self.sure_until:
            self.sure_until, self.stop.description = time.monotonic() + SURE, "really stop?"
            return f"Press again within {SURE:.0f} s: the run can be resumed later."
        self.run.request_stop()
        return "Asked: the run stops after its present step."

    def _branch(self) -> str:
        """Begin a new run from a kept step, with other settings."""
        step, name, changes = (self.selection[each] for each in ("step", "name", "changes"))
        given = {"step": str(step), "name": valid_name(name.strip()), "changes": changes.strip()}
        more = [part for key, value in given.items() if value for part in ("-p", key, value)]
        return f"{self._launch(*more)} Watch it by explore.live({given['name']!r})."

    def _launch(self, *more: str) -> str:
        """Begin ``python -m workbench resume`` as a process that outlives this one."""
        where = self.run.name if self.run.path.parent == runs_root() else str(self.run.path)
        command = [sys.executable, "-m", "workbench", "resume", where, *more]
        output, none = tempfile.TemporaryFile(), subprocess.DEVNULL
        child = subprocess.Popen(
            command, stdin=none, stdout=output, stderr=output, start_new_session=True
        )
        self.launched.append((shlex.join(command), child, output))
        self.resume.disabled = True
        self._follow()
        return f"Began {shlex.join(command)} (process {child.pid})."

    def _ended(self) -> str:
        """Say how what was launched has ended; nothing while it goes on."""
        for command, child, output in [
            each for each in self.launched if each[1].poll() is not None
        ]:
            self.launched.remove((command, child, output))
            with output:
                output.seek(0)
                last = output.read().decode(errors="replace").strip().split("\n")[-1]
            said = html.escape(f"{command} ended with status {child.returncode}: {last}")
            return f"<p>{said}</p>"
        return ""


def live(run: str | Path = "") -> Live:
    """Watch a run in this or another process, stop it, resume it, or branch from it.

    Parameters
    ----------
    run : str or Path
        Name of a run, or its folder; by default the one that logged last.

    Returns
    -------
    Live
        A panel that looks at the folder until the run ends or the panel is closed (``close()``),
        without keeping the kernel busy. Controls: `scalars`, the kind of learned scalars to follow.
        Resuming and branching begin ``python -m workbench resume`` as a process of its own.

    Raises
    ------
    InputError
        If there is no such run.
    """
    logs, nothing = runs_root().glob("*/metrics.jsonl"), Path("none/metrics.jsonl")
    latest = max(logs, key=lambda path: path.stat().st_mtime, default=nothing)
    return Live(find_run(run or latest.parent))
