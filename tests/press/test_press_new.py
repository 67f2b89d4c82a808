"""A new chapter builds, passes its check, and comes with a test that can fail."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from press_book import reproduce

from reproductions.press.new import _with_entry

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
def test_a_new_chapter_builds_checks_and_its_test_bites(plain):
    package = plain.src / "reproductions"
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "src" / "reproductions", package, ignore=ignored)
    result = reproduce("new", "mean_field", "--root", plain.root)
    assert result.exit_code == 0
    assert "chapters/mean_field.py" in result.stdout
    assert (
        "  - file: chapters/alpha\n  - file: chapters/mean_field\n"
        in (plain.root / "_toc.yml").read_text()
    )
    build = reproduce("build", "mean_field", "--root", plain.root)
    assert build.exit_code == 0, build.stderr
    check = reproduce("check", "mean_field", "--rerun", "--root", plain.root)
    assert check.exit_code == 0, check.output
    smoke = ["run", "mean_field", "--profile", "smoke", "--seed", "1", "--seed", "2"]
    assert reproduce(*smoke, "--root", plain.root).exit_code == 0

    def tests_pass():
        env = os.environ | {"PYTHONPATH": str(plain.src)}
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
        test = str(plain.root / "tests" / "papers" / "test_mean_field.py")
        done = subprocess.run(
            [*command, test], env=env, cwd=plain.root, capture_output=True, check=False
        )
        return done.returncode == 0

    assert tests_pass()
    module = package / "papers" / "mean_field" / "__init__.py"
    module.write_text(module.read_text().replace("12.0 *", "13.0 *"))
    assert not tests_pass()
    again = reproduce("new", "mean_field", "--root", plain.root)
    assert again.exit_code == 2
    assert "is there already" in again.stderr


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (
            "root: x\nparts:\n  - chapters:\n      - file: chapters/a\n"
            "  - chapters:\n      - file: b\n",
            "root: x\nparts:\n  - chapters:\n      - file: chapters/a\n      - file: chapters/n\n"
            "  - chapters:\n      - file: b\n",
        ),
        ("root: x\nchapters: []\n", "root: x\nchapters:\n  - file: chapters/n\n"),
        ("root: x\n", "root: x\nchapters:\n  - file: chapters/n\n"),
    ],
)
def test_the_entry_in_the_table_of_contents(tmp_path, before, after):
    toc = tmp_path / "_toc.yml"
    toc.write_text(before)
    assert _with_entry(toc, "n") == after
