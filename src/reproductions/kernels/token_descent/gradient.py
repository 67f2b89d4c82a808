"""The derivative of the loss by the logits, as autograd forms it and without underflow.

With gamma_t = y x_t . grad h(o) the scores of a row's tokens, s its attention and f = y h(o),

    n dL/da_t = -sigmoid(-f) s_t (gamma_t - sum_u s_u gamma_u).

Once the attention has settled on one token, gamma_top - sum_u s_u gamma_u is the difference of
equal numbers, and later every other s_t underflows. Only differences to the score of the top token,
g_t = gamma_t - gamma_top, are safe: with q_t = sigmoid(-f) s_t g_t, zero at the top,

    n dL/da_t = s_t sum_u q_u - q_t,

and the q, all of them on one scale, can be carried by logarithms.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch.nn.functional import softplus

from .checks import Problems
from .products import row_products, row_sums

__all__ = ["Scores", "linear_scores", "log_gradient", "plain_gradient", "score_function"]

Scores = Callable[[torch.Tensor], tuple[torch.Tensor, torch.Tensor]]
"""Maps attention (B, n, T) to the scores gamma (B, n, T) and to f (B, n, 1)."""


def linear_scores(problems: Problems) -> torch.Tensor:
    """gamma = y v . x, (B, n, T), of a linear head."""
    keys = problems.head[:, None, None, :]
    return problems.labels[..., None] * (problems.tokens * keys).sum(-1)


def score_function(problems: Problems) -> Scores:
    """The token scores gamma and f = y h(o) as a function of the attention."""
    labels, head = problems.labels[..., None], problems.head
    if not callable(head):
        gamma = linear_scores(problems)
        return lambda s: (gamma, torch.linalg.vecdot(s, gamma)[..., None])
    shape = (*problems.lead, *problems.queries.shape[1:])

    def scores(s):
        value, slope = head(row_sums(problems, s).view(shape))
        for name, found, wanted in (("value", value, shape[:-1]), ("gradient", slope, shape)):
            if found.shape != wanted:
                raise ValueError(
                    f"head must return a {name} of shape {tuple(wanted)}, got {tuple(found.shape)}"
                )
        gamma = labels * row_products(problems, slope.to(s.dtype))
        return gamma, labels * value.to(s.dtype).reshape(labels.shape)

    return scores


def log_gradient(logits: torch.Tensor, scores: Scores) -> tuple[torch.Tensor, torch.Tensor]:
    """Return r (B, n, T) and a shift (B, 1, 1) with dL/da = exp(shift) r.

    ``logits`` are -inf where masked. In every problem the greatest weight in r is 1, whatever the
    size of the logits; r is 0 where all scores of every row are equal.
    """
    top, at = logits.max(-1, keepdim=True)
    below = logits - top
    s = below.exp()
    total = s.sum(-1, keepdim=True)
    s /= total
    gamma, f = scores(s)
    g = gamma - gamma.gather(-1, at)
    # log(sigmoid(-f) s), except where g = 0: there it would set the scale and count for nothing
    weight = below.sub_(softplus(f, threshold=40.0).add_(total.log_()))
    weight.masked_fill_(g.logical_not(), torch.finfo(weight.dtype).min)
    shift = weight.amax((-2, -1), keepdim=True)
    q = weight.sub_(shift).exp_().mul_(g)
    r = s.mul_(q.sum(-1, keepdim=True)).sub_(q)
    return r, shift.sub_(math.log(logits.shape[-2]))


def plain_gradient(logits: torch.Tensor, scores: Scores) -> torch.Tensor:
    """Return dL/da (B, n, T) in the order of operations of automatic differentiation."""
    s = (logits - logits.amax(-1, keepdim=True)).exp_()
    s /= s.sum(-1, keepdim=True)
    gamma, f = scores(s)
    slope = gamma * torch.sigmoid(-f).div_(-logits.shape[-2])
    return (slope - (slope * s).sum(-1, keepdim=True)).mul_(s)
