"""What a ledger claims is registered once: a claim that was changed says so, or is named."""

from __future__ import annotations

import pytest

from tools import register
from tools.notebooks import ROOT, entries, notebooks


def entry(id="a", expect="at least +0.30", statement="S", kind="claim", **more):
    return {"id": id, "kind": kind, "statement": statement, "expect": expect, **more}


def since(was=None, **more):
    first = {"verdict": "not measured any more"} if was is None else {"expect": was, "verdict": "reproduced"}
    return entry(since="what was changed", first=first, **more)


@pytest.fixture
def table(tmp_path):
    register.register("toy", [entry(), entry("b", kind="control")], tmp_path / "t.csv")
    return tmp_path / "t.csv"


def test_what_is_new_is_added_and_what_stands_there_is_kept(table):
    assert register.register("toy", [entry(expect="at least +0.10"), since("at least +0.50", id="c")], table) == ["c"]
    rows = register.read(table)
    assert rows["toy", "a"]["required"] == "at least +0.30"
    assert rows["toy", "c"]["required"] == "at least +0.50"  # as it was first written
    assert register.register("other", [entry()], table) == ["a"]
    assert list(register.read(table)) == [("toy", "a"), ("toy", "b"), ("toy", "c"), ("other", "a")]


@pytest.mark.parametrize(
    ("now", "says"),
    [
        (entry(), ""),
        (
            entry(expect="at least +0.10"),
            "a was registered with the required 'at least +0.30' and has 'at least +0.10'",
        ),
        (entry(statement="T"), "a was registered with the statement 'S' and has 'T' now, without its first form"),
        (entry(kind="check"), "a was registered with the kind 'claim' and has 'check' now, without its first form"),
        (since("at least +0.30", expect="at least +0.10"), ""),
        (since(expect="at least +0.30", statement="T"), ""),
        (since("at least +0.20"), "a was first registered with 'at least +0.30', and its first form says"),
        (entry("z"), "z is not registered: make register NAME=toy"),
    ],
)
def test_a_claim_that_changed_without_its_first_form_is_named(table, now, says):
    said = list(register.changed("toy", [now], register.read(table)))
    assert len(said) == bool(says) and all(line.startswith(says) for line in said), said


@pytest.mark.parametrize("chapter", [f for f in notebooks(ROOT).values() if entries(f)], ids=lambda f: f.stem)
def test_the_committed_ledgers_are_as_they_were_registered(chapter):
    assert list(register.changed(chapter.stem, entries(chapter), register.read())) == []
