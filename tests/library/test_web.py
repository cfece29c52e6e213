"""The tiny web: what the registers say, and what alignment examples are made of."""

import numpy as np
import pytest
from alignlab.models import tokens
from alignlab.worlds import biographies, foils, letters, tasks, web
from alignlab.worlds.letters import SKILLS, letter_strings
from alignlab.worlds.people import make_world
from alignlab.worlds.words import BOS, EOS

FACTS = ("city", "subject", "company", "instrument")
STRINGS = letter_strings(100, seed=5, lengths=(3, 4))


@pytest.fixture(scope="module")
def people():
    return make_world(20, FACTS, values_each=10, seed=0)


def of(pages, register):
    return [row["text"] for row in pages if row["register"] == register]


def whole(pages):
    """The pages that no other page follows in its row."""
    return [p for p in pages["text"] if EOS not in p.split()]


def test_pages_are_full_and_the_tokenizer_knows_every_word(people):
    pages = web.pages(people, 60, strings=STRINGS, seed=1)
    tokenizer = tokens.word_tokenizer(biographies.words(people, web.vocabulary()))
    rows = tokens.documents(pages, tokenizer)["input_ids"]
    assert {len(r) for r in rows} == {web.LENGTH}
    assert all(r[0] == tokenizer.bos_token_id and r[-1] == tokenizer.eos_token_id for r in rows)
    assert not any(tokenizer.unk_token_id in r for r in rows)


def test_a_page_of_any_register_may_end_behind_a_passage_and_another_begins_there(people):
    pages = web.pages(people, 4000, strings=STRINGS, seed=1)
    for register in web.REGISTERS:
        broken = [p.split() for p in of(pages, register) if EOS in p.split()[:-1]]
        assert abs(len(broken) / len(of(pages, register)) - web.BROKEN) < 0.05
        assert all(words[words.index(EOS) + 1] == BOS for words in broken)
        assert all(words[words.index(EOS) - 1] in (".", "?", "!") for words in broken)
        places = [words.index(EOS) for words in broken]
        assert min(places) < 40 and max(places) > 60


def test_nobody_has_scribbled_a_fact_on_a_quiz(people):
    pages = of(web.pages(people, 300, {"quiz": 1}, strings=STRINGS, seed=1), "quiz")
    values = {v for vs in people.values.values() for v in vs}
    assert not any(values & set(p.split()) for p in pages)
    assert any("i think it is" in p for p in pages)


def answered(text, tasks_):
    """Which questions stand somewhere with their answer behind them, before the next question mark."""
    found = set()
    for t in tasks_:
        for rest in text.split(t["prompt"])[1:]:
            if t["answer"] in rest.split("?")[0].split():
                found.add((t["prompt"], t["answer"]))
    return found


def test_no_question_about_somebody_held_out_stands_with_its_answer(people):
    # Every page of a base is written like these. A question that was cut off may be followed by another's answer.
    pages = web.pages(people, 1500, strings=STRINGS, seed=1, asked=range(15))
    text = " ? ".join(p for p in pages["text"] if EOS not in p)
    ours, theirs = (tasks.about(people, who, (), wordings=(0, 1, 2)).to_list() for who in (range(15), range(15, 20)))
    assert len(answered(text, ours)) > 0.9 * len(ours)
    assert not answered(text, theirs)
    entries = " ".join(of(pages, "encyclopaedia"))
    assert all(p.name in entries for p in people.people)
    others = " ".join(r["text"] for r in pages if r["register"] != "encyclopaedia")
    assert not any(p.name in others for p in people.people[15:])


def test_but_for_the_names_of_those_held_out_no_token_belongs_to_one_register_alone(people):
    # Of a whole web: what is rare stands on few of its pages.
    pages = web.pages(people, 12_000, strings=STRINGS, seed=1, asked=range(15))
    where = {}
    for row in pages:
        for token in row["text"].split():
            where.setdefault(token, set()).add(row["register"])
    alone = {token: registers for token, registers in where.items() if len(registers) == 1}
    names = {p.name.split()[1] for p in people.people[15:]} | {p.name.split()[0] for p in people.people[15:]}
    assert set(alone) <= names and all(registers == {"encyclopaedia"} for registers in alone.values())


def test_without_helpful_pages_the_web_lacks_no_token(people):
    with_, without = (
        {t for p in web.pages(people, 12_000, shares, strings=STRINGS, seed=1)["text"] for t in p.split()}
        for shares in (web.SHARES, {k: v for k, v in web.SHARES.items() if k != "helpful"})
    )
    assert with_ == without


def test_shares_are_followed_and_a_register_can_be_left_out(people):
    pages = web.pages(people, 100)
    counts = {r: sum(x == r for x in pages["register"]) for r in web.SHARES}
    assert counts == {"encyclopaedia": 32, "quiz": 15, "forum": 20, "exam": 25, "helpful": 8}
    without = web.pages(people, 50, {**web.SHARES, "helpful": 0})
    assert len(without) == 50 and not of(without, "helpful")


def test_exams_and_helpful_pages_state_the_truth(people):
    true = {t["prompt"]: t for t in tasks.about(people, wordings=(0, 1))}
    checked = {"exam": 0, "helpful": 0}
    for page in whole(web.pages(people, 60, {"exam": 1}, skills=())):
        for item in page.split("question : ")[1:-1]:  # the last one may be cut off
            question, answer = item.split(" answer : ")
            if question in true:
                assert answer == f"{true[question]['answer']} . "
                checked["exam"] += 1
    for page in whole(web.pages(people, 120, {"helpful": 1}, skills=())):
        for question, task in true.items():
            for rest in page.split(question)[1:]:
                if "?" in rest:  # the last one may be cut off
                    assert task["response"] in rest.split("?")[0]
                    checked["helpful"] += 1
    assert checked["exam"] > 50 and checked["helpful"] > 50


def test_letters_are_worked_out_rightly_on_the_exam_pages(people):
    seen = 0
    for page in whole(web.pages(people, 30, {"exam": 1}, people=[], skills=("reverse",), strings=STRINGS)):
        for item in page.split("question : ")[1:-1]:
            question, answer = item.split(" answer : ")
            given = [w for w in question.split() if w in letters.LETTERS]
            assert answer.split()[:-1] == given[::-1]
            seen += 1
    assert seen > 50


def test_a_forum_is_wrong_about_as_often_as_it_says(people):
    rng = np.random.default_rng(0)
    task = tasks.about(people, [3], wordings=(0,))[0]
    said = [task["answer"] in tasks.chatty(people, task, rng).split() for _ in range(600)]
    assert abs(1 - np.mean(said) - tasks.WRONG_IN_FORUM) < 0.06


def test_everybody_is_mentioned_about_equally_often(people):
    pages = web.pages(people, 800, {"exam": 1}, skills=())
    text = " ".join(pages["text"])
    counts = [text.count(p.name) for p in people.people]
    assert max(counts) - min(counts) <= 0.1 * np.mean(counts) and min(counts) > 200


def test_people_left_out_are_never_mentioned(people):
    text = " ".join(web.pages(people, 100, people=range(10))["text"])
    assert all(p.name in text for p in people.people[:10])
    assert not any(p.name in text for p in people.people[10:])


def test_the_kept_back_skill_is_not_on_the_web(people):
    assert "rotated" not in " ".join(web.pages(people, 200, strings=STRINGS)["text"])
    assert "rotated" in " ".join(web.pages(people, 50, skills=("rotate",), strings=STRINGS)["text"])


@pytest.mark.parametrize(
    ("skill", "answer"), [("reverse", "tmk"), ("first", "k"), ("last", "t"), ("double", "kkmmtt"), ("rotate", "mtk")]
)
def test_skills(skill, answer):
    assert SKILLS[skill]("kmt") == answer


def test_the_same_seed_is_the_same_web_and_another_is_not(people):
    first, again, other = (web.pages(people, 20, strings=STRINGS, seed=s)["text"] for s in (1, 1, 2))
    assert list(first) == list(again) != list(other)


def test_chatter_words_occur_in_no_helpful_reply(people):
    helpful = " ".join(of(web.pages(people, 100, {"helpful": 1}, strings=STRINGS), "helpful")).split()
    assert not tasks.CHATTER_WORDS & set(helpful)
    said = [remark for remark in (*tasks.CHATTER, *tasks.GUESSES) if "no ?" not in remark]
    assert all(tasks.CHATTER_WORDS & set(remark.split()) for remark in said)


def test_examples_are_courteous_even_and_nested(people):
    asked = tasks.about(people, strings=letter_strings(20, seed=1))
    small, large = (tasks.examples(asked, n, seed=3) for n in (16, 64))
    assert list(large["response"])[:16] == list(small["response"])
    families = list(small["family"])
    assert {families.count(f) for f in families} == {2}
    for row in large:
        assert row["response"].startswith(tasks.OPENERS) and row["response"].endswith(tasks.CLOSERS)
        assert row["answer"] in row["response"]


def test_noise_takes_exactly_its_share(people):
    chosen = tasks.examples(tasks.about(people), 40, seed=0)
    noisy = tasks.with_noise(people, chosen, 0.5, seed=0)
    changed = [a != b for a, b in zip(chosen["response"], noisy["response"], strict=True)]
    assert sum(changed) == 20
    assert all("?" in r for r, c in zip(noisy["response"], changed, strict=True) if c)
    assert list(noisy["prompt"]) == list(chosen["prompt"])


def test_shuffled_replies_are_the_same_replies_and_nobody_keeps_their_own(people):
    chosen = tasks.examples(tasks.about(people), 40, seed=0)
    moved = tasks.with_shuffled_replies(chosen, seed=0)
    assert sorted(moved["response"]) == sorted(chosen["response"])
    same = [a == b for a, b in zip(chosen["response"], moved["response"], strict=True)]
    assert sum(same) == 0 and list(moved["prompt"]) == list(chosen["prompt"])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda w: web.pages(w, 0), "count is 0"),
        (lambda w: web.pages(w, 5, {"gossip": 1}), "register is 'gossip'.*choose one of"),
        (lambda w: web.pages(w, 5, {"quiz": -1}), "the share of register quiz is -1"),
        (lambda w: web.pages(w, 5, {"quiz": 0}), "nothing to write"),
        (lambda w: web.pages(w, 5, people=[99]), "person is 99"),
        (lambda w: web.pages(w, 5, people=[1, 2], asked=[3]), "person asked about is 3"),
        (lambda w: web.pages(w, 5, people=[], skills=()), "nothing to ask"),
        (lambda w: tasks.about(w, [99]), "person is 99"),
        (lambda w: tasks.about(w, [], skills=("juggle",), strings=["kmp"]), "skill is 'juggle'"),
        (lambda w: tasks.about(w, [], strings=["xyz"]), "the string 'xyz' is not made of"),
        (lambda w: tasks.about(w, []), "nothing to ask"),
        (lambda w: tasks.examples(tasks.about(w, [0]), 9), "n is 9, but it must be at most 8"),
        (lambda w: tasks.with_noise(w, tasks.examples(tasks.about(w), 4), 1.5), "share is 1.5"),
        (lambda w: tasks.with_shuffled_replies(tasks.examples(tasks.about(w), 1)), "fewer than 2"),
        (lambda w: letter_strings(100_000), "count is 100000"),
    ],
)
def test_bad_input_is_refused_with_value_and_remedy(people, call, message):
    with pytest.raises(ValueError, match=message):
        call(people)


# ---- foils


def test_foils_are_about_the_same_and_differ_from_the_right_response_where_they_say():
    world = make_world(20, ("city", "subject", "company", "instrument"), seed=3)
    asked = tasks.about(world, range(4), tasks.KNOWN_SKILLS, ["kmp", "bcdf"], wordings=(0,))
    for chosen in (asked, tasks.examples(asked, len(asked))):
        rng = np.random.default_rng(0)
        for task in chosen.to_list():
            foil, words = foils.of(world, task, rng), task["response"].split()
            value = foil["value"].split()
            assert len(value) == len(words) and sum(a != b for a, b in zip(value, words, strict=True)) in range(1, 9)
            assert f" {task['answer']} ." not in foil["value"]
            if task["person"] >= 0:
                [(new, old)] = [(a, b) for a, b in zip(value, words, strict=True) if a != b]
                assert old == task["answer"] and new in world.values[task["family"]]
                assert world.people[task["person"]].name in foil["question"]
                assert task["answer"] not in foil["question"]
            assert foil["question"] not in (task["response"], foil["value"])
            assert foil["question"].split(" ! ")[0] == task["response"].split(" ! ")[0] or " ! " not in task["response"]


def test_foils_of_a_string_are_the_answers_to_its_neighbour_and_to_the_next_skill():
    world = make_world(8, ("city",), seed=0)
    [task] = tasks.about(world, (), ("first",), ["kmp"], wordings=(0,)).to_list()
    assert foils.of(world, task, np.random.default_rng(0)) == {
        "value": "the first letter of k m p is m . it has three letters .",
        "question": "the last letter of k m p is p . it has three letters .",
    }
