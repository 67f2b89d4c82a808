"""Many parameter sets through the same function, on this machine or on a Dask cluster.

A task is a pure function of its specification and starts papermill in a child process, so a crash
kills the child and not the worker. The folder of a result is named by the specification's digest
and complete once it has ``done.json``: a task that runs twice does no harm, and a sweep that was
stopped goes on with what is missing.
"""

from __future__ import annotations

import dataclasses
import itertools
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from reproductions.press.book import Book, Chapter, find_book
from reproductions.press.errors import BadInput
from reproductions.press.execute import Progress
from reproductions.press.limits import Limits
from reproductions.press.runs import Record, Spec, make_spec, run_many, run_one

__all__ = ["connect", "grid", "run_sweep", "seeds_of"]


def seeds_of(text: str) -> list[int]:
    """``0-4`` or ``0,1,7`` or both: ``0-4,7``."""
    seeds: list[int] = []
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\d+)\s*(?:-\s*(\d+)\s*)?", part)
        if not match or (match.group(2) and int(match.group(2)) < int(match.group(1))):
            raise BadInput(f"seeds are given as 0-4 or 0,1,7; got {text!r}")
        seeds.extend(range(int(match.group(1)), int(match.group(2) or match.group(1)) + 1))
    return list(dict.fromkeys(seeds))


def grid(chapter: Chapter, axes: Mapping[str, Sequence[Any]]) -> list[Spec]:
    """One specification for each combination of the values in ``axes``."""
    points = itertools.product(*axes.values())
    specs = [make_spec(chapter, dict(zip(axes, point, strict=True))) for point in points]
    return list({spec.key: spec for spec in specs}.values())


def connect(address: str) -> Any:
    """A client of the Dask scheduler at ``address``.

    Raises BadInput where Dask is not installed or no scheduler answers.
    """
    try:
        from distributed import Client
    except ImportError:
        raise BadInput(
            "a Dask cluster needs the packages of the extra `scale`: pip install "
            "'reproductions[scale]'"
        ) from None
    try:
        return Client(address, timeout=10)
    except (OSError, ValueError) as error:
        raise BadInput(f"no Dask scheduler answers at {address!r} ({error})") from None


def run_sweep(
    specs: Iterable[Spec],
    client: Any = None,
    *,
    limits: Limits | None = None,
    jobs: int = 1,
    fresh: bool = False,
    on_progress: Callable[[Spec, Progress], None] | None = None,
    on_done: Callable[[Spec, Record], None] | None = None,
) -> list[Record]:
    """Run all ``specs`` and return their records, failures among them, in the same order.

    Args:
        specs: what to run; see ``grid``.
        client: a ``distributed.Client`` whose workers see the book's folder under the same path;
            without one, ``jobs`` child processes of this process do the work.
        limits: time and memory of each execution.
        jobs: executions at a time on this machine.
        fresh: execute again what is done.
        on_progress: called as each cell begins (on this machine only).
        on_done: called with each specification and its record as they come.
    """
    specs, limits = list(specs), limits or Limits()
    if client is None:
        return run_many(
            specs, limits, jobs=jobs, fresh=fresh, on_progress=on_progress, on_done=on_done
        )
    from distributed import as_completed

    futures = {
        client.submit(
            _remote,
            str(spec.chapter.book.root),
            spec.chapter.name,
            dict(spec.changed),
            spec.key,
            dataclasses.asdict(limits),
            fresh,
            key=f"{spec.chapter.name}-{spec.key}",
            # for lost machines only: a failed execution is a record and not an exception
            retries=2,
            pure=False,
        ): spec
        for spec in specs
    }
    records: dict[str, Record] = {}
    for future in as_completed(futures):
        spec = futures[future]
        if future.status == "finished":
            records[spec.key] = Record(**future.result())
        else:
            records[spec.key] = _lost(spec, future.exception())
        if on_done:
            on_done(spec, records[spec.key])
    return [records[spec.key] for spec in specs]


def _remote(
    root: str,
    name: str,
    changed: dict[str, Any],
    key: str,
    limits: dict[str, Any],
    fresh: bool,
) -> dict[str, Any]:
    """Run one specification on a worker."""
    book: Book = find_book(Path(root))
    spec = make_spec(book.chapter(name), changed)
    if spec.key != key:
        reason = (
            f"{spec.label}: the worker sees other sources in {root} than the sweep was made from"
        )
        return vars(Record(name, key, dict(spec.parameters), ok=False, seconds=0.0, reason=reason))
    return vars(run_one(spec, Limits(**limits), fresh=fresh))


def _lost(spec: Spec, error: BaseException | None) -> Record:
    reason = f"{spec.label}: the cluster gave it up ({type(error).__name__}: {error})"
    return Record(
        spec.chapter.name, spec.key, dict(spec.parameters), ok=False, seconds=0.0, reason=reason
    )
