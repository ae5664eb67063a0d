"""Every explore notebook in a browser: it draws, every control redraws, a click drills down."""

import pytest
from browser.notebook import Notebook

TEXT, WORLD = {"run": "one", "other": "two"}, {"run": "world", "other": ""}

# What a reader does on each page: methods of `Notebook`, each of which has to redraw a figure.
TOURS: dict[str, list[tuple[str, ...]]] = {
    "effective_rank": [
        ("move", "show"),
        ("move", "measure"),
        ("move", "matrix"),
        ("move", "keep rank"),
        ("click", "matrix"),
    ],
    "intervention": [
        ("click", "target"),
        ("move", "show"),
        ("move", "how", "zero"),
        ("move", "how", "scale"),
        ("move", "factor"),
        ("move", "target", "visit.0.value"),
        ("move", "against", "visit.1.value"),
    ],
    "live": [("move", "scalars")],
    "logit_prior": [
        ("move", "show"),
        ("click", "chosen", "predictions"),
        ("move", "detail", "what if"),
        ("move", "prior kept"),
        ("move", "bias kept"),
        ("move", "detail", "components"),
        ("move", "predictions", "a typed prompt"),
        ("move", "words", "ab ca => b"),
        ("move", "predictions", "all"),
    ],
    "quantization": [
        ("click", "matrix"),
        ("move", "show"),
        ("move", "along"),
        ("move", "matrix"),
    ],
    "routing_audit": [
        ("click", "cell"),
        ("click", "step"),
        ("move", "step"),
        ("move", "cell"),
    ],
    "token_loss": [
        ("click", "token"),
        ("move", "show"),
        ("move", "sort"),
        ("move", "class", "word_start"),
        ("click", "token_class", "class"),
        ("move", "detail", "deciles"),
        ("move", "detail", "calibration"),
        ("move", "document"),
        ("move", "place", "16"),
        ("move", "token", "5"),
    ],
    "value_residual": [
        ("click", "visit"),
        ("move", "show"),
        ("move", "mix"),
        ("move", "visit", "none"),
    ],
}
ACTIONS = {  # what a button says once it is done
    "effective_rank": ("write experiment", "Wrote experiments/effective-rank-"),
    "quantization": ("find culprits", "forward passes"),
    "value_residual": ("write retrained comparison", "written: "),
}
LEGIBLE = 3  # contrast of text with what it stands on; 3 is WCAG's least for graphics


def take(notebook: Notebook, step: tuple[str, ...]) -> None:
    """Do one thing, and wait until the figures show other data."""
    before = notebook.drawn()
    getattr(notebook, step[0])(*step[1:])
    notebook.redrawn(before)


@pytest.mark.parametrize("name", TOURS)
def test_page_answers_to_every_control_and_click(name, opened, pictures):
    notebook = opened(name, **(WORLD if name == "routing_audit" else TEXT))
    assert notebook.run() == []
    assert notebook.drawn(), "a figure is rendered"
    for step in TOURS[name]:
        take(notebook, step)
    if name in ACTIONS:
        button, said = ACTIONS[name]
        notebook.panel.get_by_role("button", name=button).click()
        notebook.panel.get_by_text(said).wait_for()
    assert notebook.panel.locator("details").count() == 0, "no error in the panel"
    for theme in ("JupyterLab Dark", "JupyterLab Light"):
        notebook.theme(theme)
        assert notebook.contrast() > LEGIBLE, theme
        notebook.picture(pictures / f"{name}-{theme[11:].lower()}.png")
    before = notebook.drawn()
    notebook.reload()
    assert notebook.drawn() == before, "what the controls say, not what was shown first"
    take(notebook, TOURS[name][0])
    assert notebook.outside == []
    assert notebook.emitted == []


def test_start_here_follows_its_menu(opened, pictures):
    notebook = opened("start_here", run="one")
    page = notebook.page.locator(".jp-Notebook")
    assert notebook.run() == []
    first = notebook.drawn(page)
    notebook.picture(pictures / "start_here.png")
    menu = notebook.page.get_by_label("run", exact=True)
    label = next(each for each in menu.locator("option").all_text_contents() if "world" in each)
    menu.select_option(label=label)
    notebook.page.locator(".jp-CodeCell .jp-InputPrompt").nth(3).click()
    assert notebook.run("Run Selected Cell and All Below", skip=3) == []
    notebook.redrawn(first, page)
    notebook.picture(pictures / "start_here-world.png")
    assert notebook.outside == []
    assert notebook.emitted == []
