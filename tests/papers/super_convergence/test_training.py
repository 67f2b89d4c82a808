"""Training along schedules: equal to plain loops, however it is stacked, spread or interrupted."""

import copy
import dataclasses
import json
import time

import numpy as np
import pytest
import torch
from torch.nn import functional

from reproductions.kernels.replica import LeNetSpec, ReplicaLeNet, ReplicaResNet, ResidualSpec
from reproductions.papers.super_convergence import (
    Batches,
    Monitor,
    Paused,
    Recipe,
    Stack,
    image_task,
    learning_rate_estimate,
    train,
)

SPEC = ResidualSpec(blocks=(1, 1), widths=(4, 8), n_classes=3)
LENET = LeNetSpec(size=16, channels=3, widths=(3, 4), hidden=6, n_classes=3)
SCHEDULE = torch.tensor([0.05, 0.2, 0.3, 0.2, 0.1, 0.02], dtype=torch.float64)
TWO = ("caffe 0.95", "torch 0.5", "estimated")


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Sums of several threads are not always taken in the same order."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def images(n_train=40, n_test=30, seed=0, size=8):
    """Three patterns under noise, and labels that say which."""
    rng = np.random.default_rng(seed)
    patterns = rng.normal(128, 60, (3, 3, size, size))
    labels = rng.integers(0, 3, n_train + n_test)
    x = (patterns[labels] + rng.normal(0, 60, (len(labels), 3, size, size))).clip(0, 255)
    return image_task("patterns", x[:n_train], labels[:n_train], x[n_train:], labels[n_train:])


TASK = images()
LARGER = images(size=16)


def fit(recipes, seeds=(1,), task=TASK, **options):
    options = {"spec": SPEC, "batch_size": 8, "workers": 1, **options}
    if isinstance(recipes, Recipe):
        return train(task, [recipes], seeds, **options)[recipes.label]
    return train(task, recipes, seeds, **options)


def same(a, b, exactly=True, but=()):
    """Two outcomes agree in everything but the time they took."""
    compare = {"rtol": 0, "atol": 0} if exactly else {"rtol": 1e-4, "atol": 1e-4}
    compare["equal_nan"] = True
    for name in ("losses", "steps", "test_losses", "train_loss"):
        if name not in but:
            torch.testing.assert_close(getattr(a, name), getattr(b, name), **compare, msg=name)
    assert a.diverged_at.tolist() == b.diverged_at.tolist()
    for name in {"curves", "estimates"} - set(but):
        assert getattr(a, name).keys() == getattr(b, name).keys()
        for key, value in getattr(a, name).items():
            torch.testing.assert_close(value, getattr(b, name)[key], **compare)


def by_hand(recipe, seed, optimizer, *, net=None, task=TASK, flips=False, **options):
    """A network trained by a loop around an optimizer of PyTorch: the network and its losses."""
    net = ReplicaResNet(SPEC, [seed]) if net is None else net
    parts = []
    for entry in net.spec.entries:
        decay = 0.0 if entry.name in recipe.spared else recipe.weight_decay
        twice = optimizer is torch.optim.SGD and entry.name.endswith("bias")
        parts.append(
            {
                "params": [net.parameters[0, entry.columns]],
                "weight_decay": decay,
                "factor": 2.0 if twice else 1.0,
            }
        )
    descent = optimizer(parts, lr=1.0, **options)
    batches = Batches([seed], [recipe.n_train or len(task.train_labels)], 8, flips=flips)
    losses = []
    for step, rate in enumerate(recipe.rates.tolist()):
        index, mirrored = batches.at(step)
        x = task.train_images[index[0]].clone()
        for k in range(8):
            if flips and mirrored[0, k]:
                x[k] = x[k].flip(-1)
        loss, gradient = net.gradients(x, task.train_labels[index[0]])
        losses.append(loss.item())
        for entry, group in zip(net.spec.entries, descent.param_groups, strict=True):
            group["lr"] = rate * group["factor"]
            if optimizer is torch.optim.SGD:
                group["momentum"] = recipe.momenta[step].item()
            group["params"][0].grad = gradient[0, entry.columns]
        descent.step()
    return net, torch.tensor(losses)


def evaluated(net, statistics, x, y):
    logits = net.logits(x, statistics)[0]
    accuracy = (logits.argmax(1) == y).float().mean()
    return accuracy.item(), functional.cross_entropy(logits, y).item()


@pytest.mark.parametrize("flips", [False, True])
@pytest.mark.parametrize("group_size", [None, 4])
def test_training_is_a_loop_around_sgd(flips, group_size):
    recipe = Recipe("a", SCHEDULE, 0.8, weight_decay=0.05, form="torch", n_train=31)
    monitor = Monitor(statistics=("torch 0.5", "caffe 0.9", "estimated"), n_losses=20)
    outcome = fit(recipe, (4,), monitor=monitor, flips=flips, group_size=group_size)
    net = ReplicaResNet(SPEC, [4], group_size=group_size, averaging=(0.5, 0.9))
    net, losses = by_hand(recipe, 4, torch.optim.SGD, net=net, flips=flips)
    torch.testing.assert_close(outcome.losses[0], losses, rtol=1e-4, atol=1e-4)
    kinds = {
        "torch 0.5": net.running_statistics(0, corrected=False),
        "caffe 0.9": net.running_statistics(1),
        "estimated": net.estimated_statistics(TASK.train_images[:31], group_size or 8),
    }
    x, y = TASK.test_images, TASK.test_labels
    for kind, statistics in kinds.items():
        # an image whose logits tie may fall either way
        expected = evaluated(net, statistics, x, y)[0]
        assert outcome.accuracy[kind].item() == pytest.approx(expected, abs=1.1 / 30)
    _, test_loss = evaluated(net, kinds["torch 0.5"], x, y)
    assert outcome.test_loss.item() == pytest.approx(test_loss, rel=1e-3)
    x, y = TASK.train_images[:20], TASK.train_labels[:20]
    _, train_loss = evaluated(net, kinds["torch 0.5"], x, y)
    assert outcome.train_loss.item() == pytest.approx(train_loss, rel=1e-3)


@pytest.mark.parametrize(
    ("form", "optimizer"),
    [
        ("adam", torch.optim.Adam),
        ("adagrad", torch.optim.Adagrad),
        ("adadelta", torch.optim.Adadelta),
    ],
)
def test_adaptive_steps_are_those_of_torch(form, optimizer):
    recipe = Recipe("a", 0.2 * SCHEDULE, weight_decay=0.05, form=form)
    outcome = fit([recipe, dataclasses.replace(recipe, label="b", schedule=SCHEDULE)], (4, 5))
    for k, seed in enumerate((4, 5)):
        _, losses = by_hand(recipe, seed, optimizer)
        torch.testing.assert_close(outcome["a"].losses[k], losses, rtol=1e-3, atol=1e-4)
    # the control: rates reach the optimizer
    assert (outcome["a"].losses[:, 1:] - outcome["b"].losses[:, 1:]).abs().max() > 1e-3


@pytest.mark.parametrize("flips", [False, True])
@pytest.mark.parametrize("spared", [(), ("conv bias", "linear")])
def test_training_lenets_is_a_loop_around_sgd(flips, spared):
    momenta = torch.linspace(0.9, 0.4, 6, dtype=torch.float64)
    options = {"weight_decay": 2.0, "form": "torch", "n_train": 31, "spared": spared}
    recipe = Recipe("a", 0.1 * SCHEDULE, momenta, **options)
    monitor = Monitor(statistics=("none",), n_losses=20)
    outcome = fit(recipe, (4,), LARGER, spec=LENET, monitor=monitor, flips=flips)
    net = ReplicaLeNet(LENET, [4])
    net, losses = by_hand(recipe, 4, torch.optim.SGD, net=net, task=LARGER, flips=flips)
    torch.testing.assert_close(outcome.losses[0], losses, rtol=1e-5, atol=1e-5)
    accuracy, test_loss = evaluated(net, None, LARGER.test_images, LARGER.test_labels)
    assert outcome.accuracy.keys() == {"none"}
    assert outcome.accuracy["none"].item() == pytest.approx(accuracy, abs=1.1 / 30)
    assert outcome.test_loss.item() == pytest.approx(test_loss, rel=1e-5)
    _, train_loss = evaluated(net, None, LARGER.train_images[:20], LARGER.train_labels[:20])
    assert outcome.train_loss.item() == pytest.approx(train_loss, rel=1e-5)
    # the control: sparing other tensors is another run
    other = dataclasses.replace(recipe, spared=("linear bias",))
    found = fit(other, (4,), LARGER, spec=LENET, monitor=monitor, flips=flips)
    assert abs(found.test_loss.item() / test_loss - 1) > 1e-4


@pytest.mark.parametrize(
    ("spec", "task"), [(SPEC, TASK), (LENET, LARGER)], ids=["residual", "lenet"]
)
def test_what_a_recipe_spares_does_not_decay(spec, task):
    """In one program there may be recipes that spare different tensors; a step by hand."""
    names = tuple({entry.name for entry in spec.entries})
    rate, decays = 0.1, (0.5, 0.3, 0.7, 0.2, 0.4)
    choices = ((), ("conv bias",), ("conv", "linear bias"), names, ("linear",))
    recipes = [
        Recipe(str(k), torch.tensor([rate]), weight_decay=decay, spared=spared)
        for k, (decay, spared) in enumerate(zip(decays, choices, strict=True))
    ]
    stack = Stack(task, spec, [(recipe, 1) for recipe in recipes], 8)
    # biases start at zero, where no decay shows
    noise = torch.randn(spec.n_parameters, generator=torch.Generator().manual_seed(0))
    stack.network.parameters += 0.1 * noise
    before = stack.network.parameters.clone()
    index, _ = stack.batches.at(0)
    _, gradient = copy.deepcopy(stack.network).gradients(
        task.train_images[index], task.train_labels[index]
    )
    stack.advance()
    for k, (decay, spared) in enumerate(zip(decays, choices, strict=True)):
        for entry in spec.entries:
            theta, g = before[k, entry.columns], gradient[k, entry.columns]
            slope = g if entry.name in spared else g + decay * theta
            # a bias has twice the rate, but not the shift of a batch norm
            step = 2 * rate if entry.name in ("conv bias", "linear bias") else rate
            torch.testing.assert_close(
                stack.network.parameters[k, entry.columns],
                theta - step * slope,
                rtol=1e-5,
                atol=1e-6,
                msg=f"{entry.name} of the recipe that spares {spared}",
            )
    # those of convolutions, as in the authors' files
    assert Recipe("a", SCHEDULE).spared == ("conv bias",)


@pytest.mark.parametrize("spared", [("conv biass",), "conv bias", ("conv", "scale")])
def test_what_is_no_tensor_cannot_be_spared(spared):
    recipe = Recipe("a", SCHEDULE, spared=spared)
    with pytest.raises(ValueError, match="spared must name tensors"):
        Stack(LARGER, LENET, [(recipe, 0)], 8)


@pytest.mark.parametrize("options", [{"group_size": 4}, {"compute_dtype": torch.bfloat16}], ids=str)
def test_lenet_has_no_ghost_batches_and_one_precision(options):
    """A record must not name a precision that the run did not have."""
    name = next(iter(options))
    with pytest.raises(ValueError, match=f"{name} must be None for LeNet"):
        Stack(LARGER, LENET, [(Recipe("a", SCHEDULE), 0)], 8, **options)


def test_stacks_of_lenets_are_lenets_alone():
    recipes = [
        Recipe("a", 0.1 * SCHEDULE, weight_decay=0.5),
        Recipe("b", 0.2 * SCHEDULE, momentum=0.5, weight_decay=0.5, spared=()),
    ]
    options = {"spec": LENET, "monitor": Monitor(looks=3, statistics=("none",)), "flips": True}
    together = fit(recipes, (1, 2), LARGER, stacked=4, **options)
    for recipe in recipes:
        for k, seed in enumerate((1, 2)):
            alone = fit(recipe, (seed,), LARGER, **options)
            for name in ("losses", "test_losses", "train_loss"):
                torch.testing.assert_close(
                    getattr(together[recipe.label], name)[k],
                    getattr(alone, name)[0],
                    rtol=1e-5,
                    atol=1e-5,
                )
    assert together["a"].losses[:, 0].diff().abs() > 1e-3


def test_training_learns_patterns():
    recipe = Recipe("a", torch.full((60,), 0.1))
    outcome = fit(recipe, (0, 1), monitor=Monitor(statistics=("estimated",)))
    assert outcome.losses[:, :3].mean() > 0.8
    assert outcome.losses[:, -10:].mean() < 0.2
    assert (outcome.accuracy["estimated"] > 0.8).all()
    assert outcome.percent.tolist() == pytest.approx((100 * outcome.accuracy["estimated"]).tolist())


RECIPES = [
    Recipe("cycle", SCHEDULE),
    Recipe("constant", torch.full((6,), 0.1), momentum=0.5, weight_decay=0.01),
    Recipe("torch", SCHEDULE, form="torch"),
    Recipe("short", SCHEDULE, n_steps=4, n_train=20),
    Recipe("nesterov", SCHEDULE, momentum=torch.linspace(0.9, 0.5, 6), form="nesterov"),
]
MONITOR = Monitor(looks=3, n_test=11, statistics=TWO, lags=(1, 2), n_losses=13)


@pytest.fixture(scope="module")
def outcomes():
    return fit(RECIPES, (1, 2), monitor=MONITOR, flips=True, stacked=3)


def test_two_workers_find_what_one_finds():
    """Bit by bit, where they train the same stacks."""
    options = {"monitor": MONITOR, "flips": True, "stacked": 1}
    alone, found = (fit(RECIPES, (1, 2), workers=n, **options) for n in (1, 2))
    assert list(found) == [recipe.label for recipe in RECIPES]
    for label, outcome in found.items():
        same(outcome, alone[label])


@pytest.mark.parametrize(
    ("n", "stacked", "workers", "sizes"),
    [
        (9, 3, 1, [3, 3, 3]),
        (4, 3, 1, [2, 2]),
        (8, 3, 1, [3, 3, 2]),
        (4, 9, 1, [4]),
        # both workers have as much to do
        (9, 3, 2, [3, 2, 2, 2]),
        (3, 3, 2, [2, 1]),
        (5, 9, 2, [3, 2]),
        # there are not enough for all
        (1, 3, 2, [1]),
        (2, 3, 4, [1, 1]),
    ],
)
def test_stacks_are_about_equal_and_none_above_its_size(monkeypatch, n, stacked, workers, sizes):
    members = []

    class Recorded(Stack):
        def __post_init__(self):
            members.append([seed for _, seed in self.members])
            super().__post_init__()

    monkeypatch.setattr("reproductions.papers.super_convergence.training.Stack", Recorded)
    outcome = fit(Recipe("a", SCHEDULE[:1]), range(n), stacked=stacked, workers=workers)
    assert outcome.seeds == tuple(range(n))
    # workers may begin in another order
    assert sorted(map(len, members), reverse=True) == sizes
    assert [seed for part in sorted(members) for seed in part] == list(range(n))


def test_a_recipe_may_have_a_monitor_of_its_own():
    own = Monitor(looks=3, n_test=10, statistics=("estimated", "torch 0.5"), lags=(1,))
    common = Monitor(looks=2, n_test=20)
    plain, watched = (Recipe(name, SCHEDULE, monitor=m) for name, m in (("a", None), ("b", own)))
    found = fit([plain, watched], (1, 2), monitor=common, stacked=4)
    for recipe, monitor in ((plain, common), (watched, own)):
        alone = fit(dataclasses.replace(recipe, monitor=None), (1, 2), monitor=monitor)
        same(found[recipe.label], alone)
        assert tuple(found[recipe.label].curves) == monitor.statistics
    # the control: one is looked at more often, and in other ways
    assert found["a"].steps.tolist() != found["b"].steps.tolist()
    assert (len(found["a"].estimates), len(found["b"].estimates)) == (0, 1)


def test_statistics_of_a_recipe_must_fit_the_network():
    wrong = Recipe("a", SCHEDULE, monitor=Monitor(statistics=("none",)))
    with pytest.raises(ValueError, match="statistics of a ResidualSpec must be"):
        fit(wrong)
    with pytest.raises(ValueError, match="statistics of a LeNetSpec must be none"):
        fit(Recipe("a", SCHEDULE, monitor=Monitor()), task=LARGER, spec=LENET)


def test_the_longest_runs_begin_first(monkeypatch):
    lengths = []

    class Recorded(Stack):
        def __post_init__(self):
            super().__post_init__()
            lengths.append(self.length)

    monkeypatch.setattr("reproductions.papers.super_convergence.training.Stack", Recorded)
    recipes = [Recipe(str(n), SCHEDULE, n_steps=n) for n in (2, 5, 1, 3)]
    assert list(fit(recipes)) == ["2", "5", "1", "3"]
    assert lengths == [5, 3, 2, 1]


@pytest.mark.parametrize(("stacked", "workers"), [(1, 1), (2, 1), (20, 1), (3, 2)])
def test_stacking_changes_nothing_but_rounding(outcomes, stacked, workers):
    found = fit(RECIPES, (1, 2), monitor=MONITOR, flips=True, stacked=stacked, workers=workers)
    for label, outcome in found.items():
        # accuracies of few images jump where a logit moves by a rounding error
        same(outcome, outcomes[label], exactly=False, but=("curves", "estimates"))
        for lag, values in outcome.estimates.items():
            torch.testing.assert_close(values, outcomes[label].estimates[lag], rtol=0.02, atol=0)


def test_rows_belong_to_recipes_and_seeds(outcomes):
    """Every row of a mixed program is what its recipe gives from its seed alone."""
    for recipe in RECIPES:
        assert outcomes[recipe.label].recipe is recipe
        assert outcomes[recipe.label].seeds == (1, 2)
        for k, seed in enumerate((1, 2)):
            alone = fit(recipe, (seed,), monitor=MONITOR, flips=True)
            torch.testing.assert_close(
                alone.losses[0], outcomes[recipe.label].losses[k], rtol=1e-4, atol=1e-4
            )
    assert not torch.allclose(outcomes["cycle"].losses[0], outcomes["cycle"].losses[1], atol=1e-3)


def test_recipes_share_initial_weights_and_order(outcomes):
    first = [outcomes[label].losses[:, 0] for label in ("cycle", "constant", "torch", "nesterov")]
    for losses in first[1:]:
        torch.testing.assert_close(losses, first[0], rtol=1e-5, atol=1e-6)
    # the control: after a step they differ
    assert (outcomes["cycle"].losses[:, 2] - outcomes["constant"].losses[:, 2]).abs().min() > 1e-4


def test_what_is_measured_on_the_way(outcomes):
    cycle, short = outcomes["cycle"], outcomes["short"]
    assert cycle.steps.tolist() == [2, 4, 6]
    # a third of four steps is one
    assert short.steps.tolist() == [1, 2, 3, 4]
    assert cycle.losses.shape == (2, 6)
    assert short.losses.shape == (2, 4)
    assert cycle.curve.shape == cycle.test_losses.shape == (2, 3)
    assert set(cycle.curves) == set(TWO)
    for kind, curve in cycle.curves.items():
        # the last entry is final and of all 30 test images, those before of the first eleven
        for n, found in ((11, curve[:, :-1]), (30, curve[:, -1:])):
            right = n * found.double()
            torch.testing.assert_close(right, right.round(), rtol=0, atol=1e-4)
        assert torch.equal(cycle.accuracy[kind], curve[:, -1])
    # the kinds of statistics are not one and the same; a single recipe may show no difference
    found = {kind: [o.curves[kind].tolist() for o in outcomes.values()] for kind in TWO}
    assert len({str(curves) for curves in found.values()}) == len(TWO)
    assert torch.equal(cycle.curve, 100 * cycle.curves["caffe 0.95"].double())
    assert torch.equal(cycle.percent, cycle.curve[:, -1])
    assert torch.equal(cycle.test_loss, cycle.test_losses[:, -1])
    assert torch.equal(cycle.gap, cycle.test_losses[:, -1] - cycle.train_loss)
    assert cycle.diverged_at.tolist() == [-1, -1]
    assert fit(RECIPES[0]).steps.tolist() == [6]


@pytest.mark.parametrize(
    ("n_steps", "looks", "steps"),
    [
        (6, 1, [6]),
        (6, 2, [3, 6]),
        (6, 6, [1, 2, 3, 4, 5, 6]),
        # where they do not divide the run, the end comes after a shorter stretch
        (7, 3, [2, 4, 6, 7]),
        (7, 2, [3, 6, 7]),
        (9, 2, [4, 8, 9]),
        (9, 4, [2, 4, 6, 8, 9]),
        # no look comes before the first step
        (3, 4, [1, 2, 3]),
        (1, 40, [1]),
    ],
)
def test_looks_are_evenly_spaced_and_the_last_is_at_the_end(n_steps, looks, steps):
    """Each sees what a run that ends there sees."""
    recipe = Recipe("a", torch.full((9,), 0.1), momentum=0.8, n_steps=n_steps)
    monitor = Monitor(looks=looks, n_test=30, statistics=TWO)
    outcome = fit(recipe, (1, 2), monitor=monitor)
    assert outcome.steps.tolist() == steps
    assert outcome.test_losses.shape == outcome.curve.shape == (2, len(steps))
    assert outcome.losses.shape == (2, n_steps)
    for k, step in enumerate(steps):
        ended = fit(dataclasses.replace(recipe, n_steps=step), (1, 2), monitor=Monitor(1, 30, TWO))
        assert torch.equal(ended.test_loss, outcome.test_losses[:, k])
        for kind in TWO:
            assert torch.equal(ended.accuracy[kind], outcome.curves[kind][:, k])
    # the control: a step more is another loss
    assert (outcome.test_losses.diff(dim=1) != 0).all()


def test_an_evaluation_on_the_way_changes_nothing(outcomes):
    quiet = dataclasses.replace(MONITOR, looks=1, lags=())
    found = fit(RECIPES, (1, 2), monitor=quiet, flips=True, stacked=3)
    for label, outcome in found.items():
        assert torch.equal(outcome.losses, outcomes[label].losses)
        assert torch.equal(outcome.test_loss, outcomes[label].test_loss)


@pytest.mark.parametrize("form", ["caffe", "torch", "nesterov", "adam"])
def test_estimates_are_those_of_the_trajectory(form):
    recipe = Recipe("a", 0.1 * SCHEDULE, form=form)
    outcome = fit(recipe, (1, 2), monitor=Monitor(lags=(1, 2, 5)))
    stack = Stack(TASK, SPEC, [(recipe, 1), (recipe, 2)], 8)
    snapshots = [stack.network.parameters.double()]
    for _ in range(6):
        stack.advance()
        snapshots.append(stack.network.parameters.double())
    for lag in (1, 2):
        expected = learning_rate_estimate(snapshots, learning_rate=recipe.rates, lag=lag)
        # differences of stored float32 weights are rounded
        torch.testing.assert_close(outcome.estimates[lag], expected, rtol=1e-3, atol=0)
    assert outcome.estimates[5].shape == (0, 2)


def test_a_loss_on_training_images_is_on_those_that_were_trained_on():
    """Of a recipe with few images no others may count, whatever the monitor asks for."""
    recipe = Recipe("a", torch.full((40,), 0.1), n_train=16)
    few, many = (fit(recipe, monitor=Monitor(n_losses=n)) for n in (16, 40))
    torch.testing.assert_close(many.train_loss, few.train_loss)


def test_estimated_statistics_are_of_images_that_were_trained_on():
    task = dataclasses.replace(TASK, train_images=TASK.train_images.clone())
    # a run on 16 images must not see the others
    task.train_images[16:] += 3.0
    recipe = Recipe("a", SCHEDULE, n_train=16)
    monitor = Monitor(statistics=("estimated",), n_losses=16)
    found = [fit(recipe, task=t, monitor=monitor) for t in (TASK, task)]
    torch.testing.assert_close(found[1].losses, found[0].losses)
    torch.testing.assert_close(found[1].test_loss, found[0].test_loss)


def test_divergence_is_found_at_its_step_and_leaves_the_others_alone():
    wild = SCHEDULE.clone()
    wild[2] = 1e38
    sound, bad = Recipe("sound", SCHEDULE), Recipe("bad", wild)
    found = fit([sound, bad], (1, 2), monitor=Monitor(looks=3), stacked=4)
    assert found["sound"].diverged_at.tolist() == [-1, -1]
    # the step of the huge rate still has a loss, the next one has not
    assert found["bad"].diverged_at.tolist() == [3, 3]
    assert found["bad"].losses[:, :3].isfinite().all()
    assert not found["bad"].losses[:, 3:].isfinite().any()
    same(found["sound"], fit(sound, (1, 2), monitor=Monitor(looks=3)), exactly=False)
    # logits that are no numbers classify nothing, and nothing that enters a mean is NaN
    assert found["bad"].percent.tolist() == [0, 0]
    for name in ("test_loss", "train_loss", "gap"):
        assert getattr(found["bad"], name).isposinf().all(), name
        assert getattr(found["sound"], name).isfinite().all(), name


def tensors(state):
    """The parts of a state that are compared bit by bit; an optimizer's shows in what it does."""
    return {key: torch.as_tensor(part) for key, part in state.items() if key != "optimizer"}


@pytest.mark.parametrize("form", ["caffe", "adam", "adagrad", "adadelta"])
def test_a_range_test_inside_leaves_no_trace(form):
    members = [(Recipe("a", SCHEDULE, form=form), 1), (Recipe("b", 2 * SCHEDULE, form=form), 2)]
    plain, tested = (Stack(TASK, SPEC, members, 8, flips=True) for _ in range(2))
    for stack in (plain, tested):
        stack.advance()
        stack.advance()
    state = tested.state()
    kept = {key: part.clone() for key, part in tensors(state).items()}
    for _ in range(3):
        tested.advance()
    # a state is a copy, not a view of what goes on
    for key, value in kept.items():
        assert torch.equal(tensors(state)[key], value), key
    assert not torch.equal(tested.network.parameters, plain.network.parameters)
    assert not torch.equal(tested.network.running, plain.network.running)
    tested.restore(state)
    for _ in range(2):
        for key, value in tensors(plain.state()).items():
            assert torch.equal(value, tensors(tested.state())[key]), key
        for kind in ("caffe 0.95", "torch 0.95", "estimated"):
            assert torch.equal(plain.statistics(kind), tested.statistics(kind))
        for stack in (plain, tested):
            stack.advance()
            stack.advance()


def interrupted(recipe, folder, seeds=(1, 2), **options):
    """Train in pieces of two steps: the outcome and the number of pauses."""
    pauses = 0
    while True:
        try:
            outcome = fit(recipe, seeds, folder=folder, deadline=time.monotonic() - 1, **options)
        except Paused:
            pauses += 1
            assert pauses < 10
        else:
            return outcome, pauses


@pytest.mark.parametrize("form", ["caffe", "torch", "nesterov", "adam", "adagrad", "adadelta"])
def test_an_interrupted_run_ends_like_an_uninterrupted_one(tmp_path, form):
    recipe = Recipe("a", 0.2 * SCHEDULE, form=form)
    options = {"monitor": Monitor(looks=3, statistics=TWO), "flips": True, "group_size": 4}
    outcome, pauses = interrupted(recipe, tmp_path, **options)
    assert pauses == 2
    same(outcome, fit(recipe, (1, 2), **options))


@pytest.mark.parametrize("form", ["caffe", "adam"])
def test_an_interrupted_run_of_lenets_ends_like_an_uninterrupted_one(tmp_path, form):
    momenta = torch.linspace(0.9, 0.4, 6)
    recipe = Recipe("a", 0.1 * SCHEDULE, momenta, weight_decay=0.1, form=form, spared=())
    monitor = Monitor(looks=3, statistics=("none",), lags=(1,))
    options = {"task": LARGER, "spec": LENET, "monitor": monitor, "flips": True}
    outcome, pauses = interrupted(recipe, tmp_path, **options)
    assert pauses == 2
    same(outcome, fit(recipe, (1, 2), **options))
    assert (outcome.losses.diff() != 0).all()


def test_estimates_survive_an_interruption(tmp_path):
    recipe, monitor = RECIPES[0], Monitor(looks=3, lags=(1, 3))
    outcome, _ = interrupted(recipe, tmp_path, monitor=monitor)
    same(outcome, fit(recipe, (1, 2), monitor=monitor))


def test_a_finished_run_is_found_again(tmp_path):
    monitor = Monitor(looks=3, lags=(1,))
    first = fit(RECIPES[0], monitor=monitor, folder=tmp_path)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Stack, "advance", None)
        again = fit(RECIPES[0], monitor=monitor, folder=tmp_path)
    same(again, first)


def test_a_run_without_evaluations_heeds_its_deadline(tmp_path):
    """Every 20 steps it looks at the clock, and what it had measured by then is not lost."""
    recipe, monitor = Recipe("long", torch.full((45,), 0.1)), Monitor(lags=(1, 7))
    for done in (20, 40):
        with pytest.raises(Paused, match=f"long / seed 1: {done} of 45 steps are done"):
            fit(recipe, folder=tmp_path, deadline=time.monotonic() - 1, monitor=monitor)
    found = fit(recipe, folder=tmp_path, deadline=time.monotonic() - 1, monitor=monitor)
    assert found.steps.tolist() == [45]
    same(found, fit(recipe, monitor=monitor))


OTHERS = {
    "schedule": ({"schedule": 0.5 * SCHEDULE}, {}),
    "momentum": ({"momentum": 0.5}, {}),
    "weight decay": ({"weight_decay": 0.1}, {}),
    # biases of convolutions would make no difference to this network
    "spared": ({"spared": ("conv", "conv bias")}, {}),
    "form": ({"form": "torch"}, {}),
    "training images": ({"n_train": 16}, {}),
    "seed": ({}, {"seeds": (3,)}),
    "batch size": ({}, {"batch_size": 10}),
    "ghost batches": ({}, {"group_size": 4}),
    "flips": ({}, {"flips": True}),
    "network": ({}, {"spec": dataclasses.replace(SPEC, down="narrow")}),
    "averaging": ({}, {"monitor": Monitor(looks=3, statistics=("caffe 0.5",))}),
    "statistics": ({}, {"monitor": Monitor(looks=3, statistics=("torch 0.95",))}),
    "lags": ({}, {"monitor": Monitor(looks=3, lags=(1,))}),
    "evaluations": ({}, {"monitor": Monitor(looks=2)}),
    "test images": ({}, {"monitor": Monitor(looks=3, n_test=11)}),
    "pixels": ({}, {"task": dataclasses.replace(TASK, train_images=2 - TASK.train_images)}),
    "labels": ({}, {"task": dataclasses.replace(TASK, train_labels=TASK.train_labels.flip(0))}),
}


@pytest.fixture
def paused(tmp_path):
    """A folder with the checkpoint of the first two steps of the first recipe."""
    options = {"monitor": Monitor(looks=3), "folder": tmp_path}
    with pytest.raises(Paused):
        fit(RECIPES[0], deadline=time.monotonic() - 1, **options)
    return tmp_path


@pytest.mark.parametrize("which", OTHERS)
def test_a_checkpoint_serves_its_own_run_alone(paused, which):
    change, options = OTHERS[which]
    options = {"monitor": Monitor(looks=3), **options}
    other = dataclasses.replace(RECIPES[0], **change)
    expected = fit(other, **options)
    same(fit(other, folder=paused, **options), expected)
    # the control: the run whose checkpoint it is ends otherwise
    with pytest.raises((AssertionError, KeyError)):
        same(fit(RECIPES[0], monitor=Monitor(looks=3)), expected)


def test_a_checkpoint_that_cannot_be_read_is_refused(paused):
    (path,) = paused.iterdir()
    whole = path.read_bytes()
    options = {"monitor": Monitor(looks=3), "folder": paused}
    for broken in (whole[: len(whole) // 2], b"", json.dumps({"step": 2}).encode()):
        path.write_bytes(broken)
        # one sentence, in one line
        with pytest.raises(ValueError, match=r"^checkpoint .*\.pt is damaged .*remove it.*$"):
            fit(RECIPES[0], **options)
    path.write_bytes(whole)
    same(fit(RECIPES[0], **options), fit(RECIPES[0], monitor=Monitor(looks=3)))


def test_a_run_that_is_killed_while_it_writes_keeps_its_last_checkpoint(paused, monkeypatch):
    (path,) = paused.iterdir()
    whole = path.read_bytes()

    def killed(_, target):
        target.write_bytes(whole[:100])
        raise KeyboardInterrupt

    options = {"monitor": Monitor(looks=3), "folder": paused}
    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", killed)
        with pytest.raises(KeyboardInterrupt):
            fit(RECIPES[0], **options)
    assert path.read_bytes() == whole
    assert len(list(paused.iterdir())) == 2
    same(fit(RECIPES[0], **options), fit(RECIPES[0], monitor=Monitor(looks=3)))


def test_writers_of_one_checkpoint_do_not_share_a_file(tmp_path, monkeypatch):
    """Two workers may train the same thing under two labels."""
    honest, targets = torch.save, []

    def recorded(content, target):
        targets.append(target)
        honest(content, target)

    monkeypatch.setattr(torch, "save", recorded)
    for label in "ab":
        fit(Recipe(label, SCHEDULE), folder=tmp_path)
    assert len(set(targets)) == len(targets) == 2


def test_a_schedule_may_be_cut_short():
    """The first steps of a longer schedule, with momenta of its length."""
    momenta = torch.linspace(0.9, 0.5, 6)
    cut = Recipe("a", SCHEDULE, momentum=momenta, n_steps=4)
    assert cut.length == len(cut.rates) == len(cut.momenta) == 4
    whole = fit(Recipe("b", SCHEDULE, momentum=momenta))
    assert torch.equal(fit(cut).losses, whole.losses[:, :4])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"schedule": -SCHEDULE}, "schedule must be at least 0"),
        ({"schedule": SCHEDULE * float("nan")}, "schedule must be finite"),
        ({"schedule": SCHEDULE[:0]}, r"schedule must be a vector .* got shape \(0,\)"),
        ({"schedule": 0.1, "n_steps": 6}, r"schedule must be a vector .* got shape \(\)"),
        ({"schedule": SCHEDULE[:, None]}, r"schedule must be a vector .* got shape \(6, 1\)"),
        ({"n_steps": 7}, "schedule must be as long as the run of n_steps = 7, got 6 rates"),
        ({"n_steps": 0}, "n_steps must be an integer of at least 1"),
        ({"momentum": 1.0}, "momentum must be below 1"),
        ({"momentum": -0.1}, "momentum must be in"),
        ({"momentum": torch.full((5,), 0.9)}, r"one for each of 6 steps, got shape \(5,\)"),
        ({"weight_decay": -1e-4}, "weight_decay must be at least 0"),
        ({"momentum": torch.full((6, 2), 0.9)}, r"one for each of 6 steps, got shape \(6, 2\)"),
        ({"weight_decay": [1e-4, 1e-3]}, r"weight_decay must be one number, got \[0.0001"),
        ({"n_train": 0}, "n_train must be an integer of at least 1, got 0"),
        ({"n_train": 100.5}, "n_train must be an integer of at least 1, got 100.5"),
        ({"form": "rmsprop"}, "form must be one of caffe, torch, nesterov, adam"),
    ],
)
def test_recipes_that_make_no_sense_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        Recipe("a", **{"schedule": SCHEDULE, **options})


@pytest.mark.parametrize(
    ("recipes", "options", "message"),
    [
        ([], {}, "recipes must"),
        ([RECIPES[0], RECIPES[0]], {}, "different labels"),
        (RECIPES[0], {"seeds": ()}, "seeds must name at least one"),
        (RECIPES[0], {"stacked": 0}, "stacked must be an integer of at least 1"),
        (RECIPES[0], {"workers": 0}, "workers must be an integer of at least 1"),
        (RECIPES[0], {"batch_size": 41}, "batch_size must be at most .* 40, got 41"),
        (RECIPES[0], {"batch_size": 8, "group_size": 3}, "group_size must divide"),
        (Recipe("a", SCHEDULE, n_train=41), {}, r"n_train must be in \[1, 40\], got 41"),
        (RECIPES[0], {"seeds": (1, 1.5)}, "seeds must be integers, got 1.5"),
        (RECIPES[0], {"seeds": (True,)}, "seeds must be integers, got True"),
    ],
)
def test_training_that_cannot_be_is_refused(recipes, options, message):
    with pytest.raises(ValueError, match=message):
        fit(recipes, **options)


@pytest.mark.parametrize(
    "kind",
    [
        "cafe 0.95",
        "caffe",
        "torch 0.9 5",
        "caffe 1.5",
        "caffe 1",
        "torch -0.1",
        "torch nan",
        "estimated 0.5",
        "torch x",
        "none 0.5",
        "None",
        "",
    ],
)
def test_unknown_statistics_are_refused(kind):
    with pytest.raises(
        ValueError, match=rf"statistics must be estimated, none, or caffe .* got '{kind}'"
    ):
        Monitor(statistics=("caffe 0.95", kind))


@pytest.mark.parametrize(
    ("spec", "task", "kinds", "message"),
    [
        (LENET, LARGER, ("caffe 0.95",), "LeNetSpec must be none, .* got 'caffe 0.95'"),
        (LENET, LARGER, ("none", "estimated"), "LeNetSpec must be none, .* got 'estimated'"),
        (SPEC, TASK, ("none",), "ResidualSpec must be caffe, torch or estimated; got 'none'"),
        (SPEC, TASK, ("torch 0.9", "none"), "ResidualSpec must be .*; got 'none'"),
    ],
)
def test_statistics_that_a_network_does_not_have_are_refused(
    spec, task, kinds, message, monkeypatch
):
    recipe = Recipe("a", 0.1 * SCHEDULE)
    stack = Stack(task, spec, [(recipe, 1)], 8, averaging=(0.9, 0.95))
    stack.advance()
    with pytest.raises(ValueError, match=f"statistics of a {message}"):
        stack.evaluate(kinds[-1])
    # before a step is taken
    monkeypatch.setattr(Stack, "advance", None)
    with pytest.raises(ValueError, match=f"statistics of a {message}"):
        fit(recipe, task=task, spec=spec, monitor=Monitor(statistics=kinds))


def test_lenets_ask_for_a_monitor_of_their_own():
    """The default is that of residual networks."""
    with pytest.raises(ValueError, match=r"LeNetSpec must be none, .* got 'caffe 0.95'"):
        fit(Recipe("a", SCHEDULE), task=LARGER, spec=LENET)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"looks": 0}, "looks must be an integer of at least 1, got 0"),
        ({"n_test": 0}, "n_test must be an integer of at least 1, got 0"),
        ({"n_losses": 0}, "n_losses must be an integer of at least 1, got 0"),
        ({"lags": (1, 0)}, "lags must be an integer of at least 1, got 0"),
        ({"statistics": ()}, "statistics must name at least one kind"),
    ],
)
def test_monitors_that_make_no_sense_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        Monitor(**options)


def test_averages_are_kept_for_the_statistics_that_need_them():
    assert Monitor(statistics=("torch 0.9", "estimated", "caffe 0.5")).averaging == (0.5, 0.9)
    assert Monitor(statistics=("torch 0", "caffe 0.0")).averaging == (0.0,)


def test_members_of_a_stack_are_alike():
    for other in (Recipe("b", SCHEDULE[:3]), Recipe("b", SCHEDULE, form="torch")):
        with pytest.raises(ValueError, match="members must share"):
            Stack(TASK, SPEC, [(RECIPES[0], 1), (other, 1)], 8)
