"""The interactive figure's arithmetic (in node) against forty digits and against the paper."""

from __future__ import annotations

import json
import random
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mpmath import mp, mpf
from scipy import special

STATIC = Path(__file__).resolve().parents[2] / "book" / "_static"
ALPHA, LAMBDA = 1.6732632423543772848, 1.0507009873554804934

pytestmark = pytest.mark.skipif(
    shutil.which("node") is None, reason="node is not installed: the page's arithmetic is untested"
)


def in_node(expression: str, data: Any) -> Any:
    program = (
        f"const S = require({json.dumps(str(STATIC / 'selu-math.js'))});"
        "const data = JSON.parse(require('fs').readFileSync(0, 'utf8'));"
        f"process.stdout.write(JSON.stringify({expression}));"
    )
    done = subprocess.run(
        ["node", "-e", program], input=json.dumps(data), capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def exact_map(mu: Any, nu: Any, omega: Any, tau: Any, alpha: Any, lam: Any) -> tuple[Any, Any]:
    """Klambauer et al. 2017, eqs. (4) and (5), as printed, with digits to spare."""
    m, x = mu * omega, nu * tau
    root = mp.sqrt(2 * x)
    gauss = mp.sqrt(2 / mp.pi) * mp.sqrt(x) * mp.exp(-m * m / (2 * x))
    e1 = mp.exp(m + x / 2) * mp.erfc((m + x) / root)
    e2 = mp.exp(2 * m + 2 * x) * mp.erfc((m + 2 * x) / root)
    below = mp.erfc(m / root)
    mean = lam / 2 * (m * (2 - below) + gauss + alpha * (e1 - below))
    square = (m * m + x) * (2 - below) + m * gauss + alpha**2 * (e2 - 2 * e1 + below)
    return mean, lam**2 / 2 * square - mean**2


def states(count: int) -> list[list[float]]:
    """Random states over the sliders' ranges and beyond them, ends included."""
    draw = random.Random(7)
    ends = [[1.0, 3.0, 1.5, 3.0, 4.0, 1.8], [-1.0, 0.02, 1.5, 0.3, 0.1, 0.5], [-12, 4, 1, 1, 2, 1]]
    return [*ends, [-30.0, 1.0, 1.0, 1.0, ALPHA, LAMBDA]] + [
        [
            draw.uniform(-1, 1),
            10 ** draw.uniform(-4, 4),
            draw.uniform(-1.5, 1.5),
            draw.uniform(0.3, 3),
            draw.uniform(0, 4),
            draw.uniform(0.5, 1.8),
        ]
        for _ in range(count)
    ]


def test_erfcx_agrees_with_scipy() -> None:
    y = [*np.linspace(-5, 30, 1401), 1.9999999, 2.0, 4.0, 1e3, 1e9]
    ours = np.array(in_node("data.map(S.erfcx)", y))
    np.testing.assert_allclose(ours, special.erfcx(y), rtol=2e-13)


def test_map_agrees_with_the_printed_formulas() -> None:
    points = states(150)
    ours = in_node("data.map((s) => S.momentMap(...s))", points)
    with mp.workdps(60):
        for point, got in zip(points, ours, strict=True):
            mean, variance = (float(v) for v in exact_map(*map(mpf, point)))
            # the variance near zero input variance is a small difference: allow its roots' rounding
            assert got["mu"] == pytest.approx(mean, rel=1e-12, abs=1e-14), point
            assert got["nu"] == pytest.approx(variance, rel=1e-11, abs=1e-14 * mean**2), point


def test_jacobian_agrees_with_differences_in_many_digits() -> None:
    points = states(25)
    ours = in_node("data.map((s) => S.jacobian(...s))", points)
    with mp.workdps(60):
        step = mpf(10) ** -20
        for point, got in zip(points, ours, strict=True):
            p = [mpf(v) for v in point]
            for column in range(2):
                up, down = list(p), list(p)
                up[column] += step
                down[column] -= step
                pairs = zip(exact_map(*up), exact_map(*down), strict=True)
                slope = [float((a - b) / (2 * step)) for a, b in pairs]
                scale = max(1.0, *map(abs, slope))
                assert [got[0][column], got[1][column]] == pytest.approx(slope, abs=3e-12 * scale)


def test_papers_numbers() -> None:
    start = in_node("S.jacobian(0, 1, 0, 1, S.ALPHA, S.LAMBDA)", None)
    assert np.linalg.norm(start, 2) == pytest.approx(0.7877, abs=5e-5)  # proof of Theorem 1
    moved = in_node("S.parametersFor(0, 2, 0, 1)", None)
    assert moved["alpha"] == pytest.approx(1.97126, abs=5e-6)  # appendix A5
    assert moved["lambda"] == pytest.approx(1.06071, abs=5e-6)


def test_solution_is_a_fixed_point_and_a_changed_one_is_not() -> None:
    draw = random.Random(3)
    targets = [
        [
            draw.choice([0.0, draw.uniform(-0.5, 0.5)]),
            draw.uniform(0.3, 3),
            draw.choice([0, draw.uniform(-1, 1)]),
            draw.uniform(0.5, 2),
        ]
        for _ in range(60)
    ]
    solutions = in_node("data.map((t) => S.parametersFor(...t))", targets)
    found = [(t, s) for t, s in zip(targets, solutions, strict=True) if s is not None]
    assert len(found) > 40
    for (mu, nu, omega, tau), s in found:
        assert s["alpha"] > 0
        assert s["lambda"] > 0
        with mp.workdps(40):
            args = [mpf(v) for v in (mu, nu, omega, tau)]
            mean, variance = exact_map(*args, mpf(s["alpha"]), mpf(s["lambda"]))
            assert float(mean) == pytest.approx(mu, abs=1e-11)
            assert float(variance) == pytest.approx(nu, abs=1e-10)
            changed = exact_map(*args, mpf(s["alpha"]) * mpf("1.01"), mpf(s["lambda"]))
            assert abs(changed[0] - mu) > 1e-6


def test_no_parameters_where_none_exist() -> None:
    # SELU with omega = 0 cannot give a mean far above its own spread
    assert in_node("S.parametersFor(3, 1, 0, 1)", None) is None


def test_fixed_points_are_born_and_lost_with_tau() -> None:
    """At omega = 0 a positive fixed point needs a slope above one at zero, below one far out."""
    low = 1 / (LAMBDA**2 * ((1 + ALPHA**2) / 2 - (1 - ALPHA) ** 2 / (2 * np.pi)))
    high = 1 / (LAMBDA**2 * (0.5 - 1 / (2 * np.pi)))
    taus = [low * 0.98, low * 1.02, high * 0.95, high * 1.02]
    found = in_node("data.map((t) => S.fixedPoints(0, t, S.ALPHA, S.LAMBDA))", taus)
    assert [len(points) for points in found] == [0, 1, 1, 0]


def test_attraction_at_the_origin_ends_in_a_collision() -> None:
    """Past omega = 0.9 a repelling fixed point passes through (0, 1) and takes its place."""
    before, after = in_node("data.map((t) => S.fixedPoints(t, 1, S.ALPHA, S.LAMBDA))", [0.9, 0.905])
    assert [p["attracting"] for p in before] == [False, True]
    assert [p["attracting"] for p in after] == [False, True]
    assert before[1]["mu"] == pytest.approx(0, abs=1e-10)
    assert after[0]["mu"] == pytest.approx(0, abs=1e-10)
    for omega, points in ((0.9, before), (0.905, after)):
        for p in points:
            with mp.workdps(40):
                args = [mpf(v) for v in (p["mu"], p["nu"], omega, 1, ALPHA, LAMBDA)]
                mean, variance = exact_map(*args)
            assert float(mean) == pytest.approx(p["mu"], abs=1e-10)
            assert float(variance) == pytest.approx(p["nu"], abs=1e-10)
