"""The mutations of the library: that they still break what they say, and what the committed table says of them."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from tools import mutants, stress

ROOT = Path(__file__).resolve().parents[2]

BY_CHAPTER = pytest.mark.parametrize("mutation", mutants.MUTATIONS, ids=lambda m: m.chapter)


def test_every_chapter_with_a_ledger_is_broken_once_at_least():
    with_ledger = {p.stem for p in mutants.notebooks(ROOT).values() if mutants.entries(p)}
    assert {m.chapter for m in mutants.MUTATIONS} == with_ledger


@BY_CHAPTER
def test_a_mutation_changes_one_place_of_the_library(mutation, tmp_path):
    place = mutants.broken(tmp_path, mutation, one_seed=False) / "alignlab"
    changed = [f.name for f in mutants.LIBRARY.glob("*.py") if f.read_bytes() != (place / f.name).read_bytes()]
    assert changed == [f"{mutation.module}.py"]
    ast.parse((place / changed[0]).read_text("utf-8"))
    assert "1" in (mutants.broken(tmp_path / "again", mutation) / "alignlab" / "notebook.py").read_text("utf-8")


def test_a_mutation_of_lines_that_are_gone_is_refused(tmp_path):
    gone = mutants.Mutation("lima", "nothing", "web", "these lines are nowhere", "", "quality")
    with pytest.raises(ValueError, match="lima: the lines to break stand 0 times in web.py"):
        mutants.broken(tmp_path, gone)


@BY_CHAPTER
def test_no_finding_survives_its_mutation(mutation):
    row = mutants.read().get((mutation.chapter, mutation.entry))
    assert row, f"make mutants NAME={mutation.chapter}"
    entry = next(e for e in mutants.entries(ROOT / f"notebooks/{mutation.chapter}.ipynb") if e["id"] == mutation.entry)
    assert row["unbroken"] == mutants.shown(entry) and entry["verdict"] == "reproduced"
    assert row["what is broken"] == mutation.says
    assert not row["broken"].startswith("reproduced")


def test_a_survivor_is_an_error(monkeypatch, tmp_path, capsys):
    mutation = mutants.MUTATIONS[-1]
    entry = next(e for e in mutants.entries(ROOT / f"notebooks/{mutation.chapter}.ipynb") if e["id"] == mutation.entry)
    table = tmp_path / "t.csv"
    monkeypatch.setattr(mutants, "record", lambda m, e, record=mutants.record: record(m, e, table))
    for verdict, status in (("reproduced", 1), ("not reproduced", 0)):
        monkeypatch.setattr(mutants, "run", lambda m, verdict=verdict: {**entry, "verdict": verdict, "mean": 0.0})
        assert mutants.main([mutation.chapter]) == status
        assert mutants.read(table)[mutation.chapter, mutation.entry]["broken"] == f"{verdict} (+0.00)"
    assert f"{mutation.entry} is reproduced although {mutation.says}" in capsys.readouterr().out


def test_the_notebook_ends_with_its_ledger():
    for mutation in mutants.MUTATIONS:
        file = ROOT / f"notebooks/{mutation.chapter}.ipynb"
        cells = mutants.up_to_ledger(file).cells
        assert any(stress.LEDGER in o.get("data", {}) for o in cells[-1].outputs)
        assert len(cells) < len(mutants.nbformat.read(file, 4).cells)
