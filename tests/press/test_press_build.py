"""From ``.py`` to ``.ipynb``: the same bytes each time, and never a notebook that must not be."""

import json

import nbformat
import pytest
from press_book import add_chapter, reproduce, write_book

from reproductions.press.book import PROFILES, Book
from reproductions.press.build import build_chapter
from reproductions.press.digests import module_digests
from reproductions.press.limits import Limits
from reproductions.press.notebook import parameters_of, read_source


def test_profiles_are_those_of_the_chapters():
    from reproductions.chapter.profile import PROFILES as OF_CHAPTERS

    assert PROFILES == OF_CHAPTERS


def test_two_builds_give_the_same_bytes(book):
    before = book.chapter("alpha").notebook.read_bytes()
    outcome, reasons = build_chapter(book.chapter("alpha"), Limits(60), force=True)
    assert not reasons
    assert len(outcome.cell_seconds) == 6
    assert book.chapter("alpha").notebook.read_bytes() == before


def test_what_a_stored_notebook_holds(built):
    notebook = nbformat.read(built.chapter("alpha").notebook, as_version=4)
    nbformat.validate(notebook)
    assert set(notebook.metadata) == {"jupytext", "kernelspec", "repro"}
    assert set(notebook.metadata.repro["modules"]) == {"minilib", "minilib.fast"}
    code = [c for c in notebook.cells if c.cell_type == "code"]
    assert [c.execution_count for c in code] == [1, 2, 3, 4, 5, 6]
    assert all(set(c.metadata) <= {"tags"} for c in code)
    assert "injected-parameters" not in str(notebook)


def test_a_current_chapter_is_not_executed_again(book):
    outcome, reasons = build_chapter(book.chapter("beta"), Limits(60))
    assert (outcome.cell_seconds, reasons) == ([], [])


@pytest.mark.parametrize(
    ("cells", "reason"),
    [
        (["import sys\nprint('careful', file=sys.stderr)"], "writes to stderr"),
        (["import os\nprint(os.getcwd())"], "shows a path of this machine"),
        (
            ["from IPython.display import clear_output\nprint(1)\nclear_output()\nprint(2)"],
            "sends clear_output, which changes an output after it was shown",
        ),
        (["x = 1"], "has 0 complete claims tables"),
        (["1 / 0"], "ZeroDivisionError"),
    ],
    ids=["stderr", "path", "clear_output", "no claims", "error"],
)
def test_what_may_not_be_stored_leaves_the_stored_notebook_alone(plain, cells, reason):
    table = "from minilib.board import show\nshow('gamma')"
    cells = cells if reason.startswith("has 0") else [*cells, table]
    chapter = add_chapter(plain, "gamma", *cells)
    chapter.notebook.write_text("as it was")
    _, reasons = build_chapter(chapter, Limits(60))
    assert len(reasons) == 1
    assert reason in reasons[0]
    assert chapter.notebook.read_text() == "as it was"
    assert reason in (chapter.runs / "failed.txt").read_text()
    assert (chapter.runs / "failed.ipynb").is_file()
    assert {p.name for p in chapter.runs.iterdir()} == {"failed.ipynb", "failed.txt"}


def test_streams_colors_and_addresses_are_made_comparable(plain):
    chapter = add_chapter(
        plain,
        "gamma",
        "import sys\nprint('a', end='')\nsys.stdout.flush()\nprint('b\\rc')\nprint('\\x1b[31mred')",
        "object()",
        "from minilib.board import show\nshow('gamma')",
    )
    _, reasons = build_chapter(chapter, Limits(60))
    assert not reasons
    code = [c for c in nbformat.read(chapter.notebook, as_version=4).cells if c.cell_type == "code"]
    assert code[1].outputs[0].text == "c\nred\n"
    assert code[2].outputs[0].data["text/plain"] == "<object at 0x…>"


def test_an_edit_during_the_execution_leaves_the_notebook_stale(plain):
    from reproductions.press.drift import check_chapter

    edit = """
        from pathlib import Path
        path = Path("../src/minilib/board.py")
        path.write_text(path.read_text() + "# edited while running\\n")
    """
    chapter = add_chapter(plain, "gamma", "from minilib.board import show", edit, "show('gamma')")
    build_chapter(chapter, Limits(60))
    (problem,) = check_chapter(chapter)
    assert "an earlier state of minilib.board" in str(problem)


def test_the_command_builds_records_the_time_and_says_so_in_json(plain):
    result = reproduce("build", "beta", "--json", "--root", plain.root)
    assert result.exit_code == 0, result.stderr
    (row,) = json.loads(result.stdout)
    assert (row["chapter"], row["ok"], row["executed"]) == ("beta", True, True)
    timing = json.loads(plain.chapter("beta").timing.read_text())
    assert set(timing) == {"chapter", "date", "machine", "peak_memory_mb", "seconds"}
    assert "cores" in timing["machine"]


def digests(tmp_path, chapter, **modules):
    book = write_book(tmp_path / "book")
    for name, text in modules.items():
        path = book.src / "pack" / (name.replace("__", "/") + ".py")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    for folder in {p.parent for p in book.src.joinpath("pack").rglob("*.py")}:
        (folder / "__init__.py").touch()
    (book.chapters_folder / "one.py").write_text(chapter)
    return set(module_digests(Book(book.root).chapter("one")))


def test_imports_are_followed_wherever_they_stand(tmp_path):
    found = digests(
        tmp_path,
        "from pack.a import f\nimport numpy\n",
        a="def f():\n    from .b import g\n    import pack.sub.c as c\n    return g, c\n",
        b="import importlib\ng = importlib.import_module('pack.d')\n",
        d="import os\n",
        e="never = 'imported'\n",
        sub__c="from ..f import x\nfrom .. import h\n",
        f="x = 1\n",
        h="y = 1\n",
    )
    names = ["", ".a", ".b", ".d", ".f", ".h", ".sub", ".sub.c"]
    assert found == {f"pack{name}" for name in names}


def test_data_files_beside_a_module_count_and_those_of_other_packages_do_not(tmp_path):
    book = write_book(tmp_path)
    for path in ("a/table.csv", "a/tables/deep.csv", "b/other.csv"):
        file = book.src / "pack" / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("1\n")
    for package in ("", "a", "b"):
        (book.src / "pack" / package / "__init__.py").touch()
    (book.chapters_folder / "one.py").write_text("import pack.a\n")
    found = set(module_digests(book.chapter("one")))
    assert found == {"pack", "pack.a", "pack/a/table.csv", "pack/a/tables/deep.csv"}


def test_parameters_are_read_from_the_source(plain):
    values = parameters_of(read_source(plain.chapter("beta")))
    assert values == {"profile": "cpu", "seed": 0, "device": "auto"}
