"""What a person sees while chapters execute: chapter, cell, elapsed and expected time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from reproductions.press import execute

__all__ = ["Display", "show_progress", "spoken"]


def spoken(seconds: float | None) -> str:
    """A duration as people write it."""
    if seconds is None:
        return "?"
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s"


class Display:
    """One line a chapter: bars on a terminal, plain lines elsewhere, nothing when silent."""

    def __init__(self, console: Console, progress: Progress | None, silent: bool) -> None:
        self._console, self._progress, self._silent = console, progress, silent
        self._tasks: dict[str, int] = {}

    def cell(self, label: str, event: execute.Progress, expected: float | None) -> None:
        """A cell of ``label`` begins."""
        if self._silent:
            return
        hint = f"of about {spoken(expected)}" if expected else ""
        if self._progress is None:
            if label not in self._tasks:
                self._tasks[label] = len(self._tasks)
                about = f", about {spoken(expected)}" if expected else ""
                self._console.print(escape(f"{label}: {event.total} cells{about}"))
            return
        if label not in self._tasks:
            self._tasks[label] = self._progress.add_task(label, total=event.total, hint=hint)
        self._progress.update(
            self._tasks[label],
            completed=event.number - 1,
            cell=f"cell {event.number}/{event.total}",
            line=escape(event.line[:40]),
        )

    def done(self, label: str, ok: bool, seconds: float, note: str = "") -> None:
        """``label`` ended."""
        if self._silent:
            return
        if self._progress is not None and label in self._tasks:
            self._progress.remove_task(self._tasks.pop(label))
        mark, color = ("✓", "green") if ok else ("✗", "red")
        tail = f" {escape(note)}" if note else ""
        self._console.print(f"[{color}]{mark}[/] {escape(label)} ({spoken(seconds)}){tail}")


@contextmanager
def show_progress(console: Console, silent: bool) -> Iterator[Display]:
    """A display for the time of an execution."""
    if silent or not console.is_terminal:
        yield Display(console, None, silent)
        return
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(bar_width=20),
        TextColumn("{task.fields[cell]}"),
        TimeElapsedColumn(),
        TextColumn("{task.fields[hint]}", style="dim"),
        TextColumn("{task.fields[line]}", style="dim"),
    )
    with _Bars(*columns, console=console, transient=True) as progress:
        yield Display(console, progress, silent)


class _Bars(Progress):
    def add_task(self, description: str, **fields: object) -> int:
        fields = {"cell": "", "line": "", "hint": "", **fields}
        return super().add_task(escape(description), **fields)
