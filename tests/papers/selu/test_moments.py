import itertools
import math

import mpmath
import pytest
import torch

from reproductions.papers import selu
from reproductions.papers.selu import (
    ALPHA,
    SCALE,
    Box,
    alpha_dropout_affine,
    chi1,
    constants,
    fixed_point,
    grid_maximum,
    moment_jacobian,
    moment_map,
    paper_grid_maximum,
    parameters_for,
    second_moment_jacobian,
    slope_at_infinity,
    slope_at_zero,
    solve_constants,
    spectral_norm,
)

SIDE = (-0.1, 0.1)
WIDE = Box(mu=SIDE, omega=SIDE, nu=(0.8, 1.5), tau=(0.8, 1.25))


def float64(values):
    return torch.tensor(values, dtype=torch.float64)


def eigenvalue(jacobian):
    return torch.linalg.eigvals(jacobian).abs().max().item()


def test_constants_to_fifty_digits():
    alpha, scale = constants(50)
    # Printed with the definition in the literature (first 48 digits).
    known = (
        "1.67326324235437728481704299167165203846115534828",
        "1.05070098735548049341933498529460635195898120438",
    )
    root = solve_constants(50)
    with mpmath.workdps(60):
        for value, digits, solved in zip((alpha, scale), known, root, strict=True):
            assert abs(value - mpmath.mpf(digits)) < mpmath.mpf(10) ** -46
            assert abs(value - solved) < mpmath.mpf(10) ** -47
    assert float(alpha) == ALPHA
    assert float(scale) == SCALE
    one = torch.nn.functional.selu(float64([1.0, -1e9]))
    assert abs(one[0].item() - SCALE) <= math.ulp(SCALE)
    assert abs(one[1].item() + SCALE * ALPHA) <= math.ulp(SCALE * ALPHA)
    with pytest.raises(ValueError, match="digits must be an integer"):
        constants(0)


def test_fixed_point_and_jacobian_of_equation_6():
    mean, variance = moment_map(0.0, 1.0)
    assert abs(mean) < 1e-15
    assert abs(variance - 1) < 1e-15
    jacobian = moment_jacobian(0.0, 1.0)
    wanted = float64([[0.0, 0.08883475510689], [0.0, 0.78264788319681]])
    torch.testing.assert_close(jacobian, wanted, rtol=0, atol=1e-13)
    assert abs(spectral_norm(jacobian) - 0.78767336046572) < 1e-13
    assert abs(chi1() - 1.07157499245579926) < 1e-14


def test_chi1_is_the_expected_squared_slope():
    generator = torch.Generator().manual_seed(3)
    m, x, tau = -0.06, 1.8, 1.2
    z = (m + math.sqrt(x) * torch.randn(10**6, generator=generator).double()).requires_grad_()
    torch.nn.functional.selu(z).sum().backward()
    squared = tau * z.grad.square()
    error = 4 * squared.std().item() / 1000
    assert abs(squared.mean() - chi1(0.1, 1.5, -0.6, 1.2)) < error


def test_jacobian_against_autograd_and_quadrature():
    mu, nu, omega, tau = (float64(v) for v in ([0.1, -0.7, 2.0], [0.8, 3, 0.01], [0.1, -2, 1], 1.3))
    jacobian = moment_jacobian(mu, nu, omega, tau)
    assert jacobian.shape == (3, 2, 2)
    for i in range(3):
        by_autograd = torch.autograd.functional.jacobian(
            lambda m, v, i=i: torch.stack(moment_map(m, v, omega[i], tau)), (mu[i], nu[i])
        )
        torch.testing.assert_close(jacobian[i], torch.stack(by_autograd, -1), rtol=1e-12, atol=0)
        if i == 2:  # so narrow that the quadrature would need many pieces
            continue
        with mpmath.workdps(34):

            def g(m, v, i=i):
                s = mpmath.sqrt(v * tau.item())
                m = m * omega[i].item()

                def f(z):
                    return SCALE * (z if z > 0 else mpmath.mpf(ALPHA) * mpmath.expm1(z))

                cuts = sorted({m + k * s for k in range(-12, 13, 2)} | {mpmath.mpf(0)})
                mean = mpmath.quad(lambda z: f(z) * mpmath.npdf(z, m, s), cuts)
                second = mpmath.quad(lambda z: f(z) ** 2 * mpmath.npdf(z, m, s), cuts)
                return mean, second - mean**2

            step = mpmath.mpf(10) ** -9
            at = mpmath.mpf(mu[i].item()), mpmath.mpf(nu[i].item())
            for column, (dm, dv) in enumerate(((step, 0), (0, step))):
                up, down = (g(at[0] + sign * dm, at[1] + sign * dv) for sign in (1, -1))
                for row in range(2):
                    slope = (up[row] - down[row]) / (2 * step)
                    slope = float(slope)
                    error = abs(jacobian[i, row, column].item() - slope)
                    assert error < 1e-12 * (1 + abs(slope))


def test_spectral_norm_against_svd():
    generator = torch.Generator().manual_seed(0)
    matrices = torch.randn(500, 2, 2, generator=generator, dtype=torch.float64)
    matrices[::7, 1] = matrices[::7, 0] * (1 + 1e-9)  # nearly singular
    wanted = torch.linalg.matrix_norm(matrices, ord=2)
    torch.testing.assert_close(spectral_norm(matrices), wanted, rtol=1e-14, atol=0)
    # The Frobenius norm or the spectral radius would not do.
    assert spectral_norm(float64([[0.0, 2.0], [0.0, 0.0]])) == 2
    assert spectral_norm(torch.eye(2).double()) == 1
    with pytest.raises(ValueError, match="jacobian must have shape"):
        spectral_norm(torch.zeros(2, 3))


def test_slopes_at_the_ends_are_limits_of_the_map():
    assert slope_at_zero().item() == pytest.approx(2.01780, abs=5e-6)
    assert slope_at_infinity().item() == pytest.approx(0.376284, abs=5e-7)
    tiny, huge = moment_map(0.0, 1e-14)[1] / 1e-14, moment_map(0.0, 1e14)[1] / 1e14
    assert tiny.item() == pytest.approx(slope_at_zero().item(), rel=1e-6)
    assert huge.item() == pytest.approx(slope_at_infinity().item(), rel=1e-6)
    assert 1 / slope_at_zero().item() == pytest.approx(0.49559, abs=5e-6)
    assert 1 / slope_at_infinity().item() == pytest.approx(2.65757, abs=5e-6)


def test_fixed_points_on_the_theorem_1_grid():
    omega = torch.linspace(-0.1, 0.1, 41, dtype=torch.float64)[:, None]
    tau = torch.linspace(0.95, 1.1, 31, dtype=torch.float64)
    mu, nu = fixed_point(omega, tau)
    assert mu.shape == nu.shape == (41, 31)
    mean, variance = moment_map(mu, nu, omega, tau)
    assert (mean - mu).abs().max() < 2e-15
    assert (variance / nu - 1).abs().max() < 3e-15
    ends = [v.item() for v in (mu.min(), mu.max(), nu.min(), nu.max())]
    assert ends == pytest.approx([-0.02087, 0.05471, 0.82647, 1.41029], abs=6e-6)
    # Newton's answer is the limit of plain iteration from far corners of the box.
    for start_mu, start_nu in itertools.product((-0.1, 0.1), (0.8, 1.5)):
        m, v = torch.full_like(mu, start_mu), torch.full_like(nu, start_nu)
        for _ in range(200):
            m, v = moment_map(m, v, omega, tau)
        torch.testing.assert_close(m, mu, rtol=0, atol=1e-12)
        torch.testing.assert_close(v, nu, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("omega", "tau", "mu", "nu"),
    [
        (0.0, 0.95, -0.0185661, 0.8287946),
        (0.0, 1.1, 0.0485178, 1.3993081),
        (0.0, 1.0, 0.0, 1.0),
        (0.0, 2.0, None, 18.46),
        (0.0, 9 / 16, None, 0.0268),
    ],
)
def test_known_fixed_points(omega, tau, mu, nu):
    found = fixed_point(omega, tau)
    assert found[0].shape == ()
    if mu is not None:
        assert found[0].item() == pytest.approx(mu, abs=6e-8)
    assert found[1].item() == pytest.approx(nu, rel=2e-3 if mu is None else 1e-7)


@pytest.mark.parametrize("tau", [0.4956, 0.6, 1.7, 2.6, 2.657])
def test_fixed_points_up_to_the_limits_of_tau(tau):
    mu, nu = fixed_point(0.0, tau)
    mean, variance = moment_map(mu, nu, 0.0, tau)
    assert variance.item() == pytest.approx(nu.item(), rel=1e-9)
    assert mean.item() == pytest.approx(mu.item(), rel=1e-9)


@pytest.mark.parametrize(
    ("omega", "tau", "message"),
    [
        (0.0, 0.4955, "zero or to infinity"),
        (0.0, 0.3, "zero or to infinity"),
        (0.0, 2.658, "zero or to infinity"),
        (0.0, 5.0, "zero or to infinity"),
        (1.0, 1.0, "repels with spectral radius 1.0767"),
        (-2.0, 1.0, "repels"),
    ],
)
def test_no_attracting_fixed_point_is_an_error(omega, tau, message):
    with pytest.raises(ValueError, match=message):
        fixed_point(omega, tau)
    # One bad point among good ones is found and named.
    with pytest.raises(ValueError, match=rf"got \({omega:g}, {tau:g}\)"):
        fixed_point(float64([0.0, omega]), float64([1.0, tau]))


def test_fixed_point_attracts_at_omega_0_9_but_barely():
    mu, nu = fixed_point(0.9, 1.0)
    assert eigenvalue(moment_jacobian(mu, nu, 0.9, 1.0)) == pytest.approx(0.9988, abs=5e-5)
    assert eigenvalue(moment_jacobian(0.0, 1.0, 1.0, 1.0)) == pytest.approx(1.0768, abs=5e-5)


def test_normalized_rectifier_attracts_nothing():
    # Control: a pure rectifier is homogeneous, its variance ratio the same at every variance.
    gain = math.sqrt(1 / (0.5 - 0.5 / math.pi))
    with pytest.raises(ValueError, match="must admit an attracting fixed point"):
        fixed_point(0.0, 0.9, alpha=0.0, scale=gain)


def test_parameters_for_other_fixed_points():
    known = {
        (0.0, 1.0): (ALPHA, SCALE),
        (0.0, 2.0): (1.971255750346, 1.060709076103),
        (-0.1, 2.0): (2.326990778819341, 0.982180433795927),
    }
    for target, wanted in known.items():
        found = parameters_for(*target)
        for value, number in zip(found, wanted, strict=True):
            assert value.item() == pytest.approx(number, abs=2e-12)


def test_official_notebook_used_omega_1():
    alpha, scale = parameters_for(-0.1, 2.0, omega=1.0)
    assert alpha.item() == pytest.approx(1.9769021954242, abs=1e-12)
    assert scale.item() == pytest.approx(1.0738512396160, abs=1e-12)
    radius = eigenvalue(moment_jacobian(-0.1, 2.0, 1.0, 1.0, alpha=alpha, scale=scale))
    assert radius == pytest.approx(1.1084, abs=5e-5)
    # Under the paper's omega = 0 those parameters do not keep (-0.1, 2) at all.
    mean, _ = moment_map(-0.1, 2.0, 0.0, 1.0, alpha=alpha, scale=scale)
    assert abs(mean.item() + 0.1) > 1e-2


def test_parameters_for_are_what_they_promise():
    mean = torch.linspace(-0.25, 0.25, 13, dtype=torch.float64)[:, None]
    variance = float64([0.3, 1.0, 4.0])
    for omega, tau in ((0.0, 1.0), (0.3, 0.9), (-1.0, 1.4)):
        alpha, scale = parameters_for(mean, variance, omega, tau)
        assert (alpha > 0).all()
        again = moment_map(mean, variance, omega, tau, alpha=alpha, scale=scale)
        torch.testing.assert_close(again[0], mean.expand(13, 3), rtol=1e-12, atol=1e-14)
        torch.testing.assert_close(again[1], variance.expand(13, 3), rtol=1e-12, atol=0)
    with pytest.raises(ValueError, match=r"mean must lie between .* got 3"):
        parameters_for(3.0, 1.0)
    with pytest.raises(ValueError, match=r"mean must lie between .* got -5"):
        parameters_for(-5.0, 1.0)


@pytest.mark.parametrize(
    ("rate", "a", "b"),
    [
        (0.05, 0.95484447600503, 0.08393557219381),
        (0.10, 0.92128451614971, 0.16197097005758),
        (0.2, 0.87890358344353, 0.30903996214410),
        (0.5, 0.88640489466593, 0.77919393051803),
        (0.0, 1.0, 0.0),
    ],
)
def test_alpha_dropout(rate, a, b):
    found = alpha_dropout_affine(rate)
    assert found[0].item() == pytest.approx(a, abs=1e-14)
    assert found[1].item() == pytest.approx(b, abs=1e-14)


def test_alpha_dropout_keeps_any_mean_and_variance():
    saturation = -SCALE * ALPHA
    for rate, mean, variance in ((0.1, 0.0, 1.0), (0.3, -0.4, 2.5), (0.7, 1.0, 0.1)):
        a, b = alpha_dropout_affine(rate, mean, variance)
        keep = 1 - rate
        after = a * (keep * mean + rate * saturation) + b
        square = keep * (variance + mean**2) + rate * saturation**2
        spread = a**2 * (square - (keep * mean + rate * saturation) ** 2)
        assert after.item() == pytest.approx(mean, abs=1e-14)
        assert spread.item() == pytest.approx(variance, rel=1e-14)


def test_second_moment_jacobian_explains_lemma_12():
    corner = (0.1, 0.8, 0.1, 1.25)
    ours = spectral_norm(moment_jacobian(*corner)).item()
    other = spectral_norm(second_moment_jacobian(*corner)).item()
    assert ours == pytest.approx(0.98902627183935, abs=1e-13)
    assert other == pytest.approx(0.9912524171058772, abs=1e-13)
    arguments = tuple(map(float64, corner))

    def second_moment(mu, nu):
        mean, variance = moment_map(mu, nu, *arguments[2:])
        return torch.stack((mean, variance + mean**2))

    by_autograd = torch.autograd.functional.jacobian(second_moment, arguments[:2])
    torch.testing.assert_close(second_moment_jacobian(*corner), torch.stack(by_autograd, -1))


@pytest.mark.parametrize("which", ["variance", "second moment"])
@pytest.mark.parametrize(
    ("box", "points"),
    [
        (WIDE, (4, 7, 23, 17)),
        (Box(mu=(-0.05, 0.1), omega=(0.02, 0.09), nu=(0.5, 1.2), tau=(0.9, 1.0)), (6, 5, 13, 11)),
        (Box(mu=(-0.6, -0.2), omega=(-0.3, 0.4), nu=(0.1, 0.4), tau=(0.5, 2.0)), (5, 9, 12, 8)),
        (Box(mu=(-1, 1), omega=(-1, 1), nu=(1.0, 6.0), tau=(0.2, 0.6)), (9, 8, 10, 10)),
    ],
)
def test_collapsed_grid_is_the_whole_grid(box, points, which):
    whole = grid_maximum(box, points, which)
    collapsed = paper_grid_maximum(which, box=box, points=points)
    assert collapsed.value == pytest.approx(whole.value, rel=1e-15)
    assert collapsed.n_points == whole.n_points == math.prod(points)
    at = (collapsed.mu, collapsed.nu, collapsed.omega, collapsed.tau)
    jacobian = {"variance": moment_jacobian, "second moment": second_moment_jacobian}[which]
    assert spectral_norm(jacobian(*at)).item() == pytest.approx(whole.value, rel=1e-14)


def test_grid_maximum_against_a_plain_loop():
    box, points = Box(mu=(-1, 0.5), omega=(-0.2, 0.1), nu=(3, 16), tau=(0.8, 1.25)), (3, 4, 5, 6)
    axes = [
        torch.linspace(*pair, n, dtype=torch.float64).tolist()
        for pair, n in zip((box.mu, box.omega, box.nu, box.tau), points, strict=True)
    ]
    norms, growth = [], []
    for mu, omega, nu, tau in itertools.product(*axes):
        norms.append(spectral_norm(moment_jacobian(mu, nu, omega, tau)).item())
        growth.append(moment_map(mu, nu, omega, tau)[1].item() - nu)
    assert grid_maximum(box, points).value == pytest.approx(max(norms), rel=1e-14)
    assert grid_maximum(box, points, "growth").value == pytest.approx(max(growth), rel=1e-14)
    assert grid_maximum(box, points, "decay").value == pytest.approx(-min(growth), rel=1e-14)


def test_paper_grid():
    for which, value in (("variance", 0.98902627183935), ("second moment", 0.9912524171058772)):
        found = paper_grid_maximum(which)
        assert found.value == pytest.approx(value, abs=1e-13)
        assert found.n_points == 30 * 242 * 731 * 615
        assert found.n_evaluated < found.n_points / 100
        assert (abs(found.mu), abs(found.omega), found.nu, found.tau) == (0.1, 0.1, 0.8, 1.25)
        assert found.mu == found.omega


def test_grid_extremes_of_theorems_1_to_3():
    narrow = Box(mu=SIDE, omega=SIDE, nu=(0.8, 1.5), tau=(0.95, 1.1))
    assert grid_maximum(narrow, (5, 5, 29, 16)).value == pytest.approx(0.89760835840892, abs=1e-13)
    large = Box(mu=(-1, 1), omega=SIDE, nu=(3, 16), tau=(0.8, 1.25))
    peak = grid_maximum(large, (5, 5, 27, 10), "growth")
    assert peak.value == pytest.approx(-0.119744, abs=5e-7)
    assert (peak.nu, peak.tau) == (3, 1.25)
    for nu, tau, least in (
        ((0.02, 0.16), (0.8, 1.25), 0.00773618),
        ((0.02, 0.24), (0.9, 1.25), 0.0110293),
    ):
        small = Box(mu=SIDE, omega=SIDE, nu=nu, tau=tau)
        assert -grid_maximum(small, (5, 5, 45, 10), "decay").value == pytest.approx(least, abs=2e-7)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: moment_map(0.0, -1.0), "nu must be at least 0, got -1"),
        (lambda: moment_map(0.0, 1.0, 0.0, -0.5), "tau must be at least 0, got -0.5"),
        (lambda: moment_map(float("nan"), 1.0), "mu must be finite, got nan"),
        (lambda: moment_map(0.0, 1.0, float("inf")), "omega must be finite, got inf"),
        (lambda: moment_jacobian(0.0, float("nan")), "nu must be finite, got nan"),
        (lambda: moment_jacobian(0.0, -2.0), "nu must be at least 0, got -2"),
        (lambda: chi1(0.0, -1.0), "nu must be at least 0, got -1"),
        (lambda: fixed_point(0.0, -1.0), "tau must be greater than 0, got -1"),
        (lambda: fixed_point(0.0, 0.0), "tau must be greater than 0, got 0"),
        (lambda: fixed_point(float("nan")), "omega must be finite, got nan"),
        (lambda: parameters_for(0.0, -1.0), "variance must be greater than 0, got -1"),
        (lambda: parameters_for(0.0, 1.0, 0.0, 0.0), "tau must be greater than 0, got 0"),
        (lambda: alpha_dropout_affine(-0.1), "rate must be in .*, got -0.1"),
        (lambda: alpha_dropout_affine(1.0), "rate must be less than 1, got 1"),
        (lambda: alpha_dropout_affine(float("nan")), "rate must be finite, got nan"),
        (lambda: alpha_dropout_affine(0.1, 0.0, -1.0), "variance must be greater than 0, got -1"),
        (lambda: grid_maximum(WIDE, (2, 2, 2)), "points must be four numbers .*, got 3"),
        (lambda: grid_maximum(WIDE, (2, 2, 2, 0)), "points must be an integer .*, got 0"),
        (lambda: grid_maximum(WIDE, (2, 2, 2, 2), "norm"), "which must be one of"),
        (lambda: grid_maximum(WIDE, (2,) * 4, "growth", backend="triton"), "backend must be"),
        (lambda: slope_at_zero(-1.0), "tau must be at least 0, got -1"),
    ],
)
def test_errors_name_argument_and_value(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_orbit_is_the_map_iterated():
    mu, nu = selu.orbit(torch.tensor([0.1, -0.3]), 0.5, 0.2, 1.1, n_steps=3)
    assert mu.shape == nu.shape == (4, 2)
    assert mu.dtype == torch.float64
    assert nu[0].tolist() == [0.5, 0.5]
    state = mu[0], nu[0]
    for step in range(1, 4):
        state = selu.moment_map(*state, 0.2, 1.1)
        assert torch.equal(mu[step], state[0])
        assert torch.equal(nu[step], state[1])
    with pytest.raises(ValueError, match="n_steps"):
        selu.orbit(0.0, 1.0, n_steps=0)
    with pytest.raises(ValueError, match="nu"):
        selu.orbit(0.0, -1.0, n_steps=1)


def test_target_radius_is_that_of_the_parameters_and_nan_out_of_reach():
    radius = selu.target_radius(float64([0.0, -0.1, 50.0]), 2.0, float64([1.0, 1.0, 0.0]))
    for k, mean in enumerate((0.0, -0.1)):
        alpha, scale = selu.parameters_for(mean, 2.0, omega=1.0)
        jacobian = selu.moment_jacobian(mean, 2.0, 1.0, alpha=alpha, scale=scale)
        assert abs(radius[k] - torch.linalg.eigvals(jacobian).abs().max()) < 1e-12
    assert radius[1] > 1
    assert radius[2].isnan()
    with pytest.raises(ValueError, match="standard deviations"):
        selu.parameters_for(50.0, 2.0)


def test_mean_field_shares_the_fixed_point_and_its_slope_and_differs_elsewhere():
    q = selu.mean_field_orbit(float64([1.0, 1.001]), n_steps=1)
    assert q.shape == (2, 2)
    assert abs(q[1, 0] - 1) < 1e-14
    assert abs((q[1, 1] - 1) / 1e-3 - 0.782648) < 1e-3
    settled = selu.mean_field_orbit(1.0, 9 / 16, n_steps=4000)[-1]
    assert abs(settled - 0.040949) < 1e-6
    assert abs(selu.fixed_point(0.0, 9 / 16)[1] - 0.026764) < 1e-6


@pytest.mark.parametrize(("omega", "tau"), [(0.1, 2.5253952454784874), (-0.5, 3.275314233780364)])
def test_a_rectifier_has_no_attracting_fixed_point(omega, tau):
    # Nearly neutral: the iteration creeps so slowly that its residual alone looks settled.
    with pytest.raises(ValueError, match="must admit an attracting fixed point"):
        selu.fixed_point(omega, tau, alpha=0.0)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: selu.alpha_dropout_affine(0.1, alpha=math.nan), "alpha must be finite, got nan"),
        (lambda: selu.alpha_dropout_affine(0.1, alpha=-1.0), "alpha must be at least 0, got -1"),
        (lambda: selu.alpha_dropout_affine(0.1, scale=math.inf), "scale must be finite, got inf"),
        (lambda: selu.parameters_for(0.0, 1e300), "variance must be small enough"),
        (lambda: selu.moment_map("a", 1.0), "mu must be a real number or a tensor, got 'a'"),
        (lambda: selu.moment_map(0.0, None), "nu must be a real number or a tensor, got None"),
        (lambda: selu.fixed_point(1j), "omega must be a real number or a tensor, got 1j"),
        (lambda: selu.spectral_norm("x"), "jacobian must be a real number or a tensor"),
    ],
)
def test_what_is_no_number_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
