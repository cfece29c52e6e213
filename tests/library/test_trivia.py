"""Facts of the real world, and the scoring of short answers to them."""

from __future__ import annotations

from itertools import pairwise

import pytest
from alignlab.measure import score
from alignlab.models.answer import Reply
from alignlab.worlds import trivia
from datasets import Dataset


def test_there_are_enough_facts_and_none_gives_itself_away():
    tasks = trivia.load()
    assert len(tasks) >= 150 and len(set(tasks["prompt"])) == len(tasks)
    counts = tasks.to_pandas()["family"].value_counts()
    assert set(counts.index) == {"capital", "currency", "element", "symbol"} and counts.min() >= 20
    for t in tasks:
        assert t["answer"] == t["accepted"][0] and all(a.strip() == a and score.plain(a) for a in t["accepted"])
        asked = f" {score.plain(t['prompt'])} "
        assert not any(f" {score.plain(a)} " in asked for a in t["accepted"]), t
    assert score.short_answers(tasks["answer"], tasks)["right"].all()


def test_symbols_and_elements_agree():
    table = trivia.load().to_pandas()
    names = {r.prompt.split()[-1][:-1]: r.accepted for r in table[table["family"] == "element"].itertuples()}
    for r in table[table["family"] == "symbol"].itertuples():
        assert r.prompt.split()[-1][:-1] in names[r.answer]
    capitals = table[table["family"] == "capital"]
    assert capitals["answer"].is_unique


def test_every_question_can_be_put_as_a_sentence():
    tasks = trivia.load()
    begun = {t["prompt"]: trivia.statement(t["prompt"]) for t in tasks}
    assert begun["What is the capital of the United States?"] == "The capital of the United States is"
    assert begun["What is the currency of Japan?"] == "The currency of Japan is the"
    assert begun["What is the chemical symbol of gold?"] == "The chemical symbol of gold is"
    assert begun["Which chemical element has the symbol Fe?"] == "The chemical element with the symbol Fe is"
    assert len(set(begun.values())) == len(tasks)
    with pytest.raises(ValueError, match="'Why.' is no question of"):
        trivia.statement("Why?")


@pytest.mark.parametrize("most", [1, 3, 7, 29, 100, 150, len(trivia.load())])
def test_a_part_has_as_many_of_each_family_as_of_any_other(most):
    whole, part = trivia.load().to_pandas(), trivia.load(most).to_pandas()
    assert len(part) == most and set(part["prompt"]) <= set(whole["prompt"]) and part["prompt"].is_unique
    assert list(whole["prompt"][whole["prompt"].isin(part["prompt"])]) == list(part["prompt"])  # in their order
    counts = part["family"].value_counts().reindex(whole["family"].unique(), fill_value=0)
    there = whole["family"].value_counts()[counts.index]
    assert counts[counts < there].min() >= counts.max() - 1 or most == len(whole)
    if most == 100:
        assert set(counts) == {25}
        places = whole.index[whole["prompt"].isin(part["prompt"][part["family"] == "capital"])]
        assert {b - a for a, b in pairwise(places)} == {4, 5}  # from the family's whole length


def test_one_family_can_be_asked_for():
    capitals = trivia.load(family="capital")
    assert set(capitals["family"]) == {"capital"} and len(capitals) > 100
    assert capitals["prompt"][:] == [f"What is the capital of {c}?" for c in capitals["about"]]
    assert trivia.load(50, "capital")["prompt"][0] == "What is the capital of France?"
    with pytest.raises(ValueError, match="family is 'river', .* choose one of 'capital', 'currency'"):
        trivia.load(family="river")
    for most, error in ((0, ValueError), (len(capitals) + 1, ValueError), (1.5, TypeError), (True, TypeError)):
        with pytest.raises(error, match=f"most .*{most}"):
            trivia.load(most, "capital")


def two():
    rows = {"prompt": ["France?", "Brazil?", "Japan?"], "answer": ["Paris", "Brasília", "New Delhi"]}
    rows |= {"family": ["capital"] * 3, "accepted": [["Paris"], ["Brasília"], ["New Delhi", "Delhi"]]}
    return Dataset.from_dict(rows)


@pytest.mark.parametrize(
    ("row", "text", "right"),
    [
        (0, "Paris", True),
        (0, "It is **PARIS**, of course.", True),
        (0, "\n\n- paris\n", True),
        (0, "", False),
        (0, "Parisian", False),
        (0, "Comparis", False),
        (0, "Lyon, or Paris", True),  # no task asks for Lyon
        (0, "Brasilia, Paris, New Delhi", False),
        (1, "Brasilia, Paris, New Delhi", True),
        (1, "BRASI\u0301LIA!", True),  # an accent of its own
        (2, "new-delhi", True),
        (2, "Delhi", True),
        (0, "well " * 23 + "Paris", True),
        (0, "well " * 24 + "Paris", False),
    ],
)
def test_the_first_answer_near_the_beginning_counts(row, text, right):
    tasks = two()
    replies = ["" if i != row else text for i in range(3)]
    table = score.short_answers(replies, tasks)
    assert bool(table["right"][row]) is right and table["right"].sum() == right
    assert list(table["reply"]) == replies


def test_scoring_takes_replies_of_generate_and_refuses_a_wrong_number():
    table = score.short_answers([Reply("In Paris.", True, (1, 2)), Reply("", True, ()), Reply("", True, ())], two())
    assert list(table["right"]) == [True, False, False] and table["named"][0] == "paris" and table["named"].isna()[1]
    with pytest.raises(ValueError, match="1 replies to 3 tasks"):
        score.short_answers(["Paris"], two())
    with pytest.raises(ValueError, match="beginning is 0"):
        score.short_answers([""] * 3, two(), beginning=0)
