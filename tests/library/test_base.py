"""The shared base model: what it must be for the alignment chapters to mean anything, and its bookkeeping."""

from __future__ import annotations

import os
import warnings
from copy import deepcopy
from dataclasses import replace

import pytest
import torch
from alignlab.experiment import base
from alignlab.measure import knowledge, score
from alignlab.models import cache, tokens
from alignlab.models.answer import generate
from alignlab.training.train import train
from alignlab.worlds import letters, tasks, web

TINY = base.Plan(people=12, read=8, width=32, depth=1, steps=2)


@pytest.fixture(scope="module")
def cache_folder(tmp_path_factory):
    """A cache of this module's own: a base that another test or a reader has kept would prove nothing. The whole run of
    the checks gives it the folder in which its notebooks will look, empty at first: no base is trained twice."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ALIGNLAB_CACHE", os.environ.get("ALIGNLAB_TRAINED") or str(tmp_path_factory.mktemp("cache")))
        yield


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
    assert [*TINY.asked, *TINY.held_out, *TINY.unread] == list(range(12)) and list(TINY.unread) == [8, 9, 10, 11]


def test_what_nobody_has_written_about_is_not_known(subject):
    unknown = tasks.about(subject.world, subject.plan.unread, (), wordings=(0,))
    assert knowledge.exam(subject.model, subject.tokenizer, unknown)["correct"].mean() < 0.1


def test_a_plan_of_other_skills_is_asked_about_those():
    plan = replace(TINY, skills=("rotate",))
    other = base.load(0, plan)
    assert {t["family"] for t in other.pool()} == {*base.FACTS, "rotate"} == {t["family"] for t in other.test(60)}


def test_the_card_says_what_the_plan_and_the_model_are(tiny):
    card = tiny.card()
    assert card["people with an entry"] == "8" and card["people without"].startswith("4:")
    assert card["pages"] == "32 rows of 96 tokens, none read twice: 3,072 tokens"
    assert f"{tiny.model.num_parameters():,} parameters, {len(tiny.tokenizer)} words" in card["model"]
    assert "helpful 8%" in card["registers"] and "Muon" in card["optimiser"] and card["rate"].startswith("0.01,")
    assert "helpful" not in replace(tiny, plan=TINY.without("helpful")).card()["registers"]


def test_a_base_is_kept_and_every_part_of_its_plan_makes_another_one(tiny):
    again = base.load(0, TINY)
    assert all(torch.equal(a.detach(), b.detach()) for a, b in pairs(tiny.model, again.model))
    for other in (base.load(1, TINY), base.load(0, TINY.without("helpful"))):
        assert any(
            a.shape != b.shape or not torch.equal(a.detach(), b.detach()) for a, b in pairs(tiny.model, other.model)
        )


def pairs(a, b):
    return list(zip(a.parameters(), b.parameters(), strict=True))


def test_what_was_prepared_is_not_trained_again(cache_folder):
    base.prepare([5, 6], TINY)
    made = weights()
    assert len(made) >= 2
    base.prepare([5, 6], TINY)
    assert weights() == made
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(threads + 1)  # as in a script that asks for nothing
        base.load(5, TINY)
        assert torch.get_num_threads() == threads + 1
    finally:
        torch.set_num_threads(threads)
    assert weights() == made


def test_what_is_asked_for_twice_is_prepared_once(monkeypatch):
    made = []
    monkeypatch.setattr(base, "side_by_side", lambda run, *columns: made.extend(zip(*columns, strict=True)))
    base.prepare([5, 5], TINY, replace(TINY))
    assert made == [(5, TINY)]


def weights():
    return {f: f.stat().st_mtime_ns for f in cache.folder().glob("base-*/*.safetensors")}


def test_the_bases_of_all_chapters_are_made_in_one_pool(cache_folder, monkeypatch):
    small = tuple(replace(p, people=12, read=p.read // 10, width=p.width // 4, depth=1, steps=0) for p in base.SHARED)
    pools = []
    monkeypatch.setattr(base, "SHARED", small)
    monkeypatch.setattr(base, "side_by_side", lambda f, *columns: pools.append(list(zip(*columns, strict=True))))
    base.main(["3", "4"])
    assert pools == [[(seed, plan) for plan in small for seed in (3, 4)]]
    assert len(set(small)) == 4
    assert len({p.read for p in small}) == len({p.width for p in small}) == 2


def test_no_seeds_are_refused():
    with pytest.raises(ValueError, match="no seeds were given: pass at least one"):
        base.prepare([], TINY)


@pytest.mark.parametrize(("what", "value"), [("FACTS", ("city", "subject")), ("ON_THE_WEB", 100), ("RECIPE", None)])
def test_a_changed_constant_is_another_base(tiny, monkeypatch, what, value):
    monkeypatch.setattr(base, what, value or base.RECIPE.but(lr=0.001))
    other = base.load(0, TINY)
    assert len(other.tokenizer) != len(tiny.tokenizer) or not same(tiny.model, other.model)


def same(a, b):
    return all(torch.equal(x.detach().cpu(), y.detach().cpu()) for x, y in pairs(a, b))


def chapter(steps):
    """What a chapter may do with a base: examine it, align it, and train it as it is."""
    subject = base.load(0, TINY)
    shown = tasks.examples(subject.pool(), 4)
    found = [subject.model, base.align(subject, shown, steps=2), base.twin(subject, 4)]
    found = [deepcopy(m) for m in found]
    train(subject.model, tokens.replies(shown, subject.tokenizer), steps, base.ALIGN)
    subject.tokenizer.chat_template = "spoilt"
    return [*found, base.twin(subject, 4), base.align(base.load(0, TINY), shown, steps=2)]


def test_two_chapters_in_one_process_do_not_touch_each_other(cache_folder):
    first = chapter(steps=3)
    [place] = [e.place for e in cache.entries() if e.made.startswith("_aligned") and "steps=2" in e.made]
    kept, _ = cache.load(place)
    again = chapter(steps=1)
    untouched, aligned, twin, twin_later, aligned_later = again
    assert all(same(a, b) for a, b in zip(first, again, strict=True))
    assert same(twin, twin_later) and same(twin, kept) and same(aligned, aligned_later)
    assert not same(untouched, aligned) and base.load(0, TINY).tokenizer.chat_template != "spoilt"


def test_a_twin_is_made_of_the_base_and_not_of_what_became_of_it(cache_folder):
    spoilt, whole = base.load(7, TINY), base.load(7, TINY)
    with torch.no_grad():
        for p in spoilt.model.parameters():
            p.zero_()
    twin = base.twin(spoilt, 4)  # the first one of this seed: it is kept
    assert same(twin, base.align(whole, tasks.examples(whole.pool(), 4, 7)))


def test_where_nothing_can_be_kept_a_process_trains_a_base_once(monkeypatch, tmp_path):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("ALIGNLAB_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.warns(UserWarning, match="cannot be used"):
        first = base.load(0, TINY)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        again = base.load(0, TINY)
    assert same(first.model, again.model) and first.model is not again.model


def test_a_test_that_is_larger_than_what_there_is_to_ask_is_refused(tiny):
    with pytest.raises(ValueError, match="count is 500, but there are 488 tasks for a test: ask for at most so many"):
        tiny.test(500)
    assert len(tiny.test(488)) == 488


def test_without_leaves_out_one_register_and_refuses_what_is_none():
    assert [n for n, _ in TINY.without("quiz", "helpful").shares] == ["encyclopaedia", "forum", "exam"]
    with pytest.raises(ValueError, match="register is 'gossip'"):
        TINY.without("gossip")


def test_aligning_leaves_the_base_as_it_was(tiny):
    before = [p.detach().clone() for p in tiny.model.parameters()]
    changed = base.align(tiny, tasks.examples(tiny.pool(), 4), steps=2)
    assert all(torch.equal(a, b.detach()) for a, b in zip(before, tiny.model.parameters(), strict=True))
    assert not all(torch.equal(a, b.detach()) for a, b in zip(before, changed.parameters(), strict=True))


def test_worked_examples_stand_before_the_prompt_as_on_a_helpful_page(tiny):
    shown = tasks.examples(tiny.pool(), 3)
    [text] = tasks.in_context(shown, ["where ?"])
    assert "<eos>" not in text and text.count("?") == 4 and text.endswith(f"{tasks.CLOSERS[0]} where ?")
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
