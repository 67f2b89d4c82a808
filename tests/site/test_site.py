"""The miniature book builds, every page passes, and every check fails on a page made to fail it."""

from __future__ import annotations

import shutil
import threading
import urllib.error
import urllib.request
from pathlib import Path

import nbformat
import pytest
from filelock import FileLock

from reproductions.press.errors import BadInput, Locked
from reproductions.press.site import SiteError, SiteReport, build_site, check_pages, serve

CHAPTER = "chapters/selu_fixed_points.html"


def test_every_page_is_built_and_clean(report: SiteReport) -> None:
    assert report.warnings == ()
    assert check_pages(report.html_dir) == []
    pages = {page.name: page for page in report.pages}
    assert {CHAPTER, "book/intro.html", "book/scoreboard.html", "index.html"} <= set(pages)
    assert pages["index.html"].title == "Theory You Can Run"
    chapter = pages[CHAPTER]
    assert chapter.html_bytes == (report.html_dir / CHAPTER).stat().st_size
    # formulas are the heaviest part of a first visit; a page must not drag in more than that
    assert 1_000_000 < chapter.asset_bytes < 5_000_000


def test_chapter_carries_its_strip_and_both_downloads(report: SiteReport) -> None:
    page = (report.html_dir / CHAPTER).read_text(encoding="utf-8")
    title, strip, section = (
        page.index(mark) for mark in ("</h1>", 'class="repro-strip"', "In one minute<")
    )
    assert title < strip < page.rindex("In one minute<")
    assert section > 0
    sources = report.html_dir / "_sources" / "chapters"
    for ending in (".py", ".ipynb"):
        assert (sources / f"selu_fixed_points{ending}").is_file()
        assert f"_sources/chapters/selu_fixed_points{ending}" in page


def test_no_thebe_and_launch_buttons_stay(report: SiteReport) -> None:
    page = (report.html_dir / CHAPTER).read_text(encoding="utf-8").lower()
    assert "thebe" not in page
    assert "colab.research.google.com/github/theory-you-can-run" in page
    assert "mybinder.org" in page


def test_vendored_files_come_with_their_licenses(report: SiteReport) -> None:
    static = report.html_dir / "_static"
    assert "Apache License" in (static / "mathjax" / "LICENSE").read_text(encoding="utf-8")
    assert len(list((static / "mathjax/output/chtml/fonts/woff-v2").glob("*.woff"))) == 23
    for license in static.glob("fonts/LICENSE-*"):
        assert "SIL OPEN FONT LICENSE" in license.read_text(encoding="utf-8").upper()


def test_failed_build_names_the_faults_and_keeps_the_old_site(
    book: Path, report: SiteReport, tmp_path: Path
) -> None:
    broken = tmp_path / "book"
    shutil.copytree(book, broken, ignore=shutil.ignore_patterns("_build"))
    out = tmp_path / "public"
    out.mkdir()
    (out / "index.html").write_text("the last good site", encoding="utf-8")
    with (broken / "book" / "teaching.md").open("a", encoding="utf-8") as page:
        page.write("\nSee {ref}`no-such-section` and {cite}`nobody1999`.\n")
    path = broken / "chapters" / "selu_fixed_points.ipynb"
    notebook = nbformat.read(path, as_version=4)
    notebook.cells[1].outputs.append(nbformat.v4.new_output("stream", name="stderr", text="oops"))
    nbformat.write(notebook, path)
    with pytest.raises(SiteError) as failure:
        build_site(broken, out=out)
    message = str(failure.value)
    for fault in ("no-such-section", "nobody1999", "stderr"):
        assert fault in message
    assert "book/teaching.md" in message
    assert str(tmp_path) not in message
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".site-")] == []
    assert (out / "index.html").read_text(encoding="utf-8") == "the last good site"


def test_a_good_build_replaces_the_whole_site(book: Path, tmp_path: Path) -> None:
    out = tmp_path / "public"
    out.mkdir()
    (out / "page-of-last-year.html").write_text("old", encoding="utf-8")
    assert build_site(book, out=out).html_dir == out
    assert not (out / "page-of-last-year.html").exists()
    assert [p.name for p in tmp_path.iterdir()] == ["public"]


def test_build_refuses_what_it_cannot_do(book: Path, tmp_path: Path) -> None:
    with pytest.raises(SiteError, match=r"_config\.yml is missing"):
        build_site(tmp_path)
    bare = tmp_path / "bare"
    shutil.copytree(book, bare, ignore=shutil.ignore_patterns("_build", "_generated"))
    with pytest.raises(SiteError, match="reproduce scoreboard"):
        build_site(bare)
    with (
        FileLock(book / "_build" / "site.lock"),
        pytest.raises(Locked, match="another build of"),
    ):
        build_site(book)
    with pytest.raises(SiteError, match=r"not built within 0\.05 s"):
        build_site(book, out=tmp_path / "late", timeout=0.05)
    assert not (tmp_path / "late").exists()


HEAD = (
    '<!DOCTYPE html><html lang="en"><head><title>A page</title>'
    '<meta name="viewport" content="width=device-width"></head><body><article>'
)
TAIL = "</article></body></html>"
FIGURE = (
    '<div class="cell_output"><figure class="repro-figure"><img class="only-light" alt="A line." '
    'src="data:,"><img class="only-dark" alt="A line." src="data:,"><figcaption>It rises.'
    "</figcaption></figure></div>"
)
PILL = '<span class="repro-verdict repro-reproduced">✓ reproduced</span>'
TABLE = (
    '<div class="repro-claims"><table class="repro-claims-table"><tbody id="claim-C3"><tr>'
    f'<td>{PILL}</td><td class="repro-number">0.5</td></tr></tbody></table></div>'
)
GOOD = (
    f'{FIGURE}{TABLE}<p>A nanometer; NaN is possible. <code>{{ref}}`x`</code> <a href="#claim-C3">'
    'here</a> <a href="../b.html#top">there</a> <a href="https://example.org/">outside</a></p>'
    '<pre>alpha = float("nan")  # $\\alpha$</pre><span class="math">\\(\\alpha\\)</span>'
)


def site_of(folder: Path, chapter: str) -> Path:
    (folder / "chapters").mkdir()
    (folder / "chapters" / "a.html").write_text(chapter, encoding="utf-8")
    (folder / "b.html").write_text(HEAD + '<p id="top">b</p>' + TAIL, encoding="utf-8")
    return folder


def test_the_good_page_is_good(tmp_path: Path) -> None:
    assert check_pages(site_of(tmp_path, HEAD + GOOD + TAIL)) == []


@pytest.mark.parametrize(
    ("kind", "old", "new"),
    [
        ("title", "<title>A page</title>", ""),
        ("title", "<title>A page</title>", "<title> </title>"),
        ("language", ' lang="en"', ""),
        ("viewport", ' name="viewport"', ""),
        ("alternative text", TAIL, '<img src="data:,">' + TAIL),
        ("alternative text", TAIL, '<img src="data:," alt=" ">' + TAIL),
        ("alternative text", TAIL, '<img src="data:x/plot.png" alt="plot.png">' + TAIL),
        ("external load", TAIL, '<script src="https://example.org/x.js"></script>' + TAIL),
        ("external load", TAIL, '<img alt="x" src="//example.org/x.png">' + TAIL),
        ("external load", TAIL, '<img alt="x" srcset="data:, 1x, http://e.org/y 2x">' + TAIL),
        ("external load", TAIL, '<iframe src="https://example.org/"></iframe>' + TAIL),
        ("external load", "</head>", '<link rel="stylesheet" href="https://e.org/x.css"></head>'),
        ("external load", "</head>", '<link rel="preconnect" href="https://e.org"></head>'),
        ("external load", TAIL, '<p style="background: url(http://e.org/x)">x</p>' + TAIL),
        ("external load", "</head>", '<style>@import "https://e.org/x.css";</style></head>'),
        ("external load", TAIL, '<script>const u = "https://e.org/thebe.js"</script>' + TAIL),
        ("broken link", "../b.html#top", "../c.html"),
        ("broken link", "../b.html#top", "../../outside.html"),
        ("broken link", TAIL, '<script src="missing.js"></script>' + TAIL),
        ("broken anchor", "../b.html#top", "../b.html#bottom"),
        ("broken anchor", "#claim-C3", "#claim-C4"),
        ("unrendered markup", TAIL, "<p>see {ref}`x`</p>" + TAIL),
        ("unrendered markup", TAIL, "<p>{cite:t}`x`</p>" + TAIL),
        ("unrendered markup", TAIL, "<p>:::{note}</p>" + TAIL),
        ("unrendered formula", TAIL, "<p>with $\\alpha = 1$</p>" + TAIL),
        ("nan", TAIL, "<p>a loss of nan</p>" + TAIL),
        ("nan", TAIL, '<div class="cell_output"><pre>loss nan</pre></div>' + TAIL),
        ("nan", ">0.5<", ">NaN<"),
        (
            "traceback",
            TAIL,
            '<div class="cell_output"><pre>Traceback (most recent call last)</pre></div>' + TAIL,
        ),
        ("themes", 'class="only-dark"', ""),
        ("themes", 'class="only-dark"', 'class="only-light"'),
        ("themes", 'only-dark" alt="A line."', 'only-dark" alt="Another."'),
        ("themes", TAIL, '<div class="cell_output"><img alt="a" src="data:,"></div>' + TAIL),
        ("caption", "<figcaption>It rises.</figcaption>", ""),
        ("claims", PILL, ""),
        ("claims", "✓ reproduced", "reproduced"),
        ("claims", "✓ reproduced", "✗ not reproduced"),
        ("claims", 'class="repro-claims"', ""),
    ],
)
def test_injected_problem_is_found(tmp_path: Path, kind: str, old: str, new: str) -> None:
    page = HEAD + GOOD + TAIL
    assert old in page
    problems = check_pages(site_of(tmp_path, page.replace(old, new)))
    assert {p.kind for p in problems} == {kind}
    assert {p.page for p in problems} == {"chapters/a.html"}


def test_style_sheet_that_fetches_is_found(tmp_path: Path) -> None:
    site_of(tmp_path, HEAD + GOOD + TAIL)
    (tmp_path / "_static").mkdir()
    (tmp_path / "_static" / "x.css").write_text("@import url(https://e.org/f.css);")
    (problem,) = check_pages(tmp_path)
    assert (problem.page, problem.kind) == ("_static/x.css", "external load")
    assert "https://e.org/f.css" in str(problem)


def test_checks_need_pages(tmp_path: Path) -> None:
    with pytest.raises(SiteError, match="holds no page"):
        check_pages(tmp_path)


def test_serve(report: SiteReport, tmp_path: Path) -> None:
    server = serve(report.html_dir, port=0)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        host, port = server.server_address[:2]
        assert host == "127.0.0.1"
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/{CHAPTER}", timeout=10) as answer:
            assert answer.read() == (report.html_dir / CHAPTER).read_bytes()
        with pytest.raises(urllib.error.HTTPError, match="404"):
            urllib.request.urlopen(f"http://127.0.0.1:{port}/../secret", timeout=10)
        with pytest.raises(SiteError, match=f"port {port} cannot be used"):
            serve(report.html_dir, port=int(port))
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
    with pytest.raises(BadInput, match="got 70000"):
        serve(report.html_dir, port=70000)
    with pytest.raises(SiteError, match="holds no site"):
        serve(tmp_path)
