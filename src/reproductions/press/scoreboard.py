"""The scoreboard: read out of the claims tables that the stored notebooks hold, and nothing else.

Written from it: the page ``book/scoreboard.md``, the summary on the start page with each chapter's
face (the figure of the cell with that tag), the strip under each chapter's title, and the picture
in the README. All of them are committed; ``stale_pages`` says which are not what the notebooks
give.
"""

from __future__ import annotations

import ast
import base64
import html
import os
import re
import uuid
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nbformat import NotebookNode

from reproductions.press.book import Book, Chapter
from reproductions.press.compare import FIGURE, claims_outputs, figure_pictures, kind_of
from reproductions.press.notebook import code_cells, read_stored
from reproductions.press.picture import draw
from reproductions.press.runs import recorded_timing

__all__ = ["Board", "read_boards", "stale_pages", "totals", "write_pages"]

#: verdict -> (symbol, CSS class), in the order in which they are shown.
VERDICTS = {
    "reproduced": ("✓", "repro-reproduced"),
    "qualified": ("◐", "repro-qualified"),
    "not reproduced": ("✗", "repro-not-reproduced"),
    "not run here": ("–", "repro-not-run"),
    "stored, not re-run here": ("○", "repro-stored"),
}


@dataclass(frozen=True)
class Face:
    """The figure that stands for a chapter on the start page: PNG bytes for both themes."""

    alt: str
    light: bytes
    dark: bytes


@dataclass(frozen=True)
class Board:
    """One chapter's title, claims and record."""

    chapter: Chapter
    title: str
    rows: tuple[dict[str, Any], ...]
    timing: dict[str, Any] | None
    face: Face | None = None

    @property
    def counts(self) -> Counter[str]:
        """Verdict -> number of claims."""
        return Counter(row["verdict"] for row in self.rows)

    @property
    def duration(self) -> str:
        """How long the stored run takes, in words; empty where no record is."""
        if self.timing is None:
            return ""
        seconds = self.timing["seconds"]
        if seconds < 60:
            return "under a minute"
        minutes = round(seconds / 60)
        return f"{minutes} minute{'s' if minutes > 1 else ''}"


def read_boards(book: Book) -> list[Board]:
    """The boards of all chapters; a chapter that was never built has no rows."""
    return [_read(chapter) for chapter in book.chapters()]


def _read(chapter: Chapter) -> Board:
    title, rows, face = chapter.name, (), None
    if chapter.notebook.is_file():
        notebook = read_stored(chapter.notebook)
        headings = (
            re.search(r"^#\s+(.+)$", cell.source, re.MULTILINE)
            for cell in notebook.cells
            if cell.cell_type == "markdown"
        )
        title = next((found.group(1).strip() for found in headings if found), chapter.name)
        tables = [data for _, data in claims_outputs(notebook) if data["complete"]]
        rows = tuple(tables[-1]["rows"]) if tables else ()
        face = _face(notebook)
    timing = recorded_timing(chapter)
    return Board(chapter, title, rows, timing, face)


def _face(notebook: NotebookNode) -> Face | None:
    for cell in code_cells(notebook):
        if "face" not in cell.metadata.get("tags", []):
            continue
        for output in cell.outputs:
            if kind_of(output) == "figure":
                light, dark = map(base64.b64decode, figure_pictures(output))
                return Face(output.data[FIGURE]["alt"], light, dark)
    return None


def totals(boards: list[Board]) -> Counter[str]:
    """Verdict -> number of claims in the whole book."""
    return sum((board.counts for board in boards), Counter())


def stale_pages(book: Book) -> list[str]:
    """Generated files that are missing, or not what the stored notebooks give."""
    pages = _pages(book)
    stale = [path for path, content in pages.items() if _content(path) != content]
    return [str(p.relative_to(book.root)) for p in (*stale, *_left_over(book, pages))]


def write_pages(book: Book) -> list[Path]:
    """Write the generated files and return those that changed."""
    pages = _pages(book)
    for path in _left_over(book, pages):
        path.unlink()
    changed = []
    for path, content in pages.items():
        if _content(path) == content:
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.part")
        temporary.write_bytes(content)
        os.replace(temporary, path)
        changed.append(path)
    return changed


def _content(path: Path) -> bytes | None:
    return path.read_bytes() if path.is_file() else None


def _left_over(book: Book, pages: dict[Path, bytes]) -> list[Path]:
    """Files of chapters that are gone."""
    strips = (book.root / "book" / "_generated").glob("strip-*.html")
    faces = (book.root / "book" / "_static" / "faces").glob("*.png")
    return sorted({*strips, *faces} - set(pages))


def _pages(book: Book) -> dict[Path, bytes]:
    boards = read_boards(book)
    folder = book.root / "book"
    tiles = [(b.title, [(row["id"], row["verdict"]) for row in b.rows]) for b in boards]
    texts = {
        folder / "scoreboard.md": _page(boards),
        folder / "_generated" / "glance.md": _glance(boards),
        folder / "_static" / "scoreboard.svg": draw(tiles),
    }
    pages = {}
    for board in boards:
        name = board.chapter.name
        if board.rows:
            texts[folder / "_generated" / f"strip-{name}.html"] = _strip(board)
        if board.face:
            pages[folder / "_static" / "faces" / f"{name}-light.png"] = board.face.light
            pages[folder / "_static" / "faces" / f"{name}-dark.png"] = board.face.dark
    return {path: text.encode() for path, text in texts.items()} | pages


def _badges(counts: Counter[str]) -> str:
    return " ".join(
        f'<span class="repro-badge {css}">{symbol} {counts[verdict]} {verdict}</span>'
        for verdict, (symbol, css) in VERDICTS.items()
        if counts[verdict]
    )


def _claims(number: int) -> str:
    return f"{number} claim{'' if number == 1 else 's'}"


def _page(boards: list[Board]) -> str:
    built = [board for board in boards if board.rows]
    counts = totals(boards)
    lines = [
        "# Scoreboard",
        "",
        f"{_claims(counts.total())} in {len(built)} chapter{'' if len(built) == 1 else 's'}. "
        "Each line leads to the row of the chapter where the claim is settled; "
        "[how to read a verdict](reading-a-verdict.md) says what the words mean. "
        "This page is generated from the claims tables stored in the notebooks.",
        "",
        f'<p class="repro-totals">{_badges(counts)}</p>',
        "",
    ]
    for board in boards:
        lines += [f"## {board.title}", ""]
        if not board.rows:
            lines += ["This chapter has not been built yet.", ""]
            continue
        facts = [f'<a href="../chapters/{board.chapter.name}.html">Read the chapter</a>']
        if board.timing:
            facts.append(
                f"{board.duration} on {html.escape(board.timing['machine'])} "
                f"({board.timing['date']})"
            )
        rows = "".join(_row(board, row) for row in board.rows)
        lines += [
            f"<p>{_badges(board.counts)}</p>",
            "",
            f"<p>{' · '.join(facts)}</p>",
            "",
            '<div class="repro-scoreboard"><table><thead><tr><th scope="col">Claim</th>'
            '<th scope="col">Statement</th><th scope="col">Verdict</th></tr></thead>'
            f"<tbody>{rows}</tbody></table></div>",
            "",
        ]
    return "\n".join(lines)


def _row(board: Board, row: dict[str, Any]) -> str:
    symbol, css = VERDICTS[row["verdict"]]
    target = f"../chapters/{board.chapter.name}.html#claim-{html.escape(row['id'])}"
    because = (
        f'<div class="repro-because">{html.escape(row["because"])}</div>' if row["because"] else ""
    )
    return (
        f'<tr><th scope="row"><a href="{target}">{html.escape(row["id"])}</a></th>'
        f'<td>{html.escape(row["statement"])} <span class="repro-source">'
        f"{html.escape(row['source'])}</span></td>"
        f'<td><span class="repro-verdict {css}">{symbol} {row["verdict"]}</span>{because}</td></tr>'
    )


def _glance(boards: list[Board]) -> str:
    lines = [f'<p class="repro-totals">{_badges(totals(boards))}</p>', ""]
    rows = "".join(
        f'<tr><th scope="row"><a href="../chapters/{board.chapter.name}.html">'
        f"{html.escape(board.title)}</a></th><td>{_badges(board.counts)}</td>"
        f"<td>{board.duration}</td></tr>"
        for board in boards
        if board.rows
    )
    if rows:
        lines.append(
            '<div class="repro-scoreboard"><table><thead><tr><th scope="col">Chapter</th>'
            '<th scope="col">Claims</th><th scope="col">Time to execute</th></tr></thead>'
            f"<tbody>{rows}</tbody></table></div>"
        )
    else:
        lines.append("No chapter has been built yet.")
    for board in boards:
        if board.face:
            lines += ["", _face_html(board)]
    return "\n".join([*lines, ""])


def _face_html(board: Board) -> str:
    alt = html.escape(f"{board.title}: {board.face.alt}", quote=True)
    images = "".join(
        f'<img class="only-{theme}" alt="{alt}" '
        f'src="../_static/faces/{board.chapter.name}-{theme}.png">'
        for theme in ("light", "dark")
    )
    return f'<p class="repro-face"><a href="../chapters/{board.chapter.name}.html">{images}</a></p>'


def _strip(board: Board) -> str:
    facts = [_badges(board.counts)]
    if board.timing:
        facts.append(
            f'<span title="{html.escape(board.timing["machine"])}">runs in {board.duration} on '
            "two cores</span>"
        )
    names = list(_datasets(board.chapter))
    if names:
        facts.append(f"<span>uses {html.escape(', '.join(names))} where they can be had</span>")
    else:
        facts.append("<span>no data set to download</span>")
    facts.append("<span>needs no GPU</span>")
    name = board.chapter.name
    facts.append(
        f'<span><a href="../_sources/chapters/{name}.ipynb" download>notebook</a> · '
        f'<a href="../_sources/chapters/{name}.py" download>Python file</a></span>'
    )
    return '<div class="repro-strip">\n' + "\n".join(facts) + "\n</div>\n"


def _datasets(chapter: Chapter) -> Iterator[str]:
    """Titles of the data sets that the chapter asks for and that do not come with the software."""
    from reproductions.chapter.datasets import REGISTRY

    wanted = set()
    for node in ast.walk(ast.parse(chapter.source.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call):
            name = getattr(node.func, "attr", getattr(node.func, "id", ""))
            if name in ("uci_task", "uci_index"):
                wanted.add("uci")
            elif name in ("load", "optional") and node.args:
                wanted.add(getattr(node.args[0], "value", None))
    yield from (d.title for name, d in REGISTRY.items() if name in wanted and d.layouts)
