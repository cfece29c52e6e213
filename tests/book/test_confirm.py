"""Confirmation on fresh seeds: what is the same experiment, whose seeds are used up, and what is recorded."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import nbformat
import pytest

from tools import confirm, contract, experiment, notebooks, tables

LAB = notebooks.ROOT / "notebooks" / "the-lab.ipynb"


@pytest.fixture
def place(tmp_path, monkeypatch):
    for name in ("RECORD", "SEEDS"):
        monkeypatch.setattr(confirm, name, tmp_path / f"{name}.csv")
    monkeypatch.setattr(confirm, "FOLDER", tmp_path / "out")
    return tmp_path


def altered(tmp_path, old, new) -> Path:
    notebook = nbformat.read(LAB, 4)
    cells = [c for c in notebook.cells if c.cell_type == "code" and old in c.source]
    assert cells
    cells[0].source = cells[0].source.replace(old, new, 1)
    nbformat.write(notebook, tmp_path / "the-lab.ipynb")
    return tmp_path / "the-lab.ipynb"


REMARK, OTHER_MARGIN, OTHER_BATCH = (
    ("GROUPS = {", "# a remark\nGROUPS = {", True), ("margin=0.7", "margin=0.6", False), ("batch=8", "batch=9", False)
)  # fmt: skip


@pytest.mark.parametrize(
    ("of", "old", "new", "same"),
    [
        *((of, *case) for of in (experiment.fingerprint, experiment.digest)
          for case in (REMARK, OTHER_MARGIN, OTHER_BATCH)),
        (experiment.fingerprint, "chance=1 / 40)\nplt.show()", "chance=1 / 40)\nplt.title('Another title')\nplt.show()",
         True),
        (experiment.digest, "People met 10 times against people met once", "The same in other words", True),
        (experiment.digest, "both groups were on webs", "each group was on a web", True),
        (experiment.digest, "margin=0.7", "margin=0.7, since='Asked otherwise before'", True),
        (experiment.digest, '("10 times", "some")', '("5 times", "some")', False),
    ],
)  # fmt: skip
def test_a_remark_and_a_figure_change_nothing_and_a_number_everything(tmp_path, of, old, new, same):
    """And other words for a claim change the fingerprint, but not the digest."""
    assert (of(altered(tmp_path, old, new)) == of(LAB)) is same


@pytest.mark.parametrize(
    ("module", "same"),
    [
        ("training/muon.py", False),
        ("worlds/people.py", False),
        ("experiment/notebook.py", False),
        ("experiment/plot.py", True),
        ("experiment/ledger.py", False),
        ("experiment/display.py", True),
        ("worlds/cipher.py", True),
    ],
)
def test_the_library_that_a_chapter_uses_counts_and_no_other(tmp_path, module, same):
    library = shutil.copytree(experiment.LIBRARY, tmp_path / "alignlab")
    with (library / module).open("a") as f:
        f.write("\n\n# a remark\n")
    assert confirm.fingerprint(LAB, library) == confirm.fingerprint(LAB)
    with (library / module).open("a") as f:
        f.write("SOMETHING = 1\n")
    assert (confirm.fingerprint(LAB, library) == confirm.fingerprint(LAB)) is same


def runs(monkeypatch, verdict="reproduced", status=0):
    """In place of a run: the committed notebook as if it had been run with the seeds that were asked for."""

    def instead(command, **how):
        out, seed = Path(command[command.index("--out") + 1]), int(command[-1].removeprefix("--inject=SEED="))
        notebook = nbformat.read(out, 4)
        for cell in notebook.cells:
            for output in cell.get("outputs", []):
                if notebooks.MIME in output.get("data", {}):
                    ledger = output["data"][notebooks.MIME]
                    ledger = json.loads(ledger) if isinstance(ledger, str) else ledger
                    ledger["seeds"] = [seed, seed + 1, seed + 2]
                    ledger["entries"][0]["verdict"] = verdict
                    output["data"][notebooks.MIME] = ledger
        nbformat.write(notebook, out)
        return type("Done", (), {"returncode": status})

    monkeypatch.setattr(confirm.subprocess, "run", instead)


def test_what_comes_is_recorded_with_its_seeds_also_when_it_is_not_what_is_committed(place, monkeypatch, capsys):
    runs(monkeypatch, "not reproduced")
    assert confirm.main(["the-lab"]) == 0
    assert "not reproduced" in capsys.readouterr().out.split("(committed: reproduced)")[0]
    rows = confirm.record("the-lab")
    assert [r["entry"] for r in rows] == [e["id"] for e in notebooks.entries(LAB)]
    assert rows[0]["verdict"] == "not reproduced" and rows[0]["seeds"] == "7100 7101 7102"
    assert {r["fingerprint"] for r in rows} == {confirm.fingerprint(LAB)} and confirm.confirmed(LAB) == rows


def test_the_same_experiment_is_refused_and_a_changed_one_is_added_with_other_seeds(place, monkeypatch, capsys):
    runs(monkeypatch)
    assert confirm.main(["the-lab"]) == 0
    with pytest.raises(SystemExit):
        confirm.main(["the-lab"])
    assert "the-lab has been confirmed in this form" in capsys.readouterr().err
    assert len(tables.read(confirm.SEEDS, "first seed")) == 1  # refused before any seed is used
    first = confirm.record()
    monkeypatch.setattr(confirm, "fingerprint", lambda file: "changed")
    assert confirm.main(["the-lab"]) == 0
    rows = confirm.record()
    assert rows[: len(first)] == first and rows[-1]["seeds"] == "7200 7201 7202"
    assert confirm.confirmed(LAB) == rows[len(first) :]


@pytest.mark.parametrize("how", ["fails", "stopped"])
def test_a_run_that_does_not_end_leaves_no_record_and_has_used_its_seeds(place, monkeypatch, how):
    if how == "fails":
        runs(monkeypatch, status=1)
        assert confirm.main(["the-lab"]) == 1
    else:

        def stopped(*command, **more):
            raise KeyboardInterrupt

        monkeypatch.setattr(confirm.subprocess, "run", stopped)
        with pytest.raises(KeyboardInterrupt):
            confirm.main(["the-lab"])
    assert confirm.record() == [] and not confirm.RECORD.exists()
    runs(monkeypatch)
    assert confirm.main(["the-lab"]) == 0
    assert {r["seeds"] for r in confirm.record()} == {"7200 7201 7202"}


def test_no_other_chapter_gets_the_same_seeds(place):
    assert [confirm.burn(c, "x") for c in ("the-lab", "lima", "the-lab")] == [7100, 7200, 7300]


def test_a_frozen_chapter_that_is_not_confirmed_is_told_so_by_name(place):
    frozen = contract.read(LAB, frozenset())
    frozen.notebook.metadata["alignlab"] = {**frozen.notebook.metadata.get("alignlab", {}), "frozen": True}
    frozen.confirmed = False
    [said] = contract.RULES["frozen_is_confirmed"](frozen)
    assert "make confirm NAME=the-lab" in said
    frozen.confirmed = True
    assert not list(contract.RULES["frozen_is_confirmed"](frozen))


def test_the_committed_record_is_of_seeds_that_were_burned_for_it():
    burned = {
        (r["chapter"], r["fingerprint"], r["first seed"]) for r in tables.read(confirm.SEEDS, "first seed").values()
    }
    recorded = {(r["chapter"], r["fingerprint"], r["seeds"].split()[0]) for r in confirm.record()}
    assert recorded <= burned
