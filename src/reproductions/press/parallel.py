"""Work through a list, several items at a time, and stop cleanly."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import TypeVar

__all__ = ["work_through"]

T = TypeVar("T")
R = TypeVar("R")


def work_through(
    items: Sequence[T],
    work: Callable[[T, threading.Event], R],
    *,
    jobs: int = 1,
    on_done: Callable[[T, R], None] | None = None,
) -> list[R]:
    """Call ``work(item, stop)`` for all items, ``jobs`` at a time; the results in the items' order.

    When something interrupts this, ``stop`` is set, and it returns only after all work has ended.
    """
    stop = threading.Event()
    results: dict[int, R] = {}
    pool = ThreadPoolExecutor(max_workers=max(1, jobs))
    try:
        waiting: dict[Future[R], int] = {
            pool.submit(work, item, stop): k for k, item in enumerate(items)
        }
        while waiting:
            finished, _ = wait(waiting, timeout=0.5, return_when=FIRST_COMPLETED)
            for future in finished:
                k = waiting.pop(future)
                results[k] = future.result()
                if on_done:
                    on_done(items[k], results[k])
    except BaseException:
        stop.set()
        raise
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
    return [results[k] for k in range(len(items))]
