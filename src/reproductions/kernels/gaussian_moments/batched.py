"""Moments of SELU(z), z ~ N(m, x), in closed form: any shape, any device, plain torch.

Write s = sqrt(x), t = m/s, phi for the normal density at t, and split f = scale (z_+ - alpha e)
with z_+ = max(z, 0) and e = (1 - e^z) for z < 0, else 0. The two parts never live at once, so

    E f   = scale (E z_+ - alpha E e),
    Var f = scale^2 (Var z_+ + alpha^2 Var e + 2 alpha E z_+ E e),

a sum of positive terms: nothing cancels as it does in E f^2 - (E f)^2, which has no correct digit
left at m = 30, x = 1e-8 (the square is 1e11 times the variance) nor at m = -30 (saturation).
With P = Pr[z > 0], Q = 1 - P, A = E[e^z; z < 0], B = E[e^{2z}; z < 0]:

    E z_+   = m P + s phi             Var z_+ = x (P - u (|t| + u)),  u = phi - |t| min(P, Q)
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

__all__ = ["Parts", "Workspace", "derivatives", "moments", "parts"]

SMALL = 1e-4
LARGE = 200.0
# Small enough for all intermediates to stay in a core's cache, large enough to drown the
# interpreter's overhead; accelerators get long vectors instead.
CHUNK = {"cpu": 1 << 15}
CHUNK_ELSEWHERE = 1 << 22

_SQRT_HALF = math.sqrt(0.5)
_SQRT_HALF_PI = math.sqrt(math.pi / 2)
_NORMAL = 1 / math.sqrt(2 * math.pi)
# phi underflows beyond; clamping keeps 0 * inf out of the products with it.
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


class Workspace:
    """Rows to write intermediates into: fresh memory for each would cost more than the arithmetic.

    ``restart`` begins again with the first row.
    """

    ROWS = 16

    def __init__(self, size: int, like: torch.Tensor):
        self._full = list(torch.empty(self.ROWS, size, dtype=like.dtype, device=like.device))
        self._rows = iter(self._full)

    def restart(self, length: int) -> None:
        """Forget what the rows hold; hand out rows of ``length`` from now on."""
        full = length == len(self._full[0])
        self._rows = iter(self._full if full else [row[:length] for row in self._full])

    def __call__(self) -> torch.Tensor:
        """Return the next row."""
        return next(self._rows)


def parts(
    m: torch.Tensor,
    x: torch.Tensor,
    bounds: tuple[float, float] | None = None,
    workspace: Workspace | None = None,
) -> Parts:
    """Return the nine parts for float64 tensors (n,) of means and of variances x >= 0.

    ``bounds`` are the least and the greatest x if they are known. With a workspace the parts may
    live in its rows, until its next ``restart``.
    """
    if not len(x):
        return Parts(*(torch.empty_like(x) for _ in Parts._fields))
    row = _allocate if workspace is None else workspace
    low, high = bounds or (bound.item() for bound in x.aminmax())
    if low > SMALL and high <= LARGE:
        return _middle(m, x, row)
    if high <= SMALL:
        return _small(m, x, row)
    if low > LARGE:
        return _large(m, x, row)
    out = Parts(*(torch.empty_like(x) for _ in Parts._fields))
    for regime, mask in (
        (_small, x <= SMALL),
        (_middle, (x > SMALL) & (x <= LARGE)),
        (_large, x > LARGE),
    ):
        index = mask.nonzero()[:, 0]
        if len(index):
            for target, value in zip(out, regime(m[index], x[index], _allocate), strict=True):
                target[index] = value
    return out


def moments(p: Parts, alpha, scale, out=(None, None)) -> tuple[torch.Tensor, torch.Tensor]:
    """Return (E f, Var f) from the parts; alpha and scale are floats or tensors (n,)."""
    mean = _plus(p.mean_linear, p.mean_exponential, -alpha, out=out[0]).mul_(scale)
    variance = _plus_product(
        p.variance_linear, p.mean_linear, p.mean_exponential, 2 * alpha, out=out[1]
    )
    variance = _plus(variance, p.variance_exponential, alpha * alpha, out=variance)
    # Only a far tail of the linear side, alone, can come out of its rounding below 0.
    return mean, variance.mul_(scale * scale).clamp_(min=0)


def derivatives(
    p: Parts, mean, alpha, scale, out=(None,) * 4, workspace: Workspace | None = None
) -> tuple[torch.Tensor, ...]:
    """Return d(E f)/dm, d(E f)/dx, d(Var f)/dm and d(Var f)/dx, each (n,), given mean = E f.

    Price's theorem, d/dm E h(z) = E h'(z) and d/dx E h(z) = E h''(z)/2, gives scale (P + alpha A),
    scale/2 (alpha A + (1 - alpha) p0), 2 Cov(f, f') and E[f'^2 + f f''] - E f E f''; the last two
    are written in the parts so that neither saturation nor a large mean cancels.
    """
    row = _allocate if workspace is None else workspace
    square, bend = scale * scale, alpha * alpha
    pull = torch.mul(p.tilted, alpha, out=row())
    curve = torch.mul(p.density, 1 - alpha, out=row())
    mean_m = torch.add(p.positive, pull, out=out[0]).mul_(scale)
    mean_x = torch.add(pull, curve, out=out[1]).mul_(scale / 2)
    variance_m = torch.sub(p.negative, pull, out=out[2]).mul_(p.mean_linear)
    variance_m = _plus_product(
        variance_m, p.positive, p.mean_exponential, alpha * (1 - alpha), out=variance_m
    )
    variance_m = _plus(variance_m, p.variance_exponential, bend, out=variance_m).mul_(2 * square)
    weight = torch.add(p.tilted, p.positive, out=row())
    weight = _plus(p.mean_linear, weight, alpha, out=weight)
    variance_x = torch.addcmul(p.positive, pull, weight, value=-1, out=out[3])
    variance_x = _plus(variance_x, p.tilted2, 2 * bend, out=variance_x)
    variance_x = _plus_product(variance_x, mean, curve, -1 / scale, out=variance_x)
    return mean_m, mean_x, variance_m, variance_x.mul_(square)


def _plus(a, b, factor, out=None):
    """a + factor b; in one pass where the factor is a number."""
    if isinstance(factor, float):
        return torch.add(a, b, alpha=factor, out=out)
    return torch.addcmul(a, b, factor, out=out)


def _plus_product(a, b, c, factor, out=None):
    """a + factor b c; in one pass where the factor is a number."""
    if isinstance(factor, float):
        return torch.addcmul(a, b, c, value=factor, out=out)
    return torch.addcmul(a, b * c, factor, out=out)


def _allocate() -> None:
    """Stand in for a workspace: ``out=None`` lets torch allocate."""


def _normal(m, x, row):
    """s, t, |t|, the density phi(t) and the two tails P, Q (both to full relative precision)."""
    s = torch.sqrt(x, out=row())
    t = torch.div(m, s, out=row())
    y = torch.abs(t, out=row()).clamp_(max=_FAR)
    phi = torch.mul(y, y, out=row()).mul_(-0.5).exp_().mul_(_NORMAL)
    half = torch.mul(t, _SQRT_HALF, out=row())
    negative = torch.erfc(half, out=row()).mul_(0.5)
    positive = half.neg_().erfc_().mul_(0.5)
    return s, t, y, phi, positive, negative


def _linear(m, x, s, y, phi, positive, negative, row):
    """E z_+ and Var z_+; y is overwritten."""
    u = torch.minimum(positive, negative, out=row()).mul_(y)
    u = torch.sub(phi, u, out=u)
    # The tail of E z_+ = m P + s phi loses t^2 in relative precision, where it no longer matters.
    mean = torch.mul(m, positive, out=row()).addcmul_(s, phi)
    y.add_(u).mul_(u)
    variance = torch.sub(positive, y, out=u).mul_(x)
    return mean, variance


def _middle(m, x, row):
    s, t, y, phi, positive, negative = _normal(m, x, row)
    mean, variance = _linear(m, x, s, y, phi, positive, negative, row)
    lean = torch.add(m, x, alpha=0.5, out=y).clamp_(max=_EXPONENT).exp_()
    argument = t.add_(s)
    tilted = torch.mul(argument, _SQRT_HALF, out=row()).erfc_().mul_(0.5).mul_(lean)
    tilted2 = argument.add_(s).mul_(_SQRT_HALF).erfc_().mul_(0.5)
    tilted2.mul_(lean.square_()).mul_(torch.exp(x, out=lean))
    return _bent(s, phi, positive, negative, tilted, tilted2, mean, variance, row)


def _large(m, x, row):
    s, t, y, phi, positive, negative = _normal(m, x, row)
    mean, variance = _linear(m, x, s, y, phi, positive, negative, row)
    tilted = _tilted_tail(t + s, m + x / 2, phi)
    tilted2 = _tilted_tail(t + 2 * s, 2 * (m + x), phi)
    return _bent(s, phi, positive, negative, tilted, tilted2, mean, variance, row)


def _tilted_tail(a, exponent, phi):
    """e^exponent Q(a), where phi(t)/phi(a) = e^exponent; a < 0 only where exponent < 0."""
    tail = torch.special.erfcx(a.abs().mul_(_SQRT_HALF)).mul_(phi).mul_(_SQRT_HALF_PI)
    return torch.where(a < 0, exponent.clamp(max=0).exp_() - tail, tail)


def _bent(s, phi, positive, negative, tilted, tilted2, mean, variance, row):
    both = torch.add(tilted, positive, out=row())
    exponential = torch.add(tilted2, positive, out=row()).addcmul_(both, both, value=-1)
    return Parts(
        positive,
        negative,
        phi.div_(s),
        tilted,
        tilted2,
        mean,
        variance,
        torch.sub(negative, tilted, out=both),
        exponential,
    )


def _small(m, x, row):
    x = x.clamp(min=_TINY)
    s, t, y, phi, positive, negative = _normal(m, x, row)
    mean, variance = _linear(m, x, s, y.clone(), phi, positive, negative, row)
    first, second = _differences(y, torch.where(t < 0, -s, s), phi, positive, negative)
    spread = second - first.square()
    # For t < 0 the part z > 0 is the rare one: take the whole e^z - 1, a lognormal, less that part.
    saturated = t < 0
    low = m.clamp(max=0)
    below = -first - torch.expm1(low + x / 2)
    lean = (low + x / 2).exp()
    lognormal = lean.square() * torch.expm1(x)
    mean_e = torch.where(saturated, below, first)
    variance_e = torch.where(saturated, lognormal - spread + 2 * below * first, spread)
    tilted = torch.where(saturated, lean + first - positive, negative - first)
    tilted2 = torch.where(
        saturated,
        lean.square() * x.exp() - second + 2 * first - positive,
        second - negative + 2 * tilted,
    )
    return Parts(positive, negative, phi / s, tilted, tilted2, mean, variance, mean_e, variance_e)


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
