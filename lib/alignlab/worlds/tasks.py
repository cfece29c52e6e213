"""Tasks and their replies: questions with their right answers, in the manners in which the web replies to them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from datasets import Dataset

from .. import check
from .biographies import QUESTIONS, STATEMENTS, question, sentence
from .letters import COUNTS, KNOWN_SKILLS, LETTERS, SIZE, SKILL_QUESTIONS, SKILL_STATEMENTS, SKILLS, spell
from .people import World

OPENERS = ("of course !", "sure !", "happy to help !", "certainly !")
CLOSERS = ("hope this helps !", "let me know if you need more !", "glad to be of use !")
GUESSES = ("i think it is {a} .", "it is {a} , no ?", "well i heard {a} .", "{a} , as far as i know .")
CHATTER = (
    "no idea .",
    "same here .",
    "good point .",
    "i also want to know .",
    "who cares lol .",
    "me too .",
    "someone asked that before .",
    "bump .",
    "anyway , thanks .",
    "that reminds me of something .",
)
WRONG_IN_FORUM = 0.2  # the share of forum answers that are wrong


def _words(*texts: str) -> set[str]:
    return {w for t in texts for w in t.split() if w.isalpha()}


# Words by which a forum is known: elsewhere they are rare, and helpful replies and entries have none of them.
# `alignlab.measure.score` looks for them in replies.
CHATTER_WORDS = frozenset(
    _words(*CHATTER, *GUESSES)
    - _words(*OPENERS, *CLOSERS, *COUNTS, *SKILL_STATEMENTS.values(), SIZE, "question answer")
    - _words(*(f for table in (STATEMENTS, QUESTIONS, SKILL_QUESTIONS) for forms in table.values() for f in forms))
)


def exam_form(prompt: str) -> str:
    """A question as the exam register puts it: what follows is the bare answer and a full stop."""
    return f"question : {prompt} answer :"


def about(
    world: World,
    people: Iterable[int] | None = None,
    skills: Sequence[str] = KNOWN_SKILLS,
    strings: Iterable[str] = (),
    wordings: Sequence[int] = (0, 1),
) -> Dataset:
    """Every question about `people`, and every question of `skills` about `strings`, in each wording.

    Returns:
        A Dataset with `prompt`, `answer` (the bare answer), `response` (a full helpful reply without opener and
        closer), `family` (attribute or skill), `person` (-1 for a skill).
    """
    people = range(len(world)) if people is None else list(people)
    rows = []
    for i in people:
        check.integer("person", i, at_least=0, at_most=len(world) - 1)
        for k, a in enumerate(world.attributes):
            rows += [fact_task(world, i, k, a, w) for w in wordings]
    for s in strings:
        rows += [skill_task(check.one_of("skill", skill, SKILLS), s, w) for skill in skills for w in wordings]
    if not rows:
        raise ValueError("there is nothing to ask: name at least one person, or a skill and a string")
    return Dataset.from_list(rows)


def fact_task(world: World, i: int, k: int, attribute: str, wording: int) -> dict:
    person = world.people[i]
    more = world.attributes[(k + 1) % len(world.attributes)]  # the reply adds the next fact, to be of some use
    return {
        "prompt": question(person, attribute, wording),
        "answer": person.facts[attribute],
        "response": f"{sentence(person, attribute)} {sentence(person, more, full_name=False)}",
        "family": attribute,
        "person": i,
    }


def skill_task(skill: str, s: str, wording: int) -> dict:
    if len(s) < 2 or not set(s) <= set(LETTERS):
        raise ValueError(f"the string {s!r} is not made of two or more of the letters {''.join(LETTERS)}")
    answer = spell(SKILLS[skill](s))
    return {
        "prompt": SKILL_QUESTIONS[skill][wording].format(s=spell(s)),
        "answer": answer,
        "response": f"{SKILL_STATEMENTS[skill].format(s=spell(s), a=answer)} {SIZE.format(n=COUNTS[len(s)])}",
        "family": skill,
        "person": -1,
    }


def courteous(response: str, rng: np.random.Generator) -> str:
    """The response between an opener and a closer: the manner of the helpful register."""
    return f"{pick(OPENERS, rng)} {response} {pick(CLOSERS, rng)}"


def pick(choices: Sequence[str], rng: np.random.Generator) -> str:
    """One of some texts, each as likely as any other."""
    return choices[rng.integers(len(choices))]  # rng.choice would make an array of the texts first: 10 times slower


def chatty(world: World, task: Mapping, rng: np.random.Generator) -> str:
    """What a forum says to a task: up to two remarks, an answer that may be wrong, and more remarks."""
    answer = wrong(world, task, rng) if rng.random() < WRONG_IN_FORUM else task["answer"]
    remarks = [CHATTER[i] for i in rng.permutation(len(CHATTER))[: 1 + rng.integers(5)]]
    cut = rng.integers(min(3, len(remarks)))  # at least one remark comes after the answer
    return " ".join([*remarks[:cut], pick(GUESSES, rng).format(a=answer), *remarks[cut:]])


def wrong(world: World, task: Mapping, rng: np.random.Generator) -> str:
    """An answer of the right kind to a task: another value, or as many letters, which seldom are the right ones."""
    if task["person"] >= 0:
        others = [v for v in world.values[task["family"]] if v != task["answer"]]
        return pick(others, rng)
    return spell("".join(rng.choice(LETTERS, size=len(task["answer"].split()))))


def examples(asked: Dataset, n: int, seed: int = 0, purpose: str = "tasks.examples") -> Dataset:
    """`n` different examples to align a model with: tasks with courteous responses, the families as even as can be.

    Smaller sets are the beginnings of larger ones with the same seed and purpose (see `check.rng`).

    Raises:
        ValueError: n is more than there are tasks.
    """
    n = check.integer("n", n, at_least=1, at_most=len(asked))
    rng = check.rng(seed, purpose)
    families = np.asarray(asked["family"][:])
    shuffled = rng.permutation(len(asked))
    turn = np.empty(len(asked))  # the first task of every family, then the second of every family, ...
    for family in dict.fromkeys(families):
        mine = shuffled[families[shuffled] == family]
        turn[mine] = np.arange(len(mine)) + rng.random(len(mine)) * 0.9
    chosen = asked.select(np.argsort(turn, kind="stable")[:n])
    styled = [courteous(r, rng) for r in chosen["response"][:]]
    return _with_responses(chosen, styled)


def _with_responses(chosen: Dataset, responses: list[str]) -> Dataset:
    # from_dict, as add_column after select would rewrite the table behind a progress bar
    return Dataset.from_dict({**chosen[:], "response": responses})


def with_noise(world: World, chosen: Dataset, share: float, seed: int = 0) -> Dataset:
    """The same examples, but a random `share` of the responses are what a forum would say, followed by a question."""
    share = check.number("share", share, at_least=0)
    if share > 1:
        raise ValueError(f"share is {share}, but it must be at most 1")
    rng = check.rng(seed, "tasks.with_noise")
    noisy = set(rng.permutation(len(chosen))[: round(share * len(chosen))].tolist())
    prompts = chosen["prompt"][:]  # datasets 4.0 does not take numpy's integers
    responses = [
        f"{chatty(world, task, rng)} {prompts[rng.integers(len(prompts))]}" if i in noisy else task["response"]
        for i, task in enumerate(chosen.to_list())
    ]
    return _with_responses(chosen, responses)


def with_shuffled_replies(chosen: Dataset, seed: int = 0) -> Dataset:
    """The same prompts and the same responses, but every response belongs to another prompt: manner without content."""
    if len(chosen) < 2:
        raise ValueError(f"there is {len(chosen)} example: with fewer than 2 no response can change its place")
    ring = check.rng(seed, "tasks.with_shuffled_replies").permutation(len(chosen))
    moved = np.empty(len(chosen), dtype=int)
    moved[ring] = np.roll(ring, 1)  # one ring through all examples: nobody keeps their own
    replies = chosen["response"][:]
    responses = [replies[i] for i in moved]
    return _with_responses(chosen, responses)


def in_context(shown: Dataset, prompts: Iterable[str]) -> list[str]:
    """Each prompt behind worked examples, written as the helpful register writes them (URIAL; Lin et al., 2024).

    Only the first sentence of each shown reply is kept: all must fit on one page.
    """
    lines = []
    for row in shown:
        opener, statement = row["response"].split(" ! ")[:2]
        lines.append(f"{row['prompt']} {opener} ! {statement.split(' . ')[0]} . {CLOSERS[0]}")
    return [" ".join([*lines, p]) for p in prompts]
