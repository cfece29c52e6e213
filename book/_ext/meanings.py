"""What the verdicts mean, in one place: the head of alignlab.experiment.claims, which states the rule.

`{verdicts} claim control` is a table of the verdicts of these kinds of line; the role {meaning}`held` is one meaning.
"""

from __future__ import annotations

import re

import scoreboard
from alignlab.experiment import claims
from docutils import nodes
from sphinx.errors import ExtensionError
from sphinx.util.docutils import SphinxDirective, SphinxRole


def meanings(text: str | None = claims.__doc__) -> dict[str, str]:
    """Verdict -> its meaning, from the indented list of the docstring.

    Raises:
        ValueError: a verdict has no line there.
    """
    found = dict(re.findall(r"^  (\S+(?: \S+)*)  +(\S.*)$", text or "", re.MULTILINE))
    for verdicts in claims.VERDICTS.values():
        for verdict in verdicts:
            if verdict not in found:
                raise ValueError(f"{verdict!r} has no line in the docstring of alignlab.experiment.claims: add one")
    return found


class Verdicts(SphinxDirective):
    """A table: mark, what it is said of, what it means."""

    optional_arguments = 1
    final_argument_whitespace = True

    def run(self) -> list[nodes.Node]:
        self.env.note_dependency(claims.__file__)
        kinds = self.arguments[0].split() if self.arguments else list(claims.VERDICTS)
        said = meanings()
        rows = []
        for kind in kinds:
            if kind not in claims.VERDICTS:
                raise ExtensionError(f"verdicts: no kind {kind!r} of line: one of {', '.join(claims.VERDICTS)}")
            for v in claims.VERDICTS[kind]:
                rows.append([[scoreboard.mark(v)], [nodes.Text(kind)], [nodes.Text(said[v])]])
        head = [[nodes.Text(t)] for t in ("Verdict", "Of a", "Meaning")]
        group = nodes.tgroup("", cols=3)
        group += [nodes.colspec("", colwidth=w) for w in (22, 13, 65)]
        group += nodes.thead("", line(head))
        group += nodes.tbody("", *map(line, rows))
        return [nodes.table("", group, classes=["meanings"])]


def line(cells: list[list[nodes.Node]]) -> nodes.row:
    return nodes.row("", *[nodes.entry("", nodes.paragraph("", "", *cell)) for cell in cells])


class Meaning(SphinxRole):
    def run(self):
        said = meanings()
        if self.text not in said:
            raise ExtensionError(f"meaning: {self.text!r} is no verdict: one of {', '.join(said)}")
        return [nodes.Text(said[self.text])], []


def setup(app):
    app.add_directive("verdicts", Verdicts)
    app.add_role("meaning", Meaning())
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
