"""The world and its texts: names, facts, wordings, exposures."""

from __future__ import annotations

from collections import Counter, defaultdict

import numpy as np
import pytest
from alignlab.worlds import biographies
from alignlab.worlds.biographies import QUESTIONS, STATEMENTS, Presentation
from alignlab.worlds.people import ATTRIBUTES, FEMALE_NAMES, MALE_NAMES, SURNAMES, VALUES, make_world

SINGLE, VARIED = Presentation(), Presentation(versions=5, permute=True)


def by_person(corpus):
    found = defaultdict(list)
    for row in corpus:
        found[row["person"]].append(row)
    return found


# ---- world


def test_a_seed_is_a_world():
    assert make_world(people=30, seed=4) == make_world(people=30, seed=4)
    other = make_world(people=30, seed=5)
    assert [p.name for p in other.people] != [p.name for p in make_world(people=30, seed=4).people]
    assert [p.facts for p in other.people] != [p.facts for p in make_world(people=30, seed=4).people]


@pytest.mark.parametrize("people", [1, 2, 400, len(SURNAMES), len(SURNAMES) + 1, 5000])
def test_a_world_of_any_size_has_distinct_names(people):
    world = make_world(people=people)
    assert len(world) == people == len({p.name for p in world.people})
    assert [p.id for p in world.people] == list(range(people))


def test_small_worlds_do_not_share_surnames():
    world = make_world(people=500)
    assert len({p.name.split()[-1] for p in world.people}) == 500


def test_a_world_larger_than_the_plain_names_gets_middle_initials():
    world = make_world(people=330_000, attributes=("city",))
    assert len({p.name for p in world.people}) == 330_000
    assert {len(p.name.split()) for p in world.people} == {2, 3}


def test_values_come_from_the_lists_in_the_order_asked_for():
    world = make_world(people=200, attributes=("sport", "city"), values_each=7)
    assert world.attributes == ("sport", "city")
    for person in world.people:
        assert tuple(person.facts) == ("sport", "city")
        assert all(v in VALUES[a][:7] for a, v in person.facts.items())


def test_pronouns_follow_the_first_name():
    for person in make_world(people=400).people:
        first = person.name.split()[0]
        assert (first in FEMALE_NAMES, first in MALE_NAMES) == (person.pronoun == "she", person.pronoun == "he")


def test_no_word_has_two_roles():
    forms = {w for table in (STATEMENTS, QUESTIONS) for a in table for f in table[a] for w in f.split()}
    roles = [set(FEMALE_NAMES), set(MALE_NAMES), set(SURNAMES), *map(set, VALUES.values()), forms]
    twice = [w for w, n in Counter(w for role in roles for w in role).items() if n > 1]
    assert twice == []
    assert all(len(set(v)) == len(v) == 40 for v in VALUES.values())
    assert len(set(SURNAMES)) == len(SURNAMES)


def test_values_are_roughly_uniform():
    world = make_world(people=4000)
    for a in ATTRIBUTES:
        counts = Counter(p.facts[a] for p in world.people)
        assert len(counts) == 40 and min(counts.values()) > 50 and max(counts.values()) < 160, a


def guessed(pairs):
    """The accuracy of the best guess from a clue: learned on the first half, used on the second."""
    half = len(pairs) // 2
    seen = defaultdict(Counter)
    for clue, value in pairs[:half]:
        seen[clue][value] += 1
    return np.mean([bool(seen[clue]) and seen[clue].most_common(1)[0][0] == value for clue, value in pairs[half:]])


def test_nothing_can_be_guessed_from_names_or_other_facts():
    people = make_world(people=5000, seed=1).people
    clues = {
        "first name": lambda p: p.name.split()[0],
        "surname": lambda p: p.name.split()[-1],
        "pronoun": lambda p: p.pronoun,
        "subject": lambda p: p.facts["subject"],
    }
    for name, clue in clues.items():
        assert guessed([(clue(p), p.facts["city"]) for p in people]) < 0.05, name
    assert guessed([(p.facts["city"], p.facts["city"]) for p in people]) == 1  # the guesser can guess


@pytest.mark.parametrize(
    ("wrong", "error", "said"),
    [
        ({"people": 0}, ValueError, "people is 0"),
        ({"people": -1}, ValueError, "people is -1"),
        ({"people": 2.5}, TypeError, "people .* not 2.5"),
        ({"people": True}, TypeError, "people .* not True"),
        ({"people": "x"}, TypeError, "people .* not 'x'"),
        ({"people": 20_000_000}, ValueError, "people is 20000000, .* ask for fewer"),
        ({"attributes": ("city", "mood")}, ValueError, "attribute is 'mood', .* 'subject'"),
        ({"attributes": ("city", "city")}, ValueError, "twice: .*'city', 'city'"),
        ({"attributes": ()}, ValueError, "attributes is empty: choose"),
        ({"values_each": 1}, ValueError, "values_each is 1"),
        ({"values_each": 41}, ValueError, "values_each is 41"),
        ({"seed": 1.0}, TypeError, "seed .* not 1.0"),
        ({"seed": "a"}, TypeError, "seed .* not 'a'"),
        ({"seed": -3}, ValueError, "seed is -3"),
    ],
)
def test_a_wrong_world_is_refused(wrong, error, said):
    with pytest.raises(error, match=said):
        make_world(**{"people": 3, **wrong})


# ---- biographies and questions


def test_a_permuted_biography_states_the_same_facts():
    world = make_world(people=40)
    corpus = biographies.write(world, VARIED)
    orders = set()
    for row in corpus:
        facts = world.people[row["person"]].facts
        assert sorted(row["facts"]) == sorted(facts.values())
        words = row["text"].split()
        assert [words.count(v) for v in facts.values()] == [1] * len(facts)
        assert [w for w in words if w in row["facts"]] == row["facts"]  # `facts` is the order of the text
        orders.add(tuple(sorted(facts, key=lambda a: row["facts"].index(facts[a]))))
    assert len(orders) > 50  # of 120 possible, in 200 texts


def test_a_fixed_order_is_the_worlds_order():
    world = make_world(people=20, attributes=("sport", "city", "company"))
    for row in biographies.write(world, Presentation(versions=3)):
        assert row["facts"] == list(world.people[row["person"]].facts.values())


def test_single_is_one_version_and_varied_is_five_that_differ():
    world = make_world(people=40)
    assert len(biographies.write(world, SINGLE)) == len(biographies.write(world)) == 40
    versions = by_person(biographies.write(world, VARIED))
    assert all([r["version"] for r in rows] == [0, 1, 2, 3, 4] for rows in versions.values())
    assert all(len({r["text"] for r in rows}) == 5 for rows in versions.values())


def test_every_wording_is_used():
    world = make_world(people=60, attributes=("city",))
    corpus = biographies.write(world, Presentation(versions=3))
    used = {t.replace(world.people[p].name, "{who}").replace(f[0], "{value}")
            for t, p, f in zip(corpus["text"], corpus["person"], corpus["facts"], strict=True)}  # fmt: skip
    assert used == set(STATEMENTS["city"])


def test_a_name_opens_each_biography_and_a_pronoun_goes_on():
    world = make_world(people=10)
    for full_name, times in ((False, 1), (True, 5)):
        for row in biographies.write(world, Presentation(2, permute=True, full_name=full_name)):
            person = world.people[row["person"]]
            assert row["text"].startswith(person.name) and row["text"].count(person.name) == times
            assert row["text"].split().count(person.pronoun) == 5 - times


@pytest.mark.parametrize("how", [SINGLE, VARIED])
def test_leaving_people_out_changes_nobody_elses_text(how):
    world = make_world(people=12)
    everybody = by_person(biographies.write(world, how))
    some = by_person(biographies.write(world, how, people=[7, 2]))
    assert dict(some) == {i: everybody[i] for i in (7, 2)}


def test_a_seed_is_a_text():
    world = make_world(people=12)
    assert biographies.write(world, VARIED, seed=1)["text"] == biographies.write(world, VARIED, seed=1)["text"]
    assert biographies.write(world, VARIED, seed=1)["text"] != biographies.write(world, VARIED, seed=2)["text"]


def test_no_question_is_a_statement_and_its_answer_is_the_fact():
    world = make_world(people=5)
    pairs = biographies.questions(world, people=[3, 1], wording=2)
    assert list(zip(pairs["person"], pairs["attribute"], strict=True)) == [(i, a) for i in (3, 1) for a in ATTRIBUTES]
    for row in pairs:
        person = world.people[row["person"]]
        assert row["response"] == person.facts[row["attribute"]]
        assert person.name in row["prompt"] and row["response"] not in row["prompt"].split()
    assert len({biographies.question(world.people[0], "city", w) for w in range(3)}) == 3


@pytest.mark.parametrize(
    ("call", "error", "said"),
    [
        (lambda p: biographies.sentence(p, "city", 6), ValueError, "wording is 6"),
        (lambda p: biographies.question(p, "city", 3), ValueError, "wording is 3"),
        (lambda p: biographies.question(p, "city", -1), ValueError, "wording is -1"),
        (lambda p: Presentation(versions=0), ValueError, "versions is 0"),
        (lambda p: Presentation(versions=2.0), TypeError, "versions .* not 2.0"),
    ],
)
def test_a_wrong_wording_is_refused(call, error, said):
    with pytest.raises(error, match=said):
        call(make_world(people=1).people[0])


# ---- reading lists


def met(corpus, order):
    """The people in the order in which they are met."""
    return np.asarray(corpus["person"])[order]


@pytest.mark.parametrize("how", [SINGLE, VARIED])
def test_exposure_is_exactly_equal(how):
    corpus = biographies.write(make_world(people=30), how)
    order = biographies.reading_list(corpus, 7, seed=2)
    assert order.dtype == np.int64 and len(order) == 210
    assert Counter(met(corpus, order).tolist()) == dict.fromkeys(range(30), 7)


def test_unequal_exposure_is_exact_too():
    corpus = biographies.write(make_world(people=4), VARIED)
    wanted = {0: 3, 1: 0, 2: 11, 3: 1}
    assert Counter(met(corpus, biographies.reading_list(corpus, wanted)).tolist()) == {0: 3, 2: 11, 3: 1}


def test_after_a_share_of_the_list_everybody_was_met_equally_often():
    corpus = biographies.write(make_world(people=25), VARIED)
    people = met(corpus, biographies.reading_list(corpus, 12, seed=5))
    for n in range(13):
        assert Counter(people[: n * 25].tolist()) == (dict.fromkeys(range(25), n) if n else {})


def test_two_corpora_show_the_same_people_at_the_same_moments():
    world = make_world(people=25)
    single, varied = biographies.write(world, SINGLE), biographies.write(world, VARIED)
    times = {i: 5 + i % 3 for i in range(25)}
    for exposures in (9, times):
        a = met(single, biographies.reading_list(single, exposures, seed=4))
        assert a.tolist() == met(varied, biographies.reading_list(varied, exposures, seed=4)).tolist()
        assert a.tolist() != met(single, biographies.reading_list(single, exposures, seed=5)).tolist()


def test_the_order_of_the_rows_does_not_matter():
    corpus = biographies.write(make_world(people=6), VARIED)
    mixed = corpus.select(np.random.default_rng(0).permutation(len(corpus)))
    texts = [c.select(biographies.reading_list(c, 8))["text"] for c in (corpus, mixed)]
    assert list(texts[0]) == list(texts[1])


def test_versions_take_turns():
    corpus = biographies.write(make_world(people=10), VARIED)
    rows = Counter(biographies.reading_list(corpus, 15).tolist())
    assert rows == dict.fromkeys(range(50), 3)
    assert set(Counter(biographies.reading_list(corpus, 7).tolist()).values()) == {1, 2}


@pytest.mark.parametrize(
    ("exposures", "error", "said"),
    [
        (-1, ValueError, "exposures is -1"),
        ({0: 1, 1: -4}, ValueError, "exposures is -4"),
        (2.5, TypeError, "exposures .* not 2.5"),
        (True, TypeError, "exposures .* not True"),
        ({0: 1, 1: "3"}, TypeError, "exposures .* not '3'"),
        ({0: 1}, ValueError, "nothing about person 1"),
    ],
)
def test_wrong_exposures_are_refused(exposures, error, said):
    corpus = biographies.write(make_world(people=2))
    with pytest.raises(error, match=said):
        biographies.reading_list(corpus, exposures)


def test_join_puts_one_after_the_other_and_drops_empty_ones():
    world = make_world(people=4)
    a, b = biographies.write(world, people=[0, 1]), biographies.write(world, VARIED, people=[3])
    empty = biographies.write(world, people=[])
    joined = biographies.join(empty, a, empty, b)
    assert list(joined["text"]) == [*a["text"], *b["text"]] and list(joined["facts"]) == [*a["facts"], *b["facts"]]
    assert biographies.join(a, b.remove_columns("facts")).column_names == ["person", "text", "version"]
    with pytest.raises(ValueError, match="no corpus with any text"):
        biographies.join(empty, empty)
