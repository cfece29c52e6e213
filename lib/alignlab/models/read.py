"""The one door to the logits: what a model expects next at marked places of texts that it reads.

Everything that measures or trains goes through here. The model itself is asked for its logits, so whatever it does to
them (a scale, a soft cap, a bias) is in them, with every family of causal models in transformers. A model that looks
ahead is refused: it has read the token that it is asked to expect.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from inspect import signature
from weakref import WeakSet

import numpy as np
import torch
from joblib import cpu_count
from transformers import PreTrainedModel

from .tokens import IGNORE, collate

LARGE = 20_000_000  # parameters: from here on a second thread is worth its waiting
# Logits that a reader of many rows has a model make at once: 128 MB in float32. Unbounded, 64 replies of 44 tokens with
# a real vocabulary of 150,000 take two gigabytes, and as much again for each thing computed from them.
MOST = 2**25
PART = 2**22  # logits that it hands on at once: in float64 32 MB


@contextmanager
def all_cores(model: torch.nn.Module) -> Iterator[None]:
    """Inside the block torch computes with all cores if `model` is a large one, and afterwards as before.

    A chapter computes with one thread, which suits its tiny models: for them threads mostly wait for each other. Blocks
    may be nested, and left by an exception.
    """
    before = torch.get_num_threads()
    if sum(p.numel() for p in model.parameters()) < LARGE:
        yield
        return
    torch.set_num_threads(cpu_count())
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def without_dropout(model: torch.nn.Module) -> Iterator[None]:
    """Inside the block the model is in evaluation mode; then each part is in its own mode again: one may be frozen."""
    modes = [(m, m.training) for m in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


def logits(model: PreTrainedModel, input_ids: torch.Tensor, at: torch.Tensor) -> torch.Tensor:
    """What `model` expects after each marked token, in float32, with gradient where that is switched on.

    Args:
        input_ids: (B, T), padded on the right if at all: a causal model does not look there.
        at: (B, T) bool: after which tokens to ask.

    Returns:
        (N, V) for the N marked places, row by row.

    Raises:
        ValueError: the model looks ahead, or gives no logits.
    """
    _refuse_if_it_looks_ahead(model)
    columns = at.any(0).nonzero()[:, 0]  # (K,): the head is applied only where some row asks
    out = _logits_at(model, input_ids, columns)  # (B, K, V)
    at = at[:, columns]
    return (out.flatten(0, 1) if at.all() else out[at]).float()


def log_probs(model: PreTrainedModel, input_ids: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """The log-probability, in nats, of every labelled token given those before it: (B, T), 0 where there is no label.

    Args:
        input_ids, labels: (B, T); a label is the token itself, or `IGNORE`. The first token of a row cannot have one.
    """
    target = labels[:, 1:]
    keep = target != IGNORE  # (B, T-1)
    found = logits(model, input_ids[:, :-1], keep).log_softmax(-1)  # (N, V)
    out = torch.zeros(labels.shape, dtype=found.dtype, device=found.device)
    out[:, 1:][keep] = found.gather(-1, target[keep][:, None])[:, 0]
    return out


def hidden(model: PreTrainedModel, input_ids: torch.Tensor, layer: int = -1) -> torch.Tensor:
    """The hidden states (B, T, C) of one layer: 0 is the embeddings, -1 what the output layer is applied to.

    Args:
        input_ids: (B, T), padded on the right if at all.

    Raises:
        ValueError: the model looks ahead, has no such layer, or does not show its hidden states.
    """
    _refuse_if_it_looks_ahead(model)
    states = getattr(_call(model, input_ids, _some(model, 1), output_hidden_states=True), "hidden_states", None)
    if not states or states[-1].ndim != 3:
        raise ValueError(f"{type(model).__name__} shows no hidden states (B, T, C): take another family")
    if not -len(states) <= layer < len(states):
        raise ValueError(f"layer is {layer}, but {type(model).__name__} has the states 0 to {len(states) - 1}, or -1")
    return states[layer]


def judge(model: PreTrainedModel, rows: Sequence[dict], batch: int = 256) -> list[tuple[np.ndarray, np.ndarray]]:
    """For every labelled token of each row: is it the model's first choice, and what is its log-probability?

    Args:
        rows: each with `input_ids` and `labels` as long, lists of ids; a label is the token itself, or `IGNORE`.

    Returns:
        For each row two arrays as long as it has labels: bool, and float64 in nats.
    """
    counts = [len(_labelled(r)) for r in rows]
    first, log_p = np.zeros(sum(counts), dtype=bool), np.zeros(sum(counts))
    with all_cores(model):
        for n, true, found in each((model, rows), batch=batch):
            first[n] = (found.argmax(-1) == true).cpu().numpy()
            log_p[n] = found.double().log_softmax(-1).gather(-1, true[:, None])[:, 0].cpu().numpy()
    cuts = np.cumsum(counts)[:-1]
    return list(zip(np.split(first, cuts), np.split(log_p, cuts), strict=True)) if counts else []


@torch.inference_mode()
def each(*readings: tuple[PreTrainedModel, Sequence[dict]], batch: int = 256) -> Iterator[tuple]:
    """What one model, or several side by side, expect at every labelled token of many rows, without gradient and
    without dropout.

    Rows of alike lengths are read together. However many there are and however large the vocabulary, a model makes at
    most `MOST` logits at a time; one whose family cannot leave any out makes those of one row at least.

    Args:
        readings: pairs of a model and its rows, as `judge` takes them. With several models the rows of each may differ
            in all but their labelled tokens: the same words after different prompts.
        batch: the most rows that are read at once.

    Yields:
        (n, true, logits of the first model, ...): the numbers `n` (N,) of some labelled tokens, counted through all
        rows in their order; the tokens themselves (N,); each model's logits (N, V) there, in float32.

    Raises:
        ValueError: the models' rows have not the same labelled tokens.
    """
    places = [[_labelled(r) for r in rows] for _, rows in readings]  # of each model, of each row
    tokens = [[np.asarray(r["labels"])[p] for r, p in zip(rows, own, strict=True)]
              for (_, rows), own in zip(readings, places, strict=True)]  # fmt: skip
    for other in tokens[1:]:
        if len(other) != len(tokens[0]) or not all(map(np.array_equal, other, tokens[0])):
            raise ValueError("the models' rows have not the same labelled tokens: only the prompts may differ")
    starts = np.cumsum([0, *map(len, tokens[0])])
    for group in _groups(readings, places, batch):
        n = np.concatenate([np.arange(starts[i] + a, starts[i] + b) for i, a, b in group])
        true = torch.from_numpy(np.concatenate([tokens[0][i][a:b] for i, a, b in group]))
        found = []
        for (model, rows), own in zip(readings, places, strict=True):
            # Padded with a token of the rows: any will do where nobody looks, and not every config names one.
            short = [{"input_ids": rows[i]["input_ids"][: own[i][b - 1]], "labels": []} for i, _, b in group]
            ids = torch.from_numpy(collate(short, short[0]["input_ids"][0])["input_ids"])  # (B, T)
            at = torch.zeros(ids.shape, dtype=torch.bool)
            for k, (i, a, b) in enumerate(group):
                at[k, own[i][a:b] - 1] = True
            with without_dropout(model):
                found.append(logits(model, ids.to(model.device), at.to(model.device)))  # (N, V)
        step = max(1, PART // max(f.shape[-1] for f in found))
        for k in range(0, len(n), step):
            yield n[k : k + step], true[k : k + step].to(found[0].device), *(f[k : k + step] for f in found)


def _labelled(row: dict) -> np.ndarray:
    """The positions of the labelled tokens; the first of a row is never asked for: nothing stands before it."""
    return np.flatnonzero(np.asarray(row["labels"])[1:] != IGNORE) + 1


def _groups(readings: Sequence[tuple], places: list[list[np.ndarray]], batch: int) -> Iterator[list[tuple]]:
    """What is read together: lists of (row, from its a-th label, to before its b-th)."""
    sizes = [vocabulary(model) for model, _ in readings]
    most = max(1, MOST // max(sizes))
    order = sorted(range(len(places[0])), key=lambda i: max(len(rows[i]["input_ids"]) for _, rows in readings))
    group: list[tuple] = []
    asked: list[set] = [set() for _ in readings]  # of each model, the columns where some row of the group asks
    for i in order:
        for a in range(0, len(places[0][i]), most):
            b = min(a + most, len(places[0][i]))
            own = [
                set(p[i][a:b]) if _keeps(model) else set(range(1, p[i][b - 1] + 1))
                for (model, _), p in zip(readings, places, strict=True)
            ]
            wider = [x | y for x, y in zip(asked, own, strict=True)]
            full = any((len(group) + 1) * len(w) * v > MOST for w, v in zip(wider, sizes, strict=True))
            if group and (full or len(group) >= batch):
                yield group
                group, wider = [], own
            group, asked = [*group, (i, a, b)], wider
    if group:
        yield group


def vocabulary(model: PreTrainedModel) -> int:
    """The number V of tokens that the model has a logit for."""
    return model.config.get_text_config(decoder=True).vocab_size


# ---- asking a model of any family


@lru_cache
def _named(forward: Callable) -> frozenset[str]:
    return frozenset(signature(forward).parameters)


def _keeps(model: PreTrainedModel) -> bool:
    return "logits_to_keep" in _named(type(model).forward)


def _some(model: PreTrainedModel, columns: torch.Tensor | int) -> dict:
    return {"logits_to_keep": columns} if _keeps(model) else {}


def _call(model: PreTrainedModel, input_ids: torch.Tensor, some: dict, **options):
    if "use_cache" in _named(type(model).forward):
        options["use_cache"] = False
    with all_cores(model):
        return model(input_ids=input_ids, **some, **options)


def _logits_at(model: PreTrainedModel, input_ids: torch.Tensor, columns: torch.Tensor) -> torch.Tensor:
    """(B, K, V): what the model expects after the tokens of the columns (K,)."""
    all_of_them = len(columns) == input_ids.shape[1]
    out = _call(model, input_ids, {} if all_of_them else _some(model, columns))
    found = out[0] if isinstance(out, tuple) else getattr(out, "logits", None)  # config.return_dict may be False
    if found is None or found.ndim != 3:
        raise ValueError(f"{type(model).__name__} gives no logits of next tokens: load it with AutoModelForCausalLM")
    return found if all_of_them or _keeps(model) else found[:, columns]


_seen_causal: WeakSet = WeakSet()  # asked once of each model


def _refuse_if_it_looks_ahead(model: PreTrainedModel) -> None:
    """Two texts that differ in their last token alone: does the model expect another thing before it?

    The models are asked and not their configs, of which each family has its own way, or none, to say it.
    """
    if model in _seen_causal:
        return
    name = type(model).__name__
    remedy = "pass a causal language model (for a BERT or XLM, one whose config has is_decoder=True, or causal=True)"
    if model.config.is_encoder_decoder:
        raise ValueError(f"{name} has an encoder, which reads another text than the one continued: {remedy}")
    v = vocabulary(model)
    # From all over the vocabulary: the first ids are often tokens that were never trained, and all alike.
    ids = torch.tensor([[1, 2, 3, 4, 5, 6], [1, 2, 3, 4, 5, 7]], device=model.device) * v // 8  # (2, T)
    columns = torch.arange(ids.shape[1], device=model.device)
    with without_dropout(model), torch.no_grad(), torch.random.fork_rng(devices=[]):
        # One by one: side by side two equal texts differ in their last bits, the more so with huge activations.
        found = torch.cat([_logits_at(model, row[None], columns) for row in ids]).float()  # (2, T, V)
    change = (found[0] - found[1]).abs().amax(-1)  # (T,)
    # Causal families were seen below 2e-6 of the last change, and those that look ahead above 2e-3, untrained.
    if change[:-1].max() > max(1e-4 * change[-1], 8 * torch.finfo(model.dtype).eps * found.abs().max()):
        raise ValueError(f"{name} looks ahead, at the tokens that it is asked to expect: {remedy}")
    _seen_causal.add(model)
