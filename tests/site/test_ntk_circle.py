"""The figure "ntk-circle" on a page of the miniature book, whose numbers are made up."""

from __future__ import annotations

import html
import itertools
import json
import re
import time
from typing import Any

import pytest
from site_browser import Browser, needs_browser, until

CHAPTER = "chapters/selu_fixed_points.html"
HOST = '.repro-interactive[data-widget="ntk-circle"]'
LIVE = f"return !!document.querySelector('{HOST}.is-live')"
FIND = f"""
var all = (s) => [...document.querySelector('{HOST}').querySelectorAll(s)];
var input = (key) => all(`input[id^="repro-${{key}}-"]`)[0];
var words = (s) => all(s)[0].textContent.replaceAll('\\u00a0', ' ');
"""
STATUS = FIND + "return words('.repro-widget-status')"
ALOUD = FIND + "return all('.repro-widget-status')[0].getAttribute('aria-live')"
NOTE = FIND + "return words('.repro-widget-note')"
BUTTON = FIND + "return words('button')"
CLICK = FIND + "all('button')[0].click();"
PLACE = FIND + "return Number(input(arguments[0]).value)"
SET = (
    FIND + "input(arguments[0]).value = arguments[1];"
    "input(arguments[0]).dispatchEvent(new Event('input', { bubbles: true }));"
)
PATHS = (
    FIND
    + """
return all('[role=img]').map((picture) => Object.fromEntries(
  ['band', 'mean', 'curve', 'limit'].map((name) => [name, picture.querySelector(`path.${name}`)])
    .filter(([, path]) => path).map(([name, path]) => [name, path.getAttribute('d')])));
"""
)
FIRST = (
    "Width 16 at t = 1: the kernel is on average 21 % above its limit and has moved by 10 % since "
    "t = 0; the function is inside the limit’s 80 % band at 75 % of the angles."
)

pytestmark = needs_browser


@pytest.fixture
def page(browser: Browser) -> Browser:
    browser.open(CHAPTER)
    until(lambda: browser.js(LIVE))
    return browser


def heights(path: str) -> list[float]:
    """The vertical coordinates of a path of straight pieces."""
    return [float(y) for y in re.findall(r"[ML]\S+ ([^LZ]+)", path)]


def move(browser: Browser, key: str, place: int) -> None:
    before = browser.js(PATHS)
    browser.js(SET, key, place)
    until(lambda: browser.js(PATHS) != before)


def test_it_opens_where_the_page_says_and_tells_what_the_numbers_say(page: Browser) -> None:
    assert page.js(STATUS) == FIRST
    assert page.js(NOTE).startswith("Depth 3: the smallest value on the circle is 67 %")
    assert [page.js(PLACE, key) for key in ("time", "width", "depth")] == [1, 0, 1]
    move(page, "time", 4)
    assert "t = 31.6: the kernel is on average 54 % above its limit" in page.js(STATUS)
    assert "moved by 40 % since t = 0" in page.js(STATUS)
    move(page, "width", 1)
    assert "20 % below its limit" in page.js(STATUS)
    assert "at 100 % of the angles" in page.js(STATUS)
    move(page, "time", 2)
    assert "on average within half a percent of its limit" in page.js(STATUS)
    assert "moved by less than half a percent" in page.js(STATUS)
    move(page, "time", 0)
    assert "moved" not in page.js(STATUS)
    move(page, "depth", 2)
    assert page.js(NOTE).startswith("Depth 4: the smallest value on the circle is 75 %")


def test_lines_lie_where_their_numbers_are(page: Browser) -> None:
    learned, kernel, shape = page.js(PATHS)
    mean, f = heights(learned["mean"]), heights(learned["curve"])
    low, high = (heights(learned["band"])[:13], heights(learned["band"])[13:][::-1])
    assert len(mean) == len(f) == len(low) == len(high) == 13
    assert f[5] == mean[5]
    # on the screen larger values are higher up, at smaller coordinates
    assert (mean[0] - f[0]) / (mean[0] - high[0]) == pytest.approx(2 / 1.2816, abs=0.01)
    below = [a - b for a, b in zip(low, mean, strict=True)]
    assert below == pytest.approx([mean[0] - high[0]] * 13, abs=0.02)
    assert below == pytest.approx([a - b for a, b in zip(mean, high, strict=True)], abs=0.02)
    axis = page.js(FIND + "return all('path.axis')[1].getAttribute('d')")
    zero = float(re.search(r"V([\d.]+)", axis)[1])
    net, limit = heights(kernel["curve"]), heights(kernel["limit"])
    assert [(zero - a) / (zero - b) for a, b in zip(net, limit, strict=True)] == pytest.approx(
        [1.21] * 13, abs=0.01
    )
    assert min(limit) == limit[6]
    assert min(heights(shape["curve"])) == heights(shape["curve"])[6]
    assert page.js(FIND + "return all('[role=img] circle.datum').length") == 4


def test_each_slider_moves_its_own_lines_and_no_axis(page: Browser) -> None:
    axes = FIND + "return all('[role=img] text').map((t) => [t.textContent, t.getAttribute('y')])"
    drawn = page.js(axes)
    assert [text for text, _ in drawn if "π" in text] == ["−π", "−π/2", "π/2", "π"] * 3
    seen = [page.js(PATHS)]
    for key, place in (("time", 5), ("width", 1), ("depth", 0)):
        move(page, key, place)
        seen.append(page.js(PATHS))
    changed = [
        {(k, name) for k in range(3) for name in a[k] if a[k][name] != b[k][name]}
        for a, b in itertools.pairwise(seen)
    ]
    network = {(0, "curve"), (1, "curve")}
    assert changed == [network | {(0, "band"), (0, "mean")}, network, {(2, "curve")}]
    assert page.js(axes) == drawn


def test_time_runs_stops_at_the_end_and_starts_again(page: Browser) -> None:
    assert (page.js(BUTTON), page.js(ALOUD)) == ("Play", "polite")
    pressed = page.js(f"{CLICK} const shown = words('button'); {CLICK} return shown")
    assert (pressed, page.js(BUTTON), page.js(PLACE, "time")) == ("Pause", "Play", 2)
    time.sleep(0.8)
    assert page.js(PLACE, "time") == 2
    # a sentence three times a second is not read out
    assert page.js(CLICK + ALOUD) == "off"
    until(lambda: page.js(BUTTON) == "Play")
    assert (page.js(PLACE, "time"), page.js(ALOUD)) == (5, "polite")
    until(lambda: "t = 100:" in page.js(STATUS))
    assert page.js(CLICK + PLACE, "time") == 0
    until(lambda: page.js(PLACE, "time") > 0)
    page.js(SET, "time", 0)
    assert page.js(BUTTON) == "Play"
    time.sleep(0.8)
    assert page.js(PLACE, "time") == 0


def test_nothing_moves_by_itself_for_whoever_asked_for_little_motion(page: Browser) -> None:
    try:
        prefer_motion(page, "reduce")
        until(lambda: page.js(BUTTON) == "One step of time")
        page.js(CLICK)
        time.sleep(0.8)
        assert (page.js(PLACE, "time"), page.js(BUTTON)) == (2, "One step of time")
    finally:
        prefer_motion(page, "")
    until(lambda: page.js(BUTTON) == "Play")


def test_it_works_from_the_keyboard_and_fits_a_phone(browser: Browser) -> None:
    lefts = FIND + "return all('[role=img]').map((e) => e.getBoundingClientRect().left)"
    browser.open(CHAPTER, width=1400)
    assert len(set(browser.js(lefts))) == 2
    browser.open(CHAPTER, width=360)
    assert len(set(browser.js(lefts))) == 1
    assert browser.js(
        "return document.documentElement.scrollWidth <= document.documentElement.clientWidth"
    )
    inside = """
    const edge = document.querySelector('.repro-widget').getBoundingClientRect().right;
    return all('.repro-widget *').every((e) => e.getBoundingClientRect().right <= edge);
    """
    assert browser.js(FIND + inside)
    browser.press(f"{HOST} input[id^='repro-width-']", "\ue014")
    assert browser.js(PLACE, "width") == 1
    assert browser.js(FIND + "return input('width').getAttribute('aria-valuetext')") == "n = 64"
    until(lambda: browser.js(STATUS).startswith("Width 64 at t = 1:"))
    browser.press(f"{HOST} button", "\ue00d")
    assert browser.js(PLACE, "time") >= 2


def test_colors_follow_the_theme_without_a_new_drawing(page: Browser) -> None:
    look = """
    const ink = (s) => ['stroke', 'fill'].map((k) => getComputedStyle(all(s)[0])[k]);
    return ['path.band', 'path.mean', 'path.curve', 'path.limit', 'path.others', 'circle.datum']
      .map(ink);
    """
    light = page.js(FIND + look)
    page.js("document.documentElement.dataset.theme = 'dark'")
    assert all(a != b for a, b in zip(light, page.js(FIND + look), strict=True))


@pytest.mark.parametrize(
    "harm",
    [
        lambda config: config.pop("limit"),
        lambda config: config["kernel"][1].pop(),
        lambda config: config["f"][0][2].append(0.0),
        lambda config: config["mean"][0].__setitem__(3, None),
        lambda config: config.update(times=[]),
        None,
    ],
    ids=["no limit", "a time less", "an angle more", "no number", "no times", "no JSON"],
)
def test_numbers_that_do_not_fit_leave_the_static_picture(browser: Browser, harm: Any) -> None:
    page = (browser.html_dir / CHAPTER).read_text(encoding="utf-8")
    found = re.search(r'data-widget="ntk-circle" data-config="([^"]*)"', page)
    config = json.loads(html.unescape(found[1]))
    if harm:
        harm(config)
    text = html.escape(json.dumps(config)) if harm else "{"
    copy = browser.html_dir / "chapters" / "harmed.html"
    copy.write_text(page.replace(found[1], text), encoding="utf-8")
    try:
        browser.log("browser")
        browser.open(copy)
        until(lambda: browser.js("return !!document.querySelector('.is-live')"))
        shown = "return all('img').filter((e) => e.getClientRects().length).length"
        assert (browser.js(LIVE), browser.js(FIND + shown)) == (False, 1)
        logged = browser.log("browser")
        assert any("the static picture stays" in entry["message"] for entry in logged)
        assert [entry for entry in logged if entry["level"] == "SEVERE"] == []
    finally:
        copy.unlink()


def prefer_motion(browser: Browser, value: str) -> None:
    features = [{"name": "prefers-reduced-motion", "value": value}]
    body = {"cmd": "Emulation.setEmulatedMedia", "params": {"features": features}}
    browser.call("POST", f"{browser.session}/goog/cdp/execute", body)
