"""Finding one's way in the built site: strips, marks that lead to lines, ids in prose, what changed, the keyboard."""

from __future__ import annotations

import csv

import pytest
from browsing import DESK, PHONE, ROOT, SITE
from bs4 import BeautifulSoup

from tools.notebooks import VERDICTS, entries, notebooks, summary

CHAPTERS = {page: file for page, file in notebooks(ROOT).items() if entries(file)}
LINES = [(file.stem, e) for file in CHAPTERS.values() for e in entries(file)]
OTHER = [(c, e) for c, e in LINES if e["verdict"] != VERDICTS[e["kind"]][0]]


def soup(page):
    return BeautifulSoup((SITE / f"{page}.html").read_text("utf-8"), "html.parser")


def test_every_line_has_a_strip_with_a_dot_for_every_seed():
    page = soup("book/scoreboard")
    for chapter, entry in LINES:
        strip = page.find("tr", id=f"{chapter}-{entry['id']}").find("svg")
        assert len(strip.select("circle.strip-seed")) == len(entry["values"])
        mean = f"{entry['mean']:+.2f}".replace("-", "\N{MINUS SIGN}")
        assert entry["expect"] in strip["aria-label"] and f"mean {mean};" in strip["aria-label"]


def test_what_did_not_come_out_as_claimed_stands_first():
    page = soup("book/scoreboard")
    tables = page.select("table.ledger")
    assert len(tables) == len(CHAPTERS) + bool(OTHER)
    if OTHER:
        links = [a.get_text() for a in tables[0].select("a.claim-id")]
        assert "exceptions" in tables[0]["class"] and links == [e["id"] for _, e in OTHER]


@pytest.mark.parametrize("page", ["book/index", "book/scoreboard"])
def test_a_count_leads_to_its_lines(visit, page):
    tab, trouble = visit(page)
    for verdict in ("not reproduced", "held"):
        wanted = sum(e["verdict"] == verdict for _, e in LINES)
        tab.locator("article > section > p.tally a", has_text=f"{wanted} {verdict}").first.click()
        tab.wait_for_function("new URLSearchParams(location.search).has('verdict')")
        tab.wait_for_load_state()
        rows = tab.locator("table.scoreboard tbody tr:not([hidden])")
        assert rows.count() == wanted and set(rows.locator("td:first-child .verdict >> nth=0").all_inner_texts()) <= {
            verdict
        }
        assert tab.locator("section.board-exceptions").is_hidden()
        tab.go_back()
        tab.wait_for_load_state()
    assert not trouble


def test_a_filtered_address_works_from_a_folder(browser):
    tab = browser.new_page()
    tab.goto(f"{(SITE / 'book' / 'scoreboard.html').as_uri()}?verdict=not-reproduced&kind=claim")
    shown = "table.scoreboard tbody tr:not([hidden])"
    assert tab.locator(shown).count() == sum(e["verdict"] == "not reproduced" for _, e in LINES)
    tab.select_option("select[name=verdict]", "reproduced")
    assert "verdict=reproduced" in tab.url
    tab.goto((SITE / "book" / "glossary.html").as_uri())
    tab.go_back()
    assert tab.locator("select[name=verdict]").input_value() == "reproduced"
    assert tab.locator(shown).count() == sum(e["verdict"] == "reproduced" for _, e in LINES)
    tab.close()


def test_the_front_page_leads_to_each_ledger_by_one_click(visit):
    tab, trouble = visit("book/index")
    for page in CHAPTERS:
        there = f"../{page}.html#the-ledger"
        assert tab.locator(f"ul.chapter-list p.tally a[href='{there}']").count(), page
    tab.locator("ul.chapter-list p.tally a").first.click()
    tab.wait_for_load_state()
    assert tab.locator("#the-ledger").count() == 1 and not trouble


def test_colab_is_one_click_from_the_front_page_and_from_every_chapter():
    opened = "a[href*='colab.research.google.com/github/'][href$='.ipynb']"
    assert soup("book/index").select_one(f".begin-buttons {opened}")
    for page in CHAPTERS:
        assert soup(page).select_one(f"article p {opened}")["href"].endswith(f"/{page}.ipynb")


@pytest.mark.parametrize("page", CHAPTERS)
def test_a_shared_link_says_what_the_chapter_found(page):
    found = soup(page)
    said = found.select_one("meta[name=description]")["content"]
    assert said == summary(ROOT / f"{page}.ipynb") and "{" not in said
    assert found.select_one("meta[property='og:description']")["content"] == said
    assert found.select_one("meta[property='og:title']")["content"] in found.select_one("h1").get_text()


@pytest.mark.parametrize("page", CHAPTERS)
def test_the_marks_at_the_head_of_a_chapter_lead_to_its_ledger(page):
    found = soup(page)
    marks = found.select("article h1 ~ p + p.tally .verdict")
    assert marks and all(m.find_parent("a")["href"] == "#the-ledger" for m in marks)
    assert found.find(id="the-ledger")


def test_ids_in_prose_lead_to_their_rows():
    ids = {e["id"] for _, e in LINES}
    linked, bare = 0, []
    for file in SITE.glob("**/*.html"):
        for em in BeautifulSoup(file.read_text("utf-8"), "html.parser").select("article em"):
            if em.get_text() in ids:
                link = em.find("a", href=True)
                linked += bool(link and link["href"].endswith(f"#claim-{em.get_text()}"))
                bare += [] if link else [f"{file.name}: {em.get_text()}"]
    own = [b for b in bare if sum(b.endswith(f": {e['id']}") for _, e in LINES) == 1]
    assert linked and not own, own


def test_robust_shows_what_changed_and_folds_the_rest(visit):
    with (ROOT / "book" / "_data" / "robustness.csv").open(encoding="utf-8") as f:
        total = len(list(csv.DictReader(f)))
    tab, trouble = visit("book/robust")
    said = tab.locator("article strong", has_text="verdicts change").inner_text()
    few, of = (int(word) for word in said.split() if word.isdigit())
    assert of == total and not tab.locator("details.unchanged table").is_visible()
    tab.click("details.unchanged > summary")
    assert tab.locator("details.unchanged tbody tr").count() == total - few
    assert tab.locator("details.unchanged td .verdict").count() >= total - few
    box = tab.locator("details.unchanged table").bounding_box()
    assert box["x"] + box["width"] <= DESK["width"], "its columns do not fit a desk"
    assert not trouble


def test_on_a_phone_robust_has_cards_and_nothing_is_off_the_screen(visit):
    tab, _ = visit("book/robust", "light", PHONE)
    tab.click("details.unchanged > summary")
    cells = tab.evaluate(
        """() => [...document.querySelectorAll("table.robustness td")].filter(c => c.offsetHeight).map(c =>
          [c.dataset.label, Math.max(...[c, ...c.querySelectorAll("*")].map(e => e.getBoundingClientRect().right))])"""
    )
    assert len(cells) > 100 and all(label for label, _ in cells)
    assert max(right for _, right in cells) <= PHONE["width"]


def test_the_head_of_the_scoreboard_stays_in_sight(visit):
    tab, _ = visit("book/scoreboard")
    table = tab.locator("table.scoreboard").nth(1)
    table.locator("tbody tr").nth(4).evaluate("r => scrollTo(0, r.getBoundingClientRect().top + scrollY - 200)")
    tab.wait_for_timeout(100)
    top, bar = tab.evaluate(
        """() => [document.querySelectorAll("table.scoreboard")[1].querySelector("th").getBoundingClientRect().top,
                  document.querySelector(".bd-header-article").getBoundingClientRect().bottom]"""
    )
    assert abs(top - bar) <= 4, (top, bar)


@pytest.mark.parametrize("page", ["book/scoreboard", "book/robust", *CHAPTERS])
def test_the_keyboard_stops_only_at_boxes_that_scroll(visit, page):
    tab, _ = visit(page)
    idle = tab.evaluate(
        """() => [...document.querySelectorAll("article [tabindex='0']")].filter(b => b.offsetParent
             && b.matches(".ledger-box, .output, .explorer, pre, .formula, .pst-scrollable-table-container")
             && (b.scrollWidth <= b.clientWidth || getComputedStyle(b).overflowX === "visible")).length"""
    )
    assert idle == 0


def explored(kind):
    """Read from the notebooks: the tests are also collected where no site has been built."""
    return [page for page, file in CHAPTERS.items() if kind.replace('"', '\\"') in file.read_text("utf-8")]


@pytest.mark.parametrize("page", explored('autocomplete="off" onchange'))
def test_after_back_a_menu_and_what_it_shows_agree(browser, page):
    tab = browser.new_page()
    tab.goto((SITE / f"{page}.html").as_uri())
    menu = tab.locator(".explorer select[onchange]").first
    menu.select_option(index=1)
    tab.goto((SITE / "book" / "glossary.html").as_uri())
    tab.go_back()
    tab.wait_for_load_state()
    chosen, shown = menu.evaluate(
        """s => [s.selectedIndex,
                 [...s.closest(".explorer").querySelectorAll("section")].findIndex(p => !p.hidden)]"""
    )
    assert chosen == shown
    # What an older browser keeps: the menu says one thing, the box another, until the page is shown again.
    menu.evaluate("s => { s.selectedIndex = 1; dispatchEvent(new PageTransitionEvent('pageshow')) }")
    assert menu.evaluate("s => s.closest('.explorer').querySelectorAll('section')[1].hidden") is False
    tab.close()


@pytest.mark.parametrize("viewport", [DESK, PHONE], ids=["desk", "phone"])
@pytest.mark.parametrize("page", explored('type="range"'))
def test_a_slider_is_wide_and_its_box_keeps_its_height(visit, page, viewport):
    tab, _ = visit(page, viewport=viewport)
    for slider in tab.query_selector_all(".explorer > label > input[type=range]"):
        if not slider.is_visible():
            continue
        box = slider.evaluate_handle("s => s.closest('.explorer')").as_element()
        assert slider.bounding_box()["width"] >= 0.5 * box.bounding_box()["width"]
        before = box.bounding_box()["height"]
        for key in ("End", "Home", "ArrowRight"):
            slider.focus()
            tab.keyboard.press(key)
            assert abs(box.bounding_box()["height"] - before) <= 1


def test_what_the_verdicts_mean_is_the_same_everywhere():
    import meanings

    said = meanings.meanings()
    pages = {p: soup(p).get_text(" ", strip=True) for p in ("book/how-to-run", "book/scoreboard", "book/glossary")}
    for page, text in pages.items():
        for verdict in ("reproduced", "direction only", "opposite", "held", "broken"):
            assert said[verdict] in text, f"{page}: {verdict}"
