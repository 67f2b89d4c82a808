"""Gradient and normalized descent of the attention weights W, at any size of W."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from reproductions.kernels.token_descent import token_descent, token_gradient

__all__ = ["gradient_direction", "loss_and_gradient", "normalised_gd"]

Head = torch.Tensor | Callable[[torch.Tensor], tuple[torch.Tensor, torch.Tensor]]


def loss_and_gradient(
    W: torch.Tensor,
    tokens: torch.Tensor,
    labels: torch.Tensor,
    queries: torch.Tensor,
    head: Head,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return L (...) and G = dL/dW (..., d, d) of one attention layer with a fixed head.

        L(W) = (1/n) sum_i log(1 + exp(-y_i h(X_i^T softmax(X_i W z_i)))),

    Tarzanagh, Li, Thrampoulidis and Oymak 2023. The relative error of G is that of the logits;
    it becomes 0 where ||G|| leaves the range of float64, near margins of 740.

    Args:
        W: (..., d, d).
        tokens: X, (..., n, T, d).
        labels: y, (..., n), +1 or -1.
        queries: z, (..., n, d), none of them zero.
        head: v (..., d) for h(o) = v . o, or a function that returns h(o) and its gradient.

    Raises:
        ValueError: shapes that do not fit, NaN or infinity, other labels, a query that is zero.
    """
    found = token_gradient(tokens, labels, queries, head, W)
    return found.loss, found.direction * found.log_norm.exp()[..., None, None]


def gradient_direction(
    W: torch.Tensor,
    tokens: torch.Tensor,
    labels: torch.Tensor,
    queries: torch.Tensor,
    head: Head,
) -> torch.Tensor:
    """Return G/||G||_F (..., d, d), the direction in which the loss rises, exact at any W.

    Arguments and errors as for :func:`loss_and_gradient`; 0 where G = 0 (all scores of every row
    equal). At ||W|| = 1e3 the norm of G is about e^-300 and its direction still has 12 digits.
    """
    return token_gradient(tokens, labels, queries, head, W).direction


def normalised_gd(
    tokens: torch.Tensor,
    labels: torch.Tensor,
    queries: torch.Tensor,
    head: Head,
    W0: torch.Tensor,
    learning_rate: float | Sequence[float],
    n_steps: int,
) -> torch.Tensor:
    """Return W (..., d, d) after steps W <- W - learning_rate G/||G||_F from W0.

    The descent of all the paper's experiments, by exact gradients. More of it (states on the way,
    pairs (K, Q), masks, the arithmetic of the authors' code) is in
    :func:`reproductions.kernels.token_descent.token_descent`.

    Args:
        tokens, labels, queries, head: as for :func:`loss_and_gradient`.
        W0: the start, (..., d, d).
        learning_rate: length of a step, above 0, or one for each step.
        n_steps: number of steps, at least 0.

    Raises:
        ValueError: as :func:`loss_and_gradient`; ``learning_rate`` or ``n_steps`` out of range.
    """
    run = token_descent(
        tokens, labels, queries, head, W0, learning_rate=learning_rate, n_steps=n_steps
    )
    return run.W[-1]
