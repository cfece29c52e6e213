"""Claims and negative controls, written down before the measurement; verdicts after it.

A claim says which conditions are compared, on which metric, in which direction and by what margin. It cannot be
changed once a table has been checked. Verdicts:

  reproduced      the effect clears the margin with every seed
  direction only  with every seed the effect has the claimed sign, and its mean reaches half the margin
  opposite        with every seed the effect has the other sign, and its mean reaches half the margin the other way
  not reproduced  anything else

A mean alone has a sign by chance; asking every seed, and half the margin, is what keeps noise from being called a
direction. A negative control is held when no seed shows more than the allowed effect, otherwise it is broken.
"""

from __future__ import annotations

import html
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from .. import check

MIME = "application/vnd.alignlab.ledger+json"
VERDICTS = {  # kind of entry -> what can be said of it
    "claim": ("reproduced", "direction only", "not reproduced", "opposite"),
    "control": ("held", "broken"),
}


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
            known = table[column].unique()
            table = table[table[column] == wanted]
            if table.empty:
                raise ValueError(f"the table has no {column} {wanted!r} here: there is {', '.join(map(repr, known))}")
        if table["seed"].duplicated().any():
            raise ValueError(f"{self} meets more than one row per seed: name the point of the curve with `at`")
        return table.set_index("seed")["value"].sort_index()


@dataclass(frozen=True)
class Entry:
    """One line of the ledger: a claim, or a control, whose effect is `left` minus `right`."""

    id: str
    kind: str  # "claim" or "control"
    statement: str
    left: Term
    right: Term | float  # a number is a fixed level, such as chance or perfection
    margin: float  # claim: the least effect that counts; control: the greatest that is allowed
    direction: int  # +1: left is the larger; -1: the smaller
    paper: str
    source: str
    unit: str

    @property
    def expect(self) -> str:
        if self.kind == "control":
            return f"at most {self.margin:+.2f}" if self.direction > 0 else f"at least {-self.margin:+.2f}"
        return f"at least {self.margin:+.2f}" if self.direction > 0 else f"at most {-self.margin:+.2f}"

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


def verdict(effects, margin: float, direction: int = 1, kind: str = "claim") -> str:
    """The verdict on the effects of all seeds; see the head of this module for the rule.

    Raises:
        ValueError: no effects, or one that is not finite.
    """
    e = np.asarray(effects, dtype=float) * direction
    if e.size == 0 or not np.isfinite(e).all():
        raise ValueError(f"a verdict needs a finite effect for every seed, not {np.asarray(effects).tolist()}")
    if kind == "control":
        return "held" if (e <= margin).all() else "broken"
    if (e >= margin).all():
        return "reproduced"
    if (e > 0).all() and e.mean() >= margin / 2:
        return "direction only"
    if (e < 0).all() and e.mean() <= -margin / 2:
        return "opposite"
    return "not reproduced"


class Ledger:
    """The claims of one chapter.

    Args:
        chapter: the notebook's slug, as in its file name.
        title: the chapter's title, for the scoreboard.
    """

    def __init__(self, chapter: str, title: str, profile: str = "quick"):
        self.chapter, self.title, self.profile = chapter, title, profile
        self.entries: dict[str, Entry] = {}
        self.effects: dict[str, pd.Series] = {}

    def claim(
        self,
        id: str,
        statement: str,
        left: Term,
        right: Term | float = 0.0,
        *,
        margin: float,
        direction: int = 1,
        paper: str,
        source: str,
        unit: str = "accuracy",
    ) -> None:
        """Write down a claim: with every seed `left` exceeds `right` by `margin` (direction -1: falls short by it)."""
        self._write(Entry(id, "claim", statement, left, right, margin, direction, paper, source, unit))

    def control(
        self,
        id: str,
        statement: str,
        left: Term,
        right: Term | float = 0.0,
        *,
        margin: float,
        direction: int = 1,
        paper: str = "none: our control",
        source: str = "",
        unit: str = "accuracy",
    ) -> None:
        """Write down a negative control: with no seed may `left` exceed `right` by more than `margin`."""
        self._write(Entry(id, "control", statement, left, right, margin, direction, paper, source, unit))

    def _write(self, entry: Entry) -> None:
        if self.effects:
            raise RuntimeError(f"{entry.id!r} comes after the measurement: claims are written before it")
        if entry.id in self.entries:
            raise ValueError(f"the id {entry.id!r} is used twice in this ledger: each line needs its own")
        check.number("margin", entry.margin, above=0)
        check.one_of("direction", entry.direction, (1, -1))
        self.entries[entry.id] = entry

    def check(self, table: pd.DataFrame) -> Ledger:
        """Measure every entry on a table of `alignlab.sweep`. Returns itself, to be shown."""
        if not self.entries:
            raise ValueError("the ledger is empty: write claims before checking a table")
        effects = {id: entry.effect(table) for id, entry in self.entries.items()}
        for id, effect in effects.items():
            if not np.isfinite(effect).all():
                raise ValueError(f"{id}: the effect is not finite with every seed: {effect.to_dict()}")
        self.effects = effects
        return self

    def _measured(self) -> None:
        if not self.effects:
            raise RuntimeError("nothing has been measured yet: call check(table) first")

    def verdict(self, id: str) -> str:
        entry = self.entries[check.one_of("id", id, self.entries)]
        self._measured()
        return verdict(self.effects[id], entry.margin, entry.direction, entry.kind)

    def results(self) -> dict:
        """Everything the scoreboard needs, as plain JSON."""
        self._measured()
        lines = []
        for id, e in self.entries.items():
            effect = self.effects.get(id)
            lines.append(
                {
                    "id": id, "kind": e.kind, "statement": e.statement, "paper": e.paper, "source": e.source,
                    "expect": e.expect, "margin": e.margin, "unit": e.unit,
                    "mean": round(float(effect.mean()), 4), "values": [round(float(v), 4) for v in effect],
                    "verdict": self.verdict(id),
                }
            )  # fmt: skip
        seeds = [int(s) for s in next(iter(self.effects.values())).index]
        return {
            "schema": 1,
            "chapter": self.chapter,
            "title": self.title,
            "profile": self.profile,
            "seeds": seeds,
            "entries": lines,
        }

    def lines(self) -> str:
        """One line per entry that noise cannot change unless the verdict changes: for strict comparison by nbval."""
        self._measured()
        n = len(next(iter(self.effects.values())))
        out = []
        for id, e in self.entries.items():
            v = self.verdict(id)
            count = f" ({n} of {n} seeds)" if v in ("reproduced", "opposite", "held") else ""
            out.append(f"{e.kind:8}{id:31} {v}{count}")
        return "\n".join(out)

    def __repr__(self) -> str:
        if not self.effects:
            return "\n".join(f"{e.kind:8}{e.id:31} {e.expect} {e.unit}" for e in self.entries.values())
        return "\n".join(
            f"{r['kind']:8}{r['id']:31} {r['mean']:+.2f} [{', '.join(f'{v:+.2f}' for v in r['values'])}] "
            f"{r['expect']}: {r['verdict']}"
            for r in self.results()["entries"]
        )

    def _repr_html_(self) -> str:
        measured = bool(self.effects)
        rows = self.results()["entries"] if measured else [
            {"kind": e.kind, "statement": e.statement, "paper": e.paper, "expect": e.expect, "unit": e.unit}
            for e in self.entries.values()
        ]  # fmt: skip
        head = [
            "",
            "Statement",
            "Paper",
            "Required here",
            *(["Ours: mean [every seed]", "Verdict"] if measured else []),
        ]
        body = []
        for r in rows:
            cells = [html.escape(r["kind"]), html.escape(r["statement"]), html.escape(r["paper"]),
                     html.escape(f"{r['expect']} {r['unit']}")]  # fmt: skip
            if measured:
                each = ", ".join(f"{v:+.2f}" for v in r["values"])
                cells += [f"<b>{r['mean']:+.2f}</b> [{each}]", badge(r["verdict"])]
            body.append("<tr>" + "".join(f"<td>{c}</td>" for c in cells) + "</tr>")
        return (
            '<div class="ledger-box"><table class="ledger"><thead><tr>'
            + "".join(f"<th>{h}</th>" for h in head)
            + "</tr></thead><tbody>" + "".join(body) + "</tbody></table></div>"
        )  # fmt: skip

    def _repr_mimebundle_(self, include=None, exclude=None) -> dict:
        bundle = {"text/plain": repr(self), "text/html": self._repr_html_()}
        if self.effects:
            bundle[MIME] = self.results()
        return bundle


def badge(verdict: str) -> str:
    """A verdict as a small label; the word carries the meaning, the colour only repeats it."""
    check.one_of("verdict", verdict, [v for vs in VERDICTS.values() for v in vs])
    return f'<span class="verdict verdict-{verdict.replace(" ", "-")}">{verdict}</span>'
