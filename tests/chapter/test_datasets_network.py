"""Downloads from a server on this machine that behaves, misbehaves or is not there."""

import gzip
import hashlib
import multiprocessing
import os
import resource
import shutil
import signal
import socket
import struct
import tempfile
import threading
import time
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import filelock
import numpy as np
import pytest

from reproductions.chapter import datasets
from reproductions.chapter.datasets import REGISTRY, _store
from reproductions.chapter.datasets.registry import DataFile, Layout

fork = multiprocessing.get_context("fork")


class Mirror:
    """An HTTP server for ``files``; ``mode`` says how it answers, ``asked`` what was asked for."""

    def __init__(self, files):
        self.files, self.mode, self.asked = files, "good", []
        self.release = threading.Event()
        mirror = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                mirror.answer(self)

            def log_message(self, *arguments):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/"
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()

    def answer(self, request):
        name = request.path.lstrip("/")
        self.asked.append(name)
        content = self.files[name]
        if self.mode == "missing":
            request.send_error(404)
            return
        if self.mode == "wrong":
            content = bytes((content[0] ^ 1,)) + content[1:]
        elif self.mode == "page":
            content = b"<html>please log in</html>"
        elif self.mode == "slow":
            time.sleep(0.3)
        request.send_response(200)
        if self.mode == "encoding" and "gzip" in request.headers.get("Accept-Encoding", ""):
            request.send_header("Content-Encoding", "gzip")
        request.send_header("Content-Length", str(len(content)))
        request.end_headers()
        half = len(content) // 2
        request.wfile.write(content[:half])
        request.wfile.flush()
        if self.mode == "cut":
            request.close_connection = True
            return
        if self.mode == "stall":
            self.release.wait(20)
        request.wfile.write(content[half:])

    def close(self):
        self.release.set()
        self.server.shutdown()
        self.server.server_close()


def packed_idx(array):
    header = bytes((0, 0, 8, array.ndim)) + struct.pack(f">{array.ndim}i", *array.shape)
    return gzip.compress(header + array.astype(np.uint8).tobytes(), mtime=0)


@pytest.fixture(scope="module")
def files():
    pixels = np.random.default_rng(0).integers(0, 256, (7, 28, 28))
    return {
        "train-images-idx3-ubyte.gz": packed_idx(pixels[:5]),
        "train-labels-idx1-ubyte.gz": packed_idx(np.arange(5)),
        "t10k-images-idx3-ubyte.gz": packed_idx(pixels[5:]),
        "t10k-labels-idx1-ubyte.gz": packed_idx(np.arange(2)),
    }


@pytest.fixture
def serve(files, monkeypatch):
    """Start n mirrors and register them as those of mnist."""
    started = []

    def start(n=1):
        started.extend(Mirror(files) for _ in range(n))
        registered = tuple(
            DataFile(
                name,
                len(content),
                hashlib.sha256(content).hexdigest(),
                urls=tuple(mirror.url + name for mirror in started),
            )
            for name, content in files.items()
        )
        monkeypatch.setitem(
            REGISTRY,
            "mnist",
            replace(REGISTRY["mnist"], layouts=(Layout(("mnist", "."), registered),)),
        )
        return started[-1] if n == 1 else started

    yield start
    for mirror in started:
        mirror.close()


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """The folder a download goes to; nothing is there yet."""
    monkeypatch.delenv("REPRODUCTIONS_DATA", raising=False)
    monkeypatch.delenv("REPRODUCTIONS_OFFLINE", raising=False)
    monkeypatch.setenv("REPRODUCTIONS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    return tmp_path / "cache" / "mnist"


def contents(folder):
    """What a download left in ``folder``, locks aside."""
    if not folder.is_dir():
        return {}
    return {p.name: p.read_bytes() for p in folder.iterdir() if p.suffix != ".lock"}


def refused(cache):
    """The error of a load that must fail and leave nothing behind."""
    with pytest.raises(datasets.DatasetUnavailable) as caught:
        datasets.load("mnist")
    assert contents(cache) == {}
    return str(caught.value)


def in_child(function, *arguments):
    """Run ``function`` in a forked process; returns what it returned."""
    receiver, sender = fork.Pipe(duplex=False)
    child = fork.Process(target=_send, args=(sender, function, arguments))
    child.start()
    assert receiver.poll(30), "the child process gave no answer"
    answer = receiver.recv()
    child.join(10)
    return answer


def _send(sender, function, arguments):
    sender.send(function(*arguments))


def outcome():
    """What loading mnist comes to: its number of images, or the error's text."""
    try:
        return len(datasets.load("mnist").train_images)
    except datasets.DatasetError as error:
        return f"{type(error).__name__}: {error}"


def test_a_download_is_verified_stored_and_used_again(serve, cache, files, capfd):
    mirror = serve()
    first = datasets.load("mnist")
    assert contents(cache) == files
    mirror.close()
    again = datasets.load("mnist")
    assert np.array_equal(first.train_images, again.train_images)
    assert sorted(mirror.asked) == sorted(files)
    assert capfd.readouterr() == ("", "")  # a word on stderr would fail the cell


@pytest.mark.parametrize(
    ("mode", "message"),
    [
        ("cut", "the connection broke off"),
        ("wrong", "what came is altered: SHA-256 .*discarded"),
        ("page", "what came is truncated: 26 bytes, expected .*discarded"),
        ("missing", "HTTP status 404"),
    ],
)
def test_a_failed_download_leaves_nothing_and_says_why(serve, cache, capfd, mode, message):
    mirror = serve()
    mirror.mode = mode
    with pytest.raises(datasets.DatasetUnavailable, match=message) as caught:
        datasets.load("mnist")
    assert contents(cache) == {}
    assert mirror.url in str(caught.value)
    assert datasets.optional("mnist", claims=("C13",)) is None
    out, err = capfd.readouterr()
    assert out.startswith("Skipped: MNIST")
    assert err == ""
    mirror.mode = "good"
    assert outcome() == 5


def test_a_server_that_would_unpack_on_the_way_is_asked_not_to(serve, cache, files):
    serve().mode = "encoding"
    assert outcome() == 5
    assert contents(cache) == files


def test_a_silent_server_is_given_up(serve, cache, monkeypatch):
    mirror = serve()
    mirror.mode = "stall"
    monkeypatch.setattr(_store, "READ_SECONDS", 0.3)
    start = time.monotonic()
    message = refused(cache)
    assert "no answer" in message or "no connection" in message
    assert time.monotonic() - start < 10


def test_the_second_mirror_is_tried_where_the_first_fails(serve, cache, files):
    first, second = serve(2)
    first.mode = "wrong"
    assert outcome() == 5
    assert contents(cache) == files
    assert len(first.asked) == len(second.asked) == 4


def test_offline_means_no_attempt(serve, cache, monkeypatch):
    mirror = serve()
    monkeypatch.setenv("REPRODUCTIONS_OFFLINE", "1")
    assert "not tried: REPRODUCTIONS_OFFLINE is set" in refused(cache)
    assert mirror.asked == []
    monkeypatch.setenv("REPRODUCTIONS_OFFLINE", "0")
    assert outcome() == 5  # the control: the mirror was there all the time


def test_without_a_network_the_data_set_is_unavailable(serve, cache, monkeypatch, capfd):
    serve()

    def unreachable(*arguments, **keywords):
        raise OSError(101, "Network is unreachable")

    monkeypatch.setattr(socket.socket, "connect", unreachable)
    assert "no connection" in refused(cache)
    assert datasets.optional("mnist") is None
    assert capfd.readouterr().err == ""


def test_a_damaged_file_in_the_cache_is_refused_and_not_fetched_again(serve, cache, files):
    mirror = serve()
    datasets.load("mnist")
    path = cache / "t10k-labels-idx1-ubyte.gz"
    path.write_bytes(files[path.name][:-1])
    with pytest.raises(datasets.DatasetCorrupt, match="delete it and run again"):
        datasets.load("mnist")
    assert len(mirror.asked) == 4
    path.unlink()
    datasets.load("mnist")  # the remedy helps, and only the deleted file is fetched
    assert mirror.asked[4:] == [path.name]


def test_the_readers_own_folder_is_never_written(serve, cache, files, tmp_path, monkeypatch):
    serve()
    mine = tmp_path / "mine" / "mnist"
    mine.mkdir(parents=True)
    half = {name: content for name, content in files.items() if name.startswith("train")}
    for name, content in half.items():
        (mine / name).write_bytes(content)
    monkeypatch.setenv("REPRODUCTIONS_DATA", str(mine.parent))
    assert outcome() == 5
    assert contents(mine) == half
    assert contents(cache) == files


def test_two_processes_at_once_download_each_file_once(serve, cache, files):
    mirror = serve()
    mirror.mode = "slow"
    answers = [None, None]

    def work(i):
        answers[i] = in_child(outcome)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == [5, 5]
    assert sorted(mirror.asked) == sorted(files)
    assert contents(cache) == files


def test_a_killed_download_does_not_hinder_the_next(serve, cache, files):
    mirror = serve()
    mirror.mode = "stall"
    child = fork.Process(target=outcome)
    child.start()
    deadline = time.monotonic() + 20
    part = cache / ".train-images-idx3-ubyte.gz.part"
    while not part.is_file():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    os.kill(child.pid, signal.SIGKILL)
    child.join(10)
    assert list(contents(cache)) == [part.name]
    mirror.mode = "good"
    assert outcome() == 5
    assert contents(cache) == files


def test_a_lock_that_is_never_released_ends_in_an_error(serve, cache, monkeypatch):
    mirror = serve()
    monkeypatch.setattr(_store, "LOCK_SECONDS", 0.2)
    cache.mkdir(parents=True)
    with filelock.FileLock(cache / ".train-images-idx3-ubyte.gz.lock"):
        assert "another process has been downloading train-images" in refused(cache)
    assert mirror.asked == []


def test_a_cache_that_cannot_be_made_is_named(serve, cache, tmp_path, monkeypatch):
    serve()
    (tmp_path / "file").touch()
    monkeypatch.setenv("REPRODUCTIONS_CACHE", str(tmp_path / "file"))
    message = refused(cache)
    assert f"cannot be stored in {tmp_path / 'file' / 'mnist'}: Not a directory" in message


def _without_rights(folder):
    if os.geteuid() == 0:  # root may write anywhere, so become somebody who may not
        os.setgid(65534)
        os.setuid(65534)
    os.environ["REPRODUCTIONS_CACHE"] = str(folder)
    return outcome()


def test_a_read_only_cache_is_an_error_that_names_it(serve, cache):
    serve()
    folder = Path(tempfile.mkdtemp())
    try:
        folder.chmod(0o555)
        answer = in_child(_without_rights, folder)
        assert answer.startswith("DatasetUnavailable")
        assert f"cannot be stored in {folder / 'mnist'}: Permission denied" in answer
    finally:
        folder.chmod(0o755)
        shutil.rmtree(folder)


def _with_room_for(n_bytes):
    resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, n_bytes))
    return outcome()


def test_a_full_disk_is_an_error_that_leaves_nothing(serve, cache):
    """A file may not grow beyond 1 kB, so writing fails half-way as it does on a full disk."""
    serve()
    answer = in_child(_with_room_for, 1000)
    assert answer.startswith("DatasetUnavailable")
    assert f"train-images-idx3-ubyte.gz cannot be stored in {cache}" in answer
    assert contents(cache) == {}
    assert in_child(_with_room_for, 1_000_000) == 5  # the control: with room it works
