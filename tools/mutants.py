"""Does a chapter notice when the library is broken? `make mutants` breaks it on purpose and runs the experiment.

    python -m tools.mutants              every mutation
    python -m tools.mutants lima rot13   those of these chapters

A mutation replaces a few lines in a copy of the library, such that one finding must vanish; the chapter is run with
that copy up to its ledger, with one seed instead of three. What the ledger says is written into
book/_data/mutants.csv, which the page "Robust?" shows. A mutation that leaves the finding "reproduced" is an error:
then the ledger would have said so whatever had happened.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import nbformat

from .notebooks import ROOT, entries, notebooks
from .stress import read as rows_of
from .stress import up_to_ledger, write

LIBRARY = ROOT / "lib" / "alignlab"
TABLE = ROOT / "book" / "_data" / "mutants.csv"
FOLDER = ROOT / "_build" / "mutants"
COLUMNS = ("chapter", "what is broken", "entry", "unbroken", "broken")


@dataclass(frozen=True)
class Mutation:
    """One break of the library, and the entry of a ledger that must not survive it."""

    chapter: str
    says: str  # what is broken, in words
    module: str
    old: str  # stands exactly once in the module
    new: str
    entry: str


ONE_SEED = ("experiment/notebook", 'PROFILES = {"quick": 3,', 'PROFILES = {"quick": 1,')
MUTATIONS = (
    Mutation(
        "the-lab", "reading is without effect: no step of the optimiser is taken", "training/train",
        "        for o in optimizers:\n            o.step()\n",
        "        for o in optimizers:\n",
        "reading-teaches",
    ),
    Mutation(
        "paraphrase", "there are no paraphrases: every version repeats the first one word for word",
        "worlds/biographies",
        "            wording = {a: int(rng.integers(len(STATEMENTS[a]))) for a in world.attributes}\n"
        "            order = list(world.attributes)\n"
        "            if presentation.permute:\n",
        "            wording = {a: 0 for a in world.attributes}\n"
        "            order = list(world.attributes)\n"
        "            if False:\n",
        "varied-beats-single",
    ),
    Mutation(
        "base-vs-chat", "alignment is without effect: fine-tuning takes no step", "experiment/base",
        "    train(model, tokens.replies(chosen, base.tokenizer), steps, recipe,",
        "    train(model, tokens.replies(chosen, base.tokenizer), 0, recipe,",
        "base-does-not-answer",
    ),
    Mutation(
        "lima", "spoilt examples are not spoilt", "worlds/tasks",
        "    noisy = set(rng.permutation(len(chosen))[: round(share * len(chosen))].tolist())\n",
        "    noisy = set()\n",
        "quality",
    ),
    Mutation(
        "distillation", "in every fine-tuning the replies stand behind other prompts", "experiment/base",
        "    model = deepcopy(base.model)\n",
        "    model = deepcopy(base.model)\n"
        "    chosen = tasks.with_shuffled_replies(chosen, base.seed) if len(chosen) > 1 else chosen\n",
        "targeted-facts-are-learned",
    ),
    Mutation(
        "token-shift", "a token is ranked by what the base expected one place earlier", "measure/shift",
        "        rank = ranks(b, ids)\n",
        "        rank = ranks(b.roll(1, 0), ids)\n",
        "few",
    ),
    Mutation(
        "three-rules", "the rule for words has no effect", "models/rules",
        "            scores[:, i] += b\n",
        "            scores[:, i] += 0 * b\n",
        "rules-answer",
    ),
    Mutation(
        "limits", "the four categories are dealt out at random", "measure/categories",
        '    table["category"] = [category(g, s) for g, s in zip(table["greedy"], table["sampled"], strict=True)]\n',
        '    table["category"] = np.random.default_rng(seed).permutation(\n'
        '        [category(g, s) for g, s in zip(table["greedy"], table["sampled"], strict=True)]\n    )\n',
        "unknown-is-fitted-late",
    ),
    Mutation(
        "rot13", "all shifts are written about almost equally often", "worlds/cipher",
        "    weight = {k: 0.0 if k in never else C4[k] ** power for k in SHIFTS}\n",
        "    weight = {k: 0.0 if k in never else C4[k] ** (power / 100) for k in SHIFTS}\n",
        "common-before-rare",
    ),
)  # fmt: skip


def broken(place: Path, mutation: Mutation, one_seed: bool = True) -> Path:
    """Copy the library to `place`/alignlab with the mutation in it, and return `place`.

    Raises:
        ValueError: the lines to replace do not stand there exactly once: the library has changed under the mutation.
    """
    shutil.copytree(LIBRARY, place / "alignlab", ignore=shutil.ignore_patterns("__pycache__"))
    changes = [(mutation.module, mutation.old, mutation.new)] + ([ONE_SEED] if one_seed else [])
    for module, old, new in changes:
        file = place / "alignlab" / f"{module}.py"
        source = file.read_text("utf-8")
        if source.count(old) != 1:
            found = source.count(old)
            raise ValueError(f"{mutation.chapter}: the lines to break stand {found} times in {module}.py, not once")
        file.write_text(source.replace(old, new), "utf-8")
    return place


def run(mutation: Mutation) -> dict | None:
    """The entry that the mutation should kill, as the ledger of the broken chapter has it; None if the run failed."""
    with tempfile.TemporaryDirectory(prefix="alignlab-mutant-") as folder:
        library = broken(Path(folder) / "lib", mutation)
        chapter = Path(folder) / f"{mutation.chapter}.ipynb"
        nbformat.write(up_to_ledger(ROOT / "notebooks" / chapter.name), chapter)
        # Unbroken parts of the library have the same entries here as elsewhere: the cache's keys see what was changed.
        FOLDER.mkdir(parents=True, exist_ok=True)
        environment = {
            **os.environ, "PYTHONPATH": str(library), "ALIGNLAB_CACHE": os.environ.get("ALIGNLAB_CACHE", str(FOLDER)),
        }  # fmt: skip
        command = [sys.executable, "-m", "tools.chapters", str(chapter), "--out", str(chapter)]
        if subprocess.run(command, cwd=ROOT, env=environment).returncode:
            return None
        return next(e for e in entries(chapter) if e["id"] == mutation.entry)


def read(table: Path = TABLE) -> dict[tuple[str, str], dict[str, str]]:
    """(chapter, entry) -> its row."""
    return rows_of(table)


def record(mutation: Mutation, entry: dict, table: Path = TABLE) -> None:
    """Write what became of the entry into the table, in one step; rows of mutations that are gone are dropped."""
    file = ROOT / "notebooks" / f"{mutation.chapter}.ipynb"
    before = next(e for e in entries(file) if e["id"] == mutation.entry)
    rows = read(table)
    rows[mutation.chapter, mutation.entry] = dict(
        zip(COLUMNS, (mutation.chapter, mutation.says, mutation.entry, shown(before), shown(entry)), strict=True)
    )
    write([rows[k] for k in ((m.chapter, m.entry) for m in MUTATIONS) if k in rows], list(COLUMNS), table)


def shown(entry: dict) -> str:
    return f"{entry['verdict']} ({entry['mean']:+.2f})"


def main(arguments: list[str] | None = None) -> int:
    known = [p.stem for p in notebooks(ROOT).values() if entries(p)]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("chapters", nargs="*", metavar="CHAPTER", help=", ".join(known))
    chosen = parser.parse_args(arguments).chapters or known
    for chapter in chosen:
        if chapter not in known:
            parser.error(f"there is no chapter {chapter!r} with a ledger: there is {', '.join(known)}")
    bad = []
    for mutation in (m for m in MUTATIONS if m.chapter in chosen):
        start = time.perf_counter()
        entry = run(mutation)
        if entry is None:
            bad.append(f"{mutation.chapter}: the run failed")
            continue
        record(mutation, entry)
        took = time.perf_counter() - start
        print(f"{mutation.chapter}, {mutation.says}: {mutation.entry} is {shown(entry)}, {took:.0f} s", flush=True)
        if entry["verdict"] == "reproduced":
            bad.append(f"{mutation.chapter}: {mutation.entry} is reproduced although {mutation.says}")
    print("\n".join(bad) if bad else f"{TABLE.relative_to(ROOT)} is up to date")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
