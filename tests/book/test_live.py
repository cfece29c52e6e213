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
from bs4 import BeautifulSoup
from safetensors.torch import load_file
from sphinx.errors import ExtensionError
from transformers import LlamaConfig, LlamaForCausalLM

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


def test_halves_of_the_weights_are_stored_under_their_names(exported):
    _, pair, file = exported
    data = json.loads(file.read_text("utf-8"))
    assert [data["words"][i] for i in data["special"].values()] == [f"<{k}>" for k in data["special"]]
    for role, model in pair.items():
        stored, own = load_file(file.parent / data["models"][role]["file"]), model.state_dict()
        assert set(stored) == set(own) - {"lm_head.weight"}
        assert all(torch.equal(v, own[k].half()) for k, v in stored.items())


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


def stored_model(data, role):
    """The stored weights as a model of transformers."""
    shape = data["models"][role]
    config = LlamaConfig(
        vocab_size=len(data["words"]), hidden_size=shape["width"], intermediate_size=shape["hidden"],
        num_hidden_layers=shape["layers"], num_attention_heads=shape["heads"], tie_word_embeddings=True,
    )  # fmt: skip
    model = LlamaForCausalLM(config).eval()
    weights = {k: v.float() for k, v in load_file(live.FOLDER / shape["file"]).items()}
    found = model.load_state_dict(weights, strict=False)
    assert found.missing_keys in ([], ["lm_head.weight"]) and not found.unexpected_keys
    return model


def test_the_stored_replies_are_those_of_the_committed_chapter():
    # Sixteen bits decide otherwise only where two words are all but equally likely.
    data = json.loads((live.FOLDER / "pair.json").read_text("utf-8"))
    [explorer] = [
        "".join(o.data["text/html"]) for _, c in code(read(ROOT / "notebooks" / "base-vs-chat.ipynb"))
        for o in c.outputs if "panel.explorer" in c.source and "text/html" in o.get("data", {})
    ]  # fmt: skip
    page = BeautifulSoup(explorer, "html.parser")
    prompts, sections = [o.get_text() for o in page.select("option")], page.select("section")
    assert len(prompts) == len(sections) >= 5
    ids, special, other = {w: i for i, w in enumerate(data["words"])}, data["special"], 0
    for prompt, section in zip(prompts, sections, strict=True):
        committed = dict(tuple(td.get_text() for td in row.select("td")) for row in section.select("tbody tr"))
        for role, replies in data["replies"].items():
            ours = replies[data["prompts"].index(prompt)]["text"].split()
            theirs = committed.get(role, "").split()
            at = next((i for i, (a, b) in enumerate(zip(ours, theirs, strict=False)) if a != b), None)
            if role == "rules" or at is None:
                assert role == "rules" or ours == theirs
                continue
            other += 1
            asked = [ids[w] for w in prompt.split()]
            head = [special["user"], *asked, special["assistant"]] if role == "aligned" else asked
            row = torch.tensor([[special["bos"], *head, *(ids[w] for w in ours[:at])]])
            p = stored_model(data, role)(row).logits[0, -1].softmax(-1)
            assert p[ids[ours[at]]] - p[ids[theirs[at]]] < 0.02, (prompt, role, ours[at], theirs[at])
    assert other <= 2


def test_the_rules_of_the_page_are_those_of_the_committed_chapter():
    stored = json.loads((live.FOLDER / "pair.json").read_text("utf-8"))
    assert stored["rules"]["words"] == live.chosen_words()
    [paper] = [
        re.search(r"^PAPER = Rules\((.*)\)$", c.source, re.MULTILINE)
        for _, c in code(read(ROOT / "notebooks" / "three-rules.ipynb")) if "PAPER = Rules(" in c.source
    ]  # fmt: skip
    theirs = {k: float(v) for k, v in (part.split("=") for part in paper[1].split(", "))}
    assert replace(Rules(**theirs), words=stored["rules"]["words"]) == Rules(**stored["rules"])
