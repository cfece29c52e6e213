"""Confirmations on fresh seeds: `{confirmations}` lists for every chapter what came, beside what is committed.

Read from book/_data/confirmed.csv, to which `make confirm` adds and nobody else.
"""

from __future__ import annotations

from itertools import groupby
from pathlib import Path

import scoreboard
from docutils import nodes
from sphinx.util.docutils import SphinxDirective

from tools import confirm
from tools.notebooks import notebooks

HEAD = ("Chapter", "Line", "Committed", "Confirmed: mean [every seed]", "Verdict")


class Confirmations(SphinxDirective):
    """A sentence, and for every chapter its confirmations, the latest first."""

    def run(self) -> list[nodes.Node]:
        for file in (confirm.RECORD, confirm.SEEDS):
            self.env.note_dependency(str(file))
        files = {file.stem: file for file in notebooks(Path(self.env.srcdir)).values()}
        ledgers = [ledger for _, ledger in scoreboard.collect(self)]
        confirmed = {ledger["chapter"]: confirm.confirmed(files[ledger["chapter"]]) for ledger in ledgers}
        found: list[nodes.Node] = [nodes.paragraph("", sentence(ledgers, confirmed))]
        for ledger in ledgers:
            chapter = ledger["chapter"]
            committed = {e["id"]: e for e in ledger["entries"]}
            runs = [list(rows) for _, rows in groupby(confirm.record(chapter), key=lambda r: r["fingerprint"])]
            for rows in reversed(runs):
                first = rows[0]
                form = "in its present form" if rows == confirmed[chapter] else "in an earlier form"
                title = f"{ledger['title']}: seeds {first['seeds'].replace(' ', ', ')}, {form}, {first['date']}"
                found += [nodes.rubric("", title), table(rows, committed)]
        return found


def table(rows: list[dict[str, str]], committed: dict[str, dict]) -> nodes.table:
    group = nodes.tgroup("", cols=len(HEAD))
    group += [nodes.colspec("", colwidth=w) for w in (14, 24, 20, 24, 18)]
    group += nodes.thead("", line([[nodes.Text(h)] for h in HEAD]))
    body = nodes.tbody("")
    for r in rows:
        entry = committed.get(r["entry"])
        before = scoreboard.mark(entry["verdict"]) if entry else nodes.Text("not in the ledger any more")
        each = ", ".join(scoreboard.amount(float(v)) for v in r["values"].split())
        ours = [nodes.strong("", scoreboard.amount(float(r["mean"]))), nodes.Text(f" [{each}]")]
        body += line(
            [[nodes.Text(r["chapter"])], [nodes.Text(r["entry"])], [before], ours, [scoreboard.mark(r["verdict"])]]
        )
    group += body
    return nodes.table("", group, classes=["robustness"])


def line(cells: list[list[nodes.Node]]) -> nodes.row:
    return nodes.row("", *[nodes.entry("", nodes.paragraph("", "", *cell)) for cell in cells])


def sentence(ledgers: list[dict], confirmed: dict[str, list[dict[str, str]]]) -> str:
    """How many lines have been confirmed in their present form, how many came out as committed, and who is missing."""
    lines = same = 0
    missing = []
    for ledger in ledgers:
        rows = confirmed[ledger["chapter"]]
        verdicts = {e["id"]: e["verdict"] for e in ledger["entries"]}
        lines += len(rows)
        same += sum(verdicts[r["entry"]] == r["verdict"] for r in rows)
        missing += [] if rows else [ledger["chapter"]]
    said = f"Confirmed on fresh seeds: {lines} lines, of which {same} came out as committed."
    return said + (f" Not confirmed in their present form: {', '.join(missing)}." if missing else "")


def setup(app):
    app.add_directive("confirmations", Confirmations)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
