"""Moments of SELU(z), z ~ N(m, x), in closed form: any shape, any device, plain torch.

Write s = sqrt(x), t = m/s, phi for the normal density at t, and split f = scale (z_+ - alpha e)
with z_+ = max(z, 0) and e = (1 - e^z) for z < 0, else 0. The two parts never live at once, so

    E f   = scale (E z_+ - alpha E e),
    Var f = scale^2 (Var z_+ + alpha^2 Var e + 2 alpha E z_+ E e),

a sum of positive terms: nothing cancels as it does in E f^2 - (E f)^2, which has no correct digit
left at m = 30, x = 1e-8 (the square is 1e11 times the variance) nor at m = -30 (saturation).
With z_- = max(-z, 0), P = Pr[z > 0], Q = 1 - P, A = E[e^z; z < 0], B = E[e^{2z}; z < 0]:

    E z_+   = s phi + m P             Var z_+ = x P - E z_+ E z_-,  E z_- = s phi - m Q
    E e     = Q - A                   Var e   = B + P - (A + P)^2

(Klambauer et al. 2017, Eqs. (4)-(5), rearranged). A and B are Gaussian tails, e.g.
A = e^{m+x/2} Q(t+s) = phi K(t+s) with Mills' ratio K = Q/phi = sqrt(pi/2) erfcx(./sqrt 2).

Three regimes of x: up to SMALL, Q - A and Var e are differences of nearly equal numbers and are
summed as Taylor series in s; up to LARGE, erfc (an order of magnitude faster than erfcx on a CPU)
times an exponential that cannot overflow; beyond, erfcx.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch

__all__ = ["Parts", "moments", "moments_and_derivatives", "parts", "rows"]

SMALL = 1e-4
LARGE = 200.0
# Small enough for intermediates to stay near a core's cache, large enough to drown the
# interpreter's overhead; accelerators get long vectors instead.
CHUNK = {"cpu": 1 << 15}
CHUNK_ELSEWHERE = 1 << 22

# The height of the normal density, 1/sqrt(2 pi), over sqrt 2.
_HALF_NORMAL = 0.5 / math.sqrt(math.pi)
# The Taylor series of _small sees no |t| beyond: phi is 0 there, and 0 * inf is NaN.
_FAR = 40.0
_TINY = 1e-280
# e1^2 e^LARGE must stay finite. Where the clamp acts, m > 150 and every tail is below 1e-24.
_EXPONENT = 250.0
_ORDER = 8


class Parts(NamedTuple):
    """What every moment and derivative is made of; each a tensor (n,), for unit scale and alpha."""

    positive: torch.Tensor
    """P = Pr[z > 0]."""
    negative: torch.Tensor
    """Q = Pr[z < 0]."""
    density: torch.Tensor
    """p0, the density of z at the kink, phi/s."""
    tilted: torch.Tensor
    """A = E[e^z; z < 0]."""
    tilted2: torch.Tensor
    """B = E[e^{2z}; z < 0]."""
    mean_linear: torch.Tensor
    """E z_+, z_+ = max(z, 0)."""
    variance_linear: torch.Tensor
    """Var z_+."""
    mean_exponential: torch.Tensor
    """E e, e = 1 - e^z where z < 0, else 0."""
    variance_exponential: torch.Tensor
    """Var e."""


ROWS = 11
"""Rows that :func:`rows` wants, results included: the nine parts and two intermediates."""


def rows(results: list[torch.Tensor], scratch: list[torch.Tensor]) -> tuple[torch.Tensor, ...]:
    """Return where :func:`parts` is to write so that the results end in their own rows.

    ``results`` are the two rows of the moments, or the six of moments and derivatives; ``scratch``
    are others, together ``ROWS``. Each number is born where it is overwritten for the last time:
    the fewer rows in use, the more of them a core's cache holds.
    """
    mean, variance, *derivatives = results
    mean_m, mean_x, variance_m, variance_x, a, b, c, d, e = [*derivatives, *scratch]
    return mean_m, variance_m, mean_x, a, variance_x, b, variance, mean, c, d, e


def parts(
    m: torch.Tensor,
    x: torch.Tensor,
    bounds: tuple[float, float] | None = None,
    out: tuple[torch.Tensor, ...] | None = None,
) -> Parts:
    """Return the nine parts for float64 tensors (n,) of means and of variances x >= 0.

    ``bounds`` are the least and the greatest x if they are known; ``out`` are eleven tensors (n,)
    to write into, nine for the parts and two for intermediates.
    """
    out = out or _fresh_rows(x)
    if not len(x):
        return Parts(*out[:9])
    low, high = bounds or (bound.item() for bound in x.aminmax())
    if low > SMALL and high <= LARGE:
        return _middle(m, x, out)
    for regime, mask in (
        (_small, x <= SMALL),
        (_middle, (x > SMALL) & (x <= LARGE)),
        (_large, x > LARGE),
    ):
        index = mask.nonzero()[:, 0]
        if len(index):
            for target, value in zip(out, regime(m[index], x[index]), strict=False):
                target[index] = value
    return Parts(*out[:9])


def moments(p: Parts, alpha, scale) -> tuple[torch.Tensor, torch.Tensor]:
    """Return (E f, Var f); alpha and scale are floats or tensors (n,). Overwrites two parts."""
    variance = _plus(p.variance_linear, 2 * alpha, p.mean_linear, p.mean_exponential)
    variance = _plus(variance, alpha * alpha, p.variance_exponential).mul_(scale * scale)
    mean = _plus(p.mean_exponential.mul_(-alpha * scale), scale, p.mean_linear)
    # Only a far tail of the linear side, alone, can come out of its rounding below 0.
    return mean, variance.clamp_(min=0)


def moments_and_derivatives(p: Parts, alpha, scale) -> tuple[torch.Tensor, ...]:
    """Return E f, Var f, d(E f)/dm, d(E f)/dx, d(Var f)/dm, d(Var f)/dx. Overwrites the parts.

    Price's theorem, d/dm E h(z) = E h'(z) and d/dx E h(z) = E h''(z)/2, gives scale (P + alpha A),
    scale/2 (alpha A + (1 - alpha) p0), 2 Cov(f, f') and E[f'^2 + f f''] - E f E f''; the last two
    are written in the parts so that neither saturation nor a large mean cancels.
    """
    square, bend = scale * scale, alpha * alpha
    variance_m = _plus(p.negative, -alpha, p.tilted).mul_(p.mean_linear)
    variance_m = _plus(variance_m, alpha * (1 - alpha), p.positive, p.mean_exponential)
    variance_m = _plus(variance_m, bend, p.variance_exponential).mul_(2 * square)
    mean, variance = moments(p, alpha, scale)
    weight = torch.add(p.tilted, p.positive, out=p.variance_exponential)
    weight = _plus(p.mean_linear, alpha, weight, out=weight)
    variance_x = _plus(p.positive, 2 * bend, p.tilted2, out=p.tilted2)
    variance_x = _plus(variance_x, -alpha, p.tilted, weight).mul_(square)
    curve, pull = p.density.mul_(scale * (1 - alpha) / 2), p.tilted.mul_(scale * alpha)
    variance_x = variance_x.addcmul_(mean, curve, value=-2)
    mean_m, mean_x = _plus(pull, scale, p.positive, out=p.positive), curve.add_(pull, alpha=0.5)
    return mean, variance, mean_m, mean_x, variance_m, variance_x


def _plus(a, factor, b, c=None, out=None):
    """Return a + factor b (c), in place of a unless told; one pass where the factor is a number."""
    out = a if out is None else out
    if isinstance(factor, torch.Tensor):
        return torch.addcmul(a, factor, b if c is None else b * c, out=out)
    if c is None:
        return torch.add(a, b, alpha=factor, out=out)
    return torch.addcmul(a, b, c, value=factor, out=out)


def _fresh_rows(x):
    return tuple(torch.empty(ROWS, len(x), dtype=x.dtype, device=x.device))


def _middle(m, x, out=None):
    out = out or _fresh_rows(x)
    s2, half = _linear(m, x, out)
    _, _, _, tilted, tilted2, *_ = out
    torch.add(half, s2, alpha=0.5, out=tilted).erfc_().mul_(0.5)
    torch.add(half, s2, out=tilted2).erfc_().mul_(0.5)
    lean = torch.add(m, x, alpha=0.5, out=half).clamp_(max=_EXPONENT).exp_()
    tilted.mul_(lean)
    # e^{2m+2x} as lean^2 e^x: the rounding of the exponent then cancels in B - A^2.
    tilted2.mul_(lean.square_()).mul_(torch.exp(x, out=s2))
    return _bent(out)


def _large(m, x):
    out = _fresh_rows(x)
    s2, half = _linear(m, x, out)
    _, _, density, tilted, tilted2, *_ = out
    height = density * s2 * (math.sqrt(math.pi) / 2)
    tilted.copy_(_tilted_tail(half + s2 / 2, m + x / 2, height))
    tilted2.copy_(_tilted_tail(half + s2, 2 * (m + x), height))
    return _bent(out)


def _linear(m, x, out):
    """Write P, Q, p0, E z_+ and Var z_+; return sqrt(2x) and t / sqrt 2 in the last two rows."""
    positive, negative, density, _, _, mean, variance, other, _, s2, half = out
    torch.mul(x, 2, out=s2).sqrt_()
    torch.div(m, s2, out=half)
    torch.neg(half, out=positive)
    phi = torch.mul(half, positive, out=density).exp_().mul_(s2).mul_(_HALF_NORMAL)
    positive.erfc_().mul_(0.5)
    torch.erfc(half, out=negative).mul_(0.5)
    # The tail of E z_+ loses t^2 in relative precision, where it no longer matters.
    torch.addcmul(phi, m, positive, out=mean)
    torch.addcmul(phi, m, negative, value=-1, out=other)
    torch.mul(x, positive, out=variance).addcmul_(mean, other, value=-1)
    phi.div_(x)
    return s2, half


def _bent(out):
    """Write E e and Var e, given all the rest; return the parts."""
    positive, negative, _, tilted, tilted2, _, _, mean, variance, both, _ = out
    torch.sub(negative, tilted, out=mean)
    torch.add(tilted, positive, out=both)
    torch.add(tilted2, positive, out=variance).addcmul_(both, both, value=-1)
    return Parts(*out[:9])


def _tilted_tail(a, exponent, height):
    """e^exponent erfc(a)/2 = height erfcx(a), height = e^{-t^2/2}/2; a < 0 only if exponent < 0."""
    tail = torch.special.erfcx(a.abs()).mul_(height)
    return torch.where(a < 0, exponent.clamp(max=0).exp_() - tail, tail)


def _small(m, x):
    x = x.clamp(min=_TINY)
    out = _fresh_rows(x)
    _linear(m, x, out)
    positive, negative, density, tilted, tilted2, _, _, mean, variance, *_ = out
    s = x.sqrt()
    saturated = m < 0
    h = torch.where(saturated, -s, s)
    first, second = _differences((m.abs() / s).clamp_(max=_FAR), h, density * s, positive, negative)
    spread = second - first.square()
    # For t < 0 the part z > 0 is the rare one: take the whole e^z - 1, a lognormal, less that part.
    low = m.clamp(max=0)
    below = -first - torch.expm1(low + x / 2)
    lean = (low + x / 2).exp()
    lognormal = lean.square() * torch.expm1(x)
    mean.copy_(torch.where(saturated, below, first))
    variance.copy_(torch.where(saturated, lognormal - spread + 2 * below * first, spread))
    tilted.copy_(torch.where(saturated, lean + first - positive, negative - first))
    whole = lean.square() * x.exp() - second + 2 * first - positive
    tilted2.copy_(torch.where(saturated, whole, second - negative + 2 * tilted))
    return Parts(*out[:9])


def _differences(y, h, phi, positive, negative):
    """phi times K(y) - K(y+h) and K(y) - 2K(y+h) + K(y+2h), summed as series in h.

    The derivatives of Mills' ratio obey K' = y K - 1 and K^(n+1) = y K^(n) + n K^(n-1).
    """
    before = torch.minimum(positive, negative)
    now = y * before - phi
    power = h.clone()
    first, second = -h * now, torch.zeros_like(h)
    for n in range(2, _ORDER + 1):
        before, now = now, y * now + (n - 1) * before
        power = power * h / n
        term = power * now
        first = first - term
        second = second + (2.0**n - 2) * term
    return first, second
