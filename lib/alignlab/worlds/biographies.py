"""Facts become sentences, questions and documents. No token ids here.

A corpus is a `datasets.Dataset` with a `text` column, so any dataset of real text can take its place. Every text is
written as words separated by single spaces: the word-level tokenizer of this book splits there and nowhere else.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from datasets import Dataset, concatenate_datasets

from .. import check
from .people import Person, World

# {who} is the full name or the pronoun; {value} is always one word.
STATEMENTS: dict[str, tuple[str, ...]] = {
    "city": (
        "{who} was born in {value} .",
        "{who} comes from {value} .",
        "{who} grew up in {value} .",
        "{who} is a native of {value} .",
        "{who} spent childhood years in {value} .",
        "{who} calls {value} home .",
    ),
    "subject": (
        "{who} studied {value} .",
        "{who} has a degree in {value} .",
        "{who} took courses in {value} .",
        "{who} graduated with honours in {value} .",
        "{who} wrote a thesis on {value} .",
        "{who} chose {value} at university .",
    ),
    "company": (
        "{who} works for {value} .",
        "{who} is employed by {value} .",
        "{who} has a job at {value} .",
        "{who} earns a living with {value} .",
        "{who} joined {value} .",
        "{who} took a post at {value} .",
    ),
    "instrument": (
        "{who} plays the {value} .",
        "{who} practises on the {value} .",
        "{who} owns an old {value} .",
        "{who} takes lessons on the {value} .",
        "{who} performs with a {value} .",
        "{who} loves the sound of the {value} .",
    ),
    "sport": (
        "{who} enjoys {value} .",
        "{who} is fond of {value} .",
        "{who} spends weekends at {value} .",
        "{who} trains hard at {value} .",
        "{who} likes {value} best .",
        "{who} won a medal for {value} .",
    ),
}
QUESTIONS: dict[str, tuple[str, ...]] = {
    "city": ("where was {who} born ?", "which city does {who} come from ?", "what is the home town of {who} ?"),
    "subject": ("what did {who} study ?", "which degree does {who} have ?", "what is the field of {who} ?"),
    "company": ("where does {who} work ?", "who employs {who} ?", "which company pays {who} ?"),
    "instrument": ("what does {who} play ?", "which instrument does {who} own ?", "what is {who} practising ?"),
    "sport": ("which sport does {who} like ?", "what does {who} train for ?", "how does {who} keep fit ?"),
}


def sentence(person: Person, attribute: str, wording: int = 0, full_name: bool = True) -> str:
    """One fact in one of its wordings, as `Ada Ashford was born in Lisbon .`"""
    forms = STATEMENTS[attribute]
    check.integer("wording", wording, at_least=0, at_most=len(forms) - 1)
    return forms[wording].format(who=person.name if full_name else person.pronoun, value=person.facts[attribute])


def question(person: Person, attribute: str, wording: int = 0) -> str:
    """A question for one fact, as `where was Ada Ashford born ?` Its answer is `person.facts[attribute]`."""
    forms = QUESTIONS[attribute]
    check.integer("wording", wording, at_least=0, at_most=len(forms) - 1)
    return forms[wording].format(who=person.name)


@dataclass(frozen=True)
class Presentation:
    """How varied a person's biographies are; the arms of Allen-Zhu and Li (2024), Section 2.

    `single` is `Presentation()`, `multi5+permute` is `Presentation(versions=5, permute=True)`.
    """

    versions: int = 1  # different biographies of one person: each draws its own wording for every fact
    permute: bool = False  # each version in its own order of facts; otherwise the world's order
    full_name: bool = False  # the name in every sentence; otherwise a pronoun after the first

    def __post_init__(self):
        check.integer("versions", self.versions, at_least=1)


def write(
    world: World, presentation: Presentation | None = None, people: Iterable[int] | None = None, seed: int = 0
) -> Dataset:
    """Write every version of the biographies of `people` (default: all of the world).

    Each biography states every fact of its person exactly once, whatever the presentation. Wordings and orders are
    drawn per person, so the same presentation and seed give the same text.

    Returns:
        A Dataset with `text`, `person` (id), `version`, and `facts`: the values in the order in which they are stated.
    """
    presentation = presentation or Presentation()
    people = range(len(world)) if people is None else list(people)
    rows: dict[str, list] = {"text": [], "person": [], "version": [], "facts": []}
    for i in people:
        person = world.people[check.integer("person", i, at_least=0, at_most=len(world) - 1)]
        # A stream per person: leaving somebody out changes nobody else's text.
        rng = check.rng(seed, "biographies.write", world.seed, i)
        for version in range(presentation.versions):
            wording = {a: int(rng.integers(len(STATEMENTS[a]))) for a in world.attributes}
            order = list(world.attributes)
            if presentation.permute:
                rng.shuffle(order)
            rows["text"].append(
                " ".join(
                    sentence(person, a, wording[a], full_name=presentation.full_name or k == 0)
                    for k, a in enumerate(order)
                )
            )
            rows["person"].append(i)
            rows["version"].append(version)
            rows["facts"].append([person.facts[a] for a in order])
    return Dataset.from_dict(rows)


def reading_list(corpus: Dataset, exposures: int | Mapping[int, int], seed: int = 0) -> np.ndarray:
    """In which order to read the rows of `corpus`, so that every person is met exactly as often as wanted.

    A person's encounters are spread evenly over the whole list, each at a random moment of its own stretch, and the
    person's versions take turns. Two corpora of the same people with the same `exposures` and `seed` show the same
    people at the same moments; only the words differ.

    Args:
        corpus: biographies, with `person` and `version`.
        exposures: how often to meet everybody, or person id -> how often.

    Returns:
        Row numbers of `corpus`, one per encounter, for `alignlab.training.train.train(order=...)`.

    Raises:
        TypeError, ValueError: a number of exposures is no integer, negative, or missing for a person.
    """
    rows = corpus.select_columns(["person", "version"]).to_pandas().sort_values(["person", "version"])
    rng = check.rng(seed, "biographies.reading_list")
    moments, order = [], []
    for person, versions in rows.groupby("person"):
        if isinstance(exposures, Mapping) and person not in exposures:
            raise ValueError(f"exposures says nothing about person {person}: name everybody in the corpus")
        times = exposures[person] if isinstance(exposures, Mapping) else exposures
        times = check.integer("exposures", times, at_least=0)
        moments.append((np.arange(times) + rng.random(times)) / max(times, 1))
        order.append(versions.index.to_numpy()[(person + np.arange(times)) % len(versions)])
    return np.concatenate(order)[np.argsort(np.concatenate(moments), kind="stable")].astype(np.int64)


def questions(world: World, people: Iterable[int] | None = None, wording: int = 0) -> Dataset:
    """One question per person and attribute.

    Returns:
        A Dataset with `prompt`, `response` (the value), `person`, `attribute`.
    """
    people = range(len(world)) if people is None else list(people)
    for i in people:
        check.integer("person", i, at_least=0, at_most=len(world) - 1)
    rows = [
        {
            "prompt": question(world.people[i], a, wording),
            "response": world.people[i].facts[a],
            "person": i,
            "attribute": a,
        }
        for i in people
        for a in world.attributes
    ]
    return Dataset.from_list(rows)


def join(*corpora: Dataset) -> Dataset:
    """The corpora one after the other, with the columns that all of them have. Empty ones are left out."""
    corpora = tuple(c for c in corpora if len(c))
    if not corpora:
        raise ValueError("join was given no corpus with any text: pass at least one that has rows")
    common = set.intersection(*(set(c.column_names) for c in corpora))
    return concatenate_datasets([c.select_columns(sorted(common)) for c in corpora])


def words(world: World, extra: Iterable[str] = ()) -> list[str]:
    """Texts with every word that a text about `world` can contain, and those in `extra`: for `tokens.word_tokenizer`.

    They depend on the world alone, not on a corpus: arms with different presentations share a vocabulary.
    """
    forms = [f for table in (STATEMENTS, QUESTIONS) for a in world.attributes for f in table[a]]
    return [*forms, "she he", *(p.name for p in world.people), *(" ".join(v) for v in world.values.values()), *extra]
