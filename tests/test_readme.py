"""The README's tree names what is there, and its commands exist."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from repository import PROJECT, git, tracked

README = PROJECT / "README.md"
FENCE = re.compile(r"^```(\w*)\n(.*?)^```", flags=re.MULTILINE | re.DOTALL)
ENTRY = re.compile(r"^([ |`+\u2500-\u257f-]*)(\.?\w[\w.-]*(?:/[\w.-]+)*/?)( *)")


def tree_paths(block: str) -> set[str]:
    """Read the paths of an indented tree: a name a line, folders end in a slash, then prose."""
    found: set[str] = set()
    above: list[tuple[int, str]] = []
    for line in block.splitlines():
        match = ENTRY.match(line)
        if not match:
            continue
        indent, name, gap = match.groups()
        if len(gap) < 2 and match.end() < len(line) and not re.search(r"[./]\w|/$", name):
            continue  # prose that runs on from the line above
        above = [(depth, folder) for depth, folder in above if depth < len(indent)]
        found.add("".join(folder for _, folder in above) + name)
        if name.endswith("/"):
            above.append((len(indent), name))
    return found


def blocks(language: str) -> list[str]:
    """Find the README's fenced blocks of a language."""
    found = FENCE.findall(README.read_text(encoding="utf-8"))
    return [body for kind, body in found if kind == language]


def tree() -> set[str]:
    """Read the README's tree: the block that names the library and the reports."""
    bodies = [body for kind in ("", "text") for body in blocks(kind)]
    trees = [body for body in bodies if re.search(r"^\W*workbench/", body, flags=re.MULTILINE)]
    assert len(trees) == 1, "one fenced block draws the tree"
    return tree_paths(trees[0])


def test_tree_reader_follows_indentation():
    block = """\
README.md        what this is
requirements.lock pins
Makefile         targets
notebooks/
  explore/       interactive: one question each,
                 start_here first
data/runs/       made here
"""
    files = {"README.md", "requirements.lock", "Makefile"}
    assert tree_paths(block) == files | {"notebooks/", "notebooks/explore/", "data/runs/"}


def wanted() -> set[str]:
    """List top-level entries and folders that a tree must name."""
    entries: set[str] = set()
    for path in tracked():
        if len(path.parts) == 1:
            entries |= set() if path.name.startswith(".") else {path.name}
        else:  # tests/ mirrors workbench/, so one line stands for it
            folders = [Path(*path.parts[:end]) for end in range(1, len(path.parts))]
            entries |= {f"{each}/" for each in folders if each.parts[:1] != ("tests",)}
            entries |= {f"{path.parts[0]}/"}
    return entries


def test_tree_names_every_entry():
    named = tree()
    covering = {f"{parent}/" for each in named for parent in Path(each).parents[:-1]}
    assert wanted() - named - covering == set()


def test_tree_names_nothing_that_is_not_there():
    stale = [each for each in tree() if not (PROJECT / each).exists()]
    assert [each for each in stale if git("check-ignore", "-q", each).returncode] == []


def shown(pattern: str) -> set[str]:
    """Find what follows a command in the README's shell blocks."""
    return set(re.findall(pattern, "\n".join(blocks("sh")), flags=re.MULTILINE))


def test_make_targets_shown_exist():
    rules = (PROJECT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z][a-z-]*):", rules, flags=re.MULTILINE))
    lines = shown(r"^make ([^#\n]+)")
    assert {"demo", "test"} <= {word for line in lines for word in line.split()}
    assert {word for line in lines for word in line.split() if "=" not in word} <= targets


def test_verbs_shown_exist():
    done = subprocess.run(
        [sys.executable, "-m", "workbench", "--help"],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        timeout=60,
    )
    verbs = set(re.findall(r"^ {4}([a-z-]+)(?: {2,}|$)", done.stdout, flags=re.MULTILINE))
    assert "train" in verbs
    assert shown(r"-m workbench ([a-z]+)") <= verbs


@pytest.mark.parametrize("command", ["make demo", "make test"])
def test_readme_leads_with_the_two_commands(command: str):
    assert command in "\n".join(blocks("sh"))
