"""The one output of a cell whose data set cannot be had: a line that says so."""

from __future__ import annotations

import html
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from reproductions.chapter.datasets.registry import Dataset

__all__ = ["SKIPPED_MIME", "show_skipped", "skipped_data", "skipped_html", "skipped_text"]

SKIPPED_MIME = "application/vnd.reproductions.skipped+json"


def skipped_data(dataset: Dataset, claims: Sequence[str]) -> dict[str, Any]:
    """What is missing, for which claims, and how to get it; the same on every machine."""
    consequence = ""
    if claims:
        listed = " and ".join(filter(None, (", ".join(claims[:-1]), claims[-1])))
        consequence = f"; {listed} {'are' if len(claims) > 1 else 'is'} stored, not re-run here"
    remedy = "set REPRODUCTIONS_DATA to a folder that holds it"
    if dataset.download is not None:
        remedy += f" or connect to the network (a download of {dataset.n_bytes / 1e6:.0f} MB)"
    return {
        "schema": 1,
        "dataset": dataset.name,
        "claims": list(claims),
        "message": f"Skipped: {dataset.title} cannot be had here{consequence}. "
        f"To run this cell, {remedy}.",
    }


def skipped_text(data: Mapping[str, Any]) -> str:
    """Plain text of a skipped cell's stored data."""
    return data["message"]


def skipped_html(data: Mapping[str, Any]) -> str:
    """HTML of a skipped cell's stored data."""
    return f'<p class="repro-skipped">{html.escape(data["message"])}</p>'


def show_skipped(data: dict[str, Any]) -> None:
    """Display ``data`` as one rich output in a notebook, as one printed line elsewhere."""
    # Where IPython was never imported there is no notebook to display in.
    ipython = sys.modules.get("IPython")
    if ipython is None or ipython.get_ipython() is None:
        print(skipped_text(data))
        return
    from IPython.display import display

    bundle = {
        SKIPPED_MIME: data,
        "text/html": skipped_html(data),
        "text/plain": skipped_text(data),
    }
    display(bundle, raw=True)
