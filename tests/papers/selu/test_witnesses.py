"""The witnesses: exact where the answer is known, wrong where they have to be."""

import math

import mpmath
import pytest
import torch

from reproductions.papers.selu import moment_jacobian, second_moment_jacobian
from reproductions.papers.selu import witnesses as w


def test_quadrature_agrees_with_a_case_done_by_hand():
    # On the linear side alone, far from the kink, SELU(z) is scale z.
    with mpmath.workdps(30):
        mean, variance = w.quadrature_moments(30.0, 1.0, digits=30)
        assert abs(mean / (mpmath.mpf(w.SCALE) * 30) - 1) < 1e-28
        assert abs(variance / mpmath.mpf(w.SCALE) ** 2 - 1) < 1e-28


def test_more_digits_change_nothing_but_the_digits():
    with mpmath.workdps(45):
        for m, x in ((-10.0, 1.0), (0.0, 1e-4), (0.0, 100.0)):
            coarse, fine = (w.quadrature_moments(m, x, digits=d) for d in (25, 40))
            assert all(abs(a / b - 1) < 1e-20 for a, b in zip(coarse, fine, strict=True))


def test_hermite_is_off_at_the_kink_and_exact_far_from_it():
    exact = w.quadrature_moments(0.1, 0.8, digits=20)
    assert abs(w.hermite_moments(0.1, 0.8)[0] - float(exact[0])) > 1e-5
    assert w.hermite_moments(30.0, 1.0)[0] == pytest.approx(w.SCALE * 30, rel=1e-12)


def test_sampling_sees_a_wrong_moment_and_accepts_the_right_one():
    points = w.WITNESS_POINTS[:6]
    right = [tuple(map(float, w.quadrature_moments(m, x, digits=15))) for m, x in points]
    deviation = w.sampling_deviation(points, right, 200_000, torch.Generator().manual_seed(1))
    assert deviation.shape == (6, 2)
    assert deviation.abs().max() < 5
    wrong = [(mean + 0.02, variance) for mean, variance in right]
    assert (
        w.sampling_deviation(points, wrong, 200_000, torch.Generator().manual_seed(1))[:, 0]
        .abs()
        .min()
        > 5
    )
    assert math.isfinite(deviation.sum())


def test_the_difference_quotient_is_the_jacobian_and_no_other():
    point = (0.3, 1.3, 0.4, 0.9)
    witness = w.quadrature_jacobian(*point)
    assert (witness - moment_jacobian(*point)).abs().max() < 1e-13
    assert (witness - second_moment_jacobian(*point)).abs().max() > 1e-3
