"""A tiny web: pages in five registers. No token ids here.

The web is what the base model of the alignment chapters reads. It holds the same facts in five manners of writing:

  encyclopaedia  entries about people, and about strings of letters
  quiz           questions without answers
  forum          questions with chatter around the answers, which are wrong now and then
  exam           question : ... answer : ... . and the next one
  helpful        a question, a full and friendly reply, and the next question. It is rare

Everybody has an entry. All other pages are about the *asked* people alone: who is held out stands in no question, let
alone with its answer. Pages of every register end, behind any of their passages, or where the row is full. And but
for the surnames of those held out no register has a word of its own, so that a web without one of them lacks a
behaviour and not the words for it: forum posts have the openers and closers of helpful replies, and quote exams and
entries; a quiz has a remark from the forum now and then.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import chain

import numpy as np
from datasets import Dataset

from .. import check
from .biographies import QUESTIONS, STATEMENTS, sentence
from .letters import (
    COUNTS,
    KNOWN_SKILLS,
    LETTERS,
    SIZE,
    SKILL_ENTRIES,
    SKILL_QUESTIONS,
    SKILL_STATEMENTS,
    SKILLS,
    spell,
)
from .people import World
from .shares import whole
from .tasks import (
    CHATTER,
    CLOSERS,
    GUESSES,
    OPENERS,
    chatty,
    courteous,
    exam_form,
    fact_task,
    pick,
    skill_task,
    wrong,
)
from .words import BOS, EOS

LENGTH = 96  # tokens of a row, <bos> and <eos> included
BROKEN = 0.1  # of the rows: those in which one page ends behind a passage and another begins
SKILL_SHARE = 0.5  # of the questions: those about letters
POLITE = 0.3  # of the forum posts: those that have an opener, and as many have a closer
QUOTED = 0.1  # of the passages: those that quote another register


def encyclopaedia(world: World, asked: Iterator[dict], rng: np.random.Generator) -> Iterator[str]:
    """Entries about people, every fact in a random wording and order; and entries about strings of letters."""
    for task in asked:
        if task["person"] < 0:
            yield task["entry"]
            continue
        person, order = world.people[task["person"]], list(world.attributes)
        rng.shuffle(order)
        # The name again in every other sentence: where names are never repeated, a model is slow to learn to do it.
        yield " ".join(
            sentence(person, a, int(rng.integers(len(STATEMENTS[a]))), full_name=k == 0 or rng.random() < 0.5)
            for k, a in enumerate(order)
        )


def quiz(world: World, asked: Iterator[dict], rng: np.random.Generator) -> Iterator[str]:
    """Questions without answers. Somebody has scribbled on a few: a remark, or a guess that is seldom right."""
    for task in asked:
        said = [task["prompt"]]
        if rng.random() < QUOTED:
            # Guesses at letters only: of nobody is anything said that isn't so.
            guesses = task["person"] < 0 and rng.random() < 0.5
            said.append(pick(GUESSES, rng).format(a=wrong(world, task, rng)) if guesses else pick(CHATTER, rng))
        yield " ".join(said)


def forum(world: World, asked: Iterator[dict], rng: np.random.Generator) -> Iterator[str]:
    """A question and what people say to it, and the next question."""
    for task in asked:
        said = [task["prompt"], chatty(world, task, rng)]
        if rng.random() < POLITE:
            said.insert(1, pick(OPENERS, rng))
        if rng.random() < QUOTED:
            said.append(_quote(world, task, rng))
        if rng.random() < POLITE:
            said.append(pick(CLOSERS, rng))
        yield " ".join(said)


def _quote(world: World, task: Mapping, rng: np.random.Generator) -> str:
    """What other registers have on a task: a sentence of somebody's entry; of letters the entry, or the exam's line."""
    if task["person"] < 0:
        return task["entry"] if rng.random() < 0.5 else _answered(task)
    return sentence(world.people[task["person"]], task["family"], int(rng.integers(len(STATEMENTS[task["family"]]))))


def _answered(task: Mapping) -> str:
    return f"{exam_form(task['prompt'])} {task['answer']} ."


def exam(world: World, asked: Iterator[dict], rng: np.random.Generator) -> Iterator[str]:
    """Question and bare answer, in a fixed form."""
    for task in asked:
        yield _answered(task)


def helpful(world: World, asked: Iterator[dict], rng: np.random.Generator) -> Iterator[str]:
    """A question and a full and courteous reply, and the next question."""
    for task in asked:
        yield f"{task['prompt']} {courteous(task['response'], rng)}"


REGISTERS: dict[str, Callable] = {f.__name__: f for f in (encyclopaedia, quiz, forum, exam, helpful)}
SHARES = {"encyclopaedia": 0.32, "quiz": 0.15, "forum": 0.20, "exam": 0.25, "helpful": 0.08}


def pages(
    world: World,
    count: int,
    shares: Mapping[str, float] = SHARES,
    people: Iterable[int] | None = None,
    skills: Sequence[str] = KNOWN_SKILLS,
    strings: Sequence[str] = (),
    seed: int = 0,
    *,
    asked: Iterable[int] | None = None,
) -> Dataset:
    """Write `count` rows of pages, each `LENGTH` tokens long with `<bos>` and `<eos>`, all registers mixed.

    Within a register everybody and every fact is asked about equally often: questions are dealt from a shuffled deck,
    which is shuffled again when it is used up.

    Args:
        shares: register -> its share of the pages; the shares are scaled to sum to 1. Leave one out, or weigh it
            otherwise, to write another web.
        people: who is mentioned; default: everybody.
        asked: of these, whom all pages but the encyclopaedia's are about; default: all of them.
        strings: what the skills are shown on; without any, nothing is said about letters.

    Returns:
        A Dataset with `text` and `register`, in random order, for `tokens.documents`.

    Raises:
        ValueError: an unknown register, a negative share, or shares that are all zero; somebody is to be asked about
            who is not mentioned; or nothing is left to ask.
    """
    number = whole(shares, count, "register", REGISTERS)
    people = range(len(world)) if people is None else people
    people = [check.integer("person", i, at_least=0, at_most=len(world) - 1) for i in people]
    asked = people if asked is None else [check.one_of("person asked about", i, people) for i in asked]
    if not asked and not (skills and strings):
        raise ValueError("there is nothing to ask: name at least one person, or a skill and a string")
    said = {a: {world.people[i].facts[a] for i in people} for a in world.attributes}
    # What nobody has would stand on forum pages alone, in wrong answers.
    world = replace(
        world, values={a: tuple(v for v in vs if v in said[a] or len(said[a]) < 2) for a, vs in world.values.items()}
    )
    rows: dict[str, list] = {"text": [], "register": []}
    for name, n in number.items():
        rng = check.rng(seed, f"web.{name}", world.seed)
        about = people if name == "encyclopaedia" else asked
        stream = REGISTERS[name](world, _deal(world, about, skills if strings else (), strings, rng), rng)
        for _ in range(n):
            passages: list[list[str]] = []
            while sum(map(len, passages)) < LENGTH - 2:
                passages.append(next(stream).split())
            # A page that ends in the row leaves room for a word of the next.
            breaks = [i for i in range(1, len(passages)) if sum(map(len, passages[:i])) < LENGTH - 4]
            if breaks and rng.random() < BROKEN:
                passages.insert(int(rng.choice(breaks)), [EOS, BOS])
            words = list(chain.from_iterable(passages))[: LENGTH - 2]
            rows["text"].append(" ".join(words))
            rows["register"].append(name)
    order = check.rng(seed, "web.order", world.seed).permutation(count)
    return Dataset.from_dict({c: [v[i] for i in order] for c, v in rows.items()})


def _deal(world, people, skills, strings, rng) -> Iterator[dict]:
    """Endless questions: facts from a shuffled deck of all of them, in a random wording; skills on random strings."""
    deck: list = []
    while True:
        if skills and (not people or rng.random() < SKILL_SHARE):
            skill = skills[rng.integers(len(skills))]
            s = strings[rng.integers(len(strings))]
            told = [SKILL_ENTRIES[k].format(s=spell(s), a=spell(SKILLS[k](s))) for k in skills]
            entry = " ".join([*told, SIZE.format(n=COUNTS[len(s)])])
            yield {**skill_task(skill, s, int(rng.integers(len(SKILL_QUESTIONS[skill])))), "entry": entry}
            continue
        if not deck:
            deck = [(i, k) for i in people for k in range(len(world.attributes))]
            rng.shuffle(deck)
        i, k = deck.pop()
        attribute = world.attributes[k]
        yield fact_task(world, i, k, attribute, int(rng.integers(len(QUESTIONS[attribute]))))


def vocabulary() -> list[str]:
    """Texts with every word that a page can hold beyond the words of its world; for `tokens.word_tokenizer`."""
    questions = [q for forms in SKILL_QUESTIONS.values() for q in forms]
    statements = [*SKILL_STATEMENTS.values(), *SKILL_ENTRIES.values()]
    remarks = [*OPENERS, *CLOSERS, *GUESSES, *CHATTER]
    texts = [*questions, *statements, *remarks, exam_form("?"), SIZE, *COUNTS, *LETTERS]
    return [" ".join(w for w in t.split() if not w.startswith("{")) for t in texts]
