"""What a screen reader needs to know and the tools do not say: which text is Chinese, and what is no list."""

from __future__ import annotations

import re

from docutils import nodes

CHINESE = "language-zh-CN"  # docutils turns a class of this form into the attribute lang


def is_chinese(text: str) -> bool:
    """Are more than half of the letters Chinese characters?"""
    letters = [ch for ch in text if ch.isalpha()]
    return sum("\u4e00" <= ch <= "\u9fff" for ch in letters) * 2 > len(letters)


def mark_chinese(app, doctree) -> None:
    # Also the browser needs it: the same character is drawn differently for Chinese and for Japanese.
    for node in doctree.findall(lambda n: isinstance(n, nodes.title | nodes.paragraph | nodes.strong)):
        if is_chinese(node.astext()):
            node["classes"].append(CHINESE)


def mend(app, pagename, templatename, context, doctree) -> None:
    # docutils calls the bibliography a list, but its entries are no list items, and their role has been given up.
    body = context.get("body", "")
    body = re.sub(r'(<div\b[^>]*?)\s+role="list"(?=[^>]*citation-list)', r"\1", body)
    body = re.sub(r'(class="citation-list"[^>]*?)\s+role="list"', r"\1", body)
    context["body"] = body.replace(' role="doc-biblioentry"', "")


def setup(app):
    app.connect("doctree-read", mark_chinese)
    app.connect("html-page-context", mend)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
