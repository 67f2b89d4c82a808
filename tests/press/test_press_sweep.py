"""Sweeps: here and on a cluster, one failure ends nothing, a lost worker neither."""

import json
import os
import signal
import threading
import time

import pytest
from press_book import add_chapter, processes_in, reproduce

from reproductions.press.limits import Limits
from reproductions.press.runs import make_spec
from reproductions.press.sweep import grid, run_sweep, seeds_of


def test_seeds():
    assert seeds_of("0-3") == [0, 1, 2, 3]
    assert seeds_of("7, 1-2,7") == [7, 1, 2]


def test_a_grid_has_one_specification_for_each_combination(plain):
    specs = grid(plain.chapter("beta"), {"seed": [0, 1], "profile": ["smoke", "cpu"]})
    assert [s.label for s in specs] == [
        "beta (profile=smoke)",
        "beta",
        "beta (profile=smoke, seed=1)",
        "beta (seed=1)",
    ]
    assert len({s.key for s in specs}) == 4
    assert [s.canonical for s in specs] == [False, True, False, False]
    again = make_spec(plain.chapter("beta"), {"seed": 1})
    assert again.key == specs[3].key


def test_a_sweep_here(plain):
    add_chapter(plain, "gamma", "assert seed != 1", "print(seed)")
    sweep = ["sweep", "gamma", "--seeds", "0-2", "--json", "--root", plain.root]
    result = reproduce(*sweep)
    assert result.exit_code == 1
    assert [r["ok"] for r in json.loads(result.stdout)] == [True, False, True]
    assert [r["resumed"] for r in json.loads(reproduce(*sweep).stdout)] == [True, False, True]


@pytest.mark.slow
def test_a_cluster_that_loses_a_worker_loses_no_result(plain):
    distributed = pytest.importorskip("distributed", reason="Dask is in the extra `scale`")
    add_chapter(plain, "gamma", "assert seed != 1", "import time\ntime.sleep(1)", "print(seed)")
    specs = grid(plain.chapter("gamma"), {"seed": list(range(4))})
    cluster = distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, dashboard_address=None, processes=True
    )
    with cluster, distributed.Client(cluster) as client:
        victim = next(iter(client.run(os.getpid).values()))

        def kill_when_busy():
            deadline = time.monotonic() + 30
            while time.monotonic() < deadline:
                if any("_worker" in " ".join(p.cmdline()) for p in processes_in(plain.root)):
                    os.kill(victim, signal.SIGKILL)
                    return
                time.sleep(0.05)

        killer = threading.Thread(target=kill_when_busy)
        killer.start()
        records = run_sweep(specs, client, limits=Limits(30))
        killer.join()
    assert [r.ok for r in records] == [True, False, True, True]
    assert "AssertionError" in records[1].reason
    assert all(
        (s.folder / "done.json").is_file() == r.ok for s, r in zip(specs, records, strict=True)
    )
    assert not processes_in(plain.root)


def test_other_sources_on_a_worker_are_noticed(plain):
    from reproductions.press.sweep import _remote

    record = _remote(str(plain.root), "beta", {}, "0" * 16, vars(Limits(30)), False)
    assert not record["ok"]
    assert "the worker sees other sources" in record["reason"]
