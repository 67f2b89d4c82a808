"""Does a re-execution still say what the stored notebook says?

Three kinds of output carry data: claims, figures, and the notice that a data set is missing. Their
texts and tolerances must be equal, their numbers may move by the drift that each row or figure
states for itself, and the HTML and text beside the data must be what the data render to, so that
nobody can edit what the reader sees. All other outputs must be equal, except for the bytes of
pictures and for memory addresses.
"""

from __future__ import annotations

import base64
import binascii
import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from nbformat import NotebookNode

from reproductions.press.execute import first_line
from reproductions.press.notebook import clean_outputs, code_cells

__all__ = [
    "CLAIMS",
    "FIGURE",
    "SKIPPED",
    "CellResult",
    "Comparison",
    "claims_outputs",
    "compare_cell",
    "compare_notebooks",
    "figure_pictures",
    "kind_of",
    "rendering_faults",
]

# The MIME types of reproductions.chapter, which imports torch and is therefore imported late.
CLAIMS = "application/vnd.reproductions.claims+json"
FIGURE = "application/vnd.reproductions.figure+json"
SKIPPED = "application/vnd.reproductions.skipped+json"

NOT_RERUN = "stored, not re-run here"

_PNG = re.compile(r"(?<=data:image/png;base64,)[^\"']*")
_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_IMAGES = ("image/png", "image/jpeg")


@dataclass
class Comparison:
    """Outcome of one cell: ``passed``, ``failed`` or ``skipped``, and why."""

    failures: list[str] = field(default_factory=list)
    skips: list[str] = field(default_factory=list)

    @property
    def status(self) -> str:
        """A failure outweighs a skip; a skipped cell is never a passed one."""
        return "failed" if self.failures else "skipped" if self.skips else "passed"

    @property
    def messages(self) -> list[str]:
        """Failures first."""
        return [*self.failures, *self.skips]


@dataclass(frozen=True)
class CellResult:
    """``Comparison`` of code cell ``number``, counted from 1."""

    number: int
    line: str
    status: str
    messages: list[str]


def kind_of(output: NotebookNode) -> str:
    """``claims``, ``figure``, ``skipped``, the name of a stream, or the type of the output."""
    data = output.get("data", {})
    for mime, kind in ((CLAIMS, "claims"), (FIGURE, "figure"), (SKIPPED, "skipped")):
        if mime in data:
            return kind
    return output.name if output.output_type == "stream" else output.output_type


def claims_outputs(notebook: NotebookNode) -> list[tuple[int, dict[str, Any]]]:
    """(code cell number, data) of every claims output."""
    return [
        (number, output.data[CLAIMS])
        for number, cell in enumerate(code_cells(notebook), start=1)
        for output in cell.outputs
        if kind_of(output) == "claims"
    ]


def compare_notebooks(stored: NotebookNode, fresh: NotebookNode) -> list[CellResult]:
    """Compare all code cells of two executions of the same source."""
    old, new = code_cells(stored), code_cells(fresh)
    announced: set[str] = set()
    results = []
    for number, (a, b) in enumerate(zip(old, new, strict=False), start=1):
        if a.source != b.source:
            comparison = Comparison(["the two notebooks have different code here; build it again"])
        else:
            comparison = compare_cell(a.outputs, b.outputs, announced)
        line = first_line(a.source)
        results.append(CellResult(number, line, comparison.status, comparison.messages))
    if len(old) != len(new):
        text = f"{len(old)} code cells are stored, {len(new)} were executed"
        results.append(CellResult(min(len(old), len(new)) + 1, "", "failed", [text]))
    return results


def compare_cell(
    stored: list[NotebookNode], fresh: list[NotebookNode], announced: set[str]
) -> Comparison:
    """Compare the outputs of one cell.

    Args:
        stored: outputs in the book.
        fresh: outputs of the re-execution.
        announced: ids of the claims that an earlier cell of the re-execution said it cannot settle
            for want of a data set; the ids this cell announces are added.
    """
    stored, fresh = clean_outputs(stored), clean_outputs(fresh)
    result = Comparison()
    if any(kind_of(output) == "skipped" for output in stored):
        result.failures.append(
            "the stored cell was itself skipped for want of a data set; build with the data"
        )
        return result
    notices = [output.data[SKIPPED] for output in fresh if kind_of(output) == "skipped"]
    for notice in notices:
        announced.update(notice.get("claims", []))
        result.skips.append(notice["message"])
    if notices:
        return result
    old_kinds, new_kinds = [kind_of(o) for o in stored], [kind_of(o) for o in fresh]
    if old_kinds != new_kinds:
        result.failures.append(f"shows {_listed(new_kinds)}, stored is {_listed(old_kinds)}")
        return result
    for a, b in zip(stored, fresh, strict=True):
        kind = kind_of(a)
        result.failures.extend(f"stored output: {fault}" for fault in rendering_faults(a))
        result.failures.extend(rendering_faults(b))
        if a.get("metadata") != b.get("metadata"):
            result.failures.append("the metadata of an output differ from the stored ones")
        if kind == "claims":
            _compare_claims(a.data[CLAIMS], b.data[CLAIMS], announced, result)
        elif kind == "figure":
            result.failures.extend(_figure_differences(a.data[FIGURE], b.data[FIGURE]))
        else:
            result.failures.extend(_plain_differences(a, b))
    return result


def _listed(kinds: list[str]) -> str:
    return ", ".join(kinds) or "no output"


def _compare_claims(
    stored: Mapping[str, Any], fresh: Mapping[str, Any], announced: set[str], result: Comparison
) -> None:
    for key in ("schema", "chapter", "complete"):
        if stored[key] != fresh[key]:
            result.failures.append(f"claims: {key} is {fresh[key]!r}, stored {stored[key]!r}")
    old, new = ([row["id"] for row in data["rows"]] for data in (stored, fresh))
    if old != new:
        result.failures.append(f"claims: rows {', '.join(new)}; stored are {', '.join(old)}")
        return
    excused = []
    for a, b in zip(stored["rows"], fresh["rows"], strict=True):
        if b["verdict"] == NOT_RERUN and a["verdict"] != NOT_RERUN:
            if b["id"] in announced:
                excused.append(b["id"])
                continue
            result.failures.append(
                f"claim {b['id']} was not re-run, and no cell above says that its data is missing"
            )
            continue
        result.failures.extend(f"claim {a['id']}: {d}" for d in _row_differences(a, b))
    if excused:
        result.skips.append(
            f"{len(excused)} of {len(old)} claims not re-run for want of data: {', '.join(excused)}"
        )


def _row_differences(stored: Mapping[str, Any], fresh: Mapping[str, Any]) -> Iterator[str]:
    yield from _unequal(stored, fresh, leave_out={"measurements"})
    old, new = stored["measurements"], fresh["measurements"]
    if len(old) != len(new):
        yield f"{len(new)} measurements, stored {len(old)}"
        return
    for a, b in zip(old, new, strict=True):
        name = a["label"]
        for difference in _unequal(a, b, leave_out={"value", "spread"}):
            yield f"{name}: {difference}"
        yield from _moved(name, a["value"], b["value"], a["drift"])
        if (a["spread"] is None) != (b["spread"] is None):
            yield f"{name}: spread is {b['spread']}, stored {a['spread']}"
        for end, x, y in zip(("low", "high"), a["spread"] or (), b["spread"] or (), strict=False):
            yield from _moved(f"{name}, {end} end of the spread", x, y, _drift_of_ends(a))


def _drift_of_ends(stored: Mapping[str, Any]) -> Mapping[str, float]:
    """Extremes of a few seeds move more than their middle: half the stored width comes on top."""
    low, high = stored["spread"]
    half = (high - low) / 2 if _is_number(low) and _is_number(high) else 0.0
    return {**stored["drift"], "abs": stored["drift"]["abs"] + half}


def _unequal(
    stored: Mapping[str, Any], fresh: Mapping[str, Any], leave_out: set[str]
) -> Iterator[str]:
    for key in sorted((set(stored) | set(fresh)) - leave_out):
        if stored.get(key) != fresh.get(key):
            yield f"{key} is {_short(fresh.get(key))}, stored {_short(stored.get(key))}"


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return repr(text if len(text) <= 100 else text[:97] + "...")


def _moved(
    name: str, stored: Any, fresh: Any, drift: Mapping[str, float], scale: float | None = None
) -> Iterator[str]:
    """A difference if ``fresh`` is further from ``stored`` than the drift allows."""
    if type(stored) is not type(fresh) and not (_is_number(stored) and _is_number(fresh)):
        yield f"{name} is {fresh!r}, stored {stored!r}"
    elif not _is_number(stored):
        if stored != fresh:
            yield f"{name} is {fresh!r}, stored {stored!r}"
    else:
        allowed = drift["abs"] + drift["rel"] * (abs(stored) if scale is None else scale)
        if not abs(fresh - stored) <= allowed:
            yield f"{name} is {fresh!r}, stored {stored!r}: it may move by {allowed:.3g}"


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _figure_differences(stored: Mapping[str, Any], fresh: Mapping[str, Any]) -> Iterator[str]:
    for difference in _unequal(stored, fresh, leave_out={"summary", "config"}):
        yield f"figure: {difference}"
    yield from _config_differences(stored, fresh)
    old, new = stored["summary"], fresh["summary"]
    if set(old) != set(new):
        yield f"figure: draws {_listed(sorted(new))}; stored are {_listed(sorted(old))}"
        return
    # notebook files have their keys sorted, so the order of the names is not kept
    for name, a in sorted(old.items()):
        yield from _summary_differences(f"figure, {name}", a, new[name], stored["drift"])


def _config_differences(stored: Mapping[str, Any], fresh: Mapping[str, Any]) -> Iterator[str]:
    """What a script draws may move by the figure's drift, what it is set to may not."""
    moved = list(_nested("config", stored.get("config"), fresh.get("config"), stored["drift"]))
    if moved:
        more = f" (and {len(moved) - 1} more)" if len(moved) > 1 else ""
        yield f"figure: {moved[0]}{more}"


def _nested(name: str, stored: Any, fresh: Any, drift: Mapping[str, float]) -> Iterator[str]:
    """Differences of two JSON values; a float may move only as one of a list of numbers."""
    if isinstance(stored, Mapping) and isinstance(fresh, Mapping):
        for key in sorted(set(stored) | set(fresh)):
            if key in stored and key in fresh:
                yield from _nested(f"{name}.{key}", stored[key], fresh[key], drift)
            else:
                yield f"{name}.{key} is {'missing' if key in stored else 'new'}"
    elif isinstance(stored, list) and isinstance(fresh, list):
        if len(stored) != len(fresh):
            yield f"{name} has {len(fresh)} entries, stored {len(stored)}"
            return
        measured = bool(stored) and all(map(_is_number, stored))
        scale = max(map(abs, stored)) if measured else 0.0
        for k, (a, b) in enumerate(zip(stored, fresh, strict=True)):
            entry = f"{name}[{k}]"
            if measured and isinstance(a, float) and isinstance(b, float):
                yield from _moved(entry, a, b, drift, scale)
            else:
                yield from _nested(entry, a, b, drift)
    elif stored != fresh or isinstance(stored, bool) != isinstance(fresh, bool):
        yield f"{name} is {_short(fresh)}, stored {_short(stored)}"


def _summary_differences(
    name: str, stored: Mapping[str, Any], fresh: Mapping[str, Any], drift: Mapping[str, float]
) -> Iterator[str]:
    numbers = {"min", "max", "mean", "quantiles"}
    for difference in _unequal(stored, fresh, leave_out=numbers):
        yield f"{name}: {difference}"
    if set(stored) != set(fresh):
        return
    scale = max((abs(x) for x in _numbers(stored)), default=0.0)
    # summaries are rounded to six digits, and a rounding may fall the other way
    rounding = 10.0 ** (math.floor(math.log10(scale)) - 5) if scale > 0 else 0.0
    allowed = {"abs": drift["abs"] + rounding, "rel": drift["rel"]}
    labels = ["min", "max", "mean", "10 % quantile", "median", "90 % quantile"]
    for label, x, y in zip(labels, _numbers(stored), _numbers(fresh), strict=False):
        yield from _moved(f"{name}: {label}", x, y, allowed, scale)


def _numbers(summary: Mapping[str, Any]) -> list[float]:
    if "min" not in summary:
        return []
    return [summary["min"], summary["max"], summary["mean"], *summary["quantiles"]]


def _plain_differences(stored: NotebookNode, fresh: NotebookNode) -> Iterator[str]:
    if stored.output_type != "stream":
        old, new = (
            {m: v for m, v in output.get("data", {}).items() if m not in _IMAGES}
            for output in (stored, fresh)
        )
        if set(old) != set(new):
            yield f"output has {_listed(sorted(new))}; stored are {_listed(sorted(old))}"
            return
        for mime in old:
            if old[mime] != new[mime]:
                yield f"{mime}: {_first_difference(_text(old[mime]), _text(new[mime]))}"
    elif stored.text != fresh.text:
        yield f"{stored.name}: {_first_difference(stored.text, fresh.text)}"


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True)


def _first_difference(stored: str, fresh: str) -> str:
    old, new = stored.splitlines(), fresh.splitlines()
    for number, (a, b) in enumerate(zip(old, new, strict=False), start=1):
        if a != b:
            return f"line {number} is {_short(b)}, stored {_short(a)}"
    return f"{len(new)} lines, stored {len(old)}"


def rendering_faults(output: NotebookNode) -> list[str]:
    """Where the HTML or the text beside an output's data is not what the data render to."""
    kind = kind_of(output)
    if kind not in ("claims", "figure", "skipped"):
        return []
    data = output.data
    html, text = data.get("text/html", ""), data.get("text/plain", "")
    faults = []
    # a browser would show some other types in place of the HTML, and nothing compares them
    own = {CLAIMS, FIGURE, SKIPPED, "text/html", "text/plain"}
    if len(own & set(data)) != 3 or set(data) - own:
        faults.append(f"{kind}: has {_listed(sorted(data))}; it needs its data, HTML and text only")
    if kind == "figure":
        pictures = figure_pictures(output)
        if len(pictures) != 2 or not all(map(_is_png, pictures)):
            faults.append("figure: it needs two pictures, light and dark, that are PNG files")
        html = _PNG.sub("", html)
    expected_html, expected_text = _render(kind, data)
    for seen, expected, what in ((html, expected_html, "HTML"), (text, expected_text, "text")):
        if seen != expected:
            faults.append(
                f"{kind}: the {what} is not what its data render to "
                f"({_where_different(expected, seen)})"
            )
    return faults


def figure_pictures(output: NotebookNode) -> list[str]:
    """The pictures of a figure output, base64: light, then dark."""
    return _PNG.findall(output.data.get("text/html", ""))


def _render(kind: str, data: Mapping[str, Any]) -> tuple[str, str]:
    if kind == "claims":
        from reproductions.chapter import claims

        return claims.render_html(data[CLAIMS]), claims.render_text(data[CLAIMS])
    if kind == "figure":
        from reproductions.chapter import figures

        return figures.render_html(data[FIGURE], "", ""), figures.render_text(data[FIGURE])
    from reproductions.chapter import datasets

    return datasets.skipped_html(data[SKIPPED]), datasets.skipped_text(data[SKIPPED])


def _where_different(expected: str, seen: str) -> str:
    """The words around the first difference."""
    k = next(
        (i for i, (a, b) in enumerate(zip(expected, seen, strict=False)) if a != b),
        min(len(expected), len(seen)),
    )
    begin = max(0, k - 15)
    return f"{seen[begin : k + 15]!r} for {expected[begin : k + 15]!r}"


def _is_png(payload: str) -> bool:
    try:
        raw = base64.b64decode(payload, validate=True)
    except (binascii.Error, ValueError):
        return False
    return raw.startswith(_PNG_SIGNATURE) and raw.rstrip().endswith(b"IEND\xaeB`\x82")
