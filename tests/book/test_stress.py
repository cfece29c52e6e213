"""The table of verdicts by setting: its bookkeeping, and that it speaks of the chapters that are there."""

from __future__ import annotations

import ast
import csv
import re
from pathlib import Path

import pytest
from settings_table import changes

from tools import stress
from tools.experiment import digest, noted
from tools.notebooks import code, known, notebooks, read, tags

ROOT = Path(__file__).resolve().parents[2]


def entry(id: str, verdict: str = "reproduced", mean: float = 0.5, kind: str = "claim") -> dict:
    return {"id": id, "kind": kind, "verdict": verdict, "mean": mean}


def test_settings_are_added_and_nothing_else_is_touched(tmp_path):
    table = tmp_path / "deep" / "t.csv"
    stress.record("lima", "seed-100", [entry("quality"), entry("clean", "held", -0.014, "control")], table)
    stress.record("paraphrase", "seed-100", [entry("usable")], table)
    stress.record(
        "lima", "avx2", [entry("quality", "direction only", 0.2), entry("clean", "held", 0, "control")], table
    )
    rows = stress.read(table)
    assert list(rows) == [("paraphrase", "usable"), ("lima", "quality"), ("lima", "clean")]  # the order of the book
    assert rows["lima", "quality"]["seed-100"] == "reproduced (+0.50)"
    assert rows["lima", "quality"]["avx2"] == "direction only (+0.20)"
    assert rows["lima", "clean"]["seed-100"] == "held (-0.01)"
    assert rows["paraphrase", "usable"]["avx2"] == ""
    assert [f.name for f in table.parent.iterdir()] == ["t.csv"]  # no draft is left


def test_an_entry_that_a_chapter_gave_up_is_dropped(tmp_path):
    table = tmp_path / "t.csv"
    stress.record("lima", "avx2", [entry("old"), entry("kept")], table)
    stress.record("lima", "seed-100", [entry("kept")], table)
    assert list(stress.read(table)) == [("lima", "kept")]


def test_an_unknown_chapter_is_refused_before_anything_runs(capsys):
    with pytest.raises(SystemExit):
        stress.main(["lama"])
    assert "no chapter 'lama'" in capsys.readouterr().err


def test_the_committed_table_speaks_of_the_committed_chapters():
    assert stress.TABLE.exists()
    with stress.TABLE.open(newline="", encoding="utf-8") as f:
        rows = list(csv.DictReader(f))
    ledgers = {p.stem: {e["id"]: e for e in stress.entries(p)} for p in notebooks(ROOT).values()}
    assert {r["chapter"] for r in rows} <= set(ledgers)
    for row in rows:
        found = ledgers[row["chapter"]].get(row["entry"])
        assert found, f"{row['chapter']} has no entry {row['entry']} any more: make stress NAME={row['chapter']}"
        assert row["committed"] == f"{found['verdict']} ({found['mean']:+.2f})", row


def test_what_another_processor_gave_belongs_to_the_run_it_stood_beside(tmp_path):
    table = tmp_path / "robustness.csv"
    for setting, mean in (("committed", 0.5), (stress.ELSEWHERE, 0.4), ("committed", 0.5)):
        stress.record("lima", setting, [entry("quality", mean=mean)], table)
    assert stress.read(table)["lima", "quality"][stress.ELSEWHERE], "nothing has changed"
    stress.record("lima", "committed", [entry("quality", mean=0.6)], table)
    assert not stress.read(table)["lima", "quality"][stress.ELSEWHERE]


def test_what_another_experiment_gave_is_dropped(tmp_path):
    table = tmp_path / "robustness.csv"
    for setting in ("committed", "seed-100"):
        stress.record("lima", setting, [entry("quality")], table, mark="one")
    stress.record("the-lab", "seed-100", [entry("reading-teaches")], table, mark="other")
    stress.record("lima", "seed-200", [entry("quality")], table, mark="one")
    assert stress.read(table)["lima", "quality"]["seed-100"], "nothing has changed"
    stress.record("lima", "committed", [entry("quality")], table, mark="two")
    row = stress.read(table)["lima", "quality"]
    assert row["committed"] and not row["seed-100"] and not row["seed-200"]
    assert stress.read(table)["the-lab", "reading-teaches"]["seed-100"], "the places of another chapter"


def test_the_committed_table_is_of_the_committed_experiments():
    """Only where other settings stand: what has none yet says nothing that could be out of date."""
    marks = noted(stress.TABLE)
    for page, file in notebooks(ROOT).items():
        chapter = Path(page).name
        others = [s for s in stress.SETTINGS if s != "committed"]
        if any(row[s] for key, row in stress.read().items() if key[0] == chapter for s in others):
            assert marks[chapter] == digest(file), f"make stress NAME={chapter}"


@pytest.mark.parametrize("chapter", known())
def test_a_chapter_has_been_run_in_every_setting(chapter):
    missing = stress.missing(chapter, stress.read())
    if chapter in stress.OWED:
        assert missing and "committed" not in missing, f"{chapter} has been run: it is not owed any more"
    else:
        assert not missing, f"{chapter} was not run in the settings {', '.join(missing)}: make stress NAME={chapter}"


def test_another_processor_is_asked_for_another_machine(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(stress.subprocess, "run", lambda *a, **k: pytest.fail("it was run"))
    here = stress.features(ROOT / "notebooks" / "lima.ipynb")
    monkeypatch.setattr(stress.torch.backends.cpu, "get_cpu_capability", lambda: here)
    assert here and not stress.run("lima", "other-processor")
    assert f"such a processor ({here})" in capsys.readouterr().out


def test_a_setting_that_is_the_committed_one_is_not_run_again(tmp_path, monkeypatch):
    rows = []
    monkeypatch.setattr(stress.subprocess, "run", lambda *a, **k: pytest.fail("it was run"))
    monkeypatch.setattr(stress, "record", lambda chapter, setting, entries, mark: rows.append((chapter, setting)))
    monkeypatch.setattr(stress, "features", lambda file: "AVX2")
    assert stress.run("the-lab", "avx2")
    assert rows == [("the-lab", "avx2")]
    assert not any(stress.is_committed(ROOT, s) for s in (*stress.SETTINGS, "full") if s != "avx2")


def unsettled(chapter):
    """The ids that the chapter's verdict cell prints as unsettled."""
    [cell] = [c for _, c in code(read(ROOT / "notebooks" / f"{chapter}.ipynb")) if "verdict" in tags(c)]
    found = re.search(r"^unsettled = (\[.*?\])", cell.source, re.MULTILINE | re.DOTALL)
    return ast.literal_eval(found[1]) if found else []


@pytest.mark.parametrize("chapter", known())
def test_a_line_is_unsettled_if_and_only_if_its_verdict_was_seen_to_differ(chapter):
    rows = stress.read()
    for e in stress.entries(ROOT / "notebooks" / f"{chapter}.ipynb"):
        row = rows[chapter, e["id"]]
        assert bool(changes(row)) == (e["id"] in unsettled(chapter)), (chapter, e["id"], row)


def test_a_chapter_that_was_not_run_in_a_setting_is_named():
    rows = stress.read()
    assert stress.missing("the-lab", {k: r for k, r in rows.items() if k[0] != "the-lab"}) == [
        s for s in stress.SETTINGS if s != stress.ELSEWHERE
    ]
    rows["the-lab", "reading-teaches"]["avx2"] = ""
    assert stress.missing("the-lab", rows) == ["avx2"]


def test_the_other_settings_are_other_experiments():
    """A setting without an effect would be no evidence. Two threads are none, and the page says so."""
    rows = stress.read()
    for setting in ("seed-100", "seed-200", "no-vectors", "avx2"):
        again = {c for c in known() if not stress.is_committed(ROOT / "notebooks" / f"{c}.ipynb", setting)}
        run = [r for r in rows.values() if r[setting] and r["chapter"] in again]
        assert sum(r[setting] != r["committed"] for r in run) > len(run) / 3 or not again, setting
        others = [r for r in rows.values() if r["chapter"] not in again]
        assert all(r[setting] in ("", r["committed"]) for r in others), f"{setting} is the committed run itself"


def test_the_profile_full_has_a_table_of_its_own(tmp_path, monkeypatch):
    table = tmp_path / "full.csv"
    monkeypatch.setattr(stress, "FULL_TABLE", table)
    monkeypatch.setattr(stress, "TABLE", tmp_path / "robustness.csv")
    stress.record("lima", "full", [entry("quality", mean=0.6)])
    stress.record("lima", "quick", [entry("quality")])
    assert not stress.TABLE.exists()
    assert table.read_text("utf-8").splitlines() == [
        "chapter,kind,entry,quick,full",
        "lima,claim,quality,reproduced (+0.50),reproduced (+0.60)",
    ]
    runs = tmp_path / "runs.csv"
    stress.record_run("rot13", 90, runs)
    stress.record_run("lima", 60, runs)
    stress.record_run("rot13", 120, runs)
    with runs.open(newline="", encoding="utf-8") as f:
        rows = [(r["chapter"], r["minutes"], "cores" in r["where"]) for r in csv.DictReader(f)]
    assert rows == [("lima", "1.0", True), ("rot13", "2.0", True)]


def test_the_committed_profiles_are_of_the_committed_chapters():
    with stress.FULL_RUNS.open(newline="", encoding="utf-8") as f:
        ran = {r["chapter"] for r in csv.DictReader(f)}
    rows = stress.read(stress.FULL_TABLE)
    assert ran and {chapter for chapter, _ in rows} == ran
    for chapter in ran:
        entries = stress.entries(ROOT / "notebooks" / f"{chapter}.ipynb")
        there = {key for key in rows if key[0] == chapter}
        assert {(chapter, e["id"]) for e in entries} == there, f"make full NAME={chapter}"
        again = f"make stress NAME={chapter} SETTING=quick"
        for e in entries:
            assert rows[chapter, e["id"]]["quick"] == f"{e['verdict']} ({e['mean']:+.2f})", again
            assert rows[chapter, e["id"]]["full"]
