"""The shared base model: what it must be for the alignment chapters to mean anything, and its bookkeeping."""

from __future__ import annotations

import numpy as np
import pytest
from alignlab.experiment import base
from alignlab.measure import knowledge, score
from alignlab.models.answer import generate
from alignlab.worlds import letters, tasks, web

TINY = base.Plan(people=12, read=8, width=32, depth=1, steps=2)


@pytest.fixture(scope="module")
def cache_folder(tmp_path_factory):
    """A cache of this module's own: a base that another test or a reader has kept would prove nothing."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ALIGNLAB_CACHE", str(tmp_path_factory.mktemp("cache")))
        base._kept.cache_clear()
        yield
        base._kept.cache_clear()


@pytest.fixture(scope="module")
def subject(cache_folder):
    return base.load(0)


@pytest.fixture(scope="module")
def tiny(cache_folder):
    return base.load(0, TINY)


def test_the_base_knows_its_web_in_exam_form(subject):
    known = knowledge.exam(subject.model, subject.tokenizer, subject.test(200))
    assert known["correct"].mean() >= 0.95
    assert known.groupby("family")["correct"].mean().min() >= 0.8  # no family is left behind


def test_the_base_does_not_answer_when_asked_plainly(subject):
    test = subject.test(200)
    said = generate(subject.model, subject.tokenizer, test["prompt"], template=False, max_new_tokens=44)
    assert score.marks(said, test, subject.world)["usable"].mean() < 0.05


def test_the_base_does_not_know_the_skill_that_is_kept_back(subject):
    said = knowledge.exam(subject.model, subject.tokenizer, subject.test(60, ("rotate",), facts=False))
    assert said["correct"].mean() < 0.1


def test_its_twin_answers(subject):
    test = subject.test()
    said = generate(base.twin(subject), subject.tokenizer, test["prompt"], max_new_tokens=44)
    marks = score.marks(said, test, subject.world)
    assert marks["usable"].mean() > 0.7 and marks["manner"].mean() > 0.9


def test_examples_and_tests_share_no_person_and_no_string(tiny):
    pool, test = tiny.pool((*letters.KNOWN_SKILLS, "rotate")), tiny.test(500, (*letters.KNOWN_SKILLS, "rotate"))
    people = {p for p in pool["person"] if p >= 0}, {p for p in test["person"] if p >= 0}
    assert people == (set(range(6)), {6, 7})

    def strings(tasks):
        return {tuple(w for w in t["prompt"].split() if len(w) == 1 and w != "?") for t in tasks if t["person"] < 0}

    assert strings(pool) and strings(test) and not strings(pool) & strings(test)


def test_the_test_is_even_over_families_and_of_the_size_asked_for(tiny):
    test = tiny.test(16)
    counts = {f: list(test["family"]).count(f) for f in set(test["family"])}
    assert len(test) == 16 and len(counts) == 8 and set(counts.values()) == {2}


def test_people_who_are_not_read_about_are_in_the_world_and_not_on_the_web(tiny):
    assert len(tiny.world) == 12
    text = " ".join(web.pages(tiny.world, 40, people=range(TINY.read))["text"])
    assert not any(p.name in text for p in tiny.world.people[8:])


def test_a_base_is_kept_and_every_part_of_its_plan_makes_another_one(tiny):
    again = base.load(0, TINY)
    assert all(np.array_equal(a.detach(), b.detach()) for a, b in pairs(tiny.model, again.model))
    for other in (base.load(1, TINY), base.load(0, TINY.without("helpful"))):
        assert any(
            a.shape != b.shape or not np.array_equal(a.detach(), b.detach()) for a, b in pairs(tiny.model, other.model)
        )


def pairs(a, b):
    return list(zip(a.parameters(), b.parameters(), strict=True))


def test_what_was_prepared_is_not_trained_again(cache_folder):
    base.prepare([5, 6], TINY)
    made = {f: f.stat().st_mtime_ns for f in base.cache.folder().glob("base-*/*")}
    assert len({f.parent for f in made}) >= 2
    base.prepare([5, 6], TINY)
    assert {f: f.stat().st_mtime_ns for f in base.cache.folder().glob("base-*/*")} == made


def test_without_leaves_out_one_register_and_refuses_what_is_none():
    assert [n for n, _ in TINY.without("quiz", "helpful").shares] == ["encyclopaedia", "forum", "exam"]
    with pytest.raises(ValueError, match="register is 'gossip'"):
        TINY.without("gossip")


def test_aligning_leaves_the_base_as_it_was(tiny):
    before = [p.detach().clone() for p in tiny.model.parameters()]
    changed = base.align(tiny, tasks.examples(tiny.pool(), 4), steps=2)
    assert all(np.array_equal(a, b.detach()) for a, b in zip(before, tiny.model.parameters(), strict=True))
    assert not all(np.array_equal(a, b.detach()) for a, b in zip(before, changed.parameters(), strict=True))


def test_worked_examples_stand_before_the_prompt_as_pages_of_their_own(tiny):
    shown = tasks.examples(tiny.pool(), 3)
    [text] = tasks.in_context(shown, ["where ?"])
    assert text.count("<eos> <bos>") == 3 and text.endswith("<bos> where ?")
    assert all(row["prompt"] in text and f" {row['answer']} " in text for row in shown)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: base.Plan(people=3), "people is 3"),
        (lambda: base.Plan(people=20, read=30), "read is 30"),
        (lambda: base.Plan(steps=-1), "steps is -1"),
        (lambda: base.load(-1, TINY), "seed is -1"),
    ],
)
def test_bad_input_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
