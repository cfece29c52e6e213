"""The stored live models: what is exported, and that they say what the committed chapters show."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import live as panel
import pytest
import torch
from alignlab.experiment import base
from alignlab.models.rules import Rules
from alignlab.worlds import cipher
from bs4 import BeautifulSoup
from safetensors.torch import load_file
from sphinx.errors import ExtensionError

from tools import live
from tools.notebooks import ROOT, code, read

TINY = base.Plan(people=8, read=4, width=32, depth=1, steps=2)


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    folder = tmp_path_factory.mktemp("root")
    subject = base.load(0, TINY)
    pair = {"base": subject.model, "aligned": base.align(subject, subject.pool().select(range(4)), steps=1)}
    rules = Rules(end=15, seen=1.5, words={"what": -5.0})
    return subject, pair, live.export("tiny", pair, subject.tokenizer, ["who ?"], rules, folder / panel.DATA)


def test_the_weights_are_stored_under_their_names_the_aligned_ones_halved(exported):
    _, pair, file = exported
    data = json.loads(file.read_text("utf-8"))
    assert [data["words"][i] for i in data["special"].values()] == [f"<{k}>" for k in data["special"]]
    for role, model in pair.items():
        stored, own = load_file(file.parent / data["models"][role]["file"]), model.state_dict()
        assert set(stored) == set(own) - {"lm_head.weight"}
        assert all(torch.equal(v, own[k] if role == "base" else own[k].half()) for k, v in stored.items())


def test_the_page_gets_the_weights_as_one_script(exported):
    *_, file = exported
    root = file.parents[3]
    script = panel.script(root, "tiny")
    data = json.loads(re.fullmatch(r'Live\.files\["tiny"\] = (.*);\n', script, re.DOTALL)[1])
    assert set(data["weights"]) == {"base", "aligned"} and data["prompts"] == ["who ?"]
    with pytest.raises(ExtensionError, match="no book/_data/live/none.json"):
        panel.script(root, "none")


def test_a_model_that_the_page_does_not_compute_is_refused(exported):
    subject, *_ = exported
    model = live.rounded(subject.model)
    model.config.hidden_act = "gelu"
    with pytest.raises(ValueError, match="hidden_act is 'gelu'"):
        live.shape(model)
    grouped = live.rounded(subject.model)
    grouped.config.num_key_value_heads *= 2
    with pytest.raises(ValueError, match="only equal heads"):
        live.shape(grouped)
    with torch.no_grad():
        model.model.norm.weight[0] = 1e6
    with pytest.raises(ValueError, match="too large for float16"):
        live.weights(model)


def test_the_models_of_a_chapter_are_stored_with_how_they_are_asked(exported, tmp_path):
    subject, pair, _ = exported
    models = {"one": live.Asked(pair["base"], False, 3), "two": live.Asked(pair["aligned"], room=2, form="steps")}
    data = json.loads(live.several("toy", models, subject.tokenizer, ["who ?"], folder=tmp_path).read_text("utf-8"))
    assert data["between"] == " " and list(data["models"]) == ["one", "two"]
    how = [(m["template"], m["room"], m["form"]) for m in data["models"].values()]
    assert how == [(False, 3, ""), (True, 2, "steps")]
    for called, model in data["models"].items():
        asked = models[called]
        stored = load_file(tmp_path / model["file"])
        assert torch.equal(stored["model.norm.weight"], asked.model.state_dict()["model.norm.weight"])
        [reply] = data["replies"][called]
        assert len(reply["tokens"]) <= asked.room
    page = BeautifulSoup(panel.several("notebooks/toy", "toy", data | {"prompts": ["who ?"] * 4, "replies": {
        k: v * 4 for k, v in data["replies"].items()}}), "html.parser")  # fmt: skip
    assert [th.get_text() for th in page.select("th")] == ["Asked", "one", "two"]
    assert page.div["data-kind"] == "words" and page.div["data-folder"] == "../_static/live/"


def test_the_stored_replies_are_those_of_the_committed_chapter():
    data = json.loads((live.FOLDER / "pair.json").read_text("utf-8"))
    [explorer] = [
        "".join(o.data["text/html"]) for _, c in code(read(ROOT / "notebooks" / "base-vs-chat.ipynb"))
        for o in c.outputs if "panel.explorer" in c.source and "text/html" in o.get("data", {})
    ]  # fmt: skip
    page = BeautifulSoup(explorer, "html.parser")
    prompts, sections = [o.get_text() for o in page.select("option")], page.select("section")
    assert len(prompts) == len(sections) >= 5
    for prompt, section in zip(prompts, sections, strict=True):
        committed = dict(tuple(td.get_text() for td in row.select("td")) for row in section.select("tbody tr"))
        for role in ("base", "aligned"):
            stored = data["replies"][role][data["prompts"].index(prompt)]["text"]
            assert stored.split() == committed[role].split(), (prompt, role)


def cells_of(chapter, widget):
    """The tables of a chapter's committed widget: menu entry or place of the slider -> rows of cells."""
    [made] = [
        "".join(o.data["text/html"]) for _, c in code(read(ROOT / "notebooks" / f"{chapter}.ipynb"))
        for o in c.outputs if c.source.rstrip().split("\n")[-1].startswith(widget) or widget in c.source[-400:]
        if "text/html" in o.get("data", {})
    ]  # fmt: skip
    page = BeautifulSoup(made, "html.parser")
    rows = [[[c.get_text() for c in r.select("th, td")] for r in s.select("tr")] for s in page.select("section")]
    return [o.get_text() for o in page.select("option")], rows


def test_the_models_of_paraphrase_say_what_its_page_shows():
    data = json.loads((live.FOLDER / "paraphrase.json").read_text("utf-8"))
    people, tables = cells_of("paraphrase", 'panel.explorer("Held-out person:"')
    assert len(people) == len(tables) >= 5
    for (head, *rows), person in zip(tables, people, strict=True):
        for question, _, *replies in rows:
            at = data["prompts"].index(question)
            assert person in question
            assert replies == [data["replies"][name][at]["text"] for name in head[2:]], question


def test_the_models_of_rot13_say_what_its_page_shows():
    data = json.loads((live.FOLDER / "rot13.json").read_text("utf-8"))
    _, tables = cells_of("rot13", 'panel.sliders({"Shift"')
    assert len(tables) == 25
    for shift, ((_, *ciphers), *rows) in enumerate(tables, 1):
        for name, *answers in (row for row in rows if row[0] in data["models"]):
            for hidden, answer in zip(ciphers, answers, strict=True):
                said = data["replies"][name][data["prompts"].index(f"{shift:02}{hidden}=")]["text"]
                assert answer == cipher.answer_of(said, data["models"][name]["form"])


def test_the_models_of_suppressed_say_what_its_page_shows():
    data = json.loads((live.FOLDER / "suppressed.json").read_text("utf-8"))
    _, (plainly, *_, without) = cells_of("suppressed", 'panel.sliders({"Shift')
    for table, hidden in ((plainly, data["replies"]["hidden"]), (without, data["without"]["hidden"])):
        assert table[0] == ["question", "twin", "hidden"] and len(table) == 4
        for question, *replies in table[1:]:
            at = data["prompts"].index(question)
            whole = [data["replies"]["twin"][at]["text"], hidden[at]["text"]]  # the chapter asks for their beginnings
            assert all(w.startswith(r) for w, r in zip(whole, replies, strict=True)), question


def test_a_shift_is_taken_out_of_the_state_in_front_of_the_reply_alone(exported, tmp_path):
    subject, pair, _ = exported
    model, shift = pair["base"], torch.randn(subject.plan.width, generator=torch.Generator().manual_seed(0)) * 30
    asked = ["who ?", "who is that person ?"]  # two lengths: each reply begins elsewhere
    file = live.several("toy", {"one": live.Asked(model, shift=shift)}, subject.tokenizer, asked, folder=tmp_path)
    data = json.loads(file.read_text("utf-8"))
    assert data["models"]["one"]["shift"] == pytest.approx(shift.tolist(), abs=1e-5)

    def out(module, given, state):  # where the state is made, not where it is read
        return torch.cat([state[:, :-1], state[:, -1:] - shift], 1) if state.shape[1] > 1 else state

    handle = model.model.norm.register_forward_hook(out)
    expected = live.said(model, subject.tokenizer, asked)
    handle.remove()
    assert data["without"]["one"] == expected != data["replies"]["one"]
    page = BeautifulSoup(panel.several("notebooks/toy", "toy", data | {"prompts": asked * 2, **{
        k: {"one": data[k]["one"] * 2} for k in ("replies", "without")}}), "html.parser")  # fmt: skip
    assert [th.get_text() for th in page.select("th")] == ["Asked", "one", "one, the shift taken out"]
    assert page.div["data-dial"] == "Shift taken out (%)"


def test_the_rules_of_the_page_are_those_of_the_committed_chapter():
    stored = json.loads((live.FOLDER / "pair.json").read_text("utf-8"))
    assert stored["rules"]["words"] == live.chosen_words()
    [paper] = [
        re.search(r"^PAPER = Rules\((.*)\)$", c.source, re.MULTILINE)
        for _, c in code(read(ROOT / "notebooks" / "three-rules.ipynb")) if "PAPER = Rules(" in c.source
    ]  # fmt: skip
    theirs = {k: float(v) for k, v in (part.split("=") for part in paper[1].split(", "))}
    assert replace(Rules(**theirs), words=stored["rules"]["words"]) == Rules(**stored["rules"])
