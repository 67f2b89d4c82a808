"""For child processes: end when the command that started them does, whatever ended it."""

from __future__ import annotations

import contextlib
import os
import threading

import psutil

__all__ = ["end_with_parent", "kill_descendants"]


def kill_descendants() -> None:
    """Kill all that this process started."""
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()


def end_with_parent() -> None:
    """Watch standard input, whose other end the parent holds open as long as it lives."""
    threading.Thread(target=_watch, daemon=True).start()


def _watch() -> None:
    # not through sys.stdin, whose lock a blocked thread would hold while the interpreter ends
    while os.read(0, 4096):
        pass
    kill_descendants()
    os._exit(1)
