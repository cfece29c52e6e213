"""Muon in float32: momentum, then orthogonalisation, for the hidden matrices (Jordan et al., 2024)."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

import torch
from torch import nn

# Odd quintics. Of all of their kind each is the nearest to 1 on the range of singular values that those before it have
# left, from 0.002 to 1 at first: the construction of Amsel et al. (2025), Polar Express, computed for three steps.
QUINTICS = (
    (8.426788, -24.936134, 18.492493),
    (4.111647, -3.059130, 0.574954),
    (3.714570, -2.778125, 0.542939),
)


def orthogonalise(g: torch.Tensor) -> torch.Tensor:
    """The nearest semi-orthogonal matrices to `g` (..., R, C), approximately, by Newton-Schulz iteration.

    Singular values above 0.002 of the matrix's Schatten 4-norm end between 0.25 and 1.75, smaller ones nearer to 0; the
    vectors stay, and so does a matrix of zeros. The scale of `g` does not matter. Nearer to 1 is dearer and taught no
    more: with the heads apart (see `Muon`), three such steps brought base models to a lower loss than Jordan's five.
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


def heads(model: nn.Module) -> dict[nn.Parameter, int]:
    """The matrices whose rows make the queries, keys or values of several heads: matrix -> rows of one head.

    They are found by the names that most families in transformers share (Llama, Mistral, Qwen, ...).
    """
    return {
        getattr(m, name).weight: m.head_dim
        for m in model.modules()
        for name in ("q_proj", "k_proj", "v_proj")
        if isinstance(getattr(m, name, None), nn.Linear) and isinstance(getattr(m, "head_dim", None), int)
    }


class Muon(torch.optim.Optimizer):
    """Momentum, then orthogonalisation, for the hidden matrices (Jordan et al., 2024), in float32.

    Matrices of one shape are orthogonalised together in one batched product: fewer, larger operations.

    Args:
        heads: matrix -> rows of one head (see `heads`). The heads of such a matrix are maps of their own, and are
            orthogonalised each on its own: a model learns in fewer steps, and a step takes less.
        turned: the matrices that are kept as (inputs, outputs), as GPT-2's are, and not as (outputs, inputs).
    """

    def __init__(
        self,
        params: Iterable[nn.Parameter],
        lr: float,
        momentum: float = 0.95,
        weight_decay: float = 0.0,
        heads: Mapping[nn.Parameter, int] | None = None,
        turned: Collection[nn.Parameter] = (),
    ):
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})
        self.heads, self.turned = heads or {}, set(turned)

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            shapes: dict[tuple, list] = {}
            for p in group["params"]:
                if p.grad is not None:
                    # (R, C) and (C, R) go together, the wide way round
                    shapes.setdefault(tuple(sorted((self.heads.get(p, p.size(0)), p.size(1)))), []).append(p)
            for (short, _), params in shapes.items():
                updates = []
                for p in params:
                    if p not in self.state:
                        self.state[p]["momentum"] = torch.zeros_like(p)
                    buf = self.state[p]["momentum"]
                    buf.lerp_(p.grad, 1 - group["momentum"])
                    u = p.grad.lerp(buf, group["momentum"])  # Nesterov
                    u = u.unflatten(0, (-1, self.heads.get(p, p.size(0))))  # (heads or 1, R, C)
                    updates.append(u if u.size(1) == short else u.mT)
                made = orthogonalise(torch.cat(updates)).split([len(u) for u in updates])
                for p, u in zip(params, made, strict=True):
                    p.mul_(1 - group["lr"] * group["weight_decay"])
                    outputs, inputs = reversed(p.shape) if p in self.turned else p.shape
                    scale = max(1.0, outputs / inputs) ** 0.5  # keeps the step's size per output alike
                    u = u if u.size(2) == p.size(1) else u.mT
                    p.add_(u.reshape(p.shape), alpha=-group["lr"] * scale)
