"""Claims, negative controls and checks; their verdicts on a table.

An entry cannot be changed, none can be added once a table has been checked, and no second table can be. What was
changed between two runs is said with `first` and `since`. The rule of the verdicts is in `claims`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import replace
from types import MappingProxyType

import numpy as np
import pandas as pd

from .. import check
from . import display
from .claims import NOT_MEASURED, Entry, Term, verdict

MIME = "application/vnd.alignlab.ledger+json"


class Ledger:
    """The claims of one chapter.

    A side of a comparison is a `Term`, or in short a tuple: `("varied", "held out")`, and with a point of the curve
    `("varied", "held out", 40)`, where `along` names the coordinate. The right side may be a number.

    Args:
        chapter: the notebook's slug, as in its file name.
        title: the chapter's title, for the scoreboard.
        along: the coordinate of the curve, or several, as in `sweep`.
        default: the point of the curve that a tuple of two means; with several coordinates, a tuple.
    """

    def __init__(self, chapter: str, title: str, profile: str = "quick", *, along=(), default=None):
        self.chapter, self.title, self.profile = chapter, title, profile
        self.along = (along,) if isinstance(along, str) else tuple(along)
        self._default = () if default is None else default if isinstance(default, tuple) else (default,)
        self._entries: dict[str, Entry] = {}
        self._effects: dict[str, pd.Series] = {}
        self._firsts: dict[str, pd.Series] = {}
        self._bests: dict[str, float | None] = {}

    @property
    def entries(self) -> Mapping[str, Entry]:
        """id -> entry, in the order in which they were written; read only."""
        return MappingProxyType(self._entries)

    @property
    def effects(self) -> Mapping[str, pd.Series]:
        """id -> effect by seed; empty before the measurement; read only."""
        return MappingProxyType(self._effects)

    def claim(self, id: str, statement: str, left, right=0.0, *, paper: str, source: str, **how) -> None:
        """Write down a claim: with every seed `left` exceeds `right` by `margin` (direction -1: falls short by it).

        Args:
            how: `margin`, and where they differ `direction` (1) and `unit` ("accuracy"). Where the claim was another
                before somebody had looked: `since`, what was changed, and `first`, a mapping of what its `margin`,
                `direction`, `left` or `right` were. Without `first` the old form can't be measured any more.
        """
        self._write("claim", id, statement, left, right, paper=paper, source=source, **how)

    def control(self, id: str, statement: str, left, right=0.0, *, two_sided: bool = False, **how) -> None:
        """Write down a negative control: with no seed may `left` exceed `right` by more than `margin`.

        Args:
            two_sided: nor may it fall short by more.
            how: as for `claim`; `paper` and `source` where the control is the paper's.
        """
        self._bounded("control", id, statement, left, right, two_sided, how)

    def sanity(self, id: str, statement: str, left, right=0.0, *, two_sided: bool = False, **how) -> None:
        """Write down a check: what a control is, and can fail only through a bug, as a leak of the test would be.

        Args:
            two_sided, how: as for `control`.
        """
        self._bounded("check", id, statement, left, right, two_sided, how)

    def _bounded(self, kind: str, id: str, statement: str, left, right, two_sided: bool, how: dict) -> None:
        if two_sided:
            if "direction" in how:
                raise ValueError(f"{id}: a two-sided {kind} has no direction: leave one of the two out")
            how["direction"] = 0
        self._write(kind, id, statement, left, right, **{"paper": f"none: our {kind}"} | how)

    def _write(
        self, kind, id, statement, left, right, *, margin: float, paper: str, direction: int = 1, source: str = "",
        unit: str = "accuracy", first: Mapping | None = None, since: str = "",
    ) -> None:  # fmt: skip
        if self._effects:
            raise RuntimeError(f"{id!r} comes after the measurement: claims are written before it")
        if id in self._entries:
            raise ValueError(f"the id {id!r} is used twice in this ledger: each line needs its own")
        left, right = self._term(id, left), self._term(id, right, number=True)
        entry = Entry(id, kind, statement, left, right, margin, direction, paper, source, unit, since=since)
        if first is not None:
            entry = replace(entry, first=self._first(entry, first))
        self._entries[id] = entry

    def _first(self, entry: Entry, first: Mapping) -> Entry:
        """The entry as it was first written: `first` has what is different now."""
        if not entry.since:
            raise ValueError(f"{entry.id}: it has a first form, but `since` does not say what was changed")
        for name in first:
            check.one_of("a part of the first form", name, ("margin", "direction", "left", "right"))
        sides = {k: self._term(entry.id, v, number=k == "right") for k, v in first.items() if k in ("left", "right")}
        before = replace(entry, **{**first, **sides}, since="")
        if before == replace(entry, since=""):
            raise ValueError(f"{entry.id}: its first form is the one that it has now: leave `first` out")
        return before

    def _term(self, id: str, side, number: bool = False) -> Term | float:
        if isinstance(side, Term):
            return side
        if number and not isinstance(side, tuple):
            return check.number("right", side)
        if not isinstance(side, tuple) or len(side) < 2:
            raise TypeError(f"{id}: a side is (condition, metric) or (condition, metric, point), not {side!r}")
        condition, metric, *at = side
        at = at or self._default
        if len(at) > len(self.along):
            raise ValueError(
                f"{id}: {side!r} names a point of the curve, but the ledger has "
                f"{f'only along={self.along}' if self.along else 'no along'}: name every coordinate there"
            )
        return Term(condition, metric, dict(zip(self.along, at, strict=False)))

    def refuse_unknown(self, conditions: Collection[str], besides: Collection[str] = ()) -> None:
        """Refuse entries about a condition that will not be run; `besides` names conditions and metrics to pass over.

        Raises:
            ValueError: with the entry's id, the condition and those that there are.
        """
        for id, term in self._asked(besides):
            if term.condition not in conditions:
                raise ValueError(
                    f"{id}: there is no condition {term.condition!r} among {', '.join(map(repr, conditions))}: correct "
                    "the entry, or name what comes from elsewhere in `besides`"
                )

    def refuse_unmeasured(self, cell: pd.DataFrame, besides: Collection[str] = ()) -> None:
        """Refuse entries that ask for what is not among the rows of one cell: a metric, or a point of its curve.

        Raises:
            ValueError: with the entry's id, what it asks for, and what there is.
        """
        condition = cell["condition"].iloc[0]
        for id, term in self._asked(besides):
            mine = term if term.condition == condition else Term(condition, term.metric)
            try:
                check.one_of("metric", term.metric, cell["metric"].unique())
                if mine is term:
                    mine.values(cell)
            except ValueError as error:
                raise ValueError(f"{id}: {error}; or name what comes from elsewhere in `besides`") from None

    def _asked(self, besides: Collection[str]) -> Iterator[tuple[str, Term]]:
        for id, entry in self._entries.items():
            yield from ((id, t) for t in entry.terms if t.condition not in besides and t.metric not in besides)

    def check(self, table: pd.DataFrame) -> Ledger:
        """Measure every entry on a table of `sweep`. Returns itself, to be shown.

        Raises:
            ValueError: no entries, or one that the table cannot answer.
            RuntimeError: another table has been checked already, with other effects.
        """
        if not self._entries:
            raise ValueError("the ledger is empty: write claims before checking a table")
        effects = {id: entry.effect(table) for id, entry in self._entries.items()}
        seeds = sorted(table["seed"].unique().tolist())
        for id, effect in effects.items():
            if effect.index.tolist() != seeds:
                had = effect.index.tolist()
                raise ValueError(f"{id}: it was run with the seeds {had}, the table has {seeds}: run all cells first")
            if not np.isfinite(effect).all():
                raise ValueError(f"{id}: the effect is not finite with every seed: {effect.to_dict()}")
            # The same cell run twice is no harm; a second table until one pleases is.
            if self._effects and not effect.equals(self._effects[id]):
                raise RuntimeError(
                    f"{id}: another table has been checked already: a ledger is measured once, so begin a new one"
                )
        self._effects = effects
        self._bests = {id: e.best(table) for id, e in self._entries.items() if e.kind == "control"}
        self._firsts = {id: e.first.effect(table) for id, e in self._entries.items() if e.first}
        return self

    def _measured(self) -> None:
        if not self._effects:
            raise RuntimeError("nothing has been measured yet: call check(table) first")

    def verdict(self, id: str) -> str:
        entry = self._entries[check.one_of("id", id, self._entries)]
        self._measured()
        return _came(entry, self._effects[id])["verdict"]

    def _at_first(self, entry: Entry) -> dict:
        """What a changed entry's first form comes to; nothing for one that was never changed."""
        if not entry.since:
            return {}
        if not entry.first:
            return {"since": entry.since, "first": {"verdict": NOT_MEASURED}}
        was = {"expect": entry.first.expect, **_came(entry.first, self._firsts[entry.id])}
        return {"since": entry.since, "first": was}

    def _could(self, id: str) -> dict:
        """Of a control: the largest effect that it could have shown, where that is known."""
        best = self._bests.get(id)
        return {} if best is None else {"best": round(best, 4)}

    def results(self) -> dict:
        """Everything the scoreboard needs, as plain JSON."""
        self._measured()
        entries = []
        for id, e in self._entries.items():
            entries.append(
                {
                    "id": id, "kind": e.kind, "statement": e.statement, "paper": e.paper, "source": e.source,
                    "expect": e.expect, "margin": e.margin, "unit": e.unit,
                    **_came(e, self._effects[id]), **self._could(id), **self._at_first(e),
                }
            )  # fmt: skip
        seeds = [int(s) for s in next(iter(self._effects.values())).index]
        return {
            "schema": 1, "chapter": self.chapter, "title": self.title, "profile": self.profile, "seeds": seeds,
            "entries": entries,
        }  # fmt: skip

    def lines(self) -> str:
        """One line per entry that noise cannot change unless the verdict changes: for strict comparison by nbval."""
        return display.lines(self.results()["entries"])

    def _shown(self, how: Callable[..., str]) -> str:
        return how(self._entries.values(), self.results()["entries"] if self._effects else ())

    def __repr__(self) -> str:
        return self._shown(display.plain)

    def _repr_html_(self) -> str:
        return self._shown(display.table)

    def _repr_mimebundle_(self, include=None, exclude=None) -> dict:
        bundle = {"text/plain": repr(self), "text/html": self._repr_html_()}
        if self._effects:
            bundle[MIME] = self.results()
        return bundle


def _came(entry: Entry, effect: pd.Series) -> dict:
    """What an entry came to, as JSON: mean, every seed's value, verdict."""
    return {
        "mean": round(float(effect.mean()), 4), "values": [round(float(v), 4) for v in effect],
        "verdict": verdict(effect, entry.margin, entry.direction, entry.kind),
    }  # fmt: skip
