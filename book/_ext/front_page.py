"""What the front page takes from the committed notebooks, so that nothing on it is typed twice or out of date.

Four directives. `{chapter-list}` lists the chapters with summary, minutes and verdicts. `{chapter-figure}` shows the
figure of the cell tagged `readme-picture`. `{begin}` has the two ways in as buttons. `{chapters-on} lima distillation`
links those of the named chapters that the book has, with their verdicts, for the page of open questions.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import scoreboard
from docutils import nodes
from sphinx import addnodes
from sphinx.errors import ExtensionError
from sphinx.util.docutils import SphinxDirective

from tools import costs, tables
from tools.notebooks import ledgers, notebooks, summary, title

FIGURE_TAG = "readme-picture"
HERO = "tag_hero"  # the class that myst-nb gives to the cell tagged `hero`
FIGURE = "book/_static/result.svg"  # written by tools/chapters.py from the cell tagged FIGURE_TAG


def read(file: Path) -> list[dict]:
    """The cells of a notebook, their sources and outputs as strings.

    Raises:
        ValueError: naming the file when it is no notebook.
    """
    try:
        cells = json.loads(file.read_text("utf-8"))["cells"]
        return [{**cell, "source": joined(cell["source"])} for cell in cells]
    except (ValueError, KeyError, TypeError) as e:
        raise ValueError(f"{file.name} is not a notebook that can be read: {e}") from None


def joined(text: str | list[str]) -> str:
    return text if isinstance(text, str) else "".join(text)


def tagged(cells: list[dict], tag: str) -> list[dict]:
    return [c for c in cells if tag in c.get("metadata", {}).get("tags", [])]


def minutes(root: Path, slug: str) -> str:
    """How long a run takes besides the shared base models, by book/_data/costs.csv; "" where nobody measured."""
    row = tables.read(root / "book" / "_data" / "costs.csv", "chapter").get((slug,))
    return costs.sentence(row, shared=False) if row else ""


def colab(app, docname: str) -> str:
    """Where Colab opens a chapter, by what _config.yml says of the repository; "" where it says nothing."""
    options = app.config.html_theme_options
    if "repository_url" not in options:
        return ""
    slug = options["repository_url"].rstrip("/").split("github.com/")[-1]
    host = options["launch_buttons"]["colab_url"].rstrip("/")
    return f"{host}/github/{slug}/blob/{options['repository_branch']}/{docname}.ipynb"


class FromChapters(SphinxDirective):
    """A directive that reads the notebooks; its page is built again when one of them changes."""

    has_content = False

    def chapters(self) -> list[tuple[str, Path, list[dict]]]:
        """(docname, file, cells) of every chapter, in reading order."""
        root = Path(self.env.srcdir)
        for name in ("_toc.yml", "book/_data/costs.csv"):
            self.env.note_dependency(str(root / name))
        found = []
        for docname, file in notebooks(root).items():
            self.env.note_dependency(str(file))
            try:
                found.append((docname, file, read(file)))
            except ValueError as e:
                raise ExtensionError(f"front page: {e}") from None
        return found

    def link(self, docname: str, text: str) -> addnodes.pending_xref:
        return addnodes.pending_xref(
            "", nodes.inline("", text), refdomain="std", reftype="doc", reftarget="/" + docname,
            refdoc=self.env.docname, refexplicit=True, refwarn=True,
        )  # fmt: skip

    def to_ledger(self, docname: str) -> Callable[[str], str]:
        """Whatever its verdict, a mark leads to the chapter's ledger."""
        there = self.env.app.builder.get_relative_uri(self.env.docname, docname)
        return lambda _: f"{there}#the-ledger"


class ChapterList(FromChapters):
    """Title, summary, minutes and verdicts of every chapter."""

    def run(self) -> list[nodes.Node]:
        items = nodes.bullet_list("", classes=["chapter-list"])
        for docname, file, cells in self.chapters():
            try:
                head = nodes.paragraph("", "", nodes.strong("", "", self.link(docname, title(cells))))
                entries = [entry for ledger in ledgers(file) for entry in ledger["entries"]]
                said = summary(file)
            except ValueError as e:
                raise ExtensionError(f"front page: {file.name}: {e}") from None
            item = nodes.list_item("", head, nodes.paragraph("", said))
            line = scoreboard.tally(entries, False, self.to_ledger(docname))
            took = minutes(Path(self.env.srcdir), file.stem)
            if took:
                line.insert(0, nodes.inline("", took + " ", classes=["chapter-time"]))
            if len(line):
                item += line
            items += item
        return [items] if len(items) else [nodes.paragraph("", scoreboard.NOTHING)]


class ChapterFigure(FromChapters):
    """The figure of the tagged cell, with the alt text of its cell and a link to its chapter."""

    def run(self) -> list[nodes.Node]:
        for docname, file, cells in self.chapters():
            for cell in tagged(cells, FIGURE_TAG):
                alt = cell["metadata"].get("mystnb", {}).get("image", {}).get("alt", "")
                if not alt:
                    raise ExtensionError(f"front page: {file.name}: the cell tagged {FIGURE_TAG} has no alt text")
                source = nodes.Text("From the chapter ")
                caption = nodes.paragraph("", "", source, self.link(docname, title(cells)), classes=["source"])
                picture = nodes.image(uri="/" + FIGURE, alt=alt)
                return [nodes.container("", picture, caption, classes=["chapter-figure"])]
        return []


class Begin(FromChapters):
    """The two ways in, as buttons: read the first chapter, or run it on Colab."""

    def run(self) -> list[nodes.Node]:
        docname = next(name for name, _, _ in self.chapters())
        read_it = self.link(docname, "Start with the lab")
        read_it["classes"] = ["begin"]
        ways = [read_it]
        if there := colab(self.env.app, docname):
            ways += [nodes.Text(" "), nodes.reference("", "Run it on Colab", refuri=there, classes=["begin"])]
        return [nodes.paragraph("", "", *ways, classes=["begin-buttons"])]


class ChaptersOn(FromChapters):
    """Links to those of the named chapters that _toc.yml has, with their verdicts; says so where there is none."""

    required_arguments = 1
    final_argument_whitespace = True

    def run(self) -> list[nodes.Node]:
        wanted = self.arguments[0].split()
        found = {file.stem: (docname, file, cells) for docname, file, cells in self.chapters() if file.stem in wanted}
        if not found:
            return [nodes.paragraph("", "No chapter of this book measures it yet.", classes=["chapters-on"])]
        items = nodes.bullet_list("", classes=["chapter-list", "chapters-on"])
        for docname, file, cells in (found[slug] for slug in wanted if slug in found):
            entries = [entry for ledger in ledgers(file) for entry in ledger["entries"]]
            head = nodes.paragraph("", "", nodes.strong("", "", self.link(docname, title(cells))))
            items += nodes.list_item("", head)
            if entries:
                items[-1] += scoreboard.tally(entries, False, self.to_ledger(docname))
        return [items]


def at_the_head(app, doctree) -> None:
    """Below the claim of a chapter: what came out of it."""
    env = app.env
    file = notebooks(Path(env.srcdir)).get(env.docname)
    # The first paragraph that stands in no box: before it there may be the questions to guess at.
    first = next((p for p in doctree.findall(nodes.paragraph) if isinstance(p.parent, nodes.section)), None)
    if file is None or first is None:
        return
    try:
        entries = [entry for ledger in ledgers(file) for entry in ledger["entries"]]
        plain = summary(file)
    except ValueError as e:
        raise ExtensionError(f"front page: {e}") from None
    below = []
    if entries:
        line = scoreboard.tally(entries, False, lambda _: "#the-ledger")
        line.insert(0, nodes.inline("", "Found here: ", classes=["chapter-time"]))
        below.append(line)
    shared = {"og:type": "article", "og:title": title(read(file)), "og:description": plain}
    doctree.insert(0, nodes.meta("", name="description", content=plain))
    doctree[1:1] = [nodes.meta("", property=k, content=v) for k, v in shared.items()]
    if there := colab(app, env.docname):
        way = nodes.reference("", "Run this chapter on Colab", refuri=there, classes=["colab"])
        below.append(nodes.paragraph("", "", way))
    at = first.parent.index(first) + 1
    first.parent[at:at] = [*below, nodes.container("", classes=["hero"])]


def show_hero(app, doctree, docname: str) -> None:
    """Below the claim of a chapter, the figure of the cell tagged `hero`; it leads to its place in the chapter."""
    for place in list(doctree.findall(lambda n: "hero" in getattr(n, "attributes", {}).get("classes", ()))):
        cell = next(doctree.findall(lambda n: HERO in getattr(n, "attributes", {}).get("classes", ())), None)
        figure = cell and next(cell.findall(nodes.figure), None)
        if not figure:
            place.parent.remove(place)
            continue
        id = figure["ids"][0]
        number = ".".join(map(str, app.env.toc_fignumbers[docname]["figure"][id]))
        said = next(figure.findall(nodes.caption)).deepcopy()
        said += [nodes.Text(" "), nodes.reference("", f"Figure {number}", refuri=f"#{id}", internal=True)]
        place += [next(figure.findall(nodes.image)).deepcopy(), nodes.paragraph("", "", *said.children)]


def setup(app):
    app.connect("doctree-read", at_the_head)
    app.connect("doctree-resolved", show_hero)
    app.add_directive("chapters-on", ChaptersOn)
    app.add_directive("chapter-list", ChapterList)
    app.add_directive("chapter-figure", ChapterFigure)
    app.add_directive("begin", Begin)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
