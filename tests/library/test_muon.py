"""Muon: orthogonalisation, and steps of the optimiser beside the formulas."""

from __future__ import annotations

import pytest
import torch
from alignlab.models.llama import make_model
from alignlab.training.muon import QUINTICS, Muon, heads, orthogonalise


def random(*shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def with_singular_values(values, columns):
    """A matrix (R, C) of R given singular values, and its polar factor."""
    rows = len(values)
    u = torch.linalg.qr(random(rows, rows)).Q
    v = torch.linalg.qr(random(columns, columns)).Q[:rows]
    return u @ torch.tensor(values).diag() @ v, u @ v


@pytest.mark.parametrize("shape", [(32, 32), (16, 64), (64, 16), (3, 40, 24), (128, 128), (2, 3, 8, 16), (1, 7)])
def test_orthogonalise_evens_out_the_singular_values(shape):
    g = random(*shape)
    u, kept = orthogonalise(g), torch.linalg.svdvals(g)
    kept = kept > 0.002 * kept.pow(4).sum(-1, keepdim=True) ** 0.25  # of square ones the smallest may be near to 0
    ends = torch.linalg.svdvals(u)
    assert u.shape == g.shape and ends.max() < 1.75 and ends.flatten().sort().values[-kept.sum()] > 0.25
    torch.testing.assert_close(orthogonalise(g.mT), u.mT, rtol=1e-3, atol=1e-4)


def test_orthogonalise_keeps_the_singular_vectors():
    g, polar = with_singular_values([3.0, 2.0, 1.0, 0.3, 0.1, 0.05], 9)
    u = orthogonalise(g)
    off = polar.mT @ u  # (9, 9): symmetric exactly if the two have the same singular vectors
    torch.testing.assert_close(off, off.mT, rtol=0, atol=1e-5)
    assert torch.linalg.matrix_norm(u - polar, 2) < 0.75


def test_the_quintics_are_the_nearest_to_one():
    """Chebyshev: the best approximation of its kind errs by the same amount, in turns, at one more place than it has
    coefficients."""
    low, high = 0.002, 1.0
    for a, b, c in QUINTICS:
        s = torch.linspace(low, high, 100_001, dtype=torch.float64)
        error = a * s + b * s**3 + c * s**5 - 1
        turns = [error[0], *error[1:-1][(error[1:-1] - error[:-2]) * (error[2:] - error[1:-1]) < 0], error[-1]]
        worst = error.abs().max()
        assert len(turns) == 4
        for k, e in enumerate(turns):
            assert e.item() == pytest.approx((-1) ** (k + 1) * worst.item(), rel=5e-3)
        low, high = (1 - worst).item(), (1 + worst).item()
    assert high < 1.75


@pytest.mark.parametrize("scale", [1e-30, 1e-12, 1e12])
def test_the_scale_of_a_gradient_does_not_matter(scale):
    g = random(2, 8, 12)
    torch.testing.assert_close(orthogonalise(g * scale), orthogonalise(g), rtol=1e-4, atol=1e-5)


def test_a_gradient_of_zeros_moves_nothing():
    g = torch.stack([torch.zeros(4, 6), random(4, 6)])
    u = orthogonalise(g)
    assert not u[0].any() and u.isfinite().all() and u[1].norm() > 1


def test_a_step_is_the_one_of_the_paper():
    """Two steps on matrices of three shapes, one of them without a gradient, beside the formulas in float64."""
    shapes = [(4, 4), (4, 8), (8, 4), (4, 4)]
    params = [torch.nn.Parameter(random(*s)) for s in shapes]
    there = [p.detach().double() for p in params]
    bufs = [torch.zeros_like(p) for p in there]
    optimizer = Muon(params, lr=0.1, momentum=0.9, weight_decay=0.5)
    for step in (1, 2):
        for k, p in enumerate(params[:-1]):
            p.grad = random(*p.shape) * (k + step)
            bufs[k] = 0.9 * bufs[k] + 0.1 * p.grad.double()
            u = orthogonalise(0.1 * p.grad.double() + 0.9 * bufs[k])
            there[k] = there[k] * (1 - 0.1 * 0.5) - 0.1 * max(1, p.shape[0] / p.shape[1]) ** 0.5 * u
        optimizer.step()
    for p, q in zip(params, there, strict=True):
        torch.testing.assert_close(p.detach().double(), q, rtol=1e-3, atol=1e-4)


def test_a_matrix_that_is_kept_the_other_way_round_makes_the_same_step():
    """GPT-2 keeps (inputs, outputs): the size of a step goes by outputs and inputs, not by rows and columns."""
    linear, turned = torch.nn.Parameter(random(12, 3)), torch.nn.Parameter(random(12, 3).T.clone())
    linear.grad = random(12, 3)
    turned.grad = linear.grad.T.clone()
    Muon([linear], lr=0.1).step()
    Muon([turned], lr=0.1, turned=[turned]).step()
    torch.testing.assert_close(turned.T, linear, rtol=1e-5, atol=1e-6)


def test_every_head_is_a_map_of_its_own():
    """Where the rows of a matrix are heads, a step is that of Muon on each head alone."""
    whole, other = (torch.nn.Parameter(random(12, 8)) for _ in range(2))
    alone = [torch.nn.Parameter(h.clone()) for h in whole.detach().split(4)]
    for p in (whole, other):
        p.grad = random(12, 8) * torch.arange(1, 13)[:, None] ** 2  # far larger in the last head
    for p, g in zip(alone, whole.grad.split(4), strict=True):
        p.grad = g
    Muon([whole], lr=0.1, heads={whole: 4}).step()
    Muon([other], lr=0.1).step()
    Muon(alone, lr=0.1).step()
    # As one matrix 12 x 8 its step has another size: sqrt(rows / columns).
    moved = torch.cat(list(alone)) - random(12, 8)
    torch.testing.assert_close(whole - random(12, 8), moved * 1.5**0.5, rtol=1e-4, atol=1e-5)
    assert (whole - other).abs().max() > 0.01


def test_the_heads_of_a_model_are_found(tokenizer):
    model = make_model(tokenizer, 64, 2)
    found = heads(model)
    names = {n.split(".")[-2] for n, p in model.named_parameters() if p in found}
    assert len(found) == 2 * 3 and set(found.values()) == {32} and names == {"q_proj", "k_proj", "v_proj"}
    assert heads(torch.nn.Linear(2, 2)) == {}
