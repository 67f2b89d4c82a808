"""Build the book's pages from the stored notebooks, check every page, and serve them locally.

A build starts from nothing in a folder of its own and replaces the site only when it succeeded, so
a failed build leaves the pages of the last good one. Nothing is executed: the stored outputs are
the book.
"""

from __future__ import annotations

import functools
import http.server
import os
import re
import shutil
import socketserver
import subprocess
import sys
import tempfile
import time
import urllib.parse
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from bs4 import BeautifulSoup, Tag
from filelock import FileLock, Timeout

from reproductions.press.errors import BadInput, Locked, PressError

__all__ = [
    "Page",
    "Problem",
    "SiteError",
    "SiteReport",
    "build_site",
    "check_pages",
    "page_weights",
    "serve",
]

#: Pages that other commands generate and the book includes.
GENERATED = ("book/scoreboard.md", "book/_generated/glance.md")

VERDICTS = {
    "repro-reproduced": "✓ reproduced",
    "repro-qualified": "◐ qualified",
    "repro-not-reproduced": "✗ not reproduced",
    "repro-not-run": "– not run here",
    "repro-stored": "○ stored, not re-run here",
}


class SiteError(PressError):
    """The site could not be built; the message says why and what to do."""


@dataclass(frozen=True)
class Problem:
    """One thing wrong on one page."""

    page: str
    kind: str
    detail: str

    def __str__(self) -> str:
        return f"{self.page}: {self.kind}: {self.detail}"


@dataclass(frozen=True)
class Page:
    """A page and what a first visit to it transfers, in bytes.

    ``html_bytes`` is the page alone (figures are embedded in it); ``asset_bytes`` adds the scripts,
    style sheets and images it links to, which later pages find in the browser's cache. Typefaces
    are loaded as needed and not counted.
    """

    name: str
    title: str
    html_bytes: int
    asset_bytes: int


@dataclass(frozen=True)
class SiteReport:
    """Where the site is, what is on it, and what the build said."""

    html_dir: Path
    pages: tuple[Page, ...]
    warnings: tuple[str, ...]
    seconds: float
    log: str = field(repr=False, default="")


_WARNING = re.compile(r"\b(?:WARNING|ERROR|CRITICAL|SEVERE)\b: .*")
_JUPYTER_BOOK = (
    "from reproductions.press._orphan import end_with_parent; end_with_parent(); "
    "from jupyter_book.cli.main import main; main()"
)
_ANSI = re.compile(r"\x1b\[[0-9;]*m")


def build_site(root: Path, *, out: Path | None = None, timeout: float = 600.0) -> SiteReport:
    """Build the book at ``root`` into ``out``; a warning fails the build.

    Args:
        root: folder with ``_config.yml`` and ``_toc.yml``.
        out: where the pages go (default ``root/_build/html``); replaced whole and only on success.
        timeout: seconds after which the build is given up.

    Raises:
        SiteError: something the book needs is missing, or the build failed; the old site is kept.
        Locked: another build is running.
    """
    root = Path(root).resolve()
    target = (root / "_build" / "html" if out is None else Path(out)).resolve()
    _require_sources(root)
    build = root / "_build"
    try:
        build.mkdir(exist_ok=True)
        target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SiteError(f"cannot write the site: {error}") from error
    try:
        with FileLock(build / "site.lock", timeout=0):
            started = time.monotonic()
            for abandoned in target.parent.glob(".site-*"):
                shutil.rmtree(abandoned, ignore_errors=True)
            with tempfile.TemporaryDirectory(dir=target.parent, prefix=".site-") as scratch:
                html, warnings, log = _run_jupyter_book(root, Path(scratch), timeout)
                _write_front_door(root, html)
                _swap(html, target)
            pages = page_weights(target)
    except Timeout as error:
        raise Locked(
            f"another build of {root.name} is running (it holds {build / 'site.lock'}); "
            "wait for it to end"
        ) from error
    return SiteReport(target, pages, warnings, time.monotonic() - started, log)


def _require_sources(root: Path) -> None:
    for name in ("_config.yml", "_toc.yml"):
        if not (root / name).is_file():
            raise SiteError(f"{root} holds no book: {name} is missing")
    for name in GENERATED:
        if not (root / name).is_file():
            raise SiteError(f"{name} is missing; generate it with `reproduce scoreboard`")


def _run_jupyter_book(
    root: Path, scratch: Path, timeout: float
) -> tuple[Path, tuple[str, ...], str]:
    command = [sys.executable, "-c", _JUPYTER_BOOK]
    command += ["build", str(root), "--path-output", str(scratch), "-W", "-n", "--keep-going"]
    environment = os.environ | {"PYTHONHASHSEED": "0", "NO_COLOR": "1", "PYTHONUTF8": "1"}
    ours, alive = os.pipe()  # closed with this process, whatever ends it: the child ends then
    try:
        done = subprocess.run(
            command,
            stdin=ours,
            cwd=root,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            encoding="utf-8",
            errors="replace",
            timeout=timeout,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise SiteError(f"the site was not built within {timeout:g} s") from error
    finally:
        os.close(ours)
        os.close(alive)
    log = _ANSI.sub("", done.stdout)
    warnings = tuple(
        line.strip().replace(f"{root}{os.sep}", "")
        for line in log.splitlines()
        if _WARNING.search(line)
    )
    html = scratch / "_build" / "html"
    if done.returncode != 0 or warnings or not html.is_dir():
        said = "\n  ".join(warnings) or "\n  ".join(log.strip().splitlines()[-15:])
        count = f"{len(warnings)} warning{'s' if len(warnings) != 1 else ''}"
        reason = count if warnings else f"exit status {done.returncode}"
        raise SiteError(f"the site was not built ({reason}); the old one is kept:\n  {said}")
    return html, warnings, log


def _write_front_door(root: Path, html: Path) -> None:
    """Replace Jupyter Book's bare redirect by a page that also works for a reader without it."""
    start = re.search(r"^root:\s*(\S+)", (root / "_toc.yml").read_text(encoding="utf-8"), re.M)
    if start is None:
        raise SiteError("_toc.yml names no root page")
    target = f"{start.group(1).removesuffix('.md')}.html"
    title = _soup(html / target).title
    name = title.get_text() if title else target
    (html / "index.html").write_text(
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<title>{name}</title><meta http-equiv="refresh" content="0; url={target}"></head>'
        f'<body><p><a href="{target}">{name}</a></p></body></html>\n',
        encoding="utf-8",
    )


def _swap(new: Path, target: Path) -> None:
    """Put ``new`` where ``target`` is: two renames, the second undone if it fails."""
    old = new.parent / "replaced"
    if target.exists():
        target.rename(old)
    try:
        new.rename(target)
    except OSError:
        if old.exists():
            old.rename(target)
        raise
    shutil.rmtree(old, ignore_errors=True)


# The checks -------------------------------------------------------------------------------------


def check_pages(html_dir: Path) -> list[Problem]:
    """Everything wrong with the built pages, in the order of the pages' names.

    Checked on every page: title, language and viewport; alternative text of every image; no script,
    style sheet, image or frame from another host; internal links and their anchors; no MyST role,
    formula, traceback or ``nan`` left in what the reader sees; both themes of every figure in
    an output; well-formed verdicts. Chapter pages have a table of claims.

    Raises:
        SiteError: ``html_dir`` holds no page.
    """
    html_dir = Path(html_dir).resolve()
    site = _Site(html_dir)
    if not site.soups:
        raise SiteError(f"{html_dir} holds no page; build the site with `reproduce site`")
    problems: list[Problem] = []
    for page, soup in site.soups.items():
        for kind, detail in (
            *_head(soup),
            *_alternative_texts(soup),
            *_external_loads(soup, html_dir / page),
            *_links(soup, page, site),
            *_leftovers(soup),
            *_themes(soup),
            *_claims(soup, page),
        ):
            problems.append(Problem(page, kind, detail))
    problems += [Problem(name, "external load", detail) for name, detail in _style_loads(html_dir)]
    return list(dict.fromkeys(problems))


class _Site:
    """The parsed pages of a site and the anchors each of them offers."""

    def __init__(self, html_dir: Path) -> None:
        self.root = html_dir
        self.soups = {
            path.relative_to(html_dir).as_posix(): _soup(path)
            for path in sorted(html_dir.rglob("*.html"))
            if not path.relative_to(html_dir).parts[0].startswith("_")
        }
        self.anchors = {page: _anchors(soup) for page, soup in self.soups.items()}


def _anchors(soup: BeautifulSoup) -> set[str]:
    return {str(tag["id"]) for tag in soup.select("[id]")} | {
        str(tag["name"]) for tag in soup.select("a[name]")
    }


def _soup(path: Path) -> BeautifulSoup:
    return BeautifulSoup(path.read_text(encoding="utf-8"), "html.parser")


Found = Iterator[tuple[str, str]]


def _head(soup: BeautifulSoup) -> Found:
    if soup.title is None or not soup.title.get_text(strip=True):
        yield "title", "the page has no title"
    if soup.html is None or not soup.html.get("lang"):
        yield "language", "<html> states no lang"
    if soup.select_one('meta[name="viewport"][content]') is None:
        yield "viewport", "no viewport is set, so phones show the desktop page"


def _short(tag: Tag) -> str:
    text = re.sub(r"data:[^\"']{40,}", "data:…", str(tag))
    return text if len(text) <= 160 else text[:157] + "…"


def _alternative_texts(soup: BeautifulSoup) -> Found:
    for image in soup.find_all("img"):
        alt = str(image.get("alt") or "").strip()
        source = str(image.get("src") or "")
        # myst-nb falls back to the picture's own address, which tells a listener nothing
        if not alt or alt == source or Path(alt).name == Path(source).name:
            yield "alternative text", f"image without a description: {_short(image)}"


_ABSOLUTE = re.compile(r"^(?:https?:)?//", re.I)
_LOADING_RELS = {
    "stylesheet",
    "icon",
    "shortcut",
    "apple-touch-icon",
    "manifest",
    "preload",
    "prefetch",
    "modulepreload",
    "preconnect",
    "dns-prefetch",
}
_FETCHED = (
    ("script", "src"),
    ("img", "src"),
    ("img", "srcset"),
    ("source", "src"),
    ("source", "srcset"),
    ("iframe", "src"),
    ("embed", "src"),
    ("object", "data"),
    ("video", "src"),
    ("video", "poster"),
    ("audio", "src"),
    ("track", "src"),
    ("image", "href"),
    ("use", "href"),
)
_CSS_LOAD = re.compile(r"""(?:@import\s+|url\()\s*["']?((?:https?:)?//[^"')\s]+)""", re.I)
_SCRIPT_LOAD = re.compile(r"""["'](https?://[^"'\s]+\.(?:m?js|css|json|wasm)(?:\?[^"']*)?)["']""")


def _external_loads(soup: BeautifulSoup, path: Path) -> Found:
    for name, attribute in _FETCHED:
        for tag in soup.find_all(name):
            for part in str(tag.get(attribute) or "").split(","):
                if _ABSOLUTE.match(part.strip()):
                    yield "external load", f"<{name}> fetches {part.strip()}"
    for link in soup.find_all("link"):
        rels = {str(rel).lower() for rel in link.get("rel") or []}
        if rels & _LOADING_RELS and _ABSOLUTE.match(str(link.get("href") or "")):
            yield "external load", f"<link> fetches {link['href']}"
    for tag in soup.select("style, [style]"):
        css = tag.get_text() if tag.name == "style" else str(tag["style"])
        for url in _CSS_LOAD.findall(css):
            yield "external load", f"a style fetches {url}"
    for script in soup.find_all("script"):
        if script.get("type") in {None, "", "text/javascript", "module"}:
            for url in _SCRIPT_LOAD.findall(script.get_text()):
                yield "external load", f"a script names {url}"


def _style_loads(html_dir: Path) -> Iterator[tuple[str, str]]:
    for path in sorted(html_dir.rglob("*.css")):
        for url in _CSS_LOAD.findall(path.read_text(encoding="utf-8", errors="replace")):
            yield path.relative_to(html_dir).as_posix(), f"the style sheet fetches {url}"


def _links(soup: BeautifulSoup, page: str, site: _Site) -> Found:
    for tag, attribute in (("a", "href"), ("img", "src"), ("script", "src"), ("link", "href")):
        for element in soup.find_all(tag):
            address = str(element.get(attribute) or "")
            url = urllib.parse.urlsplit(address)
            if not address or url.scheme or url.netloc:
                continue
            path = urllib.parse.unquote(url.path)
            here = (site.root / page).parent
            file = (here / path).resolve() if path else site.root / page
            if file.is_dir():
                file = file / "index.html"
            if not file.is_relative_to(site.root) or not file.is_file():
                yield "broken link", f"{address} leads nowhere"
                continue
            target = file.relative_to(site.root).as_posix()
            anchor = urllib.parse.unquote(url.fragment)
            if tag == "a" and anchor and anchor not in site.anchors.get(target, {anchor}):
                yield "broken anchor", f"{address}: {target} has no #{anchor}"


_ROLE = re.compile(
    r"\{(?:ref|eq|numref|doc|term|math|prf:ref|code|abbr|index|download|cite(?::\w+)?|bdg[\w-]*)\}`?"
)
_DIRECTIVE = re.compile(r"(?:```|:::)\{[\w:-]+\}")
_FORMULA = re.compile(r"\$[^$\n]*\\[A-Za-z]+[^$\n]*\$")
_NAN = re.compile(r"(?<![\w.])-?nan(?![\w.(])")


def _leftovers(soup: BeautifulSoup) -> Found:
    article = soup.select_one("article") or soup.body
    if article is None:
        return
    for output in article.select(".cell_output"):
        if "Traceback (most recent call last)" in output.get_text():
            yield "traceback", "an output shows a traceback"
    for cell in article.select(".repro-number, .repro-scoreboard td"):
        if re.search(r"\bnan\b", cell.get_text(), re.I):
            yield "nan", f"a claims table shows {cell.get_text(' ', strip=True)!r}"
    for text in article.find_all(string=True):
        if text.find_parent(["script", "style", "title"]) is not None:
            continue
        printed = text.find_parent(class_="cell_output") is not None
        if not printed and text.find_parent(["code", "pre"]) is not None:
            continue
        if match := _NAN.search(text):
            yield "nan", f"{_around(text, match)!r}"
        if printed and text.find_parent("pre") is not None:
            continue
        if match := _ROLE.search(text) or _DIRECTIVE.search(text):
            yield "unrendered markup", f"{_around(text, match)!r}"
        if text.find_parent(class_="math") is None and (match := _FORMULA.search(text)):
            yield "unrendered formula", f"{_around(text, match)!r}"


def _around(text: str, match: re.Match[str]) -> str:
    return " ".join(text[max(0, match.start() - 25) : match.end() + 25].split())


def _themes(soup: BeautifulSoup) -> Found:
    figures = soup.select("figure.repro-figure")
    for figure in figures:
        images = figure.find_all("img")
        themes = Counter(
            theme for i in images for theme in i.get("class") or [] if theme.startswith("only-")
        )
        if themes != {"only-light": 1, "only-dark": 1} or len(images) != 2:
            shown = ", ".join(f"{n} × {theme}" for theme, n in sorted(themes.items())) or "neither"
            yield "themes", f"a figure needs one picture for each theme, it has {shown}"
        elif images[0].get("alt") != images[1].get("alt"):
            yield "themes", f"the two pictures are described differently: {_short(images[0])}"
        caption = figure.find("figcaption")
        if caption is None or not caption.get_text(strip=True):
            yield "caption", "a figure has no caption"
    for image in soup.select(".cell_output img"):
        if image.find_parent("figure", class_="repro-figure") is None:
            yield "themes", f"an output's picture has no variant for dark pages: {_short(image)}"


def _claims(soup: BeautifulSoup, page: str) -> Found:
    tables = soup.select(".repro-claims table.repro-claims-table")
    if page.startswith("chapters/") and not tables:
        yield "claims", "a chapter without a table of claims"
    for table in tables:
        if not table.select(".repro-verdict"):
            yield "claims", "a table of claims without a verdict"
    for pill in soup.select(".repro-verdict"):
        text = " ".join(pill.get_text().split())
        wanted = [VERDICTS[name] for name in pill.get("class") or [] if name in VERDICTS]
        if text not in wanted:
            yield "claims", f"verdict {text!r} does not match its class {pill.get('class')}"


def page_weights(html_dir: Path) -> tuple[Page, ...]:
    """Title and weight of every page of a built site."""
    html_dir = Path(html_dir).resolve()
    pages = []
    for name, soup in _Site(html_dir).soups.items():
        assets: set[Path] = set()
        for tag, attribute in (("script", "src"), ("img", "src"), ("link", "href")):
            for element in soup.find_all(tag):
                if tag == "link" and not set(element.get("rel") or []) & {"stylesheet", "icon"}:
                    continue
                address = urllib.parse.urlsplit(str(element.get(attribute) or ""))
                if address.path and not address.scheme and not address.netloc:
                    path = urllib.parse.unquote(address.path)
                    assets.add(((html_dir / name).parent / path).resolve())
        title = soup.title.get_text(strip=True) if soup.title else ""
        weight = sum(path.stat().st_size for path in assets if path.is_file())
        pages.append(Page(name, title, (html_dir / name).stat().st_size, weight))
    return tuple(pages)


class _QuietHandler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        pass


class _Server(socketserver.ThreadingMixIn, http.server.HTTPServer):
    daemon_threads = True


def serve(html_dir: Path, port: int = 8000) -> http.server.HTTPServer:
    """A server of ``html_dir`` for this machine only; call its ``serve_forever()``, then close it.

    ``port=0`` takes a free one, found in ``server_address``.

    Raises:
        SiteError: there is no site, or the port is taken.
        BadInput: ``port`` is no port.
    """
    html_dir = Path(html_dir).resolve()
    if not (html_dir / "index.html").is_file():
        raise SiteError(f"{html_dir} holds no site; build it with `reproduce site`")
    if not 0 <= port <= 65535:
        raise BadInput(f"port must be between 0 and 65535, got {port}")
    handler = functools.partial(_QuietHandler, directory=str(html_dir))
    try:
        return _Server(("127.0.0.1", port), handler)
    except OSError as error:
        raise SiteError(f"port {port} cannot be used ({error.strerror}); choose another") from error
