"""Where the book is, seen from a notebook."""

from __future__ import annotations

from pathlib import Path

__all__ = ["repository_root"]


def repository_root() -> Path | None:
    """The folder with ``_config.yml`` at or above the working folder; None outside the book."""
    here = Path.cwd()
    for folder in (here, *here.parents):
        if (folder / "_config.yml").is_file():
            return folder
    return None
