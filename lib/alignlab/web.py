"""A tiny web: questions, replies, and pages in five registers. No token ids here.

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

from . import check
from .text import QUESTIONS, STATEMENTS, question, sentence
from .tokens import BOS, EOS
from .world import LETTERS, SKILLS, World

# {s} is the string, its letters set apart; {a} the answer.
SKILL_QUESTIONS: dict[str, tuple[str, ...]] = {
    "reverse": ("what is {s} backwards ?", "how do you reverse {s} ?"),
    "first": ("what is the first letter of {s} ?", "which letter starts {s} ?"),
    "last": ("what is the last letter of {s} ?", "which letter ends {s} ?"),
    "double": ("what is {s} with doubled letters ?", "how do you double {s} ?"),
    "rotate": ("what is {s} rotated ?", "how do you rotate {s} ?"),
}
SKILL_STATEMENTS: dict[str, str] = {
    "reverse": "{s} backwards is {a} .",
    "first": "the first letter of {s} is {a} .",
    "last": "the last letter of {s} is {a} .",
    "double": "{s} with doubled letters is {a} .",
    "rotate": "{s} rotated is {a} .",
}
# As an encyclopaedia puts it: one entry states all that the web knows about a string.
SKILL_ENTRIES: dict[str, str] = {
    "first": "the first letter of {s} is {a} .",
    "last": "its last letter is {a} .",
    "reverse": "backwards it is {a} .",
    "double": "with doubled letters it is {a} .",
    "rotate": "rotated it is {a} .",
}
COUNTS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")

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
KNOWN_SKILLS = ("first", "last", "reverse", "double")  # the skills that the web shows
LENGTH = 96  # tokens on a page


def _words(*texts: str) -> set[str]:
    return {w for t in texts for w in t.split() if w.isalpha()}


# Words by which a forum is known: no other register uses them. `alignlab.measure` looks for them in replies.
CHATTER_WORDS = frozenset(
    _words(*CHATTER, *GUESSES)
    - _words(*OPENERS, *CLOSERS, *COUNTS, *SKILL_STATEMENTS.values(), "it has letters question answer")
    - _words(*(f for table in (STATEMENTS, QUESTIONS, SKILL_QUESTIONS) for forms in table.values() for f in forms))
)


def spell(s: str) -> str:
    """`kmt` as `k m t`: one letter, one token."""
    return " ".join(s)


def tasks(
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
            rows += [_fact(world, i, k, a, w) for w in wordings]
    for s in strings:
        rows += [_skill(check.one_of("skill", skill, SKILLS), s, w) for skill in skills for w in wordings]
    if not rows:
        raise ValueError("there is nothing to ask: name at least one person, or a skill and a string")
    return Dataset.from_list(rows)


def _fact(world: World, i: int, k: int, attribute: str, wording: int) -> dict:
    person = world.people[i]
    more = world.attributes[(k + 1) % len(world.attributes)]  # the reply adds the next fact, to be of some use
    return {
        "prompt": question(person, attribute, wording),
        "answer": person.facts[attribute],
        "response": f"{sentence(person, attribute)} {sentence(person, more, full_name=False)}",
        "family": attribute,
        "person": i,
    }


def _skill(skill: str, s: str, wording: int) -> dict:
    if len(s) < 2 or not set(s) <= set(LETTERS):
        raise ValueError(f"the string {s!r} is not made of two or more of the letters {''.join(LETTERS)}")
    answer = spell(SKILLS[skill](s))
    return {
        "prompt": SKILL_QUESTIONS[skill][wording].format(s=spell(s)),
        "answer": answer,
        "response": f"{SKILL_STATEMENTS[skill].format(s=spell(s), a=answer)} it has {COUNTS[len(s)]} letters .",
        "family": skill,
        "person": -1,
    }


def courteous(response: str, rng: np.random.Generator) -> str:
    """The response between an opener and a closer: the manner of the helpful register."""
    return f"{_one(OPENERS, rng)} {response} {_one(CLOSERS, rng)}"


def _one(choices: Sequence[str], rng: np.random.Generator) -> str:
    return choices[rng.integers(len(choices))]  # rng.choice would make an array of the texts first: 10 times slower


def chatty(world: World, task: Mapping, rng: np.random.Generator) -> str:
    """What a forum says to a task: up to two remarks, an answer that may be wrong, and more remarks."""
    answer = _wrong(world, task, rng) if rng.random() < WRONG_IN_FORUM else task["answer"]
    remarks = [CHATTER[i] for i in rng.permutation(len(CHATTER))[: 1 + rng.integers(5)]]
    cut = rng.integers(min(3, len(remarks)))  # at least one remark comes after the answer
    return " ".join([*remarks[:cut], _one(GUESSES, rng).format(a=answer), *remarks[cut:]])


def examples(asked: Dataset, n: int, seed: int = 0) -> Dataset:
    """`n` different examples to align a model with: tasks with courteous responses, the families as even as can be.

    Smaller sets are the beginnings of larger ones with the same seed.

    Raises:
        ValueError: n is more than there are tasks.
    """
    n = check.integer("n", n, at_least=1, at_most=len(asked))
    rng = np.random.default_rng((seed, 5))
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
    rng = np.random.default_rng((seed, 6))
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
    ring = np.random.default_rng((seed, 7)).permutation(len(chosen))
    moved = np.empty(len(chosen), dtype=int)
    moved[ring] = np.roll(ring, 1)  # one ring through all examples: nobody keeps their own
    replies = chosen["response"][:]
    responses = [replies[i] for i in moved]
    return _with_responses(chosen, responses)


# --- the registers: each gives endless passages; a passage is a piece of text that belongs together ---


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


def exam_form(prompt: str) -> str:
    """A question as the exam register puts it: what follows is the bare answer and a full stop."""
    return f"question : {prompt} answer :"


def _wrong(world: World, task: Mapping, rng: np.random.Generator) -> str:
    if task["person"] >= 0:
        others = [v for v in world.values[task["family"]] if v != task["answer"]]
        return _one(others, rng)
    return spell("".join(rng.choice(LETTERS, size=len(task["answer"].split()))))


def pages(
    world: World,
    count: int,
    shares: Mapping[str, float] = SHARES,
    people: Iterable[int] | None = None,
    skills: Sequence[str] = KNOWN_SKILLS,
    strings: Sequence[str] = (),
    skill_share: float = 0.5,
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
        skill_share: the share of questions that are about letters.

    Returns:
        A Dataset with `text` and `register`, in random order. `tokens.documents(..., end=False)` makes rows of it.

    Raises:
        ValueError: an unknown register, a negative share, or shares that are all zero.
    """
    count = check.integer("count", count, at_least=1)
    length = check.integer("length", length, at_least=2)
    for name, share in shares.items():
        check.one_of("register", name, REGISTERS)
        check.number(f"the share of {name}", share, at_least=0)
    total = sum(shares.values())
    if total <= 0:
        raise ValueError(f"the shares {dict(shares)} leave nothing to write: give at least one register a share")
    people = range(len(world)) if people is None else people
    people = [check.integer("person", i, at_least=0, at_most=len(world) - 1) for i in people]
    if not people and not (skills and strings):
        raise ValueError("there is nothing to ask: name at least one person, or a skill and a string")
    # Largest remainders: the numbers of pages follow the shares as closely as whole numbers can.
    exact = {n: count * s / total for n, s in shares.items()}
    number = {n: int(e) for n, e in exact.items()}
    for n in sorted(exact, key=lambda n: number[n] - exact[n])[: count - sum(number.values())]:
        number[n] += 1
    rows: dict[str, list] = {"text": [], "register": []}
    for name, n in number.items():
        rng = np.random.default_rng((seed, world.seed, 10 + list(REGISTERS).index(name)))
        stream = REGISTERS[name](world, _deal(world, people, skills if strings else (), strings, skill_share, rng), rng)
        for _ in range(n):
            words: list[str] = []
            while len(words) < length - 1:
                words += next(stream).split()
            rows["text"].append(" ".join(words[: length - 1]))
            rows["register"].append(name)
    order = np.random.default_rng((seed, world.seed, 4)).permutation(count)
    return Dataset.from_dict({c: [v[i] for i in order] for c, v in rows.items()})


def _deal(world, people, skills, strings, skill_share, rng) -> Iterator[dict]:
    """Endless questions: facts from a shuffled deck of all of them, in a random wording; skills on random strings."""
    deck: list = []
    while True:
        if skills and (not people or rng.random() < skill_share):
            skill = skills[rng.integers(len(skills))]
            s = strings[rng.integers(len(strings))]
            entry = " ".join(SKILL_ENTRIES[k].format(s=spell(s), a=spell(SKILLS[k](s))) for k in skills)
            yield {**_skill(skill, s, int(rng.integers(len(SKILL_QUESTIONS[skill])))), "entry": entry}
            continue
        if not deck:
            deck = [(i, k) for i in people for k in range(len(world.attributes))]
            rng.shuffle(deck)
        i, k = deck.pop()
        attribute = world.attributes[k]
        yield _fact(world, i, k, attribute, int(rng.integers(len(QUESTIONS[attribute]))))


def vocabulary() -> list[str]:
    """Texts with every word that a page can hold beyond the words of its world; for `tokens.world_tokenizer`."""
    questions = [q for forms in SKILL_QUESTIONS.values() for q in forms]
    statements = [*SKILL_STATEMENTS.values(), *SKILL_ENTRIES.values()]
    remarks = [*OPENERS, *CLOSERS, *GUESSES, *CHATTER]
    texts = [*questions, *statements, *remarks, exam_form("?"), "it has letters .", *COUNTS, *LETTERS]
    return [" ".join(w for w in t.split() if not w.startswith("{")) for t in texts]
