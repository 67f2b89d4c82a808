"""Recorded runs: the fullest record is taken, trials do not count, damage is named."""

import json
import sys

import pytest

from reproductions.chapter.records import recorded


def run(arm, seed=0, shorten=1, date="2026-01-02"):
    return {"arm": arm, "seed": seed, "shorten": shorten, "date": date}


def write(results, machine, runs, paper="waves"):
    path = results / machine / f"{paper}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"paper": paper, "machine": machine.upper(), "runs": runs}))
    return path


def test_the_record_with_most_full_runs_is_taken(tmp_path):
    write(tmp_path, "a-gpu", [run("tall")])
    write(tmp_path, "b-gpu", [run("tall"), run("wide"), run("tall", 1)])
    # five runs, of which two are full
    trials = [run("tall", seed, shorten=100) for seed in range(3)]
    write(tmp_path, "c-gpu", [*trials, run("tall"), run("wide")])
    write(tmp_path, "d-gpu", [run("tall", seed) for seed in range(9)], paper="particles")
    found = recorded("waves", tmp_path)
    assert found.machine == "B-GPU"
    assert [(one["arm"], one["seed"]) for one in found.runs] == [
        ("tall", 0),
        ("wide", 0),
        ("tall", 1),
    ]


def test_the_runs_of_an_arm_are_its_own_and_full(tmp_path):
    write(
        tmp_path,
        "gpu",
        [run("tall", 0, shorten=10), run("tall", 1), run("taller"), run("wide"), run("tall", 0)],
    )
    found = recorded("waves", tmp_path)
    assert [one["seed"] for one in found.of("tall")] == [1, 0]
    assert [one["arm"] for one in found.of("taller")] == ["taller"]
    assert found.of("round") == []


def test_the_days_of_the_runs(tmp_path):
    write(tmp_path, "gpu", [run("tall"), run("wide")])
    assert recorded("waves", tmp_path).dates == "2026-01-02"
    days = ("2026-02-01", "2026-01-30", "2026-01-31")
    trial = run("tall", 9, shorten=10, date="2025-12-31")
    write(tmp_path, "gpu", [trial, *(run("tall", k, date=day) for k, day in enumerate(days))])
    assert recorded("waves", tmp_path).dates == "2026-01-30 to 2026-02-01"


def test_without_full_runs_there_is_no_record(tmp_path):
    assert recorded("waves", tmp_path / "nowhere") is None
    assert recorded("waves", tmp_path) is None
    write(tmp_path, "gpu", [run("tall", shorten=100)])
    assert recorded("waves", tmp_path) is None
    # the scores of the book lie in the same folders
    (tmp_path / "cpu").mkdir()
    (tmp_path / "cpu" / "waves.json").write_text(json.dumps({"claims": []}))
    assert recorded("waves", tmp_path) is None
    write(tmp_path, "gpu", [run("tall")])
    assert recorded("waves", tmp_path).machine == "GPU"


@pytest.mark.parametrize(
    "content",
    [
        b'{"machine": "GPU", "runs": [{"arm"',
        b"",
        b"12",
        b'{"machine": "GPU", "runs": [{"arm": "tall"}]}',
        b'{"machine": "GPU", "runs": 3}',
        b'{"runs": []}',
        b'{"machine": "\xff", "runs": []}',
    ],
)
def test_a_damaged_record_is_named(tmp_path, content):
    write(tmp_path, "a-gpu", [run("tall")])
    path = write(tmp_path, "b-gpu", [])
    path.write_bytes(content)
    with pytest.raises(ValueError, match="cannot be read") as caught:
        recorded("waves", tmp_path)
    assert str(path) in str(caught.value)
    assert "make it anew with reproduce scale" in str(caught.value)


@pytest.fixture
def book(tmp_path):
    """A repository with a record, and a folder outside it."""
    root = tmp_path / "book"
    (root / "chapters" / "drafts").mkdir(parents=True)
    (root / "_config.yml").touch()
    write(root / "results", "gpu", [run("tall")])
    (tmp_path / "elsewhere").mkdir()
    return root


@pytest.mark.parametrize("folder", [".", "chapters", "chapters/drafts"])
def test_the_repositorys_record_is_found_from_its_folders(book, monkeypatch, folder):
    monkeypatch.chdir(book / folder)
    assert recorded("waves").machine == "GPU"


def test_outside_the_repository_there_is_no_record(book, monkeypatch):
    monkeypatch.chdir(book.parent / "elsewhere")
    assert recorded("waves") is None
    # unless its folder is given
    assert recorded("waves", book / "results").machine == "GPU"


def test_outside_a_repository_the_installed_record_is_found(tmp_path, monkeypatch):
    """A chapter in Colab has the package and no repository around it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "prefix", str(tmp_path / "python"))
    assert recorded("waves") is None
    write(tmp_path / "python" / "share" / "reproductions" / "results", "gpu", [run("tall")])
    assert recorded("waves").machine == "GPU"
    # in a repository its own folder counts, even where it is empty
    (tmp_path / "_config.yml").touch()
    assert recorded("waves") is None
