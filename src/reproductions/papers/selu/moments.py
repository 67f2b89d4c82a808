"""The layer map of self-normalizing networks, its Jacobian and its fixed points.

A layer turns mean mu and variance nu of its inputs into those of its outputs; a unit with weights w
sees z of mean mu omega and variance nu tau, omega = sum w_i and tau = sum w_i^2, and z is taken as
Gaussian (Klambauer et al. 2017, section 2). Everything below is float64; tensors broadcast.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import mpmath
import torch

from reproductions._validate import choice, finite, positive_integer, within
from reproductions.kernels.gaussian_moments import (
    gaussian_moments,
    moments_and_derivatives,
    parts,
)

__all__ = [
    "ALPHA",
    "PAPER_POINTS",
    "SCALE",
    "GridMaximum",
    "alpha_dropout_affine",
    "chi1",
    "constants",
    "fixed_point",
    "grid_maximum",
    "mean_field_orbit",
    "moment_jacobian",
    "moment_map",
    "orbit",
    "paper_grid_maximum",
    "parameters_for",
    "second_moment_jacobian",
    "slope_at_infinity",
    "slope_at_zero",
    "solve_constants",
    "spectral_norm",
    "target_radius",
]

ALPHA = 1.6732632423543772
SCALE = 1.0507009873554805

Values = torch.Tensor | float

WHICH = ("variance", "second moment", "growth", "decay")
PAPER_POINTS = (30, 242, 731, 615)
"""Points of Lemma 12's grid along mu, omega, nu and tau: 3,263,841,900 in all."""


def constants(digits: int = 50) -> tuple[mpmath.mpf, mpmath.mpf]:
    """Return (alpha, lambda) of SELU to ``digits`` digits, in closed form.

    With e1 = e^{1/2} erfc(1/sqrt 2) and e2 = e^2 erfc(sqrt 2),
    alpha = sqrt(2/pi) / (1 - e1) and lambda = ((1 + alpha^2 (1 - 2 e1 + e2)) / 2)^{-1/2};
    equal to Klambauer et al. 2017, Eq. (14).
    """
    positive_integer("digits", digits)
    with mpmath.workdps(digits + 10):
        e1 = mpmath.exp(0.5) * mpmath.erfc(1 / mpmath.sqrt(2))
        e2 = mpmath.exp(2) * mpmath.erfc(mpmath.sqrt(2))
        alpha = mpmath.sqrt(2 / mpmath.pi) / (1 - e1)
        scale = 1 / mpmath.sqrt((1 + alpha**2 * (1 - 2 * e1 + e2)) / 2)
    with mpmath.workdps(digits):
        return +alpha, +scale


def solve_constants(digits: int = 50) -> tuple[mpmath.mpf, mpmath.mpf]:
    """Return (alpha, lambda) to ``digits`` digits as the root of mean' = 0, variance' = 1.

    Newton's method on the two fixed-point equations of Klambauer et al. 2017 at
    (mu, nu) = (0, 1), omega = 0, tau = 1; the Gaussian integrals are done by quadrature split at
    the kink, so that nothing is shared with :func:`constants`.
    """
    positive_integer("digits", digits)
    with mpmath.workdps(digits + 10):

        def expect(function, low, high):
            cuts = (-mpmath.inf, -12, -6, -2, 0, 2, 6, 12, mpmath.inf)
            cuts = [c for c in cuts if low <= c <= high]
            return mpmath.quad(lambda z: function(z) * mpmath.npdf(z), cuts)

        linear = expect(lambda z: z, 0, mpmath.inf)
        square = expect(lambda z: z * z, 0, mpmath.inf)
        bent = expect(mpmath.expm1, -mpmath.inf, 0)
        bent_square = expect(lambda z: mpmath.expm1(z) ** 2, -mpmath.inf, 0)

        def equations(alpha, scale):
            mean = scale * (linear + alpha * bent)
            return [mean, scale**2 * (square + alpha**2 * bent_square) - mean**2 - 1]

        root = mpmath.findroot(equations, (mpmath.mpf("1.67"), mpmath.mpf("1.05")))
    with mpmath.workdps(digits):
        return +root[0], +root[1]


def moment_map(
    mu: Values,
    nu: Values,
    omega: Values = 0.0,
    tau: Values = 1.0,
    *,
    alpha: Values = ALPHA,
    scale: Values = SCALE,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return mean and variance after one layer, g(mu, nu; omega, tau).

    The moments of SELU(z) for z ~ N(mu omega, nu tau): Klambauer et al. 2017, Eqs. (3)-(5).

    Args:
        mu: mean of the inputs, any shape.
        nu: variance of the inputs, at least 0.
        omega: sum of a unit's weights.
        tau: sum of a unit's squared weights, at least 0.
        alpha: saturation of the activation in units of ``scale``, at least 0.
        scale: slope of the linear side (lambda in the paper), greater than 0.

    Returns:
        Two float64 tensors of the common broadcast shape, differentiable in the first four.

    Raises:
        ValueError: a variance, tau or alpha is negative, scale is not positive, or something is
            NaN or infinite.
    """
    m, x = _preactivation(mu, nu, omega, tau)
    return gaussian_moments(m, x, alpha=alpha, scale=scale)


def orbit(
    mu: Values,
    nu: Values,
    omega: Values = 0.0,
    tau: Values = 1.0,
    *,
    n_steps: int,
    alpha: Values = ALPHA,
    scale: Values = SCALE,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return (mu, nu) before the first and after each of ``n_steps`` layers.

    The iterates of :func:`moment_map`, whose arguments and errors these are; two float64 tensors of
    shape (n_steps + 1, ...).
    """
    positive_integer("n_steps", n_steps)
    start = (torch.as_tensor(v, dtype=torch.float64) for v in (mu, nu, omega, tau))
    states = [tuple(torch.broadcast_tensors(*start)[:2])]
    for _ in range(n_steps):
        states.append(moment_map(*states[-1], omega, tau, alpha=alpha, scale=scale))
    return tuple(torch.stack(column) for column in zip(*states, strict=True))


def mean_field_orbit(
    q: Values = 1.0,
    tau: Values = 1.0,
    *,
    n_steps: int,
    alpha: Values = ALPHA,
    scale: Values = SCALE,
) -> torch.Tensor:
    """Return the mean square q before the first and after each of ``n_steps`` layers.

    The theory of fixed inputs and random weights of variance tau/n (Schoenholz et al. 2017):
    q' = E f(z)^2 with z ~ N(0, tau q), where :func:`moment_map` has z ~ N(mu omega, tau nu).
    Float64, shape (n_steps + 1, ...).
    """
    positive_integer("n_steps", n_steps)
    q, tau = within("q", q, low=0.0), within("tau", tau, low=0.0)
    steps = [torch.broadcast_tensors(q, tau)[0]]
    for _ in range(n_steps):
        mean, variance = moment_map(0.0, steps[-1], tau=tau, alpha=alpha, scale=scale)
        steps.append(variance + mean.square())
    return torch.stack(steps)


def moment_jacobian(
    mu: Values,
    nu: Values,
    omega: Values = 0.0,
    tau: Values = 1.0,
    *,
    alpha: Values = ALPHA,
    scale: Values = SCALE,
) -> torch.Tensor:
    """Return d(mean', variance')/d(mu, nu) of :func:`moment_map`, shape (..., 2, 2).

    Rows are mean' and variance', columns mu and nu (Klambauer et al. 2017, Eq. (6) at (0, 1)).
    """
    m, x = _preactivation(mu, nu, omega, tau)
    d = moments_and_derivatives(m, x, alpha=alpha, scale=scale)
    return _matrix(d.mean_m, d.mean_x, d.variance_m, d.variance_x, omega, tau)


def second_moment_jacobian(
    mu: Values,
    nu: Values,
    omega: Values = 0.0,
    tau: Values = 1.0,
    *,
    alpha: Values = ALPHA,
    scale: Values = SCALE,
) -> torch.Tensor:
    """Return d(mean', second moment')/d(mu, nu), shape (..., 2, 2): another map's Jacobian.

    :func:`moment_jacobian` without the terms -2 mean' d mean'. Its spectral norm on the grid of
    Lemma 12 peaks at 0.991252417106, the number printed there for the (mean, variance) map.
    """
    m, x = _preactivation(mu, nu, omega, tau)
    d = moments_and_derivatives(m, x, alpha=alpha, scale=scale)
    second_m = d.variance_m + 2 * d.mean * d.mean_m
    second_x = d.variance_x + 2 * d.mean * d.mean_x
    return _matrix(d.mean_m, d.mean_x, second_m, second_x, omega, tau)


def spectral_norm(jacobian: torch.Tensor) -> torch.Tensor:
    """Return the greatest singular value of matrices (..., 2, 2), shape (...).

    (sqrt((a+d)^2 + (c-b)^2) + sqrt((a-d)^2 + (b+c)^2)) / 2 for [[a, b], [c, d]]: two terms of one
    sign under each root, so nothing cancels.
    """
    jacobian = finite("jacobian", jacobian)
    if jacobian.shape[-2:] != (2, 2):
        raise ValueError(f"jacobian must have shape (..., 2, 2), got {tuple(jacobian.shape)}")
    a, b, c, d = jacobian.flatten(-2).unbind(-1)
    return _norm(a, b, c, d)


def chi1(
    mu: Values = 0.0,
    nu: Values = 1.0,
    omega: Values = 0.0,
    tau: Values = 1.0,
    *,
    alpha: Values = ALPHA,
    scale: Values = SCALE,
) -> torch.Tensor:
    """Return tau E f'(z)^2 for z ~ N(mu omega, nu tau): growth of the squared gradient a layer.

    lambda^2 tau (P + alpha^2 B), P = Pr[z > 0], B = E[e^{2z}; z < 0]; above 1 gradients explode.
    """
    m, x = _preactivation(mu, nu, omega, tau)
    p = parts(m, x)
    alpha, scale = within("alpha", alpha, low=0.0), within("scale", scale, low=0.0, open_low=True)
    return finite("tau", tau) * scale**2 * (p.positive + alpha**2 * p.tilted2)


def slope_at_zero(
    tau: Values = 1.0, *, alpha: Values = ALPHA, scale: Values = SCALE
) -> torch.Tensor:
    """Return the limit of nu'/nu as nu -> 0 at omega = 0.

    tau lambda^2 ((1 + alpha^2)/2 - (1 - alpha)^2/(2 pi)), 2.01780 tau for SELU: z is so small that
    the activation is two straight lines of slopes lambda and lambda alpha.
    """
    tau, alpha = within("tau", tau, low=0.0), within("alpha", alpha, low=0.0)
    scale = within("scale", scale, low=0.0, open_low=True)
    return tau * scale**2 * ((1 + alpha**2) / 2 - (1 - alpha) ** 2 / (2 * math.pi))


def slope_at_infinity(tau: Values = 1.0, *, scale: Values = SCALE) -> torch.Tensor:
    """Return the limit of nu'/nu as nu -> infinity at omega = 0.

    tau lambda^2 (1/2 - 1/(2 pi)), 0.376284 tau for SELU: what a rectifier does.
    """
    tau, scale = within("tau", tau, low=0.0), within("scale", scale, low=0.0, open_low=True)
    return tau * scale**2 * (0.5 - 0.5 / math.pi)


def fixed_point(
    omega: Values = 0.0,
    tau: Values = 1.0,
    *,
    alpha: Values = ALPHA,
    scale: Values = SCALE,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the attracting fixed point (mu, nu), nu > 0, that the layer map reaches from (0, 1).

    Iterates the map, then Newton's method on (mean' - mu, log variance'/nu) to rounding. At
    omega = 0 one exists for tau in (0.49559, 2.65757) only: below, the variance dies out, above, it
    grows for ever (:func:`slope_at_zero`, :func:`slope_at_infinity`).

    Args:
        omega: sum of weights, any shape.
        tau: sum of squared weights, greater than 0, broadcast against ``omega``.
        alpha: saturation of the activation in units of ``scale``; broadcasts.
        scale: slope of the linear side; broadcasts.

    Returns:
        mu and nu, float64, of the common broadcast shape.

    Raises:
        ValueError: for some (omega, tau) the variance goes to 0 or to infinity, or the point
            reached repels (spectral radius of the Jacobian at least 1); the first one is named.
    """
    omega, tau = finite("omega", omega), within("tau", tau, low=0.0, open_low=True)
    alpha, scale = within("alpha", alpha, low=0.0), within("scale", scale, low=0.0, open_low=True)
    omega, tau, alpha, scale = torch.broadcast_tensors(omega, tau, alpha, scale)
    shape = omega.shape
    w, t, a, c = (v.detach().reshape(-1) for v in (omega, tau, alpha, scale))
    mu, log_nu = torch.zeros_like(w), torch.zeros_like(w)
    found = torch.zeros_like(w, dtype=torch.bool)
    for step in range(_ITERATIONS + _NEWTON_STEPS):
        open_ = (~found).nonzero()[:, 0]
        if not len(open_):
            break
        state = mu[open_], log_nu[open_]
        arguments = w[open_], t[open_], a[open_], c[open_]
        newton = step >= _ITERATIONS
        mu[open_], log_nu[open_], found[open_] = (_newton if newton else _iterate)(
            *state, *arguments
        )
    nu = log_nu.exp()
    # Rounding may keep Newton's last steps from vanishing: what it reached is judged by itself.
    mean, variance = _map(mu, log_nu, w, t, a, c)
    settled = torch.maximum((mean - mu).abs() / (1 + mu.abs()), (variance.log() - log_nu).abs())
    found = (settled <= _SETTLED) & (log_nu.abs() < _LOG_NU_RANGE)
    radius = torch.full_like(mu, math.inf)
    if found.any():
        i = found.nonzero()[:, 0]
        jacobian = moment_jacobian(mu[i], nu[i], w[i], t[i], alpha=a[i], scale=c[i])
        radius[i] = torch.linalg.eigvals(jacobian).abs().amax(-1)
    # A true fixed point is about settled / (1 - radius) away: near a neutral map that is not near.
    found &= (radius >= 1) | (settled <= 1e-3 * (1 - radius))
    bad = (~found | ~(radius < 1)).nonzero()[:, 0]
    if len(bad):
        i = bad[0]
        why = (
            f"the one found repels with spectral radius {radius[i].item():.6g}"
            if found[i]
            else "the variance goes to zero or to infinity"
        )
        raise ValueError(
            f"omega, tau must admit an attracting fixed point, got ({w[i].item():g}, "
            f"{t[i].item():g}): {why}; at omega = 0 choose tau with slope_at_infinity(tau) < 1 < "
            "slope_at_zero(tau)"
        )
    return mu.reshape(shape), nu.reshape(shape)


_ITERATIONS = 60
_NEWTON_STEPS = 60
_LOG_NU_RANGE = 60.0
_CONVERGED = 4e-16
# Two orders above the kernel's worst relative error (4e-12).
_SETTLED = 4e-10


def _iterate(mu, log_nu, omega, tau, alpha, scale):
    """One step of the map; found where it no longer moves."""
    mean, variance = _map(mu, log_nu, omega, tau, alpha, scale)
    log_variance = variance.log().clamp(-_LOG_NU_RANGE, _LOG_NU_RANGE)
    moved = torch.maximum((mean - mu).abs(), (log_variance - log_nu).abs())
    return mean.clamp(-1e30, 1e30), log_variance, moved <= _CONVERGED


def _map(mu, log_nu, omega, tau, alpha, scale):
    return gaussian_moments(mu * omega, log_nu.exp() * tau, alpha=alpha, scale=scale)


def _newton(mu, log_nu, omega, tau, alpha, scale):
    """One damped Newton step on r = (mean' - mu, log variance' - log nu)."""
    nu = log_nu.exp()
    d = moments_and_derivatives(mu * omega, nu * tau, alpha=alpha, scale=scale)
    alive = d.variance > 0
    safe = torch.where(alive, d.variance, torch.ones_like(d.variance))
    r1, r2 = d.mean - mu, safe.log() - log_nu
    j11, j12 = omega * d.mean_m - 1, tau * d.mean_x * nu
    j21, j22 = omega * d.variance_m / safe, tau * d.variance_x * nu / safe - 1
    determinant = j11 * j22 - j12 * j21
    determinant = torch.where(determinant == 0, torch.full_like(determinant, 1e-300), determinant)
    step1 = (-r1 * j22 + r2 * j12) / determinant
    step2 = (-r2 * j11 + r1 * j21) / determinant
    size = torch.maximum(step1.abs() / (1 + mu.abs()), step2.abs())
    damping = 1 / size.clamp(min=1)
    new_mu, new_log = mu + damping * step1, log_nu + damping * step2
    inside = (new_log.abs() < _LOG_NU_RANGE) & new_mu.isfinite() & alive
    residual = torch.maximum(r1.abs() / (1 + mu.abs()), r2.abs())
    found = inside & (residual <= _SETTLED) & (size <= _CONVERGED)
    return torch.where(inside, new_mu, mu), torch.where(inside, new_log, log_nu), found


def parameters_for(
    mean: Values = 0.0, variance: Values = 1.0, omega: Values = 0.0, tau: Values = 1.0
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return (alpha, scale) that make (mean, variance) a fixed point of the layer map.

    The two equations of Klambauer et al. 2017, appendix A5, with the preactivation at
    (mean omega, variance tau). With E z_+ , E e, Var z_+ and Var e of the two halves of the
    activation the ratio mean/sqrt(variance) falls with alpha from E z_+/sd z_+ to -E e/sd e, and
    eliminating the scale leaves a quadratic with one admissible root. Whether the point attracts is
    another question: see :func:`moment_jacobian`.

    Raises:
        ValueError: variance or tau not positive; a mean that no alpha >= 0 can reach.
    """
    alpha, scale, ratio, low, high = _parameters(mean, variance, omega, tau)
    bad = ~((ratio > low) & (ratio <= high))
    if bad.any():
        i = bad.flatten().nonzero()[0, 0]
        got, least, most = (v.flatten()[i].item() for v in (ratio, low, high))
        mean = torch.as_tensor(mean).expand(bad.shape).flatten()[i].item()
        raise ValueError(
            f"mean must lie between {least:.6g} and {most:.6g} standard deviations for a SELU to "
            f"have it as fixed point, got {mean:g} ({got:.6g} of them)"
        )
    lost = ~(alpha.isfinite() & scale.isfinite())
    if lost.any():
        got = torch.as_tensor(variance).expand(bad.shape)[lost].flatten()[0].item()
        raise ValueError(f"variance must be small enough not to overflow, got {got:g}")
    return alpha, scale


def target_radius(
    mean: Values, variance: Values, omega: Values = 0.0, tau: Values = 1.0
) -> torch.Tensor:
    """Return the spectral radius at (mean, variance) once it was made a fixed point.

    With the (alpha, scale) of :func:`parameters_for`; below 1 the target attracts. NaN where no
    SELU has that fixed point. Arguments broadcast.
    """
    alpha, scale, *_ = _parameters(mean, variance, omega, tau)
    there = ~alpha.isnan()
    mean, variance, omega, tau = (
        torch.as_tensor(v, dtype=torch.float64).expand(alpha.shape)[there]
        for v in (mean, variance, omega, tau)
    )
    jacobian = moment_jacobian(mean, variance, omega, tau, alpha=alpha[there], scale=scale[there])
    radius = torch.full_like(alpha, math.nan)
    radius[there] = torch.linalg.eigvals(jacobian).abs().amax(-1)
    return radius


def _parameters(mean, variance, omega, tau):
    """(alpha, scale, ratio, low, high): NaN parameters where no alpha >= 0 reaches the ratio."""
    mean = finite("mean", mean)
    variance = within("variance", variance, low=0.0, open_low=True)
    omega, tau = finite("omega", omega), within("tau", tau, low=0.0, open_low=True)
    mean, variance, omega, tau = torch.broadcast_tensors(mean, variance, omega, tau)
    p = parts(mean * omega, variance * tau)
    ez, vz, ee, ve = p.mean_linear, p.variance_linear, p.mean_exponential, p.variance_exponential
    # ((ez - alpha ee)/mean)^2 = (vz + 2 alpha ez ee + alpha^2 ve)/variance, cleared of divisions.
    c0 = variance * ez**2 - mean**2 * vz
    c1 = -ez * ee * (variance + mean**2)
    c2 = variance * ee**2 - mean**2 * ve
    low, high = -ee / ve.sqrt(), ez / vz.sqrt()
    ratio = mean / variance.sqrt()
    # Of the two roots the one with ez - alpha ee of the sign of the mean, each in the form that
    # adds; the discriminant has the factor mean^2, taken out before it can cancel.
    spread = ez**2 * ee**2 * (2 * variance + mean**2)
    spread = spread + variance * (ez**2 * ve + ee**2 * vz) - mean**2 * vz * ve
    root = mean * spread.clamp(min=0).sqrt()
    alpha = torch.where(mean >= 0, c0 / (-c1 + root), (-c1 - root) / c2)
    scale = (variance / (vz + alpha * (2 * ez * ee + alpha * ve))).sqrt()
    bad = ~((ratio > low) & (ratio <= high))
    return *(t.masked_fill(bad, math.nan) for t in (alpha, scale)), ratio, low, high


def alpha_dropout_affine(
    rate: Values,
    mean: Values = 0.0,
    variance: Values = 1.0,
    *,
    alpha: float = ALPHA,
    scale: float = SCALE,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return (a, b) with a (x d + alpha' (1 - d)) + b of the mean and variance of x.

    d ~ Bernoulli(q), q = 1 - rate, and dropped units take the saturation value
    alpha' = -scale alpha: a = sqrt(nu / (q ((1 - q)(alpha' - mu)^2 + nu))) and
    b = mu - a (q mu + (1 - q) alpha') (Klambauer et al. 2017, section "New dropout technique").

    Raises:
        ValueError: rate outside [0, 1), variance not positive, NaN.
    """
    rate = within("rate", rate, low=0.0, high=1.0)
    if (rate == 1).any():
        raise ValueError("rate must be less than 1, got 1")
    mean = finite("mean", mean)
    variance = within("variance", variance, low=0.0, open_low=True)
    alpha = within("alpha", alpha, low=0.0)
    saturation = -within("scale", scale, low=0.0, open_low=True) * alpha
    keep = 1 - rate
    a = (variance / (keep * (rate * (saturation - mean) ** 2 + variance))).sqrt()
    return a, mean - a * (keep * mean + rate * saturation)


class GridMaximum(NamedTuple):
    """The greatest value over a grid, where it is taken, and what was done to find it."""

    value: float
    mu: float
    omega: float
    nu: float
    tau: float
    n_points: int
    n_evaluated: int


def grid_maximum(
    box,
    points: Sequence[int],
    which: str = "variance",
    *,
    alpha: float = ALPHA,
    scale: float = SCALE,
    backend: str = "auto",
    device: str | torch.device = "cpu",
) -> GridMaximum:
    """Return the maximum over an evenly spaced grid that includes the box's faces.

    Args:
        box: a :class:`Box`.
        points: number of points along mu, omega, nu and tau, in this order.
        which: the spectral norm of the Jacobian of the (mean, ``"variance"``) map or of the (mean,
            ``"second moment"``) map; ``"growth"`` for nu' - nu, ``"decay"`` for nu - nu'.
        alpha: saturation of the activation in units of ``scale``.
        scale: slope of the linear side.
        backend: ``"batched"``, blocks of 65,536 points in torch; ``"triton"``, one kernel with a
            running maximum, for the two norms; ``"auto"`` chooses Triton for a CUDA device.
        device: where to compute.

    Raises:
        ValueError: a bad argument; NaN at some point of the grid.
    """
    choice("which", which, WHICH)
    choice("backend", backend, ("auto", "batched", "triton"))
    axes = _axes(box, points, device)
    alpha = within("alpha", alpha, low=0.0).item()
    scale = within("scale", scale, low=0.0, open_low=True).item()
    norm = which in ("variance", "second moment")
    total = math.prod(points)
    if backend == "triton" or (backend == "auto" and norm and axes[0].is_cuda):
        if not norm:
            raise ValueError(f"backend must be batched for {which!r}, got 'triton'")
        from reproductions.kernels.gaussian_moments.triton import grid_maximum as fused

        results = fused(*axes, alpha=alpha, scale=scale)
        value, index = results[WHICH.index(which)]
    else:
        value, index = _visit(which, axes, alpha, scale)
    if math.isnan(value):
        raise ValueError("box must give finite values everywhere, got NaN on its grid")
    at = [v.item() for v in _at(torch.tensor(index, device=axes[0].device), axes)]
    return GridMaximum(value, *at, n_points=total, n_evaluated=total)


def paper_grid_maximum(
    which: str = "variance",
    *,
    box=None,
    points: Sequence[int] = PAPER_POINTS,
    alpha: float = ALPHA,
    scale: float = SCALE,
) -> GridMaximum:
    """Return the maximum spectral norm over the paper's whole grid, without visiting it.

    Same result as :func:`grid_maximum` on the grid of Lemma 12 (30 x 242 x 731 x 615 points,
    mu, omega in [-0.1, 0.1], nu in [0.8, 1.5], tau in [0.8, 1.25]), by three facts:

    1. The Jacobian is J = [omega a(m, x), tau b(m, x)] with m = mu omega and x = nu tau, so
       J J^T = omega^2 a a^T + tau^2 b b^T and the norm does not fall if omega^2 rises to its
       greatest value W^2 while m, x and tau stay: omega and mu are gone but for m in an interval.
    2. A norm is convex. On an m-interval [l, r] the matrix M(m) = [W a, tau b] is within
       (r - l)^2/8 max |M''(m)| of the segment from M(l) to M(r), so its norm is at most the larger
       of the two end values plus that: one bound for every (nu, tau), a table of 731 x 615.
    3. Points (nu, tau) are visited in falling order of the bound, each with all its (mu, omega),
       until the bound falls below the best value found. No point left can be larger.

    |M''| comes from ball arithmetic over the whole (m, x) range (:mod:`.proofs`), so the pruning is
    safe up to rounding in the float values themselves, covered by a margin of 1e-12.
    """
    from .proofs import Box, curvature_bound

    choice("which", which, WHICH[:2])
    if box is None:
        box = Box(mu=(-0.1, 0.1), omega=(-0.1, 0.1), nu=(0.8, 1.5), tau=(0.8, 1.25))
    mu, omega, nu, tau = _axes(box, points, "cpu")
    m = (mu[:, None] * omega).flatten()
    ends = torch.linspace(m.min(), m.max(), _ENDS, dtype=torch.float64)
    curvature = curvature_bound(box, which, alpha=alpha, scale=scale)
    slack = ((ends[-1] - ends[0]) / (_ENDS - 1)) ** 2 / 8 * curvature + 1e-12
    reach = omega.abs().max()

    bound = torch.full((len(nu), len(tau)), -math.inf, dtype=torch.float64)
    for end in ends:
        # mu = m/W, omega = W: the matrix of fact 1 at this m.
        values = _norms(which, end.expand(1, 1), nu[:, None] * tau, reach, tau, alpha, scale)
        torch.maximum(bound, values, out=bound)
    order = (bound + slack).flatten().sort(descending=True)
    plane = len(m)
    batch = max(1, _CHUNK // plane)
    value, index, evaluated, start = -math.inf, 0, 0, 0
    while start < len(order.values) and not order.values[start] < value:
        chosen = order.indices[start : start + batch]
        i_nu, i_tau = chosen // len(tau), chosen % len(tau)
        x = (nu[i_nu] * tau[i_tau])[:, None]
        values = _norms(which, m, x, omega.repeat(len(mu)), tau[i_tau][:, None], alpha, scale)
        best = values.argmax().item()
        found = values.flatten()[best].item()
        if not found <= value:
            k, pair = divmod(best, plane)
            value = found
            index = (pair * len(nu) + i_nu[k].item()) * len(tau) + i_tau[k].item()
        if math.isnan(value):
            raise ValueError("box must give finite values everywhere, got NaN on its grid")
        evaluated += values.numel()
        start += len(chosen)
    at = [v.item() for v in _at(torch.tensor(index), (mu, omega, nu, tau))]
    total = math.prod(points)
    return GridMaximum(value, *at, n_points=total, n_evaluated=evaluated + _ENDS * bound.numel())


_CHUNK = 1 << 16
_ENDS = 3


def _axes(box, points, device):
    counts = [positive_integer("points", count) for count in points]
    if len(counts) != 4:
        raise ValueError(f"points must be four numbers (mu, omega, nu, tau), got {len(counts)}")
    ranges = (box.mu, box.omega, box.nu, box.tau)
    return [
        torch.linspace(low, high, count, dtype=torch.float64, device=device)
        for (low, high), count in zip(ranges, counts, strict=True)
    ]


def _visit(which, axes, alpha, scale):
    """Greatest value and its row-major index, a block of (mu, omega) x (nu, tau) at a time."""
    mu, omega = (v.flatten() for v in torch.meshgrid(axes[0], axes[1], indexing="ij"))
    nu, tau = (v.flatten() for v in torch.meshgrid(axes[2], axes[3], indexing="ij"))
    columns = min(len(nu), _CHUNK)
    rows = max(1, _CHUNK // columns)
    value, index = -math.inf, 0
    for top in range(0, len(mu), rows):
        pairs = mu[top : top + rows, None], omega[top : top + rows, None]
        for left in range(0, len(nu), columns):
            block = nu[left : left + columns], tau[left : left + columns]
            values = _quantity(which, *pairs, *block, alpha, scale)
            best = values.argmax().item()
            found = values.flatten()[best].item()
            # argmax stops at a NaN; asking whether it is larger would drop it.
            if not found <= value:
                row, column = divmod(best, values.shape[1])
                value, index = found, (top + row) * len(nu) + left + column
            if math.isnan(value):
                return value, index
    return value, index


def _at(flat, axes):
    """The values on the four axes at flat row-major indices."""
    values = []
    for axis in reversed(axes):
        values.append(axis[flat % len(axis)])
        flat = flat // len(axis)
    return reversed(values)


def _quantity(which, mu, omega, nu, tau, alpha, scale):
    if which in ("growth", "decay"):
        change = gaussian_moments(mu * omega, nu * tau, alpha=alpha, scale=scale)[1] - nu
        return change if which == "growth" else -change
    return _norms(which, mu * omega, nu * tau, omega, tau, alpha, scale)


def _norms(which, m, x, omega, tau, alpha, scale):
    d = moments_and_derivatives(m, x, alpha=alpha, scale=scale)
    second_m, second_x = d.variance_m, d.variance_x
    if which == "second moment":
        second_m = second_m + 2 * d.mean * d.mean_m
        second_x = second_x + 2 * d.mean * d.mean_x
    return _norm(omega * d.mean_m, tau * d.mean_x, omega * second_m, tau * second_x)


def _norm(a, b, c, d):
    return (torch.hypot(a + d, c - b) + torch.hypot(a - d, b + c)) / 2


def _preactivation(mu, nu, omega, tau):
    mu, omega = finite("mu", mu), finite("omega", omega)
    nu, tau = within("nu", nu, low=0.0), within("tau", tau, low=0.0)
    return torch.broadcast_tensors(mu * omega, nu * tau)


def _matrix(mean_m, mean_x, second_m, second_x, omega, tau):
    omega, tau = (finite(*pair).to(mean_m.device) for pair in (("omega", omega), ("tau", tau)))
    rows = (omega * mean_m, tau * mean_x, omega * second_m, tau * second_x)
    rows = torch.broadcast_tensors(*rows)
    return torch.stack(rows, dim=-1).unflatten(-1, (2, 2))
