"""Arguments are checked at the door, with the offending value and the remedy in the message."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable
from numbers import Integral, Real

import numpy as np


def integer(name: str, value, at_least: int | None = None, at_most: int | None = None) -> int:
    """Return `value` as an int, or raise.

    Raises:
        TypeError: `value` is no integer (a bool is none, nor is 3.0: it hides a wrong formula upstream).
        ValueError: `value` is out of range.
    """
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise TypeError(f"{name} must be an integer, not {value!r}: pass a whole number such as {at_least or 0}")
    if at_least is not None and value < at_least:
        raise ValueError(f"{name} is {value}, but it must be at least {at_least}")
    if at_most is not None and value > at_most:
        raise ValueError(f"{name} is {value}, but it must be at most {at_most}")
    return int(value)


def number(name: str, value, at_least: float | None = None, above: float | None = None) -> float:
    """Return `value` as a finite float, or raise TypeError or ValueError."""
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"{name} must be a number, not {value!r}")
    if not math.isfinite(value):
        raise ValueError(f"{name} is {value}, but it must be finite")
    if at_least is not None and value < at_least:
        raise ValueError(f"{name} is {value}, but it must be at least {at_least}")
    if above is not None and value <= above:
        raise ValueError(f"{name} is {value}, but it must be above {above}")
    return float(value)


def one_of(name: str, value, choices: Iterable) -> object:
    """Return `value` if it is among `choices`, or raise ValueError naming them."""
    choices = list(choices)
    if value not in choices:
        raise ValueError(f"{name} is {value!r}, which is not known: choose one of {', '.join(map(repr, choices))}")
    return value


def rng(seed: int, purpose: str, *more: int) -> np.random.Generator:
    """The stream of random numbers of `seed` for one purpose, such as "web.pages".

    Every place that draws has a stream of its own, named and not numbered, so that no two of them share one by chance
    and a further draw in one place changes nothing in another.

    Args:
        more: what else tells streams apart, such as the world or a person's number.

    Raises:
        TypeError, ValueError: a seed that is no integer, or negative; an empty purpose.
    """
    if not isinstance(purpose, str) or not purpose:
        raise ValueError(f"purpose is {purpose!r}: say in a word what is drawn, such as 'web.pages'")
    name = int.from_bytes(hashlib.sha256(purpose.encode()).digest()[:8], "little")
    return np.random.default_rng([name, *(integer("seed", s, at_least=0) for s in (seed, *more))])


def derived_seed(seed: int, purpose: str) -> int:
    """A seed of its own for one purpose, such as the cell of a sweep, or for a generator that is not numpy's."""
    return int(rng(seed, purpose).integers(2**63 - 1))
