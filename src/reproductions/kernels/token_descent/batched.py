"""Descent on W carried by its logits: nT numbers a problem, whatever the dimension d.

The gradient is a sum of outer products, G = sum_i X_i^T r_i z_i^T with r = dL/da. So W - W_0 is
one too, with coefficients R (n, T), and both the logits and the norm need only the Gram matrix K of
the products x_it z_i^T,

    K_{(i,t),(j,u)} = (x_it . x_ju) (z_i . z_j),    a <- a - eta K r / ||G||,    ||G||^2 = r . K r.
"""

from __future__ import annotations

import torch

from .checks import Problems, Schedule
from .gradient import log_gradient, score_function
from .products import logits_of, outer

__all__ = ["KernelForm"]


class KernelForm:
    """Exact descent on W in the coefficients of its outer products."""

    def __init__(self, problems: Problems, schedule: Schedule):
        self.problems = problems
        self.normalized = schedule.normalized
        self.scores = score_function(problems)
        queries = problems.queries
        x = problems.tokens.flatten(1, 2)
        batch, n, T, _ = problems.tokens.shape
        gram = torch.bmm(x, x.mT).view(batch, n, T, n, T)
        gram *= torch.bmm(queries, queries.mT)[:, :, None, :, None]
        self.gram = gram.view(batch, n * T, n * T)
        self.a = logits_of(problems, torch.bmm(queries, problems.start[0].mT))
        self.coefficients = torch.zeros_like(self.a)

    def advance(self, rates: list[float]) -> None:
        """One step for each learning rate."""
        batch = len(self.a)
        a = self.a.view(batch, 1, -1)
        coefficients = self.coefficients.view(batch, 1, -1)
        change = torch.empty_like(a)
        square = a.new_empty(batch, 1, 1)
        for rate in rates:
            r, shift = log_gradient(self.a, self.scores)
            r = r.view(batch, 1, -1)
            torch.bmm(r, self.gram, out=change)
            if self.normalized:
                torch.bmm(r, change.mT, out=square)
                # rounding may leave a square below 0 of a gradient that vanishes
                scale = square.rsqrt_().nan_to_num_(0.0, posinf=0.0)
            else:
                scale = shift.exp_()
            scale *= -rate
            a.addcmul_(change, scale)
            coefficients.addcmul_(r, scale)

    def logits(self) -> torch.Tensor:
        """(B, n, T)"""
        return self.a

    def weights(self) -> tuple[torch.Tensor]:
        """W (B, d, d)"""
        return (self.problems.start[0] + outer(self.problems, self.coefficients),)
