"""A corpus every machine has: the documentation inside its own Python.

Help topics, the docstrings of the standard library and the licence make about two megabytes of
English and code under the PSF licence. The text differs between Python releases, so a run records
its hash; it is collected once an interpreter and kept.
"""

import ast
import sys
import sysconfig
import warnings
from collections.abc import Iterator
from pathlib import Path

from workbench.folder import InputError, data_root, digest, read_json, write_json

SKIPPED = {"test", "tests", "idle_test", "site-packages", "dist-packages", "lib2to3", "idlelib"}
VERSION = "1"  # of the way of collecting, so that a change does not find the old cache
DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


def python_docs() -> tuple[str, ...]:
    """Collect the documentation of the running Python, or read what an earlier call collected.

    Returns
    -------
    tuple of str
        One document a help topic, one a module with docstrings, and the licence, in a fixed order.
    """
    library = Path(sysconfig.get_paths()["stdlib"])
    key = digest(VERSION, sys.version, str(library))
    path = data_root() / "cache" / f"python-docs-{sys.version.split()[0]}-{key[:12]}.json"
    cached = _cached(path)
    if cached is not None:
        return cached
    documents = (*_topics(), *_modules(library), *_licence(library))
    write_json(path, {"hash": digest(*documents), "documents": documents})
    return documents


def _cached(path: Path) -> tuple[str, ...] | None:
    """Read the cache; one that is missing, broken or altered does not count."""
    try:
        content = read_json(path)
        documents = tuple(content["documents"])
        return documents if digest(*documents) == content["hash"] else None
    except (InputError, KeyError, TypeError, AttributeError):
        return None


def _topics() -> Iterator[str]:
    """Yield the texts behind ``help("if")`` and the like; some distributions leave them out."""
    try:
        from pydoc_data.topics import topics
    except ImportError:
        return
    for name in sorted(topics):
        yield topics[name].strip() + "\n"


def _modules(library: Path) -> Iterator[str]:
    """Yield the docstrings of each module, leaving out what an earlier module said already."""
    seen: set[str] = set()
    paths = {path.relative_to(library).as_posix(): path for path in library.rglob("*.py")}
    for name in sorted(paths):
        if SKIPPED & set(Path(name).parts):
            continue
        fresh = [text for text in _docstrings(paths[name]) if text not in seen]
        fresh = list(dict.fromkeys(fresh))
        seen.update(fresh)
        if fresh:
            yield "\n\n".join(fresh) + "\n"


def _docstrings(path: Path) -> Iterator[str]:
    """Yield the docstrings of a file in source order, without importing it."""
    source = path.read_bytes()
    if b'"""' not in source and b"'''" not in source:
        return  # parsing is the slow part
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # old files hold invalid escapes
            tree = ast.parse(source)
    except (SyntaxError, ValueError):
        return  # templates are not all Python
    yield from _below(tree)


def _below(node: ast.AST) -> Iterator[str]:
    """Yield the docstrings of a node and of what it holds; expressions hold none."""
    if isinstance(node, DOCUMENTED):
        text = (ast.get_docstring(node) or "").strip()
        if text and not any(0xD800 <= ord(character) <= 0xDFFF for character in text):
            yield text
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.stmt | ast.excepthandler | ast.match_case):
            yield from _below(child)


def _licence(library: Path) -> Iterator[str]:
    """Yield the licence text, which is beside the standard library where it was installed."""
    path = library / "LICENSE.txt"
    if path.exists():
        yield path.read_text(encoding="utf-8").strip() + "\n"
