"""Searching the built site: English as ever, and Chinese words wherever they stand in a sentence."""

from __future__ import annotations

from urllib.parse import unquote

import pytest


@pytest.mark.parametrize(
    "query, page",
    [
        ("对齐", "notebooks/base-vs-chat"), ("预训练", "book/index"), ("留出", "book/glossary"),
        ("基座模型", "notebooks/three-rules"), ("只做过预训练的模型", "notebooks/base-vs-chat"),
        ("paraphrase", "notebooks/paraphrase"), ("distillation", "notebooks/distillation"),
    ],
)  # fmt: skip
def test_a_word_leads_to_its_pages(visit, query, page):
    tab, trouble = visit("search")
    tab.goto(f"{tab.url.partition('?')[0]}?q={query}")
    tab.locator("#search-results li a").first.wait_for()
    tab.wait_for_function("!document.querySelector('#search-progress')?.textContent.includes('...')")
    found = [a.get_attribute("href") for a in tab.locator("#search-results li a").all()]
    assert any(page in href for href in found), found
    assert not trouble


@pytest.mark.parametrize("query", ["留出", "weight decay"])
def test_what_is_found_leads_to_a_section_that_has_it(visit, query):
    tab, trouble = visit("search")
    tab.goto(f"{tab.url.partition('?')[0]}?q={query}")
    link = tab.locator("#search-results li a[href*='#']").first
    link.wait_for()
    assert " › " in link.inner_text()
    link.click()
    tab.wait_for_load_state()
    there = tab.locator(f"section[id='{unquote(tab.url.partition('#')[2])}']")
    assert all(word in there.inner_text().lower() for word in query.split()) and not trouble


def test_what_nobody_wrote_is_not_found(visit):
    tab, _ = visit("search")
    tab.goto(f"{tab.url.partition('?')[0]}?q=龙虾")
    tab.wait_for_timeout(1500)
    assert tab.locator("#search-results li a").count() == 0


@pytest.mark.parametrize("page", ["search", "book/index"])
def test_the_lens_covers_no_letter(visit, page):
    """On the page of the search, and in the dialog that the keys open elsewhere."""
    tab, _ = visit(page)
    tab.keyboard.press("Control+K")
    form = tab.locator("form.bd-search:visible").first
    form.wait_for()
    lens, field = (form.locator(part).bounding_box() for part in (".fa-magnifying-glass", "input"))
    assert lens["x"] + lens["width"] <= field["x"]
