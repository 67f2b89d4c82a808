"""Fixtures: the miniature book, as sources, built once, and as a copy to tamper with."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from press_book import write_book

from reproductions.press.book import Book
from reproductions.press.build import build_chapter
from reproductions.press.limits import Limits


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Book:
    """Built once; tests that change something take ``book``, a copy."""
    book = write_book(tmp_path_factory.mktemp("built") / "mini")
    for chapter in book.chapters():
        _, reasons = build_chapter(chapter, Limits(60))
        assert not reasons
    return book


@pytest.fixture
def book(built: Book, tmp_path: Path) -> Book:
    root = tmp_path / "mini"
    shutil.copytree(built.root, root)
    return Book(root)


@pytest.fixture
def plain(tmp_path: Path) -> Book:
    """The sources of the miniature book, nothing built."""
    return write_book(tmp_path / "mini")
