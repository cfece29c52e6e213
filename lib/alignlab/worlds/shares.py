"""Shares as whole numbers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from .. import check


def whole(shares: Mapping, count: int, what: str, known: Iterable) -> dict:
    """Shares of `count` as whole numbers that add up to it, by largest remainders; the shares need not sum to 1.

    Args:
        what: what is shared out, in a word, for messages, such as "register".
        known: the keys that may be named.

    Raises:
        ValueError: an unknown key, a negative share, or shares that are all zero.
    """
    count, known = check.integer("count", count, at_least=1), list(known)
    for name, share in shares.items():
        check.one_of(what, name, known)
        check.number(f"the share of {what} {name}", share, at_least=0)
    total = sum(shares.values())
    if total <= 0:
        raise ValueError(f"the shares {dict(shares)} leave nothing to write: give at least one {what} a share")
    exact = {n: count * s / total for n, s in shares.items()}
    number = {n: int(e) for n, e in exact.items()}
    for n in sorted(exact, key=lambda n: number[n] - exact[n])[: count - sum(number.values())]:
        number[n] += 1
    return number
