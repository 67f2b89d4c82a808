"""Register cases, time ours and the peers interleaved, write one JSON file a machine.

A benchmark script registers with :func:`benchmark` a function that prepares its inputs and returns
a :class:`Case`. :func:`main` runs the cases chosen by name, each in a process of its own so that
peak memory belongs to one case, and merges the records into ``results/<machine>.json``.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import platform
import re
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

__all__ = ["REGISTRY", "Case", "benchmark", "main"]

FOLDER = Path(__file__).parent
RESULTS = FOLDER / "results"
PACKAGES = ("torch", "numpy", "scipy", "mpmath", "python-flint", "triton", "scikit-learn")
REPEATS = 5


@dataclass
class Case:
    """What to time.

    ``ours`` and each of ``peers`` are called without arguments; ``check`` compares what they return
    and raises if they do not compute the same. ``facts`` are numbers that belong to the record
    (sizes, counts); ``extrapolate`` maps a peer's name to the factor from what is timed to the
    whole job, for peers too slow to run in full. ``targets`` are words for the reader.
    """

    ours: Callable[[], object]
    peers: dict[str, Callable[[], object]] = field(default_factory=dict)
    check: Callable[[dict[str, object]], None] | None = None
    facts: dict[str, object] = field(default_factory=dict)
    extrapolate: dict[str, float] = field(default_factory=dict)
    targets: dict[str, str] = field(default_factory=dict)
    threads: int = 1


REGISTRY: dict[str, Callable[[], Case]] = {}


def benchmark(name: str) -> Callable[[Callable[[], Case]], Callable[[], Case]]:
    """Register the decorated function, which prepares inputs and returns a :class:`Case`."""

    def register(prepare: Callable[[], Case]) -> Callable[[], Case]:
        if name in REGISTRY:
            raise ValueError(f"name must be new, got {name!r} twice")
        REGISTRY[name] = prepare
        return prepare

    return register


def load() -> None:
    """Import every benchmark script of this folder, so that it registers its cases."""
    sys.path.insert(0, str(FOLDER))
    for script in sorted(FOLDER.glob("*.py")):
        if script.stem != "run" and not script.stem.startswith("_"):
            __import__(script.stem)


def machine() -> dict[str, object]:
    """Class of the machine: processor, cores, memory, system; nothing that names the host."""
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        found = re.search(r"^model name\s*:\s*(.+)$", cpuinfo.read_text(), re.MULTILINE)
        model = found.group(1).strip() if found else model
    record = {"cpu": model, "cores": os.cpu_count(), "system": platform.system()}
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        record["memory_gib"] = round(pages / 2**30)
    import torch

    if torch.cuda.is_available():
        record["gpu"] = torch.cuda.get_device_name()
    return record


def machine_name(record: dict[str, object]) -> str:
    """File name for a class of machines, such as ``intel-xeon-processor-2-cores``."""
    words = [str(record["cpu"]), f"{record['cores']}-cores", str(record.get("gpu", ""))]
    text = re.sub(r"\((?:R|TM)\)", "", " ".join(words), flags=re.IGNORECASE).lower()
    return re.sub(r"[^a-z0-9]+", "-", text).strip("-")


def versions() -> dict[str, str]:
    """Versions of Python and of the packages the numbers depend on."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def run_case(case: Case, repeats: int = REPEATS) -> dict[str, object]:
    """Time ours and the peers in turn, ``repeats`` times after one warm-up; return the record."""
    import torch

    torch.set_num_threads(case.threads)
    callables = {"ours": case.ours, **case.peers}
    outputs = {name: call() for name, call in callables.items()}
    if case.check is not None:
        case.check(outputs)
    del outputs
    seconds: dict[str, list[float]] = {name: [] for name in callables}
    for _ in range(repeats):
        for name, call in callables.items():
            gc.collect()
            start = time.perf_counter()
            call()
            seconds[name].append(time.perf_counter() - start)
    medians = {name: statistics.median(times) for name, times in seconds.items()}
    whole = {name: medians[name] * case.extrapolate.get(name, 1.0) for name in medians}
    return {
        "seconds": {
            name: {
                "median": medians[name],
                "least": min(times),
                "greatest": max(times),
                **({"extrapolated": whole[name]} if name in case.extrapolate else {}),
            }
            for name, times in seconds.items()
        },
        "runs": repeats,
        "ratios": {name: whole[name] / whole["ours"] for name in case.peers},
        "threads": case.threads,
        "facts": case.facts,
        "targets": case.targets,
        # Linux counts kibibytes, macOS bytes.
        "peak_memory_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        / (2**20 if sys.platform == "darwin" else 2**10),
    }


def run_apart(name: str, repeats: int) -> dict[str, object]:
    """Run one case in a child process of its own."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    command = [sys.executable, str(FOLDER / "run.py"), "--child", name, "--repeats", str(repeats)]
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{name} failed with exit status {done.returncode}")
    return json.loads(done.stdout.splitlines()[-1])


def describe(name: str, record: dict[str, object]) -> str:
    """One line a timing for the terminal."""
    lines = []
    for which, seconds in record["seconds"].items():
        value = seconds.get("extrapolated", seconds["median"])
        ratio = record["ratios"].get(which)
        note = f"   {ratio:.3g} x ours" if ratio is not None else ""
        note += "   (extrapolated)" if "extrapolated" in seconds else ""
        lines.append(f"  {which:<24}{value:>12.4g} s{note}")
    peak = f"  peak memory {record['peak_memory_mib']:.0f} MiB"
    targets = [f"  target: {text}" for text in record["targets"].values()]
    return "\n".join([name, *lines, peak, *targets])


def main(arguments: list[str] | None = None) -> int:
    """Run the benchmarks named (all by default) and write ``results/<machine>.json``."""
    parser = argparse.ArgumentParser(prog="benchmarks/run.py", description=main.__doc__)
    parser.add_argument("names", nargs="*", help="cases or scripts; all by default")
    parser.add_argument("--repeats", type=int, default=REPEATS, help="timed runs (at least 5)")
    parser.add_argument("--list", action="store_true", help="print the names and stop")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    load()
    if options.repeats < REPEATS:
        parser.error(f"--repeats must be at least {REPEATS}, got {options.repeats}")
    if options.child:
        print(json.dumps(run_case(REGISTRY[options.child](), options.repeats)))
        return 0
    if options.list:
        print("\n".join(REGISTRY))
        return 0
    chosen = [
        name
        for name, prepare in REGISTRY.items()
        if not options.names or {name, prepare.__module__} & set(options.names)
    ]
    known = {*REGISTRY, *(prepare.__module__ for prepare in REGISTRY.values())}
    unknown = set(options.names) - known
    if unknown:
        parser.error(f"unknown benchmark {', '.join(sorted(unknown))}; choose from {sorted(known)}")
    this_machine = machine()
    target = RESULTS / f"{machine_name(this_machine)}.json"
    stored = json.loads(target.read_text()) if target.exists() else {}
    results = stored.get("results", {})
    for name in chosen:
        record = run_apart(name, options.repeats)
        record["date"] = datetime.now(UTC).date().isoformat()
        record["versions"] = versions()
        results[name] = record
        print(describe(name, record), flush=True)
    RESULTS.mkdir(exist_ok=True)
    document = {"machine": this_machine, "results": dict(sorted(results.items()))}
    temporary = target.with_suffix(".json.tmp")
    temporary.write_text(json.dumps(document, indent=1) + "\n")
    temporary.replace(target)
    print(f"written: benchmarks/results/{target.name}")
    return 0
