"""Token shift: how far does an aligned model's reply stray from what its base would have said? (Lin et al., 2024)

The aligned model replies greedily. The base then reads the same words, one after the other, and at every place the
word that came is ranked among all words by the probability that the base gives it:

  unshifted  rank 1       the base would have said the same
  marginal   rank 2 or 3
  shifted    rank above 3
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from .. import check
from ..models import read
from ..models.answer import Reply, generate
from ..models.tokens import IGNORE, prompt_ids

KINDS = ("unshifted", "marginal", "shifted")


def ranks(logits: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
    """The rank of token `ids[n]` (N,) among all tokens by `logits[n]` (N, V), 1 being the largest.

    Ties share the best rank: a token's rank is one more than the number of tokens that are strictly above it.
    """
    mine = logits.gather(-1, ids[:, None])
    return (logits > mine).sum(-1) + 1


def kind(rank: int) -> str:
    """The name of the shift of a token with this rank under the base."""
    rank = check.integer("rank", rank, at_least=1)
    return KINDS[0] if rank == 1 else KINDS[1] if rank <= 3 else KINDS[2]


def token_shift(
    base: PreTrainedModel,
    aligned: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[str],
    replies: Sequence[Reply] | None = None,
    *,
    template: bool = True,
    base_template: bool | None = None,
    base_prompts: Sequence[str] | None = None,
    max_new_tokens: int = 44,
    batch: int = 32,
) -> pd.DataFrame:
    """Rank every token of the aligned model's replies under its base.

    Args:
        replies: what to rank instead, one reply per prompt, e.g. the base's own words; default: what `aligned` says,
            greedily, up to `max_new_tokens`.
        template: the aligned model is asked in the chat template.
        base_template: the base too; default: as the aligned model.
        base_prompts: what stands before the replies for the base, one text per prompt, e.g. the same question behind
            others and their answers; default: `prompts`.

    Returns:
        One row per token: `reply` (its number), `position` (0 for the first token), `token`, `rank` and `kind` under
        the base, `p_base` and `p_aligned` (its probabilities, 0..1), `kl` (from the base to the aligned model at this
        place, sum over tokens of p_aligned log(p_aligned / p_base), in nats), `instead` (the base's first choice).

    Raises:
        ValueError: no prompts, an empty one, an empty reply, not one reply or base prompt per prompt, or two different
            vocabularies.
    """
    _same_vocabulary(base, aligned, tokenizer)
    if not prompts:
        raise ValueError("there are no prompts: pass at least one")
    if replies is None:
        replies = generate(aligned, tokenizer, prompts, template=template, max_new_tokens=max_new_tokens)
    if len(replies) != len(prompts):
        raise ValueError(f"there are {len(replies)} replies to {len(prompts)} prompts: pass one reply per prompt")
    for i, r in enumerate(replies):
        if not r.tokens:
            raise ValueError(f"reply {i} is empty (prompt {prompts[i]!r}): there is no token to rank")
    read_by_base = prompts if base_prompts is None else base_prompts
    if len(read_by_base) != len(prompts):
        raise ValueError(f"there are {len(read_by_base)} base prompts to {len(prompts)} prompts: pass one per prompt")
    base_template = template if base_template is None else base_template
    sides = [
        (base, _rows(tokenizer, read_by_base, replies, base_template)),
        (aligned, _rows(tokenizer, prompts, replies, template)),
    ]
    lengths = [len(r.tokens) for r in replies]
    columns = {name: np.zeros(sum(lengths)) for name in ("p_base", "p_aligned", "kl")}
    rank, instead = (np.zeros(sum(lengths), dtype=np.int64) for _ in range(2))
    with read.all_cores(base):
        for n, ids, b, a in read.each(*sides, batch=batch):
            rank[n], instead[n] = ranks(b, ids).cpu(), b.argmax(-1).cpu()
            log_b, log_a = b.double().log_softmax(-1), a.to(b.device).double().log_softmax(-1)  # (N, V)
            columns["p_base"][n] = log_b.gather(-1, ids[:, None])[:, 0].exp().cpu()
            columns["p_aligned"][n] = log_a.gather(-1, ids[:, None])[:, 0].exp().cpu()
            columns["kl"][n] = (log_a.exp() * (log_a - log_b)).sum(-1).cpu()
    return pd.DataFrame(
        {
            "reply": np.repeat(np.arange(len(replies)), lengths),
            "position": np.concatenate([np.arange(k) for k in lengths]),
            "token": _words(tokenizer, [i for r in replies for i in r.tokens]),
            "rank": rank,
            "kind": [kind(r) for r in rank.tolist()],
            **columns,
            "instead": _words(tokenizer, instead.tolist()),
        }
    )


def shares(table: pd.DataFrame) -> dict[str, float]:
    """The share of each kind among the rows of `token_shift`, and `kl`, the mean divergence in nats."""
    if table.empty:
        raise ValueError("the table has no rows: there is no token to count")
    return {k: float((table["kind"] == k).mean()) for k in KINDS} | {"kl": float(table["kl"].mean())}


def parting(table: pd.DataFrame) -> pd.Series:
    """For every reply of `token_shift`, the position at which the base, running free, would first say something else.

    Up to there both have read the same words, so it is the first position whose rank is not 1; a reply that the base
    would have given word by word has its own length.
    """
    other = table["position"].where(table["rank"] > 1)
    lengths = table.groupby("reply")["position"].max() + 1
    return other.groupby(table["reply"]).min().fillna(lengths).astype(int)


def _same_vocabulary(base: PreTrainedModel, aligned: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    sizes = [read.vocabulary(m) for m in (base, aligned)]
    if sizes[0] != sizes[1]:
        raise ValueError(
            f"the base has {sizes[0]} tokens and the aligned model {sizes[1]}: ranks need one vocabulary, so pass "
            "a base and its own aligned twin"
        )
    if len(tokenizer) > sizes[0]:
        raise ValueError(
            f"the tokenizer has {len(tokenizer)} tokens, the models {sizes[0]}: pass the pair's own tokenizer"
        )


def _rows(tokenizer: PreTrainedTokenizerBase, prompts: Sequence[str], replies: Sequence[Reply], template: bool) -> list:
    heads = prompt_ids(prompts, tokenizer, template)
    for i, head in enumerate(heads):
        if not head:
            raise ValueError(f"prompt {i} is empty: the first token of a reply is ranked after one in front of it")
    return [
        {"input_ids": [*h, *r.tokens], "labels": [*[IGNORE] * len(h), *r.tokens]}
        for h, r in zip(heads, replies, strict=True)
    ]


def _words(tokenizer: PreTrainedTokenizerBase, ids: list[int]) -> list[str]:
    return [tokenizer.decode([i]) for i in ids]
