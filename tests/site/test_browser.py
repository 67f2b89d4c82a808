"""The built pages in a browser: formulas without a network, both themes, a phone, a widget."""

from __future__ import annotations

import pytest
from site_browser import Browser, needs_browser, until

CHAPTER = "chapters/selu_fixed_points.html"
PAGES = (CHAPTER, "book/intro.html", "book/scoreboard.html", "book/notation.html", "search.html")

pytestmark = needs_browser


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
    assert len(look["figures"]) == 3
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
