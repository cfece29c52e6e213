"""What a model says: batched generation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from transformers import GenerationConfig, LogitsProcessorList, PreTrainedModel, PreTrainedTokenizerBase

from .. import check
from .tokens import prompt_text, spaces


@dataclass(frozen=True)
class Reply:
    """What a model said to one prompt."""

    text: str  # without special tokens
    stopped: bool  # it ended by itself, with an end token; otherwise it was cut off
    tokens: tuple[int, ...]  # the ids that were generated, the end token included


def reply(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, prompts: Sequence[str], **options) -> list[str]:
    """The texts of `generate(model, tokenizer, prompts, **options)`."""
    return [r.text for r in generate(model, tokenizer, prompts, **options)]


@torch.inference_mode()
def generate(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[str],
    *,
    template: bool = True,
    max_new_tokens: int = 32,
    temperature: float = 0.0,
    seed: int = 0,
    batch: int = 256,
    logits_processor: LogitsProcessorList | Callable[[int], LogitsProcessorList] | None = None,
    prefill: Sequence[str] | None = None,
) -> list[Reply]:
    """Continue every prompt until an end token or `max_new_tokens`, all prompts of a batch at once.

    An end token is the tokenizer's `<eos>`, or one that the model's generation config names besides. Temperature, top-p
    and repetition penalty of that config are not followed: they would change the model unasked.

    Args:
        prompts: what is asked; with `template`, put into the tokenizer's chat template.
        max_new_tokens: leave room for the longest reply, or a long style is scored as a wrong one.
        temperature: 0 is greedy; above it, sampling with `seed`.
        logits_processor: changes the logits at every step. One that must know where the reply begins is given as a
            function of that place: the number of tokens in front of the reply, the same for all prompts of a batch.
        prefill: the beginning of each reply, put into the model's mouth ("" for none); not part of what comes back.

    Returns:
        One reply per prompt, in order.

    Raises:
        ValueError: no prompts, an empty one, not one beginning per prompt, or a negative temperature.
    """
    if not prompts:
        raise ValueError("there are no prompts to answer: pass at least one")
    if prefill is not None and len(prefill) != len(prompts):
        raise ValueError(f"there are {len(prefill)} prefills for {len(prompts)} prompts: pass one per prompt")
    temperature = check.number("temperature", temperature, at_least=0)
    ends = end_tokens(model, tokenizer)
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else next(iter(ends), 0)
    config = GenerationConfig(
        max_new_tokens=check.integer("max_new_tokens", max_new_tokens, at_least=1),
        do_sample=temperature > 0,
        temperature=temperature or None,
        top_k=0 if temperature > 0 else None,  # the library's default of 50 would cut the distribution silently
        top_p=1.0,  # what is not said here is taken from the model's own config
        repetition_penalty=1.0,
        pad_token_id=pad,
        eos_token_id=ends or None,
    )
    replies = []
    devices = [model.device] if model.device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(check.torch_seed(seed, "answer.generate"))
        for start in range(0, len(prompts), batch):
            texts = [prompt_text(p, tokenizer, template) for p in prompts[start : start + batch]]
            if prefill is not None:
                parts = zip(texts, spaces(texts, tokenizer, template), prefill[start : start + batch], strict=True)
                texts = [f"{t}{space}{b}" if b else t for t, space, b in parts]
            enc = {k: v.to(model.device) for k, v in _padded(texts, tokenizer, pad).items()}
            width = enc["input_ids"].shape[1]
            changed = logits_processor(width) if _makes_one(logits_processor) else logits_processor
            out = model.generate(**enc, generation_config=config, logits_processor=changed)
            replies += [_reply(ids, tokenizer, ends) for ids in out[:, width:].tolist()]
    return replies


def _makes_one(logits_processor) -> bool:
    # a LogitsProcessorList can be called too, with ids and scores
    return logits_processor is not None and not isinstance(logits_processor, LogitsProcessorList)


def end_tokens(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """The ids that end a reply: `<eos>` of the tokenizer, then those of the model's generation config."""
    own = model.generation_config.eos_token_id if model.generation_config else None
    own = own if isinstance(own, (list, tuple)) else [own]
    return [i for i in dict.fromkeys([tokenizer.eos_token_id, *own]) if i is not None]


def _padded(texts: list[str], tokenizer: PreTrainedTokenizerBase, pad: int) -> dict[str, torch.Tensor]:
    """Ids and mask (B, T), padded on the left, for tokenizers with and without a pad token."""
    rows = tokenizer(texts, add_special_tokens=False)["input_ids"]
    width = max(len(r) for r in rows)
    ids, mask = np.full((len(rows), width), pad, dtype=np.int64), np.zeros((len(rows), width), dtype=np.int64)
    for i, r in enumerate(rows):
        if not r:
            raise ValueError("an empty prompt has no token to go on from: ask something")
        ids[i, width - len(r) :] = r
        mask[i, width - len(r) :] = 1
    return {"input_ids": torch.from_numpy(ids), "attention_mask": torch.from_numpy(mask)}


def _reply(ids: list[int], tokenizer: PreTrainedTokenizerBase, ends: list[int]) -> Reply:
    """What was generated, up to and with the first end token; what follows it is padding."""
    last = next((k for k, i in enumerate(ids) if i in ends), None)
    ids = ids if last is None else ids[: last + 1]
    return Reply(tokenizer.decode(ids, skip_special_tokens=True).strip(), last is not None, tuple(ids))


@torch.inference_mode()
def next_words(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, text: str, top: int = 5
) -> list[tuple[str, float]]:
    """The `top` likeliest next tokens after `text` with their probabilities, likeliest first.

    The tokens are written as they stand in a text: those of a sub-word tokenizer often begin with a space.
    """
    ids = torch.tensor([tokenizer(text)["input_ids"]], dtype=torch.int64, device=model.device)
    if not ids.numel():
        raise ValueError("an empty text has no token to go on from: write something")
    p = model(input_ids=ids).logits[0, -1].float().softmax(-1)
    best = p.topk(check.integer("top", top, at_least=1, at_most=p.numel()))
    words = [tokenizer.decode([i]) for i in best.indices.tolist()]
    return list(zip(words, best.values.tolist(), strict=True))
