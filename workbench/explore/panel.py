"""A panel: controls, and views that follow them. Nothing is computed here."""

import asyncio
import html
import importlib
import inspect
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import ipywidgets as widgets
import plotly.graph_objects as go
import traitlets
import xarray as xr

from workbench.plots.view import View

WAIT = 0.08  # seconds of quiet before a redraw: a dragged slider asks once
WIDTH = 960  # pixels of a figure
Drawing = Callable[..., View | None]


def _import_widget() -> None:
    """Import plotly's widget without a grammar of web addresses, which takes seconds to build.

    Plotly asks for nbformat, that for jsonschema, and that for the grammar, if it is installed.
    """
    modules: dict[str, Any] = sys.modules
    hidden = modules.setdefault("rfc3987_syntax", None) is None
    importlib.import_module("plotly.io._renderers")
    if hidden:
        del modules["rfc3987_syntax"]


_import_widget()  # before anything else asks for nbformat


class _Figure(go.FigureWidget):
    """A figure that waits for another to bring plotly; see ``figure.js``."""

    _esm = Path(__file__).with_name("figure.js")
    _plotly = traitlets.Unicode().tag(sync=True)


class _FirstFigure(_Figure):
    """A figure that brings plotly into the page."""

    _plotly = traitlets.Unicode(str(go.FigureWidget._esm)).tag(sync=True)


class Panel(widgets.VBox):
    """Controls over linked views, as a value.

    A view is a function whose parameters are names of controls: it is drawn anew when one of them
    changes. A trace is clickable when its ``meta`` is ``{"sets": NAME}``: clicking a point sets the
    control NAME to the point's ``customdata``.

    Parameters
    ----------
    title : str
        What is shown, of which run.
    views : sequence of function
        From the selection to a `View`, or None for nothing to show; from overview to detail.
    controls : mapping of str to widget
        Widgets with a `value`, by the name that views use.
    actions : mapping of str to function, optional
        Buttons by label; each is called without arguments, and what it returns is shown.
    """

    def __init__(
        self,
        title: str,
        *,
        views: Sequence[Drawing],
        controls: Mapping[str, Any],
        actions: Mapping[str, Callable[[], str]] | None = None,
    ) -> None:
        self.title = title
        self.controls = dict(controls)
        self._drawings = list(views)
        self._needs = [set(inspect.signature(view).parameters) for view in views]
        unknown = set().union(*self._needs) - set(self.controls)
        if unknown:
            raise ValueError(f"views ask for {sorted(unknown)}, the controls are {list(controls)}")
        self._views = self._drawn(self.selection)
        self._stale: set[str] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._message = widgets.HTML()
        self._figures = [_figure(view, first=not at) for at, view in enumerate(self._views)]
        self._sentences = [widgets.HTML(_sentence(view)) for view in self._views]
        self._places = [
            widgets.VBox([sentence, figure], layout=_place(view))
            for sentence, figure, view in zip(
                self._sentences, self._figures, self._views, strict=True
            )
        ]
        for name, control in self.controls.items():
            _dress(name, control)
            control.observe(lambda _, name=name: self._request(name), names="value")
        for figure in self._figures:
            self._listen(figure)
        buttons = [self._button(label, action) for label, action in (actions or {}).items()]
        bar = widgets.Box(
            [*self.controls.values(), *buttons],
            layout=widgets.Layout(flex_flow="row wrap", align_items="center"),
        )
        heading = widgets.HTML(f"<h3 style='margin:0'>{html.escape(title)}</h3>")
        super().__init__([heading, bar, self._message, *self._places])

    @property
    def selection(self) -> dict[str, Any]:
        """What the controls say, by name."""
        return {name: control.value for name, control in self.controls.items()}

    @property
    def views(self) -> list[View]:
        """The views of the present selection, from overview to detail."""
        self._redraw()
        return [view for view in self._views if view is not None]

    def look(self, **chosen: Any) -> list[View]:
        """Return the views of another selection; what the controls say stays.

        Parameters
        ----------
        **chosen
            Values by the names of controls; others are as they stand.

        Raises
        ------
        ValueError
            If there is no control of that name.
        """
        if unknown := chosen.keys() - self.controls.keys():
            raise ValueError(f"no control {sorted(unknown)}, there are {list(self.controls)}")
        drawn = self._drawn(self.selection | chosen)
        return [view for view in drawn if view is not None]

    @property
    def table(self) -> xr.Dataset:
        """Numbers behind the most detailed view."""
        return self.views[-1].data

    def code(self) -> str:
        """Return the library calls that give the numbers of the views."""
        return "\n".join(dict.fromkeys(view.code for view in self.views if view.code))

    def _drawn(self, selection: Mapping[str, Any]) -> list[View | None]:
        """Draw every view of a selection."""
        return [self._draw(at, selection) for at in range(len(self._drawings))]

    def _draw(self, at: int, selection: Mapping[str, Any]) -> View | None:
        """Draw one view with what it asks for."""
        return self._drawings[at](**{name: selection[name] for name in self._needs[at]})

    def _request(self, name: str) -> None:
        """Ask for a redraw soon, or at once where no event loop runs."""
        self._stale.add(name)
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            self._redraw()
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer = loop.call_later(WAIT, self._redraw)

    def _redraw(self) -> None:
        """Draw the views that depend on what has changed; say on the panel what went wrong."""
        changed, self._stale = self._stale, set()
        errors = []
        for at, needs in enumerate(self._needs):
            if needs & changed:
                try:
                    self._views[at] = self._draw(at, self.selection)
                    self._show(at, self._views[at])
                except Exception as error:
                    self._views[at] = None  # an old figure would contradict the controls
                    self._stale |= needs & changed  # to be tried again with the next change
                    self._show(at, None)
                    errors.append(error)
        if changed:
            self._message.value = "".join(map(_failure, errors))
        if errors:
            raise errors[0]

    def _show(self, at: int, view: View | None) -> None:
        """Replace what one view's widgets show."""
        self._places[at].layout = _place(view)
        self._sentences[at].value = _sentence(view)
        if view is None:
            return
        widget, new = self._figures[at], _wide(view)
        with widget.batch_update():
            if [trace.type for trace in widget.data] == [trace.type for trace in new.data]:
                for old, trace in zip(widget.data, new.data, strict=True):
                    old.update(trace.to_plotly_json(), overwrite=True)
            else:
                widget.data = []
                widget.add_traces(new.data)
            widget.update_layout(new.layout.to_plotly_json(), overwrite=True)
        widget._repr_mimebundle_()  # also keeps this for a page that is loaded anew
        self._listen(widget)

    def _listen(self, widget: go.FigureWidget) -> None:
        """Make the points of clickable traces set their control."""
        for trace in widget.data:
            if isinstance(trace.meta, dict) and "sets" in trace.meta:
                trace.on_click(self._clicked)

    def _clicked(self, trace: Any, points: Any, _: Any) -> None:
        """Set the control that a point stands for."""
        if not points.point_inds:
            return
        at = points.point_inds[0]
        value = trace.customdata
        for index in at if isinstance(at, list | tuple) else [at]:
            value = value[index]
        self.controls[trace.meta["sets"]].value = getattr(value, "item", lambda: value)()

    def _button(self, label: str, action: Callable[[], str]) -> widgets.Button:
        """Make a button that shows what its action says."""
        button = widgets.Button(description=label, layout=widgets.Layout(width="auto"))

        def press(_: Any) -> None:
            try:
                self._message.value = f"<p>{html.escape(action())}</p>"
            except Exception as error:
                self._message.value = _failure(error)
                raise

        button.on_click(press)
        return button

    def _repr_mimebundle_(self, **kwargs: Any) -> dict[str, Any]:
        """Add what a reader without widgets can show."""
        from workbench.plots.twin import svg  # draws with another library, slow to import

        bundle: dict[str, Any] = super()._repr_mimebundle_(**kwargs)
        said = "\n\n".join(view.sentence for view in self.views)
        drawn = svg([view.figure for view in self.views])
        return bundle | {"image/svg+xml": drawn, "text/plain": said}


def _figure(view: View | None, *, first: bool) -> go.FigureWidget:
    """Make the widget of a view; nothing in it sends data anywhere."""
    widget = (_FirstFigure if first else _Figure)(_wide(view) if view else None)
    widget._config = {"displaylogo": False, "showSendToCloud": False, "plotlyServerURL": ""}
    return widget


def _wide(view: View) -> go.Figure:
    """Give a view's figure a width: a widget is drawn before it has a place to fill."""
    return go.Figure(view.figure).update_layout(width=WIDTH, modebar_bgcolor="rgba(0,0,0,0)")


def _dress(name: str, control: Any) -> None:
    """Label a control, and leave neither its label nor its buttons cut."""
    control.description = control.description or name.replace("_", " ")
    control.layout.margin = "2px 18px 2px 2px"
    control.style.description_width = "initial"
    if "readout" in control.traits():
        control.layout.width = "30em"  # or a long label leaves the handle no way
    if "button_width" in control.style.traits():
        control.style.button_width = "auto"
        control.description += "\u2002"  # the first button would stick to it
        control.layout.display = control.layout.display or "flex"  # or its label stands above


def _place(view: View | None) -> widgets.Layout:
    """Show the place of a view, or hide one that has nothing to show."""
    return widgets.Layout(display="none" if view is None else "flex")


def _sentence(view: View | None) -> str:
    """Write a view's sentence as safe HTML."""
    if view is None:
        return ""
    return f"<p style='max-width:78ch;line-height:1.4'>{html.escape(view.sentence)}</p>"


def _failure(error: Exception) -> str:
    """Write an error as safe HTML, its traceback folded."""
    told = html.escape("".join(traceback.format_exception(error)))
    said = html.escape(f"{type(error).__name__}: {error}")
    return f"<details><summary>{said}</summary><pre>{told}</pre></details>"
