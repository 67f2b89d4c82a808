"""What nbval lacks: drift per claim, visible skips, kernels that die without being noticed.

The ``conftest.py`` at the root imports ``pytest_configure`` from here. Without ``--nbval`` it does
nothing.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable
from queue import Empty
from typing import Any

import pytest

__all__ = ["pytest_configure"]


def pytest_configure(config: pytest.Config) -> None:
    """Prepare nbval if this run uses it."""
    if getattr(config.option, "nbval_lax", False):
        raise pytest.UsageError("--nbval-lax compares nothing; use --nbval")
    if not getattr(config.option, "nbval", False):
        return
    if config.option.nbval_sanitize_with:
        raise pytest.UsageError(
            "--nbval-sanitize-with erases what should be compared; claims and figures state how "
            "far they may move"
        )
    if getattr(config.option, "dist", "no") not in ("no", "loadfile", "loadscope"):
        raise pytest.UsageError(
            f"--dist {config.option.dist} spreads the cells of a notebook over several kernels; "
            "add --dist loadfile"
        )
    config.option.nbval_current_env = True
    _prepare_environment(config)
    _teach_nbval()


def _prepare_environment(config: pytest.Config) -> None:
    """Kernels inherit this process's environment: make it the one that builds run in."""
    from reproductions.press.book import Book
    from reproductions.press.execute import environment

    scratch = tempfile.TemporaryDirectory(prefix="reproduce-")
    config.add_cleanup(scratch.cleanup)
    wanted = environment(Book(config.rootpath)) | {"IPYTHONDIR": scratch.name}
    for name in set(os.environ) - set(wanted):
        del os.environ[name]
    os.environ.update(wanted)


def _teach_nbval() -> None:
    from nbval.kernel import RunningKernel
    from nbval.plugin import IPyNbCell

    if getattr(IPyNbCell.compare_outputs, "tolerant", False):
        return
    IPyNbCell.compare_outputs = _tolerant(IPyNbCell.compare_outputs)
    RunningKernel.await_reply = _watchful(RunningKernel.await_reply)


def _tolerant(original: Callable[..., bool]) -> Callable[..., bool]:
    """Compare claims and figures by their data; leave all other outputs to nbval."""
    from reproductions.press.compare import compare_cell, kind_of
    from reproductions.press.notebook import clean_outputs

    def compare_outputs(self: Any, test: list, ref: list, skip_compare: Any = None) -> bool:
        if not hasattr(self.parent, "announced"):
            self.parent.announced = set()
        test, ref = clean_outputs(test), clean_outputs(ref)
        comparison = compare_cell(ref, test, self.parent.announced)
        if comparison.status == "passed":
            return True
        if comparison.status == "skipped":
            pytest.skip("; ".join(comparison.skips))
        plain = [
            [o for o in outputs if kind_of(o) not in ("claims", "figure", "skipped")]
            for outputs in (test, ref)
        ]
        # nbval shows differences of plain outputs well; it also resets this list
        self.comparison_traceback = []
        original(self, *plain, skip_compare)
        self.comparison_traceback[:0] = comparison.messages
        return False

    compare_outputs.tolerant = True
    return compare_outputs


def _watchful(original: Callable[..., Any]) -> Callable[..., Any]:
    """Wait for a reply as long as before, but only while the kernel lives."""

    def await_reply(self: Any, msg_id: str, timeout: float | None = None) -> Any:
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            left = 1.0 if deadline is None else min(1.0, max(0.0, deadline - time.monotonic()))
            try:
                return original(self, msg_id, timeout=left)
            except Empty:
                if not self.is_alive():
                    raise RuntimeError("the kernel died in this cell") from None
                if deadline is not None and time.monotonic() >= deadline:
                    raise

    return await_reply
