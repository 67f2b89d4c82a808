"""Figures: both themes, alternative text, deterministic bytes, a summary that follows the data."""

import base64
import copy

import numpy as np
import pytest

from reproductions.chapter import figures
from reproductions.chapter.figures import FIGURE_MIME


@pytest.fixture
def displayed(monkeypatch):
    shown = []
    monkeypatch.setattr("IPython.display.display", lambda bundle, raw: shown.append(bundle))
    return shown


def make(values, **options):
    @figures.figure("The line <rises>.", alt='A "rising" line', data={"y": values}, **options)
    def _(fig, ink):
        fig.subplots().plot(values, color=ink.cycle[0])


def test_two_themes_with_the_same_alternative_text(displayed):
    make([1.0, 2.0, 4.0])
    html = displayed[0]["text/html"]
    assert html.count("<img") == 2
    assert html.count('alt="A &quot;rising&quot; line"') == 2
    assert 'class="only-light"' in html
    assert 'class="only-dark"' in html
    assert "The line &lt;rises&gt;." in html
    light, dark = (part.split('"')[0] for part in html.split("base64,")[1:])
    assert light != dark
    assert base64.b64decode(light).startswith(b"\x89PNG")


def test_equal_data_give_equal_bytes_and_other_data_other_bytes(displayed):
    make([1.0, 2.0, 4.0])
    make([1.0, 2.0, 4.0])
    make([1.0, 2.0, 4.1])
    assert displayed[0] == displayed[1]
    assert displayed[0]["text/html"] != displayed[2]["text/html"]
    assert displayed[0][FIGURE_MIME] != displayed[2][FIGURE_MIME]


def test_summary_is_that_of_numpy_and_leaves_nan_out(displayed):
    values = np.array([[1.0, np.nan], [3.0, 8.0]])
    summary = figures.summarize({"v": values})["v"]
    assert summary["shape"] == [2, 2]
    assert summary["finite"] == 3
    assert (summary["min"], summary["max"], summary["mean"]) == (1.0, 8.0, 4.0)
    assert summary["quantiles"][1] == 3.0
    assert figures.summarize({"v": [np.nan]})["v"] == {"shape": [1], "finite": 0}


def test_rounding_noise_of_a_sum_is_zero():
    values = np.array([0.1, 0.2, -0.3])
    assert values.sum() != 0
    assert figures.summarize({"v": values})["v"]["mean"] == 0.0


def test_text_follows_from_the_stored_data(displayed):
    make([1.0, 2.0, 4.0])
    stored = displayed[0][FIGURE_MIME]
    assert figures.render_text(stored) == displayed[0]["text/plain"]
    changed = copy.deepcopy(stored)
    changed["summary"]["y"]["max"] = 5.0
    assert figures.render_text(changed) != displayed[0]["text/plain"]


@pytest.mark.parametrize("missing", ["caption", "alt", "data"])
def test_a_figure_without_words_or_data_is_refused(missing):
    arguments = {"caption": "It rises.", "alt": "line", "data": {"y": [1.0]}} | {missing: ""}
    with pytest.raises(ValueError, match=missing):
        figures.figure(arguments.pop("caption"), **arguments)


def test_an_interactive_figure_keeps_its_static_picture(displayed):
    options = {"widget": "selu-map", "config": {"tau": 1.0, "alpha": 2}}

    @figures.figure("Drag.", alt="a map", data={"y": [1.0]}, **options)
    def _(fig, ink):
        fig.subplots().plot([1.0])

    html = displayed[0]["text/html"]
    assert html.startswith('<div class="repro-interactive" data-widget="selu-map"')
    assert 'data-config="{&quot;alpha&quot;: 2, &quot;tau&quot;: 1.0}"' in html
    assert html.count("<img") == 2
