"""Fold the cells that are not the idea of a chapter: `python -m tools.folds`, for all chapters or those named.

A folded cell has the tag `hide-input`, which the site turns into a fold, and a prompt that says what is in it. What is
folded is a matter of what a cell does, not of taste; the contract asks for the same.
"""

from __future__ import annotations

import ast
import re
import sys

from nbformat import NotebookNode

from . import notebooks as reader
from .arguments import parsed, parser
from .chapters import images
from .notebooks import ROOT, tags

TAG = "hide-input"
LONG = 6  # lines: a table that takes more to work out is folded


def prompt(cell: NotebookNode) -> str | None:
    """What stands on the fold of a code cell, or None if the cell is one to be read."""
    source = cell.source
    shows_table = any("text/html" in o.get("data", {}) for o in cell.outputs) and "nbval-ignore-output" in tags(cell)
    long = len(source.splitlines()) > LONG
    for what, holds in (
        ("is the library here?", "setup" in tags(cell)),
        ("imports", only_imports(source)),
        ("write the claims down", "ledger.Ledger(" in source),
        ("ask the real model", "real-model" in tags(cell)),
        ("with a live kernel, ask yourself", re.search(r"\bpanel\.(ask|dials)\(", source)),
        ("make the panel", re.search(r"\bpanel\.\w+\(", source)),
        ("draw the figure", images(cell) or "image" in cell.metadata.get("mystnb", {})),
        ("the paper's numbers", re.match(r"(paper|GPT4) = ", source)),
        ("check the ledger", "book.check(" in source and "\n" in source),
        ("work out the table", shows_table and long),
    ):
        if holds:
            return f"Code: {what}"
    return None


def only_imports(source: str) -> bool:
    try:
        body = ast.parse(source).body
    except SyntaxError:  # as the setup cell, which calls pip
        return False
    return bool(body) and all(isinstance(node, ast.Import | ast.ImportFrom) for node in body)


def fold(notebook: NotebookNode) -> None:
    """Tag the notebook's cells, and untag those that are not to be folded any more."""
    for _, cell in reader.code(notebook):
        wanted = prompt(cell)
        settings = {k: v for k, v in cell.metadata.pop("mystnb", {}).items() if k != "code_prompt_show"}
        marks = [t for t in cell.metadata.pop("tags", []) if t != TAG]
        if wanted:
            settings, marks = {**settings, "code_prompt_show": wanted}, [*marks, TAG]
        cell.metadata.update({k: v for k, v in (("mystnb", settings), ("tags", marks)) if v})


def main(arguments: list[str] | None = None) -> int:
    for chapter in parsed(parser(__doc__), arguments).chapters:
        file = ROOT / "notebooks" / f"{chapter}.ipynb"
        notebook = reader.read(file)
        fold(notebook)
        file.write_text(reader.text(notebook), "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
