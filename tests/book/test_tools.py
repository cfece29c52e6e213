"""The tools around the chapters: running notebooks, the scoreboard, adding up test results."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import pytest
import scoreboard
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from tools import chapters, costs, environment, growth, notebooks, tables

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


def test_a_chapter_writes_its_own_line_of_the_costs(tmp_path):
    table = tmp_path / "costs.csv"
    for chapter, cost in (
        ("toy", costs.Cost(90, 30, 6, 1.26)), ("the-lab", costs.Cost(30, 0, 0, 0.5)), ("toy", costs.Cost(60, 30, 0, 2)),
    ):  # fmt: skip
        costs.record(chapter, cost, table)
    lines = [line.split(",")[:5] for line in table.read_text("utf-8").splitlines()[1:]]
    assert lines == [
        ["the-lab", "0.5", "0.0", "0.0", "0.5"],
        ["toy", "1.0", "0.5", "0.0", "2.0"],
        ["all", "1.5", "0.5", "0.0", "2.0"],
    ]  # fmt: skip
    assert "cores" in tables.read(table, "chapter")["toy",]["where"]


def test_the_law_of_growth_is_found_and_named():
    sizes = (1, 3, 9)
    for power, words in ((0.5, "less than linear"), (1.0, "linear"), (2.0, "more than linear")):
        found = growth.exponent({n: 0.4 * n**power for n in sizes})
        assert found == pytest.approx(power) and growth.law(found) == words
    for bad in ({3: 1.0}, {0: 1.0, 1: 2.0}, {1: 0.0, 2: 1.0}):
        with pytest.raises(ValueError, match="two sizes or more"):
            growth.exponent(bad)


def test_what_a_cluster_takes_is_worked_out_from_the_minutes():
    minutes, bases = [1.0, 2.0, 3.0], 6.0
    assert growth.chapters(minutes, bases) == {1: 8.0, 2: 10.0, 3: 12.0}
    seeds, chapters = growth.cluster(minutes, bases, gain=2.0)  # 24 minutes of one core
    assert list(seeds.values())[1:] == ["133", "1.3 h", "at most 2 minutes"]  # 0.4 h for three seeds
    assert list(chapters.values())[1:3] == ["13", "0.1 h"]
    assert growth.cluster(minutes, bases, gain=1.0)[0]["with 100 cores"] == "1.3 h"  # half of each core is lost


def test_the_growth_in_the_book_follows_from_its_minutes(tmp_path):
    ours = (tmp_path / "growth.csv", tmp_path / "cluster.csv")
    ours[0].write_bytes(growth.TABLE.read_bytes())
    growth.derive(costs.TABLE, *ours)
    assert [t.read_bytes() for t in ours] == [growth.TABLE.read_bytes(), growth.CLUSTER.read_bytes()]
    given = tmp_path / "costs.csv"
    for line, seconds in (("the-lab", 60), ("lima", 6000), ("rot13", 11940), (costs.SHARED, 60)):
        costs.record(line, costs.Cost(seconds), given)
    growth.derive(given, *ours)
    lines = [t.read_text("utf-8").splitlines() for t in ours]
    assert "1: 101.0 min, 2: 201.0 min" in lines[0][1] and len(lines[0]) == 4
    assert lines[1][1].startswith("3 chapters with a thousand seeds")


def test_the_table_of_costs_speaks_of_every_chapter():
    rows = tables.read(costs.TABLE, "chapter")
    there = [p.stem for p in chapters.notebooks(ROOT).values()]
    assert [key[0] for key in rows] == [*there, costs.SHARED, "all"], "make chapter NAME=... COSTS=1"
    assert all(float(row[c]) > 0 for row in rows.values() for c in (costs.MINUTES, costs.MEMORY))
    assert all(rows[chapter,]["where"] for chapter in (*there, costs.SHARED))


def test_minutes_are_said_from_the_table():
    row = {costs.MINUTES: "3.4", costs.BASES: "2.1", "where": "2 cores (x86_64), no GPU"}
    assert costs.sentence(row, shared=False) == "about a minute on 2 CPU cores"
    assert costs.sentence(row | {costs.BASES: "0.9"}, shared=True).startswith("about 3 minutes on 2 CPU cores; the ")
    assert costs.sentence(row | {costs.MINUTES: "2.4"}, shared=False) == "under a minute on 2 CPU cores"
    nb = notebook("1")
    assert costs.said(nb) is None
    nb.cells[0].source = "## At a glance\n\n| | |\n|---|---|\n| Time | typed |\n| Before this | nothing |"
    costs.say(nb, "about 2 minutes")
    assert costs.said(nb) == "about 2 minutes" and nb.cells[0].source.endswith("| Before this | nothing |")


def test_a_table_is_read_by_key_and_replaced_whole(tmp_path):
    table = tmp_path / "deep" / "t.csv"
    tables.write([{"chapter": "a", "x": "1,2"}, {"chapter": "b"}], ("chapter", "x"), table)
    assert table.read_bytes() == b'chapter,x\na,"1,2"\nb,\n'
    assert tables.read(table, "chapter")["a",]["x"] == "1,2" and tables.read(tmp_path / "none.csv", "chapter") == {}
    with pytest.raises(ValueError, match="unknown|not in fieldnames"):
        tables.write([{"y": 1}], ("chapter", "x"), table)
    assert [f.name for f in table.parent.iterdir()] == ["t.csv"] and len(tables.read(table, "chapter")) == 2
    table.write_text("chapter,x\na,1\na,2\n")
    with pytest.raises(ValueError, match="two rows for a"):
        tables.read(table, "chapter")
    with pytest.raises(ValueError, match="no column 'entry'"):
        tables.read(table, "entry")


# The reader's settings


FIGURE = "import matplotlib.pyplot as plt\nplt.plot([1, 2])\nplt.show()"


def with_alt(path, source):
    nb = notebook(source)
    nb.cells[2].metadata["mystnb"] = {"image": {"alt": "A line that rises from one to two"}}
    chapters.write(nb, path)
    return path


def test_a_figure_is_drawn_whatever_the_reader_has_set(tmp_path, monkeypatch):
    home = tmp_path / "home"
    startup = home / "ipython" / "profile_default" / "startup"
    startup.mkdir(parents=True)
    (startup / "mine.py").write_text("print('hello from my start-up file')")
    (home / "matplotlibrc").write_text("figure.figsize: 1, 1\nfigure.dpi: 20\n")
    reader = {
        "MPLBACKEND": "Agg", "MATPLOTLIBRC": str(home / "matplotlibrc"), "IPYTHONDIR": str(home / "ipython"),
        "PYTHONWARNINGS": "error", "PYTHONSTARTUP": "/none", "JUPYTER_PATH": "/none", "TORCH_LOGS": "+dynamo",
    }  # fmt: skip
    path = with_alt(tmp_path / "toy.ipynb", FIGURE)
    plain = chapters.text(chapters.run(path))
    for name, value in reader.items():
        monkeypatch.setenv(name, value)
    assert chapters.text(chapters.run(path)) == plain and "image/" in plain


def test_a_home_that_cannot_be_written_is_survived(tmp_path):
    kept = "\nfrom alignlab.models import cache\ncache.folder().mkdir(parents=True, exist_ok=True)"
    path = with_alt(tmp_path / "toy.ipynb", FIGURE + kept)
    gone = {k: v for k, v in os.environ.items() if not k.startswith(("XDG_", "ALIGNLAB_", "JUPYTER", "IPYTHON"))}
    run = subprocess.run(
        [sys.executable, "-m", "tools.chapters", str(path), "--out", str(tmp_path / "out.ipynb")],
        env=gone | {"HOME": os.devnull}, capture_output=True, text=True,
    )  # fmt: skip
    assert run.returncode == 0, run.stdout + run.stderr
    assert chapters.images(chapters.read(tmp_path / "out.ipynb").cells[2])


def test_what_can_be_written_is_found_out_by_writing(tmp_path):
    (tmp_path / "file").write_text("")
    assert environment.writable(tmp_path / "new" / "folder") and not (tmp_path / "new").exists()
    assert not environment.writable(tmp_path / "file" / "folder")
    moved = environment.homes({"HOME": str(tmp_path / "file")}, tmp_path)
    assert set(moved) == set(environment.XDG) and environment.homes({"HOME": str(tmp_path)}, tmp_path) == {}
    kept = environment.homes({"HOME": str(tmp_path / "file"), "XDG_CACHE_HOME": str(tmp_path)}, tmp_path)
    assert "XDG_CACHE_HOME" not in kept


def test_a_figure_cell_without_its_figure_is_refused(tmp_path):
    with pytest.raises(chapters.Refused, match=r"code cell 2 .* has an alt text and shows no figure"):
        chapters.run(with_alt(tmp_path / "toy.ipynb", "import matplotlib\nmatplotlib.use('Agg')\n" + FIGURE))


def test_stderr_is_refused(file):
    with pytest.raises(chapters.Refused, match="code cell 2 .* wrote to stderr: careful"):
        chapters.run(file("import sys\nprint('careful', file=sys.stderr)"))


def test_to_have_waited_for_another_process_is_no_output(file, tmp_path):
    waits = f"""
import threading
from pathlib import Path
from alignlab.models import lock
from filelock import FileLock
lock.SOON, held = 0.1, Path({str(tmp_path / "held.lock")!r})
other = FileLock(held, thread_local=False)
other.acquire()
threading.Timer(1, other.release).start()
with lock.turn(held, "base-0"):
    print("my turn")"""
    [_, (_, cell), *_] = notebooks.code(chapters.run(file(waits)))
    assert [(o.name, o.text) for o in cell.outputs] == [("stdout", "my turn\n")]


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


def test_a_figure_is_made_compact_and_its_words_are_left_alone():
    svg = (
        '<svg>\n <!-- 0.0001 -->\n  <metadata>\n x</metadata>\n  <path d="M 1.23456 7.5"/>\n'
        '  <text x="3.999">0.0001</text>\n</svg>'
    )
    made = chapters.compact(svg)
    assert made == '<svg>\n<path d="M 1.23 7.5"/>\n<text x="3.99">0.0001</text>\n</svg>\n'
    assert chapters.compact(made) == made


def test_normalising_twice_changes_nothing():
    nb = notebook("1", "2")
    nb.cells[1].id = nb.cells[2].id
    chapters.normalise(nb)
    once = chapters.text(nb)
    chapters.normalise(nb)
    assert chapters.text(nb) == once and len({c.id for c in nb.cells}) == len(nb.cells)


def test_an_unknown_chapter_is_refused_with_the_known_ones():
    run = subprocess.run(
        [sys.executable, "-m", "tools.chapters", "the-lab", "no-such-chapter"], capture_output=True, text=True
    )
    assert run.returncode == 2 and "there is no no-such-chapter.ipynb" in run.stderr and not run.stdout


@pytest.mark.parametrize(
    "arguments, says",
    [
        (["--inject=SEDE=100"], "sets no SEDE"),
        (["--inject=SEED=none"], "SEED must be an integer"),
        (["--inject=SEED=-1"], "at least 0"),
        (["--inject=PROFILE=ful"], "PROFILE is 'ful'"),
        (["--inject=SEED=1", "--inject=SEED=2"], "names SEED twice"),
        (["--inj=SEED=1"], "unrecognized arguments"),
        (["--timeout=0"], "a second at least"),
        (["--costs", "--inject=SEED=1"], "as they are committed"),
    ],
)
def test_a_bad_setting_is_refused_before_anything_runs(monkeypatch, capsys, arguments, says):
    monkeypatch.setattr(chapters, "run", lambda *_: pytest.fail("it ran"))
    with pytest.raises(SystemExit) as left:
        chapters.main(["the-lab", *arguments])
    assert left.value.code == 2 and says in capsys.readouterr().err


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
        ({"chapter": 'x" onclick="y'}, "no slug"),
    ],
)
def test_a_malformed_ledger_is_named(tmp_path, changes, says):
    nb = notebook("x")
    named = {"chapter": changes["chapter"]} if "chapter" in changes else {}
    nb.cells[2].outputs = [new_output("display_data", data={notebooks.MIME: ledger(**changes) | named})]
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
    monkeypatch.setattr(checks, "speed", lambda: 123.4)
    assert checks.main(["one"]) == 0 and not checks.TIMES.exists()  # not every part
    assert checks.main([]) == failed
    said = capsys.readouterr().out
    assert f"7 passed, {failed} failed" in said and "123 GFLOP/s at the start, 123 now" in said
    assert len(re.findall(r"(?:one|two) +0:00  cores +-?\d+% busy +[34] passed", said)) == 3
    assert checks.TIMES.exists() != bool(failed)
    if not failed:
        lines = checks.TIMES.read_text("utf-8").splitlines()
        assert [line.split(",")[0] for line in lines] == ["part", "one", "two", "all"]
        assert lines[1].startswith("one,the first,0:00,3,2") and lines[3].endswith(",7,2") and "123 GFLOP/s" in lines[3]


@pytest.mark.parametrize("chosen", [[], ["two"], ["two", "one"]])
def test_a_part_runs_beside_another_and_says_in_its_turn_what_it_said(tmp_path, monkeypatch, capfd, chosen):
    from tools import checks

    begun = []

    def part(name, *beside):
        """a part"""
        begun.append(name)
        end = time.monotonic() + 30
        while not set(beside) <= set(begun):
            assert time.monotonic() < end, f"{name} is alone"
            time.sleep(0.01)
        return checks.Count(passed=1, failed=checks.run([sys.executable, "-c", f"print('said by {name}'); 1 / 0"]))

    parts = {"one": lambda: part("one", *[] if chosen else ["two"]), "two": lambda: part("two")}
    for f in parts.values():
        f.__doc__ = "a part"
    monkeypatch.setattr(checks, "PARTS", parts)
    monkeypatch.setattr(checks, "BESIDE", {"one": "two"})
    monkeypatch.setattr(checks, "TIMES", tmp_path / "checks.csv")
    monkeypatch.setattr(checks, "speed", lambda: 123.4)
    names = chosen or ["one", "two"]
    assert checks.main(chosen) == 1
    out, err = capfd.readouterr()
    assert sorted(begun) == sorted(names) and f"{len(names)} passed, {len(names)} failed" in out
    alone = "beside" if chosen == [] else "busy"
    assert re.search(rf"two +0:0\d  .*{alone}", out)
    if not chosen:
        heads = [out.index(x) for x in ("== 1/2 one", "== 2/2 two", "said by two", "ZeroDivisionError", "== what ran")]
        assert heads == sorted(heads) and "said by one" in out[: heads[1]] and err.count("ZeroDivisionError") == 1


def test_what_runs_beside_another_comes_later_and_needs_nothing_of_it():
    from tools import checks

    order = list(checks.PARTS)
    assert all(order.index(one) < order.index(other) for one, other in checks.BESIDE.items())


def test_the_parts_of_the_checks_are_those_that_make_knows():
    import make
    from tools import checks

    assert tuple(checks.PARTS) == make.PARTS
    assert checks.main(["libary"]) == checks.main(["lint", "lint"]) == 2
    assert checks.speed(256, 0.01) > 0


@pytest.mark.parametrize("set_to", ["somewhere", "", None])
def test_bases_are_fetched_for_a_chapter_and_for_the_lab_where_that_is_asked_for(monkeypatch, set_to):
    """The checks and the records train their own: no other command fetches."""
    import make

    ran = []
    monkeypatch.setattr(make, "env", lambda *_: None)
    monkeypatch.setattr(make, "sh", lambda *command, **_: ran.append(list(map(str, command))))
    monkeypatch.setattr(make.subprocess, "run", lambda command, **_: ran.append(command))
    monkeypatch.setenv("MPLBACKEND", "Agg")  # `make lab` removes it
    monkeypatch.delenv("ALIGNLAB_BASES", raising=False)
    if set_to is not None:
        monkeypatch.setenv("ALIGNLAB_BASES", set_to)
    first, given = {}, {"chapter": ["lima"], "confirm": ["lima"], "new": ["dpo", "DPO"]}
    for name in set(make.TARGETS) - {"help", "env", "drift", "clean"}:  # these run nothing, or what is not here
        ran.clear()
        make.TARGETS[name](*given.get(name, ()))
        first[name] = ran[0][1:]
    fetched = {name for name, command in first.items() if command[-2:] == ["alignlab.experiment.bases", "fetch"]}
    assert fetched == ({"chapter", "lab"} if set_to else set())
    assert first["bases"] == ["-m", "alignlab.experiment.bases", "write", "_build/bases"]
