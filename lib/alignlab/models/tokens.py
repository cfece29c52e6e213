"""Text becomes token ids: tokenizers of words and of characters, prompts, label masks and padding. No model here.

Whatever stands in one row is encoded as one text. To a sub-word tokenizer, the ids of two texts are not those of the
two in one piece: it writes spaces into its tokens, and some treat the beginning of a text in a way of its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from datasets import Dataset
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

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


def _ids(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], opens: bool) -> list[list[int]]:
    """The ids of each text; if it `opens` a row, behind what the tokenizer itself puts in front of one."""
    if not len(texts):
        raise ValueError("there is no text to encode: the corpus is empty")
    rows = tokenizer(list(texts), add_special_tokens=False, return_attention_mask=False)["input_ids"]
    front = _front(tokenizer, texts) if opens else []
    return [[*front, *r] for r in rows] if front else rows


def _front(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> list[int]:
    # Usually <bos>. Many tokenizers name one and put it nowhere: then the model has never seen it in front of a text.
    some = next((t for t in texts if t.strip()), "a")
    bare, full = (tokenizer(some, add_special_tokens=special)["input_ids"] for special in (False, True))
    return full[: next((k for k in range(len(full)) if full[k : k + len(bare)] == bare), 0)]


def _end(tokenizer: PreTrainedTokenizerBase, end: bool) -> list[int]:
    return [tokenizer.eos_token_id] if end and tokenizer.eos_token_id is not None else []


def documents(corpus: Dataset, tokenizer: PreTrainedTokenizerBase, end: bool = True) -> Dataset:
    """One document a row, `<bos> text <eos>`, loss on every token but the first. Rows keep their own lengths.

    A tokenizer that puts no `<bos>` in front of a text, or has no `<eos>`, leaves it away here too.

    Args:
        end: False leaves `<eos>` away, for pages that were cut out of something longer (`alignlab.worlds.web.pages`).
    """
    last = _end(tokenizer, end)
    rows = [[*r, *last] for r in _ids(tokenizer, corpus["text"][:], opens=True)]
    return Dataset.from_dict({"input_ids": rows, "labels": rows})


def replies(pairs: Dataset, tokenizer: PreTrainedTokenizerBase, template: bool = True, end: bool = True) -> Dataset:
    """Prompts with their responses; the labels cover the response and `<eos>`, and nothing else.

    Both are encoded as one text. The response begins where that leaves the ids of the prompt alone (`prompt_ids`), so
    what stands before it is what a model is shown when it is asked. A token that holds the last characters of the
    prompt and the first of the response belongs to the response.

    Args:
        pairs: a Dataset with `prompt` and `response`.
        template: use the tokenizer's chat template. Without it the response follows the bare prompt.
        end: False leaves `<eos>` away. With a tokenizer that has none there never is one: from such rows no model
            learns to stop.

    Raises:
        ValueError: a prompt or a response is empty, with its row number; or there is no chat template.
    """
    made = _pairs(pairs["prompt"][:], pairs["response"][:], "response", tokenizer, template, end)
    return Dataset.from_dict(dict(zip(("input_ids", "labels"), made, strict=True)))


def pairs(dataset: Dataset, tokenizer: PreTrainedTokenizerBase, template: bool = True) -> Dataset:
    """Prompts with a preferred and a rejected response, for losses that compare the two.

    Args:
        dataset: with `prompt`, `chosen` and `rejected`.
        template: use the tokenizer's chat template, as in `replies`.

    Returns:
        `chosen_input_ids`, `chosen_labels`, `rejected_input_ids`, `rejected_labels`: each two as `replies` makes them.

    Raises:
        ValueError: as `replies`; and two responses that are the same to the tokenizer, with their row number.
    """
    made, prompts = {}, dataset["prompt"][:]
    for side in ("chosen", "rejected"):
        ids, labels = _pairs(prompts, dataset[side][:], side, tokenizer, template)
        made |= {f"{side}_input_ids": ids, f"{side}_labels": labels}
    for i, (one, other) in enumerate(zip(made["chosen_input_ids"], made["rejected_input_ids"], strict=True)):
        if one == other:
            raise ValueError(f"chosen and rejected of row {i} are the same, {dataset[i]['chosen']!r}: leave it out")
    return Dataset.from_dict(made)


def _pairs(
    prompts: Sequence[str],
    responses: Sequence[str],
    name: str,
    tokenizer: PreTrainedTokenizerBase,
    template: bool,
    end: bool = True,
) -> tuple[list[list[int]], list[list[int]]]:
    """Ids and labels of each prompt with its response."""
    heads = _heads(prompts, tokenizer, template)
    rows = _ids(tokenizer, _joined(heads, responses, tokenizer, template), not template)
    asked = list(dict.fromkeys(heads))  # often one prompt has several responses
    alone = dict(zip(asked, _ids(tokenizer, asked, not template), strict=True))
    last, labels = _end(tokenizer, end), []
    for i, (head, row) in enumerate(zip(heads, rows, strict=True)):
        n = _common(alone[head], row)
        if not responses[i].strip() or n == len(row):
            raise ValueError(f"the {name} of row {i} is empty (prompt {prompts[i]!r}): nothing to learn from")
        if not n:
            raise ValueError(
                f"the prompt of row {i} is empty, or one token with its {name}: the first token of a {name} needs one "
                "in front of it"
            )
        row += last
        labels.append([IGNORE] * n + row[n:])
    return rows, labels


def _common(a: list[int], b: list[int]) -> int:
    """How many first elements of `a` and `b` agree."""
    if b[: len(a)] == a:  # nearly always
        return len(a)
    return next((k for k, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), len(b))


def prompt_text(prompt: str, tokenizer: PreTrainedTokenizerBase) -> str:
    """The prompt in the tokenizer's chat template, up to the assistant's turn.

    Raises:
        ValueError: the tokenizer has no chat template.
    """
    if not getattr(tokenizer, "chat_template", None):
        raise ValueError("this tokenizer has no chat template: pass template=False to ask the bare question")
    messages = [{"role": "user", "content": prompt}]
    return tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)


def prompt_ids(
    prompts: Sequence[str],
    tokenizer: PreTrainedTokenizerBase,
    template: bool = True,
    prefill: Sequence[str] | None = None,
) -> list[list[int]]:
    """What a model is shown of each prompt: the ids in front of its reply.

    Args:
        template: put each prompt into the chat template. Without it the bare prompt follows what the tokenizer puts in
            front of every text, such as `<bos>`.
        prefill: the beginning of each reply ("" for none), encoded with its prompt as one text.
    """
    texts = _heads(prompts, tokenizer, template)
    if prefill is not None:
        begun = _joined(texts, prefill, tokenizer, template)
        texts = [b if p else t for t, b, p in zip(texts, begun, prefill, strict=True)]
    return _ids(tokenizer, texts, not template)


def _heads(prompts: Sequence[str], tokenizer: PreTrainedTokenizerBase, template: bool) -> list[str]:
    return [prompt_text(p, tokenizer) for p in prompts] if template else list(prompts)


def _joined(
    heads: Sequence[str], tails: Sequence[str], tokenizer: PreTrainedTokenizerBase, template: bool
) -> list[str]:
    """Each tail behind its head, with what belongs between the two: a space, a newline or nothing."""
    between = _template_space(tokenizer) if template else None
    spaces = ["" if not h or h[-1].isspace() else " " for h in heads] if between is None else [between] * len(heads)
    return [h + s + t for h, s, t in zip(heads, spaces, tails, strict=True)]


def _template_space(tokenizer: PreTrainedTokenizerBase) -> str | None:
    # The template is asked: most end the prompt in a newline, where no space belongs; "[/INST]" is followed by one.
    talk = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "reply"}]
    head, whole = prompt_text("a", tokenizer), tokenizer.apply_chat_template(talk, tokenize=False)
    between = whole.removeprefix(head).partition("reply")[0]
    if between.strip() or not whole.startswith(head):  # a template that writes past turns in another way
        return None
    return between


def collate(rows: Sequence[dict], pad_token_id: int) -> dict[str, np.ndarray]:
    """Every column of the rows as one array; text is left out, a model does not read it.

    Returns:
        For each column of numbers an array (B,); for each column of lists one of (B, T), padded on the right to the
        longest: ids (`input_ids`, `chosen_input_ids`, ...) with `pad_token_id`, labels (`labels`, `chosen_labels`, ...)
        with `IGNORE`, others with 0. Whole numbers are int64, others float32.

    Raises:
        ValueError: a column of something else, such as lists in lists.
    """
    return {k: _column(k, [r[k] for r in rows], pad_token_id) for k, v in rows[0].items() if not isinstance(v, str)}


def _column(name: str, values: list, pad_token_id: int) -> np.ndarray:
    arrays = [np.asarray(v) for v in values]
    full = [a for a in arrays if a.size] or [np.zeros(0, int)]  # numpy takes an empty list for one of floats
    flat = np.concatenate([a.reshape(-1) for a in full])
    if {a.ndim for a in arrays} not in ({0}, {1}) or flat.dtype.kind not in "biuf":
        raise ValueError(f"the column {name!r} is neither numbers nor lists of numbers: leave it out")
    flat = flat.astype({"b": bool, "f": np.float32}.get(flat.dtype.kind, np.int64), copy=False)
    if not arrays[0].ndim:
        return flat  # (B,)
    lengths = np.array([a.size for a in arrays])
    fill = pad_token_id if name.endswith("input_ids") else IGNORE if name.endswith("labels") else 0
    padded = np.full((len(arrays), lengths.max()), fill, dtype=flat.dtype)
    padded[np.arange(padded.shape[1]) < lengths[:, None]] = flat  # row by row, as in `flat`
    return padded  # (B, T)
