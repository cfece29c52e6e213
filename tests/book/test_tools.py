"""The tools around the chapters: running notebooks, the scoreboard, adding up test results."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
import scoreboard
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from tools import chapters, notebooks

ROOT = Path(__file__).resolve().parents[2]


def notebook(*sources, parameters="SEED = 0"):
    cells = [new_markdown_cell("# Toy"), new_code_cell(parameters, metadata={"tags": ["parameters"]})]
    return new_notebook(cells=cells + [new_code_cell(s) for s in sources])


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "toy.ipynb"

    def save(*sources, **settings):
        chapters.write(notebook(*sources, **settings), path)
        return path

    return save


def test_two_runs_give_the_same_bytes(file):
    path = file("import os\nprint('a', flush=True)\nprint('b')", "SEED + 1")
    first = chapters.text(chapters.run(path))
    assert first == chapters.text(chapters.run(path))
    done = nbformat.reads(first, 4)
    assert [c.execution_count for c in done.cells if c.cell_type == "code"] == [1, 2, 3]
    assert done.cells[2].outputs[0].text == "a\nb\n" and len(done.cells[2].outputs) == 1
    assert "version" not in done.metadata.language_info and first.endswith("}\n")


def test_a_failure_names_the_cell_and_leaves_the_file(file, capsys):
    path = file("x = 1", "y = x / 0\nz = 2", "print('never')")
    before = path.read_bytes()
    with pytest.raises(chapters.Refused, match=r"toy.ipynb, code cell 3 \('y = x / 0'\) failed: ZeroDivisionError"):
        chapters.run(path)
    assert path.read_bytes() == before and [p.name for p in path.parent.iterdir()] == ["toy.ipynb"]


def test_a_failure_of_a_sweep_says_what_went_wrong_in_the_worker(file):
    path = file("raise RuntimeError('seed 3 failed:\\nTraceback ...\\nValueError: too few people\\n')")
    with pytest.raises(chapters.Refused, match=r"RuntimeError: seed 3 failed: ValueError: too few people"):
        chapters.run(path)


def test_a_run_is_measured_where_it_is_asked_for(file, tmp_path):
    path = file("big = bytearray(300_000_000)\nimport time\ntime.sleep(1.2)", "def prepare(): time.sleep(0.7)", "1 + 1")
    plain, cost = chapters.text(chapters.run(path)), chapters.Cost()
    measured = chapters.run(path, cost=cost)
    assert chapters.text(measured) == plain  # no time of a cell is left behind
    assert cost.seconds > 1.2 and cost.gigabytes > 0.3 and cost.bases == cost.real == 0
    base = file("import time\nclass base:\n    prepare = time.sleep", "base.prepare(0.7)")
    real = chapters.read(base)
    real.cells[-2].metadata["tags"] = ["real-model"]
    chapters.write(real, base)
    chapters.run(base, cost=(cost := chapters.Cost()))
    assert 0.7 <= cost.bases < cost.seconds and 0 < cost.real < 0.7
    chapters.write_costs({"toy": chapters.Cost(90, 30, 6, 1.26), "play": chapters.Cost(30, 0, 0, 0.5)}, tmp_path)
    assert (tmp_path / "costs.csv").read_text().splitlines()[1:] == [
        "toy,1.5,0.5,0.1,1.3", "play,0.5,0.0,0.0,0.5", "all,2.0,0.5,0.1,1.3",
    ]  # fmt: skip
    assert "cores" in (tmp_path / "costs-machine.md").read_text()


def test_the_table_of_costs_speaks_of_every_chapter():
    rows = (chapters.COSTS / "costs.csv").read_text("utf-8").splitlines()[1:]
    assert [r.split(",")[0] for r in rows] == [p.stem for p in chapters.notebooks(ROOT).values()] + ["all"]
    assert all(float(n) > 0 for r in rows for n in (r.split(",")[1], r.split(",")[4]))


def test_stderr_is_refused(file):
    with pytest.raises(chapters.Refused, match="code cell 2 .* wrote to stderr: careful"):
        chapters.run(file("import sys\nprint('careful', file=sys.stderr)"))


def test_a_cell_that_hangs_is_named(file):
    with pytest.raises(chapters.Refused, match="code cell 2 .* took more than 2 s"):
        chapters.run(file("import time\ntime.sleep(30)"), timeout=2)


def test_injected_values_are_used_and_not_written_back(file):
    path = file("print(PROFILE, SEED)", parameters='PROFILE = "quick"  # or "full"\nSEED = (\n    0\n)')
    before = path.read_bytes()
    done = chapters.run(path, {"SEED": 100, "PROFILE": "full"})
    assert done.cells[2].outputs[0].text == "full 100\n" and path.read_bytes() == before


def test_injecting_an_unknown_variable_is_refused(file):
    with pytest.raises(chapters.Refused, match="sets no STEPS: it sets SEED"):
        chapters.run(file("x = 1"), {"STEPS": 3})


def test_live_widgets_are_dropped_and_their_fallback_is_kept():
    nb = notebook("w")
    nb.cells[2].outputs = [
        new_output("display_data", data={chapters.WIDGET: {"model_id": "1"}, "text/plain": "IntSlider()"}),
        new_output("display_data", data={chapters.WIDGET: {}, "text/plain": "VBox()", "text/html": "<p>static</p>"}),
        new_output("display_data", data={"text/plain": "kept"}),
    ]
    nb.metadata.widgets = {"state": {}}
    chapters.normalise(nb)
    assert [dict(o.data) for o in nb.cells[2].outputs] == [{"text/html": "<p>static</p>"}, {"text/plain": "kept"}]
    assert "widgets" not in nb.metadata


def test_normalising_twice_changes_nothing():
    nb = notebook("1", "2")
    nb.cells[1].id = nb.cells[2].id
    chapters.normalise(nb)
    once = chapters.text(nb)
    chapters.normalise(nb)
    assert chapters.text(nb) == once and len({c.id for c in nb.cells}) == len(nb.cells)


def test_an_unknown_chapter_is_refused_with_the_known_ones():
    run = subprocess.run(
        [sys.executable, "-m", "tools.chapters", "no-such-chapter"], capture_output=True, text=True
    )
    assert run.returncode == 1 and "there is no no-such-chapter.ipynb" in run.stdout


# The scoreboard


def ledger(**changes):
    entry = {
        "id": "a", "kind": "claim", "statement": "S", "paper": "P", "source": "", "expect": "at least +0.30",
        "margin": 0.3, "mean": 0.4, "values": [0.4, 0.4], "unit": "accuracy", "verdict": "reproduced",
    }  # fmt: skip
    head = {"schema": 1, "chapter": "toy", "title": "T", "profile": "quick", "seeds": [0, 1]}
    return head | {"entries": [entry | changes]}


def test_the_summary_counts_every_verdict():
    two = ledger()
    two["entries"] += [ledger(id="b", kind="control", verdict="broken")["entries"][0]]
    said = scoreboard.sentence([("x", two), ("y", ledger(verdict="opposite"))])
    assert "2 claims (1 reproduced, 0 direction only, 0 not reproduced, 1 opposite)" in said
    assert "1 control (0 held, 1 broken)" in said and "from 2 chapters" in said
    assert scoreboard.sentence([]) == scoreboard.NOTHING


@pytest.mark.parametrize(
    "changes, says",
    [
        ({"verdict": "confirmed"}, "unknown verdict 'confirmed'"),
        ({"verdict": "held"}, "unknown verdict 'held'"),
        ({"kind": "guess"}, "unknown kind 'guess'"),
        ({"values": [0.4]}, "one value for each"),
        ({"mean": float("nan")}, "nan"),
        ({"statement": None}, "no statement"),
        ({"id": "A b"}, "id of its own"),
    ],
)
def test_a_malformed_ledger_is_named(tmp_path, changes, says):
    nb = notebook("x")
    nb.cells[2].outputs = [new_output("display_data", data={notebooks.MIME: ledger(**changes)})]
    (tmp_path / "toy.ipynb").write_text(json.dumps(nb), "utf-8")
    with pytest.raises(ValueError, match="toy.ipynb: ") as e:
        notebooks.ledgers(tmp_path / "toy.ipynb")
    assert says in str(e.value)


def test_a_file_that_is_no_notebook_is_named(tmp_path):
    (tmp_path / "toy.ipynb").write_text("{", "utf-8")
    with pytest.raises(ValueError, match="toy.ipynb is not a notebook"):
        notebooks.ledgers(tmp_path / "toy.ipynb")


def test_results_are_added_up_from_the_report(tmp_path):
    from tools import checks

    report = tmp_path / "r.xml"
    report.write_text(
        "<testsuites><testsuite><testcase name='a'/><testcase name='b'><failure/></testcase>"
        "<testcase name='c'><error/></testcase><testcase name='d'><skipped/></testcase></testsuite></testsuites>"
    )
    assert checks.read_report(report) == checks.Count(passed=1, failed=2, skipped=1)


@pytest.mark.parametrize("failed", [0, 1])
def test_times_of_the_parts_are_noted_after_a_run_without_failure(tmp_path, monkeypatch, capsys, failed):
    from tools import checks

    def one():
        """the first"""
        return checks.Count(passed=3, skipped=2)

    def two():
        """the second"""
        return checks.Count(passed=4, failed=failed)

    monkeypatch.setattr(checks, "PARTS", {"one": one, "two": two})
    monkeypatch.setattr(checks, "TIMES", tmp_path / "checks.csv")
    assert checks.main(["one"]) == 0 and not checks.TIMES.exists()  # not every part
    assert checks.main([]) == failed
    assert f"7 passed, {failed} failed" in capsys.readouterr().out
    assert checks.TIMES.exists() != bool(failed)
    if not failed:
        lines = checks.TIMES.read_text("utf-8").splitlines()
        assert [line.split(",")[0] for line in lines] == ["part", "one", "two", "all"]
        assert lines[1].startswith("one,the first,0:00,3,2") and lines[3].endswith(",7,2")
