"""What of a chapter decides its ledger, as digests: by them a table knows whether it speaks of the present experiment.

`fingerprint` is a digest of the chapter's code cells up to its ledger, without comments and without the cells that
only draw, of the library's modules that they import, directly or not, without those that only draw or show, and of the
module that gives a profile its seeds. `digest` is one of the cells alone, without the wording of the ledger's lines.
"""

from __future__ import annotations

import ast
import hashlib
from pathlib import Path

import nbformat

from . import tables
from .notebooks import MIME, ROOT, tags

MARKS = "experiments.csv"  # beside the tables: of which experiment their rows are
LIBRARY = ROOT / "lib" / "alignlab"
SHOWING = {"experiment.plot", "experiment.panel", "experiment.display"}  # nothing in them reaches a ledger
SETUP = "from alignlab.experiment import notebook"  # what the setup cell imports, whatever its version: seeds, sizes
LINES = {"claim", "control", "sanity"}  # of a ledger


def up_to_ledger(file: Path) -> nbformat.NotebookNode:
    """The notebook without what comes after its checked ledger."""
    notebook = nbformat.read(file, 4)
    last = max(
        i
        for i, cell in enumerate(notebook.cells)
        if cell.cell_type == "code" and any(MIME in o.get("data", {}) for o in cell.outputs)
    )
    notebook.cells = notebook.cells[: last + 1]
    return notebook


def fingerprint(file: Path, library: Path = LIBRARY) -> str:
    """The digest of a chapter's experiment, which a comment, a text or a figure does not change."""
    kept = _kept(file)
    parts = [_plain(t) for t in kept]
    modules: dict[str, str] = {}
    for tree in [ast.parse(SETUP), *kept]:
        _follow(tree, (), library, modules)
    return _hash((parts, sorted(modules.items())))


def digest(file: Path) -> str:
    """The digest of a chapter's own code: another library leaves it as it is, and so do other words for a claim."""
    kept = _kept(file)
    for node in (n for t in kept for n in ast.walk(t) if isinstance(n, ast.Call)):
        if isinstance(node.func, ast.Attribute) and node.func.attr in LINES:
            node.keywords = [k for k in node.keywords if k.arg not in ("paper", "since")]
            for said in node.args[1:]:
                if isinstance(said, ast.Constant) and isinstance(said.value, str):
                    said.value = ""
    return _hash([_plain(t) for t in kept])


def noted(table: Path) -> dict[str, str]:
    """chapter -> the digest of the experiment that this table's rows of it were measured on."""
    rows = tables.read(table.with_name(MARKS), "table", "chapter")
    return {chapter: row["experiment"] for (name, chapter), row in rows.items() if name == table.stem}


def note(table: Path, chapter: str, experiment: str) -> None:
    """Note, in one step, which experiment this table's rows of a chapter speak of."""
    file = table.with_name(MARKS)
    rows = tables.read(file, "table", "chapter")
    rows[table.stem, chapter] = {"table": table.stem, "chapter": chapter, "experiment": experiment}
    tables.write(rows.values(), ["table", "chapter", "experiment"], file)


def _kept(file: Path) -> list[ast.Module]:
    """The code cells up to the ledger, without the setup and without those that only draw."""
    cells = [c for c in up_to_ledger(file).cells if c.cell_type == "code" and "setup" not in tags(c)]
    kept: list[ast.Module] = []
    for tree in reversed([ast.parse(c.source) for c in cells]):  # what a drawing makes may be used by a later cell
        loaded = {n.id for t in kept for n in ast.walk(t) if isinstance(n, ast.Name)}
        if not _draws(tree) or loaded & _made(tree):
            kept.append(tree)
    return kept[::-1]


def _hash(of) -> str:
    return hashlib.sha256(repr(of).encode()).hexdigest()[:16]


def _draws(tree: ast.Module) -> bool:
    return bool(tree.body) and ast.unparse(tree.body[-1]) == "plt.show()"


def _made(tree: ast.Module) -> set[str]:
    names = {n.id for n in ast.walk(tree) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
    return names | {n.name for n in ast.walk(tree) if isinstance(n, ast.FunctionDef | ast.ClassDef)}


def _plain(tree: ast.Module) -> str:
    """The code without comments and docstrings."""
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        first = body[0].value if isinstance(body, list) and body and isinstance(body[0], ast.Expr) else None
        if isinstance(first, ast.Constant) and isinstance(first.value, str):
            first.value = ""
    return ast.unparse(tree)


def _follow(tree: ast.Module, package: tuple[str, ...], library: Path, found: dict[str, str]) -> None:
    """Put every module of the library that `tree` imports, and all that these import, into `found`: name -> code."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.ImportFrom):
            continue
        if node.level:
            base = package[: len(package) - node.level + 1]
        elif (node.module or "").split(".")[0] == "alignlab":
            base = ()
        else:
            continue
        inner = (node.module or "").split(".") if node.level else node.module.split(".")[1:]
        place = (*base, *filter(None, inner))
        for parts in (place, *((*place, a.name) for a in node.names)):
            file = library.joinpath(*parts).with_suffix(".py") if parts else None
            name = ".".join(parts)
            if file and file.is_file() and name not in found and name not in SHOWING:
                code = ast.parse(file.read_text("utf-8"))
                found[name] = ""  # modules may import each other
                _follow(code, parts[:-1], library, found)
                found[name] = _plain(code)
