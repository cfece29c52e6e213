"""The mutations of the library: that they still break what they say, and what the committed table says of them."""

from __future__ import annotations

import os
import re
import subprocess
import sys
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
        assert any(MIME in o.get("data", {}) for o in cells[-1].outputs)
        assert len(cells) < len(mutants.nbformat.read(file, 4).cells)
