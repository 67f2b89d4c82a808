"""What a run came to: its direction, the tokens that it selected, and what kind of selection."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch

from reproductions._validate import finite, positive_integer
from reproductions.kernels.token_descent import Descent

from .descent import gradient_direction
from .optimality import is_locally_optimal, margins, optimal, scores
from .problems import Problems

__all__ = [
    "Outcome",
    "correlation",
    "first_step_separates",
    "largest_attention",
    "outcome",
    "runner_up",
    "standard_error",
]


class Outcome(NamedTuple):
    """Kind of selection of each problem, all (...,) booleans, for one moment of its run.

    Attributes:
        saturated: in every sequence one token has more than 99 % of the attention.
        globally: the most attended tokens are the optimal ones.
        locally: they are locally optimal, which globally optimal ones are too.
    """

    saturated: torch.Tensor
    globally: torch.Tensor
    locally: torch.Tensor


def correlation(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Return <A, B> / (|A| |B|) of matrices (..., d, d), the cosine of the angle between them.

    NaN where one of them is zero, or NaN as the solution of an infeasible problem is.
    """
    return (a * b).sum((-2, -1)) / (a.norm(dim=(-2, -1)) * b.norm(dim=(-2, -1)))


def standard_error(values: torch.Tensor) -> dict[str, object]:
    """Options of ``measured``: the mean of ``values`` (n,) with one standard error to each side.

    A single value tells nothing of its error: the spread is None.
    """
    values = torch.as_tensor(values).double().flatten()
    if len(values) < 2:
        return {"spread": None, "n_seeds": len(values)}
    error = values.std().item() / math.sqrt(len(values))
    mean = values.mean().item()
    return {"spread": (mean - error, mean + error), "n_seeds": len(values)}


def largest_attention(descent: Descent) -> torch.Tensor:
    """Mean over the sequences of the largest attention weight, (S, ...)."""
    return descent.attention.amax(-1).mean(-1)


def outcome(logits: torch.Tensor, problems: Problems, *, w: torch.Tensor | None = None) -> Outcome:
    """Classify the selections that the logits (..., n, T) of the problems have arrived at.

    Args:
        logits: of one recorded step; of several, if there are axes in front.
        problems: the batch.
        w: the solution that decides what is a support token, (..., d, d); by default the
            Frobenius-norm SVM of the selected tokens.

    Raises:
        ValueError: logits of another shape than the tokens, or not finite.
    """
    wanted = tuple(problems.tokens.shape[:-1])
    if tuple(logits.shape[-len(wanted) :]) != wanted:
        raise ValueError(f"logits must be those of tokens {wanted}, got {tuple(logits.shape)}")
    selected = finite("logits", logits).argmax(-1)
    return Outcome(
        (logits.softmax(-1).amax(-1) > 0.99).all(-1),
        (selected == optimal(problems.tokens, problems.labels, problems.head)).all(-1),
        is_locally_optimal(*problems, selected, W=w),
    )


def first_step_separates(problems: Problems) -> torch.Tensor:
    """Whether one step of gradient descent from W = 0 gives every optimal token the largest logit.

    The hypothesis of the paper's first theorem on global convergence, (...,) booleans.

    Raises:
        ValueError: as :func:`gradient_direction`.
    """
    tokens, labels, queries, head = problems
    best = optimal(tokens, labels, head)
    zero = head.new_zeros(*head.shape, head.shape[-1])
    gap = margins(-gradient_direction(zero, *problems), tokens, queries, best)
    return (gap.scatter(-1, best[..., None], torch.inf) > 0).all((-2, -1))


def runner_up(problems: Problems, sequence: int = 0) -> torch.Tensor:
    """Return the optimal selection (..., n), one sequence moved to its token of second score.

    Raises:
        ValueError: ``sequence`` outside 0 to n - 1, sequences of one token, problems as
            :func:`scores` refuses them.
    """
    tokens, labels, _, head = problems
    gamma = scores(tokens, labels, head)
    n, n_tokens = gamma.shape[-2:]
    positive_integer("sequence", sequence, low=0)
    if sequence >= n:
        raise ValueError(f"sequence must be from 0 to {n - 1}, got {sequence}")
    if n_tokens < 2:
        raise ValueError("tokens must be at least 2 a sequence, got 1")
    selected = gamma.argmax(-1)
    rest = gamma.scatter(-1, selected[..., None], -torch.inf)
    selected[..., sequence] = rest[..., sequence, :].argmax(-1)
    return selected
