"""What an answer is worth. Every function takes any `PreTrainedModel` and its tokenizer, and draws nothing."""

from __future__ import annotations

import numpy as np
import pandas as pd
import torch
from datasets import Dataset
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from .tokens import collate, documents, replies


@torch.inference_mode()
def _right(model: PreTrainedModel, rows: list[dict], wanted: list[np.ndarray], batch: int) -> list[np.ndarray]:
    """For each row, at the wanted positions: is the token the model's first choice, given the true tokens before it?"""
    order = sorted(range(len(rows)), key=lambda i: len(rows[i]["input_ids"]))  # alike lengths together: little padding
    right: list = [None] * len(rows)
    for start in range(0, len(order), batch):
        chunk = order[start : start + batch]
        ids = torch.from_numpy(collate([rows[i] for i in chunk], model.config.pad_token_id or 0)["input_ids"])
        hidden = model.base_model(input_ids=ids.to(model.device), use_cache=False).last_hidden_state
        who = np.repeat(np.arange(len(chunk)), [len(wanted[i]) for i in chunk])
        where = np.concatenate([wanted[i] for i in chunk])
        logits = model.get_output_embeddings()(hidden[who, where - 1])
        hit = (logits.argmax(-1).cpu() == ids[who, where]).numpy()
        for i, part in zip(chunk, np.split(hit, np.cumsum([len(wanted[i]) for i in chunk])[:-1]), strict=True):
            right[i] = part
    return right


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
    rows = replies(pairs, tokenizer, template)
    rows = [{"input_ids": i, "labels": y} for i, y in zip(rows["input_ids"], rows["labels"], strict=True)]
    wanted = [np.flatnonzero(np.asarray(r["labels"]) >= 0) for r in rows]
    table = pairs.to_pandas()
    table["correct"] = [bool(r.all()) for r in _right(model, rows, wanted, batch)]
    return table


def recall(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, corpus: Dataset, batch: int = 512
) -> pd.DataFrame:
    """Is each fact completed rightly when the model reads the very text it was trained on? Word-for-word memory.

    Args:
        corpus: biographies (`text`, `person`, `facts`: one-word values in the order of the text).

    Returns:
        One row per stated fact: `person`, `place` (0 for the first fact of its text), `correct` (bool).
    """
    rows = documents(corpus, tokenizer)
    rows = [{"input_ids": i, "labels": i} for i in rows["input_ids"]]
    wanted = []
    for row, facts, text in zip(rows, corpus["facts"], corpus["text"], strict=True):
        position, found = 0, []
        for value in facts:
            token = tokenizer.convert_tokens_to_ids(value)
            if token == tokenizer.unk_token_id or token not in row["input_ids"][position + 1 :]:
                raise ValueError(f"the fact {value!r} is not one word of its text: {text!r}")
            position = row["input_ids"].index(token, position + 1)
            found.append(position)
        wanted.append(np.asarray(found))
    right = _right(model, rows, wanted, batch)
    people = list(corpus["person"])
    return pd.DataFrame(
        [
            {"person": p, "place": k, "correct": bool(c)}
            for p, r in zip(people, right, strict=True)
            for k, c in enumerate(r)
        ]
    )
