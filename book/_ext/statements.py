"""The lecture, statement by statement: `{statements}` sets beside each the chapters and claims that test it.

What is said stands in book/_data/lecture.csv: number, statement, and `chapter: claim claim; chapter: claim`. Verdicts
are read from the committed notebooks when the site is built. A chapter that _toc.yml does not have yet is left out.
"""

from __future__ import annotations

import csv
from pathlib import Path

import scoreboard
from docutils import nodes
from sphinx.errors import ExtensionError
from sphinx.util.docutils import SphinxDirective

TABLE = "book/_data/lecture.csv"
NOT_YET = "no chapter yet"


def places(where: str) -> dict[str, list[str]]:
    """Chapter -> the ids of its claims, from the third column."""
    found = {}
    for part in where.split(";"):
        chapter, colon, ids = part.partition(":")
        if part.strip() and not colon:
            raise ValueError(f"{part.strip()!r} is not of the form 'chapter: claim claim'")
        if colon:
            found[chapter.strip()] = ids.split()
    return found


class Statements(SphinxDirective):
    """A table of three columns: number, statement, and what this book found."""

    def run(self) -> list[nodes.Node]:
        file = Path(self.env.srcdir) / TABLE
        self.env.note_dependency(str(file))
        ledgers = {ledger["chapter"]: (doc, ledger) for doc, ledger in scoreboard.collect(self)}
        with file.open(newline="", encoding="utf-8") as f:
            rows = list(csv.DictReader(f))
        group = nodes.tgroup("", cols=3)
        group += [nodes.colspec("", colwidth=w) for w in (5, 45, 50)]
        group += nodes.thead("", row([[nodes.paragraph("", t)] for t in ("", "The lecture", "Found here")]))
        body = nodes.tbody("")
        for r in rows:
            try:
                found = self.found(places(r["where"]), ledgers)
            except ValueError as e:
                raise ExtensionError(f"{TABLE}, statement {r['number']}: {e}") from None
            cells = [nodes.paragraph("", r["number"])], [nodes.paragraph("", r["statement"])], found
            body += row(cells, ids=[f"statement-{r['number']}"])
        group += body
        return [nodes.table("", group, classes=["statements"])]

    def found(self, where: dict[str, list[str]], ledgers: dict[str, tuple]) -> list[nodes.Node]:
        lines = []
        for chapter, ids in where.items():
            if chapter not in ledgers:
                continue
            docname, ledger = ledgers[chapter]
            entries = {e["id"]: e for e in ledger["entries"]}
            for id in ids:
                if id not in entries:
                    raise ValueError(f"the ledger of {chapter} has no entry {id!r}: it has {', '.join(entries)}")
                there = f"{self.env.app.builder.get_relative_uri(self.env.docname, docname)}#claim-{id}"
                link = nodes.reference("", entries[id]["statement"], refuri=there, internal=True)
                lines.append(nodes.paragraph("", "", link, nodes.Text(" "), scoreboard.mark(entries[id]["verdict"])))
        return lines or [nodes.paragraph("", NOT_YET)]


def row(cells, **attributes) -> nodes.row:
    return nodes.row("", *[nodes.entry("", *cell) for cell in cells], **attributes)


def setup(app):
    app.add_directive("statements", Statements)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
