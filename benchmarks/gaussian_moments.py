"""Moment map and Jacobian against numpy/scipy, and the paper's grid against visiting it."""

from __future__ import annotations

import math

import numpy as np
import torch
from _harness import Case, benchmark
from scipy.special import erfc, erfcx, ndtr

from reproductions.kernels.gaussian_moments import moments_and_derivatives
from reproductions.papers.selu import (
    ALPHA,
    PAPER_POINTS,
    SCALE,
    Box,
    grid_maximum,
    paper_grid_maximum,
)


def scipy_moments(m: np.ndarray, x: np.ndarray) -> tuple[np.ndarray, ...]:
    """Mean, variance and four derivatives by the paper's formulas, vectorized."""
    s = np.sqrt(x)
    p = ndtr(m / s)
    e = np.exp(-m * m / (2 * x))
    density = e / (s * math.sqrt(2 * math.pi))
    linear = m * p + x * density
    root = math.sqrt(2) * s
    a = 0.5 * e * erfcx((m + x) / root)
    b = 0.5 * e * erfcx((m + 2 * x) / root)
    mean = SCALE * (linear + ALPHA * (a - (1 - p)))
    second = (m * m + x) * p + m * x * density + ALPHA**2 * (b - 2 * a + 1 - p)
    variance = SCALE**2 * second - mean * mean
    d1 = SCALE * (p + ALPHA * a)
    d2 = SCALE / 2 * (ALPHA * a + (1 - ALPHA) * density)
    ff = SCALE**2 * (linear + ALPHA**2 * (b - a))
    h = SCALE**2 * (p + ALPHA**2 * (2 * b - a))
    return mean, variance, d1, d2, 2 * (ff - mean * d1), h - 2 * mean * d2


def scipy_stable(m: np.ndarray, x: np.ndarray) -> tuple[np.ndarray, ...]:
    """The same by the formulas of our kernel, which lose no digits, for x <= 200."""
    root = np.sqrt(2 * x)
    half = m / root
    p, q = erfc(-half) / 2, erfc(half) / 2
    height = np.exp(-half * half) * root / (2 * math.sqrt(math.pi))
    lean = np.exp(m + x / 2)
    a = erfc(half + root / 2) / 2 * lean
    b = erfc(half + root) / 2 * lean * lean * np.exp(x)
    linear, bent = m * p + height, q - a
    spread = x * p - linear * (height - m * q)
    spread_bent = b + p - (a + p) ** 2
    mean = SCALE * (linear - ALPHA * bent)
    variance = SCALE**2 * (spread + ALPHA**2 * spread_bent + 2 * ALPHA * linear * bent)
    curve = (1 - ALPHA) * height / x
    d1 = SCALE * (p + ALPHA * a)
    d2 = SCALE / 2 * (ALPHA * a + curve)
    d3 = (q - ALPHA * a) * linear + ALPHA * (1 - ALPHA) * p * bent + ALPHA**2 * spread_bent
    d4 = p - ALPHA * a * (linear + ALPHA * (a + p)) + 2 * ALPHA**2 * b
    return mean, variance, d1, d2, 2 * SCALE**2 * d3, SCALE**2 * d4 - SCALE * mean * curve


@benchmark("moment map and Jacobian, 1e6 points")
def moments() -> Case:
    generator = torch.Generator().manual_seed(0)
    n = 10**6
    m = 2 * torch.rand(n, generator=generator, dtype=torch.float64) - 1
    x = 0.02 + 4 * torch.rand(n, generator=generator, dtype=torch.float64)

    def check(outputs):
        for name, peer in outputs.items():
            for value, wanted in zip(peer, outputs["ours"], strict=True):
                np.testing.assert_allclose(value, wanted, rtol=0, atol=1e-12, err_msg=name)

    return Case(
        ours=lambda: moments_and_derivatives(m, x, alpha=ALPHA, scale=SCALE),
        peers={
            "numpy/scipy": lambda: scipy_moments(m.numpy(), x.numpy()),
            "numpy/scipy, our formulas": lambda: scipy_stable(m.numpy(), x.numpy()),
        },
        check=check,
        facts={"points": n},
        targets={"ratio": "at least 2 x"},
    )


@benchmark("the paper's grid, 3.3e9 points")
def paper_grid() -> Case:
    box = Box(mu=(-0.1, 0.1), omega=(-0.1, 0.1), nu=(0.8, 1.5), tau=(0.8, 1.25))
    total = math.prod(PAPER_POINTS)
    part = (10, 10, 73, 123)  # a coarser grid of the same box, in the same chunks
    found = paper_grid_maximum()

    def check(outputs):
        np.testing.assert_allclose(outputs["ours"].value, 0.98902627183935, rtol=0, atol=1e-13)
        for name, output in outputs.items():
            np.testing.assert_allclose(
                output.value, outputs["ours"].value, rtol=1e-14, err_msg=name
            )

    def scipy_grid():
        axes = [
            np.linspace(low, high, n)
            for (low, high), n in zip((box.mu, box.omega, box.nu, box.tau), part, strict=True)
        ]
        mu, omega, nu, tau = (g.ravel() for g in np.meshgrid(*axes, indexing="ij"))
        _, _, d1, d2, g, h = scipy_moments(mu * omega, nu * tau)
        a, b, c, d = omega * d1, tau * d2, omega * g, tau * h
        norms = (np.hypot(a + d, c - b) + np.hypot(a - d, b + c)) / 2
        best = np.argmax(norms)
        return found._replace(value=norms[best])

    ratio = total / math.prod(part)
    return Case(
        ours=paper_grid_maximum,
        peers={
            "every point, ours": lambda: grid_maximum(box, part, backend="batched"),
            "every point, numpy/scipy": scipy_grid,
        },
        check=check,
        facts={
            "points": total,
            "points evaluated": found.n_evaluated,
            "points timed of the peers": math.prod(part),
            "maximum": found.value,
        },
        extrapolate={"every point, ours": ratio, "every point, numpy/scipy": ratio},
        targets={"seconds": "under 10 s on one core"},
    )
