"""What a claim is, and the rule that gives its verdict.

A claim says which conditions are compared, on which metric, in which direction and by what margin. Verdicts:

  reproduced      the effect clears the margin with every seed
  direction only  with every seed the effect has the claimed sign, and its mean reaches half the margin
  opposite        with every seed the effect has the other sign, and its mean reaches half the margin the other way
  not reproduced  anything else

A mean alone has a sign by chance; asking every seed, and half the margin, is what keeps noise from being called a
direction. Of a negative control, in which the effect must not appear; one that is two-sided allows it in neither
direction:

  held            no seed shows more than the allowed effect
  broken          at least one seed shows more than the allowed effect

A check is what a control is, and cannot break unless there is a bug: a leak, or what is so by definition. It is counted
apart:

  passed          no seed shows more than the allowed effect, as it must be
  failed          at least one seed shows more than the allowed effect: look for the bug

The book's pages take these lines from here (book/_ext/meanings.py).

An entry that was changed after somebody had looked carries its first form, with the verdict under it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from .. import check

VERDICTS = {  # kind of entry -> what can be said of it
    "claim": ("reproduced", "direction only", "not reproduced", "opposite"),
    "control": ("held", "broken"),
    "check": ("passed", "failed"),
}
SHARES = ("share", "accuracy")  # how the unit of what lies between 0 and 1 begins
NOT_MEASURED = "not measured any more"  # a first form that the experiment as it is now cannot answer


@dataclass(frozen=True)
class Term:
    """One side of a comparison: the value of `metric` under `condition`, at one point of a curve where there is one."""

    condition: str
    metric: str
    at: Mapping[str, object] = field(default_factory=dict)

    def values(self, table: pd.DataFrame) -> pd.Series:
        """The value for every seed, indexed by seed."""
        for column, wanted in {"condition": self.condition, "metric": self.metric, **self.at}.items():
            if column not in table:
                raise ValueError(f"the table has no column {column!r}: it has {', '.join(table.columns)}")
            known = table[column].unique().tolist()
            table = table[table[column] == wanted]
            if table.empty:
                raise ValueError(f"the table has no {column} {wanted!r} here: there is {', '.join(map(repr, known))}")
        if table["seed"].duplicated().any():
            raise ValueError(
                f"{self} meets more than one row per seed: name the point of the curve, (condition, metric, point)"
            )
        return table.set_index("seed")["value"].sort_index()


@dataclass(frozen=True)
class Entry:
    """One line of the ledger: a claim, or a control, whose effect is `left` minus `right`."""

    id: str
    kind: str  # "claim", "control" or "check"
    statement: str
    left: Term
    right: Term | float  # a number is a fixed level, such as chance or perfection
    margin: float  # claim: the least effect that counts; control: the greatest that is allowed
    direction: int  # +1: left is the larger; -1: the smaller; 0 (controls only): neither may be
    paper: str  # what the paper found, in its figures
    source: str  # key of the bibliography
    unit: str  # of the effect
    first: Entry | None = None  # as it was first written, where this can still be measured
    since: str = ""  # what was changed after somebody had looked

    def __post_init__(self):
        check.number("margin", self.margin, above=0)
        check.one_of("direction", self.direction, (1, -1) if self.kind == "claim" else (1, -1, 0))

    @property
    def terms(self) -> tuple[Term, ...]:
        mine = (self.left, self.right) if isinstance(self.right, Term) else (self.left,)
        return mine + (self.first.terms if self.first else ())

    @property
    def expect(self) -> str:
        if self.direction == 0:
            return f"within ±{self.margin:.2f}"
        least = self.kind == "claim"  # a claim has a least effect, a control a greatest
        sign = self.direction if least else -self.direction
        return f"at {'least' if sign > 0 else 'most'} {self.direction * self.margin:+.2f}"

    def effect(self, table: pd.DataFrame) -> pd.Series:
        left = self.left.values(table)
        if not isinstance(self.right, Term):
            return left - self.right
        right = self.right.values(table)
        if list(left.index) != list(right.index):
            raise ValueError(
                f"{self.id}: the two sides were run with different seeds: {list(left.index)}, {list(right.index)}"
            )
        return left - right

    def best(self, table: pd.DataFrame) -> float | None:
        """The largest effect in the entry's direction that one of its sides could show, the other being what it is.

        None where the unit is no share from 0 to 1. A control whose best is within its allowance cannot break.
        """
        if not self.unit.startswith(SHARES):
            return None
        left = self.left.values(table).mean()
        if isinstance(self.right, Term):
            right = self.right.values(table).mean()
            up, down = [1 - right, left], [right, 1 - left]
        else:  # a fixed level does not move
            up, down = [1 - self.right], [self.right]
        return float(max({1: up, -1: down, 0: up + down}[self.direction]))


def verdict(effects, margin: float, direction: int = 1, kind: str = "claim") -> str:
    """The verdict on the effects of all seeds; see the head of this module for the rule.

    Raises:
        ValueError: no effects, or one that is not finite.
    """
    e = np.asarray(effects, dtype=float)
    if e.size == 0 or not np.isfinite(e).all():
        raise ValueError(f"a verdict needs a finite effect for every seed, not {e.tolist()}")
    e = np.round(e * direction if direction else np.abs(e), 9)  # 0.9 - 0.8 is a hair below 0.1: a tie clears it
    if kind != "claim":
        good, bad = VERDICTS[kind]
        return good if (e <= margin).all() else bad
    if (e >= margin).all():
        return "reproduced"
    if (e > 0).all() and e.mean() >= margin / 2:
        return "direction only"
    if (e < 0).all() and e.mean() <= -margin / 2:
        return "opposite"
    return "not reproduced"
