"""The data sets of the book, found where they are and refused where they are damaged.

``load`` looks in the folder named by the environment variable ``REPRODUCTIONS_DATA``, then in the
user's cache (``REPRODUCTIONS_CACHE`` moves it), then downloads from the official mirrors into that
cache, unless ``REPRODUCTIONS_OFFLINE=1`` forbids it. Every file is held to its registered size and
digest before a byte of it is parsed. ``optional`` does the same for a cell that may be skipped.
"""

from __future__ import annotations

import csv
import difflib
import gzip
import io
import lzma
import os
import tarfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from reproductions._validate import choice, positive_integer
from reproductions.chapter.datasets import _readers, _store
from reproductions.chapter.datasets._skipping import (
    SKIPPED_MIME,
    show_skipped,
    skipped_data,
    skipped_html,
    skipped_text,
)
from reproductions.chapter.datasets._store import (
    DataFolderMissing,
    DatasetCorrupt,
    DatasetError,
    DatasetUnavailable,
    Found,
    UnsafePickle,
)
from reproductions.chapter.datasets.registry import REGISTRY, UCI_TASKS, Dataset

__all__ = [
    "REGISTRY",
    "SKIPPED_MIME",
    "UCI_TASKS",
    "Availability",
    "DataFolderMissing",
    "DatasetCorrupt",
    "DatasetError",
    "DatasetUnavailable",
    "ImageData",
    "Table",
    "UciEntry",
    "UnsafePickle",
    "at_hand",
    "available",
    "load",
    "optional",
    "skipped_html",
    "skipped_text",
    "uci_index",
    "uci_task",
]

T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class ImageData:
    """Images with their official split.

    Images are uint8 in 0..255, (n, 28, 28) for MNIST and Fashion-MNIST and (n, 3, 32, 32) for
    CIFAR-10; labels are int64 (n,) in 0..n_classes-1.
    """

    name: str
    train_images: np.ndarray
    train_labels: np.ndarray
    test_images: np.ndarray
    test_labels: np.ndarray
    n_classes: int


@dataclass(frozen=True, eq=False)
class Table:
    """A classification table.

    ``features`` is float64 (n, p); ``labels`` int64 (n,) in 0..n_classes-1; ``splits`` is int8
    (4, n), one row for each official split with 0 = train, 1 = validation, 2 = test, or None
    where the table has no official split. The four UCI splits are independent, not a
    cross-validation partition.
    """

    name: str
    features: np.ndarray
    labels: np.ndarray
    splits: np.ndarray | None
    n_classes: int


@dataclass(frozen=True)
class UciEntry:
    """One row of the UCI collection's index; ``group`` is small (n < 1000) or large."""

    name: str
    n_rows: int
    n_features: int
    n_classes: int
    group: str
    n_test: int


@dataclass(frozen=True)
class Availability:
    """Where a data set would be read from now.

    ``where`` is ``scikit-learn``, ``REPRODUCTIONS_DATA``, ``cache`` or ``absent``; ``n_bytes`` is
    what the files found there take, or what a download would.
    """

    name: str
    title: str
    where: str
    n_bytes: int
    downloadable: bool
    license: str


Loaded = ImageData | Table | dict[str, Table]


def load(name: str, *, tasks: Sequence[str] | None = None, n_train: int | None = None) -> Loaded:
    """Load a data set by its name in ``REGISTRY``.

    ``mnist``, ``fashion_mnist`` and ``cifar10`` are ``ImageData``; ``digits`` (64 pixels in
    0..16), ``breast_cancer``, ``wine``, ``iris`` and ``htru2`` are a ``Table`` of raw features;
    ``uci`` is a dict of one standardized ``Table`` for each of ``tasks``, all 108 by default.
    ``n_train`` reads no more of CIFAR-10's five training batches than hold so many images.

    Raises:
        ValueError: an unknown name or task, an ``n_train`` below 1 or for other data.
        DatasetUnavailable: the data set is nowhere and cannot be downloaded.
        DatasetCorrupt: a file is truncated or altered, or (``UnsafePickle``) wants to run code.
        DataFolderMissing: ``REPRODUCTIONS_DATA`` names no folder.
    """
    dataset = REGISTRY[choice("name", name, REGISTRY)]
    if tasks is not None and name != "uci":
        raise ValueError(f"tasks belongs to the data set uci, got tasks={tasks!r} for {name!r}")
    if n_train is not None:
        positive_integer("n_train", n_train)
        if name != "cifar10":
            raise ValueError(f"n_train belongs to the data set cifar10, got n_train for {name!r}")
    if name == "uci":
        return _uci_tables(dataset, UCI_TASKS if tasks is None else tasks)
    if not dataset.layouts:
        return _embedded(name)
    found = _store.obtain(dataset)
    if name == "htru2":
        return _table(name, found[0])
    return _cifar(name, found, n_train) if name == "cifar10" else _idx_images(name, found)


def optional(
    name: str,
    *,
    claims: Sequence[str] = (),
    tasks: Sequence[str] | None = None,
    n_train: int | None = None,
) -> Loaded | None:
    """``load`` for a cell that may be skipped: None where the data set cannot be had.

    Then one output says what is missing and how to get it, and names the ``claims`` that are
    stored, not re-run here. A damaged file and a mistyped ``REPRODUCTIONS_DATA`` still raise.
    """
    claims = _ids(claims)
    try:
        return load(name, tasks=tasks, n_train=n_train)
    except DatasetUnavailable:
        show_skipped(skipped_data(REGISTRY[name], claims))
        return None


def at_hand(name: str, *, claims: Sequence[str] = ()) -> bool:
    """Is a data set where ``load`` would find it without the network?

    For the cells after the one that loaded it: nothing is read, and where the data set is missing
    the output is that of ``optional``.
    """
    claims = _ids(claims)
    dataset = REGISTRY[choice("name", name, REGISTRY)]
    if not dataset.layouts or _store.locate(dataset)[0]:
        return True
    show_skipped(skipped_data(dataset, claims))
    return False


def _ids(claims: Sequence[str]) -> tuple[str, ...]:
    if isinstance(claims, str):
        raise ValueError(f"claims must be a tuple of ids, got the string {claims!r}")
    return tuple(claims)


def uci_task(name: str) -> Table:
    """One task of the UCI collection, its features standardized over all rows by its authors.

    Exceptions to the scale: tasks with an official test file are scaled by their training file,
    and ``annealing`` is not scaled at all.
    """
    return _uci_tables(REGISTRY["uci"], (name,))[name]


def uci_index() -> tuple[UciEntry, ...]:
    """The 108 tasks with their sizes, read from the collection's index."""
    (item,) = _store.obtain(REGISTRY["uci"], ("index.csv",))
    content = _store.read(item)
    with _parsing(item):
        return tuple(
            UciEntry(
                row["dataset"],
                int(row["n"]),
                int(row["features"]),
                int(row["classes"]),
                row["group"],
                int(row["n_test_fold0"]),
            )
            for row in csv.DictReader(io.StringIO(content.decode("ascii")))
        )


def available() -> tuple[Availability, ...]:
    """Where each data set is at the moment; nothing is read or downloaded."""
    rows = []
    for dataset in REGISTRY.values():
        where, n_bytes = "scikit-learn", 0
        if dataset.layouts:
            found, _ = _store.locate(dataset)
            where = found[0].place if found else "absent"
            n_bytes = sum(item.file.size for item in found) or dataset.n_bytes
        rows.append(
            Availability(
                dataset.name,
                dataset.title,
                where,
                n_bytes,
                dataset.download is not None,
                dataset.license,
            )
        )
    return tuple(rows)


@contextmanager
def _parsing(item: Found) -> Iterator[None]:
    """Turn what a reader objects to into the error that names the file."""
    try:
        yield
    except _readers.RefusedImport as error:
        raise item.corrupt(str(error), UnsafePickle) from error
    except (
        ValueError,
        EOFError,
        KeyError,
        zlib.error,
        gzip.BadGzipFile,
        lzma.LZMAError,
        tarfile.TarError,
    ) as error:
        raise item.corrupt(str(error)) from error


def _parse(item: Found, reader: Callable[[bytes], T]) -> T:
    content = _store.read(item)
    with _parsing(item):
        return reader(content)


def _embedded(name: str) -> Table:
    from sklearn import datasets as sklearn_datasets

    bunch = getattr(sklearn_datasets, f"load_{name}")()
    labels = bunch.target.astype(np.int64)
    return Table(name, bunch.data.astype(np.float64), labels, None, int(labels.max()) + 1)


def _idx_images(name: str, found: Sequence[Found]) -> ImageData:
    by_name = {item.file.name: item for item in found}

    def part(prefix: str) -> tuple[np.ndarray, np.ndarray]:
        images = by_name[f"{prefix}-images-idx3-ubyte.gz"]
        labels = by_name[f"{prefix}-labels-idx1-ubyte.gz"]
        pixels = _parse(images, lambda content: _readers.idx(content, 3))
        classes = _parse(labels, lambda content: _readers.idx(content, 1)).astype(np.int64)
        if len(classes) != len(pixels):
            raise labels.corrupt(f"has {len(classes)} labels for {len(pixels)} images")
        return pixels, classes

    return ImageData(name, *part("train"), *part("t10k"), n_classes=10)


_CIFAR_BATCHES = (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch")


def _cifar(name: str, found: Sequence[Found], n_train: int | None) -> ImageData:
    n_files = 5 if n_train is None else min(-(-n_train // 10_000), 5)
    files = (*_CIFAR_BATCHES[:n_files], _CIFAR_BATCHES[-1])
    by_name = {item.file.name.removesuffix(".xz"): item for item in found}
    if "cifar-10-python.tar.gz" in by_name:
        archive = by_name["cifar-10-python.tar.gz"]
        members = tuple(f"cifar-10-batches-py/{batch}" for batch in files)
        contents = _parse(archive, lambda content: _readers.tar_members(content, members))
        with _parsing(archive):
            batches = [_readers.cifar_batch(content) for content in contents]
    else:
        # Decompression and hashing let go of the interpreter's lock, so threads help.
        with ThreadPoolExecutor(max_workers=min(4, os.cpu_count() or 1)) as pool:
            batches = list(pool.map(_cifar_file, (by_name[batch] for batch in files)))
    *train, (test_images, test_labels) = batches
    return ImageData(
        name,
        np.concatenate([images for images, _ in train]),
        np.concatenate([labels for _, labels in train]),
        test_images.copy(),  # a batch is a read-only view of the pickle's bytes
        test_labels,
        n_classes=10,
    )


def _cifar_file(item: Found) -> tuple[np.ndarray, np.ndarray]:
    packed = item.file.name.endswith(".xz")
    return _parse(
        item,
        lambda content: _readers.cifar_batch(lzma.decompress(content) if packed else content),
    )


def _table(name: str, item: Found) -> Table:
    features, labels, splits = _parse(item, _readers.table)
    return Table(name, features, labels, splits, int(labels.max()) + 1)


def _uci_tables(dataset: Dataset, tasks: Sequence[str]) -> dict[str, Table]:
    if isinstance(tasks, str):
        raise ValueError(f"tasks must be a tuple of names, got the string {tasks!r}")
    for task in tasks:
        if task not in UCI_TASKS:
            close = difflib.get_close_matches(task, UCI_TASKS, n=3)
            hint = f"did you mean {' or '.join(close)}?" if close else "see UCI_TASKS"
            raise ValueError(f"task {task!r} is not in the UCI collection; {hint}")
    found = _store.obtain(dataset, {f"{task}.csv.gz" for task in tasks})
    by_name = {item.file.name.removesuffix(".csv.gz"): item for item in found}
    return {task: _table(task, by_name[task]) for task in tasks}
