"""Losses: from a model and a batch to one number, with gradient. A loss is a value that one passes.

`train(model, rows, steps, recipe, loss=dpo(0.1, base))` needs nothing else, and in a loop of one's own,
`optimiser.step(policy_gradient(model, rollout(...)))`. A batch is a dictionary of tensors: ids (B, T), padded on the
right; labels (B, T), the token itself where it counts and `IGNORE` elsewhere; numbers (B,).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from datasets import Dataset
from torch import nn
from torch.nn import functional as F
from transformers import PreTrainedModel

from .. import check
from ..models import read
from ..models.reward import RewardModel
from ..models.tokens import IGNORE, collate

Batch = Mapping[str, torch.Tensor]
Loss = Callable[[nn.Module, Batch], torch.Tensor]
SIDES = ("chosen", "rejected")


def next_token(model: PreTrainedModel, batch: Batch) -> torch.Tensor:
    """Mean cross-entropy, in nats per labelled token: what pretraining and fine-tuning minimise.

        L = -1/N sum over labelled tokens of log p(token | those before it)

    No attention mask is needed: padding is on the right, and a causal model never looks there. Equal to what a model of
    transformers returns as its `loss`.

    Args:
        batch: `input_ids` and `labels` (B, T).

    Raises:
        ValueError: no token behind the first ones has a label.
    """
    return F.cross_entropy(*_labelled(model, batch))


def unlikelihood(model: PreTrainedModel, batch: Batch) -> torch.Tensor:
    """Make the labelled tokens unlikely (Welleck et al., 2020, equation 4).

        L = -1/N sum over labelled tokens of log(1 - p(token | those before it))

    Unlike gradient ascent, which is `lambda model, batch: -next_token(model, batch)` and has no end, its gradient goes
    to 0 with p.

    Args:
        batch: `input_ids` and `labels` (B, T).
    """
    found, wanted = _labelled(model, batch)
    others = found.scatter(1, wanted[:, None], -torch.inf)  # (N, V): 1 - p from what is left keeps its digits
    return (found.logsumexp(-1) - others.logsumexp(-1)).mean()


def _labelled(model: PreTrainedModel, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
    """The logits (N, V) in front of all labelled tokens, and the tokens (N,)."""
    _need(batch, "tokens.replies or tokens.documents", "input_ids", "labels")
    target = batch["labels"][:, 1:]
    keep = target != IGNORE  # (B, T-1)
    wanted = target[keep]
    if not len(wanted):
        raise ValueError("no row of the batch has a label behind its first token: there is nothing to learn from")
    return read.logits(model, batch["input_ids"][:, :-1], keep), wanted


def bradley_terry(model: RewardModel, batch: Batch) -> torch.Tensor:
    """How little the chosen replies are rated above the rejected ones (Bradley and Terry, 1952; Ouyang et al., 2022).

        L = -1/B sum of log sigmoid(r(chosen) - r(rejected))

    Args:
        batch: pairs as `tokens.pairs` makes them: `chosen_input_ids`, `chosen_labels` (B, T), and the same of
            `rejected`.
    """
    ids, labels = _both(batch)  # (2B, T)
    chosen, rejected = model(ids, labels).chunk(2)  # (B,) each
    return -F.logsigmoid(chosen - rejected).mean()


def dpo(beta: float, reference: PreTrainedModel | None = None) -> Loss:
    """Direct preference optimisation (Rafailov et al., 2023, equation 7).

        L = -1/B sum of log sigmoid(beta * (log p/p_ref (chosen) - log p/p_ref (rejected)))

    p of a reply is the product over its tokens.

    Args:
        beta: how dear it is to leave the reference; 0.1 in the paper.
        reference: the model before. Not needed where the rows carry its log-probabilities (`with_reference`), which
            saves a pass at every step. It is not copied: train another model than this one.

    Returns:
        A loss for pairs as `tokens.pairs` makes them.

    Raises:
        ValueError: beta is not positive; and when it is called: no reference in either place, the model itself as
            reference, or one with another vocabulary.
    """
    check.number("beta", beta, above=0)

    def loss(model: PreTrainedModel, batch: Batch) -> torch.Tensor:
        ids, labels = _both(batch)  # (2B, T)
        if reference is not None:
            _check_reference(model, reference)
            with torch.no_grad():
                before = read.log_probs(reference, ids, labels).sum(1).chunk(2)
        elif "reference_chosen" in batch:
            before = [batch[f"reference_{side}"] for side in SIDES]
        else:
            raise ValueError("DPO needs a reference: pass dpo(beta, reference), or rows made by `with_reference`")
        now = read.log_probs(model, ids, labels).sum(1).chunk(2)  # (B,) each
        chosen, rejected = (n - b for n, b in zip(now, before, strict=True))
        return -F.logsigmoid(beta * (chosen - rejected)).mean()

    return loss


def with_reference(rows: Dataset, reference: PreTrainedModel, batch: int = 64) -> Dataset:
    """Pairs with two more columns: the log-probabilities, in nats, of both replies under `reference`.

    Args:
        rows: pairs as `tokens.pairs` makes them.
        batch: how many pairs are read at a time.

    Raises:
        ValueError: no pairs, or an id that the reference does not know.
    """
    if not len(rows):
        raise ValueError("there are no pairs to read: pass at least one")
    size, device = read.vocabulary(reference), next(reference.parameters()).device
    found = []
    for start in range(0, len(rows), batch):
        part = collate(list(rows.select(range(start, min(start + batch, len(rows))))), 0)
        ids, labels = _both({k: torch.from_numpy(v).to(device) for k, v in part.items()})
        if ids.max() >= size:
            raise ValueError(
                f"there is a token {ids.max()} in the rows, but the reference has {size}: take one with the vocabulary "
                "of the model that is trained"
            )
        with torch.no_grad():
            found.append(read.log_probs(reference, ids, labels).sum(1).view(2, -1).cpu())  # (2, b)
    columns = {f"reference_{side}": c for side, c in zip(SIDES, torch.cat(found, 1).tolist(), strict=True)}
    return Dataset.from_dict({**rows[:], **columns})  # add_column after select rewrites the table behind a bar


def policy_gradient(kl: float = 0.0, reference: PreTrainedModel | None = None) -> Loss:
    """REINFORCE (Williams, 1992) on replies that the model has just sampled, with a penalty for leaving a reference.

        L = 1/B sum over replies of sum over their tokens of  -A log p + kl * w * (p_ref/p - log p_ref/p - 1)

    A is the advantage of the reply, one number for all its tokens (`rollouts.advantages`). The gradient of the first
    term is that of the expected reward, so every row serves one step. The second is the estimator k3 of KL(p || p_ref)
    (Schulman, 2020), as in GRPO (Shao et al., 2024). Its weight w = p / p is 1, but the upper p alone has a gradient:
    with it the gradient, too, is right on average, given the tokens before (DeepSeek-AI, 2025, V3.2).

    Nothing is divided by a reply's length, which would favour long wrong replies (Liu et al., 2025).

    Args:
        kl: the weight of the penalty; 0 leaves it out.
        reference: the model before; it is not copied.

    Returns:
        A loss for batches of `rollout`: `input_ids`, `labels` (B, T), `advantage` (B,).

    Raises:
        ValueError: a negative weight, or a weight without a reference; and when it is called: the model itself as
            reference, or one with another vocabulary.
    """
    if check.number("kl", kl, at_least=0) > 0 and reference is None:
        raise ValueError(f"the penalty has the weight {kl}, but nothing to be measured from: pass reference=")

    def loss(model: PreTrainedModel, batch: Batch) -> torch.Tensor:
        _need(batch, "rollouts.rollout", "input_ids", "labels", "advantage")
        ids, labels, advantage = batch["input_ids"], batch["labels"], batch["advantage"]
        log_p = read.log_probs(model, ids, labels)  # (B, T), 0 outside the reply
        each = -advantage[:, None] * log_p
        if kl:
            _check_reference(model, reference)
            with torch.no_grad():
                log_ref = read.log_probs(reference, ids, labels)
            each = each + kl * (log_p - log_p.detach()).exp() * k3(log_p, log_ref)
        return each.sum(1).mean()

    return loss


def k3(log_p: torch.Tensor, log_ref: torch.Tensor) -> torch.Tensor:
    """Schulman's estimator k3 of KL(p || p_ref), never negative, from log-probabilities of samples of p; any shape."""
    log_ratio = log_ref - log_p
    return torch.expm1(log_ratio) - log_ratio


def _need(batch: Batch, maker: str, *names: str) -> None:
    missing = [n for n in names if n not in batch]
    if missing:
        raise ValueError(f"the batch has no {missing[0]!r}, only {sorted(batch)}: make it with {maker}")


def _check_reference(model: PreTrainedModel, reference: PreTrainedModel) -> None:
    if model is reference:
        raise ValueError("the reference is the model that is trained: pass a copy made before, copy.deepcopy(model)")
    ours, theirs = read.vocabulary(model), read.vocabulary(reference)
    if ours != theirs:
        raise ValueError(f"the model has {ours} tokens and the reference {theirs}: take one with the same vocabulary")


def _both(batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
    """Ids and labels (2B, T) of the chosen replies, then of the rejected ones: one pass for both."""
    _need(batch, "tokens.pairs", *(f"{side}_{name}" for side in SIDES for name in ("input_ids", "labels")))
    width = max(batch[f"{side}_input_ids"].shape[1] for side in SIDES)

    def stacked(name: str, fill: int) -> torch.Tensor:
        parts = [batch[f"{side}_{name}"] for side in SIDES]
        return torch.cat([F.pad(p, (0, width - p.shape[1]), value=fill) for p in parts])

    return stacked("input_ids", 0), stacked("labels", IGNORE)
