"""The comparison of outputs: what may move, what may not, and what is reported as skipped."""

import base64
import copy
import struct
import zlib

import nbformat
import pytest

from reproductions.chapter import claims as claims_module
from reproductions.chapter import datasets, figures
from reproductions.press import compare
from reproductions.press.compare import compare_cell, compare_notebooks


def output(mime, data, html, text):
    bundle = {mime: data, "text/html": html, "text/plain": text}
    return nbformat.v4.new_output("display_data", bundle)


def claims(value=2.0, drift=1e-3, **changes):
    table = claims_module.Claims("alpha", {"C1": ("Doubling.", "Thm 1"), "C2": ("Sum.", "Tab 1")})
    table.settle(
        "C1",
        claims_module.measured(
            "slope", value, claims_module.near(2.0, abs=0.5), drift=drift, spread=(1.9, 2.1)
        ),
    )
    if changes.pop("skip_c2", False):
        table.stored("C2", because="no data")
    else:
        table.settle("C2", claims_module.measured("sum", True, claims_module.holds()))
    data = table.data(complete=changes.pop("complete", True))
    for key, new in changes.items():
        data["rows"][0][key] = new
    return claims_output(data)


def claims_output(data):
    html, text = claims_module.render_html(data), claims_module.render_text(data)
    return output(claims_module.CLAIMS_MIME, data, html, text)


def png(size=(2, 2)):
    """A black picture, base64."""

    def chunk(name, content):
        checksum = struct.pack(">I", zlib.crc32(name + content))
        return struct.pack(">I", len(content)) + name + content + checksum

    header = struct.pack(">2I5B", *size, 8, 0, 0, 0, 0)
    rows = zlib.compress(b"\0" * (size[0] + 1) * size[1])
    parts = chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
    return base64.b64encode(b"\x89PNG\r\n\x1a\n" + parts).decode()


def figure(values=(0.0, 1.0, 2.0), drift=1e-3, light=None, dark=None, **changes):
    data = {
        "schema": 1,
        "alt": "A line.",
        "caption": "It rises.",
        "summary": figures.summarize({"line": values}),
        "drift": {"abs": 0.0, "rel": drift},
        **changes,
    }
    html = figures.render_html(data, light or png(), dark or png())
    return output(figures.FIGURE_MIME, data, html, figures.render_text(data))


def skipped(*ids):
    data = {"schema": 1, "dataset": "table", "claims": list(ids), "message": "Skipped: no table."}
    return output(
        datasets.SKIPPED_MIME, data, datasets.skipped_html(data), datasets.skipped_text(data)
    )


def text(value):
    return nbformat.v4.new_output("stream", name="stdout", text=value)


def compared(stored, fresh, announced=()):
    return compare_cell([stored], [fresh], set(announced))


def test_the_mime_types_are_those_of_the_chapters():
    assert compare.CLAIMS == claims_module.CLAIMS_MIME
    assert compare.FIGURE == figures.FIGURE_MIME
    assert compare.SKIPPED == datasets.SKIPPED_MIME
    assert compare.NOT_RERUN in claims_module.VERDICTS


def test_a_value_may_move_by_its_own_drift_and_no_further():
    assert compared(claims(2.0), claims(2.0009)).status == "passed"
    result = compared(claims(2.0), claims(2.0011))
    assert result.messages == ["claim C1: slope is 2.0011, stored 2.0: it may move by 0.001"]


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("statement", "Tripling."),
        ("source", "Thm 2"),
        ("verdict", "qualified"),
        ("because", "for luck"),
        ("id", "C9"),
    ],
)
def test_words_of_a_claim_may_not_move(key, value):
    assert compared(claims(), claims(**{key: value})).status == "failed"


@pytest.mark.parametrize("key", ["label", "paper", "unit", "n_seeds", "met"])
def test_nor_may_what_stands_around_the_value(key):
    fresh = claims()
    data = copy.deepcopy(fresh.data[claims_module.CLAIMS_MIME])
    data["rows"][0]["measurements"][0][key] = False if key == "met" else "9"
    result = compared(claims(), claims_output(data))
    assert any(f"{key} is" in m for m in result.messages)


def test_the_tolerance_itself_may_not_move():
    wide = compared(claims(drift=1e-3), claims(drift=1e-2))
    assert any("drift is" in m for m in wide.messages)
    data = copy.deepcopy(claims().data[claims_module.CLAIMS_MIME])
    data["rows"][0]["measurements"][0]["criterion"]["low"] = -9.0
    assert any("criterion is" in m for m in compared(claims(), claims_output(data)).messages)


def test_the_ends_of_the_spread_move_by_the_drift_and_half_its_width():
    data = copy.deepcopy(claims().data[claims_module.CLAIMS_MIME])
    data["rows"][0]["measurements"][0]["spread"] = [1.81, 2.19]
    assert compared(claims(), claims_output(data)).status == "passed"
    data["rows"][0]["measurements"][0]["spread"] = [1.78, 2.19]
    result = compared(claims(), claims_output(data))
    assert ["low end of the spread" in m for m in result.messages] == [True]


def test_nan_agrees_with_nan_and_with_nothing_else():
    def with_value(value):
        data = copy.deepcopy(claims().data[claims_module.CLAIMS_MIME])
        data["rows"][0]["measurements"][0]["value"] = value
        return claims_output(data)

    assert compared(with_value("nan"), with_value("nan")).status == "passed"
    assert compared(with_value(2.0), with_value("nan")).status == "failed"
    assert compared(with_value("nan"), with_value(2.0)).status == "failed"


@pytest.mark.parametrize("mime", ["text/html", "text/plain"])
def test_what_the_reader_sees_must_be_what_the_data_say(mime):
    stored = claims()
    assert "2" in stored.data[mime]
    stored.data[mime] = stored.data[mime].replace("2", "3", 1)
    result = compared(stored, claims())
    assert any("is not what its data render to" in m for m in result.messages)
    dropped = claims()
    del dropped.data[mime]
    assert compared(dropped, claims()).status == "failed"


def test_figures_are_compared_by_the_summary_of_their_data():
    assert compared(figure(), figure(light=png((3, 3)))).status == "passed"
    assert compared(figure(), figure((0.0, 1.0, 2.001))).status == "passed"
    result = compared(figure(), figure((0.0, 1.0, 2.1)))
    assert any("figure, line: max is 2.1, stored 2.0" in m for m in result.messages)


def test_a_rounded_digit_may_fall_the_other_way():
    a, b = (figure((0.0, x), drift=0.0) for x in (1.2345649, 1.2345651))
    assert a.data[figures.FIGURE_MIME] != b.data[figures.FIGURE_MIME]
    assert compared(a, b).status == "passed"
    assert compared(a, figure((0.0, 1.23459), drift=0.0)).status == "failed"


@pytest.mark.parametrize(
    "fresh",
    [
        figure(alt="A curve."),
        figure(caption="It falls."),
        figure((0.0, 1.0, 2.0, 2.0)),
        figure((0.0, 1.0, float("nan"))),
        figure(summary=figures.summarize({"curve": (0.0, 1.0, 2.0)})),
        figure(drift=1.0),
    ],
    ids=["alt", "caption", "shape", "finite", "name", "drift"],
)
def test_words_shapes_and_tolerance_of_a_figure_may_not_move(fresh):
    assert compared(figure(), fresh).status == "failed"


def drawn(drift=1e-3, **changes):
    """A figure with a script that draws measured arrays."""
    config = {
        "angles": [0.5, 1.5],
        "curves": [[[0.0, 2.0], [0.0, 100.0]]],
        "widths": [16, 64],
        "start": {"width": 1, "rate": 0.5, "open": True, "name": "circle"},
        **changes,
    }
    return figure(drift=drift, widget="selu-map", config=config)


def test_arrays_of_a_script_move_by_the_drift_and_their_own_largest_entry():
    assert compared(drawn(), drawn(curves=[[[0.0019, 2.0], [0.09, 100.09]]])).status == "passed"
    result = compared(drawn(), drawn(curves=[[[0.0021, 2.0], [0.0, 100.11]]]))
    assert result.messages == [
        "figure: config.curves[0][0][0] is 0.0021, stored 0.0: it may move by 0.002 (and 1 more)"
    ]
    assert compared(drawn(drift=0.0), drawn(drift=0.0)).status == "passed"
    assert compared(drawn(drift=0.0), drawn(0.0, angles=[0.5, 1.5000001])).status == "failed"
    assert compared(drawn(), drawn(angles=[0.5, float("nan")])).status == "failed"


@pytest.mark.parametrize(
    "changes",
    [
        {"angles": [0.5, 1.5, 1.5]},
        {"angles": [0.5]},
        {"angles": [0.5, None]},
        {"angles": [0.5, "1.5"]},
        {"angles": 0.5},
        {"curves": [[0.0, 2.0], [0.0, 100.0]]},
        {"widths": [16, 64.0001]},
        {"widths": [17, 64]},
        {"start": {"width": 1, "rate": 0.5000001, "open": True, "name": "circle"}},
        {"start": {"width": 2, "rate": 0.5, "open": True, "name": "circle"}},
        {"start": {"width": 1, "rate": 0.5, "open": 1, "name": "circle"}},
        {"start": {"width": 1, "rate": 0.5, "open": True, "name": "square"}},
        {"start": {"width": 1, "rate": 0.5, "open": True}},
        {"more": 1},
    ],
    ids=str,
)
def test_shapes_settings_and_words_of_a_script_may_not_move(changes):
    assert compared(drawn(drift=0.9), drawn(drift=0.9, **changes)).status == "failed"
    assert compared(drawn(drift=0.9, **changes), drawn(drift=0.9)).status == "failed"


def test_a_script_may_not_come_or_go():
    assert compared(drawn(), figure()).status == "failed"
    assert compared(figure(), drawn()).status == "failed"
    assert compared(drawn(), figure(widget="selu-map", config=None)).status == "failed"


def test_both_pictures_must_be_there():
    broken = figure(dark=base64.b64encode(b"not a picture").decode())
    assert "two pictures, light and dark" in compared(broken, figure()).messages[0]
    cut = png()[:-16]
    assert compared(figure(light=cut), figure()).status == "failed"
    one = figure()
    html = one.data["text/html"]
    one.data["text/html"] = html[: html.index("<img")] + html[html.rindex("<img") :]
    assert compared(one, figure()).status == "failed"


def test_text_must_be_equal_except_for_addresses():
    assert compared(text("<f at 0x7f01>\n"), text("<f at 0x7f02>\n")).status == "passed"
    assert compared(text("0.123\n"), text("0.124\n")).messages == [
        "stdout: line 1 is '0.124', stored '0.123'"
    ]


def test_kinds_and_order_of_outputs_must_be_equal():
    both = [text("a\n"), claims()]
    assert compare_cell(both, both[:1], set()).status == "failed"
    assert compare_cell(both, both[::-1], set()).status == "failed"
    assert compare_cell([], both, set()).status == "failed"


def test_a_picture_alone_is_compared_by_its_other_forms():
    def picture(payload, words):
        return nbformat.v4.new_output("display_data", {"image/png": payload, "text/plain": words})

    assert compared(picture("aGk=", "x"), picture("aG8=", "x")).status == "passed"
    assert compared(picture("aGk=", "x"), picture("aGk=", "y")).status == "failed"


def test_a_cell_without_its_data_is_skipped_and_never_passed():
    announced = set()
    result = compare_cell([claims(complete=False)], [skipped("C2")], announced)
    assert (result.status, result.messages) == ("skipped", ["Skipped: no table."])
    assert announced == {"C2"}


def test_a_stored_skip_fails():
    assert compared(skipped("C2"), skipped("C2")).status == "failed"


def test_a_row_is_excused_only_if_its_cell_announced_it():
    fresh = claims(skip_c2=True)
    excused = compared(claims(), fresh, {"C2"})
    assert excused.status == "skipped"
    assert excused.messages == ["1 of 2 claims not re-run for want of data: C2"]
    assert compared(claims(), fresh).status == "failed"
    assert compared(claims(), fresh, {"C1"}).status == "failed"


def test_an_excuse_covers_no_other_row():
    moved = claims(2.2, skip_c2=True)
    assert compared(claims(), moved, {"C2"}).status == "failed"


def test_notebooks_are_compared_cell_by_cell():
    def notebook(*outputs, source="x"):
        cells = [
            nbformat.v4.new_code_cell(f"{source}{k}", outputs=list(o))
            for k, o in enumerate(outputs)
        ]
        return nbformat.v4.new_notebook(cells=cells)

    stored = notebook([text("a\n")], [claims(complete=False)], [claims()])
    fresh = notebook([text("b\n")], [skipped("C2")], [claims(skip_c2=True)])
    results = compare_notebooks(stored, fresh)
    assert [r.status for r in results] == ["failed", "skipped", "skipped"]
    assert [r.number for r in results] == [1, 2, 3]
    short = compare_notebooks(stored, notebook([text("a\n")]))
    assert [r.status for r in short] == ["passed", "failed"]
    other = compare_notebooks(stored, notebook([text("a\n")], source="y"))
    assert "different code" in other[0].messages[0]
