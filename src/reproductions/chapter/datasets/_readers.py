"""Bytes of a verified file in, numpy arrays out. Malformed content is a ValueError."""

from __future__ import annotations

import gzip
import io
import pickle
import tarfile
from typing import Any

import numpy as np

__all__ = ["RefusedImport", "cifar_batch", "idx", "table", "tar_members"]


class RefusedImport(ValueError):  # noqa: N818  (its text is the error's: "asks to import ...")
    """A pickle names something that no image batch needs."""


def idx(content: bytes, n_dimensions: int) -> np.ndarray:
    """Array of a gzipped IDX file of unsigned bytes.

    Four bytes of magic (0, 0, type 8, number of dimensions), the dimensions as big-endian int32,
    then the values in row-major order.
    """
    raw = gzip.decompress(content)
    if raw[:4] != bytes((0, 0, 8, n_dimensions)):
        raise ValueError(
            f"is no IDX file of bytes with {n_dimensions} dimensions: it starts with {raw[:4]!r}"
        )
    start = 4 + 4 * n_dimensions
    shape = tuple(int(n) for n in np.frombuffer(raw[4:start], ">i4"))
    values = np.frombuffer(raw, np.uint8, offset=start)
    if values.size != np.prod(shape, dtype=np.int64):
        raise ValueError(f"announces the shape {shape} but holds {values.size} values")
    return values.reshape(shape).copy()


class _ByteType:
    """Stands for numpy.dtype in a pickle; only unsigned bytes are let through."""

    def __init__(self, spec: str, align: object, copy: object) -> None:
        if spec != "u1":
            raise ValueError(f"holds an array of type {spec!r}, expected 'u1'")

    def __setstate__(self, state: object) -> None:
        pass


class _ByteArray:
    """Stands for numpy.ndarray in a pickle, so that numpy never sees a state it did not write."""

    array: np.ndarray

    def __init__(self, *blank: object) -> None:
        """Made blank, as numpy's own unpickling does; the state fills it."""

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, dtype, fortran_order, raw = state
        if not isinstance(dtype, _ByteType) or fortran_order:
            raise ValueError("holds an array that is not of bytes in row-major order")
        # Python 2 wrote the buffer as a str, which arrives decoded as latin-1.
        buffer = raw.encode("latin-1") if isinstance(raw, str) else raw
        self.array = np.frombuffer(buffer, np.uint8).reshape(shape)


# Classes only: on a function, a pickle could set attributes.
_ALLOWED = {
    ("numpy", "dtype"): _ByteType,
    ("numpy", "ndarray"): _ByteArray,
    ("numpy.core.multiarray", "_reconstruct"): _ByteArray,
    ("numpy._core.multiarray", "_reconstruct"): _ByteArray,
}


class _BatchUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ALLOWED:
            raise RefusedImport(f"asks to import {module}.{name}; refused")
        return _ALLOWED[module, name]


def cifar_batch(content: bytes) -> tuple[np.ndarray, np.ndarray]:
    """Images (n, 3, 32, 32) uint8 and labels (n,) int64 of one pickled CIFAR-10 batch."""
    try:
        batch = _BatchUnpickler(io.BytesIO(content), encoding="latin-1").load()
        pixels, labels = batch["data"].array, np.array(batch["labels"], np.int64)
    except RefusedImport:
        raise
    except (
        pickle.UnpicklingError,
        AttributeError,
        EOFError,
        KeyError,
        IndexError,
        OverflowError,
        TypeError,
        ValueError,
    ) as error:
        raise ValueError(f"is no CIFAR-10 batch: {error}") from error
    if pixels.ndim != 2 or pixels.shape[1] != 3072 or labels.shape != pixels.shape[:1]:
        raise ValueError(
            f"is no CIFAR-10 batch: pixels of shape {pixels.shape}, labels {labels.shape}"
        )
    return pixels.reshape(-1, 3, 32, 32), labels


def tar_members(content: bytes, names: tuple[str, ...]) -> list[bytes]:
    """The named members of a .tar.gz, in the order of ``names``; nothing is unpacked to disk."""
    found: dict[str, bytes] = {}
    with tarfile.open(fileobj=io.BytesIO(content), mode="r|gz") as archive:
        for member in archive:
            stream = archive.extractfile(member) if member.name in names else None
            if stream is not None:
                found[member.name] = stream.read()
    missing = [name for name in names if name not in found]
    if missing:
        raise ValueError(f"lacks {', '.join(missing)}")
    return [found[name] for name in names]


def table(content: bytes) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """Features (n, p) float64, labels (n,) int64 and splits (4, n) int8 of a gzipped CSV.

    The columns are the features, ``label`` and, in the UCI tasks, ``split0`` to ``split3``;
    without those the splits are None.
    """
    text = gzip.decompress(content).decode("ascii")
    columns = text[: text.index("\n")].split(",")
    n_features = columns.index("label")
    tail = columns[n_features + 1 :]
    if tail not in ([], ["split0", "split1", "split2", "split3"]):
        raise ValueError(f"has the columns {', '.join(tail)} after label, expected four splits")
    rows = text[text.index("\n") + 1 :]
    if not rows:
        raise ValueError("has no rows")
    values = np.loadtxt(io.StringIO(rows), delimiter=",", ndmin=2)
    if values.shape[1] != len(columns):
        raise ValueError(f"names {len(columns)} columns but has {values.shape[1]}")
    labels, splits = values[:, n_features], values[:, n_features + 1 :]
    if not (
        np.isfinite(values).all()
        and np.array_equal(labels, np.abs(np.rint(labels)))
        and np.isin(splits, (0, 1, 2)).all()
    ):
        raise ValueError("holds a value that is not finite, no label or no split")
    return (
        values[:, :n_features].copy(),
        labels.astype(np.int64),
        splits.T.astype(np.int8, order="C") if tail else None,
    )
