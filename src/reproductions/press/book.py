"""Where a book's files lie, and which chapters it has."""

from __future__ import annotations

import difflib
import keyword
import os
import re
from collections.abc import Iterable, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import filelock

from reproductions.press.errors import BadInput, Locked

__all__ = ["PROFILES", "Book", "Chapter", "find_book", "valid_name"]

#: The profiles every chapter declares; repeated here because the module that defines them
#: imports torch, and a typing error should be answered at once.
PROFILES = ("smoke", "cpu", "paper")


@dataclass(frozen=True)
class Chapter:
    """One pair of files: ``NAME.py``, the source, and ``NAME.ipynb``, generated with outputs."""

    name: str
    book: Book

    @property
    def source(self) -> Path:
        """The percent-format source."""
        return self.book.chapters_folder / f"{self.name}.py"

    @property
    def notebook(self) -> Path:
        """The stored notebook."""
        return self.book.chapters_folder / f"{self.name}.ipynb"

    @property
    def runs(self) -> Path:
        """Where executions of this chapter are kept."""
        return self.book.runs_folder / self.name

    @property
    def timing(self) -> Path:
        """The committed record of how long the stored run took."""
        return self.book.root / "results" / "cpu" / f"{self.name}.json"


@dataclass(frozen=True)
class Book:
    """A folder with ``_config.yml`` and ``chapters/``."""

    root: Path

    @property
    def chapters_folder(self) -> Path:
        """Sources and stored notebooks."""
        return self.root / "chapters"

    @property
    def runs_folder(self) -> Path:
        """Executions; not under version control."""
        return self.root / "runs"

    @property
    def src(self) -> Path:
        """The packages that chapters import."""
        return self.root / "src"

    @property
    def requirements(self) -> Path:
        """The pinned versions."""
        return self.root / "requirements.lock"

    def chapters(self) -> list[Chapter]:
        """All chapters: in the order of the table of contents, those outside it last."""
        names = sorted(p.stem for p in self.chapters_folder.glob("*.py") if p.stem[0] not in "._")
        toc = self.root / "_toc.yml"
        listed = re.findall(r"chapters/(\w+)", toc.read_text()) if toc.is_file() else []
        order = {name: k for k, name in enumerate(listed)}
        return [Chapter(n, self) for n in sorted(names, key=lambda n: (order.get(n, 1 << 30), n))]

    def chapter(self, name: str) -> Chapter:
        """The chapter called ``name``; a path to one of its two files is understood too."""
        wanted = Path(name).stem if name.endswith((".py", ".ipynb")) else name
        by_name = {c.name: c for c in self.chapters()}
        if wanted in by_name:
            return by_name[wanted]
        near = difflib.get_close_matches(wanted, by_name, n=1)
        hint = f" (did you mean {near[0]}?)" if near else ""
        known = ", ".join(by_name) or "none yet; make one with `reproduce new NAME`"
        raise BadInput(f"unknown chapter {name!r}{hint}; the chapters are: {known}")

    def select(self, names: Iterable[str], everything: bool = False) -> list[Chapter]:
        """The named chapters, or all of them when none is named."""
        names = list(dict.fromkeys(names))
        if everything and names:
            raise BadInput(f"give chapters or --all, not both; got {', '.join(names)} and --all")
        return [self.chapter(n) for n in names] if names else self.chapters()

    @contextmanager
    def lock(self, chapters: Iterable[Chapter]):
        """Hold the locks of ``chapters``; Locked if another command has one of them."""
        with ExitStack() as held:
            for chapter in chapters:
                self._lock_one(chapter, held)
            yield

    def _lock_one(self, chapter: Chapter, held: ExitStack) -> None:
        folder = self.runs_folder / ".locks"
        make_writable_folder(folder)
        holder = folder / f"{chapter.name}.holder"
        lock = filelock.FileLock(folder / f"{chapter.name}.lock", timeout=0)
        try:
            held.enter_context(lock)
        except filelock.Timeout:
            who = holder.read_text().strip() if holder.is_file() else ""
            raise Locked(
                f"chapter {chapter.name} is being executed by another reproduce command"
                f"{f' ({who})' if who else ''}; wait until it ends, or stop it"
            ) from None
        holder.write_text(f"process {os.getpid()}\n")


def make_writable_folder(folder: Path) -> Path:
    """Create ``folder`` if need be, and check that files can be written there."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BadInput(
            f"cannot create the folder {folder} ({error.strerror}); make it writable, or choose "
            "another book with --root"
        ) from None
    if not os.access(folder, os.W_OK | os.X_OK):
        raise BadInput(
            f"cannot write to the folder {folder}; make it writable, or choose another book "
            "with --root"
        )
    return folder


def find_book(start: Path | str | None = None) -> Book:
    """The book at or above ``start`` (the working folder when none is given)."""
    begin = Path(start) if start is not None else Path.cwd()
    if not begin.is_dir():
        raise BadInput(f"the folder {str(begin)!r} does not exist; --root names the book's folder")
    begin = begin.resolve()
    for folder in (begin, *begin.parents):
        if (folder / "_config.yml").is_file() and (folder / "chapters").is_dir():
            return Book(folder)
    raise BadInput(
        f"no book at {begin} or above it (a book has _config.yml and chapters/); give --root FOLDER"
    )


def valid_name(name: str) -> str:
    """Return ``name`` if a chapter may be called so: lower-case words joined by underscores."""
    if not re.fullmatch(r"[a-z][a-z0-9]*(_[a-z0-9]+)*", name) or keyword.iskeyword(name):
        raise BadInput(
            f"a chapter's name is lower-case words joined by underscores, such as selu_fixed_points"
            f"; got {name!r}"
        )
    return name


def check_parameters(
    defaults: Mapping[str, Any], overrides: Mapping[str, Any], chapter: str
) -> dict[str, Any]:
    """The values to inject: those of ``overrides`` that differ from the parameters cell."""
    for name in overrides:
        if name not in defaults:
            raise BadInput(
                f"chapter {chapter} has no parameter {name!r}; its parameters are: "
                f"{', '.join(defaults)}"
            )
    return {n: v for n, v in overrides.items() if v != defaults[n]}


def check_profile(value: str) -> str:
    """Return ``value`` if it is a profile."""
    if value not in PROFILES:
        raise BadInput(f"unknown profile {value!r}; the profiles are: {', '.join(PROFILES)}")
    return value


def check_seed(value: str | int) -> int:
    """Return ``value`` as a seed."""
    if not re.fullmatch(r"[0-9]+", str(value)):
        raise BadInput(f"a seed is an integer of at least 0, got {value!r}")
    return int(value)


def check_device(value: str) -> str:
    """Return ``value`` if it is a device that this machine has."""
    if not re.fullmatch(r"auto|cpu|cuda(:[0-9]+)?", value):
        raise BadInput(f"unknown device {value!r}; the devices are: auto, cpu, cuda, cuda:N")
    if value.startswith("cuda"):
        import torch

        present = torch.cuda.device_count()
        if int(value.partition(":")[2] or 0) >= present:
            raise BadInput(
                f"device {value!r} was asked for, but torch sees {present} CUDA GPUs here; "
                "use --device cpu or --device auto"
            )
    return value
