"""Text becomes token ids: tokenizers of words and of characters, packing, padding and label masks. No model here."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from datasets import Dataset
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from .. import check
from ..worlds.words import ASSISTANT, BOS, EOS, PAD, UNK, USER

IGNORE = -100  # the label that cross-entropy in PyTorch and transformers leaves out of the loss
# <bos> <user> where was ... ? <assistant> Lisbon <eos>
CHAT_TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}"
    "{% if m['role'] == 'user' %} <user> {{ m['content'] }}"
    "{% else %} <assistant> {{ m['content'] }} {{ eos_token }}{% endif %}"
    "{% endfor %}{% if add_generation_prompt %} <assistant>{% endif %}"
)


def word_tokenizer(texts: Iterable[str]) -> PreTrainedTokenizerFast:
    """A tokenizer with one id per word of `texts`, in order of first appearance, after the special tokens.

    It is a complete `PreTrainedTokenizerFast` with a chat template: everything in transformers works with it. A text
    gets `<bos>` in front; a word that was not listed becomes `<unk>`. Placeholders (`{who}`) are no words.
    """
    words = (w for t in texts for w in t.split() if not w.startswith("{"))
    return _complete(words, pre_tokenizers.WhitespaceSplit())


def character_tokenizer(texts: Iterable[str]) -> PreTrainedTokenizerFast:
    """One token per character of `texts`, after the special tokens. Spaces are dropped, others become `<unk>`.

    It has a chat template, like the word tokenizer.
    """
    single = pre_tokenizers.Split(Regex("."), "isolated")
    splitter = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), single])
    return _complete((c for t in texts for c in t), splitter, decoders.Fuse())


def _complete(words: Iterable[str], splitter, decoder=None) -> PreTrainedTokenizerFast:
    vocabulary = {w: i for i, w in enumerate(dict.fromkeys([PAD, BOS, EOS, UNK, USER, ASSISTANT, *words]))}
    core = Tokenizer(models.WordLevel(vocabulary, unk_token=UNK))
    core.pre_tokenizer = splitter
    if decoder:
        core.decoder = decoder
    core.post_processor = processors.TemplateProcessing(single=f"{BOS} $A", special_tokens=[(BOS, vocabulary[BOS])])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core,
        pad_token=PAD, bos_token=BOS, eos_token=EOS, unk_token=UNK,
        additional_special_tokens=[USER, ASSISTANT],
        padding_side="left", model_max_length=512,
    )  # fmt: skip
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


def _ids(tokenizer: PreTrainedTokenizerBase, texts: list[str], special: bool = True) -> list[list[int]]:
    if not texts:
        raise ValueError("there is no text to encode: the corpus is empty")
    return tokenizer(texts, add_special_tokens=special)["input_ids"]


def documents(corpus: Dataset, tokenizer: PreTrainedTokenizerBase, end: bool = True) -> Dataset:
    """One document a row, `<bos> text <eos>`, loss on every token but the first. Rows keep their own lengths.

    Args:
        end: False leaves `<eos>` away, for pages that were cut out of something longer (`alignlab.worlds.web.pages`).
    """
    rows = [[*r, tokenizer.eos_token_id] if end else r for r in _ids(tokenizer, corpus["text"][:])]
    return Dataset.from_dict({"input_ids": rows, "labels": rows})


def pack(corpus: Dataset, tokenizer: PreTrainedTokenizerBase, length: int = 96) -> Dataset:
    """Documents end to end, cut into full rows of `length` tokens: no padding, so no waste.

    A document can go on in the next row, as in ordinary pretraining. What does not fill a last row is left out.

    Raises:
        ValueError: the corpus has fewer than `length` tokens.
    """
    length = check.integer("length", length, at_least=2)
    stream = np.concatenate([[*r, tokenizer.eos_token_id] for r in _ids(tokenizer, corpus["text"][:])])
    if len(stream) < length:
        raise ValueError(f"the corpus has {len(stream)} tokens, fewer than one row of {length}: take a shorter length")
    rows = stream[: len(stream) // length * length].reshape(-1, length).tolist()
    return Dataset.from_dict({"input_ids": rows, "labels": rows})


def replies(pairs: Dataset, tokenizer: PreTrainedTokenizerBase, template: bool = True) -> Dataset:
    """Prompts with their responses; the labels cover the response and `<eos>`, and nothing else.

    Args:
        pairs: a Dataset with `prompt` and `response`.
        template: use the tokenizer's chat template. Without it the response follows the bare prompt.

    Raises:
        ValueError: a prompt or a response is empty, with its row number.
    """
    prompts, responses = pairs["prompt"][:], pairs["response"][:]
    for i, r in enumerate(responses):
        if not r.strip():
            raise ValueError(f"the response of row {i} is empty (prompt {prompts[i]!r}): nothing to learn from")
    asked = [prompt_text(p, tokenizer, template) for p in prompts]
    heads = _ids(tokenizer, asked, special=False)
    for i, head in enumerate(heads):
        if not head:
            raise ValueError(f"the prompt of row {i} is empty: the first token of a response needs one in front of it")
    # Encoded with a space in front, as they stand behind the prompt: a real (sub-word) tokenizer sees the difference.
    behind = zip(responses, spaces(asked, tokenizer, template), strict=True)
    tails = _ids(tokenizer, [space + r for r, space in behind], special=False)
    tails = [[*t, tokenizer.eos_token_id] for t in tails]
    return Dataset.from_dict(
        {
            "input_ids": [h + t for h, t in zip(heads, tails, strict=True)],
            "labels": [[IGNORE] * len(h) + t for h, t in zip(heads, tails, strict=True)],
        }
    )


def prompt_text(prompt: str, tokenizer: PreTrainedTokenizerBase, template: bool = True) -> str:
    """What the model is shown: the prompt in the chat template up to the assistant's turn, or bare after `<bos>`."""
    if not template:
        if _word_level(tokenizer):
            return f"{tokenizer.bos_token} {prompt}"
        # Many real tokenizers name a <bos> and put it nowhere: then the model has never seen one in front of a text.
        opens = tokenizer.bos_token_id is not None and tokenizer("a")["input_ids"][0] == tokenizer.bos_token_id
        return f"{tokenizer.bos_token}{prompt}" if opens else prompt
    if not tokenizer.chat_template:
        raise ValueError("this tokenizer has no chat template: pass template=False to ask the bare question")
    messages = [{"role": "user", "content": prompt}]
    return tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)


def spaces(asked: list[str], tokenizer: PreTrainedTokenizerBase, template: bool = True) -> list[str]:
    """What belongs between each prompt, as `prompt_text` gives it, and its response: a space, or nothing."""
    if template and not _word_level(tokenizer):
        return [_template_space(tokenizer)] * len(asked)
    return ["" if text[-1:].isspace() else " " for text in asked]


def _template_space(tokenizer: PreTrainedTokenizerBase) -> str:
    # The template is asked: most end the prompt in a newline, where no space belongs; "[/INST]" is followed by one.
    talk = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "reply"}]
    head, whole = prompt_text("a", tokenizer), tokenizer.apply_chat_template(talk, tokenize=False)
    between = whole.removeprefix(head).partition("reply")[0]
    if between.strip() or not whole.startswith(head):  # a template that writes past turns in another way
        return "" if head[-1:].isspace() else " "
    return between


def _word_level(tokenizer: PreTrainedTokenizerBase) -> bool:
    return isinstance(tokenizer.backend_tokenizer.model, models.WordLevel)


def collate(rows: list[dict], pad_token_id: int) -> dict[str, np.ndarray]:
    """Rows of different lengths to arrays (B, T), padded on the right; the padding carries no loss."""
    t = max(len(r["input_ids"]) for r in rows)
    ids = np.full((len(rows), t), pad_token_id, dtype=np.int64)
    labels = np.full((len(rows), t), IGNORE, dtype=np.int64)
    for i, r in enumerate(rows):
        ids[i, : len(r["input_ids"])] = r["input_ids"]
        labels[i, : len(r["labels"])] = r["labels"]
    return {"input_ids": ids, "labels": labels}
