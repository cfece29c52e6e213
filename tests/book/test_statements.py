"""The lecture's statements: the committed table names chapters and claims that are there."""

from __future__ import annotations

import csv

import pytest
import statements

from tools.notebooks import ROOT, entries, notebooks


def rows() -> list[dict]:
    with (ROOT / statements.TABLE).open(newline="", encoding="utf-8") as f:
        return list(csv.DictReader(f))


def test_places_are_read():
    assert statements.places("lima: quality few; judges:") == {"lima": ["quality", "few"], "judges": []}
    assert statements.places("") == {}
    with pytest.raises(ValueError, match="'lima' is not of the form"):
        statements.places("lima")


def test_the_statements_are_numbered_and_every_claim_that_is_named_exists():
    assert [r["number"] for r in rows()] == [str(n) for n in range(1, 48)]
    chapters = {f.stem: f for f in notebooks(ROOT).values()}
    named = [(c, id) for r in rows() for c, ids in statements.places(r["where"]).items() for id in ids if c in chapters]
    assert len(named) > 40
    for chapter, id in named:
        assert id in {e["id"] for e in entries(chapters[chapter])}, f"{chapter} has no {id}"
