"""The mutations of the library: that they still break what they say, and what the committed table says of them."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import nbformat
import pytest

from tools import mutants
from tools.notebooks import MIME, notebooks

ROOT = Path(__file__).resolve().parents[2]

BY_CHAPTER = pytest.mark.parametrize("mutation", mutants.MUTATIONS, ids=lambda m: f"{m.chapter}-{m.entry}")


def test_every_chapter_with_a_ledger_is_broken_once_at_least():
    with_ledger = {p.stem for p in notebooks(ROOT).values() if mutants.entries(p)}
    assert {m.chapter for m in mutants.MUTATIONS} == with_ledger


@BY_CHAPTER
def test_a_mutation_overrides_something_of_one_module(mutation, tmp_path):
    place = mutants.broken(tmp_path, mutation) / "alignlab"
    files = {f.relative_to(mutants.LIBRARY): f.read_text("utf-8") for f in mutants.LIBRARY.rglob("*.py")}
    changed = [name.as_posix() for name, text in files.items() if text != (place / name).read_text("utf-8")]
    assert changed == [f"{mutation.module}.py"]
    source = (place / changed[0]).read_text("utf-8")
    assert source.startswith(files[Path(changed[0])]) and compile(source, changed[0], "exec")


@pytest.mark.parametrize(
    "module, override, says",
    [
        ("worlds/tasks", "def with_noice(*a):\n    return a", "overrides with_noice, and worlds/tasks has no such"),
        ("models/rules", "TokenBias.apply = None", "overrides TokenBias.apply"),
        ("worlds/tasks", "unbroken = with_noise", "overrides nothing"),
        ("worlds/task", "def with_noise(*a):\n    return a", "the library has no module worlds/task"),
    ],
)
def test_a_mutation_of_what_is_gone_is_refused(tmp_path, module, override, says):
    with pytest.raises(ValueError, match=f"lima: .*{says}"):
        mutants.broken(tmp_path, mutants.Mutation("lima", "nothing", module, override, "quality"))


def test_who_imports_by_name_meets_the_override(tmp_path):
    """`base` says `from ..worlds import tasks`, `web` takes names from `tasks`: both must see the broken function."""
    override = "unbroken = spell\n\n\ndef spell(s):\n    return 'x' + unbroken(s)"
    mutation = mutants.Mutation("lima", "letters are misspelt", "worlds/letters", override, "quality")
    place = mutants.broken(tmp_path, mutation)
    asked = "from alignlab.worlds.tasks import skill_task; print(skill_task('first', 'kmp', 0)['prompt'])"
    run = subprocess.run(
        [sys.executable, "-c", asked], env={**os.environ, "PYTHONPATH": str(place)}, capture_output=True, text=True
    )
    assert "xk m p" in run.stdout, run.stderr


@BY_CHAPTER
def test_no_finding_survives_its_mutation(mutation):
    row = mutants.read().get((mutation.chapter, mutation.entry))
    assert row, f"make mutants NAME={mutation.chapter}"
    entry = next(e for e in mutants.entries(ROOT / f"notebooks/{mutation.chapter}.ipynb") if e["id"] == mutation.entry)
    assert row["unbroken"] == mutants.shown(entry)
    if entry["verdict"] not in mutants.SURVIVED:  # an unsettled control that broke by itself: the mutation adds to it
        broken = float(re.search(r"\(([^)]*)\)", row["broken"])[1])
        assert entry["kind"] == "control" and abs(broken) >= abs(entry["mean"]) + entry["margin"]
    assert row["what is broken"] == mutation.says
    assert not row["broken"].startswith(mutants.SURVIVED)


def test_every_control_is_broken_by_a_mutation():
    found = {(m.chapter, m.entry) for m in mutants.MUTATIONS}
    controls = {
        (p.stem, e["id"]) for p in notebooks(ROOT).values() for e in mutants.entries(p) if e["kind"] == "control"
    }
    assert controls <= found, "write a mutation in tools/mutants.py"


def cells(*sources):
    made = [nbformat.v4.new_code_cell("n = 1", metadata={"tags": ["parameters"]})]
    return nbformat.v4.new_notebook(cells=made + [nbformat.v4.new_code_cell(s) for s in sources])


@pytest.mark.parametrize(
    "source, kept",
    [
        ("a = 1", True),  # what the last cell reads
        ("c = 3", True),  # what a function reads that the last cell calls
        ("import a", True),
        ("book.claim(1)", True),  # changes what is read
        ("book[0].x = 1", True),
        ("print(a)", False),
        ("import plt\nplt.plot(a)\nplt.show()", False),
        ("def g(a):\n    book = a\n    return book", False),  # names of its own
        ("q = [a for a in book]", False),
    ],
)
def test_a_mutation_runs_the_cells_that_the_ledger_needs(source, kept):
    whole = cells("def f():\n    return c", source, "x = y = 0", "book.check(f(a))")
    sources = [c.source for c in mutants.needed(whole).cells]
    assert sources == ["n = 1", "def f():\n    return c", *[source] * kept, "book.check(f(a))"]


def test_what_a_needed_function_reads_is_needed_wherever_it_stands():
    made = mutants.needed(cells("c = 3", "d = 4", "def f():\n    return g()", "def g():\n    return c", "f()"))
    assert [c.source for c in made.cells[1:]] == ["c = 3", "def f():\n    return g()", "def g():\n    return c", "f()"]


ASK = """
from alignlab.experiment.ledger import Ledger
from alignlab.experiment.sweep import sweep
ran = []
def run(condition, seed):
    ran.append(condition)
    return {"m": seed + len(condition)}
book = Ledger("lima", "A title")
book.claim("one", "a statement", ("bb", "m"), ("a", "m"), margin=0.5, paper="p", source="s")
book.claim("two", "a statement", ("ccc", "m"), ("a", "m"), margin=0.5, paper="p", source="s")
table = sweep(run, ("a", "bb", "ccc"), [0, 1], ledger=book, workers=1)
print(ran, book.check(table).results()["entries"][0]["values"], list(book.entries))
"""


def test_only_what_an_entry_compares_is_run(tmp_path):
    place = mutants.broken(tmp_path, mutants.Mutation("lima", "nothing", "worlds/letters", "spell = spell", "two"))
    mutants.alone(place, "two")
    run = subprocess.run(
        [sys.executable, "-c", ASK], env={**os.environ, "PYTHONPATH": str(place)}, capture_output=True, text=True
    )
    assert run.stdout == "['a', 'a', 'ccc', 'ccc'] [2.0, 2.0] ['two']\n", run.stderr


def test_a_survivor_is_an_error(monkeypatch, tmp_path, capsys):
    """And the table is not said to speak of an experiment that a mutation survived."""
    mutation = mutants.MUTATIONS[-1]
    entry = next(e for e in mutants.entries(ROOT / f"notebooks/{mutation.chapter}.ipynb") if e["id"] == mutation.entry)
    table = tmp_path / "t.csv"
    monkeypatch.setattr(mutants, "TABLE", table)
    monkeypatch.setattr(mutants, "ROOT", tmp_path)
    monkeypatch.setattr(mutants, "MUTATIONS", (mutation,))
    monkeypatch.setattr(mutants, "experiment", lambda chapter: "one")
    monkeypatch.setattr(mutants, "record", lambda m, e: table.write_text(mutants.shown(e)))
    for found in ({"verdict": "reproduced"}, None, {"verdict": "not reproduced"}):
        made = found and {**entry, **found, "mean": 0.0}
        monkeypatch.setattr(mutants, "run", lambda m, made=made: made)
        kills = found == {"verdict": "not reproduced"}
        assert mutants.main([mutation.chapter]) == (0 if kills else 1)
        assert mutants.changed(mutation.chapter) != kills
    assert table.read_text() == "not reproduced (+0.00)"
    said = capsys.readouterr().out
    assert f"{mutation.entry} is reproduced although {mutation.says}" in said
    assert f"the run failed in which {mutation.says}" in said
    monkeypatch.setattr(mutants, "run", lambda m: pytest.fail("the table speaks of this experiment"))
    assert mutants.main([mutation.chapter, "--changed"]) == 0


def test_what_came_of_a_mutation_is_recorded(tmp_path):
    mutation = mutants.MUTATIONS[-1]
    entry = next(e for e in mutants.entries(ROOT / f"notebooks/{mutation.chapter}.ipynb") if e["id"] == mutation.entry)
    mutants.record(mutation, {**entry, "verdict": "broken", "mean": 0.5}, tmp_path / "t.csv")
    [row] = mutants.read(tmp_path / "t.csv").values()
    assert (row["unbroken"], row["broken"]) == (mutants.shown(entry), "broken (+0.50)")


def test_every_second_chapter_whose_experiment_is_the_old_one_is_broken_in_one_way_each_time(monkeypatch, tmp_path):
    table, chapters = tmp_path / "t.csv", list(dict.fromkeys(m.chapter for m in mutants.MUTATIONS))
    monkeypatch.setattr(mutants, "experiment", lambda chapter: f"that of {chapter}")
    assert mutants.due("1.0.0", table) == [m for c in chapters for m in mutants.of(c)], "the table speaks of none"
    for chapter in chapters:
        mutants.note(table, chapter, f"that of {chapter}")
    now = [m.chapter for m in mutants.due("1.0.0", table)]
    assert len(now) == len(set(now)) == (len(chapters) + 1) // 2 and set(now) < set(chapters)
    found = {m for n in range(200) for m in mutants.due(f"1.0.{n}", table)}
    assert found == set(mutants.MUTATIONS), "each has its turn"
    monkeypatch.setattr(mutants, "experiment", lambda c: f"that of {c}" if c != "lima" else "another")
    assert [m for m in mutants.due("1.0.0", table) if m.chapter == "lima"] == mutants.of("lima")


@pytest.mark.parametrize("what", ["override", "module", "entry", "the cells", "another mutation"])
def test_an_experiment_is_another_one_when_a_mutation_or_the_chapter_is(what, monkeypatch):
    before, mine = mutants.experiment("the-lab"), mutants.of("the-lab")
    monkeypatch.setattr(mutants, "MUTATIONS", tuple(mine))
    assert mutants.experiment("the-lab") == before, "other chapters' mutations are nothing to it"
    if what == "the cells":
        monkeypatch.setattr(mutants, "fingerprint", lambda file: "another")
    elif what == "another mutation":
        monkeypatch.setattr(mutants, "MUTATIONS", (*mine, mine[0]))
    else:
        monkeypatch.setattr(mutants, "MUTATIONS", (replace(mine[0], **{what: "another"}), *mine[1:]))
    assert mutants.experiment("the-lab") != before


def test_the_notebook_ends_with_its_ledger():
    for mutation in mutants.MUTATIONS:
        file = ROOT / f"notebooks/{mutation.chapter}.ipynb"
        cells = mutants.up_to_ledger(file).cells
        assert any(MIME in o.get("data", {}) for o in cells[-1].outputs)
        assert len(cells) < len(mutants.nbformat.read(file, 4).cells)
