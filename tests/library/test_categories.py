"""The four categories of knowledge, on a model whose every probability is written by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from alignlab.measure import categories
from alignlab.models import tokens
from alignlab.models.answer import generate, sample
from alignlab.models.llama import make_model
from alignlab.training.train import FINETUNE, train
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
        super().__init__(PretrainedConfig(num_hidden_layers=1, vocab_size=len(tokenizer)))
        self.tokenizer, self.script, self.generation_config = tokenizer, script, None
        self.anchor = torch.nn.Parameter(torch.zeros(1))  # a model needs a device

    def forward(self, input_ids, logits_to_keep=0, use_cache=False):
        columns = range(input_ids.shape[1]) if isinstance(logits_to_keep, int) else logits_to_keep.tolist()
        logits = torch.full((len(input_ids), len(columns), len(self.tokenizer)), -1e9)
        for row, ids in zip(logits, input_ids.tolist(), strict=True):
            for at, k in zip(row, columns, strict=True):
                for word, p in self.script(self.tokenizer.convert_ids_to_tokens(ids[: k + 1])).items():
                    at[self.tokenizer.convert_tokens_to_ids(word)] = math.log(p)
        return CausalLMOutputWithPast(logits=logits)


@pytest.fixture(scope="module")
def words():
    return tokens.word_tokenizer(WORDS)


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
    texts = categories.few_shot(QUESTIONS, prompts=10, seed=1)
    assert len(texts) == 6 and all(len(t) == 10 for t in texts)
    for name, mine in zip(ANSWERS, texts, strict=True):
        for t in mine:
            assert t.endswith(f"question : colour of {name} ? answer :")
            assert t.count("answer :") == 5 and t.count(f"of {name} ?") == 1
            shown = [line.split() for line in t.split(" . ")[:-1]]
            assert len({s[4] for s in shown}) == 4 and all(ANSWERS[s[4]] == s[-1] for s in shown)
        assert len(set(mine)) > 5  # drawn anew
    assert texts == categories.few_shot(QUESTIONS, prompts=10, seed=1)
    assert texts != categories.few_shot(QUESTIONS, prompts=10, seed=2)


def test_examples_are_of_the_family_of_the_question_and_in_its_form():
    two = Dataset.from_dict({"prompt": list("abcdefghij"), "answer": list("ABCDEFGHIJ"), "family": [0] * 5 + [1] * 5})
    texts = categories.few_shot(two, form=lambda q: f"Q: {q}\nA:", end="\n", seed=0)
    for mine, p, family in zip(texts, two["prompt"], two["family"], strict=True):
        others = "FGHIJ" if family == 0 else "ABCDE"
        for text in mine:
            assert not any(f": {o}\n" in text for o in others) and text.endswith(f"Q: {p}\nA:")
            assert text.startswith("Q: ") and text.count("\n") == 9


def test_too_few_examples_are_refused():
    with pytest.raises(ValueError, match="too few examples of the family 'colour': it needs 4"):
        categories.few_shot(QUESTIONS.select(range(4)), seed=0)
    with pytest.raises(ValueError, match="no questions"):
        categories.few_shot(QUESTIONS.select([]), seed=0)


def test_categories_of_a_model_whose_knowledge_is_written_by_hand(words):
    table = categories.classify(Scripted(words, knows), words, QUESTIONS, seed=3).set_index("answer")
    assert dict(table["category"]) == {
        "red": "HighlyKnown", "blue": "MaybeKnown", "green": "WeaklyKnown",
        "grey": "Unknown", "pink": "Unknown", "teal": "Unknown",
    }  # fmt: skip
    free = np.mean(["red" not in t for t in categories.few_shot(QUESTIONS, seed=3)[1]])
    assert 0 < free < 1 and table.loc["blue", "greedy"] == pytest.approx(free)
    assert table.loc["blue", "sampled"] == pytest.approx(free)
    # at temperature 0.5 probabilities are squared: 0.04 against 0.64
    assert table.loc["green", "probability"] == pytest.approx(0.04 / 0.68)
    assert 0 < table.loc["green", "sampled"] < 0.15


def test_what_is_drawn_follows_the_seed_and_the_probability(words):
    tables = [
        categories.classify(Scripted(words, knows), words, QUESTIONS, prompts=2, samples=1000, seed=s)
        for s in (1, 1, 2)
    ]
    assert tables[0].equals(tables[1]) and tables[0]["sampled"][2] != tables[2]["sampled"][2]
    for table in tables:
        assert table["sampled"][2] == pytest.approx(0.04 / 0.68, abs=0.021)  # four standard errors of 2,000 draws


def test_an_answer_of_several_tokens_counts_when_it_is_whole_and_ended(words):
    def script(history):
        name, said = asked(history)
        if len(said) == 0:
            return {"light": 1.0}
        if len(said) == 1:
            return {"red": 0.7, "blue": 0.3} if name == "ann" else {"red": 1.0}
        return {"and": 1.0} if name == "bob" else {".": 1.0}

    pairs = QUESTIONS.remove_columns("answer").add_column(
        "answer", ["light blue", "light red", "light red", "light", "dark red", "red"]
    )
    table = categories.classify(Scripted(words, script), words, pairs, seed=1)
    # drawn now and then; goes on after the answer; right; the beginning only; never; never
    assert list(table["category"]) == ["WeaklyKnown", "Unknown", "HighlyKnown", "Unknown", "Unknown", "Unknown"]
    assert table["probability"][0] == pytest.approx(0.09 / 0.58)


def test_the_end_of_the_text_ends_an_answer_as_well(words):
    def script(history):
        name, said = asked(history)
        if not said:
            return {ANSWERS.get(name, "grey"): 1.0}
        return {"<eos>": 1.0} if name == "ann" else {"<eos>": 0.5, ".": 0.5} if name == "bob" else {"and": 1.0}

    table = categories.classify(Scripted(words, script), words, QUESTIONS, seed=0)
    assert list(table["greedy"]) == [1, 1, 0, 0, 0, 0]
    assert list(table["probability"]) == pytest.approx([1, 1, 0, 0, 0, 0], abs=1e-6)


@pytest.mark.parametrize("wrong", [{"samples": 0}, {"prompts": 0}])
def test_bad_arguments_are_refused(words, wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        categories.classify(Scripted(words, knows), words, QUESTIONS, seed=0, **wrong)


def test_a_model_is_read_as_it_speaks(words):
    """`probability` is the share of its own drawn replies that are right, `greedy` whether its greedy reply is."""
    model = make_model(words, width=32, depth=1, seed=4)
    texts = [t for [t] in categories.few_shot(QUESTIONS, prompts=1, seed=0)]
    said = list(ANSWERS.values())
    unsure = [*said[3:5], *said[2:]]  # ann and bob: now the right answer, now another
    lessons = [{"prompt": t, "response": f"{a} ."} for side in (said, unsure) for t, a in zip(texts, side, strict=True)]
    rows = tokens.replies(Dataset.from_list(lessons), words, template=False)
    train(model, rows, 60, FINETUNE.but(batch=12, lr=1e-2), seed=0)
    table = categories.classify(model, words, QUESTIONS, prompts=1, seed=0)

    def right(reply, answer):
        return words.convert_ids_to_tokens(reply.tokens[:2]) in ([answer, "."], [answer, "<eos>"])

    how = {"template": False, "max_new_tokens": 2}
    greedy = [right(*pair) for pair in zip(generate(model, words, texts, **how), said, strict=True)]
    drawn = sample(model, words, texts, 200, seed=1, temperature=categories.TEMPERATURE, **how)
    share = [np.mean([right(r, a) for r in replies]) for replies, a in zip(drawn, said, strict=True)]
    assert list(table["greedy"]) == greedy
    assert list(table["probability"]) == pytest.approx(share, abs=4 * math.sqrt(0.25 / 200))
    assert max(share) - min(share) > 0.3  # there is something to be seen
