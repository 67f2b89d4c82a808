"""Start a chapter: a source that builds at once, a module for its mathematics, a test."""

from __future__ import annotations

import os
import re
from importlib import resources
from pathlib import Path

from reproductions.press.book import Book, valid_name
from reproductions.press.errors import BadInput

__all__ = ["new_chapter"]


def new_chapter(book: Book, name: str) -> list[Path]:
    """Create the files of chapter ``name`` and return them.

    Raises BadInput for a name that is taken or that is no name; nothing is written then.
    """
    valid_name(name)
    files = {
        book.chapters_folder / f"{name}.py": "chapter.py.in",
        book.src / "reproductions" / "papers" / name / "__init__.py": "paper.py.in",
        book.root / "tests" / "papers" / f"test_{name}.py": "test.py.in",
    }
    for path in files:
        taken = path.parent if path.name == "__init__.py" else path
        if taken.exists():
            raise BadInput(
                f"a chapter named {name!r} cannot be created: {taken.relative_to(book.root)} is "
                "there already; choose another name"
            )
    toc = book.root / "_toc.yml"
    contents = _with_entry(toc, name) if toc.is_file() else None
    try:
        for path, template in files.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(_fill(template, name), encoding="utf-8")
        if contents is not None:
            part = toc.with_suffix(".part")
            part.write_text(contents, encoding="utf-8")
            os.replace(part, toc)
    except OSError:
        # a chapter is created whole or not at all
        for path in files:
            path.unlink(missing_ok=True)
        raise
    return [*files, toc] if contents is not None else list(files)


def _fill(template: str, name: str) -> str:
    text = resources.files("reproductions.press").joinpath("templates", template).read_text("utf-8")
    title = name.replace("_", " ").capitalize()
    return text.replace("@NAME@", name).replace("@TITLE@", title)


def _with_entry(toc: Path, name: str) -> str:
    """The table of contents with the chapter after the last one."""
    lines = toc.read_text(encoding="utf-8").splitlines()
    chapters = [k for k, line in enumerate(lines) if re.match(r"\s*- file: chapters/", line)]
    if chapters:
        last = lines[chapters[-1]]
        indent = last[: len(last) - len(last.lstrip())]
        lines.insert(chapters[-1] + 1, f"{indent}- file: chapters/{name}")
        return "\n".join(lines) + "\n"
    for k, line in enumerate(lines):
        if re.fullmatch(r"\s*chapters:\s*(\[\])?", line):
            indent = line[: len(line) - len(line.lstrip())]
            lines[k] = f"{indent}chapters:"
            lines.insert(k + 1, f"{indent}  - file: chapters/{name}")
            return "\n".join(lines) + "\n"
    lines += ["chapters:", f"  - file: chapters/{name}"]
    return "\n".join(lines) + "\n"
