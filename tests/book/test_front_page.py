"""The extensions of the site on small books made here: front page, formulas, Chinese, the script left out."""

from __future__ import annotations

import json
from types import SimpleNamespace
from xml.etree import ElementTree as ET

import accessible
import front_page
import light_pages
import plain_math
import pytest
import scoreboard
from alignlab.experiment.ledger import MIME
from bs4 import BeautifulSoup
from sphinx.application import Sphinx
from sphinx.errors import ExtensionError, SphinxWarning
from sphinx.util.docutils import docutils_namespace
from test_tools import ledger

from tools import costs, epub, tables

OPENING = "# Rain is wet\n\n**The claim.** Rain, e.g. in *Bergen*, is wet. So is snow.\n\n"


def markdown(source):
    return {"cell_type": "markdown", "metadata": {}, "source": source}


def code(*outputs, tags=(), **metadata):
    return {
        "cell_type": "code", "execution_count": 1, "metadata": {"tags": list(tags), **metadata}, "source": "1",
        "outputs": list(outputs),
    }  # fmt: skip


def display(**data):
    data = {name.replace("_", "/"): value for name, value in data.items()}
    return {"output_type": "display_data", "metadata": {}, "data": data}


PRINTED = {"output_type": "stream", "name": "stdout", "text": ["dry & <wet>\n"]}
CELLS = [markdown(OPENING + ":::{note}\nN\n:::")]


def measured(root, minutes="2.2"):
    file = root / "book" / "_data" / "costs.csv"
    row = {"chapter": "rain", costs.MINUTES: minutes, costs.BASES: "0.0", "where": "2 cores (x86_64), no GPU"}
    tables.write([row], ["chapter", costs.MINUTES, costs.BASES, "where"], file)


def test_title_and_minutes(tmp_path):
    measured(tmp_path)
    assert front_page.title(CELLS) == "Rain is wet"
    assert front_page.minutes(tmp_path, "rain") == "about 2 minutes on 2 CPU cores"


def test_what_is_not_stated_is_left_out(tmp_path):
    assert front_page.minutes(tmp_path, "rain") == ""
    with pytest.raises(ValueError, match="does not begin with a title"):
        front_page.title([markdown("## Too low")])


def test_colab_opens_a_chapter_where_the_book_says_that_it_lies():
    options = {
        "repository_url": "https://github.com/some/book", "repository_branch": "main",
        "launch_buttons": {"colab_url": "https://colab.research.google.com"},
    }  # fmt: skip
    app = SimpleNamespace(config=SimpleNamespace(html_theme_options=options))
    there = "https://colab.research.google.com/github/some/book/blob/main/notebooks/rain.ipynb"
    assert front_page.colab(app, "notebooks/rain") == there
    options.clear()
    assert front_page.colab(app, "notebooks/rain") == ""


CONF = """
extensions = ["myst_nb", "sphinxcontrib.bibtex", "scoreboard", "front_page", "plain_math", "accessible", "light_pages"]
myst_enable_extensions = ["colon_fence", "dollarmath"]
nb_execution_mode, bibtex_bibfiles, root_doc = "off", ["r.bib"], "index"
html_math_renderer, nb_ipywidgets_js = "mathml", {}
suppress_warnings = ["mystnb.unknown_mime_type"]
"""
INDEX = """# Book

```{toctree}
:hidden:
rain
```

```{scoreboard-summary}
```
```{begin}
```
```{chapter-list}
```
```{chapters-on} rain hail
```
```{chapters-on} fog
```
```{scoreboard}
```
"""


@pytest.fixture
def site(tmp_path):
    """site(cells, index) -> the front page of a book with one chapter, built by Sphinx, warnings being errors."""

    def build(cells, index=INDEX):
        about = {"language_info": {"name": "python", "pygments_lexer": "ipython3"}}
        about["alignlab"] = {"summary": "Rain is wet, and so is snow."}
        notebook = {"cells": cells, "metadata": about, "nbformat": 4, "nbformat_minor": 4}
        for name, text in {
            "conf.py": CONF, "index.md": index, "_toc.yml": "root: index\nchapters:\n- file: rain\n", "r.bib": "",
            "rain.ipynb": json.dumps(notebook),
        }.items():  # fmt: skip
            (tmp_path / name).write_text(text, "utf-8")
        out = tmp_path / "out"
        with docutils_namespace():
            Sphinx(tmp_path, tmp_path, out, tmp_path / "trees", "html", status=None, warningiserror=True).build()
        return BeautifulSoup((out / "index.html").read_text("utf-8"), "html.parser")

    return build


def test_the_front_page_begins_with_the_first_chapter(site):
    (button,) = site(CELLS).select(".begin-buttons a")
    assert button["href"] == "rain.html"


def test_without_a_ledger_there_is_nothing_to_filter(site):
    page = site([markdown(OPENING)])
    assert scoreboard.NOTHING in page.get_text()
    assert not page.select(".board-filters"), "filters over an empty table"


def test_confirmed_verdicts_are_counted_and_drawn_beside_the_committed_ones(site, monkeypatch):
    row = {"chapter": "toy", "entry": "a", "values": "0.5 0.1 0.2", "mean": "0.27", "verdict": "direction only"}
    monkeypatch.setattr(scoreboard.confirm, "confirmed", lambda file: [row] if file.stem == "rain" else [])
    results = {MIME: ledger(verdict="reproduced")}
    page = site([*CELLS, code({"output_type": "display_data", "metadata": {}, "data": results})])
    counts = page.select_one("p.confirmed-tally")
    assert "1 of these 1 lines" in counts.get_text() and counts.select_one(".verdict").get_text() == "1 direction only"
    line = page.select_one("table.scoreboard tbody tr")
    assert [m.get_text() for m in line.select(".verdict")] == ["reproduced", "direction only"]
    assert len(line.select("circle.strip-fresh")) == 3 and len(line.select("circle.strip-seed")) == 2
    assert "confirmed +0.27" in line.get_text()


def test_verdicts_reach_the_list_the_filters_and_the_open_questions(site, tmp_path):
    measured(tmp_path)
    cells = [*CELLS]
    results = ledger(verdict="opposite")
    results["title"] = "Rain & <snow>"
    cells.append(code({"output_type": "display_data", "metadata": {}, "data": {MIME: results}}))
    page = site(cells)
    said = [li.get_text(" ", strip=True) for li in page.select("ul.chapter-list > li")]
    assert "Rain is wet, and so is snow." in said[0]
    assert len(said) == 2 and "about 2 minutes" in said[0] and all("1 opposite" in line for line in said)
    assert "No chapter of this book measures it yet." in page.get_text()
    options = [o.get_text() for o in page.select(".board-filters select[name=chapter] option")]
    assert options == ["all chapters", "Rain & <snow> (1)"]
    assert page.select("tr.is-opposite.of-toy.kind-claim")


def test_a_chapter_without_a_title_is_named(site):
    with pytest.raises(ExtensionError, match=r"rain.ipynb: the first cell does not begin with a title"):
        site([markdown("no title")])


def test_formulas_become_mathml():
    found = plain_math.mathml(r"\mathrm{KL}(p \Vert q) = \sum_i p_i \log \frac{p_i}{q_i}", block=True)
    tree = BeautifulSoup(found, "html.parser")
    assert tree.math["display"] == "block" and tree.find("mfrac") and not tree.find("mfrac").find("mfrac")
    two = BeautifulSoup(plain_math.mathml(r"a \\ b", block=True), "html.parser")
    assert [row.get_text(strip=True) for row in two.find_all("mtr")] == ["a", "b"]


def test_a_formula_that_is_not_understood_stops_the_build(site):
    with pytest.raises(ValueError, match=r"nosuch"):
        plain_math.mathml(r"\nosuch{x}", block=False)
    with pytest.raises(SphinxWarning, match="nosuch"):
        site([markdown("# Rain")], INDEX + "\n$\\nosuch{x}$\n")


@pytest.mark.parametrize("text, wanted", [("画龙点睛 in 2025", True), ("词元", True), ("the 词", False), ("12", False)])
def test_chinese_is_recognised(text, wanted):
    assert accessible.is_chinese(text) is wanted


def test_the_big_script_is_taken_out_and_a_new_way_to_load_it_is_noticed(tmp_path):
    builder, config = SimpleNamespace(name="html"), SimpleNamespace(html_theme="sphinx_book_theme")
    app = SimpleNamespace(builder=builder, config=config, outdir=str(tmp_path))
    big = tmp_path / "_static" / "scripts" / "fontawesome.js"
    big.parent.mkdir(parents=True)
    big.write_text("icons")
    page = tmp_path / "book.html"
    page.write_text('<p>a</p>\n<script src="../_static/scripts/fontawesome.js?digest=1"></script>\n<p>b</p>')
    light_pages.leave_out(app, None)
    assert page.read_text() == "<p>a</p>\n<p>b</p>" and not big.exists()
    page.write_text('<script defer src="_static/scripts/fontawesome.js"></script>')
    with pytest.raises(ExtensionError, match=r"book.html still loads"):
        light_pages.leave_out(app, None)


def test_menus_are_laid_out_for_a_reader_of_books():
    box = (
        "<div class='explorer'><label>Who: <select onchange='x()'><option>Ana</option><option>Ben</option></select>"
        "</label><section><p>1</p></section><section hidden><p onclick='y()'>2 &lt; 3<br></p></section></div>"
    )
    found = epub.still(f"<form hidden><select></select></form>{box}<script>1 < 2</script>")
    tree = ET.fromstring(found)
    assert [p.findtext("p/strong") for p in tree.findall("section")] == ["Ana", "Ben"]
    assert not any(word in found for word in ("select", "hidden", "onclick", "script")) and "2 &lt; 3" in found
