"""The one door to the logits: what a model expects next at marked places of texts that it reads.

Everything that measures or trains goes through here. The model itself is asked for its logits, so whatever it does to
them (a scale, a soft cap, a bias) is in them, with every family of causal models.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from joblib import cpu_count
from transformers import PreTrainedModel

from .tokens import IGNORE

LARGE = 20_000_000  # parameters: from here on a second thread is worth its waiting


@contextmanager
def all_cores(model: torch.nn.Module) -> Iterator[None]:
    """Inside the block torch computes with all cores if `model` is a large one, and afterwards as before.

    A chapter computes with one thread, which suits its tiny models: for them threads mostly wait for each other. Blocks
    may be nested, and left by an exception.
    """
    before = torch.get_num_threads()
    if sum(p.numel() for p in model.parameters()) < LARGE or before == cpu_count():
        yield
        return
    torch.set_num_threads(cpu_count())
    try:
        yield
    finally:
        torch.set_num_threads(before)


def logits(model: PreTrainedModel, input_ids: torch.Tensor, at: torch.Tensor) -> torch.Tensor:
    """What `model` expects after each marked token, in float32, with gradient where that is switched on.

    Args:
        input_ids: (B, T), padded on the right if at all: a causal model does not look there.
        at: (B, T) bool: after which tokens to ask.

    Returns:
        (N, V) for the N marked places, row by row.
    """
    columns = at.any(0).nonzero()[:, 0]  # (K,): the head is applied only where some row asks
    with all_cores(model):
        out = model(input_ids=input_ids, use_cache=False, logits_to_keep=columns).logits  # (B, K, V)
    return out[at[:, columns]].float()


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
