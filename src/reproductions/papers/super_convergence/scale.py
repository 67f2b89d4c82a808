"""The paper's own runs, arm by arm, in pieces: ResNet-56 on all of CIFAR-10, LeNet on MNIST.

One cycle of 10,000 iterations takes minutes on a current GPU and 80,000 iterations of piecewise
constant training the better part of an hour, so a run stops at a deadline with a checkpoint and
goes on from there. LeNet is small enough for a laptop's patience: 12 epochs take minutes there.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from reproductions._validate import choice, positive_integer
from reproductions.kernels.replica import LeNetSpec, ResidualSpec

from .networks import LENET, RESNET20, RESNET56, RESNET110
from .schedules import (
    cyclical_momentum,
    inverse_decay,
    one_cycle,
    piecewise_constant,
    range_test,
    triangular,
    warmed_up,
)
from .tasks import Task, image_task
from .training import Monitor, Outcome, Recipe, train

__all__ = ["ARMS", "Arm", "run_arm", "task_from"]

LOSS_POINTS = 500
EVALUATIONS = 40
TRIAL_IMAGES = 100
#: iterations of an epoch of MNIST in batches of 512, as many as are full
MNIST_EPOCH = 60_000 // 512


@dataclass(frozen=True)
class Arm:
    """One curve of the paper, or a control that it lacks.

    Attributes:
        schedule: n_steps -> learning rates.
        n_steps: iterations.
        averaging: fraction of the batch-norm averages, as the authors set it.
        weight_decay: L2 factor.
        momentum: of the step, a number or n_steps -> momenta.
        form: of the step.
        n_train: training images.
        spec: architecture.
        lags: lags of the learning-rate estimates that are recorded.
        batch_size: images of a step; those of residual networks lay on the authors' eight GPUs.
        group_size: images that one of them normalized by itself; None without batch norm.
        paper: what the paper reports, in percent.
        dataset: name of the data set.
        flips: mirror images.
        spared: names of tensors without weight decay.
        looks: evaluations on the way.
        together: run all seeds as one program where there is a GPU.
    """

    schedule: Callable[[int], torch.Tensor]
    n_steps: int
    averaging: float = 0.95
    weight_decay: float = 1e-4
    momentum: float | Callable[[int], torch.Tensor] = 0.9
    form: str = "caffe"
    n_train: int = 50_000
    spec: ResidualSpec | LeNetSpec = RESNET56
    lags: tuple[int, ...] = ()
    batch_size: int = 1000
    group_size: int | None = 125
    paper: float | None = None
    dataset: str = "cifar10"
    flips: bool = True
    spared: tuple[str, ...] = ("conv bias",)
    looks: int = EVALUATIONS
    together: bool = False

    def recipe(self, label: str, n_steps: int | None = None, n_train: int | None = None) -> Recipe:
        """How this arm trains, by default for all its iterations and on all its images."""
        n_steps = self.n_steps if n_steps is None else n_steps
        return Recipe(
            label,
            self.schedule(n_steps),
            momentum=self.momentum(n_steps) if callable(self.momentum) else self.momentum,
            weight_decay=self.weight_decay,
            form=self.form,
            n_train=self.n_train if n_train is None else n_train,
            spared=self.spared,
        )

    @property
    def statistics(self) -> tuple[str, ...]:
        """Kinds of batch-norm statistics that an evaluation takes."""
        if isinstance(self.spec, LeNetSpec):
            return ("none",)
        kinds = (f"caffe {self.averaging:g}", "estimated", "caffe 0.95", "caffe 0.999")
        return tuple(dict.fromkeys(kinds))

    def program(self, device: torch.device) -> dict[str, Any]:
        """Options of ``train`` that say how a step is computed."""
        mixed = device.type == "cuda" and not isinstance(self.spec, LeNetSpec)
        return {
            "spec": self.spec,
            "batch_size": self.batch_size,
            "group_size": self.group_size,
            "flips": self.flips,
            "compute_dtype": torch.bfloat16 if mixed else None,
        }


def _cycle(high: float = 3.0) -> Callable[[int], torch.Tensor]:
    return lambda n: triangular(n, 0.1, high)


def _drops(rate: float) -> Callable[[int], torch.Tensor]:
    return lambda n: piecewise_constant(n, rate)


def _gentle(rate: float) -> Callable[[int], torch.Tensor]:
    return lambda n: warmed_up(piecewise_constant(n, rate), n // 20)


def _digits(
    schedule: Callable[[int], torch.Tensor],
    epochs: int,
    *,
    momentum: float | Callable[[int], torch.Tensor] = 0.9,
    paper: float | None = None,
) -> Arm:
    """LeNet as Caffe trains it, in batches of 512: decay 5e-4 on everything, biases too."""
    return Arm(
        schedule,
        epochs * MNIST_EPOCH,
        weight_decay=5e-4,
        momentum=momentum,
        n_train=60_000,
        spec=LENET,
        batch_size=512,
        group_size=None,
        paper=paper,
        dataset="mnist",
        flips=False,
        spared=(),
        looks=12,
        together=True,
    )


def _digits_cycle(epochs: int, step: int, low: float, high: float, paper: float) -> Arm:
    """1cycle in two steps of so many epochs, momentum 0.95 to 0.8 and back; then it fades.

    The steps are those of the table's column "LR/SS/PL", as an independent port repeats it
    (github.com/coxy1989/superconv).
    """
    anneal = 1 - 2 * step / epochs
    return _digits(
        lambda n: one_cycle(n, low, high, anneal=anneal),
        epochs,
        momentum=lambda n: cyclical_momentum(n, 0.95, 0.8, anneal=anneal),
        paper=paper,
    )


ARMS: Mapping[str, Arm] = {
    "cycle-10k": Arm(_cycle(), 10_000, lags=(10,), paper=92.4),
    "constant-10k": Arm(_drops(0.35), 10_000),
    "gentle-10k": Arm(_gentle(0.35), 10_000),
    "staircase-10k": Arm(_gentle(1.5), 10_000),
    "annealed-10k": Arm(lambda n: one_cycle(n, 0.1, 3.0), 10_000),
    "constant-80k": Arm(_drops(0.35), 80_000, averaging=0.999, paper=91.2),
    "gentle-80k": Arm(_gentle(0.35), 80_000, averaging=0.999),
    "range-5k": Arm(lambda n: range_test(n, 3.0), 5_000),
    "range-20k": Arm(lambda n: range_test(n, 3.0), 20_000),
    "start-10k-images": Arm(
        lambda n: torch.full((n,), 0.35), 3_000, averaging=0.999, n_train=10_000
    ),
    "estimate-constant": Arm(lambda n: torch.full((n,), 0.1), 300, lags=(1, 10)),
    "estimate-cycle": Arm(lambda n: triangular(10_000, 0.1, 3.0)[:n], 300, lags=(1, 10)),
    "estimate-no-momentum": Arm(lambda n: torch.full((n,), 0.1), 300, momentum=0.0, lags=(1, 10)),
    "cycle-2k": Arm(_cycle(), 2_000, averaging=0.8, paper=89.7),
    "cycle-4k": Arm(_cycle(), 4_000, averaging=0.85, paper=91.1),
    "cycle-6k": Arm(_cycle(), 6_000, averaging=0.9, paper=92.1),
    "cycle-8k": Arm(_cycle(), 8_000, averaging=0.93, paper=91.7),
    "cycle-20k": Arm(_cycle(), 20_000, averaging=0.97, paper=92.7),
    **{
        f"cycle-to-{high:g}": Arm(_cycle(high), 10_000, paper=paper)
        for high, paper in ((1.0, 91.3), (1.5, 90.9), (2.0, 91.7), (2.5, 92.3), (3.5, 92.1))
    },
    **{
        f"cycle-momentum-{m:g}": Arm(_cycle(), 10_000, momentum=m, paper=paper)
        for m, paper in ((0.8, 92.1), (0.85, 91.9), (0.95, 90.7))
    },
    **{f"cycle-decay-{d:g}": Arm(_cycle(), 10_000, weight_decay=d) for d in (1e-3, 1e-5, 1e-6)},
    **{
        f"{kind}-{n // 1000}k-images": Arm(
            _cycle() if kind == "cycle" else _drops(0.35) if kind == "constant" else _gentle(0.35),
            10_000 if kind == "cycle" else 80_000,
            averaging=0.95 if kind == "cycle" else 0.999,
            n_train=n,
            paper={"cycle": cycle, "constant": constant}.get(kind),
        )
        for n, cycle, constant in (
            (40_000, 91.1, 89.1),
            (30_000, 89.6, 85.7),
            (20_000, 87.9, 82.7),
            (10_000, 80.6, 71.4),
        )
        for kind in ("cycle", "constant", "gentle")
    },
    "cycle-nesterov": Arm(_cycle(), 10_000, form="nesterov", paper=92.1),
    "cycle-resnet20": Arm(_cycle(), 10_000, spec=RESNET20, paper=90.4),
    "cycle-resnet110": Arm(
        _cycle(), 10_000, spec=RESNET110, batch_size=800, group_size=100, paper=92.1
    ),
    "mnist-cycle-12": _digits_cycle(12, 5, 0.01, 0.1, 99.25),
    "mnist-inv-85": _digits(lambda n: inverse_decay(n, 0.01), 85, paper=99.03),
    "mnist-inv-12": _digits(lambda n: inverse_decay(n, 0.01), 12),
    # 0.05 / (1 - 0.9) is 0.1 / (1 - 0.8): a gradient moves the weights as far in the end as at the
    # cycle's peak
    "mnist-staircase-12": _digits(_drops(0.05), 12),
    # the table does not say where the rate drops; it does here where it does on CIFAR-10
    "mnist-step-85": _digits(_drops(0.01), 85, paper=99.00),
    "mnist-step-12": _digits(_drops(0.01), 12),
    "mnist-cycle-25": _digits_cycle(25, 12, 0.01, 0.1, 99.28),
    "mnist-cycle-50": _digits_cycle(50, 23, 0.01, 0.1, 99.27),
    "mnist-cycle-85": _digits_cycle(85, 40, 0.02, 0.2, 99.35),
}


def task_from(
    dataset: str,
    train_images: np.ndarray,
    train_labels: np.ndarray,
    test_images: np.ndarray,
    test_labels: np.ndarray,
    *,
    device: torch.device | str,
) -> Task:
    """CIFAR-10 as the authors use it, minus the mean image; MNIST as Caffe does, in [0, 1)."""
    name, options = {
        "cifar10": ("CIFAR-10", {}),
        "mnist": ("MNIST", {"center": False, "unit": 256.0}),
    }[choice("dataset", dataset, ("cifar10", "mnist"))]
    arrays = train_images, train_labels, test_images, test_labels
    return image_task(name, *arrays, device=device, **options)


def run_arm(
    name: str,
    seeds: Sequence[int],
    task: Task,
    *,
    folder: Path | None = None,
    deadline: float | None = None,
    shorten: int = 1,
    progress: Callable[[str, int, int], None] | None = None,
) -> list[dict[str, Any]]:
    """Train one arm and return what belongs on record, as plain data, one dict a seed.

    Flips are the only augmentation, as in the authors' files. Accuracies are in percent of the
    test images, each counted once; the authors average 200 batches of 125, two and a half passes.

    Args:
        name: key of ``ARMS``.
        seeds: of initial weights and order; several are trained as one program, whose checkpoint is
            for exactly these seeds in this order.
        task: the data set of the arm, all of it.
        folder: of checkpoints.
        deadline: time (``time.monotonic``) at which to stop with a checkpoint.
        shorten: divide the iterations by this, and the images that judge, of which at least
            ``TRIAL_IMAGES`` are left: a trial.
        progress: called with a label, the step and the number of steps.

    Raises:
        ValueError: an unknown arm, ``shorten`` below 1.
        Paused: the deadline came first; call again to go on.
    """
    arm = ARMS[choice("name", name, ARMS)]
    n_steps = max(arm.n_steps // positive_integer("shorten", shorten), 1)
    n_test = min(max(len(task.test_labels) // shorten, TRIAL_IMAGES), len(task.test_labels))
    task = replace(
        task, test_images=task.test_images[:n_test], test_labels=task.test_labels[:n_test]
    )
    cuda = task.device.type == "cuda"
    monitor = Monitor(
        looks=arm.looks,
        n_test=n_test,
        statistics=arm.statistics,
        lags=arm.lags,
        n_losses=min(n_test, arm.n_train),
    )
    recipe = arm.recipe(name, n_steps, min(arm.n_train, len(task.train_labels)))
    if cuda:
        torch.cuda.reset_peak_memory_stats()
    outcome = train(
        task,
        [recipe],
        seeds,
        **arm.program(task.device),
        monitor=monitor,
        stacked=len(seeds),
        workers=1,
        folder=folder,
        deadline=deadline,
        progress=progress,
    )[name]
    return [_record(outcome, arm, place, n_test, cuda) for place in range(len(seeds))]


def retrace(name: str, seed: int, task: Task, n_steps: int) -> torch.Tensor:
    """Losses of the first iterations of an arm, (n_steps,): what a record of it must begin with.

    Args:
        name: key of ``ARMS``.
        seed: of initial weights and order.
        task: the data set of the arm, all of it.
        n_steps: iterations, as many as the arm has at most.

    Raises:
        ValueError: an unknown arm, more iterations than it has.
    """
    arm = ARMS[choice("name", name, ARMS)]
    recipe = arm.recipe(name, n_train=min(arm.n_train, len(task.train_labels)))
    few = slice(TRIAL_IMAGES)
    outcome = train(
        replace(task, test_images=task.test_images[few], test_labels=task.test_labels[few]),
        [replace(recipe, n_steps=n_steps)],
        [seed],
        **arm.program(task.device),
        monitor=Monitor(statistics=arm.statistics[:1], n_losses=TRIAL_IMAGES),
        workers=1,
    )[name]
    return outcome.losses[0]


def _record(outcome: Outcome, arm: Arm, place: int, n_test: int, cuda: bool) -> dict[str, Any]:
    def rounded(values: torch.Tensor, digits: int) -> list[float | None]:
        # what has diverged is no number, and JSON has none for it
        flat = values.double().flatten().tolist()
        return [round(v, digits) if math.isfinite(v) else None for v in flat]

    n_steps = outcome.recipe.length
    block = max(n_steps // LOSS_POINTS, 1)
    losses = outcome.losses[place, : n_steps // block * block].view(-1, block).mean(1)
    return {
        "seed": outcome.seeds[place],
        "together": len(outcome.seeds),
        "n_steps": n_steps,
        "n_train": outcome.recipe.n_train,
        "n_test": n_test,
        "accuracy": {k: rounded(100 * v[place], 2)[0] for k, v in outcome.accuracy.items()},
        "test_loss": rounded(outcome.test_loss[place], 4)[0],
        "train_loss": rounded(outcome.train_loss[place], 4)[0],
        "diverged_at": int(outcome.diverged_at[place]),
        "steps": outcome.steps.tolist(),
        "curves": {k: rounded(100 * v[place], 2) for k, v in outcome.curves.items()},
        "test_losses": rounded(outcome.test_losses[place], 4),
        "losses": {"every": block, "values": rounded(losses, 4)},
        "estimates": {
            str(lag): rounded(found[:: max(len(found) // LOSS_POINTS, 1), place], 4)
            for lag, found in outcome.estimates.items()
        },
        "paper": arm.paper,
        "seconds": round(outcome.seconds, 1),
        "peak_gpu_memory_mb": round(torch.cuda.max_memory_allocated() / 1e6) if cuda else None,
    }
