"""What a page weighs when it is first opened: everything that the browser asks for, uncompressed."""

from __future__ import annotations

import pytest
from browsing import ROOT, SITE, file_of

from tools.notebooks import notebooks

CHAPTERS = list(notebooks(ROOT))
MOST_BYTES, MOST_REQUESTS = 1_000_000, 25


@pytest.mark.parametrize("page", ["book/index", "book/scoreboard", "book/robust", "genindex", *CHAPTERS])
def test_a_page_is_light(browser, address, page):
    tab, asked = browser.new_page(), []
    tab.on("request", lambda r: asked.append(r.url))
    tab.goto(f"{address}/{page}.html", wait_until="networkidle")
    tab.close()
    files = [file_of(url) for url in asked if url.startswith(address)]
    heavy = sorted(((f.stat().st_size, f.name) for f in files), reverse=True)
    assert (SITE / f"{page}.html") in files
    assert len(files) <= MOST_REQUESTS, [name for _, name in heavy]
    assert sum(size for size, _ in heavy) <= MOST_BYTES, heavy[:5]
