"""Figures: one style, a light and a dark version in one output, alternative text, data as text.

Pixels are no evidence that a figure still shows the same thing, so each figure also stores a
summary of the arrays it draws; the comparison of a re-run looks at that summary.
"""

from __future__ import annotations

import base64
import html
import io
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

__all__ = [
    "FIGURE_MIME",
    "Ink",
    "figure",
    "render_html",
    "render_text",
    "summarize",
]

FIGURE_MIME = "application/vnd.reproductions.figure+json"

# Okabe and Ito's colors, darkened (light page) or lightened (dark page) to at least 3:1 contrast.
_LIGHT = ("#0b62a4", "#c44e00", "#00795c", "#a3478a", "#7a6a00", "#8c564b", "#6b6b6b")
_DARK = ("#6cb8f0", "#ff9d5c", "#3fc9a0", "#e69fd0", "#e3d254", "#d9b09f", "#b5b5b5")


@dataclass(frozen=True)
class Ink:
    """Colors of one theme, handed to every drawing function."""

    theme: str
    cycle: tuple[str, ...]
    text: str
    faint: str
    page: str
    paper: str

    @property
    def sequential(self) -> LinearSegmentedColormap:
        """A map from the page's own color to the first ink: small values recede."""
        return LinearSegmentedColormap.from_list("ink", [self.page, self.cycle[0]])

    @property
    def diverging(self) -> LinearSegmentedColormap:
        """First ink, page color, second ink: for quantities with a meaningful middle."""
        return LinearSegmentedColormap.from_list("two", [self.cycle[0], self.page, self.cycle[1]])

    def reference(self, ax: Any, *, x: float | None = None, y: float | None = None) -> None:
        """Draw the paper's value as a thin dotted line."""
        if x is not None:
            ax.axvline(x, color=self.paper, lw=1.0, ls=(0, (1, 2)), zorder=1)
        if y is not None:
            ax.axhline(y, color=self.paper, lw=1.0, ls=(0, (1, 2)), zorder=1)

    def dots(self, ax: Any, labels: Sequence[str], series: Mapping[str, Any]) -> None:
        """Draw one row of dots for each label, one color for each series (labels,)."""
        for k, (name, values) in enumerate(series.items()):
            ax.plot(values, range(len(labels)), "o", ms=5, color=self.cycle[k], label=name)
        ax.set_yticks(range(len(labels)), labels)
        ax.grid(axis="y", lw=0.6)
        ax.set_axisbelow(True)
        ax.invert_yaxis()

    def frame(
        self, ax: Any, x: tuple[float, float], y: tuple[float, float], **style: Any
    ) -> Rectangle:
        """Draw the box x × y, dashed and empty unless ``style`` says otherwise."""
        style = {"fill": False, "ls": "--", "ec": self.text, "lw": 1.0} | style
        return ax.add_patch(Rectangle((x[0], y[0]), x[1] - x[0], y[1] - y[0], **style))


INKS = (
    Ink("light", _LIGHT, text="#24292f", faint="#d0d4d9", page="#ffffff", paper="#24292f"),
    Ink("dark", _DARK, text="#dfe3e8", faint="#4a5058", page="#14181e", paper="#dfe3e8"),
)

#: A figure as wide as the page's text, in inches.
PAGE_WIDTH = 7.4


def _style(ink: Ink) -> dict[str, Any]:
    return {
        "font.family": "DejaVu Sans",
        "font.size": 9.5,
        "axes.titlesize": 10,
        "axes.titlelocation": "left",
        "axes.labelsize": 9.5,
        "axes.edgecolor": ink.text,
        "axes.labelcolor": ink.text,
        "axes.titlecolor": ink.text,
        "axes.facecolor": "none",
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.linewidth": 0.8,
        "axes.prop_cycle": mpl.cycler(color=ink.cycle),
        "figure.facecolor": "none",
        "figure.dpi": 150,
        "figure.constrained_layout.use": True,
        "grid.color": ink.faint,
        "legend.frameon": False,
        "legend.fontsize": 8.5,
        "legend.labelcolor": ink.text,
        "lines.linewidth": 1.6,
        "patch.linewidth": 0.8,
        "savefig.facecolor": "none",
        "text.color": ink.text,
        "xtick.color": ink.text,
        "ytick.color": ink.text,
        "xtick.labelsize": 8.5,
        "ytick.labelsize": 8.5,
    }


def _png(draw: Callable[[Figure, Ink], None], ink: Ink, size: tuple[float, float]) -> str:
    """Draw once for ``ink`` and return the PNG as base64; equal data give equal bytes."""
    with mpl.rc_context(_style(ink)):
        fig = Figure(figsize=size)
        draw(fig, ink)
        buffer = io.BytesIO()
        fig.savefig(buffer, format="png", dpi=150, metadata={"Software": None})
    return base64.b64encode(buffer.getvalue()).decode("ascii")


def summarize(data: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Shape, extremes, mean and three quantiles of every array a figure draws, NaN left out."""
    return {name: _summary(np.asarray(values, dtype=float)) for name, values in data.items()}


def _summary(values: np.ndarray) -> dict[str, Any]:
    kept = values[np.isfinite(values)]
    if not kept.size:
        return {"shape": list(values.shape), "finite": 0}
    found = [kept.min(), kept.max(), kept.mean(), *np.quantile(kept, [0.1, 0.5, 0.9])]
    # Six significant digits are enough for any drift; what is rounding of a sum is zero.
    noise = 1e-12 * np.abs(kept).max()
    low, high, mean, *quantiles = (0.0 if abs(f) < noise else float(f"{f:.6g}") for f in found)
    return {
        "shape": list(values.shape),
        "finite": int(kept.size),
        "min": low,
        "max": high,
        "mean": mean,
        "quantiles": quantiles,
    }


def render_text(data: Mapping[str, Any]) -> str:
    """The figure as text: its description and three digits of each array's summary."""
    lines = [f"[figure] {data['alt']}"]
    # By name: a stored notebook keeps no other order of keys.
    for name, s in sorted(data["summary"].items()):
        shape = "×".join(map(str, s["shape"])) or "1"
        if not s["finite"]:
            lines.append(f"  {name} ({shape}): no finite value")
            continue
        low, middle, high = s["quantiles"]
        lines.append(
            f"  {name} ({shape}): {s['min']:.3g} to {s['max']:.3g}, mean {s['mean']:.3g}, "
            f"quantiles {low:.3g} | {middle:.3g} | {high:.3g}"
        )
    return "\n".join(lines)


def render_html(data: Mapping[str, Any], light: str, dark: str) -> str:
    """The figure as HTML from its data and the two pictures (base64 of a PNG each)."""
    alt = html.escape(data["alt"], quote=True)
    images = "".join(
        f'<img class="only-{theme}" alt="{alt}" src="data:image/png;base64,{payload}">'
        for theme, payload in (("light", light), ("dark", dark))
    )
    picture = (
        f'<figure class="repro-figure">{images}'
        f"<figcaption>{html.escape(data['caption'])}</figcaption></figure>"
    )
    if not data.get("widget"):
        return picture
    config = html.escape(json.dumps(data["config"], sort_keys=True), quote=True)
    widget = html.escape(data["widget"], quote=True)
    return (
        f'<div class="repro-interactive" data-widget="{widget}" data-config="{config}">'
        f"{picture}</div>"
    )


def figure(
    caption: str,
    *,
    alt: str,
    data: Mapping[str, Any],
    size: tuple[float, float] = (PAGE_WIDTH, 3.6),
    drift: float = 0.0,
    drift_rel: float = 1e-3,
    widget: str = "",
    config: Mapping[str, Any] | None = None,
) -> Callable[[Callable[[Figure, Ink], None]], None]:
    """Decorate a function ``draw(fig, ink)``: it is drawn in both themes and displayed at once.

    Args:
        caption: a sentence with a verb, under the figure.
        alt: what the figure shows, for those who cannot see it; mandatory.
        data: the arrays that are drawn, by name; their summary is stored and compared.
        size: (width, height) in inches; the page is ``PAGE_WIDTH`` wide.
        drift: how far, absolutely, a number of the summary may move in a re-run.
        drift_rel: the same relative to the largest magnitude in that array; the two add up.
        widget: name of the script in the built page that brings the figure to life.
        config: the script's first state, and lists of numbers that it draws; these may move by the
            drift too, while single numbers, integers and texts are settings and stay.

    Raises:
        ValueError: no caption, no alternative text or no data.
    """
    for name, value in (("caption", caption.strip()), ("alt", alt.strip()), ("data", data)):
        if not value:
            raise ValueError(f"{name} must not be empty: every figure says what it shows")
    if not (math.isfinite(drift) and math.isfinite(drift_rel) and drift >= 0 and drift_rel >= 0):
        raise ValueError(f"drift must be finite and at least 0, got {drift} and {drift_rel}")

    def show(draw: Callable[[Figure, Ink], None]) -> None:
        from IPython.display import display

        stored = {
            "schema": 1,
            "alt": alt,
            "caption": caption,
            "summary": summarize(data),
            "drift": {"abs": drift, "rel": drift_rel},
        }
        if widget:
            stored |= {"widget": widget, "config": dict(config or {})}
        light, dark = (_png(draw, ink, size) for ink in INKS)
        bundle = {
            FIGURE_MIME: stored,
            "text/html": render_html(stored, light, dark),
            "text/plain": render_text(stored),
        }
        display(bundle, raw=True)

    return show
