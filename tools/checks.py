"""Run every check of the book, part by part, and add up the results. `make test` calls this in the environment.

    python -m tools.checks            all parts
    python -m tools.checks lint book  only these

A part that fails does not stop the others; the exit status is non-zero if any failed. Nothing here needs a network.
The speed of the machine stands beside the times: minutes of two machines, or of a busy one, compare no other way.
"""

from __future__ import annotations

import atexit
import os
import shutil
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ET
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import IO

import psutil

from .environment import clean
from .notebooks import ROOT
from .notebooks import notebooks as chapters
from .tables import DATA, read, write

BUILD = ROOT / "_build"
SITE = BUILD / "html"
EPUB = BUILD / "epub" / "dragons-eyes.epub"  # as tools/epub.py calls it, whose import would bring Sphinx to every part
INDEX = SITE / "book" / "index.html"
TIMES = BUILD / "checks.csv"  # of the last complete run without a failure; `make bench` takes it into the book
STARTED = time.perf_counter()
# Most tests keep one core busy; whole files, because a file's tests share what is slow to make.
SIDE_BY_SIDE = ("-n2", "--dist=loadfile")
IN_ORDER = ("--no-loadscope-reorder",)  # otherwise the file with the most tests comes first, not the longest
LONG = {"test_base", "test_cache", "test_read", "test_real", "test_sweep"}  # these first: none runs alone
# Two notebooks side by side keep both cores busy: with a worker for each core in both of them, four would take turns,
# and each would have to start first.
ONE_EACH = {"LOKY_MAX_CPU_COUNT": "1"}
# A part -> the one that runs beside it where both are asked for: the first leaves a core idle now and then, and the
# other needs nothing of it.
BESIDE = {"library": "tools", "mutants": "book"}
SAYS: ContextVar[IO | None] = ContextVar("SAYS", default=None)  # where a part's commands write, if not to the screen
SLOW_TOO = ("-m", "")  # plain `pytest` leaves out what is marked slow


@dataclass
class Count:
    passed: int = 0
    failed: int = 0
    skipped: int = 0


def environment(cache: str) -> dict[str, str]:
    """What every part runs in. The number of threads is left to torch and to the sweep, as for a reader."""
    return clean(ALIGNLAB_CACHE=cache, HF_HUB_OFFLINE="1", HF_DATASETS_OFFLINE="1")


@cache
def trained() -> str:
    """The folder of the models that the notebooks train, empty at first. The library's tests leave a base in it, and
    the broken library uses what it can of it."""
    folder = tempfile.mkdtemp(prefix="alignlab-cache-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def run(command: list[str | Path], **env: str) -> int:
    with tempfile.TemporaryDirectory(prefix="alignlab-cache-") as cache:
        said = {"stdout": SAYS.get(), "stderr": SAYS.get() and subprocess.STDOUT}
        return subprocess.run([str(c) for c in command], cwd=ROOT, env=environment(cache) | env, **said).returncode


def pytest(*arguments: str | Path, **env: str) -> Count:
    """Run pytest and count from its own report. A crash, or no test at all, is a failure."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        status = run([sys.executable, "-m", "pytest", "-q", f"--junitxml={report}", *arguments], **env)
        count = read_report(report) if report.exists() else Count()
    if status and not count.failed:
        count.failed = 1
    return count


def read_report(report: Path) -> Count:
    count = Count()
    for case in ET.parse(report).getroot().iter("testcase"):
        kinds = {child.tag for child in case}
        if kinds & {"failure", "error"}:
            count.failed += 1
        elif "skipped" in kinds:
            count.skipped += 1
        else:
            count.passed += 1
    return count


def one(succeeded: bool) -> Count:
    return Count(passed=int(succeeded), failed=int(not succeeded))


def lint() -> Count:
    """ruff over code and notebooks"""
    return one(run([sys.executable, "-m", "ruff", "check", "."]) == 0)


def library() -> Count:
    """unit tests of the library"""
    files = sorted((ROOT / "tests" / "library").glob("test_*.py"), key=lambda f: (f.stem not in LONG, f.stem))
    return pytest(*SIDE_BY_SIDE, *IN_ORDER, *files, MPLBACKEND="Agg", ALIGNLAB_TRAINED=trained())


def tools() -> Count:
    """the tools, the extensions of the site and the project's files; a chapter made new"""
    tests = ("tests/book", "tests/slow/test_new_chapter.py", "--ignore=tests/book/test_contract.py")
    return pytest(*SIDE_BY_SIDE, *SLOW_TOO, *tests, MPLBACKEND="Agg")


def contract() -> Count:
    """the chapter contract, on every committed notebook and on broken ones"""
    return pytest("tests/book/test_contract.py")


def notebooks() -> Count:
    """all notebooks again from an empty cache, outputs compared (nbval, strict)"""
    # All bases that chapters share first, in one pool: nothing waits for them then.
    if run([sys.executable, "-m", "alignlab.experiment.base"], ALIGNLAB_CACHE=trained()):
        return Count(failed=1)
    # The longest first, so that none runs alone at the end.
    files = sorted(chapters(ROOT).values(), key=lambda f: -minutes().get(f.stem, 0.0))
    options = ("--nbval", "--nbval-current-env", "--nbval-cell-timeout=1800", "--durations=40", *SIDE_BY_SIDE)
    return pytest(*options, *IN_ORDER, *files, ALIGNLAB_CACHE=trained(), **ONE_EACH)


def minutes() -> dict[str, float]:
    """chapter -> what it took when its costs were noted; where it was new, nothing."""
    rows = read(DATA / "costs.csv", "chapter")
    return {chapter: float(row["minutes"]) for (chapter,), row in rows.items()}


def mutants() -> Count:
    """every second chapter with a library broken on purpose, one seed: its ledger must notice"""
    options = (*SLOW_TOO, "-n2", "--durations=9")
    return pytest(*options, "tests/slow/test_broken_library.py", ALIGNLAB_CACHE=trained(), **ONE_EACH)


def book() -> Count:
    """the site from an empty build folder, warnings being errors, and beside it the book as one EPUB file"""
    # Pages that did not change raise no warnings again: only a build from nothing proves that there are none.
    for name in ("html", ".doctrees", "jupyter_execute"):
        shutil.rmtree(BUILD / name, ignore_errors=True)
    arguments = ["build", ".", "-W", "-n", "--keep-going", "--all"]
    # Through the module: on Windows a running jupyter-book.exe cannot be relied on to be on the path.
    command = [sys.executable, "-c", "from jupyter_book.cli.main import main; main()", *arguments]
    if run(command) or not INDEX.exists() or run([sys.executable, "-m", "tools.epub"]):
        return Count(failed=1)
    shutil.copy(EPUB, SITE)
    return Count(passed=1)


def site() -> Count:
    """the built site: links and anchors, then every page in headless Chromium"""
    return pytest(*SLOW_TOO, "-n2", "--durations=15", "tests/site", ALIGNLAB_NEEDS_SITE="1")


PARTS = {f.__name__: f for f in (lint, library, tools, contract, notebooks, mutants, book, site)}


def speed(size: int = 2048, seconds: float = 1.0) -> float:
    """Matrix products of this machine in float32 on all its cores, in GFLOP/s: the best of `seconds` of trying."""
    import torch

    a, best = torch.ones(size, size), 0.0
    stop = time.perf_counter() + seconds
    while time.perf_counter() < stop or not best:
        start = time.perf_counter()
        a @ a
        best = max(best, 2 * size**3 / (time.perf_counter() - start) / 1e9)
    return best


def timed(name: str, says: IO | None = None) -> tuple[Count, float]:
    """(what came of a part, its seconds)."""
    SAYS.set(says)
    start = time.perf_counter()
    return PARTS[name](), time.perf_counter() - start


def clock(seconds: float) -> str:
    return f"{int(seconds // 60)}:{int(seconds % 60):02}"


def main(names: list[str]) -> int:
    unknown = [n for n in names if n not in PARTS]
    if unknown:
        print(f"unknown part {unknown[0]!r}: choose from {', '.join(PARTS)}")
        return 2
    if len(set(names)) < len(names):
        print(f"a part is named twice in {' '.join(names)}: once is enough")
        return 2
    chosen = names or list(PARTS)
    lines, rows, total = [], [], Count()
    before = "" if chosen in (["lint"], ["book"]) else f"{speed():.0f}"
    if before:
        print(f"matrix products of this machine: {before} GFLOP/s (float32, {os.cpu_count()} cores)", flush=True)
    waiting: dict[str, tuple[Future, IO]] = {}
    with ExitStack() as files, ThreadPoolExecutor() as pool:
        for number, name in enumerate(chosen, 1):
            elapsed = clock(time.perf_counter() - STARTED)
            print(f"\n== {number}/{len(chosen)} {name}: {PARTS[name].__doc__} (elapsed {elapsed})", flush=True)
            if (other := BESIDE.get(name)) in chosen[number:]:
                says = files.enter_context(tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace"))
                waiting[other] = pool.submit(timed, other, says), says
            start, idle = time.perf_counter(), psutil.cpu_times().idle
            if name in waiting:
                begun, says = waiting.pop(name)
                count, seconds = begun.result()
                says.seek(0)
                print(says.read(), end="", flush=True)
                busy = "beside another"
            else:
                count, seconds = timed(name)
                free = (psutil.cpu_times().idle - idle) / (time.perf_counter() - start) / os.cpu_count()
                busy = f"cores {1 - free:4.0%} busy"
            total = Count(total.passed + count.passed, total.failed + count.failed, total.skipped + count.skipped)
            took = clock(seconds)
            rows.append((name, PARTS[name].__doc__, took, count.passed + count.failed, count.skipped))
            lines.append(
                f"  {name:10} {took:>6}  {busy:15}  {count.passed:4} passed {count.failed:4} failed"
                + (f" {count.skipped:4} skipped" if count.skipped else "")
            )
    if chosen == ["book"]:
        print(f"\nThe site: {INDEX}" if not total.failed else "\nThe site was not built: see the messages above")
        return int(total.failed > 0)
    print(f"\n== what ran (elapsed {clock(time.perf_counter() - STARTED)})", *lines, sep="\n")
    if before:
        print(f"matrix products: {before} GFLOP/s at the start, {speed():.0f} now")
    if not total.failed and chosen == list(PARTS):
        what = f"on {os.cpu_count()} cores with {before} GFLOP/s in matrix products"
        rows.append(("all", what, clock(time.perf_counter() - STARTED), total.passed, total.skipped))
        columns = ("part", "what", "minutes", "checks", "skipped")
        write([dict(zip(columns, row, strict=True)) for row in rows], columns, TIMES)
    if not total.failed and "book" in chosen:
        print(f"The site: {INDEX}")
    print(f"{total.passed} passed, {total.failed} failed", flush=True)
    return int(total.failed > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
