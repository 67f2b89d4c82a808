"""Limit kernels against Google's neural-tangents, which needs an environment of its own.

``python benchmarks/neural_tangents_peer.py --install`` creates that environment (Python 3.11, 2 GB,
minutes) in the user's cache and times the cases below; from then on ``run.py`` times them too.
Where the environment does not exist or cannot be created, they are skipped.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path

import numpy as np
import pooch
import torch
from _harness import Case, benchmark
from _harness import main as run

from reproductions.kernels.dual_kernel import dual_kernel

# They work together; with a jax of today neural-tangents 0.6.5 does not import.
PACKAGES = (
    "neural-tangents==0.6.5",
    "jax==0.4.23",
    "jaxlib==0.4.23",
    "numpy<2",
    "scipy<1.13",
    "tensorflow==2.15.*",
    "tf2jax==0.3.5",
)
ENVIRONMENT = Path(pooch.os_cache("reproductions")) / "neural-tangents"
# Written last: an installation that was cut off does not count.
COMPLETE = ENVIRONMENT / "complete"
BETA = 0.1

# What the peer's own environment runs: one request a line, {"depth": L}, with "save": path where
# the kernels are wanted; answered by a line as soon as they are ready.
SIDE = """
import json, os, sys
import jax, neural_tangents, numpy
from neural_tangents import stax

if hasattr(os, "sched_setaffinity"):
    # one core for all of XLA's threads, as for ours
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
x, beta, functions = jax.numpy.asarray(numpy.load(sys.argv[1])), float(sys.argv[2]), {}

def prepare(depth):
    dense = stax.Dense(1, W_std=1.0, b_std=beta, parameterization="ntk")
    _, _, kernel = stax.serial(*[dense, stax.Relu()] * (depth - 1), dense)
    return jax.jit(lambda x: tuple(kernel(x, None, ("nngp", "ntk"))))

versions = {"neural-tangents": neural_tangents.__version__, "jax": jax.__version__}
print(json.dumps(versions), flush=True)
for line in sys.stdin:
    request = json.loads(line)
    depth = request["depth"]
    if depth not in functions:
        functions[depth] = prepare(depth)
    kernels = jax.block_until_ready(functions[depth](x))
    if "save" in request:
        numpy.save(request["save"], numpy.stack(kernels))
    print("ready", flush=True)
"""


class Peer:
    """neural-tangents in a process of its own, which keeps what it has compiled."""

    def __init__(self, x: np.ndarray):
        self.folder = tempfile.TemporaryDirectory()
        data = Path(self.folder.name) / "x.npy"
        np.save(data, x)
        self.process = subprocess.Popen(
            [ENVIRONMENT / "bin" / "python", "-c", SIDE, data, str(BETA)],
            env={
                **os.environ,
                "JAX_ENABLE_X64": "1",
                "JAX_PLATFORMS": "cpu",
                "TF_CPP_MIN_LOG_LEVEL": "3",
            },
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.versions = json.loads(self.answer())

    def answer(self) -> str:
        """The peer's next line."""
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"neural-tangents ended with exit status {self.process.wait()}")
        return line

    def run(self, depth: int, **request) -> None:
        """Return when both kernels of that depth are there."""
        print(json.dumps({"depth": depth, **request}), file=self.process.stdin, flush=True)
        self.answer()

    def kernels(self, depth: int) -> torch.Tensor:
        """Both kernels, (2, N, N)."""
        target = Path(self.folder.name) / "kernels.npy"
        self.run(depth, save=str(target))
        return torch.from_numpy(np.load(target))


def register(depth: int) -> None:
    @benchmark(f"limit kernels against neural-tangents: 1000 points, depth {depth}")
    def case() -> Case:
        generator = torch.Generator().manual_seed(0)
        x = torch.randn(1000, 100, generator=generator, dtype=torch.float64)
        peer = Peer(x.numpy())
        ours = partial(dual_kernel, x, depth=depth, bias_scale=BETA)
        error = (peer.kernels(depth) - torch.stack(ours())).abs()
        on = error.diagonal(dim1=1, dim2=2).max().item()
        error.diagonal(dim1=1, dim2=2).zero_()
        facts = {
            "points": len(x),
            "features": x.shape[1],
            "depth": depth,
            "difference off the diagonal": error.max().item(),
            "difference on the diagonal": on,
            **peer.versions,
        }
        # Theirs loses half the digits of cosines near 1, ours does not.
        assert max(error.max().item(), on) < 1e-6, facts
        return Case(ours=ours, peers={"neural-tangents": partial(peer.run, depth)}, facts=facts)


if COMPLETE.exists() and __name__ != "__main__":
    for _depth in (3, 4, 10):
        register(_depth)


def install() -> str | None:
    """Create the environment; return what went wrong, if anything did."""
    python = shutil.which("python3.11")
    if python is None:
        return "python3.11 is not on the path"
    shutil.rmtree(ENVIRONMENT, ignore_errors=True)
    pip = [ENVIRONMENT / "bin" / "python", "-m", "pip", "install", "--quiet", *PACKAGES]
    for command in ([python, "-m", "venv", ENVIRONMENT], pip):
        if subprocess.run(command, check=False).returncode:
            return f"{' '.join(map(str, command[:5]))} failed"
    COMPLETE.touch()
    return None


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--install", action="store_true", help="create the peer's environment")
    problem = None
    if not parser.parse_args().install and not COMPLETE.exists():
        problem = "--install creates its environment"
    elif not COMPLETE.exists():
        problem = install()
    if problem:
        print(f"skipped: neural-tangents is not installed ({problem})")
        return 0
    return run([Path(__file__).stem])


if __name__ == "__main__":
    sys.exit(main())
