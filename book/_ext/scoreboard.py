"""The scoreboard: every claim of every chapter with its verdict, read from the committed notebooks and nothing else.

Two directives. `{scoreboard}` has the tables with their filters; `{scoreboard-summary}` counts them, in one sentence
and in one mark for each verdict, and beside it what was confirmed on fresh seeds. A chapter's ledger is the output of
type `application/vnd.alignlab.ledger+json` in its notebook. The numbers stand in one place only, so that the page
cannot disagree with a chapter.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path

from board_filters import SCRIPT, css, filters
from docutils import nodes
from sphinx.errors import ExtensionError
from sphinx.util.docutils import SphinxDirective
from strips import amount, svg

from tools import confirm
from tools.notebooks import VERDICTS, ledgers, notebooks


def collect(directive: SphinxDirective) -> list[tuple[str, dict]]:
    """(docname, ledger) for every ledger of the book; the page is built again when one of the files changes."""
    root = Path(directive.env.srcdir)
    directive.env.note_dependency(str(root / "_toc.yml"))
    found = []
    for docname, file in notebooks(root).items():
        directive.env.note_dependency(str(file))
        try:
            found += [(docname, ledger) for ledger in ledgers(file)]
        except ValueError as e:
            raise ExtensionError(f"scoreboard: {e}") from None
    return found


BOARD, ROBUST = "book/scoreboard", "book/robust"  # the pages
LINES, EXCEPTIONS, FRESH = "every-line", "not-as-claimed", "on-seeds-that-nobody-had-used"  # sections of them
NOT_CONFIRMED = "None of these lines has been confirmed on fresh seeds in its present form."
NOTHING = "No chapter has measured anything yet: the scoreboard is empty."


def cited(env, key: str) -> bool:
    """Is `key` an entry of the bibliography? A source may also be plain text, or missing for a control of our own."""
    return any(
        re.search(rf"^@\w+\{{\s*{re.escape(key)}\s*,", (Path(env.srcdir) / bib).read_text("utf-8"), re.MULTILINE)
        for bib in env.config.bibtex_bibfiles
    )


def confirmed(directive: SphinxDirective, found: list[tuple[str, dict]]) -> dict[tuple[str, str], dict[str, str]]:
    """(chapter, id) -> the line of its confirmation on fresh seeds, for chapters confirmed in their present form."""
    for file in (confirm.RECORD, confirm.SEEDS):
        directive.env.note_dependency(str(file))
    files = notebooks(Path(directive.env.srcdir))
    return {(row["chapter"], row["entry"]): row for doc, _ in found for row in confirm.confirmed(files[doc])}


def mark(verdict: str, count: int | None = None) -> nodes.inline:
    """A verdict as the reader sees it everywhere, with how often it was given where that is asked."""
    words = verdict if count is None else f"{count} {verdict}"
    return nodes.inline("", words, classes=["verdict", f"verdict-{css(verdict)}"])


class Scoreboard(SphinxDirective):
    """What did not come out as claimed, and then every line, chapter by chapter, each with its strip."""

    has_content = False
    head = ("Verdict", "Claim, control or check", "Paper", "Required and ours, every seed")
    widths = (15, 35, 19, 31)

    def run(self) -> list[nodes.Node]:
        found = [(doc, ledger) for doc, ledger in collect(self) if ledger["entries"]]
        if not found:
            return [nodes.paragraph("", NOTHING)]
        self.fresh = confirmed(self, found)
        rows = [(doc, ledger, entry) for doc, ledger in found for entry in ledger["entries"]]
        other = [row for row in rows if row[2]["verdict"] != VERDICTS[row[2]["kind"]][0]]
        every = section("Every line, by chapter", LINES, nodes.raw("", filters(rows), format="html"))
        for docname, ledger in found:
            marks = tally(ledger["entries"], False, lambda _, doc=docname: self.uri(doc, "the-ledger"))
            marks += self.link(docname, "the-ledger", "the ledger in its chapter")
            lines = self.table("scoreboard", [(docname, ledger, entry) for entry in ledger["entries"]])
            every += section(ledger["title"], f"of-{ledger['chapter']}", marks, lines, classes=["board-chapter"])
        every += nodes.raw("", SCRIPT, format="html")
        said = f"{len(other)} of {len(rows)} lines. They stand below again, each in its chapter."
        top = section("What did not come out as claimed", EXCEPTIONS, nodes.paragraph("", said))
        if other:
            top += self.table("exceptions", other)
        top["classes"].append("board-exceptions")
        return [top, every]

    def table(self, name: str, rows: list[tuple[str, dict, dict]]) -> nodes.table:
        group = nodes.tgroup("", cols=len(self.head))
        group += [nodes.colspec("", colwidth=w) for w in self.widths]
        group += nodes.thead("", line([[nodes.paragraph("", h)] for h in self.head]))
        body = nodes.tbody("")
        for docname, ledger, entry in rows:
            classes = [f"is-{css(entry['verdict'])}", f"of-{ledger['chapter']}", f"kind-{entry['kind']}"]
            ids = [f"{ledger['chapter']}-{entry['id']}"] if name == "scoreboard" else []
            body += line(self.cells(docname, ledger, entry, named=not ids), ids=ids, classes=classes)
        group += body
        return nodes.table("", group, classes=["ledger", name])

    def uri(self, docname: str, anchor: str) -> str:
        return f"{self.env.app.builder.get_relative_uri(self.env.docname, docname)}#{anchor}"

    def link(self, docname: str, anchor: str, text: str) -> nodes.reference:
        return nodes.reference("", text, refuri=self.uri(docname, anchor), internal=True)

    def cells(self, docname: str, ledger: dict, entry: dict, named: bool) -> list[list[nodes.Node]]:
        """The four cells of a line; `named`: the name of its chapter is not in sight."""
        fresh = self.fresh.get((ledger["chapter"], entry["id"]))
        kind = [nodes.emphasis("", f"{entry['kind'].capitalize()}: ")] if entry["kind"] != "claim" else []
        id = self.link(docname, f"claim-{entry['id']}", entry["id"])
        id["classes"].append("claim-id")
        chapter = [nodes.Text(" of "), nodes.inline("", ledger["title"])] if named else []
        paper: list[nodes.Node] = [nodes.Text(entry["paper"])]
        if entry["source"] and cited(self.env, entry["source"]):
            paper += [nodes.Text(" "), *self.parse_inline(f"{{cite:p}}`{entry['source']}`", lineno=self.lineno)[0]]
        elif entry["source"]:
            paper.append(nodes.Text(f" ({entry['source']})"))
        values = [float(v) for v in fresh["values"].split()] if fresh else []
        words = [nodes.Text(f"{entry['expect']} {entry['unit']}; ours "), nodes.strong("", amount(entry["mean"]))]
        verdict = [mark(entry["verdict"]), *at_first(entry)]
        if fresh:
            words.append(nodes.Text(f", confirmed {amount(float(fresh['mean']))}"))
            verdict.append(
                nodes.inline("", "", nodes.Text("confirmed: "), mark(fresh["verdict"]), classes=["confirmed-as"])
            )
        return [
            [nodes.paragraph("", "", *verdict)],
            [nodes.paragraph("", "", *kind, nodes.Text(entry["statement"] + " "), id, *chapter)],
            [nodes.paragraph("", "", *paper)],
            [
                nodes.raw("", svg(entry, values), format="html"),
                nodes.paragraph("", "", *words, classes=["strip-words"]),
            ],
        ]


def section(title: str, id: str, *inside: nodes.Node, classes: Sequence[str] = ()) -> nodes.section:
    return nodes.section("", nodes.title("", title), *inside, ids=[id], names=[id], classes=list(classes))


def line(cells: list[list[nodes.Node]], **attributes) -> nodes.row:
    return nodes.row("", *[nodes.entry("", *cell) for cell in cells], **attributes)


def at_first(entry: dict) -> list[nodes.Node]:
    """Of a line that was changed after somebody had looked: its verdict as first written."""
    if "first" not in entry:
        return []
    return [nodes.inline("", f" as first written: {entry['first']['verdict']}", classes=["first-form"])]


class Summary(SphinxDirective):
    """One sentence that counts the scoreboard, and the same counts as marks of one size, the zeros too."""

    has_content = False

    def run(self) -> list[nodes.Node]:
        found = collect(self)
        entries = [entry for _, ledger in found for entry in ledger["entries"]]
        said = nodes.paragraph("", sentence(found))
        if not entries:
            return [said]
        there = self.env.app.builder.get_relative_uri(self.env.docname, BOARD)
        # A book in one file has no filters.
        plain = self.env.app.builder.name == "epub"
        to = (lambda _: f"{there}#{LINES}") if plain else (lambda verdict: f"{there}?verdict={css(verdict)}#{LINES}")
        fresh = list(confirmed(self, found).values())
        again = tally(fresh, False)
        again["classes"] = ["tally", "confirmed-tally"]
        words = f"Confirmed on fresh seeds, {len(fresh)} of these {len(entries)} lines:" if fresh else NOT_CONFIRMED
        robust = self.env.app.builder.get_relative_uri(self.env.docname, ROBUST)
        link = nodes.reference("", words, refuri=f"{robust}#{FRESH}", internal=True)
        again.insert(0, [link, nodes.Text(" ")])
        return [said, tally(entries, True, to), nodes.container("", again)]


def tally(entries: list[dict], zeros: bool = True, to: Callable[[str], str] | None = None) -> nodes.paragraph:
    """How often each verdict was given, as marks; the verdicts that nobody got only where `zeros` are wanted.

    `to` gives the address to which the mark of a verdict leads.
    """
    given = [entry["verdict"] for entry in entries]
    line = nodes.paragraph("", classes=["tally"])
    for verdict in (v for vs in VERDICTS.values() for v in vs if zeros or v in given):
        one: nodes.Node = mark(verdict, given.count(verdict))
        if to:
            one = nodes.reference("", "", one, refuri=to(verdict), internal=True, classes=["verdict-link"])
        line += [one, nodes.Text(" ")]
    return line


def sentence(found: list[tuple[str, dict]]) -> str:
    """How many lines of each kind, over how many chapters, by verdict. Verdicts that nobody got are named too."""
    entries = [entry for _, ledger in found for entry in ledger["entries"]]
    if not entries:
        return NOTHING
    chapters = len({doc for doc, ledger in found if ledger["entries"]})
    parts = []
    for kind, verdicts in VERDICTS.items():
        mine = [e["verdict"] for e in entries if e["kind"] == kind]
        counts = ", ".join(f"{mine.count(v)} {v}" for v in verdicts)
        parts.append(f"{len(mine)} {kind}{'' if len(mine) == 1 else 's'} ({counts})")
    changed = sum("first" in e for e in entries)
    return (
        f"So far: {', '.join(parts[:-1])} and {parts[-1]}, from {chapters} chapter{'' if chapters == 1 else 's'}; "
        f"{changed} of these lines were changed after a first look, and say so."
    )


def setup(app):
    app.add_directive("scoreboard", Scoreboard)
    app.add_directive("scoreboard-summary", Summary)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
