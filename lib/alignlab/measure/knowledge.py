"""What a model knows: questions and texts, teacher-forced. Any `PreTrainedModel` with its tokenizer will do."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd
import torch
from datasets import Dataset
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ..models.tokens import collate, documents, replies
from ..worlds.tasks import exam_form


def _right(model: PreTrainedModel, rows: list[dict], wanted: list[np.ndarray], batch: int) -> list[np.ndarray]:
    """For each row, at the wanted positions: is the token the model's first choice, given the true tokens before it?"""
    return [right for right, _ in _judged(model, rows, wanted, batch)]


@torch.inference_mode()
def _judged(model: PreTrainedModel, rows: list[dict], wanted: list[np.ndarray], batch: int) -> list[tuple]:
    """For each row, at the wanted positions: is the token the first choice, and what probability does it have?"""
    order = sorted(range(len(rows)), key=lambda i: len(rows[i]["input_ids"]))  # alike lengths together: little padding
    judged: list = [None] * len(rows)
    for start in range(0, len(order), batch):
        chunk = order[start : start + batch]
        ids = torch.from_numpy(collate([rows[i] for i in chunk], model.config.pad_token_id or 0)["input_ids"])
        hidden = model.base_model(input_ids=ids.to(model.device), use_cache=False).last_hidden_state
        who = np.repeat(np.arange(len(chunk)), [len(wanted[i]) for i in chunk])
        where = np.concatenate([wanted[i] for i in chunk])
        hit, p = _first_choice(model, hidden, who, where - 1, ids[who, where])
        cuts = np.cumsum([len(wanted[i]) for i in chunk])[:-1]
        for i, *parts in zip(chunk, np.split(hit, cuts), np.split(p, cuts), strict=True):
            judged[i] = tuple(parts)
    return judged


# Logits at once, positions times vocabulary: 128 MB. With a real vocabulary all positions of a batch take gigabytes.
LOGITS = 2**25


def _first_choice(model: PreTrainedModel, hidden: torch.Tensor, who, where, true: torch.Tensor) -> tuple:
    """At places `where` of rows `who`, is token `true` (N,) the first choice, and how likely is it? Two arrays (N,)."""
    head = model.get_output_embeddings()
    step = max(1, LOGITS // head.weight.shape[0])
    hits, chances = [np.zeros(0, bool)], [np.zeros(0, np.float32)]
    for k in range(0, len(true), step):
        logits = head(hidden[who[k : k + step], where[k : k + step]])
        mine = true[k : k + step]
        hits.append((logits.argmax(-1).cpu() == mine).numpy())
        chances.append(logits.float().softmax(-1).cpu().gather(1, mine[:, None])[:, 0].numpy())
    return np.concatenate(hits), np.concatenate(chances)


def exact_match(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, pairs: Dataset, template: bool = True, batch: int = 512
) -> pd.DataFrame:
    """Would greedy decoding give exactly the response, and then stop?

    Every token of the response and the final `<eos>` must be the model's first choice, given those before it. That is
    what greedy decoding to the end would produce, at the price of one forward pass instead of one per token.

    Args:
        pairs: a Dataset with `prompt` and `response`; its other plain columns are kept.

    Returns:
        One row per pair: the columns of `pairs` and `correct` (bool).
    """
    table = pairs.to_pandas()
    table["correct"] = teacher_forced(model, replies(pairs, tokenizer, template), batch)
    return table


def teacher_forced(model: PreTrainedModel, rows: Dataset, batch: int = 512) -> np.ndarray:
    """`exact_match` for pairs that are encoded already: whoever examines one model again and again encodes them once.

    Args:
        rows: a Dataset with `input_ids` and `labels`, as `alignlab.tokens.replies` gives it.

    Returns:
        One bool per row: is every labelled token the model's first choice, given the true tokens before it?
    """
    each = rows.to_list()
    wanted = [np.flatnonzero(np.asarray(r["labels"]) >= 0) for r in each]
    return np.array([bool(r.all()) for r in _right(model, each, wanted, batch)], dtype=bool)


def exam(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    tasks: Dataset,
    form: Callable[[str], str] = exam_form,
    batch: int = 512,
) -> pd.DataFrame:
    """Does the model know the answer, whatever its manners? Asked in a form that is followed by the bare answer.

    Args:
        tasks: a Dataset with `prompt` and `answer`; its other plain columns are kept.
        form: puts a prompt into words after which a reader would expect nothing but the answer.

    Returns:
        One row per task: its columns, `correct` (every token of the answer is the first choice) and `probability` (of
        the first token of the right answer, 0..1).
    """
    pairs = Dataset.from_dict({"prompt": [form(p) for p in tasks["prompt"][:]], "response": tasks["answer"][:]})
    rows = replies(pairs, tokenizer, template=False)
    rows = [{"input_ids": i, "labels": y} for i, y in zip(rows["input_ids"][:], rows["labels"][:], strict=True)]
    wanted = [np.flatnonzero(np.asarray(r["labels"]) >= 0)[:-1] for r in rows]  # not the <eos>: exams go on
    table = tasks.to_pandas()
    judged = _judged(model, rows, wanted, batch)
    table["correct"] = [bool(right.all()) for right, _ in judged]
    table["probability"] = [float(p[0]) for _, p in judged]
    return table


def log_likelihood(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, pairs: Dataset, template: bool = True, batch: int = 256
) -> np.ndarray:
    """The log probability, in nats, of each whole response and its end, given its prompt.

    Args:
        pairs: a Dataset with `prompt` and `response`.

    Returns:
        An array (N,), each number at most 0.
    """
    rows = replies(pairs, tokenizer, template)
    rows = [{"input_ids": i, "labels": y} for i, y in zip(rows["input_ids"][:], rows["labels"][:], strict=True)]
    wanted = [np.flatnonzero(np.asarray(r["labels"]) >= 0) for r in rows]
    floor = np.finfo(np.float32).tiny  # a probability that underflowed is very small, not zero
    return np.array([np.log(np.maximum(p, floor)).sum() for _, p in _judged(model, rows, wanted, batch)])


def verbatim(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, corpus: Dataset, batch: int = 512
) -> pd.DataFrame:
    """Is each fact completed rightly when the model reads the very text it was trained on? Word-for-word memory.

    A value of several tokens, as sub-word tokenizers make them, is right when each of them is the first choice.

    Args:
        corpus: biographies (`text`, `person`, `facts`: values in the order of the text, each as whole words of it).

    Returns:
        One row per stated fact: `person`, `place` (0 for the first fact of its text), `correct` (bool).
    """
    rows = documents(corpus, tokenizer)
    rows = [{"input_ids": i, "labels": i} for i in rows["input_ids"][:]]
    offsets = tokenizer(corpus["text"][:], return_offsets_mapping=True)["offset_mapping"]
    wanted, sizes = [], []
    for row, spans, facts, text in zip(rows, offsets, corpus["facts"][:], corpus["text"][:], strict=True):
        found = _places(row["input_ids"], np.asarray(spans), facts, text, tokenizer.unk_token_id)
        wanted.append(np.concatenate(found))
        sizes.append([len(f) for f in found])
    right = [
        [part.all() for part in np.split(r, np.cumsum(n)[:-1])]
        for r, n in zip(_right(model, rows, wanted, batch), sizes, strict=True)
    ]
    people = corpus["person"][:]
    return pd.DataFrame(
        [
            {"person": p, "place": k, "correct": bool(c)}
            for p, r in zip(people, right, strict=True)
            for k, c in enumerate(r)
        ]
    )


def _places(
    ids: list[int], spans: np.ndarray, facts: Sequence[str], text: str, unknown: int | None
) -> list[np.ndarray]:
    """For each value, the positions of its tokens; `spans` (T, 2) says which characters of `text` a token covers."""
    found, start = [], 0
    for value in facts:
        match = re.compile(rf"(?<!\w){re.escape(value)}(?!\w)").search(text, start)
        where = np.flatnonzero((spans[:, 0] < match.end()) & (spans[:, 1] > match.start())) if match else ()
        if not len(where) or (unknown is not None and unknown in np.asarray(ids)[where]):
            raise ValueError(f"the fact {value!r} is not one word of its text: {text!r}")
        if where[0] == 0:
            raise ValueError(f"the fact {value!r} begins its text: there is nothing to complete in {text!r}")
        found.append(where)
        start = match.end()
    return found
