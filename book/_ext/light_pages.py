"""Leaves out the theme's largest file: a script of 1.5 MB for icons that the theme's own icon font draws too."""

from __future__ import annotations

import re
from pathlib import Path

from sphinx.errors import ExtensionError

SCRIPT = "_static/scripts/fontawesome.js"
TAG = re.compile(rf'[ \t]*<script src="[^"]*{re.escape(SCRIPT)}[^"]*"></script>\n?')


def leave_out(app, exception) -> None:
    """Take the script from every page, and from the site.

    Raises:
        ExtensionError: a page still asks for it: the theme writes its tag in another way.
    """
    if exception or app.builder.name != "html" or app.config.html_theme != "sphinx_book_theme":
        return
    out = Path(app.outdir)
    for page in out.rglob("*.html"):
        text = TAG.sub("", page.read_text("utf-8"))
        if "scripts/fontawesome.js" in text:
            raise ExtensionError(f"light pages: {page.name} still loads {SCRIPT}")
        page.write_text(text, "utf-8")
    for name in (SCRIPT, SCRIPT + ".map"):
        (out / name).unlink(missing_ok=True)


def setup(app):
    app.connect("build-finished", leave_out)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
