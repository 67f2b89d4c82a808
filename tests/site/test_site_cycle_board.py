"""The figure "cycle-board" on a page of the miniature book, with runs that are made up."""

from __future__ import annotations

import copy
import html
import json
import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from site_browser import Browser, needs_browser, until

CHAPTER = "chapters/selu_fixed_points.html"
BOARD = "chapters/cycle.html"
HOST = '.repro-interactive[data-widget="cycle-board"]'
LIVE = f"return !!document.querySelector('{HOST}.is-live')"
FIND = f"""
var all = (s) => [...document.querySelector('{HOST}').querySelectorAll(s)];
var words = (e) => e.textContent.replaceAll('\\u00a0', ' ');
var input = (key) => all(`input[id^="repro-${{key}}-"]`)[0];
var button = (text) => all('button').find((b) => words(b) === text);
var panel = (k, s) => [...all('.repro-widget-panel')[k].querySelectorAll(s)];
"""
STATUS = FIND + "return words(all('.repro-widget-status')[0])"
HEADING = FIND + "return words(panel(1, '.repro-widget-title')[0])"
PATHS = FIND + (
    "return [0, 1].map((k) => Object.fromEntries(panel(k, 'svg g path')"
    ".map((p) => [p.getAttribute('class'), p.getAttribute('d')])))"
)
SETTINGS = FIND + (
    "return Object.fromEntries(['low', 'high', 'anneal', 'momentum', 'lag']"
    ".map((key) => [key, input(key).disabled ? null : Number(input(key).value)]))"
)
PRESSED = FIND + "return all('[aria-pressed=true]').map(words)"
BUTTONS = FIND + "return all('button').map(words)"
PRESS = FIND + "button(arguments[0]).click()"
SHAPE = FIND + "all('input[type=radio]')[arguments[0]].click()"
SMOOTH = FIND + "input('smooth').click()"
SET = FIND + (
    "input(arguments[0]).value = arguments[1];"
    "input(arguments[0]).dispatchEvent(new Event('input', { bubbles: true }));"
)
ZERO = FIND + "return panel(arguments[0], 'path.axis')[0].getAttribute('d')"
OVERFLOW = "return document.documentElement.scrollWidth - document.documentElement.clientWidth"


def run(label: str, shape: str, factor: float, **settings: Any) -> dict[str, Any]:
    """A run of 100 updates whose estimate is ``factor`` times the rate 0.1, then three times."""
    steps = list(range(2, 101))
    return {
        "label": label,
        "shape": shape,
        **{"low": 0.1, "high": 0.1, "anneal": 0, "momentum": 0.9, "lag": 1},
        **settings,
        "steps": steps,
        "estimate": [0.1 * (factor if step < 90 else 3) for step in steps],
        "rate": [0.1] * len(steps),
    }


CONFIG: dict[str, Any] = {
    "n_steps": 200,
    "runs": [
        run("constant 0.1, momentum 0.9", "constant", 2.0),
        run("constant 0.1, momentum 0", "constant", 0.5, momentum=0),
        run("a cycle with an anneal", "one cycle", 1.5, high=3, anneal=0.1),
        run("drops", "piecewise constant", 1.75, high=0.5),
    ],
    "start": 0,
}
FIRST = (
    "Fed with nothing but noise, the estimator reports 2.24 times the rate in use: "
    "1/\u2060√(2(1 − ρ)), where ρ = 0.90 is the correlation of successive steps at momentum "
    "0.90 and snapshots after every update. It is an echo of the schedule: curves like "
    "the paper’s Fig. 5 can be drawn without a loss function. A network in training made "
    "it report 2.00 times the rate in the median of the run, where noise gives 2.24, and "
    "3.00 times over the last tenth, where noise gives 2.24."
)

pytestmark = needs_browser


def write_page(browser: Browser, config: str, *more: str) -> None:
    """A chapter in which this figure stands where another one stood, and more of it at the end."""
    page = (browser.html_dir / CHAPTER).read_text(encoding="utf-8")
    hosts = [f'data-widget="cycle-board" data-config="{html.escape(c)}"' for c in (config, *more)]
    page, count = re.subn(r'data-widget="selu-map" data-config="[^"]*"', lambda _: hosts[0], page)
    assert count == 1
    end = "".join(f'<div class="repro-interactive" {host}></div>' for host in hosts[1:])
    page = page.replace("</body>", f"{end}</body>", 1)
    (browser.html_dir / BOARD).write_text(page, encoding="utf-8")


@pytest.fixture
def board(browser: Browser) -> Iterator[Callable[..., Browser]]:
    def opened(width: int = 1400, **changes: Any) -> Browser:
        write_page(browser, json.dumps(CONFIG | changes))
        browser.log("browser")
        browser.open(BOARD, width=width)
        until(lambda: browser.js(LIVE), 4)
        return browser

    yield opened
    assert [entry for entry in browser.log("browser") if entry["level"] == "SEVERE"] == []
    (browser.html_dir / BOARD).unlink()


def heights(page: Browser, panel: int, path: str) -> list[float]:
    """How far above zero a path lies, on the screen."""
    zero = float(re.search(r"V([\d.]+)", page.js(ZERO, panel))[1])
    return [zero - float(y) for y in re.findall(r"[ML]\S+ (-?[\d.]+)", page.js(PATHS)[panel][path])]


def change(page: Browser, code: str, *arguments: Any) -> None:
    before = page.js(PATHS)
    page.js(code, *arguments)
    until(lambda: page.js(PATHS) != before, 4)


def test_it_opens_with_a_recorded_run_and_says_what_one_sees(board: Callable[..., Browser]) -> None:
    page = board()
    assert page.js(STATUS) == FIRST
    assert page.js(HEADING) == "Noise only: 0.22 = 2.24 × the rate 0.10"
    assert page.js(PRESSED) == ["constant 0.1"]
    shown = FIND + "return all('img').filter((e) => e.getClientRects().length).length"
    assert page.js(shown) == 0
    labels = page.js(FIND + "return all('[role=img]').map((e) => e.getAttribute('aria-label'))")
    assert "over 100 updates, constant, between 0.100 and 0.10." in labels[0]
    assert "2.24 times the rate in use" in labels[1]


def test_lines_lie_where_their_numbers_are(board: Callable[..., Browser]) -> None:
    page = board()
    rate, noise, measured = (heights(page, 1, name) for name in ("rate", "noise", "measured"))
    assert (len(rate), len(noise), len(measured)) == (100, 99, 99)
    # from rest the second of two updates is little more than the first one again
    assert noise[0] / rate[0] == pytest.approx((1 + 0.1**2) ** -0.5, abs=0.01)
    assert noise[-1] / rate[-1] == pytest.approx(5**0.5, abs=0.01)
    assert measured[0] / rate[0] == pytest.approx(2, abs=0.01)
    assert measured[-1] / rate[-1] == pytest.approx(3, abs=0.01)
    across = [float(x) for x in re.findall(r"[ML](\S+)", page.js(PATHS)[1]["noise"])]
    upper = [float(x) for x in re.findall(r"[ML](\S+)", page.js(PATHS)[0]["rate"])]
    assert across == upper[1:]  # the first estimate is made after the second update
    change(page, SHAPE, 2)
    rate = heights(page, 0, "rate")
    assert [rate[k] / rate[0] for k in (124, 125, 174, 175)] == pytest.approx(
        [1, 0.1, 0.1, 0.01], abs=0.005
    )


def test_buttons_lead_to_what_was_recorded_and_sliders_away_from_it(
    board: Callable[..., Browser],
) -> None:
    page = board()
    named = ["the paper’s cycle", "constant 0.1", "constant 0.35", "no momentum"]
    assert page.js(BUTTONS) == [*named, "drops"]
    change(page, PRESS, "no momentum")
    assert page.js(SETTINGS) == {
        "low": None,
        "high": 0.1,
        "anneal": None,
        "momentum": 0,
        "lag": 1,
    }
    assert "0.50 times the rate in the median of the run, where noise gives 0.71" in page.js(STATUS)
    assert heights(page, 1, "measured")[0] < heights(page, 1, "noise")[0]
    # the paper's cycle is the one that was recorded, with its anneal
    change(page, PRESS, "the paper’s cycle")
    cycle = {"low": 0.1, "high": 3, "anneal": 0.1, "momentum": 0.9, "lag": 1}
    assert (page.js(SETTINGS), page.js(PRESSED)) == (cycle, ["the paper’s cycle"])
    assert page.js(HEADING) == "Noise only: about 2.24 × the rate in use"
    assert "1.50 times the rate in the median" in page.js(STATUS)
    assert heights(page, 0, "rate").index(max(heights(page, 0, "rate"))) == 45
    change(page, SET, "lag", 10)
    assert page.js(PRESSED) == []
    assert "measured" not in page.js(PATHS)[1]
    assert page.js(HEADING) == "Noise only: about 1.03 × the rate in use"
    assert page.js(STATUS).endswith("No training run was recorded with these settings; the buttons "
                                    "lead to those that were.")  # fmt: skip
    assert len(heights(page, 1, "noise")) == 200 / 10 - 1
    change(page, SET, "lag", 1)
    assert page.js(PRESSED) == ["the paper’s cycle"]
    assert "measured" in page.js(PATHS)[1]
    # while a rate falls the velocity still has the larger rates of before
    assert "(at a constant rate; less while it rises, more while it falls)" in page.js(STATUS)
    # without a run of its own the button has the paper's settings
    page = board(runs=CONFIG["runs"][:2])
    change(page, PRESS, "the paper’s cycle")
    assert page.js(SETTINGS) == cycle | {"anneal": 0}
    assert "No training run was recorded" in page.js(STATUS)


def test_a_run_that_was_read_at_another_lag_too_has_one_button(
    board: Callable[..., Browser],
) -> None:
    rarely = run("constant 0.1, every ten", "constant", 0.8, lag=10)
    for key in ("steps", "estimate", "rate"):
        rarely[key] = rarely[key][18::10]  # after 20, 30, ... 100 updates
    page = board(runs=[*CONFIG["runs"], rarely])
    named = ["the paper’s cycle", "constant 0.1", "constant 0.35", "no momentum"]
    assert page.js(BUTTONS) == [*named, "drops"]
    change(page, SET, "lag", 10)
    assert (len(heights(page, 1, "measured")), len(heights(page, 1, "noise"))) == (9, 9)
    assert "0.80 times the rate in the median of the run, where noise gives 1.03" in page.js(STATUS)
    assert page.js(PRESSED) == []
    # where nothing was read at the lag of the button the run keeps a button of its own
    assert board(runs=[rarely]).js(BUTTONS) == [*named, "constant 0.1, every ten"]


def test_momentum_and_lag_move_the_estimate_and_leave_the_schedule(
    board: Callable[..., Browser],
) -> None:
    page = board(start=2)
    schedule = page.js(PATHS)[0]
    for key, value, factor in (("momentum", 0, "0.71"), ("lag", 5, "0.71"), ("momentum", 0.95, "")):
        before = page.js(PATHS)[1]["noise"]
        change(page, SET, key, value)
        assert page.js(PATHS)[1]["noise"] != before
        assert factor in page.js(HEADING)
    page.js(PRESS, "the paper’s cycle")
    until(lambda: page.js(PATHS)[0] == schedule)


def test_a_lowest_rate_is_never_above_the_highest(board: Callable[..., Browser]) -> None:
    page = board(start=2)
    change(page, SET, "high", 0.05)
    assert [page.js(SETTINGS)[key] for key in ("low", "high")] == [0.05, 0.05]
    page.js(SET, "low", 0.8)
    assert [page.js(SETTINGS)[key] for key in ("low", "high")] == [0.8, 0.8]
    # what a shape does not depend on is not to be chosen, and a cycle has two rates
    change(page, SHAPE, 2)
    assert [page.js(SETTINGS)[key] for key in ("low", "high", "anneal")] == [None, 0.8, None]
    label = FIND + "return words(input('high').closest('.repro-widget-row').querySelector('label'))"
    assert page.js(label) == "learning rate at the start"
    change(page, SHAPE, 0)
    assert [page.js(SETTINGS)[key] for key in ("low", "high")] == [0.08, 0.8]
    assert page.js(label) == "highest learning rate"


def test_smoothing_starts_at_a_tenth_and_changes_no_sentence(board: Callable[..., Browser]) -> None:
    page = board(start=1)
    rate, sharp = heights(page, 1, "rate")[0], heights(page, 1, "measured")
    change(page, SMOOTH)
    slow = heights(page, 1, "measured")
    unit = heights(page, 1, "rate")[0]  # the rate is 0.1 and so is the level at the start
    assert slow[0] / unit == pytest.approx(0.9 + 0.1 * 0.5, abs=0.01)
    assert slow[80] / unit == pytest.approx(0.5, abs=0.01)
    assert slow[-1] / unit == pytest.approx(3 - 2.5 * 0.9**11, abs=0.02)
    assert sharp[-1] / rate == pytest.approx(3, abs=0.02)
    assert "and 3.00 times over the last tenth" in page.js(STATUS)


def test_it_works_from_the_keyboard(board: Callable[..., Browser]) -> None:
    page = board()
    page.press(f"{HOST} input[id^='repro-momentum-']", "\ue012")
    until(lambda: "2.13 times the rate in use" in page.js(STATUS))  # 1/√(2 · 0.11)
    text = FIND + "return input('momentum').getAttribute('aria-valuetext')"
    assert page.js(text) == "0.89"
    page.press(f"{HOST} button", "\ue00d")
    until(lambda: page.js(PRESSED) == ["the paper’s cycle"])
    unlabeled = FIND + "return all('input').filter((e) => !e.labels.length).length"
    assert page.js(unlabeled) == 0


@pytest.mark.parametrize("width", [1400, 360])
def test_it_fits_the_page_and_no_choice_moves_it(board: Callable[..., Browser], width: int) -> None:
    page = board(width=width)
    places = FIND + (
        "return all('*').filter((e) => !e.closest('svg') && !e.closest('.repro-widget-legend'))"
        ".map((e) => e.getBoundingClientRect()).map((r) => [r.top + scrollY, r.height])"
    )
    first = page.js(places)
    steps = [(PRESS, label) for label in page.js(BUTTONS)] + [(SET, "lag", 10), (SHAPE, 0)]
    for step in [*steps, (SET, "anneal", 0.3), (SMOOTH,)]:
        page.js(*step)
        page.js("return new Promise((done) => requestAnimationFrame(() => setTimeout(done, 0)))")
        assert page.js(places) == first, step
    assert page.js(OVERFLOW) <= 0
    inside = """
    const edge = all('.repro-widget')[0].getBoundingClientRect().right;
    return all('.repro-widget *').filter((e) => !e.closest('[clip-path]'))
      .every((e) => e.getBoundingClientRect().right <= edge);
    """
    assert page.js(FIND + inside)


def test_colors_follow_the_theme_without_a_new_drawing(board: Callable[..., Browser]) -> None:
    page = board()
    look = """
    const ink = (s) => ['stroke', 'color'].map((k) => getComputedStyle(all(s)[0])[k]);
    return ['path.rate', 'path.noise', 'path.measured', 'i.rate', 'i.noise', 'i.measured'].map(ink);
    """
    light = page.js(FIND + look)
    assert len({stroke for stroke, _ in light[:3]}) == 3
    assert [color for _, color in light[3:]] == [stroke for stroke, _ in light[:3]]
    page.js("document.documentElement.dataset.theme = 'dark'")
    assert all(a != b for a, b in zip(light, page.js(FIND + look), strict=True))


HARMS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "no length": lambda config: config.pop("n_steps"),
    "no runs": lambda config: config.update(runs=[]),
    "no such run": lambda config: config.update(start=4),
    "no such shape": lambda config: config["runs"][0].update(shape="cosine"),
    "momentum too large": lambda config: config["runs"][0].update(momentum=1),
    "lowest above highest": lambda config: config["runs"][1].update(low=0.2),
    "a rate less": lambda config: config["runs"][1]["rate"].pop(),
    "no number": lambda config: config["runs"][2]["estimate"].__setitem__(3, None),
    "a step back": lambda config: config["runs"][2]["steps"].__setitem__(3, 2),
    "nothing": lambda config: config.clear(),
}


def test_a_config_that_does_not_fit_leaves_the_static_picture(browser: Browser) -> None:
    def harmed(harm: Callable[[dict[str, Any]], Any]) -> str:
        config = copy.deepcopy(CONFIG)
        harm(config)
        return json.dumps(config)

    # on one page, and at its end one that is not harmed
    write_page(browser, "{", *map(harmed, HARMS.values()), json.dumps(CONFIG))
    try:
        browser.log("browser")
        browser.open(BOARD)
        until(lambda: browser.js("return !!document.querySelector('.is-live')"))
        live = f"return [...document.querySelectorAll('{HOST}')].map((e) => e.matches('.is-live'))"
        assert browser.js(live) == [False, *[False for _ in HARMS], True]
        shown = "return all('img').filter((e) => e.getClientRects().length).length"
        assert browser.js(FIND + shown) == 1
        logged = browser.log("browser")
        warned = [entry for entry in logged if "the static picture stays" in entry["message"]]
        assert len(warned) == 2 * (1 + len(HARMS))  # the page is opened twice, for its theme
        assert [entry for entry in logged if entry["level"] == "SEVERE"] == []
    finally:
        (browser.html_dir / BOARD).unlink()
