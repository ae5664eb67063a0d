"""Runs to look at, a JupyterLab that serves the explore notebooks, and a browser."""

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from browser.lab import serve
from browser.notebook import Notebook
from playwright.sync_api import Browser, sync_playwright
from repository import PROJECT
from tiny_runs import quantized

QUIET = (  # a machine without a display, and no word to any host of the browser's maker
    "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync"
)
Opener = Callable[..., Notebook]


@pytest.fixture(scope="session")
def data(tiny_data, tmp_path_factory) -> Path:
    """Make a data folder with two diagnosed runs on text and one on the closed world."""
    from workbench import diagnostics
    from workbench.evaluation import evaluate, open_run, save_evaluation
    from workbench.model import new_network, preset
    from workbench.text import open_data
    from workbench.training import begin, train, train_config

    steps = {"steps": 12, "tokens_per_step": 512, "sequence_length": 32, "micro_batches": 1}
    config = train_config(
        optimizer={}, device="cpu", warmdown_steps=4, validate_every=4, checkpoints=3, **steps
    )
    folder = tmp_path_factory.mktemp("browser")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WORKBENCH_DATA", str(folder))
        world = open_data("closed-world")
        for seed, (name, text) in enumerate(
            {"one": tiny_data, "two": tiny_data, "world": world}.items()
        ):
            shape = {"n_layer": 2, "d_model": 16, "vocab_size": text.tokenizer.vocab_size}
            network = new_network(preset("demo", output_bias=name == "world", **shape), seed=seed)
            train(network, text, config, begin(name, network, text, config))
            run = open_run(folder / "runs" / name)
            save_evaluation(run, *evaluate(run))
            quantized(run.folder.path)
            run = open_run(folder / "runs" / name)
            diagnostics.save_diagnosis(run, diagnostics.diagnose(run))
    return folder


@pytest.fixture(scope="session")
def address(data: Path, tmp_path_factory) -> Iterator[str]:
    """Serve a copy of the explore notebooks."""
    folder = tmp_path_factory.mktemp("served")
    shutil.copytree(PROJECT / "notebooks" / "explore", folder, dirs_exist_ok=True)
    with serve(folder, home=tmp_path_factory.mktemp("home"), data=data) as served:
        yield served


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """Start Chromium; each page has a profile of its own."""
    found = shutil.which("chromium")
    assert found, "chromium is not installed: make test-browser says how"
    with sync_playwright() as playwright:
        yield playwright.chromium.launch(executable_path=found, args=QUIET.split())


@pytest.fixture
def opened(browser: Browser, address: str) -> Iterator[Opener]:
    """Open a notebook of the served folder on given runs; close it with its kernel."""
    notebooks: list[Notebook] = []

    def opening(name: str, **runs: str) -> Notebook:
        notebooks.append(Notebook(browser, address, name, runs))
        return notebooks[-1]

    yield opening
    for notebook in notebooks:
        notebook.close()


@pytest.fixture(scope="session")
def pictures(tmp_path_factory) -> Path:
    """Say where screenshots go: a folder to look at, or one that is thrown away."""
    folder = Path(os.environ.get("SCREENSHOTS") or tmp_path_factory.mktemp("pictures"))
    folder.mkdir(parents=True, exist_ok=True)
    return folder
