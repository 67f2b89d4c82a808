"""Descent on the attention and on the head together, which the paper's theory does not cover."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch.nn.functional import logsigmoid

from reproductions._validate import finite, positive_integer, within

from .descent import gradient_direction
from .problems import Problems

__all__ = ["TrainedHead", "train_with_head"]


class TrainedHead(NamedTuple):
    """After training: W (..., d, d), v (..., d) and the logits (..., n, T)."""

    W: torch.Tensor
    head: torch.Tensor
    logits: torch.Tensor


def train_with_head(
    problems: Problems, start: torch.Tensor, *, learning_rate: float, n_steps: int
) -> TrainedHead:
    """Descend along the gradient in W and along that in v, each normalized, from (W(0), v).

    Both steps are taken at once, W's as in :func:`gradient_direction` with the head of the moment.
    With attention s_i and margins f_i = y_i v.X_i^T s_i,

        dL/dv = -(1/n) sum_i sigmoid(-f_i) y_i X_i^T s_i,

    on the scale of its largest factor sigmoid(-f_i), so that it does not underflow either. A
    gradient that is exactly zero leaves its parameter as it is.

    Args:
        problems: the batch; its head is the start of v.
        start: W(0), (..., d, d), with the leading axes of the problems.
        learning_rate: length of each step, for W and for v, above 0.
        n_steps: steps, at least 0.

    Raises:
        ValueError: ``learning_rate`` or ``n_steps`` out of range, a start of another shape,
            problems as :func:`gradient_direction` refuses them.
    """
    within("learning_rate", learning_rate, 0.0, open_low=True)
    positive_integer("n_steps", n_steps, low=0)
    tokens, labels, queries, v = problems
    W = finite("start", start)
    if W.shape != (wanted := (*v.shape, v.shape[-1])):
        raise ValueError(f"start must have the shape {wanted}, got {tuple(W.shape)}")
    for _ in range(n_steps):
        W_slope = gradient_direction(W, tokens, labels, queries, v)
        answers = (_logits(W, problems).softmax(-1)[..., None, :] @ tokens).squeeze(-2)
        pull = logsigmoid(-labels * (answers @ v[..., None]).squeeze(-1))
        pull = (pull - pull.amax(-1, keepdim=True)).exp() * labels
        v_slope = -(pull[..., None, :] @ answers).squeeze(-2)
        length = v_slope.norm(dim=-1, keepdim=True)
        W = W - learning_rate * W_slope
        v = v - learning_rate * v_slope / torch.where(length > 0, length, 1.0)
    return TrainedHead(W, v, _logits(W, problems))


def _logits(W: torch.Tensor, problems: Problems) -> torch.Tensor:
    """x_it^T W z_i, (..., n, T)."""
    return (problems.tokens @ (problems.queries @ W.mT)[..., None]).squeeze(-1)
