"""Guesses: a place for each question, kept in the browser, shown again below the ledger and on paper."""

from __future__ import annotations

import pytest
from axe_playwright_python.sync_playwright import Axe
from browsing import PHONE, ROOT

from tools.notebooks import entries, notebooks

ASKED = {page for page, file in notebooks(ROOT).items() if "## Predict first" in file.read_text("utf-8")}
CHAPTERS = [page for page, file in notebooks(ROOT).items() if page in ASKED and entries(file)]
GUESS = "section#predict-first li .guess input"


@pytest.mark.parametrize("page", CHAPTERS)
def test_a_guess_is_kept_and_stands_below_the_ledger(visit, page):
    tab, trouble = visit(page)
    asked = tab.locator("section#predict-first > ol > li").count()
    assert asked == tab.locator(GUESS).count() >= 2 and tab.locator(".guesses").is_hidden()
    tab.locator(GUESS).nth(1).fill("about half & <b>")
    tab.reload()
    assert tab.locator(GUESS).nth(1).input_value() == "about half & <b>"
    box = tab.locator("section#the-ledger .guesses")
    assert box.locator("dd").all_inner_texts() == ["about half & <b>"] and len(box.locator("dt").inner_text()) > 10
    assert box.bounding_box()["y"] > tab.locator("section#the-ledger table.ledger").last.bounding_box()["y"]
    tab.emulate_media(media="print")
    assert box.is_visible() and not trouble


def test_guesses_of_two_chapters_are_kept_apart(visit):
    tab, _ = visit(CHAPTERS[0])
    tab.locator(GUESS).first.fill("yes")
    tab.goto(tab.url.replace(CHAPTERS[0], CHAPTERS[1]))
    assert tab.locator(GUESS).first.input_value() == "" and tab.locator(".guesses").is_hidden()


@pytest.mark.parametrize("mode", ["light", "dark"])
def test_the_fields_are_accessible_on_a_phone(visit, mode):
    tab, _ = visit(CHAPTERS[0], mode, PHONE)
    tab.locator(GUESS).first.fill("yes")
    found = Axe().run(tab, context="article")
    assert not found.response["violations"], [(v["id"], v["nodes"][0]["html"]) for v in found.response["violations"]]
    assert tab.evaluate("document.documentElement.scrollWidth <= innerWidth")
