"""Pretraining and fine-tuning steps over `datasets`: a bare loop, Muon in float32.

What was measured before choosing (two CPU cores; `make bench` repeats it side by side):
  * a bare loop and `transformers.Trainer` reach the same tokens per second at these sizes; the bare loop is kept
    because a reader can see the whole of it, and because it draws nothing from global random state;
  * Muon with its Newton-Schulz steps in float32 reaches a given loss in about 0.4 times the steps of AdamW and costs
    about a quarter more per step. `torch.optim.Muon` does those steps in bfloat16, which these CPUs emulate: 7x slower.
    On 160 biographies in five wordings, read 40 times, Muon's model answered 0.59 of the questions on held-out people
    and AdamW's 0.09 at the better of two rates (one seed, weight decay not matched);
  * a constant rate in pretraining: with a rate that decays to zero, models had memorised as well but could answer less
    (0.27 to 0.54 against 0.62 to 0.84 over several settings, one seed). The fine-tuning that follows decays for both;
  * weight decay on the hidden matrices: at 0 the effect of a few well-described people on the others is small, at 1
    even one wording becomes answerable in part. Chapters say which value they use.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from datasets import Dataset
from torch.nn import functional as F
from transformers import PreTrainedModel

from .. import check
from ..models.tokens import IGNORE, collate
from .muon import Muon


@dataclass(frozen=True)
class Recipe:
    """How to train. The defaults are for pretraining a tiny model; `FINETUNE` is for fine-tuning one."""

    batch: int = 32  # rows per step; more steps beat larger ones here, and below 16 the optimiser's cost shows
    optimizer: str = "muon"  # "muon": hidden matrices by Muon, the rest by AdamW; "adamw": everything by AdamW
    lr: float = 0.01  # of the hidden matrices; for Muon 0.05 was seen to memorise badly
    lr_rest: float = 0.01  # of embeddings and norms, when Muon does the rest; at 0.0025 names are learned too slowly
    decay_from: float = 1.0  # the share of the steps after which the rate falls linearly to 0; 1.0: never
    warmup: int = 10  # steps of linear warm-up
    clip: float = 1.0  # gradient norm above which gradients are scaled down
    weight_decay: float = 0.0  # decoupled, of the hidden matrices (of everything with "adamw")

    def __post_init__(self):
        check.integer("batch", self.batch, at_least=1)
        check.one_of("optimizer", self.optimizer, ("muon", "adamw"))
        check.integer("warmup", self.warmup, at_least=0)
        for name in ("lr", "lr_rest", "clip"):
            check.number(name, getattr(self, name), above=0)
        check.number("decay_from", self.decay_from, at_least=0)
        check.number("weight_decay", self.weight_decay, at_least=0)

    def but(self, **changes) -> Recipe:
        """The same recipe with some fields changed."""
        return replace(self, **changes)


PRETRAIN = Recipe()
FINETUNE = Recipe(optimizer="adamw", lr=1e-3, decay_from=0.0)


def _optimizers(model: PreTrainedModel, recipe: Recipe) -> list[torch.optim.Optimizer]:
    params = [p for p in model.parameters() if p.requires_grad]
    if recipe.optimizer == "adamw":
        return [
            torch.optim.AdamW(params, lr=recipe.lr, betas=(0.9, 0.98), weight_decay=recipe.weight_decay, fused=True)
        ]
    ends = {
        id(p)
        for e in (model.get_input_embeddings(), model.get_output_embeddings())
        if e is not None
        for p in e.parameters()
    }
    hidden = [p for p in params if p.ndim == 2 and id(p) not in ends]
    rest = [p for p in params if p.ndim != 2 or id(p) in ends]
    return [
        Muon(hidden, lr=recipe.lr, weight_decay=recipe.weight_decay),
        torch.optim.AdamW(rest, lr=recipe.lr_rest, betas=(0.9, 0.95), weight_decay=0.0, fused=True),
    ]


def loss_on(model: PreTrainedModel, input_ids: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Mean cross-entropy in nats over the labelled positions of `input_ids` and `labels` (B, T).

    The output layer is applied only where there is a label: in fine-tuning that is a few positions in a row. No
    attention mask is needed: padding is on the right, and a causal model never looks there.
    """
    hidden = model.base_model(input_ids=input_ids, use_cache=False).last_hidden_state[:, :-1]  # (B, T-1, C)
    target = labels[:, 1:]
    keep = target != IGNORE
    logits = model.get_output_embeddings()(hidden[keep])  # (labelled, vocabulary)
    return F.cross_entropy(logits.float(), target[keep])


def train(
    model: PreTrainedModel,
    rows: Dataset,
    steps: int,
    recipe: Recipe = PRETRAIN,
    seed: int = 0,
    order: np.ndarray | None = None,
    at: dict[int, Callable[[PreTrainedModel], None]] | None = None,
    device: torch.device | None = None,
) -> list[float]:
    """Train `model` in place for `steps` steps and return the loss of every step, in nats per labelled token.

    Args:
        rows: a Dataset with `input_ids` and `labels`, rows of any length (see `alignlab.models.tokens`).
        steps: optimiser steps; the rows are gone through again as often as needed.
        seed: of the order of the rows, new in every pass. Nothing else is random.
        order: row numbers to read in this order instead, from the first again at the end (`biographies.reading_list`).
        at: what to call after a given number of steps, e.g. `{100: save}`; 0 is before the first.
        device: default: where the model is.

    Raises:
        ValueError: no rows, negative steps, or a loss that is no longer finite (with the step and the remedy).
    """
    steps = check.integer("steps", steps, at_least=0)
    for n in at or ():
        check.integer("a key of `at`", n, at_least=0, at_most=steps)  # a later one would never be called
    if steps and order is not None and len(order) == 0:
        raise ValueError("the reading list is empty: with 0 exposures there is nothing to train on, so pass steps=0")
    if len(rows) == 0:
        raise ValueError("there are no rows to train on: the dataset is empty")
    device = device or model.device
    model.to(device).train()
    optimizers = _optimizers(model, recipe)
    base_rates = [o.param_groups[0]["lr"] for o in optimizers]
    batches = _batches(rows, recipe.batch, model.config.pad_token_id or 0, seed, order)
    losses = []
    for step in range(steps):
        if at and step in at:
            _call(at[step], model)
        share = _rate(step, steps, recipe)
        for o, lr in zip(optimizers, base_rates, strict=True):
            o.param_groups[0]["lr"] = lr * share
        batch = next(batches)
        loss = loss_on(model, batch["input_ids"].to(device), batch["labels"].to(device))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), recipe.clip)
        for o in optimizers:
            o.step()
            o.zero_grad(set_to_none=True)
        losses.append(loss.detach())
        # Asked seldom, and at the end: on a GPU asking waits.
        if (step % 50 == 0 or step == steps - 1) and not math.isfinite(losses[-1].item()):
            raise ValueError(f"the loss is {losses[-1].item()} at step {step}: lower the learning rate ({recipe.lr})")
    if at and steps in at:
        _call(at[steps], model)
    model.eval()
    return torch.stack(losses).tolist() if losses else []


def _call(what: Callable, model: PreTrainedModel) -> None:
    model.eval()
    what(model)
    model.train()


def _rate(step: int, steps: int, recipe: Recipe) -> float:
    """The share of the learning rate at `step`: linear warm-up, flat, then linear decay to 0."""
    start = recipe.decay_from * steps
    decay = 1.0 if step < start else (steps - step) / max(1.0, steps - start)
    return min(decay, (step + 1) / (recipe.warmup + 1))


def _batches(rows: Dataset, batch: int, pad: int, seed: int, order: np.ndarray | None):
    """Endless batches (B, T) of torch tensors. A pass is whole: its rows are all seen before any is seen again."""
    columns = rows.select_columns(["input_ids", "labels"])[:]  # at once: row by row takes a tenth of a fine-tuning
    every = [{"input_ids": i, "labels": y} for i, y in zip(*columns.values(), strict=True)]
    # Collated once, sliced often; each batch is cut to its own longest row.
    whole = collate(every, pad)
    lengths = np.array([len(r["input_ids"]) for r in every])
    whole = {k: torch.from_numpy(v) for k, v in whole.items()}
    rng, left = check.rng(seed, "training.order"), np.empty(0, dtype=np.int64)
    while True:
        while len(left) < batch:
            left = np.concatenate([left, rng.permutation(len(every)) if order is None else order])
        take, left = left[:batch], left[batch:]
        t = int(lengths[take].max())
        yield {k: v[take, :t] for k, v in whole.items()}
