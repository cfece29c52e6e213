"""Guesses: a place for each question, kept in the browser, shown again below the ledger and on paper."""

from __future__ import annotations

import pytest
from axe_playwright_python.sync_playwright import Axe
from browsing import PHONE, ROOT, each_look_once

from tools.notebooks import entries, notebooks

ASKED = {page for page, file in notebooks(ROOT).items() if ":class: predict" in file.read_text("utf-8")}
CHAPTERS = [page for page, file in notebooks(ROOT).items() if page in ASKED and entries(file)]
QUESTION = ".admonition.predict ol > li"
CHOOSING = next(page for page in CHAPTERS if page.endswith("/rot13"))
TYPING = next(page for page in CHAPTERS if page.endswith("/three-rules"))


# The height of the first guess's line, and those of the ticks of its figure as (value, height), from the screen.
HEIGHTS = """() => {
  const line = document.querySelector('.you-said-line line'), svg = line.closest('svg');
  const middle = node => { const box = node.getBoundingClientRect(); return (box.top + box.bottom) / 2; };
  const ticks = [...svg.querySelectorAll('[id$="matplotlib.axis_2"] [id*=ytick]')];
  return [middle(line), ticks.map(t => [parseFloat(t.textContent), middle(t.querySelector('text'))])];
}"""


@pytest.mark.parametrize("page", CHAPTERS)
def test_a_guess_is_kept_and_stands_above_its_answer(visit, page):
    """Every question has a place for a guess, and an answer below the ledger, on paper too."""
    tab, trouble = visit(page)
    asked = tab.locator(QUESTION)
    fields = [asked.nth(i).locator(".guess input") for i in range(asked.count())]
    answers = tab.locator("section#the-ledger .admonition.answered ol > li")
    assert len(fields) == answers.count() >= 1 and tab.locator(".you-said").count() == 0
    expected = []
    for number, field in enumerate(fields):
        kind = field.first.get_attribute("type")
        assert field.count() == 1 or (kind == "radio" and field.count() >= 3)
        if kind == "radio":
            field.nth(number % field.count()).check()
            expected.append(field.nth(number % field.count()).input_value())
        else:
            expected.append("37" if kind == "range" else f"{number} & <b>")
            field.fill(expected[-1])
            expected[-1] += "%" * (kind == "range")
    tab.reload()
    said = [a.locator(".you-said em").inner_text() for a in answers.all()]
    assert said == expected
    now = tab.locator(".predict .guess input:is(:checked, :not([type=radio]))").all()
    kept = [field.input_value() for field in now]
    assert kept == [e.removesuffix("%") for e in expected]
    assert answers.first.bounding_box()["y"] > tab.locator("table.ledger").last.bounding_box()["y"]
    assert answers.locator("a[href^='#claim-']").count() >= 1, "no answer leads to its line"
    tab.emulate_media(media="print")
    assert answers.last.locator(".you-said").is_visible() and not trouble


def test_guesses_of_two_chapters_are_kept_apart(visit):
    tab, _ = visit(TYPING)
    tab.locator(".predict .guess input[type=text]").first.fill("12")
    tab.goto(tab.url.replace(TYPING, CHOOSING))
    assert tab.locator(".predict :checked").count() == 0 and tab.locator(".you-said").count() == 0


def test_a_choice_is_made_by_keyboard(visit):
    tab, _ = visit(CHOOSING)
    choices = tab.get_by_role("radiogroup").first
    choices.get_by_role("radio").first.focus()
    tab.keyboard.press("Space")
    tab.keyboard.press("ArrowDown")
    assert choices.get_by_role("radio", checked=True).input_value() == choices.get_by_role("radio").nth(1).input_value()
    assert tab.locator(".answered .you-said em").inner_text() == choices.get_by_role("radio").nth(1).input_value()


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


@pytest.mark.parametrize(
    "page, mode", [(CHAPTERS[0], "light"), (CHAPTERS[0], "dark"), (CHOOSING, "light"), (TYPING, "dark")]
)
def test_the_fields_are_accessible_on_a_phone(visit, page, mode):
    tab, _ = visit(page, mode, PHONE)
    tab.locator(".predict .guess input").last.click()
    each_look_once(tab)
    found = Axe().run(tab, context="article" if page == CHAPTERS[0] else ".predict")
    assert not found.response["violations"], [(v["id"], v["nodes"][0]["html"]) for v in found.response["violations"]]
    assert tab.evaluate("document.documentElement.scrollWidth <= innerWidth")
