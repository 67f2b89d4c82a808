"""The command ``reproduce``. Each command parses, calls the module that does it, and reports."""

from __future__ import annotations

import functools
import json
import math
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Annotated, Any, NoReturn, TypeVar

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from reproductions.press.book import (
    Book,
    Chapter,
    check_device,
    check_profile,
    check_seed,
    find_book,
)
from reproductions.press.errors import BadInput, PressError
from reproductions.press.limits import Limits, cores, usable_memory
from reproductions.press.progress import show_progress, spoken
from reproductions.press.scale_command import scale

__all__ = ["app", "main"]

_EPILOG = (
    "Exit status: 0 all is well; 1 a chapter or a check failed; 2 the request is wrong; "
    "3 another command has a lock on the chapter; 130 interrupted."
)

app = typer.Typer(
    help="Execute, check and publish a book of reproductions.",
    epilog=_EPILOG,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

F = TypeVar("F", bound=Callable[..., Any])

Root = Annotated[
    Path | None,
    typer.Option(help="The book's folder; found from the working folder upwards by default."),
]
Names = Annotated[list[str] | None, typer.Argument(metavar="[CHAPTER]...", show_default=False)]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for machines, nothing else.")]
Jobs = Annotated[
    int, typer.Option("--jobs", "-j", help="Executions at a time.", show_default="cores")
]
Timeout = Annotated[int, typer.Option(help="Seconds that one cell may take.")]
Memory = Annotated[
    float | None,
    typer.Option(
        "--memory-limit",
        help="Gigabytes for all executions together; by default 90 % of the machine's.",
        show_default=False,
    ),
]
All = Annotated[bool, typer.Option("--all", help="All chapters.")]
Param = Annotated[
    list[str] | None,
    typer.Option("--param", "-P", metavar="NAME=VALUE", help="Set a parameter of the chapter."),
]


CORES = cores()


def _consoles() -> tuple[Console, Console]:
    """Standard output and standard error; lines for a file or a pipe are not cut to 80 columns."""
    consoles = Console(highlight=False), Console(stderr=True, highlight=False)
    for console in consoles:
        if not console.is_terminal:
            console.width = 200
    return consoles


def _fail(status: int, message: str) -> NoReturn:
    _, err = _consoles()
    err.print(f"[bold red]reproduce:[/] {escape(message)}", soft_wrap=True)
    raise typer.Exit(status)


def _guarded(command: F) -> F:
    """Turn the errors that are the user's business into one sentence and an exit status."""

    @functools.wraps(command)
    def guarded(*args: Any, **kwargs: Any) -> Any:
        try:
            return command(*args, **kwargs)
        except PressError as error:
            _fail(error.exit_code, str(error))
        except KeyboardInterrupt:
            _fail(130, "interrupted; no kernel is left, and finished chapters are kept")
        except OSError as error:
            where = f" ({error.filename})" if error.filename else ""
            _fail(1, f"{error.strerror or error}{where}")

    return guarded


def _print_json(data: Any) -> None:
    print(json.dumps(data, indent=1, ensure_ascii=False, default=str))


def _limits(timeout: int, memory: float | None) -> Limits:
    _at_least("--timeout", timeout, 1)
    if memory is None:
        return Limits(timeout, int(0.9 * usable_memory()))
    _at_least("--memory-limit", memory, 0.1)
    if math.isinf(memory):
        raise BadInput(f"--memory-limit must be a number of gigabytes, got {memory:g}")
    return Limits(timeout, int(memory * 2**30))


def _at_least(option: str, value: float, least: float) -> None:
    if not value >= least:
        raise BadInput(f"{option} must be at least {least:g}, got {value:g}")


def _overrides(
    profile: str | None, seed: str | None, device: str | None, param: list[str] | None
) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for item in param or []:
        name, equals, value = item.partition("=")
        if not equals or not name:
            raise BadInput(f"a parameter is given as NAME=VALUE, got {item!r}")
        values[name] = value
    given = {"profile": profile, "seed": seed, "device": device}
    values |= {name: value for name, value in given.items() if value is not None}
    checks = {"profile": check_profile, "seed": check_seed, "device": check_device}
    return {name: checks[name](v) if name in checks else v for name, v in values.items()}


def _chosen(book: Book, names: list[str] | None, everything: bool) -> list[Chapter]:
    """Chapters that were asked for by name or by ``--all``."""
    if not names and not everything:
        known = ", ".join(c.name for c in book.chapters())
        raise BadInput(f"name chapters or give --all; the chapters are: {known or 'none yet'}")
    return book.select(names or [], everything)


def _execute(
    specs: list[Any], limits: Limits, jobs: int, fresh: bool, silent: bool, client: Any = None
) -> list[Any]:
    """Run ``specs`` under the locks of their chapters, showing progress."""
    from reproductions.press.runs import expected_seconds, remove_abandoned
    from reproductions.press.sweep import run_sweep

    _at_least("--jobs", jobs, 1)
    _, err = _consoles()
    chapters = list({spec.chapter.name: spec.chapter for spec in specs}.values())
    if not chapters:
        return []
    with chapters[0].book.lock(chapters):
        remove_abandoned(chapters)
        expected = {spec.key: expected_seconds(spec) for spec in specs}
        with show_progress(err, silent) as display:
            return run_sweep(
                specs,
                client,
                limits=limits,
                jobs=min(jobs, len(specs)),
                fresh=fresh,
                on_progress=lambda s, p: display.cell(s.label, p, expected[s.key]),
                on_done=lambda s, r: display.done(
                    s.label, r.ok, r.seconds, "done before" if r.resumed else r.reason
                ),
            )


@app.command("list")
@_guarded
def list_chapters(root: Root = None, as_json: Json = False) -> None:
    """List the chapters: state, verdicts, time."""
    from reproductions.press.drift import check_chapter
    from reproductions.press.scoreboard import read_boards

    out, _ = _consoles()
    rows = []
    for board in read_boards(find_book(root)):
        problems = check_chapter(board.chapter)
        rows.append(
            {
                "chapter": board.chapter.name,
                "title": board.title,
                "current": not problems,
                "problems": [str(p) for p in problems],
                "claims": dict(board.counts),
                "seconds": board.timing["seconds"] if board.timing else None,
            }
        )
    if as_json:
        _print_json(rows)
        return
    table = Table("Chapter", "Title", "State", "Claims", "Time", box=None)
    for row in rows:
        state = "current" if row["current"] else row["problems"][0].partition(": ")[2]
        claims = ", ".join(f"{n} {v}" for v, n in row["claims"].items())
        table.add_row(
            row["chapter"], escape(row["title"]), escape(state), claims, spoken(row["seconds"])
        )
    out.print(table)


@app.command(epilog=_EPILOG)
@_guarded
def run(
    names: Names = None,
    everything: All = False,
    profile: Annotated[str | None, typer.Option(help="smoke, cpu or paper.")] = None,
    seed: Annotated[list[str] | None, typer.Option(help="May be repeated.")] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu, cuda or cuda:N.")] = None,
    param: Param = None,
    jobs: Jobs = CORES,
    timeout: Timeout = 600,
    memory: Memory = None,
    fresh: Annotated[bool, typer.Option(help="Execute again what is done.")] = False,
    root: Root = None,
    as_json: Json = False,
) -> None:
    """Execute chapters into runs/, with any parameters; what is done already is not done again."""
    from reproductions.press.runs import make_spec

    book = find_book(root)
    chapters = _chosen(book, names, everything)
    limits = _limits(timeout, memory)
    points = [_overrides(profile, s, device, param) for s in seed or [None]]
    specs = [make_spec(chapter, point) for chapter in chapters for point in points]
    specs = list({spec.key: spec for spec in specs}.values())
    records = _execute(specs, limits, jobs, fresh, as_json)
    _report_runs(records, as_json)


def _report_runs(records: list[Any], as_json: bool) -> None:
    out, err = _consoles()
    failed = [r for r in records if not r.ok]
    if as_json:
        _print_json([vars(r) for r in records])
    else:
        for record in failed:
            err.print(f"[red]failed:[/] {escape(record.reason)}", soft_wrap=True)
            kept = f"runs/{record.chapter}/failed.ipynb"
            err.print(f"        what it left is in {kept}; no stored notebook was touched")
        resumed = sum(r.resumed for r in records)
        out.print(
            f"{len(records) - len(failed)} of {len(records)} executed"
            + (f", {resumed} of them earlier" if resumed else "")
        )
        for record in records:
            if record.skipped:
                what = "cell was" if record.skipped == 1 else "cells were"
                out.print(
                    f"{record.chapter}: {record.skipped} {what} skipped for want of a data set; "
                    "`reproduce data` says which are at hand"
                )
    if failed:
        raise typer.Exit(1)


@app.command(epilog=_EPILOG)
@_guarded
def build(
    names: Names = None,
    everything: All = False,
    force: Annotated[bool, typer.Option(help="Execute also what is current.")] = False,
    record: Annotated[bool, typer.Option(help="Record the time in results/cpu/.")] = False,
    jobs: Jobs = 1,
    timeout: Timeout = 600,
    memory: Memory = None,
    root: Root = None,
    as_json: Json = False,
) -> None:
    """Execute chapters as they stand and store the outputs in their notebooks."""
    from reproductions.press.build import build_chapter
    from reproductions.press.parallel import work_through
    from reproductions.press.runs import expected_seconds, make_spec, remove_abandoned

    book = find_book(root)
    chapters = _chosen(book, names, everything)
    _at_least("--jobs", jobs, 1)
    jobs = min(jobs, max(1, len(chapters)))
    limits = _limits(timeout, memory).shared_by(jobs)
    expected = {}
    for chapter in chapters:
        try:
            expected[chapter.name] = expected_seconds(make_spec(chapter))
        except BadInput:
            expected[chapter.name] = None  # the build says what is wrong with the source
    _, err = _consoles()
    with book.lock(chapters), show_progress(err, as_json) as display:
        remove_abandoned(chapters)

        def work(chapter: Chapter, stop: threading.Event) -> tuple[Any, list[str]]:
            return build_chapter(
                chapter,
                limits,
                force=force or record,
                record=record,
                on_progress=lambda p: display.cell(chapter.name, p, expected[chapter.name]),
                stop=stop,
            )

        def done(chapter: Chapter, result: tuple[Any, list[str]]) -> None:
            outcome, reasons = result
            note = "" if outcome.cell_seconds or reasons else "current already"
            display.done(chapter.name, not reasons, outcome.seconds, note)

        results = work_through(chapters, work, jobs=jobs, on_done=done)
    _report_builds(chapters, results, as_json)


def _report_builds(
    chapters: list[Chapter], results: list[tuple[Any, list[str]]], as_json: bool
) -> None:
    _, err = _consoles()
    if as_json:
        _print_json(
            [
                {
                    "chapter": chapter.name,
                    "ok": not reasons,
                    "executed": bool(outcome.cell_seconds),
                    "seconds": round(outcome.seconds, 2),
                    "reasons": reasons,
                }
                for chapter, (outcome, reasons) in zip(chapters, results, strict=True)
            ]
        )
    else:
        for reason in (reason for _, reasons in results for reason in reasons):
            err.print(f"[red]not stored:[/] {escape(reason)}", soft_wrap=True)
    if any(reasons for _, reasons in results):
        raise typer.Exit(1)


@app.command(epilog=_EPILOG)
@_guarded
def check(
    names: Names = None,
    everything: All = False,
    rerun: Annotated[bool, typer.Option(help="Execute first, then compare.")] = False,
    fail_on_skip: Annotated[bool, typer.Option(help="A skipped cell fails the check.")] = False,
    jobs: Jobs = CORES,
    timeout: Timeout = 600,
    memory: Memory = None,
    root: Root = None,
    as_json: Json = False,
) -> None:
    """Check that stored notebooks are current and sound, and compare them with executions.

    Without --rerun nothing is executed: a notebook is compared with the last execution of the same
    source, where there is one.
    """
    from reproductions.press.check import check_book
    from reproductions.press.runs import make_spec

    book = find_book(root)
    chapters = book.select(names or [], everything)
    failures: dict[str, str] = {}
    if rerun:
        specs = [make_spec(chapter) for chapter in chapters]
        records = _execute(specs, _limits(timeout, memory), jobs, True, as_json)
        failures = {r.chapter: r.reason for r in records if not r.ok}
    reports = check_book(chapters, failures)
    _report_checks(reports, as_json, fail_on_skip)


def _report_checks(reports: list[Any], as_json: bool, fail_on_skip: bool = False) -> None:
    out, err = _consoles()
    bad = any(not report.ok or (fail_on_skip and report.counts["skipped"]) for report in reports)
    if as_json:
        _print_json([report.as_json() for report in reports])
    else:
        table = Table("Chapter", "Drift", "Passed", "Failed", "Skipped", box=None)
        for report in reports:
            for line in report.lines("failed"):
                err.print(f"[red]failed:[/] {escape(line)}", soft_wrap=True)
            for line in report.lines("skipped"):
                err.print(f"[yellow]skipped:[/] {escape(line)}", soft_wrap=True)
            counts = [str(report.counts[s]) for s in ("passed", "failed", "skipped")]
            if not report.compared:
                counts = ["not executed", "", ""]
            table.add_row(report.chapter, "ok" if not report.problems else "✗", *counts)
        out.print(table)
    if bad:
        raise typer.Exit(1)


@app.command(epilog=_EPILOG)
@_guarded
def scoreboard(
    check_only: Annotated[
        bool, typer.Option("--check", help="Write nothing; fail if a page is out of date.")
    ] = False,
    root: Root = None,
    as_json: Json = False,
) -> None:
    """Write the scoreboard's pages from the stored notebooks, and print it."""
    from reproductions.press.scoreboard import read_boards, stale_pages, write_pages

    book = find_book(root)
    if check_only:
        stale = stale_pages(book)
        if stale:
            raise PressError(
                f"{', '.join(stale)}: not what the stored notebooks give; run `reproduce "
                "scoreboard` and commit"
            )
    else:
        write_pages(book)
    boards = read_boards(book)
    if as_json:
        _print_json(
            [
                {
                    "chapter": board.chapter.name,
                    "title": board.title,
                    "counts": dict(board.counts),
                    "claims": {row["id"]: row["verdict"] for row in board.rows},
                    "timing": board.timing,
                }
                for board in boards
            ]
        )
        return
    _print_scoreboard(boards)


def _print_scoreboard(boards: list[Any]) -> None:
    from reproductions.press.scoreboard import VERDICTS, totals

    out, _ = _consoles()
    colors = dict(zip(VERDICTS, ("green", "yellow", "red", "bright_black", "blue"), strict=True))
    table = Table("Chapter", "Claims", "Verdicts", "Time", box=None)
    for board in boards:
        tiles = " ".join(
            f"[{colors[row['verdict']]}]{VERDICTS[row['verdict']][0]}{escape(row['id'])}[/]"
            for row in board.rows
        )
        table.add_row(
            escape(board.title), str(len(board.rows)), tiles or "not built yet", board.duration
        )
    out.print(table)
    counts = totals(boards)
    out.print(
        ", ".join(
            f"[{colors[v]}]{symbol} {counts[v]} {v}[/]"
            for v, (symbol, _) in VERDICTS.items()
            if counts[v]
        )
        or "no claims yet"
    )


@app.command(epilog=_EPILOG)
@_guarded
def site(
    out_folder: Annotated[
        Path | None, typer.Option("--out", help="Where the pages go (_build/html).")
    ] = None,
    root: Root = None,
    as_json: Json = False,
) -> None:
    """Build the site from the stored notebooks and check its pages."""
    from reproductions.press.scoreboard import write_pages

    book = find_book(root)
    write_pages(book)
    _site(book, out_folder, as_json)


def _site(book: Book, out_folder: Path | None, as_json: bool) -> None:
    from reproductions.press.site import build_site, check_pages

    out, err = _consoles()
    report = build_site(book.root, out=out_folder)
    problems = [str(p) for p in check_pages(report.html_dir)]
    if as_json:
        _print_json(
            {
                "html_dir": str(report.html_dir),
                "seconds": round(report.seconds, 1),
                "warnings": list(report.warnings),
                "problems": problems,
                "pages": [vars(page) for page in report.pages],
            }
        )
    else:
        for problem in problems:
            err.print(f"[red]page:[/] {escape(problem)}", soft_wrap=True)
        out.print(
            f"{len(report.pages)} pages in {spoken(report.seconds)}: "
            f"{escape(str(report.html_dir / 'index.html'))}",
            soft_wrap=True,
        )
    if problems:
        raise typer.Exit(1)


@app.command(epilog=_EPILOG)
@_guarded
def serve(
    port: Annotated[int, typer.Option(help="0 takes a free one.")] = 8000, root: Root = None
) -> None:
    """Serve the built site on this machine until interrupted."""
    from reproductions.press.site import serve as make_server

    out, _ = _consoles()
    server = make_server(find_book(root).root / "_build" / "html", port)
    out.print(f"http://127.0.0.1:{server.server_address[1]}/ (Ctrl-C ends it)")
    try:
        server.serve_forever()
    finally:
        server.server_close()


@app.command(epilog=_EPILOG)
@_guarded
def new(name: Annotated[str, typer.Argument()], root: Root = None, as_json: Json = False) -> None:
    """Start a chapter from the template: source, module, test, entry in the contents."""
    from reproductions.press.new import new_chapter

    out, _ = _consoles()
    book = find_book(root)
    files = [str(path.relative_to(book.root)) for path in new_chapter(book, name)]
    if as_json:
        _print_json({"chapter": name, "files": files})
        return
    for file in files:
        out.print(escape(file))
    out.print(f"Next: write it, then `reproduce build {name}` and `reproduce scoreboard`.")


@app.command(
    epilog=_EPILOG,
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
)
@_guarded
def bench(context: typer.Context, root: Root = None) -> None:
    """Run the benchmarks; further arguments go to benchmarks/run.py."""
    book = find_book(root)
    script = book.root / "benchmarks" / "run.py"
    if not script.is_file():
        raise BadInput(f"there are no benchmarks here: {script} does not exist")
    raise typer.Exit(subprocess.call([sys.executable, str(script), *context.args], cwd=book.root))


@app.command(epilog=_EPILOG)
@_guarded
def sweep(
    name: Annotated[str, typer.Argument(metavar="CHAPTER")],
    seeds: Annotated[str, typer.Option(help="0-9, or 0,1,7.")] = "0",
    profile: Annotated[list[str] | None, typer.Option(help="May be repeated.")] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu, cuda or cuda:N.")] = None,
    scheduler: Annotated[
        str | None, typer.Option(metavar="ADDRESS", help="A Dask scheduler, host:port.")
    ] = None,
    jobs: Jobs = CORES,
    timeout: Timeout = 3600,
    memory: Memory = None,
    fresh: Annotated[bool, typer.Option(help="Execute again what is done.")] = False,
    root: Root = None,
    as_json: Json = False,
) -> None:
    """Run one chapter with many seeds and profiles, here or on a Dask cluster.

    One failed execution does not end the others. What is done already is not done again.
    """
    from reproductions.press.sweep import connect, grid, seeds_of

    chapter = find_book(root).chapter(name)
    axes: dict[str, list[Any]] = {"seed": seeds_of(seeds)}
    if profile:
        axes["profile"] = [check_profile(p) for p in profile]
    if device:
        axes["device"] = [device if scheduler else check_device(device)]
    specs = grid(chapter, axes)
    client = connect(scheduler) if scheduler else None
    try:
        records = _execute(specs, _limits(timeout, memory), jobs, fresh, as_json, client)
    finally:
        if client is not None:
            client.close()
    _report_runs(records, as_json)


@app.command(epilog=_EPILOG)
@_guarded
def data(as_json: Json = False) -> None:
    """List the data sets, and where each would be read from now."""
    from reproductions.chapter import datasets

    out, _ = _consoles()
    try:
        found = datasets.available()
    except datasets.DatasetError as error:
        raise BadInput(str(error)) from None
    if as_json:
        _print_json([vars(item) for item in found])
        return
    table = Table("Name", "Data set", "Found in", "Size", "License", box=None)
    for item in found:
        where = item.where
        if where == "absent" and item.downloadable:
            where = "absent (would be downloaded)"
        size = f"{item.n_bytes / 1e6:.1f} MB" if item.n_bytes else ""
        table.add_row(item.name, escape(item.title), where, size, escape(item.license))
    out.print(table)


@app.command(epilog=_EPILOG)
@_guarded
def book(
    jobs: Jobs = CORES,
    timeout: Timeout = 600,
    memory: Memory = None,
    fresh: Annotated[bool, typer.Option(help="Execute again what is done.")] = False,
    root: Root = None,
) -> None:
    """Execute every chapter, compare with what is stored, build the site, print the scoreboard."""
    from reproductions.press.check import check_book
    from reproductions.press.runs import make_spec
    from reproductions.press.scoreboard import read_boards, write_pages

    the_book = find_book(root)
    chapters = the_book.chapters()
    specs = [make_spec(chapter) for chapter in chapters]
    records = _execute(specs, _limits(timeout, memory), jobs, fresh, False)
    failures = {r.chapter: r.reason for r in records if not r.ok}
    _report_checks(check_book(chapters, failures), as_json=False)
    write_pages(the_book)
    _print_scoreboard(read_boards(the_book))
    _site(the_book, None, as_json=False)


@app.command("test", epilog=_EPILOG)
@_guarded
def run_tests(jobs: Jobs = CORES, root: Root = None) -> None:
    """All checks of the book: what `make test` runs, for machines without make."""
    the_book = find_book(root)
    python, me = sys.executable, [sys.executable, "-m", "reproductions.press.cli"]
    ruff = shutil.which("ruff", path=str(Path(python).parent)) or shutil.which("ruff")
    pytest = [python, "-m", "pytest", "-n", str(jobs)]
    nbval = ["--dist", "loadfile", "--nbval", "--nbval-current-env", "--nbval-cell-timeout=300"]
    smoke = ["run", "--all", "--profile", "smoke", "--seed", "1", "--seed", "2"]
    steps: Iterable[list[str]] = (
        [ruff or "ruff", "check", "."],
        [ruff or "ruff", "format", "--check", "."],
        [*me, "check"],
        [*me, "scoreboard", "--check"],
        [*pytest, "tests"],
        [*pytest, *nbval, "chapters"],
        [*me, *smoke, "--jobs", str(jobs)],
        [*me, "site"],
    )
    _, err = _consoles()
    # Several processes with a thread each beat one with several, on two cores as on many.
    environment = {"OMP_NUM_THREADS": "1"} | os.environ
    for step in steps:
        err.print(f"[bold]$ {escape(' '.join(map(str, step)))}[/]", soft_wrap=True)
        status = subprocess.call(step, cwd=the_book.root, env=environment)
        if status:
            raise typer.Exit(status if status in (1, 2, 3, 130) else 1)


# the same command also runs alone, where only its own packages are
app.command(epilog=_EPILOG)(_guarded(scale))


def main() -> None:
    """Entry point: a request to terminate ends as an interruption does, with kernels cleared."""

    def interrupted(signum: int, frame: Any) -> NoReturn:
        raise KeyboardInterrupt

    # see execute.py: an import of a second and a half that nothing here needs
    sys.modules.setdefault("rfc3987_syntax", None)
    signal.signal(signal.SIGTERM, interrupted)
    if hasattr(signal, "SIGHUP"):
        signal.signal(signal.SIGHUP, interrupted)
    app()


if __name__ == "__main__":
    main()
