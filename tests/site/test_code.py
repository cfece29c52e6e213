"""Code on the built pages: folded where it is not the idea, one switch for all of it, and nothing cut."""

from __future__ import annotations

import pytest
from browsing import PHONE, ROOT

from tools import folds
from tools.notebooks import code, notebooks, read

CHAPTERS = list(notebooks(ROOT))
FOLDS = "article details.hide.above-input"
# Code and text outputs whose lines go on beyond their box.
CUT = """() => [...document.querySelectorAll("article .cell pre")].filter(pre => pre.offsetParent
  && pre.scrollWidth > pre.clientWidth + 1).map(pre => pre.textContent.slice(0, 60))"""


@pytest.mark.parametrize("page", CHAPTERS)
def test_folds_say_what_is_in_them(visit, page):
    wanted = [said for _, cell in code(read(ROOT / f"{page}.ipynb")) if (said := folds.prompt(cell))]
    tab, trouble = visit(page)
    assert tab.locator(f"{FOLDS} > summary .collapsed").all_inner_texts() == wanted
    assert not tab.locator(f"{FOLDS}[open]").count() and not trouble


def test_one_switch_opens_all_code_and_is_remembered_over_chapters(visit):
    tab, _ = visit(CHAPTERS[0])
    switch = tab.locator("article .code-switch")
    assert switch.inner_text() == "Show all code"
    switch.click()
    assert tab.locator(f"{FOLDS}[open]").count() == tab.locator(FOLDS).count() > 3
    tab.goto(tab.url.replace(CHAPTERS[0], CHAPTERS[1]))
    assert tab.locator(f"{FOLDS}[open]").count() == tab.locator(FOLDS).count() > 3
    tab.locator("article .code-switch").click()
    tab.reload()
    assert not tab.locator(f"{FOLDS}[open]").count()


@pytest.mark.parametrize("page", CHAPTERS)
def test_nothing_is_cut_on_a_desk(visit, page):
    tab, _ = visit(page)
    tab.locator("article .code-switch").click()
    assert tab.evaluate(CUT) == []


@pytest.mark.parametrize("page", CHAPTERS[1:4])
def test_on_paper_code_wraps_and_folds_are_left_out(visit, page):
    tab, _ = visit(page, "light", {"width": 720, "height": 1000})
    tab.emulate_media(media="print")
    assert tab.evaluate(CUT) == [] and not tab.locator("article .code-switch").is_visible()
    assert not any(fold.is_visible() for fold in tab.locator(FOLDS).all())


def test_the_switch_can_be_reached_on_a_phone(visit):
    tab, _ = visit(CHAPTERS[0], "dark", PHONE)
    box = tab.locator("article .code-switch").bounding_box()
    assert box["x"] >= 0 and box["x"] + box["width"] <= PHONE["width"]
