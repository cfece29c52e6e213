"""What stands below every page: the version, when it was last changed, how to cite it, and a way to object."""

from __future__ import annotations

import html
import re
import subprocess
from functools import cache
from pathlib import Path
from urllib.parse import urlencode

from tools.notebooks import pages
from tools.setup_cell import version


@cache
def changed(file: Path) -> str:
    """The day of the last commit that changed the file; "" where there is no history to ask."""
    try:
        asked = ["git", "log", "-1", "--format=%cs", "--", str(file)]
        return subprocess.run(asked, cwd=file.parent, capture_output=True, text=True, timeout=20).stdout.strip()
    except (OSError, subprocess.TimeoutExpired):
        return ""


def citation(book: str, author: str, title: str, address: str, release: str, year: str) -> tuple[str, str]:
    """(in words, as BibTeX)"""
    whole = title == book
    words = f"{author} ({year}). {book if whole else f'{title}. In {book}'}, version {release}. {address}"
    fields = {"author": f"{{{author}}}", "title": f"{{{title}}}", **({} if whole else {"booktitle": book})}
    fields |= {"year": year, "note": f"Version {release}", "url": address}
    kind, key = ("book", "dragonseyes") if whole else ("incollection", f"dragonseyes-{Path(address).stem}")
    return words, f"@{kind}{{{key},\n" + "".join(f"  {k} = {{{v}}},\n" for k, v in fields.items()) + "}"


def foot(app, pagename: str, templatename: str, context: dict, doctree) -> None:
    file = pages(Path(app.srcdir)).get(pagename)
    repository = app.config.html_theme_options.get("repository_url", "").rstrip("/")
    if not file or not repository:
        return
    config, release = app.config, version()
    name = file.relative_to(app.srcdir).as_posix()
    address, day = f"{repository}/blob/v{release}/{name}", changed(file)
    if pagename == config.root_doc:
        address = repository
    title = re.sub(r"^\d+\. ", "", re.sub(r"<[^>]+>", "", context.get("title", "")))  # numbers may change
    words, bibtex = citation(
        html.escape(config.html_title), config.author, title, address, release, day[:4] or config.copyright
    )
    asked = {"title": html.unescape(title), "body": f"On the page {name}, version {release}:\n\n"}
    feedback = f"{repository}/issues/new?{urlencode(asked)}"
    when = f", last changed <time datetime='{day}'>{day}</time>" if day else ""
    context["body"] = context.get("body", "") + (
        f'<footer class="page-foot"><p>Version {release}{when}. '
        f'<a href="{html.escape(feedback)}">Something is wrong or unclear here</a></p>'
        f"<details><summary>Cite this page</summary><p>{words}</p>"
        f'<div class="highlight"><pre>{bibtex}</pre></div></details></footer>'
    )


def setup(app):
    app.connect("html-page-context", foot)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
