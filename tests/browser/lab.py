"""Serve notebooks by JupyterLab as `make lab` does, on the loopback, with settings of its own."""

import os
import secrets
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PATIENCE = 90  # seconds; whatever is waited for says when it is there, this only ends a hang
QUIET = '{"fetchNews": "false"}'  # else it asks about news, in a dialog


@contextmanager
def serve(folder: Path, *, home: Path, data: Path) -> Iterator[str]:
    """Serve a folder; yield the address of its pages, with a place for the path."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options = {
        "ServerApp.ip": "127.0.0.1",
        "ServerApp.port": port,
        "ServerApp.port_retries": 0,
        "ServerApp.root_dir": folder,
        "ServerApp.allow_root": True,
        "ServerApp.open_browser": False,
        "LabApp.user_settings_dir": home / "settings",
        "LabApp.workspaces_dir": home / "workspaces",
        "LabApp.news_url": None,
        "LabApp.expose_app_in_browser": True,  # the state of a cell is in no element of the page
    }
    token, log = secrets.token_hex(16), home / "server.log"
    environment = {"JUPYTER_TOKEN": token, "WORKBENCH_DATA": str(data)}
    for kind in ("CONFIG", "DATA", "RUNTIME"):
        environment[f"JUPYTER_{kind}_DIR"] = str(home / kind.lower())
    settings = home / "settings" / "@jupyterlab" / "apputils-extension"
    settings.mkdir(parents=True)
    (settings / "notification.jupyterlab-settings").write_text(QUIET, encoding="utf-8")
    with log.open("wb") as output:
        server = subprocess.Popen(
            [sys.executable, "-m", "jupyterlab", *(f"--{k}={v}" for k, v in options.items())],
            env={**os.environ, **environment},
            stdout=output,
            stderr=output,
        )
    try:
        await_answer(f"http://127.0.0.1:{port}/api/status?token={token}", server, log)
        yield f"http://127.0.0.1:{port}/{{}}?token={token}"
    finally:
        server.terminate()
        try:
            server.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


def await_answer(address: str, server: subprocess.Popen[bytes], log: Path) -> None:
    """Return when the server answers; raise with what it logged when it does not."""
    end = time.monotonic() + PATIENCE
    while server.poll() is None and time.monotonic() < end:
        try:
            urllib.request.urlopen(address, timeout=5).close()
            return
        except (urllib.error.URLError, TimeoutError):
            time.sleep(0.1)
    raise RuntimeError(log.read_text(encoding="utf-8"))
