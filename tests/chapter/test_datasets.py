"""Data sets: lookup, verification, parsing and visible skipping, each failure injected for real."""

import gzip
import hashlib
import io
import json
import lzma
import os
import pickle
import shutil
import struct
import subprocess
import sys
import tarfile
import warnings
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pooch
import pytest
import torch

from reproductions.chapter import datasets
from reproductions.chapter.datasets import REGISTRY, _store
from reproductions.chapter.datasets.registry import DataFile, Layout

ROOT = Path(__file__).resolve().parents[2]
SHARED = Path(os.environ.get("REPRODUCTIONS_DATA") or ROOT.parent / "shared" / "data")
if not SHARED.is_absolute():
    SHARED = ROOT / SHARED
needs_data = pytest.mark.skipif(
    not all((SHARED / name).is_dir() for name in ("mnist", "cifar-10", "uci")),
    reason="no folder with mnist, cifar-10 and uci; REPRODUCTIONS_DATA names none",
)


@pytest.fixture(autouse=True)
def sandbox(tmp_path, monkeypatch):
    """No data folder, an empty cache, no network."""
    monkeypatch.delenv("REPRODUCTIONS_DATA", raising=False)
    monkeypatch.setenv("REPRODUCTIONS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("REPRODUCTIONS_OFFLINE", "1")


@pytest.fixture
def data(tmp_path, monkeypatch):
    """An empty folder that REPRODUCTIONS_DATA names."""
    folder = tmp_path / "data"
    folder.mkdir()
    monkeypatch.setenv("REPRODUCTIONS_DATA", str(folder))
    return folder


def as_file(name, content, **changes):
    return replace(
        DataFile(name, len(content), hashlib.sha256(content).hexdigest()),
        **changes,
    )


def register(monkeypatch, name, *layouts):
    """Replace a data set's files by small ones; layouts are (folders, {file name: content})."""
    monkeypatch.setitem(
        REGISTRY,
        name,
        replace(
            REGISTRY[name],
            layouts=tuple(
                Layout(folders, tuple(as_file(file, content) for file, content in files.items()))
                for folders, files in layouts
            ),
        ),
    )


def write(folder, files):
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)


def packed_idx(array):
    header = bytes((0, 0, 8, array.ndim)) + struct.pack(f">{array.ndim}i", *array.shape)
    return gzip.compress(header + array.astype(np.uint8).tobytes(), mtime=0)


def image_files(n_train=5, n_test=2, seed=0):
    generator = np.random.default_rng(seed)
    files = {}
    for prefix, n in (("train", n_train), ("t10k", n_test)):
        files[f"{prefix}-images-idx3-ubyte.gz"] = packed_idx(
            generator.integers(0, 256, (n, 28, 28))
        )
        files[f"{prefix}-labels-idx1-ubyte.gz"] = packed_idx(np.arange(n))
    return files


@pytest.fixture
def mnist(monkeypatch):
    """A small data set registered as mnist; its files by name."""
    files = image_files()
    register(monkeypatch, "mnist", (REGISTRY["mnist"].layouts[0].folders, files))
    return files


def text(value):
    return b"T" + struct.pack("<i", len(value)) + value


def python2_batch(pixels, labels):
    """A CIFAR-10 batch as Python 2 pickled it: protocol 2, byte strings, old numpy names."""
    rows, columns = pixels.shape
    array = (
        b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85"
        + text(b"b")
        + b"\x87R(K\x01"
        + b"J"
        + struct.pack("<i", rows)
        + b"J"
        + struct.pack("<i", columns)
        + b"\x86cnumpy\ndtype\n"
        + text(b"u1")
        + b"K\x00K\x01\x87R(K\x03"
        + text(b"|")
        + b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89"
        + text(pixels.tobytes())
        + b"tb"
    )
    listed = b"(" + b"".join(b"K" + bytes((int(label),)) for label in labels) + b"l"
    return b"\x80\x02}(" + text(b"data") + array + text(b"labels") + listed + b"u."


BATCHES = (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch")


def cifar_contents(rows=3):
    generator = np.random.default_rng(1)
    return {
        name: python2_batch(
            generator.integers(0, 256, (rows, 3072), dtype=np.uint8), [(i + 7) % 10] * rows
        )
        for i, name in enumerate(BATCHES)
    }


def in_archive(contents):
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as archive:
        for name, content in contents.items():
            member = tarfile.TarInfo(f"cifar-10-batches-py/{name}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return stream.getvalue()


def same(left, right):
    return all(
        np.array_equal(getattr(left, field.name), getattr(right, field.name))
        for field in fields(left)
    )


# Where files are looked for.


@pytest.mark.parametrize("sub", ["mnist", "MNIST/raw", "."])
def test_every_folder_layout_is_found(data, mnist, sub):
    write(data / sub, mnist)
    images = datasets.load("mnist")
    assert images.train_images.shape == (5, 28, 28)
    assert images.train_labels.tolist() == [0, 1, 2, 3, 4]
    assert images.test_images.shape == (2, 28, 28)


def test_the_named_folder_comes_before_the_cache(data, mnist, tmp_path):
    write(tmp_path / "cache" / "mnist", dict.fromkeys(mnist, b"damaged"))
    write(data / "mnist", mnist)
    assert where("mnist") == "REPRODUCTIONS_DATA"
    datasets.load("mnist")  # would be refused if the cache were read


def where(name):
    return {row.name: row.where for row in datasets.available()}[name]


def test_the_cache_serves_what_the_named_folder_lacks(data, mnist, tmp_path):
    assert where("mnist") == "absent"
    write(tmp_path / "cache" / "mnist", mnist)
    assert where("mnist") == "cache"
    assert datasets.load("mnist").n_classes == 10


def test_a_damaged_file_in_the_named_folder_is_not_replaced_from_the_cache(data, mnist, tmp_path):
    write(tmp_path / "cache" / "mnist", mnist)
    write(data / "mnist", {**mnist, "t10k-labels-idx1-ubyte.gz": b"?"})
    with pytest.raises(datasets.DatasetCorrupt, match="t10k-labels"):
        datasets.load("mnist")


def test_a_relative_folder_is_resolved_from_the_notebook_and_from_the_root(
    tmp_path, mnist, monkeypatch
):
    chapters = tmp_path / "house" / "book" / "chapters"
    chapters.mkdir(parents=True)
    (chapters.parent / "_config.yml").touch()
    write(tmp_path / "house" / "shared" / "data" / "mnist", mnist)
    monkeypatch.setenv("REPRODUCTIONS_DATA", "../shared/data")
    for folder in (chapters, chapters.parent):
        monkeypatch.chdir(folder)
        assert datasets.load("mnist").name == "mnist"
    (chapters.parent / "shared" / "data").mkdir(parents=True)
    monkeypatch.chdir(chapters)
    with pytest.raises(datasets.DatasetUnavailable):  # the working directory's own comes first
        datasets.load("mnist")


def test_a_mistyped_folder_is_an_error_and_not_a_skip(tmp_path, mnist, monkeypatch):
    write(tmp_path / "cache" / "mnist", mnist)
    (tmp_path / "_config.yml").touch()
    (tmp_path / "chapters").mkdir()
    monkeypatch.chdir(tmp_path / "chapters")
    monkeypatch.setenv("REPRODUCTIONS_DATA", "dtaa")
    for call in (datasets.load, datasets.optional):
        with pytest.raises(datasets.DataFolderMissing) as caught:
            call("mnist")
        assert caught.value.tried == (
            str(tmp_path / "chapters" / "dtaa"),
            str(tmp_path / "dtaa"),
        )
        assert "'dtaa'" in str(caught.value)
    monkeypatch.setenv("REPRODUCTIONS_DATA", str(tmp_path / "_config.yml"))
    with pytest.raises(datasets.DataFolderMissing):
        datasets.load("mnist")


def test_an_absent_data_set_is_one_error_with_places_and_remedies(data, tmp_path):
    with pytest.raises(datasets.DatasetUnavailable) as caught:
        datasets.load("mnist")
    error = caught.value
    assert error.dataset == "mnist"
    assert [str(data) in error.looked_in[0], str(tmp_path / "cache") in error.looked_in[1]] == [
        True,
        True,
    ]
    assert len(error.remedies) == 3
    for word in ("REPRODUCTIONS_DATA", str(tmp_path / "cache" / "mnist"), "connect to the network"):
        assert word in str(error)
    assert "REPRODUCTIONS_OFFLINE is set" in str(error)


def test_the_cache_is_the_users_unless_moved(monkeypatch):
    monkeypatch.delenv("REPRODUCTIONS_CACHE")
    with pytest.raises(datasets.DatasetUnavailable) as caught:
        datasets.load("uci", tasks=("zoo",))
    assert caught.value.looked_in[1].startswith(f"cache {pooch.os_cache('reproductions')}")


def test_a_collection_nobody_publishes_gets_no_remedy_that_does_not_exist():
    with pytest.raises(datasets.DatasetUnavailable) as caught:
        datasets.load("uci", tasks=("wine", "seeds"))
    assert "REPRODUCTIONS_DATA (not set)" in str(caught.value)
    assert len(caught.value.remedies) == 2
    assert "network" not in str(caught.value)
    assert "uci/seeds.csv.gz, uci/wine.csv.gz" in str(caught.value)


def test_a_half_filled_folder_says_what_is_lacking(data, mnist):
    write(data / "mnist", {n: c for n, c in mnist.items() if n != "train-labels-idx1-ubyte.gz"})
    with pytest.raises(
        datasets.DatasetUnavailable, match=r"3 of 4 files: train-labels-idx1-ubyte\.gz lacking"
    ):
        datasets.load("mnist")


def test_flat_files_of_fashion_mnist_are_not_taken_for_a_damaged_mnist(data, mnist, monkeypatch):
    fashion = image_files(n_train=9, n_test=4, seed=3)
    register(monkeypatch, "fashion_mnist", (("fashion-mnist", "."), fashion))
    write(data, fashion)
    assert len(datasets.load("fashion_mnist").train_images) == 9
    with pytest.raises(datasets.DatasetUnavailable):
        datasets.load("mnist")
    write(data, {name: content[:-1] for name, content in mnist.items()})
    with pytest.raises(datasets.DatasetCorrupt):  # the control: a real truncation is not excused
        datasets.load("mnist")


# Damaged files.

DAMAGE = {
    "truncated": (lambda content: content[:-10], "is truncated: {short} bytes, expected {size}"),
    "empty": (lambda content: b"", "is truncated: 0 bytes, expected {size}"),
    "flipped": (
        lambda content: content[:40] + bytes((content[40] ^ 1,)) + content[41:],
        "is altered: SHA-256 {actual}, expected {sha256}",
    ),
    "longer": (lambda content: content + b"\0", "is too long: {long} bytes, expected {size}"),
}


@pytest.mark.parametrize("place", ["data", "cache"])
@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_file_is_refused_named_and_left_alone(
    data, mnist, tmp_path, monkeypatch, damage, place
):
    name = "train-images-idx3-ubyte.gz"
    spoil, message = DAMAGE[damage]
    write(tmp_path / place / "mnist", mnist)
    datasets.load("mnist")
    path = tmp_path / place / "mnist" / name
    path.write_bytes(spoil(mnist[name]))
    expected = message.format(
        size=len(mnist[name]),
        short=len(mnist[name]) - 10,
        long=len(mnist[name]) + 1,
        sha256=hashlib.sha256(mnist[name]).hexdigest(),
        actual=hashlib.sha256(path.read_bytes()).hexdigest(),
    )
    monkeypatch.delenv("REPRODUCTIONS_OFFLINE")
    for call in (datasets.load, datasets.optional):  # a damaged file is never a skip
        with pytest.raises(datasets.DatasetCorrupt) as caught:
            call("mnist")
        assert str(caught.value).startswith(f"mnist: file {path} {expected}")
    assert path.read_bytes() == spoil(mnist[name])


def test_without_a_sha256_the_published_md5_decides(data, mnist, monkeypatch):
    layout = REGISTRY["mnist"].layouts[0]
    by_md5 = tuple(
        replace(file, sha256=None, md5=hashlib.md5(mnist[file.name]).hexdigest())
        for file in layout.files
    )
    monkeypatch.setitem(
        REGISTRY, "mnist", replace(REGISTRY["mnist"], layouts=(replace(layout, files=by_md5),))
    )
    write(data / "mnist", mnist)
    datasets.load("mnist")
    spoiled = DAMAGE["flipped"][0](mnist["t10k-images-idx3-ubyte.gz"])
    (data / "mnist" / "t10k-images-idx3-ubyte.gz").write_bytes(spoiled)
    with pytest.raises(datasets.DatasetCorrupt, match="altered: MD5"):
        datasets.load("mnist")


def test_a_file_is_hashed_once_and_again_after_it_changed(data, mnist, monkeypatch):
    write(data / "mnist", mnist)
    hashed = []
    new = hashlib.new
    monkeypatch.setattr(_store.hashlib, "new", lambda *a, **k: hashed.append(a) or new(*a, **k))
    datasets.load("mnist")
    datasets.load("mnist")
    assert len(hashed) == 4
    path = data / "mnist" / "train-labels-idx1-ubyte.gz"
    os.utime(path, ns=(0, 0))
    datasets.load("mnist")
    assert len(hashed) == 5


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda raw: gzip.compress(b"\x89PNG" + gzip.decompress(raw)[4:]), "is no IDX file"),
        (lambda raw: gzip.compress(gzip.decompress(raw)[:-1]), "announces the shape"),
        (lambda raw: gzip.compress(gzip.decompress(raw))[:-9], "end-of-stream"),
        (lambda raw: b"<html>", "[Gg]zip"),
        (lambda raw: packed_idx(np.zeros((4, 28, 28))), "5 labels for 4 images"),
    ],
)
def test_verified_bytes_in_a_wrong_format_name_the_file(data, mnist, monkeypatch, spoil, message):
    name = "train-images-idx3-ubyte.gz"
    files = {**mnist, name: spoil(mnist[name])}
    register(monkeypatch, "mnist", (("mnist",), files))
    write(data / "mnist", files)
    with pytest.raises(datasets.DatasetCorrupt, match=message):
        datasets.load("mnist")


# CIFAR-10.


def test_the_three_layouts_of_cifar10_give_the_same_images(data, monkeypatch):
    contents = cifar_contents()
    xz = {f"{name}.xz": lzma.compress(content) for name, content in contents.items()}
    archive = {"cifar-10-python.tar.gz": in_archive(contents)}
    xz_folders, plain_folders, tar_folders = (
        layout.folders for layout in REGISTRY["cifar10"].layouts
    )
    register(
        monkeypatch,
        "cifar10",
        (xz_folders, xz),
        (plain_folders, contents),
        (tar_folders, archive),
    )
    loaded = []
    for sub, files in (
        ("cifar-10", xz),
        ("cifar-10-batches-py", contents),
        (".", archive),
    ):
        write(data / sub, files)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            loaded.append(datasets.load("cifar10"))
        shutil.rmtree(data)
        data.mkdir()
    assert same(loaded[0], loaded[1])
    assert same(loaded[1], loaded[2])
    # Control: numpy's own unpickling, one channel after the other, rows of 32.
    third = pickle.loads(contents["data_batch_3"], encoding="latin-1")
    image, pixels = loaded[0].train_images[2 * 3 + 1], third["data"][1]
    assert image[1, 4, 20] == pixels[1024 + 4 * 32 + 20]
    assert np.array_equal(image.ravel(), pixels)
    assert loaded[0].train_labels.tolist() == [label for label in (7, 8, 9, 0, 1) for _ in range(3)]
    assert loaded[0].test_labels.tolist() == [2, 2, 2]


def with_batch(monkeypatch, data, content):
    files = {**cifar_contents(), "data_batch_2": content}
    register(monkeypatch, "cifar10", (("cifar-10-batches-py",), files))
    write(data / "cifar-10-batches-py", files)


def test_a_batch_that_wants_to_run_a_command_is_refused(data, monkeypatch, tmp_path):
    marker = tmp_path / "marker"
    payload = f"cos\nsystem\n(S'touch {marker}'\ntR.".encode()
    pickle.loads(payload)
    assert marker.exists()  # the control: the payload is live
    marker.unlink()
    with_batch(monkeypatch, data, payload)
    with pytest.raises(
        datasets.UnsafePickle, match=r"data_batch_2 asks to import os\.system; refused"
    ):
        datasets.load("cifar10")
    assert not marker.exists()


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("builtins", "eval"),
        ("numpy", "load"),
        ("numpy", "ndarray.tofile"),
        ("numpy.core.multiarray", "scalar"),
        ("copyreg", "_reconstructor"),
        ("_codecs", "encode"),
    ],
)
def test_only_what_an_image_batch_needs_may_be_imported(data, monkeypatch, module, name):
    payload = b"\x80\x04\x8c" + bytes((len(module),)) + module.encode()
    payload += b"\x8c" + bytes((len(name),)) + name.encode() + b"\x93."
    with_batch(monkeypatch, data, payload)
    with pytest.raises(datasets.UnsafePickle, match=f"{module}.{name}; refused"):
        datasets.load("cifar10")


def test_a_malicious_batch_inside_the_archive_is_refused(data, monkeypatch):
    contents = {**cifar_contents(), "test_batch": b"cposix\nsystem\n(S'true'\ntR."}
    archive = {"cifar-10-python.tar.gz": in_archive(contents)}
    register(monkeypatch, "cifar10", ((".",), archive))
    write(data, archive)
    with pytest.raises(datasets.UnsafePickle, match=r"python\.tar\.gz asks to import posix\.sys"):
        datasets.load("cifar10")


GOOD = python2_batch(np.zeros((2, 3072), np.uint8), [1, 2])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (GOOD.replace(text(b"u1"), text(b"O8")), "array of type 'O8'"),
        (GOOD.replace(text(b"labels"), text(b"lables")), "is no CIFAR-10 batch: 'labels'"),
        (GOOD[:-2], "is no CIFAR-10 batch"),
        (b"cnumpy\ndtype\n}S'x'\nI1\nsb.", "is no CIFAR-10 batch"),  # a state set on a class
        (python2_batch(np.zeros((2, 3072), np.uint8), [1]), "labels"),
        (python2_batch(np.zeros((2, 3073), np.uint8), [1, 2]), "3073"),
        (b"", "is no CIFAR-10 batch"),
    ],
)
def test_a_malformed_batch_names_the_file(data, monkeypatch, content, message):
    with_batch(monkeypatch, data, content)
    with pytest.raises(datasets.DatasetCorrupt, match=message) as caught:
        datasets.load("cifar10")
    assert caught.value.path.endswith("data_batch_2")


@pytest.mark.parametrize(
    "spoil", [lambda c: c[: len(c) // 2], lambda c: c[:100] + b"\0" * 50 + c[150:]]
)
def test_a_malformed_archive_names_the_file(data, monkeypatch, spoil):
    archive = {"cifar-10-python.tar.gz": spoil(in_archive(cifar_contents()))}
    register(monkeypatch, "cifar10", ((".",), archive))
    write(data, archive)
    with pytest.raises(datasets.DatasetCorrupt, match=r"cifar-10-python\.tar\.gz"):
        datasets.load("cifar10")


def test_an_archive_without_a_batch_says_which(data, monkeypatch):
    contents = cifar_contents()
    del contents["data_batch_4"]
    archive = {"cifar-10-python.tar.gz": in_archive(contents)}
    register(monkeypatch, "cifar10", ((".",), archive))
    write(data, archive)
    with pytest.raises(datasets.DatasetCorrupt, match="lacks cifar-10-batches-py/data_batch_4"):
        datasets.load("cifar10")


# Tables.


def uci_with(monkeypatch, data, content):
    files = {"wine.csv.gz": gzip.compress(content.encode())}
    register(monkeypatch, "uci", (("uci", "."), files))
    write(data / "uci", files)


HEADER = "x0,x1,label,split0,split1,split2,split3\n"


def test_a_task_has_its_features_labels_and_splits(data, monkeypatch):
    uci_with(monkeypatch, data, HEADER + "0.5,-1e-3,1,0,1,2,0\n2,3,0,2,0,0,1\n")
    table = datasets.uci_task("wine")
    assert table.features.tolist() == [[0.5, -1e-3], [2.0, 3.0]]
    assert table.labels.tolist() == [1, 0]
    assert table.splits.tolist() == [[0, 2], [1, 0], [2, 0], [0, 1]]
    assert (table.features.dtype, table.labels.dtype, table.splits.dtype) == (
        np.float64,
        np.int64,
        np.int8,
    )
    assert table.n_classes == 2


@pytest.mark.parametrize(
    "content",
    [
        HEADER + "0.5,nan,1,0,1,2,0\n",
        HEADER + "0.5,1,-1,0,1,2,0\n",
        HEADER + "0.5,1,1,0,1,3,0\n",
        HEADER + "0.5,1,1,0,1,2\n",
        HEADER + "0.5,one,1,0,1,2,0\n",
        HEADER.replace(",split3", "") + "0.5,1,1,0,1,2\n",
        "x0,x1\n1,2\n",
        HEADER + "0.5,1,0.7,0,1,2,0\n",
        HEADER,
        "",
    ],
)
def test_a_malformed_table_names_the_file(data, monkeypatch, content):
    uci_with(monkeypatch, data, content)
    with pytest.raises(datasets.DatasetCorrupt, match=r"wine\.csv\.gz"):
        datasets.uci_task("wine")


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: datasets.load("minst"), "name must be one of .*mnist.*'minst'"),
        (lambda: datasets.uci_task("wien"), "task 'wien' .* did you mean wine"),
        (lambda: datasets.load("uci", tasks="wine"), "tasks must be a tuple"),
        (lambda: datasets.load("mnist", tasks=("wine",)), "tasks belongs to the data set uci"),
        (lambda: datasets.optional("mnist", claims="C13"), "claims must be a tuple"),
    ],
)
def test_wrong_arguments_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize(
    ("name", "shape", "counts"),
    [
        ("digits", (1797, 64), [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]),
        ("breast_cancer", (569, 30), [212, 357]),
        ("wine", (178, 13), [59, 71, 48]),
        ("iris", (150, 4), [50, 50, 50]),
    ],
)
def test_embedded_tables_need_no_folder(name, shape, counts, monkeypatch):
    monkeypatch.setenv("REPRODUCTIONS_DATA", "no such folder")
    table = datasets.load(name)
    assert table.features.shape == shape
    assert np.bincount(table.labels).tolist() == counts
    assert table.n_classes == len(counts)
    assert table.splits is None


def test_torch_takes_the_arrays_without_a_warning(data, mnist, monkeypatch):
    # torch warns about a read-only array, and a warning in a cell fails the notebook.
    write(data / "mnist", mnist)
    with_batch(monkeypatch, data, cifar_contents()["data_batch_1"])
    uci_with(monkeypatch, data, HEADER + "0.5,1,1,0,1,2,0\n")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for loaded in (
            datasets.load("mnist"),
            datasets.load("cifar10"),
            datasets.uci_task("wine"),
            datasets.load("iris"),
        ):
            arrays = [v for v in vars(loaded).values() if isinstance(v, np.ndarray)]
            assert len(arrays) >= 2
            for array in arrays:
                torch.from_numpy(array)


# No more than is asked for.


@pytest.fixture
def reads(monkeypatch):
    """Names of the files that are read, in order."""
    names, read = [], _store.read
    monkeypatch.setattr(_store, "read", lambda item: names.append(item.file.name) or read(item))
    return names


@pytest.mark.parametrize("n_train", [1, 10_000, 10_001, 50_000, None])
def test_of_cifar10_no_more_batches_are_read_than_hold_the_images(
    data, reads, monkeypatch, n_train
):
    contents = cifar_contents()
    folders = ("cifar-10-batches-py",)
    register(monkeypatch, "cifar10", (folders, contents))
    write(data / folders[0], contents)
    whole = datasets.load("cifar10")
    reads.clear()
    images = datasets.optional("cifar10", n_train=n_train)
    n_files = {1: 1, 10_000: 1, 10_001: 2}.get(n_train, 5)
    wanted = [*(f"data_batch_{k + 1}" for k in range(n_files)), "test_batch"]
    assert sorted(reads) == sorted(wanted)
    rows = len(whole.train_labels) // 5 * n_files
    assert (images.train_images == whole.train_images[:rows]).all()
    assert (images.test_labels == whole.test_labels).all()
    # an archive is one file; of its members too no more are taken
    archive = {"cifar-10-python.tar.gz": in_archive(contents)}
    register(monkeypatch, "cifar10", ((".",), archive))
    write(data, archive)
    assert len(datasets.load("cifar10", n_train=n_train).train_labels) == rows


def test_a_number_of_images_is_for_cifar10_alone(data, mnist):
    write(data / "mnist", mnist)
    with pytest.raises(ValueError, match="n_train belongs to the data set cifar10"):
        datasets.load("mnist", n_train=5)


@pytest.mark.parametrize("n_train", [0, -1, 2.5])
def test_a_number_of_images_that_makes_no_sense_is_refused(data, monkeypatch, n_train):
    with_batch(monkeypatch, data, cifar_contents()["data_batch_2"])
    with pytest.raises(ValueError, match=f"n_train must be an integer .* got {n_train}"):
        datasets.load("cifar10", n_train=n_train)


def test_at_hand_says_as_much_as_optional_and_reads_nothing(data, mnist, reads, capsys):
    assert not datasets.at_hand("mnist", claims=("C1", "C2"))
    said = capsys.readouterr().out
    assert datasets.optional("mnist", claims=("C1", "C2")) is None
    assert capsys.readouterr().out == said != ""
    write(data / "mnist", mnist)
    assert datasets.at_hand("mnist")
    assert datasets.at_hand("digits")
    assert not reads
    assert capsys.readouterr().out == ""
    with pytest.raises(ValueError, match="claims must be a tuple of ids"):
        datasets.at_hand("mnist", claims="C1")


# Skipping, visibly.


def test_a_skipped_cell_prints_one_line(capsys):
    assert datasets.optional("mnist", claims=("C13", "C14")) is None
    printed = capsys.readouterr()
    assert printed.out == (
        "Skipped: MNIST cannot be had here; C13 and C14 are stored, not re-run here. "
        "To run this cell, set REPRODUCTIONS_DATA to a folder that holds it or connect to the "
        "network (a download of 12 MB).\n"
    )
    assert printed.err == ""


def test_the_line_tells_no_more_than_the_data_set_and_the_claims(capsys, data, monkeypatch):
    datasets.optional("uci", claims=("C14",), tasks=("wine",))
    first = capsys.readouterr().out
    monkeypatch.delenv("REPRODUCTIONS_DATA")
    monkeypatch.delenv("REPRODUCTIONS_OFFLINE")
    datasets.optional("uci", claims=("C14",))
    assert capsys.readouterr().out == first
    assert str(data.parent) not in first
    assert "C14 is stored" in first
    assert "network" not in first
    datasets.optional("htru2")
    assert "stored" not in capsys.readouterr().out


def test_in_a_notebook_a_skip_is_one_output_in_three_forms(capsys):
    from IPython.core.displaypub import CapturingDisplayPublisher
    from IPython.core.interactiveshell import InteractiveShell

    shell = InteractiveShell.instance()
    try:
        shell.display_pub = CapturingDisplayPublisher()
        assert datasets.optional("fashion_mnist", claims=("C17",)) is None
        (output,) = shell.display_pub.outputs
    finally:
        InteractiveShell.clear_instance()
    stored = output["data"][datasets.SKIPPED_MIME]
    assert set(output["data"]) == {datasets.SKIPPED_MIME, "text/plain", "text/html"}
    assert (stored["schema"], stored["dataset"], stored["claims"]) == (1, "fashion_mnist", ["C17"])
    assert json.loads(json.dumps(stored)) == stored
    assert "\n" not in stored["message"]
    assert output["data"]["text/plain"] == datasets.skipped_text(stored) == stored["message"]
    assert output["data"]["text/html"] == datasets.skipped_html(stored)
    assert capsys.readouterr().out == ""


def test_the_html_of_a_skip_is_escaped():
    html = datasets.skipped_html({"message": "<b> & co"})
    assert html == '<p class="repro-skipped">&lt;b&gt; &amp; co</p>'


def test_what_is_there_is_loaded_and_nothing_printed(data, mnist, capsys):
    write(data / "mnist", mnist)
    assert datasets.optional("mnist", claims=("C13",)).name == "mnist"
    assert capsys.readouterr().out == ""


# The registry and the module itself.


def test_every_registered_file_can_be_verified():
    assert len(datasets.UCI_TASKS) == 108
    lengths = {"sha256": 64, "md5": 32}
    for dataset in REGISTRY.values():
        assert dataset.license
        assert dataset.source
        assert dataset.citations
        for layout in dataset.layouts:
            for file in layout.files:
                algorithm, expected = file.digest
                assert file.size > 0
                assert len(expected) == lengths[algorithm]
                assert int(expected, 16) >= 0
    downloadable = {name for name, dataset in REGISTRY.items() if dataset.download}
    assert downloadable == {"mnist", "fashion_mnist", "cifar10"}


def test_errors_survive_a_process_boundary():
    for error in (
        datasets.DatasetUnavailable("a", ["b"], ["c"], ["d"]),
        datasets.DatasetCorrupt("a", "b", "is c", "d"),
        datasets.DataFolderMissing("a", ["b"]),
    ):
        assert str(pickle.loads(pickle.dumps(error))) == str(error)


def test_importing_the_module_loads_neither_a_network_library_nor_scikit_learn():
    code = (
        "import sys, reproductions.chapter.datasets; "
        "print([m for m in ('pooch', 'requests', 'filelock', 'sklearn') if m in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (result.stdout, result.stderr) == ("[]\n", "")


# The real files.


@pytest.fixture
def shared(monkeypatch):
    monkeypatch.setenv("REPRODUCTIONS_DATA", str(SHARED))
    return SHARED


@needs_data
def test_the_registry_matches_the_published_digests_of_the_files(shared):
    """Sizes and MD5 as the folder's own description prints them, SHA-256 as registered."""
    readme = (shared / "README.md").read_text(encoding="utf-8")
    checked = 0
    for name in ("mnist", "fashion_mnist", "cifar10"):
        for layout in REGISTRY[name].layouts:
            for file in layout.files:
                assert file.md5 is None or file.md5 in readme
                if file.name != "cifar-10-python.tar.gz":
                    assert f"{file.size:,}" in readme
                path = shared / layout.folders[0] / file.name
                if path.is_file():
                    content = path.read_bytes()
                    assert hashlib.sha256(content).hexdigest() == file.sha256
                    assert hashlib.md5(content).hexdigest() in readme
                    checked += 1
    assert checked == 10


@needs_data
def test_no_file_of_the_collection_is_missing_or_unregistered(shared):
    registered = {
        file.name: file for name in ("uci", "htru2") for file in REGISTRY[name].layouts[0].files
    }
    others = {"README.md", "paper_table_a11.csv"}
    assert {path.name for path in (shared / "uci").iterdir()} - others == set(registered)
    for name, file in registered.items():
        content = (shared / "uci" / name).read_bytes()
        assert len(content) == file.size
        assert hashlib.sha256(content).hexdigest() == file.sha256


@needs_data
def test_mnist_is_mnist(shared):
    images = datasets.load("mnist")
    assert images.train_images.shape == (60_000, 28, 28)
    assert images.test_images.shape == (10_000, 28, 28)
    assert images.train_labels[:5].tolist() == [5, 0, 4, 1, 9]
    assert images.test_labels[:5].tolist() == [7, 2, 1, 0, 4]
    assert images.train_images[0].max() == 255
    assert (images.train_images[0, 0] == 0).all()  # the border is empty
    assert np.bincount(images.train_labels)[1] == 6742


@needs_data
def test_cifar10_has_its_published_statistics(shared):
    images = datasets.load("cifar10")
    assert images.train_images.shape == (50_000, 3, 32, 32)
    assert images.test_images.shape == (10_000, 3, 32, 32)
    assert np.bincount(images.train_labels).tolist() == [5000] * 10
    assert np.bincount(images.test_labels).tolist() == [1000] * 10
    mean = images.train_images.mean(axis=(0, 2, 3))
    std = images.train_images.std(axis=(0, 2, 3))
    assert mean == pytest.approx([125.307, 122.950, 113.865], abs=5e-4)
    assert std == pytest.approx([62.993, 62.089, 66.705], abs=5e-4)


@needs_data
def test_the_unpacked_batches_are_the_official_ones(shared):
    content = lzma.decompress((shared / "cifar-10" / "test_batch.xz").read_bytes())
    (official,) = (f for f in REGISTRY["cifar10"].layouts[1].files if f.name == "test_batch")
    assert len(content) == official.size
    assert hashlib.sha256(content).hexdigest() == official.sha256
    assert hashlib.md5(content).hexdigest() == official.md5


@needs_data
def test_every_task_agrees_with_the_index(shared):
    tables = datasets.load("uci")
    index = datasets.uci_index()
    assert {entry.name for entry in index} == set(tables) == set(datasets.UCI_TASKS)
    for entry in index:
        table = tables[entry.name]
        assert table.features.shape == (entry.n_rows, entry.n_features)
        assert table.splits.shape == (4, entry.n_rows)
        assert table.n_classes == entry.n_classes
        assert (table.splits[0] == 2).sum() == entry.n_test
        assert entry.group == ("small" if entry.n_rows < 1000 else "large")


@needs_data
def test_htru2_has_its_pulsars(shared):
    table = datasets.load("htru2")
    assert table.features.shape == (17_898, 8)
    assert table.labels.sum() == 1639
    assert table.splits is None
