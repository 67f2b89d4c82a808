"""The scoreboard as an SVG: one row a chapter, one tile a claim, readable on light and dark pages.

The text has the gray that both of GitHub's themes show well; tiles carry a symbol besides color.
"""

from __future__ import annotations

import html
from collections import Counter

__all__ = ["draw"]

#: verdict -> (fill, ink); the symbol is drawn as a path, since fonts differ from viewer to viewer.
_COLORS = {
    "reproduced": ("#1a7f5a", "#ffffff"),
    "qualified": ("#b7791f", "#ffffff"),
    "not reproduced": ("#b4283c", "#ffffff"),
    "not run here": ("#6e7781", "#ffffff"),
    "stored, not re-run here": ("#4d6fa8", "#ffffff"),
}
_GRAY = "#7d8590"
_FONT = "system-ui, -apple-system, 'Segoe UI', Helvetica, Arial, sans-serif"
_TILE, _GAP, _PER_ROW = 30, 5, 22
_LEFT = 4
_WIDTH = _LEFT * 2 + _PER_ROW * (_TILE + _GAP) - _GAP


def draw(chapters: list[tuple[str, list[tuple[str, str]]]]) -> str:
    """Draw (title, [(claim id, verdict), ...]) of each chapter; the same data, the same bytes."""
    counts = Counter(verdict for _, rows in chapters for _, verdict in rows)
    body, y = [], 30
    summary = ", ".join(f"{counts[v]} {v}" for v in _COLORS if counts[v]) or "no claims yet"
    body.append(_text(_LEFT, 20, f"{counts.total()} claims", 17, weight=650))
    y = _legend(body, counts, y)
    for title, rows in chapters:
        y += 30
        body.append(_text(_LEFT, y, title, 14, weight=600))
        y += 10
        if not rows:
            y += 18
            body.append(_text(_LEFT, y, "not built yet", 13))
            continue
        for k, (claim, verdict) in enumerate(rows):
            line, column = divmod(k, _PER_ROW)
            x = _LEFT + column * (_TILE + _GAP)
            body.append(_tile(x, y + line * (_TILE + _GAP), claim, verdict))
        y += (1 + (len(rows) - 1) // _PER_ROW) * (_TILE + _GAP) - _GAP
    height = y + 8
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" '
        f'width="{_WIDTH}" height="{height}" role="img" font-family="{_FONT}">\n'
        f"<title>Scoreboard: {html.escape(summary)}</title>\n" + "\n".join(body) + "\n</svg>\n"
    )


def _legend(body: list[str], counts: Counter[str], y: int) -> int:
    x = _LEFT
    for verdict in _COLORS:
        if not counts[verdict]:
            continue
        label = f"{counts[verdict]} {verdict}"
        width = 24 + round(7.2 * len(label)) + 16
        if x > _LEFT and x + width > _WIDTH:
            x, y = _LEFT, y + 26
        body.append(_symbol(x, y, 18, verdict))
        body.append(_text(x + 24, y + 14, label, 13))
        x += width
    return y + 18


def _tile(x: float, y: float, claim: str, verdict: str) -> str:
    fill, ink = _COLORS[verdict]
    label = html.escape(claim)
    return (
        f"<g><title>{label}: {verdict}</title>"
        f'<rect x="{x}" y="{y}" width="{_TILE}" height="{_TILE}" rx="5" fill="{fill}"/>'
        + _mark(x + 9, y + 3, 12, verdict, ink)
        + f'<text x="{x + _TILE / 2:g}" y="{y + 26}" font-size="9" text-anchor="middle" '
        f'fill="{ink}">{label}</text></g>'
    )


def _symbol(x: float, y: float, size: int, verdict: str) -> str:
    fill, ink = _COLORS[verdict]
    return f'<rect x="{x}" y="{y}" width="{size}" height="{size}" rx="4" fill="{fill}"/>' + _mark(
        x + 3, y + 3, size - 6, verdict, ink
    )


def _mark(x: float, y: float, size: int, verdict: str, ink: str) -> str:
    """Tick, half disk, cross, dash or ring in the square of ``size`` at (x, y)."""
    shape = {
        "reproduced": '<path d="M1 6.5 4.5 10 11 2.5" fill="none"/>',
        "qualified": '<circle cx="6" cy="6" r="4.6" fill="none"/>'
        f'<path d="M6 1.4a4.6 4.6 0 0 0 0 9.2z" fill="{ink}" stroke="none"/>',
        "not reproduced": '<path d="M2 2 10 10M10 2 2 10" fill="none"/>',
        "not run here": '<path d="M2 6H10" fill="none"/>',
        "stored, not re-run here": '<circle cx="6" cy="6" r="4.6" fill="none"/>',
    }[verdict]
    return (
        f'<g transform="translate({x:g} {y:g}) scale({size / 12:g})" stroke="{ink}" '
        f'stroke-width="1.8" stroke-linecap="round" stroke-linejoin="round">{shape}</g>'
    )


def _text(x: float, y: float, text: str, size: int, weight: int = 400) -> str:
    return (
        f'<text x="{x}" y="{y}" font-size="{size}" font-weight="{weight}" fill="{_GRAY}">'
        f"{html.escape(text)}</text>"
    )
