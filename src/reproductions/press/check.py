"""The drift check and the comparison with an execution, chapter by chapter."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from reproductions.press.book import Chapter
from reproductions.press.compare import CellResult, compare_notebooks
from reproductions.press.drift import Problem, check_chapter
from reproductions.press.notebook import read_stored
from reproductions.press.runs import latest

__all__ = ["Report", "check_book"]


@dataclass
class Report:
    """What was found for one chapter."""

    chapter: str
    problems: list[Problem]
    cells: list[CellResult] = field(default_factory=list)
    #: why there was no execution to compare with, where one was asked for
    failure: str = ""

    @property
    def ok(self) -> bool:
        """No drift, no failed execution, no failed cell."""
        return not self.problems and not self.failure and not self.counts["failed"]

    @property
    def compared(self) -> bool:
        """Whether an execution was compared."""
        return bool(self.cells)

    @property
    def counts(self) -> Counter[str]:
        """Status -> number of cells."""
        return Counter(cell.status for cell in self.cells)

    def lines(self, status: str) -> list[str]:
        """One line for each thing with that status."""
        lines = [str(p) for p in self.problems] if status == "failed" else []
        if status == "failed" and self.failure:
            lines.append(self.failure)
        for cell in self.cells:
            if cell.status == status:
                where = f"{self.chapter}, cell {cell.number} (`{cell.line}`)"
                lines.extend(f"{where}: {message}" for message in cell.messages)
        return lines

    def as_json(self) -> dict[str, Any]:
        """Plain data for machines."""
        return {
            "chapter": self.chapter,
            "ok": self.ok,
            "problems": [str(p) for p in self.problems],
            "failure": self.failure,
            "compared": self.compared,
            **{status: self.counts[status] for status in ("passed", "failed", "skipped")},
            "cells": [vars(cell) for cell in self.cells],
        }


def check_book(
    chapters: Iterable[Chapter], failures: Mapping[str, str] | None = None
) -> list[Report]:
    """Check ``chapters``; ``failures`` says which could not be executed, and why."""
    return [_check(chapter, (failures or {}).get(chapter.name, "")) for chapter in chapters]


def _check(chapter: Chapter, failure: str) -> Report:
    problems = check_chapter(chapter)
    report = Report(chapter.name, problems, failure=failure)
    # a notebook that is out of date differs for a reason that is reported already
    if problems or failure:
        return report
    executed = latest(chapter)
    if executed is not None:
        stored, fresh = read_stored(chapter.notebook), read_stored(executed)
        report.cells = compare_notebooks(stored, fresh)
    return report
