"""A head of ReLU units, for which several tokens survive, and the SVM that should predict W.

The experiment of Tarzanagh, Li, Thrampoulidis and Oymak (2023): normalized gradient descent on W
with the head h(o) = sum relu(o V), then tokens are sorted by their attention s into masked ones,
s <= 1e-6, and kept ones, s > 1e-3. A run with a value in between is ambiguous and thrown away, and
so is one that masks no token. For the runs accepted, W is compared with three predictions: the
solution of the SVM of the most attended tokens alone, W^mm of the generalized SVM of the tokens
kept, and

    W^fin + C W^mm,

W^fin the least matrix that gives the tokens kept their measured attention ratios and C fitted to
the W that is predicted. Labels must not all be +1; the authors skip such seeds.

A sequence with label -1 asks for h as small as can be. Once no unit is active h is 0, the least
there is, and its gradient is exactly zero: the sequence takes no further part in the descent and
keeps whatever attention it had, mostly on several tokens. ``silent`` tells these sequences from
those that keep several tokens because a balance between them is best.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch

from reproductions._validate import positive_integer
from reproductions.kernels.token_descent import token_descent

from .att_svm import att_svm
from .generalized import finite_part, generalized_svm
from .heads import KEPT, relu_head
from .outcomes import correlation
from .problems import Problems, default_start

__all__ = [
    "Funnel",
    "MultiToken",
    "Prediction",
    "active_svm",
    "multi_token_run",
    "relu_problems",
]

#: attention up to which a token counts as masked, the threshold of the authors' code
MASKED = 1e-6


class Funnel(NamedTuple):
    """How many runs are left after each condition, the last the accepted ones.

    Attributes:
        seeds: seeds asked for.
        negative: with at least one label -1; these are trained.
        unambiguous: of these, without an attention value in (1e-6, 1e-3].
        masking: of these, with a token at 1e-6 or below.
        accepted: of these, both SVMs feasible.
    """

    seeds: int
    negative: int
    unambiguous: int
    masking: int
    accepted: int


class Prediction(NamedTuple):
    """What the attention of A accepted runs predicts about their W.

    Attributes:
        which: (A,), index of each run among those trained.
        kept: tokens kept, (A, n, T).
        silent: sequences at whose attended mean no unit is active, (A, n).
        leak: largest attention on a masked token, (A,).
        finite: W^fin, (A, d, d).
        svm: W^mm of the generalized SVM, (A, d, d).
        single: W^mm of the most attended tokens, (A, d, d).
    """

    which: torch.Tensor
    kept: torch.Tensor
    silent: torch.Tensor
    leak: torch.Tensor
    finite: torch.Tensor
    svm: torch.Tensor
    single: torch.Tensor

    @property
    def several(self) -> torch.Tensor:
        """Sequences that keep more than one token, (A, n)."""
        return self.kept.sum(-1) > 1

    def misfits(self, W: torch.Tensor) -> torch.Tensor:
        """1 - correlation of W (A, d, d) with W^fin + C W^mm, W^mm and ``single``, (A, 3).

        C is fitted to W by least squares, so that the first has a parameter more than the others.
        """
        scale = ((W - self.finite) * self.svm).sum((1, 2)) / self.svm.square().sum((1, 2))
        both = self.finite + scale[:, None, None] * self.svm
        return 1.0 - torch.stack([correlation(W, p) for p in (both, self.svm, self.single)], 1)


class MultiToken(NamedTuple):
    """B trained runs at S recorded steps.

    Attributes:
        seeds: those with a label -1, (B,).
        n_seeds: how many were asked for.
        problems: the B problems, V (B, d, d) in the place of the head.
        steps: (S,).
        attention: (S, B, n, T).
        W: (S, B, d, d).
    """

    seeds: torch.Tensor
    n_seeds: int
    problems: Problems
    steps: torch.Tensor
    attention: torch.Tensor
    W: torch.Tensor

    @property
    def ambiguous(self) -> torch.Tensor:
        """Whether some attention value is in (1e-6, 1e-3], (S, B)."""
        return ((self.attention > MASKED) & (self.attention <= KEPT)).any(-1).any(-1)

    @property
    def masking(self) -> torch.Tensor:
        """Whether some attention value is at most 1e-6, (S, B)."""
        return (self.attention <= MASKED).any(-1).any(-1)

    @property
    def silent(self) -> torch.Tensor:
        """Sequences at whose attended mean no ReLU unit is active, (S, B, n): no gradient."""
        mean = (self.attention[..., None, :] @ self.problems.tokens)[..., 0, :]
        return (relu_head(self.problems.head)(mean)[1] == 0).all(-1)

    def predict(self, index: int = -1) -> Prediction:
        """The predictions from the attention at one recorded step, for the runs accepted there."""
        which = (~self.ambiguous & self.masking)[index].nonzero()[:, 0]
        tokens, _, queries, _ = self.problems.part(which)
        attention = self.attention[index, which]
        kept = attention > KEPT
        svm = generalized_svm(tokens, queries, kept)
        single = att_svm(tokens, queries, attention.argmax(-1))
        finite = finite_part(tokens, queries, attention, kept)
        leak = attention.masked_fill(kept, 0.0).amax((1, 2))
        good = svm.feasible & single.feasible
        silent = self.silent[index, which]
        found = (which, kept, silent, leak, finite, svm.W, single.W)
        return Prediction(*(t[good] for t in found))

    def funnel(self, index: int = -1) -> Funnel:
        """Counts at one recorded step."""
        unambiguous = ~self.ambiguous[index]
        masking = unambiguous & self.masking[index]
        return Funnel(
            self.n_seeds,
            len(self.seeds),
            int(unambiguous.sum()),
            int(masking.sum()),
            len(self.predict(index).which),
        )


def active_svm(problems: Problems, prediction: Prediction) -> torch.Tensor:
    """W^mm of the generalized SVM without the silent sequences, (A, d, d).

    A silent sequence exerts no force, so nothing holds W to its constraints. NaN where all are
    silent.

    Args:
        problems: those of the A accepted runs, ``run.problems.part(prediction.which)``.
        prediction: made from the same runs.
    """
    silent = prediction.silent
    # a constraint that is there twice changes nothing: an active sequence stands in for each
    stand_in = silent.long().argmin(1, keepdim=True)
    place = torch.where(silent, stand_in, torch.arange(silent.shape[1]))
    tokens = problems.tokens.take_along_dim(place[..., None, None], 1)
    queries = problems.queries.take_along_dim(place[..., None], 1)
    W = generalized_svm(tokens, queries, prediction.kept.take_along_dim(place[..., None], 1)).W
    return W.masked_fill(silent.all(1)[:, None, None], float("nan"))


def relu_problems(seeds: Sequence[int], *, n: int, n_tokens: int, d: int) -> Problems:
    """Draw one problem a seed as the authors' code does, V (B, d, d) in the place of the head.

    From a float32 generator seeded with the number, in this order: V standard normal over its
    Frobenius norm, tokens and labels and queries as for ``draw``; then float64. The authors' seeds
    start at 1.

    Raises:
        ValueError: no seed; n or d below 1, n_tokens below 2.
    """
    positive_integer("n", n)
    positive_integer("n_tokens", n_tokens, low=2)
    positive_integer("d", d)
    if not len(seeds):
        raise ValueError("seeds must name at least one problem, got none")
    drawn = []
    for seed in seeds:
        g = torch.Generator().manual_seed(positive_integer("seed", seed, low=0))
        V, x, y, z = (
            torch.randn(shape, generator=g) for shape in ((d, d), (n, n_tokens, d), (n,), (n, d))
        )
        x, z = (t / t.norm(dim=-1, keepdim=True) for t in (x, z))
        drawn.append((x, torch.where(y > 0, 1.0, -1.0), z, V / V.norm()))
    return Problems(*(torch.stack(part).double() for part in zip(*drawn, strict=True)))


def multi_token_run(
    seeds: Sequence[int],
    d: int,
    *,
    n: int = 3,
    n_tokens: int = 4,
    n_steps: int = 2001,
    record: Sequence[int] | None = None,
    learning_rate: float = 0.1,
    gradient: str = "plain",
) -> MultiToken:
    """Train W on :func:`relu_problems`, by default as the authors do.

    W(0) is uniform within 1/sqrt(d), for each problem from its own seed (``default_start``).

    Args:
        seeds: of the problems; those whose labels are all +1 are skipped.
        d: dimension.
        n: sequences of a problem.
        n_tokens: T.
        n_steps: steps.
        record: ascending step numbers to look at; the last by default.
        learning_rate: length of each step.
        gradient: ``"plain"``, the authors' arithmetic, or ``"exact"``, as for ``token_descent``.

    Raises:
        ValueError: as for :func:`relu_problems` and ``token_descent``; no seed with a label -1.
    """
    problems = relu_problems(seeds, n=n, n_tokens=n_tokens, d=d)
    negative = (problems.labels < 0).any(-1)
    if not negative.any():
        raise ValueError("seeds must name a problem with a label of -1, got none")
    problems, used = problems.part(negative), torch.as_tensor(seeds)[negative]
    tokens, labels, queries, V = problems
    run = token_descent(
        tokens,
        labels,
        queries,
        relu_head(V),
        default_start(used.tolist(), d),
        learning_rate=learning_rate,
        n_steps=n_steps,
        record=record,
        gradient=gradient,
    )
    return MultiToken(used, len(seeds), problems, run.steps, run.attention, run.W)
