"""Theorems 1-3 of Klambauer et al. 2017, proved by ball arithmetic on boxes of two numbers.

The layer map needs m = mu omega and x = nu tau only. A product of intervals for mu and omega gives
the whole interval of their products for m, whatever nu and tau are, so every statement about the
four-dimensional box becomes one about (m, x); what is left of omega and tau enters monotonically.

A box [M] x [X] is bounded in centered form, f(M, X) within f(c) + f_m(M, X)(M - m_c) +
f_x(M, X)(X - x_c), with balls (python-flint's ``arb``, 80 bits) for everything; a box that does not
decide is cut in two across the direction that contributes more. "Proved" is the outcome of ball
comparisons, which are true only if they hold for every point of the balls: NaN, overlap and an
exhausted budget all mean not proved.

Numbers of the box are read both ways, as the floating-point number and as the decimal it prints as
(1.1 is not 1.1000000000000000888): boxes are widened to hold both readings, bounds and images are
narrowed to be within both. Constants are SELU's exact ones unless floats are given.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, fields
from fractions import Fraction
from itertools import pairwise
from typing import NamedTuple

import flint
from flint import arb

from reproductions._validate import choice, positive_integer, within

__all__ = [
    "MAX_BOXES",
    "Box",
    "Leaf",
    "Proof",
    "contraction_leaves",
    "curvature_bound",
    "prove_contraction",
    "prove_image",
    "prove_self_map",
    "prove_variance_grows",
    "prove_variance_shrinks",
]

MAX_BOXES = 4_000
"""Boxes after which a proof is given up unless the caller says otherwise."""

_BITS = 80
# Outside no proof is tried: midpoints of larger or smaller numbers are no floats.
_LEAST, _GREATEST = Fraction(1, 2**900), Fraction(2**900)

Pair = tuple[float, float]


@dataclass(frozen=True)
class Box:
    """A product of closed intervals, each a (low, high) pair of finite floats.

    mu and omega may have any sign; nu (a variance) and tau (a sum of squares) are at least 0.
    """

    mu: Pair
    nu: Pair
    omega: Pair
    tau: Pair

    def __post_init__(self):
        for field in fields(self):
            low = 0.0 if field.name in ("nu", "tau") else -math.inf
            pair = _interval(field.name, getattr(self, field.name), low=low)
            object.__setattr__(self, field.name, pair)


@dataclass(frozen=True)
class Proof:
    """Whether a statement was proved, and with how many boxes (undecided and cut ones included).

    ``proved=False`` says that no proof was found, not that the statement is false.
    """

    proved: bool
    n_boxes: int

    def __bool__(self) -> bool:
        return self.proved


class Leaf(NamedTuple):
    """A box [mean] x [variance] of preactivations and a bound that holds on all of it."""

    mean: Pair
    variance: Pair
    bound: float


def prove_contraction(
    box: Box,
    bound: float = 1.0,
    *,
    alpha: float | None = None,
    scale: float | None = None,
    max_boxes: int = MAX_BOXES,
) -> Proof:
    """Prove that the spectral norm of the Jacobian is below ``bound`` on the whole box.

    Theorem 1's contraction, Lemma 12. J = [omega a(m, x), tau b(m, x)], so J J^T grows with omega^2
    and tau^2; with W = max |omega| and T = min(tau_max, x/nu_min) it is enough that
    bound^2 I - [W a, T b]^T [W a, T b] is positive definite, which two ball comparisons decide.

    Args:
        box: where.
        bound: what to stay below, greater than 0.
        alpha: saturation of the activation in units of scale; SELU's exact constant by default.
        scale: slope of the linear side; SELU's exact constant by default.
        max_boxes: give up after so many boxes.

    Raises:
        ValueError: bound, alpha, scale or max_boxes out of range or NaN.
    """
    search, _ = _contraction(box, bound, alpha, scale, max_boxes)
    return search


def contraction_leaves(
    box: Box,
    bound: float = 1.0,
    *,
    alpha: float | None = None,
    scale: float | None = None,
    max_boxes: int = MAX_BOXES,
) -> list[Leaf]:
    """Return the boxes that a proof of contraction ends in, with a bound on the norm for each.

    They tile the range of (m, x); every point of the four-dimensional box has its (m, x) in one.

    Raises:
        ValueError: the statement was not proved, or as :func:`prove_contraction`.
    """
    search, leaves = _contraction(box, bound, alpha, scale, max_boxes)
    if not search.proved:
        raise ValueError(f"bound must be provable within {max_boxes} boxes, got {bound:g}")
    return leaves


def prove_image(
    box: Box,
    image_mu: Pair,
    image_nu: Pair,
    *,
    alpha: float | None = None,
    scale: float | None = None,
    max_boxes: int = MAX_BOXES,
) -> Proof:
    """Prove that one layer maps the box into image_mu x image_nu, wherever that lies.

    Raises:
        ValueError: an interval is empty, NaN or negative where it bounds a variance.
    """
    mu_low, mu_high = _narrowed(_interval("image_mu", image_mu))
    nu_low, nu_high = _narrowed(_interval("image_nu", image_nu, low=0.0))

    def decide(piece: _Piece) -> _Decision:
        mean, variance = piece.mean_and_variance()
        checks = [(mean - mu_low), (mu_high - mean), (variance - nu_low), (nu_high - variance)]
        return _all_nonnegative(checks)

    return _prove(box, decide, alpha, scale, max_boxes)


def prove_self_map(
    box: Box,
    image_mu: Pair,
    image_nu: Pair,
    *,
    alpha: float | None = None,
    scale: float | None = None,
    max_boxes: int = MAX_BOXES,
) -> Proof:
    """Prove that the layer map sends box.mu x box.nu into itself, even into the given image.

    Theorem 1's other half: with :func:`prove_contraction` Banach's theorem then gives one
    attracting fixed point in the image for each (omega, tau). Two things are needed, that the image
    lies in box.mu x box.nu and :func:`prove_image`; if the first fails nothing is proved, with 0
    boxes.
    """
    image_mu, image_nu = _interval("image_mu", image_mu), _interval("image_nu", image_nu, low=0.0)
    inside = all(
        low <= inner_low and inner_high <= high
        for (low, high), (inner_low, inner_high) in ((box.mu, image_mu), (box.nu, image_nu))
    )
    if not inside:
        return Proof(proved=False, n_boxes=0)
    return prove_image(box, image_mu, image_nu, alpha=alpha, scale=scale, max_boxes=max_boxes)


def prove_variance_shrinks(
    box: Box,
    *,
    alpha: float | None = None,
    scale: float | None = None,
    max_boxes: int = MAX_BOXES,
) -> Proof:
    """Prove nu' < nu on the whole box (Theorem 2).

    Among the (nu, tau) with nu tau = x the least nu is max(nu_min, x/tau_max), so the statement is
    nu'(m, x) < max(nu_min, x/tau_max) for all (m, x): nothing is lost.
    """
    nu_min, tau_max = _outer(box.nu)[0], _outer(box.tau)[1]

    def decide(piece: _Piece) -> _Decision:
        _, variance = piece.mean_and_variance()
        gaps = [_exact(nu_min) - variance]
        if tau_max > 0:
            gaps.append(piece.x * (1 / _exact(tau_max)) - variance)
        return _one_positive(gaps)

    return _prove(box, decide, alpha, scale, max_boxes)


def prove_variance_grows(
    box: Box,
    *,
    alpha: float | None = None,
    scale: float | None = None,
    max_boxes: int = MAX_BOXES,
) -> Proof:
    """Prove nu' > nu on the whole box (Theorem 3).

    Among the (nu, tau) with nu tau = x the greatest nu is min(nu_max, x/tau_min), so the statement
    is nu'(m, x) > min(nu_max, x/tau_min) for all (m, x).
    """
    nu_max, tau_min = _outer(box.nu)[1], _outer(box.tau)[0]

    def decide(piece: _Piece) -> _Decision:
        _, variance = piece.mean_and_variance()
        gaps = [variance - _exact(nu_max)]
        if tau_min > 0:
            gaps.append(variance - piece.x * (1 / _exact(tau_min)))
        return _one_positive(gaps)

    return _prove(box, decide, alpha, scale, max_boxes)


def curvature_bound(
    box: Box,
    which: str = "variance",
    *,
    alpha: float | None = None,
    scale: float | None = None,
    pieces: int = 128,
) -> float:
    """Return an upper bound of the Frobenius norm of d^2/dm^2 [W a(m, x), tau_max b(m, x)].

    W = max |omega|, over the box's whole (m, x) range, for the columns of :func:`prove_contraction`
    (``which="variance"``) or of the second-moment map. Enclosed by power series in m over balls;
    infinite if the box reaches x = 0.
    """
    choice("which", which, ("variance", "second moment"))
    positive_integer("pieces", pieces)
    with flint.ctx.workprec(_BITS):
        a, c = _parameters(alpha, scale)
        w, t = _exact(_reach(box.omega)), _exact(_outer(box.tau)[1])
        (m_low, m_high), (x_low, x_high) = _plane(box)
        m = flint.arb_series([_ball(m_low, m_high), 1], prec=3)
        cuts = [x_low + (x_high - x_low) * Fraction(k, pieces) for k in range(pieces + 1)]
        worst = 0.0
        for low, high in pairwise(cuts):
            d1, d2, g, h = _columns_series(m, _ball(low, high), a, c, which)
            second = [2 * entry[2] for entry in (w * d1, w * g, t * d2, t * h)]
            norm = sum((v * v for v in second), arb(0)).abs_upper().sqrt()
            value = float(norm.upper())
            if not value <= worst:
                worst = value if math.isfinite(value) else math.inf
        return math.nextafter(worst, math.inf)


def _interval(name: str, pair: Pair, low: float = -math.inf) -> Pair:
    try:
        first, last = pair
        if any(isinstance(end, (str, bytes)) for end in (first, last)):
            raise TypeError("text")
        first, last = float(first), float(last)
    except (TypeError, ValueError, OverflowError) as error:
        raise ValueError(f"{name} must be a (low, high) pair, got {pair!r}") from error
    first, last = (within(name, end, low=low).item() for end in (first, last))
    if first > last:
        raise ValueError(f"{name} must be a non-empty (low, high) pair, got ({first:g}, {last:g})")
    return first, last


def _readings(value: float) -> tuple[Fraction, Fraction]:
    """The floating-point number itself and the decimal it prints as."""
    return Fraction(value), Fraction(repr(value))


def _outer(pair: Pair) -> tuple[Fraction, Fraction]:
    return min(_readings(pair[0])), max(_readings(pair[1]))


def _narrowed(pair: Pair) -> tuple[arb, arb]:
    """Balls for the ends of the interval within both readings."""
    with flint.ctx.workprec(_BITS):
        return _exact(max(_readings(pair[0]))), _exact(min(_readings(pair[1])))


def _reach(pair: Pair) -> Fraction:
    return max(abs(end) for end in _outer(pair))


def _plane(box: Box) -> tuple[tuple[Fraction, Fraction], tuple[Fraction, Fraction]]:
    """The ranges of m = mu omega and of x = nu tau, exactly."""
    products = [a * b for a in _outer(box.mu) for b in _outer(box.omega)]
    (nu_low, nu_high), (tau_low, tau_high) = _outer(box.nu), _outer(box.tau)
    return (min(products), max(products)), (nu_low * tau_low, nu_high * tau_high)


def _exact(value: Fraction) -> arb:
    """The ball of a rational number, rounded outward."""
    return arb(flint.fmpq(value.numerator, value.denominator))


def _ball(low: Fraction, high: Fraction) -> arb:
    return _exact(low).union(_exact(high))


def _parameters(alpha: float | None, scale: float | None) -> tuple[arb, arb]:
    """Balls for alpha and lambda: the floats given, or SELU's closed form."""
    e1 = (arb(1) / 2).exp() * (arb(1) / 2).sqrt().erfc()
    e2 = arb(2).exp() * arb(2).sqrt().erfc()
    exact_alpha = (2 / arb.pi()).sqrt() / (1 - e1)
    exact_scale = 1 / ((1 + exact_alpha * exact_alpha * (1 - 2 * e1 + e2)) / 2).sqrt()
    if alpha is not None:
        exact_alpha = arb(within("alpha", alpha, low=0.0).item())
    if scale is not None:
        exact_scale = arb(within("scale", scale, low=0.0, open_low=True).item())
    return exact_alpha, exact_scale


class _Form:
    """A function on a box [M] x [X]: value at the center, enclosures of value and gradient."""

    __slots__ = ("at", "center", "dm", "dx", "radii")

    def __init__(self, center: arb, at: arb, dm: arb, dx: arb, radii: tuple[arb, arb]):
        self.center, self.dm, self.dx, self.radii = center, dm, dx, radii
        centered = center + dm * radii[0] + dx * radii[1]
        # Both enclose the values, so does their intersection; it fails for NaN only.
        finite = centered.is_finite() and at.is_finite()
        self.at = at.intersection(centered) if finite else at

    def __add__(self, other):
        if not isinstance(other, _Form):
            return _Form(self.center + other, self.at + other, self.dm, self.dx, self.radii)
        return _Form(
            self.center + other.center,
            self.at + other.at,
            self.dm + other.dm,
            self.dx + other.dx,
            self.radii,
        )

    __radd__ = __add__

    def __neg__(self):
        return self * arb(-1)

    def __sub__(self, other):
        return self + (-other)

    def __rsub__(self, other):
        return (-self) + other

    def __mul__(self, other):
        if not isinstance(other, _Form):
            return _Form(
                self.center * other, self.at * other, self.dm * other, self.dx * other, self.radii
            )
        return _Form(
            self.center * other.center,
            self.at * other.at,
            self.dm * other.at + self.at * other.dm,
            self.dx * other.at + self.at * other.dx,
            self.radii,
        )

    __rmul__ = __mul__


class _Gaussian(NamedTuple):
    """The parts of both moments at a point or over a box, as in the kernel."""

    positive: arb
    density: arb
    tilted: arb
    tilted2: arb
    mean_linear: arb


def _gaussian(m: arb, x: arb) -> _Gaussian:
    """P, p0, A, B and E z_+ by direct evaluation (wide for wide balls)."""
    root = (2 * x).sqrt()
    u = m / root
    positive = (-u).erfc() / 2
    density = (-(u * u)).exp() / (root * arb.pi().sqrt())
    tilted = (m + x / 2).exp() * ((m + x) / root).erfc() / 2
    tilted2 = (2 * (m + x)).exp() * ((m + 2 * x) / root).erfc() / 2
    return _Gaussian(positive, density, tilted, tilted2, m * positive + x * density)


class _Piece:
    """A box [M] x [X] with the functions of the layer map on it, as forms."""

    def __init__(self, m: tuple[Fraction, Fraction], x: tuple[Fraction, Fraction], parameters):
        self.range_m, self.range_x, self.parameters = m, x, parameters
        # Any center inside will do: a float is exact in a ball and keeps the fractions short.
        self.middle_m, self.middle_x = (_middle(*side) for side in (m, x))
        center_m, center_x = _exact(self.middle_m), _exact(self.middle_x)
        ball_m, ball_x = _ball(*m), _ball(*x)
        self.radii = (ball_m - center_m, ball_x - center_x)
        at, center = _gaussian(ball_m, ball_x), _gaussian(center_m, center_x)
        ratio = ball_m / ball_x

        def form(name, dm, dx):
            return _Form(getattr(center, name), getattr(at, name), dm, dx, self.radii)

        self.m = _Form(center_m, ball_m, arb(1), arb(0), self.radii)
        self.x = _Form(center_x, ball_x, arb(0), arb(1), self.radii)
        density = at.density
        curl = (ratio * ratio - 1 / ball_x) / 2
        self.density = form("density", -ratio * density, density * curl)
        density = self.density.at
        self.positive = form("positive", density, -ratio * density / 2)
        self.tilted = form(
            "tilted", at.tilted - density, (at.tilted - density + ratio * density) / 2
        )
        self.tilted2 = form(
            "tilted2",
            2 * at.tilted2 - density,
            (4 * at.tilted2 - 2 * density + ratio * density) / 2,
        )
        self.mean_linear = form("mean_linear", self.positive.at, density / 2)

    def mean_and_variance(self) -> tuple[_Form, _Form]:
        """The two moments, with the gradient from Price's theorem: shorter than the chain rule."""
        alpha, scale = self.parameters
        d1, d2, ff, h = self._slopes()
        mean = scale * (self.mean_linear + alpha * (self.tilted + self.positive - 1))
        square = (self.m * self.m + self.x) * self.positive + self.m * self.x * self.density
        bent = self.tilted2 - 2 * self.tilted - self.positive + 1
        second = scale * scale * (square + alpha * alpha * bent)
        mean = _Form(mean.center, mean.at, d1.at, d2.at, self.radii)
        variance = _Form(
            second.center - mean.center * mean.center,
            second.at - mean.at * mean.at,
            2 * (ff - mean * d1).at,
            (h - 2 * mean * d2).at,
            self.radii,
        )
        return mean, variance

    def columns(self) -> tuple[_Form, _Form, _Form, _Form]:
        """d mean/dm, d mean/dx, d variance/dm and d variance/dx."""
        mean, _ = self.mean_and_variance()
        d1, d2, ff, h = self._slopes()
        return d1, d2, 2 * (ff - mean * d1), h - 2 * mean * d2

    def _slopes(self):
        """E f', E f''/2, E f f' and E[f'^2 + f f'']."""
        alpha, scale = self.parameters
        square = scale * scale
        return (
            scale * (self.positive + alpha * self.tilted),
            (scale / 2) * (alpha * self.tilted + (1 - alpha) * self.density),
            square * (self.mean_linear + alpha * alpha * (self.tilted2 - self.tilted)),
            square * (self.positive + alpha * alpha * (2 * self.tilted2 - self.tilted)),
        )

    def halves(self, form: _Form) -> tuple[_Piece, _Piece]:
        """Cut across the direction in which ``form`` is less certain."""
        spread_m, spread_x = (
            _size(slope * radius)
            for slope, radius in zip((form.dm, form.dx), self.radii, strict=True)
        )
        if not (math.isfinite(spread_m) and math.isfinite(spread_x)):
            # Nothing known about the slopes: widths in units of the standard deviation.
            width_m, width_x = (float(b - a) for a, b in (self.range_m, self.range_x))
            deviation = math.sqrt(float(self.range_x[1])) or 1.0
            spread_m, spread_x = width_m / deviation, width_x / deviation**2
        cut_m = spread_m > spread_x
        (low, high), middle = (
            (self.range_m, self.middle_m) if cut_m else (self.range_x, self.middle_x)
        )
        sides = ((low, middle), (middle, high))
        if cut_m:
            return tuple(_Piece(side, self.range_x, self.parameters) for side in sides)
        return tuple(_Piece(self.range_m, side, self.parameters) for side in sides)


def _middle(low: Fraction, high: Fraction) -> Fraction:
    middle = Fraction(float((low + high) / 2))
    return middle if low <= middle <= high else (low + high) / 2


def _size(ball: arb) -> float:
    return float(ball.abs_upper())


class _Decision(NamedTuple):
    """What a piece says: proved there, hopeless (false at its center), and where it is unsure."""

    proved: bool
    hopeless: bool
    unsure: _Form
    bound: float = math.nan


def _all_nonnegative(forms: list[_Form]) -> _Decision:
    proved = all(form.at >= 0 for form in forms)
    hopeless = any(form.center < 0 for form in forms)
    # The form that reaches furthest below 0 in units of its spread is the one to work on.
    unsure = next((form for form in forms if not form.at >= 0), forms[0])
    return _Decision(proved, hopeless, unsure)


def _one_positive(forms: list[_Form]) -> _Decision:
    proved = any(form.at > 0 for form in forms)
    hopeless = all(form.center <= 0 for form in forms)
    unsure = max(forms, key=lambda form: _lower(form.center))
    return _Decision(proved, hopeless, unsure)


def _lower(ball: arb) -> float:
    value = float(ball.lower())
    return value if not math.isnan(value) else -math.inf


def _contraction(box, bound, alpha, scale, max_boxes):
    bound = within("bound", bound, low=0.0, open_low=True).item()
    nu_min, tau_max = _outer(box.nu)[0], _outer(box.tau)[1]
    knee = nu_min * tau_max

    def decide(piece: _Piece) -> _Decision:
        reach = _exact(_reach(box.omega))
        limit = _exact(min(_readings(bound)))
        limit = limit * limit
        d1, d2, g, h = piece.columns()
        below_knee = 0 < piece.range_x[1] <= knee
        tau = piece.x * (1 / _exact(nu_min)) if below_knee else _exact(tau_max)
        a2 = (reach * reach) * (d1 * d1 + g * g)
        b2 = (d2 * d2 + h * h) * tau * tau
        ab = (d1 * d2 + g * h) * tau * reach
        first = limit - a2
        determinant = first * (limit - b2) - ab * ab
        proved = bool(first.at > 0) and bool(determinant.at > 0)
        # At the center tau may be smaller than at the piece's right end, never than x_c/nu_min.
        slack = piece.range_x[0] < knee < piece.range_x[1]
        hopeless = not slack and bool(first.center <= 0 or determinant.center <= 0)
        return _Decision(proved, hopeless, determinant, _norm_bound(a2.at, b2.at, ab.at))

    return _search(box, decide, alpha, scale, max_boxes, knee)


def _norm_bound(a2: arb, b2: arb, ab: arb) -> float:
    """Upper bound of the greatest singular value of [a, b] from |a|^2, |b|^2 and a.b."""
    discriminant = (a2 - b2) * (a2 - b2) + 4 * ab * ab
    value = ((a2 + b2).abs_upper() + discriminant.abs_upper().sqrt()) / 2
    return math.nextafter(float(value.abs_upper().sqrt().upper()), math.inf)


def _prove(box, decide, alpha, scale, max_boxes) -> Proof:
    return _search(box, decide, alpha, scale, max_boxes)[0]


def _search(
    box: Box,
    decide: Callable[[_Piece], _Decision],
    alpha: float | None,
    scale: float | None,
    max_boxes: int,
    knee: Fraction | None = None,
) -> tuple[Proof, list[Leaf]]:
    """Cut the (m, x) range until every piece is proved, one is hopeless, or the budget is spent."""
    positive_integer("max_boxes", max_boxes)
    leaves, n_boxes = [], 0
    with flint.ctx.workprec(_BITS):
        parameters = _parameters(alpha, scale)
        m, (low, high) = _plane(box)
        if low < _LEAST or max(abs(m[0]), abs(m[1]), high) > _GREATEST:
            # The density at the kink is unbounded as x -> 0, and nothing is tight far out.
            return Proof(proved=False, n_boxes=0), []
        sides = [(low, knee), (knee, high)] if knee and low < knee < high else [(low, high)]
        pending = [_Piece(m, side, parameters) for side in reversed(sides)]
        while pending:
            if n_boxes == max_boxes:
                return Proof(proved=False, n_boxes=n_boxes), leaves
            piece = pending.pop()
            n_boxes += 1
            decision = decide(piece)
            if decision.proved:
                pairs = (tuple(map(float, side)) for side in (piece.range_m, piece.range_x))
                leaves.append(Leaf(*pairs, decision.bound))
            elif decision.hopeless:
                return Proof(proved=False, n_boxes=n_boxes), leaves
            else:
                pending.extend(reversed(piece.halves(decision.unsure)))
    return Proof(proved=True, n_boxes=n_boxes), leaves


def _columns_series(m, x: arb, alpha: arb, scale: arb, which: str):
    """The four entries of the columns as power series in m, over a ball of x."""
    root = (2 * x).sqrt()
    u = m * (1 / root)
    square = scale * scale
    positive = (-u).erfc() * arb(0.5)
    density = (-(u * u)).exp() * (1 / (root * arb.pi().sqrt()))
    tilted = (m + x / 2).exp() * ((m + x) * (1 / root)).erfc() * arb(0.5)
    tilted2 = (2 * (m + x)).exp() * ((m + 2 * x) * (1 / root)).erfc() * arb(0.5)
    linear = m * positive + x * density
    d1 = scale * (positive + alpha * tilted)
    d2 = (scale / 2) * (alpha * tilted + (1 - alpha) * density)
    g = 2 * square * (linear + alpha * alpha * (tilted2 - tilted))
    h = square * (positive + alpha * alpha * (2 * tilted2 - tilted))
    if which == "variance":
        mean = scale * (linear + alpha * (tilted + positive - 1))
        g, h = g - 2 * mean * d1, h - 2 * mean * d2
    return d1, d2, g, h
