"""The panel of live models: `{live} pair` shows the stored replies, and the page's script makes a panel of them.

The models lie in book/_data/live as tools/live.py has stored them. They travel as one script a pair, since a page
opened from a file may load scripts and nothing else; a page asks for it when its panel is touched, and not before.
"""

from __future__ import annotations

import base64
import json
from html import escape
from pathlib import Path
from typing import ClassVar

from docutils import nodes
from docutils.parsers.rst import directives
from sphinx.errors import ExtensionError
from sphinx.util.docutils import SphinxDirective

DATA = "book/_data/live"
FOLDER = "_static/live"
SHOWN = 4  # prompts whose stored replies stand on the page
CIPHERS = (0, 4, 24, 25)  # of those of the ciphers: shifts 1, 3 and 13, this with a string that is no word


def stored(root: Path, name: str) -> dict:
    """What is known of a pair besides its weights.

    Raises:
        ExtensionError: nothing of this name is stored.
    """
    file = root / DATA / f"{name}.json"
    if not file.exists():
        raise ExtensionError(f"live: there is no {DATA}/{file.name}: name a stored pair, or run `python -m tools.live`")
    return json.loads(file.read_text("utf-8"))


def script(root: Path, name: str) -> str:
    """The script that hands a pair to the page: all that is stored, the weights as base64."""
    data = stored(root, name)
    files = {role: root / DATA / model["file"] for role, model in data["models"].items()}
    weights = {role: base64.b64encode(file.read_bytes()).decode() for role, file in files.items()}
    return f"Live.files[{json.dumps(name)}] = {json.dumps(data | {'weights': weights}, ensure_ascii=False)};\n"


def box(docname: str, name: str, beside: str, heads: list[str], rows: list[list[str]], **settings: object) -> str:
    """The panel as it stands without scripts: the stored replies in a table, and what the scripts need to know.

    Args:
        beside: a class beside `live`, or "".
        settings: are handed to the scripts as JSON; a text as it is.
    """
    settings = {"live": name, "folder": "../" * docname.count("/") + FOLDER + "/", **settings}
    said = ((k, v if isinstance(v, str) else json.dumps(v)) for k, v in settings.items())
    attributes = " ".join(f'data-{k}="{escape(v)}"' for k, v in said)
    head = "".join(f'<th scope="col">{escape(h)}</th>' for h in heads)
    body = "".join("<tr>" + "".join(f"<td>{escape(c)}</td>" for c in row) + "</tr>" for row in rows)
    table = f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
    classes = f"live {beside}".strip()
    return f'<div class="{classes}" {attributes}><div class="live-still">{table}</div></div>'


def several(docname: str, name: str, data: dict) -> str:
    """The models of one chapter; letters without gaps are those of a cipher."""
    chosen = range(SHOWN) if data["between"] else CIPHERS
    without = {f"{called}, the shift taken out": replies for called, replies in data.get("without", {}).items()}
    said = data["replies"] | without
    rows = [[data["prompts"][i], *(replies[i]["text"] for replies in said.values())] for i in chosen]
    settings = {"kind": "words" if data["between"] else "cipher", "prompts": data["prompts"][:SHOWN]}
    if without:
        settings["dial"] = "Shift taken out (%)"
    return box(docname, name, "live-several", ["Asked", *said], rows, **settings)


class Live(SphinxDirective):
    """The panel of a pair, or of several models of one chapter.

    With the flag `rules` the base of a pair is asked under the three rules, with their dials.
    """

    required_arguments = 1
    option_spec: ClassVar = {"rules": directives.flag}

    def run(self) -> list[nodes.Node]:
        [name] = self.arguments
        data = stored(Path(self.env.srcdir), name)
        self.env.note_dependency(str(Path(self.env.srcdir) / DATA / f"{name}.json"))
        if "between" in data:
            return [nodes.raw("", several(self.env.docname, name, data), format="html")]
        own = "rules" if "rules" in self.options else "base"
        rows = [
            [data["prompts"][i], *(data["replies"][role][i]["text"] for role in (own, "aligned"))] for i in range(SHOWN)
        ]
        heads = ["Question", "Base model" + (" with the rules" if own == "rules" else ""), "Aligned model"]
        settings = {"prompts": data["prompts"][:SHOWN], "rules": data["rules"] if own == "rules" else None}
        return [nodes.raw("", box(self.env.docname, name, "", heads, rows, **settings), format="html")]


def write_scripts(app, exception) -> None:
    if exception or app.builder.format != "html":
        return
    folder = Path(app.outdir) / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    for file in sorted((Path(app.srcdir) / DATA).glob("*.json")):
        (folder / f"{file.stem}.js").write_text(script(Path(app.srcdir), file.stem), "utf-8")


def bring_scripts(app, pagename, templatename, context, doctree) -> None:
    """Only a page with a panel loads what the panel needs."""
    body = context.get("body", "")
    for name, there in {
        "live.js": 'class="live', "live-panel.js": 'class="live"', "live-several.js": "live-several",
    }.items():  # fmt: skip
        if there in body:
            app.add_js_file(name)


def setup(app):
    app.connect("html-page-context", bring_scripts)
    app.add_directive("live", Live)
    app.connect("build-finished", write_scripts)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
