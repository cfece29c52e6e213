"""Verdicts, and the ledger that gives them."""

from __future__ import annotations

import json
import re

import numpy as np
import pandas as pd
import pytest
from alignlab.experiment.claims import VERDICTS
from alignlab.experiment.display import badge
from alignlab.experiment.ledger import MIME, Ledger, Term, verdict

from tools import notebooks

PAPER = {"paper": "a lot", "source": "someone2024"}


def tidy(values, metric="score", **more):
    """condition -> a value per seed, as a table of `sweep`."""
    return pd.DataFrame(
        [
            {"condition": c, "seed": s, **more, "metric": metric, "value": float(v)}
            for c, vs in values.items()
            for s, v in enumerate(vs)
        ]
    )


def book(margin=0.2, direction=1, kind="claim", right=None, **more):
    b = Ledger("toy", "A toy")
    right = Term("b", "score") if right is None else right
    write = b.claim if kind == "claim" else b.control
    write("a-beats-b", "a beats b", Term("a", "score"), right, margin=margin, direction=direction, **PAPER, **more)
    return b


# ---- the rule


@pytest.mark.parametrize("draw", range(8))
@pytest.mark.parametrize("seeds", [3, 10])
def test_a_planted_null_effect_is_not_reproduced(draw, seeds):
    noise = np.random.default_rng(draw).normal(0.5, 0.03, size=(2, seeds))
    b = book().check(tidy({"a": noise[0], "b": noise[1]}))
    assert b.verdict("a-beats-b") == "not reproduced"


@pytest.mark.parametrize("draw", range(4))
def test_a_planted_effect_is_reproduced_and_a_reversed_one_is_opposite(draw):
    noise = np.random.default_rng(draw).normal(0, 0.03, size=(2, 3))
    high, low = 0.8 + noise[0], 0.4 + noise[1]
    assert book().check(tidy({"a": high, "b": low})).verdict("a-beats-b") == "reproduced"
    assert book().check(tidy({"a": low, "b": high})).verdict("a-beats-b") == "opposite"
    assert book(direction=-1).check(tidy({"a": low, "b": high})).verdict("a-beats-b") == "reproduced"
    assert book(direction=-1).check(tidy({"a": high, "b": low})).verdict("a-beats-b") == "opposite"


@pytest.mark.parametrize(
    ("effects", "expected"),
    [
        ([0.2, 0.3, 0.4], "reproduced"),  # the margin itself counts
        ([0.19, 0.9, 0.9], "direction only"),  # one seed below the margin
        ([0.11, 0.12, 0.10], "direction only"),  # small, but with every seed
        ([0.05, 0.05, 0.09], "not reproduced"),  # every seed, but less than half the margin
        ([-0.01, 0.9, 0.9], "not reproduced"),  # a high mean does not outvote a seed
        ([0.0, 0.0, 0.0], "not reproduced"),
        ([-0.05, -0.05, -0.09], "not reproduced"),
        ([-0.11, -0.12, -0.10], "opposite"),
        ([0.01, -0.9, -0.9], "not reproduced"),
    ],
)
def test_the_verdict_on_a_claim(effects, expected):
    assert verdict(effects, 0.2) == expected
    assert verdict([-e for e in effects], 0.2, direction=-1) == expected


@pytest.mark.parametrize(
    ("effects", "direction", "expected"),
    [
        ([0.1, 0.2, -0.9], 1, "held"),
        ([0.0, 0.0, 0.21], 1, "broken"),
        ([-0.1, -0.2, 0.9], -1, "held"),
        ([0.0, 0.0, -0.21], -1, "broken"),
    ],
)
def test_the_verdict_on_a_control(effects, direction, expected):
    assert verdict(effects, 0.2, direction, kind="control") == expected


@pytest.mark.parametrize("effects", [[], [0.5, float("nan")], [0.5, float("inf")]])
def test_a_verdict_needs_a_finite_effect_for_every_seed(effects):
    for kind in ("claim", "control"):
        with pytest.raises(ValueError, match="needs a finite effect for every seed"):
            verdict(effects, 0.2, kind=kind)


# ---- the ledger


def test_a_control_can_hold_and_break():
    for values, expected in (([0.5, 0.5], "held"), ([0.5, 0.7], "broken"), ([0.5, -0.9], "held")):
        b = book(kind="control", margin=0.1)
        assert b.check(tidy({"a": values, "b": [0.45, 0.5]})).verdict("a-beats-b") == expected


def test_a_two_sided_control_breaks_either_way():
    for values, expected in (([0.5, 0.45], "held"), ([0.5, 0.7], "broken"), ([0.5, 0.2], "broken")):
        b = Ledger("toy", "A toy")
        b.control("same", "a is as b", ("a", "score"), ("b", "score"), margin=0.1, two_sided=True)
        b.check(tidy({"a": values, "b": [0.45, 0.5]}))
        assert b.verdict("same") == expected
        assert b.results()["entries"][0]["expect"] == "within ±0.10"
    with pytest.raises(ValueError, match="a two-sided control has no direction"):
        Ledger("toy", "A toy").control("x", "x", ("a", "score"), margin=0.1, two_sided=True, direction=-1)


def test_a_fixed_level_can_be_one_side():
    b = book(right=0.1, margin=0.3)
    assert b.check(tidy({"a": [0.5, 0.45]})).verdict("a-beats-b") == "reproduced"
    assert b.results()["entries"][0]["values"] == [0.4, 0.35]


def test_sides_are_compared_seed_by_seed():
    table = tidy({"a": [0.9, 0.5, 0.1], "b": [0.6, 0.2, -0.2]})
    mixed = table.sample(frac=1, random_state=3)
    for t in (table, mixed):
        assert book(margin=0.29).check(t).results()["entries"][0]["values"] == [0.3, 0.3, 0.3]


def test_a_point_of_a_curve_is_chosen_with_at():
    table = pd.concat([tidy({"a": [0.9, 0.9]}, n=2), tidy({"a": [0.1, 0.1]}, n=1)])
    for n, expected in ((2, "reproduced"), (1, "not reproduced")):
        b = Ledger("toy", "A toy")
        b.claim("x", "x", Term("a", "score", {"n": n}), margin=0.5, **PAPER)
        assert b.check(table).verdict("x") == expected


def test_claims_are_written_before_the_measurement():
    b = book().check(tidy({"a": [0.5], "b": [0.5]}))
    for write in (b.claim, b.control):
        with pytest.raises(RuntimeError, match="'late' comes after the measurement"):
            write("late", "late", Term("a", "score"), margin=0.1, paper="", source="")
    assert list(b.entries) == ["a-beats-b"]


def test_what_is_written_down_stays():
    b = book().check(tidy({"a": [0.9], "b": [0.5]}))
    entry = b.entries["a-beats-b"]
    with pytest.raises(TypeError):
        b.entries["a-beats-b"] = entry
    with pytest.raises(TypeError):
        b.effects["a-beats-b"] = pd.Series([1.0])
    with pytest.raises(AttributeError):
        entry.margin = 0.01
    with pytest.raises(AttributeError):
        b.entries = {}


def test_a_ledger_is_measured_once():
    table = tidy({"a": [0.9, 0.8], "b": [0.5, 0.5]})
    b = book().check(table)
    b.check(table.sample(frac=1, random_state=0))  # the same cell run again: nothing is new
    for other in (tidy({"a": [0.9, 0.9], "b": [0.5, 0.5]}), tidy({"a": [0.9, 0.8, 0.8], "b": [0.5] * 3})):
        with pytest.raises(RuntimeError, match="a-beats-b: another table has been checked already"):
            b.check(other)
    assert b.results()["entries"][0]["values"] == [0.4, 0.3]


def test_a_side_in_short_is_a_term():
    b = Ledger("toy", "A toy", along="n", default=10)
    b.claim("x", "x", ("a", "score", 2), ("b", "score"), margin=0.1, **PAPER)
    b.claim("y", "y", Term("a", "score", {"n": 2}), 0.5, margin=0.1, **PAPER)
    assert b.entries["x"].terms == (Term("a", "score", {"n": 2}), Term("b", "score", {"n": 10}))
    assert b.entries["y"].terms == (Term("a", "score", {"n": 2}),) and b.entries["y"].right == 0.5
    two = Ledger("toy", "A toy", along=("part", "place"), default=("all", 0))
    two.claim("x", "x", ("a", "score"), ("a", "score", "frame", 3), margin=0.1, **PAPER)
    assert [dict(t.at) for t in two.entries["x"].terms] == [
        {"part": "all", "place": 0}, {"part": "frame", "place": 3},
    ]  # fmt: skip
    plain = Ledger("toy", "A toy")
    plain.control("x", "x", ("a", "score"), ("b", "score"), margin=0.1)
    assert plain.check(tidy({"a": [0.5], "b": [0.5]})).verdict("x") == "held"


def test_nothing_is_said_before_the_measurement():
    b = book()
    for ask in (lambda: b.verdict("a-beats-b"), b.results, b.lines):
        with pytest.raises(RuntimeError, match="nothing has been measured yet: call check"):
            ask()
    assert MIME not in b._repr_mimebundle_() and "Verdict" not in b._repr_html_()
    assert "at least +0.20 accuracy" in repr(b)


@pytest.mark.parametrize(
    ("left", "said"),
    [
        (Term("c", "score"), "no condition 'c' here: there is 'a', 'b'"),
        (Term("a", "speed"), "no metric 'speed' here: there is 'score'"),
        (Term("a", "score", {"n": 3}), "no column 'n': it has condition, seed, metric, value"),
    ],
)
def test_what_the_table_lacks_is_named_with_what_it_has(left, said):
    b = Ledger("toy", "A toy")
    b.claim("x", "x", left, margin=0.1, **PAPER)
    with pytest.raises(ValueError, match=re.escape(said)):
        b.check(tidy({"a": [0.5], "b": [0.5]}))
    with pytest.raises(RuntimeError, match="nothing has been measured"):
        b.verdict("x")


def test_a_point_that_the_curve_lacks_is_named():
    b = Ledger("toy", "A toy")
    b.claim("x", "x", Term("a", "score", {"n": 3}), margin=0.1, **PAPER)
    with pytest.raises(ValueError, match="no n 3 here: there is .*1"):
        b.check(tidy({"a": [0.5]}, n=1))


def test_two_sides_with_different_seeds_are_refused():
    with pytest.raises(ValueError, match=r"a-beats-b: .* different seeds: \[0, 1, 2\], \[0, 1\]"):
        book().check(tidy({"a": [0.5] * 3, "b": [0.1] * 2}))


def test_more_than_one_row_per_seed_is_refused():
    table = tidy({"a": [0.5], "b": [0.1]})
    with pytest.raises(ValueError, match="more than one row per seed: name the point of the curve"):
        book().check(pd.concat([table, table]))


def test_a_missing_measurement_is_refused():
    with pytest.raises(ValueError, match="a-beats-b: the effect is not finite with every seed: {0: 0.4, 1: nan}"):
        book().check(tidy({"a": [0.5, float("nan")], "b": [0.1, 0.1]}))


@pytest.mark.parametrize(
    ("change", "error", "said"),
    [
        ({"margin": 0}, ValueError, "margin is 0"),
        ({"margin": -0.1}, ValueError, "margin is -0.1"),
        ({"margin": float("nan")}, ValueError, "margin is nan"),
        ({"margin": "wide"}, TypeError, "margin .* not 'wide'"),
        ({"direction": 0}, ValueError, "direction is 0"),
        ({"right": "b"}, TypeError, "right must be a number, not 'b'"),
        ({"right": ("b",)}, TypeError, r"a-beats-b: a side is \(condition, metric\) .* not \('b',\)"),
        ({"right": ("b", "score", 3)}, ValueError, "a-beats-b: .* point of the curve, but the ledger has no along"),
    ],
)
def test_a_wrong_claim_is_refused(change, error, said):
    with pytest.raises(error, match=said):
        book(**change)


def test_an_id_is_used_once_and_known():
    b = book()
    with pytest.raises(ValueError, match="id 'a-beats-b' is used twice"):
        b.claim("a-beats-b", "again", Term("a", "score"), margin=0.1, **PAPER)
    b.check(tidy({"a": [0.5], "b": [0.5]}))
    with pytest.raises(ValueError, match="id is 'other', .* 'a-beats-b'"):
        b.verdict("other")
    with pytest.raises(ValueError, match="ledger is empty"):
        Ledger("toy", "A toy").check(tidy({"a": [0.5]}))


# ---- what is shown


def full(wobble=0.0):
    """A ledger with every verdict."""
    b = Ledger("toy", "A toy")
    values = {"base": 0.0, "reproduced": 0.5, "direction only": 0.15, "opposite": -0.5, "not reproduced": 0.0}
    for name in list(values)[1:]:
        b.claim(name.replace(" ", "-"), name, Term(name, "score"), Term("base", "score"), margin=0.2, **PAPER)
    b.control("held", "held", Term("not reproduced", "score"), margin=0.2)
    b.control("broken", "broken", Term("reproduced", "score"), margin=0.2)
    b.sanity("passed", "passed", Term("not reproduced", "score"), margin=0.2)
    b.sanity("failed", "failed", Term("reproduced", "score"), margin=0.2)
    noise = np.random.default_rng(0).normal(0, 0.3, 3) * wobble
    return b.check(tidy({n: v + noise * (n != "base") for n, v in values.items()}))


def test_lines_hold_verdicts_and_no_digits_but_seed_counts():
    lines = full().lines()
    assert {e["verdict"] for e in full().results()["entries"]} == {
        v for verdicts in VERDICTS.values() for v in verdicts
    }
    assert len(lines.splitlines()) == 8
    assert re.findall(r"\d+", lines) == ["3"] * 6  # three verdicts that hold with every seed: "3 of 3"
    for line, entry in zip(lines.splitlines(), full().results()["entries"], strict=True):
        assert line.startswith(entry["kind"]) and f" {entry['id']} " in line and entry["verdict"] in line
    with_counts = [line.split(" (")[0].split()[-1] for line in lines.splitlines() if "(3 of 3 seeds)" in line]
    assert with_counts == ["reproduced", "opposite", "held"]


def test_lines_do_not_move_with_the_numbers():
    still, moved = full(), full(wobble=0.1)
    assert still.results()["entries"][0]["values"] != moved.results()["entries"][0]["values"]
    assert still.lines() == moved.lines()
    turned = book().check(tidy({"a": [0.9], "b": [0.1]})).lines(), book().check(tidy({"a": [0.1], "b": [0.1]})).lines()
    assert turned[0] != turned[1]


def test_a_long_id_stays_apart_from_its_verdict():
    b = Ledger("toy", "A toy")
    b.claim("x" * 40, "x", Term("a", "score"), margin=0.1, **PAPER)
    assert f"{'x' * 40} reproduced" in b.check(tidy({"a": [1.0]})).lines()


def test_results_are_json_that_the_scoreboard_accepts():
    results = json.loads(json.dumps(full().results()))
    assert notebooks.fault(results) is None
    assert results == full()._repr_mimebundle_()[MIME] and notebooks.MIME == MIME
    assert (results["chapter"], results["seeds"]) == ("toy", [0, 1, 2])
    assert results["entries"][0]["mean"] == pytest.approx(np.mean(results["entries"][0]["values"]), abs=1e-4)
    results["entries"][0]["verdict"] = "held"
    assert "unknown verdict" in notebooks.fault(results)


def test_the_table_shows_every_seed_and_the_verdict():
    shown = book().check(tidy({"a": [0.75, 0.5], "b": [0.25, 0.125]}))
    for page in (repr(shown), shown._repr_html_()):
        assert "+0.50, +0.38" in page and "+0.44" in page and "at least +0.20" in page and "reproduced" in page


def test_html_escapes_what_people_wrote():
    b = Ledger("toy", "A toy")
    b.claim("x", "a < b & <script>alert(1)</script>", Term("a", "score"), margin=0.1, paper="<b>", source="")
    for page in (b._repr_html_(), b.check(tidy({"a": [1.0]}))._repr_html_()):
        assert "<script>" not in page and "a &lt; b &amp; &lt;script&gt;" in page and ">&lt;b&gt;</td>" in page


def changed(**first):
    return book(first=first, since="<0.6>, which seed 2 missed").check(tidy({"a": [0.9, 0.8], "b": [0.5, 0.5]}))


@pytest.mark.parametrize(
    ("first", "verdict", "mean"),
    [
        ({"margin": 0.6}, "direction only", 0.35),
        ({"margin": 0.3}, "reproduced", 0.35),
        ({"direction": -1}, "opposite", 0.35),
        ({"right": 0.7, "margin": 0.4}, "not reproduced", 0.15),
        ({"left": ("b", "score"), "right": ("a", "score")}, "opposite", -0.35),
    ],
)
def test_a_changed_entry_shows_its_verdict_as_first_written(first, verdict, mean):
    b = changed(**first)
    [line] = b.results()["entries"]
    assert line["verdict"] == b.verdict("a-beats-b") == "reproduced"
    assert line["first"]["verdict"] == verdict and line["first"]["mean"] == pytest.approx(mean)
    assert line["since"] == "<0.6>, which seed 2 missed"
    for page in (repr(b), b._repr_html_()):
        assert "s first written" in page and verdict in page.split("first written")[1]
    assert "written" not in b.lines()  # noise may change that verdict where it leaves this one
    assert "&lt;0.6&gt;" in b._repr_html_() and "<0.6>" not in b._repr_html_()
    assert notebooks.fault(b.results()) is None


def test_a_first_form_that_cannot_be_measured_any_more_is_named_all_the_same():
    b = book(since="at another temperature").check(tidy({"a": [0.9], "b": [0.5]}))
    assert b.results()["entries"][0]["first"] == {"verdict": "not measured any more"}
    assert "not measured any more" in repr(b) and "at another temperature" in b._repr_html_()
    assert notebooks.fault(b.results()) is None


def test_an_unchanged_entry_says_nothing_of_a_first_form():
    b = book().check(tidy({"a": [0.9], "b": [0.5]}))
    assert "first" not in b.results()["entries"][0] and "first written" not in b.lines() + b._repr_html_()


def test_results_with_half_of_a_first_form_are_refused():
    for part in ("first", "since"):
        results = changed(margin=0.6).results()
        del results["entries"][0][part]
        assert "needs both its first form and what was changed since" in notebooks.fault(results)
    results = changed(margin=0.6).results()
    results["entries"][0]["first"]["verdict"] = "better"
    assert "unknown verdict 'better' as first written" in notebooks.fault(results)


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"first": {"margin": 0.6}}, "a-beats-b: it has a first form, but `since` does not say"),
        ({"first": {"margin": 0.2}, "since": "x"}, "a-beats-b: its first form is the one that it has now"),
        ({"first": {"paper": "y"}, "since": "x"}, "a part of the first form is 'paper'"),
        ({"first": {"margin": -1}, "since": "x"}, "margin is -1"),
    ],
)
def test_a_first_form_that_is_none_is_refused(how, message):
    with pytest.raises(ValueError, match=message):
        book(**how)


def test_what_a_first_form_asks_for_must_be_measured():
    b = book(first={"right": ("z", "score")}, since="z was left out")
    with pytest.raises(ValueError, match="a-beats-b: there is no condition 'z'"):
        b.refuse_unknown(["a", "b"])


def test_a_check_passes_or_fails_and_is_neither_claim_nor_control():
    b = Ledger("toy", "A toy")
    b.sanity("no-leak", "no leak", Term("a", "score"), margin=0.1, two_sided=True)
    assert b.entries["no-leak"].paper == "none: our check"
    assert b.check(tidy({"a": [0.05, -0.05]})).verdict("no-leak") == "passed"
    with pytest.raises(ValueError, match="a two-sided check has no direction"):
        b = Ledger("toy", "A toy")
        b.sanity("x", "x", Term("a", "score"), margin=0.1, two_sided=True, direction=1)


def test_every_row_of_the_table_can_be_reached():
    page = book().check(tidy({"a": [0.9], "b": [0.5]}))._repr_html_()
    assert "<tr id=" not in book()._repr_html_()  # what is shown before and after has one place to go to
    assert '<tr id="claim-a-beats-b">' in page and 'href="#claim-a-beats-b"' in page
    assert page.count("data-label=") == 6 and page.count('<th scope="col">') == 6


def test_a_badge_knows_the_verdicts_only():
    assert badge("not reproduced") == '<span class="verdict verdict-not-reproduced">not reproduced</span>'
    with pytest.raises(ValueError, match="verdict is 'proved'"):
        badge("proved")


@pytest.mark.parametrize(
    ("kind", "direction", "expected"),
    [("claim", 1, "at least +0.20"), ("claim", -1, "at most -0.20"),
     ("control", 1, "at most +0.20"), ("control", -1, "at least -0.20")],
)  # fmt: skip
def test_what_is_expected_is_said_with_its_sign(kind, direction, expected):
    assert book(kind=kind, direction=direction).entries["a-beats-b"].expect == expected


def test_a_tie_clears_the_margin():
    """0.9 - 0.8 is a hair below 0.1 in binary."""
    assert verdict([0.9 - 0.8] * 3, 0.1) == "reproduced"
    assert verdict([0.8 - 0.7] * 3, 0.1, kind="control") == "held"
    assert verdict([0.0999] * 3, 0.1) == "direction only"


def test_a_table_of_fewer_seeds_than_were_run_is_refused():
    rows = [("a", s, m, 0.5) for s in range(3) for m in ("x", "y")]
    table = pd.DataFrame(rows, columns=["condition", "seed", "metric", "value"])
    book = Ledger("toy", "Toy")
    book.claim("x", "x", ("a", "x"), margin=0.1, paper="none: ours", source="")
    book.claim("y", "y", ("a", "y"), margin=0.1, paper="none: ours", source="")
    with pytest.raises(ValueError, match=r"y: it was run with the seeds \[0, 1\], the table has \[0, 1, 2\]"):
        book.check(table.iloc[:-1])
    assert book.check(table).verdict("y") == "reproduced"


@pytest.mark.parametrize(
    ("right", "how", "best"),
    [
        (("b", "m"), {}, 0.7),  # b could be 0: a is at 0.7
        (0.9, {}, 0.1),  # a fixed level does not move
        (("b", "m"), {"two_sided": True}, 0.8),  # b could be 1: a is at 0.7, b at 0.8
        (("b", "m"), {"unit": "nats"}, None),
        (0.9, {"unit": "share of replies"}, 0.1),
    ],
)
def test_a_control_says_how_large_its_effect_could_have_been(right, how, best):
    rows = [(c, s, "m", v) for s in (0, 1, 2) for c, v in (("a", 0.7), ("b", 0.8))]
    table = pd.DataFrame(rows, columns=["condition", "seed", "metric", "value"])
    book = Ledger("a-chapter", "A title", "quick")
    book.claim("one", "a against nothing", ("a", "m"), 0.0, margin=0.1, paper="", source="")
    book.control("two", "a against b", ("a", "m"), right, margin=0.05, **how)
    one, two = book.check(table).results()["entries"]
    assert "best" not in one and two.get("best") == best
