"""Seeds times conditions: the table, the workers, the errors."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import nbformat
import pandas as pd
import pytest
import torch
from alignlab.experiment.ledger import Ledger
from alignlab.experiment.sweep import CellError, side_by_side, sweep
from alignlab.models import tokens
from alignlab.models.llama import make_model
from alignlab.training.train import PRETRAIN, train
from alignlab.worlds import biographies
from alignlab.worlds.people import make_world
from nbclient import NotebookClient
from nbformat.v4 import new_code_cell, new_notebook

GRID = """
import torch
from alignlab.experiment.sweep import sweep

def run(condition, seed):
    return {"threads": torch.get_num_threads(), "sum": len(condition) + seed}

table = sweep(run, ["a", "bb"], [5, 6], workers=2)
print(table.pivot_table(index=["condition", "seed"], columns="metric", values="value").astype(int).to_csv())
"""
SAID = "condition,seed,sum,threads\na,5,6,1\na,6,7,1\nbb,5,7,1\nbb,6,8,1\n"


GROWING = """
import sys, time
from alignlab.experiment.sweep import side_by_side, sweep

def grow(megabytes, seed=0):
    sys.kept = [*getattr(sys, "kept", []), bytearray(b"x") * (megabytes * 2**20)]  # what is not freed with the call
    time.sleep(1.1)  # loky looks at a worker's memory once a second
    return {"megabytes": megabytes}

sizes = [1, 1, 400, 400, 1, 1]
assert [r["megabytes"] for r in side_by_side(grow, sizes)] == sizes
table = sweep(grow, {f"{n}": n for n in (400, 401)}, [0, 1], workers=2)
print(len(table))
"""


def trained(steps, seed):
    world = make_world(people=4, attributes=("city",), seed=seed)
    tokenizer = tokens.word_tokenizer(biographies.words(world))
    model = make_model(tokenizer, width=32, depth=1, seed=seed)
    losses = train(model, tokens.documents(biographies.write(world), tokenizer), steps, PRETRAIN.but(batch=4), seed)
    return {"loss": losses[-1], "weight": model.model.norm.weight.sum().item(), "threads": torch.get_num_threads()}


def test_the_table_is_tidy_and_in_the_order_of_the_arguments():
    table = sweep(lambda c, s: {"y": s, "x": len(c)}, ["zz", "a"], [7, 3], workers=1)
    assert list(table.columns) == ["condition", "seed", "metric", "value"]
    assert table.values.tolist() == [
        ["zz", 7, "y", 7.0], ["zz", 7, "x", 2.0], ["zz", 3, "y", 3.0], ["zz", 3, "x", 2.0],
        ["a", 7, "y", 7.0], ["a", 7, "x", 1.0], ["a", 3, "y", 3.0], ["a", 3, "x", 1.0],
    ]  # fmt: skip


def test_conditions_can_be_objects_with_names():
    table = sweep(lambda c, s: {"x": c[0] + s}, {"low": [1], "high": [10]}, [0, 1], workers=1)
    assert list(zip(table["condition"], table["value"], strict=True)) == [
        ("low", 1), ("low", 2), ("high", 10), ("high", 11),
    ]  # fmt: skip


def test_a_curve_has_a_column_for_its_coordinate():
    table = sweep(lambda c, s: [{"n": n, "x": n * s} for n in (4, 2)], ["a"], [1, 3], along="n", workers=1)
    assert list(table.columns) == ["condition", "seed", "n", "metric", "value"]
    assert table[["seed", "n", "value"]].values.tolist() == [[1, 4, 4], [1, 2, 2], [3, 4, 12], [3, 2, 6]]


def test_two_workers_give_exactly_what_one_gives():
    before = torch.get_num_threads()
    alone, together = (sweep(trained, {"short": 3, "long": 6}, [0, 1], workers=n) for n in (1, 2))
    pd.testing.assert_frame_equal(alone, together, check_exact=True)
    assert alone[alone["metric"] == "loss"]["value"].nunique() == 4  # they are four different runs
    assert set(alone[alone["metric"] == "threads"]["value"]) == {1.0}
    assert torch.get_num_threads() == before


def test_one_worker_uses_one_thread_and_gives_the_others_back():
    torch.set_num_threads(2)
    try:
        table = sweep(lambda c, s: {"threads": torch.get_num_threads()}, ["a"], [0], workers=1)
        assert table["value"].item() == 1 and torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(1)


def test_another_number_of_threads_can_be_asked_for(monkeypatch):
    monkeypatch.setenv("ALIGNLAB_THREADS", "2")
    one, side = (sweep(lambda c, s: {"n": torch.get_num_threads()}, ["a"], [0, 1], workers=n) for n in (1, 2))
    assert set(one["value"]) == set(side["value"]) == {2.0}
    for wrong in ("two", "0", "1.5"):
        monkeypatch.setenv("ALIGNLAB_THREADS", wrong)
        with pytest.raises(ValueError, match=f"ALIGNLAB_THREADS is '{wrong}': set it to a number"):
            sweep(trained, ["a"], [0])


def test_cells_run_in_processes_of_their_own():
    table = sweep(lambda c, s: {"pid": os.getpid()}, ["a", "b"], [0, 1], workers=2)
    assert os.getpid() not in set(table["value"].astype(int))


@pytest.mark.parametrize("workers", [1, 2])
def test_an_error_names_its_condition_and_seed(workers):
    def run(condition, seed):
        if condition == "bad" and seed == 12:
            raise KeyError("no such word")
        return {"x": 1}

    with pytest.raises(CellError, match="(?s)condition 'bad', seed 12 failed:\n.*in run\n.*KeyError: 'no such word'"):
        sweep(run, ["good", "bad"], [11, 12], workers=workers)
    assert len(sweep(run, ["good"], [11, 12], workers=workers)) == 2  # the workers are fit to go on


def run_fine(condition, seed):
    return {"x": 1}


@pytest.mark.parametrize(
    ("conditions", "seeds", "error", "said"),
    [
        (["a", "b", "a"], [0], ValueError, "condition name 'a' is used twice"),
        ([], [0], ValueError, "no conditions"),
        ({}, [0], ValueError, "no conditions"),
        (["a"], [], ValueError, "no seeds were given: .* seeds=\\[0, 1, 2\\]"),
        (["a"], [3, 4, 3], ValueError, "seed is used twice in \\[3, 4, 3\\]"),
        (["a"], [True], TypeError, "seed .* not True"),
        (["a"], ["1"], TypeError, "seed .* not '1'"),
        (["a"], [1.0], TypeError, "seed .* not 1.0"),
        (["a"], [-1], ValueError, "seed is -1"),
    ],
)
def test_a_wrong_grid_is_refused_before_anything_runs(conditions, seeds, error, said):
    def run(condition, seed):
        pytest.fail("a cell was run")

    with pytest.raises(error, match=said):
        sweep(run, conditions, seeds, workers=1)


def test_wrong_workers_are_refused():
    with pytest.raises(ValueError, match="workers is 0"):
        sweep(run_fine, ["a"], [0], workers=0)


@pytest.mark.parametrize(
    ("second", "error", "said"),
    [
        ({}, ValueError, "metric 'x' is missing in condition 'b', seed 9"),
        ({"x": 1, "y": 2}, ValueError, "metric 'y' is missing"),
        ({"x": "high"}, TypeError, "metric 'x' is 'high' in condition 'b', seed 9: it must be a number"),
        ({"x": True}, TypeError, "metric 'x' is True"),
        ({"x": torch.tensor(1.0)}, TypeError, "metric 'x' is tensor"),
        (0.5, TypeError, "run returned float in condition 'b', seed 9"),
        (None, TypeError, "run returned NoneType in condition 'b', seed 9"),
    ],
)
def test_wrong_metrics_are_refused_with_their_cell(second, error, said):
    with pytest.raises(error, match=said):
        sweep(lambda c, s: {"x": 1} if c == "a" else second, ["a", "b"], [9], workers=1)


@pytest.mark.parametrize(
    ("points", "error", "said"),
    [
        ([{"n": 1, "x": 1}, {"x": 2}], ValueError, "run returned no 'n' in condition 'b', seed 9"),
        ([{"n": 1, "x": 1}, {"n": 2}], ValueError, "metric 'x' is missing in condition 'b'"),
        ([], ValueError, "no point of the curve in condition 'b', seed 9"),
        (None, TypeError, "run returned NoneType in condition 'b', seed 9"),
        ({"n": 1, "x": 1}, TypeError, "run returned dict in condition 'b', seed 9: .* list"),
    ],
)
def test_wrong_curves_are_refused_with_their_cell(points, error, said):
    with pytest.raises(error, match=said):
        sweep(lambda c, s: [{"n": 1, "x": 1}] if c == "a" else points, ["a", "b"], [9], along="n", workers=1)


def test_a_curve_may_have_several_coordinates():
    table = sweep(
        lambda c, s: [{"part": p, "place": k, "x": k + s} for p in ("a", "b") for k in (0, 1)],
        ["c"], [5], along=("part", "place"), workers=1,
    )  # fmt: skip
    assert list(table.columns) == ["condition", "seed", "part", "place", "metric", "value"]
    assert table[["part", "place", "value"]].values.tolist() == [["a", 0, 5], ["a", 1, 6], ["b", 0, 5], ["b", 1, 6]]
    with pytest.raises(ValueError, match="run returned no 'place' in condition 'c', seed 5"):
        sweep(lambda c, s: [{"part": "a", "x": 1}], ["c"], [5], along=("part", "place"), workers=1)
    for wrong in ("seed", ("n", "n"), ("n", "metric")):
        with pytest.raises(ValueError, match="along names '.*', which is a column already"):
            sweep(run_fine, ["a"], [0], along=wrong, workers=1)


def test_lost_workers_are_named_by_their_cells_and_what_was_finished_is_kept(tmp_path):
    def run(condition, seed):
        if condition == "big":
            while len(list(tmp_path.iterdir())) < 2:  # die when the others have come back
                time.sleep(0.05)
            time.sleep(0.5)
            os.kill(os.getpid(), signal.SIGKILL)  # as the kernel does where memory is short
        (tmp_path / f"{seed}").touch()
        return {"x": seed}

    with pytest.raises(CellError, match="did not come back from 2 .*: condition 'big', seed 7, 8.*workers=1") as caught:
        sweep(run, {"small": "small", "big": "big"}, [7, 8], workers=2)
    kept = caught.value.table
    assert kept.values.tolist() == [["small", 7, "x", 7.0], ["small", 8, "x", 8.0]]
    assert "condition 'small'" not in str(caught.value) and "TerminatedWorkerError" in str(caught.value)
    assert len(sweep(run, ["small"], [7, 8], workers=2)) == 2  # there are new workers


def test_what_cannot_travel_to_a_worker_is_named_too():
    class Stuck:
        def __reduce__(self):
            raise TypeError("stays here")

    with pytest.raises(CellError, match="(?s)condition 'a', seed 0; condition 'b', seed 0.*PicklingError"):
        sweep(lambda c, s: {"x": 1}, {"a": Stuck(), "b": Stuck()}, [0], workers=2)


@pytest.mark.parametrize("error", [KeyError, KeyboardInterrupt, SystemExit])
def test_whatever_stops_a_sweep_what_was_finished_is_kept(error):
    def run(condition, seed):
        if condition == "b":
            raise error("enough")
        return {"x": seed}

    with pytest.raises((CellError, KeyboardInterrupt)) as caught:
        sweep(run, ["a", "b", "c"], [3, 4], workers=1)
    assert caught.value.table.values.tolist() == [["a", 3, "x", 3.0], ["a", 4, "x", 4.0]]


@pytest.mark.parametrize(
    ("entry", "besides", "said", "runs"),
    [
        (("c", "x", 2), (), "line: there is no condition 'c' among 'a', 'b': correct the entry", 0),
        (("b", "speed", 2), (), "line: metric is 'speed', .*'x'.* `besides`", 1),
        (("a", "x", 3), (), "line: the table has no n 3 here: there is 1, 2", 1),
        (("b", "x", 3), (), "line: the table has no n 3 here: there is 2, 4", 2),
        (("b", "x"), (), "line: .* more than one row per seed: name the point", 2),
        (("b", "x", 4), (), None, 2),
        (("c", "x", 2), ("c",), None, 2),
        (("b", "speed", 2), "speed", None, 2),
    ],
)
def test_a_ledger_that_the_sweep_cannot_answer_is_refused_before_it_is_done(entry, besides, said, runs):
    book, done = Ledger("toy", "A toy", along="n"), []
    book.claim("line", "a line", entry, 0.5, margin=0.1, paper="", source="")

    def run(condition, seed):
        done.append(condition)
        return [{"n": n, "x": 1} for n in ((1, 2) if condition == "a" else (2, 4))]

    go = lambda: sweep(run, ["a", "b"], [0], along="n", workers=1, ledger=book, besides=besides)  # noqa: E731
    if said is None:
        assert len(go()) == 4
    else:
        with pytest.raises(ValueError, match=said):
            go()
    assert len(done) == runs


def test_a_gpu_is_shared_by_two_processes_unless_more_are_asked_for(monkeypatch):
    monkeypatch.setattr("alignlab.experiment.sweep.effective_n_jobs", lambda _: 16)
    for gpu, workers in ((False, 16), (True, 2)):
        monkeypatch.setattr(torch.cuda, "is_available", lambda gpu=gpu: gpu)
        seen = []
        monkeypatch.setattr("alignlab.experiment.sweep.Parallel", recorded(seen))
        sweep(run_fine, ["a"], range(20))
        sweep(run_fine, ["a"], range(20), workers=5)
        side_by_side(divmod, range(20), [3] * 20)
        assert seen == [workers, 5, workers]


def recorded(seen):
    """A stand-in for joblib's Parallel that notes how many processes it was asked for, and starts none."""

    def parallel(n_jobs, **_):
        seen.append(n_jobs)
        return lambda calls: (function(*args, **options) for function, args, options in calls)

    return parallel


def test_a_run_defined_in_a_notebook_cell_works_and_is_silent_in_a_test(monkeypatch, tmp_path):
    """As `pytest --nbval` runs a cell, with nothing set by this book's own tools."""
    for name in ("CI", "ALIGNLAB_QUIET"):
        monkeypatch.delenv(name, raising=False)
    head, tail = GRID.split("table =")
    book = new_notebook(cells=[new_code_cell(head), new_code_cell("table =" + tail)])
    book = NotebookClient(book, timeout=120, resources={"metadata": {"path": str(tmp_path)}}).execute()
    outputs = [o for c in book.cells for o in c.outputs]
    assert [(o.get("name"), o.get("text", "").strip()) for o in outputs] == [("stdout", SAID.strip())]
    nbformat.validate(book)


@pytest.mark.parametrize("said", ["CI", "ALIGNLAB_QUIET", "PYTEST_VERSION"])
def test_the_bar_is_for_people(capsys, monkeypatch, said):
    monkeypatch.setitem(sys.modules, "ipykernel", object())
    for name in ("CI", "ALIGNLAB_QUIET", "PYTEST_VERSION"):
        monkeypatch.delenv(name, raising=False)
    sweep(run_fine, ["a"], [0, 1], workers=1)
    assert "1 conditions x 2 seeds" in "".join(capsys.readouterr())
    monkeypatch.setenv(said, "1")
    sweep(run_fine, ["a"], [0], workers=1)
    assert capsys.readouterr() == ("", "")
    sweep(run_fine, ["a"], [0, 1], workers=1, progress=True)
    assert "1 conditions x 2 seeds" in "".join(capsys.readouterr())


def test_a_script_may_sweep_without_a_main_guard_and_is_silent_under_ci(tmp_path):
    # Workers that import the script again would start the sweep again, and write to `runs` again.
    script = tmp_path / "study.py"
    script.write_text(f"open({str(tmp_path / 'runs')!r}, 'a').write('x')\n{GRID}")
    environment = {k: v for k, v in os.environ.items() if k != "ALIGNLAB_QUIET"} | {"CI": "1"}
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, env=environment, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.strip() == SAID.strip()
    assert (tmp_path / "runs").read_text() == "x"


def thread_and_sum(a, b):
    return torch.get_num_threads(), a + b


def test_side_by_side_keeps_the_order_and_gives_each_call_one_thread():
    assert side_by_side(thread_and_sum, range(4), [10, 20, 30, 40]) == [(1, 10), (1, 21), (1, 32), (1, 43)]


def test_side_by_side_raises_what_a_call_raised():
    with pytest.raises(ZeroDivisionError):
        side_by_side(divmod, [1, 1], [1, 0])


def test_side_by_side_names_the_calls_that_did_not_come_back():
    def call(k):
        if k == 1:
            time.sleep(1)
            os.kill(os.getpid(), signal.SIGKILL)
        return k

    with pytest.raises(CellError, match=r"did not come back from 2 worker processes: call\(1,?\)\. .*workers=1"):
        side_by_side(call, range(2), workers=2)


def test_a_worker_that_has_grown_is_replaced_without_a_word():
    done = subprocess.run([sys.executable, "-c", GROWING], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("4\n", "")
