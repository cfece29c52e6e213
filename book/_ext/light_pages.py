"""Makes every page of the built site small: what no page uses is left out, and what all pages load is one file.

The theme brings a script of 1.5 MB for icons that its own icon font draws too, two fonts with 2,500 icons of which a
dozen are drawn, and rules of style for a hundred things that this book does not have. The rules of all style sheets go,
in their order, into one file; a rule stays unless it asks for a class or an id that neither a page nor a script names.
"""

from __future__ import annotations

import base64
import hashlib
import io
import logging
import re
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from posixpath import normpath, relpath

import tinycss2
from fontTools import subset
from fontTools.ttLib import TTFont
from sphinx.errors import ExtensionError

logging.getLogger("fontTools").setLevel(logging.WARNING)  # it reports every glyph
SCRIPT = "_static/scripts/fontawesome.js"
TAG = re.compile(rf'[ \t]*<script src="[^"]*{re.escape(SCRIPT)}[^"]*"></script>\n?')
SHEET = re.compile(r'[ \t]*<link\b(?=[^>]*rel="stylesheet")[^>]*?href="([^":]*_static/)([^"?]+\.css)[^"]*"[^>]*>\n?')
FONT = re.compile(r"@font-face\{[^}]*?url\(([^)]*fontawesome[^)]*?)\.woff2\)[^}]*\}")
IMPORT = re.compile(r"@import\s+(?:url\()?[\"']([^\"':]+)[\"']\)?\s*;")
ADDRESS = re.compile(r"url\((?![\"']?(?:data:|#|[a-z]+:|/))[\"']?([^)\"']+)[\"']?\)")
NESTED = {"media", "supports", "layer", "container"}


def named(text: str) -> set[str]:
    """Every name of a class or an id on a page, and every word of its scripts and event handlers."""
    words = set(" ".join(re.findall(r'\b(?:class|id)\s*=\s*"([^"]*)"', text)).split())
    words |= set(" ".join(re.findall(r"\b(?:class|id)\s*=\s*'([^']*)'", text)).split())
    scripts = re.findall(r"<script\b[^>]*>(.*?)</script>", text, re.DOTALL) + re.findall(r'\bon\w+="([^"]*)"', text)
    return words.union(*map(words_of, scripts))


def words_of(script: str) -> set[str]:
    return set(re.findall(r"[\w-]+", script))


def can_match(selector: str, used: set[str], beginnings: tuple[str, ...]) -> bool:
    """Could the selector find anything? What stands in :not(), :is() and the like is not asked, nor are attributes."""
    plain = re.sub(r"\[[^\]]*\]", "", selector)
    while (less := re.sub(r":[\w-]+\([^()]*\)", "", plain)) != plain:
        plain = less
    names = [re.sub(r"\\(.)", r"\1", n) for n in re.findall(r"[.#]((?:[\w-]|\\.)+)", plain)]
    return all(n in used or (beginnings and n.startswith(beginnings)) for n in names)


def split(prelude: str) -> list[str]:
    """The selectors of a rule: parted at the commas that stand in no bracket."""
    parts, depth = [""], 0
    for char in prelude:
        depth += (char in "([") - (char in ")]")
        if char == "," and not depth:
            parts.append("")
        else:
            parts[-1] += char
    return [p.strip() for p in parts]


def purged(css: str, used: set[str]) -> str:
    """The style sheet without the rules that can match nothing.

    Args:
        css: a style sheet.
        used: names of classes and ids; one that ends in a hyphen stands for all that begin so (scripts build such).
    """
    beginnings = tuple(u for u in used if u.endswith("-") and len(u) > 3)
    return "\n".join(kept(tinycss2.parse_stylesheet(css, True, True), used, beginnings))


def kept(rules: Iterable, used: set[str], beginnings: tuple[str, ...]) -> Iterable[str]:
    for rule in rules:
        if rule.type == "qualified-rule":
            selectors = [s for s in split(tinycss2.serialize(rule.prelude)) if can_match(s, used, beginnings)]
            if selectors:
                yield f"{','.join(selectors)}{{{tinycss2.serialize(rule.content).strip()}}}"
        elif rule.type == "at-rule" and rule.lower_at_keyword in NESTED and rule.content is not None:
            inner = "\n".join(kept(tinycss2.parse_rule_list(rule.content, True, True), used, beginnings))
            if inner:
                yield f"@{rule.at_keyword}{tinycss2.serialize(rule.prelude).rstrip()}{{{inner}}}"
        else:
            yield rule.serialize()


def icons(css: str) -> set[int]:
    """The code points of the private area that the rules draw: \\f135, or the character itself."""
    escapes = re.findall(r"\\([ef][0-9a-f]{3})(?![0-9a-f])", css, re.IGNORECASE)
    return {int(code, 16) for code in escapes} | {ord(ch) for ch in css if "\ue000" <= ch <= "\uf8ff"}


def small_font(file: Path, characters: set[int]) -> str:
    """The font with only these characters, as a data address; "" where it has none of them."""
    font = TTFont(file)
    wanted = characters & set(font.getBestCmap())
    if not wanted:
        return ""
    options = subset.Options(flavor="woff", hinting=False, layout_features=[], name_IDs=[], notdef_outline=False)
    cut = subset.Subsetter(options)
    cut.populate(unicodes=wanted)
    cut.subset(font)
    font.flavor = "woff"
    out = io.BytesIO()
    font.save(out)
    return "data:font/woff;base64," + base64.b64encode(out.getvalue()).decode("ascii")


def gathered(static: Path, names: list[str]) -> str:
    """The style sheets in their order, each with what it imports, addresses seen from `static`.

    Raises:
        ExtensionError: a style sheet is not there.
    """
    texts = []
    for name in names:
        if not (static / name).exists():
            raise ExtensionError(f"light pages: a page loads _static/{name}, which is not there")
        folder = str(PurePosixPath(name).parent)
        css = (static / name).read_text("utf-8").replace('@charset "UTF-8";', "")
        for found in IMPORT.findall(css):
            texts.append(gathered(static, [normpath(f"{folder}/{found}")]))
        css = IMPORT.sub("", css)
        texts.append(ADDRESS.sub(lambda m, at=folder: f"url({normpath(f'{at}/{m[1]}')})", css))
    return "\n".join(texts)


def one_sheet(static: Path, names: list[str], used: set[str]) -> str:
    """Write what is left of the style sheets, with the icons, into one file of `static`; returns its name."""
    css = purged(gathered(static, names), used)
    drawn = icons(css)

    def face(rule: re.Match) -> str:
        data = small_font(static / f"{rule[1]}.ttf", drawn)
        return re.sub(r"src:[^;}]*", f'src:url({data}) format("woff")', rule[0]) if data else ""

    css = FONT.sub(face, css)
    name = f"book.{hashlib.sha256(css.encode()).hexdigest()[:12]}.css"
    (static / name).write_text(css, "utf-8")
    return name


def lighten(out: Path) -> None:
    """Take from the pages in `out` what they do not need.

    Raises:
        ExtensionError: a page still asks for the script of icons: the theme writes its tag in another way.
    """
    pages = {page: TAG.sub("", page.read_text("utf-8")) for page in out.rglob("*.html")}
    static = out / "_static"
    used: set[str] = set().union(*map(named, pages.values()))
    for name in (SCRIPT, SCRIPT + ".map"):
        (out / name).unlink(missing_ok=True)
    for script in static.rglob("*.js"):
        used |= words_of(script.read_text("utf-8"))
    made: dict[tuple[str, ...], str] = {}
    for page, text in pages.items():
        if "scripts/fontawesome.js" in text:
            raise ExtensionError(f"light pages: {page.name} still loads {SCRIPT}")
        names = tuple(name for _, name in SHEET.findall(text))
        if len(names) > 1:
            made[names] = made.get(names) or one_sheet(static, list(names), used)
            root = relpath(static.as_posix(), page.parent.as_posix())
            link = f'  <link rel="stylesheet" href="{root}/{made[names]}" />\n'
            text = SHEET.sub("", SHEET.sub(lambda m, new=link: new + m[0], text, count=1).replace(link, "\0", 1))
            text = text.replace("\0", link, 1)
        page.write_text(text, "utf-8")
    if made:  # an incremental build finds the sheets again: Sphinx copies them each time
        for waste in (*static.rglob("*.map"), *static.rglob("webfonts/*")):
            waste.unlink()
    for sheet in static.glob("book.*.css"):
        if sheet.name not in made.values():
            sheet.unlink()


def leave_out(app, exception) -> None:
    if not exception and app.builder.name == "html" and app.config.html_theme == "sphinx_book_theme":
        lighten(Path(app.outdir))


def setup(app):
    app.connect("build-finished", leave_out, priority=900)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
