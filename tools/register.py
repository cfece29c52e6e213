"""Register what the ledgers claim: a table that only grows, so that a claim cannot be changed without a word.

    python -m tools.register              every chapter
    python -m tools.register lima rot13   these

Each entry of a committed ledger is written into book/_data/claims.csv once, as it was first written (`first`, where it
has been changed since). The contract then names an entry that differs from its line and does not say so with `first`
and `since`.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from . import tables
from .arguments import parsed, parser
from .notebooks import ROOT, entries

TABLE = tables.DATA / "claims.csv"
COLUMNS = ("chapter", "entry", "kind", "statement", "required")


def read(table: Path | None = None) -> dict[tuple[str, ...], dict[str, str]]:
    """(chapter, entry) -> its line."""
    return tables.read(table or TABLE, "chapter", "entry")


def first(entry: Mapping) -> str:
    """What an entry required when it was first written, as far as that can still be measured."""
    return entry.get("first", {}).get("expect", entry["expect"])


def register(chapter: str, found: list[Mapping], table: Path | None = None) -> list[str]:
    """Write those entries that are not in the table yet, and return their ids. Nothing that stands there is changed."""
    rows = read(table)
    new = [e for e in found if (chapter, e["id"]) not in rows]
    added = [dict(zip(COLUMNS, (chapter, e["id"], e["kind"], e["statement"], first(e)), strict=True)) for e in new]
    tables.write([*rows.values(), *added], COLUMNS, table or TABLE)
    return [e["id"] for e in new]


def changed(chapter: str, found: list[Mapping], rows: Mapping[tuple[str, ...], Mapping[str, str]]) -> Iterator[str]:
    """What is wrong with a ledger's entries beside what was registered, in words that say the remedy."""
    for e in found:
        row = rows.get((chapter, e["id"]))
        if row is None:
            yield f"{e['id']} is not registered: make register NAME={chapter}"
        elif e.get("first", {}).get("expect", row["required"]) != row["required"]:
            yield f"{e['id']} was first registered with {row['required']!r}, and its first form says {first(e)!r}"
        elif "since" not in e:
            for name, now in (("kind", e["kind"]), ("statement", e["statement"]), ("required", e["expect"])):
                if row[name] != now:
                    yield (
                        f"{e['id']} was registered with the {name} {row[name]!r} and has {now!r} now, without its "
                        "first form: give it first={...} and since='...'"
                    )


def main(arguments: list[str] | None = None) -> int:
    for chapter in parsed(parser(__doc__), arguments).chapters:
        new = register(chapter, entries(ROOT / "notebooks" / f"{chapter}.ipynb"))
        print(f"{chapter}: {', '.join(new) or 'nothing new'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
