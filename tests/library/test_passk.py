"""pass@k without bias, and its band."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from alignlab.measure.passk import band, pass_at_k


@pytest.mark.parametrize("right", range(7))
def test_it_is_the_share_of_draws_with_a_right_one(right):
    n, ks = 6, (1, 2, 3, 6)
    marks = np.arange(n) < right
    wanted = [np.mean([marks[list(d)].any() for d in combinations(range(n), k)]) for k in ks]
    np.testing.assert_allclose(pass_at_k(marks[None], ks), [wanted], rtol=1e-15)


def test_by_hand():
    marks = np.array([[1, 0, 0, 0], [0, 1, 1, 0], [0, 0, 0, 0]])
    assert pass_at_k(marks, [1, 2, 4]).tolist() == [[1 / 4, 1 / 2, 1], [1 / 2, 5 / 6, 1], [0, 0, 0]]


def test_many_samples_cost_no_digits():
    marks = np.zeros((1, 10_000), dtype=bool)
    marks[0, 0] = True
    assert pass_at_k(marks, [1, 100, 10_000]).tolist() == [[1e-4, 1e-2, 1.0]]


def test_it_is_right_on_average_where_the_plug_in_is_not():
    rng, p, n, k = np.random.default_rng(0), 0.1, 20, 10
    marks = rng.random((20_000, n)) < p
    true, share = 1 - (1 - p) ** k, marks.mean(1)
    assert pass_at_k(marks, [k]).mean() == pytest.approx(true, abs=0.006)
    assert abs((1 - (1 - share) ** k).mean() - true) > 0.03


@pytest.mark.parametrize(
    ("marks", "ks", "error", "said"),
    [
        (np.zeros(4), [1], ValueError, r"shape \(4,\): pass \(questions, samples\)"),
        (np.zeros((0, 4)), [1], ValueError, r"shape \(0, 4\)"),
        ([[0.5, 1]], [1], ValueError, "each of them true or false"),
        ([[np.nan, 1]], [1], ValueError, "each of them true or false"),
        ([[0, 1]], [3], ValueError, "k is 3, but it must be at most 2"),
        ([[0, 1]], [0], ValueError, "k is 0"),
        ([[0, 1]], [1.5], TypeError, "k must be an integer"),
    ],
)
def test_wrong_marks_are_refused(marks, ks, error, said):
    with pytest.raises(error, match=said):
        pass_at_k(marks, ks)


def test_the_band_holds_the_mean_and_narrows_with_more_questions():
    values = np.random.default_rng(1).random((400, 2))
    low, high = band(values, seed=0)
    assert (low < values.mean(0)).all() and (values.mean(0) < high).all()
    # 1.96 standard errors to each side
    np.testing.assert_allclose(high - low, 2 * 1.96 * values.std(0) / 20, rtol=0.15)
    assert ((high - low) < np.diff(band(values[:50], seed=0), axis=0)).all()
    assert band(values, seed=0).tolist() == [low.tolist(), high.tolist()]
    assert band(np.ones((5, 1)), seed=0).tolist() == [[1], [1]]
