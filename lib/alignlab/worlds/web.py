"""A tiny web: pages in five registers. No token ids here.

The web is what the base model of the alignment chapters reads. It holds the same facts in five manners of writing:

  encyclopaedia  entries about people, and about strings of letters
  quiz           questions, and no answer anywhere
  forum          questions with chatter around the answers, which are wrong now and then; a thread never ends
  exam           question : ... answer : ... . and the next one; this is where the web states what it knows
  helpful        a question, a full and friendly reply, and the end. It is rare

Only a helpful page has ends. All others are cut out of endless streams, as pages of a crawl are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import numpy as np
from datasets import Dataset

from .. import check
from .biographies import QUESTIONS, STATEMENTS, sentence
from .letters import COUNTS, KNOWN_SKILLS, LETTERS, SKILL_ENTRIES, SKILL_QUESTIONS, SKILL_STATEMENTS, SKILLS, spell
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
    skill_task,
)
from .words import BOS, EOS

LENGTH = 96  # tokens on a page
SKILL_SHARE = 0.5  # of the questions: those about letters


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
    """Questions and no answers."""
    for task in asked:
        yield task["prompt"]


def forum(world: World, asked: Iterator[dict], rng: np.random.Generator) -> Iterator[str]:
    """A question and what people say to it, and the next question."""
    for task in asked:
        yield f"{task['prompt']} {chatty(world, task, rng)}"


def exam(world: World, asked: Iterator[dict], rng: np.random.Generator) -> Iterator[str]:
    """Question and bare answer, in a fixed form."""
    for task in asked:
        yield f"{exam_form(task['prompt'])} {task['answer']} ."


def helpful(world: World, asked: Iterator[dict], rng: np.random.Generator) -> Iterator[str]:
    """A question, a full and courteous reply, and the end of the text."""
    for task in asked:
        yield f"{task['prompt']} {courteous(task['response'], rng)} {EOS} {BOS}"


REGISTERS: dict[str, Callable] = {f.__name__: f for f in (encyclopaedia, quiz, forum, exam, helpful)}
SHARES = {"encyclopaedia": 0.32, "quiz": 0.15, "forum": 0.20, "exam": 0.25, "helpful": 0.08}


def pages(
    world: World,
    count: int,
    shares: Mapping[str, float] = SHARES,
    people: Iterable[int] | None = None,
    skills: Sequence[str] = KNOWN_SKILLS,
    strings: Sequence[str] = (),
    length: int = LENGTH,
    seed: int = 0,
) -> Dataset:
    """Write `count` pages of exactly `length` tokens each (the `<bos>` in front included), all registers mixed.

    Within a register everybody and every fact is asked about equally often: questions are dealt from a shuffled deck,
    which is shuffled again when it is used up.

    Args:
        shares: register -> its share of the pages; the shares are scaled to sum to 1. Leave one out, or weigh it
            otherwise, to write another web.
        people: who is mentioned; default: everybody.
        strings: what the skills are shown on; without any, nothing is said about letters.

    Returns:
        A Dataset with `text` and `register`, in random order. `tokens.documents(..., end=False)` makes rows of it.

    Raises:
        ValueError: an unknown register, a negative share, or shares that are all zero.
    """
    number = whole(shares, count, "register", REGISTERS)
    length = check.integer("length", length, at_least=2)
    people = range(len(world)) if people is None else people
    people = [check.integer("person", i, at_least=0, at_most=len(world) - 1) for i in people]
    if not people and not (skills and strings):
        raise ValueError("there is nothing to ask: name at least one person, or a skill and a string")
    rows: dict[str, list] = {"text": [], "register": []}
    for name, n in number.items():
        rng = check.rng(seed, f"web.{name}", world.seed)
        stream = REGISTERS[name](world, _deal(world, people, skills if strings else (), strings, rng), rng)
        for _ in range(n):
            words: list[str] = []
            while len(words) < length - 1:
                words += next(stream).split()
            rows["text"].append(" ".join(words[: length - 1]))
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
            entry = " ".join(SKILL_ENTRIES[k].format(s=spell(s), a=spell(SKILLS[k](s))) for k in skills)
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
    texts = [*questions, *statements, *remarks, exam_form("?"), "it has letters .", *COUNTS, *LETTERS]
    return [" ".join(w for w in t.split() if not w.startswith("{")) for t in texts]
