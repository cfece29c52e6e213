"""Run every check of the book, part by part, and add up the results. `make test` calls this in the environment.

    python -m tools.checks            all parts
    python -m tools.checks lint book  only these

A part that fails does not stop the others; the exit status is non-zero if any failed. Nothing here needs a network.
"""

from __future__ import annotations

import atexit
import csv
import os
import shutil
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ET
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
BUILD = ROOT / "_build"
SITE = BUILD / "html"
INDEX = SITE / "book" / "index.html"
TIMES = BUILD / "checks.csv"  # of the last complete run without a failure; `make bench` takes it into the book
STARTED = time.perf_counter()


@dataclass
class Count:
    passed: int = 0
    failed: int = 0
    skipped: int = 0


def environment(cache: str) -> dict[str, str]:
    """What every part runs in. The number of threads is left to torch and to the sweep, as for a reader."""
    env = {k: v for k, v in os.environ.items() if k != "MPLBACKEND"}  # it would switch inline figures off
    return env | {
        "ALIGNLAB_CACHE": cache,
        "ALIGNLAB_QUIET": "1",
        "HF_HUB_OFFLINE": "1",
        "HF_DATASETS_OFFLINE": "1",
        "JUPYTER_PREFER_ENV_PATH": "1",  # the kernel of this environment, not one that the user installed elsewhere
        "PYTHONUNBUFFERED": "1",
    }


@cache
def trained() -> str:
    """The folder of the models that the notebooks train, empty at first; the broken library uses what it can of it."""
    folder = tempfile.mkdtemp(prefix="alignlab-cache-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def run(command: list[str | Path], **env: str) -> int:
    with tempfile.TemporaryDirectory(prefix="alignlab-cache-") as cache:
        return subprocess.run([str(c) for c in command], cwd=ROOT, env=environment(cache) | env).returncode


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
    """unit tests of the library, the tools and the project's files"""
    # Most of these tests keep one core busy; whole files, because a file's tests share what is slow to make.
    folders = ("tests/library", "tests/book", "--ignore=tests/book/test_contract.py")
    return pytest("-n2", "--dist=loadfile", *folders, MPLBACKEND="Agg")


def contract() -> Count:
    """the chapter contract, on every committed notebook and on broken ones"""
    return pytest("tests/book/test_contract.py")


def notebooks() -> Count:
    """all notebooks again from an empty cache, outputs compared (nbval, strict)"""
    # Two at a time: where one chapter keeps only one core busy, the other one uses the second.
    side_by_side = ("-n2", "--dist=loadfile", "--durations=12")
    options = ("--nbval", "--nbval-current-env", "--nbval-cell-timeout=900", *side_by_side)
    return pytest(*options, "notebooks", ALIGNLAB_CACHE=trained())


def mutants() -> Count:
    """every chapter with a library broken on purpose, one seed: its ledger must notice"""
    return pytest("-n2", "--durations=9", "tests/slow/test_broken_library.py", ALIGNLAB_CACHE=trained())


def book() -> Count:
    """the site from an empty build folder, warnings being errors"""
    # Pages that did not change raise no warnings again: only a build from nothing proves that there are none.
    for name in ("html", ".doctrees", "jupyter_execute"):
        shutil.rmtree(BUILD / name, ignore_errors=True)
    arguments = ["build", ".", "-W", "-n", "--keep-going", "--all"]
    # Through the module: on Windows a running jupyter-book.exe cannot be relied on to be on the path.
    command = [sys.executable, "-c", "from jupyter_book.cli.main import main; main()", *arguments]
    return one(run(command) == 0 and INDEX.exists())


def site() -> Count:
    """the built site: links and anchors, then every page in headless Chromium"""
    return pytest("-n2", "--durations=3", "tests/site", ALIGNLAB_NEEDS_SITE="1")


PARTS = {f.__name__: f for f in (lint, library, contract, notebooks, mutants, book, site)}


def clock(seconds: float) -> str:
    return f"{int(seconds // 60)}:{int(seconds % 60):02}"


def main(names: list[str]) -> int:
    unknown = [n for n in names if n not in PARTS]
    if unknown:
        print(f"unknown part {unknown[0]!r}: choose from {', '.join(PARTS)}")
        return 2
    chosen = names or list(PARTS)
    lines, rows, total = [], [], Count()
    for number, name in enumerate(chosen, 1):
        elapsed = clock(time.perf_counter() - STARTED)
        print(f"\n== {number}/{len(chosen)} {name}: {PARTS[name].__doc__} (elapsed {elapsed})", flush=True)
        start = time.perf_counter()
        count = PARTS[name]()
        total = Count(total.passed + count.passed, total.failed + count.failed, total.skipped + count.skipped)
        took = clock(time.perf_counter() - start)
        rows.append((name, PARTS[name].__doc__, took, count.passed + count.failed, count.skipped))
        lines.append(
            f"  {name:10} {took:>6}  {count.passed:4} passed {count.failed:4} failed"
            + (f" {count.skipped:4} skipped" if count.skipped else "")
        )
    if chosen == ["book"]:
        print(f"\nThe site: {INDEX}" if not total.failed else "\nThe site was not built: see the messages above")
        return int(total.failed > 0)
    print(f"\n== what ran (elapsed {clock(time.perf_counter() - STARTED)})", *lines, sep="\n")
    if not total.failed and chosen == list(PARTS):
        rows.append(("all", "", clock(time.perf_counter() - STARTED), total.passed, total.skipped))
        with TIMES.open("w", newline="", encoding="utf-8") as f:
            csv.writer(f, lineterminator="\n").writerows([("part", "what", "minutes", "checks", "skipped"), *rows])
    if not total.failed and "book" in chosen:
        print(f"The site: {INDEX}")
    print(f"{total.passed} passed, {total.failed} failed", flush=True)
    return int(total.failed > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
