"""Muon in float32: momentum, then orthogonalisation, for the hidden matrices (Jordan et al., 2024)."""

from __future__ import annotations

from collections.abc import Iterable

import torch

# Three odd quintics. Of all of their kind each is the nearest to 1 on the range of singular values that those before it
# leave, from 0.01 to 1 at first: the construction of Amsel et al. (2025), Polar Express, computed for three steps. Five
# steps of one polynomial (Jordan et al., 2024) bring a base model no lower in as many steps, and took a tenth of them.
QUINTICS = (
    (8.093369, -23.620430, 17.446152),
    (3.636586, -2.721927, 0.536546),
    (2.661300, -1.977155, 0.452616),
)


def orthogonalise(g: torch.Tensor) -> torch.Tensor:
    """The nearest semi-orthogonal matrices to `g` (..., R, C), approximately, by Newton-Schulz iteration.

    Singular values above 0.01 of the matrix's Schatten 4-norm end between 0.73 and 1.27, smaller ones nearer to 0; the
    vectors stay, and so does a matrix of zeros. The scale of `g` does not matter.
    """
    x = g.reshape(-1, *g.shape[-2:])  # (N, R, C)
    tall = x.size(-2) > x.size(-1)
    if tall:  # the Gram matrix on the short side is the cheap one
        x = x.mT
    # Divided first, lest the Gram matrix underflows. A matrix of zeros is divided by something else than 0.
    x = x / x.norm(dim=(-2, -1), keepdim=True).clamp_min(torch.finfo(x.dtype).tiny)
    gram = x @ x.mT  # (N, R, R)
    # The Schatten 4-norm is no less than the largest singular value, as the Frobenius norm is, but nearer to it: the
    # small ones start up to three times as large, for which there would have to be one step more.
    bound = gram.norm(dim=(-2, -1), keepdim=True).sqrt().clamp_min(1e-3)
    x, gram = x / bound, gram / bound**2
    for k, (a, b, c) in enumerate(QUINTICS):
        gram = x @ x.mT if k else gram
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)  # a x + (b G + c G G) x
    return (x.mT if tall else x).reshape(g.shape)


class Muon(torch.optim.Optimizer):
    """Momentum, then orthogonalisation, for the hidden matrices (Jordan et al., 2024), in float32.

    Matrices of one shape are orthogonalised together in one batched product: fewer, larger operations.
    """

    def __init__(
        self, params: Iterable[torch.nn.Parameter], lr: float, momentum: float = 0.95, weight_decay: float = 0.0
    ):
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            shapes: dict[tuple, list] = {}
            for p in group["params"]:
                if p.grad is not None:
                    # (R, C) and (C, R) go together, the wide way round
                    shapes.setdefault(tuple(sorted(p.shape)), []).append(p)
            for params in shapes.values():
                updates = []
                for p in params:
                    buf = self.state[p].setdefault("momentum", torch.zeros_like(p))
                    buf.lerp_(p.grad, 1 - group["momentum"])
                    u = p.grad.lerp(buf, group["momentum"])  # Nesterov
                    updates.append(u.mT if p.size(0) > p.size(1) else u)
                for p, u in zip(params, orthogonalise(torch.stack(updates)), strict=True):
                    p.mul_(1 - group["lr"] * group["weight_decay"])
                    scale = max(1.0, p.size(0) / p.size(1)) ** 0.5  # keeps the step's size per output alike
                    p.add_(u.mT if p.size(0) > p.size(1) else u, alpha=-group["lr"] * scale)
