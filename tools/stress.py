"""Does a verdict survive other seeds and other processors? `make stress` runs chapters in other settings.

    python -m tools.stress                            every chapter in every setting
    python -m tools.stress lima rot13                 these chapters
    python -m tools.stress --setting seed-100 lima    one setting

Each result goes into book/_data/robustness.csv as soon as it is there; what is not run again is kept. The page
"Robust?" of the book shows that table, and below it book/_data/full.csv, where the profile "full" stands beside
"quick"; full-runs.csv says on what and for how long it ran. Trained models are kept in _build/stress, apart for each
kind of processor, so a run that was stopped goes on where it was.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import torch

from . import tables
from .arguments import parsed, parser
from .costs import machine
from .experiment import digest, note, noted, up_to_ledger
from .notebooks import ROOT, entries, shown

TABLE = tables.DATA / "robustness.csv"
FOLDER = ROOT / "_build" / "stress"
ELSEWHERE = "other-processor"  # asked of nobody: not everybody has two kinds of machine
# A setting: what is injected into the parameters cell, and what is set in the environment.
SETTINGS: dict[str, tuple[dict[str, str], dict[str, str]]] = {
    "committed": ({}, {}),  # read from the committed notebook, not run
    "seed-100": ({"SEED": "100"}, {}),
    "seed-200": ({"SEED": "200"}, {}),
    "no-vectors": ({}, {"ATEN_CPU_CAPABILITY": "default"}),  # torch without the processor's vector instructions
    "avx2": ({}, {"ATEN_CPU_CAPABILITY": "avx2"}),
    "two-threads": ({}, {"ALIGNLAB_THREADS": "2"}),  # everywhere else each model has one
    ELSEWHERE: ({}, {}),  # on a machine whose processor is of another kind than that of the committed run
}
# Chapters whose present experiment has not been run in every setting yet: their other places are empty.
OWED = {
    "base-vs-chat", "three-stages", "lima", "distillation", "token-shift", "three-rules", "self-reward", "limits",
    "rl-amplifies", "rot13", "suppressed", "judges", "halves", "data-limits", "data-quality",
}  # fmt: skip
FULL_TABLE, FULL_RUNS = TABLE.with_name("full.csv"), TABLE.with_name("full-runs.csv")
# These have a table of their own, and run only when they are asked for: without a GPU a chapter takes hours.
PROFILES: dict[str, tuple[dict[str, str], dict[str, str]]] = {"quick": ({}, {}), "full": ({"PROFILE": "full"}, {})}
AS_COMMITTED = ("committed", "quick")


def read(table: Path = TABLE) -> dict[tuple[str, ...], dict[str, str]]:
    """(chapter, entry) -> its row."""
    return tables.read(table, "chapter", "entry")


def record(chapter: str, setting: str, entries: list[dict], table: Path | None = None, mark: str = "") -> None:
    """Write one chapter's verdicts in one setting into its table, in one step; other rows and settings are kept.

    Entries that the chapter no longer has are dropped. So is what was measured in other settings by another
    experiment than the present one, of which `mark` is the digest.
    """
    columns = PROFILES if setting in PROFILES else SETTINGS
    table = table or (FULL_TABLE if setting in PROFILES else TABLE)
    new = bool(mark) and noted(table).get(chapter) != mark
    ids = [e["id"] for e in entries]
    rows = {k: r for k, r in read(table).items() if k[0] != chapter or k[1] in ids}
    for e in entries:
        row = {"chapter": chapter, "entry": e["id"]} | ({} if new else rows.get((chapter, e["id"]), {}))
        if setting == "committed" and row.get(setting) != shown(e):
            row[ELSEWHERE] = ""  # it stands beside the run that was committed before
        rows[chapter, e["id"]] = row | {"kind": e["kind"], setting: shown(e)}
    tables.write(tables.by_chapter(rows.values(), "kind"), ["chapter", "kind", "entry", *columns], table)
    if new:  # last: were it lost, the next run would only begin again
        note(table, chapter, mark)


def missing(chapter: str, rows: dict[tuple[str, ...], dict[str, str]]) -> list[str]:
    """The settings that can be run here and in which a chapter has not been run with all the entries it has now."""
    mine = [rows.get((chapter, e["id"]), {}) for e in entries(ROOT / "notebooks" / f"{chapter}.ipynb")]
    return [s for s in SETTINGS if s != ELSEWHERE and not all(row.get(s) for row in mine)]


def features(file: Path) -> str | None:
    """What a committed run says of the processor that it was made on, as torch calls it; None if it says nothing."""
    found = re.search(r"processor features used by torch: (\w+)", file.read_text("utf-8"))
    return found and found[1]


def is_committed(file: Path, setting: str) -> bool:
    """Whether a setting is what the committed run was made in: a processor with no more than these features."""
    asked = SETTINGS[setting][1].get("ATEN_CPU_CAPABILITY") if setting in SETTINGS else None
    return asked is not None and asked.upper() == features(file)


def record_run(chapter: str, seconds: float, table: Path = FULL_RUNS) -> None:
    """Note how long the last run in the profile "full" took, up to its ledger, and on what."""
    rows = tables.read(table, "chapter")
    where = machine().removeprefix("Measured on ")
    rows[chapter,] = {"chapter": chapter, "minutes": f"{seconds / 60:.1f}", "where": where}
    tables.write(tables.by_chapter(rows.values()), ["chapter", "minutes", "where"], table)


def run(chapter: str, setting: str) -> bool:
    """Run one chapter in one setting and record it; False if it failed."""
    source = ROOT / "notebooks" / f"{chapter}.ipynb"
    mark = digest(source)  # before the run: of what is run, also where the notebook is changed meanwhile
    if setting in AS_COMMITTED or is_committed(source, setting):
        record(chapter, setting, entries(source), mark=mark)
        return True
    if setting == ELSEWHERE and features(source) == (here := torch.backends.cpu.get_cpu_capability()):
        print(f"{chapter} was committed from a run on such a processor ({here}): run this setting on another machine")
        return False
    values, environment = (SETTINGS | PROFILES)[setting]
    out = FOLDER / f"{chapter}-{setting}.ipynb"
    cache = FOLDER / f"cache-{'-'.join(environment.values()) or 'native'}"
    cache.mkdir(parents=True, exist_ok=True)
    nbformat.write(up_to_ledger(source), out)  # what comes later, real models among it, says nothing on verdicts
    command = [sys.executable, "-m", "tools.chapters", str(out), "--out", str(out)]
    command += [f"--inject={k}={v}" for k, v in values.items()]
    if setting == "full":
        command.append(f"--timeout={24 * 3600}")  # of one cell
    start = time.perf_counter()
    kept = os.environ.get("ALIGNLAB_CACHE") if not environment else None
    status = subprocess.run(command, cwd=ROOT, env={**os.environ, "ALIGNLAB_CACHE": kept or str(cache), **environment})
    if status.returncode:
        return False
    record(chapter, setting, entries(out), mark=mark)
    if setting == "full":
        record(chapter, "quick", entries(source), mark=mark)
        record_run(chapter, time.perf_counter() - start)
    return True


def main(arguments: list[str] | None = None) -> int:
    made = parser(__doc__)
    choices = [*SETTINGS, *PROFILES]
    made.add_argument("--setting", action="append", choices=choices, help="default: all but the profiles")
    options = parsed(made, arguments)
    failed = []
    for setting in options.setting or SETTINGS:
        for chapter in options.chapters:
            start = time.perf_counter()
            good = run(chapter, setting)
            took = time.perf_counter() - start
            print(f"{chapter}, {setting}: {'recorded' if good else 'FAILED'}, {took:.0f} s", flush=True)
            failed += [] if good else [f"{chapter}, {setting}"]
    print(f"{TABLE.parent.relative_to(ROOT)} is up to date" if not failed else f"failed: {'; '.join(failed)}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
