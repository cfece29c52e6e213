"""pass@k: how often at least one of k samples is right."""

from __future__ import annotations

from collections.abc import Sequence
from math import comb

import numpy as np

from .. import check


def pass_at_k(correct: np.ndarray, ks: Sequence[int]) -> np.ndarray:
    """Each question's unbiased pass@k (Chen et al., 2021, equation 1), (Q, K).

        1 - C(n - c, k) / C(n, k), of n samples with c right ones

    Whether one of the *first* k samples was right has the same mean, and a far larger variance; 1 - (1 - c/n)^k is
    biased. Computed in whole numbers, so exact to the last bit.

    Args:
        correct: (Q, n), bool: which of its n samples were right.
        ks: at most n each.

    Raises:
        ValueError: `correct` is not of that shape or holds something else, or a k is not in 1 to n.
    """
    correct = np.asarray(correct)
    if correct.ndim != 2 or not correct.size or not np.isin(correct, (0, 1)).all():
        raise ValueError(
            f"correct has the shape {correct.shape}: pass (questions, samples), each of them true or false"
        )
    n, right = correct.shape[1], correct.astype(bool).sum(1)  # (Q,)
    ks = [check.integer("k", k, at_least=1, at_most=n) for k in ks]
    table = {c: [(comb(n, k) - comb(n - c, k)) / comb(n, k) for k in ks] for c in set(right.tolist())}
    return np.array([table[c] for c in right.tolist()], dtype=np.float64).reshape(len(right), len(ks))


def band(values: np.ndarray, seed: int, level: float = 0.95, draws: int = 1000) -> np.ndarray:
    """The bootstrap interval of the mean over questions: lower and upper end, (2, K).

    Args:
        values: (Q, K), such as those of `pass_at_k`; questions are drawn with replacement.
        level: the share of means inside.
    """
    values = np.asarray(values, dtype=np.float64)
    drawn = check.rng(seed, "passk.band").integers(len(values), size=(draws, len(values)))  # (draws, Q)
    counts = np.apply_along_axis(np.bincount, 1, drawn, minlength=len(values))  # (draws, Q)
    tail = (1 - level) / 2
    return np.quantile(counts @ values / len(values), [tail, 1 - tail], axis=0)
