"""The loss at large norm, and its minimum over a ball (the regularization path).

No finite W attains the infimum L_* = (1/n) sum_i log(1 + exp(-gamma_i,opt)) of the loss: every one
leaves some attention on tokens that are not optimal. What is left of the loss above L_* is of the
order exp(-margin), soon far below what double precision resolves of L itself. With

    g_i = sum_t s_it (gamma_i,opt - gamma_it),

    ell(gamma_opt - g) - ell(gamma_opt) = log1p(sigmoid(-gamma_opt) expm1(g)),

the excess L(W) - L_* is a sum of positive terms and its logarithm is known to full precision at any
norm of W (Tarzanagh, Li, Thrampoulidis and Oymak 2023 state the limit, not this form). That
logarithm, log-sum-exp of functions that become linear in W as the norm grows, is also the right
thing to minimize: on a ball of any radius Newton's method takes ten to thirty steps.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch

from reproductions._validate import finite, within

from .att_svm import att_svm
from .descent import gradient_direction
from .optimality import optimal, scores

__all__ = ["ball_minimum", "excess_loss", "stationarity"]

#: squared sine of the angle between W and the negative gradient at which Newton stops
TOLERANCE = 1e-20
MAX_STEPS = 200


def excess_loss(
    W: torch.Tensor,
    tokens: torch.Tensor,
    labels: torch.Tensor,
    queries: torch.Tensor,
    head: torch.Tensor,
) -> torch.Tensor:
    """log(L(W) - L_*), without cancellation at any norm of W; shape (...).

    L(W) = (1/n) sum_i log(1 + exp(-y_i v^T X_i^T softmax(X_i W z_i))) and L_* is the value in the
    limit of all attention on the tokens of the highest score y_i v^T x_it. Minus infinity where
    nothing can be lost: all tokens of every sequence have the same score.

    Args:
        W: (..., d, d); its leading axes broadcast against those of the problems.
        tokens: (..., n, T, d).
        labels: +-1, (..., n).
        queries: (..., n, d).
        head: v, (..., d).

    Raises:
        ValueError: NaN or infinity in W.
    """
    W = finite("W", W)
    logits = torch.einsum("...itd,...de,...ie->...it", tokens, W, queries)
    return _Excess(logits, scores(tokens, labels, head)).value


def stationarity(
    W: torch.Tensor,
    tokens: torch.Tensor,
    labels: torch.Tensor,
    queries: torch.Tensor,
    head: torch.Tensor,
) -> torch.Tensor:
    """1 - cos of the angle between W and the negative gradient of L at W, (...).

    0 exactly where W is stationary on the sphere of its own norm with the loss falling outwards:
    the Karush-Kuhn-Tucker conditions of the minimum of L over the ball.
    """
    down = -gradient_direction(W, tokens, labels, queries, head)
    W = W / W.flatten(-2).norm(dim=-1)[..., None, None]
    # half the squared chord: 1 - <., .> would be rounding noise below 1e-16
    return 0.5 * (W - down).square().sum((-2, -1))


def ball_minimum(
    tokens: torch.Tensor,
    labels: torch.Tensor,
    queries: torch.Tensor,
    head: torch.Tensor,
    radius: float,
    *,
    start: torch.Tensor | None = None,
) -> torch.Tensor:
    """W minimizing the loss over ||W||_F <= R, (..., d, d): a point of the regularization path.

    The loss falls along some ray to its infimum at infinity, so the minimum lies on the sphere. It
    is sought there by damped Newton steps on log(L - L_*), each accepted only if that falls. The
    loss is not convex: the result is a minimum near ``start``, to be certified as stationary by
    :func:`stationarity`, and the least one only as far as other starts find nothing lower. As R
    grows W / R approaches the max-margin direction (Tarzanagh et al. 2023).

    Args:
        tokens: (..., n, T, d).
        labels: +-1, (..., n).
        queries: (..., n, d).
        head: v, (..., d).
        radius: R.
        start: (..., d, d), of any norm but 0; by default the max-margin solution of the tokens of
            highest score. At large R it should select these tokens: elsewhere the excess hardly
            changes along the sphere and Newton's method may stall.

    Raises:
        ValueError: R not above 0; a start that is 0 or of another shape, or none where the SVM is
            infeasible; a problem in which every token of every sequence has the same score, since
            all W are minima.
    """
    radius = within("radius", radius, 0.0, open_low=True).item()
    gamma = scores(tokens, labels, head)
    if (gamma == gamma[..., :1]).all(-1).all(-1).any():
        raise ValueError(
            "tokens must differ in score somewhere in every problem: got one in which every W "
            "has the same loss"
        )
    if start is None:
        solution = att_svm(tokens, queries, optimal(tokens, labels, head))
        if not solution.feasible.all():
            raise ValueError(
                "start must be given where no W separates the optimal tokens: their problem is "
                f"infeasible for {int((~solution.feasible).sum())} of {solution.feasible.numel()}"
            )
        start = solution.W
    start = finite("start", start)
    *batch, n, length, d = tokens.shape
    if start.shape != (*batch, d, d):
        raise ValueError(f"start must be {(*batch, d, d)}, got {tuple(start.shape)}")
    # the loss sees W only through <x_it - x_i1, W z_i>: an orthonormal basis of these matrices
    rows = (tokens[..., 1:, :] - tokens[..., :1, :])[..., None] * queries[..., None, None, :]
    basis, triangle = torch.linalg.qr(rows.reshape(-1, n * (length - 1), d * d).mT)
    design = rows.new_zeros(len(basis), n, length, basis.shape[2])
    design[:, :, 1:] = triangle.mT.unflatten(1, (n, length - 1))
    u = (start.reshape(-1, 1, d * d) @ basis)[:, 0]
    norms = u.norm(dim=1, keepdim=True)
    if (norms <= 1e-12 * start.reshape(-1, d * d).norm(dim=1, keepdim=True)).any():
        raise ValueError("start must change the attention of every problem, got one that does not")
    u = _newton(design, gamma.reshape(-1, n, length), u / norms, radius)
    return radius * (basis @ u[:, :, None]).reshape(start.shape)


class _Excess:
    """log(L - L_*) as a function of the logits (..., n, T), with two derivatives.

    With Delta_t = gamma_opt - gamma_t, q = softmax(a + log Delta) and s = softmax(a), it is

        F = log (1/n) sum_i exp E_i,  E_i = phi_i(log g_i),  log g_i = lse(a + log Delta) - lse(a),

    phi(log g) = log log1p(sigmoid(-gamma_opt) expm1(g)), so that dF/da_it = p_i phi_i' (q - s)_it
    with p = softmax(E).
    """

    def __init__(self, logits: torch.Tensor, gamma: torch.Tensor):
        best = gamma.amax(-1)
        weighted = logits + (best[..., None] - gamma).log()
        log_g = weighted.logsumexp(-1) - logits.logsumexp(-1)
        g = log_g.exp()
        u = torch.sigmoid(-best) * torch.expm1(g)
        # of g -> 0 only the linear term is left, long before its exponential underflows
        small = g < 1e-100
        bend = torch.where(small, 1.0, torch.expm1(g) / g) * torch.where(small, 1.0, u.log1p() / u)
        terms = torch.nn.functional.logsigmoid(-best) + log_g + bend.log()
        self.value = terms.logsumexp(-1) - math.log(gamma.shape[-2])
        self._state = weighted, logits, terms, g, u, small, best

    def derivatives(self) -> _Derivatives:
        weighted, logits, terms, g, u, small, best = self._state
        outer = torch.sigmoid(g - best)
        first = torch.where(small, 1.0, g * outer / u.log1p())
        second = first * (1.0 + g * (1.0 - outer) - first)
        # a sequence without gaps has nothing to lose: p is 0 and q is of no consequence
        q = weighted.softmax(-1).nan_to_num(nan=0.0)
        return _Derivatives(q, logits.softmax(-1), terms.softmax(-1), first, second)


class _Derivatives(NamedTuple):
    """q, s (B, n, T) and p, phi', phi'' (B, n) of :class:`_Excess`."""

    q: torch.Tensor
    s: torch.Tensor
    p: torch.Tensor
    first: torch.Tensor
    second: torch.Tensor

    def pull_back(self, design: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Gradient (B, r) and Hessian (B, r, r) in w, where logits = design @ w."""
        weight = self.p * self.first
        flat = design.flatten(1, 2)
        means = torch.stack([self.q, self.s, self.q - self.s], dim=3).mT @ design
        gradient = (weight[..., None] * means[:, :, 2]).sum(1)
        diagonal = weight[..., None] * (self.q - self.s)
        squares = torch.stack(
            [-weight, weight, self.p * (self.second + self.first.square())], dim=2
        )
        means = means.flatten(1, 2)
        hessian = flat.mT @ (diagonal.flatten(1)[..., None] * flat)
        hessian += means.mT @ (squares.flatten(1)[..., None] * means)
        return gradient, hessian - gradient[:, :, None] * gradient[:, None, :]


def _newton(design, gamma, u, radius):
    """Minimize F(radius * design @ u) over unit vectors u, (B, r), from the given ones."""

    def excess(u):
        return _Excess(radius * (design.flatten(1, 2) @ u[:, :, None]).view_as(gamma), gamma)

    now = excess(u)
    damping = torch.ones(len(u), dtype=u.dtype)
    eye = torch.eye(u.shape[1], dtype=u.dtype)
    for _ in range(MAX_STEPS):
        gradient, hessian = now.derivatives().pull_back(design)
        gradient, hessian = radius * gradient, radius**2 * hessian
        pull = -(gradient * u).sum(1)
        tangent = gradient + pull[:, None] * u
        angle = tangent.square().sum(1) / gradient.square().sum(1)
        open_ = (angle > TOLERANCE) | (pull <= 0)
        if not open_.any():
            break
        # the Hessian along the sphere, damped until it is positive definite and F falls
        across = u[:, :, None] * (hessian @ u[:, :, None]).mT
        along = (u[:, None, :] @ hessian @ u[:, :, None]) * u[:, :, None] * u[:, None, :]
        hessian = hessian - across - across.mT + along
        shift = pull.abs() * (1.0 + damping) + torch.where(pull > 0, 0.0, 1.0)
        factor, failed = torch.linalg.cholesky_ex(hessian + shift[:, None, None] * eye)
        step = -torch.cholesky_solve(tangent[:, :, None], factor)[..., 0]
        trial = u + torch.where((failed == 0)[:, None], step, 0.0)
        trial = trial / trial.norm(dim=1, keepdim=True)
        then = excess(trial)
        # close to the minimum F cannot resolve the last digits of u
        slack = 1e-14 * now.value.abs()
        taken = open_ & (failed == 0) & (then.value <= now.value + slack)
        damping = torch.where(taken, damping / 8, damping * 8 + 1e-3)
        u = torch.where(taken[:, None], trial, u)
        now = excess(u)
    return u
