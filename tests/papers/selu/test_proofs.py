import math
from fractions import Fraction

import flint
import pytest
import torch
from flint import arb

from reproductions.papers.selu import (
    MAX_BOXES,
    SCALE,
    Box,
    Proof,
    contraction_leaves,
    curvature_bound,
    moment_jacobian,
    moment_map,
    prove_contraction,
    prove_image,
    prove_self_map,
    prove_variance_grows,
    prove_variance_shrinks,
    spectral_norm,
)
from reproductions.papers.selu.proofs import _exact, _Form, _narrowed, _outer, _parameters, _Piece

SIDE = (-0.1, 0.1)
THEOREM_1 = Box(mu=SIDE, nu=(0.8, 1.5), omega=SIDE, tau=(0.95, 1.1))
LEMMA_12 = Box(mu=SIDE, nu=(0.8, 1.5), omega=SIDE, tau=(0.8, 1.25))
THEOREM_2 = Box(mu=(-1, 1), nu=(3, 16), omega=SIDE, tau=(0.8, 1.25))
THEOREM_3A = Box(mu=SIDE, nu=(0.02, 0.16), omega=SIDE, tau=(0.8, 1.25))
THEOREM_3B = Box(mu=SIDE, nu=(0.02, 0.24), omega=SIDE, tau=(0.9, 1.25))
IMAGE = ((-0.0310606, 0.0677252), (0.8037, 1.4816))
RELU_GAIN = 1 / math.sqrt(0.5 - 0.5 / math.pi)


def test_three_theorems_with_under_300_boxes():
    proofs = [
        prove_contraction(THEOREM_1),
        prove_self_map(THEOREM_1, *IMAGE),
        prove_variance_shrinks(THEOREM_2),
        prove_variance_grows(THEOREM_3A),
        prove_variance_grows(THEOREM_3B),
    ]
    assert all(proof.proved is True for proof in proofs)
    assert all(proof.n_boxes > 1 for proof in proofs)
    assert sum(proof.n_boxes for proof in proofs) < 300
    assert proofs[0].n_boxes <= 21
    assert proofs[1].n_boxes <= 71
    assert proofs[2].n_boxes <= 131
    assert proofs[3].n_boxes <= 39
    assert proofs[4].n_boxes <= 31


def test_contraction_on_the_wide_box_and_sharp_bounds():
    assert prove_contraction(LEMMA_12)
    assert prove_contraction(LEMMA_12, 0.98903)
    assert prove_contraction(THEOREM_1, 0.8977)
    for omega in (0.2, 0.3, 0.4, 0.5):
        box = Box(mu=SIDE, nu=(0.8, 1.5), omega=(-omega, omega), tau=(0.95, 1.1))
        assert prove_contraction(box).n_boxes < 200


@pytest.mark.parametrize(
    ("box", "bound", "parameters"),
    [
        (THEOREM_1, 0.5, {}),
        (THEOREM_1, 0.8976, {}),  # the supremum is 0.89760835
        (LEMMA_12, 0.98902, {}),  # the supremum is 0.98902627
        (THEOREM_1, 1.0, {"alpha": 0.0, "scale": RELU_GAIN}),  # normalized rectifier: 1.057
        (Box((0, 0), (1, 1), (0, 0), (1, 1)), 1.0, {"alpha": 0.0, "scale": RELU_GAIN}),
        (Box((0, 0), (1, 1), (1, 1), (1, 1)), 1.0, {}),  # omega = 1: 1.111
        # Both singular values above the bound: the determinant alone is positive.
        (Box((0, 0), (1, 1), (1, 1), (1, 1)), 0.1, {}),
        (Box((0, 0), (1, 1), (3, 3), (1, 1)), 0.5, {}),
        (Box(SIDE, (0.8, 1.5), (-1, 1), (0.95, 1.1)), 1.0, {}),
        (Box(SIDE, (0.8, 1.5), (0.9, 1), (0.95, 1.1)), 1.0, {}),
        (Box((0, 0), (1, 1), (0, 0), (1, 1)), 0.787673360, {}),  # 0.78767336046...
        (Box(SIDE, (0.0, 1.5), SIDE, (0.95, 1.1)), 1.0, {}),
        (Box(SIDE, (1e-6, 1.5), SIDE, (0.95, 1.1)), 1.0, {}),
    ],
)
def test_false_contractions_are_not_proved(box, bound, parameters):
    proof = prove_contraction(box, bound, **parameters)
    assert proof.proved is False
    assert proof.n_boxes <= MAX_BOXES
    with pytest.raises(ValueError, match="bound must be provable"):
        contraction_leaves(box, bound, **parameters, max_boxes=50)


def test_point_boxes_are_sharp():
    point = Box((0, 0), (1, 1), (0, 0), (1, 1))
    assert prove_contraction(point, 0.787673361) == Proof(True, 1)
    assert prove_image(point, (-1e-15, 1e-15), (1 - 1e-15, 1 + 1e-15))
    # The exact constants make (0, 1) fixed; floats next to them do not.
    assert not prove_image(
        point, (-1e-15, 1e-15), (1 - 1e-15, 1 + 1e-15), alpha=1.6733, scale=SCALE
    )
    assert not prove_image(point, (1e-15, 1), (0.9, 1.1))
    control = prove_self_map(
        Box((-0.1, 0.1), (0.99, 1.01), (0, 0), (1, 1)),
        (-1e-3, 1e-3),
        (0.992, 1.008),
        alpha=1.6,
        scale=1.05,
    )
    assert not control


@pytest.mark.parametrize(
    ("mu", "nu"),
    [
        ((-0.0310604, 0.0677252), (0.8037, 1.4816)),  # true end -0.0310605
        ((-0.0310606, 0.0677250), (0.8037, 1.4816)),  # true end 0.0677251
        ((-0.0310606, 0.0677252), (0.803712, 1.4816)),  # true end 0.8037117577
        ((-0.0310606, 0.0677252), (0.8037, 1.481574)),  # true end 1.4815749583
        ((-0.2, 0.0677252), (0.8037, 1.4816)),  # image outside the box
        ((-0.0310606, 0.0677252), (0.8037, 1.6)),
    ],
)
def test_false_self_maps_are_not_proved(mu, nu):
    assert not prove_self_map(THEOREM_1, mu, nu)


def test_wider_tau_does_not_map_into_itself():
    assert not prove_self_map(LEMMA_12, SIDE, (0.8, 1.5))
    assert prove_self_map(THEOREM_1, SIDE, (0.8, 1.5))
    # Where the image of the wide box does lie is provable, but it is no self-map.
    assert prove_image(LEMMA_12, (-0.2, 0.2), (0.5, 2.0))


@pytest.mark.parametrize(
    ("prove", "box"),
    [
        (prove_variance_shrinks, Box(mu=(-1, 1), nu=(2, 16), omega=SIDE, tau=(0.8, 1.25))),
        (prove_variance_shrinks, Box(mu=(-1, 1), nu=(3, 16), omega=SIDE, tau=(0.8, 1.4))),
        (prove_variance_shrinks, Box(mu=(-1, 1), nu=(3, 16), omega=(-1, 1), tau=(0.8, 1.25))),
        (prove_variance_shrinks, THEOREM_3A),
        (prove_variance_shrinks, Box((0, 0), (1, 1), (0, 0), (1, 1))),  # equal, not less
        (prove_variance_grows, Box(mu=SIDE, nu=(0.02, 0.42), omega=SIDE, tau=(0.8, 1.25))),
        (prove_variance_grows, Box(mu=SIDE, nu=(0.02, 0.16), omega=SIDE, tau=(0.5, 1.25))),
        (prove_variance_grows, THEOREM_2),
        (prove_variance_grows, Box((0, 0), (1, 1), (0, 0), (1, 1))),
        (prove_variance_grows, Box(mu=SIDE, nu=(0.0, 0.16), omega=SIDE, tau=(0.8, 1.25))),
        (prove_variance_grows, Box(mu=SIDE, nu=(0.02, 0.16), omega=SIDE, tau=(0.0, 1.25))),
    ],
)
def test_false_theorems_2_and_3_are_not_proved(prove, box):
    assert not prove(box)


def test_normalized_rectifier_neither_shrinks_nor_grows():
    for prove in (prove_variance_shrinks, prove_variance_grows):
        box = Box(mu=(0, 0), nu=(0.5, 2), omega=(0, 0), tau=(1, 1))
        assert not prove(box, alpha=0.0, scale=RELU_GAIN)
    shrunk = Box(mu=(0, 0), nu=(0.5, 2), omega=(0, 0), tau=(0.9, 0.95))
    assert prove_variance_shrinks(shrunk, alpha=0.0, scale=RELU_GAIN)


def random_box(generator):
    def pair(low, high):
        ends = torch.rand(2, generator=generator, dtype=torch.float64) * (high - low) + low
        return tuple(sorted(ends.tolist()))

    width = 10 ** (torch.rand(1, generator=generator).item() * 2 - 1.3)
    center = torch.randn(2, generator=generator).tolist()
    nu, tau = pair(0.02, 4), pair(0.4, 2)
    return Box(
        mu=pair(center[0] - width, center[0] + width),
        nu=(nu[0], min(nu[1], nu[0] * (1 + 2 * width))),
        omega=pair(center[1] - width, center[1] + width),
        tau=(tau[0], min(tau[1], tau[0] * (1 + width))),
    )


def sample(box, generator, n=400):
    """Random points of the box (mu, nu, omega, tau), faces and corners favored."""
    columns = []
    for low, high in (box.mu, box.nu, box.omega, box.tau):
        u = torch.rand(n, generator=generator, dtype=torch.float64) * 1.6 - 0.3
        columns.append(low + (high - low) * u.clamp(0, 1))
    return columns


def test_whatever_is_proved_is_true_in_a_sample():
    generator = torch.Generator().manual_seed(0)
    outcomes = {name: [0, 0] for name in ("contraction", "image", "shrinks", "grows")}

    def record(name, proof, holds):
        outcomes[name][int(proof.proved)] += 1
        assert holds or not proof.proved, name

    for _ in range(50):
        box = random_box(generator)
        points = sample(box, generator)
        norms = spectral_norm(moment_jacobian(*points))
        mean, variance = moment_map(*points)
        for factor in (0.9, 0.999, 1.05, 1.5):
            bound = norms.max().item() * factor
            record("contraction", prove_contraction(box, bound, max_boxes=100), factor > 1)
        margin = 0.03 * (mean.max() - mean.min()).item() + 1e-6
        spread = 0.03 * (variance.max() - variance.min()).item() + 1e-6
        for sign in (-1, 1):
            ends = (mean.min() - sign * margin, mean.max() + sign * margin)
            nu_ends = (variance.min() - sign * spread, variance.max() + sign * spread)
            if ends[0] > ends[1] or nu_ends[0] > nu_ends[1] or nu_ends[0] < 0:
                continue
            image = [tuple(map(float, pair)) for pair in (ends, nu_ends)]
            record("image", prove_image(box, *image, max_boxes=100), sign > 0)
        shrinks, grows = (variance < points[1]).all(), (variance > points[1]).all()
        record("shrinks", prove_variance_shrinks(box, max_boxes=100), shrinks.item())
        record("grows", prove_variance_grows(box, max_boxes=100), grows.item())
    # The check is empty unless both outcomes occur often.
    for name, (unproved, proved) in outcomes.items():
        assert min(unproved, proved) >= 5, (name, unproved, proved)


def test_forms_enclose_the_functions_everywhere_on_a_box():
    # Values of the float kernel at random points of random (m, x) boxes, against the enclosures.
    generator = torch.Generator().manual_seed(1)
    with flint.ctx.workprec(80):
        parameters = _parameters(None, None)
        for _ in range(60):
            u = torch.rand(4, generator=generator, dtype=torch.float64).tolist()
            m0, m1 = -2 + 4 * u[0], -2 + 4 * u[0] + u[1]
            x0, x1 = 0.05 + 4 * u[2], 0.05 + 4 * u[2] + u[3]
            piece = _Piece((Fraction(m0), Fraction(m1)), (Fraction(x0), Fraction(x1)), parameters)
            forms = (*piece.mean_and_variance(), *piece.columns())
            m = m0 + (m1 - m0) * torch.rand(40, generator=generator, dtype=torch.float64)
            x = x0 + (x1 - x0) * torch.rand(40, generator=generator, dtype=torch.float64)
            mean, variance = moment_map(m, x, 1.0, 1.0)
            jacobian = moment_jacobian(m, x, 1.0, 1.0)
            values = (
                mean,
                variance,
                *(jacobian[:, i, j] for i, j in ((0, 0), (0, 1), (1, 0), (1, 1))),
            )
            for form, value in zip(forms, values, strict=True):
                low, high = float(form.at.lower()), float(form.at.upper())
                assert (value >= low - 1e-12).all()
                assert (value <= high + 1e-12).all()
                # The gradient encloses difference quotients from the center, too.
                center = float(form.center)
                dm = m - float(_exact(piece.middle_m))
                dx = x - float(_exact(piece.middle_x))
                reach = (
                    float(form.dm.abs_upper()) * dm.abs() + float(form.dx.abs_upper()) * dx.abs()
                )
                assert ((value - center).abs() <= reach + 1e-12).all()


def test_nan_never_proves():
    nan = arb("nan")
    radii = (arb(0, 1), arb(0, 1))
    form = _Form(nan, nan, nan, nan, radii)
    assert not (form.at > 0)
    assert not (form.at >= 0)
    half = _Form(arb(1), arb(1), nan, arb(0), radii)
    assert not (half * half).dm >= 0
    # The trap: max(0.0, nan) is 0.0 in Python, a "bound" that any nan would pass.
    assert max(0.0, float("nan")) == 0.0
    box = Box(mu=(-1e200, 1e200), nu=(1e-300, 1e200), omega=(-1e100, 1e100), tau=(1e-300, 1e200))
    for proof in (
        prove_contraction(box, 1e9, max_boxes=100),
        prove_image(box, (-1e9, 1e9), (0, 1e9), max_boxes=100),
        prove_variance_shrinks(box, max_boxes=100),
        prove_variance_grows(box, max_boxes=100),
    ):
        assert proof.proved is False


def test_budget_is_kept():
    assert prove_contraction(LEMMA_12, 0.98903, max_boxes=10) == Proof(False, 10)
    assert prove_self_map(THEOREM_1, *IMAGE, max_boxes=3) == Proof(False, 3)
    assert not bool(Proof(False, 3))
    assert bool(Proof(True, 3))


def test_both_readings_of_a_number():
    # 0.8 the float lies above 0.8 the decimal: an image interval must hold both.
    point = Box((0, 0), (0.8, 0.8), (0, 0), (1, 1))
    value = moment_map(0.0, 0.8)[1].item()
    inside = (value - 1e-15, value + 1e-15)
    assert prove_image(point, (-1, 1), inside)
    decimal, binary = Fraction("0.8"), Fraction(0.8)
    assert decimal < binary
    assert _outer((0.8, 1.1)) == (decimal, Fraction(1.1))
    assert _outer((0.95, 0.95)) == (Fraction(0.95), Fraction("0.95"))
    with flint.ctx.workprec(80):
        assert not _exact(Fraction("1.1")).overlaps(arb(1.1))
        low, _ = _narrowed((0.1, 0.7))
        assert not low.overlaps(_exact(Fraction("0.1")))


def test_leaves_tile_the_range_and_bound_the_norm():
    leaves = contraction_leaves(LEMMA_12, 0.995)
    area = sum((m[1] - m[0]) * (x[1] - x[0]) for m, x, _ in leaves)
    assert area == pytest.approx(0.02 * (1.5 * 1.25 - 0.8 * 0.8), rel=1e-12)
    assert all(leaf.bound < 0.9951 for leaf in leaves)
    assert max(leaf.bound for leaf in leaves) > 0.989026
    generator = torch.Generator().manual_seed(0)
    mu, nu, omega, tau = sample(LEMMA_12, generator, 2000)
    norms = spectral_norm(moment_jacobian(mu, nu, omega, tau))
    m, x = mu * omega, nu * tau
    covered = torch.zeros(2000, dtype=torch.bool)
    for mean, variance, bound in leaves:
        here = (m >= mean[0]) & (m <= mean[1]) & (x >= variance[0]) & (x <= variance[1])
        covered |= here
        assert (norms[here] <= bound).all()
    # Rounding of a product may push a corner out of the exact range by an ulp.
    assert covered.double().mean() > 0.99
    strict = (m.abs() < 0.00999) & (x > 0.641) & (x < 1.874)
    assert covered[strict].all()


@pytest.mark.parametrize("which", ["variance", "second moment"])
def test_curvature_bound(which):
    bound = curvature_bound(LEMMA_12, which)
    assert math.isfinite(bound)
    # Second differences in m of the columns, over the range: smaller, but not absurdly.
    h = 1e-3
    x = torch.linspace(0.64, 1.875, 40, dtype=torch.float64)
    m = torch.linspace(-0.009, 0.009, 7, dtype=torch.float64)[:, None]

    def columns(m):
        d = moment_jacobian(m, x, 1.0, 1.0)
        if which == "second moment":
            mean = moment_map(m, x, 1.0, 1.0)[0]
            d = d.clone()
            d[..., 1, :] += 2 * mean[..., None] * d[..., 0, :]
        return d * torch.tensor([0.1, 1.25], dtype=torch.float64)

    second = (columns(m + h) - 2 * columns(m) + columns(m - h)) / h**2
    norm = torch.linalg.matrix_norm(second).max().item()
    assert norm < bound < 30 * norm
    assert curvature_bound(Box(SIDE, (0.0, 1.0), SIDE, (0.5, 1.0)), which) == math.inf


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"nu": (-0.1, 1.0)}, "nu must be at least 0, got -0.1"),
        ({"tau": (-1.0, 1.0)}, "tau must be at least 0, got -1"),
        ({"mu": (0.1, -0.1)}, r"mu must be a non-empty .* got \(0.1, -0.1\)"),
        ({"omega": (float("nan"), 0.1)}, "omega must be finite, got nan"),
        ({"mu": (0.0, float("inf"))}, "mu must be finite, got inf"),
        ({"mu": 0.1}, r"mu must be a \(low, high\) pair, got 0.1"),
        ({"nu": (1.0, 2.0, 3.0)}, r"nu must be a \(low, high\) pair"),
    ],
)
def test_bad_boxes(change, message):
    sides = {"mu": SIDE, "nu": (0.8, 1.5), "omega": SIDE, "tau": (0.95, 1.1), **change}
    with pytest.raises(ValueError, match=message):
        Box(**sides)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: prove_contraction(THEOREM_1, 0.0), "bound must be greater than 0, got 0"),
        (lambda: prove_contraction(THEOREM_1, float("nan")), "bound must be finite, got nan"),
        (lambda: prove_contraction(THEOREM_1, max_boxes=0), "max_boxes must be an integer"),
        (lambda: prove_contraction(THEOREM_1, alpha=-1.0), "alpha must be at least 0, got -1"),
        (lambda: prove_contraction(THEOREM_1, scale=0.0), "scale must be greater than 0, got 0"),
        (lambda: prove_self_map(THEOREM_1, (1, 0), (1, 2)), "image_mu must be a non-empty"),
        (lambda: prove_self_map(THEOREM_1, (0, 1), (-1, 2)), "image_nu must be at least 0, got -1"),
    ],
)
def test_bad_arguments(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize(
    "pair", [("a", "b"), "12", ("0.1", "0.2"), (None, 1), (1j, 2), (10**400, 1)]
)
def test_a_pair_that_is_none_names_argument_and_value(pair):
    with pytest.raises(ValueError, match=r"mu must be a \(low, high\) pair, got"):
        Box(mu=pair, nu=(1, 1), omega=(0, 0), tau=(1, 1))


def test_curvature_bound_names_what_it_does_not_know():
    with pytest.raises(ValueError, match="which must be one of variance, second moment"):
        curvature_bound(THEOREM_1, "foo")
    with pytest.raises(ValueError, match="pieces"):
        curvature_bound(THEOREM_1, pieces=0)
