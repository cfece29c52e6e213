"""What a text is worth, by rules that can be followed with pencil and paper. No model here."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from itertools import groupby

import pandas as pd
from datasets import Dataset

from .. import check
from ..models.answer import Reply
from ..worlds.letters import LETTERS
from ..worlds.people import World
from ..worlds.tasks import CHATTER_WORDS, CLOSERS, OPENERS

MARKS = {"right": 4, "stops": 2, "clean": 2, "opens": 1, "closes": 1}  # what a mark out of ten is made of


def marks(replies: Sequence[Reply], tasks: Dataset, world: World) -> pd.DataFrame:
    """Mark replies to questions about `world` by rules that can be followed with pencil and paper.

    right      the first thing of the asked kind that the reply names is the right one. For a question about a city: the
               first city. For letters: the first run of letters that is not the string of the question itself.
    stops      the reply ended by itself
    clean      no question mark, no word that only the forum uses, and no sentence twice
    opens, closes   it begins with one of `tasks.OPENERS`; one of `tasks.CLOSERS` is in it
    usable     right, stops and clean
    manner     stops, clean, opens and closes: all but right
    mark       4 for right, 2 for stops, 2 for clean, 1 for opens, 1 for closes

    Returns:
        One row per reply: the columns of `tasks`, `reply`, and those above (bool; `mark` is an integer 0..10).
    """
    if len(replies) != len(tasks):
        raise ValueError(f"there are {len(replies)} replies to {len(tasks)} tasks: pass one reply per task")
    table = tasks.to_pandas()
    table["reply"] = [r.text for r in replies]
    asked = tasks.to_list()
    table["right"] = [
        named(r.text, t["family"], t["prompt"], world) == t["answer"] for r, t in zip(replies, asked, strict=True)
    ]
    table["stops"] = [r.stopped for r in replies]
    table["clean"] = [_clean(r.text) for r in replies]
    table["opens"] = [r.text.startswith(OPENERS) for r in replies]
    table["closes"] = [any(c in r.text for c in CLOSERS) for r in replies]
    table["usable"] = table["right"] & table["stops"] & table["clean"]
    table["manner"] = table["stops"] & table["clean"] & table["opens"] & table["closes"]
    table["mark"] = sum(table[name] * points for name, points in MARKS.items())
    return table


def named(text: str, family: str, prompt: str, world: World) -> str | None:
    """The first thing of the asked kind in `text`, or None: what a reply says, whatever else it says.

    Args:
        family: an attribute of the world (then a value of it is looked for), or a skill (then a run of letters that is
            not the string of the question itself).
        prompt: the question.
    """
    if family in world.values:
        kind = set(world.values[family])
        return next((w for w in text.split() if w in kind), None)
    runs = [" ".join(g) for letters, g in groupby(text.split(), LETTERS.__contains__) if letters]
    return next((r for r in runs if f" {r} " not in f" {prompt} " or len(r) == 1), None)


def majority(named: Sequence[Sequence[object | None]], at_least: int) -> list[int | None]:
    """Which of several replies to a question to trust: the first that names what at least `at_least` of them name.

    A filter for replies drawn from a teacher, of any kind: self-consistency in the sense of Wang et al. (2023),
    arXiv:2203.11171, used to choose training data. It removes what the teacher says now and then, and keeps what it
    says every time, right or wrong.

    Args:
        named: for each question, what each reply to it names (`named`), None for one that names nothing.
        at_least: how many must agree. Of several things that so many name, the one named most often counts.

    Returns:
        For each question the index of the reply among its own, or None where too few agree.
    """
    at_least = check.integer("at_least", at_least, at_least=1)
    kept: list[int | None] = []
    for each in named:
        (value, votes), *_ = Counter(v for v in each if v is not None).most_common(1) or [(None, 0)]
        kept.append(list(each).index(value) if votes >= at_least else None)
    return kept


def _clean(text: str) -> bool:
    if "?" in text or CHATTER_WORDS.intersection(text.split()):
        return False
    sentences = [s.strip() for s in re.split(r"[.!]", text) if s.strip()]
    return len(set(sentences)) == len(sentences)


BEGINNING = 24  # words: the room for "The capital of the Democratic Republic of the Congo is the city of"


def short_answers(replies: Sequence[str | Reply], tasks: Dataset, beginning: int = BEGINNING) -> pd.DataFrame:
    """Is the right answer the first one that a reply names, near its beginning?

    A reply and the answers are brought to plain words: compatibility forms of characters (Unicode NFKD) without their
    accents, in lower case (`str.casefold`), everything but letters and digits a gap between words. Among the first
    `beginning` words, the first place is sought where an accepted answer of any task of the same family stands, word
    for word; of two answers at one place the longer counts. The reply is right if that is an answer to its own task.
    So "It is **paris**, of course." is right for Paris; "Lyon, or Paris" is right too if no task asks for Lyon;
    "Berlin, Paris, Rome" is right for Berlin alone; and an answer after a hundred words is none.

    Args:
        tasks: as `trivia.load` gives them, or a part of it; the answers of other tasks are looked for in `tasks` alone.

    Returns:
        One row per reply: the columns of `tasks`, `reply`, `named` (the answer that stands first, plain, or None) and
        `right` (bool).
    """
    if len(replies) != len(tasks):
        raise ValueError(f"there are {len(replies)} replies to {len(tasks)} tasks: pass one reply per task")
    beginning = check.integer("beginning", beginning, at_least=1)
    texts = [r.text if isinstance(r, Reply) else r for r in replies]
    accepted = [[plain(a) for a in task] for task in tasks["accepted"]]
    known: dict[str, set[str]] = {}
    for family, answers in zip(tasks["family"], accepted, strict=True):
        known.setdefault(family, set()).update(answers)
    table = tasks.to_pandas()
    table["reply"] = texts
    named = [_first(plain(t), known[f], beginning) for t, f in zip(texts, tasks["family"], strict=True)]
    table["named"] = pd.Series(named, dtype=object)
    table["right"] = [n in a for n, a in zip(named, accepted, strict=True)]
    return table


def plain(text: str) -> str:
    """`text` as plain words with single spaces between them: no accents, no capitals, no punctuation."""
    letters = (c for c in unicodedata.normalize("NFKD", text).casefold() if not unicodedata.combining(c))
    return " ".join("".join(c if c.isalnum() else " " for c in letters).split())


def _first(text: str, answers: set[str], beginning: int) -> str | None:
    words = f" {' '.join(text.split()[:beginning])} "
    found = [(place, -len(a), a) for a in answers if (place := words.find(f" {a} ")) >= 0]
    return min(found)[2] if found else None


def ciphers(golds: Sequence[str], said: Sequence[str]) -> pd.DataFrame:
    """Compare decodings with the plain texts, whoever wrote them: any model's text will do.

    Both are stripped of space and quotation marks, and compared without regard to case. Returns one row per text:

    exact      they are the same (bool)
    contained  the plain text stands somewhere in what was said: the paper's rule (bool)
    letters    the share of the plain text's characters that stand in their own place, 0..1
    distance   insertions, deletions and substitutions between the two

    Raises:
        ValueError: the two lists differ in length, or a plain text is empty.
    """
    if len(golds) != len(said):
        raise ValueError(f"there are {len(said)} decodings of {len(golds)} plain texts: pass one of each")
    rows = []
    for i, (gold, text) in enumerate(zip(golds, said, strict=True)):
        gold, text = _stripped(gold), _stripped(text)
        if not gold:
            raise ValueError(f"plain text {i} is empty: there is nothing to compare with")
        same = sum(a == b for a, b in zip(gold, text, strict=False))
        rows.append((gold == text, gold in text, same / len(gold), edit_distance(gold, text)))
    return pd.DataFrame(rows, columns=["exact", "contained", "letters", "distance"])


def _stripped(text: str) -> str:
    return text.strip(" \t\n\"'“”‘’").casefold()


def edit_distance(a: str, b: str) -> int:
    """The least number of insertions, deletions and substitutions of characters that turn `a` into `b`."""
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        before, row[0] = row[0], i
        for j, y in enumerate(b, 1):
            before, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, before + (x != y))
    return row[-1]
