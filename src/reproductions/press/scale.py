"""Runs at a paper's own scale, arm by arm, in pieces, and their records under ``results/``.

A paper whose own experiments take hours, on a GPU or without, has a module
``reproductions.papers.<paper>.scale`` with

    ARMS        name -> arm, which has n_steps, dataset (the name of a data set of four arrays) and
                together (whether its seeds make one program on a GPU),
    task_from   (dataset, train images, labels, test images, labels, device=) -> task,
    run_arm     (name, seeds, task, folder=, deadline=, shorten=, progress=) -> plain data, one
                dict a seed,

where ``run_arm`` raises ``Paused`` of its package when the deadline came first. Also
``python -m reproductions.press.scale``, on a machine that has the packages for mathematics,
matplotlib, pooch and typer but nothing for notebooks (name the GPU's folder of data there).
"""

from __future__ import annotations

import datetime
import hashlib
import importlib
import json
import os
import platform
import re
import time
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from filelock import FileLock

from reproductions.chapter import datasets
from reproductions.chapter.profile import resolve_device
from reproductions.press.errors import BadInput

__all__ = ["hardware", "machine_folder", "run_scale", "scale_module"]

Echo = Callable[[str], None]


def scale_module(paper: str) -> ModuleType:
    """The module with a paper's arms; BadInput where there is none."""
    if not re.fullmatch(r"[a-z][a-z0-9_]*", paper):
        raise BadInput(
            f"a paper is named like its module, such as super_convergence; got {paper!r}"
        )
    name = f"reproductions.papers.{paper}.scale"
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name not in (name, f"reproductions.papers.{paper}"):
            raise
        raise BadInput(f"{paper} has no runs at the paper's scale ({name} is missing)") from None


def hardware(device: torch.device) -> str:
    """Model of the GPU or processor: what a time depends on, and no name of a machine."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    from reproductions.press.build import machine_class

    return machine_class()


def machine_folder(model: str) -> str:
    """Folder name for a class of machines, such as ``nvidia-h100-80gb-hbm3``."""
    words = re.sub(r"\((?:R|TM)\)", "", model, flags=re.IGNORECASE).lower()
    return re.sub(r"[^a-z0-9]+", "-", words).strip("-")


def _code_digest(module: ModuleType) -> str:
    """Digest of the sources of the paper and of all kernels."""
    package = Path(module.__file__).parent
    kernels = package.parents[1] / "kernels"
    digest = hashlib.sha256()
    for path in sorted([*package.rglob("*.py"), *kernels.rglob("*.py")]):
        digest.update(path.read_bytes().replace(b"\r\n", b"\n"))
    return digest.hexdigest()[:16]


def _write(path: Path, data: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.{uuid.uuid4().hex[:8]}.part")
    part.write_text(
        json.dumps(data, indent=1, sort_keys=True, allow_nan=False) + "\n", encoding="utf-8"
    )
    os.replace(part, path)


def _merge(path: Path, run: dict[str, Any], about: dict[str, Any]) -> None:
    """Put a run on record, in place of an earlier one of the same arm, seed and length."""
    path.parent.mkdir(parents=True, exist_ok=True)
    key = ("arm", "seed", "shorten")
    # two commands at once must not lose each other's runs
    with FileLock(path.with_name(f".{path.stem}.lock")):
        record = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {"runs": []}
        record["runs"] = [r for r in record["runs"] if any(r[k] != run[k] for k in key)] + [run]
        _write(path, record | about)


def run_scale(
    paper: str,
    arms: Sequence[str],
    seeds: Sequence[int],
    *,
    results: Path,
    folder: Path,
    device: str = "auto",
    minutes: float | None = None,
    shorten: int = 1,
    echo: Echo = print,
) -> list[str]:
    """Run arms from seeds, those on record left out; returns what the time did not suffice for.

    Args:
        paper: name of the paper's module.
        arms: keys of its ``ARMS``, in order of importance.
        seeds: seeds of each arm; all arms run from the first seed before the second begins, but
            for those whose seeds make one program on a GPU.
        results: folder of records; ``<results>/<hardware>/<paper>.json`` is merged into.
        folder: where checkpoints are kept, those of finished arms too.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        minutes: stop, with a checkpoint, after so many; None goes on to the end.
        shorten: divide iterations and test images by this, for a trial; such records say so.
        echo: prints one line of progress.

    Raises:
        BadInput: an unknown paper or arm, no time, a device that is not there.
    """
    module = scale_module(paper)
    package = importlib.import_module(module.__package__)
    unknown = [arm for arm in arms if arm not in module.ARMS]
    if unknown:
        raise BadInput(f"no arm {unknown[0]!r}; {paper} has {', '.join(module.ARMS)}")
    if minutes is not None and not minutes > 0:
        raise BadInput(f"--minutes must be greater than 0, got {minutes}")
    if shorten < 1:
        raise BadInput(f"--shorten must be at least 1, got {shorten}")
    deadline = None if minutes is None else time.monotonic() + 60 * minutes
    try:
        where = resolve_device(device)
    except ValueError as error:
        raise BadInput(str(error)) from error
    model = hardware(where)
    path = results / machine_folder(model) / f"{paper}.json"
    record = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {"runs": []}
    done = {(run["arm"], run["seed"], run["shorten"]) for run in record["runs"]}
    asked = dict.fromkeys((arm, seed) for seed in seeds for arm in arms)
    # (arm, seed) -> that seed; (arm, None) -> all seeds, where they make one program
    wanted: dict[tuple[str, int | None], list[int]] = {}
    for arm, seed in asked:
        if (arm, seed, shorten) not in done:
            together = where.type == "cuda" and module.ARMS[arm].together
            wanted.setdefault((arm, None if together else seed), []).append(seed)
    if not wanted:
        echo(f"all on record in {path}")
        return []
    # what is running, not what the files say when it ends
    code = _code_digest(module)
    tasks: dict[str, Any] = {}
    # a data set that cannot be had is to be missed now, not after the hours of the other arms
    for dataset in dict.fromkeys(module.ARMS[arm].dataset for arm, _ in wanted):
        data = datasets.load(dataset)
        arrays = data.train_images, data.train_labels, data.test_images, data.test_labels
        tasks[dataset] = module.task_from(dataset, *arrays, device=where)
    left = []
    for (arm, _), group in wanted.items():
        label = f"{arm} / seed {', '.join(map(str, group))}"
        if deadline is not None and time.monotonic() > deadline:
            left.append(label)
            continue
        started = time.monotonic()

        def progress(_: str, step: int, n_steps: int, label=label, started=started) -> None:
            echo(f"{label}: {step:,} of {n_steps:,} ({time.monotonic() - started:.0f} s)")

        try:
            found = module.run_arm(
                arm,
                group,
                tasks[module.ARMS[arm].dataset],
                folder=folder,
                deadline=deadline,
                shorten=shorten,
                progress=progress,
            )
        except package.Paused as pause:
            echo(f"paused: {pause}")
            left.append(label)
            continue
        for one in found:
            run = {
                "arm": arm,
                "shorten": shorten,
                "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
                "torch": torch.__version__,
                "python": platform.python_version(),
                "code": code,
                **one,
            }
            _merge(path, run, {"paper": paper, "machine": model})
            echo(f"{arm} / seed {one['seed']}: {one['accuracy']} in {one['seconds']:.0f} s")
    return left


if __name__ == "__main__":
    import sys

    import typer

    from reproductions.press.errors import PressError
    from reproductions.press.scale_command import scale

    try:
        typer.run(scale)
    except PressError as error:
        print(error, file=sys.stderr)
        raise SystemExit(error.exit_code) from None
