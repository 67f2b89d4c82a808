"""The controls of the learning-rate estimate, and the settings of the interactive figure."""

import json
import math
import shutil
import subprocess
from pathlib import Path

import pytest
import torch

from reproductions.kernels.replica import ResidualSpec
from reproductions.papers.super_convergence import (
    Monitor,
    Outcome,
    Recipe,
    Stack,
    Task,
    board,
    echo,
    noise_checks,
    noise_estimate_curve,
    over_noise,
    quadratic_error,
    rate_in_use,
    relative_estimate,
    train,
    triangular,
)

STATIC = Path(__file__).resolve().parents[3] / "book" / "_static"
SPEC = ResidualSpec(blocks=(1, 1), widths=(4, 8), n_classes=3)
RATES = [0.05, 0.2, 0.3, 0.2, 0.1, 0.02, 0.04, 0.01]


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def random_task():
    images, labels = torch.randn(40, 3, 8, 8, generator=generator()), torch.arange(40) % 3
    return Task("noise", images, labels, images, labels)


def made_up(schedule, lags=(1,), seeds=(0, 1, 2), momentum=0.9, n_steps=None):
    """An outcome with random positive estimates along a schedule."""
    if isinstance(schedule, list):
        schedule = torch.tensor(schedule, dtype=torch.float64)
    recipe = Recipe("made up", schedule, momentum=momentum, n_steps=n_steps)
    rows = torch.zeros(len(seeds))
    estimates = {
        lag: torch.rand(recipe.length // lag - 1, len(seeds), generator=generator(lag)) + 0.1
        for lag in lags
    }
    return Outcome(
        recipe=recipe,
        seeds=tuple(seeds),
        losses=torch.zeros(len(seeds), recipe.length),
        steps=torch.tensor([recipe.length]),
        curves={"caffe 0.95": rows[:, None]},
        test_losses=rows[:, None],
        train_loss=rows,
        diverged_at=rows.long() - 1,
        estimates=estimates,
        seconds=0.0,
    )


def test_the_rate_in_use_is_that_of_the_last_update():
    outcome = made_up(RATES, lags=(1, 2, 3, 4))
    assert rate_in_use(outcome, 1).tolist() == RATES[1:]
    # snapshots after 0, 2, 4, ... updates; the first estimate needs updates 0 to 3
    assert rate_in_use(outcome, 2).tolist() == [RATES[3], RATES[5], RATES[7]]
    # the last two of eight updates fill no third interval
    assert rate_in_use(outcome, 3).tolist() == [RATES[5]]
    assert rate_in_use(outcome, 4).tolist() == [RATES[7]]
    # of a longer schedule the steps that were taken count
    assert rate_in_use(made_up([*RATES, 9.0, 9.0], lags=(2,), n_steps=8), 2).tolist() == [
        RATES[k] for k in (3, 5, 7)
    ]


def test_relative_estimates_divide_every_seed_by_the_rate():
    outcome = made_up(RATES, lags=(1, 3))
    found = relative_estimate(outcome)
    assert set(found) == {1, 3}
    assert found[1].dtype == torch.float64
    for seed in range(3):
        for i, rate in enumerate(RATES[1:]):
            expected = outcome.estimates[1][i, seed].item() / rate
            assert found[1][i, seed].item() == pytest.approx(expected, rel=1e-12)
    assert found[3].shape == (1, 3)


def test_over_noise_divides_by_the_curve_of_the_runs_own_schedule_and_momentum():
    task = random_task()
    momentum = torch.linspace(0.2, 0.9, len(RATES), dtype=torch.float64)
    recipe = Recipe("a", torch.tensor(RATES, dtype=torch.float64), momentum=momentum)
    options = {"spec": SPEC, "batch_size": 8, "workers": 1}
    outcome = train(task, [recipe], (1, 2), monitor=Monitor(lags=(1, 2)), **options)["a"]
    for lag in (1, 2):
        alone = noise_estimate_curve(RATES, momentum, lag)
        found = over_noise(outcome, lag)
        assert found.shape == (len(alone), 2)
        torch.testing.assert_close(found * alone[:, None], outcome.estimates[lag].double())
    # the control: with another momentum it is another curve
    assert not torch.allclose(noise_estimate_curve(RATES, 0.9, 2), alone, rtol=0.01)


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_a_relative_estimate_is_a_ratio_of_distances_between_weights(momentum):
    """Of eq. 8 nothing is left but the weights: no rate, however the schedule varies."""
    task, lags = random_task(), (1, 2, 3)
    recipe = Recipe("a", torch.tensor(RATES, dtype=torch.float64), momentum=momentum)
    options = {"spec": SPEC, "batch_size": 8, "workers": 1}
    outcome = train(task, [recipe], (1, 2), monitor=Monitor(lags=lags), **options)["a"]
    stack = Stack(task, SPEC, [(recipe, 1), (recipe, 2)], 8)
    weights = [stack.network.parameters.double()]
    for _ in RATES:
        stack.advance()
        weights.append(stack.network.parameters.double())
    found = relative_estimate(outcome)
    for lag in lags:
        snapshots = weights[::lag]
        ratios = [
            (b - a).abs().sum(1) / ((b - a) - (c - b)).abs().sum(1)
            for a, b, c in zip(snapshots, snapshots[1:], snapshots[2:], strict=False)
        ]
        # differences of stored float32 weights are rounded
        torch.testing.assert_close(found[lag], torch.stack(ratios), rtol=2e-3, atol=0)
    # the control: the estimates themselves do depend on it
    with pytest.raises(AssertionError):
        torch.testing.assert_close(outcome.estimates[3].double(), found[3], rtol=0.5, atol=0)


def test_on_quadratics_the_estimate_is_exact_without_momentum():
    errors = [quadratic_error(generator(seed)) for seed in range(100)]
    assert max(errors) < 1e-10
    # the control: something is computed, with rounding
    assert max(errors) > 0


@pytest.mark.parametrize("momentum", [0.5, 0.9])
def test_on_quadratics_momentum_breaks_the_identity(momentum):
    """With h = rate * a, D_0 = -h and D_1 = -h (mu + 1 - h), so a eps* = h / |mu - h|."""
    found = quadratic_error(generator(), momentum=momentum)
    again = generator()
    torch.rand(50, 1, generator=again, dtype=torch.float64)
    h = 10 ** (2 * torch.rand(50, 1, generator=again, dtype=torch.float64) - 2)
    first = (h / (momentum - h).abs() - 1)[(1 - h).abs() > 1e-3].abs().max().item()
    # later estimates may be worse still
    assert found >= first * (1 - 1e-9)
    assert first > 0.1


def test_noise_checks_are_simulations_over_the_closed_form(monkeypatch):
    simulated = []
    honest = echo.noise_ratio

    def recorded(*args, **options):
        simulated.append(float(honest(*args, **options)))
        return simulated[-1]

    monkeypatch.setattr(echo, "noise_ratio", recorded)
    found = list(noise_checks(generator()))
    known = {(0.0, 1): 0.7071, (0.9, 1): 2.2361, (0.9, 10): 1.0257, (0.95, 1): 3.1623}
    assert [(momentum, lag) for momentum, lag, _ in found] == list(known)
    # every setting has its own level, and none is near another's
    assert simulated == pytest.approx(list(known.values()), rel=0.01)
    assert [ratio for *_, ratio in found] == pytest.approx([1] * 4, rel=0.01)
    assert [ratio for *_, ratio in found] == pytest.approx(
        [s / k for s, k in zip(simulated, known.values(), strict=True)], rel=1e-4
    )


CYCLE = triangular(60, 0.1, 3.0)
# of single precision, in which 0.35 is a bit less
CONSTANT = torch.full((60,), 0.35)
KEYS = {
    *("label", "shape", "low", "high", "anneal", "momentum", "lag"),
    *("steps", "estimate", "rate"),
}


def example(**options):
    """Settings of two runs of 60 steps."""
    outcomes = {
        "at 0.35": made_up(CONSTANT, lags=(1, 2), momentum=0.0),
        "cycle": made_up(CYCLE, lags=(1, 2)),
    }
    return outcomes, board(outcomes, **{"lag": 1, **options})


def test_the_board_describes_its_runs():
    _, config = example(lag=2)
    assert set(config) == {"n_steps", "runs", "start"}
    assert all(set(run) == KEYS for run in config["runs"])
    constant, cycle = config["runs"]
    assert [constant[key] for key in ("label", "shape", "low", "high")] == [
        *("at 0.35", "constant"),
        *(0.35, 0.35),
    ]
    assert [cycle[key] for key in ("label", "shape", "low", "high")] == [
        *("cycle", "one cycle"),
        *(0.1, 3.0),
    ]
    assert [(run["momentum"], run["lag"], run["anneal"]) for run in (constant, cycle)] == [
        (0.0, 2, 0),
        (0.9, 2, 0),
    ]
    # the first cycle is the one to begin with
    assert config["start"] == 1
    assert board({"at 0.35": made_up(CONSTANT)}, lag=1)["start"] == 0


@pytest.mark.parametrize("lag", [1, 2])
@pytest.mark.parametrize("every", [1, 3, 4, 7])
def test_the_board_keeps_every_so_many_estimates_and_the_last(lag, every):
    outcomes, config = example(lag=lag, every=every)
    n = 60 // lag - 1
    places = sorted(range(n - 1, -1, -every))
    for outcome, run in zip(outcomes.values(), config["runs"], strict=True):
        # an estimate over updates i lag, ..., (i + 2) lag - 1 is there after (i + 2) lag updates
        assert run["steps"] == [(i + 2) * lag for i in places]
        assert run["steps"][-1] == 60
        middle = [sorted(outcome.estimates[lag][i].tolist())[1] for i in places]
        assert run["estimate"] == pytest.approx(middle, abs=6e-5)
        rates = [outcome.recipe.rates[step - 1].item() for step in run["steps"]]
        assert run["rate"] == pytest.approx(rates, abs=6e-6)
    # the control: the cycle's rates tell one step from the next
    assert len(set(config["runs"][1]["rate"])) > len(places) // 2


def test_the_board_is_plain_data():
    _, config = example()
    assert json.loads(json.dumps(config, allow_nan=False)) == config


def accepted(config):
    """Whether the figure's own script, run in node, opens a board for these settings."""
    program = """
    const [folder] = process.argv.slice(1);
    const config = JSON.parse(require("fs").readFileSync(0, "utf8"));
    let begin = null, opened = false;
    console.warn = () => {};
    globalThis.CycleMath = require(folder + "/cycle-math.js");
    globalThis.ReproWidget = {
      run: (name, start) => { begin = start; },
      config: () => config,
      open: () => { opened = true; throw new Error("far enough"); },
    };
    require(folder + "/cycle-board.js");
    try { begin({}); } catch (error) { if (!opened) throw error; }
    process.stdout.write(JSON.stringify(opened));
    """
    done = subprocess.run(
        ["node", "-e", program, str(STATIC)],
        input=json.dumps(config),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.skipif(shutil.which("node") is None, reason="node is not installed")
def test_the_figure_accepts_the_board():
    _, config = example()
    assert accepted(config)
    assert accepted(example(lag=2, every=1)[1])
    # the controls: it looks at every list
    for key, spoil in (
        ("steps", lambda values: values[::-1]),
        ("estimate", lambda values: values[:-1]),
        ("rate", lambda values: [0.0, *values[1:]]),
    ):
        run = config["runs"][0]
        assert not accepted({**config, "runs": [{**run, key: spoil(run[key])}]})


def test_the_board_keeps_to_what_the_figure_can_show():
    """Its sliders and its longest run, for the estimates of the chapter in every profile."""
    for n_steps in (60, 300, 1000):
        outcomes = {
            "constant": made_up(torch.full((n_steps,), 0.1), momentum=0.0),
            "cycle": made_up(triangular(n_steps, 0.1, 3.0)),
        }
        config = board(outcomes, lag=1)
        assert 50 <= config["n_steps"] <= 2000
        for run in config["runs"]:
            assert 0 < run["low"] <= run["high"] <= 4
            assert run["low"] <= 1
            assert 0 <= run["momentum"] <= 0.99
            assert 1 <= run["lag"] <= 20
            assert 50 <= run["steps"][-1] <= 2000
            assert len(run["steps"]) == len(run["estimate"]) == len(run["rate"]) > 1
            assert all(a < b for a, b in zip(run["steps"], run["steps"][1:], strict=False))
            assert all(rate > 0 for rate in run["rate"])
            assert all(math.isfinite(value) for value in run["estimate"])
