"""Train networks along schedules: recipes times seeds, stacked into few batched programs."""

from __future__ import annotations

import copy
import hashlib
import os
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional

from reproductions._validate import choice, positive_integer, within
from reproductions.kernels.replica import (
    MOMENTUM_FORMS,
    LeNetSpec,
    ReplicaLeNet,
    ReplicaResNet,
    ResidualSpec,
    momentum_step,
)

from .batches import Batches
from .estimate import RateEstimator
from .sharing import share_out
from .tasks import Task

__all__ = ["STATISTICS", "Monitor", "Outcome", "Paused", "Recipe", "Stack", "train"]

#: ways to normalize in evaluation: running averages as Caffe and as PyTorch keep them, means over
#: the training set with the weights as they are, and not at all, for networks without
STATISTICS = ("caffe", "torch", "estimated", "none")
EVALUATION_BATCH = 500
ESTIMATION_BATCHES = 20
#: steps between two looks at the clock
BETWEEN_LOOKS = 20
#: forms of a step that are left to ``torch.optim``
ADAPTIVE = {
    "adam": torch.optim.Adam,
    "adagrad": torch.optim.Adagrad,
    "adadelta": torch.optim.Adadelta,
}


@dataclass(frozen=True, eq=False)
class Recipe:
    """One way to train, but for the seed.

    Attributes:
        label: a name, unique among the recipes that are trained together.
        schedule: learning rate of every step, (n_steps,).
        momentum: a number, or one for every step.
        weight_decay: factor d of the L2 term d theta in the gradient.
        spared: names of tensors without weight decay; those of convolutions' biases, as in the
            authors' files, by default.
        form: of the step: with momentum ``caffe`` (the authors'), ``torch`` or ``nesterov``; or
            ``adam``, ``adagrad``, ``adadelta``, with PyTorch's defaults and no use of ``momentum``.
        n_train: train on the first so many images; None takes all.
        n_steps: length of the run; None takes the whole schedule.
        monitor: what to measure on the way; None leaves that to ``train``.

    Raises:
        ValueError: a negative rate, a schedule shorter than the run, a momentum outside [0, 1) or
            of another length, a weight decay that is no number of at least 0, n_train below 1.
    """

    label: str
    schedule: torch.Tensor
    momentum: float | torch.Tensor = 0.9
    weight_decay: float = 1e-4
    form: str = "caffe"
    n_train: int | None = None
    n_steps: int | None = None
    spared: tuple[str, ...] = ("conv bias",)
    monitor: Monitor | None = None

    def __post_init__(self) -> None:
        schedule = within("schedule", self.schedule, 0)
        if schedule.dim() != 1 or len(schedule) < 1:
            raise ValueError(
                "schedule must be a vector of one rate a step, got shape "
                f"{tuple(schedule.shape)}; a constant rate is torch.full((n_steps,), rate)"
            )
        if self.n_steps is not None and positive_integer("n_steps", self.n_steps) > len(schedule):
            raise ValueError(
                f"schedule must be as long as the run of n_steps = {self.n_steps}, "
                f"got {len(schedule)} rates"
            )
        choice("form", self.form, (*MOMENTUM_FORMS, *ADAPTIVE))
        if within("weight_decay", self.weight_decay, 0).dim():
            raise ValueError(f"weight_decay must be one number, got {self.weight_decay}")
        if self.n_train is not None:
            positive_integer("n_train", self.n_train)
        momentum = within("momentum", self.momentum, 0, 1)
        if bool((momentum == 1).any()):
            raise ValueError("momentum must be below 1, got 1")
        if momentum.dim() > 1 or (momentum.dim() and len(momentum) < self.length):
            raise ValueError(
                f"momentum must be a number or one for each of {self.length} steps, "
                f"got shape {tuple(momentum.shape)}"
            )

    @property
    def length(self) -> int:
        """Number of steps."""
        return len(self.schedule) if self.n_steps is None else self.n_steps

    @property
    def rates(self) -> torch.Tensor:
        """Learning rates, float64 (length,)."""
        return torch.as_tensor(self.schedule, dtype=torch.float64)[: self.length]

    @property
    def momenta(self) -> torch.Tensor:
        """Momentum of every step, float64 (length,)."""
        momentum = torch.as_tensor(self.momentum, dtype=torch.float64)
        return momentum[: self.length] if momentum.dim() else momentum.expand(self.length)


@dataclass(frozen=True)
class Monitor:
    """What is measured on the way.

    Attributes:
        looks: evaluations on the way, evenly spaced over a run, the end counted; a few more where
            the number does not divide the steps. 1 evaluates at the end only.
        n_test: test images of an evaluation on the way (the last one takes all).
        statistics: kinds of batch-norm statistics to evaluate with, from ``STATISTICS``; those of
            running averages are followed by the averaging fraction, as in ``caffe 0.95``; LeNet,
            which has no batch norm, takes ``none`` alone. Losses are those of the first.
        lags: lags of the learning-rate estimates that are streamed along.
        n_losses: training images of the final training loss, of those that were trained on.

    Raises:
        ValueError: numbers out of range, kinds of statistics that there are not.
    """

    looks: int = 1
    n_test: int = 1000
    statistics: tuple[str, ...] = ("caffe 0.95",)
    lags: tuple[int, ...] = ()
    n_losses: int = 1000

    def __post_init__(self) -> None:
        positive_integer("looks", self.looks)
        positive_integer("n_test", self.n_test)
        positive_integer("n_losses", self.n_losses)
        for lag in self.lags:
            positive_integer("lags", lag)
        if not self.statistics:
            raise ValueError("statistics must name at least one kind, got none")
        for kind in self.statistics:
            _fraction(kind)

    @property
    def averaging(self) -> tuple[float, ...]:
        """Averaging fractions that the statistics ask for."""
        found = {_fraction(kind) for kind in self.statistics} - {None}
        return tuple(sorted(found)) or (0.95,)


def _fraction(kind: str) -> float | None:
    """Averaging fraction in the name of a kind of statistics; None where it has none."""
    name, _, number = kind.partition(" ")
    if kind in ("estimated", "none"):
        return None
    if name in STATISTICS[:2]:
        try:
            if 0 <= float(number) < 1:
                return float(number)
        except ValueError:
            pass
    raise ValueError(
        "statistics must be estimated, none, or caffe or torch with an averaging fraction in "
        f"[0, 1) such as 'caffe 0.95'; got {kind!r}"
    )


@dataclass(frozen=True, eq=False)
class Outcome:
    """What came of one recipe, one row a seed.

    A network that diverged is a result: its step is noted, it classifies nothing (accuracy 0), and
    its losses and its gap are infinite. No accuracy, final loss or gap is NaN.

    Attributes:
        recipe: the recipe.
        seeds: the seeds.
        losses: training loss of every batch, float32 (seeds, n_steps).
        steps: steps after which the test set was looked at, (n_evaluations,).
        curves: test accuracy there in [0, 1] by kind of statistics, each (seeds, n_evaluations);
            the last is that of all test images.
        test_losses: mean test loss there, (seeds, n_evaluations).
        train_loss: final mean loss on training images, evaluated like the test loss, (seeds,).
        diverged_at: first step with a loss that is not finite, -1 where there is none, (seeds,).
        estimates: lag -> learning-rate estimates, (n, seeds).
        seconds: time of the training steps of the stack that held this recipe.
    """

    recipe: Recipe
    seeds: tuple[int, ...]
    losses: torch.Tensor
    steps: torch.Tensor
    curves: Mapping[str, torch.Tensor]
    test_losses: torch.Tensor
    train_loss: torch.Tensor
    diverged_at: torch.Tensor
    estimates: Mapping[int, torch.Tensor]
    seconds: float

    @property
    def accuracy(self) -> dict[str, torch.Tensor]:
        """Final test accuracy in [0, 1] by kind of statistics, each (seeds,)."""
        return {kind: curve[:, -1] for kind, curve in self.curves.items()}

    @property
    def curve(self) -> torch.Tensor:
        """Test accuracies in percent, float64 (seeds, n_evaluations), by the first statistics."""
        return 100 * next(iter(self.curves.values())).double()

    @property
    def percent(self) -> torch.Tensor:
        """Final test accuracy in percent, float64 (seeds,), by the first kind of statistics."""
        return self.curve[:, -1]

    @property
    def test_loss(self) -> torch.Tensor:
        """Final mean test loss, (seeds,)."""
        return self.test_losses[:, -1]

    @property
    def gap(self) -> torch.Tensor:
        """Generalization gap, test loss minus training loss, (seeds,)."""
        gap = self.test_loss - self.train_loss
        return torch.where(gap.isnan(), torch.inf, gap)


class Paused(Exception):  # noqa: N818, reads as what it is
    """Training stopped at its time limit; the checkpoint holds everything to go on."""


@dataclass(eq=False)
class Stack:
    """Networks that are trained together: one replica for each (recipe, seed).

    All recipes have the same length and form. On a CUDA device a step is captured as a graph once
    and replayed from then on.

    Args:
        task: data.
        spec: architecture.
        members: (recipe, seed) of every replica.
        batch_size: images of a step.
        group_size: images of a ghost batch; None takes the whole batch.
        averaging: fractions of the running averages.
        flips: mirror every image with probability 1/2.
        compute_dtype: dtype of a residual network's activations, such as bfloat16.
        graph: replay a CUDA graph; None does so on CUDA devices.
    """

    task: Task
    spec: ResidualSpec | LeNetSpec
    members: Sequence[tuple[Recipe, int]]
    batch_size: int
    group_size: int | None = None
    averaging: tuple[float, ...] = (0.95,)
    flips: bool = False
    compute_dtype: torch.dtype | None = None
    graph: bool | None = None
    step: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        recipes, seeds = zip(*self.members, strict=True)
        if len({recipe.length for recipe in recipes}) > 1 or len({r.form for r in recipes}) > 1:
            raise ValueError("members must share the number of steps and the form of momentum")
        device = self.task.device
        if isinstance(self.spec, LeNetSpec):
            for name in ("group_size", "compute_dtype"):
                if getattr(self, name) is not None:
                    raise ValueError(
                        f"{name} must be None for LeNet, which has no batch norm and computes in "
                        f"the dtype of its parameters; got {getattr(self, name)}"
                    )
            self.network = ReplicaLeNet(self.spec, seeds, device=device)
        else:
            self.network = ReplicaResNet(
                self.spec,
                seeds,
                group_size=self.group_size,
                averaging=self.averaging,
                compute_dtype=self.compute_dtype,
                device=device,
            )
        self.batches = Batches(
            seeds,
            [r.n_train or len(self.task.train_labels) for r in recipes],
            self.batch_size,
            flips=self.flips,
            device=device,
        )
        #: images that every member trains on
        self.n_seen = min(self.batches.sizes)
        self.form, self.length = recipes[0].form, recipes[0].length
        like = self.network.parameters
        self.velocity = torch.zeros_like(like)
        self._gradient = torch.zeros_like(like)
        self.rates = torch.stack([r.rates for r in recipes], 1).to(like)[..., None]
        self._momenta = torch.stack([r.momenta for r in recipes], 1).to(like)[..., None]
        decay = torch.tensor([r.weight_decay for r in recipes], dtype=torch.float64)
        names = {entry.name for entry in self.spec.entries}
        for recipe in recipes:
            if unknown := [name for name in recipe.spared if name not in names]:
                raise ValueError(
                    f"spared must name tensors of the network ({', '.join(sorted(names))}) in a "
                    f"tuple, got {unknown[0]!r} in {recipe.spared!r}"
                )
        spared = torch.stack([self.spec.columns(*r.spared) for r in recipes])
        self._decay = (decay[:, None] * (1 - spared)).to(like)
        # Caffe's layers give biases twice the rate
        self._multiplier = (1 + self.spec.columns("conv bias", "linear bias")).to(like)
        self.losses = torch.zeros(self.length, len(self.members), device=device)
        self._optimizer = None
        if self.form in ADAPTIVE:
            # a row is a parameter of its own, because rates differ from replica to replica
            rows = [{"params": [row]} for row in like.unbind()]
            self._optimizer = ADAPTIVE[self.form](rows, lr=1.0)
        on_gpu = device.type == "cuda"
        if on_gpu:
            # shapes never change: let cuDNN time its algorithms once
            torch.backends.cudnn.benchmark = True
        graph = on_gpu if self.graph is None else self.graph
        self._replay = _Graph(self) if graph and self._optimizer is None else None

    def advance(self) -> torch.Tensor:
        """Take one step; returns the increments of the parameters (replicas, n_parameters)."""
        index, mirrored = self.batches.at(self.step)
        rate, momentum = self.rates[self.step], self._momenta[self.step]
        if self._replay is None:
            losses, increment = self._update(index, mirrored, rate, momentum)
        else:
            losses, increment = self._replay(index, mirrored, rate, momentum)
        self.losses[self.step] = losses
        self.step += 1
        return increment

    def _update(self, index, mirrored, rate, momentum) -> tuple[torch.Tensor, torch.Tensor]:
        images = self.task.train_images[index]
        if mirrored is not None:
            images = torch.where(mirrored[..., None, None, None], images.flip(-1), images)
        losses, gradient = self.network.gradients(
            images, self.task.train_labels[index], out=self._gradient
        )
        if self._optimizer is not None:
            return losses, self._adapt(gradient, rate)
        increment = momentum_step(
            self.network.parameters,
            self.velocity,
            gradient,
            rate,
            momentum=momentum,
            decay=self._decay,
            multiplier=self._multiplier,
            form=self.form,
        )
        return losses, increment

    def _adapt(self, gradient: torch.Tensor, rate: torch.Tensor) -> torch.Tensor:
        """One step of an optimizer of PyTorch; returns the increments."""
        parameters = self.network.parameters
        before = parameters.clone()
        gradient.add_(parameters * self._decay)
        groups = self._optimizer.param_groups
        for group, row, r in zip(groups, gradient, rate.flatten().tolist(), strict=True):
            group["params"][0].grad, group["lr"] = row, r
        self._optimizer.step()
        return parameters - before

    def statistics(self, kind: str) -> torch.Tensor | None:
        """Batch-norm statistics of the weights as they are, of a kind such as ``caffe 0.95``.

        None for ``none``: there is nothing to normalize with.
        """
        _fitting(self.spec, kind)
        fraction = _fraction(kind)
        if kind == "none":
            return None
        if fraction is None:
            batch = self.group_size or self.batch_size
            images = self.task.train_images[: min(ESTIMATION_BATCHES * batch, self.n_seen)]
            return self.network.estimated_statistics(images, batch)
        if fraction not in self.averaging:
            raise ValueError(f"statistics {kind!r} are not kept; kept are {self.averaging}")
        which = self.averaging.index(fraction)
        return self.network.running_statistics(which, corrected=kind.startswith("caffe"))

    def evaluate(
        self, kind: str, *, n_test: int | None = None, n_train: int = 0
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Accuracy and mean loss (replicas,) on test images, or on the first training images.

        Training images are those that every member trains on, ``n_train`` at most. Logits that
        are no numbers classify nothing: they count as wrong, with an infinite loss.
        """
        statistics = self.statistics(kind)
        if n_train:
            n_train = min(n_train, self.n_seen)
            images, labels = self.task.train_images[:n_train], self.task.train_labels[:n_train]
        else:
            images, labels = self.task.test_images[:n_test], self.task.test_labels[:n_test]
        right = torch.zeros(len(self.members), device=images.device)
        loss = torch.zeros_like(right)
        for start in range(0, len(labels), EVALUATION_BATCH):
            y = labels[start : start + EVALUATION_BATCH]
            logits = self.network.logits(images[start : start + EVALUATION_BATCH], statistics)
            right += ((logits.argmax(-1) == y) & logits.isfinite().all(-1)).sum(1)
            flat = functional.cross_entropy(
                logits.flatten(0, 1), y.expand(len(logits), -1).flatten(), reduction="none"
            )
            flat = torch.where(flat.isnan(), torch.inf, flat)
            loss += flat.view(len(logits), -1).sum(1)
        return (right / len(labels)).cpu(), (loss / len(labels)).cpu()

    def diverged_at(self) -> torch.Tensor:
        """First step whose loss is not finite, -1 where there is none, (replicas,)."""
        bad = ~torch.isfinite(self.losses[: self.step].cpu())
        first = bad.float().argmax(0) if self.step else torch.zeros(len(self.members))
        return torch.where(bad.any(0), first.long(), -1)

    def state(self) -> dict[str, Any]:
        """Everything that changes in training: a dict of tensors and integers."""
        return {
            "step": self.step,
            "parameters": self.network.parameters.clone(),
            "velocity": self.velocity.clone(),
            "running": self.network.running.clone(),
            "n_averaged": self.network.n_averaged.clone(),
            "losses": self.losses.clone(),
            "optimizer": None
            if self._optimizer is None
            else copy.deepcopy(self._optimizer.state_dict()),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go back to a ``state``: weights, velocity, batch-norm averages, losses and step."""
        self.step = int(state["step"])
        # in place: a captured graph knows these very tensors
        self.network.parameters.copy_(state["parameters"])
        self.velocity.copy_(state["velocity"])
        self.network.running.copy_(state["running"])
        self.network.n_averaged.copy_(state["n_averaged"])
        self.losses.copy_(state["losses"])
        if self._optimizer is not None:
            self._optimizer.load_state_dict(copy.deepcopy(state["optimizer"]))


class _Graph:
    """A step of a stack, captured on first use; inputs are copied into fixed tensors."""

    WARM_UP = 3

    def __init__(self, stack: Stack) -> None:
        self.stack, self.graph = stack, None

    def __call__(self, *inputs: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor]:
        if self.graph is None:
            self._capture(inputs)
        for fixed, value in zip(self.inputs, inputs, strict=True):
            if fixed is not None:
                fixed.copy_(value)
        self.graph.replay()
        return self.outputs

    def _capture(self, inputs: Sequence[torch.Tensor | None]) -> None:
        self.inputs = [None if value is None else value.clone() for value in inputs]
        before = self.stack.state()
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(self.WARM_UP):
                self.stack._update(*self.inputs)
        torch.cuda.current_stream().wait_stream(side)
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph):
            self.outputs = self.stack._update(*self.inputs)
        self.stack.restore(before)


def _fitting(spec: ResidualSpec | LeNetSpec, kind: str) -> None:
    """Refuse statistics that a network does not have, and none for one that needs them."""
    if isinstance(spec, LeNetSpec) != (kind == "none"):
        needed = "caffe, torch or estimated" if kind == "none" else "none, it has no batch norm"
        raise ValueError(f"statistics of a {type(spec).__name__} must be {needed}; got {kind!r}")


def train(
    task: Task,
    recipes: Sequence[Recipe],
    seeds: Sequence[int],
    *,
    spec: ResidualSpec | LeNetSpec,
    batch_size: int,
    group_size: int | None = None,
    flips: bool = False,
    monitor: Monitor | None = None,
    compute_dtype: torch.dtype | None = None,
    stacked: int = 3,
    workers: int = 2,
    folder: Path | None = None,
    deadline: float | None = None,
    progress: Callable[[str, int, int], None] | None = None,
) -> dict[str, Outcome]:
    """Train every recipe from every seed and evaluate what comes out.

    A seed fixes initial weights and the order of the images, so recipes are compared pairwise.
    Replicas are stacked ``stacked`` at a time into one batched program (the seeds of a recipe
    together), and on the CPU ``workers`` stacks run beside one another, one thread each.

    Args:
        task: data; its device trains.
        recipes: what to train; labels must differ.
        seeds: at least one integer.
        spec: architecture.
        batch_size: images of a step.
        group_size: images of a ghost batch; None takes the whole batch.
        flips: mirror every image with probability 1/2.
        monitor: what to measure where a recipe does not say; by default the end only.
        compute_dtype: dtype of a residual network's activations, such as bfloat16 on a GPU.
        stacked: replicas in one program, at most; fewer where that keeps all workers busy.
        workers: stacks at a time on the CPU.
        folder: where checkpoints are written and found again, that of a finished run too; None
            writes none.
        deadline: time (``time.monotonic``) at which to stop with a checkpoint.
        progress: called with a label, the step and the number of steps.

    Returns:
        label -> Outcome.

    Raises:
        ValueError: labels that occur twice, no seeds, more training images than there are.
        Paused: the deadline came first.
    """
    monitor = monitor or Monitor()
    labels = [recipe.label for recipe in recipes]
    if len(set(labels)) != len(labels) or not labels:
        raise ValueError(f"recipes must have different labels, got {labels}")
    if not len(seeds):
        raise ValueError("seeds must name at least one seed, got none")
    for seed in seeds:
        if isinstance(seed, bool) or not float(seed).is_integer():
            raise ValueError(f"seeds must be integers, got {seed!r}")
    positive_integer("stacked", stacked)
    positive_integer("workers", workers)
    for recipe in recipes:
        for kind in (recipe.monitor or monitor).statistics:
            _fitting(spec, kind)
        if recipe.n_train is not None:
            task.first(recipe.n_train)
    members = [(recipe, int(seed)) for recipe in recipes for seed in seeds]
    alike: dict[tuple[int, str, Monitor], list[tuple[Recipe, int]]] = {}
    for recipe, seed in members:
        key = recipe.length, recipe.form, recipe.monitor or monitor
        alike.setdefault(key, []).append((recipe, seed))
    workers = workers if task.device.type == "cpu" else 1
    groups = [(length, group) for (length, *_), group in alike.items()]
    chunks = share_out(groups, largest=stacked, workers=workers)

    def run(chunk: list[tuple[Recipe, int]]) -> dict[str, Any]:
        measured = chunk[0][0].monitor or monitor
        stack = Stack(
            task,
            spec,
            chunk,
            batch_size,
            group_size,
            measured.averaging,
            flips,
            compute_dtype,
        )
        return _run(stack, measured, folder, deadline, progress)

    if workers == 1 or len(chunks) == 1:
        found = [run(chunk) for chunk in chunks]
    else:
        with ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            found = list(pool.map(run, chunks))
    return _outcomes(recipes, tuple(int(seed) for seed in seeds), chunks, found)


def _run(stack, monitor, folder, deadline, progress) -> dict[str, Any]:
    """Train one stack to the end; everything measured, replicas last."""
    recipe, seed = stack.members[0]
    label = f"{recipe.label} / seed {seed}"
    steps: list[int] = []
    accuracies: dict[str, list[torch.Tensor]] = {kind: [] for kind in monitor.statistics}
    losses: list[torch.Tensor] = []
    estimators = {lag: RateEstimator(lag=lag) for lag in monitor.lags}
    checkpoint = None if folder is None else _Checkpoint(folder, stack, monitor)
    seconds = 0.0
    if checkpoint is not None and (saved := checkpoint.load()) is not None:
        stack.restore(saved["state"])
        steps, accuracies, losses = saved["steps"], saved["accuracies"], saved["test_losses"]
        estimators = {lag: RateEstimator(lag=lag) for lag in monitor.lags}
        for lag, estimator in estimators.items():
            estimator.restore(saved["estimators"][lag], stack.task.device)
        seconds = saved["seconds"]
    every = max(stack.length // monitor.looks, 1)
    started = time.monotonic()

    def look(n_test: int | None) -> None:
        steps.append(stack.step)
        for k, (kind, found) in enumerate(accuracies.items()):
            accuracy, loss = stack.evaluate(kind, n_test=n_test)
            found.append(accuracy)
            if k == 0:
                losses.append(loss)

    def save() -> None:
        if checkpoint is not None:
            checkpoint.save(
                {
                    "state": stack.state(),
                    "steps": steps,
                    "accuracies": accuracies,
                    "test_losses": losses,
                    "estimators": {lag: e.state() for lag, e in estimators.items()},
                    "seconds": seconds + time.monotonic() - started,
                }
            )

    def pause() -> None:
        if deadline is not None and time.monotonic() > deadline:
            save()
            raise Paused(f"{label}: {stack.step} of {stack.length} steps are done")

    while stack.step < stack.length:
        increment = stack.advance()
        for estimator in estimators.values():
            estimator.add(increment, stack.rates[stack.step - 1].squeeze(-1))
        if stack.step % every == 0 and stack.step < stack.length:
            look(monitor.n_test)
            if progress is not None:
                progress(label, stack.step, stack.length)
            pause()
            if checkpoint is not None and checkpoint.is_due():
                save()
        elif stack.step % BETWEEN_LOOKS == 0 and stack.step < stack.length:
            pause()
    if not steps or steps[-1] < stack.step:
        look(None)
    save()
    _, train_loss = stack.evaluate(monitor.statistics[0], n_train=monitor.n_losses)
    return {
        "losses": stack.losses.cpu(),
        "steps": steps,
        "curves": {kind: torch.stack(found) for kind, found in accuracies.items()},
        "test_losses": torch.stack(losses),
        "train_loss": train_loss,
        "diverged_at": stack.diverged_at(),
        "estimates": {lag: estimator.values().cpu() for lag, estimator in estimators.items()},
        "seconds": seconds + time.monotonic() - started,
    }


class _Checkpoint:
    """The state of a stack in a file: written whole or not at all, read as weights only."""

    SECONDS = 60.0

    def __init__(self, folder: Path, stack: Stack, monitor: Monitor) -> None:
        self.folder = Path(folder)
        self.fingerprint = _fingerprint(stack, monitor)
        self.path = self.folder / f"{self.fingerprint}.pt"
        self.written = time.monotonic()

    def is_due(self) -> bool:
        return time.monotonic() - self.written > self.SECONDS

    def load(self) -> dict[str, Any] | None:
        if not self.path.exists():
            return None
        try:
            return torch.load(self.path, map_location="cpu", weights_only=True)
        except Exception as error:
            raise ValueError(
                f"checkpoint {self.path} is damaged ({type(error).__name__}); remove it to start "
                "anew"
            ) from error

    def save(self, content: dict[str, Any]) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        part = self.path.with_name(f"{self.path.name}.{uuid.uuid4().hex[:8]}.part")
        torch.save(content, part)
        os.replace(part, self.path)
        self.written = time.monotonic()


def _fingerprint(stack: Stack, monitor: Monitor) -> str:
    """Digest of everything that determines a run: a checkpoint serves this run and no other."""
    digest = hashlib.sha256()
    task = stack.task
    parts: list[Any] = [
        task.name,
        *(t.cpu().numpy().tobytes() for t in (task.train_images, task.train_labels)),
        *(t.cpu().numpy().tobytes() for t in (task.test_images, task.test_labels)),
        stack.spec,
        stack.batch_size,
        stack.group_size,
        stack.averaging,
        stack.flips,
        stack.compute_dtype,
        stack.form,
        monitor,
    ]
    for recipe, seed in stack.members:
        parts += [seed, recipe.n_train, recipe.weight_decay, recipe.spared]
        parts += [recipe.rates.numpy().tobytes(), recipe.momenta.contiguous().numpy().tobytes()]
    for part in parts:
        digest.update(part if isinstance(part, bytes) else repr(part).encode())
    return digest.hexdigest()[:16]


def _outcomes(recipes, seeds, chunks, found) -> dict[str, Outcome]:
    """Sort what the stacks measured by recipe and seed."""
    where = {
        (recipe.label, seed): (measured, place)
        for chunk, measured in zip(chunks, found, strict=True)
        for place, (recipe, seed) in enumerate(chunk)
    }
    outcomes = {}
    for recipe in recipes:
        rows = [where[recipe.label, seed] for seed in seeds]

        def column(key: str, rows=rows) -> torch.Tensor:
            return torch.stack([measured[key][..., place] for measured, place in rows])

        some = rows[0][0]
        sized = [(measured, place, measured["losses"].shape[-1]) for measured, place in rows]
        outcomes[recipe.label] = Outcome(
            recipe=recipe,
            seeds=seeds,
            losses=column("losses"),
            steps=torch.tensor(some["steps"]),
            curves={
                kind: torch.stack([measured["curves"][kind][:, p] for measured, p in rows])
                for kind in some["curves"]
            },
            test_losses=column("test_losses"),
            train_loss=column("train_loss"),
            diverged_at=column("diverged_at"),
            estimates={
                # a run too short for an estimate has none
                lag: torch.stack([m["estimates"][lag].view(-1, n)[:, p] for m, p, n in sized], -1)
                for lag in some["estimates"]
            },
            seconds=max(measured["seconds"] for measured, _ in rows),
        )
    return outcomes
