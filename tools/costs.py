"""What a run of a chapter costs: measured as it runs, kept in book/_data/costs.csv, said wherever minutes are said."""

from __future__ import annotations

import math
import os
import platform
import re
import threading
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from nbformat import NotebookNode

from . import tables
from .notebooks import code, tags

TABLE = tables.DATA / "costs.csv"
MINUTES, BASES, REAL, MEMORY = "minutes", "of these: shared base models", "of these: real model", "memory in GB"
SHARED = "shared base models"  # a line of their own, where they were trained before all chapters
COLUMNS = ("chapter", MINUTES, BASES, REAL, MEMORY, "where")
TIME = re.compile(r"^(\|\s*Time\b[^|]*\|)([^|\n]*)\|", re.MULTILINE)  # the row of the box "At a glance"


@dataclass
class Cost:
    """What a run took: seconds in all, of these for the shared base models and for real models, and peak memory."""

    seconds: float = 0.0
    bases: float = 0.0
    real: float = 0.0
    gigabytes: float = 0.0

    def divide(self, notebook: NotebookNode) -> None:
        """Of all the seconds, those of the cells that train or load shared bases, and of those on a real model."""
        self.bases = sum(_took(c) for _, c in code(notebook) if shares_bases(c))
        self.real = sum(_took(c) for _, c in code(notebook) if "real-model" in tags(c))


def shares_bases(cell: NotebookNode) -> bool:
    return "base.prepare(" in cell.source


def _took(cell: NotebookNode) -> float:
    """Seconds that a cell ran, by the times that the kernel sent."""
    times = cell.metadata.get("execution", {})
    start, stop = times.get("iopub.execute_input"), times.get("iopub.status.idle")
    return (datetime.fromisoformat(stop) - datetime.fromisoformat(start)).total_seconds() if start and stop else 0.0


@contextmanager
def memory(cost: Cost):
    """Note the largest sum of the memory of all processes below this one, the workers of a kernel among them.

    On Linux each process counts its share of what several have in common; elsewhere that is counted more than once.
    """
    import psutil  # it comes with ipykernel; only who measures needs it

    def size(process) -> int:
        try:
            info = process.memory_full_info()
            return getattr(info, "pss", info.rss)
        except psutil.Error:  # it has ended meanwhile
            return 0

    done = threading.Event()

    def watch():
        while not done.wait(0.5):
            cost.gigabytes = max(cost.gigabytes, sum(map(size, psutil.Process().children(recursive=True))) / 1e9)

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def record(chapter: str, cost: Cost, table: Path = TABLE) -> dict[str, str]:
    """Write one chapter's line, and the line of all; the other chapters' lines are kept. Returns the line."""
    rows = tables.read(table, "chapter")
    rows.pop(("all",), None)
    amounts = (cost.seconds / 60, cost.bases / 60, cost.real / 60, cost.gigabytes)
    row = {"chapter": chapter, **{c: f"{a:.1f}" for c, a in zip(COLUMNS[1:5], amounts, strict=True)}}
    rows[chapter,] = row | {"where": machine().removeprefix("Measured on ").rstrip(".")}
    lines = tables.by_chapter(rows.values())
    sums = {c: f"{sum(float(r[c]) for r in lines):.1f}" for c in (MINUTES, BASES, REAL)}
    most = f"{max(float(r[MEMORY]) for r in lines):.1f}"
    tables.write([*lines, {"chapter": "all", **sums, MEMORY: most}], COLUMNS, table)
    return rows[chapter,]


def own(row: dict[str, str]) -> float:
    """Minutes of a chapter besides the base models that it shares with others."""
    return max(0.0, float(row[MINUTES]) - float(row[BASES]))


def sentence(row: dict[str, str], shared: bool) -> str:
    """How long a chapter takes, for its row "Time": from its line of the table, nothing is typed."""
    cores = re.match(r"(\d+) cores", row.get("where") or "")
    words = "under a minute" if own(row) < 0.75 else f"about {max(1, math.floor(own(row) + 0.5))} minutes"
    words = words.replace("about 1 minutes", "about a minute")
    besides = "; the base models that chapters share are trained once, before that, and kept" if shared else ""
    return f"{words}{f' on {cores[1]} CPU cores' if cores else ''}{besides}"


def said(notebook: NotebookNode) -> str | None:
    """What the row "Time" of a notebook says; None where it has none."""
    found = [TIME.search(c.source) for c in notebook.cells if c.cell_type == "markdown"]
    return next((m[2].strip() for m in found if m), None)


def say(notebook: NotebookNode, words: str) -> None:
    """Put `words` into the row "Time"."""
    for cell in notebook.cells:
        if cell.cell_type == "markdown" and TIME.search(cell.source):
            cell.source = TIME.sub(lambda m: f"{m[1]} {words} |", cell.source, count=1)
            return


def machine() -> str:
    """A line on where something was measured, in general terms."""
    import torch

    where = f"{os.cpu_count()} cores ({platform.machine()}, {torch.backends.cpu.get_cpu_capability()})"
    versions = f"Python {platform.python_version()}, torch {torch.__version__.split('+')[0]}"
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    return f"Measured on {where}, {gpu}, {platform.system()}, {versions}."
