import pytest
import torch

from reproductions.kernels.dual_kernel import dual_kernel
from reproductions.papers.ntk.positivity import (
    CASES,
    Case,
    antipodal_pairs,
    definiteness,
    definiteness_of,
)

NO_BIAS = Case("ReLU, L = 2, no bias", 2, 0.0, "relu", False)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def test_pairs_are_antipodal_and_uniform():
    points = antipodal_pairs(500, 3, generator=generator())
    torch.testing.assert_close(points.norm(dim=1), torch.ones(1000, dtype=torch.float64))
    assert torch.equal(points[:500], -points[500:])
    # uniform on the sphere: E u u^T = 1/3, each entry with a standard error of .013
    second = points[:500].T @ points[:500] / 500
    assert (second - torch.eye(3) / 3).abs().max() < 4 * 0.0134


def test_what_is_promised_holds_and_what_is_dropped_fails():
    points = antipodal_pairs(20, 3, generator=generator())
    found = {case.name: definiteness_of(case, points) for case in CASES}
    for case in CASES:
        if case.promised:
            assert found[case.name].ratio > 1e-4
            assert found[case.name].n_null == 0
    assert sum(case.promised for case in CASES) == 3
    # a bias is not needed from three layers on
    assert found["ReLU, L = 3, no bias"].ratio > 1e-4
    assert found["ReLU, L = 2, no bias"].n_null == 17
    assert found["σ(x) = x, L = 2"].n_null == 40 - 4
    assert found["σ(x) = x², L = 2"].n_null == 40 - 9
    for name in ("ReLU, L = 2, no bias", "σ(x) = x, L = 2", "σ(x) = x², L = 2"):
        assert abs(found[name].ratio) < 1e-8
    # one layer is a linear kernel, whatever the activation
    assert definiteness_of(Case("L = 1", 1, 0.1, "relu", False), points).n_null == 40 - 4


@pytest.mark.parametrize(("n_pairs", "n_inputs"), [(2, 3), (7, 2), (12, 4), (20, 6)])
def test_null_spaces_have_the_dimension_that_harmonics_say(n_pairs, n_inputs):
    points = antipodal_pairs(n_pairs, n_inputs, generator=generator(1))
    n = 2 * n_pairs
    assert definiteness_of(NO_BIAS, points).n_null == max(0, n_pairs - n_inputs)
    linear, square = CASES[-2:]
    # even and odd polynomials of the first and the second degree, on n_pairs points up to sign
    for case, even in ((linear, 1), (square, n_inputs * (n_inputs + 1) // 2)):
        rank = min(even, n_pairs) + min(n_inputs, n_pairs)
        assert definiteness_of(case, points).n_null == n - rank


def test_null_vectors_of_two_layers_without_bias_are_odd_and_need_antipodal_data():
    points = antipodal_pairs(20, 3, generator=generator())
    eigenvalues, vectors = torch.linalg.eigh(dual_kernel(points, depth=2, bias_scale=0.0)[1])
    null = vectors[:, eigenvalues.abs() < 1e-8 * eigenvalues[-1]]
    assert null.shape == (40, 17)
    torch.testing.assert_close(null[:20], -null[20:], rtol=0, atol=1e-7)
    # and orthogonal to the linear functions
    assert (points.T @ null).abs().max() < 1e-7
    rotated = torch.cat([points[:20], points[:20].roll(1, 1)])
    assert definiteness_of(NO_BIAS, rotated).n_null == 0


def test_the_odd_part_of_two_layers_is_linear():
    points = antipodal_pairs(6, 5, generator=generator())[:6]
    for depth, bias_scale, linear in ((2, 0.0, True), (3, 0.0, False), (2, 0.1, False)):
        theta, opposite = (
            dual_kernel(points, z, depth=depth, bias_scale=bias_scale)[1] for z in (points, -points)
        )
        difference = (theta - opposite - points @ points.T / 5).abs().max()
        assert (difference < 1e-8) == linear


def test_definiteness_by_hand():
    gram = torch.diag(torch.tensor([4.0, 1.0, 3e-8, -2e-8, 5e-8], dtype=torch.float64))
    assert definiteness(gram) == (pytest.approx(-0.5e-8), 2)
    assert definiteness(100 * gram) == (pytest.approx(-0.5e-8), 2)
    assert definiteness(gram, threshold=0.5).n_null == 4
    # an indefinite Gram is not taken for a singular one
    assert definiteness(torch.diag(torch.tensor([4.0, -1.0, 2.0]))) == (-0.25, 0)
    with pytest.raises(ValueError, match=r"gram must be \(N, N\) .* got \(2, 3\)"):
        definiteness(torch.ones(2, 3))
    with pytest.raises(ValueError, match="gram must have a positive eigenvalue, the largest is -1"):
        definiteness(-torch.eye(2))
    with pytest.raises(ValueError, match="threshold must be in"):
        definiteness(gram, threshold=-1.0)


def test_points_off_the_sphere_are_refused():
    points = antipodal_pairs(3, 3, generator=generator())
    points[4] *= 1.5
    with pytest.raises(
        ValueError, match=r"points must lie on the unit sphere, got one of norm 1.5"
    ):
        definiteness_of(NO_BIAS, points)
    with pytest.raises(ValueError, match="n_inputs must be an integer of at least 2, got 1"):
        antipodal_pairs(3, 1, generator=generator())
