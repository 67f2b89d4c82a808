"""The built pages in a real browser: formulas without a network, both themes, a phone, the widget.

Chromium is driven through chromedriver's HTTP interface. Every name but "localhost" resolves to
nothing, and every request the pages make is recorded.
"""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from reproductions.press.site import SiteReport

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
CHROMEDRIVER = shutil.which("chromedriver")
CHAPTER = "chapters/selu_fixed_points.html"
PAGES = (CHAPTER, "book/intro.html", "book/scoreboard.html", "book/notation.html", "search.html")
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]

pytestmark = pytest.mark.skipif(
    not (CHROMIUM and CHROMEDRIVER),
    reason="chromium or chromedriver is not installed: the pages were not looked at in a browser",
)


LOADED = """
const formulas = document.querySelector('script[src*="mathjax"]');
return document.readyState === 'complete' && (!formulas || !!window.MathJax?.startup?.promise);
"""


class Browser:
    """A headless Chromium behind the few WebDriver calls these tests need."""

    def __init__(self, profile: Path, html_dir: Path) -> None:
        self.html_dir = html_dir
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.driver = subprocess.Popen(
            [str(CHROMEDRIVER), f"--port={self.port}"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self.session = ""
        try:
            self._start(profile)
        except BaseException:
            self.close()
            raise

    def _start(self, profile: Path) -> None:
        deadline = time.monotonic() + 20
        while True:
            try:
                self.call("GET", "/status")
                break
            except urllib.error.URLError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.1)
        options = {
            "binary": CHROMIUM,
            "args": [
                *FLAGS,
                f"--user-data-dir={profile}",
                "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE localhost",
            ],
        }
        logs = {"performance": "ALL", "browser": "ALL"}
        wanted = {"goog:chromeOptions": options, "goog:loggingPrefs": logs}
        answer = self.call("POST", "/session", {"capabilities": {"alwaysMatch": wanted}})
        self.session = f"/session/{answer['sessionId']}"

    def call(self, method: str, path: str, body: Any = None) -> Any:
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}{path}",
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)["value"]

    def js(self, code: str, *arguments: Any) -> Any:
        body = {"script": code, "args": list(arguments)}
        return self.call("POST", f"{self.session}/execute/sync", body)

    def log(self, kind: str) -> list[dict[str, Any]]:
        return self.call("POST", f"{self.session}/se/log", {"type": kind})

    def requests(self) -> list[str]:
        messages = [json.loads(entry["message"])["message"] for entry in self.log("performance")]
        return [
            message["params"]["request"]["url"]
            for message in messages
            if message["method"] == "Network.requestWillBeSent"
            and message["params"]["documentURL"].startswith("file:")  # not the browser's own page
        ]

    def size(self, width: int) -> None:
        metrics = {
            "width": width,
            "height": 900,
            "deviceScaleFactor": 1,
            "mobile": width < 500,
        }
        body = {"cmd": "Emulation.setDeviceMetricsOverride", "params": metrics}
        self.call("POST", f"{self.session}/goog/cdp/execute", body)

    def open(self, page: str | Path, *, theme: str = "light", width: int = 1400) -> None:
        self.size(width)
        address = {"url": (self.html_dir / page).as_uri()}
        self.call("POST", f"{self.session}/url", address)
        self.js("for (const k of ['mode', 'theme']) localStorage.setItem(k, arguments[0])", theme)
        self.call("POST", f"{self.session}/url", address)
        until(lambda: self.js(LOADED))
        self.js("return window.MathJax?.startup?.promise")
        self.js("return document.fonts.ready.then(() => true)")
        assert self.js("return document.documentElement.dataset.theme") == theme

    def press(self, selector: str, keys: str) -> None:
        element = self.call(
            "POST", f"{self.session}/element", {"using": "css selector", "value": selector}
        )
        (identifier,) = element.values()
        self.call("POST", f"{self.session}/element/{identifier}/value", {"text": keys})

    def close(self) -> None:
        try:
            if self.session:
                self.call("DELETE", self.session)
        finally:
            self.driver.terminate()
            self.driver.wait(timeout=20)


def until(condition: Callable[[], Any], seconds: float = 10.0) -> Any:
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, "the page did not get there in time"
        time.sleep(0.05)
    return value


@pytest.fixture(scope="module")
def browser(report: SiteReport, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    opened = Browser(tmp_path_factory.mktemp("profile"), report.html_dir)
    yield opened
    opened.close()


@pytest.mark.parametrize("page", PAGES)
def test_page_requests_nothing_and_logs_no_error(browser: Browser, page: str) -> None:
    browser.requests(), browser.log("browser")
    browser.open(page)
    asked = browser.requests()
    assert any("custom.css" in url for url in asked)
    assert [url for url in asked if not url.startswith(("file:", "data:", "blob:"))] == []
    assert [entry for entry in browser.log("browser") if entry["level"] == "SEVERE"] == []


def test_control_a_foreign_script_is_seen(browser: Browser) -> None:
    copy = browser.html_dir / "control.html"
    copy.write_text(
        '<!DOCTYPE html><html lang="en" data-theme="light"><title>control</title>'
        '<script src="https://example.org/x.js"></script></html>',
        encoding="utf-8",
    )
    try:
        browser.requests()
        browser.open(copy)
        assert "https://example.org/x.js" in browser.requests()
        assert any(entry["level"] == "SEVERE" for entry in browser.log("browser"))
    finally:
        copy.unlink()


FORMULAS = """
const all = document.querySelectorAll('.math');
const wrong = 'mjx-merror, mjx-mtext[style*="red"], mjx-container [style*="color: red"]';
return {
  wanted: all.length,
  drawn: [...all].filter((m) => m.querySelector('mjx-container')).length,
  wrong: document.querySelectorAll(wrong).length,
  fonts: [...document.fonts]
    .filter((f) => f.family.includes('MJX') && f.status === 'loaded').length,
};
"""


@pytest.mark.parametrize("page", [CHAPTER, "book/notation.html", "book/reading-a-verdict.html"])
def test_formulas_are_drawn_without_a_network(browser: Browser, page: str) -> None:
    browser.open(page)
    state = browser.js(FORMULAS)
    assert state["wanted"] > 3
    assert state["drawn"] == state["wanted"]
    assert state["wrong"] == 0
    assert state["fonts"] > 0
    # controls: an unknown macro and a syntax error are both noticed
    for tex in (r"\nosuchmacro", r"\frac{1}{"):
        browser.js("document.body.append(MathJax.tex2chtml(arguments[0]))", tex)
    assert browser.js(FORMULAS)["wrong"] >= 2


OVERFLOW = "return document.documentElement.scrollWidth - document.documentElement.clientWidth"


@pytest.mark.parametrize("width", [1400, 400])
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_no_page_scrolls_sideways(browser: Browser, theme: str, width: int) -> None:
    for page in PAGES:
        browser.open(page, theme=theme, width=width)
        assert browser.js(OVERFLOW) <= 0, page
    browser.js(
        "const wide = document.createElement('div'); wide.style.width = '1500px';"
        "wide.style.height = '1px'; document.querySelector('main').prepend(wide)"
    )
    if width == 400:
        assert browser.js(OVERFLOW) > 0


def test_code_of_88_columns_fits_and_one_of_130_does_not(browser: Browser) -> None:
    browser.open(CHAPTER)
    room = (
        "const p = document.querySelector('.cell_input pre'); return p.clientWidth - p.scrollWidth"
    )
    assert (
        len(browser.js("return document.querySelector('.cell_input pre').innerText.trim()")) == 88
    )
    assert browser.js(room) >= 0
    browser.js("document.querySelector('.cell_input pre').prepend('x'.repeat(42))")
    assert browser.js(room) < 0


LOOK = """
const shown = (e) => e.getClientRects().length > 0 && getComputedStyle(e).visibility === 'visible';
const rgb = (s) => s.match(/[\\d.]+/g).map(Number);
const light = ([r, g, b]) => {
  const f = (v) => ((v /= 255) <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
  return 0.2126 * f(r) + 0.7152 * f(g) + 0.0722 * f(b);
};
const behind = (e) => {
  for (; e; e = e.parentElement) {
    const c = rgb(getComputedStyle(e).backgroundColor);
    if (c.length === 3 || c[3] === 1) return c;
  }
  return [255, 255, 255];
};
const contrast = (e) => {
  const [a, b] = [light(rgb(getComputedStyle(e).color)), light(behind(e))];
  return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
};
const texts = '.repro-verdict, .repro-badge, .repro-claims-table td, .repro-claims-table th, ' +
  '.repro-source, figcaption, .repro-skipped, .repro-widget p, .repro-widget label, ' +
  '.repro-widget button, .repro-strip, .bd-article p, .bd-article a, .bd-article code';
return {
  figures: [...document.querySelectorAll('figure.repro-figure')].map((f) => ({
    pictures: [...f.querySelectorAll('img')].filter(shown).map((i) => i.className),
    caption: shown(f.querySelector('figcaption')),
    live: !!f.closest('.is-live'),
  })),
  panels: [...document.querySelectorAll('.cell_output .text_html')]
    .map((e) => getComputedStyle(e).backgroundColor),
  faint: [...document.querySelectorAll(texts)].filter(shown)
    .map((e) => [contrast(e), e.className || e.tagName, e.textContent.trim().slice(0, 40)])
    .filter(([c]) => c < 4.5),
};
"""


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_outputs_suit_the_theme(browser: Browser, theme: str) -> None:
    browser.open(CHAPTER, theme=theme)
    look = browser.js(LOOK)
    assert len(look["figures"]) == 2
    for figure in look["figures"]:
        assert figure["caption"]
        assert figure["pictures"] == ([] if figure["live"] else [f"only-{theme}"])
    assert set(look["panels"]) == {"rgba(0, 0, 0, 0)"}
    assert look["faint"] == []
    # control: text in the color of the page is noticed
    browser.js("document.querySelector('figcaption').style.color = '#808080'")
    browser.js("document.querySelector('figcaption').style.background = '#909090'")
    assert len(browser.js(LOOK)["faint"]) == 1


def test_margin_note_stays_in_line_on_a_phone(browser: Browser) -> None:
    where = """
    const note = [...document.querySelectorAll('.margin')]
      .find((e) => e.textContent.includes('note'));
    const [n, a] = [note, document.querySelector('article')].map((e) => e.getBoundingClientRect());
    return { float: getComputedStyle(note).float, share: n.width / a.width };
    """
    browser.open(CHAPTER, width=400)
    phone = browser.js(where)
    assert phone["float"] == "none"
    assert phone["share"] > 0.85
    browser.open(CHAPTER, width=1400)
    assert browser.js(where)["float"] != "none"


def test_solution_is_folded_and_opens(browser: Browser) -> None:
    shown = (
        "return [...document.querySelectorAll('.solution p')]"
        ".some((p) => p.textContent.includes('Expand') && p.checkVisibility({opacityProperty: true,"
        " visibilityProperty: true}) && p.getBoundingClientRect().height > 5)"
    )
    browser.open(CHAPTER)
    assert not browser.js(shown)
    browser.js("document.querySelector('.solution .toggle-button').click()")
    until(lambda: browser.js(shown), 3)


def test_paper_gets_the_light_theme(browser: Browser) -> None:
    browser.open(CHAPTER, theme="dark")
    theme = "return document.documentElement.dataset.theme"
    browser.js(
        "window.seen = []; matchMedia('print').addEventListener('change', () => "
        "window.seen.push(document.documentElement.dataset.theme))"
    )
    browser.call("POST", f"{browser.session}/print", {})
    assert browser.js("return window.seen")[0] == "light"
    assert browser.js(theme) == "dark"


STATUS = "return document.querySelector('.repro-widget-status').textContent"
ANSWER = "return document.querySelector('.repro-widget-solve p').textContent"
SET = """
const input = document.querySelector(`.repro-widget input[id^="repro-${arguments[0]}-"]`);
input.value = arguments[1];
input.dispatchEvent(new Event('input', { bubbles: true }));
"""
CURVE = "return document.querySelector('.repro-widget .curve').getAttribute('d')"


def test_widget_opens_at_the_paper_and_reacts(browser: Browser) -> None:
    browser.open(CHAPTER)
    until(lambda: browser.js("return !!document.querySelector('.repro-interactive.is-live')"))
    first = browser.js(STATUS)
    assert "(μ*, ν*) = (0.0000, 1.0000) attracts" in first
    assert "0.7826" in first
    assert browser.js("return document.querySelectorAll('.repro-widget .fixed').length") == 2
    assert browser.js("return document.querySelectorAll('.repro-widget .arrow').length") > 50
    drawn = browser.js(CURVE)
    browser.js(SET, "tau", 3)
    until(lambda: browser.js(CURVE) != drawn)
    lost = browser.js(STATUS)
    assert "No fixed point" in lost
    assert "grows" in lost
    assert browser.js("return document.querySelectorAll('.repro-widget .fixed').length") == 0
    browser.js(SET, "tau", 0.4)
    until(lambda: "shrinks towards zero" in browser.js(STATUS))
    browser.js(SET, "tau", 1)
    browser.js(SET, "omega", 1)
    until(lambda: "repels" in browser.js(STATUS))
    assert browser.js("return document.querySelectorAll('.fixed.repelling').length") == 2
    browser.js("document.querySelector('.repro-widget button.quiet').click()")
    until(lambda: browser.js(STATUS) == first)
    assert browser.js(CURVE) == drawn


def test_widget_solves_for_the_parameters(browser: Browser) -> None:
    browser.open(CHAPTER)
    make = "document.querySelector('.repro-widget-solve button').click()"
    browser.js(make)
    answer = browser.js(ANSWER)
    assert "α = 1.97126, λ = 1.06071" in answer
    assert "attracting" in answer
    until(lambda: "(0.0000, 2.0000) attracts" in browser.js(STATUS))
    target = "document.querySelector('.repro-widget-solve input').value = arguments[0];"
    browser.js(target + make, 3)
    assert browser.js(ANSWER).startswith("No positive α and λ make (3.00, 2.00) a fixed point")
    browser.js(SET, "omega", 1)
    browser.js(target + make, -0.1)
    assert "a repelling one (spectral radius 1.1084)" in browser.js(ANSWER)
    browser.js(target + make, "")
    assert browser.js(ANSWER).startswith("The target needs")


def test_widget_works_from_the_keyboard_and_by_touch(browser: Browser) -> None:
    browser.open(CHAPTER, width=400)
    value = "return Number(document.querySelector('[id^=\"repro-tau-\"]').value)"
    drawn, before = browser.js(CURVE), browser.js(value)
    browser.press('[id^="repro-tau-"]', "\ue014\ue014\ue014")
    assert browser.js(value) == pytest.approx(before + 0.03)
    until(lambda: browser.js(CURVE) != drawn)
    unnamed = browser.js(
        "return [...document.querySelectorAll('.repro-widget input')].filter((e) => "
        "!e.labels.length && !e.getAttribute('aria-label')).length"
    )
    assert unnamed == 0
    assert browser.js(
        "return [...document.querySelectorAll('.repro-widget svg')].every((e) => "
        "e.getAttribute('role') === 'img' && e.getAttribute('aria-label').length > 40)"
    )
    status = browser.js(STATUS)
    browser.js(
        "const s = document.querySelector('.repro-click'), r = s.getBoundingClientRect();"
        "s.dispatchEvent(new MouseEvent('click', {clientX: r.left + 0.3 * r.width, "
        "clientY: r.top + 0.5 * r.height, bubbles: true}))"
    )
    until(lambda: browser.js(STATUS) != status)
    assert browser.js("return Number(document.querySelector('[id^=\"repro-mu-\"]').value)") < 0
