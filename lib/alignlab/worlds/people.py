"""What is true: invented people and their facts. No text is written here.

People, companies and their facts are fiction. Everything is drawn from one seed, so the same seed is the same
world, and because we wrote it, "what can a model have known?" has an exact answer.

The design follows the synthetic biographies of Allen-Zhu and Li (2024), arXiv:2309.14316: every person has one
value of each attribute, drawn independently of everything else, so that nothing can be guessed from anything.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from .. import check

FEMALE_NAMES = """
Ada Agnes Alma Amara Anika Astrid Aurora Beatrix Birgit Bruna Camille Celia Clara Dagny Daphne Delia Edith Elena Elsa
Esther Fatima Fiona Flora Freya Gemma Greta Hana Harriet Helga Ida Imogen Ines Ingrid Irene Iris Jana Joanna Judith
Kamala Karin Laila Leonora Lidia Linnea Lucia Magda Maren Matilda Mina Nadia Naomi Noor Odette Olga Paloma Petra Priya
Ramona Renata Rosa Ruth Sabine Salma Selma Sofia Stella Tamsin Tessa Thea Ulla Vera Viola Wanda Yara Yuki Zelda Zora
""".split()
MALE_NAMES = """
Abel Adrian Albin Amir Anton Arno Axel Bashir Bela Boris Bruno Caspar Cedric Conrad Cyrus Dario Dimitri Edgar Emil
Enzo Ezra Felix Florian Gideon Gregor Gustav Hakim Hector Henrik Hugo Igor Ivo Jasper Joel Jonas Julian Kaspar Kenji
Kofi Lars Leander Leo Linus Lorenzo Ludwig Magnus Malik Marcel Marius Mateo Milan Nasir Nico Nils Olaf Omar Oscar Otto
Pascal Pavel Quentin Rafael Ravi Remy Ruben Rufus Samir Sander Silas Simon Stefan Sven Tariq Theo Tobias Uri Viktor
Walter Xavier Yannick Yusuf
""".split()
_SURNAME_HEADS = """
Alder Ash Barrow Beck Birch Black Bram Brook Calder Carn Cold Crest Dale Dun East Elm Fair Fallow Fen Fern Glen Gold
Gran Hart Hazel Heath Holm Hurst Kel Kings Lang Lark Lind Lock Mar May Mill Moor North Oak Pen Quill Raven Red Rook
Row Sand Shel Stan Stone Thorn Wal West Whit Wil Win Wood Yar
""".split()
_SURNAME_TAILS = """
bank berg bourne bridge brook by cott croft dale field ford gate ham haven hill hurst land ley low man mere
more nes over ridge shaw stead ston thorpe ton vale wall ward water wick worth
""".split()
# Heads before tails: the first names of the list are spread over many sounds, also in a small world.
SURNAMES = [
    h + t
    for i in range(len(_SURNAME_TAILS))
    for k, h in enumerate(_SURNAME_HEADS)
    if (t := _SURNAME_TAILS[(i + k) % len(_SURNAME_TAILS)]).lower() != h.lower()
]
VALUES: dict[str, tuple[str, ...]] = {
    "city": tuple("""
        Lisbon Nairobi Osaka Quito Tallinn Marseille Lagos Bergen Cork Dakar Hanoi Izmir Jaipur Krakow Lima Manila
        Naples Oslo Perth Riga Seville Tbilisi Utrecht Valencia Warsaw Yerevan Zagreb Accra Bogota Cairo Delhi Ghent
        Havana Kyoto Leeds Malmo Porto Havre Turin Vienna""".split()),
    "subject": tuple("""
        chemistry law botany astronomy history geology music philosophy economics medicine statistics architecture
        linguistics physics sociology theology archaeology nursing geography zoology logic drama optics agronomy
        ecology genetics acoustics anatomy forestry journalism pharmacy rhetoric surveying textiles typography
        metallurgy hydrology ceramics navigation meteorology""".split()),
    "company": tuple("""
        Northwind Bluestone Veridian Lumora Halcyon Quantix Brightwell Oakline Silverfin Tidewater Corvane Marlowe
        Zephyron Petrichor Solvane Ironleaf Kestrel Amberly Nimbusco Redpoint Fernwood Orbitex Pinecrest Wavecrest
        Starling Copperline Evermore Glasswing Harborlight Juniper Larkspur Moonrise Novacore Opaline Prismatic
        Riverbend Summitry Terranova Umbra Windrose""".split()),
    "instrument": tuple("""
        violin cello piano flute oboe trumpet harp banjo guitar accordion clarinet trombone viola bassoon drums sitar
        ukulele tuba organ mandolin lute zither piccolo saxophone cornet marimba xylophone harmonica kazoo theremin
        fiddle bagpipes cymbals recorder dulcimer balalaika bongos tambourine gong celesta""".split()),
    "sport": tuple("""
        tennis rowing fencing judo archery cycling sailing hockey golf boxing karate cricket rugby squash curling
        skiing surfing climbing wrestling polo badminton handball volleyball swimming diving sprinting hurdling
        skating snooker darts bowling canoeing kayaking triathlon softball lacrosse orienteering gymnastics
        weightlifting netball""".split()),
}  # fmt: skip
ATTRIBUTES = tuple(VALUES)


@dataclass(frozen=True)
class Person:
    """One invented person. `facts` maps each attribute of the world to its value, in the world's order."""

    id: int
    name: str
    pronoun: str  # "she" or "he": a property of the first name, so it tells nothing about the facts
    facts: dict[str, str]


@dataclass(frozen=True)
class World:
    """People and the values their attributes can take. `len(world)` is the number of people."""

    people: tuple[Person, ...]
    values: dict[str, tuple[str, ...]]  # attribute -> every value that somebody could have
    seed: int

    @property
    def attributes(self) -> tuple[str, ...]:
        return tuple(self.values)

    def __len__(self) -> int:
        return len(self.people)


def make_world(
    people: int = 400, attributes: tuple[str, ...] = ATTRIBUTES, values_each: int = 40, seed: int = 0
) -> World:
    """Invent `people` people, each with one value of every attribute.

    First names are shared, surnames are not while the list of 2,085 lasts. Larger worlds share surnames too, so that
    only the pair tells who is meant: such names are much harder to learn for a tiny model (measured: 0.9 against 0.5
    accuracy on the same questions), so the chapters stay below.

    Args:
        people: how many, at least 1. Above some 320,000 a middle initial is added to keep names distinct.
        attributes: a selection from `ATTRIBUTES`, in the order in which an unpermuted biography states them.
        values_each: how many values an attribute can take, 2 to 40. Chance level is 1 / values_each.
        seed: the same seed is the same world.

    Raises:
        TypeError, ValueError: naming the argument, its value and what is allowed.
    """
    people = check.integer("people", people, at_least=1)
    values_each = check.integer("values_each", values_each, at_least=2, at_most=40)
    seed = check.integer("seed", seed, at_least=0)
    if not attributes:
        raise ValueError(f"attributes is empty: choose at least one of {', '.join(ATTRIBUTES)}")
    for a in attributes:
        check.one_of("attribute", a, ATTRIBUTES)
    if len(set(attributes)) < len(attributes):
        raise ValueError(f"attributes names one twice: {attributes}")

    rng = check.rng(seed, "people")
    names, pronouns = _names(people, rng)
    values = {a: VALUES[a][:values_each] for a in attributes}
    drawn = {a: rng.integers(len(v), size=people) for a, v in values.items()}
    return World(
        tuple(Person(i, names[i], pronouns[i], {a: values[a][drawn[a][i]] for a in attributes}) for i in range(people)),
        values,
        seed,
    )


def _names(people: int, rng: np.random.Generator) -> tuple[list[str], list[str]]:
    """Distinct names and their pronouns: surnames of one's own while the list lasts, then shared ones."""
    first = [(n, "she") for n in FEMALE_NAMES] + [(n, "he") for n in MALE_NAMES]
    first = [first[i] for i in rng.permutation(len(first))[: min(len(first), max(2, math.isqrt(2 * people)))]]
    if people <= len(SURNAMES):
        last = [SURNAMES[i] for i in rng.permutation(len(SURNAMES))[:people]]
        picks = [(int(f), 0, s) for s, f in enumerate(rng.integers(len(first), size=people))]
        initials = [""]
    else:
        last, initials = list(SURNAMES), ["", *(f" {c}." for c in "ABCDEFGHIJKLMNOPQRSTUVWXYZ")]
        middle = min(len(initials), math.ceil(people / (len(first) * len(last))))
        capacity = len(first) * middle * len(last)
        if people > capacity:
            raise ValueError(f"people is {people}, but the name lists give {capacity} distinct names: ask for fewer")
        picks = [
            (int(p % len(first)), int(p // len(first) % middle), int(p // len(first) // middle))
            for p in rng.choice(capacity, size=people, replace=False)
        ]
    names = [f"{first[f][0]}{initials[m]} {last[s]}" for f, m, s in picks]
    return names, [first[f][1] for f, _, _ in picks]
