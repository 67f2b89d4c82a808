"""What can go wrong on the command line, with the exit status that says which kind it was."""

from __future__ import annotations

__all__ = ["BadInput", "Locked", "PressError"]


class PressError(Exception):
    """A chapter failed, or a check did (exit status 1). The message is one sentence."""

    exit_code = 1


class BadInput(PressError):  # noqa: N818, reads as what it is
    """The request itself is wrong (exit status 2)."""

    exit_code = 2


class Locked(PressError):  # noqa: N818
    """Another command is working on the same chapter (exit status 3)."""

    exit_code = 3
