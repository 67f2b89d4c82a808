import math

import pytest
import torch
from torch.optim.lr_scheduler import (
    CosineAnnealingLR,
    CyclicLR,
    LinearLR,
    MultiStepLR,
    OneCycleLR,
)

from reproductions.papers.super_convergence.schedules import (
    cosine,
    cyclical_momentum,
    inverse_decay,
    linear_decay,
    one_cycle,
    piecewise_constant,
    range_test,
    triangular,
    warmed_up,
)


def of_torch(scheduler, n_steps, rate=1.0, **options):
    """The rates a torch scheduler gives to the first n_steps updates."""
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=rate)
    steps = scheduler(optimizer, **options)
    rates = []
    for _ in range(n_steps):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        steps.step()
    return torch.tensor(rates, dtype=torch.float64)


def close(a, b):
    torch.testing.assert_close(a, torch.as_tensor(b, dtype=torch.float64), rtol=1e-9, atol=1e-12)


def test_the_rates_printed_in_the_authors_logs():
    cycle = triangular(10_000, 0.1, 3.0)
    close(cycle[[0, 100, 2500, 5000, 5100, 9900]], [0.1, 0.158, 1.55, 3.0, 2.942, 0.158])
    close(range_test(5000, 3.0)[[0, 500, 1300, 4900]], [0.0, 0.3, 0.78, 2.94])
    constant = piecewise_constant(80_000, 0.35)
    at = [0, 49_999, 50_000, 69_999, 70_000, 79_999]
    close(constant[at], [0.35, 0.35, 0.035, 0.035, 0.0035, 0.0035])


@pytest.mark.parametrize(("n_steps", "n_cycles"), [(10_000, 1), (10_000, 2), (30, 3), (25, 1)])
def test_triangular_is_that_of_caffe_and_of_torch(n_steps, n_cycles):
    s = n_steps / (2 * n_cycles)
    found = triangular(n_steps, 0.1, 3.0, n_cycles)
    caffe = []
    for t in range(n_steps):
        x = abs(t / s - 2 * math.floor(t / (2 * s)) - 1)
        caffe.append(0.1 + 2.9 * max(0.0, 1 - x))
    close(found, caffe)
    options = {"base_lr": 0.1, "max_lr": 3.0, "step_size_up": s, "cycle_momentum": False}
    close(found, of_torch(CyclicLR, n_steps, 0.1, **options))


def test_two_cycles_are_one_twice_and_each_is_symmetric():
    one, two = triangular(5000, 0.1, 3.0), triangular(10_000, 0.1, 3.0, 2)
    assert torch.equal(two, one.repeat(2))
    close(one[1:], one[1:].flip(0))
    assert one.max() == 3.0
    assert one.argmax() == 2500
    # a fraction of a step in each half, and still as many cycles as were asked for
    assert (triangular(1001, 0.0, 1.0, 7).diff().sign().diff() < 0).sum() == 7


@pytest.mark.parametrize("anneal", [0.0, 0.1, 0.25, 0.5])
def test_areas_under_the_curves(anneal):
    n, low, high, final = 400, 0.05, 1.0, 0.002
    close(triangular(n, low, high, 2).sum(), n * (low + high) / 2)
    rates = one_cycle(n, low, high, anneal=anneal, final=final)
    # the trapezoids between the knots, and half a step at either end
    end = low if anneal == 0 else final
    area = (1 - anneal) * n * (low + high) / 2 + anneal * n * (low + final) / 2 + (low - end) / 2
    close(rates.sum(), area)
    close(range_test(n, high).sum(), high * (n - 1) / 2)
    close(linear_decay(n, high, warmup=0.1).sum(), high * (40 + 1) / 2 + high * (n - 40) / 2)
    close(cosine(n, high, warmup=0.1).sum(), high * (40 + 1) / 2 + high * (n - 40) / 2)


def test_one_cycle_by_hand():
    found = one_cycle(10, 0.1, 0.9, anneal=0.2, final=0.0)
    close(found, [0.1, 0.3, 0.5, 0.7, 0.9, 0.7, 0.5, 0.3, 0.1, 0.05])
    default = one_cycle(10, 0.1, 0.9, anneal=0.2)
    close(default[-1], (0.1 + 0.001) / 2)
    assert torch.equal(one_cycle(37, 0.1, 3.0, anneal=0.0), triangular(37, 0.1, 3.0))


@pytest.mark.parametrize("anneal", [0.1, 0.3])
def test_one_cycle_is_torchs_where_the_knots_are_laid_alike(anneal):
    # torch: pct N - 1, 2 pct N - 2, N - 1; here: (1 - f) n / 2, (1 - f) n, n
    n, low, high = 200, 0.1, 3.0
    pct = ((1 - anneal) * n / 2 + 1) / (n + 1)
    options = {
        "max_lr": high,
        "div_factor": high / low,
        "final_div_factor": 100,
        "three_phase": True,
        "anneal_strategy": "linear",
        "cycle_momentum": False,
    }
    ours = one_cycle(n, low, high, anneal=anneal)
    close(ours, of_torch(OneCycleLR, n, total_steps=n + 1, pct_start=pct, **options))
    # with the shares taken at their word the knots come one and two steps early
    theirs = of_torch(OneCycleLR, n, total_steps=n, pct_start=(1 - anneal) / 2, **options)
    assert theirs.argmax() == ours.argmax() - 1
    assert theirs[-1] < ours[-1]
    assert (theirs - ours).abs().max() > 0.02


def test_decays_are_torchs():
    close(cosine(50, 0.3, warmup=0), of_torch(CosineAnnealingLR, 50, 0.3, T_max=50))
    options = {"start_factor": 1.0, "end_factor": 0.0, "total_iters": 50}
    close(linear_decay(50, 0.3, warmup=0), of_torch(LinearLR, 50, 0.3, **options))
    options = {"milestones": [25, 35], "gamma": 0.1}
    close(piecewise_constant(40, 0.3), of_torch(MultiStepLR, 40, 0.3, **options))


def test_inverse_decay_is_that_of_caffe():
    # base_lr (1 + gamma iter)^(-power), written for one iteration at a time
    for rate, gamma, power in ((0.01, 1e-4, 0.75), (0.3, 0.02, 2.0), (1.0, 5.0, 0.1)):
        caffe = [rate * math.pow(1 + gamma * t, -power) for t in range(200)]
        close(inverse_decay(200, rate, gamma=gamma, power=power), caffe)
    # its LeNet prints these with the numbers of lenet_solver.prototxt, which are the defaults
    lenet = inverse_decay(10_000, 0.01)
    printed = [0.01, 0.00992565, 0.00596843]
    assert lenet[[0, 100, 9900]].tolist() == pytest.approx(printed, abs=5e-9)
    close(inverse_decay(3, 2.0, gamma=0.5, power=2.0), [2.0, 2 / 1.5**2, 0.5])
    for options in ({"gamma": 0.0}, {"power": 0.0}):
        close(inverse_decay(5, 0.3, **options), [0.3] * 5)


def test_inverse_decay_does_not_depend_on_the_length_of_the_run():
    close(inverse_decay(30, 0.01), inverse_decay(500, 0.01)[:30])


@pytest.mark.parametrize("schedule", [cosine, linear_decay])
def test_warm_up_reaches_the_peak_once_and_then_falls(schedule):
    rates = schedule(100, 0.5, warmup=0.1)
    close(rates[:10], 0.05 * torch.arange(1, 11, dtype=torch.float64))
    assert (rates == 0.5).nonzero().flatten().tolist() == [9]
    assert (rates[9:].diff() < 0).all()
    assert 0 < rates[-1] < 0.01


@pytest.mark.parametrize(
    ("n_steps", "drop", "first"), [(100, 0.07, 7), (100, 0.29, 29), (10, 0.25, 3), (8, 0.125, 1)]
)
def test_a_drop_is_at_the_first_step_not_before_its_share(n_steps, drop, first):
    rates = piecewise_constant(n_steps, 1.0, drops=(drop,), factor=0.5)
    assert (rates < 1).nonzero()[0].item() == first
    assert rates.unique().tolist() == [0.5, 1.0]


def test_momentum_in_opposite_phase():
    momentum = cyclical_momentum(400, 0.95, 0.85, anneal=0.1)
    rates = one_cycle(400, 0.05, 1.0, anneal=0.1)
    cycle = slice(0, 360)
    close((0.95 - momentum[cycle]) / 0.1, (rates[cycle] - 0.05) / 0.95)
    assert momentum[180].item() == pytest.approx(0.85)
    assert (momentum[360:] == 0.95).all()


def test_warmed_up_touches_the_first_entries_only():
    schedule = torch.tensor([4.0, 4.0, 2.0, 1.0])
    close(warmed_up(schedule, 2), [2.0, 4.0, 2.0, 1.0])
    close(warmed_up(schedule, 4), [1.0, 2.0, 1.5, 1.0])
    for n in (0, 1):
        close(warmed_up(schedule, n), schedule)
    assert schedule[0] == 4.0


@pytest.mark.parametrize("n_steps", [1, 2, 3])
def test_the_shortest_schedules_are_finite_and_in_range(n_steps):
    for rates in (
        triangular(n_steps, 0.1, 3.0),
        triangular(n_steps, 0.1, 3.0, 5),
        *(one_cycle(n_steps, 0.1, 3.0, anneal=anneal) for anneal in (0.0, 0.1, 0.5, 0.999)),
        *(
            shape(n_steps, 3.0, warmup=warmup)
            for shape in (cosine, linear_decay)
            for warmup in (0, 0.9)
        ),
        piecewise_constant(n_steps, 3.0),
        inverse_decay(n_steps, 3.0),
        range_test(n_steps, 3.0),
        cyclical_momentum(n_steps, 0.95, 0.8),
    ):
        assert rates.shape == (n_steps,)
        assert rates.dtype == torch.float64
        assert torch.isfinite(rates).all()
        assert ((rates >= 0) & (rates <= 3)).all()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: triangular(0, 0.1, 1.0), "n_steps must be an integer of at least 1, got 0"),
        (lambda: triangular(10.0, 0.1, 1.0), "n_steps must be an integer"),
        (lambda: triangular(10, 0.1, 1.0, 0), "n_cycles must be .* got 0"),
        (lambda: triangular(10, -0.1, 1.0), "low must be at least 0, got -0.1"),
        (lambda: triangular(10, 2.0, 1.0), "low must be at most high = 1, got 2"),
        (lambda: triangular(10, 0.1, torch.ones(2)), "high must be one number, got shape"),
        (lambda: one_cycle(10, 0.1, 1.0, anneal=1.0), r"anneal must be in \[0, 1\), got 1"),
        (lambda: one_cycle(10, 0.1, 1.0, anneal=-0.1), "anneal must be at least 0"),
        (lambda: one_cycle(10, 0.1, 1.0, final=0.5), "final must be at most low = 0.1, got 0.5"),
        (lambda: one_cycle(10, 0.1, float("nan")), "high must be finite, got nan"),
        (lambda: piecewise_constant(10, -1.0), "rate must be at least 0, got -1"),
        (lambda: piecewise_constant(10, 1.0, factor=-1.0), "factor must be at least 0"),
        (lambda: piecewise_constant(10, 1.0, (0.7, 0.5)), r"drops must increase in \(0, 1\)"),
        (lambda: piecewise_constant(10, 1.0, (0.5, 1.0)), "drops must increase"),
        (lambda: piecewise_constant(10, 1.0, (0.5, 0.5)), "drops must increase"),
        (lambda: piecewise_constant(10, 1.0, 0.5), r"drops must be a sequence .* got 0\.5"),
        (lambda: inverse_decay(0, 1.0), "n_steps must be an integer of at least 1, got 0"),
        (lambda: inverse_decay(10, -1.0), "rate must be at least 0, got -1"),
        (lambda: inverse_decay(10, 1.0, gamma=-1e-4), "gamma must be at least 0, got -0.0001"),
        (lambda: inverse_decay(10, 1.0, power=-0.75), "power must be at least 0, got -0.75"),
        (lambda: inverse_decay(10, float("inf")), "rate must be finite, got inf"),
        (lambda: inverse_decay(10, torch.ones(2)), "rate must be one number, got shape"),
        (lambda: range_test(10, -3.0), "high must be at least 0, got -3"),
        (lambda: cosine(10, 1.0, warmup=1.5), r"warmup must be in \[0, 1\), got 1.5"),
        (lambda: linear_decay(0, 1.0), "n_steps must be"),
        (lambda: cyclical_momentum(10, 0.8, 0.9), "low must be at most high = 0.8, got 0.9"),
        (lambda: cyclical_momentum(10, 1.0, 0.9), "high must be below 1, got 1"),
        (lambda: warmed_up(torch.ones(3), 4), "n_steps_of_warmup must be at most 3 steps, got 4"),
        (lambda: warmed_up(torch.ones(3, 2), 1), "schedule must be a vector, got shape"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
