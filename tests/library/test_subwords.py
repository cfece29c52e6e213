"""Every measurement with a sub-word tokenizer."""

from __future__ import annotations

from copy import deepcopy

import numpy as np
import pytest
import torch
from alignlab.measure import knowledge, shift
from alignlab.models import read, tokens
from alignlab.models.answer import generate, next_words, reply
from alignlab.models.llama import make_model
from alignlab.models.rules import Rules, processors
from datasets import Dataset
from tokenizers import processors as post
from transformers import GenerationConfig

from tests.library.subwords import FACTS, INST, PAIRS, TEMPLATE, byte_level, form


def test_the_tokenizer_of_these_tests_has_the_traps(bpe):
    assert bpe.pad_token is None and bpe("a")["input_ids"][0] != bpe.bos_token_id
    assert bpe.tokenize("It is Paris.") != bpe.tokenize(" It is Paris.")
    assert max(len(bpe.tokenize(f" {city}")) for _, city in FACTS) > 1
    assert tokens.prompt_text("x", bpe).endswith("assistant\n")


def test_a_prompt_is_shown_as_a_real_model_knows_it(bpe):
    assert tokens.prompt_text("Who?", bpe) == "<|im_start|>user\nWho?<|im_end|>\n<|im_start|>assistant\n"
    assert bpe.decode(tokens.prompt_ids(["Who?"], bpe, template=False)[0]) == "Who?"  # nor does it put a <bos> there
    opening = deepcopy(bpe)
    opening.backend_tokenizer.post_processor = post.TemplateProcessing(
        single="<|im_start|> $A", special_tokens=[("<|im_start|>", bpe.bos_token_id)]
    )
    assert tokens.prompt_ids(["Who?"], opening, template=False) == [opening("Who?")["input_ids"]]
    assert opening("Who?")["input_ids"][0] == bpe.bos_token_id


@pytest.mark.parametrize(
    ("template", "text"),
    [(TEMPLATE, "<|im_start|>assistant\nIt is Paris.<|im_end|>"), (INST, "[/INST] It is Paris.<|im_end|>")],
)
def test_a_reply_stands_where_the_template_puts_it(template, text):
    tokenizer = byte_level(template)
    row = tokens.replies(PAIRS.select([0]), tokenizer)[0]
    written = tokenizer.decode(row["input_ids"])
    talk = [{"role": "user", "content": PAIRS[0]["prompt"]}, {"role": "assistant", "content": PAIRS[0]["response"]}]
    assert written.endswith(text)
    assert tokenizer.apply_chat_template(talk, tokenize=False).strip() == written
    labelled = [i for i in row["labels"] if i >= 0]
    assert tokenizer.decode(labelled).strip() == "It is Paris.<|im_end|>"


def test_without_a_template_a_space_stands_before_the_response_unless_there_is_one(bpe):
    pairs = Dataset.from_dict({"prompt": ["Who?", "Answer:\n", "A: "], "response": ["It is Lima."] * 3})
    written = [bpe.decode(r) for r in tokens.replies(pairs, bpe, template=False)["input_ids"]]
    assert written == [f"{p}It is Lima.<|im_end|>" for p in ("Who? ", "Answer:\n", "A: ")]


def test_an_empty_prompt_without_a_first_token_is_refused(knowing, bpe):
    with pytest.raises(ValueError, match="the prompt of row 0 is empty"):
        tokens.replies(Dataset.from_dict({"prompt": [""], "response": ["x"]}), bpe, template=False)
    with pytest.raises(ValueError, match="an empty prompt"):
        generate(knowing, bpe, ["Who?", ""], template=False)
    with pytest.raises(ValueError, match="an empty text"):
        next_words(knowing, bpe, "")


def test_replies_measures_and_batches_agree(knowing, bpe):
    replies = generate(knowing, bpe, PAIRS["prompt"], max_new_tokens=24)
    assert [r.text for r in replies] == list(PAIRS["response"]) and all(r.stopped for r in replies)
    assert len({len(bpe.tokenize(p)) for p in PAIRS["prompt"]}) > 1  # so there was padding
    assert replies == [generate(knowing, bpe, [p], max_new_tokens=24)[0] for p in PAIRS["prompt"]]
    assert knowledge.exact_match(knowing, bpe, PAIRS)["correct"].all()
    assert knowledge.exact_match(knowing, bpe, PAIRS, template=False)["correct"].all()
    wrong = PAIRS.remove_columns("response").add_column("response", ["It is Oslo."] * 5)
    assert not knowledge.exact_match(knowing, bpe, wrong)["correct"].any()
    assert reply(knowing, bpe, PAIRS["prompt"], template=False, max_new_tokens=24) == list(PAIRS["response"])


def test_knowledge_is_asked_for_with_a_space(knowing, bpe):
    table = knowledge.exam(knowing, bpe, PAIRS, form)
    assert table["correct"].all() and (table["probability"] > 0.5).all()
    first, p = next_words(knowing, bpe, form(PAIRS["prompt"][0]), top=1)[0]
    assert " Paris".startswith(first) and first.startswith(" ")
    assert p == pytest.approx(table["probability"][0], abs=1e-5)


def test_recall_finds_values_of_several_tokens(knowing, bpe):
    texts = [f"{form(p)} {city}, and no other." for p, (_, city) in zip(PAIRS["prompt"], FACTS, strict=True)]
    corpus = Dataset.from_dict({"text": texts, "person": range(5), "facts": [[city, "other"] for _, city in FACTS]})
    table = knowledge.verbatim(knowing, bpe, corpus)
    assert table["correct"][table["place"] == 0].all() and not table["correct"][table["place"] == 1].any()
    half = Dataset.from_dict(
        {"text": [texts[4].replace("Kathmandu", "Kathmanru")], "person": [0], "facts": [["Kathmanru"]]}
    )
    assert not knowledge.verbatim(knowing, bpe, half)["correct"].any()  # its first tokens are right, not all
    for facts, message in ((["Kath"], "not one word"), (["Question"], "begins its text")):
        with pytest.raises(ValueError, match=message):
            knowledge.verbatim(knowing, bpe, Dataset.from_dict({"text": texts[4:], "person": [0], "facts": [facts]}))


def test_a_large_vocabulary_is_judged_piece_by_piece(knowing, bpe, monkeypatch):
    whole = knowledge.log_likelihood(knowing, bpe, PAIRS)
    monkeypatch.setattr(read, "MOST", 3 * len(bpe))
    assert np.allclose(whole, knowledge.log_likelihood(knowing, bpe, PAIRS), atol=1e-4)
    monkeypatch.setattr(read, "MOST", 1)
    assert np.allclose(whole, knowledge.log_likelihood(knowing, bpe, PAIRS), atol=1e-4)


def test_log_likelihood_is_that_of_the_chain(knowing, bpe):
    row = tokens.replies(PAIRS.select([2]), bpe)[0]
    ids, n = torch.tensor([row["input_ids"]]), sum(y >= 0 for y in row["labels"])
    with torch.inference_mode():
        logp = knowing(input_ids=ids).logits[0, :-1].log_softmax(-1).gather(1, ids[0, 1:, None])[-n:].sum()
    assert knowledge.log_likelihood(knowing, bpe, PAIRS.select([2]))[0] == pytest.approx(logp.item(), abs=1e-3)


def test_a_reply_that_was_begun_goes_on_behind_the_newline(knowing, bpe):
    assert reply(knowing, bpe, PAIRS["prompt"], prefill=["It is"] * 5, max_new_tokens=20) == [f"{c}." for _, c in FACTS]
    mixed = reply(knowing, bpe, PAIRS["prompt"], prefill=["", "It"] * 2 + [""], max_new_tokens=20, batch=2)
    assert mixed == ["It is Paris.", "is Tokyo.", "It is Nairobi.", "is Lima.", "It is Kathmandu."]


def test_any_of_several_end_tokens_ends_a_reply(knowing, bpe):
    model = deepcopy(knowing)
    stop = bpe.encode(".")[-1]
    model.generation_config.eos_token_id = [bpe.eos_token_id, stop]
    for r, whole in zip(generate(model, bpe, PAIRS["prompt"], max_new_tokens=24), PAIRS["response"], strict=True):
        assert r.stopped and r.tokens[-1] == stop and r.text == whole


def test_habits_in_a_generation_config_change_no_reply(knowing, bpe):
    model = deepcopy(knowing)
    model.generation_config = GenerationConfig(
        do_sample=True, temperature=9.0, top_k=2, top_p=0.1, repetition_penalty=5.0, eos_token_id=bpe.eos_token_id
    )
    assert reply(model, bpe, PAIRS["prompt"], max_new_tokens=24) == list(PAIRS["response"])
    hot = {"temperature": 5.0, "max_new_tokens": 1, "seed": 3}
    assert reply(model, bpe, ["Who?"] * 60, **hot) == reply(knowing, bpe, ["Who?"] * 60, **hot)


def test_shift_and_rules_take_a_real_tokenizer(knowing, bpe):
    table = shift.token_shift(make_model(bpe, 64, 1, seed=5), knowing, bpe, PAIRS["prompt"], max_new_tokens=24)
    assert "".join(table[table["reply"] == 0]["token"]) == "It is Paris.<|im_end|>"
    assert (shift.token_shift(knowing, knowing, bpe, PAIRS["prompt"], max_new_tokens=24)["rank"] == 1).all()
    ended = generate(
        knowing, bpe, PAIRS["prompt"], logits_processor=processors(Rules(end=1e4, length=2), bpe), max_new_tokens=9
    )
    assert all(len(r.tokens) == 2 and r.stopped for r in ended)
