"""Each way a cell can go wrong, for real: named within seconds, no process left behind."""

import time

import psutil
import pytest
from press_book import add_chapter, processes_in

from reproductions.press.execute import execute, first_line
from reproductions.press.limits import Limits
from reproductions.press.notebook import read_source


def run(book, *cells, limits=None):
    chapter = add_chapter(book, "case", *cells)
    output = book.runs_folder / "case" / "out.ipynb"
    began = time.monotonic()
    outcome = execute(read_source(chapter), output, book=book, limits=limits or Limits(20))
    assert not processes_in(book.root)
    return outcome, time.monotonic() - began


def test_a_good_notebook_and_what_it_reports(plain):
    seen = []
    chapter = add_chapter(plain, "case", "x = 1", "print(x)")
    outcome = execute(
        read_source(chapter),
        plain.runs_folder / "out.ipynb",
        book=plain,
        limits=Limits(20),
        on_progress=seen.append,
    )
    assert outcome.ok
    assert outcome.live == []
    assert [(p.number, p.total, p.line) for p in seen] == [
        (1, 3, 'profile = "cpu"'),
        (2, 3, "x = 1"),
        (3, 3, "print(x)"),
    ]


@pytest.mark.parametrize(
    ("cell", "reason"),
    [
        ("1 / 0", "ZeroDivisionError: division by zero"),
        ("raise SystemExit(0)", "SystemExit ended the notebook here"),
        ("import os\nos._exit(0)", "the kernel ended itself with status 0"),
        ("import os, signal\nos.kill(os.getpid(), signal.SIGKILL)", "killed by signal 9"),
    ],
    ids=["raises", "SystemExit", "os._exit", "kill -9"],
)
def test_a_cell_that_ends_badly_is_named(plain, cell, reason):
    outcome, seconds = run(plain, "x = 1", cell, "y = 2")
    assert not outcome.ok
    assert reason in outcome.reason
    assert outcome.cell == 3
    assert outcome.describe("case").startswith(f"case, cell 3 (`{first_line(cell)}`): ")
    assert seconds < 15


def test_an_endless_loop_that_ignores_interrupts_ends_at_the_time_out(plain):
    loop = "import signal\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\nwhile True:\n    pass"
    outcome, seconds = run(plain, loop, limits=Limits(2))
    assert outcome.reason == "ran longer than the time-out of 2 s"
    assert outcome.cell == 2
    assert 2 < seconds < 12


def test_a_memory_eater_is_killed_before_the_machine_suffers(plain):
    eater = "kept = []\nwhile True:\n    kept.append(bytearray(b'x' * 20_000_000))"
    outcome, _ = run(plain, eater, limits=Limits(60, memory=2**29))
    assert "more than the limit of 0.5 GB (--memory-limit)" in outcome.reason
    assert outcome.cell == 2


def test_processes_that_a_cell_started_end_with_it(plain):
    # a session of its own, so that neither a signal to the group nor the kernel's end reaches it
    start = """
        import subprocess, sys
        code = "import time; time.sleep(300)"
        child = subprocess.Popen([sys.executable, "-c", code], start_new_session=True)
        print(child.pid)
        raise RuntimeError(child.pid)
    """
    outcome, _ = run(plain, start)
    pid = int(outcome.reason.rpartition(" ")[2])
    assert not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


def test_the_kernel_is_this_interpreter_whatever_is_installed(plain, tmp_path, monkeypatch):
    # a kernel called python3 that comes first on the search path and cannot start
    spec = tmp_path / "jupyter" / "kernels" / "python3"
    spec.mkdir(parents=True)
    (spec / "kernel.json").write_text(
        '{"argv": ["/nowhere/python", "-f", "{connection_file}"], "display_name": "x", '
        '"language": "python"}'
    )
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "jupyter"))
    outcome, _ = run(plain, "import sys, os\nassert os.environ['TZ'] == 'UTC'")
    assert outcome.ok, outcome.reason


def test_start_up_files_of_the_reader_have_no_say(plain, tmp_path, monkeypatch):
    startup = tmp_path / "ipython" / "profile_default" / "startup"
    startup.mkdir(parents=True)
    (startup / "00.py").write_text("raise RuntimeError('mine')\nintruder = 1\n")
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    outcome, _ = run(plain, "assert 'intruder' not in globals()")
    assert outcome.ok, outcome.reason
