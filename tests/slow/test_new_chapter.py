"""A stranger's walk: a chapter on DPO is begun, written, run and checked in a copy of the tree, library untouched."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

from tools import chapters, contract, mutants, new

ROOT = Path(__file__).resolve().parents[2]
TITLE = "Twenty pairs teach what is preferred"
SUMMARY = "二十对回答，一好一坏，够不够教会模型偏好？本章用直接偏好优化训练微型模型，量好回答的概率比坏回答高出多少。"
SOURCE = """
@misc{rafailov2023dpo,
  title = {Direct Preference Optimization: Your Language Model is Secretly a Reward Model},
  author = {Rafailov, Rafael and others}, year = {2023}, eprint = {2305.18290}
}
"""
WRITTEN = {  # the first words of a cell of the skeleton -> what its author makes of it
    "import pandas as pd": """\
from copy import deepcopy

import pandas as pd
from alignlab.experiment import base, ledger, panel, plot
from alignlab.experiment.sweep import sweep
from alignlab.measure import knowledge
from alignlab.models import real, tokens
from alignlab.models.answer import reply
from alignlab.training import losses
from alignlab.training.train import FINETUNE, train
from alignlab.worlds import tasks
from datasets import Dataset
from matplotlib import pyplot as plt""",
    "PLAN = ": """\
PLAN = base.Plan(people=12, read=12, width=32, depth=1, steps=40)
base.prepare(lab.seeds, PLAN)
subject = base.load(lab.seeds[0], PLAN)""",
    "EXAMPLES = ": """\
PAIRS, STEPS = 20, 30
ARMS = ("before", "pairs", "turned round")""",
    "def chosen(": """\
def pairs(subject, seed):
    good = tasks.examples(subject.pool(), PAIRS, seed)
    bad = tasks.with_noise(subject.world, good, 1.0, seed)
    return {"prompt": good["prompt"][:], "chosen": good["response"][:], "rejected": bad["response"][:]}""",
    "def aligned(": """\
def aligned(subject, arm, seed):
    model, rows = deepcopy(subject.model), pairs(subject, seed)
    if arm == "turned round":
        rows["chosen"], rows["rejected"] = rows["rejected"], rows["chosen"]
    if arm != "before":
        rows = tokens.pairs(Dataset.from_dict(rows), subject.tokenizer)
        train(model, rows, STEPS, FINETUNE, seed, loss=losses.dpo(0.1, subject.model))
    return model""",
    "def run(": """\
def run(arm, seed):
    subject = base.load(seed, PLAN)
    model, rows = aligned(subject, arm, seed), pairs(subject, seed)
    sides = {side: knowledge.log_likelihood(
        model, subject.tokenizer, Dataset.from_dict({"prompt": rows["prompt"], "response": rows[side]}))
        for side in ("chosen", "rejected")}
    return {"margin": (sides["chosen"] - sides["rejected"]).mean(), **{k: v.mean() for k, v in sides.items()}}""",
    "book = ": """\
book = ledger.Ledger("dpo", "Twenty pairs teach what is preferred", PROFILE)
at = ledger.Term
book.claim("prefers", "Chosen minus rejected, in nats: after the pairs, minus before",
           at("pairs", "margin"), at("before", "margin"), margin=1.0,
           paper="the margin grows with every step", source="rafailov2023dpo", unit="nats")
book.control("not-by-training", "The same, where the pairs were turned round",
             at("turned round", "margin"), at("before", "margin"), margin=1.0, unit="nats")
book""",
    "model = aligned(": """\
model = aligned(subject, "pairs", lab.seeds[0])
questions = list(subject.test()["prompt"][:5])""",
}
FIGURES = {"usable": "margin", "manner": "chosen", "right": "rejected"}


def filled(source: str) -> str:
    """A cell without its placeholders, as an author would leave it."""
    for start, written in WRITTEN.items():
        if source.startswith(start):
            return written
    figure = re.match(r'plot\.dots\(table, "(\w+)"', source)
    if figure:
        source = source.replace(f'"{figure[1]}"', f'"{FIGURES[figure[1]]}"').replace("share of replies", "nats")
    source = source.replace("TODO`", "rafailov2023dpo`").replace("TODO: 用", SUMMARY + "\nTODO: 用")
    return re.sub(r"TODO: [^\n\"{]*", "Written. ", re.sub(r"\nTODO: 用[^\n]*", "", source))


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    """A copy of the tree, and run(*words): a command in it with its own library."""
    place = tmp_path_factory.mktemp("tree") / "copy"
    left = shutil.ignore_patterns(".venv*", "_build", ".git", "__pycache__", ".pytest_cache", ".ruff_cache")
    shutil.copytree(ROOT, place, ignore=left)
    settings = {"PYTHONPATH": str(place / "lib"), "ALIGNLAB_CACHE": str(place / "_build" / "cache")}

    def run(*words):
        done = subprocess.run(
            [sys.executable, *words], cwd=place, env={**os.environ, **settings}, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return place, run


def test_a_chapter_is_written_in_one_notebook(tree):
    place, run = tree
    before = {f: f.read_bytes() for f in (place / "lib").rglob("*.py")}
    assert "_toc.yml" in run("-m", "tools.new", "dpo", TITLE, "--part=Alignment")
    file = place / "notebooks" / "dpo.ipynb"
    unwritten = contract.Chapter("dpo", chapters.read(file), frozenset())
    assert any("TODO" in problem for problem in contract.problems(unwritten))
    notebook = chapters.read(file)
    for n, cell in enumerate(notebook.cells):
        cell.source = filled(cell.source)
        if chapters.alt(cell):
            cell.metadata["mystnb"]["image"]["alt"] = f"Figure {n}: log-likelihoods in three arms, a dot for every seed"
            cell.metadata["mystnb"]["figure"]["caption"] = "Log-likelihoods in three arms, one dot for every seed."
    notebook.metadata["alignlab"]["summary"] = "Twenty pairs move chosen and rejected {prefers} nats apart."
    chapters.write(notebook, file)
    bibliography = place / "book" / "references.bib"
    if "rafailov2023dpo" not in bibliography.read_text("utf-8"):
        bibliography.write_text(bibliography.read_text("utf-8") + SOURCE, "utf-8")
    said = run("-m", "tools.chapters", "dpo", "--costs")
    for line in (r"claim +prefers .* reproduced", r"control +not-by-training .* held"):
        assert re.search(line, said), said
    asked = (
        "from tools import contract, stamp, stress\nfrom tools.notebooks import ROOT, notebooks\n"
        "keys = contract.bibliography(ROOT / 'book' / 'references.bib')\n"
        "chapter = contract.read(notebooks(ROOT)['notebooks/dpo'], keys)\n"
        "print([contract.problems(chapter), stamp.disagreements(ROOT), stress.missing('dpo', stress.read())])"
    )
    problems, disagreements, settings = ast.literal_eval(run("-c", asked))
    assert problems == [] and disagreements == [] and "seed-100" in settings
    assert {f: f.read_bytes() for f in (place / "lib").rglob("*.py")} == before
    assert re.search(r"^dpo,\d", (place / "book" / "_data" / "costs.csv").read_text("utf-8"), re.MULTILINE)


def test_the_skeleton_has_what_the_contract_asks_for_in_order():
    notebook = nbformat.reads(new.skeleton("dpo", 'What "pairs" teach'), 4)
    problems = contract.problems(contract.Chapter("dpo", notebook, frozenset({"TODO"})))
    rules = {problem.split(":")[0] for problem in problems}
    # Only what is to be written and to be run is missing.
    assert rules == {
        "nothing_left_to_write", "measured_minutes", "executed_in_order", "figures", "captions", "summary",
        "verdict_cell", "ledger",
    }, problems  # fmt: skip
    for _, cell in chapters.code(notebook):
        ast.parse(cell.source.replace("%pip", "# %pip").replace("# %pip", "pass  # %pip"))


@pytest.mark.parametrize(
    "words, says",
    [
        (("DPO", TITLE), "no slug"),
        (("lima", TITLE), "there is a chapter 'lima' already"),
        (("dpo", " "), "not one line"),
        (("dpo", TITLE, "--part=Alinement"), "no part 'Alinement': it has Before you begin"),
    ],
)
def test_a_bad_chapter_is_refused_and_nothing_is_written(monkeypatch, capsys, words, says):
    monkeypatch.setattr(new.tables, "replace", lambda *_: pytest.fail("something was written"))
    with pytest.raises(SystemExit):
        new.main(list(words))
    assert says in capsys.readouterr().err


@pytest.mark.parametrize("part, before", [("Start here", "  - caption: Knowledge"), (None, "  - caption: Back matter")])
def test_the_line_of_the_toc_stands_at_the_end_of_its_part(part, before):
    toc = (ROOT / "_toc.yml").read_text("utf-8")
    lines = new.in_toc(toc, "dpo", part).splitlines()
    there = lines.index("      - file: notebooks/dpo")
    assert lines[there + 1] == before and [*lines[:there], *lines[there + 1 :]] == toc.splitlines()


def test_the_stub_of_the_mutation_is_one(tmp_path):
    (stub,) = ast.parse("MUTATIONS = (\n" + new.MUTATION.format(name="dpo") + ")").body
    made = eval(ast.unparse(stub.value), {"Mutation": mutants.Mutation})
    assert made[0].chapter == "dpo" and mutants.broken(tmp_path, made[0])
