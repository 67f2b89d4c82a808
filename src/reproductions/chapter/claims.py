"""Claims and verdicts: what the paper says, what we measured, and whether the two agree.

A chapter lists the paper's claims before anything is measured, then settles each one with
measurements. A measurement is a number (or a yes/no), the criterion it has to meet, and the drift
that a run on another machine may show. The verdict follows from the criteria:

========================  ======================================================================
reproduced                every criterion is met
qualified                 every criterion is met, but for another reason or in a narrower range
                          than the paper says; ``because`` says which
not reproduced            some criterion is not met
not run here              the claim was not put to the test; ``because`` says why
stored, not re-run here   a data set is missing in this run; the stored book has the value
========================  ======================================================================

The table is one notebook output: data of the MIME type ``CLAIMS_MIME``, from which the HTML and
the text beside it are rendered (and can be rendered again, to check that nobody edited them).
"""

from __future__ import annotations

import html
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from reproductions._validate import choice

__all__ = [
    "CLAIMS_MIME",
    "VERDICTS",
    "Claims",
    "Criterion",
    "Measurement",
    "above",
    "at_least",
    "at_most",
    "below",
    "between",
    "check",
    "equals",
    "holds",
    "measured",
    "near",
    "over_seeds",
    "render_html",
    "render_text",
    "reported",
]

CLAIMS_MIME = "application/vnd.reproductions.claims+json"

REPRODUCED, QUALIFIED, NOT_REPRODUCED = "reproduced", "qualified", "not reproduced"
NOT_RUN, STORED = "not run here", "stored, not re-run here"
#: verdict -> (symbol, CSS class): never color alone.
VERDICTS = {
    REPRODUCED: ("✓", "repro-reproduced"),
    QUALIFIED: ("◐", "repro-qualified"),
    NOT_REPRODUCED: ("✗", "repro-not-reproduced"),
    NOT_RUN: ("–", "repro-not-run"),
    STORED: ("○", "repro-stored"),
}


@dataclass(frozen=True)
class Criterion:
    """The set of values that count as agreement: an interval, a truth, or nothing at all.

    ``kind`` is ``interval`` (from ``low`` to ``high``, ends included or not), ``holds`` (the value
    must be true), ``equals`` (a whole number or text, exactly) or ``reported`` (no criterion: the
    value is shown, and decides nothing).
    """

    kind: str
    text: str
    low: float | None = None
    high: float | None = None
    open: bool = False
    target: Any = None

    def met(self, value: float | bool | str) -> bool:
        """Whether ``value`` agrees. NaN agrees with nothing."""
        if self.kind == "holds":
            return value is True
        if self.kind == "equals":
            return value == self.target
        if self.kind == "reported":
            return True
        if math.isnan(value):
            return False
        low = -math.inf if self.low is None else self.low
        high = math.inf if self.high is None else self.high
        return low < value < high if self.open else low <= value <= high


def near(target: float, *, abs: float = 0.0, rel: float = 0.0) -> Criterion:
    """Within ``abs + rel |target|`` of ``target``."""
    _literal("target", target)
    width = abs + rel * math.fabs(target)
    if not width > 0:
        raise ValueError(f"near({target!r}) needs abs or rel above 0; use equals for exactness")
    digits = 6 if target == 0 else 2 + math.floor(math.log10(math.fabs(target) / width))
    text = f"{_rounded(target, max(6, min(17, digits)))} ± {_rounded(width, 3)}"
    return Criterion("interval", text, target - width, target + width)


def below(bound: float) -> Criterion:
    """Strictly less than ``bound``."""
    return Criterion("interval", f"< {_number(bound)}", high=_literal("bound", bound), open=True)


def above(bound: float) -> Criterion:
    """Strictly greater than ``bound``."""
    return Criterion("interval", f"> {_number(bound)}", low=_literal("bound", bound), open=True)


def at_most(bound: float) -> Criterion:
    """No more than ``bound``."""
    return Criterion("interval", f"≤ {_number(bound)}", high=_literal("bound", bound))


def at_least(bound: float) -> Criterion:
    """No less than ``bound``."""
    return Criterion("interval", f"≥ {_number(bound)}", low=_literal("bound", bound))


def between(low: float, high: float) -> Criterion:
    """From ``low`` to ``high``, ends included."""
    if not low < high:
        raise ValueError(f"between({low!r}, {high!r}) is empty; give the smaller number first")
    text = f"in [{_number(low)}, {_number(high)}]"
    return Criterion("interval", text, _literal("low", low), _literal("high", high))


def _literal(name: str, value: float) -> float:
    """Return ``value`` if it is a plain number: a measured edge would move with the machine."""
    if type(value) not in (int, float):
        raise ValueError(
            f"{name} of a criterion must be a plain number, fixed before the run; got {value!r} "
            "(to compare two measurements, measure their difference)"
        )
    return float(value)


def holds() -> Criterion:
    """True: a proof that went through, an ordering that holds."""
    return Criterion("holds", "holds")


def equals(target: int | str) -> Criterion:
    """Exactly this whole number or text."""
    return Criterion("equals", f"= {target}", target=target)


def reported() -> Criterion:
    """No criterion: the number is part of the story and decides nothing."""
    return Criterion("reported", "reported only")


@dataclass(frozen=True)
class Measurement:
    """One measured value with its criterion and the drift a re-run may show."""

    label: str
    value: float | bool | str
    criterion: Criterion
    paper: float | str | None = None
    unit: str = ""
    drift: Mapping[str, float] = field(default_factory=dict)
    spread: tuple[float, float] | None = None
    n_seeds: int | None = None

    @property
    def met(self) -> bool:
        """Whether the criterion is met."""
        return self.criterion.met(self.value)


def measured(
    label: str,
    value: Any,
    criterion: Criterion,
    *,
    paper: float | str | None = None,
    unit: str = "",
    drift: float | None = None,
    drift_rel: float | None = None,
    spread: Sequence[float] | None = None,
    n_seeds: int | None = None,
) -> Measurement:
    """Measure: a label, a value, what would count as agreement, and how far a re-run may move.

    Args:
        label: what was measured, in a few words.
        value: a number, a bool or a short text (0-d arrays and tensors are converted).
        criterion: ``near``, ``below``, ``above``, ``between``, ``holds``, ``equals``, ``reported``.
        paper: the paper's own number, or its words.
        unit: unit of value and paper.
        drift: absolute drift that a re-run may show.
        drift_rel: relative drift; 1e-3 where neither is given. Drift tolerances add up.
        spread: (low, high) of the value over seeds, folds or a bootstrap.
        n_seeds: how many seeds (runs, folds) the value summarizes.

    Whether the drift stays inside the criterion is judged when a run is stored, by :func:`check`.

    Raises:
        ValueError: a criterion got a value that it cannot judge; a drift that is no tolerance.
    """
    if hasattr(value, "item"):
        value = value.item()
    if criterion.kind == "holds" and not isinstance(value, bool):
        raise ValueError(f"{label}: holds() needs True or False, got {value!r}")
    numeric = _is_number(value)
    if drift is None and drift_rel is None:
        drift_rel = 1e-3 if isinstance(value, float) else 0.0
    moves = {"abs": float(drift or 0.0), "rel": float(drift_rel or 0.0)}
    if min(moves.values()) < 0 or not all(map(math.isfinite, moves.values())):
        raise ValueError(f"{label}: drift must be a number of at least 0, got {drift or drift_rel}")
    if criterion.kind == "interval" and not numeric:
        raise ValueError(f"{label}: an interval needs a number, got {value!r}")
    if spread is not None:
        spread = (float(spread[0]), float(spread[1]))
    return Measurement(label, value, criterion, paper, unit, moves, spread, n_seeds)


def check(data: Mapping[str, Any]) -> list[str]:
    """Refuse claims whose verdict does not follow, or would not last: one sentence for each.

    A criterion is judged again, and the verdict has to follow from it. And the drift of a
    measurement says how far a re-run may move and still count as unchanged: if it reaches the edge
    of the criterion, the verdict could change within it. Asked when a run is stored and whenever
    the stored one is checked; not of a re-run, which may use its drift up.
    """
    complaints = []
    for row in data["rows"]:
        for m in row["measurements"]:
            where = f"claim {row['id']}, {m['label']}"
            if Criterion(**m["criterion"]).met(_value(m)) != m["met"]:
                word = "met" if m["met"] else "not met"
                complaints.append(f"{where}: is stored as {word}, and its value says otherwise")
            if (room := _room(m)) <= (reach := _reach(m)):
                complaints.append(
                    f"{where}: a drift of {reach:.3g} reaches the edge of the criterion "
                    f"({m['criterion']['text']}), {room:.3g} away from {m['value']!r}; state a "
                    "smaller drift, or the claim with a wider margin"
                )
        met = all(m["met"] for m in row["measurements"])
        if row["verdict"] in (REPRODUCED, QUALIFIED, NOT_REPRODUCED) and met == (
            row["verdict"] == NOT_REPRODUCED
        ):
            complaints.append(
                f"claim {row['id']} is called {row['verdict']} with "
                f"{'every' if met else 'some'} criterion {'met' if met else 'not met'}"
            )
    return complaints


def _value(measurement: Mapping[str, Any]) -> Any:
    """The measured value, with the NaN and infinities that JSON keeps as text."""
    value = measurement["value"]
    interval = measurement["criterion"]["kind"] == "interval"
    return float(value) if interval and isinstance(value, str) else value


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _reach(measurement: Mapping[str, Any]) -> float:
    """How far a re-run may move."""
    value = measurement["value"]
    size = abs(value) if _is_number(value) else 0.0
    return measurement["drift"]["abs"] + measurement["drift"]["rel"] * size


def _room(measurement: Mapping[str, Any]) -> float:
    """How far the value is from where the answer of its criterion changes."""
    criterion, value = measurement["criterion"], measurement["value"]
    if criterion["kind"] != "interval" or not _is_number(value):
        return math.inf
    return min(abs(value - criterion[e]) for e in ("low", "high") if e in criterion)


def over_seeds(
    label: str, values: Any, criterion: Criterion, *, statistic: str = "mean", **options: Any
) -> Measurement:
    """Measure by the mean or median over seeds (folds, tasks), with their range as the spread.

    Args:
        label: what was measured.
        values: one number for each seed; arrays and tensors are flattened.
        criterion: what the mean or median has to meet.
        statistic: ``mean`` or ``median``.
        options: those of :func:`measured`.
    """
    choice("statistic", statistic, ("mean", "median"))
    values = np.asarray(values, dtype=float).ravel()
    value = float(np.mean(values) if statistic == "mean" else np.median(values))
    options = {"spread": (values.min(), values.max()), "n_seeds": len(values)} | options
    return measured(label, value, criterion, **options)


class Claims:
    """The claims of one chapter: listed first, settled one by one, shown as a table.

    Args:
        chapter: the chapter's name, which is its file's name without ending.
        statements: id -> (statement in our words, source in the paper), in order.
    """

    def __init__(self, chapter: str, statements: Mapping[str, tuple[str, str]]) -> None:
        self.chapter = chapter
        self._statements = dict(statements)
        self._rows: dict[str, dict[str, Any]] = {}
        self._shown: set[str] = set()

    def settle(
        self, id: str, *measurements: Measurement, qualified: str = "", note: str = ""
    ) -> None:
        """Settle claim ``id`` by measurements.

        Args:
            id: one of the listed claims.
            measurements: at least one of them with a criterion that could fail.
            qualified: in what narrower sense the claim holds, if all criteria are met.
            note: a remark that does not change the verdict.
        """
        if not measurements:
            raise ValueError(f"claim {id} was settled without a measurement; use not_run(id, why)")
        if all(m.criterion.kind == "reported" for m in measurements):
            raise ValueError(f"claim {id} has no criterion: no measurement of it could fail")
        met = all(m.met for m in measurements)
        verdict = (QUALIFIED if qualified else REPRODUCED) if met else NOT_REPRODUCED
        self._store(id, verdict, " ".join(filter(None, [qualified, note])), measurements)

    def not_run(self, id: str, because: str, *quoted: Measurement) -> None:
        """Record that claim ``id`` was not run, and why."""
        if not because:
            raise ValueError(f"claim {id} is not run: say why")
        self._store(id, NOT_RUN, because, quoted)

    def stored(self, *ids: str, because: str) -> None:
        """Record that these claims need a data set that this run does not have.

        They count as shown: the output that announces the missing data set names them.
        """
        for id in ids:
            self._store(id, STORED, because, ())
        self._shown.update(ids)

    def _store(
        self, id: str, verdict: str, because: str, measurements: Sequence[Measurement]
    ) -> None:
        if id not in self._statements:
            known = ", ".join(self._statements)
            raise ValueError(f"claim {id!r} is not listed in this chapter; listed are {known}")
        statement, source = self._statements[id]
        self._rows[id] = {
            "id": id,
            "statement": statement,
            "source": source,
            "verdict": verdict,
            "because": because,
            "measurements": [_measurement_data(m) for m in measurements],
        }
        self._shown.discard(id)

    def data(self, *ids: str, complete: bool = False) -> dict[str, Any]:
        """The rows ``ids`` (all that are settled when none is named) as plain data."""
        rows = [
            self._rows[i] for i in self._statements if i in self._rows and (not ids or i in ids)
        ]
        return {"schema": 1, "chapter": self.chapter, "complete": complete, "rows": rows}

    def show(self, *ids: str) -> None:
        """Display the named rows, or those settled since the last call."""
        chosen = ids or tuple(i for i in self._rows if i not in self._shown)
        missing = [i for i in chosen if i not in self._rows]
        if missing or not chosen:
            raise ValueError(
                f"nothing to show: claims {', '.join(missing) or '(none)'} not settled"
            )
        self._shown.update(chosen)
        _display(self.data(*chosen))

    def table(self) -> None:
        """Display the whole table; every listed claim must have been settled."""
        open_claims = [i for i in self._statements if i not in self._rows]
        if open_claims:
            raise ValueError(
                f"claims {', '.join(open_claims)} have no verdict yet; settle each one or say "
                "not_run(id, why)"
            )
        _display(self.data(complete=True))


def _display(data: dict[str, Any]) -> None:
    from IPython.display import display

    bundle = {CLAIMS_MIME: data, "text/html": render_html(data), "text/plain": render_text(data)}
    display(bundle, raw=True)


def _measurement_data(m: Measurement) -> dict[str, Any]:
    data = asdict(m)
    data["drift"] = dict(m.drift)
    data["spread"] = None if m.spread is None else [_plain(s) for s in m.spread]
    data["value"] = _plain(m.value)
    data["criterion"] = {
        k: v for k, v in data["criterion"].items() if v is not None and v is not False
    }
    return {**data, "met": m.met}


def _plain(value: float | bool | str) -> float | bool | str:
    """JSON has no NaN or infinity: those are stored as text."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value


def _number(value: float, digits: int = 6) -> str:
    """A number for people: significant digits, a proper minus sign, no trailing zeros."""
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e6:
        value = int(value)
    text = str(value) if isinstance(value, int) else f"{value:.{digits}g}"
    mantissa, e, exponent = text.partition("e")
    if e:
        text = f"{mantissa}·10{_superscript(int(exponent))}"
    return text.replace("-", "−")


def _superscript(value: int) -> str:
    return str(value).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))


def _layout(value: float, drift: float) -> tuple[int, int | None]:
    """Significant digits and decimals worth printing: none below what a re-run may change.

    Decimals are None for numbers that are better written with a power of ten.
    """
    if value == 0:
        return 2, 0
    size = math.floor(math.log10(abs(value)))
    digits = 6 if drift <= 0 else max(2, min(12, 1 + size - math.floor(math.log10(drift))))
    return digits, max(0, digits - 1 - size) if -5 < size < 6 else None


def _rounded(value: float | str, digits: int, decimals: int | None = None) -> str:
    if isinstance(value, str):
        return value
    if decimals is None:
        return _number(float(f"{value:.{digits}g}"), digits)
    return f"{float(f'{value:.{digits}g}'):.{decimals}f}".replace("-", "−")


def _value_text(measurement: Mapping[str, Any]) -> str:
    value = measurement["value"]
    if isinstance(value, bool):
        return "yes" if value else "no"
    if not isinstance(value, float):
        return str(value)
    digits, decimals = _layout(value, _reach(measurement))
    text = _rounded(value, digits, decimals)
    if measurement["unit"]:
        text += f" {measurement['unit']}"
    extra = []
    if measurement["spread"] is not None:
        # To the decimals of the value: its ends move as it does.
        wide = 15 if decimals is not None else digits
        extra.append(" to ".join(_rounded(s, wide, decimals) for s in measurement["spread"]))
    if measurement["n_seeds"] is not None:
        extra.append(f"n = {measurement['n_seeds']}")
    return f"{text} ({', '.join(extra)})" if extra else text


def _paper_text(measurement: Mapping[str, Any]) -> str:
    paper = measurement["paper"]
    if isinstance(paper, str):
        return paper
    unit = f" {measurement['unit']}" if measurement["unit"] else ""
    return (str(paper) if not isinstance(paper, int) else f"{paper}").replace("-", "−") + unit


def render_text(data: Mapping[str, Any]) -> str:
    """The claims as plain text: one block a claim, one line a measurement."""
    lines = []
    for row in data["rows"]:
        symbol, _ = VERDICTS[row["verdict"]]
        lines.append(
            f"{symbol} {row['id']}  {row['verdict']}: {row['statement']} ({row['source']})"
        )
        if row["because"]:
            lines.append(f"     because: {row['because']}")
        for m in row["measurements"]:
            paper = "" if m["paper"] is None else f" | paper {_paper_text(m)}"
            lines.append(
                f"     {'+' if m['met'] else '-'} {m['label']}: {_value_text(m)}"
                f" | criterion {m['criterion']['text']}{paper}"
            )
    return "\n".join(lines)


def render_html(data: Mapping[str, Any]) -> str:
    """The claims as an HTML table; rows of the complete table carry the anchors ``claim-ID``."""
    body = "".join(_row_html(row, data["complete"]) for row in data["rows"])
    return (
        '<div class="repro-claims"><table class="repro-claims-table"><thead><tr>'
        '<th scope="col">What was measured</th><th scope="col">Value</th>'
        '<th scope="col">Criterion</th><th scope="col">Paper</th>'
        f"</tr></thead>{body}</table></div>"
    )


def _row_html(row: Mapping[str, Any], anchored: bool) -> str:
    symbol, css = VERDICTS[row["verdict"]]
    anchor = f' id="claim-{html.escape(row["id"])}"' if anchored else ""
    because = (
        f'<div class="repro-because">{html.escape(row["because"])}</div>' if row["because"] else ""
    )
    head = (
        '<tr class="repro-claim"><th scope="rowgroup" colspan="4">'
        f'<span class="repro-verdict {css}">{symbol} {row["verdict"]}</span> '
        f'<span class="repro-id">{html.escape(row["id"])}</span> {html.escape(row["statement"])} '
        f'<span class="repro-source">{html.escape(row["source"])}</span>{because}</th></tr>'
    )
    rows = "".join(f"<tr>{_measurement_html(m)}</tr>" for m in row["measurements"])
    return f"<tbody{anchor}>{head}{rows}</tbody>"


def _measurement_html(m: Mapping[str, Any]) -> str:
    mark = "" if m["met"] else ' <span class="repro-unmet">(not met)</span>'
    paper = "" if m["paper"] is None else _paper_text(m)
    return (
        f"<td>{html.escape(m['label'])}</td>"
        f'<td class="repro-number">{html.escape(_value_text(m))}{mark}</td>'
        f'<td class="repro-number">{html.escape(m["criterion"]["text"])}</td>'
        f'<td class="repro-number">{html.escape(paper)}</td>'
    )
