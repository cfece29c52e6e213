"""Formulas as MathML, made when the site is built: the pages need no script, no font and no other host for them.

Sphinx would load MathJax from another host on every page with a formula. Every current browser draws MathML by itself.
"""

from __future__ import annotations

from docutils import nodes
from docutils.utils.math import latex2mathml
from sphinx.util import logging

logger = logging.getLogger(__name__)


def mathml(formula: str, block: bool) -> str:
    """The formula as a MathML element.

    Raises:
        ValueError: the LaTeX is not understood; the message says what of it.
    """
    try:
        text = latex2mathml.tex2mathml(formula, as_block=block)
    except (SyntaxError, ValueError, KeyError, AttributeError, IndexError, TypeError) as e:
        raise ValueError(f"the formula {formula!r} cannot be written as MathML: {e}") from None
    return text.replace("&ApplyFunction;", "&#8289;")  # the name is not known in XML, where an EPUB needs it


def written(node, block: bool) -> str:
    try:
        return mathml(node.astext(), block)
    except ValueError as e:
        logger.warning(str(e), location=node, type="plain_math")
        return ""


def inline(translator, node) -> None:
    translator.body.append(written(node, block=False))
    raise nodes.SkipNode


def display(translator, node) -> None:
    number = f'<span class="eqno">({node["number"]})</span>' if node.get("number") else ""
    start = translator.starttag(node, "div", CLASS="math notranslate nohighlight formula")
    translator.body.append(f"{start}{number}{written(node, block=True)}</div>")
    raise nodes.SkipNode


def setup(app):
    app.add_html_math_renderer("mathml", inline_renderers=(inline, None), block_renderers=(display, None))
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
