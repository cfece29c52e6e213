"""Does a verdict survive other seeds and other processors? `make stress` runs chapters in other settings.

    python tests/stress.py                            every chapter in every setting
    python tests/stress.py lima rot13                 these chapters
    python tests/stress.py --setting seed-100 lima    one setting

Each result goes into book/_data/robustness.csv as soon as it is there; what is not run again is kept. The page
"Robust?" of the book shows that table. Trained models are kept in _build/stress, apart for each kind of processor, so
a run that was stopped goes on where it was.
"""

from __future__ import annotations

import argparse
import csv
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import nbformat

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "book" / "_ext"))
from book_toc import notebooks  # noqa: E402  (its folder is on the path only now)

TABLE = ROOT / "book" / "_data" / "robustness.csv"
FOLDER = ROOT / "_build" / "stress"
LEDGER = "application/vnd.alignlab.ledger+json"
# A setting: what is injected into the parameters cell, and what is set in the environment.
SETTINGS: dict[str, tuple[dict[str, str], dict[str, str]]] = {
    "committed": ({}, {}),  # read from the committed notebook, not run
    "seed-100": ({"SEED": "100"}, {}),
    "seed-200": ({"SEED": "200"}, {}),
    "no-vectors": ({}, {"ATEN_CPU_CAPABILITY": "default"}),  # torch without the processor's vector instructions
    "avx2": ({}, {"ATEN_CPU_CAPABILITY": "avx2"}),
    "two-threads": ({}, {"ALIGNLAB_THREADS": "2"}),  # everywhere else each model has one
}


def ledger(file: Path) -> list[dict]:
    """The entries of the one checked ledger of an executed notebook; none where there is no ledger."""
    outputs = [o for c in nbformat.read(file, 4).cells if c.cell_type == "code" for o in c.outputs]
    found = [o.data[LEDGER]["entries"] for o in outputs if LEDGER in o.get("data", {})]
    return found[0] if found else []


def up_to_ledger(file: Path) -> nbformat.NotebookNode:
    """The notebook without what comes after its checked ledger."""
    notebook = nbformat.read(file, 4)
    last = max(
        i
        for i, cell in enumerate(notebook.cells)
        if cell.cell_type == "code" and any(LEDGER in o.get("data", {}) for o in cell.outputs)
    )
    notebook.cells = notebook.cells[: last + 1]
    return notebook


def read(table: Path = TABLE) -> dict[tuple[str, str], dict[str, str]]:
    """(chapter, entry) -> its row."""
    if not table.exists():
        return {}
    with table.open(newline="", encoding="utf-8") as f:
        return {(r["chapter"], r["entry"]): r for r in csv.DictReader(f)}


def record(chapter: str, setting: str, entries: list[dict], table: Path = TABLE) -> None:
    """Write one chapter's verdicts in one setting into the table, in one step; other rows and settings are kept.

    Entries that the chapter no longer has are dropped.
    """
    rows = read(table)
    ids = [e["id"] for e in entries]
    rows = {k: r for k, r in rows.items() if k[0] != chapter or k[1] in ids}
    for e in entries:
        row = rows.setdefault((chapter, e["id"]), {"chapter": chapter, "entry": e["id"]})
        row["kind"] = e["kind"]
        row[setting] = f"{e['verdict']} ({e['mean']:+.2f})"
    order = list(notebooks(ROOT))
    place = {Path(name).name: i for i, name in enumerate(order)}
    ordered = sorted(rows.values(), key=lambda r: (place.get(r["chapter"], 99), r["chapter"], r["kind"]))
    table.parent.mkdir(parents=True, exist_ok=True)
    handle, draft = tempfile.mkstemp(dir=table.parent)
    with os.fdopen(handle, "w", newline="", encoding="utf-8") as f:
        writer = csv.DictWriter(f, ["chapter", "kind", "entry", *SETTINGS], restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(ordered)
    os.chmod(draft, 0o644)
    os.replace(draft, table)


def run(chapter: str, setting: str) -> bool:
    """Run one chapter in one setting and record it; False if it failed."""
    source = ROOT / "notebooks" / f"{chapter}.ipynb"
    if setting == "committed":
        record(chapter, setting, ledger(source))
        return True
    values, environment = SETTINGS[setting]
    out = FOLDER / f"{chapter}-{setting}.ipynb"
    cache = FOLDER / f"cache-{'-'.join(environment.values()) or 'native'}"
    cache.mkdir(parents=True, exist_ok=True)
    nbformat.write(up_to_ledger(source), out)  # what comes later, real models among it, says nothing on verdicts
    command = [sys.executable, str(ROOT / "book/_tools/chapters.py"), str(out), "--out", str(out)]
    command += [f"--inject={k}={v}" for k, v in values.items()]
    kept = os.environ.get("ALIGNLAB_CACHE") if not environment else None
    status = subprocess.run(command, env={**os.environ, "ALIGNLAB_CACHE": kept or str(cache), **environment})
    if status.returncode:
        return False
    record(chapter, setting, ledger(out))
    return True


def main(arguments: list[str] | None = None) -> int:
    known = [p.stem for p in notebooks(ROOT).values() if ledger(p)]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("chapters", nargs="*", metavar="CHAPTER", help=", ".join(known))
    parser.add_argument("--setting", action="append", choices=list(SETTINGS), help="default: all of them")
    options = parser.parse_args(arguments)
    for chapter in options.chapters:
        if chapter not in known:
            parser.error(f"there is no chapter {chapter!r} with a ledger: there is {', '.join(known)}")
    failed = []
    for setting in options.setting or SETTINGS:
        for chapter in options.chapters or known:
            start = time.perf_counter()
            good = run(chapter, setting)
            took = time.perf_counter() - start
            print(f"{chapter}, {setting}: {'recorded' if good else 'FAILED'}, {took:.0f} s", flush=True)
            failed += [] if good else [f"{chapter}, {setting}"]
    print(f"{TABLE.relative_to(ROOT)} is up to date" if not failed else f"failed: {'; '.join(failed)}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
