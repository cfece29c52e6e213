"""The finding of the chapter `paraphrase` on a smaller world, and that it goes away with the paraphrases.

The chapter's own cells are used, with smaller constants, so that the test speaks about what a reader runs.
"""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest
from alignlab.experiment.ledger import Ledger
from alignlab.experiment.sweep import sweep
from alignlab.worlds.biographies import Presentation
from IPython.core.inputtransformer2 import TransformerManager

CHAPTER = Path(__file__).resolve().parents[2] / "notebooks" / "paraphrase.ipynb"
CLAIM = "varied-beats-single"
SMALL = {"PEOPLE": 80, "ASKED": 60, "EXPOSURES": 80, "WIDTH": 64, "QUIZ_STEPS": 100}
SEEDS = [0, 1]


def cells() -> list[str]:
    """The source of every code cell up to the one that writes the claims."""
    found = []
    for cell in json.loads(CHAPTER.read_text("utf-8"))["cells"]:
        if cell["cell_type"] == "code":
            found.append(TransformerManager().transform_cell("".join(cell["source"])))  # %pip is no Python
            if f'"{CLAIM}"' in found[-1]:
                return found
    pytest.fail(f"no code cell of {CHAPTER.name} contains {CLAIM!r}: tell this test how the claim is called now")


def chapter(**changes) -> dict:
    """The chapter's definitions, with `changes` made to its constants right after the cell that defines them."""
    space = {"__name__": "chapter"}
    for source in cells():
        # Without dont_inherit the cell would be compiled with this file's __future__ imports.
        exec(compile(source, CHAPTER.name, "exec", dont_inherit=True), space)
        space.update({k: v for k, v in changes.items() if k in space})
    missing = [k for k in [*changes, "Arm", "run", "book"] if k not in space]
    assert not missing, f"{CHAPTER.name} no longer defines {', '.join(missing)} before its claims"
    return space


def run_in(cell, seed):
    arm, run = cell
    return run(arm, seed)


@pytest.fixture(scope="module")
def measured():
    told = chapter(**SMALL)
    untold = chapter(**SMALL, VARIED=Presentation(versions=1))
    arm = told["Arm"]
    return told, sweep(
        run_in,
        {
            "single": (arm(), told["run"]),
            "varied": (arm(told["VARIED"]), told["run"]),
            "broken": (untold["Arm"](untold["VARIED"]), untold["run"]),
        },
        SEEDS,
        along="exposures",
    )


def verdict(told: dict, table: pd.DataFrame) -> str:
    """The verdict of the chapter's ledger on this one claim, with the chapter's margin."""
    book = Ledger("paraphrase", "a smaller world")
    book.entries[CLAIM] = told["book"].entries[CLAIM]
    return book.check(table).verdict(CLAIM)


def test_paraphrases_make_facts_usable(measured):
    told, table = measured
    assert verdict(told, table) == "reproduced"


def test_without_the_paraphrases_the_ledger_says_not_reproduced(measured):
    told, table = measured
    broken = table[table["condition"] != "varied"].replace({"condition": {"broken": "varied"}})
    assert verdict(told, broken) == "not reproduced"


def test_every_arm_has_memorised_what_it_read_and_learned_its_questions(measured):
    _, table = measured
    means = table.groupby(["condition", "metric"])["value"].min()
    for condition in ("single", "varied", "broken"):
        assert means[condition, "recited"] > 0.9 and means[condition, "asked"] > 0.9, condition
