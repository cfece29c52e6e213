"""What a model says: batched generation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from transformers import GenerationConfig, LogitsProcessorList, PreTrainedModel, PreTrainedTokenizerBase

from . import check
from .tokens import prompt_text


@dataclass(frozen=True)
class Reply:
    """What a model said to one prompt."""

    text: str  # without special tokens
    stopped: bool  # it ended by itself, with `<eos>`; otherwise it was cut off
    tokens: tuple[int, ...]  # the ids that were generated, `<eos>` included


def reply(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, prompts: Sequence[str], **options
) -> list[str]:
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
    logits_processor: LogitsProcessorList | None = None,
) -> list[Reply]:
    """Continue every prompt until `<eos>` or `max_new_tokens`, all prompts of a batch at once.

    Args:
        prompts: what is asked; with `template`, put into the tokenizer's chat template.
        max_new_tokens: leave room for the longest reply, or a long style is scored as a wrong one.
        temperature: 0 is greedy; above it, sampling with `seed`.

    Returns:
        One reply per prompt, in order.

    Raises:
        ValueError: no prompts, or a negative temperature.
    """
    if not prompts:
        raise ValueError("there are no prompts to answer: pass at least one")
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
            enc = tokenizer(texts, add_special_tokens=False, padding=True, padding_side="left", return_tensors="pt")
            enc = {k: v.to(model.device) for k, v in enc.items() if k in ("input_ids", "attention_mask")}
            out = model.generate(**enc, generation_config=config, logits_processor=logits_processor)
            replies += [_reply(ids, tokenizer) for ids in out[:, enc["input_ids"].shape[1] :].tolist()]
    return replies


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
