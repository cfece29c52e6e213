"""Guesses: a place for each question, kept in the browser, shown again below the ledger and on paper."""

from __future__ import annotations

import pytest
from axe_playwright_python.sync_playwright import Axe
from browsing import PHONE, ROOT

from tools.notebooks import entries, notebooks

ASKED = {page for page, file in notebooks(ROOT).items() if ":class: predict" in file.read_text("utf-8")}
CHAPTERS = [page for page, file in notebooks(ROOT).items() if page in ASKED and entries(file)]
GUESS = ".admonition.predict li .guess input"


# The height of the first guess's line, and those of the ticks of its figure as (value, height), from the screen.
HEIGHTS = """() => {
  const line = document.querySelector('.you-said-line line'), svg = line.closest('svg');
  const middle = node => { const box = node.getBoundingClientRect(); return (box.top + box.bottom) / 2; };
  const ticks = [...svg.querySelectorAll('[id$="matplotlib.axis_2"] [id*=ytick]')];
  return [middle(line), ticks.map(t => [parseFloat(t.textContent), middle(t.querySelector('text'))])];
}"""


@pytest.mark.parametrize("page", CHAPTERS)
def test_a_guess_is_kept_and_stands_below_the_ledger(visit, page):
    tab, trouble = visit(page)
    asked = tab.locator(".admonition.predict ol > li").count()
    assert asked == tab.locator(GUESS).count() >= 1 and tab.locator(".guesses").is_hidden()
    slider = tab.locator(GUESS).last.get_attribute("type") == "range"
    said = "37" if slider else "about half & <b>"
    tab.locator(GUESS).last.fill(said)
    tab.reload()
    assert tab.locator(GUESS).last.input_value() == said
    box = tab.locator("section#the-ledger .guesses")
    assert box.locator("dd").all_inner_texts() == ["37%" if slider else said]
    assert len(box.locator("dt").inner_text()) > 10
    assert box.bounding_box()["y"] > tab.locator("section#the-ledger table.ledger").last.bounding_box()["y"]
    tab.emulate_media(media="print")
    assert box.is_visible() and not trouble


def test_guesses_of_two_chapters_are_kept_apart(visit):
    tab, _ = visit(CHAPTERS[0])
    tab.locator(GUESS).first.fill("12")
    tab.goto(tab.url.replace(CHAPTERS[0], CHAPTERS[1]))
    assert tab.locator(GUESS).first.input_value() != "12" and tab.locator(".guesses").is_hidden()


@pytest.mark.parametrize("page", [page for page in CHAPTERS if '"drawn-' in notebooks(ROOT)[page].read_text("utf-8")])
def test_a_guess_is_drawn_into_its_figure_at_its_height(visit, page):
    tab, trouble = visit(page)
    sliders = tab.locator(".admonition.predict .guess input[type=range]")
    assert sliders.count() >= 1 and tab.locator(".you-said-line").count() == 0
    for said in (0, 100, 40):
        sliders.first.fill(str(said))
        line, heights = tab.evaluate(HEIGHTS)
        low, high = heights[0], heights[-1]
        share = low[0] + (line - low[1]) / (high[1] - low[1]) * (high[0] - low[0])
        assert abs(share / (10 if high[0] > 2 else 1) - said / 100) < 0.01
        assert tab.locator(".you-said-line text").first.text_content() == f"you said {said}%"
    tab.reload()
    assert tab.locator(".you-said-line").count() >= 1 and not trouble


@pytest.mark.parametrize("mode", ["light", "dark"])
def test_the_fields_are_accessible_on_a_phone(visit, mode):
    tab, _ = visit(CHAPTERS[0], mode, PHONE)
    tab.locator(GUESS).first.fill("12")
    found = Axe().run(tab, context="article")
    assert not found.response["violations"], [(v["id"], v["nodes"][0]["html"]) for v in found.response["violations"]]
    assert tab.evaluate("document.documentElement.scrollWidth <= innerWidth")
