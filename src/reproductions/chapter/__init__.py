"""What a notebook needs besides mathematics: profile, claims and verdicts, datasets, figures."""

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
    reported,
)
from reproductions.chapter.figures import figure
from reproductions.chapter.profile import PROFILES, Run, begin

__all__ = [
    "PROFILES",
    "Claims",
    "Run",
    "above",
    "at_least",
    "at_most",
    "begin",
    "below",
    "between",
    "equals",
    "figure",
    "holds",
    "measured",
    "near",
    "reported",
]
