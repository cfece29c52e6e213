"""Facts of the real world, as questions with one short right answer."""

from __future__ import annotations

import csv
import io
from importlib.resources import files

from datasets import Dataset

from .. import check


def load(most: int | None = None, family: str | None = None) -> Dataset:
    """Facts of the real world with one short right answer, in families.

    From `data/facts.csv`, written for this book from general knowledge; its first lines say what to check it by.

    Args:
        most: this many of them, as many of each family as of any other while it has any, from its whole length.
            Default: all.
        family: only those of one family.

    Returns:
        A Dataset with `prompt`, `answer`, `about` (what is asked about), `family` ("capital", "currency", "element",
        "symbol"), and `accepted`, the spellings that count, the answer among them.

    Raises:
        TypeError, ValueError: there are not that many facts, or there is no such family.
    """
    text = (files(__package__) / "data" / "facts.csv").read_text("utf-8")
    rows = list(csv.DictReader(line for line in io.StringIO(text) if not line.startswith("#")))
    if family is not None:
        check.one_of("family", family, _ASKED)
        rows = [r for r in rows if r["family"] == family]
    if most is not None:
        rows = _evenly(rows, check.integer("most", most, at_least=1, at_most=len(rows)))
    accepted = [r["answer"].split("|") for r in rows]
    return Dataset.from_dict(
        {
            "prompt": [_ASKED[r["family"]].format(r["about"]) for r in rows],
            "answer": [a[0] for a in accepted],
            "about": [r["about"] for r in rows],
            "family": [r["family"] for r in rows],
            "accepted": accepted,
        }
    )


def _evenly(rows: list[dict], most: int) -> list[dict]:
    families: dict[str, list[int]] = {}
    for i, r in enumerate(rows):
        families.setdefault(r["family"], []).append(i)
    chosen: list[int] = []
    for left, places in zip(range(len(families), 0, -1), sorted(families.values(), key=len), strict=True):
        n = min(len(places), (most - len(chosen)) // left)  # what a small family lacks, the larger ones give
        chosen += [places[len(places) * k // n] for k in range(n)]
    return [rows[i] for i in sorted(chosen)]


_ASKED = {
    "capital": "What is the capital of {}?",
    "currency": "What is the currency of {}?",
    "element": "Which chemical element has the symbol {}?",
    "symbol": "What is the chemical symbol of {}?",
}
_BEGUN = {
    "capital": "The capital of {} is",
    "currency": "The currency of {} is the",
    "element": "The chemical element with the symbol {} is",
    "symbol": "The chemical symbol of {} is",
}


def statement(prompt: str) -> str:
    """A question of `load` as a sentence that its answer completes: the `form` that `knowledge.exam` wants here.

    Small real models know more in this form than after "Answer:", where an aligned one begins a sentence of its own.

    Raises:
        ValueError: the question is none of `load`.
    """
    for family, question in _ASKED.items():
        start, end = question.split("{}")
        if prompt.startswith(start) and prompt.endswith(end):
            return _BEGUN[family].format(prompt[len(start) : -len(end)])
    raise ValueError(f"{prompt!r} is no question of trivia.load(): pass a form of your own to knowledge.exam")
