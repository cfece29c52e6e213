"""What a model says: batched generation, greedy or sampled."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from transformers import (
    DynamicCache,
    GenerationConfig,
    LogitsProcessor,
    LogitsProcessorList,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.cache_utils import DynamicLayer

from .. import check
from . import read
from .tokens import prompt_ids


@dataclass(frozen=True)
class Reply:
    """What a model said to one prompt. `prompt` and `tokens` together are the row that was read and written."""

    text: str  # without special tokens
    stopped: bool  # it ended by itself, with an end token; otherwise it was cut off
    tokens: tuple[int, ...]  # the ids that were generated, the end token included
    prompt: tuple[int, ...] = ()  # the ids in front of them: template and prefill included, padding not


def reply(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, prompts: Sequence[str], **options) -> list[str]:
    """The texts of `generate(model, tokenizer, prompts, **options)`."""
    return [r.text for r in generate(model, tokenizer, prompts, **options)]


def generate(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[str],
    *,
    template: bool = True,
    max_new_tokens: int = 32,
    temperature: float = 0.0,
    seed: int | None = None,
    batch: int = 256,
    logits_processor: LogitsProcessorList | Callable[[int], LogitsProcessorList] | None = None,
    prefill: Sequence[str] | None = None,
) -> list[Reply]:
    """Continue every prompt until an end token or `max_new_tokens`, all prompts of a batch at once.

    An end token is the tokenizer's `<eos>`, or one that the model's generation config names besides. Nothing else of
    that config is followed: penalties, beams, forbidden or forced tokens would change the model unasked.

    Args:
        prompts: what is asked; with `template`, put into the tokenizer's chat template.
        max_new_tokens: leave room for the longest reply, or a long style is scored as a wrong one.
        temperature: 0 is greedy; above it, sampling.
        seed: where the sampling draws from; required there. Every prompt draws from a stream of its own, named by its
            place in `prompts`: what stands beside it in a batch, and the size of the batch, change nothing.
        batch: continuations at once.
        logits_processor: changes the logits at every step. One that must know where the reply begins is given as a
            function of that place: the number of tokens in front of the reply, the same for all prompts of a batch.
        prefill: the beginning of each reply, put into the model's mouth ("" for none); not part of what comes back.

    Returns:
        One reply per prompt, in order.

    Raises:
        ValueError: no prompts, an empty one, not one beginning per prompt, a negative temperature, or sampling without
            a seed.
    """
    options = {"template": template, "max_new_tokens": max_new_tokens, "batch": batch, "prefill": prefill}
    said = _continue(model, tokenizer, prompts, 1, temperature, seed, logits_processor, **options)
    return [r for [r] in said]


def sample(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[str],
    k: int,
    *,
    seed: int,
    temperature: float = 1.0,
    **options,
) -> list[list[Reply]]:
    """Draw `k` replies to every prompt. Each prompt is read once, however many replies follow it.

    Args:
        seed: every reply has a stream of its own, named by its prompt's place and its number: with the same seed, the
            first of `k` replies is that of `generate`, and more of them change none.
        temperature: above 0.
        options: what else `generate` takes; `batch` counts the replies.

    Returns:
        For each prompt, in order, a list of its `k` replies.

    Raises:
        ValueError: as `generate`; a temperature of 0, which would give one reply `k` times.
    """
    temperature = check.number("temperature", temperature, above=0)
    return _continue(model, tokenizer, prompts, check.integer("k", k, at_least=1), temperature, seed, **options)


@torch.inference_mode()
def _continue(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[str],
    k: int,
    temperature: float,
    seed: int | None,
    logits_processor: LogitsProcessorList | Callable[[int], LogitsProcessorList] | None = None,
    template: bool = True,
    max_new_tokens: int = 32,
    batch: int = 256,
    prefill: Sequence[str] | None = None,
) -> list[list[Reply]]:
    if not len(prompts):
        raise ValueError("there are no prompts to answer: pass at least one")
    if prefill is not None and len(prefill) != len(prompts):
        raise ValueError(f"there are {len(prefill)} prefills for {len(prompts)} prompts: pass one per prompt")
    temperature = check.number("temperature", temperature, at_least=0)
    if temperature and seed is None:
        raise ValueError(f"sampling at temperature {temperature} needs a seed: pass one, and another for other draws")
    room = check.integer("max_new_tokens", max_new_tokens, at_least=1)
    step = max(1, check.integer("batch", batch, at_least=1) // k)
    heads = prompt_ids(prompts, tokenizer, template, prefill)
    if not all(heads):
        raise ValueError("an empty prompt has no token to go on from: ask something")
    ends = end_tokens(model, tokenizer)
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else next(iter(ends), 0)
    config = GenerationConfig(max_new_tokens=room, do_sample=False)
    if ends:  # otherwise no reply ends before the others, and there is nothing to pad
        config.eos_token_id, config.pad_token_id = ends, pad
    said = []
    with read.all_cores(model), _without_habits(model):
        for start in range(0, len(heads), step):
            part = heads[start : start + step]
            ids, mask = (t.to(model.device) for t in _padded(part, pad))  # (B, T)
            made = logits_processor(ids.shape[1]) if _makes_one(logits_processor) else logits_processor
            made = LogitsProcessorList(made or [])
            if temperature:
                streams = [check.rng(seed, "answer.generate", start + i, j) for i in range(len(part)) for j in range(k)]
                made.append(_Draw(temperature, np.stack([s.random(room) for s in streams]), ids.shape[1]))
            out = _each(model, ids, mask, k, config, made)[:, ids.shape[1] :].tolist()  # (B * k, new)
            for i, head in enumerate(part):
                said.append([_reply(new, head, tokenizer, ends) for new in out[i * k : (i + 1) * k]])
    return said


@contextmanager
def _without_habits(model: PreTrainedModel) -> Iterator[None]:
    """Inside the block the model has an empty generation config, and no dropout."""
    # transformers takes whatever a config leaves open from the model's own: a config to pass would not be enough.
    own = model.generation_config
    model.generation_config = GenerationConfig()
    try:
        with read.without_dropout(model):
            yield
    finally:
        model.generation_config = own


class _Draw(LogitsProcessor):
    """Leave one token to each row: the one on which the row's own random number falls."""

    def __init__(self, temperature: float, numbers: np.ndarray, start: int):
        self.temperature, self.numbers, self.start = temperature, torch.from_numpy(numbers), start  # (B, steps), 0..1

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor) -> torch.FloatTensor:
        """input_ids (B, T), scores (B, V)."""
        number = self.numbers[:, input_ids.shape[1] - self.start, None].to(scores.device)  # (B, 1)
        up_to = (scores.double() / self.temperature).softmax(-1).cumsum(-1)  # (B, V): double keeps rare tokens apart
        drawn = torch.searchsorted(up_to, number * up_to[:, -1:], right=True).clamp_(max=scores.shape[1] - 1)
        return torch.full_like(scores, -torch.inf).scatter_(1, drawn, 0.0)


def _each(
    model: PreTrainedModel,
    ids: torch.Tensor,
    mask: torch.Tensor,
    k: int,
    config: GenerationConfig,
    made: LogitsProcessorList,
) -> torch.Tensor:
    """Each row of `ids` (B, T) continued `k` times: (B * k, T + new)."""
    more = {}
    if k > 1 and ids.shape[1] > 1:
        # All but the last token are read once; a token to go on from must be left.
        once = GenerationConfig(max_new_tokens=1, do_sample=False, return_dict_in_generate=True)
        out = model.generate(input_ids=ids[:, :-1], attention_mask=mask[:, :-1], generation_config=once)
        cache = out.get("past_key_values")
        # Some models keep a state in place of keys and values: they read each prompt again.
        if isinstance(cache, DynamicCache) and all(isinstance(layer, DynamicLayer) for layer in cache.layers):
            cache.batch_repeat_interleave(k)
            more = {"past_key_values": cache}
    ids, mask = ids.repeat_interleave(k, 0), mask.repeat_interleave(k, 0)
    more |= {"generation_config": config, "logits_processor": made}
    return model.generate(input_ids=ids, attention_mask=mask, **more)


def _makes_one(logits_processor) -> bool:
    # a LogitsProcessorList can be called too, with ids and scores
    return logits_processor is not None and not isinstance(logits_processor, LogitsProcessorList)


def end_tokens(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """The ids that end a reply: `<eos>` of the tokenizer, then those of the model's generation config."""
    own = model.generation_config.eos_token_id if model.generation_config else None
    own = own if isinstance(own, (list, tuple)) else [own]
    return [i for i in dict.fromkeys([tokenizer.eos_token_id, *own]) if i is not None]


def _padded(rows: list[list[int]], pad: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Ids and mask (B, T), padded on the left: every row ends where its reply begins."""
    width = max(len(r) for r in rows)
    ids = torch.tensor([[pad] * (width - len(r)) + r for r in rows])
    return ids, torch.tensor([[0] * (width - len(r)) + [1] * len(r) for r in rows])


def _reply(ids: list[int], prompt: list[int], tokenizer: PreTrainedTokenizerBase, ends: list[int]) -> Reply:
    """What was generated, up to and with the first end token; what follows it is padding."""
    last = next((k for k, i in enumerate(ids) if i in ends), None)
    ids = ids if last is None else ids[: last + 1]
    text = tokenizer.decode(ids, skip_special_tokens=True).strip()
    return Reply(text, last is not None, tuple(ids), tuple(prompt))


@torch.inference_mode()
def next_words(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, text: str, top: int = 5
) -> list[tuple[str, float]]:
    """The `top` likeliest next tokens after `text` with their probabilities, likeliest first.

    The tokens are written as they stand in a text: those of a sub-word tokenizer often begin with a space.
    """
    [row] = prompt_ids([text], tokenizer, template=False)
    if not row:
        raise ValueError("an empty text has no token to go on from: write something")
    ids = torch.tensor([row], device=model.device)  # (1, T)
    at = torch.arange(len(row), device=model.device)[None] == len(row) - 1
    p = read.logits(model, ids, at)[0].softmax(-1)  # (V,)
    best = p.topk(check.integer("top", top, at_least=1, at_most=p.numel()))
    words = [tokenizer.decode([i]) for i in best.indices.tolist()]
    return list(zip(words, best.values.tolist(), strict=True))
