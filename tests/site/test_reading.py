"""What helps in reading: cards of terms and citations, the figure below the claim, solutions, the foot of a page."""

from __future__ import annotations

import re

import pytest
from axe_playwright_python.sync_playwright import Axe
from browsing import PHONE, ROOT, each_look_once

from tools.notebooks import notebooks, pages, read, tags

CHAPTERS = list(notebooks(ROOT))
FINDINGS = [page for page, file in notebooks(ROOT).items() if read(file).metadata["alignlab"]["kind"] == "finding"]


@pytest.mark.parametrize("link", ["a.term", ".bibtex-citation a"])
def test_a_card_says_what_a_link_means(visit, link):
    tab, trouble = visit("notebooks/three-rules")
    found = tab.locator(f"article {link}").first
    said = found.get_attribute("data-card")
    card = tab.locator("#card-of-link")
    assert len(said) > 20 and card.is_hidden() and not found.get_attribute("title")
    found.hover()
    assert card.inner_text() == " ".join(said.split())
    tab.mouse.move(1, 1)
    assert card.is_hidden()
    found.focus()
    assert card.is_visible() and found.get_attribute("aria-describedby") == "card-of-link"
    tab.keyboard.press("Escape")
    assert card.is_hidden() and not trouble


def test_the_first_touch_shows_the_card_and_the_second_follows_the_link(browser, address):
    tab = browser.new_context(viewport={"width": 390, "height": 844}, has_touch=True).new_page()
    tab.goto(f"{address}/notebooks/three-rules.html")
    link = tab.locator("article a.term").first
    link.tap()
    card = tab.locator("#card-of-link")
    assert card.is_visible() and "three-rules" in tab.url
    box = card.bounding_box()
    assert box["x"] >= 0 and box["x"] + box["width"] <= 390
    link.tap()
    tab.wait_for_url("**/glossary.html#term-*")


@pytest.mark.parametrize("page", CHAPTERS)
def test_a_term_is_linked_once_and_arrives_at_its_row(visit, page):
    tab, _ = visit(page)
    there = [a.get_attribute("href") for a in tab.locator("article a.term").all()]
    assert len(there) >= 5 and len(set(there)) == len(there)
    tab.locator("article a.term").first.focus()
    tab.keyboard.press("Enter")
    tab.wait_for_url("**#term-*")
    assert tab.locator(f"tr#{tab.url.split('#')[1]}").is_visible()


@pytest.mark.parametrize("page", CHAPTERS)
def test_the_figure_below_the_claim_leads_to_its_place(visit, page):
    tab, _ = visit(page)
    hero = tab.locator("article .hero")
    assert hero.count() == 1 and hero.locator("svg.plot").is_visible()
    number = hero.locator("a").last.inner_text()
    assert re.fullmatch(r"Figure \d+\.\d+", number)
    hero.locator("a").last.click()
    assert tab.locator(f"figure#{tab.url.split('#')[1]} .caption-number").inner_text().strip() == number


@pytest.mark.parametrize("page", FINDINGS)
def test_every_figure_is_numbered_in_order_and_can_be_enlarged(visit, page):
    tab, trouble = visit(page, "dark", PHONE)
    numbers = [n.strip() for n in tab.locator("article figcaption .caption-number").all_inner_texts()]
    drawn = sum("figure" in c.metadata.get("mystnb", {}) for c in read(notebooks(ROOT)[page]).cells)
    chapter = 1 + CHAPTERS.index(page)
    assert numbers == [f"Figure {chapter}.{k}" for k in range(1, drawn + 1)] and drawn >= 3
    button = tab.get_by_role("button", name=f"Enlarge {numbers[0]}")
    before = tab.locator("figure svg.plot").first.bounding_box()["width"]
    button.click()
    box = tab.locator("dialog.enlarged svg").bounding_box()
    assert box["width"] > 1.5 * before
    tab.keyboard.press("Escape")
    tab.locator("dialog.enlarged").wait_for(state="detached")  # its `close` comes a moment after the key
    assert not trouble


@pytest.mark.parametrize("page", CHAPTERS)
def test_the_words_in_a_figure_are_legible_on_a_phone_and_in_the_dark(visit, page):
    tab, _ = visit(page, "dark", {"width": 390, "height": 844})
    sizes = tab.evaluate(
        """[...document.querySelectorAll('article svg.plot')].map(s => {
            const scale = s.getBoundingClientRect().width / s.viewBox.baseVal.width;
            const sizes = [...s.querySelectorAll('text')].map(t => parseFloat(getComputedStyle(t).fontSize));
            return Math.min(...sizes) * scale;
        })"""
    )
    assert min(sizes) >= 11, sizes
    colours = tab.evaluate(
        "[...document.querySelectorAll('article svg.plot text')].map(t => getComputedStyle(t).fill)"
    )
    ink = tab.evaluate("getComputedStyle(document.querySelector('article p')).color")
    assert ink in colours and "rgb(38, 38, 38)" not in colours


@pytest.mark.parametrize("page", FINDINGS)
def test_a_solution_opens_by_its_title_and_all_are_open_on_paper(visit, page):
    tab, _ = visit(page)
    chapter, solutions = 1 + CHAPTERS.index(page), tab.locator("details.solution")
    said = [" ".join(s.split()) for s in solutions.locator("summary").all_inner_texts()]
    assert len(said) >= 2 and all(re.match(rf"Solution to Exercise {chapter}\.{k}\b", s) for k, s in enumerate(said, 1))
    before = tab.url
    solutions.first.locator("summary").click()
    assert solutions.first.locator("p").first.is_visible() and tab.url == before
    tab.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert all(d.get_attribute("open") is not None for d in solutions.all())
    tab.evaluate("dispatchEvent(new Event('afterprint'))")
    assert solutions.nth(1).get_attribute("open") is None and solutions.first.get_attribute("open") is not None


def test_a_guess_stands_below_the_figure_that_answers_it(visit):
    tab, _ = visit("notebooks/token-shift")
    field, note = tab.locator(".predict .guess input[type=text]").first, tab.locator(".tag_answers-2 .you-said")
    assert note.count() == 0
    field.fill("nothing <i>much</i>")
    assert note.inner_text() == "You said to question 2: nothing <i>much</i>"
    field.fill("")
    assert tab.locator(".you-said").count() == 0


def test_every_question_that_can_be_guessed_at_is_answered_by_a_figure_or_the_ledger():
    for page in FINDINGS:
        notebook = read(notebooks(ROOT)[page])
        asked = len(re.findall(r"^\d+\. ", notebook.cells[0].source, re.MULTILINE))
        answered = {int(t[8:]) for c in notebook.cells for t in tags(c) if t.startswith("answers-")}
        assert answered <= set(range(1, asked + 1)) and len(answered) >= 2, page


@pytest.mark.parametrize("page", list(pages(ROOT)))
def test_the_foot_says_how_to_cite_and_where_to_object(visit, page):
    tab, _ = visit(page)
    foot = tab.locator(".page-foot")
    assert re.search(r"Version \d+\.\d+\.\d+, last changed \d{4}-\d\d-\d\d\.", foot.inner_text())
    assert "issues/new?title=" in foot.locator("a").first.get_attribute("href")
    foot.locator("summary").click()
    title = re.sub(r"^\d+\. ", "", tab.locator("h1").last.inner_text().rstrip("#"))
    assert title in foot.inner_text()
    assert re.search(r"^@(incollection|book)\{dragonseyes", foot.locator("pre").inner_text())


@pytest.mark.parametrize("mode", ["light", "dark"])
def test_cards_and_enlarged_figures_are_accessible(visit, mode):
    tab, _ = visit("notebooks/lima", mode, PHONE)
    tab.locator("article a.term").first.focus()
    tab.locator("details.solution summary").first.click()
    each_look_once(tab)
    found = Axe().run(tab).response["violations"]
    grave = [(v["id"], v["nodes"][0]["html"]) for v in found if v["impact"] in ("serious", "critical")]
    assert not grave, grave
    tab.locator("button.enlarge").first.click()
    found = Axe().run(tab, context="dialog").response["violations"]
    assert not found, [(v["id"], v["nodes"][0]["html"]) for v in found]
