"""Recorded runs: those of all machines, trials do not count, damage is named."""

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


def test_the_full_runs_of_all_machines_are_taken(tmp_path):
    write(tmp_path, "a-gpu", [run("tall")])
    trials = [run("tall", seed, shorten=100) for seed in range(3)]
    write(tmp_path, "b-cpu", [*trials, run("wide"), run("tall", 1)])
    write(tmp_path, "c-gpu", [run("tall", seed) for seed in range(9)], paper="particles")
    found = recorded("waves", tmp_path)
    assert [(one["machine"], one["arm"], one["seed"]) for one in found.runs] == [
        ("A-GPU", "tall", 0),
        ("B-CPU", "wide", 0),
        ("B-CPU", "tall", 1),
    ]


def test_of_a_run_made_on_two_machines_the_latest_counts(tmp_path):
    """A number must not depend on the alphabetical order of machines."""
    for machine, day in (("a", "2026-01-02"), ("b", "2026-03-01"), ("c", "2026-02-01")):
        write(tmp_path, machine, [run("tall", date=day), run(f"only {machine}", date=day)])
    found = recorded("waves", tmp_path)
    assert [one["machine"] for one in found.of("tall")] == ["B"]
    assert [one["machine"] for one in found.of("only c")] == ["C"]
    assert len(found.runs) == 6
    # on one day the name decides, not the order of folders
    write(tmp_path, "0", [run("tall", date="2026-03-01")])
    path = tmp_path / "0" / "waves.json"
    path.write_text(path.read_text().replace('"machine": "0"', '"machine": "Z"'))
    assert [one["machine"] for one in recorded("waves", tmp_path).of("tall")] == ["Z"]


def test_the_runs_of_an_arm_are_its_own_and_full(tmp_path):
    write(
        tmp_path,
        "gpu",
        [run("tall", 0, shorten=10), run("tall", 1), run("taller"), run("wide"), run("tall", 0)],
    )
    found = recorded("waves", tmp_path)
    assert [one["seed"] for one in found.of("tall")] == [0, 1]
    assert [one["arm"] for one in found.of("taller")] == ["taller"]
    assert found.of("round") == []
    # of several arms in the order in which they were asked for
    both = found.of("wide", "tall")
    assert [(one["arm"], one["seed"]) for one in both] == [("wide", 0), ("tall", 0), ("tall", 1)]


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
    assert recorded("waves", tmp_path).runs[0]["machine"] == "GPU"


@pytest.mark.parametrize(
    "content",
    [
        b'{"machine": "GPU", "runs": [{"arm"',
        b"",
        b"12",
        b'{"machine": "GPU", "runs": [{"arm": "tall"}]}',
        b'{"machine": "GPU", "runs": [{"arm": "tall", "seed": 0, "shorten": 1}]}',
        b'{"machine": "GPU", "runs": [{"date": "2026-01-02", "seed": 0, "shorten": 1}]}',
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
    assert recorded("waves").runs[0]["machine"] == "GPU"


def test_outside_the_repository_there_is_no_record(book, monkeypatch):
    monkeypatch.chdir(book.parent / "elsewhere")
    assert recorded("waves") is None
    # unless its folder is given
    assert recorded("waves", book / "results").runs[0]["machine"] == "GPU"


def test_outside_a_repository_the_installed_record_is_found(tmp_path, monkeypatch):
    """A chapter in Colab has the package and no repository around it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "prefix", str(tmp_path / "python"))
    assert recorded("waves") is None
    write(tmp_path / "python" / "share" / "reproductions" / "results", "gpu", [run("tall")])
    assert recorded("waves").runs[0]["machine"] == "GPU"
    # in a repository its own folder counts, even where it is empty
    (tmp_path / "_config.yml").touch()
    assert recorded("waves") is None
