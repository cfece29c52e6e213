"""Training in the open: `Optimiser` makes a step of a loss, `batches` reads rows, `train` is a short loop over both.

What was measured before choosing (two CPU cores; `make bench` repeats it side by side):
  * a bare loop and `transformers.Trainer` reach the same tokens per second at these sizes; the bare loop is kept
    because a reader can see the whole of it, and because it draws nothing from global random state;
  * Muon with its Newton-Schulz steps in float32 reaches a given loss in about 0.6 times the steps of AdamW and costs
    about a tenth more per step. `torch.optim.Muon` does those steps in bfloat16, which these CPUs emulate: 7x slower.
    On 160 biographies in five wordings, read 40 times, Muon's model answered 0.59 of the questions on held-out people
    and AdamW's 0.09 at the better of two rates (one seed, weight decay not matched);
  * a constant rate in pretraining: with a rate that decays to zero, models had memorised as well but could answer less
    (0.27 to 0.54 against 0.62 to 0.84 over several settings, one seed). The fine-tuning that follows decays for both;
  * weight decay on the hidden matrices: at 0 the effect of a few well-described people on the others is small, at 1
    even one wording becomes answerable in part. Chapters say which value they use.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from datasets import Dataset
from torch import nn
from transformers.pytorch_utils import Conv1D

from .. import check
from ..models import read
from ..models.tokens import IGNORE, collate
from .losses import Batch, Loss, next_token
from .muon import Muon, heads


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


class Optimiser:
    """What becomes of a loss: its gradient, clipped, at the rate of this step, through Muon and AdamW.

    A loop of one's own is `for ...: optimiser.step(loss(model, batch))`. Dropout, where a model has any, is the
    caller's choice (`model.train()`).

    Args:
        model: any module. Only parameters with `requires_grad` are changed; of these Muon has the matrices inside the
            transformer blocks.
        steps: how many there will be: the decay of the rate depends on it.

    Raises:
        ValueError: the model has no parameter to train, or `steps` is negative.
    """

    def __init__(self, model: nn.Module, recipe: Recipe, steps: int):
        self.model, self.recipe, self.steps = model, recipe, check.integer("steps", steps, at_least=0)
        self.done = 0  # steps that were made
        self.params = [p for p in model.parameters() if p.requires_grad]
        if not self.params:
            raise ValueError("every parameter of the model is frozen: set requires_grad on what is to be trained")
        self.optimizers = _optimizers(model, self.params, recipe)
        self.rates = [o.param_groups[0]["lr"] for o in self.optimizers]
        model.zero_grad(set_to_none=True)  # what an interrupted step may have left

    def step(self, loss: torch.Tensor) -> torch.Tensor:
        """Change the model by one step against the gradient of `loss` (a scalar), and return the loss, detached.

        Raises:
            ValueError: `loss` is no scalar, does not depend on the model, or it or its gradient is not finite (asked at
                every step on a CPU; elsewhere, where asking waits, at every 50th and at the last); or all steps have
                been made.
        """
        if self.done >= self.steps:
            raise ValueError(f"the optimiser was made for {self.steps} steps, and all are made: make it for more")
        if loss.ndim or not loss.requires_grad:
            was = f"has the shape {tuple(loss.shape)}" if loss.ndim else "does not depend on the model's parameters"
            raise ValueError(f"the loss {was}: pass one number that was computed with gradient")
        asked = loss.device.type == "cpu" or self.done % 50 == 0 or self.done == self.steps - 1
        lower = f"lower the learning rate ({self.recipe.lr}), or look at what went into the loss"
        if asked and not math.isfinite(loss.item()):
            raise ValueError(f"the loss is {loss.item()} at step {self.done}: {lower}")
        share = _rate(self.done, self.steps, self.recipe)
        for o, lr in zip(self.optimizers, self.rates, strict=True):
            o.param_groups[0]["lr"] = lr * share
        with read.all_cores(self.model):
            loss.backward()
        norm = nn.utils.clip_grad_norm_(self.params, self.recipe.clip)
        if asked and not math.isfinite(norm.item()):
            raise ValueError(f"the gradient's norm is {norm.item()} at step {self.done}: {lower}")
        for o in self.optimizers:
            o.step()
            o.zero_grad(set_to_none=True)
        self.done += 1
        return loss.detach()


def _optimizers(model: nn.Module, params: list[nn.Parameter], recipe: Recipe) -> list[torch.optim.Optimizer]:
    """AdamW for `params`, or Muon for those that are matrices inside the blocks and AdamW for the rest."""
    if recipe.optimizer == "adamw":
        return [
            torch.optim.AdamW(params, lr=recipe.lr, betas=(0.9, 0.98), weight_decay=recipe.weight_decay, fused=True)
        ]
    # Every family keeps its blocks in a ModuleList. Embeddings, tables of positions and heads, wherever they are, look
    # vectors up or read them off: orthogonalised steps are for what maps hidden states to hidden states.
    blocks = [b for b in model.modules() if isinstance(b, nn.ModuleList)]
    inside = {id(m.weight) for b in blocks for m in b.modules() if isinstance(m, (nn.Linear, Conv1D))}
    hidden = [p for p in params if id(p) in inside]
    rest = [p for p in params if id(p) not in inside]
    made: list[torch.optim.Optimizer] = []
    if hidden:
        turned = {m.weight for b in blocks for m in b.modules() if isinstance(m, Conv1D)}
        made.append(Muon(hidden, recipe.lr, weight_decay=recipe.weight_decay, heads=heads(model), turned=turned))
    if rest:
        made.append(torch.optim.AdamW(rest, lr=recipe.lr_rest, betas=(0.9, 0.95), weight_decay=0.0, fused=True))
    return made


def _rate(step: int, steps: int, recipe: Recipe) -> float:
    """The share of the learning rate at `step`: linear warm-up, flat, then linear decay to 0."""
    start = recipe.decay_from * steps
    decay = 1.0 if step < start else (steps - step) / max(1.0, steps - start)
    return min(decay, (step + 1) / (recipe.warmup + 1))


def train(
    model: nn.Module,
    rows: Dataset,
    steps: int,
    recipe: Recipe = PRETRAIN,
    seed: int = 0,
    *,
    loss: Loss = next_token,
    order: np.ndarray | None = None,
    at: dict[int, Callable[[nn.Module], None]] | None = None,
) -> list[float]:
    """Train `model` in place, where it is, for `steps` steps and return the loss of every step.

    Args:
        rows: a Dataset of rows of any length with what `loss` reads: for `next_token`, `input_ids` and `labels` (see
            `alignlab.models.tokens`). They are gone through again as often as needed.
        seed: of the order of the rows, new in every pass. Nothing else is random.
        loss: from the model and a batch (every column of `rows`, see `batches`) to a scalar; `losses` has several.
        order: row numbers to read in this order instead, from the first again at the end (`biographies.reading_list`).
        at: what to call after a given number of steps, e.g. `{100: save}`; 0 is before the first.

    Raises:
        ValueError: no rows, a row without any label, negative steps, or a loss that `Optimiser.step` refuses.
    """
    steps = check.integer("steps", steps, at_least=0)
    for n in at or ():
        check.integer("a key of `at`", n, at_least=0, at_most=steps)  # a later one would never be called
    at = at or {}
    optimiser, losses = Optimiser(model, recipe, steps), []
    pad = getattr(getattr(model, "config", None), "pad_token_id", None) or 0
    device = next(model.parameters()).device
    reading = batches(rows, recipe.batch, seed, order, pad_token_id=pad) if steps else None
    model.train()
    for step in range(steps):
        if step in at:
            _call(at[step], model)
        batch = {k: v.to(device) if isinstance(v, torch.Tensor) else v for k, v in next(reading).items()}
        losses.append(optimiser.step(loss(model, batch)))
    if steps in at:
        _call(at[steps], model)
    model.eval()
    return torch.stack(losses).tolist() if losses else []


def _call(what: Callable, model: nn.Module) -> None:
    model.eval()
    what(model)
    model.train()


def batches(
    rows: Dataset, batch: int, seed: int = 0, order: np.ndarray | None = None, pad_token_id: int = 0
) -> Iterator[Batch]:
    """Endless batches of `batch` rows with every column of `rows` that is no text.

    A column of lists becomes a tensor (B, T), padded as by `tokens.collate` and cut to the longest list of the batch, a
    column of numbers a tensor (B,). A pass is whole: its rows are all seen before any is seen again.

    Args:
        seed, order: as in `train`.

    Raises:
        ValueError: there are no rows, the reading list is empty, or a row has no label behind its first token.
    """
    if len(rows) == 0:
        raise ValueError("there are no rows to train on: the dataset is empty")
    if order is not None and len(order) == 0:
        raise ValueError("the reading list is empty: with 0 exposures there is nothing to train on, so pass steps=0")
    columns = rows[:]  # at once: row by row takes a tenth of a fine-tuning
    every = [dict(zip(columns, r, strict=True)) for r in zip(*columns.values(), strict=True)]
    whole = {k: torch.from_numpy(v) for k, v in collate(every, pad_token_id).items()}  # once, sliced often
    lengths = {k: np.array([len(r) for r in columns[k]]) for k, v in whole.items() if v.ndim == 2}
    for k in lengths:
        if k.endswith("labels"):
            silent = (whole[k][:, 1:] == IGNORE).all(1).nonzero()[:, 0].tolist()
            if silent:
                raise ValueError(f"row {silent[0]} has no label behind its first token in {k!r}: leave it out")
    return _endless(whole, lengths, len(every), batch, check.rng(seed, "training.order"), order)


def _endless(
    whole: Batch, lengths: dict[str, np.ndarray], n: int, batch: int, rng: np.random.Generator, order: np.ndarray | None
) -> Iterator[Batch]:
    left = np.empty(0, dtype=np.int64)
    while True:
        while len(left) < batch:
            left = np.concatenate([left, rng.permutation(n) if order is None else order])
        take, left = left[:batch], left[batch:]
        yield {k: v[take, : lengths[k][take].max()] if k in lengths else v[take] for k, v in whole.items()}
