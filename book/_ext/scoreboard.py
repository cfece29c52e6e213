"""The scoreboard: every claim of every chapter with its verdict, read from the committed notebooks and nothing else.

Two directives. `{scoreboard}` is the table with its filters; `{scoreboard-summary}` counts it, in one sentence and in
one mark for each verdict. A chapter's ledger is the output of type `application/vnd.alignlab.ledger+json` in its
notebook. The numbers stand in one place only, so that the page cannot disagree with a chapter.
"""

from __future__ import annotations

import html
import re
from pathlib import Path

from docutils import nodes
from sphinx import addnodes
from sphinx.errors import ExtensionError
from sphinx.util.docutils import SphinxDirective

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


NOTHING = "No chapter has measured anything yet: the scoreboard is empty."


def cited(env, key: str) -> bool:
    """Is `key` an entry of the bibliography? A source may also be plain text, or missing for a control of our own."""
    return any(
        re.search(rf"^@\w+\{{\s*{re.escape(key)}\s*,", (Path(env.srcdir) / bib).read_text("utf-8"), re.MULTILINE)
        for bib in env.config.bibtex_bibfiles
    )


def amount(value: float) -> str:
    return f"{value:+.2f}".replace("-", "\N{MINUS SIGN}")


def css(verdict: str) -> str:
    return verdict.replace(" ", "-")


def mark(verdict: str, count: int | None = None) -> nodes.inline:
    """A verdict as the reader sees it everywhere, with how often it was given where that is asked."""
    words = verdict if count is None else f"{count} {verdict}"
    return nodes.inline("", words, classes=["verdict", f"verdict-{css(verdict)}"])


# The menus are hidden until the script runs: without it they would do nothing.
FILTERS = """<form class="board-filters" aria-label="Filter the scoreboard" autocomplete="off" hidden>
<label>Verdict <select name="verdict">{verdicts}</select></label>
<label>Chapter <select name="chapter">{chapters}</select></label>
<label>Kind <select name="kind">{kinds}</select></label>
<button type="reset">Show all</button>
<p role="status"></p>
</form>"""
SCRIPT = """<script>
(() => {
  const form = document.querySelector(".board-filters");
  const rows = [...document.querySelectorAll("table.scoreboard tbody tr")];
  const show = () => {
    const wanted = [...form.querySelectorAll("select")].map(s => s.value).filter(Boolean);
    for (const row of rows) row.hidden = !wanted.every(name => row.classList.contains(name));
    const left = rows.filter(row => !row.hidden).length;
    form.querySelector("[role=status]").textContent = left
      ? `${left} of ${rows.length} lines shown` : "No line of the ledgers is like this.";
  };
  // What is chosen stands in the address: it can be sent to somebody, and comes back with the page.
  const restore = () => {
    const asked = new URLSearchParams(location.search);
    for (const s of form.querySelectorAll("select")) {
      const value = asked.get(s.name) ?? "";
      s.value = [...s.options].some(o => o.value === value) ? value : "";
    }
    show();
  };
  const remember = () => {
    const chosen = [...form.querySelectorAll("select")].filter(s => s.value).map(s => [s.name, s.value]);
    const search = new URLSearchParams(chosen).toString();
    history.replaceState(null, "", (search ? `?${search}` : location.pathname) + location.hash);
    show();
  };
  form.addEventListener("change", remember);
  form.addEventListener("reset", () => setTimeout(remember));
  addEventListener("pageshow", restore);
  form.hidden = false;
  restore();
})();
</script>"""


def filters(rows: list[tuple[str, dict, dict]]) -> str:
    """The three menus over the table. Every verdict can be chosen, also one that nobody got."""
    entries = [entry for _, _, entry in rows]
    chapters = {ledger["chapter"]: ledger["title"] for _, ledger, _ in rows}
    return FILTERS.format(
        verdicts=options(
            "any verdict",
            {f"is-{css(v)}": (v, sum(e["verdict"] == v for e in entries)) for vs in VERDICTS.values() for v in vs},
        ),
        chapters=options(
            "all chapters",
            {f"of-{c}": (title, sum(ledger["chapter"] == c for _, ledger, _ in rows)) for c, title in chapters.items()},
        ),
        kinds=options(
            "all kinds", {f"kind-{k}": (k + "s only", sum(e["kind"] == k for e in entries)) for k in VERDICTS}
        ),
    )


def options(everything: str, choices: dict[str, tuple[str, int]]) -> str:
    lines = [f'<option value="">{everything}</option>']
    for value, (text, count) in choices.items():
        lines.append(f'<option value="{html.escape(value)}">{html.escape(text)} ({count})</option>')
    return "".join(lines)


class Scoreboard(SphinxDirective):
    """The table: chapter, statement, paper, expectation, ours with every seed, verdict."""

    has_content = False
    head = ("Chapter", "Claim, control or check", "Paper", "Required here", "Ours: mean [every seed]", "Verdict")
    widths = (16, 28, 17, 12, 14, 13)

    def run(self) -> list[nodes.Node]:
        rows = [(doc, ledger, entry) for doc, ledger in collect(self) for entry in ledger["entries"]]
        if not rows:
            return [nodes.paragraph("", NOTHING)]
        table = nodes.table("", classes=["ledger", "scoreboard"])
        group = nodes.tgroup("", cols=len(self.head))
        group += [nodes.colspec("", colwidth=w) for w in self.widths]
        group += nodes.thead("", self.row([[nodes.Text(h)] for h in self.head]))
        group += nodes.tbody("", *[self.entry(*row) for row in rows])
        table += group
        return [
            nodes.raw("", filters(rows), format="html"),
            nodes.container("", table, classes=["ledger-box"]),
            nodes.raw("", SCRIPT, format="html"),
        ]

    def row(self, cells: list[list[nodes.Node]], **attributes) -> nodes.row:
        return nodes.row("", *[nodes.entry("", nodes.paragraph("", "", *cell)) for cell in cells], **attributes)

    def link(self, docname: str, id: str) -> nodes.reference:
        """The entry's id, which leads to its row in the chapter."""
        there = self.env.app.builder.get_relative_uri(self.env.docname, docname)
        return nodes.reference("", id, refuri=f"{there}#claim-{id}", internal=True, classes=["claim-id"])

    def entry(self, docname: str, ledger: dict, entry: dict) -> nodes.row:
        chapter = addnodes.pending_xref(
            "", nodes.inline("", ledger["title"]), refdomain="std", reftype="doc", reftarget="/" + docname,
            refdoc=self.env.docname, refexplicit=True, refwarn=True,
        )  # fmt: skip
        kind = [nodes.emphasis("", f"{entry['kind'].capitalize()}: ")] if entry["kind"] != "claim" else []
        paper: list[nodes.Node] = [nodes.Text(entry["paper"])]
        if entry["source"] and cited(self.env, entry["source"]):
            paper += [nodes.Text(" "), *self.parse_inline(f"{{cite:p}}`{entry['source']}`", lineno=self.lineno)[0]]
        elif entry["source"]:
            paper.append(nodes.Text(f" ({entry['source']})"))
        each = ", ".join(map(amount, entry["values"]))
        return self.row(
            [
                [chapter],
                [*kind, nodes.Text(entry["statement"] + " "), self.link(docname, entry["id"])],
                paper,
                [nodes.Text(f"{entry['expect']} {entry['unit']}")],
                [nodes.strong("", amount(entry["mean"])), nodes.Text(f" [{each}]")],
                [mark(entry["verdict"]), *at_first(entry)],
            ],
            ids=[f"{ledger['chapter']}-{entry['id']}"],
            classes=[f"is-{css(entry['verdict'])}", f"of-{ledger['chapter']}", f"kind-{entry['kind']}"],
        )


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
        return [nodes.paragraph("", sentence(found)), *([tally(entries)] if entries else [])]


def tally(entries: list[dict], zeros: bool = True) -> nodes.paragraph:
    """How often each verdict was given, as marks; the verdicts that nobody got only where `zeros` are wanted."""
    given = [entry["verdict"] for entry in entries]
    marks = [mark(v, given.count(v)) for vs in VERDICTS.values() for v in vs if zeros or v in given]
    line = nodes.paragraph("", classes=["tally"])
    for one in marks:
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
