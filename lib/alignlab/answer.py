"""What a model says: batched generation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from transformers import GenerationConfig, LogitsProcessorList, PreTrainedModel, PreTrainedTokenizerBase

from . import check
from .tokens import _behind, prompt_text


@dataclass(frozen=True)
class Reply:
    """What a model said to one prompt."""

    text: str  # without special tokens
    stopped: bool  # it ended by itself, with `<eos>`; otherwise it was cut off
    tokens: tuple[int, ...]  # the ids that were generated, `<eos>` included


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
    begun: Sequence[str] | None = None,
) -> list[Reply]:
    """Continue every prompt until `<eos>` or `max_new_tokens`, all prompts of a batch at once.

    Args:
        prompts: what is asked; with `template`, put into the tokenizer's chat template.
        max_new_tokens: leave room for the longest reply, or a long style is scored as a wrong one.
        temperature: 0 is greedy; above it, sampling with `seed`.
        logits_processor: changes the logits at every step. One that must know where the reply begins is given as a
            function of that place: the number of tokens in front of the reply, the same for all prompts of a batch.
        begun: the beginning of each reply, put into the model's mouth ("" for none); it is not part of what comes back.

    Returns:
        One reply per prompt, in order.

    Raises:
        ValueError: no prompts, not one beginning per prompt, or a negative temperature.
    """
    if not prompts:
        raise ValueError("there are no prompts to answer: pass at least one")
    if begun is not None and len(begun) != len(prompts):
        raise ValueError(f"there are {len(begun)} beginnings of replies to {len(prompts)} prompts: pass one per prompt")
    temperature = check.number("temperature", temperature, at_least=0)
    config = GenerationConfig(
        max_new_tokens=check.integer("max_new_tokens", max_new_tokens, at_least=1),
        do_sample=temperature > 0,
        temperature=temperature or None,
        top_k=0 if temperature > 0 else None,  # the library's default of 50 would cut the distribution silently
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    replies = []
    devices = [model.device] if model.device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        for start in range(0, len(prompts), batch):
            texts = [prompt_text(p, tokenizer, template) for p in prompts[start : start + batch]]
            if begun is not None:
                texts = [t + _behind(b, tokenizer) if b else t for t, b in zip(texts, begun[start:], strict=False)]
            enc = tokenizer(texts, add_special_tokens=False, padding=True, padding_side="left", return_tensors="pt")
            enc = {k: v.to(model.device) for k, v in enc.items() if k in ("input_ids", "attention_mask")}
            width = enc["input_ids"].shape[1]
            changed = logits_processor(width) if _makes_one(logits_processor) else logits_processor
            out = model.generate(**enc, generation_config=config, logits_processor=changed)
            replies += [_reply(ids, tokenizer) for ids in out[:, width:].tolist()]
    return replies


def _makes_one(logits_processor) -> bool:
    # a LogitsProcessorList can be called too, with ids and scores
    return logits_processor is not None and not isinstance(logits_processor, LogitsProcessorList)


def _reply(ids: list[int], tokenizer: PreTrainedTokenizerBase) -> Reply:
    """What was generated, up to and with the first `<eos>`; what follows it is padding."""
    stopped = tokenizer.eos_token_id in ids
    if stopped:
        ids = ids[: ids.index(tokenizer.eos_token_id) + 1]
    return Reply(tokenizer.decode(ids, skip_special_tokens=True).strip(), stopped, tuple(ids))


@torch.inference_mode()
def next_words(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, text: str, top: int = 5
) -> list[tuple[str, float]]:
    """The `top` likeliest next tokens after `text` with their probabilities, likeliest first."""
    ids = tokenizer(text, return_tensors="pt")["input_ids"].to(model.device)
    p = model(input_ids=ids).logits[0, -1].float().softmax(-1)
    best = p.topk(check.integer("top", top, at_least=1, at_most=p.numel()))
    words = tokenizer.convert_ids_to_tokens(best.indices.tolist())
    return list(zip(words, best.values.tolist(), strict=True))
