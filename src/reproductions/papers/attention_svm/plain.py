"""The layer, its loss and a normalized step as one would write them in PyTorch."""

from __future__ import annotations

import torch
from torch.nn.functional import softplus

__all__ = ["attention_loss", "autograd_descent"]


def attention_loss(W, tokens, labels, queries, head):
    """L(W) = (1/n) sum_i log(1 + exp(-y_i v . X_i^T softmax(X_i W z_i))), shape (...).

    W (..., d, d), tokens (..., n, T, d), labels (..., n), queries (..., n, d), head (..., d).
    """
    logits = torch.einsum("...itj,...jk,...ik->...it", tokens, W, queries)
    answers = torch.einsum("...it,...itj->...ij", logits.softmax(-1), tokens)
    outputs = torch.einsum("...ij,...j->...i", answers, head)
    return softplus(-labels * outputs).mean(-1)


def autograd_descent(W, problems, *, learning_rate, n_steps):
    """W <- W - learning_rate G / ||G||_F with G from automatic differentiation, (..., d, d).

    Right until the attention saturates: then G loses its digits, and later ||G|| is 0 and W
    infinite or NaN.
    """
    for _ in range(n_steps):
        W = W.detach().requires_grad_()
        (G,) = torch.autograd.grad(attention_loss(W, *problems).sum(), W)
        W = W - learning_rate * G / G.norm(dim=(-2, -1), keepdim=True)
    return W.detach()
