"""Triton forms without a GPU: under the interpreter, and compiled for a GPU that is not here."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest


def _python(code: str, text: str | None = None, **environment: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-c", code],
        input=text,
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


@pytest.fixture
def needs_triton() -> None:
    """Skip where triton is not installed."""
    if find_spec("triton") is None:
        pytest.skip("triton is not installed on this machine")


@pytest.fixture
def interpret(needs_triton) -> Callable[..., Any]:
    """Run code in a Python of its own under Triton's interpreter: JSON in, JSON out.

    The interpreter has to be asked for before triton is imported, hence the new process.
    """

    def run(code: str, given: Any = None) -> Any:
        done = _python(code, json.dumps(given), TRITON_INTERPRET="1")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return run


@pytest.fixture
def compile_offline(needs_triton, tmp_path: Path) -> Callable[[str], list[str]]:
    """Run code that compiles kernels and return the words it prints.

    The interpreter accepts what the compiler may refuse. From a file: the compiler reads its
    kernels' source, not this script's, but stays strict.
    """

    def run(code: str) -> list[str]:
        script = tmp_path / "compile_kernels.py"
        script.write_text(code)
        done = _python(
            f"import runpy; runpy.run_path({str(script)!r})",
            TRITON_CACHE_DIR=str(tmp_path / "cache"),
            TRITON_INTERPRET="0",
        )
        if "ptxas" in done.stderr and "not found" in done.stderr.lower():
            pytest.skip("this triton has no ptxas")
        assert done.returncode == 0, done.stderr[-2000:]
        return done.stdout.split()

    return run
