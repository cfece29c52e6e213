"""Figures in the page, terms of the glossary, citations of a page: the parts that need no browser."""

from __future__ import annotations

import figures
import page_foot
import pytest
import terms
from bs4 import BeautifulSoup
from docutils import nodes

from tools import notebooks

SVG = """<?xml version="1.0"?><svg width="9pt" height="4pt" viewBox="0 0 200 100"><metadata>x</metadata>
<g id="p1"><path id="m" clip-path="url(#c)" style="fill: #ffffff; stroke: #262626"/><use xlink:href="#m"/>
<text style="font: 11px 'Arial', 'DejaVu Sans', sans-serif; fill: #0072b2">&lt;a</text></g></svg>"""


def test_a_figure_takes_its_ink_and_its_ids_from_the_page():
    made = figures.inlined(SVG, "plot-3", 'a "b" & c')
    tree = BeautifulSoup(made, "html.parser").svg
    assert tree["aria-label"] == 'a "b" & c' and tree["role"] == "img" and "340px" in tree["style"]
    assert "width" not in tree.attrs and not tree.metadata
    path = tree.find("path")
    assert path["style"] == "fill: var(--pst-color-background); stroke: currentColor"
    assert path["id"] == "plot-3-m" and path["clip-path"] == "url(#plot-3-c)"
    assert tree.find("use")["xlink:href"] == "#plot-3-m"
    assert tree.find("text")["style"] == "font: 11px sans-serif; fill: #0072b2", "the colour of a condition stays"


@pytest.mark.parametrize(
    "colour, shown",
    [
        ("#fbe3d0", "var(--pst-color-surface)"),  # a tint behind a word, which is light where the page is dark
        ("#56b4e9", "#56b4e9"),  # the lightest colours of conditions and of a map stay
        ("#fee838", "#fee838"),
    ],
)
def test_a_pale_ground_is_the_pages(colour, shown):
    made = figures.inlined(SVG.replace("fill: #ffffff", f"fill: {colour}"), "plot-3", "a")
    assert f"fill: {shown}; stroke" in made


@pytest.mark.parametrize("drawn, shown", [(5, 6.236), (12, 12)])
def test_no_letters_are_too_small_for_a_phone(drawn, shown):
    """Of 200 points on 356 pixels: 11.1 pixels are 6.236 points."""
    svg = SVG.replace("font: 11px", f"font-size: {drawn}px; font: 11px")
    assert f"font-size: {shown}px" in figures.inlined(svg, "plot-3", "a")


def test_what_cannot_be_scaled_is_refused():
    with pytest.raises(ValueError, match="plot-1 is no SVG with a viewBox"):
        figures.inlined("<svg width='3'></svg>", "plot-1", "a")


@pytest.mark.parametrize(
    "term, found",
    [
        ("language model (LM, LLM)", ["language model", "LM", "LLM"]),
        ("step, epoch, batch", ["step", "epoch", "batch"]),
        ("pass@k", ["pass@k"]),
    ],
)
def test_a_row_of_the_glossary_has_several_forms(term, found):
    assert terms.forms(term) == found


def linked(text, **known):
    doc = nodes.document(None, None)
    doc += nodes.paragraph("", text)
    env = type("Env", (), {"glossary_terms": {k.replace("_", " "): v for k, v in known.items()}})()
    builder = type("Builder", (), {"get_relative_uri": lambda self, a, b: "g.html"})()
    terms.link_terms(type("App", (), {"env": env, "builder": builder})(), doc, "notebooks/toy")
    return [(r.astext(), r["refuri"]) for r in doc.findall(nodes.reference)], doc.astext()


def test_the_first_use_of_a_term_is_linked_whole_and_in_the_plural():
    known = {"model": ("term-m", "a"), "base_model": ("term-b", "b"), "EOS": ("term-e", "c")}
    text = "Base models and a model, remodel, model, eos, the EOS. A base model."
    found, said = linked(text, **known)
    assert found == [("Base models", "g.html#term-b"), ("model", "g.html#term-m"), ("EOS", "g.html#term-e")]
    assert said == text


def test_what_is_code_a_link_or_chinese_is_left_alone():
    doc = nodes.document(None, None)
    doc += nodes.paragraph("", "", nodes.literal("", "model"), nodes.reference("", "model", refuri="x"))
    doc += nodes.container("", nodes.paragraph("", "model"), classes=["tiyao"])
    doc += nodes.section("", nodes.paragraph("", "model"), ids=["references"])
    env = type("Env", (), {"glossary_terms": {"model": ("term-m", "a")}})()
    builder = type("Builder", (), {"get_relative_uri": lambda self, a, b: "g.html"})()
    terms.link_terms(type("App", (), {"env": env, "builder": builder})(), doc, "notebooks/toy")
    assert [r["refuri"] for r in doc.findall(nodes.reference)] == ["x"]


def test_a_page_is_cited_with_its_book_and_version():
    address = "https://x.example/b/rain.ipynb"
    words, bibtex = page_foot.citation("The Book", "Us", "Rain is wet", address, "0.1.2", "2026")
    assert words == "Us (2026). Rain is wet. In The Book, version 0.1.2. https://x.example/b/rain.ipynb"
    assert bibtex.startswith("@incollection{dragonseyes-rain,") and "booktitle = {The Book}" in bibtex
    words, bibtex = page_foot.citation("The Book", "Us", "The Book", "https://x.example/b", "0.1.2", "2026")
    assert words == "Us (2026). The Book, version 0.1.2. https://x.example/b"
    assert bibtex.startswith("@book{dragonseyes,") and "booktitle" not in bibtex


def test_a_summary_has_the_numbers_of_its_ledger():
    found = [{"id": "a-b", "mean": -0.123, "unit": "share"}, {"id": "c", "mean": 8.61, "unit": "points of 10"}]
    assert notebooks.filled("From {a-b} to {c}.", found, "toy") == "From \N{MINUS SIGN}0.12 to 8.6."
    with pytest.raises(ValueError, match="toy: the summary names 'd'"):
        notebooks.filled("{d}", found, "toy")
