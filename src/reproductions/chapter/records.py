"""Recorded runs at a paper's own scale: what ``reproduce scale`` has left under ``results/``."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reproductions.chapter.repository import repository_root

__all__ = ["Recorded", "recorded"]


@dataclass(frozen=True, eq=False)
class Recorded:
    """The runs of one paper, on whatever machines they were made.

    Attributes:
        runs: plain data of every full run; ``machine`` names the model of the GPU or processor.
    """

    runs: tuple[Mapping[str, Any], ...]

    def of(self, *arms: str) -> list[Mapping[str, Any]]:
        """The runs of some arms, by arm and seed; an empty list where there is none.

        Where several machines have run an arm from one seed, the latest run counts, and of runs of
        one day that of the machine whose name comes last.
        """
        found = [run for run in self.runs if run["arm"] in arms]
        found.sort(key=lambda run: (run["date"], run["machine"]))
        latest = {(arms.index(run["arm"]), run["seed"]): run for run in found}
        return [latest[key] for key in sorted(latest)]


def _results() -> Path:
    """The repository's folder, or the copy that an installed package has."""
    root = repository_root()
    if root is not None:
        return root / "results"
    return Path(sys.prefix) / "share" / "reproductions" / "results"


def recorded(paper: str, results: Path | None = None) -> Recorded | None:
    """The records of a paper from all machines; None where there is no run.

    Shortened runs are trials and do not count.

    Args:
        paper: name of the paper's module.
        results: folder of the records; by default that of the repository from the working folder
            upwards, or the one that is installed with the package.

    Raises:
        ValueError: a record that cannot be read.
    """
    folder = _results() if results is None else results
    runs: list[Mapping[str, Any]] = []
    for path in sorted(folder.glob(f"*/{paper}.json")):
        try:
            data = json.loads(path.read_text(encoding="utf-8"))
            if "runs" not in data:
                continue
            machine = {"machine": data["machine"]}
            runs += [
                # what every run must have, by name: what lacks it is damaged
                {**run, **machine, **{key: run[key] for key in ("arm", "seed", "date")}}
                for run in data["runs"]
                if run["shorten"] == 1
            ]
        except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError) as error:
            raise ValueError(
                f"the record {path} cannot be read ({error!r}); make it anew with reproduce scale"
            ) from error
    return Recorded(tuple(runs)) if runs else None
