"""Recorded runs at a paper's own scale: what ``reproduce scale`` has left under ``results/``."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["Recorded", "recorded"]


@dataclass(frozen=True, eq=False)
class Recorded:
    """The runs of one paper on one class of machines.

    Attributes:
        machine: model of the GPU or processor.
        runs: plain data of every full run, in the order in which they were made.
    """

    machine: str
    runs: tuple[Mapping[str, Any], ...]

    def of(self, arm: str) -> list[Mapping[str, Any]]:
        """The runs of one arm, one a seed; an empty list where there is none."""
        return [run for run in self.runs if run["arm"] == arm]

    @property
    def dates(self) -> str:
        """Day of the runs, or first and last day."""
        days = sorted({run["date"] for run in self.runs})
        return days[0] if len(days) == 1 else f"{days[0]} to {days[-1]}"


def _results() -> Path:
    """The repository's folder, or the copy that an installed package has."""
    here = Path.cwd()
    for folder in (here, *here.parents):
        if (folder / "_config.yml").is_file():
            return folder / "results"
    return Path(sys.prefix) / "share" / "reproductions" / "results"


def recorded(paper: str, results: Path | None = None) -> Recorded | None:
    """The record of a paper that has the most runs; None where there is none.

    Shortened runs are trials and do not count.

    Args:
        paper: name of the paper's module.
        results: folder of the records; by default that of the repository from the working folder
            upwards, or the one that is installed with the package.

    Raises:
        ValueError: a record that cannot be read.
    """
    folder = _results() if results is None else results
    found = []
    for path in sorted(folder.glob(f"*/{paper}.json")):
        try:
            data = json.loads(path.read_text(encoding="utf-8"))
            if "runs" not in data:
                continue
            runs = tuple(run for run in data["runs"] if run["shorten"] == 1)
            found.append(Recorded(data["machine"], runs))
        except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError) as error:
            raise ValueError(
                f"the record {path} cannot be read ({error!r}); make it anew with reproduce scale"
            ) from error
    found = [record for record in found if record.runs]
    return max(found, key=lambda record: len(record.runs)) if found else None
