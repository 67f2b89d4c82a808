"""Many random problems at one size: what is feasible, what training selects, what is tight."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch

from reproductions.kernels.token_descent import token_descent

from .att_svm import att_svm
from .optimality import optimal, support
from .outcomes import Outcome, outcome
from .problems import default_start, draw

__all__ = ["Census", "census", "feasible_share"]


class Census(NamedTuple):
    """Of B problems of one size.

    Attributes:
        outcome: kinds of the selections, booleans (B,).
        feasible: whether the SVM of the optimal tokens exists, (B,).
        all_support: whether it does and all other tokens are support tokens, (B,).
        tight: share of the other tokens that are support tokens, (B,), NaN where infeasible.
    """

    outcome: Outcome
    feasible: torch.Tensor
    all_support: torch.Tensor
    tight: torch.Tensor


def census(
    seeds: Sequence[int],
    *,
    n: int,
    n_tokens: int,
    d: int,
    n_steps: int,
    device: str | torch.device = "cpu",
) -> Census:
    """Train W on each problem with normalized steps of 0.1 and classify what it selects.

    Args:
        seeds: of the problems and of their starts.
        n, n_tokens, d: sequences, tokens of each, dimension.
        n_steps: steps of the descent.
        device: where to train.
    """
    problems = draw(seeds, n=n, n_tokens=n_tokens, d=d)
    start = default_start(seeds, d).to(device)
    run = token_descent(
        *(t.to(device) for t in problems), start, learning_rate=0.1, n_steps=n_steps
    )
    best = optimal(problems.tokens, problems.labels, problems.head)
    svm = att_svm(problems.tokens, problems.queries, best)
    tight = support(svm.W, problems.tokens, problems.queries, best)
    share = tight.double().sum((-2, -1)) / (n * (n_tokens - 1))
    return Census(
        outcome(run.logits[-1].cpu(), problems),
        svm.feasible,
        svm.feasible & (share == 1),
        share.masked_fill(~svm.feasible, float("nan")),
    )


def feasible_share(seeds: Sequence[int], *, n: int, n_tokens: int, d: int) -> float:
    """Share of the problems whose optimal tokens some W separates from the others."""
    problems = draw(seeds, n=n, n_tokens=n_tokens, d=d)
    best = optimal(problems.tokens, problems.labels, problems.head)
    return att_svm(problems.tokens, problems.queries, best).feasible.double().mean().item()
