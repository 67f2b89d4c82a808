"""Every chapter: short cells, lines that fit the page, and an end that is reached without data."""

import ast
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import jupytext
import nbformat
import pytest

from reproductions.chapter.claims import CLAIMS_MIME
from reproductions.press.compare import kind_of
from reproductions.press.notebook import code_cells

ROOT = Path(__file__).resolve().parents[1]
CHAPTERS = sorted((ROOT / "chapters").glob("*.py"))
#: Columns that fit the reading width; a folded cell may be a little wider.
OPEN, FOLDED, LINES = 88, 104, 31


@pytest.mark.parametrize("chapter", CHAPTERS, ids=lambda path: path.stem)
def test_cells_are_short_and_fit_the_page(chapter):
    for cell in code_cells(jupytext.read(chapter)):
        lines = cell.source.splitlines()
        width = FOLDED if "hide-input" in cell.metadata.get("tags", ()) else OPEN
        assert len(lines) <= LINES, f"a cell of {len(lines)} lines: {lines[0]}"
        wide = [line for line in lines if len(line) > width]
        assert not wide, f"over {width} columns: {wide[0]}"


CRITERIA = {"near", "below", "above", "at_most", "at_least", "between", "equals"}


def computed_criteria(source):
    """Calls of a criterion in which something is called: an edge that moves with the machine."""
    calls = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)]
    criteria = [c for c in calls if isinstance(c.func, ast.Name) and c.func.id in CRITERIA]
    return [
        ast.unparse(call)
        for call in criteria
        if any(isinstance(n, ast.Call) and n is not call for n in ast.walk(call))
    ]


def test_a_computed_criterion_is_seen():
    assert computed_criteria("measured('x', 1.0, near(radius.item(), abs=1e-3))")
    assert not computed_criteria("measured('x', f(1.0), near(published['C6'], abs=5e-5))")


@pytest.mark.parametrize("chapter", CHAPTERS, ids=lambda path: path.stem)
def test_criteria_are_fixed_before_the_run(chapter):
    assert not computed_criteria(chapter.read_text(encoding="utf-8"))


def claimed(cell):
    """Ids of the claims that a cell shows."""
    tables = [o.data[CLAIMS_MIME] for o in cell.outputs if CLAIMS_MIME in o.get("data", {})]
    return [row["id"] for data in tables for row in data["rows"]]


@pytest.mark.slow
@pytest.mark.parametrize("chapter", CHAPTERS, ids=lambda path: path.stem)
def test_the_end_is_reached_without_data_and_without_network(chapter, tmp_path):
    book, empty = tmp_path / "book", tmp_path / "empty"
    for name in ("chapters", "src", "results"):
        shutil.copytree(ROOT / name, book / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("_config.yml", "requirements.lock"):
        shutil.copy(ROOT / name, book / name)
    empty.mkdir()
    environment = dict(os.environ, REPRODUCTIONS_OFFLINE="1", REPRODUCTIONS_CACHE=str(empty))
    environment.pop("REPRODUCTIONS_DATA", None)
    command = [sys.executable, "-m", "reproductions.press.cli", "run", chapter.stem]
    command += ["--profile", "smoke", "--root", str(book), "--json"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (record,) = json.loads(done.stdout)
    fresh = nbformat.read(book / record["notebook"], as_version=4)
    stored = nbformat.read(chapter.with_suffix(".ipynb"), as_version=4)
    skipped = 0
    own = [c for c in code_cells(fresh) if "injected-parameters" not in c.metadata.get("tags", ())]
    for old, new in zip(code_cells(stored), own, strict=True):
        kinds = [kind_of(output) for output in new.outputs]
        if "skipped" in kinds:
            skipped += 1
        else:
            # a cell that shows less than the stored one, and does not say why, would fail later
            assert kinds == [kind_of(output) for output in old.outputs], new.source
            assert claimed(new) == claimed(old)
    assert skipped == record["skipped"]
