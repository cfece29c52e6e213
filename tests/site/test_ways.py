"""The reader's ways through the built site: from a line to its claim, from a verdict to its meaning."""

from __future__ import annotations

import pytest
from browsing import PHONE, ROOT

from tools.notebooks import entries, notebooks

CHAPTERS = {page: file for page, file in notebooks(ROOT).items() if entries(file)}
BY_CHAPTER = pytest.mark.parametrize("page", CHAPTERS)


@BY_CHAPTER
def test_a_line_of_the_scoreboard_leads_to_its_claim_and_back(visit, page):
    last = entries(CHAPTERS[page])[-1]["id"]
    chapter = CHAPTERS[page].stem
    tab, trouble = visit("book/scoreboard")
    tab.click(f"tr#{chapter}-{last} a.claim-id")
    tab.wait_for_load_state()
    assert tab.url.endswith(f"{page}.html#claim-{last}")
    row = tab.locator(f"tr#claim-{last}")
    seen = """id => {
        const box = document.getElementById(id).getBoundingClientRect();
        return box.top >= 0 && box.top < innerHeight;
    }"""
    tab.wait_for_function(seen, arg=f"claim-{last}", timeout=5000)  # pictures above it may still move it
    row.locator("a.claim-id", has_text="scoreboard").click()
    tab.wait_for_load_state()
    assert tab.url.endswith(f"book/scoreboard.html#{chapter}-{last}") and not trouble


def test_a_verdict_leads_to_what_it_means(visit):
    for page in ("book/scoreboard", next(iter(CHAPTERS))):
        tab, trouble = visit(page)
        tab.locator("table.ledger td .verdict").first.click()
        tab.wait_for_load_state()
        assert tab.url.endswith("book/how-to-run.html#reading-a-ledger")
        assert tab.locator("#reading-a-ledger").count() == 1 and not trouble


def shown(tab):
    return tab.locator("table.scoreboard tbody tr:not([hidden])").count()


def test_what_is_filtered_stands_in_the_address_and_comes_back(visit):
    tab, trouble = visit("book/scoreboard")
    every = shown(tab)
    tab.select_option("select[name=kind]", "control")
    assert "kind=control" in tab.url and 0 < shown(tab) < every
    few = shown(tab)
    tab.locator("table.scoreboard tbody tr:not([hidden]) a.claim-id").first.click()
    tab.wait_for_load_state()
    tab.go_back()
    tab.wait_for_load_state()
    assert shown(tab) == few and tab.locator("select[name=kind]").input_value() == "control"
    tab.reload()
    assert shown(tab) == few
    tab.click(".board-filters button")
    tab.wait_for_timeout(50)
    assert shown(tab) == every and "?" not in tab.url and not trouble


def test_a_filter_that_does_not_exist_shows_everything(browser, address):
    tab = browser.new_page()
    tab.goto(f"{address}/book/scoreboard.html?verdict=proved")
    assert shown(tab) == tab.locator("table.scoreboard tbody tr").count() > 0
    tab.close()


@pytest.mark.parametrize("page", ["book/scoreboard", *CHAPTERS])
def test_on_a_phone_no_part_of_a_ledger_is_off_the_screen_and_the_verdict_comes_first(visit, page):
    tab, _ = visit(page, "light", PHONE)
    found = tab.evaluate(
        """() => [...document.querySelectorAll("table.ledger tr:has(td .verdict)")].map(r => {
            const boxes = [...r.children].map(c => c.getBoundingClientRect());
            const verdict = r.querySelector(".verdict").getBoundingClientRect();
            return {wide: Math.max(...boxes.map(b => b.right)),
                    first: verdict.top <= Math.min(...boxes.map(b => b.top)) + 12,
                    labels: [...r.children].every(c => c.dataset.label)};
        })"""
    )
    assert found, "there is no measured ledger on the page"
    assert all(f["wide"] <= PHONE["width"] for f in found), max(f["wide"] for f in found)
    assert all(f["first"] and f["labels"] for f in found)
