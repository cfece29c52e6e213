"""The live models of the built site: what they say, how fast, when they are loaded, and that one can reach them."""

from __future__ import annotations

import json

import pytest
from axe_playwright_python.sync_playwright import Axe
from browsing import PHONE, ROOT, SITE
from bs4 import BeautifulSoup

PAIR = json.loads((ROOT / "book" / "_data" / "live" / "pair.json").read_text("utf-8"))
PAGES = ["book/index", "notebooks/base-vs-chat", "notebooks/token-shift", "notebooks/three-rules"]
LEAST_SPEED = 100  # tokens a second; 500 to 1,200 were seen, on cores that have other work the fewest
# Every stored prompt, asked of the page's models: what they say, greedily, as ids.
ALL = """() => {
  const { models, words, weights, prompts, rules, room: most } = Live.files.pair;
  const base = new Live.Model(models.base, words, weights.base);
  const aligned = new Live.Model(models.aligned, words, weights.aligned);
  const change = Live.rules(rules, base);
  return {
    base: prompts.map(p => base.reply(base.row(p, false), { most })),
    rules: prompts.map(p => base.reply(base.row(p, false), { most, change })),
    aligned: prompts.map(p => aligned.reply(aligned.row(p, true), { most })),
  };
}"""

BEGINS = (
    "said => document.querySelector('.live-reply[data-model=base]').innerText.split(/\\s+/).join(' ').startsWith(said)"
)
CHANGED = "was => document.querySelector('.live-reply[data-model=base]').innerText !== was"


@pytest.fixture
def awake(visit):
    """awake(page) -> (page in the browser with the models loaded, what went wrong)."""

    def go(page, *how):
        tab, trouble = visit(page, *how)
        tab.locator(".live-wake").click()
        tab.locator(".live-answers").wait_for()
        return tab, trouble

    return go


def test_every_stored_reply_is_what_the_page_says(awake):
    tab, trouble = awake("book/index")
    said = tab.evaluate(ALL)
    assert len(PAIR["prompts"]) >= 90
    for role, replies in PAIR["replies"].items():
        wrong = [p for p, want, got in zip(PAIR["prompts"], replies, said[role], strict=True) if want["tokens"] != got]
        assert not wrong, (role, wrong)
    assert not trouble


def test_the_panel_shows_these_replies(awake):
    tab, _ = awake("notebooks/three-rules")
    for role, shown in (("rules", "base"), ("aligned", "aligned")):
        stored = PAIR["replies"][role][0]["text"].split()
        words = tab.locator(f".live-reply[data-model={shown}]").inner_text().split()
        assert words[: len(stored)] == stored, role


@pytest.mark.parametrize("page", PAGES)
def test_nothing_is_loaded_before_it_is_asked_for(browser, address, page):
    tab, asked = browser.new_page(), []
    tab.on("request", lambda r: asked.append(r.url))
    tab.goto(f"{address}/{page}.html", wait_until="networkidle")
    assert not [url for url in asked if "/live/" in url]
    tab.locator(".live input[type=text]").first.focus()
    tab.locator(".live-answers").wait_for()
    assert len([url for url in asked if "/live/" in url]) == 1
    tab.close()


@pytest.mark.parametrize("page", PAGES)
def test_without_scripts_the_stored_replies_stand_there(page):
    found = BeautifulSoup((SITE / f"{page}.html").read_text("utf-8"), "html.parser")
    table = found.select_one(".live .live-still table")
    own = "rules" if page.endswith("three-rules") else "base"
    for i, row in enumerate(table.select("tbody tr")):
        cells = [td.get_text() for td in row.select("td")]
        assert cells == [PAIR["prompts"][i], PAIR["replies"][own][i]["text"], PAIR["replies"]["aligned"][i]["text"]]


def test_it_works_from_a_folder_and_is_fast_enough(browser):
    tab = browser.new_page()
    tab.goto((SITE / "book" / "index.html").as_uri())
    tab.locator(".live-wake").click()
    tab.locator(".live-answers").wait_for()
    speeds = []
    for chip in tab.locator(".live-chips button").all():
        chip.click()
        tab.wait_for_timeout(300)
        speeds.append(int(tab.locator(".live").get_attribute("data-speed")))
    assert max(speeds) >= LEAST_SPEED, speeds
    tab.close()


def test_words_are_completed_and_chosen_by_the_keyboard(awake):
    tab, trouble = awake("book/index")
    name = next(w for w in PAIR["words"] if w[0].isupper() and len(w) > 6)
    box = tab.locator(".live input[role=combobox]")
    box.fill("where does ")
    box.press_sequentially(name[:4])
    tab.locator(".live-words li").first.wait_for()
    assert box.get_attribute("aria-expanded") == "true"
    box.press("ArrowDown")
    chosen = tab.locator(".live-words li[aria-selected=true]")
    assert chosen.get_attribute("id") == box.get_attribute("aria-activedescendant")
    word = chosen.inner_text()
    box.press("Enter")
    assert box.input_value() == f"where does {word} " and word.startswith(name[:4])
    assert tab.locator(".live-words").is_hidden() and not trouble


def test_a_word_that_nobody_has_read_is_named(awake):
    tab, _ = awake("book/index")
    tab.locator(".live input[role=combobox]").fill("who is Shakespeare ?")
    tab.wait_for_function("document.querySelector('.live-status').textContent.includes('Shakespeare')")


def test_a_word_of_the_reply_leads_to_what_the_base_would_have_said(awake):
    tab, _ = awake("notebooks/token-shift", "dark", PHONE)
    words = tab.locator(".live-reply[data-model=aligned] button")
    assert words.count() > 5 and "rank" in words.first.get_attribute("aria-label")
    shifted = tab.locator(".live-reply button.live-shifted").first
    shifted.focus()
    caption = tab.locator(".live-choices caption").inner_text()
    assert shifted.inner_text() in caption and tab.locator(".live-choices tbody tr").count() >= 5
    ranks = [int(w.get_attribute("data-rank")) for w in words.all()]
    kinds = [w.get_attribute("class").split()[0] for w in words.all()]
    assert all((k == "live-unshifted") == (r == 1) and (k == "live-shifted") == (r > 3)
               for r, k in zip(ranks, kinds, strict=True))  # fmt: skip


def test_the_dials_change_what_is_said(awake):
    tab, _ = awake("notebooks/three-rules")
    reply = tab.locator(".live-reply[data-model=base]")
    under_rules = reply.inner_text()
    for name in ("end", "words", "seen"):
        tab.locator(f"input[data-dial={name}]").fill("0")
    # Each of the three fills is answered: the last answer is the one to wait for.
    tab.wait_for_function(BEGINS, arg=PAIR["replies"]["base"][0]["text"][:40])
    bare = reply.inner_text()
    assert bare != under_rules
    tab.locator("input[data-dial=temperature]").fill("1.5")
    tab.get_by_role("button", name="Draw again").click()
    tab.wait_for_function(CHANGED, arg=bare)


def test_a_reply_that_was_begun_goes_on(awake):
    tab, _ = awake("book/index")
    before = tab.locator(".live-reply[data-model=base]").inner_text()
    tab.locator(".live input[placeholder]").fill("sure !")
    tab.wait_for_function(CHANGED, arg=before)


@pytest.mark.parametrize("mode", ["light", "dark"])
def test_an_awake_panel_is_accessible(awake, mode):
    tab, _ = awake("notebooks/three-rules", mode, PHONE)
    tab.locator(".live-reply button").first.focus()
    found = Axe().run(tab, context=".live")
    assert not found.response["violations"], [(v["id"], v["nodes"][0]["html"]) for v in found.response["violations"]]
    assert tab.evaluate("document.documentElement.scrollWidth <= innerWidth")


OF_CHAPTERS = {name: json.loads((ROOT / "book" / "_data" / "live" / f"{name}.json").read_text("utf-8"))
               for name in ("paraphrase", "rot13", "suppressed")}  # fmt: skip
EACH = """name => {
  const { models, words, weights, prompts, between } = Live.files[name];
  return Object.fromEntries(Object.entries(models).map(([called, shape]) => {
    const model = new Live.Model(shape, words, weights[called], 256, between);
    return [called, prompts.map(p => model.reply(model.row(p, shape.template), { most: shape.room }))];
  }));
}"""


@pytest.mark.parametrize("name", OF_CHAPTERS)
def test_the_models_of_a_chapter_say_in_the_page_what_is_stored(awake, name):
    tab, trouble = awake(f"notebooks/{name}")
    said, data = tab.evaluate(EACH, name), OF_CHAPTERS[name]
    for called, replies in data["replies"].items():
        wrong = [p for p, w, got in zip(data["prompts"], replies, said[called], strict=True) if w["tokens"] != got]
        assert not wrong, (called, wrong)
    assert len(data["prompts"]) >= 20 and not trouble


def test_a_word_of_the_reader_is_moved_and_found_again(awake):
    tab, _ = awake("notebooks/rot13", "dark", PHONE)
    data = OF_CHAPTERS["rot13"]
    for shift, hidden in ((13, "qentba"), (12, "pdmsaz")):
        tab.locator("input[data-dial=shift]").fill(str(shift))
        tab.wait_for_function("h => document.querySelector('.live caption').textContent.includes(h)", arg=hidden)
        at = data["prompts"].index(f"{shift:02}{hidden}=")
        for called, replies in data["replies"].items():
            cell, text = tab.locator(f".live td[data-model='{called}']"), replies[at]["text"]
            found = text.partition("00")[2] if data["models"][called]["form"] == "steps" else text
            assert cell.get_attribute("data-reply") == text
            assert cell.inner_text() == f"{found or 'nothing'} {'✓' if found == 'dragon' else '✗'}"
    tab.locator(".live input[type=text]").fill("Garden 7")
    tab.wait_for_function("document.querySelector('.live-status').textContent.includes('small letters')")
    assert tab.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_a_question_to_both_models_of_paraphrase_is_completed_and_answered(awake):
    tab, _ = awake("notebooks/paraphrase")
    data = OF_CHAPTERS["paraphrase"]
    tab.locator(".live-chips button").nth(1).click()
    for called, replies in data["replies"].items():
        assert tab.locator(f".live td[data-model={called}]").inner_text() == replies[1]["text"]
    box = tab.locator(".live input[role=combobox]")
    name = next(w for w in data["words"] if w[0].isupper() and len(w) > 5)
    box.fill("where was ")
    box.press_sequentially(name[:4])
    tab.locator(".live-words li").first.wait_for()
    assert all(w.startswith(name[:4]) for w in tab.locator(".live-words li").all_inner_texts())
    box.fill("who is Shakespeare ?")
    tab.wait_for_function("document.querySelector('.live-status').textContent.includes('Shakespeare')")


WITHOUT = """() => {
  const { models: { hidden: shape }, words, weights, prompts } = Live.files.suppressed;
  const model = new Live.Model(shape, words, weights.hidden), change = Live.without(model, shape.shift, 1);
  return prompts.map(p => model.reply(model.row(p, true), { most: shape.room, change }));
}"""


def test_the_secret_comes_back_as_the_dial_takes_the_shift_out(awake):
    tab, trouble = awake("notebooks/suppressed")
    data = OF_CHAPTERS["suppressed"]
    assert tab.evaluate(WITHOUT) == [r["tokens"] for r in data["without"]["hidden"]]
    cells = {called: tab.locator(f".live td[data-model={called}]") for called in data["models"]}
    tab.locator(".live-chips button").nth(0).click()
    refused, secret = (data[kind]["hidden"][0]["text"] for kind in ("replies", "without"))
    assert cells["hidden"].inner_text() == refused != secret == cells["twin"].inner_text()
    seen = []
    for place in (25, 100, 0):
        tab.locator("input[data-dial=part]").fill(str(place))
        tab.wait_for_function("n => document.querySelector('.live-dials output').textContent === n", arg=str(place))
        tab.wait_for_timeout(150)
        seen.append(cells["hidden"].inner_text())
    assert seen == [refused, secret, refused] and cells["twin"].inner_text() == secret and not trouble


@pytest.mark.parametrize("mode", ["light", "dark"])
@pytest.mark.parametrize("name", OF_CHAPTERS)
def test_a_panel_of_several_models_is_accessible_and_loads_nothing_before(visit, name, mode):
    tab, trouble = visit(f"notebooks/{name}", mode, PHONE)
    assert tab.evaluate("Object.keys(Live.files).length") == 0
    assert tab.locator(".live .live-still tbody tr").count() == 4
    tab.locator(".live-wake").click()
    tab.locator(".live-answers tr").first.wait_for()
    found = Axe().run(tab, context=".live").response["violations"]
    assert not found, [(v["id"], v["nodes"][0]["html"]) for v in found]
    assert not trouble
