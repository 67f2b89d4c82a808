"""The paper's own runs: the authors' settings, and one arm in miniature."""

import dataclasses
import json
import time

import numpy as np
import pytest
import torch

from reproductions.kernels.replica import ResidualSpec
from reproductions.papers.super_convergence import (
    LENET,
    RESNET20,
    RESNET56,
    RESNET110,
    Monitor,
    Paused,
    Recipe,
    inverse_decay,
    scale,
    train,
)
from reproductions.papers.super_convergence.published import TABLES_2018, published
from reproductions.papers.super_convergence.scale import ARMS, Arm, retrace, run_arm, task_from

KEPT = {"2k": 0.8, "4k": 0.85, "6k": 0.9, "8k": 0.93, "10k": 0.95, "20k": 0.97}
DIGITS = {name: arm for name, arm in ARMS.items() if name.startswith("mnist-")}
IMAGES = {name: arm for name, arm in ARMS.items() if name not in DIGITS}
#: epochs of a cycle -> epochs of each of its two steps
STEPS = {12: 5, 25: 12, 50: 23, 85: 40}


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
    for name, arm in IMAGES.items():
        expected = (800, 100) if arm.spec == RESNET110 else (1000, 125)
        assert (arm.batch_size, arm.group_size) == expected, name
        # one program a seed: a network of this size fills a GPU
        assert (arm.dataset, arm.flips, arm.together) == ("cifar10", True, False), name
        assert arm.spared == ("conv bias",), name
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
        *("schedule", "batch_size", "group_size", "looks"),
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
        momentum = arm.momentum(n) if callable(arm.momentum) else arm.momentum
        recipe = Recipe(name, arm.schedule(n), momentum, arm.weight_decay, arm.form)
        assert recipe.length == len(recipe.momenta) == n, name


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


def test_digits_are_trained_on_as_the_table_and_caffe_say():
    """Batches of 512, of which an epoch has 117, and the decay of Caffe's solver on everything."""
    assert len(DIGITS) == 9
    for name, arm in DIGITS.items():
        assert (arm.dataset, arm.n_train, arm.spec) == ("mnist", 60_000, LENET), name
        assert (arm.batch_size, arm.weight_decay, arm.spared) == (512, 5e-4, ()), name
        assert (arm.flips, arm.together, arm.form) == (False, True, "caffe"), name
        assert arm.n_steps == 117 * int(name.rpartition("-")[2]), name
    assert 117 * 512 <= 60_000 < 118 * 512


def test_every_row_of_the_table_on_mnist_has_its_arm():
    rows = [row for row in TABLES_2018 if row.data == "MNIST"]
    names = {"inv": "inv", "step": "step", "1cycle": "cycle"}
    found = set()
    for row in rows:
        name = f"mnist-{names[row.arm]}-{row.epochs}"
        found.add(name)
        arm = ARMS[name]
        assert arm.paper == row.accuracy
        assert arm.n_steps == 117 * row.epochs
        assert arm.weight_decay == row.weight_decay
        rates = arm.schedule(arm.n_steps)
        low, _, high = row.rates.partition("-")
        assert rates[0].item() == pytest.approx(float(low))
        assert rates.max().item() == pytest.approx(float(high or low))
        if row.arm == "1cycle":
            momenta = arm.momentum(arm.n_steps)
            high, low = row.momentum.split("-")
            assert momenta.max().item() == momenta[0].item() == pytest.approx(float(high))
            assert momenta.min().item() == pytest.approx(float(low))
        else:
            assert arm.momentum == float(row.momentum)
    # what is compared with the paper is in the paper
    assert {name for name, arm in DIGITS.items() if arm.paper is not None} == found


@pytest.mark.parametrize("epochs", STEPS)
def test_cycles_on_mnist_have_two_steps_and_a_fall(epochs):
    arm, step = ARMS[f"mnist-cycle-{epochs}"], 117 * STEPS[epochs]
    low, high = (0.02, 0.2) if epochs == 85 else (0.01, 0.1)
    rates, momenta = arm.schedule(arm.n_steps), arm.momentum(arm.n_steps)
    knots = torch.tensor([0, step // 2, step, 2 * step])
    middle = low + (high - low) * (step // 2) / step
    assert rates[knots].tolist() == pytest.approx([low, middle, high, low])
    assert int(rates.argmax()) == int(momenta.argmin()) == step
    # momentum goes down where the rate goes up, in proportion
    cycle = slice(0, 2 * step)
    torch.testing.assert_close(
        (0.95 - momenta[cycle]) / 0.15, (rates[cycle] - low) / (high - low), rtol=0, atol=1e-9
    )
    assert momenta[2 * step :].tolist() == pytest.approx([0.95] * (arm.n_steps - 2 * step))
    # in the rest of the epochs the rate falls to a hundredth of its foot
    assert (rates[2 * step :].diff() < 0).all()
    per_step = 0.99 * low / (arm.n_steps - 2 * step)
    assert rates[-1].item() == pytest.approx(low / 100 + per_step)


def test_the_rivals_of_the_cycle_on_mnist():
    inv, short, steps, staircase = (
        ARMS[f"mnist-{name}"] for name in ("inv-85", "inv-12", "step-85", "staircase-12")
    )
    # Caffe's policy knows no end: the short run is the start of the long one
    torch.testing.assert_close(inv.schedule(9945), inverse_decay(9945, 0.01))
    torch.testing.assert_close(short.schedule(1404), inv.schedule(9945)[:1404])
    assert inv.schedule(9945)[-1].item() == pytest.approx(0.01 * (1 + 0.9944) ** -0.75)
    for arm, n, first in ((steps, 9945, 0.01), (staircase, 1404, 0.05)):
        rates = arm.schedule(n)
        # where it drops on CIFAR-10: after 5/8 and 7/8
        values, counts = rates.unique_consecutive(return_counts=True)
        assert values.tolist() == pytest.approx([first, first / 10, first / 100])
        assert counts.cumsum(0).tolist() == pytest.approx([5 * n / 8, 7 * n / 8, n], abs=1)
    for arm in (inv, short, steps, staircase):
        assert arm.momentum == 0.9
    # a gradient moves the weights by rate / (1 - momentum) in the end, where the staircase begins
    # as far as where the cycle is highest
    cycle = ARMS["mnist-cycle-12"]
    moves = cycle.schedule(1404) / (1 - cycle.momentum(1404))
    assert moves.max().item() == pytest.approx(0.1 / (1 - 0.8))
    assert staircase.schedule(1404)[0].item() / (1 - 0.9) == pytest.approx(moves.max().item())


def test_tasks_are_the_data_sets_as_their_users_prepare_them():
    """CIFAR-10 minus its mean image; digits as Caffe scales them, with nothing subtracted."""
    rng = np.random.default_rng(0)
    colors = rng.integers(0, 256, (9, 3, 8, 8), dtype=np.uint8)
    labels = rng.integers(0, 10, 9)
    task = task_from("cifar10", colors[:6], labels[:6], colors[6:], labels[6:], device="cpu")
    expected = torch.from_numpy((colors - colors[:6].mean(0)) / 64).float()
    found = torch.cat([task.train_images, task.test_images])
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    assert task.name == "CIFAR-10"
    digits = colors[:, 0]
    task = task_from("mnist", digits[:6], labels[:6], digits[6:], labels[6:], device="cpu")
    found = torch.cat([task.train_images, task.test_images])
    # 0.00390625, the scale in Caffe's file
    assert torch.equal(found, torch.from_numpy(digits[:, None] * 0.00390625).float())
    assert (task.name, task.channels) == ("MNIST", 1)
    assert torch.cat([task.train_labels, task.test_labels]).tolist() == labels.tolist()
    with pytest.raises(ValueError, match="dataset must be one of cifar10, mnist; got 'svhn'"):
        task_from("svhn", digits, labels, digits, labels, device="cpu")


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

    return task_from("cifar10", *noise(32), *noise(20), device="cpu")


@pytest.fixture
def digits(monkeypatch):
    """The arm of 12 epochs of MNIST in batches of 16, and a task of noise for it.

    The noise is dark, for at these rates rounding errors grow on brighter one.
    """
    arm = dataclasses.replace(ARMS["mnist-cycle-12"], batch_size=16)
    monkeypatch.setattr(scale, "ARMS", {"digits": arm})
    rng = np.random.default_rng(0)

    def noise(n):
        return rng.integers(0, 64, (n, 28, 28), dtype=np.uint8), rng.integers(0, 10, n)

    return task_from("mnist", *noise(64), *noise(120), device="cpu")


def run_one(name, seed, task, **options):
    """The record of one seed by itself."""
    (found,) = run_arm(name, [seed], task, **options)
    return found


def plain(data):
    """What JSON makes of a record; strict, as other readers know neither NaN nor Infinity."""
    return json.loads(json.dumps(data, allow_nan=False))


def test_an_arm_is_trained_as_its_settings_say(small):
    found = run_one("small", 3, small)
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
        monitor=Monitor(looks=12, n_test=20, statistics=kinds, lags=(1, 7), n_losses=20),
    )["any"]
    assert (found["seed"], found["n_steps"], found["n_train"]) == (3, 12, 24)
    assert (found["together"], found["n_test"]) == (1, 20)
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


def agree(found, wanted):
    """Two records of a seed agree but for rounding, of networks that are not stacked alike."""
    assert found.keys() == wanted.keys()
    assert found["losses"]["every"] == wanted["losses"]["every"]
    pairs = [(found["losses"]["values"], wanted["losses"]["values"], 2e-4)]
    for key in ("test_losses", "test_loss", "train_loss"):
        pairs.append((found[key], wanted[key], 2e-4))
    # an image whose logits tie may fall either way
    image = 100 / found["n_test"] + 0.01
    assert found["curves"].keys() == wanted["curves"].keys() == found["accuracy"].keys()
    for kind in wanted["curves"]:
        pairs.append((found["curves"][kind], wanted["curves"][kind], image))
        pairs.append((found["accuracy"][kind], wanted["accuracy"][kind], image))
    for a, b, error in pairs:
        assert a == pytest.approx(b, abs=error)
    assert found["estimates"].keys() == wanted["estimates"].keys()
    for lag, values in wanted["estimates"].items():
        assert found["estimates"][lag] == pytest.approx(values, rel=0.02, abs=2e-4)
    for key in ("seed", "n_steps", "n_train", "n_test", "steps", "diverged_at", "paper"):
        assert found[key] == wanted[key], key


@pytest.mark.parametrize("kind", ["small", "digits"])
def test_seeds_that_run_together_leave_the_records_of_each(kind, request):
    """In the order in which they were asked for."""
    task = request.getfixturevalue(kind)
    options = {"shorten": 117} if kind == "digits" else {}
    found = run_arm(kind, [4, 1], task, **options)
    assert [record["seed"] for record in found] == [4, 1]
    assert plain(found) == found
    for record in found:
        assert record["together"] == 2
        assert record["test_loss"] == record["test_losses"][-1]
        last = {kind: curve[-1] for kind, curve in record["curves"].items()}
        assert record["accuracy"] == last
        alone = run_one(kind, record["seed"], task, **options)
        assert alone["together"] == 1
        agree(record, alone)
    # the control: the records of two seeds do not
    assert found[0]["losses"]["values"] != pytest.approx(found[1]["losses"]["values"], abs=0.01)
    with pytest.raises(AssertionError):
        agree({**found[0], "seed": 1}, found[1])


def test_an_arm_of_lenets_is_trained_as_its_settings_say(digits, monkeypatch):
    # with a decay that shows in a few steps where it acts
    arm = dataclasses.replace(scale.ARMS["digits"], weight_decay=1.0)
    monkeypatch.setattr(scale, "ARMS", {"digits": arm})
    found = run_one("digits", 3, digits, shorten=117)
    # a cycle of five steps up, five down and two more, momentum against it
    up, down = torch.linspace(0, 1, 6, dtype=torch.float64), torch.zeros(1, dtype=torch.float64)
    phase = torch.cat([up, up.flip(0)[1:], down])
    rates = 0.01 + 0.09 * phase
    rates[-1] = (0.01 + 0.0001) / 2
    recipe = Recipe("any", rates, momentum=0.95 - 0.15 * phase, weight_decay=1.0, spared=())
    monitor = Monitor(looks=12, n_test=100, statistics=("none",), n_losses=100)
    task = dataclasses.replace(
        digits, test_images=digits.test_images[:100], test_labels=digits.test_labels[:100]
    )
    outcome = train(task, [recipe], [3], spec=LENET, batch_size=16, monitor=monitor)["any"]
    assert (found["n_steps"], found["n_train"], found["n_test"]) == (12, 64, 100)
    assert (found["paper"], found["diverged_at"]) == (99.25, -1)
    # an image whose logits tie may fall either way
    assert found["accuracy"] == {"none": pytest.approx(outcome.percent.item(), abs=1.01)}
    assert found["steps"] == list(range(1, 13))
    assert found["losses"]["values"] == pytest.approx(outcome.losses[0].tolist(), abs=1e-4)
    assert found["test_losses"] == pytest.approx(outcome.test_losses[0].tolist(), abs=1e-4)
    assert found["train_loss"] == pytest.approx(outcome.train_loss.item(), abs=1e-4)
    assert found["estimates"] == {}
    assert plain(found) == found
    # the control: to spare biases is another run
    other = dataclasses.replace(recipe, spared=("conv bias", "linear bias"))
    spared = train(task, [other], [3], spec=LENET, batch_size=16, monitor=monitor)["any"]
    assert abs(spared.test_loss - outcome.test_loss).item() > 1e-3


def test_losses_are_means_over_blocks_of_a_long_run(small, monkeypatch):
    fine = run_one("small", 3, small)["losses"]["values"]
    monkeypatch.setattr(scale, "LOSS_POINTS", 3)
    coarse = run_one("small", 3, small)["losses"]
    assert coarse["every"] == 4
    expected = np.reshape(fine, (3, 4)).mean(1).tolist()
    assert coarse["values"] == pytest.approx(expected, abs=2e-4)


@pytest.mark.parametrize("kind", ["small", "digits"])
def test_a_record_can_be_retraced(kind, request):
    task = request.getfixturevalue(kind)
    whole = run_one(kind, 3, task)
    every, values = whole["losses"].values()
    n_steps = 2 * every
    found = retrace(kind, 3, task, n_steps)
    assert found.shape == (n_steps,)
    assert found.view(-1, every).mean(1).tolist() == pytest.approx(values[:2], abs=2e-4)
    # the control: another seed
    other = retrace(kind, 4, task, n_steps).view(-1, every).mean(1).tolist()
    assert other != pytest.approx(values[:2], abs=2e-3)


def test_more_than_the_whole_arm_cannot_be_retraced(small):
    with pytest.raises(ValueError, match="schedule must be as long as the run"):
        retrace("small", 3, small, scale.ARMS["small"].n_steps + 1)
    with pytest.raises(ValueError, match="name must be one of"):
        retrace("smal", 3, small, 1)


def test_a_shortened_arm(small):
    steps = []
    found = run_one("small", 3, small, shorten=4, progress=lambda *args: steps.append(args))
    assert found["n_steps"] == 3
    assert [step for _, step, n in steps] == [1, 2]
    assert all(label.startswith("small") and n == 3 for label, _, n in steps)
    assert run_one("small", 3, small, shorten=100)["n_steps"] == 1
    with pytest.raises(ValueError, match="shorten must be an integer of at least 1, got 0"):
        run_one("small", 3, small, shorten=0)


@pytest.mark.parametrize(
    ("least", "shorten", "n_test"), [(4, 1, 20), (4, 3, 6), (4, 5, 4), (4, 9, 4), (100, 9, 20)]
)
def test_a_trial_is_judged_by_fewer_images(small, monkeypatch, least, shorten, n_test):
    """By as many as are left to tell accuracies apart, and never by more than there are."""
    monkeypatch.setattr(scale, "TRIAL_IMAGES", least)
    found = run_one("small", 3, small, shorten=shorten)
    assert found["n_test"] == n_test
    few = dataclasses.replace(
        small, test_images=small.test_images[:n_test], test_labels=small.test_labels[:n_test]
    )
    monkeypatch.setattr(scale, "TRIAL_IMAGES", n_test)
    assert {**run_one("small", 3, few, shorten=shorten), "seconds": 0} == {**found, "seconds": 0}
    for accuracies in found["curves"].values():
        rights = [accuracy * n_test / 100 for accuracy in accuracies]
        assert rights == pytest.approx([round(right) for right in rights], abs=0.01)
    assert len(small.test_labels) == 20


def test_an_arm_in_pieces_is_the_arm(small, tmp_path):
    for done in (1, 2):
        with pytest.raises(Paused, match=f"small / seed 3: {done} of 12 steps are done"):
            run_one("small", 3, small, folder=tmp_path, deadline=time.monotonic() - 1)
    found = run_one("small", 3, small, folder=tmp_path)
    whole = run_one("small", 3, small)
    assert {**found, "seconds": 0} == {**whole, "seconds": 0}


def test_seeds_that_run_together_go_on_together(digits, tmp_path):
    options = {"shorten": 351, "folder": tmp_path}
    for done in (1, 2, 3):
        with pytest.raises(Paused, match=f"digits / seed 4: {done} of 4 steps are done"):
            run_arm("digits", [4, 3], digits, deadline=time.monotonic() - 1, **options)
    found = run_arm("digits", [4, 3], digits, **options)
    # in one program, which has one checkpoint
    assert len(list(tmp_path.iterdir())) == 1
    whole = run_arm("digits", [4, 3], digits, shorten=351)
    assert [{**record, "seconds": 0} for record in found] == [
        {**record, "seconds": 0} for record in whole
    ]


def test_an_arm_that_diverges_is_on_record_as_plain_data(small, monkeypatch):
    arm = dataclasses.replace(
        scale.ARMS["small"], schedule=lambda n: torch.full((n,), 1e38, dtype=torch.float64)
    )
    monkeypatch.setattr(scale, "ARMS", {"small": arm})
    found = run_one("small", 3, small)
    assert found["diverged_at"] == 1
    assert plain(found) == found
    assert all(0 <= value <= 100 for value in found["accuracy"].values())


def test_one_of_two_seeds_that_diverges_leaves_the_other_on_record(small, monkeypatch):
    """What is no number stands where it belongs."""
    honest = train

    def poisoned(*args, **options):
        found = honest(*args, **options)
        found["small"].losses[1, 5:] = float("nan")
        found["small"].test_losses[1, 5:] = float("nan")
        found["small"].diverged_at[1] = 5
        return found

    monkeypatch.setattr(scale, "train", poisoned)
    sound, bad = run_arm("small", [3, 4], small)
    assert plain([sound, bad]) == [sound, bad]
    assert (sound["diverged_at"], bad["diverged_at"]) == (-1, 5)
    assert None not in sound["losses"]["values"] + sound["test_losses"]
    for values in (bad["losses"]["values"], bad["test_losses"]):
        assert [value is None for value in values] == [False] * 5 + [True] * 7
    assert bad["test_loss"] is None


def test_no_seeds_are_refused(small):
    with pytest.raises(ValueError, match="seeds must name at least one seed, got none"):
        run_arm("small", [], small)


def test_an_unknown_arm_is_refused(small):
    with pytest.raises(ValueError, match="name must be one of small; got 'big'"):
        run_arm("big", [3], small)
