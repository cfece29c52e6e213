"""Ids of the ledgers become links to their rows, wherever a page names one.

In prose an id stands in emphasis, *small-shifts-best*, or with its chapter, *rot13: small-shifts-best*. An id of the
page's own chapter goes before one of another; one that several other chapters have needs its chapter. In the tables of
class `robustness` the first column names the chapter; there verdicts get their mark, too.
"""

from __future__ import annotations

import re
from pathlib import Path

import scoreboard
from docutils import nodes

from tools.notebooks import VERDICTS, ledgers, notebooks

WORDS = {v for vs in VERDICTS.values() for v in vs}


class Rows:
    """Where the rows of the ledgers are, as seen from one page."""

    def __init__(self, app, docname: str):
        self.app, self.docname = app, docname
        self.docs: dict[str, str] = {}
        self.ids: dict[str, set[str]] = {}
        for doc, file in notebooks(Path(app.srcdir)).items():
            for ledger in ledgers(file):
                self.docs[ledger["chapter"]] = doc
                self.ids[ledger["chapter"]] = {e["id"] for e in ledger["entries"]}

    def chapter(self, text: str) -> tuple[str, str] | None:
        """(chapter, id) that `text` names; None where it names no row, or cannot say which."""
        before, colon, id = text.rpartition(": ")
        if colon:
            return (before, id) if id in self.ids.get(before, ()) else None
        having = [c for c, ids in self.ids.items() if text in ids]
        own = [c for c in having if self.docs[c] == self.docname]
        return ((own or having)[0], text) if own or len(having) == 1 else None

    def link(self, chapter: str, id: str, text: str) -> nodes.reference:
        doc = self.docs[chapter]
        there = "" if doc == self.docname else self.app.builder.get_relative_uri(self.docname, doc)
        return nodes.reference("", text, refuri=f"{there}#claim-{id}", internal=True, classes=["claim-id"])


def mark(text: str) -> list[nodes.Node]:
    """ "reproduced (+0.98)" with its mark; anything else as it is."""
    found = re.fullmatch(r"([a-z ]+?)( \([^)]*\))?", text)
    if not found or found[1] not in WORDS:
        return [nodes.Text(text)]
    return [scoreboard.mark(found[1]), nodes.Text(found[2] or "")]


def in_prose(rows: Rows, doctree: nodes.document) -> None:
    for node in list(doctree.findall(nodes.emphasis)):
        where = rows.chapter(node.astext())
        linked = isinstance(node.parent, nodes.reference) or any(
            isinstance(child, nodes.reference) for child in node.children
        )
        if where and not linked:
            node.replace_self(nodes.emphasis("", "", rows.link(*where, node.astext())))


def in_tables(rows: Rows, doctree: nodes.document) -> None:
    for table in doctree.findall(nodes.table):
        if "robustness" not in table["classes"]:
            continue
        for body in table.findall(nodes.tbody):
            for row in body:
                texts = [cell.astext() for cell in row]
                for cell, text in zip(row, texts, strict=True):
                    if len(cell) == 1 and all(isinstance(c, nodes.Text) for c in cell[0].children):
                        named = text in rows.ids.get(texts[0], ())
                        cell[0][:] = [rows.link(texts[0], text, text)] if named else mark(text)


def link_ids(app, doctree: nodes.document, docname: str) -> None:
    rows = Rows(app, docname)
    in_prose(rows, doctree)
    in_tables(rows, doctree)


def setup(app):
    app.connect("doctree-resolved", link_ids)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
