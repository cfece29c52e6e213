"""Confirm a chapter: run it once with seeds that nobody has used, and publish what comes.

    python -m tools.confirm the-lab

The seeds are burned before the run, in book/_data/seeds.csv: a run that is stopped leaves no record and has used them
up. What the ledger says goes into book/_data/confirmed.csv, whatever it is, with a fingerprint of the experiment; the
same experiment is not confirmed twice. Both tables only grow.
"""

from __future__ import annotations

import datetime
import os
import subprocess
import sys
from pathlib import Path

import nbformat
from alignlab import __version__

from . import notebooks, tables
from .arguments import parsed, parser
from .experiment import fingerprint, up_to_ledger
from .notebooks import ROOT, entries

RECORD, SEEDS = tables.DATA / "confirmed.csv", tables.DATA / "seeds.csv"
COLUMNS = ("chapter", "fingerprint", "version", "seeds", "entry", "kind", "expect", "mean", "values", "verdict", "date")
BURNED = ("first seed", "chapter", "fingerprint", "date")
FIRST = 7100  # below stand the seeds of the committed runs, of `make stress`, and of trials
FOLDER = ROOT / "_build" / "confirm"


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
