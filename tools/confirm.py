"""Confirm a chapter: run it once with seeds that nobody has used, and publish what comes.

    python -m tools.confirm the-lab

The seeds are burned before the run, in book/_data/seeds.csv: a run that is stopped leaves no record and has used them
up. What the ledger says goes into book/_data/confirmed.csv, whatever it is, with a fingerprint of the experiment; the
same experiment is not confirmed twice. Both tables only grow.

The fingerprint is a digest of the chapter's code cells up to its ledger, without comments and without the cells that
only draw, of the library's modules that they import, directly or not, without those that only draw or show, and of the
module that gives a profile its seeds.
"""

from __future__ import annotations

import ast
import datetime
import hashlib
import os
import subprocess
import sys
from pathlib import Path

import nbformat
from alignlab import __version__

from . import notebooks, tables
from .arguments import parsed, parser
from .notebooks import ROOT, entries, tags
from .stress import up_to_ledger

RECORD, SEEDS = tables.DATA / "confirmed.csv", tables.DATA / "seeds.csv"
COLUMNS = ("chapter", "fingerprint", "version", "seeds", "entry", "kind", "expect", "mean", "values", "verdict", "date")
BURNED = ("first seed", "chapter", "fingerprint", "date")
FIRST = 7100  # below stand the seeds of the committed runs, of `make stress`, and of trials
FOLDER = ROOT / "_build" / "confirm"
LIBRARY = ROOT / "lib" / "alignlab"
SHOWING = {"experiment.plot", "experiment.panel", "experiment.display"}  # nothing in them reaches a ledger
SETUP = "from alignlab.experiment import notebook"  # what the setup cell imports, whatever its version: seeds, sizes


def fingerprint(file: Path, library: Path = LIBRARY) -> str:
    """The digest of a chapter's experiment, which a comment, a text or a figure does not change."""
    cells = [c for c in up_to_ledger(file).cells if c.cell_type == "code" and "setup" not in tags(c)]
    trees = [ast.parse(c.source) for c in cells]
    kept: list[ast.Module] = []
    for tree in reversed(trees):  # what a cell that draws makes may be used by a later one
        loaded = {n.id for t in kept for n in ast.walk(t) if isinstance(n, ast.Name)}
        if not _draws(tree) or loaded & _made(tree):
            kept.append(tree)
    parts = [_plain(t) for t in reversed(kept)]
    modules: dict[str, str] = {}
    for tree in [ast.parse(SETUP), *kept]:
        _follow(tree, (), library, modules)
    return hashlib.sha256(repr((parts, sorted(modules.items()))).encode()).hexdigest()[:16]


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


def record(chapter: str = "", table: Path | None = None) -> list[dict[str, str]]:
    """The lines of all confirmations, or those of one chapter, in the order in which they were made."""
    rows = tables.read(table or RECORD, "chapter", "fingerprint", "entry").values()
    return [r for r in rows if chapter in ("", r["chapter"])]


def confirmed(file: Path) -> list[dict[str, str]]:
    """The lines of the confirmation of a chapter as it is now; none if it has none in its present form."""
    rows = record(file.stem)
    mark = fingerprint(file) if rows else ""  # nothing to compare it with costs nothing
    return [r for r in rows if r["fingerprint"] == mark]


def burn(chapter: str, mark: str) -> int:
    """The first seed of a hundred that no chapter has used, which are used from now on.

    Chapters share their worlds and bases: seeds that one has seen are no longer fresh to another.
    """
    rows = list(tables.read(SEEDS, "first seed").values())
    first = max([FIRST - 100, *(int(r["first seed"]) for r in rows)]) + 100
    row = dict(zip(BURNED, (first, chapter, mark, _today()), strict=True))
    tables.write([*rows, row], BURNED, SEEDS)
    return first


def _today() -> str:
    return datetime.date.today().isoformat()


def run(chapter: str) -> list[dict]:
    """Run a chapter with fresh seeds up to its ledger and record what comes.

    Raises:
        ValueError: the experiment has been confirmed in this form.
        RuntimeError: the run failed: its seeds are used up, and there is no record.
    """
    file = ROOT / "notebooks" / f"{chapter}.ipynb"
    mark = fingerprint(file)
    if any(r["fingerprint"] == mark for r in record(chapter)):
        raise ValueError(f"{chapter} has been confirmed in this form ({mark}): only a changed experiment runs again")
    first = burn(chapter, mark)
    out = FOLDER / f"{chapter}-{first}.ipynb"
    out.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(up_to_ledger(file), out)
    command = [sys.executable, "-m", "tools.chapters", str(out), "--out", str(out), f"--inject=SEED={first}"]
    if subprocess.run(command, cwd=ROOT, env=dict(os.environ)).returncode:
        raise RuntimeError(f"{chapter}: the run failed. The seeds from {first} are used up; nothing is recorded")
    [ledger] = notebooks.ledgers(out)
    seeds = " ".join(map(str, ledger["seeds"]))
    rows = [
        {
            "chapter": chapter, "fingerprint": mark, "version": __version__, "seeds": seeds, "entry": e["id"],
            "kind": e["kind"], "expect": e["expect"], "mean": e["mean"], "values": " ".join(map(str, e["values"])),
            "verdict": e["verdict"], "date": _today(),
        }
        for e in ledger["entries"]
    ]  # fmt: skip
    tables.write([*record(), *rows], COLUMNS, RECORD)
    return ledger["entries"]


def main(arguments: list[str] | None = None) -> int:
    made = parser(__doc__, chapters="+")
    try:
        for chapter in parsed(made, arguments).chapters:
            before = {e["id"]: e["verdict"] for e in entries(ROOT / "notebooks" / f"{chapter}.ipynb")}
            for e in run(chapter):
                same = "" if e["verdict"] == before.get(e["id"]) else f" (committed: {before.get(e['id'])})"
                print(f"{chapter}, {e['id']}: {e['verdict']} ({e['mean']:+.2f}){same}", flush=True)
    except ValueError as e:
        made.error(str(e))
    except RuntimeError as e:
        print(e)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
