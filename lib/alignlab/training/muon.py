"""Muon in float32: momentum, then orthogonalisation, for the hidden matrices (Jordan et al., 2024)."""

from __future__ import annotations

from collections.abc import Iterable

import torch


def orthogonalise(g: torch.Tensor, steps: int = 5) -> torch.Tensor:
    """The nearest semi-orthogonal matrices to `g` (..., R, C), approximately, by Newton-Schulz iteration.

    Singular values end between about 0.7 and 1.2, the vectors stay. Coefficients: Jordan et al. (2024), Muon.
    """
    a, b, c = 3.4445, -4.7750, 2.0315
    x = g / (g.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    tall = x.size(-2) > x.size(-1)
    if tall:  # the Gram matrix on the short side is the cheap one
        x = x.mT
    for _ in range(steps):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.mT if tall else x


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
