"""What the tests of the site share: the built pages, and a browser that notices foreign requests and errors."""

from __future__ import annotations

import functools
import http.server
import os
import shutil
import threading
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

ROOT = Path(__file__).resolve().parents[2]
SITE = ROOT / "_build" / "html"
FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
]  # fmt: skip
PHONE = {"width": 360, "height": 740}
DESK = {"width": 1280, "height": 900}


@pytest.fixture(scope="module", autouse=True)
def built():
    if not (SITE / "book" / "index.html").exists():
        if os.environ.get("ALIGNLAB_NEEDS_SITE"):
            pytest.fail("the site has not been built")
        pytest.skip("no site in _build/html: run `make book` first")


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


def file_of(url: str) -> Path:
    """The file of the site behind an address of `address`."""
    return SITE / unquote(urlsplit(url).path).lstrip("/")


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


def opened(browser, address: str, mode: str):
    """(an empty tab, list of what goes wrong in it: it grows while the tab is open)."""
    context = browser.new_context(color_scheme=mode)
    set_mode = f"localStorage.setItem('mode', '{mode}'); localStorage.setItem('theme', '{mode}')"
    context.add_init_script(f"if (origin !== 'null') {{ {set_mode} }}")  # an empty page has no storage
    trouble: list[str] = []

    tab = context.new_page()
    here = (address, "data:", "blob:", "about:")
    tab.on("request", lambda r: None if r.url.startswith(here) else trouble.append(f"asks {r.url}"))
    tab.on("console", lambda m: trouble.append(f"console: {m.text}") if m.type == "error" else None)
    tab.on("pageerror", lambda e: trouble.append(f"script error: {e}"))
    tab.on("response", lambda r: trouble.append(f"{r.status} for {r.url}") if r.status >= 400 else None)
    tab.on("websocket", lambda w: trouble.append(f"asks {w.url}"))
    return tab, trouble


def show(tab, address: str, page: str, mode: str, viewport: dict) -> None:
    tab.set_viewport_size(viewport)
    tab.goto(f"{address}/{page}.html", wait_until="load")
    tab.wait_for_function("document.readyState === 'complete'")
    # Scripts that start after loading: until the page has nothing left to do.
    tab.evaluate("new Promise(done => requestIdleCallback(done, {timeout: 1000}))")
    assert tab.evaluate("document.documentElement.dataset.theme") == mode


def leave(tab) -> None:
    """Of what was done here nothing is left to the next page, but for what the browser keeps of files."""
    if tab.url.startswith("http"):
        tab.evaluate("localStorage.clear(); sessionStorage.clear()")
    tab.mouse.move(0, 0)
    tab.emulate_media(media="null")
    tab.goto("about:blank")


@pytest.fixture(scope="module")
def kept(browser, address):
    """kept(mode, who) -> (tab, what went wrong): one tab for all of a file's tests, for a page opens there in less than
    half the time."""
    tabs = {}

    def get(mode: str, who: str):
        if (mode, who) not in tabs:
            tabs[mode, who] = opened(browser, address, mode)
        tab, trouble = tabs[mode, who]
        if tab.url != "about:blank":
            leave(tab)
        trouble.clear()
        return tab, trouble

    yield get
    for tab, _ in tabs.values():
        tab.context.close()


@pytest.fixture
def visit(kept, address):
    """visit(page, mode, viewport) -> (page in the browser, list of what went wrong), until the next visit."""

    def go(page: str, mode: str = "light", viewport: dict = DESK):
        tab, trouble = kept(mode, "visit")
        show(tab, address, page, mode, viewport)
        return tab, trouble

    return go


ONE_OF_A_KIND = """() => {
  const judged = e => e.textContent.trim().length > 1;  // of a single character no checker says anything
  const look = e => { const s = getComputedStyle(e);
                      return [e.tagName, s.color, s.backgroundColor, s.fontSize, s.fontWeight, s.textDecorationLine,
                              judged(e)] };
  const ground = e => { for (; e; e = e.parentElement) { const c = getComputedStyle(e).backgroundColor;
                          if (!/, 0\\)$/.test(c)) return c; } };
  const shown = e => e.checkVisibility({visibilityProperty: true, opacityProperty: true});  // a fold only hides
  const seen = new Set(), again = [];
  const met = (e, key) => { key = key.join(); seen.has(key) ? again.push(e) : seen.add(key); };
  const grounds = new Map([...document.querySelectorAll('.highlight pre')].map(e => [e, ground(e)]));
  for (const word of document.querySelectorAll('.highlight pre span:not(:has(*)), .cell_output svg text'))
    if (shown(word)) met(word, [...look(word), grounds.get(word.closest('pre'))]);
  for (const e of again) e.style.visibility = 'hidden';
}"""


def each_look_once(tab) -> None:
    """Before a checker of accessibility: of a page's words of code, thousands, one of each look is looked at.

    The others keep their room and are out of sight; of such a word nothing but its contrast is judged. Of words in a
    figure a checker knows no colour: test_reading.py has a test of its own for them.
    """
    tab.evaluate(ONE_OF_A_KIND)
