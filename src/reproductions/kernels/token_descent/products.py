"""What several forms need: logits from weights, G from the rows' gradients, padded sizes."""

from __future__ import annotations

import math

import torch

from .checks import Problems

__all__ = ["logits_of", "outer", "padded", "row_products", "row_sums"]


def row_products(problems: Problems, keys: torch.Tensor) -> torch.Tensor:
    """x_it . w_i, (B, n, T), for w_i in ``keys`` (B, n, d)."""
    batch, n, T, d = problems.tokens.shape
    return torch.bmm(problems.tokens.view(-1, T, d), keys.reshape(-1, d, 1)).view(batch, n, T)


def logits_of(problems: Problems, keys: torch.Tensor) -> torch.Tensor:
    """x_it . w_i, (B, n, T), -inf where masked, for w_i = W z_i in ``keys``."""
    a = row_products(problems, keys)
    return a if problems.mask is None else a.masked_fill_(~problems.mask, -math.inf)


def row_sums(problems: Problems, r: torch.Tensor) -> torch.Tensor:
    """X_i^T r_i, (B, n, d), for r (B, n, T)."""
    batch, n, T, d = problems.tokens.shape
    return torch.bmm(r.view(-1, 1, T), problems.tokens.view(-1, T, d)).view(batch, n, d)


def outer(problems: Problems, r: torch.Tensor) -> torch.Tensor:
    """sum_i X_i^T r_i z_i^T, (B, d, d), for r (B, n, T)."""
    return torch.bmm(row_sums(problems, r).mT, problems.queries)


def padded(n: int, T: int) -> tuple[int, int]:
    """The powers of two that hold n rows of T tokens."""
    return 1 << (n - 1).bit_length(), 1 << (T - 1).bit_length()
