"""Figures in the page itself: their text is the page's, sharp at every size, and their ink follows light and dark.

A notebook's SVG is drawn on white with dark ink. What is white becomes the ground of the page, what is dark its ink,
and a pale tint behind a word a ground that is right for either; the colours of the conditions stay, which are told
apart on both. No letters are smaller than can be read on a phone.
"""

from __future__ import annotations

import html
import re
from pathlib import Path

from docutils import nodes
from sphinx.errors import ExtensionError

INK = {  # of `alignlab.experiment.plot` and of seaborn's style
    "#ffffff": "var(--pst-color-background)", "#262626": "currentColor", "#222222": "currentColor",
    "#000000": "currentColor", "#333333": "currentColor", "#e3e3e3": "var(--book-line)",
    "#555555": "var(--pst-color-text-muted)", "#777777": "var(--pst-color-text-muted)",
}  # fmt: skip
PALE = 0xD0  # red, green and blue of a tint are no less
READABLE, PHONE = 11.1, 356  # pixels: the smallest letters on a phone, and the width that a figure has there


def inlined(svg: str, name: str, alt: str) -> str:
    """An SVG file as an element of a page: its ids begin with `name`, its colours follow the page.

    Raises:
        ValueError: there is no <svg>, or it has no viewBox, without which it could not be scaled.
    """
    found = re.search(r"<svg\b[^>]*\bviewBox=\"([^\"]+)\"[^>]*>(.*)</svg>", svg, re.DOTALL)
    if not found:
        raise ValueError(f"{name} is no SVG with a viewBox")
    inner = re.sub(r"<metadata>.*?</metadata>", "", found[2], flags=re.DOTALL)
    inner = re.sub(r'\bid="([^"]+)"', rf'id="{name}-\1"', inner)
    inner = re.sub(r'(href="#|url\(#)', rf"\1{name}-", inner)
    inner = re.sub(r"#[0-9a-f]{6}", _on_the_page, inner)
    inner = re.sub(r"(font(?:-family)?: [^;\"]*?)(?:'[^']*'|\"[^\"]*\"|DejaVu)[^;\"]*", _own_font, inner)
    width = float(found[1].split()[2])
    least = READABLE * width / PHONE
    inner = re.sub(r"(?<=font-size: )[\d.]+(?=px)", lambda m: f"{max(float(m[0]), least):.4g}", inner)
    return (
        f'<svg class="plot" role="img" aria-label="{html.escape(alt, quote=True)}" viewBox="{found[1]}" '
        f'style="max-width: {width * 1.7:.0f}px" xmlns:xlink="http://www.w3.org/1999/xlink">{inner}</svg>'
    )


def _on_the_page(colour: re.Match) -> str:
    pale = all(part >= PALE for part in bytes.fromhex(colour[0][1:]))
    return INK.get(colour[0], "var(--pst-color-surface)" if pale else colour[0])


def _own_font(found: re.Match) -> str:
    return found[1] + "inherit" if "family" in found[1] else found[1] + "sans-serif"


def draw(app, doctree: nodes.document, docname: str) -> None:
    if app.builder.name != "html":
        return
    for number, image in enumerate(list(doctree.findall(nodes.image))):
        if not image["uri"].endswith(".svg"):
            continue
        file = Path(app.srcdir) / image["uri"].lstrip("/")
        if not file.exists():
            file = Path(image["uri"])
        try:
            shown = inlined(file.read_text("utf-8"), f"plot-{number}", image.get("alt", ""))
        except (OSError, ValueError) as error:
            raise ExtensionError(f"figures: {docname}: {error}") from None
        image.replace_self(nodes.raw("", shown, format="html"))


def setup(app):
    app.connect("doctree-resolved", draw, priority=900)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
