"""Descent on W itself, by the exact gradient or in the arithmetic of autograd."""

from __future__ import annotations

import torch

from .checks import Problems, Schedule
from .gradient import log_gradient, plain_gradient, score_function
from .products import logits_of, outer

__all__ = ["EPSILON", "WeightForm", "step_size"]

# What the authors' code adds to every norm.
EPSILON = 2.220446049250313e-16


class WeightForm:
    """W (B, d, d), one step after the other."""

    def __init__(self, problems: Problems, schedule: Schedule):
        self.problems = problems
        self.schedule = schedule
        self.scores = score_function(problems)
        self.W = problems.start[0].clone()

    def advance(self, rates: list[float]) -> None:
        """One step for each learning rate."""
        exact = self.schedule.exact
        for rate in rates:
            if exact:
                r, shift = log_gradient(self.logits(), self.scores)
            else:
                r, shift = plain_gradient(self.logits(), self.scores), None
            G = outer(self.problems, r)
            if self.schedule.normalized:
                G *= step_size(G, rate, exact)
            elif exact:
                G *= shift.exp_().mul_(rate)
            else:
                G *= rate
            self.W -= G

    def logits(self) -> torch.Tensor:
        """(B, n, T)"""
        return logits_of(self.problems, torch.bmm(self.problems.queries, self.W.mT))

    def weights(self) -> tuple[torch.Tensor]:
        """W (B, d, d)"""
        return (self.W,)


def step_size(G: torch.Tensor, rate: float, exact: bool) -> torch.Tensor:
    """rate / ||G||, (B, 1, 1): 0 for G = 0 if exact, else with EPSILON added to the norm."""
    flat = G.view(len(G), 1, -1)
    norm = torch.bmm(flat, flat.mT).sqrt_()
    if exact:
        return norm.reciprocal_().nan_to_num_(posinf=0.0).mul_(rate)
    return norm.add_(EPSILON).reciprocal_().mul_(rate)
