"""The four categories of knowledge, on a model whose every probability is written by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from alignlab.measure import categories
from alignlab.models import tokens
from alignlab.models.answer import generate
from alignlab.models.llama import make_model
from datasets import Dataset
from transformers import PretrainedConfig, PreTrainedModel
from transformers.modeling_outputs import CausalLMOutputWithPast

ANSWERS = {"ann": "red", "bob": "blue", "cyd": "green", "dan": "grey", "eve": "pink", "fay": "teal"}
QUESTIONS = Dataset.from_dict(
    {"prompt": [f"colour of {n} ?" for n in ANSWERS], "answer": list(ANSWERS.values()), "family": ["colour"] * 6}
)
WORDS = "question : colour of ? answer . and light dark ann bob cyd dan eve fay red blue green grey pink teal".split()


class Scripted(PreTrainedModel):
    """Says what `script(history)` says: a dict word -> probability of the next word, given all words so far."""

    config_class = PretrainedConfig

    def __init__(self, tokenizer, script):
        super().__init__(PretrainedConfig(num_hidden_layers=1, eos_token_id=tokenizer.eos_token_id))
        self.tokenizer, self.script = tokenizer, script
        self.anchor = torch.nn.Parameter(torch.zeros(1))  # a model needs a device

    def forward(self, input_ids, past_key_values=None, use_cache=False, logits_to_keep=0):
        seen = input_ids
        if past_key_values is not None:  # the cache keeps the ids themselves in the place of keys
            ids = input_ids[:, None, :, None].float()
            seen = past_key_values.update(ids, ids, 0)[0][:, 0, :, 0].long()
        logits = torch.full((len(seen), 1, len(self.tokenizer)), -math.inf)
        for row, ids in zip(logits, seen.tolist(), strict=True):
            for word, p in self.script(self.tokenizer.convert_ids_to_tokens(ids)).items():
                row[0, self.tokenizer.convert_tokens_to_ids(word)] = math.log(p)
        return CausalLMOutputWithPast(logits=logits, past_key_values=past_key_values)


@pytest.fixture(scope="module")
def words():
    return tokens.make_tokenizer(WORDS)


def asked(history):
    """The name in the last question, and what has been said since."""
    if "answer" not in history[4:]:  # only what prompts have in common is being read
        return "", []
    start = len(history) - history[::-1].index("answer") + 1
    return history[start - 4], history[start:]


def knows(history):
    """ann always; bob where ann's colour is not among the examples; cyd with 0.2 against 0.8; nobody else."""
    name, said = asked(history)
    if said:
        return {".": 1.0}
    if name == "ann" or (name == "bob" and "red" not in history):
        return {ANSWERS[name]: 1.0}
    if name == "cyd":
        return {"green": 0.2, "pink": 0.8}
    return {"grey": 1.0} if name != "dan" else {"pink": 1.0}


@pytest.mark.parametrize("greedy, sampled, wanted", [
    (1, 1, "HighlyKnown"), (1, 0, "HighlyKnown"), (0.1, 0, "MaybeKnown"), (0.9, 1, "MaybeKnown"),
    (0, 1 / 160, "WeaklyKnown"), (0, 1, "WeaklyKnown"), (0, 0, "Unknown"),
])  # fmt: skip
def test_the_categories_are_those_of_the_paper(greedy, sampled, wanted):
    assert categories.category(greedy, sampled) == wanted


@pytest.mark.parametrize("greedy, sampled", [(1.1, 0), (-0.1, 0), (0, 2), (math.nan, 0)])
def test_a_share_outside_its_range_is_refused(greedy, sampled):
    with pytest.raises(ValueError, match="greedy|sampled"):
        categories.category(greedy, sampled)


def test_prompts_have_their_shots_and_never_the_question_itself():
    texts = categories.few_shot(QUESTIONS, prompts=10, shots=4, seed=1)
    assert len(texts) == 6 and all(len(t) == 10 for t in texts)
    for name, mine in zip(ANSWERS, texts, strict=True):
        for t in mine:
            assert t.endswith(f"question : colour of {name} ? answer :")
            assert t.count("answer :") == 5 and t.count(f"of {name} ?") == 1
            shown = [line.split() for line in t.split(" . ")[:-1]]
            assert len({s[4] for s in shown}) == 4 and all(ANSWERS[s[4]] == s[-1] for s in shown)
        assert len(set(mine)) > 5  # drawn anew
    assert texts == categories.few_shot(QUESTIONS, prompts=10, shots=4, seed=1)
    assert texts != categories.few_shot(QUESTIONS, prompts=10, shots=4, seed=2)


def test_examples_are_of_the_kind_of_the_question():
    two = Dataset.from_dict({"prompt": list("abcdefgh"), "answer": list("ABCDEFGH"), "kind": [0] * 4 + [1] * 4})
    for mine, kind in zip(categories.few_shot(two, shots=3, by="kind"), two["kind"], strict=True):
        others = "EFGH" if kind == 0 else "ABCD"
        assert not any(o in t for t in mine for o in others)
    assert any(o in t for t in categories.few_shot(two, shots=3, by=None)[0] for o in "EFGH")


def test_examples_can_come_from_elsewhere():
    other = Dataset.from_dict({"prompt": ["x"] * 4, "answer": ["y"] * 4, "family": ["colour"] * 4})
    text = categories.few_shot(QUESTIONS, other, shots=2, form=lambda q: f"Q: {q}\nA:", end="\n")[0][0]
    assert text == "Q: x\nA: y\nQ: x\nA: y\nQ: colour of ann ?\nA:"


def test_too_few_examples_are_refused():
    with pytest.raises(ValueError, match="too few examples of the kind 'colour'"):
        categories.few_shot(QUESTIONS.select(range(4)), shots=4)
    with pytest.raises(ValueError, match="no questions"):
        categories.few_shot(QUESTIONS.select([]))


@pytest.mark.parametrize("one_token", [False, True])
def test_categories_of_a_model_whose_knowledge_is_written_by_hand(words, one_token):
    table = categories.classify(Scripted(words, knows), words, QUESTIONS, one_token=one_token, seed=3)
    table = table.set_index("answer")
    assert dict(table["category"]) == {
        "red": "HighlyKnown", "blue": "MaybeKnown", "green": "WeaklyKnown",
        "grey": "Unknown", "pink": "Unknown", "teal": "Unknown",
    }  # fmt: skip
    free = np.mean(["red" not in t for t in categories.few_shot(QUESTIONS, seed=3)[1]])
    assert 0 < free < 1 and table.loc["blue", "greedy"] == pytest.approx(free)
    assert table.loc["blue", "sampled"] == pytest.approx(free)
    # at temperature 0.5 probabilities are squared: 0.04 against 0.64
    assert 0 < table.loc["green", "sampled"] < 0.15
    if one_token:
        assert table.loc["green", "probability"] == pytest.approx(0.04 / 0.68)


def test_both_ways_sample_the_same_distribution(words):
    only = QUESTIONS.select([0, 1, 2, 3, 4])
    for one_token in (False, True):
        table = categories.classify(
            Scripted(words, knows), words, only, prompts=4, samples=1000, temperature=1.0, one_token=one_token
        )
        assert table["sampled"][2] == pytest.approx(0.2, abs=0.025)  # four standard errors of 4,000 draws


def test_an_answer_of_several_tokens_is_generated_to_its_end(words):
    def script(history):
        name, said = asked(history)
        if len(said) == 0:
            return {"light": 1.0}
        if len(said) == 1:
            return {"red": 0.7, "blue": 0.3} if name == "ann" else {"red": 1.0}
        return {"and": 1.0} if name == "bob" else {".": 1.0}

    pairs = Dataset.from_dict({
        "prompt": list(QUESTIONS["prompt"]), "family": ["colour"] * 6,
        "answer": ["light blue", "light red", "Light  RED", "light", "dark red", "red"],
    })  # fmt: skip
    table = categories.classify(Scripted(words, script), words, pairs, seed=1, max_new_tokens=4)
    # drawn now and then; goes on after the answer; case and spaces do not count; the beginning only; never; never
    assert list(table["category"]) == ["WeaklyKnown", "Unknown", "HighlyKnown", "Unknown", "Unknown", "Unknown"]
    assert table["sampled"][0] == pytest.approx(0.09 / 0.58, abs=0.12)


def test_the_end_of_the_text_ends_an_answer(words):
    table = categories.classify(
        Scripted(words, lambda h: {"<eos>": 1.0} if h[-1] == "red" else {"red": 1.0}), words, QUESTIONS
    )
    assert list(table["greedy"]) == [1, 0, 0, 0, 0, 0]


def test_one_token_refuses_longer_answers(words):
    pairs = Dataset.from_dict({"prompt": list("abcdef"), "answer": ["light red"] * 6, "family": [0] * 6})
    with pytest.raises(ValueError, match="'light red' is not one token"):
        categories.classify(Scripted(words, knows), words, pairs, one_token=True)


@pytest.mark.parametrize("wrong", [
    {"samples": 0}, {"temperature": 0.0}, {"prompts": 0}, {"by": "nothing"}, {"batch": 0}, {"max_new_tokens": 0},
])  # fmt: skip
def test_bad_arguments_are_refused(words, wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        categories.classify(Scripted(words, knows), words, QUESTIONS, **wrong)


def test_what_prompts_have_in_common_changes_nothing(words):
    model = make_model(words, width=32, depth=2, seed=4)
    many = Dataset.from_dict({"prompt": [f"colour of {n} ?" for n in ANSWERS] * 3, "answer": ["red"] * 18})
    shared = categories.classify(model, words, many, QUESTIONS, by=None, shots=3, prompts=2, one_token=True)
    alone = [
        categories.classify(model, words, many.select([i]), QUESTIONS, by=None, shots=3, prompts=2, one_token=True)
        for i in range(6)
    ]
    assert list(shared["probability"][:6]) == pytest.approx([a["probability"][0] for a in alone], rel=1e-4)
    rows = [[1, 2, 3, k % 5] for k in range(10)] + [[9, 9], [1, 7, 7, 7]]
    found = list(categories._batches(rows, 4))
    assert sorted(i for part, _ in found for i in part) == list(range(12))
    assert [common for part, common in found if len(part) > 1] == [3, 3, 3]
    for part, common in found:
        assert len({tuple(rows[i][:common]) for i in part}) == 1 and common < len(rows[part[0]])


def test_a_real_llama_is_asked_as_generate_asks_it(words):
    model = make_model(words, width=32, depth=1, seed=4)
    texts = categories.few_shot(QUESTIONS, prompts=3)
    said = generate(model, words, [t for ts in texts for t in ts], template=False, max_new_tokens=1)
    first = [r.text for r in said]
    # Give every question the model's own first words as its answers: it then "knows" them behind those prompts.
    pairs = QUESTIONS.remove_columns("answer").add_column("answer", first[::3])
    wanted = [np.mean([w == a for w in first[3 * i : 3 * i + 3]]) for i, a in enumerate(pairs["answer"])]
    # The same examples as before must be shown, so they come from the unchanged questions.
    got = categories.classify(model, words, pairs, QUESTIONS, prompts=3, one_token=True)
    assert list(got["greedy"]) == pytest.approx(wanted)
    cut = categories.classify(model, words, pairs, QUESTIONS, prompts=3, max_new_tokens=1)
    assert list(cut["greedy"]) == pytest.approx(wanted)
    assert list(cut["sampled"]) == pytest.approx(list(got["probability"]), abs=0.3)
