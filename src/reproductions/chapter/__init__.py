"""What a notebook needs besides mathematics: profile, claims and verdicts, datasets, figures."""

from reproductions.chapter import datasets
from reproductions.chapter.claims import (
    Claims,
    above,
    at_least,
    at_most,
    below,
    between,
    equals,
    holds,
    measured,
    near,
    over_seeds,
    reported,
)
from reproductions.chapter.figures import figure
from reproductions.chapter.profile import PROFILES, Run, begin
from reproductions.chapter.records import Recorded, recorded
from reproductions.chapter.source import show_source

__all__ = [
    "PROFILES",
    "Claims",
    "Recorded",
    "Run",
    "above",
    "at_least",
    "at_most",
    "begin",
    "below",
    "between",
    "datasets",
    "equals",
    "figure",
    "holds",
    "measured",
    "near",
    "over_seeds",
    "recorded",
    "reported",
    "show_source",
]
