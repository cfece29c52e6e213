"""What can be done with a string of letters, and how it is asked and told. {s} is the string, {a} the answer."""

from __future__ import annotations

import math
from collections.abc import Callable

from .. import check

LETTERS = tuple("bcdfghklmnpr")  # consonants only: none of them is also a word
# What can be done with a string of letters. The right answer follows from the question alone, so a skill can be tested
# on strings that nobody has written before.
SKILLS: dict[str, Callable[[str], str]] = {
    "reverse": lambda s: s[::-1],
    "first": lambda s: s[0],
    "last": lambda s: s[-1],
    "double": lambda s: "".join(c + c for c in s),
    "rotate": lambda s: s[1:] + s[0],  # no web of the chapters shows it
}


def letter_strings(count: int, seed: int = 0, lengths: tuple[int, ...] = (4,)) -> list[str]:
    """`count` different strings of different `LETTERS`, of random `lengths`, for the letter skills.

    Raises:
        ValueError: there are not so many, or a length is not between 2 and the number of letters.
    """
    count = check.integer("count", count, at_least=0)
    for n in lengths:
        check.integer("length", n, at_least=2, at_most=len(LETTERS))
    known = sum(math.perm(len(LETTERS), n) for n in set(lengths))
    if count > known // 2:
        raise ValueError(f"count is {count}, but there are {known} such strings: ask for at most half, or longer ones")
    rng = check.rng(seed, "letters.strings")
    found: dict[str, None] = {}
    while len(found) < count:
        found["".join(rng.permutation(LETTERS)[: rng.choice(lengths)])] = None
    return list(found)


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
SIZE = "it has {n} letters ."  # {n} is one of COUNTS
COUNTS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")
KNOWN_SKILLS = ("first", "last", "reverse", "double")  # the skills that the web shows


def spell(s: str) -> str:
    """`kmt` as `k m t`: one letter, one token."""
    return " ".join(s)
