"""Argument checks shared by the public functions: one clear sentence, raised early."""

from __future__ import annotations

from collections.abc import Iterable

import torch

__all__ = ["choice", "finite", "number", "positive_integer", "within"]


def choice(name: str, value: str, choices: Iterable[str]) -> str:
    """Return ``value`` if it is one of ``choices``, else raise naming both."""
    options = list(choices)
    if value not in options:
        raise ValueError(f"{name} must be one of {', '.join(options)}; got {value!r}")
    return value


def number(name: str, value: torch.Tensor | float) -> torch.Tensor:
    """Return ``value`` as a float64 tensor, its device kept; what is no real number is refused."""
    try:
        if torch.as_tensor(value).is_complex():
            raise TypeError("complex")
        # the dtype comes first: by itself a Python float would become float32 on the way
        return torch.as_tensor(value, dtype=torch.float64)
    except (TypeError, ValueError, RuntimeError, OverflowError) as error:
        raise ValueError(f"{name} must be a real number or a tensor, got {value!r}") from error


def finite(name: str, value: torch.Tensor | float) -> torch.Tensor:
    """Return ``value`` as a float64 tensor (its device kept); NaN and infinities are refused."""
    tensor = number(name, value)
    bad = ~torch.isfinite(tensor)
    if bad.any():
        raise ValueError(f"{name} must be finite, got {tensor[bad].flatten()[0].item()}")
    return tensor


def within(
    name: str,
    value: torch.Tensor | float,
    low: float = float("-inf"),
    high: float = float("inf"),
    *,
    open_low: bool = False,
) -> torch.Tensor:
    """Return ``value`` as a finite float64 tensor inside [low, high], or (low, high] if open."""
    tensor = finite(name, value)
    bad = (tensor < low) | (tensor > high)
    if open_low:
        bad |= tensor == low
    if bad.any():
        got = tensor[bad].flatten()[0].item()
        if high == float("inf"):
            wanted = f"{'greater than' if open_low else 'at least'} {low:g}"
        else:
            wanted = f"in {'(' if open_low else '['}{low:g}, {high:g}]"
        raise ValueError(f"{name} must be {wanted}, got {got:g}")
    return tensor


def positive_integer(name: str, value: int, *, low: int = 1) -> int:
    """Return ``value`` if it is an integer of at least ``low``."""
    if isinstance(value, bool) or not isinstance(value, int) or value < low:
        raise ValueError(f"{name} must be an integer of at least {low}, got {value!r}")
    return value
