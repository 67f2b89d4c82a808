"""Where the files of a data set are, whether they are the right ones, and how to fetch them."""

from __future__ import annotations

import hashlib
import os
import warnings
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from urllib.parse import urlsplit

from reproductions.chapter.datasets.registry import REGISTRY, DataFile, Dataset, Layout
from reproductions.chapter.repository import repository_root

__all__ = [
    "DataFolderMissing",
    "DatasetCorrupt",
    "DatasetError",
    "DatasetUnavailable",
    "Found",
    "UnsafePickle",
    "locate",
    "obtain",
    "read",
]

CONNECT_SECONDS, READ_SECONDS = 10, 60
LOCK_SECONDS = 900


class DatasetError(RuntimeError):
    """A data set cannot be loaded."""


class DataFolderMissing(DatasetError):  # noqa: N818  (reads as the state it names)
    """``REPRODUCTIONS_DATA`` names a folder that does not exist.

    It is an error of its own, never a reason to look elsewhere: the reader has named a folder
    and a typing mistake should not turn into a download or a skipped cell.
    """

    def __init__(self, value: str, tried: Sequence[str]) -> None:
        super().__init__(value, tuple(tried))
        self.value, self.tried = value, tuple(tried)

    def __str__(self) -> str:
        return (
            f"REPRODUCTIONS_DATA is {self.value!r}, which is no folder (tried "
            f"{' and '.join(self.tried)}); correct it, or unset it to use the cache"
        )


class DatasetUnavailable(DatasetError):  # noqa: N818  (reads as the state it names)
    """The data set is in none of the places looked in and could not be downloaded."""

    def __init__(
        self,
        dataset: str,
        looked_in: Sequence[str],
        remedies: Sequence[str],
        failures: Sequence[str] = (),
    ) -> None:
        super().__init__(dataset, tuple(looked_in), tuple(remedies), tuple(failures))
        self.dataset, self.looked_in = dataset, tuple(looked_in)
        self.remedies, self.failures = tuple(remedies), tuple(failures)

    def __str__(self) -> str:
        lines = [f"the data set {self.dataset} is not available", "looked in:"]
        lines += [f"  - {place}" for place in self.looked_in]
        if self.failures:
            lines += ["download:", *(f"  - {failure}" for failure in self.failures)]
        lines += ["remedies (one is enough):", *(f"  - {remedy}" for remedy in self.remedies)]
        return "\n".join(lines)


class DatasetCorrupt(DatasetError):  # noqa: N818  (reads as the state it names)
    """A file is there but is not the registered one; it is neither read nor overwritten."""

    def __init__(self, dataset: str, path: str, problem: str, remedy: str) -> None:
        super().__init__(dataset, path, problem, remedy)
        self.dataset, self.path, self.problem, self.remedy = dataset, path, problem, remedy

    def __str__(self) -> str:
        return f"{self.dataset}: file {self.path} {self.problem}; {self.remedy}"


class UnsafePickle(DatasetCorrupt):
    """A pickled batch asks to import something that images do not need."""


@dataclass(frozen=True)
class Found:
    """A registered file and where it lies."""

    dataset: Dataset
    file: DataFile
    path: Path
    place: str

    def corrupt(self, problem: str, kind: type[DatasetCorrupt] = DatasetCorrupt) -> DatasetCorrupt:
        """The error that refuses this file, with the remedy that fits its place."""
        if self.place == "cache" and self.file.urls:
            remedy = "delete it and run again: it is downloaded anew"
        elif self.file.urls:
            remedy = f"replace it by {self.file.urls[0]} (nothing was downloaded over it)"
        else:
            remedy = "replace it by an intact copy (nothing was downloaded over it)"
        return kind(self.dataset.name, str(self.path), problem, remedy)


def data_folder() -> Path | None:
    """The folder ``REPRODUCTIONS_DATA`` names, or None where it is not set.

    A relative one is looked for from the working directory and then from the repository's root:
    notebooks run in ``chapters/``, while the variable is typed at the root.
    """
    value = os.environ.get("REPRODUCTIONS_DATA", "")
    if not value:
        return None
    path = Path(value).expanduser()
    tried = [path if path.is_absolute() else Path.cwd() / path]
    root = repository_root()
    if not path.is_absolute() and root not in (None, Path.cwd()):
        tried.append(root / path)
    for candidate in tried:
        if candidate.is_dir():
            return candidate.resolve()
    raise DataFolderMissing(value, [str(candidate) for candidate in tried])


def cache_folder() -> Path:
    """The user's cache, or the folder that ``REPRODUCTIONS_CACHE`` names."""
    value = os.environ.get("REPRODUCTIONS_CACHE", "")
    if value:
        return Path(value).expanduser().absolute()
    return Path(_pooch().os_cache("reproductions"))


def _pooch() -> ModuleType:
    """Import pooch without the notice of its progress bar, which would land in a cell's output."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="IProgress not found")
        import pooch
    return pooch


def is_offline() -> bool:
    """Whether ``REPRODUCTIONS_OFFLINE`` forbids every use of the network."""
    return os.environ.get("REPRODUCTIONS_OFFLINE", "").lower() not in ("", "0", "false", "no")


def _is_there(path: Path, file: DataFile) -> bool:
    """Whether ``path`` is meant to be ``file``, damaged or not.

    MNIST and Fashion-MNIST name their files alike. In a folder without subfolders, a file that
    has exactly the other one's size is the other one, not a damaged copy of this one.
    """
    if not path.is_file():
        return False
    size = path.stat().st_size
    return size == file.size or not any(
        other.name == file.name and other.size == size
        for dataset in REGISTRY.values()
        for layout in dataset.layouts
        for other in layout.files
    )


def _wanted(layout: Layout, names: Collection[str] | None) -> list[DataFile]:
    return [file for file in layout.files if names is None or file.name in names]


def _search(
    dataset: Dataset, place: str, folder: Path, names: Collection[str] | None
) -> tuple[list[Found], str]:
    """Files of the first complete layout in ``folder``, else none and what the best one lacks."""
    most, note = 0, "" if folder.is_dir() else " (no such folder)"
    for layout in dataset.layouts:
        files = _wanted(layout, names)
        for sub in layout.folders:
            found = [
                Found(dataset, file, folder / sub / file.name, place)
                for file in files
                if _is_there(folder / sub / file.name, file)
            ]
            if len(found) == len(files):
                return found, ""
            if len(found) > most:
                most = len(found)
                there = {item.file.name for item in found}
                lacking = [file.name for file in files if file.name not in there]
                note = (
                    f" ({folder / sub} has {most} of {len(files)} files: {_few(lacking)} lacking)"
                )
    return [], note


def _few(names: Sequence[str]) -> str:
    shown = ", ".join(names[:3])
    return f"{shown} and {len(names) - 3} more" if len(names) > 3 else shown


def locate(
    dataset: Dataset, names: Collection[str] | None = None
) -> tuple[list[Found], tuple[str, ...]]:
    """The data set's files in the first place that has them all, without any network.

    Returns (files, places looked in); the files are empty where no place has them.
    ``names`` restricts the search to some of the files.
    """
    looked_in = []
    user = data_folder()
    if user is None:
        looked_in.append("REPRODUCTIONS_DATA (not set)")
    places = [("cache", "cache", cache_folder())]
    if user is not None:
        places.insert(0, ("REPRODUCTIONS_DATA", "REPRODUCTIONS_DATA", user))
    for place, label, folder in places:
        found, note = _search(dataset, place, folder, names)
        if found:
            return found, ()
        looked_in.append(f"{label} {folder}{note}")
    return [], tuple(looked_in)


def obtain(dataset: Dataset, names: Collection[str] | None = None) -> list[Found]:
    """The data set's files from ``REPRODUCTIONS_DATA``, the cache or an official mirror.

    Raises:
        DataFolderMissing: ``REPRODUCTIONS_DATA`` names no folder.
        DatasetUnavailable: nowhere found, and not downloaded; says where, why and what to do.
    """
    found, looked_in = locate(dataset, names)
    if found:
        return found
    layout, failures = dataset.download, []
    if layout is not None and is_offline():
        failures = ["not tried: REPRODUCTIONS_OFFLINE is set"]
    elif layout is not None:
        folder = cache_folder() / layout.folders[0]
        for file in _wanted(layout, names):
            item = Found(dataset, file, folder / file.name, "cache")
            failures = _download(item)
            if failures:
                break
            found.append(item)
        else:
            return found
    raise DatasetUnavailable(dataset.name, looked_in, _remedies(dataset, names), failures)


def _remedies(dataset: Dataset, names: Collection[str] | None) -> list[str]:
    layout = dataset.download or dataset.layouts[0]
    files = [f"{layout.folders[0]}/{file.name}" for file in _wanted(layout, names)]
    remedies = [
        f"set REPRODUCTIONS_DATA to a folder that holds {_few(files)}",
        f"put the same files into the cache: {cache_folder() / layout.folders[0]}",
    ]
    if dataset.download is not None:
        hosts = dict.fromkeys(urlsplit(url).hostname for url in layout.files[0].urls)
        first = "unset REPRODUCTIONS_OFFLINE, " if is_offline() else ""
        remedies.append(
            f"{first}connect to the network and run again: {dataset.n_bytes / 1e6:.0f} MB are "
            f"downloaded from {' or '.join(filter(None, hosts))}"
        )
    return remedies


def _download(item: Found) -> list[str]:
    """Fetch one file into the cache; returns what went wrong, nothing if it is there.

    The bytes go to a temporary name and get the right one only after they were verified. The
    lock lets one process download while the others wait, so the temporary name can be fixed
    and what a killed process leaves behind is overwritten by the next.
    """
    from filelock import FileLock, Timeout

    path = item.path
    part = path.with_name(f".{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(path.with_name(f".{path.name}.lock"), timeout=LOCK_SECONDS):
            if path.is_file():
                return []
            try:
                return _fetch(item, part)
            finally:
                part.unlink(missing_ok=True)
    except Timeout:
        return [f"another process has been downloading {path.name} for {LOCK_SECONDS} s"]
    except OSError as error:
        return [f"{path.name} cannot be stored in {path.parent}: {error.strerror or error}"]


def _fetch(item: Found, part: Path) -> list[str]:
    import requests

    # A server that unpacks .gz files on the way would change the bytes we verify.
    get = _pooch().HTTPDownloader(
        chunk_size=1 << 18,
        timeout=(CONNECT_SECONDS, READ_SECONDS),
        headers={"Accept-Encoding": "identity"},
    )
    failures = []
    for url in item.file.urls:
        try:
            get(url, str(part), None)
        except requests.RequestException as error:
            failures.append(f"{url}: {_reason(error)}")
            continue
        problem = _problem(item.file, part.read_bytes())
        if problem is None:
            os.replace(part, item.path)
            _verified.add(_identity(item))
            return []
        failures.append(f"{url}: what came {problem}; discarded")
    return failures


def _reason(error: Exception) -> str:
    import requests

    if isinstance(error, requests.HTTPError) and error.response is not None:
        return f"HTTP status {error.response.status_code}"
    if isinstance(error, requests.Timeout):
        return "no answer in time"
    if isinstance(error, requests.exceptions.ChunkedEncodingError):
        return "the connection broke off"
    if isinstance(error, requests.ConnectionError):
        return "no connection"
    return type(error).__name__


# Files whose digest this process has checked, by path, size, time of change and digest.
_verified: set[tuple[str, int, int, str]] = set()


def _identity(item: Found) -> tuple[str, int, int, str]:
    status = item.path.stat()
    return str(item.path), status.st_size, status.st_mtime_ns, item.file.digest[1]


def _problem(file: DataFile, content: bytes) -> str | None:
    """Why ``content`` is not that of ``file``, or None if it is."""
    if len(content) != file.size:
        word = "is truncated" if len(content) < file.size else "is too long"
        return f"{word}: {len(content)} bytes, expected {file.size}"
    algorithm, expected = file.digest
    actual = hashlib.new(algorithm, content, usedforsecurity=False).hexdigest()
    if actual != expected:
        label = {"sha256": "SHA-256", "md5": "MD5"}[algorithm]
        return f"is altered: {label} {actual}, expected {expected}"
    return None


def read(item: Found) -> bytes:
    """The bytes of a file, verified the first time this process reads it.

    Raises:
        DatasetCorrupt: its size or digest is not the registered one.
    """
    identity = _identity(item)
    content = item.path.read_bytes()
    if identity not in _verified:
        problem = _problem(item.file, content)
        if problem is not None:
            raise item.corrupt(problem)
        _verified.add(identity)
    return content
