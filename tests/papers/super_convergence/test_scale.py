"""The paper's own runs: the authors' settings, and one arm in miniature."""

import dataclasses
import json
import time

import numpy as np
import pytest
import torch

from reproductions.kernels.replica import ResidualSpec
from reproductions.papers.super_convergence import (
    RESNET20,
    RESNET56,
    RESNET110,
    Monitor,
    Paused,
    Recipe,
    scale,
    train,
)
from reproductions.papers.super_convergence.published import published
from reproductions.papers.super_convergence.scale import ARMS, Arm, run_arm, task_from

KEPT = {"2k": 0.8, "4k": 0.85, "6k": 0.9, "8k": 0.93, "10k": 0.95, "20k": 0.97}


def printed(claim, arm, setting, n_images=50_000, iterations=10_000):
    (row,) = (
        row
        for row in published(claim)
        if (row.arm, row.setting) == (arm, setting)
        and (row.n_images, row.iterations) == (n_images, iterations)
    )
    return row.accuracy


def test_the_batches_of_the_authors():
    """1000 images, 125 on each of eight devices; the deepest network left room for 100 on each."""
    assert scale.DATASET == "cifar10"
    for name, arm in ARMS.items():
        expected = (800, 100) if arm.spec == RESNET110 else (1000, 125)
        assert (arm.batch_size, arm.group_size) == expected, name
    assert ARMS["cycle-resnet110"].spec == RESNET110


@pytest.mark.parametrize("length", KEPT)
def test_cycles_of_every_length(length):
    arm = ARMS[f"cycle-{length}"]
    n = 1000 * int(length[:-1])
    assert (arm.n_steps, arm.averaging) == (n, KEPT[length])
    assert arm.paper == printed("C2", "cycle", "rate 0.1 to 3", iterations=n)
    rates = arm.schedule(n)
    assert rates[0].item() == pytest.approx(0.1)
    assert (rates.max().item(), int(rates.argmax())) == (pytest.approx(3.0), n // 2)
    assert rates[n // 4].item() == rates[3 * n // 4].item() == pytest.approx(1.55)


def test_the_constant_rate_and_its_controls():
    for name, n, averaging in (("80k", 80_000, 0.999), ("10k", 10_000, 0.95)):
        constant, gentle = ARMS[f"constant-{name}"], ARMS[f"gentle-{name}"]
        assert constant.n_steps == gentle.n_steps == n
        assert constant.averaging == gentle.averaging == averaging
        rates = constant.schedule(n)
        # 50,000 and 70,000 of 80,000
        for start, end, rate in ((0, 5, 0.35), (5, 7, 0.035), (7, 8, 0.0035)):
            part = rates[start * n // 8 : end * n // 8]
            torch.testing.assert_close(part, torch.full_like(part, rate))
        warm = gentle.schedule(n)
        assert warm[0] < 0.001
        assert torch.equal(warm[n // 20 :], rates[n // 20 :])
    assert ARMS["constant-80k"].paper == printed(
        "C1", "piecewise constant", "rate 0.35", iterations=80_000
    )
    assert ARMS["gentle-80k"].paper is None


@pytest.mark.parametrize("n", [10_000, 20_000, 30_000, 40_000])
def test_arms_with_fewer_images(n):
    cycle, constant, gentle = (
        ARMS[f"{kind}-{n // 1000}k-images"] for kind in ("cycle", "constant", "gentle")
    )
    assert cycle.n_train == constant.n_train == gentle.n_train == n
    assert (cycle.n_steps, cycle.averaging) == (10_000, 0.95)
    assert (constant.n_steps, constant.averaging) == (80_000, 0.999)
    assert cycle.paper == printed("C3", "cycle", "rate 0.1 to 3", n)
    assert constant.paper == printed("C3", "piecewise constant", "rate 0.35", n, 80_000)
    assert torch.equal(cycle.schedule(100), ARMS["cycle-10k"].schedule(100))
    assert torch.equal(constant.schedule(100), ARMS["constant-80k"].schedule(100))
    assert torch.equal(gentle.schedule(100), ARMS["gentle-80k"].schedule(100))


def test_arms_that_change_one_thing():
    standard = ARMS["cycle-10k"]
    changed = {
        **{f"cycle-to-{high}": ("schedule", None) for high in ("1", "1.5", "2", "2.5", "3.5")},
        **{f"cycle-momentum-{m}": ("momentum", float(m)) for m in ("0.8", "0.85", "0.95")},
        **{f"cycle-decay-{d}": ("weight_decay", float(d)) for d in ("0.001", "1e-05", "1e-06")},
        "cycle-nesterov": ("form", "nesterov"),
        "cycle-resnet20": ("spec", RESNET20),
        "cycle-resnet110": ("spec", RESNET110),
    }
    names = (
        *("n_steps", "averaging", "weight_decay", "momentum", "form", "n_train", "spec"),
        *("schedule", "batch_size", "group_size"),
    )
    for arm, (name, value) in changed.items():
        for other in names:
            if arm == "cycle-resnet110" and other.endswith("_size"):
                continue
            mine, usual = getattr(ARMS[arm], other), getattr(standard, other)
            if other == "schedule":
                mine, usual = mine(1000).tolist(), usual(1000).tolist()
            assert (mine == usual) == (other != name), (arm, other)
        if name != "schedule":
            assert getattr(ARMS[arm], name) == value
    for high in ("1", "1.5", "2", "2.5", "3.5"):
        arm = ARMS[f"cycle-to-{high}"]
        assert arm.schedule(1000).max().item() == pytest.approx(float(high))
        assert arm.schedule(1000).min().item() == pytest.approx(0.1)
        assert arm.paper == printed("C6", "cycle", f"rate 0.1 to {high}")
    for m in ("0.8", "0.85", "0.95"):
        assert ARMS[f"cycle-momentum-{m}"].paper == printed("C8", "cycle", f"momentum {m}")
    assert standard.spec is RESNET56
    assert (standard.momentum, standard.weight_decay, standard.form) == (0.9, 1e-4, "caffe")


@pytest.mark.parametrize("shorten", [1, 7, 1000])
def test_every_arm_is_a_recipe_of_its_length(shorten):
    for name, arm in ARMS.items():
        n = max(arm.n_steps // shorten, 1)
        recipe = Recipe(name, arm.schedule(n), arm.momentum, arm.weight_decay, arm.form)
        assert recipe.length == n, name


def test_range_tests_and_estimates():
    for name, n in (("range-5k", 5_000), ("range-20k", 20_000)):
        rates = ARMS[name].schedule(n)
        assert (ARMS[name].n_steps, rates[0].item()) == (n, 0.0)
        torch.testing.assert_close(rates.diff(), torch.full_like(rates[1:], 3 / n))
    names = ("estimate-constant", "estimate-no-momentum", "estimate-cycle")
    assert all(ARMS[name].lags == (1, 10) for name in names)
    assert [ARMS[name].momentum for name in names] == [0.9, 0.0, 0.9]
    # the first 300 iterations of a cycle of 10,000
    cycle = ARMS["estimate-cycle"].schedule(300)
    assert torch.equal(cycle, ARMS["cycle-10k"].schedule(10_000)[:300])
    constant = ARMS["estimate-constant"].schedule(300)
    torch.testing.assert_close(constant, torch.full_like(constant, 0.1))


@pytest.fixture
def small(monkeypatch):
    """An arm that takes a second, and a task of noise for it."""
    arm = Arm(
        lambda n: torch.full((n,), 0.1, dtype=torch.float64),
        12,
        averaging=0.5,
        n_train=24,
        spec=ResidualSpec(blocks=(1, 1), widths=(4, 8), down="narrow"),
        lags=(1, 7),
        batch_size=8,
        group_size=4,
        paper=12.5,
    )
    monkeypatch.setattr(scale, "ARMS", {"small": arm})
    rng = np.random.default_rng(0)

    def noise(n):
        return rng.integers(0, 256, (n, 3, 8, 8), dtype=np.uint8), rng.integers(0, 10, n)

    return task_from(*noise(32), *noise(20), device="cpu")


def plain(data):
    """What JSON makes of a record; strict, as other readers know neither NaN nor Infinity."""
    return json.loads(json.dumps(data, allow_nan=False))


def test_an_arm_is_trained_as_its_settings_say(small):
    found = run_arm("small", 3, small)
    recipe = Recipe("any", torch.full((12,), 0.1, dtype=torch.float64), n_train=24)
    kinds = ("caffe 0.5", "estimated", "caffe 0.95", "caffe 0.999")
    outcome = train(
        small,
        [recipe],
        [3],
        spec=scale.ARMS["small"].spec,
        batch_size=8,
        group_size=4,
        flips=True,
        monitor=Monitor(looks=12, n_test=20, statistics=kinds, lags=(1, 7), n_losses=24),
    )["any"]
    assert (found["seed"], found["n_steps"], found["n_train"]) == (3, 12, 24)
    assert (found["paper"], found["diverged_at"]) == (12.5, -1)
    assert found["peak_gpu_memory_mb"] is None
    assert set(kinds) <= set(found["accuracy"])
    for kind in kinds:
        assert found["accuracy"][kind] == pytest.approx(100 * outcome.accuracy[kind].item())
        assert found["curves"][kind] == pytest.approx(
            (100 * outcome.curves[kind][0]).tolist(), abs=0.01
        )
    assert found["steps"] == list(range(1, 13))
    assert found["losses"] == {
        "every": 1,
        "values": pytest.approx(outcome.losses[0].tolist(), abs=1e-4),
    }
    assert found["test_losses"] == pytest.approx(outcome.test_losses[0].tolist(), abs=1e-4)
    assert found["test_loss"] == found["test_losses"][-1]
    assert found["train_loss"] == pytest.approx(outcome.train_loss.item(), abs=1e-4)
    assert found["estimates"] == {
        "1": pytest.approx(outcome.estimates[1][:, 0].tolist(), abs=1e-4),
        "7": [],
    }
    assert plain(found) == found


def test_losses_are_means_over_blocks_of_a_long_run(small, monkeypatch):
    fine = run_arm("small", 3, small)["losses"]["values"]
    monkeypatch.setattr(scale, "LOSS_POINTS", 3)
    coarse = run_arm("small", 3, small)["losses"]
    assert coarse["every"] == 4
    expected = np.reshape(fine, (3, 4)).mean(1).tolist()
    assert coarse["values"] == pytest.approx(expected, abs=2e-4)


def test_a_shortened_arm(small):
    steps = []
    found = run_arm("small", 3, small, shorten=4, progress=lambda *args: steps.append(args))
    assert found["n_steps"] == 3
    assert [step for _, step, n in steps] == [1, 2]
    assert all(label.startswith("small") and n == 3 for label, _, n in steps)
    assert run_arm("small", 3, small, shorten=100)["n_steps"] == 1
    with pytest.raises(ValueError, match="shorten must be an integer of at least 1, got 0"):
        run_arm("small", 3, small, shorten=0)


def test_an_arm_in_pieces_is_the_arm(small, tmp_path):
    for done in (1, 2):
        with pytest.raises(Paused, match=f"small / seed 3: {done} of 12 steps are done"):
            run_arm("small", 3, small, folder=tmp_path, deadline=time.monotonic() - 1)
    found = run_arm("small", 3, small, folder=tmp_path)
    whole = run_arm("small", 3, small)
    assert {**found, "seconds": 0} == {**whole, "seconds": 0}


def test_an_arm_that_diverges_is_on_record_as_plain_data(small, monkeypatch):
    arm = dataclasses.replace(
        scale.ARMS["small"], schedule=lambda n: torch.full((n,), 1e38, dtype=torch.float64)
    )
    monkeypatch.setattr(scale, "ARMS", {"small": arm})
    found = run_arm("small", 3, small)
    assert found["diverged_at"] == 1
    assert plain(found) == found
    assert all(0 <= value <= 100 for value in found["accuracy"].values())


def test_an_unknown_arm_is_refused(small):
    with pytest.raises(ValueError, match="name must be one of small; got 'big'"):
        run_arm("big", 3, small)
