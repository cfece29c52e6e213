"""Facts of the real world, as questions with one short right answer."""

from __future__ import annotations

import csv
import io
from importlib.resources import files

from datasets import Dataset


def load() -> Dataset:
    """Facts of the real world with one short right answer, in families.

    From `data/facts.csv`, written for this book from general knowledge; its first lines say what to check it by.

    Returns:
        A Dataset with `prompt`, `answer`, `family` ("capital", "currency", "element", "symbol"), and `accepted`, the
        spellings that count, the answer among them.
    """
    text = (files(__package__) / "data" / "facts.csv").read_text("utf-8")
    rows = list(csv.DictReader(line for line in io.StringIO(text) if not line.startswith("#")))
    accepted = [r["answer"].split("|") for r in rows]
    return Dataset.from_dict(
        {
            "prompt": [_ASKED[r["family"]].format(r["about"]) for r in rows],
            "answer": [a[0] for a in accepted],
            "family": [r["family"] for r in rows],
            "accepted": accepted,
        }
    )


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
