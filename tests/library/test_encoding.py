"""Prompt and response become one row, whatever the tokenizer does with spaces, beginnings and ends."""

from __future__ import annotations

import numpy as np
import pytest
from alignlab.models import tokens
from alignlab.models.tokens import IGNORE
from datasets import Dataset
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import ByT5Tokenizer, PreTrainedTokenizerFast

PROMPTS = ["The capital of France is", "The capital of Peru is", "Question: who?\nAnswer:", "A:", "no. 12345"]
RESPONSES = ["Paris .", "Lima", "It is  Ada, Émile or 李 .", "two words", "67 89"]
PAIRS = Dataset.from_dict({"prompt": PROMPTS, "response": RESPONSES})
INST = (
    "{{ bos_token }}{% for m in messages %}{% if m['role'] == 'user' %}[INST] {{ m['content'] }} [/INST]"
    "{% else %} {{ m['content'] }}{{ eos_token }}{% endif %}{% endfor %}"
)
TURNS = (
    "{% for m in messages %}<|{{ m['role'] }}|>\n{{ m['content'] }}{{ eos_token }}\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)


def fast(core, trainer, opens="", template=INST, **named):
    core.train_from_iterator([*PROMPTS, *RESPONSES] * 3, trainer)
    if opens:
        core.post_processor = processors.TemplateProcessing(
            single=f"{opens} $A", special_tokens=[(opens, core.token_to_id(opens))]
        )
    made = PreTrainedTokenizerFast(tokenizer_object=core, **named)
    made.chat_template = template
    return made


def bpe(opens="", template=TURNS, **named):
    core = Tokenizer(models.BPE())
    core.pre_tokenizer, core.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    special = list(dict.fromkeys(["<end>", *named.values()]))
    trainer = trainers.BpeTrainer(
        vocab_size=320, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    return fast(core, trainer, opens, template, **named)


def metaspace(scheme):
    """As SentencePiece writes words, "▁Paris": in front of every piece of a text, or of its first one only."""
    core = Tokenizer(models.Unigram([("<unk>", 0.0)], unk_id=0))
    core.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme)
    core.decoder = decoders.Metaspace(prepend_scheme=scheme)
    trainer = trainers.UnigramTrainer(
        vocab_size=90, special_tokens=["<unk>", "<s>", "</s>"], unk_token="<unk>", show_progress=False
    )
    return fast(core, trainer, "<s>", bos_token="<s>", eos_token="</s>", unk_token="<unk>")


def prepending():
    """As the tokenizer of Llama 2: a normaliser writes "▁" in front of the text and in place of spaces."""
    core = Tokenizer(models.BPE(byte_fallback=True, fuse_unk=True, unk_token="<unk>"))
    core.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    core.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    special = ["<unk>", "<s>", "</s>", *(f"<0x{i:02X}>" for i in range(256))]
    trainer = trainers.BpeTrainer(vocab_size=340, special_tokens=special, show_progress=False)
    return fast(core, trainer, "<s>", bos_token="<s>", eos_token="</s>", unk_token="<unk>")


def in_python():
    """No Rust behind it, no `<bos>`, and it writes its `<eos>` behind every text."""
    made = ByT5Tokenizer(extra_ids=0)
    made.chat_template = TURNS
    return made


MAKERS = {
    "words": lambda: tokens.word_tokenizer([*PROMPTS, *RESPONSES]),
    "characters": lambda: tokens.character_tokenizer([*PROMPTS, *RESPONSES]),
    "bytes": lambda: bpe(bos_token="<s>", eos_token="<end>"),  # it names a <bos> and puts it nowhere
    "bytes, opening": lambda: bpe("<s>", INST, bos_token="<s>", eos_token="<end>", pad_token="<end>"),
    "bytes, bare": lambda: bpe(),  # no <bos>, no <eos>, no pad
    "pieces, always": lambda: metaspace("always"),
    "pieces, first": lambda: metaspace("first"),
    "prepended": prepending,
    "python": in_python,
}


@pytest.fixture(scope="module", params=MAKERS)
def any_tokenizer(request):
    return MAKERS[request.param]()


def one_text(prompt, response, tokenizer, template):
    """What the row should be: the whole text as the tokenizer itself encodes it, with one `<eos>` if it has any."""
    if template:
        talk = [{"role": "user", "content": prompt}, {"role": "assistant", "content": response}]
        whole = tokenizer.apply_chat_template(talk, tokenize=False)
        whole = whole[: whole.rindex(response) + len(response)]
        ids = tokenizer(whole, add_special_tokens=False)["input_ids"]
    else:
        ids = tokenizer(f"{prompt} {response}")["input_ids"]
        ids = ids[:-1] if ids[-1] == tokenizer.eos_token_id else ids
    return ids + ([] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id])


def test_the_tokenizers_of_these_tests_have_the_traps():
    made = {k: make() for k, make in MAKERS.items()}
    assert not hasattr(made["python"], "backend_tokenizer") and made["python"].bos_token_id is None
    assert made["python"]("a")["input_ids"][-1] == made["python"].eos_token_id
    bare = made["bytes, bare"]
    assert (bare.bos_token_id, bare.eos_token_id, bare.pad_token_id) == (None, None, None)
    two = [t for part in ("A:", " Lima") for t in made["prepended"].tokenize(part)]
    assert made["prepended"].tokenize("A: Lima") != two  # two texts are not one
    first, always = made["pieces, first"], made["pieces, always"]
    assert first.tokenize("<s>A:")[1:] != first.tokenize("A:")  # nor is a text behind a written <bos> the text
    assert always.tokenize("<s>A:")[1:] == always.tokenize("A:")
    assert all(t.tokenize("Lima")[0][0] == "▁" for t in (first, always))


@pytest.mark.parametrize("template", [True, False])
def test_a_row_is_what_the_tokenizer_makes_of_the_whole_text(any_tokenizer, template):
    for pair, row in zip(PAIRS, tokens.replies(PAIRS, any_tokenizer, template), strict=True):
        assert row["input_ids"] == one_text(pair["prompt"], pair["response"], any_tokenizer, template)


@pytest.mark.parametrize("template", [True, False])
def test_the_labels_are_the_response_and_the_rest_is_what_a_model_is_shown(any_tokenizer, template):
    shown = tokens.prompt_ids(PROMPTS, any_tokenizer, template)
    for head, pair, row in zip(shown, PAIRS, tokens.replies(PAIRS, any_tokenizer, template), strict=True):
        labels, n = np.array(row["labels"]), len(head)
        assert row["input_ids"][:n] == head and (labels[:n] == IGNORE).all()
        assert labels[n:].tolist() == row["input_ids"][n:]
        said = any_tokenizer.decode(labels[n:], skip_special_tokens=True)
        spaces = any_tokenizer.decode(any_tokenizer(pair["response"])["input_ids"], skip_special_tokens=True)
        assert said.strip() == spaces.strip()


def test_a_beginning_is_read_as_the_response_that_begins_so(any_tokenizer):
    for template in (True, False):
        rows = tokens.replies(PAIRS, any_tokenizer, template, end=False)["input_ids"][:]
        assert tokens.prompt_ids(PROMPTS, any_tokenizer, template, prefill=RESPONSES) == rows
        some = tokens.prompt_ids(PROMPTS, any_tokenizer, template, prefill=["", *RESPONSES[1:]])
        assert some == [*tokens.prompt_ids(PROMPTS[:1], any_tokenizer, template), *rows[1:]]


def test_a_document_has_one_beginning_and_one_end(any_tokenizer):
    corpus = Dataset.from_dict({"text": PROMPTS})
    for text, row in zip(PROMPTS, tokens.documents(corpus, any_tokenizer), strict=True):
        body = any_tokenizer(text, add_special_tokens=False)["input_ids"]
        front = any_tokenizer(text)["input_ids"]
        front = front[:1] if front[0] != body[0] else []
        last = [] if any_tokenizer.eos_token_id is None else [any_tokenizer.eos_token_id]
        assert row["labels"] == row["input_ids"] == [*front, *body, *last]
    cut = tokens.documents(corpus, any_tokenizer, end=False)["input_ids"][:]
    assert any_tokenizer.eos_token_id not in [r[-1] for r in cut]


def test_a_token_across_the_border_belongs_to_the_response():
    tokenizer = MAKERS["bytes"]()
    pair = Dataset.from_dict({"prompt": ["The capital "], "response": ["of Peru"]})
    [row] = tokens.replies(pair, tokenizer, template=False)
    n = row["labels"].count(IGNORE)
    assert tokenizer.decode(row["input_ids"][:n]) == "The capital"
    assert tokenizer.decode(row["labels"][n:]) == " of Peru<end>"
    for prompt in ("", " "):  # nothing is left in front of the response
        with pytest.raises(ValueError, match="the prompt of row 0 is empty"):
            tokens.replies(Dataset.from_dict({"prompt": [prompt], "response": ["of Peru"]}), tokenizer, template=False)


def test_a_response_without_tokens_is_refused():
    tokenizer = MAKERS["bytes"]()
    tokenizer.backend_tokenizer.normalizer = normalizers.Replace("\u200b", "")
    with pytest.raises(ValueError, match="the response of row 1 is empty"):
        tokens.replies(Dataset.from_dict({"prompt": ["a", "b"], "response": ["x", "\u200b"]}), tokenizer)


def test_no_template_means_a_remedy():
    tokenizer = in_python()
    tokenizer.chat_template = None
    with pytest.raises(ValueError, match="pass template=False"):
        tokens.replies(PAIRS, tokenizer)
    assert len(tokens.replies(PAIRS, tokenizer, template=False)) == len(PAIRS)


# ---- two responses


def test_a_pair_is_two_rows_of_replies(any_tokenizer):
    rejected = RESPONSES[1:] + RESPONSES[:1]
    both = Dataset.from_dict({"prompt": PROMPTS, "chosen": RESPONSES, "rejected": rejected})
    for template in (True, False):
        made = tokens.pairs(both, any_tokenizer, template)
        for side, responses in (("chosen", RESPONSES), ("rejected", rejected)):
            rows = tokens.replies(
                Dataset.from_dict({"prompt": PROMPTS, "response": responses}), any_tokenizer, template
            )
            assert made[f"{side}_input_ids"][:] == rows["input_ids"][:]
            assert made[f"{side}_labels"][:] == rows["labels"][:]
    assert len(made.column_names) == 4


def test_pairs_that_teach_nothing_are_refused(tokenizer):
    def with_last(chosen, rejected):
        return Dataset.from_dict({"prompt": ["a", "b"], "chosen": ["Lima", chosen], "rejected": ["Rome", rejected]})

    with pytest.raises(ValueError, match="row 1 are the same, 'Oslo'"):
        tokens.pairs(with_last("Oslo", "Oslo"), tokenizer)
    with pytest.raises(ValueError, match="row 1 are the same"):  # two unknown words are one to the tokenizer
        tokens.pairs(with_last("qqq", "zzz"), tokenizer)
    with pytest.raises(ValueError, match="the rejected of row 1 is empty"):
        tokens.pairs(with_last("Oslo", " "), tokenizer)


# ---- batches


def test_every_column_is_collated():
    rows = [
        {"input_ids": [5, 6, 7], "labels": [IGNORE, 6, 7], "chosen_labels": [1], "advantage": [0.5, 1.0], "text": "a"},
        {"input_ids": [8], "labels": [8], "chosen_labels": [2, 3], "advantage": [], "text": "b"},
    ]
    rows = [
        r | {"rejected_input_ids": [4] * k, "place": [True] * k, "n": k, "reward": k / 2} for k, r in enumerate(rows)
    ]
    made = tokens.collate(rows, 3)
    assert {k: v.tolist() for k, v in made.items()} == {
        "input_ids": [[5, 6, 7], [8, 3, 3]],
        "labels": [[IGNORE, 6, 7], [8, IGNORE, IGNORE]],
        "chosen_labels": [[1, IGNORE], [2, 3]],
        "advantage": [[0.5, 1.0], [0.0, 0.0]],
        "rejected_input_ids": [[3], [4]],
        "place": [[False], [True]],
        "n": [0, 1],
        "reward": [0.0, 0.5],
    }
    kinds = {k: str(v.dtype) for k, v in made.items()}
    assert (kinds["input_ids"], kinds["n"], kinds["place"]) == ("int64", "int64", "bool")
    assert kinds["advantage"] == kinds["reward"] == "float32"


@pytest.mark.parametrize("column", [[[[1, 2]], [[3]]], [None, None], [1, [2]], [["a"], ["b"]]])
def test_a_column_that_is_no_array_is_named(column):
    with pytest.raises(ValueError, match="the column 'odd' is neither"):
        tokens.collate([{"input_ids": [1], "odd": value} for value in column], 0)
