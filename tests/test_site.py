"""The built site, as files and in a real browser. `make book` builds it; `make test` builds it first.

The browser tests need Chromium (on the path, or named by CHROMIUM) and are skipped with a line where there is none.
"""

from __future__ import annotations

import functools
import http.server
import os
import shutil
import threading
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
import scoreboard
from book_toc import notebooks, pages
from bs4 import BeautifulSoup

ROOT = Path(__file__).resolve().parents[1]
SITE = ROOT / "_build" / "html"
PAGES = list(pages(ROOT))
FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip
PHONE = {"width": 360, "height": 740}


@pytest.fixture(scope="module", autouse=True)
def built():
    if not (SITE / "book" / "index.html").exists():
        if os.environ.get("ALIGNLAB_NEEDS_SITE"):
            pytest.fail("the site has not been built")
        pytest.skip("no site in _build/html: run `make book` first")


@functools.cache
def soup(file: Path) -> BeautifulSoup:
    return BeautifulSoup(file.read_text("utf-8"), "html.parser")


def html(page: str) -> Path:
    return SITE / f"{page}.html"


# As files


def test_the_root_leads_to_the_front_page():
    assert "book/index.html" in (SITE / "index.html").read_text("utf-8")


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


def test_scoreboard_has_a_row_for_every_entry():
    wanted = [
        f"{ledger['chapter']}-{entry['id']}"
        for file in notebooks(ROOT).values()
        for ledger in scoreboard.ledgers(file)
        for entry in ledger["entries"]
    ]
    page = soup(html("book/scoreboard"))
    assert [row.get("id") for row in page.select("table.scoreboard tbody tr")] == wanted
    for row in page.select("table.scoreboard tbody tr"):
        assert row.select_one("a[href]"), "a row has no link to its chapter"
        assert row.select_one(".verdict").get_text() in sum(scoreboard.VERDICTS.values(), ())
    if not wanted:
        assert scoreboard.NOTHING in page.get_text()


def targets(page: BeautifulSoup) -> set[str]:
    named = page.find_all("a", attrs={"name": True})
    return {tag["id"] for tag in page.find_all(id=True)} | {tag["name"] for tag in named}


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
        if anchor and anchor not in targets(soup(target)):
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


@pytest.mark.parametrize("page", list(notebooks(ROOT)))
def test_chapter_has_a_colab_button_to_itself(page):
    hrefs = [a["href"] for a in soup(html(page)).select("a[href*='colab.research.google.com']")]
    assert any(h.endswith(f"/blob/main/{page}.ipynb") for h in hrefs), hrefs


# In a browser


def chromium() -> str | None:
    names = [os.environ.get("CHROMIUM"), "chromium", "chromium-browser", "google-chrome", "google-chrome-stable"]
    return next((found for name in names if name and (found := shutil.which(name))), None)


@pytest.fixture(scope="module")
def address(built):
    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(SITE)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def browser(built):
    path = chromium()
    if path is None:
        pytest.skip("no Chromium on this machine: the browser tests are skipped (install it, or set CHROMIUM)")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as p:
        b = p.chromium.launch(executable_path=path, args=FLAGS)
        yield b
        b.close()


@pytest.fixture
def visit(browser, address):
    """visit(page, mode, viewport) -> (page in the browser, list of what went wrong while it loaded)."""
    contexts = []

    def go(page: str, mode: str = "light", viewport: dict | None = None):
        context = browser.new_context(viewport=viewport or {"width": 1280, "height": 900}, color_scheme=mode)
        contexts.append(context)
        context.add_init_script(f"localStorage.setItem('mode', '{mode}'); localStorage.setItem('theme', '{mode}')")
        trouble: list[str] = []

        def only_here(route):
            if route.request.url.startswith((address, "data:", "blob:")):
                route.continue_()
            else:
                trouble.append(f"asks {route.request.url}")
                route.abort()

        context.route("**/*", only_here)
        tab = context.new_page()
        tab.on("console", lambda m: trouble.append(f"console: {m.text}") if m.type == "error" else None)
        tab.on("pageerror", lambda e: trouble.append(f"script error: {e}"))
        tab.on("response", lambda r: trouble.append(f"{r.status} for {r.url}") if r.status >= 400 else None)
        tab.goto(f"{address}/{page}.html", wait_until="load")
        tab.wait_for_function("document.readyState === 'complete'")
        tab.wait_for_timeout(150)  # scripts that start after loading
        assert tab.evaluate("document.documentElement.dataset.theme") == mode
        return tab, trouble

    yield go
    for context in contexts:
        context.close()


@pytest.mark.parametrize("page", PAGES)
def test_page_loads_without_errors_or_foreign_requests(visit, page):
    _, trouble = visit(page)
    assert not trouble, trouble


@pytest.mark.parametrize("page", PAGES)
def test_every_image_says_what_it_shows(visit, page):
    tab, _ = visit(page)
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


@pytest.mark.parametrize("mode", ["light", "dark"])
@pytest.mark.parametrize("page", PAGES)
def test_page_fits_a_phone(visit, page, mode):
    tab, trouble = visit(page, mode, PHONE)
    width = tab.evaluate("Math.max(document.documentElement.scrollWidth, document.body.scrollWidth)")
    assert width <= PHONE["width"], f"{width} pixels wide, because of {tab.evaluate(WIDER, PHONE['width'])}"
    assert not trouble, trouble


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
    spans = "".join(
        f'<span class="verdict verdict-{v.replace(" ", "-")}">{v}</span>' for v in sum(scoreboard.VERDICTS.values(), ())
    )
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


@pytest.mark.parametrize("page", list(notebooks(ROOT)))
def test_explorers_answer_the_keyboard(visit, page):
    tab, _ = visit(page)
    boxes = tab.query_selector_all(".explorer")
    for box in boxes:
        for select in box.query_selector_all("select"):
            if len(select.query_selector_all("option")) < 2:
                continue
            before = box.inner_text(), select.evaluate("s => s.value")
            select.focus()
            tab.keyboard.press("ArrowDown")
            tab.wait_for_timeout(50)
            if select.evaluate("s => s.value") == before[1]:  # the last option was chosen
                tab.keyboard.press("ArrowUp")
                tab.wait_for_timeout(50)
            assert select.evaluate("s => s.value") != before[1], "the keyboard does not move the selection"
            assert box.inner_text() != before[0], "nothing changes when the selection moves"
