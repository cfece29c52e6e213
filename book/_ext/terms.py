"""The first time that a chapter uses a term of the glossary, the word leads there and says on a card what it means.

The terms are those of the tables of the glossary, whose rows get ids; `cards.js` shows a link's title as a card, of
terms and of citations alike. Without scripts the browser shows the title.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from docutils import nodes
from sphinx import addnodes

GLOSSARY = "book/glossary"
HEADS = ["English", "中文", "meaning"]
# Everyday words, which a chapter uses in their everyday sense as well.
ORDINARY = {"step", "mark", "held", "broken", "opposite", "check", "claim", "condition", "effect", "Known", "Unknown"}
PLAIN = (nodes.paragraph, nodes.emphasis, nodes.strong)  # what a linked word may stand in
NOT_IN = (nodes.title, nodes.reference, nodes.literal, nodes.table, nodes.figure, nodes.raw)


def forms(term: str) -> list[str]:
    """ "language model (LM, LLM)" -> the words under which it is met; single letters are none."""
    parts = re.split(r"[,()]", term)
    return [p.strip() for p in parts if len(p.strip()) > 1]


def row_id(term: str) -> str:
    return "term-" + nodes.make_id(forms(term)[0] if forms(term) else term)


def rows(doctree: nodes.document) -> Iterator[nodes.row]:
    for table in doctree.findall(nodes.table):
        for head in table.findall(nodes.thead):
            if [entry.astext() for entry in head[0]] == HEADS:
                yield from next(table.findall(nodes.tbody))


def read_glossary(app, doctree: nodes.document) -> None:
    """Give each row an id, and keep what it says: form -> (id, card)."""
    if app.env.docname != GLOSSARY:
        return
    found: dict[str, tuple[str, str]] = {}
    for row in rows(doctree):
        english, chinese, meaning = (cell.astext() for cell in row)
        for there in row.findall(addnodes.pending_xref):  # not resolved yet: its text is the name of a place
            meaning = meaning.replace(f" ({there.astext()})", "")
        id = row_id(english)
        row["ids"].append(id)
        for form in set(forms(english)) - ORDINARY:
            found[form] = (id, f"{english} · {chinese} · {meaning}")
    app.env.glossary_terms = found


def pattern(terms: list[str]) -> re.Pattern:
    """Any of the terms as whole words, the longest first; with an s behind it, and words also with a capital."""
    longest = sorted(terms, key=len, reverse=True)
    each = [t if t.isupper() or not t[0].islower() else f"(?i:{re.escape(t)})" for t in longest]
    return re.compile(rf"(?<![\w-])({'|'.join(each)})(s?)(?![\w-])")


def link_terms(app, doctree: nodes.document, docname: str) -> None:
    known = getattr(app.env, "glossary_terms", {})
    if not known or not docname.startswith("notebooks/"):
        return
    lower = {form.lower(): where for form, where in known.items()}
    there = app.builder.get_relative_uri(docname, GLOSSARY)
    wanted, left = pattern(list(known)), {id for id, _ in known.values()}
    for text in list(doctree.findall(nodes.Text)):
        if not isinstance(text.parent, PLAIN) or any(map(left_alone, ancestors(text))):
            continue
        made, at = [], 0
        for found in wanted.finditer(text):
            id, card = known.get(found[1]) or lower[found[1].lower()]
            if id not in left:
                continue
            left.discard(id)
            link = {"internal": True, "refuri": f"{there}#{id}", "reftitle": card, "classes": ["term"]}
            made += [nodes.Text(text[at : found.start()]), nodes.reference("", found[0], **link)]
            at = found.end()
        if made:
            text.parent.replace(text, [n for n in (*made, nodes.Text(text[at:])) if n.astext()])


def left_alone(node: nodes.Element) -> bool:
    return isinstance(node, NOT_IN) or "tiyao" in node["classes"] or node["ids"] == ["references"]


def ancestors(node: nodes.Node) -> Iterator[nodes.Element]:
    while (node := node.parent) is not None:
        yield node


def merge(app, env, docnames, other) -> None:
    if GLOSSARY in docnames:
        env.glossary_terms = other.glossary_terms


def setup(app):
    app.connect("doctree-read", read_glossary)
    app.connect("doctree-resolved", link_terms, priority=700)  # after the ids of the ledgers: those are no terms
    app.connect("env-merge-info", merge)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
