"""Execute one notebook in a child process, and notice whatever goes wrong within seconds.

Papermill's own word is not trusted: it calls every cell of a notebook whose kernel was killed
"completed" and ends with status 0 after ``raise SystemExit(0)``. Here a run counts as good when
the child says so *and* every code cell has its execution count, 1 to n, *and* none has an error.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nbformat
import psutil

from reproductions.press.book import Book
from reproductions.press.limits import Limits

__all__ = ["Outcome", "Progress", "environment", "execute", "first_line"]

#: Name of the environment variable that marks the processes of one execution.
_MARK = "REPRODUCTIONS_EXECUTION"
_POLL = 0.2
# jsonschema would compile a grammar for international addresses, which takes longer than all
# other imports together, and which notebooks have no use for.
_WORKER = (
    "import sys; sys.modules['rfc3987_syntax'] = None; "
    "from reproductions.press._worker import main; main()"
)
#: How long after a cell's time-out the child may take to report it before it is killed.
_GRACE = 10.0


@dataclass(frozen=True)
class Progress:
    """Code cell ``number`` of ``total`` begins (``line`` is its first line)."""

    number: int
    total: int
    line: str
    seconds: float


@dataclass
class Outcome:
    """How an execution ended. ``reason`` is empty when all went well."""

    reason: str = ""
    cell: int | None = None
    line: str = ""
    seconds: float = 0.0
    peak_memory: int = 0
    cell_seconds: list[float] = field(default_factory=list)
    #: kinds of messages that changed an output after it was shown
    live: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether every cell ran to its end without an error."""
        return not self.reason

    def describe(self, chapter: str) -> str:
        """One line: chapter, cell, reason."""
        where = f", cell {self.cell} (`{self.line}`)" if self.cell is not None else ""
        return f"{chapter}{where}: {self.reason}"


def first_line(source: str) -> str:
    """The first line of a cell that is no comment, cut to 60 characters."""
    lines = [line.strip() for line in source.splitlines() if line.strip()]
    code = [line for line in lines if not line.startswith("#")]
    line = (code or lines or [""])[0]
    return line if len(line) <= 60 else line[:57] + "..."


def environment(book: Book) -> dict[str, str]:
    """The environment in which kernels run, for a build, a run and a comparison alike."""
    env = dict(os.environ)
    for name in ("MPLBACKEND", "FORCE_COLOR", "PYTHONSTARTUP", "PYTHONWARNINGS"):
        env.pop(name, None)
    env.update(PYTHONHASHSEED="0", OMP_NUM_THREADS="1", MKL_NUM_THREADS="1", TZ="UTC")
    # kernels start in chapters/, so relative entries would point elsewhere
    inherited = [p for p in env.get("PYTHONPATH", "").split(os.pathsep) if p]
    package = Path(__file__).resolve().parents[2]
    paths = [str(book.src), str(package), *(os.path.abspath(p) for p in inherited)]
    env["PYTHONPATH"] = os.pathsep.join(dict.fromkeys(paths))
    return env


def execute(
    notebook: nbformat.NotebookNode,
    output: Path,
    *,
    book: Book,
    limits: Limits,
    on_progress: Callable[[Progress], None] | None = None,
    stop: threading.Event | None = None,
) -> Outcome:
    """Execute ``notebook`` with ``chapters/`` as working folder and write the result to ``output``.

    Whatever happens, no process that the notebook started is left when this returns.

    Raises:
        KeyboardInterrupt: ``stop`` was set.
    """
    execution = _Execution(notebook, output, book, limits, on_progress or (lambda _: None))
    return execution.run(stop or threading.Event())


class _Execution:
    def __init__(
        self,
        notebook: nbformat.NotebookNode,
        output: Path,
        book: Book,
        limits: Limits,
        on_progress: Callable[[Progress], None],
    ) -> None:
        self.notebook, self.output, self.book = notebook, output, book
        self.limits, self.on_progress = limits, on_progress
        self.code = [i for i, c in enumerate(notebook.cells) if c.cell_type == "code"]
        self.outcome = Outcome()
        self.mark = uuid.uuid4().hex
        self.current: int | None = None
        self.cell_began = time.monotonic()
        self.finished = False
        self.reported = False

    def run(self, stop: threading.Event) -> Outcome:
        began = time.monotonic()
        self.output.parent.mkdir(parents=True, exist_ok=True)
        source = self.output.with_suffix(".source.ipynb")
        nbformat.write(self.notebook, source)
        with tempfile.TemporaryDirectory(prefix="reproduce-") as scratch:
            child = self._start(source, scratch)
            try:
                self._watch(child, stop, began)
            finally:
                self._clear_away(child)
                source.unlink(missing_ok=True)
            log = Path(scratch, "log").read_text(errors="replace").strip()
        self.outcome.seconds = time.monotonic() - began
        if self.outcome.ok:
            self._judge(child, log)
        return self.outcome

    def _start(self, source: Path, scratch: str) -> subprocess.Popen[bytes]:
        env = environment(self.book)
        # a reader's own IPython start-up files and history have no say in a book
        env |= {_MARK: self.mark, "IPYTHONDIR": scratch, "PYTHONUNBUFFERED": "1"}
        job = {
            "input": str(source),
            "output": str(self.output),
            "cwd": str(self.book.chapters_folder),
            "timeout": self.limits.cell_seconds,
            "start_timeout": self.limits.start_seconds,
        }
        with open(Path(scratch, "log"), "wb") as log:
            child = subprocess.Popen(
                [sys.executable, "-c", _WORKER],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env=env,
                start_new_session=True,
            )
        try:
            child.stdin.write(json.dumps(job).encode() + b"\n")
            child.stdin.flush()
        except BrokenPipeError:
            pass  # the child is gone already; the watch below says so
        return child

    def _watch(self, child: subprocess.Popen[bytes], stop: threading.Event, began: float) -> None:
        events: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
        threading.Thread(target=_read_events, args=(child.stdout, events), daemon=True).start()
        looked = 0.0
        while True:
            if stop.is_set():
                raise KeyboardInterrupt
            if time.monotonic() - looked > _POLL:
                looked = time.monotonic()
                if self._over_memory(child) or self._over_time():
                    return
            try:
                event = events.get(timeout=_POLL)
            except queue.Empty:
                continue
            if event is None:
                return
            self._take(event, began)
            if self.reported:
                return

    def _over_time(self) -> bool:
        """The child enforces the time-out of cells; this is for a child that hangs itself."""
        starting = self.current is None
        allowed = _GRACE + (self.limits.start_seconds if starting else self.limits.cell_seconds)
        if self.finished or time.monotonic() - self.cell_began <= allowed:
            return False
        whom = "the starting kernel" if starting else "the process that runs the notebook"
        self._fail(f"no answer from {whom} for {allowed:.0f} s")
        return True

    def _take(self, event: dict[str, Any], began: float) -> None:
        kind = event["event"]
        if kind == "cell":
            self.current, self.cell_began = event["index"], time.monotonic()
            number = self.code.index(self.current) + 1
            self.on_progress(
                Progress(number, len(self.code), self._line(), time.monotonic() - began)
            )
        elif kind == "done":
            self.outcome.cell_seconds.append(round(time.monotonic() - self.cell_began, 3))
            self.outcome.live = event["live"]
        elif kind == "failed":
            if event["index"] is not None:
                self.current = event["index"]
            self._fail(event["reason"])
        elif kind == "finished":
            self.finished = True

    def _line(self) -> str:
        return "" if self.current is None else first_line(self.notebook.cells[self.current].source)

    def _fail(self, reason: str) -> None:
        self.reported = True
        self.outcome.reason = " ".join(reason.split())
        if self.current is not None:
            self.outcome.cell = self.code.index(self.current) + 1
            self.outcome.line = self._line()

    def _over_memory(self, child: subprocess.Popen[bytes]) -> bool:
        used = sum(_resident(p) for p in _family(child.pid))
        self.outcome.peak_memory = max(self.outcome.peak_memory, used)
        if self.limits.memory is None or used <= self.limits.memory:
            return False
        giga = 2.0**30
        self._fail(
            f"used {used / giga:.1f} GB of memory, more than the limit of "
            f"{self.limits.memory / giga:.1f} GB (--memory-limit), and was killed"
        )
        return True

    def _clear_away(self, child: subprocess.Popen[bytes]) -> None:
        """Kill the child, its kernel, and whatever they started, and wait until all are gone."""
        doomed = {p.pid: p for p in _family(child.pid)}
        child.stdin.close()
        if self.finished:
            # it has said its last word and is closing its kernel
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.wait(timeout=5)
        for _ in range(5):
            # a process may be born while its parent is killed, so look again until none is left
            doomed |= {p.pid: p for p in (*_family(child.pid), *_marked(self.mark))}
            for process in doomed.values():
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()
            child.wait()
            psutil.wait_procs(list(doomed.values()), timeout=2)
            if not any(True for _ in _marked(self.mark)):
                break
            doomed = {}
        child.stdout.close()

    def _judge(self, child: subprocess.Popen[bytes], log: str) -> None:
        executed = None
        if self.output.is_file():
            executed = nbformat.read(self.output, as_version=4)
            ran = [c for c in executed.cells if c.cell_type == "code"]
            for number, (index, cell) in enumerate(zip(self.code, ran, strict=False), start=1):
                names = [o.ename for o in cell.outputs if o.output_type == "error"]
                if "SystemExit" in names:
                    reason = "SystemExit ended the notebook here; the cells below did not run"
                elif names:
                    reason = names[0]
                elif cell.execution_count != number:
                    reason = "was not executed; is the cell empty?"
                else:
                    continue
                self.current = index
                self._fail(reason)
                return
        if self.finished and executed is not None:
            return
        status = child.returncode
        cause = f"signal {signal.Signals(-status).name}" if status < 0 else f"status {status}"
        last = log.splitlines()[-1] if log else "it said nothing"
        self._fail(f"the process that ran the notebook ended with {cause}: {last}")


def _read_events(stream: Any, events: queue.SimpleQueue[dict[str, Any] | None]) -> None:
    try:
        for line in stream:
            events.put(json.loads(line))
    except ValueError:
        pass  # the stream was closed, or its last line was cut off with the process that wrote it
    events.put(None)


def _family(pid: int) -> list[psutil.Process]:
    try:
        parent = psutil.Process(pid)
        return [parent, *parent.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def _marked(mark: str) -> Iterator[psutil.Process]:
    """Processes of this execution that left the family: their environment carries the mark."""
    for process in psutil.process_iter():
        try:
            if process.environ().get(_MARK) == mark and process.status() != psutil.STATUS_ZOMBIE:
                yield process
        except (psutil.Error, OSError):
            continue


def _resident(process: psutil.Process) -> int:
    try:
        return process.memory_info().rss
    except psutil.Error:
        return 0
