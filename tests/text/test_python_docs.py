"""The documentation corpus: what is in it, and that its cache answers for itself."""

import json
import sys

import pytest

from workbench.folder import digest
from workbench.text import python_docs as module
from workbench.text.python_docs import python_docs

MODULE = '''"""Say what the module does."""
import os

def late():
    """Last\\udc80 is no text."""

class Thing:
    """A thing."""

    def method(self):
        """Do it.

            Indented.
        """

if True:
    async def inside():
        """A thing."""
'''


@pytest.fixture
def library(tmp_path, monkeypatch):
    """A standard library of a few files, and a data folder of its own."""
    files = {
        "thing.py": MODULE,
        "again.py": '"""Say what the module does."""\n',
        "pack/__init__.py": '"""A package. \\d"""\n',
        "test/test_thing.py": '"""A test."""\n',
        "site-packages/other.py": '"""Foreign."""\n',
        "template.py": '"""Not Python {{ name }} """ if\n',
        "LICENSE.txt": "The licence.\n",
    }
    for name, content in files.items():
        path = tmp_path / "lib" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    monkeypatch.setenv("WORKBENCH_DATA", str(tmp_path / "data"))
    monkeypatch.setattr(module.sysconfig, "get_paths", lambda: {"stdlib": str(tmp_path / "lib")})
    monkeypatch.setattr(module, "_topics", lambda: iter(["A topic.\n"]))
    return tmp_path


def test_documents_in_order(library):
    assert python_docs() == (
        "A topic.\n",
        "Say what the module does.\n",
        "A package. \\d\n",
        "A thing.\n\nDo it.\n\nIndented.\n",
        "The licence.\n",
    )


def test_cache_is_used_and_holds_the_hash(library, monkeypatch):
    first = python_docs()
    (path,) = (library / "data" / "cache").iterdir()
    assert sys.version.split()[0] in path.name
    assert json.loads(path.read_text())["hash"] == digest(*first)
    monkeypatch.setattr(module, "_modules", lambda library: pytest.fail("collected again"))
    assert python_docs() == first


@pytest.mark.parametrize("damage", ["", "{}", "[]", '{"hash": "x", "documents": ["altered"]}'])
def test_altered_cache_is_collected_again(library, damage):
    first = python_docs()
    (path,) = (library / "data" / "cache").iterdir()
    path.write_text(damage)
    assert python_docs() == first
    assert json.loads(path.read_text())["documents"] == list(first)


def test_topics_may_be_absent(monkeypatch):
    monkeypatch.setitem(sys.modules, "pydoc_data.topics", None)
    assert list(module._topics()) == []


def test_topics_of_this_python():
    pytest.importorskip("pydoc_data.topics")
    topics = list(module._topics())
    assert len(topics) > 50
    assert sum(map(len, topics)) > 300_000
