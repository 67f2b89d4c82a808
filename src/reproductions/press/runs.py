"""Run chapters with any parameters: resumable, in parallel, never over a stored notebook.

A run's folder is named by a digest of its specification and of everything its outputs depend on.
``done.json`` is written there last, so a folder that has one is complete. What failed is kept as
``runs/CHAPTER/failed.ipynb`` with one line beside it that says why.
"""

from __future__ import annotations

import datetime
import hashlib
import json
import os
import shutil
import threading
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nbformat

from reproductions.press.book import Chapter, check_parameters, make_writable_folder
from reproductions.press.compare import kind_of
from reproductions.press.errors import BadInput
from reproductions.press.execute import Outcome, Progress, execute
from reproductions.press.limits import Limits
from reproductions.press.notebook import (
    code_cells,
    inject,
    parameters_of,
    provenance,
    read_source,
    take_outputs,
    write,
)
from reproductions.press.parallel import work_through

__all__ = [
    "Record",
    "Spec",
    "expected_seconds",
    "keep_failed",
    "latest",
    "make_spec",
    "recorded_timing",
    "remove_abandoned",
    "run_many",
    "run_one",
]


@dataclass(frozen=True)
class Spec:
    """One execution: a chapter and the full set of its parameters."""

    chapter: Chapter
    parameters: tuple[tuple[str, Any], ...]
    changed: tuple[tuple[str, Any], ...]
    key: str

    @property
    def canonical(self) -> bool:
        """Whether this is the run that the stored notebook shows."""
        return not self.changed

    @property
    def folder(self) -> Path:
        """Where the result is kept."""
        return self.chapter.runs / self.key

    @property
    def label(self) -> str:
        """The chapter, with the parameters that differ from its own."""
        extra = ", ".join(f"{name}={value}" for name, value in self.changed)
        return f"{self.chapter.name} ({extra})" if extra else self.chapter.name


@dataclass
class Record:
    """What became of a specification; also the content of ``done.json``."""

    chapter: str
    key: str
    parameters: dict[str, Any]
    ok: bool
    seconds: float
    reason: str = ""
    resumed: bool = False
    skipped: int = 0
    peak_memory: int = 0
    cell_seconds: list[float] = field(default_factory=list)
    notebook: str = ""
    finished: str = ""


def make_spec(chapter: Chapter, overrides: Mapping[str, Any] | None = None) -> Spec:
    """The specification of ``chapter`` with ``overrides`` in place of its own parameters.

    Raises BadInput for a parameter the chapter does not have, or a chapter without a proper
    parameters cell.
    """
    try:
        defaults = parameters_of(read_source(chapter))
    except ValueError as error:
        raise BadInput(f"chapters/{chapter.name}.py: {error}") from None
    changed = check_parameters(defaults, overrides or {}, chapter.name)
    parameters = defaults | changed
    made_from = {**provenance(chapter), "parameters": parameters}
    key = hashlib.sha256(json.dumps(made_from, sort_keys=True).encode()).hexdigest()[:16]
    return Spec(chapter, tuple(sorted(parameters.items())), tuple(sorted(changed.items())), key)


def read_done(folder: Path) -> Record | None:
    """The record in ``folder`` if the run there is complete."""
    try:
        data = json.loads((folder / "done.json").read_text())
        record = Record(**data)
    except (FileNotFoundError, ValueError, TypeError):
        return None
    return record if (folder / "notebook.ipynb").is_file() else None


def latest(chapter: Chapter, overrides: Mapping[str, Any] | None = None) -> Path | None:
    """Notebook of the finished run of the chapter as it is now, if there is one."""
    spec = make_spec(chapter, overrides)
    return spec.folder / "notebook.ipynb" if read_done(spec.folder) else None


def run_one(
    spec: Spec,
    limits: Limits,
    *,
    fresh: bool = False,
    on_progress: Callable[[Progress], None] | None = None,
    stop: threading.Event | None = None,
) -> Record:
    """Execute ``spec``, unless it is done already and ``fresh`` is false.

    A failure is a record, not an exception, so that one failed seed does not end a sweep.
    """
    done = read_done(spec.folder)
    # a run that lacked a data set is made again: it may be there now
    if done and not fresh and not done.skipped:
        done.resumed = True
        return done
    make_writable_folder(spec.chapter.runs)
    attempt = spec.chapter.runs / f".attempt-{spec.key}-{os.getpid()}-{uuid.uuid4().hex[:8]}"
    attempt.mkdir()
    try:
        source = inject(read_source(spec.chapter), dict(spec.changed))
        output = attempt / "notebook.ipynb"
        outcome = execute(
            source,
            output,
            book=spec.chapter.book,
            limits=limits,
            on_progress=on_progress,
            stop=stop,
        )
        record = _record(spec, outcome)
        if not outcome.ok:
            keep_failed(spec.chapter, output, record.reason)
            return record
        notebook = take_outputs(source, nbformat.read(output, as_version=4))
        outputs = [o for cell in code_cells(notebook) for o in cell.outputs]
        record.skipped = sum(kind_of(o) == "skipped" for o in outputs)
        write(notebook, output)
        _publish(attempt, spec.folder, record)
        return record
    finally:
        shutil.rmtree(attempt, ignore_errors=True)


def _record(spec: Spec, outcome: Outcome) -> Record:
    now = datetime.datetime.now(datetime.UTC)
    return Record(
        chapter=spec.chapter.name,
        key=spec.key,
        parameters=dict(spec.parameters),
        ok=outcome.ok,
        seconds=round(outcome.seconds, 2),
        reason="" if outcome.ok else outcome.describe(spec.label),
        peak_memory=outcome.peak_memory,
        cell_seconds=outcome.cell_seconds,
        notebook=f"runs/{spec.chapter.name}/{spec.key}/notebook.ipynb",
        finished=now.isoformat(timespec="seconds"),
    )


def _publish(attempt: Path, folder: Path, record: Record) -> None:
    """Move the result into its folder; the file that says it is complete comes last."""
    folder.mkdir(exist_ok=True)
    os.replace(attempt / "notebook.ipynb", folder / "notebook.ipynb")
    (attempt / "done.json").write_text(json.dumps(vars(record), indent=1, sort_keys=True) + "\n")
    os.replace(attempt / "done.json", folder / "done.json")


def keep_failed(chapter: Chapter, output: Path, reason: str) -> None:
    """Keep what a failed execution left, and why it failed."""
    if output.is_file():
        os.replace(output, chapter.runs / "failed.ipynb")
    text = chapter.runs / f".failed-{uuid.uuid4().hex[:8]}.txt"
    text.write_text(reason + "\n")
    os.replace(text, chapter.runs / "failed.txt")


def remove_abandoned(chapters: Iterable[Chapter]) -> None:
    """Remove what commands left that were killed. The caller holds the chapters' locks."""
    for chapter in chapters:
        for folder in chapter.runs.glob(".attempt-*"):
            shutil.rmtree(folder, ignore_errors=True)


def expected_seconds(spec: Spec) -> float | None:
    """How long this took before: the last run with the same parameters, or the committed record."""
    wanted = dict(spec.parameters)
    past = [
        r for f in spec.chapter.runs.glob("*/done.json") if (r := read_done(f.parent)) is not None
    ]
    past = sorted((r for r in past if r.parameters == wanted), key=lambda r: r.finished)
    if past:
        return past[-1].seconds
    recorded = recorded_timing(spec.chapter) if spec.canonical else None
    return None if recorded is None else recorded["seconds"]


def recorded_timing(chapter: Chapter) -> dict[str, Any] | None:
    """The committed record of how long the stored run took; None without a sound one."""
    try:
        record = json.loads(chapter.timing.read_text(encoding="utf-8"))
        sound = {"seconds": float(record["seconds"])}
        return sound | {name: str(record[name]) for name in ("machine", "date")}
    except (FileNotFoundError, ValueError, TypeError, KeyError):
        return None


def run_many(
    specs: Sequence[Spec],
    limits: Limits,
    *,
    jobs: int = 1,
    fresh: bool = False,
    on_progress: Callable[[Spec, Progress], None] | None = None,
    on_done: Callable[[Spec, Record], None] | None = None,
) -> list[Record]:
    """Run ``specs``, ``jobs`` at a time; longest first where it is known how long each takes.

    Raises KeyboardInterrupt after all kernels are gone.
    """
    report = on_progress or (lambda spec, progress: None)
    share = limits.shared_by(jobs)
    order = sorted(specs, key=lambda s: -(expected_seconds(s) or float("inf")))

    def work(spec: Spec, stop: threading.Event) -> Record:
        return run_one(spec, share, fresh=fresh, on_progress=lambda p: report(spec, p), stop=stop)

    records = work_through(order, work, jobs=jobs, on_done=on_done)
    by_key = {spec.key: record for spec, record in zip(order, records, strict=True)}
    return [by_key[spec.key] for spec in specs]
