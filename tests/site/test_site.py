"""The built site, as files and in a real browser. `make book` builds it; `make test` builds it first.

The browser tests need Chromium (on the path, or named by CHROMIUM) and are skipped with a line where there is none.
"""

from __future__ import annotations

import functools
import json
import re
import zipfile
from importlib.resources import files
from pathlib import Path
from urllib.parse import unquote, urlsplit
from xml.etree import ElementTree as ET

import pytest
import scoreboard
from browsing import DESK, PHONE, ROOT, SITE, each_look_once, file_of, show
from bs4 import BeautifulSoup

from tools import notebooks as reader
from tools.checks import EPUB
from tools.notebooks import notebooks, pages

PAGES = list(pages(ROOT))
MOST_BYTES, MOST_FILES = 1_000_000, 25  # of a page with all that it loads


@functools.cache
def soup(file: Path) -> BeautifulSoup:
    return BeautifulSoup(file.read_text("utf-8"), "html.parser")


def html(page: str) -> Path:
    return SITE / f"{page}.html"


# As files


def test_the_root_leads_to_the_front_page():
    assert "book/index.html" in (SITE / "index.html").read_text("utf-8")


def test_the_epub_is_whole():
    with zipfile.ZipFile(SITE / EPUB.name) as book:
        names = set(book.namelist())
        written = {name: book.read(name) for name in names if name.endswith((".xhtml", ".opf", ".ncx"))}
    assert {f"{page}.xhtml" for page in PAGES} <= names
    for name, content in written.items():
        tree = ET.fromstring(content)  # a reader refuses a page that is no XML
        for element in tree.iter():
            tag, where = element.tag.rpartition("}")[2], element.get("src", "")
            assert tag not in {"script", "select", "form", "iframe"}, f"{name}: {tag} needs a browser"
            if tag == "img":
                assert (Path("/") / Path(name).parent / where).resolve().as_posix().lstrip("/") in names, where
                assert element.get("alt"), f"{name}: {where} has no alt text"
    assert b"<dc:title>Dotting the Dragon" in written["content.opf"]


@pytest.mark.parametrize("page", PAGES)
def test_page_is_there_and_whole(page):
    assert html(page).exists()
    assert not soup(html(page)).select(".system-message, .problematic"), "Sphinx left an error message on the page"
    assert soup(html(page)).find("h1")


@pytest.mark.parametrize("page", PAGES)
def test_page_opens_in_chinese(page):
    box = soup(html(page)).select_one("article .admonition.tiyao")
    assert box, "there is no 中文提要"
    assert any("\u4e00" <= ch <= "\u9fff" for ch in box.get_text())
    assert all(p.get("lang") == "zh-CN" for p in box.select("p")), "a screen reader is not told that this is Chinese"


def test_scoreboard_has_a_row_for_every_entry():
    wanted = [
        f"{ledger['chapter']}-{entry['id']}"
        for file in notebooks(ROOT).values()
        for ledger in reader.ledgers(file)
        for entry in ledger["entries"]
    ]
    page = soup(html("book/scoreboard"))
    assert [row.get("id") for row in page.select("table.scoreboard tbody tr")] == wanted
    for row in page.select("table.scoreboard tbody tr"):
        assert row.select_one("a[href]"), "a row has no link to its chapter"
        assert row.select_one(".verdict").get_text() in ALL_VERDICTS
    if not wanted:
        assert scoreboard.NOTHING in page.get_text()


ALL_VERDICTS = sum(reader.VERDICTS.values(), ())
ROWS = [
    (ledger["chapter"], entry["kind"], entry["verdict"])
    for file in notebooks(ROOT).values()
    for ledger in reader.ledgers(file)
    for entry in ledger["entries"]
]


@pytest.mark.parametrize("page", ["book/index", "book/scoreboard"])
def test_every_verdict_is_counted_negative_ones_too(page):
    marks = [m.get_text() for m in soup(html(page)).select("article > section > p.tally .verdict")]
    given = [verdict for _, _, verdict in ROWS]
    assert marks == [f"{given.count(v)} {v}" for vs in reader.VERDICTS.values() for v in vs]


def test_the_front_page_lists_every_chapter_with_its_verdicts():
    items = soup(html("book/index")).select("ul.chapter-list > li")
    chapters = notebooks(ROOT)
    assert [i.find("a")["href"] for i in items] == [f"../{name}.html" for name in chapters]
    for item, (name, file) in zip(items, chapters.items(), strict=True):
        said = soup(html(name)).select_one("article h1").find_all(string=True, recursive=False)
        own = next(t for t in said if t.strip())
        assert own.strip() and own.strip() in item.find("a").get_text(), "the title is not the chapter's"
        given = [e["verdict"] for ledger in reader.ledgers(file) for e in ledger["entries"]]
        wanted = {f"{given.count(v)} {v}" for v in given}
        assert {m.get_text() for m in item.select(".verdict")} == wanted


@pytest.mark.parametrize("page", list(notebooks(ROOT)))
def test_a_chapter_says_at_its_head_what_came_out(page):
    given = [e["verdict"] for ledger in reader.ledgers(notebooks(ROOT)[page]) for e in ledger["entries"]]
    head = soup(html(page)).select("article h1 ~ p + p.tally .verdict")
    assert [m.get_text() for m in head] == [f"{given.count(v)} {v}" for v in ALL_VERDICTS if v in given]


@functools.cache
def targets(file: Path) -> set[str]:
    named = soup(file).find_all("a", attrs={"name": True})
    return {tag["id"] for tag in soup(file).find_all(id=True)} | {tag["name"] for tag in named}


def links(file: Path):
    page = soup(file)
    for tag, attribute in (("a", "href"), ("link", "href"), ("script", "src"), ("img", "src"), ("iframe", "src")):
        for element in page.find_all(tag, attrs={attribute: True}):
            yield tag, element, element[attribute]


@pytest.mark.parametrize("page", PAGES)
def test_internal_links_and_anchors_resolve(page):
    broken = []
    for tag, _, address in links(html(page)):
        parts = urlsplit(address)
        if parts.scheme or parts.netloc:
            continue
        target = (html(page).parent / unquote(parts.path)).resolve() if parts.path else html(page)
        if target.is_dir():
            target /= "index.html"
        if not target.exists():
            broken.append(address)
            continue
        anchor = unquote(parts.fragment) if tag == "a" and target.suffix == ".html" else ""
        if anchor and anchor not in targets(target):
            broken.append(address)
    assert not broken, f"links to nowhere: {broken}"


@pytest.mark.parametrize("page", PAGES)
def test_nothing_is_loaded_from_elsewhere(page):
    foreign = [
        address
        for tag, element, address in links(html(page))
        if urlsplit(address).netloc and tag != "a" and element.get("rel") not in (["canonical"], ["license"])
    ]
    assert not foreign, f"loaded from another host: {foreign}"


def test_no_style_sheet_asks_another_host():
    foreign = []
    for sheet in SITE.rglob("*.css"):
        text = re.sub(r"/\*.*?\*/", "", sheet.read_text("utf-8"), flags=re.DOTALL)
        found = re.findall(r"(?:url\(|@import)\s*[\"']?((?:https?:)?//[^\s\"')]+)", text)
        foreign += [f"{sheet.relative_to(SITE)}: {address}" for address in found]
    assert not foreign, foreign


def test_formulas_need_no_script():
    assert soup(html("book/glossary")).find("math"), "the notation is not set as MathML"
    for page in PAGES:
        named = [s["src"] for s in soup(html(page)).find_all("script", src=True)]
        assert not [n for n in named if re.search("mathjax|katex|require", n, re.IGNORECASE)], named


@pytest.mark.parametrize("page", list(notebooks(ROOT)))
def test_chapter_has_a_colab_button_to_itself(page):
    hrefs = [a["href"] for a in soup(html(page)).select("a[href*='colab.research.google.com']")]
    assert any(h.endswith(f"/blob/main/{page}.ipynb") for h in hrefs), hrefs


# In a browser


VIEWS = [(page, mode, viewport) for page in PAGES for mode, viewport in (("light", DESK), ("dark", PHONE))]


@pytest.fixture(scope="module", params=VIEWS, ids=lambda v: f"{v[0]}-{v[1]}")
def seen(request, kept, address):
    """(page in the browser, what went wrong, its width): each page in two views, loaded once for all who only look."""
    page, mode, viewport = request.param
    tab, trouble = kept(mode, "seen")
    show(tab, address, page, mode, viewport)
    return tab, trouble, viewport["width"]


def test_page_loads_without_errors_or_foreign_requests(seen):
    tab, trouble, _ = seen
    # What waits until it is seen is asked for now.
    tab.evaluate("window.scrollTo(0, document.documentElement.scrollHeight)")
    tab.wait_for_timeout(100)
    assert not trouble, trouble


def test_a_foreign_request_would_be_noticed(visit):
    tab, trouble = visit("book/references")
    tab.evaluate("new Image().src = 'https://elsewhere.example/dot.png'")
    tab.evaluate("fetch('https://elsewhere.example/data').catch(() => 0)")
    tab.evaluate("new WebSocket('wss://elsewhere.example/socket')")
    tab.wait_for_timeout(300)
    for address in ("https://elsewhere.example/dot.png", "https://elsewhere.example/data"):
        assert f"asks {address}" in trouble
    assert any("elsewhere.example/socket" in line for line in trouble)


def test_a_visit_leaves_nothing_to_the_next(visit):
    tab, trouble = visit("book/glossary", "dark", PHONE)
    tab.emulate_media(media="print")
    tab.evaluate("localStorage.setItem('mode', 'light'); localStorage.setItem('kept', 1); window.scrollTo(0, 500)")
    tab.evaluate("fetch('https://elsewhere.example/data').catch(() => 0)")
    assert trouble and tab.evaluate("scrollY") > 0
    tab, trouble = visit("book/glossary", "dark")
    left = tab.evaluate("[scrollY, innerWidth, matchMedia('print').matches, 'kept' in localStorage, localStorage.mode]")
    assert left == [0, DESK["width"], False, False, "dark"] and not trouble


def heavy(tab) -> list[tuple[int, str]]:
    """(bytes, name) of every file that the page in `tab` has asked for, the largest first: uncompressed, and
    whether the browser kept it from an earlier page or not."""
    names = tab.evaluate("['navigation', 'resource'].flatMap(t => performance.getEntriesByType(t)).map(e => e.name)")
    loaded = {file_of(name) for name in names if name.startswith("http")}
    return sorted(((file.stat().st_size, file.name) for file in loaded), reverse=True)


def is_light(tab) -> bool:
    files = heavy(tab)
    return 5 < len(files) <= MOST_FILES and sum(size for size, _ in files) <= MOST_BYTES


def test_page_is_light(seen):
    assert is_light(seen[0]), heavy(seen[0])


def test_search_and_index_work_here(visit):
    tab, trouble = visit("genindex")
    assert not trouble and is_light(tab), (trouble, heavy(tab))
    tab, trouble = visit("search")
    tab.goto(tab.url + "?q=ledger")
    tab.wait_for_selector("ul.search li a")
    assert not trouble, trouble


@pytest.mark.parametrize("page", PAGES)
def test_page_opens_from_a_folder(browser, page):
    """Without any server: from a USB stick, say."""
    context = browser.new_context()
    tab = context.new_page()
    trouble: list[str] = []
    tab.on("request", lambda r: trouble.append(r.url) if not r.url.startswith(("file:", "data:", "blob:")) else None)
    tab.on("requestfailed", lambda r: trouble.append(f"missing {r.url}"))
    tab.on("pageerror", lambda e: trouble.append(f"script error: {e}"))
    tab.on("console", lambda m: trouble.append(f"console: {m.text}") if m.type == "error" else None)
    tab.goto(html(page).as_uri(), wait_until="load")
    tab.wait_for_timeout(100)
    blank = tab.evaluate("[...document.images].filter(i => !i.complete || !i.naturalWidth).map(i => i.src)")
    styled = tab.evaluate("getComputedStyle(document.querySelector('.tiyao')).borderLeftStyle")
    context.close()
    assert not trouble and not blank and styled == "solid", (trouble, blank, styled)


def test_every_image_says_what_it_shows(seen):
    tab, _, _ = seen
    bare = tab.evaluate(
        "[...document.images].filter(i => !(i.getAttribute('alt') || '').trim()).map(i => i.outerHTML.slice(0, 200))"
    )
    assert not bare, bare
    # The file name that Sphinx puts where nothing was written says nothing.
    named = tab.evaluate(
        "[...document.querySelectorAll('article img')].map(i => i.alt).filter(a => /\\.(png|svg|jpe?g)$/.test(a))"
    )
    assert not named, named


WIDER = """limit => [...document.querySelectorAll('body *')]
  .filter(e => e.getBoundingClientRect().right > limit + 1 && e.getBoundingClientRect().width > 0)
  .filter(e => { for (let p = e.parentElement; p; p = p.parentElement)
                   if (getComputedStyle(p).overflowX != 'visible') return false; return true; })
  .slice(0, 5).map(e => e.outerHTML.slice(0, 120))"""


def test_page_fits_a_desk_and_a_phone(seen):
    tab, _, room = seen
    width = tab.evaluate("Math.max(document.documentElement.scrollWidth, document.body.scrollWidth)")
    assert width <= room, f"{width} pixels wide, because of {tab.evaluate(WIDER, room)}"


RATIOS = """() => {
  const rgb = c => (c.match(/[\\d.]+/g) || []).map(Number);
  const linear = v => (v /= 255) <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4;
  const light = c => { const [r, g, b] = rgb(c).map(linear); return .2126 * r + .7152 * g + .0722 * b };
  const ground = e => { for (; e; e = e.parentElement) { const c = getComputedStyle(e).backgroundColor, v = rgb(c);
                          if (v.length == 3 || v[3] > .99) return c; } return 'rgb(255, 255, 255)' };
  const ours = '.verdict, .tiyao p, table.ledger th, table.ledger td, .explorer, .explorer td, .explorer select';
  return [...document.querySelectorAll(ours)]
    .map(e => { const [a, b] = [light(getComputedStyle(e).color), light(ground(e))].sort((x, y) => y - x);
                return [e.className || e.tagName, e.textContent.trim().slice(0, 30), (a + .05) / (b + .05)] }) }"""


@pytest.mark.parametrize("mode", ["light", "dark"])
def test_our_own_boxes_have_contrast(visit, mode):
    tab, _ = visit("book/scoreboard", mode)
    # Every verdict, also those that no chapter has got yet, as the pages and as the outputs of a chapter write them.
    spans = "".join(f'<span class="verdict verdict-{v.replace(" ", "-")}">{v}</span>' for v in ALL_VERDICTS)
    table = f'<div class="ledger-box"><table class="ledger"><tr><th>a</th></tr><tr><td>{spans}</td></tr></table></div>'
    select = "<label>a <select><option>b</option></select></label>"
    widget = f'<div class="explorer">{select}<table><tr><td>c</td></tr></table></div>'
    tab.evaluate(
        "html => document.querySelector('article').insertAdjacentHTML('beforeend', html)",
        f'{table}<div class="cell_output docutils container"><div class="output text_html">{table}{widget}</div></div>',
    )
    ratios = tab.evaluate(RATIOS)
    assert len(ratios) > 12
    low = [r for r in ratios if r[2] < 4.5]
    assert not low, low


# Contrast and the rest of WCAG 2.2, levels A and AA, as far as a program can check them.
RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"]


@functools.cache
def checker() -> str:
    return (files("axe_playwright_python") / "axe.min.js").read_text("utf-8")


def barriers(tab) -> list[str]:
    # From the top: further down the theme's "back to top" floats over whatever happens to lie below it.
    tab.evaluate("window.scrollTo({top: 0, behavior: 'instant'})")
    tab.wait_for_function(
        "() => !document.querySelector('#pst-back-to-top')?.checkVisibility({visibilityProperty: true})"
    )
    each_look_once(tab)
    tab.evaluate(checker())
    found = tab.evaluate("rules => axe.run(document, {runOnly: rules, resultTypes: ['violations']})", RULES)
    assert len(found["passes"]) > 10, "the checker did not look at the page"
    return [f"{v['id']}: {n['target']} {n['failureSummary']}" for v in found["violations"] for n in v["nodes"]]


def test_page_has_no_barriers(seen):
    tab, _, _ = seen
    found = barriers(tab)
    assert not found, "\n".join(found)


@pytest.mark.parametrize("mode", ["light", "dark"])
def test_a_barrier_would_be_noticed(visit, mode):
    tab, _ = visit("book/references", mode)
    pale = "<p style='color: #777; background: #888'>hard to read</p>"
    tab.evaluate(
        "html => document.querySelector('article').insertAdjacentHTML('beforeend', html)",
        f"{pale}<img src='../_static/favicon.svg'><select><option>no label</option></select>",
    )
    found = " ".join(barriers(tab))
    assert "color-contrast" in found and "image-alt" in found and "select-name" in found


def test_a_pale_word_of_code_would_be_noticed(visit):
    tab, _ = visit("notebooks/the-lab")
    tab.add_style_tag(content=".highlight .mi { color: #999; background: #888 }")
    assert "color-contrast" in " ".join(barriers(tab))


# What a reader can move


@pytest.mark.parametrize("how", ["click", "keyboard"])
def test_the_dark_mode_switch_answers(visit, how):
    tab, trouble = visit("book/index", "light")
    button = tab.locator("button.theme-switch-button:visible").first
    seen = {tab.evaluate("getComputedStyle(document.body).backgroundColor")}
    for _ in range(3):  # light, dark, as the system has it
        if how == "click":
            button.click()
        else:
            button.focus()
            tab.keyboard.press("Enter")
        tab.wait_for_timeout(50)
        seen.add(tab.evaluate("getComputedStyle(document.body).backgroundColor"))
    assert len(seen) == 2, f"the page has the grounds {seen}: light and dark are wanted"
    assert not trouble, trouble


def lines(tab) -> list[tuple[str, str, str]]:
    """(chapter, kind, verdict) of the rows of the scoreboard that can be seen."""
    return [
        (of[3:], kind[5:], verdict[3:].replace("-", " "))
        for verdict, of, kind in tab.evaluate(
            """[...document.querySelectorAll("table.scoreboard tbody tr")].filter(r => r.offsetHeight)
               .map(r => ["is-", "of-", "kind-"].map(p => [...r.classList].find(c => c.startsWith(p))))"""
        )
    ]


CHAPTERS = list(dict.fromkeys(chapter for chapter, _, _ in ROWS))


@pytest.mark.skipif(not ROWS, reason="no chapter has a ledger yet")
@pytest.mark.parametrize("mode", ["light", "dark"])
def test_scoreboard_filters_show_what_was_chosen(visit, mode):
    tab, trouble = visit("book/scoreboard", mode)
    status = tab.locator(".board-filters [role=status]")
    assert lines(tab) == ROWS and status.inner_text() == f"{len(ROWS)} of {len(ROWS)} lines shown"
    for name, place, values in (
        ("chapter", 0, CHAPTERS),
        ("kind", 1, list(reader.VERDICTS)),
        ("verdict", 2, ALL_VERDICTS),
    ):
        menu = tab.locator(f".board-filters select[name={name}]")
        assert menu.locator("option").count() == len(values) + 1
        for number, value in enumerate(values, 1):
            menu.select_option(index=number)
            wanted = [row for row in ROWS if row[place] == value]
            assert lines(tab) == wanted, f"{name} {value}"
            said = f"{len(wanted)} of {len(ROWS)} lines shown" if wanted else "No line of the ledgers is like this."
            assert status.inner_text() == said
            assert f"({len(wanted)})" in menu.locator("option").nth(number).inner_text()
        menu.select_option(index=0)
    tab.select_option("select[name=chapter]", index=1)
    tab.select_option("select[name=kind]", index=2)
    assert lines(tab) == [r for r in ROWS if r[0] == CHAPTERS[0] and r[1] == "control"], "two menus do not add up"
    tab.click(".board-filters button")
    tab.wait_for_timeout(50)
    assert lines(tab) == ROWS and not trouble


@pytest.mark.skipif(not ROWS, reason="no chapter has a ledger yet")
def test_scoreboard_filters_answer_the_keyboard(visit):
    tab, _ = visit("book/scoreboard")
    tab.focus(".board-filters select[name=verdict]")
    tab.keyboard.press("Tab")
    tab.keyboard.press("Tab")
    assert tab.evaluate("document.activeElement.name") == "kind", "the menus are not reached one after the other"
    tab.keyboard.press("ArrowDown")
    tab.wait_for_timeout(50)
    assert lines(tab) == [r for r in ROWS if r[1] == "claim"]
    tab.keyboard.press("Tab")
    tab.keyboard.press("Enter")
    tab.wait_for_timeout(50)
    assert lines(tab) == ROWS, "the button does not show all again"


# Everything in an output that can be moved, and the box in which something has to change then.
CONTROLS = "article .cell_output :is(select, input, button):not(.copybtn, .enlarge, [disabled])"
STATE = """e => { const box = e.closest('.explorer') || e.closest('.cell_output');
  return [box.innerText, ...[...box.querySelectorAll('*')].map(x => x.hidden + x.getAttribute('style') + x.className
          + x.getAttribute('aria-label') + x.getAttribute('d'))].join('|') }"""


@pytest.mark.parametrize("page", list(notebooks(ROOT)))
def test_what_can_be_moved_answers_the_keyboard(visit, page):
    tab, trouble = visit(page)
    for control in tab.query_selector_all(CONTROLS):
        if not control.is_visible() or control.evaluate("e => e.tagName == 'SELECT' && e.options.length < 2"):
            continue
        before = control.evaluate(STATE)
        control.focus()
        kind = control.evaluate("e => e.tagName == 'INPUT' ? e.type : e.tagName")
        keys = {"SELECT": ["ArrowDown", "ArrowUp"], "range": ["ArrowRight", "ArrowLeft"], "number": ["ArrowUp"]}
        keys |= {"BUTTON": ["Enter"], "checkbox": ["Space"], "radio": ["ArrowRight", "Space"]}
        for key in keys.get(kind, ["a"]):
            tab.keyboard.press(key)
            tab.wait_for_timeout(50)
            if control.evaluate(STATE) != before:
                break
        else:
            outer = control.evaluate("e => e.outerHTML.slice(0, 200)")
            raise AssertionError(f"nothing changes when the keyboard moves {outer}")
    assert not trouble, trouble


@pytest.mark.parametrize("page", list(notebooks(ROOT)))
def test_explorers_show_each_of_their_sections(visit, page):
    tab, trouble = visit(page, viewport=PHONE)
    for box in tab.query_selector_all(".explorer"):
        menus, parts = box.query_selector_all("select"), box.query_selector_all("section")
        if len(menus) != 1 or not parts:  # of another make: the test above moves it
            continue
        names = menus[0].query_selector_all("option")
        assert len(names) == len(parts)
        for chosen in [*range(len(parts))][::-1]:
            menus[0].select_option(index=chosen)
            assert [part.is_visible() for part in parts] == [k == chosen for k in range(len(parts))]
    assert not trouble, trouble


def kind(page: str) -> str:
    metadata = json.loads(notebooks(ROOT)[page].read_text("utf-8"))["metadata"]
    return metadata.get("alignlab", {}).get("kind", "finding")


@pytest.mark.parametrize("page", [p for p in notebooks(ROOT) if kind(p) == "finding"])
def test_chapter_has_something_to_move(visit, page):
    tab, _ = visit(page)
    found = tab.query_selector_all(f"{CONTROLS}, article .cell_output .explorer [tabindex]")
    assert [c for c in found if c.is_visible()], "the static page has nothing to play with"
