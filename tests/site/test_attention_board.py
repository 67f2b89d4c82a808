"""The figure "attention-board" on a page of the miniature book."""

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
BOARD = "chapters/board.html"
HOST = '.repro-interactive[data-widget="attention-board"]'
LIVE = f"return !!document.querySelector('{HOST}.is-live')"
FIND = f"""
var all = (s) => [...document.querySelector('{HOST}').querySelectorAll(s)];
var words = (e) => e.textContent.replaceAll('\\u00a0', ' ');
var token = (name) => all('.token[tabindex], .handle').find((g) => words(g) === name);
var button = (text) => all('button').find((b) => words(b).startsWith(text));
"""
STATUS = FIND + "return all('.repro-widget-status').map(words)"
WATCH = (
    FIND
    + """
window.aloud = [];
new MutationObserver(([record]) => window.aloud.push(record.target.getAttribute('aria-live')))
  .observe(all('.repro-widget-status')[0], { attributeFilter: ['aria-live'] });
"""
)
LABEL = FIND + "return token(arguments[0]).getAttribute('aria-label')"
FLAGS = (
    FIND + "return Object.fromEntries(arguments[0].map((kind) => "
    "[kind, all('.token[tabindex].' + kind).map(words).join('')]))"
)
PATH = FIND + "return all('path.' + arguments[0]).filter((e) => e.closest('.repro-widget-panel'))"
PATHS = PATH + ".map((e) => e.getAttribute('d'))"
PRESS = FIND + "button(arguments[0]).click()"
CENTER = FIND + (
    "const g = token(arguments[0]); g.scrollIntoView({ block: 'center' });"
    "const r = g.querySelector('.dot').getBoundingClientRect();"
    "return [r.left + r.width / 2, r.top + r.height / 2]"
)
SLIDE = FIND + (
    "all('input[type=range]')[0].value = arguments[0];"
    "all('input[type=range]')[0].dispatchEvent(new Event('input', { bubbles: true }));"
)
OVERFLOW = "return document.documentElement.scrollWidth - document.documentElement.clientWidth"

# Scores 1, 0 and -0.5; from the other two, b is cut off at c, of a lower score, but c at b.
CORNER = [[1.0, -1.5], [0.0, 1.0], [-0.5, 0.5]]
CONFIG: dict[str, Any] = {
    "tokens": [CORNER, CORNER],
    "queries": [[1, 0], [0, 1]],
    "head": [1, 0],
    "steps": 400,
    "learning_rate": 0.1,
}
FIRST = (
    "The highest scores are at tokens a and p. The max-margin W for them has norm 0.57 and rests "
    "on the support tokens c and r. Nothing scores higher: this choice is globally optimal."
)

pytestmark = needs_browser


def write_page(browser: Browser, config: str) -> None:
    """A chapter in which this figure stands where another one stood."""
    page = (browser.html_dir / CHAPTER).read_text(encoding="utf-8")
    host = f'data-widget="attention-board" data-config="{html.escape(config)}"'
    page, count = re.subn(r'data-widget="selu-map" data-config="[^"]*"', lambda _: host, page)
    assert count == 1
    (browser.html_dir / BOARD).write_text(page, encoding="utf-8")


@pytest.fixture
def board(browser: Browser) -> Iterator[Callable[..., Browser]]:
    def opened(width: int = 1400, **changes: Any) -> Browser:
        write_page(browser, json.dumps(CONFIG | changes))
        browser.log("browser")
        browser.open(BOARD, width=width)
        until(lambda: browser.js(LIVE))
        return browser

    yield opened
    assert [entry for entry in browser.log("browser") if entry["level"] == "SEVERE"] == []
    (browser.html_dir / BOARD).unlink()


def pointer(browser: Browser, *moves: dict[str, Any], kind: str = "mouse") -> None:
    source = {"type": "pointer", "id": kind, "parameters": {"pointerType": kind}, "actions": moves}
    browser.call("POST", f"{browser.session}/actions", {"actions": [source]})


def down() -> dict[str, Any]:
    return {"type": "pointerDown", "button": 0}


def up() -> dict[str, Any]:
    return {"type": "pointerUp", "button": 0}


def to(x: float, y: float) -> dict[str, Any]:
    return {"type": "pointerMove", "duration": 40, "x": round(x), "y": round(y)}


def keys(browser: Browser, token: str, *pressed: str) -> None:
    browser.js(FIND + "token(arguments[0]).focus()", token)
    strokes = [{"type": kind, "value": k} for k in pressed for kind in ("keyDown", "keyUp")]
    source = {"type": "key", "id": "keyboard", "actions": strokes}
    browser.call("POST", f"{browser.session}/actions", {"actions": [source]})


def status(browser: Browser, part: int, text: str) -> None:
    """Wait until one of the two sentences contains ``text``."""
    until(lambda: text in browser.js(STATUS)[part], 4.0)


def test_it_opens_with_the_best_tokens_and_says_so(board: Callable[..., Browser]) -> None:
    page = board()
    machine, descent = page.js(STATUS)
    assert machine == FIRST
    assert descent.startswith(
        "After 400 steps of gradient descent from W = 0, attention selects a (over 99 %) and p "
        "(over 99 %), the highest scores. The correlation of W with the max-margin W of these "
        "tokens is 0.99"
    )
    kinds = ["asked", "best", "support", "spoiler"]
    assert page.js(FLAGS, kinds) == dict(zip(kinds, ("ap", "ap", "cr", ""), strict=True))
    assert page.js(LABEL, "a") == (
        "Token a of sequence 1 at (1.00, −1.50): attention 100 %, highest score"
    )
    shown = FIND + "return all('img').filter((e) => e.getClientRects().length).length"
    assert page.js(shown) == 0


def test_lines_lie_where_the_margin_is_zero_one_half_and_one(
    board: Callable[..., Browser],
) -> None:
    """Between a and c, at a right angle to the way from one to the other."""
    page = board()
    centers = [
        page.js(FIND + "return token(arguments[0]).getAttribute('transform')", name)
        for name in ("a", "b", "c")
    ]
    a, b, c = ([float(v) for v in re.findall(r"[-\d.]+", text)] for text in centers)
    (line,), (edges,), (ray,) = ([page.js(PATHS, k)[0]] for k in ("separator", "edge", "ray"))

    def numbers(path: str) -> list[float]:
        return [float(v) for v in re.findall(r"-?[\d.]+", path)]

    def side(p: list[float], ends: list[float]) -> float:
        """The distance of p from the line, in units of that from a to c."""
        (u, v), (s, t) = ends[:2], ends[2:]
        length = ((u - s) ** 2 + (v - t) ** 2) ** 0.5
        whole = ((a[0] - c[0]) ** 2 + (a[1] - c[1]) ** 2) ** 0.5
        return ((p[0] - u) * (t - v) - (p[1] - v) * (s - u)) / length / whole

    middle = numbers(line)
    assert abs(side(a, middle)) == pytest.approx(0.5, abs=0.01)
    assert side(c, middle) == pytest.approx(-side(a, middle), abs=0.01)
    assert abs(side(b, middle)) > 0.51
    first, second = numbers(edges)[:4], numbers(edges)[4:]
    assert side(a, first) == pytest.approx(0, abs=0.01)
    assert side(c, second) == pytest.approx(0, abs=0.01)
    x, y, s, t = numbers(ray)
    cosine = ((s - x) * (a[0] - c[0]) + (t - y) * (a[1] - c[1])) / (
        ((s - x) ** 2 + (t - y) ** 2) ** 0.5 * ((a[0] - c[0]) ** 2 + (a[1] - c[1]) ** 2) ** 0.5
    )
    assert cosine == pytest.approx(1, abs=1e-4)
    # descent ends near the ray, which is a right angle away from where it would be by mistake
    end = numbers(page.js(PATHS, "way")[0])[-2:]
    assert end == pytest.approx([s, t], abs=12)


@pytest.mark.parametrize(("kind", "width"), [("mouse", 1400), ("touch", 390)])
def test_a_token_is_dragged(board: Callable[..., Browser], kind: str, width: int) -> None:
    page = board(width=width)
    x, y = page.js(CENTER, "b")
    scrolled = page.js("return scrollY")
    edge = page.js(FIND + "return all('[role=application]')[0].getBoundingClientRect().width")
    unit = edge * 286 / 340 / 4  # 286 of 340 units of the picture are the board, 4 wide
    steps = [to(x + f * unit * 1.5, y + f * unit * 0.4) for f in (0.3, 0.7, 1)]
    page.js(WATCH)
    pointer(page, to(x, y), down(), *steps, up(), kind=kind)
    # b is now at about (1.5, 0.6): right of a, so it scores higher
    status(page, 0, "The highest scores are at tokens b and p.")
    place = page.js(LABEL, "b")
    found = [float(v) for v in re.search(r"\(([\d.]+), ([\d.]+)\)", place).groups()]
    assert found == pytest.approx([1.5, 0.6], abs=0.03)
    # what changes at every move is read out at the end
    assert page.js("return window.aloud") == ["off", "polite"]
    assert page.js("return scrollY") == scrolled
    # released, the token no longer follows the pointer
    x, y = page.js(CENTER, "b")
    pointer(page, to(x, y), to(x + 9, y))
    assert page.js(LABEL, "b") == place


def test_tokens_stay_on_the_board(board: Callable[..., Browser]) -> None:
    page = board()
    x, y = page.js(CENTER, "a")
    pointer(page, to(x, y), down(), to(x + 20, y), to(x + 200, y + 220), up())
    until(lambda: "at (2.00, −2.00)" in page.js(LABEL, "a"))


def test_a_click_asks_for_a_token_and_a_button_takes_it_back(
    board: Callable[..., Browser],
) -> None:
    page = board()
    assert page.js(FIND + "return button('Ask').disabled")
    pointer(page, to(*page.js(CENTER, "b")), down(), up())
    status(page, 0, "You ask for tokens b and p; the highest scores are at a and p.")
    assert page.js(LABEL, "b").startswith("Token b of sequence 1 at (0.00, 1.00):")
    status(page, 0, "the choice is locally optimal")
    keys(page, "r", "\ue007")  # Enter
    status(page, 0, "You ask for tokens b and r")
    status(page, 0, "the choice is not locally optimal")
    kinds = ["asked", "best", "spoiler"]
    assert page.js(FLAGS, kinds) == dict(zip(kinds, ("br", "ap", "pq"), strict=True))
    pressed = FIND + "return all('[aria-pressed=true]').map(words).join('')"
    assert page.js(pressed) == "br"
    page.js(PRESS, "Ask")
    until(lambda: page.js(STATUS)[0] == FIRST)


def test_descent_from_afar_stays_only_where_it_is_locally_optimal(
    board: Callable[..., Browser],
) -> None:
    page = board()
    page.js(FIND + "all('input[type=radio]')[1].click()")
    status(page, 1, "from 10 times this W, attention selects a")
    keys(page, "b", " ")
    status(page, 1, "It stays with the tokens asked for.")
    keys(page, "c", " ")
    status(page, 1, "It has left the tokens asked for.")
    page.js(FIND + "all('input[type=radio]')[0].click()")
    status(page, 1, "from W = 0")


def test_arrow_keys_move_tokens_queries_and_head(board: Callable[..., Browser]) -> None:
    page = board()
    right, above = "\ue014", "\ue013"
    keys(page, "b", right, right, above)
    until(lambda: "at (0.10, 1.05)" in page.js(LABEL, "b"))
    keys(page, "b", "\ue007")
    until(lambda: page.js(FLAGS, ["asked"]) == {"asked": "bp"})
    drawn = page.js(PATHS, "ray")
    keys(page, "z₁", above, above)
    until(lambda: page.js(LABEL, "z₁") == "Query of sequence 1, at (1.00, 0.10)")
    # queries at a right angle leave the rays alone; these are not any more
    assert "enclose 84°" in page.js(FIND + "return words(all('.repro-board-side p')[0])")
    assert all(a != b for a, b in zip(drawn, page.js(PATHS, "ray"), strict=True))
    keys(page, "v", *[above] * 10, *["\ue012"] * 19)
    until(lambda: page.js(LABEL, "v") == "Head, at (0.05, 0.50)")
    status(page, 0, "You ask for tokens b and p; the highest scores are at b and q.")
    # an arrow as short as nothing would have no direction
    keys(page, "v", *["\ue015"] * 8)
    until(lambda: page.js(LABEL, "v") != "Head, at (0.05, 0.50)")
    x, y = (float(v) for v in re.findall(r"[\d.]+", page.js(LABEL, "v")))
    assert x * x + y * y == pytest.approx(0.04, abs=0.01)


def test_the_slider_walks_along_the_path(board: Callable[..., Browser]) -> None:
    page = board()
    whole = page.js(PATHS, "way")[0]
    page.js(SLIDE, 10)
    status(page, 1, "After 10 steps")
    part = page.js(PATHS, "way")[0]
    assert whole.startswith(part)
    assert part.count("L") == 10
    page.js(SLIDE, 0)
    status(page, 1, "all tokens of a sequence have the same attention")
    assert "attention 33 %" in page.js(LABEL, "a")


def test_where_no_line_cuts_the_token_off_none_is_drawn(board: Callable[..., Browser]) -> None:
    page = board(tokens=[[*CORNER, [0.1, 0.1]], CORNER])
    keys(page, "d", "\ue007")
    status(page, 0, "No W makes attention select them: no straight line cuts off d from")
    for kind in ("separator", "edge", "strip", "ray"):
        assert page.js(PATHS, kind) == ["", ""]
    kinds = ["asked", "support"]
    assert page.js(FLAGS, kinds) == {"asked": "dp", "support": ""}


def test_new_problems_are_the_same_for_everybody_and_reset_takes_them_back(
    board: Callable[..., Browser],
) -> None:
    page = board()
    keys(page, "b", "\ue007", "\ue014")
    page.js(SLIDE, 7)
    page.js(FIND + "all('input[type=radio]')[1].click()")
    seen = []
    for _ in range(2):
        for _ in range(2):
            before = page.js(LABEL, "a")
            page.js(PRESS, "New")
            until(lambda before=before: page.js(LABEL, "a") != before)
            seen.append(page.js(LABEL, "a"))
        page.js(PRESS, "Back")
        until(lambda: page.js(STATUS)[0] == FIRST)
        status(page, 1, "After 400 steps of gradient descent from W = 0")
        assert "at (0.00, 1.00)" in page.js(LABEL, "b")
    assert seen[:2] == seen[2:]
    assert seen[0] != seen[1]


def test_it_fits_a_phone(board: Callable[..., Browser]) -> None:
    lefts = FIND + "return all('[role=application]').map((e) => e.getBoundingClientRect().left)"
    assert len(set(board(width=1400).js(lefts))) == 2
    page = board(width=360)
    assert len(set(page.js(lefts))) == 1
    assert page.js(OVERFLOW) <= 0
    inside = """
    const edge = document.querySelector('.repro-widget').getBoundingClientRect().right;
    return all('.repro-widget *').filter((e) => !e.closest('[clip-path]'))
      .every((e) => e.getBoundingClientRect().right <= edge);
    """
    assert page.js(FIND + inside)


def test_colors_follow_the_theme_without_a_new_drawing(board: Callable[..., Browser]) -> None:
    page = board()
    look = """
    const panel = (s) => all('.repro-widget-panel ' + s)[0];
    const ink = (s) => ['stroke', 'fill', 'stopColor'].map((k) => getComputedStyle(panel(s))[k]);
    return ['path.separator', 'path.strip', 'path.ray', 'path.way', '.dot', '.asked .frame',
      '.support .ring', '.best .star', 'stop.high', '.letter', '.shaft'].map(ink);
    """
    light = page.js(FIND + look)
    page.js("document.documentElement.dataset.theme = 'dark'")
    assert all(a != b for a, b in zip(light, page.js(FIND + look), strict=True))


@pytest.mark.parametrize(
    "harm",
    [
        lambda config: config.pop("head"),
        lambda config: config["tokens"][1].__setitem__(0, [1.0, None]),
        lambda config: config.update(queries=[[1, 0], [0, 0]]),
        None,
    ],
    ids=["no head", "no number", "no query", "no JSON"],
)
def test_a_config_that_does_not_fit_leaves_the_static_picture(browser: Browser, harm: Any) -> None:
    config = copy.deepcopy(CONFIG)
    if harm:
        harm(config)
    write_page(browser, json.dumps(config) if harm else "{")
    try:
        browser.log("browser")
        browser.open(BOARD)
        until(lambda: browser.js("return !!document.querySelector('.is-live')"))
        shown = "return all('img').filter((e) => e.getClientRects().length).length"
        assert (browser.js(LIVE), browser.js(FIND + shown)) == (False, 1)
        logged = browser.log("browser")
        assert any("the static picture stays" in entry["message"] for entry in logged)
        assert [entry for entry in logged if entry["level"] == "SEVERE"] == []
    finally:
        (browser.html_dir / BOARD).unlink()
