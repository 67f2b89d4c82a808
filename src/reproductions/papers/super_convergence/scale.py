"""The paper's own runs: ResNet-56 on all of CIFAR-10, arm by arm, in pieces.

One cycle of 10,000 iterations takes minutes on a current GPU and 80,000 iterations of piecewise
constant training the better part of an hour, so a run stops at a deadline with a checkpoint and
goes on from there.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from reproductions._validate import choice, positive_integer
from reproductions.kernels.replica import ResidualSpec

from .networks import RESNET20, RESNET56, RESNET110
from .schedules import one_cycle, piecewise_constant, range_test, triangular, warmed_up
from .tasks import Task, image_task
from .training import Monitor, Outcome, Recipe, train

__all__ = ["ARMS", "DATASET", "Arm", "run_arm", "task_from"]

DATASET = "cifar10"
LOSS_POINTS = 500
EVALUATIONS = 40


@dataclass(frozen=True)
class Arm:
    """One curve of the paper, or a control that it lacks.

    Attributes:
        schedule: n_steps -> learning rates.
        n_steps: iterations.
        averaging: fraction of the batch-norm averages, as the authors set it.
        weight_decay: L2 factor.
        momentum: of the step.
        form: of the step.
        n_train: training images.
        spec: architecture.
        lags: lags of the learning-rate estimates that are recorded.
        batch_size: images of a step, over the authors' eight GPUs.
        group_size: images that one of them normalized by itself.
        paper: what the paper reports, in percent.
    """

    schedule: Callable[[int], torch.Tensor]
    n_steps: int
    averaging: float = 0.95
    weight_decay: float = 1e-4
    momentum: float = 0.9
    form: str = "caffe"
    n_train: int = 50_000
    spec: ResidualSpec = RESNET56
    lags: tuple[int, ...] = ()
    batch_size: int = 1000
    group_size: int = 125
    paper: float | None = None


def _cycle(high: float = 3.0) -> Callable[[int], torch.Tensor]:
    return lambda n: triangular(n, 0.1, high)


def _drops(rate: float) -> Callable[[int], torch.Tensor]:
    return lambda n: piecewise_constant(n, rate)


def _gentle(rate: float) -> Callable[[int], torch.Tensor]:
    return lambda n: warmed_up(piecewise_constant(n, rate), n // 20)


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
}


def task_from(
    train_images: np.ndarray,
    train_labels: np.ndarray,
    test_images: np.ndarray,
    test_labels: np.ndarray,
    *,
    device: torch.device | str,
) -> Task:
    """CIFAR-10 as the authors use it: 32 x 32 pixels minus the mean image."""
    return image_task(
        "CIFAR-10", train_images, train_labels, test_images, test_labels, device=device
    )


def run_arm(
    name: str,
    seed: int,
    task: Task,
    *,
    folder: Path | None = None,
    deadline: float | None = None,
    shorten: int = 1,
    progress: Callable[[str, int, int], None] | None = None,
) -> dict[str, Any]:
    """Train one arm from one seed and return what belongs on record, as plain data.

    Flips are the only augmentation, as in the authors' files. Accuracies are in percent of the
    test images, each counted once; the authors average 200 batches of 125, two and a half passes.

    Args:
        name: key of ``ARMS``.
        seed: of initial weights and order.
        task: all of CIFAR-10.
        folder: of checkpoints.
        deadline: time (``time.monotonic``) at which to stop with a checkpoint.
        shorten: divide the iterations by this.
        progress: called with a label, the step and the number of steps.

    Raises:
        ValueError: an unknown arm, ``shorten`` below 1.
        Paused: the deadline came first; call again to go on.
    """
    arm = ARMS[choice("name", name, ARMS)]
    n_steps = max(arm.n_steps // positive_integer("shorten", shorten), 1)
    cuda = task.device.type == "cuda"
    kinds = (f"caffe {arm.averaging:g}", "estimated", "caffe 0.95", "caffe 0.999")
    monitor = Monitor(
        looks=EVALUATIONS,
        n_test=len(task.test_labels),
        statistics=tuple(dict.fromkeys(kinds)),
        lags=arm.lags,
        n_losses=min(10_000, arm.n_train),
    )
    recipe = Recipe(
        name,
        arm.schedule(n_steps),
        momentum=arm.momentum,
        weight_decay=arm.weight_decay,
        form=arm.form,
        n_train=min(arm.n_train, len(task.train_labels)),
    )
    if cuda:
        torch.cuda.reset_peak_memory_stats()
    outcome = train(
        task,
        [recipe],
        [seed],
        spec=arm.spec,
        batch_size=arm.batch_size,
        group_size=arm.group_size,
        flips=True,
        monitor=monitor,
        compute_dtype=torch.bfloat16 if cuda else None,
        folder=folder,
        deadline=deadline,
        progress=progress,
    )[name]
    return _record(outcome, arm, seed, cuda)


def _record(outcome: Outcome, arm: Arm, seed: int, cuda: bool) -> dict[str, Any]:
    def rounded(values: torch.Tensor, digits: int) -> list[float | None]:
        # what has diverged is no number, and JSON has none for it
        flat = values.double().flatten().tolist()
        return [round(v, digits) if math.isfinite(v) else None for v in flat]

    n_steps = outcome.recipe.length
    block = max(n_steps // LOSS_POINTS, 1)
    losses = outcome.losses[0, : n_steps // block * block].view(-1, block).mean(1)
    return {
        "seed": seed,
        "n_steps": n_steps,
        "n_train": outcome.recipe.n_train,
        "accuracy": {k: rounded(100 * v[0], 2)[0] for k, v in outcome.accuracy.items()},
        "test_loss": rounded(outcome.test_loss[0], 4)[0],
        "train_loss": rounded(outcome.train_loss[0], 4)[0],
        "diverged_at": int(outcome.diverged_at[0]),
        "steps": outcome.steps.tolist(),
        "curves": {k: rounded(100 * v[0], 2) for k, v in outcome.curves.items()},
        "test_losses": rounded(outcome.test_losses[0], 4),
        "losses": {"every": block, "values": rounded(losses, 4)},
        "estimates": {
            str(lag): rounded(found[:: max(len(found) // LOSS_POINTS, 1), 0], 4)
            for lag, found in outcome.estimates.items()
        },
        "paper": arm.paper,
        "seconds": round(outcome.seconds, 1),
        "peak_gpu_memory_mb": round(torch.cuda.max_memory_allocated() / 1e6) if cuda else None,
    }
