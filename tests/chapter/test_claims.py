"""Claims: verdicts follow from criteria, drift stays inside them, renderings follow from data."""

import json
import math

import numpy as np
import pytest
import torch

from reproductions.chapter import claims as c
from reproductions.chapter.claims import CLAIMS_MIME, Claims, measured

STATEMENTS = {
    "C1": ("A constant is 0.7877.", "Eq. 6"),
    "C2": ("A < B & both are positive.", "Theorem 1"),
}


@pytest.fixture
def table() -> Claims:
    return Claims("miniature", STATEMENTS)


def verdict(table: Claims, id: str) -> str:
    (row,) = table.data(id)["rows"]
    return row["verdict"]


@pytest.mark.parametrize(
    ("criterion", "inside", "outside"),
    [
        (c.near(1.0, abs=0.1), 1.05, 1.11),
        (c.near(-2.0, rel=0.1), -2.19, -2.21),
        (c.below(1.0), 0.5, 1.5),
        (c.above(0.0), 0.1, -0.1),
        (c.at_most(1.0), 0.9, 1.1),
        (c.at_least(3.0), 4.0, 2.0),
        (c.between(0.0, 1.0), 0.5, 1.5),
        (c.holds(), True, False),
        (c.equals(21), 21, 22),
    ],
)
def test_verdict_follows_from_the_criterion(table, criterion, inside, outside):
    table.settle("C1", measured("m", inside, criterion))
    assert verdict(table, "C1") == "reproduced"
    table.settle("C1", measured("m", outside, criterion))
    assert verdict(table, "C1") == "not reproduced"


def test_open_and_closed_ends_differ():
    assert not c.below(1.0).met(1.0)
    assert c.at_most(1.0).met(1.0)
    assert not c.above(0.0).met(0.0)
    assert c.at_least(0.0).met(0.0)


def test_one_failed_measurement_decides_and_a_reported_one_does_not(table):
    good = measured("good", 1.0, c.above(0.0))
    table.settle("C1", good, measured("bad", 1.0, c.below(0.0)))
    assert verdict(table, "C1") == "not reproduced"
    table.settle("C1", good, measured("shown", -5.0, c.reported()))
    assert verdict(table, "C1") == "reproduced"


def test_qualification_cannot_rescue_a_failed_criterion(table):
    table.settle("C1", measured("m", 1.0, c.above(0.0)), qualified="only for even n")
    assert verdict(table, "C1") == "qualified"
    table.settle("C1", measured("m", -1.0, c.above(0.0)), qualified="only for even n")
    assert verdict(table, "C1") == "not reproduced"


def test_nan_meets_no_interval(table):
    table.settle("C1", measured("m", math.nan, c.above(0.0)))
    assert verdict(table, "C1") == "not reproduced"
    json.dumps(table.data(), allow_nan=False)


def complaints(table: Claims, *measurements) -> list[str]:
    table.settle("C1", *measurements)
    return c.check(json.loads(json.dumps(table.data())))


@pytest.mark.parametrize("value", [0.9995, 1.0005])
def test_a_drift_that_reaches_the_edge_is_refused(table, value):
    (complaint,) = complaints(table, measured("m", value, c.below(1.0), drift_rel=1e-3))
    assert complaint.startswith("claim C1, m: a drift of")
    assert "reaches the edge of the criterion (< 1)" in complaint
    assert not complaints(table, measured("m", value, c.below(1.0), drift_rel=1e-4))


def test_absolute_and_relative_drift_add_up(table):
    assert not complaints(table, measured("m", 1.0, c.below(1.15), drift=0.1))
    assert not complaints(table, measured("m", 1.0, c.below(1.15), drift_rel=0.1))
    assert complaints(table, measured("m", 1.0, c.below(1.15), drift=0.1, drift_rel=0.1))


def test_both_edges_count_and_other_criteria_have_none(table):
    assert complaints(table, measured("m", 0.01, c.between(0.0, 1.0), drift=0.02))
    assert complaints(table, measured("m", 0.99, c.between(0.0, 1.0), drift=0.02))
    assert not complaints(
        table,
        measured("m", True, c.holds()),
        measured("n", 21, c.equals(21)),
        measured("o", math.nan, c.above(0.0), drift=1.0),
    )


def test_a_claim_without_a_criterion_that_could_fail_is_refused(table):
    with pytest.raises(ValueError, match="no criterion"):
        table.settle("C1", measured("m", 1.0, c.reported()))
    with pytest.raises(ValueError, match="without a measurement"):
        table.settle("C1")


def test_bad_criteria_and_values_are_refused():
    with pytest.raises(ValueError, match="empty"):
        c.between(1.0, 1.0)
    with pytest.raises(ValueError, match="needs abs or rel"):
        c.near(1.0)
    with pytest.raises(ValueError, match="True or False"):
        measured("m", 0.7, c.holds())
    with pytest.raises(ValueError, match="needs a number"):
        measured("m", "0.7", c.below(1.0))
    with pytest.raises(ValueError, match="drift"):
        measured("m", 0.7, c.below(1.0), drift=-1e-3)


def test_an_edge_that_was_measured_is_refused():
    for criterion in (c.below, c.above, c.at_most, c.at_least, lambda v: c.near(v, abs=0.1)):
        for value in (torch.tensor(0.7), np.float64(0.7)):
            with pytest.raises(ValueError, match="plain number, fixed before the run"):
                criterion(value)
    with pytest.raises(ValueError, match="measure their difference"):
        c.between(0.1, torch.tensor(0.7))


def test_tensors_and_arrays_become_plain_numbers():
    assert measured("m", torch.tensor(0.5), c.below(1.0)).value == 0.5
    assert measured("m", np.float64(0.5), c.below(1.0)).value == 0.5
    assert measured("m", np.bool_(True), c.holds()).value is True
    assert measured("m", torch.tensor(3), c.below(4)).value == 3.0


def test_an_edited_verdict_or_value_is_refused(table):
    table.settle("C1", measured("m", 0.5, c.below(1.0)))
    data = json.loads(json.dumps(table.data()))
    assert not c.check(data)
    data["rows"][0]["verdict"] = "not reproduced"
    assert c.check(data) == ["claim C1 is called not reproduced with every criterion met"]
    data["rows"][0]["verdict"] = "reproduced"
    data["rows"][0]["measurements"][0]["value"] = 1.5
    assert c.check(data) == ["claim C1, m: is stored as met, and its value says otherwise"]
    data["rows"][0]["measurements"][0]["met"] = False
    assert c.check(data) == ["claim C1 is called reproduced with some criterion not met"]


def test_over_seeds_reports_their_range_and_number():
    m = c.over_seeds("m", torch.tensor([[1.0, 2.0], [9.0, 4.0]]), c.above(0.0))
    assert (m.value, m.spread, m.n_seeds) == (4.0, (1.0, 9.0), 4)
    assert c.over_seeds("m", [1.0, 2.0, 9.0], c.above(0.0), statistic="median").value == 2.0
    with pytest.raises(ValueError, match="statistic must be one of mean, median"):
        c.over_seeds("m", [1.0], c.above(0.0), statistic="best")


def test_a_narrow_criterion_shows_the_digits_that_matter():
    assert c.near(0.9912524171058772, abs=1e-11).text == "0.991252417106 ± 1·10⁻¹¹"
    assert c.near(1.6733, abs=5e-5).text == "1.6733 ± 5·10⁻⁵"


def test_unlisted_claims_and_open_claims_are_refused(table):
    with pytest.raises(ValueError, match=r"'C9'.*C1, C2"):
        table.settle("C9", measured("m", True, c.holds()))
    table.settle("C1", measured("m", True, c.holds()))
    with pytest.raises(ValueError, match="C2 have no verdict"):
        table.table()


def test_show_displays_what_was_settled_since_the_last_call(table, monkeypatch):
    shown = []
    monkeypatch.setattr("IPython.display.display", lambda bundle, raw: shown.append(bundle))
    table.settle("C1", measured("m", True, c.holds()))
    table.show()
    table.settle("C2", measured("m", True, c.holds()))
    table.show()
    table.table()
    ids = [[r["id"] for r in b[CLAIMS_MIME]["rows"]] for b in shown]
    assert ids == [["C1"], ["C2"], ["C1", "C2"]]
    assert [b[CLAIMS_MIME]["complete"] for b in shown] == [False, False, True]
    with pytest.raises(ValueError, match="nothing to show"):
        table.show()


def test_claims_without_their_data_are_not_shown_again(table, monkeypatch):
    shown = []
    monkeypatch.setattr("IPython.display.display", lambda bundle, raw: shown.append(bundle))
    table.stored("C1", because="no data")
    table.settle("C2", measured("m", True, c.holds()))
    table.show()
    assert [r["id"] for r in shown[0][CLAIMS_MIME]["rows"]] == ["C2"]


def test_renderings_follow_from_data_alone(table):
    table.settle("C1", measured("norm", 0.78767336, c.near(0.7877, abs=1e-4), drift=1e-9))
    table.not_run("C2", "needs a data set that is not public")
    data = json.loads(json.dumps(table.data(complete=True)))
    assert c.render_html(data) == c.render_html(table.data(complete=True))
    assert c.render_text(data) == c.render_text(table.data(complete=True))
    assert "A &lt; B &amp; both" in c.render_html(data)
    changed = json.loads(json.dumps(data))
    changed["rows"][0]["measurements"][0]["value"] = 0.79
    assert c.render_html(changed) != c.render_html(data)
    assert c.render_text(changed) != c.render_text(data)


def test_anchors_stand_in_the_complete_table_only(table):
    table.settle("C1", measured("m", True, c.holds()))
    assert 'id="claim-C1"' in c.render_html(table.data(complete=True))
    assert 'id="claim-C1"' not in c.render_html(table.data())


@pytest.mark.parametrize(
    ("value", "drift", "text"),
    [
        (0.123456789, 1e-3, "0.123"),
        (1.0000123, 0.01, "1.00"),
        (-0.0047123, 1e-3, "−0.0047"),
        (1980.3, 198.0, "2000"),
        (3.3e-15, 1e-13, "3.3·10⁻¹⁵"),
        (9.47e10, 9.47e7, "9.47·10¹⁰"),
        (0.0, 0.1, "0"),
        (0.991252417105871, 1e-12, "0.991252417106"),
    ],
)
def test_values_are_printed_to_the_digits_that_a_re_run_keeps(table, value, drift, text):
    table.settle("C1", measured("m", value, c.below(1e12), drift=drift))
    assert f"m: {text} |" in c.render_text(table.data())


def test_the_spread_is_printed_like_its_value(table):
    m = measured("m", 1.0000123, c.above(0.0), drift=0.01, spread=(0.961, 1.0449), n_seeds=8)
    table.settle("C1", m)
    assert "m: 1.00 (0.96 to 1.04, n = 8) |" in c.render_text(table.data())


def test_verdicts_differ_in_symbol_and_word():
    symbols = [symbol for symbol, _ in c.VERDICTS.values()]
    assert len(set(symbols)) == len(symbols) == 5
