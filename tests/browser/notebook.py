"""A notebook open in JupyterLab, used as a reader does: run it, move controls, click marks."""

import re
from pathlib import Path

from browser.lab import PATIENCE
from playwright.sync_api import Browser, ConsoleMessage, Locator

VIEWPORT = {"width": 1440, "height": 3000}  # so high that no mark has to be scrolled to
CELLS = "jupyterapp.shell.currentWidget.content.widgets.filter(c => c.model.type === 'code')"
READY = (
    "globalThis.jupyterapp?.shell.currentWidget?.sessionContext?.session?.kernel?.status === 'idle'"
)
KERNEL = "jupyterapp.shell.currentWidget.sessionContext.session.kernel"
THROUGH = f"{KERNEL}.requestExecute({{code: '', silent: true}}).done.then(() => null)"
FAULTS = f"""() => {CELLS}.flatMap(c => c.model.outputs.toJSON())
    .filter(o => o.output_type === 'error' || o.name === 'stderr')
    .map(o => [o.traceback ?? o.text].flat().join('\\n'))"""
DONE = f"""([skip, count]) => {{
    const cells = {CELLS}.slice(skip);
    return cells.every(c => c.model.executionState === 'idle')
        && (cells.every(c => c.model.executionCount > count) || ({FAULTS})().length > 0);
}}"""
PLAIN = """(key, value) => {
    if (/^(_.*|[xy]type|zauto)$/.test(key)) return undefined;  // notes that plotly makes there
    if (ArrayBuffer.isView(value)) return Array.from(value);
    if (value === null || typeof value !== 'object' || Array.isArray(value)) return value;
    return Object.fromEntries(Object.entries(value).sort());
}"""
DRAWN = f"""place => [...place.querySelectorAll('.js-plotly-plot')]
    .filter(figure => figure.checkVisibility() && figure.data)
    .map(figure => JSON.stringify(figure.data, {PLAIN}))"""
REDRAWN = f"([place, before]) => JSON.stringify(({DRAWN})(place)) !== JSON.stringify(before)"
MARKS = """([figure, control]) => figure._fullData.flatMap((trace, curve) => {
    if (trace.meta?.sets !== control || trace.visible !== true) return [];
    const axis = name => figure._fullLayout[name[0] + 'axis' + name.slice(1)];
    const [across, up] = [axis(trace.xaxis), axis(trace.yaxis)];
    const box = figure.getBoundingClientRect();
    const at = (x, y) => ({x: box.left + across._offset + x, y: box.top + up._offset + y});
    if (trace.type === 'heatmap') return trace.z.flatMap((row, i) => Array.from(row, (z, j) =>
        at(across.d2p(trace.x?.[j] ?? j), up.d2p(trace.y?.[i] ?? i))));
    const points = figure.calcdata[curve];
    if (trace.type !== 'bar') return points.map(each => at(across.c2p(each.x), up.c2p(each.y)));
    return points.filter(bar => Math.abs(across.c2p(bar.s1) - across.c2p(bar.s0)) > 4)
        .map(bar => at(across.c2p((bar.s0 + bar.s1) / 2), up.c2p(bar.p)));
}).filter(mark => figure.contains(document.elementFromPoint(mark.x, mark.y)))"""
PANEL = ".widget-vbox:has(> .widget-html h3)"
RESTORED = f"""count => [...document.querySelectorAll('{PANEL} .js-plotly-plot')]
    .filter(each => each.checkVisibility() && each._ev?._events?.plotly_click).length === count"""
HOVERED = "figure => figure._hoverdata?.length > 0"


CONTRAST = """panel => {
    const light = colour => colour.match(/[\\d.]+/g).slice(0, 3).map(each => each / 255)
        .map(each => each <= 0.04045 ? each / 12.92 : ((each + 0.055) / 1.055) ** 2.4)
        .reduce((sum, each, at) => sum + each * [0.2126, 0.7152, 0.0722][at], 0.05);
    const ground = light(getComputedStyle(panel.closest('.jp-Notebook')).backgroundColor);
    const words = panel.querySelectorAll('.xtick text, .ytick text, .legendtext, p, .widget-label');
    return Math.min(...[...words].filter(each => each.checkVisibility()).map(each => {
        const style = getComputedStyle(each);
        const ratio = light(each.tagName === 'text' ? style.fill : style.color) / ground;
        return Math.max(ratio, 1 / ratio);
    }));
}"""
CHOOSE = f"""runs => {CELLS}.filter(c => (c.model.getMetadata('tags') ?? []).includes('parameters'))
    .forEach(c => c.model.sharedModel.setSource(Object.entries(runs)
        .map(([name, run]) => `${{name}} = ${{JSON.stringify(run)}}`).join('\\n')))"""


class Notebook:
    """A notebook on a page of its own, and what that page emitted and asked others for."""

    def __init__(self, browser: Browser, address: str, name: str, runs: dict[str, str]) -> None:
        self.emitted: list[str] = []
        self.outside: list[str] = []
        self.host = address.partition("{")[0]
        self.context = browser.new_context(viewport=VIEWPORT)
        self.context.set_default_timeout(1000 * PATIENCE)
        self.context.route(re.compile(f"^(?!{re.escape(self.host)})"), lambda each: each.abort())
        self.page = self.context.new_page()
        self.page.on("console", self._hear)
        self.page.on("pageerror", lambda error: self.emitted.append(str(error)))
        self.page.on("request", lambda request: self._note(request.url))
        self.page.on("websocket", lambda each: self._note(each.url.replace("ws:", "http:", 1)))
        self.page.on("dialog", lambda dialog: dialog.accept())  # leaving, with a change unsaved
        self.page.goto(address.format(f"lab/tree/{name}.ipynb") + "&reset")
        self.page.wait_for_function(READY)
        self.page.evaluate(CHOOSE, runs)

    def _note(self, url: str) -> None:
        """Keep what was asked of others."""
        if not url.startswith((self.host, "data:", "blob:")):
            self.outside.append(url)

    def _hear(self, message: ConsoleMessage) -> None:
        """Keep errors."""
        if message.type == "error":
            self.emitted.append(f"{message.text} ({message.location.get('url')})")

    def menu(self, first: str, *rest: str) -> None:
        """Choose from the menu bar."""
        self.page.locator(f".lm-MenuBar-itemLabel:text-is('{first}')").click()
        for label in rest:
            self.page.locator(f".lm-Menu-itemLabel:text-is('{label}')").click()

    def run(self, what: str = "Run All Cells", *, skip: int = 0) -> list[str]:
        """Run from the code cell after the first `skip`; return what went wrong."""
        count = self.page.evaluate(f"Math.max(...{CELLS}.map(c => c.model.executionCount ?? 0))")
        self.menu("Run", what)
        self.page.wait_for_function(DONE, arg=[skip, count])
        return self.page.evaluate(FAULTS)

    def reload(self) -> None:
        """Save, and load the page anew; the kernel lives, so the panel must come back."""
        count = len(self.drawn())
        self.page.evaluate("jupyterapp.commands.execute('docmanager:save')")
        self.page.reload()
        self.page.wait_for_function(READY)
        self.page.wait_for_function(RESTORED, arg=count)

    def close(self) -> None:
        """End the kernel and the page."""
        self.page.evaluate("jupyterapp.shell.currentWidget.sessionContext.shutdown()")
        self.context.close()

    def theme(self, name: str) -> None:
        """Choose a theme."""
        self.menu("Settings", "Theme", name)
        self.page.wait_for_selector(f"body[data-jp-theme-name='{name}']", state="attached")

    def picture(self, path: Path, *, panel: bool = False) -> None:
        """Take a screenshot of the page, or of the panel alone."""
        (self.panel if panel else self.page).screenshot(path=path)

    @property
    def panel(self) -> Locator:
        """The panel."""
        return self.page.locator(PANEL).first

    def drawn(self, place: Locator | None = None) -> list[str]:
        """Return the data of the figures that can be seen, in the panel or in another place."""
        return (place or self.panel).evaluate(DRAWN)

    def redrawn(self, before: list[str], place: Locator | None = None) -> None:
        """Wait until the figures show other data than before, and the kernel is through."""
        handle = (place or self.panel).element_handle()
        self.page.wait_for_function(REDRAWN, arg=[handle, before])
        self.page.evaluate(THROUGH)

    def contrast(self) -> float:
        """Return the least contrast of the panel's text with the page, by WCAG's formula."""
        return self.panel.evaluate(CONTRAST)

    def control(self, label: str) -> Locator:
        """Find a control of the panel by what its label begins with."""
        named = self.page.locator(".widget-label", has_text=re.compile(f"^{label}"))
        return self.panel.locator("> .widget-box:not(.widget-vbox) > *").filter(has=named)

    def shown(self, label: str) -> str:
        """Return what a control shows."""
        return self.control(label).evaluate(
            "c => c.querySelector('select')?.selectedOptions[0].textContent"
            " ?? c.querySelector('.mod-active')?.textContent"
            " ?? c.querySelector('.widget-readout')?.textContent ?? c.querySelector('input').value"
        )

    def move(self, label: str, to: str = "") -> None:
        """Set a control to a value, or to the next one that it has; any kind of control."""
        control = self.control(label)
        if control.locator("select").count():
            options = control.locator("option").all_text_contents()
            following = (options.index(self.shown(label)) + 1) % len(options)
            control.locator("select").select_option(label=to or options[following])
        elif control.locator("button").count():
            off = control.locator("button:not(.mod-active)")
            (off.get_by_text(to, exact=True) if to else off.first).click()
        elif control.locator(".noUi-handle").count():
            before = self.shown(label)
            control.locator(".noUi-handle").press("ArrowRight")
            if self.shown(label) == before:  # it is at its end
                control.locator(".noUi-handle").press("ArrowLeft")
        else:
            control.locator("input").fill(to)
            control.locator("input").press("Enter")

    def click(self, control: str, label: str = "") -> None:
        """Click the first mark that stands for another value than the control has; await that."""
        label = label or control.replace("_", " ")
        before = self.shown(label)
        for figure in self.panel.locator(".js-plotly-plot").element_handles():
            for mark in figure.evaluate("(f, c) => (" + MARKS + ")([f, c])", control):
                self.page.mouse.move(mark["x"], mark["y"])
                self.page.wait_for_function(HOVERED, arg=figure)
                value = figure.evaluate("figure => String(figure._hoverdata[0].customdata)")
                if value not in before:
                    self.page.mouse.click(mark["x"], mark["y"])
                    return
        raise AssertionError(f"no mark sets {control}")
