"""The definition: a forward pass, autograd, a step.

    a_it = x_it^T W z_i,   s_i = softmax(a_i),   o_i = sum_t s_it x_it,
    L = (1/n) sum_i log(1 + exp(-y_i h(o_i))) + penalty (||K||^2 + ||Q||^2),
    W <- W - eta G/||G||_F, or the same for K and Q each.

Beyond margins of about 700 the gradient underflows to zero, beyond about 30 its digits go.
"""

from __future__ import annotations

import torch

from .checks import Problems, Schedule
from .plain import EPSILON

__all__ = ["NaiveForm"]


class NaiveForm:
    """All problems at once: the sum of their losses has the gradients of each."""

    def __init__(self, problems: Problems, schedule: Schedule):
        self.problems = problems
        self.schedule = schedule
        self.parameters = [t.clone() for t in problems.start]

    def advance(self, rates: list[float]) -> None:
        """One step for each learning rate."""
        for rate in rates:
            with torch.enable_grad():
                leaves = [t.detach().requires_grad_() for t in self.parameters]
                gradients = torch.autograd.grad(self._loss(leaves).sum(), leaves)
            for t, G in zip(self.parameters, gradients, strict=True):
                norm = G.norm(dim=(-2, -1), keepdim=True)
                if not self.schedule.normalized:
                    norm = torch.ones_like(norm)
                elif self.schedule.exact:
                    norm = torch.where(norm == 0, 1.0, norm)
                else:
                    norm = norm + EPSILON
                t -= rate * G / norm

    def _loss(self, parameters):
        """L, (B,)."""
        attention = _logits(self.problems, _product(parameters)).softmax(-1)
        o = torch.einsum("bnt,bntd->bnd", attention, self.problems.tokens)
        loss = torch.log1p(torch.exp(-self.problems.labels * self._head(o))).mean(-1)
        return loss + self.schedule.penalty * sum(t.square().sum((-2, -1)) for t in parameters)

    def _head(self, o):
        """h(o), (B, n)."""
        if not callable(self.problems.head):
            return torch.einsum("bnd,bd->bn", o, self.problems.head)
        o = o.view(*self.problems.lead, *o.shape[1:])
        value, slope = self.problems.head(o.detach())
        # the value with the gradient it came with
        value = value + (slope * (o - o.detach())).sum(-1)
        return value.view(-1, value.shape[-1])

    def logits(self) -> torch.Tensor:
        """(B, n, T)"""
        return _logits(self.problems, _product(self.parameters))

    def weights(self) -> tuple[torch.Tensor, ...]:
        """W (B, d, d), and K and Q (B, d, m) where they are trained."""
        factors = self.parameters if len(self.parameters) == 2 else []
        return (_product(self.parameters), *factors)


def _product(parameters):
    """W, or K Q^T."""
    return parameters[0] if len(parameters) == 1 else parameters[0] @ parameters[1].mT


def _logits(problems, W):
    """x_it^T W z_i, -inf where masked."""
    a = torch.einsum("bntd,bde,bne->bnt", problems.tokens, W, problems.queries)
    return a if problems.mask is None else a.masked_fill(~problems.mask, -torch.inf)
