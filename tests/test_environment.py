"""The lock, the ranges and the conda file say the same; the Makefile builds what they say."""

import os
import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version
from repository import PROJECT, git

PIN = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]*)==([0-9][0-9A-Za-z.]*)")
TARGETS = {"demo", "test", "check", "notebooks", "reports", "bench", "lab", "clean", "help"}
TARGETS |= {"test-browser"}


def lock_lines(name: str = "requirements.lock") -> list[str]:
    """Read a lock without its comments."""
    lines = (PROJECT / name).read_text(encoding="utf-8").splitlines()
    return [line for line in lines if not line.startswith("#")]


def pins() -> dict[str, Version]:
    """Read the lock as versions by canonical name."""
    matches = [PIN.fullmatch(line) for line in lock_lines()]
    return {canonicalize_name(m[1]): Version(m[2]) for m in matches if m}


def ranges() -> list[Requirement]:
    """Read what pyproject.toml asks for, tests and build included."""
    whole = tomllib.loads((PROJECT / "pyproject.toml").read_text(encoding="utf-8"))
    project = whole["project"]
    asked = [*project["dependencies"], *project["optional-dependencies"]["test"]]
    return [Requirement(each) for each in asked + whole["build-system"]["requires"]]


def test_lock_pins_each_package_once_and_exactly():
    lines = lock_lines()
    assert [line for line in lines if not PIN.fullmatch(line)] == []  # no +cpu, no editable line
    assert len(pins()) == len(lines)
    assert "torch==2.13.0" in lines


def test_lock_has_every_package_asked_for_within_its_range():
    locked = pins()
    for asked in ranges():
        version = locked[canonicalize_name(asked.name)]
        assert version in asked.specifier, f"{asked} does not admit {version}"
        assert asked.specifier, f"{asked.name} has no lower bound"


def test_browser_lock_pins_exactly_what_the_other_does_not():
    matches = [PIN.fullmatch(line) for line in lock_lines("requirements-browser.lock")]
    assert all(matches)
    named = [canonicalize_name(each[1]) for each in matches if each]
    assert "playwright" in named and not set(named) & set(pins())


def test_conda_environment_equals_the_lock():
    whole = yaml.safe_load((PROJECT / "environment.yml").read_text(encoding="utf-8"))
    assert whole["name"] == "workbench"
    assert whole["channels"] == ["conda-forge"]
    python, pip, section = whole["dependencies"]
    assert python.startswith("python=") and pip == "pip" and list(section) == ["pip"]
    assert section["pip"] == lock_lines()


def test_conda_python_is_one_the_project_admits():
    whole = yaml.safe_load((PROJECT / "environment.yml").read_text(encoding="utf-8"))
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    version = whole["dependencies"][0].removeprefix("python=")
    assert Version(version) in Requirement(f"python{project['requires-python']}").specifier


def test_makefile_has_its_targets_and_help_lists_them():
    done = make("help", folder=PROJECT)
    assert set(re.findall(r"^([a-z-]+) ", done.stdout, flags=re.MULTILINE)) >= TARGETS
    assert done.returncode == 0


def test_ci_runs_the_readme_command():
    script = PROJECT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    assert "make test check test-browser" in script.read_text(encoding="utf-8")


def test_what_is_made_here_is_ignored():
    made = ("data/runs/x/run.json", "data/cache/x", ".venv/bin/python", "reports/rendered/x.html")
    kept = ("data/README.md", "data/fixtures/x.txt", "reports/data/x.nc", "bench/results/x.json")
    assert [name for name in made if git("check-ignore", "-q", name).returncode] == []
    assert [name for name in kept if not git("check-ignore", "-q", name).returncode] == []


def make(*arguments: str, folder: Path, **extra: str) -> subprocess.CompletedProcess[str]:
    """Run make away from the make that may be running this test."""
    inherited = {key: value for key, value in os.environ.items() if not key.startswith("MAKE")}
    return subprocess.run(
        ["make", "--no-print-directory", *arguments],
        cwd=folder,
        env={**inherited, **extra},
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.fixture
def bare(tmp_path: Path) -> Path:
    """Copy what the environment is made of, with an interpreter that plays version 3.10."""
    for name in ("Makefile", "requirements.lock", "pyproject.toml"):
        (tmp_path / name).write_bytes((PROJECT / name).read_bytes())
    old = tmp_path / "python3.10"
    old.write_text('#!/bin/sh\n[ "$1" = -V ] && echo Python 3.10.1\n', encoding="utf-8")
    old.chmod(0o755)
    return tmp_path


@pytest.mark.parametrize("interpreter", ["./python3.10", "./no-such-python"])
def test_old_or_missing_python_is_one_clear_sentence(bare: Path, interpreter: str):
    done = make("test", f"PYTHON={interpreter}", folder=bare)
    assert done.returncode != 0
    assert f"workbench needs Python 3.11 or newer; {interpreter} is not" in done.stderr
    assert not (bare / ".venv").exists()


def test_missing_compiler_is_one_clear_sentence(bare: Path):
    (bare / "python3").write_text("#!/bin/sh\nexit 0\n", encoding="utf-8")
    (bare / "python3").chmod(0o755)
    (bare / "make").symlink_to(shutil.which("make") or "make")
    done = make("test", folder=bare, PATH=str(bare))
    assert done.returncode != 0
    assert "needs a C compiler" in done.stderr
    assert not (bare / ".venv").exists()
