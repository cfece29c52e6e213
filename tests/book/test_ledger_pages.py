"""What the pages make of the ledgers: strips, links of ids, what changed in a setting, what the verdicts mean."""

from __future__ import annotations

from types import SimpleNamespace
from xml.etree import ElementTree as ET

import ledger_ids
import meanings
import pytest
import settings_table
import strips
from alignlab.experiment.claims import VERDICTS, Entry, Term
from docutils import nodes
from docutils.utils import new_document

SVG = "{http://www.w3.org/2000/svg}"


def entry(expect="at least +0.30", margin=0.3, values=(0.4, 0.2, 0.6)):
    values = list(values)
    return {"expect": expect, "margin": margin, "unit": "accuracy", "values": values, "mean": sum(values) / len(values)}


def drawn(entry, fresh=()):
    picture = ET.fromstring(strips.svg(entry, fresh))
    circles = picture.findall(f"{SVG}circle")
    seeds = [float(c.get("cx")) for c in circles if c.get("class") == "strip-seed"]
    hollow = [float(c.get("cx")) for c in circles if c.get("class") == "strip-fresh"]
    rect = picture.find(f"{SVG}rect")
    left = float(rect.get("x"))
    return picture, seeds, hollow, (left, left + float(rect.get("width")))


def test_a_dot_lies_in_the_shade_exactly_where_its_seed_meets_the_margin():
    for one, met in (
        (entry(), [True, False, True]),
        (entry("at most -0.30", 0.3, (-0.4, -0.2, 0.1)), [True, False, False]),
        (entry("at most +0.30", 0.3, (-0.4, 0.2, 0.5)), [True, True, False]),
        (entry("within ±0.30", 0.3, (-0.4, 0.2, 0.5)), [False, True, False]),
    ):
        _, seeds, _, (left, right) = drawn(one)
        assert [left <= x <= right for x in seeds] == met, one["expect"]


def test_every_number_is_inside_and_confirmed_seeds_are_hollow():
    picture, seeds, hollow, _ = drawn(entry(), fresh=(0.9, -0.5))
    assert len(seeds) == 3 and len(hollow) == 2 and hollow[0] > max(seeds) and hollow[1] < min(seeds)
    assert all(0 <= x <= strips.WIDTH for x in seeds + hollow)
    said = picture.get("aria-label")
    for words in ("at least +0.30 accuracy", "mean +0.40", "+0.40, +0.20, +0.60", "fresh seeds +0.90, \u22120.50"):
        assert words in said


def test_numbers_that_would_touch_are_not_both_written():
    def texts(one):
        return [t.text for t in drawn(one)[0].findall(f"{SVG}text")]

    assert texts(entry()) == ["+0.30", "0"] and texts(entry(margin=0.01, values=(9.0, 9.1))) == ["+0.01"]


@pytest.mark.parametrize(
    "kind, direction", [("claim", 1), ("claim", -1), ("control", 1), ("control", -1), ("check", 0)]
)
def test_every_requirement_of_the_library_can_be_drawn(kind, direction):
    term = Term("a", "m")
    made = Entry("x", kind, "S", term, 0.0, 0.25, direction, "P", "", "u")
    low, high = strips.region(made.expect, made.margin)
    good = direction * 0.3 if kind == "claim" else 0.0
    assert low <= good <= high and not low <= (-good if good else (direction or 1) * 0.3) <= high


def test_a_requirement_of_another_form_is_refused():
    with pytest.raises(ValueError, match="'about 0.3' is no requirement"):
        strips.region("about 0.3", 0.3)


@pytest.fixture
def rows():
    found = ledger_ids.Rows.__new__(ledger_ids.Rows)
    found.docname = "notebooks/lima"
    found.app = SimpleNamespace(builder=SimpleNamespace(get_relative_uri=lambda _, to: to + ".html"))
    found.docs = {c: f"notebooks/{c}" for c in ("lima", "rot13", "limits")}
    found.ids = {"lima": {"steps", "own"}, "rot13": {"steps", "letters"}, "limits": {"steps", "letters", "late"}}
    return found


@pytest.mark.parametrize(
    "text, where",
    [
        ("own", ("lima", "own")),
        ("steps", ("lima", "steps")),  # the page's own goes before another's
        ("late", ("limits", "late")),
        ("letters", None),  # which of the two?
        ("rot13: letters", ("rot13", "letters")),
        ("rot13: late", None),
        ("Bergen", None),
    ],
)
def test_an_id_in_emphasis_leads_to_its_row(rows, text, where):
    document = new_document("x")
    document += nodes.paragraph("", "", nodes.emphasis("", text))
    ledger_ids.in_prose(rows, document)
    links = [r["refuri"] for r in document.findall(nodes.reference)]
    there = where and ("" if where[0] == "lima" else f"notebooks/{where[0]}.html") + f"#claim-{where[1]}"
    assert links == ([there] if where else []) and document.astext() == text


def test_the_cells_of_a_table_get_their_links_and_marks(rows):
    document = new_document("x")
    document += settings_table.table([{"chapter": "limits", "entry": "late", "committed": "not reproduced (+0.10)"}])
    ledger_ids.in_tables(rows, document)
    assert [r["refuri"] for r in document.findall(nodes.reference)] == ["notebooks/limits.html#claim-late"]
    [mark] = [n for n in document.findall(nodes.inline) if "verdict" in n["classes"]]
    assert mark.astext() == "not reproduced" and "verdict-not-reproduced" in mark["classes"]


def test_a_line_changes_where_its_verdict_does_and_not_where_only_its_name_does():
    line = {"chapter": "c", "kind": "claim", "entry": "e", "committed": "reproduced (+0.40)"}
    assert settings_table.changes(line | {"a": "reproduced (+0.31)", "b": "direction only (+0.20)", "c": ""}) == ["b"]
    check = line | {"kind": "check", "committed": "passed (+0.00)"}
    assert settings_table.changes(check | {"a": "held (+0.00)", "b": "broken (+0.30)"}) == ["b"]


def test_every_verdict_has_a_meaning_and_one_without_is_noticed():
    said = meanings.meanings()
    assert {v for vs in VERDICTS.values() for v in vs} <= set(said) and "half the margin" in said["direction only"]
    with pytest.raises(ValueError, match="'reproduced' has no line"):
        meanings.meanings("Nothing.")
