"""Heads that are not linear, and the one whose attention has a closed form.

A head is a function h of the attended mean o_i = X_i^T s_i. Two are studied: a ReLU layer, and

    h(o) = v^T o - lambda |o|^2,

which pays for a large |o|. On orthonormal tokens |o|^2 = |s|^2, so that with labels +1 the loss
asks each sequence to maximize gamma^T s - lambda |s|^2 over the simplex. Completing the square,
that is the projection of gamma / (2 lambda) on the simplex,

    s* = sparsemax(gamma / (2 lambda))

(Martins and Astudillo 2016): exactly zero on tokens of low score, the more tokens kept the larger
lambda is. Softmax attention reaches it only in the limit, and W only at infinity.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch

from reproductions._validate import finite, positive_integer, within
from reproductions.kernels.token_descent import token_descent

from .generalized import generalized_svm
from .optimality import margins, scores
from .problems import Problems

__all__ = [
    "KEPT",
    "Head",
    "LambdaRun",
    "keeps_local_optimum",
    "lambda_experiment",
    "orthonormal_problems",
    "quadratic_head",
    "relu_head",
    "sparsemax",
]

#: attention from which a token counts as kept, the threshold of the authors' code
KEPT = 1e-3

#: o (..., n, d) -> h(o) (..., n) and its gradient (..., n, d)
Head = Callable[[torch.Tensor], tuple[torch.Tensor, torch.Tensor]]


def sparsemax(z: torch.Tensor) -> torch.Tensor:
    """Project ``z`` on the simplex along its last axis: argmin of |s - z|^2 over s >= 0, sum s = 1.

    s = max(z - tau, 0) with tau such that it sums to one; tau follows from the sorted entries
    (Martins and Astudillo 2016). Same shape as ``z``, float64.

    Raises:
        ValueError: no entry along the last axis; NaN or infinity.
    """
    z = finite("z", z)
    if not z.ndim or not z.shape[-1]:
        raise ValueError(f"z must have an entry along its last axis, got shape {tuple(z.shape)}")
    # the largest entry is always kept: relative to it nothing large is added up
    z = z - z.amax(-1, keepdim=True)
    ranked = z.sort(-1, descending=True).values
    excess = ranked.cumsum(-1) - 1.0
    counts = torch.arange(1, z.shape[-1] + 1, dtype=z.dtype, device=z.device)
    kept = (counts * ranked > excess).sum(-1, keepdim=True)
    return (z - excess.gather(-1, kept - 1) / kept).clamp_min(0.0)


def relu_head(V: torch.Tensor) -> Head:
    """h(o) = sum_j max((o^T V)_j, 0), a layer of ReLU units with weights one on top.

    Args:
        V: (..., d, m), its leading axes those of the problems.

    Raises:
        ValueError: NaN or infinity, fewer than two axes.
    """
    V = finite("V", V)
    if V.ndim < 2:
        raise ValueError(f"V must be (..., d, m), got shape {tuple(V.shape)}")

    def head(o):
        hidden = o @ V
        return hidden.clamp_min(0.0).sum(-1), (hidden > 0).to(o) @ V.mT

    return head


def quadratic_head(v: torch.Tensor, penalty: torch.Tensor | float) -> Head:
    """h(o) = v^T o - lambda |o|^2.

    Args:
        v: (..., d).
        penalty: lambda, at least 0; a number or one a problem (...).

    Raises:
        ValueError: NaN or infinity, a negative penalty.
    """
    v = finite("v", v)
    penalty = within("penalty", penalty, 0.0)

    def head(o):
        value = (o @ v[..., None])[..., 0] - penalty[..., None] * o.square().sum(-1)
        return value, v[..., None, :] - 2.0 * penalty[..., None, None] * o

    return head


def orthonormal_problems(seeds: Sequence[int], *, n: int, d: int, n_tokens: int) -> Problems:
    """Draw one problem a seed with orthonormal tokens and labels +1.

    Head v and queries are uniform on the unit sphere; the tokens of a sequence are the rows of Q^T,
    Q from the QR decomposition of a standard normal matrix (d, T). The authors' generator takes the
    left factor of an SVD of (T, d) matrices instead: it is orthonormal in its columns, and its rows
    have min(T, d) entries, so that only T = d gives tokens that are both of dimension d and
    orthonormal, as the closed form needs them.

    Raises:
        ValueError: more tokens than dimensions; no seed, n below 1, n_tokens below 2.
    """
    positive_integer("n", n)
    positive_integer("n_tokens", n_tokens, low=2)
    positive_integer("d", d)
    if n_tokens > d:
        raise ValueError(
            f"n_tokens must be at most d = {d}, or they cannot be orthonormal; got {n_tokens}"
        )
    if not len(seeds):
        raise ValueError("seeds must name at least one problem, got none")
    drawn = []
    for seed in seeds:
        g = torch.Generator().manual_seed(positive_integer("seed", seed, low=0))
        v, normal, z = (
            torch.randn(shape, generator=g, dtype=torch.float64)
            for shape in ((d,), (n, d, n_tokens), (n, d))
        )
        tokens = torch.linalg.qr(normal).Q.mT.contiguous()
        drawn.append((tokens, v.new_ones(n), z / z.norm(dim=1, keepdim=True), v / v.norm()))
    return Problems(*(torch.stack(part) for part in zip(*drawn, strict=True)))


class LambdaRun(NamedTuple):
    """Attention after training with the head v^T o - lambda |o|^2, beside its closed form.

    Attributes:
        problems: the B problems.
        penalties: lambda, (L,).
        attention: softmax of the trained W, (L, B, n, T).
        target: sparsemax(gamma / (2 lambda)), (L, B, n, T).
    """

    problems: Problems
    penalties: torch.Tensor
    attention: torch.Tensor
    target: torch.Tensor

    @property
    def errors(self) -> torch.Tensor:
        """Largest difference over the tokens of a problem, (L, B)."""
        return (self.attention - self.target).abs().amax((-2, -1))

    @property
    def kept(self) -> torch.Tensor:
        """Tokens with more than 0.1 % of the attention, mean over the sequences, (L, B)."""
        return (self.attention > KEPT).double().sum(-1).mean(-1)

    @property
    def target_kept(self) -> torch.Tensor:
        """Tokens that sparsemax keeps, mean over the sequences, (L, B)."""
        return (self.target > 0).double().sum(-1).mean(-1)

    @property
    def locally_optimal(self) -> torch.Tensor:
        """Whether the tokens kept are locally optimal, (L, B): :func:`keeps_local_optimum`."""
        tokens, labels, queries, v = self.problems
        head = quadratic_head(v, self.penalties[:, None])
        return keeps_local_optimum(tokens, labels, queries, head, self.attention)


def lambda_experiment(
    seeds: Sequence[int],
    penalties: Sequence[float],
    *,
    d: int,
    n: int = 3,
    n_tokens: int = 4,
    n_steps: int = 6000,
    learning_rate: float = 0.1,
) -> LambdaRun:
    """Train W from 0 with the head v^T o - lambda |o|^2 on :func:`orthonormal_problems`.

    Normalized gradient descent, its steps falling linearly from ``learning_rate`` to 0, since
    steps of constant length never settle on tokens that share the attention. A token that is to
    lose its attention beside others that share it does so like one over the number of steps, for
    any such schedule: the error left is of that order.

    Args:
        seeds: one a problem, B.
        penalties: lambda, L of them, greater than 0.
        d: dimension.
        n: sequences of a problem.
        n_tokens: T, at most d.
        n_steps: steps.
        learning_rate: length of the first step.

    Raises:
        ValueError: as for :func:`orthonormal_problems`; a penalty, ``n_steps`` or
            ``learning_rate`` out of range.
    """
    penalties = within("penalties", list(penalties), 0.0, open_low=True)
    positive_integer("n_steps", n_steps)
    learning_rate = within("learning_rate", learning_rate, 0.0, open_low=True).item()
    problems = orthonormal_problems(seeds, n=n, d=d, n_tokens=n_tokens)
    tokens, labels, queries, v = problems
    run = token_descent(
        tokens,
        labels,
        queries,
        quadratic_head(v, penalties[:, None]),
        tokens.new_zeros(len(penalties), len(tokens), d, d),
        learning_rate=learning_rate * (1.0 - torch.arange(n_steps, dtype=tokens.dtype) / n_steps),
        n_steps=n_steps,
    )
    gamma = scores(tokens, labels, v)
    return LambdaRun(
        problems,
        penalties,
        run.attention[0],
        sparsemax(gamma / (2.0 * penalties[:, None, None, None])),
    )


def keeps_local_optimum(
    tokens: torch.Tensor,
    labels: torch.Tensor,
    queries: torch.Tensor,
    head: Head,
    attention: torch.Tensor,
) -> torch.Tensor:
    """Whether the tokens kept are locally optimal, for any head, (...) booleans.

    The notion of Tarzanagh et al. for one selected token, carried over to several: at the attended
    mean, the scores y_i x_it^T grad h(o_i) of all dropped tokens that are support tokens of the
    generalized SVM lie below that of the most attended token. A support token of higher score would
    be let in again, however far W has gone.

    Args:
        tokens: (..., n, T, d).
        labels: +-1, (..., n).
        queries: (..., n, d).
        head: h.
        attention: of a trained W, (..., n, T); kept is what has more than 0.1 %.
    """
    kept = attention > KEPT
    svm = generalized_svm(tokens, queries, kept)
    top = attention.argmax(-1)
    tight = (margins(svm.W, tokens, queries, top) < 1 + 1e-6) & ~kept
    mean = (attention[..., None, :] @ tokens)[..., 0, :]
    gamma = labels[..., None] * (tokens @ head(mean)[1][..., None])[..., 0]
    below = gamma < gamma.gather(-1, top[..., None])
    return (below | ~tight).all((-2, -1)) & svm.feasible
