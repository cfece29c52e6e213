"""What a model knows: questions and texts, teacher-forced. Any `PreTrainedModel` with its tokenizer will do."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd
from datasets import Dataset
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ..models import read
from ..models.tokens import IGNORE, documents, replies
from ..worlds.tasks import exam_form


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
        rows: a Dataset with `input_ids` and `labels`, as `alignlab.models.tokens.replies` gives it.

    Returns:
        One bool per row: is every labelled token the model's first choice, given the true tokens before it?
    """
    judged = read.judge(model, _plain(rows), batch)
    for i, (first, _) in enumerate(judged):
        if not len(first):
            raise ValueError(f"row {i} has no label behind its first token: there is nothing to judge")
    return np.array([bool(first.all()) for first, _ in judged], dtype=bool)


def _plain(rows: Dataset) -> list[dict]:
    return [{"input_ids": i, "labels": y} for i, y in zip(rows["input_ids"][:], rows["labels"][:], strict=True)]


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
    rows = _plain(replies(pairs, tokenizer, template=False, end=False))  # exams go on
    table = tasks.to_pandas()
    judged = read.judge(model, rows, batch)
    table["correct"] = [bool(first.all()) for first, _ in judged]
    table["probability"] = [float(np.exp(log_p[0])) for _, log_p in judged]
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
    rows = _plain(replies(pairs, tokenizer, template))
    return np.array([log_p.sum() for _, log_p in read.judge(model, rows, batch)])


def verbatim(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, corpus: Dataset, batch: int = 512
) -> pd.DataFrame:
    """Is each fact completed rightly when the model reads the very text it was trained on? Word-for-word memory.

    A value of several tokens, as sub-word tokenizers make them, is right when each of them is the first choice.

    Args:
        corpus: biographies (`text`, `person`, `facts`: values in the order of the text, each as whole words of it).

    Returns:
        One row per stated fact: `person`, `place` (0 for the first fact of its text), `correct` (bool).

    Raises:
        ValueError: a fact is not in its text, begins it or has an unknown word; or the tokenizer is not a fast one.
    """
    if not tokenizer.is_fast:
        raise ValueError(
            f"{type(tokenizer).__name__} does not say where in a text a token stands: pass a fast tokenizer"
        )
    texts, rows, found = corpus["text"][:], [], []
    offsets = tokenizer(texts, return_offsets_mapping=True)["offset_mapping"]
    encoded = documents(corpus, tokenizer, end=False)["input_ids"][:]
    for ids, spans, facts, text in zip(encoded, offsets, corpus["facts"][:], texts, strict=True):
        found.append(_places(ids, np.asarray(spans), facts, text, tokenizer.unk_token_id))
        labels = np.full(len(ids), IGNORE)
        for where in found[-1]:
            labels[where] = np.asarray(ids)[where]
        rows.append({"input_ids": ids, "labels": labels})
    judged = read.judge(model, rows, batch)
    return pd.DataFrame(
        [
            {"person": person, "place": k, "correct": bool(right.all())}
            for person, own, (first, _) in zip(corpus["person"][:], found, judged, strict=True)
            for k, right in enumerate(np.split(first, np.cumsum([len(where) for where in own])[:-1]))
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
