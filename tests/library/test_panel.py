"""Panels: what responds without a kernel, and what needs one."""

from __future__ import annotations

import pandas as pd
import pytest
from alignlab.experiment import panel
from bs4 import BeautifulSoup


def test_an_explorer_shows_its_first_section_only_and_escapes_everything():
    frame = pd.DataFrame({"a<b": ["<script>x</script>", 'q"&']})
    shown = panel.explorer("Who & <what>:", {"<i>first</i>": frame, "second": frame, "third": frame}).data
    for raw in ("<script>", "<i>", "<what>", "a<b"):
        assert raw not in shown
    page = BeautifulSoup(shown, "html.parser")
    assert [s.has_attr("hidden") for s in page.find_all("section")] == [False, True, True]
    assert [o.text for o in page.find_all("option")] == ["<i>first</i>", "second", "third"]
    assert [td.text for td in page.section.find_all("td")] == ["<script>x</script>", 'q"&']
    assert page.label.find("select") and page.label.text.startswith("Who & <what>:")
    assert [th.text for th in page.section.find_all("th")] == ["a<b"]


def test_a_page_that_is_opened_again_shows_what_its_menu_says():
    page = BeautifulSoup(panel.explorer("Who:", {"a": pd.DataFrame({"x": [1]})}).data, "html.parser")
    assert page.select_one("select")["autocomplete"] == "off"


def test_a_table_says_what_python_says_in_full():
    frame = pd.DataFrame({"p": [1 / 3, 0.5], 7: ["x" * 300, "y"]})
    page = BeautifulSoup(panel.table(frame), "html.parser")
    assert [td.text for td in page.find_all("td")] == [str(1 / 3), "x" * 300, "0.5", "y"]
    assert [(th["scope"], th.text) for th in page.find_all("th")] == [("col", "p"), ("col", "7")]
    assert not page.table.attrs and panel.table(frame.iloc[:0]).startswith("<table>")


def test_an_explorer_without_sections_is_refused():
    with pytest.raises(ValueError, match="at least one section"):
        panel.explorer("Who:", {})


def test_a_box_with_a_dial_passes_both_on(monkeypatch):
    shown, asked = [], []
    monkeypatch.setattr(panel, "display", shown.append)

    def answer(word, shift):
        asked.append((word, shift))
        return pd.DataFrame({"said": [word * shift]})

    panel.ask(answer, ["ab"], "Word", dial=("Shift", 1, 25, 13))
    box, slider, _ = shown[-1].children
    slider.value = 2
    box.value = "c"
    assert asked == [("ab", 13), ("ab", 2), ("c", 2)]
    assert (slider.min, slider.max, slider.description) == (1, 25, "Shift")


def test_a_box_answers_at_once_and_again_and_shows_refusals(monkeypatch):
    shown = []
    monkeypatch.setattr(panel, "display", shown.append)
    asked = []

    def answer(question):
        asked.append(question)
        if question == "wrong":
            raise ValueError("no such person")
        return pd.DataFrame({"said": [question]})

    panel.ask(answer, ["first", "second"])
    box = shown[-1].children[0]
    box.value = "typed"
    box.value = "wrong"
    assert asked == ["first", "typed", "wrong"]
    assert any("typed" in getattr(s, "data", "") for s in shown)
