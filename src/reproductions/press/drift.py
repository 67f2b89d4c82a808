"""Is a stored notebook still what its source would give? Answered without executing anything.

Every problem is one line that says where, what, and how to mend it. Once a notebook is out of date
in a way that only a new build mends, the rest of it is not reported: the build does away with it.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from nbformat import NotebookNode

from reproductions.chapter.claims import check
from reproductions.press.book import Book, Chapter
from reproductions.press.compare import NOT_RERUN, claims_outputs, kind_of, rendering_faults
from reproductions.press.digests import combine, environment_digest, file_digest, module_digests
from reproductions.press.errors import BadInput
from reproductions.press.execute import first_line
from reproductions.press.notebook import (
    ALLOWED_TAGS,
    clean_outputs,
    code_cells,
    output_digest,
    output_faults,
    parameters_of,
    read_source,
    read_stored,
)

__all__ = ["Problem", "check_chapter", "content_problems", "source_problems"]

_MARKERS = re.compile(r"#\s*(NBVAL_\w+|PYTEST_VALIDATE_IGNORE_OUTPUT)")


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong, and the way to mend it."""

    chapter: str
    where: str
    what: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.where}: {self.what}; {self.remedy}"


def check_chapter(chapter: Chapter) -> list[Problem]:
    """All problems of one chapter; an empty list if the stored notebook is current and sound."""
    try:
        source = read_source(chapter)
    except BadInput as error:
        return [Problem(chapter.name, f"chapters/{chapter.name}.py", str(error), "mend the syntax")]
    problems = list(source_problems(source, chapter))
    if problems:
        return problems
    if not chapter.notebook.is_file():
        where = f"chapters/{chapter.name}.ipynb"
        return [Problem(chapter.name, where, "does not exist", _build(chapter))]
    try:
        stored = read_stored(chapter.notebook)
    except BadInput as error:
        where = f"chapters/{chapter.name}.ipynb"
        return [Problem(chapter.name, where, str(error), _build(chapter))]
    stale = list(_pair_problems(source, stored, chapter)) or list(_stale(stored, chapter))
    return stale or list(content_problems(stored, chapter))


def _build(chapter: Chapter) -> str:
    return f"run `reproduce build {chapter.name}`"


def source_problems(notebook: NotebookNode, chapter: Chapter) -> Iterator[Problem]:
    """Tags, comments that nbval obeys, and the parameters cell of a chapter's source."""
    where = f"chapters/{chapter.name}.py"
    yield from _tag_problems(notebook, chapter, where)
    for number, cell in enumerate(code_cells(notebook), start=1):
        marker = _MARKERS.search(cell.source)
        if marker:
            yield Problem(
                chapter.name,
                f"{where}, cell {number}",
                f"has the comment {marker.group(1)}, which hides its output from the comparison",
                "remove the comment",
            )
        if not cell.source.strip():
            yield Problem(
                chapter.name, f"{where}, cell {number}", "is empty", "write its code or remove it"
            )
    try:
        parameters_of(notebook)
    except ValueError as error:
        remedy = 'write one cell `# %% tags=["parameters"]` with profile, seed and device'
        yield Problem(chapter.name, where, str(error), remedy)


def _tag_problems(notebook: NotebookNode, chapter: Chapter, where: str) -> Iterator[Problem]:
    for number, cell in enumerate(notebook.cells, start=1):
        tags = cell.metadata.get("tags", [])
        for tag in tags:
            if tag not in ALLOWED_TAGS:
                place = f"{where}, cell {number} of {len(notebook.cells)}"
                yield Problem(
                    chapter.name,
                    f"{place} (`{first_line(cell.source)}`)",
                    f"has the tag {tag}, which is not on the list",
                    f"remove it; allowed are {', '.join(sorted(ALLOWED_TAGS))}",
                )


def _pair_problems(
    source: NotebookNode, stored: NotebookNode, chapter: Chapter
) -> Iterator[Problem]:
    """The first cell in which the two files of the pair differ."""
    where = f"chapters/{chapter.name}.ipynb"
    tags = list(_tag_problems(stored, chapter, where))
    if tags:
        yield from tags
        return
    old, new = stored.cells, source.cells
    for position, (a, b) in enumerate(zip(old, new, strict=False), start=1):
        if _content(a) == _content(b):
            continue
        same_cells = Counter(map(_bare, old)) == Counter(map(_bare, new))
        if a.cell_type == b.cell_type and a.source == b.source and same_cells:
            what = f"has other tags or metadata than in {chapter.name}.py"
        elif same_cells:
            what = f"stands in another place than in {chapter.name}.py"
        else:
            what = f"differs from {chapter.name}.py, which has `{first_line(b.source)}`"
        yield Problem(
            chapter.name,
            f"{where}, cell {position} of {len(old)} (`{first_line(a.source)}`)",
            what,
            _build(chapter),
        )
        return
    if len(old) != len(new):
        what = f"has {len(old)} cells, {chapter.name}.py has {len(new)}"
        yield Problem(chapter.name, where, what, _build(chapter))
        return
    if {k: v for k, v in stored.metadata.items() if k != "repro"} != dict(source.metadata):
        what = f"its metadata differ from the header of {chapter.name}.py"
        yield Problem(chapter.name, where, what, _build(chapter))


def _content(cell: NotebookNode) -> tuple[Any, ...]:
    attachments = cell.get("attachments", {})
    return cell.cell_type, cell.source, cell.get("id"), cell.metadata, attachments


def _bare(cell: NotebookNode) -> tuple[str, str]:
    return cell.cell_type, cell.source


def _stale(stored: NotebookNode, chapter: Chapter) -> Iterator[Problem]:
    """What the outputs depend on has changed since they were made."""
    where = f"chapters/{chapter.name}.ipynb"
    stamped = stored.metadata.get("repro")
    if not isinstance(stamped, Mapping) or not {"py", "src", "env", "modules", "outputs"} <= set(
        stamped
    ):
        what = "has no stamp of what it was made from"
        yield Problem(chapter.name, where, what, _build(chapter))
        return
    if not isinstance(stamped["modules"], Mapping) or not isinstance(stamped["outputs"], Mapping):
        yield Problem(chapter.name, where, "its stamp is damaged", _build(chapter))
        return
    if stamped["py"] != file_digest(chapter.source):
        what = f"its outputs are of an earlier {chapter.name}.py than the code beside them"
        yield Problem(chapter.name, where, what, _build(chapter))
    current = module_digests(chapter)
    if stamped["modules"] != current or stamped["src"] != combine(current):
        changed = _changed(stamped["modules"], current) or ["the stamp itself"]
        shown = ", ".join(changed[:3]) + (f" and {len(changed) - 3} more" if changed[3:] else "")
        what = f"its outputs are of an earlier state of {shown}"
        yield Problem(chapter.name, where, what, _build(chapter))
    if stamped["env"] != environment_digest(chapter.book):
        what = "its outputs were made with other versions than requirements.lock pins"
        yield Problem(chapter.name, where, what, _build(chapter))


def _changed(before: Mapping[str, str], after: Mapping[str, str]) -> list[str]:
    marks = dict.fromkeys(set(after) - set(before), " (new)")
    marks |= dict.fromkeys(set(before) - set(after), " (gone)")
    return [
        name + marks.get(name, "")
        for name in sorted(set(before) | set(after))
        if before.get(name) != after.get(name)
    ]


def content_problems(notebook: NotebookNode, chapter: Chapter) -> Iterator[Problem]:
    """What must not be in a stored notebook, and what must."""
    where = f"chapters/{chapter.name}.ipynb"
    stamped = notebook.metadata.get("repro", {}).get("outputs", {})
    for number, cell in enumerate(code_cells(notebook), start=1):
        faults = list(_cell_faults(cell, number, chapter.book, stamped))
        for what, remedy in faults:
            yield Problem(
                chapter.name,
                f"{where}, cell {number} (`{first_line(cell.source)}`)",
                what,
                remedy or _build(chapter),
            )
    yield from _claims_problems(notebook, chapter, where)


def _cell_faults(
    cell: NotebookNode, number: int, book: Book, stamped: Mapping[str, str]
) -> Iterator[tuple[str, str]]:
    if cell.execution_count is None:
        yield "was never executed (execution_count is null)", ""
        return
    if cell.execution_count != number:
        yield f"was executed as number {cell.execution_count}, not {number}", ""
        return
    found = output_faults(cell.outputs, book.root)
    faults = [(fault, "mend the cell and build") for fault in found]
    for output in cell.outputs:
        if kind_of(output) == "skipped":
            message = output.data.get("text/plain", "").splitlines()
            faults.append(
                (
                    f"was skipped for want of a data set ({(message or [''])[0][:80]})",
                    "build where the data set can be had",
                )
            )
        else:
            faults.extend((fault, "") for fault in rendering_faults(output))
    if not faults and cell.outputs != clean_outputs(cell.outputs):
        faults.append(("its outputs hold what a build leaves out (colors, overwritten text)", ""))
    yield from faults
    if not faults and stamped.get(cell.id) != output_digest(cell.outputs):
        lost = "its outputs are missing" if not cell.outputs else "its outputs were edited"
        yield lost, ""


def _claims_problems(notebook: NotebookNode, chapter: Chapter, where: str) -> Iterator[Problem]:
    outputs = claims_outputs(notebook)
    tables = [data for _, data in outputs if data["complete"]]
    if len(tables) != 1:
        what = f"has {len(tables)} complete claims tables; a chapter has exactly one"
        remedy = "call the table of the chapter's claims once, in the last cell but the exercises"
        yield Problem(chapter.name, where, what, remedy)
        return
    rows = {row["id"]: row for row in tables[0]["rows"]}
    if len(rows) != len(tables[0]["rows"]) or not rows:
        yield Problem(
            chapter.name, where, "its claims table is empty or names a claim twice", "mend it"
        )
    for complaint in check(tables[0]):
        yield Problem(chapter.name, where, complaint, "mend the claim and build")
    for number, data in outputs:
        if data["chapter"] != chapter.name:
            what = f"its claims say they are of chapter {data['chapter']!r}"
            yield Problem(chapter.name, f"{where}, cell {number}", what, "name the file's own name")
            return
        for row in data["rows"]:
            if row["verdict"] == NOT_RERUN:
                what = f"claim {row['id']} reads {NOT_RERUN!r} in the stored book"
                remedy = "build where the data set can be had"
                yield Problem(chapter.name, f"{where}, cell {number}", what, remedy)
            elif row != rows.get(row["id"]):
                what = f"claim {row['id']} reads otherwise in the complete table"
                yield Problem(chapter.name, f"{where}, cell {number}", what, _build(chapter))
