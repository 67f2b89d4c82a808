"""The arithmetic of the figure "cycle-board" (in node) against the chapter's own functions."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from reproductions.papers.super_convergence.estimate import (
    RateEstimator,
    estimate_under_noise,
    noise_estimate_curve,
    smoothed,
)
from reproductions.papers.super_convergence.schedules import one_cycle, piecewise_constant

STATIC = Path(__file__).resolve().parents[2] / "book" / "_static"
CYCLE = {"shape": "one cycle", "low": 0.1, "high": 3.0, "anneal": 0.1}
DROPS = {"shape": "piecewise constant", "low": 0.1, "high": 0.35, "anneal": 0.0}

pytestmark = pytest.mark.skipif(
    shutil.which("node") is None, reason="node is not installed: the page's arithmetic is untested"
)


def in_node(expression: str, data: Any) -> Any:
    program = (
        f"const C = require({json.dumps(str(STATIC / 'cycle-math.js'))});"
        "const data = JSON.parse(require('fs').readFileSync(0, 'utf8'));"
        f"process.stdout.write(JSON.stringify({expression}));"
    )
    done = subprocess.run(
        ["node", "-e", program], input=json.dumps(data), capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_echo_has_the_known_values_and_is_the_correlation_of_increments() -> None:
    known = {(0, 1): 0.7071, (0, 7): 0.7071, (0.9, 1): 2.2361, (0.9, 10): 1.0257, (0.95, 1): 3.1623}
    found = in_node("data.map((p) => C.echo(...p))", list(known))
    assert [one["ratio"] for one in found] == pytest.approx(list(known.values()), abs=5e-5)
    # successive single updates are an autoregression
    assert [found[k]["correlation"] for k in (0, 2, 4)] == pytest.approx([0, 0.9, 0.95])
    grid = [(mu, lag) for mu in (0.0, 0.3, 0.85, 0.9, 0.99) for lag in (1, 2, 5, 20)]
    ours = [one["ratio"] for one in in_node("data.map((p) => C.echo(...p))", grid)]
    assert ours == pytest.approx([float(estimate_under_noise(*p)) for p in grid], rel=1e-10)


def test_at_a_constant_rate_the_moments_end_where_the_closed_form_is() -> None:
    grid = [(mu, lag) for mu in (0.0, 0.3, 0.9, 0.95, 0.99) for lag in (1, 2, 10, 20)]
    curves = in_node(
        "data.map((p) => C.noiseEstimate(Array(2000).fill(0.35), ...p).estimate)", grid
    )
    closed = in_node("data.map((p) => C.echo(...p).ratio)", grid)
    for point, curve, ratio in zip(grid, curves, closed, strict=True):
        assert curve[-1] == pytest.approx(0.35 * ratio, rel=1e-9), point
        # from rest it is another ratio, unless there is nothing to remember
        assert (curve[0] == pytest.approx(0.35 * ratio, rel=1e-3)) == (point[0] == 0), point


@pytest.mark.parametrize("n", [400, 397])
def test_schedules_are_the_chapters(n: int) -> None:
    bare = CYCLE | {"anneal": 0.0}
    ours = in_node("data.map(([s, n]) => C.schedule(s, n))", [[s, n] for s in (CYCLE, bare, DROPS)])
    theirs = [one_cycle(n, 0.1, 3.0), one_cycle(n, 0.1, 3.0, anneal=0), piecewise_constant(n, 0.35)]
    for rates, reference in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(rates, reference, rtol=1e-12)
    constant = in_node("C.schedule(...data)", [DROPS | {"shape": "constant"}, n])
    assert constant == [0.35] * n


@pytest.mark.parametrize(("momentum", "lag"), [(0.0, 1), (0.9, 1), (0.9, 10), (0.99, 7)])
def test_estimate_of_noise_is_the_chapters_along_every_schedule(momentum: float, lag: int) -> None:
    for settings, rates in (
        (CYCLE, one_cycle(400, 0.1, 3)),
        (DROPS, piecewise_constant(400, 0.35)),
    ):
        found = in_node(
            "C.noiseEstimate(C.schedule(data[0], 400), data[1], data[2])", [settings, momentum, lag]
        )
        assert found["steps"] == list(range(2 * lag, 401, lag))
        assert found["rate"] == pytest.approx([float(rates[s - 1]) for s in found["steps"]])
        curve = noise_estimate_curve(rates, momentum, lag)
        np.testing.assert_allclose(found["estimate"], curve, rtol=1e-9)


def test_estimate_of_noise_is_what_the_estimator_says_to_noise() -> None:
    """Simulated along a steep cycle; the closed form of a constant rate is not the same."""
    rates, momentum, lag = one_cycle(120, 0.05, 1.0), 0.9, 3
    draw = torch.Generator().manual_seed(5)
    velocity, estimator = torch.zeros(20_000), RateEstimator(lag=lag)
    for rate in rates.tolist():
        velocity = momentum * velocity - rate * torch.randn(20_000, generator=draw)
        estimator.add(velocity, rate)
    found = in_node("C.noiseEstimate(...data)", [rates.tolist(), momentum, lag])
    np.testing.assert_allclose(found["estimate"], estimator.values(), rtol=0.03)
    echo = float(estimate_under_noise(momentum, lag)) * np.array(found["rate"])
    assert np.abs(echo / found["estimate"] - 1).max() > 0.3


def test_smoothing_is_the_authors_and_keeps_its_pace_on_a_thinned_list() -> None:
    values = np.random.default_rng(2).uniform(0.1, 5, 40)
    steps = list(range(20, 420, 10))
    ours = in_node("C.smoothed(...data)", [values.tolist(), steps, 10])
    np.testing.assert_allclose(ours, smoothed(torch.tensor(values)), rtol=1e-12)
    # a value that stands for four is as good as four of them
    thin = in_node("C.smoothed(...data)", [[2.0, 3.0, 1.0], [1, 5, 9], 1])
    whole = smoothed(torch.tensor([2.0, *[3.0] * 4, *[1.0] * 4], dtype=torch.float64))
    assert thin == pytest.approx(whole[[0, 4, 8]].tolist(), rel=1e-12)
    lists = [[3, 1, 2], [4, 1, 3, 2], [10, 9, 1], [7]]
    assert in_node("data.map(C.median)", lists) == [2, 2.5, 9, 7]
