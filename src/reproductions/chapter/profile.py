"""How large a chapter runs: a profile of sizes, a seed, a device."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np
import torch

from reproductions._validate import choice

__all__ = ["PROFILES", "Run", "begin", "resolve_device"]

PROFILES = ("smoke", "cpu", "paper")

S = TypeVar("S")


def resolve_device(device: str) -> torch.device:
    """Turn ``auto``, ``cpu``, ``cuda`` or ``cuda:N`` into a device that exists.

    ``auto`` is the first GPU where torch sees one and the CPU elsewhere.
    Raises ValueError for a device that is unknown or not there.
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    kind, _, index = str(device).partition(":")
    if kind not in ("cpu", "cuda") or (index and not index.isdigit()):
        raise ValueError(f"device must be auto, cpu, cuda or cuda:N; got {device!r}")
    if kind == "cuda" and int(index or 0) >= torch.cuda.device_count():
        raise ValueError(
            f"device {device!r} was asked for, but torch sees {torch.cuda.device_count()} CUDA "
            "GPUs here; use device='cpu' or 'auto'"
        )
    return torch.device(device)


@dataclass(frozen=True)
class Run(Generic[S]):
    """One execution of a chapter: its profile, the sizes that belong to it, seed and device."""

    profile: str
    sizes: S
    seed: int
    device: torch.device

    def derived_seed(self, name: str) -> int:
        """Seed of the experiment ``name``, 0 to 2**31 - 1: a digest of (seed, name).

        Experiments do not share a stream of random numbers, so adding one leaves the others alone.
        """
        digest = hashlib.sha256(f"{self.seed}:{name}".encode()).digest()
        return int.from_bytes(digest[:4], "big") >> 1

    def generator(self, name: str, device: torch.device | str = "cpu") -> torch.Generator:
        """A torch generator for the experiment ``name``, on the CPU unless told otherwise."""
        return torch.Generator(device).manual_seed(self.derived_seed(name))

    def numpy_generator(self, name: str) -> np.random.Generator:
        """The same for numpy."""
        return np.random.default_rng(self.derived_seed(name))


def begin(
    sizes: Mapping[str, S], *, profile: str = "cpu", seed: int = 0, device: str = "auto"
) -> Run[S]:
    """Start a chapter: pick the profile's sizes, check seed and device.

    Args:
        sizes: one frozen dataclass of sizes for each name in ``PROFILES``.
        profile: ``smoke`` (seconds), ``cpu`` (minutes, the stored one) or ``paper``.
        seed: a non-negative integer; every experiment derives its own seed from it.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.

    Raises:
        ValueError: an unknown profile, a seed that is no such integer, a device that is not there.
    """
    choice("profile", profile, sizes)
    if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
        raise ValueError(f"seed must be an integer of at least 0, got {seed!r}")
    return Run(profile, sizes[profile], seed, resolve_device(device))
