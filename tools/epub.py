"""The book as one EPUB file, for reading without a browser: `make epub` writes _build/epub/dragons-eyes.epub.

The same pages from the same committed notebooks, by Sphinx's own builder. A reader of books runs no scripts, so menus
are laid out: every section of an explorer stands under its name, filters are left out, solutions are unfolded.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from bs4 import BeautifulSoup
from docutils import nodes
from jupyter_book.config import get_final_config
from sphinx.application import Sphinx
from sphinx.util.docutils import docutils_namespace, patch_docutils

from .notebooks import ROOT

OUT = ROOT / "_build" / "epub"
NAME = "dragons-eyes"
ONLY_FOR_THE_SITE = {"sphinx_book_theme", "sphinx_copybutton", "sphinx_comments", "light_pages", "page_foot"}


def still(html: str) -> str:
    """HTML as XML, without what needs a script."""
    soup = BeautifulSoup(html, "html.parser")
    for box in soup.select(".explorer"):
        names = [option.get_text() for option in box.select("option")]
        sections = box.select("section")
        if len(names) == len(sections):
            for name, section in zip(names, sections, strict=True):
                title = soup.new_tag("p")
                title.append(soup.new_tag("strong"))
                title.strong.string = name
                section.insert(0, title)
    for part in soup.select("[hidden]:not(form)"):
        del part["hidden"]
    for part in soup.select("script, form, label:has(select, input), button"):
        part.decompose()
    for tag in soup.find_all(True):
        for name in [n for n in tag.attrs if n.startswith("on")]:
            del tag[name]
    return soup.decode(formatter="minimal")


def settle(app, doctree, docname) -> None:
    for node in doctree.findall(nodes.raw):
        if "html" in node.get("format", "").split():
            text = still(node.astext())
            node.rawsource, node[:] = text, [nodes.Text(text)]


def build(out: Path = OUT) -> Path:
    """Write the book and return the file.

    Raises:
        SphinxError: a page does not build; the message names it.
    """
    config, _ = get_final_config(
        user_yaml=ROOT / "_config.yml", sourcedir=ROOT, cli_config={"latex_individualpages": False}
    )
    config["extensions"] = [e for e in config["extensions"] if e not in ONLY_FOR_THE_SITE]
    config.pop("comments_config", None)
    address = config["html_theme_options"]["repository_url"]
    config |= {
        "epub_title": config["html_title"], "epub_identifier": address, "epub_scheme": "URL", "epub_uid": "BookId",
        "epub_description": "What pretraining gives a language model, and what alignment only brings out",
        "html_theme": "basic", "html_theme_options": {}, "version": "1", "epub_basename": NAME, "epub_theme": "epub",
        "epub_show_urls": "no", "epub_tocdup": False, "epub_tocscope": "includehidden", "epub_css_files": [],
        "html_js_files": [], "external_toc_path": str(ROOT / "_toc.yml"), "epub_exclude_files": ["_static/site.js"],
    }  # fmt: skip
    sys.path.insert(0, str(ROOT / "book" / "_ext"))
    trees = out.parent / ".doctrees-epub"
    for folder in (out, trees):  # what an older run left would be packed too
        shutil.rmtree(folder, ignore_errors=True)
    with patch_docutils(None), docutils_namespace():
        app = Sphinx(ROOT, None, out, trees, "epub", confoverrides=config, status=None, warningiserror=True)
        app.connect("doctree-resolved", settle)
        app.build()
    return out / f"{NAME}.epub"


if __name__ == "__main__":
    if sys.argv[1:]:
        raise SystemExit(f"unknown: {' '.join(sys.argv[1:])}. This takes no arguments; the book goes to {OUT}")
    print(f"The book: {build()}")
