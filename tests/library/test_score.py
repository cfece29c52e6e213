"""What an answer is worth, on replies written by hand."""

from __future__ import annotations

import pytest
from alignlab.measure import score
from alignlab.models.answer import Reply


def one(asked, family, text, stopped=True):
    world, tasks = asked
    task = tasks.filter(lambda t: t["family"] == family)
    return score.marks([Reply(text, stopped, ())], task, world).iloc[0]


def test_a_perfect_reply_has_ten_marks(asked):
    world, tasks = asked
    replies = [Reply(f"sure ! {t['response']} hope this helps !", True, ()) for t in tasks]
    table = score.marks(replies, tasks, world)
    assert list(table["mark"]) == [10] * len(tasks)
    assert table["usable"].all() and table["manner"].all()


def test_each_fault_costs_its_own_marks(asked):
    city = asked[0].people[0].facts["city"]
    other = next(v for v in asked[0].values["city"] if v != city)
    good = f"sure ! X was born in {city} . hope this helps !"
    assert one(asked, "city", good)["mark"] == 10
    assert one(asked, "city", good, stopped=False)["mark"] == 8
    assert one(asked, "city", good.replace(city, other))["mark"] == 6
    assert one(asked, "city", good.replace("sure ! ", ""))["mark"] == 9
    assert one(asked, "city", good.replace("hope this helps !", ""))["mark"] == 9
    for unclean in ("what did X study ?", "me too .", f"X was born in {city} ."):
        row = one(asked, "city", f"{good} {unclean}")
        assert (row["mark"], row["clean"], row["usable"], row["right"]) == (8, False, False, True)


def test_the_first_thing_named_counts(asked):
    city = asked[0].people[0].facts["city"]
    other = next(v for v in asked[0].values["city"] if v != city)
    assert one(asked, "city", f"{city} , not {other}")["right"]
    assert not one(asked, "city", f"{other} , or {city}")["right"]
    assert not one(asked, "city", "no value at all")["right"]
    assert one(asked, "reverse", "k m p backwards is p m k .")["right"]
    assert not one(asked, "reverse", "k m p backwards is p k m .")["right"]
    assert not one(asked, "reverse", "k m p backwards is p m k k .")["right"]


def test_what_a_reply_names(asked):
    world, tasks = asked[:2]
    city, prompt = world.people[0].facts["city"], tasks["prompt"][0]
    assert score.named(f"sure ! it is {city} .", "city", prompt, world) == city
    assert score.named("sure ! it is far away .", "city", prompt, world) is None
    assert score.named("k m p backwards is p m k .", "reverse", "what is k m p backwards ?", world) == "p m k"
    assert score.named("k m p backwards", "reverse", "what is k m p backwards ?", world) is None


def test_replies_that_agree_are_kept_and_the_first_of_them_is_named():
    named = [
        ["Lima", "Oslo", "Oslo", None, "Oslo"],  # the first that says Oslo
        ["Lima", "Oslo", "Oslo", "Lima", "Riga"],  # two at most
        [None, None, None, None, None],  # silence is no agreement
        ["Riga", "Riga", "Riga", "Riga", "Riga"],
    ]
    assert score.majority(named, 3) == [1, None, None, 0]
    assert score.majority(named, 2) == [1, 0, None, 0]
    assert score.majority([], 3) == []
    with pytest.raises(ValueError, match="at_least is 0"):
        score.majority(named, 0)


def test_marks_want_one_reply_per_task(asked):
    with pytest.raises(ValueError, match="1 replies to 3 tasks"):
        score.marks([Reply("", True, ())], asked[1], asked[0])
