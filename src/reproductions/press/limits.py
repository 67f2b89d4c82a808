"""What an execution may use, and what this machine has."""

from __future__ import annotations

import dataclasses
import os
from dataclasses import dataclass
from pathlib import Path

import psutil

__all__ = ["Limits", "cores", "usable_memory"]


@dataclass(frozen=True)
class Limits:
    """What an execution may use.

    Args:
        cell_seconds: time-out of each cell.
        memory: bytes of resident memory of the kernel and all processes it starts.
        start_seconds: time-out of the kernel's start.
    """

    cell_seconds: int = 600
    memory: int | None = None
    start_seconds: int = 120

    def shared_by(self, jobs: int) -> Limits:
        """The same limits with the memory divided among ``jobs`` executions at a time."""
        if self.memory is None:
            return self
        return dataclasses.replace(self, memory=self.memory // max(1, jobs))


def cores() -> int:
    """Number of cores that this process may use."""
    process = psutil.Process()
    return len(process.cpu_affinity()) if hasattr(process, "cpu_affinity") else os.cpu_count() or 1


def usable_memory() -> int:
    """Bytes of memory this process may use: the machine's, or the control group's if smaller."""
    limits = [psutil.virtual_memory().total]
    for name in ("memory.max", "memory/memory.limit_in_bytes"):
        file = Path("/sys/fs/cgroup") / name
        try:
            text = file.read_text().strip()
        except OSError:
            continue
        if text.isdigit():
            limits.append(int(text))
    return min(limits)
