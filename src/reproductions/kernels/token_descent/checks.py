"""What the arguments must be: one sentence each where they are not."""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch

from reproductions._validate import choice, finite, positive_integer, within

__all__ = ["Problems", "Schedule", "problems", "schedule"]


@dataclass(frozen=True)
class Problems:
    """Checked problems, float64, with one batch axis B that stands for ``lead``."""

    tokens: torch.Tensor
    """(B, n, T, d)"""
    labels: torch.Tensor
    """(B, n)"""
    queries: torch.Tensor
    """(B, n, d)"""
    head: torch.Tensor | Callable
    """(B, d), or a function of o (*lead, n, d)"""
    start: tuple[torch.Tensor, ...]
    """W (B, d, d), or K and Q (B, d, m)"""
    mask: torch.Tensor | None
    """(B, n, T)"""
    lead: tuple[int, ...]

    def part(self, rows: slice) -> Problems:
        """Some of the problems; all together where the head is a function of all of them."""
        names = ("tokens", "labels", "queries", "head", "mask")
        values = {name: getattr(self, name) for name in names}
        values = {
            name: value[rows] if isinstance(value, torch.Tensor) else value
            for name, value in values.items()
        }
        return replace(self, **values, start=tuple(t[rows] for t in self.start))


@dataclass(frozen=True)
class Schedule:
    """When to look, how far to go, and by which gradient."""

    rates: list[float]
    record: list[int]
    exact: bool
    penalty: float
    normalized: bool


def problems(tokens, labels, queries, head, start, mask, name="start") -> Problems:
    """Check the data; return it in float64, the axes in front spread out and joined.

    ``name`` is what the caller calls ``start``.
    """
    tokens = _tensor("tokens", tokens, "(..., n, T, d)", 3)
    *_, n, T, d = tokens.shape
    labels = _tensor("labels", labels, f"(..., {n})", 1)
    queries = _tensor("queries", queries, f"(..., {n}, {d})", 2)
    _shape("labels", labels, (n,))
    _shape("queries", queries, (n, d))
    shared = {"tokens": 3, "labels": 1, "queries": 2}
    named = {"tokens": tokens, "labels": labels, "queries": queries}
    if not callable(head):
        named["head"], shared["head"] = _tensor("head", head, f"(..., {d})", 1), 1
        _shape("head", named["head"], (d,))
    weights = {name: start}
    if isinstance(start, tuple | list):
        if len(start) != 2:
            raise ValueError(f"{name} must be W or a pair (K, Q), got {len(start)} tensors")
        weights = {f"{name}[{k}]": factor for k, factor in enumerate(start)}
    columns = d
    for each, value in weights.items():
        size = "m" if len(weights) == 2 else d
        named[each], shared[each] = _tensor(each, value, f"(..., {d}, {size})", 2), 2
        if each == f"{name}[0]":
            columns = named[each].shape[-1]
        _shape(each, named[each], (d, columns))
    if mask is not None:
        if not isinstance(mask, torch.Tensor) or mask.dtype != torch.bool:
            raise ValueError(
                f"mask must be a bool tensor, got {getattr(mask, 'dtype', type(mask).__name__)}"
            )
        named["mask"], shared["mask"] = mask, 2
        _shape("mask", mask, (n, T))
    for each, tensor in named.items():
        if tensor.device != tokens.device:
            raise ValueError(
                f"{each} must be on the device of tokens, {tokens.device}; got {tensor.device}"
            )
    leads = {each: tensor.shape[: tensor.dim() - shared[each]] for each, tensor in named.items()}
    try:
        lead = torch.broadcast_shapes(*leads.values())
    except RuntimeError as error:
        text = ", ".join(f"{each} {tuple(shape)}" for each, shape in leads.items())
        raise ValueError(f"batch axes must broadcast against each other, got {text}") from error
    bad = (labels != 1) & (labels != -1)
    if bad.any():
        raise ValueError(f"labels must be +1 or -1, got {labels[bad][0].item():g}")
    empty = queries.norm(dim=-1) == 0
    if empty.any():
        where = tuple(empty.nonzero()[0].tolist())
        raise ValueError(f"queries must not be zero vectors, got one at index {where}")
    if mask is not None and not mask.any(-1).all():
        where = tuple((~mask.any(-1)).nonzero()[0].tolist())
        raise ValueError(f"mask must leave every row a token, got none at index {where}")
    joined = {}
    for each, tensor in named.items():
        own = tensor.shape[tensor.dim() - shared[each] :]
        joined[each] = tensor.expand(*lead, *own).reshape(lead.numel(), *own).contiguous()
    return Problems(
        joined["tokens"],
        joined["labels"],
        joined["queries"],
        joined.get("head", head),
        tuple(joined[each] for each in weights),
        joined.get("mask"),
        tuple(lead),
    )


def schedule(learning_rate, n_steps, record, gradient, penalty, normalized, pair) -> Schedule:
    """Check the options; ``pair`` tells whether the start is a pair (K, Q)."""
    positive_integer("n_steps", n_steps, low=0)
    choice("gradient", gradient, ("exact", "plain"))
    rates = within("learning_rate", learning_rate, 0.0, open_low=True)
    if rates.dim() and rates.shape != (n_steps,):
        raise ValueError(
            f"learning_rate must be one number or n_steps={n_steps} of them, "
            f"got shape {tuple(rates.shape)}"
        )
    weight = within("penalty", penalty, 0.0)
    if weight.dim():
        raise ValueError(f"penalty must be one number, got shape {tuple(weight.shape)}")
    if weight > 0 and not pair:
        raise ValueError(f"penalty must be 0 unless start is a pair (K, Q), got {weight.item():g}")
    steps, last = [], -1
    for step in [n_steps] if record is None else record:
        try:
            number = -1 if isinstance(step, bool) else operator.index(step)
        except TypeError:
            number = -1
        if not last < number <= n_steps:
            raise ValueError(
                f"record must be ascending step numbers from 0 to n_steps={n_steps}, got {step!r}"
                + (f" after {last}" if steps else "")
            )
        steps.append(number)
        last = number
    if not steps:
        raise ValueError("record must name at least one step, got none")
    return Schedule(
        rates.expand(n_steps).tolist(),
        steps,
        gradient == "exact",
        weight.item(),
        bool(normalized),
    )


def _tensor(name, value, shape, axes):
    """A finite float64 tensor with at least so many axes, none of the last empty."""
    value = finite(name, value).detach()
    if value.dim() < axes or 0 in value.shape[value.dim() - axes :]:
        raise ValueError(f"{name} must have shape {shape}, got {tuple(value.shape)}")
    return value


def _shape(name, value, shape):
    """The last axes have these sizes."""
    if value.shape[-len(shape) :] != shape:
        text = ", ".join(str(size) for size in shape)
        raise ValueError(f"{name} must have shape (..., {text}), got {tuple(value.shape)}")
