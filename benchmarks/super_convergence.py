"""Residual networks along schedules: range tests, training loops, replicas, ResNet-56 on a GPU.

``python benchmarks/super_convergence.py --install`` puts torch-lr-finder and fastai (100 MB) into
the user's cache, without the packages they bring that are not needed here, another PyTorch above
all. Where they are not, the range test is timed without them.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from importlib import import_module
from importlib.metadata import version
from pathlib import Path

import pooch
import torch
from _harness import Case, benchmark
from _residual_twin import DECAY, MOMENTUM, ResidualTwin, difference
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset

from reproductions.kernels.replica import ResidualSpec, momentum_step
from reproductions.papers.super_convergence import (
    RESNET56,
    Recipe,
    Stack,
    Task,
    range_test,
    reduced,
)

# What their use here takes; fastprogress 1.1 would bring a web framework.
PACKAGES = (
    "torch-lr-finder==0.2.2",
    "fastai==2.8.12",
    "fastcore==2.2.41",
    "fastdownload==0.0.8",
    "fastprogress==1.0.5",
    "fasttransform==0.0.5",
    "plum-dispatch==2.9.0",
    "beartype==0.23.1",
    "pandas==3.1.1",
)
# Compiled parts fit one Python only.
PEERS = Path(pooch.os_cache("reproductions")) / f"range-test-peers-{sys.version_info.minor}"
# Written last: an installation that was cut off does not count.
COMPLETE = PEERS / "complete"

SIZE, BATCH, IMAGES = 16, 100, 4000
RATE = 0.1
MEMORY = {"memory": "below 3 GB"}


def random_task(spec: ResidualSpec, size: int, n: int, device: torch.device | str = "cpu") -> Task:
    """``n`` images of noise with labels; as many operations as photographs take."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(256, (n, spec.channels, size, size), generator=generator) - 127.5
    labels = torch.randint(spec.n_classes, (n,), generator=generator)
    images, labels = (images / 64).to(device), labels.to(device)
    return Task("noise", images, labels, images[:100], labels[:100])


# three colors and ten classes, like the large network
R8 = reduced(random_task(RESNET56, SIZE, 100))


def constant(n_steps: int) -> Recipe:
    return Recipe("constant", torch.full((n_steps,), RATE), MOMENTUM, DECAY, "torch")


def synchronize(device: torch.device | str) -> None:
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)


def run(stacks: list[Stack], workers: int = 1) -> torch.Tensor:
    """Train from the start to the end; losses (steps, replicas)."""

    def whole(stack: Stack) -> torch.Tensor:
        begin = stack.state()
        while stack.step < stack.length:
            stack.advance()
        losses = stack.losses.clone()
        stack.restore(begin)
        return losses

    if workers == 1:
        found = [whole(stack) for stack in stacks]
    else:
        with ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            found = list(pool.map(whole, stacks))
    synchronize(stacks[0].task.device)
    return torch.cat(found, 1)


def batches(stack: Stack, replica: int = 0) -> tuple[torch.Tensor, torch.Tensor | None]:
    """The order of the images of one replica, (steps, batch), and which are mirrored."""
    index, mirrored = zip(*[stack.batches.at(step) for step in range(stack.length)], strict=True)
    flips = None if mirrored[0] is None else torch.stack([m[replica] for m in mirrored])
    return torch.stack([i[replica] for i in index]), flips


class Loop:
    """One network, trained by a loop as in a tutorial; called again it starts again."""

    def __init__(
        self,
        stack: Stack,
        replica: int = 0,
        *,
        ghost: bool = True,
        bfloat16: bool = False,
        last: bool = False,
    ):
        self.task, self.bfloat16, self.last = stack.task, bfloat16, last
        self.order, self.mirrored = batches(stack, replica)
        layout = torch.channels_last if last else torch.contiguous_format
        model = ResidualTwin(stack.spec, stack.group_size if ghost else None)
        model.take(stack.network.parameters[replica].cpu())
        self.model = model.to(self.task.device, memory_format=layout)
        self.begin = {k: v.clone() for k, v in self.model.state_dict().items()}

    def __call__(self) -> torch.Tensor:
        """Losses (steps,)."""
        self.model.load_state_dict(self.begin)
        optimizer, device = self.model.optimizer(RATE), self.task.device
        losses = []
        for step, index in enumerate(self.order):
            x, y = self.task.train_images[index], self.task.train_labels[index]
            if self.mirrored is not None:
                x = torch.where(self.mirrored[step, :, None, None, None], x.flip(-1), x)
            if self.last:
                x = x.contiguous(memory_format=torch.channels_last)
            optimizer.zero_grad()
            with torch.autocast(device.type, torch.bfloat16, enabled=self.bfloat16):
                loss = functional.cross_entropy(self.model(x), y)
            loss.backward()
            optimizer.step()
            losses.append(loss.detach())
        synchronize(device)
        return torch.stack(losses)


def loops(runs: list[Loop]) -> torch.Tensor:
    """Losses (steps, networks)."""
    return torch.stack([run() for run in runs], 1)


def agree(outputs: dict[str, torch.Tensor], peers: list[str], steps: int, tolerance: float) -> None:
    """The first losses must be equal: training amplifies rounding, so later ones are not."""
    for name in peers:
        found = outputs[name].flatten(1) if outputs[name].dim() > 1 else outputs[name][:, None]
        wanted = outputs["ours"][:steps, : found.shape[1]].to(found)
        torch.testing.assert_close(
            found[:steps], wanted, rtol=tolerance, atol=0, msg=lambda m, n=name: f"{n}: {m}"
        )


def finders(stack: Stack, steps: int, high: float) -> dict[str, Callable[[], torch.Tensor]]:
    """Range tests of the packages that are installed, on the network and batches of ``stack``."""
    if not COMPLETE.exists():
        print(
            "left out: torch-lr-finder and fastai are not installed "
            "(python benchmarks/super_convergence.py --install)",
            file=sys.stderr,
        )
        return {}
    # last, so that everything else is found where it was
    sys.path.append(str(PEERS))
    # by name: they are no dependencies, and declared nowhere
    import_module("fastai.callback.schedule")  # adds Learner.lr_find
    DataLoaders = import_module("fastai.data.core").DataLoaders
    Learner = import_module("fastai.learner").Learner
    OptimWrapper = import_module("fastai.optimizer").OptimWrapper
    LRFinder = import_module("torch_lr_finder").LRFinder

    images = TensorDataset(stack.task.train_images, stack.task.train_labels)
    loader = DataLoader(images, BATCH, sampler=batches(stack)[0].flatten().tolist())
    criterion = torch.nn.CrossEntropyLoss()

    def twin() -> ResidualTwin:
        return ResidualTwin(R8).take(stack.network.parameters[0])

    sgd = {"momentum": MOMENTUM, "weight_decay": DECAY}
    model = twin()

    def lr_finder() -> torch.Tensor:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            finder = LRFinder(model, torch.optim.SGD(model.parameters(), lr=0.0, **sgd), criterion)
            finder.range_test(
                loader,
                end_lr=high * (steps - 1) / steps,
                num_iter=steps,
                step_mode="linear",
                smooth_f=0.0,
                diverge_th=float("inf"),
            )
            finder.reset()
        return torch.tensor(finder.history["loss"])

    learner = Learner(
        DataLoaders(loader, loader),
        twin(),
        criterion,
        opt_func=partial(OptimWrapper, opt=torch.optim.SGD, **sgd),
    )

    def lr_find() -> torch.Tensor:
        # it keeps the weights to go back to in a file
        with tempfile.TemporaryDirectory() as folder, learner.no_bar():
            learner.path = Path(folder)
            learner.lr_find(1e-7, high, steps, stop_div=False, show_plot=False, suggest_funcs=None)
        return torch.tensor(learner.recorder.losses)

    return {"torch-lr-finder": lr_finder, "fastai": lr_find}


@benchmark("super-convergence: range test, R8, 100 steps")
def range_tests() -> Case:
    steps, high = 100, 4.0
    recipe = Recipe("range test", range_test(steps, high), MOMENTUM, DECAY, "torch")
    stack = Stack(random_task(R8, SIZE, IMAGES), R8, [(recipe, 0)], BATCH)
    before = stack.state()
    peers = finders(stack, steps, high)

    def check(outputs: dict[str, torch.Tensor]) -> None:
        for name, value in stack.state().items():
            # no optimizer of PyTorch has a state here
            if value is not None and not torch.equal(
                torch.as_tensor(value), torch.as_tensor(before[name])
            ):
                raise AssertionError(f"the range test must restore {name}")
        for name, losses in outputs.items():
            if len(losses) != steps:
                raise AssertionError(f"{name} must take {steps} steps, got {len(losses)}")
        # two rates of 0 in a row; fastai starts at 1e-7 and reports averages from the second on
        agree(outputs, [name for name in peers if name == "torch-lr-finder"], 2, 1e-5)
        agree(outputs, [name for name in peers if name == "fastai"], 1, 1e-5)

    return Case(
        ours=partial(run, [stack]),
        peers=peers,
        check=check,
        facts={
            "batch": BATCH,
            "steps": steps,
            "difference to the module": difference(R8, SIZE, 20),
            **{name: version(name) for name in peers},
        },
        targets={"ratio": "not below 1", **MEMORY},
    )


def overhead(stack: Stack, bare: Callable[[], object], pairs: int = 100) -> float:
    """What a step of a stack takes beyond a bare one, in percent of processor time."""
    calls = [stack.advance, bare]
    seconds: list[list[float]] = [[], []]
    begin = stack.state()
    for pair in range(pairs):
        if stack.step == stack.length:
            stack.restore(begin)
        # in turns, and first in turns
        for which in (0, 1) if pair % 2 else (1, 0):
            start = time.process_time()
            calls[which]()
            seconds[which].append(time.process_time() - start)
    stack.restore(begin)
    ours, theirs = (statistics.median(times[3:]) for times in seconds)
    return 100 * (ours / theirs - 1)


@benchmark("super-convergence: training loop, 3 networks R8, 50 steps")
def training_loop() -> Case:
    steps, replicas = 50, 3
    task, recipe = random_task(R8, SIZE, IMAGES), constant(50)
    members = [(recipe, seed) for seed in range(replicas)]
    stack, twin = Stack(task, R8, members, BATCH), Stack(task, R8, members, BATCH)
    network, velocity = twin.network, twin.velocity
    index = twin.batches.at(0)[0]
    images, labels = task.train_images[index], task.train_labels[index]
    gradients = torch.zeros_like(velocity)

    def bare() -> torch.Tensor:
        losses, gradient = network.gradients(images, labels, out=gradients)
        momentum_step(
            network.parameters,
            velocity,
            gradient,
            RATE,
            momentum=MOMENTUM,
            decay=DECAY,
            form="torch",
        )
        return losses

    def bare_steps() -> torch.Tensor:
        begin = twin.state()
        losses = torch.stack([bare() for _ in range(steps)])
        twin.restore(begin)
        return losses

    percent = overhead(stack, bare)
    twin.restore(stack.state())
    return Case(
        ours=partial(run, [stack]),
        peers={"bare steps": bare_steps},
        # the first batch is the same
        check=lambda outputs: agree(outputs, ["bare steps"], 1, 1e-5),
        facts={
            "networks": replicas,
            "batch": BATCH,
            "steps": steps,
            "overhead of a step, percent": round(percent, 2),
        },
        targets={"overhead": "at most 5 %", **MEMORY},
    )


@benchmark("super-convergence: nine networks R8, 20 steps")
def nine_networks() -> Case:
    steps = 20
    task, members = random_task(R8, SIZE, IMAGES), [(constant(20), seed) for seed in range(9)]
    stacks = [Stack(task, R8, members[k : k + 3], BATCH) for k in (0, 3, 6)]
    whole = Stack(task, R8, members, BATCH)
    peers = {
        "one stack of 9": partial(run, [whole]),
        "loop over modules": partial(loops, [Loop(whole, k) for k in range(9)]),
    }
    return Case(
        ours=partial(run, stacks, workers=2),
        peers=peers,
        check=lambda outputs: agree(outputs, list(peers), 3, 1e-4),
        facts={
            "networks": 9,
            "batch": BATCH,
            "steps": steps,
            "threads of ours": 2,
            "difference to the module": difference(R8, SIZE, 20),
        },
        targets=MEMORY,
    )


class Measured:
    """A callable whose runs after the first leave their median in ``facts``."""

    def __init__(self, name: str, call: Callable[[], object], facts: dict, steps: int, images: int):
        self.name, self.call, self.facts = name, call, facts
        self.steps, self.images, self.seconds = steps, images, None

    def __call__(self) -> object:
        """What the callable returns."""
        start = time.perf_counter()
        output = self.call()
        elapsed = time.perf_counter() - start
        if self.seconds is None:
            self.seconds = []
        else:
            self.seconds.append(elapsed / self.steps)
            step = statistics.median(self.seconds)
            self.facts[f"{self.name}: ms a step"] = round(1e3 * step, 3)
            self.facts[f"{self.name}: images a second"] = round(self.images / step)
        return output


def with_peak(facts: dict, name: str, device: torch.device, build: Callable[[], Callable]):
    """What ``build`` returns, called once; the peak of its memory goes into ``facts``."""
    if device.type != "cuda":
        return build()
    before = torch.cuda.memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    call = build()
    call()
    peak = torch.cuda.max_memory_allocated(device) - before
    facts[f"{name}: peak GPU memory, MiB"] = round(peak / 2**20)
    return call


def resnet56(
    device: str = "cuda",
    spec: ResidualSpec = RESNET56,
    size: int = 32,
    batch: int = 1000,
    group_size: int = 125,
    images: int = 10_000,
    steps: int = 20,
) -> Case:
    """Steps in bfloat16 from a CUDA graph against what eager PyTorch takes."""
    task = random_task(spec, size, images, device)
    facts: dict[str, object] = {
        "batch": batch,
        "group size": group_size,
        "steps": steps,
        "difference to the module": difference(spec, size, 4, 2, steps=1),
    }
    options = {"flips": True, "compute_dtype": torch.bfloat16}
    stack = Stack(task, spec, [(constant(steps), 0)], batch, group_size, **options)

    def ours() -> Callable[[], torch.Tensor]:
        return partial(run, [Stack(task, spec, stack.members, batch, group_size, **options)])

    forms = {
        "ours": ours,
        "plain eager loop": lambda: Loop(stack),
        "eager, whole-batch norm": lambda: Loop(stack, ghost=False),
        "eager bfloat16, channels last, whole-batch norm": lambda: Loop(
            stack, ghost=False, bfloat16=True, last=True
        ),
    }
    calls = {
        name: Measured(name, with_peak(facts, name, task.device, build), facts, steps, batch)
        for name, build in forms.items()
    }
    return Case(
        ours=calls.pop("ours"),
        peers=calls,
        # a loss of bfloat16 activations against one of float32
        check=lambda outputs: agree(outputs, ["plain eager loop"], 1, 0.03),
        facts=facts,
        targets={"ratio": "at least 2 x the plain eager loop"},
    )


def many_networks(
    device: str = "cuda", replicas: int = 48, few: int = 2, steps: int = 50, batch: int = BATCH
) -> Case:
    """Many small networks as one program against one program each."""
    task, recipe = random_task(R8, SIZE, IMAGES, device), constant(steps)
    members = [(recipe, seed) for seed in range(replicas)]
    facts: dict[str, object] = {"networks": replicas, "batch": batch, "steps": steps}
    whole = Stack(task, R8, members, batch)
    separate = [Stack(task, R8, [member], batch, graph=False) for member in members[:few]]
    modules = [Loop(stack) for stack in separate]
    peers = {
        "one by one": partial(run, separate),
        "loop over modules": partial(loops, modules),
    }
    return Case(
        ours=Measured("ours", partial(run, [whole]), facts, steps, replicas * batch),
        peers=peers,
        extrapolate=dict.fromkeys(peers, replicas / few),
        check=lambda outputs: agree(outputs, list(peers), 1, 1e-2),
        facts=facts,
    )


if torch.cuda.is_available():
    benchmark("super-convergence on the GPU: ResNet-56, 20 steps of 1000 images")(resnet56)
    benchmark("super-convergence on the GPU: 48 networks R8, 50 steps")(many_networks)


def install() -> int:
    """Fill the folder of the peers."""
    shutil.rmtree(PEERS, ignore_errors=True)
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", PEERS]
    if subprocess.run([*pip, *PACKAGES], check=False).returncode:
        print("skipped: torch-lr-finder and fastai cannot be installed")
        return 0
    COMPLETE.touch()
    print(f"installed: {', '.join(PACKAGES)}")
    return 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--install", action="store_true", help="install the peers")
    if parser.parse_args().install:
        sys.exit(install())
    parser.print_help()
