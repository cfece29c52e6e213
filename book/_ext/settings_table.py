"""`{settings-table}`: the chapters in other settings (book/_data/robustness.csv), what changed before what did not."""

from __future__ import annotations

import csv
from pathlib import Path

from docutils import nodes
from sphinx.util.docutils import SphinxDirective

from tools.notebooks import VERDICTS

TABLE = "book/_data/robustness.csv"
KEYS = ("chapter", "kind", "entry", "committed")
SAME = dict(zip(VERDICTS["control"], VERDICTS["check"], strict=True))  # a check was called a control once


def verdict(cell: str, kind: str) -> str:
    word = cell.split(" (")[0]
    return SAME.get(word, word) if kind == "check" else word


def changes(row: dict[str, str]) -> list[str]:
    """The settings in which a line has another verdict than the committed one; places not run yet are none."""
    committed = verdict(row["committed"], row["kind"])
    return [s for s in row if s not in KEYS and row[s] and verdict(row[s], row["kind"]) != committed]


class SettingsTable(SphinxDirective):
    """A sentence that counts, the lines that changed, and the others folded away."""

    def run(self) -> list[nodes.Node]:
        file = Path(self.env.srcdir) / TABLE
        self.env.note_dependency(str(file))
        with file.open(newline="", encoding="utf-8") as f:
            rows = list(csv.DictReader(f))
        if not rows:
            return [nodes.paragraph("", "No chapter has been run in another setting yet.")]
        changed = [row for row in rows if changes(row)]
        others = [row for row in rows if not changes(row)]
        settings = [s for s in rows[0] if s not in KEYS]
        each = ", ".join(
            f"{s} {sum(s in changes(r) for r in rows)} of {sum(bool(r[s]) for r in rows)}" for s in settings
        )
        said = nodes.strong("", f"{len(changed)} of {len(rows)} verdicts change in at least one setting")
        found: list[nodes.Node] = [nodes.paragraph("", "", said, nodes.Text(f"; by setting: {each}."))]
        if changed:
            found.append(table(changed))
        if others:
            summary = f"The {len(others)} lines whose verdict does not change"
            found += [
                nodes.raw("", f'<details class="unchanged"><summary>{summary}</summary>', format="html"),
                table(others),
                nodes.raw("", "</details>", format="html"),
            ]
        return found


def table(rows: list[dict[str, str]]) -> nodes.table:
    """The rows as they stand in the file; ledger_ids.py makes links and marks of them."""
    head = list(rows[0])
    group = nodes.tgroup("", cols=len(head))
    group += [nodes.colspec("", colwidth=1) for _ in head]
    group += nodes.thead("", line(head))
    group += nodes.tbody("", *[line(row.values()) for row in rows])
    return nodes.table("", group, classes=["robustness"])


def line(texts) -> nodes.row:
    return nodes.row("", *[nodes.entry("", nodes.paragraph("", text)) for text in texts])


def setup(app):
    app.add_directive("settings-table", SettingsTable)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
