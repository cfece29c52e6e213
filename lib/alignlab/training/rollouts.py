"""Rollouts: what a model says when it is asked several times, and how good each of its replies was."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import chain

import numpy as np
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from .. import check
from ..models.answer import sample
from ..models.tokens import IGNORE, collate

EPSILON = 1e-4  # in the division by a group's spread: where all rewards are equal, nothing is to be learned


def advantages(rewards: Sequence | np.ndarray, normalise: bool = True) -> np.ndarray:
    """How much better each sample was than its group, (P, k): the baseline is the group's mean (Shao et al., 2024).

    Args:
        rewards: (P, k), k samples for each of P prompts.
        normalise: divide by the group's standard deviation. Prompts on which the samples differ little then weigh as
            much as others (Liu et al., 2025, leave it out).

    Raises:
        ValueError: not two dimensions, a group of one sample, or a reward that is not finite.
    """
    rewards = np.asarray(rewards, dtype=np.float64)
    if rewards.ndim != 2 or rewards.shape[1] < 2:
        raise ValueError(
            f"the rewards have the shape {rewards.shape}: pass (prompts, samples) with at least 2 samples for each "
            "prompt, since a sample is compared with the others of its group"
        )
    if not np.isfinite(rewards).all():
        p, k = np.argwhere(~np.isfinite(rewards))[0]
        raise ValueError(f"the reward of sample {k} for prompt {p} is {rewards[p, k]}: every reward must be finite")
    above = rewards - rewards.mean(1, keepdims=True)
    return above / (rewards.std(1, ddof=1, keepdims=True) + EPSILON) if normalise else above


@torch.no_grad()
def rollout(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[str],
    samples: int,
    reward: Callable[[dict], Sequence[float]],
    seed: int,
    *,
    template: bool = True,
    max_new_tokens: int = 32,
    normalise: bool = True,
) -> dict:
    """Ask every prompt `samples` times, at temperature 1, and judge the replies: a batch for `losses.policy_gradient`.

    The temperature is not to be chosen: the loss is right for samples of the very distribution that is trained.

    Args:
        reward: from this batch, without its last two columns, to one number per row. A rule reads `prompt` and `reply`;
            a `RewardModel` is `lambda said: judge(said["input_ids"], said["labels"])`.
        seed: another one at every step, or the model is always given the same dice.
        normalise: see `advantages`.

    Returns:
        With B = len(prompts) * samples rows, the samples of a prompt one after the other: `prompt` and `reply`, lists
        of texts; and where the model is, `input_ids` and `labels` (B, T), labels on what was sampled, the end token
        included; `stopped` (B,), whether a reply ended by itself; `reward` and `advantage` (B,).

    Raises:
        ValueError: fewer than 2 samples, or a reward that is not finite or not one per sample.
    """
    samples = check.integer("samples", samples, at_least=2)
    options = {"template": template, "max_new_tokens": max_new_tokens}
    replies = list(chain.from_iterable(sample(model, tokenizer, prompts, samples, seed=seed, **options)))
    rows = [
        {"input_ids": [*r.prompt, *r.tokens], "labels": [*[IGNORE] * len(r.prompt), *r.tokens], "stopped": r.stopped}
        for r in replies
    ]
    said = {"prompt": [p for p in prompts for _ in range(samples)], "reply": [r.text for r in replies]}
    said |= {k: torch.from_numpy(v).to(model.device) for k, v in collate(rows, 0).items()}
    rewards = torch.as_tensor(reward(said), dtype=torch.float32).cpu()
    if rewards.shape != (len(replies),):
        raise ValueError(f"the rewards have the shape {tuple(rewards.shape)} for {len(replies)} samples: one for each")
    better = torch.from_numpy(advantages(rewards.reshape(-1, samples).numpy(), normalise)).float().flatten()
    return said | {"reward": rewards.to(model.device), "advantage": better.to(model.device)}
