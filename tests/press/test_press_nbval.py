"""The real nbval on the miniature book, with the hook of the root conftest."""

import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import pytest

pytest.importorskip("nbval", reason="nbval is in the extra `test`")

ROOT = Path(__file__).resolve().parents[2]


def nbval(book, *args, timeout="60"):
    shutil.copy(ROOT / "conftest.py", book.root)
    (book.root / "pytest.ini").write_text("[pytest]\naddopts = -ra -p no:cacheprovider\n")
    env = {k: v for k, v in os.environ.items() if not k.startswith(("PYTEST", "COV_"))}
    env["MPLBACKEND"] = "nonsense"  # the hook takes it out of the kernels' way
    command = [sys.executable, "-m", "pytest", "--nbval", f"--nbval-cell-timeout={timeout}"]
    done = subprocess.run(
        [*command, *args], cwd=book.root, env=env, capture_output=True, text=True, check=False
    )
    counts = dict.fromkeys(("passed", "failed", "skipped"), 0)
    summary = (done.stdout.splitlines() or [""])[-1]
    for number, word in re.findall(r"(\d+) (passed|failed|skipped)", summary):
        counts[word] = int(number)
    return done.returncode, tuple(counts.values()), done.stdout + done.stderr


def tamper(book, name, change):
    path = book.chapter(name).notebook
    notebook = nbformat.read(path, as_version=4)
    change([c for c in notebook.cells if c.cell_type == "code"])
    nbformat.write(notebook, path)


def test_a_built_book_passes_on_two_workers(book):
    status, counts, text = nbval(book, "-n", "2", "--dist", "loadfile", "chapters")
    assert (status, counts) == (0, (9, 0, 0)), text


def test_tampered_outputs_fail_and_missing_data_is_skipped(book):
    mime = "application/vnd.reproductions.claims+json"

    def change(code):
        code[1].outputs[0].text = code[1].outputs[0].text.replace("4.000", "4.001")
        summary = code[2].outputs[0].data["application/vnd.reproductions.figure+json"]["summary"]
        summary["doubled"]["max"] = 2.5
        code[3].outputs[0].data[mime]["rows"][0]["measurements"][0]["value"] = 2.01
        html = code[5].outputs[0].data["text/html"]
        code[5].outputs[0].data["text/html"] = html.replace("it takes a year", "it takes a day")

    tamper(book, "alpha", change)
    (book.root / "data" / "table.txt").unlink()
    status, counts, text = nbval(book, "chapters/alpha.ipynb")
    assert status == 1
    assert counts == (1, 4, 1), text
    for line in (
        "doubled: 4.00",
        "figure, doubled: max is 2.0, stored 2.5",
        "claim C1: slope is 2.0, stored 2.01: it may move by 0.001",
        "claims: the HTML is not what its data render to",
        "Skipped: the table cannot be had here; C2 is stored, not re-run here.",
    ):
        assert line in text


def test_missing_data_alone_skips_the_cell_and_the_table_that_lacks_it(book):
    (book.root / "data" / "table.txt").unlink()
    status, counts, text = nbval(book, "chapters/alpha.ipynb")
    assert (status, counts) == (0, (4, 0, 2)), text
    assert "1 of 3 claims not re-run for want of data: C2" in text


def test_a_kernel_that_dies_is_noticed_long_before_the_time_out(book):
    def die(code):
        code[1].source = "import os\nos._exit(1)"

    tamper(book, "beta", die)
    began = time.monotonic()
    status, _, text = nbval(book, "chapters/beta.ipynb", timeout="300")
    assert status == 1
    assert "the kernel died in this cell" in text
    assert time.monotonic() - began < 60


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--nbval-lax"], "--nbval-lax compares nothing"),
        (["--nbval-sanitize-with=x.cfg"], "erases what should be compared"),
        (["-n", "2"], "add --dist loadfile"),
    ],
)
def test_options_that_would_weaken_the_comparison_are_refused(book, args, message):
    status, _, text = nbval(book, *args, "chapters")
    assert status == pytest.ExitCode.USAGE_ERROR
    assert message in text
