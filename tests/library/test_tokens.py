"""Token ids and label masks."""

from __future__ import annotations

from copy import deepcopy

import numpy as np
import pytest
from alignlab.models import tokens
from alignlab.models.tokens import IGNORE
from alignlab.worlds import biographies
from alignlab.worlds.biographies import QUESTIONS, Presentation
from alignlab.worlds.people import make_world
from datasets import Dataset
from transformers import AutoTokenizer


@pytest.fixture(scope="module")
def web(world):
    return biographies.write(world, Presentation(versions=3, permute=True))


@pytest.fixture(scope="module")
def rows(web, tokenizer):
    return tokens.documents(web, tokenizer)


@pytest.mark.parametrize("people", [1, 60, 2200])
def test_every_word_of_every_text_has_an_id(people):
    world = make_world(people=people, attributes=("city", "instrument"))
    tokenizer = tokens.word_tokenizer(biographies.words(world))
    said = list(biographies.write(world, Presentation(4, permute=True))["text"])
    for wording in range(len(QUESTIONS["city"])):
        said += biographies.questions(world, range(min(people, 60)), wording)["prompt"]
    for ids, words in zip(tokenizer(said)["input_ids"], said, strict=True):
        assert tokenizer.unk_token_id not in ids
        assert ids[0] == tokenizer.bos_token_id and len(ids) == 1 + len(words.split())
        assert tokenizer.decode(ids[1:]) == words
    assert tokenizer("nonsense")["input_ids"][-1] == tokenizer.unk_token_id


def test_the_vocabulary_depends_on_the_world_and_on_extra_texts(world, tokenizer):
    assert tokens.word_tokenizer(biographies.words(world)).get_vocab() == tokenizer.get_vocab()
    wider = tokens.word_tokenizer(biographies.words(world, ["once upon a time"]))
    assert set(wider.get_vocab()) - set(tokenizer.get_vocab()) == {"once", "upon", "time"}


def test_the_chat_template_is_plain_words(tokenizer):
    talk = [{"role": "user", "content": "where ?"}, {"role": "assistant", "content": "Lisbon"}]
    written = tokenizer.apply_chat_template(talk, tokenize=False)
    assert written == "<bos> <user> where ? <assistant> Lisbon <eos>"
    asked = tokenizer.apply_chat_template(talk[:1], tokenize=False, add_generation_prompt=True)
    assert asked == tokens.prompt_text("where ?", tokenizer) == "<bos> <user> where ? <assistant>"
    [bare] = tokens.prompt_ids(["where ?"], tokenizer, template=False)
    assert tokenizer.decode(bare) == "<bos> where ?"


def test_without_a_chat_template_the_remedy_is_named(tokenizer):
    bare = deepcopy(tokenizer)
    bare.chat_template = None
    with pytest.raises(ValueError, match="no chat template: pass template=False"):
        tokens.prompt_text("where ?", bare)


@pytest.mark.parametrize("template", [True, False])
def test_labels_cover_the_response_and_eos_and_nothing_else(world, tokenizer, template):
    pairs = biographies.questions(world).to_pandas()
    pairs.loc[0, "response"] = "a degree in chemistry"  # more than one word
    pairs = Dataset.from_pandas(pairs)
    made = tokens.replies(pairs, tokenizer, template)
    for row, pair in zip(made, pairs, strict=True):
        ids, labels = np.array(row["input_ids"]), np.array(row["labels"])
        labelled = labels != IGNORE
        assert tokenizer.decode(labels[labelled]) == f"{pair['response']} <eos>"
        assert (ids[labelled] == labels[labelled]).all()
        assert ids[~labelled].tolist() == tokens.prompt_ids([pair["prompt"]], tokenizer, template)[0]
        assert not labelled[: -len(pair["response"].split()) - 1].any()
        # The prompt and response make the same ids as the whole conversation in one piece.
        if template:
            talk = [{"role": r, "content": pair[k]} for r, k in (("user", "prompt"), ("assistant", "response"))]
            whole = tokenizer.apply_chat_template(talk, tokenize=False)
            assert ids.tolist() == tokenizer(whole, add_special_tokens=False)["input_ids"]


@pytest.mark.parametrize("empty", ["", "  "])
def test_an_empty_response_is_refused_with_its_row(tokenizer, empty):
    pairs = Dataset.from_dict({"prompt": ["a", "b", "c"], "response": ["x", "y", empty]})
    with pytest.raises(ValueError, match="response of row 2 is empty .*'c'"):
        tokens.replies(pairs, tokenizer)


def test_a_document_is_its_text_between_bos_and_eos(web, rows, tokenizer):
    for row, written in zip(rows, web["text"], strict=True):
        assert row["labels"] == row["input_ids"]
        assert tokenizer.decode(row["input_ids"]) == f"<bos> {written} <eos>"


def test_an_empty_corpus_is_refused(web, tokenizer):
    with pytest.raises(ValueError, match="the corpus is empty"):
        tokens.documents(web.select([]), tokenizer)


def test_collate_pads_on_the_right_without_loss():
    made = tokens.collate([{"input_ids": [5, 6, 7], "labels": [IGNORE, 6, 7]}, {"input_ids": [8], "labels": [8]}], 3)
    assert made["input_ids"].tolist() == [[5, 6, 7], [8, 3, 3]]
    assert made["labels"].tolist() == [[IGNORE, 6, 7], [8, IGNORE, IGNORE]]


def test_a_saved_tokenizer_is_the_same_one(tokenizer, web, tmp_path):
    tokenizer.save_pretrained(tmp_path)
    again = AutoTokenizer.from_pretrained(tmp_path)
    assert again.get_vocab() == tokenizer.get_vocab() and again.chat_template == tokenizer.chat_template
    assert again(list(web["text"]))["input_ids"] == tokenizer(list(web["text"]))["input_ids"]
    prompt = tokens.prompt_text("where does she work ?", tokenizer)
    assert tokens.prompt_text("where does she work ?", again) == prompt
    ids = [t(prompt, add_special_tokens=False)["input_ids"] for t in (tokenizer, again)]
    assert ids[0] == ids[1]
    for name in ("pad_token_id", "bos_token_id", "eos_token_id", "unk_token_id"):
        assert getattr(again, name) == getattr(tokenizer, name)
