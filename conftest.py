"""Notebooks are compared with the tolerances that their claims and figures state."""

from reproductions.press.nbval_plugin import pytest_configure

__all__ = ["pytest_configure"]
