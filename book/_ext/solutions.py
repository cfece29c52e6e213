"""Solutions open and close by themselves: `details` in place of the theme's button, whose title led away from them."""

from __future__ import annotations

import html

from docutils import nodes
from sphinx_exercise.nodes import is_exercise_node, is_solution_node


def unfold(app, doctree: nodes.document, docname: str) -> None:
    for node in list(doctree.findall(lambda n: is_exercise_node(n) or is_solution_node(n))):
        for part in list(node.findall(nodes.section)):  # its id is the same on every exercise of a page
            put(part, part.children)
        if is_solution_node(node) and app.builder.name == "html":  # where nothing unfolds, they stand open
            title = next(node.findall(nodes.title))
            said = html.escape(" ".join(title.astext().split()))
            node.remove(title)
            ids = "".join(f' id="{nodes.make_id(i)}"' for i in node["ids"][:1])
            begin = nodes.raw("", f'<details class="solution"{ids}>\n<summary>{said}</summary>', format="html")
            put(node, [begin, *node.children, nodes.raw("", "</details>", format="html")])


def put(node: nodes.Element, instead: list[nodes.Node]) -> None:
    """Replace a node, and let nothing of it go over to what takes its place (`replace_self` hands ids on)."""
    at = node.parent.index(node)
    node.parent[at : at + 1] = instead


def setup(app):
    app.connect("doctree-resolved", unfold, priority=650)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
