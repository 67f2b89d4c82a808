"""Descent on the two factors of W = K Q^T, each along its own normalized gradient.

With u_i = Q^T z_i the logits are x_it . K u_i, and from p_i = X_i^T r_i, r = dL/da,

    dL/dK = G Q = sum_i p_i u_i^T,    dL/dQ = G^T K = sum_i z_i (K^T p_i)^T:

thin products, G itself is never formed.
"""

from __future__ import annotations

import math

import torch

from .checks import Problems, Schedule
from .gradient import log_gradient, plain_gradient, score_function
from .plain import step_size
from .products import logits_of, row_sums

__all__ = ["FactorForm"]


class FactorForm:
    """K and Q (B, d, m), one step after the other."""

    def __init__(self, problems: Problems, schedule: Schedule):
        self.problems = problems
        self.schedule = schedule
        self.scores = score_function(problems)
        self.K, self.Q = (t.clone() for t in problems.start)

    def advance(self, rates: list[float]) -> None:
        """One step for each learning rate."""
        problems, exact = self.problems, self.schedule.exact
        decay = 2 * self.schedule.penalty
        for rate in rates:
            u = torch.bmm(problems.queries, self.Q)
            a = logits_of(problems, torch.bmm(u, self.K.mT))
            if exact:
                r, shift = log_gradient(a, self.scores)
            else:
                r, shift = plain_gradient(a, self.scores), None
            p = row_sums(problems, r)
            slopes = torch.bmm(p.mT, u), torch.bmm(problems.queries.mT, torch.bmm(p, self.K))
            share = decay
            if exact and decay:
                # loss and penalty on the scale of the greater of the two
                common = shift.clamp(min=math.log(decay))
                for slope in slopes:
                    slope *= (shift - common).exp_()
                share = (math.log(decay) - common).exp_()
                shift = common
            if decay:
                for slope, factor in zip(slopes, (self.K, self.Q), strict=True):
                    slope += share * factor
            for slope, factor in zip(slopes, (self.K, self.Q), strict=True):
                if self.schedule.normalized:
                    size = step_size(slope, rate, exact)
                elif exact:
                    size = shift.exp().mul_(rate)
                else:
                    size = rate
                factor -= slope.mul_(size)

    def logits(self) -> torch.Tensor:
        """(B, n, T)"""
        return logits_of(self.problems, torch.bmm(self.problems.queries @ self.Q, self.K.mT))

    def weights(self) -> tuple[torch.Tensor, ...]:
        """W (B, d, d), K and Q (B, d, m)"""
        return torch.bmm(self.K, self.Q.mT), self.K, self.Q
