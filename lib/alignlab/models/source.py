"""What decides how something turns out, as a digest of source files: the same with every version of Python.

`fingerprint` reads what was compiled, function by function, and each minor version of Python compiles in a way of its
own. Here whole modules count, as syntax: names, constants and operations, without comments, docstrings and white space.
It is the coarser of the two, and it sees the files only: not what was changed in memory.
"""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Collection
from pathlib import Path

LIBRARY = Path(__file__).resolve().parents[1]


def digest(module: str, without: Collection[str] = (), library: Path = LIBRARY) -> str:
    """The digest of a module of this library, and of all others that it imports, directly or not.

    Args:
        module: such as "experiment.base".
        without: modules that are not followed: those that have no part in what is made.
        library: the folder of the package.

    Raises:
        FileNotFoundError: there is no such module.
    """
    found: dict[str, str] = {}
    _follow(module, set(without), library, found)
    return hashlib.sha256(repr(sorted(found.items())).encode()).hexdigest()[:20]


def _follow(module: str, without: set[str], library: Path, found: dict[str, str]) -> None:
    code = ast.parse(_file(library, module).read_text("utf-8"))
    found[module] = ""  # modules may import each other
    for name in _imported(code, module, library.name):
        if name not in found and name not in without and _file(library, name).is_file():
            _follow(name, without, library, found)
    found[module] = _syntax(code)


def _file(library: Path, module: str) -> Path:
    return library.joinpath(*module.split(".")).with_suffix(".py")


def _imported(code: ast.Module, module: str, package: str) -> list[str]:
    """What may be modules of this library among all that is imported, wherever in the code."""
    found, here = [], [package, *module.split(".")[:-1]]
    for node in ast.walk(code):
        if isinstance(node, ast.Import):
            found += [a.name for a in node.names]
        elif isinstance(node, ast.ImportFrom):
            start = here[: len(here) - node.level + 1] if node.level else []
            whole = ".".join([*start, *filter(None, [node.module])])
            found += [whole, *(f"{whole}.{a.name}" for a in node.names)]
    return [name.removeprefix(f"{package}.") for name in found if name.startswith(f"{package}.")]


def _syntax(thing) -> str:
    """As `ast.dump`, but without docstrings, and without what is empty: newer versions of Python have more fields."""
    if isinstance(thing, list):
        return f"[{', '.join(map(_syntax, thing))}]"
    if not isinstance(thing, ast.AST):
        return repr(thing)
    fields = dict(ast.iter_fields(thing))
    if isinstance(thing, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
        fields["body"] = thing.body[ast.get_docstring(thing, clean=False) is not None :]
    if isinstance(thing, ast.JoinedStr):  # Python 3.12 ends some formats in an empty string
        fields["values"] = [v for v in thing.values if getattr(v, "value", None) != ""]
    said = (f"{name}={_syntax(value)}" for name, value in fields.items() if value is not None and value != [])
    return f"{type(thing).__name__}({', '.join(said)})"
