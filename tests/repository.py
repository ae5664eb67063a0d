"""Which files the repository holds, for the tests that are about the repository itself."""

import ast
import subprocess
from collections.abc import Iterator
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[1]
PACKAGE = PROJECT / "workbench"


def git(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run git on the project."""
    return subprocess.run(
        ["git", "-C", str(PROJECT), *arguments], capture_output=True, text=True, timeout=60
    )


def tracked() -> list[Path]:
    """List files that are tracked, or will be when added, relative to the project."""
    listing = git("ls-files", "-z", "--cached", "--others", "--exclude-standard")
    assert listing.returncode == 0, listing.stderr
    names = {name for name in listing.stdout.split("\0") if name}
    return sorted(Path(name) for name in names if (PROJECT / name).exists())


def modules() -> list[Path]:
    """List the modules of the library."""
    return sorted(PACKAGE.rglob("*.py"))


def part_of(path: Path) -> str:
    """Name the part of the library that a module belongs to; '' is the package itself."""
    first = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    return "" if first == "__init__" else first


def docstring_of(node: ast.AST) -> ast.Constant | None:
    """Find the docstring of a module, class or function."""
    owners = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
    if not isinstance(node, owners) or not node.body or not isinstance(node.body[0], ast.Expr):
        return None
    value = node.body[0].value
    return value if isinstance(value, ast.Constant) and isinstance(value.value, str) else None


def walk(tree: ast.AST, *kinds: type[ast.AST]) -> Iterator[ast.AST]:
    """Yield the nodes of some kinds."""
    return (node for node in ast.walk(tree) if isinstance(node, kinds))
