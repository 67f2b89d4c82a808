"""The command as people use it: bad input, failures, interruption, resumption, locks."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
from press_book import add_chapter, processes_in, reproduce, start_reproduce, write_book

from reproductions.press.book import Book


def said(result):
    return " ".join(result.stderr.split())


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["run", "betta"], "unknown chapter 'betta' (did you mean beta?); the chapters are: beta,"),
        (["run"], "name chapters or give --all; the chapters are: beta, alpha"),
        (["run", "beta", "--all"], "give chapters or --all, not both"),
        (["run", "beta", "--profile", "big"], "'big'; the profiles are: smoke, cpu, paper"),
        (["run", "beta", "--seed", "one"], "a seed is an integer of at least 0, got 'one'"),
        (["run", "beta", "--seed", "-1"], "got '-1'"),
        (["run", "beta", "--seed", "1.5"], "got '1.5'"),
        (["run", "beta", "--device", "tpu"], "'tpu'; the devices are: auto, cpu, cuda, cuda:N"),
        (["run", "beta", "--device", "cuda:99"], "'cuda:99' was asked for, but torch sees"),
        (["run", "beta", "-P", "width=3"], "no parameter 'width'; its parameters are: profile,"),
        (["run", "beta", "-P", "width"], "a parameter is given as NAME=VALUE, got 'width'"),
        (["build", "nothing"], "unknown chapter 'nothing'"),
        (["check", "nothing"], "unknown chapter 'nothing'"),
        (["new", "Beta"], "lower-case words joined by underscores"),
        (["new", "class"], "got 'class'"),
        (["new", "beta"], "chapters/beta.py is there already"),
        (["bench"], "there are no benchmarks here"),
        (["sweep", "beta", "--seeds", "4-2"], "seeds are given as 0-4 or 0,1,7; got '4-2'"),
        (["sweep", "beta", "--scheduler", "nowhere"], "'nowhere'"),
        (["run", "beta", "--jobs", "0"], "--jobs must be at least 1, got 0"),
        (["run", "beta", "--timeout", "-5"], "--timeout must be at least 1, got -5"),
        (["run", "beta", "--memory-limit", "0"], "--memory-limit must be at least 0.1, got 0"),
        (["run", "beta", "--nonsense"], "--nonsense"),
    ],
)
def test_bad_input_is_one_sentence_and_status_2(plain, args, message):
    before = sorted(p for p in plain.root.rglob("*") if ".lock" not in str(p))
    result = reproduce(*args, "--root", plain.root)
    assert result.exit_code == 2
    assert message in said(result)
    assert "Traceback" not in result.output
    assert sorted(p for p in plain.root.rglob("*") if ".lock" not in str(p)) == before


def test_no_book(tmp_path):
    result = reproduce("list", "--root", tmp_path)
    assert (result.exit_code, "no book at" in said(result)) == (2, True)
    result = reproduce("list", "--root", tmp_path / "absent")
    assert (result.exit_code, "does not exist" in said(result)) == (2, True)


def test_a_chapter_without_a_parameters_cell_is_bad_input(plain):
    (plain.chapters_folder / "gamma.py").write_text("# %%\nx = 1\n")
    result = reproduce("run", "gamma", "--root", plain.root)
    assert result.exit_code == 2
    assert "chapters/gamma.py: 0 cells are tagged parameters" in said(result)


def test_a_folder_that_cannot_be_written(plain):
    plain.runs_folder.write_text("a file where the folder should be")
    result = reproduce("run", "beta", "--root", plain.root)
    assert result.exit_code == 2
    assert "runs" in said(result)
    assert "make it writable, or choose another book with --root" in said(result)


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may write to any folder")
def test_a_folder_without_write_permission(plain):
    plain.root.chmod(0o555)
    result = reproduce("run", "beta", "--root", plain.root)
    plain.root.chmod(0o755)
    assert (result.exit_code, "cannot create the folder" in said(result)) == (2, True)


def test_the_book_is_found_from_a_folder_inside(plain):
    command = [sys.executable, "-m", "reproductions.press.cli", "list", "--json"]
    done = subprocess.run(
        command, cwd=plain.chapters_folder, capture_output=True, text=True, check=True
    )
    rows = json.loads(done.stdout)
    assert [row["chapter"] for row in rows] == ["beta", "alpha"]
    assert rows[0]["problems"] == [
        "chapters/beta.ipynb: does not exist; run `reproduce build beta`"
    ]


def test_colors_are_left_out_where_they_are_not_wanted(plain, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert "\x1b[" in reproduce("run", "betta", "--root", plain.root).stderr
    monkeypatch.setenv("NO_COLOR", "1")
    text = reproduce("run", "betta", "--root", plain.root).stderr
    assert "\x1b[3" not in text.replace("\x1b[0m", "")


def test_help_documents_the_exit_statuses():
    for command in ([], ["run"], ["check"]):
        text = " ".join(reproduce(*command, "--help").output.split())
        assert "3 another command has a lock on the chapter; 130 interrupted" in text


def test_runs_resume_and_failures_stay_apart(plain):
    add_chapter(plain, "gamma", "if seed == 2:\n    raise ValueError('two')", "print(seed)")
    run = ["run", "gamma", "--seed", "1", "--seed", "2", "--json", "--root", plain.root]
    first = reproduce(*run)
    assert first.exit_code == 1
    one, two = json.loads(first.stdout)
    assert (one["ok"], one["resumed"], one["parameters"]["seed"]) == (True, False, 1)
    assert (two["ok"], two["reason"]) == (
        False,
        "gamma (seed=2), cell 3 (`if seed == 2:`): ValueError: two",
    )
    assert (plain.runs_folder / "gamma" / "failed.ipynb").is_file()
    assert (plain.runs_folder / "gamma" / "failed.txt").read_text().strip() == two["reason"]
    assert not list(plain.root.rglob(".attempt-*"))
    again = json.loads(reproduce(*run).stdout)
    assert [r["resumed"] for r in again] == [True, False]
    notebook = json.loads((plain.root / one["notebook"]).read_text())
    sources = ["".join(c["source"]) for c in notebook["cells"]]
    assert sources[2] == "seed = 1"
    # an edited chapter is another run
    path = plain.chapters_folder / "gamma.py"
    path.write_text(path.read_text().replace("print(seed)", "print(seed + 1)"))
    assert [r["resumed"] for r in json.loads(reproduce(*run).stdout)] == [False, False]


def test_check_rerun_compares_and_counts_what_was_skipped(book):
    result = reproduce("check", "--rerun", "--json", "--root", book.root)
    assert result.exit_code == 0, result.output
    counts = {
        r["chapter"]: (r["passed"], r["failed"], r["skipped"])
        for r in map(dict, json.loads(result.stdout))
    }
    assert counts == {"beta": (3, 0, 0), "alpha": (6, 0, 0)}
    (book.root / "data" / "table.txt").unlink()
    result = reproduce("check", "alpha", "--rerun", "--root", book.root)
    assert result.exit_code == 0
    assert 'skipped: alpha, cell 5 (`table = Path("../data/table.txt")`): Skipped:' in said(result)
    assert "1 of 3 claims not re-run for want of data: C2" in said(result)
    assert [line.split() for line in result.stdout.splitlines()][1] == [
        "alpha",
        "ok",
        "4",
        "0",
        "2",
    ]
    # without an execution, the last one of the same source is compared
    assert reproduce("check", "alpha", "--fail-on-skip", "--root", book.root).exit_code == 1
    (book.root / "data" / "table.txt").write_text("1 2 3.4\n")
    result = reproduce("check", "alpha", "--rerun", "--root", book.root)
    assert result.exit_code == 1
    assert "claim C2: sum is 6.4, stored 6.0" in said(result)


SLOW = "import time\nfor _ in range(600):\n    time.sleep(0.1)"


def started(book, *args):
    """A command that executes the slow chapter, its kernel running."""
    process = start_reproduce(*args, "--root", book.root)
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        kernels = [p for p in processes_in(book.root) if "_worker" in " ".join(p.cmdline())]
        if kernels and any("ipykernel" in " ".join(c.cmdline()) for c in kernels[0].children()):
            return process
        time.sleep(0.1)
    process.kill()
    raise AssertionError(f"no kernel after 30 s: {process.communicate()}")


def gone(book, seconds=10):
    """Wait until no process of the book is left; False if some stay."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if not processes_in(book.root):
            return True
        time.sleep(0.1)
    return False


@pytest.mark.parametrize(
    ("sent", "status"),
    [(signal.SIGINT, 130), (signal.SIGTERM, 130), (signal.SIGKILL, -9)],
    ids=["SIGINT", "SIGTERM", "SIGKILL"],
)
def test_killing_the_command_loses_nothing_and_leaves_nothing(plain, sent, status):
    add_chapter(plain, "done", "print(1)")
    add_chapter(plain, "slow", SLOW).notebook.write_text("as it was")
    assert reproduce("run", "done", "--root", plain.root).exit_code == 0
    process = started(plain, "run", "slow", "done", "-j", "1")
    process.send_signal(sent)
    _, err = process.communicate(timeout=20)
    assert process.returncode == status
    assert "Traceback" not in err
    assert gone(plain)
    assert plain.chapter("slow").notebook.read_text() == "as it was"
    if sent != signal.SIGKILL:
        assert "interrupted; no kernel is left" in err
        assert not list(plain.root.rglob(".attempt-*"))
    # the next run goes on with what is missing
    path = plain.chapters_folder / "slow.py"
    path.write_text(path.read_text().replace("range(600)", "range(1)"))
    result = reproduce("run", "slow", "done", "--json", "--root", plain.root)
    assert [(r["ok"], r["resumed"]) for r in json.loads(result.stdout)] == [
        (True, False),
        (True, True),
    ]
    assert not list(plain.root.rglob(".attempt-*"))


def test_two_commands_on_one_chapter_do_not_meet(plain):
    add_chapter(plain, "slow", SLOW)
    process = started(plain, "run", "slow")
    for command in ("run", "build"):
        result = reproduce(command, "slow", "--root", plain.root)
        assert result.exit_code == 3
        assert f"being executed by another reproduce command (process {process.pid})" in said(
            result
        )
    other = reproduce("run", "beta", "--root", plain.root)
    assert other.exit_code == 0
    process.terminate()
    process.communicate(timeout=20)
    assert gone(plain)


def test_the_time_out_of_the_command_line(plain):
    add_chapter(plain, "slow", SLOW)
    began = time.monotonic()
    result = reproduce("run", "slow", "--timeout", "2", "--root", plain.root)
    assert result.exit_code == 1
    assert "slow, cell 2 (`import time`): ran longer than the time-out of 2 s" in said(result)
    assert time.monotonic() - began < 15
    assert not processes_in(plain.root)


def test_expected_time_comes_from_the_last_run_or_the_record(plain):
    from reproductions.press.runs import expected_seconds, make_spec

    spec = make_spec(plain.chapter("beta"))
    assert expected_seconds(spec) is None
    plain.chapter("beta").timing.parent.mkdir(parents=True)
    timing = {"seconds": 77, "machine": "two cores", "date": "2026-01-01"}
    plain.chapter("beta").timing.write_text(json.dumps(timing))
    assert expected_seconds(spec) == 77
    plain.chapter("beta").timing.write_text(json.dumps(timing)[:-5])
    assert expected_seconds(spec) is None
    assert expected_seconds(make_spec(plain.chapter("beta"), {"seed": 5})) is None
    record = json.loads(reproduce("run", "beta", "--json", "--root", plain.root).stdout)[0]
    assert expected_seconds(spec) == record["seconds"]


def test_data_lists_where_each_set_is(monkeypatch, tmp_path):
    monkeypatch.setenv("REPRODUCTIONS_DATA", str(tmp_path))
    monkeypatch.setenv("REPRODUCTIONS_CACHE", str(tmp_path / "cache"))
    rows = {row["name"]: row for row in json.loads(reproduce("data", "--json").stdout)}
    assert rows["digits"]["where"] == "scikit-learn"
    assert rows["mnist"]["where"] == "absent"
    assert "absent (would be downloaded)" in reproduce("data").stdout


def test_bench_passes_its_arguments_and_its_status_on(tmp_path):
    book: Book = write_book(tmp_path / "mini")
    script = book.root / "benchmarks" / "run.py"
    script.parent.mkdir()
    script.write_text("import sys\nopen('seen', 'w').write(' '.join(sys.argv[1:]))\nsys.exit(7)\n")
    result = reproduce("bench", "--root", book.root, "moments", "--repeat", "5")
    assert result.exit_code == 7
    assert (book.root / "seen").read_text() == "moments --repeat 5"
