"""Turn a chapter's ``.py`` into its ``.ipynb`` with outputs."""

from __future__ import annotations

import datetime
import json
import os
import platform
import shutil
import threading
import uuid
from collections.abc import Callable
from pathlib import Path

import nbformat

from reproductions.press.book import Chapter, make_writable_folder
from reproductions.press.drift import check_chapter, content_problems, source_problems
from reproductions.press.execute import Outcome, Progress, execute
from reproductions.press.limits import Limits, cores
from reproductions.press.notebook import provenance, read_source, stamp, take_outputs, write
from reproductions.press.runs import keep_failed

__all__ = ["build_chapter", "machine_class", "record_timing"]


def build_chapter(
    chapter: Chapter,
    limits: Limits,
    *,
    force: bool = False,
    record: bool = False,
    on_progress: Callable[[Progress], None] | None = None,
    stop: threading.Event | None = None,
) -> tuple[Outcome, list[str]]:
    """Execute ``chapter`` as it stands and store the result, if it may be stored.

    Returns the outcome and the reasons, one line each, why the stored notebook was left as it was;
    no reason means that it was written (or, without ``force``, was current already).
    """
    if not force and not check_chapter(chapter):
        return Outcome(), []
    source, made_from = read_source(chapter), provenance(chapter)
    problems = [str(p) for p in source_problems(source, chapter)]
    if problems:
        return Outcome(), problems
    # asked before minutes are spent on an execution that could not be stored
    make_writable_folder(chapter.book.chapters_folder)
    make_writable_folder(chapter.runs)
    attempt = chapter.runs / f".attempt-build-{os.getpid()}-{uuid.uuid4().hex[:8]}"
    attempt.mkdir()
    try:
        output = attempt / "notebook.ipynb"
        outcome = execute(
            source, output, book=chapter.book, limits=limits, on_progress=on_progress, stop=stop
        )
        reasons = [] if outcome.ok else [outcome.describe(chapter.name)]
        if outcome.ok:
            notebook = take_outputs(source, nbformat.read(output, as_version=4))
            notebook = stamp(notebook, made_from)
            reasons = [str(p) for p in content_problems(notebook, chapter)]
            reasons += _live(outcome, chapter)
        if reasons:
            keep_failed(chapter, output, "\n".join(reasons))
            return outcome, reasons
        write(notebook, chapter.notebook)
    finally:
        shutil.rmtree(attempt, ignore_errors=True)
    if record or not chapter.timing.is_file():
        record_timing(chapter, outcome)
    return outcome, []


def _live(outcome: Outcome, chapter: Chapter) -> list[str]:
    if not outcome.live:
        return []
    return [
        f"chapters/{chapter.name}.py: sends {', '.join(outcome.live)}, which changes an output "
        "after it was shown; show each result once, when it is final"
    ]


def machine_class() -> str:
    """Processor model and number of cores: what a time depends on, and no name of a machine."""
    model = platform.processor() or platform.machine()
    if Path("/proc/cpuinfo").is_file():
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                model = line.partition(":")[2].strip()
                break
    return f"{model}, {cores()} cores"


def record_timing(chapter: Chapter, outcome: Outcome) -> None:
    """Write how long the stored run took, and where, to the committed record."""
    chapter.timing.parent.mkdir(parents=True, exist_ok=True)
    data = {
        "chapter": chapter.name,
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "machine": machine_class(),
        "peak_memory_mb": round(outcome.peak_memory / 2**20),
        "seconds": round(outcome.seconds),
    }
    temporary = chapter.timing.with_suffix(f".{uuid.uuid4().hex[:8]}.part")
    temporary.write_text(json.dumps(data, indent=1, sort_keys=True) + "\n")
    os.replace(temporary, chapter.timing)
