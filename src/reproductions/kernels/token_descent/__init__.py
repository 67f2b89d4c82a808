"""Gradient descent on the weights of one attention layer that learns to select tokens.

``naive`` is a loop with autograd; ``batched`` carries the nT logits of each problem by a Gram
matrix, ``plain`` the weights W and ``factors`` a pair (K, Q); ``triton`` runs every problem in a
program of its own. :func:`token_gradient` is one gradient, exact at any size of W.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib.util import find_spec
from typing import NamedTuple

import torch
from torch.nn.functional import softplus

from reproductions._validate import choice

from .batched import KernelForm
from .checks import Problems, Schedule, problems, schedule
from .factors import FactorForm
from .gradient import log_gradient, score_function
from .naive import NaiveForm
from .plain import WeightForm
from .products import logits_of, outer, padded

__all__ = ["Descent", "TokenGradient", "token_descent", "token_gradient"]

BACKENDS = ("auto", "naive", "batched", "triton")
# Tokens of a problem, padded, that Triton takes: beyond, the Gram matrix fills the registers.
_MOST_TOKENS = 128
# Bytes of Gram matrices, or of tokens and weights, that the problems at work may take: the steps
# read them again and again. On accelerators all problems go together.
_BLOCK = {KernelForm: 1 << 20, WeightForm: 1 << 22, FactorForm: 1 << 22}


class Descent(NamedTuple):
    """States of a descent at S recorded steps."""

    steps: torch.Tensor
    """(S,), integers: the steps taken before each record."""
    logits: torch.Tensor
    """x_it^T W z_i, (S, ..., n, T), -inf where masked."""
    W: torch.Tensor
    """(S, ..., d, d), the product K Q^T if a pair was trained."""
    factors: tuple[torch.Tensor, torch.Tensor] | None
    """K and Q, (S, ..., d, m) each, or None."""

    @property
    def attention(self) -> torch.Tensor:
        """softmax of the logits, (S, ..., n, T)."""
        return self.logits.softmax(-1)


class TokenGradient(NamedTuple):
    """Loss and gradient at one W, the gradient as direction and logarithm of its length."""

    loss: torch.Tensor
    """L, (...)."""
    direction: torch.Tensor
    """G/||G||_F, (..., d, d); 0 where G = 0."""
    log_norm: torch.Tensor
    """log ||G||_F, (...); -inf where G = 0."""


@torch.no_grad()
def token_descent(
    tokens: torch.Tensor,
    labels: torch.Tensor,
    queries: torch.Tensor,
    head: torch.Tensor | Callable[[torch.Tensor], tuple[torch.Tensor, torch.Tensor]],
    start: torch.Tensor | tuple[torch.Tensor, torch.Tensor],
    *,
    learning_rate: float | Sequence[float] | torch.Tensor,
    n_steps: int,
    record: Sequence[int] | None = None,
    mask: torch.Tensor | None = None,
    gradient: str = "exact",
    penalty: float = 0.0,
    normalized: bool = True,
    backend: str = "auto",
) -> Descent:
    """Train the weights of one attention layer by normalized gradient descent.

    A row i of a problem has tokens x_it, a query z_i and a label y_i. The layer attends by
    s_i = softmax_t(x_it^T W z_i), puts out o_i = sum_t s_it x_it, and a fixed head h reads it:

        L(W) = (1/n) sum_i log(1 + exp(-y_i h(o_i))),       W <- W - eta G/||G||_F,   G = dL/dW.

    With a pair (K, Q) for ``start``, W = K Q^T, the loss gains penalty (||K||^2 + ||Q||^2) and each
    factor takes a normalized step of its own, both at once. The model and the descent of Tarzanagh,
    Li, Thrampoulidis and Oymak 2023 (arXiv 2308.16898).

    The loss is lowered by W growing without bound while the softmax turns one-hot, so its gradient
    shrinks as exp(-||W||). ``gradient="exact"`` has the right direction at every size of W: score
    differences to the top token replace the score less its mean, and the rows' weights are carried
    by logarithms. ``gradient="plain"`` is float64 as automatic differentiation would have it, and
    2.2e-16 is added to every norm; it stalls and then drifts once the gradient is that small.

    Where the gradient is exactly zero (all scores of every row are equal, or Q = 0 for that of K)
    the weights stay as they are.

    Args:
        tokens: x, (..., n, T, d), finite. All axes in front broadcast against each other: many
            problems, or many starts of one. Everything is computed in float64.
        labels: y, (..., n), +1 or -1.
        queries: z, (..., n, d), none of them zero.
        head: v, (..., d), for h(o) = v . o; or a function that maps o (..., n, d) to h(o) (..., n)
            and its gradient by o (..., n, d), called with all problems at once.
        start: W, (..., d, d), or a pair K, Q, (..., d, m) each.
        learning_rate: eta, the length of every step, above 0; or ``n_steps`` of them.
        n_steps: number of steps, at least 0.
        record: ascending step numbers from 0, the start, to ``n_steps``; the last by default.
        mask: (..., n, T), True where a token may be attended to; all by default.
        gradient: ``"exact"`` or ``"plain"``.
        penalty: weight of ||K||^2 + ||Q||^2, at least 0; for a pair only.
        normalized: False for ordinary steps -eta G.
        backend: ``"naive"`` (autograd, for tests; it underflows under both names of ``gradient``),
            ``"batched"`` (torch, any device), ``"triton"`` (CUDA; normalized exact descent on W
            with a linear head) or ``"auto"``: Triton for CUDA tensors where it can, else batched.

    Returns:
        The states at the S recorded steps, detached, on the device of ``tokens``.

    Raises:
        ValueError: shapes that do not fit, NaN or infinity, labels other than +1 and -1, a query
            that is zero, a mask that leaves a row no token, ``learning_rate`` not above 0 or too
            few or many of them, ``n_steps`` below 0, a ``record`` that does not ascend or leaves
            its range, ``penalty`` below 0 or with W, an unknown ``gradient`` or ``backend``, Triton
            where it is missing or for what it cannot do.
    """
    choice("backend", backend, BACKENDS)
    data = problems(tokens, labels, queries, head, start, mask)
    pair = len(data.start) == 2
    plan = schedule(learning_rate, n_steps, record, gradient, penalty, normalized, pair)
    form = _form(backend, data, plan)
    batch, n, T, d = data.tokens.shape
    shapes = [(n, T), (d, d), *(t.shape[1:] for t in data.start if pair)]
    states = [data.tokens.new_empty(len(plan.record), batch, *shape) for shape in shapes]
    for rows in _blocks(form, data):
        descent = form(data.part(rows), plan)
        done = 0
        for index, step in enumerate(plan.record):
            descent.advance(plan.rates[done:step])
            done = step
            now = (descent.logits(), *descent.weights())
            for state, value in zip(states, now, strict=True):
                state[index, rows] = value
    logits, W, *factors = (t.view(len(t), *data.lead, *t.shape[2:]) for t in states)
    steps = torch.tensor(plan.record, device=W.device)
    return Descent(steps, logits, W, tuple(factors) if pair else None)


@torch.no_grad()
def token_gradient(
    tokens: torch.Tensor,
    labels: torch.Tensor,
    queries: torch.Tensor,
    head: torch.Tensor | Callable[[torch.Tensor], tuple[torch.Tensor, torch.Tensor]],
    W: torch.Tensor,
    *,
    mask: torch.Tensor | None = None,
) -> TokenGradient:
    """Return the loss of :func:`token_descent` at W and its gradient G, exact at any size of W.

    Args:
        tokens, labels, queries, head, mask: as for :func:`token_descent`.
        W: (..., d, d), paper's orientation: logits x^T W z.

    Returns:
        Loss, direction and logarithm of the norm of G: the norm itself underflows near ||W|| = 1e3.

    Raises:
        ValueError: shapes that do not fit, NaN or infinity, labels other than +1 and -1, a query
            that is zero, a mask that leaves a row no token.
    """
    data = problems(tokens, labels, queries, head, W, mask, "W")
    scores = score_function(data)
    logits = logits_of(data, torch.bmm(data.queries, data.start[0].mT))
    _, f = scores(logits.softmax(-1))
    r, shift = log_gradient(logits, scores)
    G = outer(data, r)
    norm = torch.linalg.vector_norm(G, dim=(-2, -1), keepdim=True)
    direction = G / torch.where(norm > 0, norm, 1.0)
    loss = softplus(-f, threshold=40.0).mean(-2)[:, 0]
    log_norm = (norm.log() + shift)[:, 0, 0]
    return TokenGradient(
        loss.view(data.lead), direction.view(*data.lead, *G.shape[1:]), log_norm.view(data.lead)
    )


def _form(backend: str, data: Problems, plan: Schedule) -> type:
    """The class that takes the steps."""
    if backend == "naive":
        return NaiveForm
    wanted = backend == "triton" or (backend == "auto" and data.tokens.is_cuda)
    if wanted:
        obstacle = _triton_cannot(data, plan)
        if obstacle is None:
            from .triton import TritonForm

            return TritonForm
        if backend == "triton":
            raise ValueError(f"backend must be batched or auto where {obstacle}; got 'triton'")
    if len(data.start) == 2:
        return FactorForm
    return KernelForm if plan.exact and _kernel_is_cheaper(data) else WeightForm


def _triton_cannot(data: Problems, plan: Schedule) -> str | None:
    """Why not, in words, or None."""
    if find_spec("triton") is None:
        return "triton is missing"
    if len(data.start) == 2:
        return "start is a pair"
    if callable(data.head):
        return "head is a function"
    if not plan.exact:
        return "gradient is plain"
    if not plan.normalized:
        return "normalized is False"
    rows, tokens = padded(*data.tokens.shape[1:3])
    if rows * tokens > _MOST_TOKENS:
        return f"a problem has more than {_MOST_TOKENS} tokens, padded to {rows} times {tokens}"
    return None


def _kernel_is_cheaper(data: Problems) -> bool:
    """Whether a step by the Gram matrix beats one by W: where the sizes are few, not d.

    A multiplication by the Gram matrix, read in one piece, takes half the time of one of the small
    products (measured for n from 2 to 80, T from 3 to 64, d from 2 to 200).
    """
    _, n, T, d = data.tokens.shape
    return (n * T) ** 2 <= 4 * n * d * (T + d)


def _blocks(form: type, data: Problems) -> list[slice]:
    """Problems to work on at a time."""
    batch, n, T, d = data.tokens.shape
    size = batch
    if form in _BLOCK and not data.tokens.is_cuda and not callable(data.head):
        each = (n * T) ** 2 if form is KernelForm else n * T * d + 4 * d * d
        size = max(1, _BLOCK[form] // (8 * each))
    return [slice(first, first + size) for first in range(0, batch, max(1, size))]
