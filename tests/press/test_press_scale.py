"""Runs at a paper's own scale: recorded, merged, resumed; a stub stands for the paper."""

import json
import os
import subprocess
import sys
import time
import types
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
import typer
from typer.testing import CliRunner

from reproductions.press import scale as press_scale
from reproductions.press.errors import BadInput
from reproductions.press.scale import machine_folder, run_scale, scale_module
from reproductions.press.scale_command import scale as scale_command

PACKAGE = "reproductions.papers.stub"


class Paused(Exception):  # noqa: N818, named as in the papers' packages
    """Out of time."""


def arm(n_steps, dataset="squares", together=False):
    return types.SimpleNamespace(n_steps=n_steps, dataset=dataset, together=together)


class Stub:
    """A paper of two arms that counts what is asked of it."""

    def __init__(self, root):
        self.calls, self.groups, self.loaded, self.pauses = [], [], [], set()
        for name in ("papers/stub/scale.py", "papers/stub/other.py", "kernels/fast.py"):
            path = root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("x = 1\n")
        self.package = types.ModuleType(PACKAGE)
        self.package.Paused = Paused
        self.module = types.ModuleType(f"{PACKAGE}.scale")
        self.module.__package__ = PACKAGE
        self.module.__file__ = str(root / "papers" / "stub" / "scale.py")
        self.module.ARMS = {
            "tall": arm(10_000),
            "wide": arm(200),
        }
        self.module.task_from = lambda dataset, *arrays, device: (dataset, *arrays, device)
        self.module.run_arm = self.run_arm
        self.package.scale = self.module

    def load(self, name):
        self.loaded.append(name)
        parts = ("train_images", "train_labels", "test_images", "test_labels")
        return types.SimpleNamespace(**{part: f"{part} of {name}" for part in parts})

    def run_arm(self, arm, seeds, task, *, folder, deadline, shorten, progress):
        self.groups.append((arm, tuple(seeds), task))
        self.task, self.folder, self.deadline = task, folder, deadline
        progress("anything", 5, 10_000)
        found = []
        for seed in seeds:
            self.calls.append((arm, seed, shorten))
            accuracy = {"kind": 10.0 * len(self.calls)}
            found.append({"seed": seed, "accuracy": accuracy, "seconds": 1.25})
        if any((arm, seed) in self.pauses for seed in seeds):
            raise Paused(f"{arm} stopped")
        return found


@pytest.fixture
def stub(tmp_path, monkeypatch):
    paper = Stub(tmp_path / "src")
    monkeypatch.setitem(sys.modules, PACKAGE, paper.package)
    monkeypatch.setitem(sys.modules, f"{PACKAGE}.scale", paper.module)
    monkeypatch.setattr(press_scale.datasets, "load", paper.load)
    monkeypatch.setattr(press_scale, "hardware", lambda device: "Fast(TM) Chip 7, 2 cores")
    return paper


class Runner:
    """``run_scale`` for the stub; what it said and what is on record."""

    def __init__(self, root):
        self.results, self.folder, self.said = root / "results", root / "runs", []

    def __call__(self, arms=("tall", "wide"), seeds=(0,), **options):
        options = {"device": "cpu", "echo": self.said.append, **options}
        return run_scale("stub", arms, seeds, results=self.results, folder=self.folder, **options)

    @property
    def path(self):
        return self.results / "fast-chip-7-2-cores" / "stub.json"

    @property
    def record(self):
        return json.loads(self.path.read_text())

    @property
    def runs(self):
        return [(run["arm"], run["seed"], run["shorten"]) for run in self.record["runs"]]


@pytest.fixture
def run(stub, tmp_path):
    return Runner(tmp_path)


def test_what_a_run_leaves_on_record(stub, run):
    assert run(["tall"], shorten=4) == []
    assert stub.loaded == ["squares"]
    parts = ("train_images", "train_labels", "test_images", "test_labels")
    arrays = [f"{part} of squares" for part in parts]
    assert stub.task == ("squares", *arrays, torch.device("cpu"))
    assert (stub.folder, stub.deadline) == (run.folder, None)
    assert (run.record["paper"], run.record["machine"]) == ("stub", "Fast(TM) Chip 7, 2 cores")
    (entry,) = run.record["runs"]
    assert entry["accuracy"] == {"kind": 10.0}
    assert (entry["arm"], entry["seed"], entry["shorten"]) == ("tall", 0, 4)
    assert entry["torch"] == torch.__version__
    assert entry["python"].split(".")[:2] == [str(n) for n in sys.version_info[:2]]
    # nothing on record names a user, a path or a machine
    text = run.path.read_text()
    assert not any(word in text for word in (str(run.results.parent), os.uname().nodename))
    assert "tall / seed 0: 5 of 10,000" in run.said[0]
    assert "tall / seed 0: {'kind': 10.0} in 1 s" in run.said[-1]


def test_arms_come_in_order_one_seed_after_the_other(stub, run):
    run(["wide", "tall"], [3, 1])
    expected = [("wide", 3, 1), ("tall", 3, 1), ("wide", 1, 1), ("tall", 1, 1)]
    assert stub.calls == run.runs == expected


def test_every_arm_gets_the_task_of_its_data_set_which_is_loaded_once(stub, run):
    stub.module.ARMS |= {"deep": arm(50, "circles"), "flat": arm(60, "circles")}
    run(["tall", "deep", "wide", "flat"], [0, 1])
    assert stub.loaded == ["squares", "circles"]
    expected = {"tall": "squares", "wide": "squares", "deep": "circles", "flat": "circles"}
    tasks = {}
    for name, _, task in stub.groups:
        dataset = expected[name]
        assert task[:2] == (dataset, f"train_images of {dataset}")
        # the very task, so that a GPU holds the images once
        assert tasks.setdefault(dataset, task) is task
    assert len(stub.groups) == 8


def test_no_data_set_is_loaded_for_arms_on_record(stub, run):
    stub.module.ARMS |= {"deep": arm(50, "circles")}
    run(["deep"])
    stub.loaded.clear()
    run(["deep", "tall"])
    assert stub.loaded == ["squares"]


def test_missing_data_are_missed_before_the_hours_of_another_arm(stub, run, monkeypatch):
    stub.module.ARMS |= {"deep": arm(50, "circles")}

    def load(name):
        if name == "circles":
            raise RuntimeError("the data set circles is not available")
        return stub.load(name)

    monkeypatch.setattr(press_scale.datasets, "load", load)
    with pytest.raises(RuntimeError, match="circles is not available"):
        run(["tall", "deep"])
    assert not stub.calls


@pytest.fixture
def gpu(stub, monkeypatch):
    """A stub with an arm whose seeds make one program, and a GPU that nothing touches."""
    stub.module.ARMS |= {"deep": arm(50, "circles", together=True)}
    device = torch.device("cuda", 0)
    monkeypatch.setattr(press_scale, "resolve_device", lambda _: device)
    return stub


def groups(stub):
    return [(name, seeds) for name, seeds, _ in stub.groups]


def test_seeds_of_an_arm_run_together_on_a_gpu(gpu, run):
    """Where the arm asks for it; the group comes where its first seed would."""
    assert run(["tall", "deep"], [2, 0, 1]) == []
    expected = [("tall", (2,)), ("deep", (2, 0, 1)), ("tall", (0,)), ("tall", (1,))]
    assert groups(gpu) == expected
    assert gpu.task[-1] == torch.device("cuda", 0)
    # a record of each seed, with what belongs to it
    assert run.runs == gpu.calls
    accuracies = [entry["accuracy"]["kind"] for entry in run.record["runs"]]
    assert accuracies == [10.0 * k for k in range(1, 7)]
    for entry in run.record["runs"]:
        assert entry.keys() == run.record["runs"][0].keys()
    assert "deep / seed 2, 0, 1: 5 of 10,000" in run.said[2]
    for seed in (2, 0, 1):
        assert any(line.startswith(f"deep / seed {seed}: {{'kind'") for line in run.said)


def test_on_a_processor_every_seed_runs_alone(gpu, run, monkeypatch):
    monkeypatch.setattr(press_scale, "resolve_device", torch.device)
    run(["tall", "deep"], [2, 0])
    assert groups(gpu) == [("tall", (2,)), ("deep", (2,)), ("tall", (0,)), ("deep", (0,))]
    assert gpu.task[-1] == torch.device("cpu")


def test_of_a_group_the_seeds_on_record_are_left_out(gpu, run):
    run(["deep"], [1])
    before = run.record["runs"]
    run(["deep"], [0, 1, 2, 2])
    assert groups(gpu) == [("deep", (1,)), ("deep", (0, 2))]
    assert run.runs == [("deep", 1, 1), ("deep", 0, 1), ("deep", 2, 1)]
    assert run.record["runs"][:1] == before
    run(["deep"], [2, 1, 0])
    assert len(gpu.groups) == 2
    assert "all on record" in run.said[-1]
    # a trial of another length is not on record
    run(["deep"], [2, 1, 0], shorten=5)
    assert groups(gpu)[-1] == ("deep", (2, 1, 0))


def test_a_paused_group_is_left_as_a_whole(gpu, run):
    gpu.pauses = {("deep", 1)}
    assert run(["deep", "tall"], [0, 1], minutes=60) == ["deep / seed 0, 1"]
    assert sorted(run.runs) == [("tall", 0, 1), ("tall", 1, 1)]
    gpu.pauses = set()
    assert run(["deep", "tall"], [0, 1], minutes=60) == []
    # with the same seeds, as its checkpoint is theirs together
    assert groups(gpu)[-1] == ("deep", (0, 1))
    assert {("deep", 0, 1), ("deep", 1, 1)} < set(run.runs)


def test_what_is_on_record_is_left_out(stub, run):
    run(["tall"])
    before = run.path.read_text()
    stub.loaded.clear()
    assert run(["tall"]) == []
    assert (len(stub.calls), stub.loaded) == (1, [])
    assert run.path.read_text() == before
    assert "all on record" in run.said[-1]
    # another seed, another arm and a trial are not on record
    run(["tall", "wide"], [0, 1])
    run(["tall"], shorten=100)
    assert run.runs == [
        ("tall", 0, 1),
        ("wide", 0, 1),
        ("tall", 1, 1),
        ("wide", 1, 1),
        ("tall", 0, 100),
    ]
    assert len(stub.calls) == 5


def test_a_run_that_is_asked_for_twice_is_made_once(stub, run):
    run(["tall", "tall"], [0, 0])
    assert stub.calls == [("tall", 0, 1)]


def test_a_paused_arm_is_left_and_the_next_command_goes_on(stub, run):
    stub.pauses = {("tall", 0)}
    assert run(minutes=60) == ["tall / seed 0"]
    assert run.runs == [("wide", 0, 1)]
    assert "paused: tall stopped" in run.said
    stub.pauses = set()
    assert run(minutes=60) == []
    assert sorted(run.runs) == [("tall", 0, 1), ("wide", 0, 1)]
    assert [call[0] for call in stub.calls] == ["tall", "wide", "tall"]


def test_no_arm_begins_after_the_deadline(stub, run, monkeypatch):
    clock = [100.0]
    monkeypatch.setattr(press_scale.time, "monotonic", lambda: clock[0])
    honest = stub.run_arm

    def slow(*args, **options):
        clock[0] += 90
        return honest(*args, **options)

    stub.module.run_arm = slow
    # the second begins in time, the third would not
    assert run(seeds=[0, 1], minutes=2) == ["tall / seed 1", "wide / seed 1"]
    assert stub.deadline == 220.0
    assert run.runs == [("tall", 0, 1), ("wide", 0, 1)]


def test_runs_that_another_command_wrote_meanwhile_are_kept(stub, run):
    honest = stub.run_arm

    def beside(*args, **options):
        found = honest(*args, **options)
        other = Runner(run.results.parent)
        stub.module.run_arm = honest
        other(["wide"], [7])
        return found

    stub.module.run_arm = beside
    run(["tall"])
    assert run.runs == [("wide", 7, 1), ("tall", 0, 1)]


def test_of_a_run_that_two_commands_made_the_later_record_counts(stub, run):
    honest = stub.run_arm

    def beside(*args, **options):
        stub.module.run_arm = honest
        Runner(run.results.parent)(["wide", "tall"])
        return honest(*args, **options)

    stub.module.run_arm = beside
    run(["tall"])
    assert stub.calls == [("wide", 0, 1), ("tall", 0, 1), ("tall", 0, 1)]
    assert run.runs == [("wide", 0, 1), ("tall", 0, 1)]
    assert run.record["runs"][-1]["accuracy"] == {"kind": 30.0}


def test_commands_at_once_do_not_lose_each_others_runs(stub, run, monkeypatch):
    """Each reads the record, adds to it and writes it; meanwhile the others have to wait."""
    write = press_scale._write

    def slow(path, data):
        time.sleep(0.01)
        write(path, data)

    monkeypatch.setattr(press_scale, "_write", slow)
    with ThreadPoolExecutor(4) as pool:
        jobs = [pool.submit(run, ["tall"], [k, k + 1, k + 2]) for k in (0, 3, 6, 9)]
        assert [job.result(60) for job in jobs] == [[]] * 4
    assert sorted(run.runs) == [("tall", seed, 1) for seed in range(12)]
    assert not list(run.results.rglob("*.part"))


def test_a_record_is_written_whole_or_not_at_all(stub, run, monkeypatch):
    run(["tall"])
    before = run.path.read_text()
    with monkeypatch.context() as patch:

        def fail(*_):
            raise OSError("the disk is gone")

        patch.setattr(press_scale.os, "replace", fail)
        with pytest.raises(OSError, match="the disk is gone"):
            run(["wide"])
    assert run.path.read_text() == before
    run(["wide"])
    assert run.runs == [("tall", 0, 1), ("wide", 0, 1)]


def test_what_is_no_json_is_not_put_on_record(stub, run):
    """NaN is none; a record that other programs cannot read must not replace a good one."""
    run(["tall"])
    stub.module.run_arm = lambda arm, seeds, task, **_: [
        {"seed": seed, "accuracy": {"kind": float("nan")}, "seconds": 1.0} for seed in seeds
    ]
    with pytest.raises(ValueError, match="JSON"):
        run(["wide"])
    assert run.runs == [("tall", 0, 1)]


def test_the_record_says_from_which_code(stub, run, tmp_path):
    digests = []
    for k, name in enumerate((None, "papers/stub/other.py", "kernels/fast.py", None)):
        if name:
            (tmp_path / "src" / name).write_text(f"x = {k + 1}\n")
        run(["tall"], [k])
        digests.append(run.record["runs"][-1]["code"])
    assert len(set(digests[:3])) == 3
    assert digests[3] == digests[2]
    # line ends of another system are not another code
    (tmp_path / "src" / "kernels" / "fast.py").write_bytes(b"x = 3\r\n")
    run(["tall"], [9])
    assert run.record["runs"][-1]["code"] == digests[3]


def test_code_that_is_edited_while_it_runs_is_not_that_on_record(stub, run, tmp_path):
    """What runs was imported before; its digest is of the same time."""
    run(["tall"], [7])
    honest = stub.run_arm

    def edited(*args, **options):
        (tmp_path / "src" / "papers" / "stub" / "other.py").write_text(f"x = {len(stub.calls)}\n")
        return honest(*args, **options)

    stub.module.run_arm = edited
    run(["tall", "wide"], [0, 1])
    codes = [entry["code"] for entry in run.record["runs"]]
    assert len(codes) == 5
    assert len(set(codes)) == 1
    # the control: the next command runs what was written
    run(["tall"], [8])
    assert run.record["runs"][-1]["code"] != codes[0]


@pytest.mark.parametrize(
    ("arms", "options", "message"),
    [
        (["round"], {}, "no arm 'round'; stub has tall, wide"),
        (["tall"], {"minutes": 0}, "--minutes must be greater than 0, got 0"),
        (["tall"], {"minutes": float("nan")}, "--minutes must be greater than 0"),
        (["tall"], {"shorten": 0}, "--shorten must be at least 1, got 0"),
        (["tall"], {"device": "tpu"}, "device must be auto, cpu, cuda or cuda:N; got 'tpu'"),
        (["tall"], {"device": "cuda:99"}, "was asked for, but torch sees"),
    ],
)
def test_bad_requests_are_refused_before_anything_runs(stub, run, arms, options, message):
    with pytest.raises(BadInput, match=message):
        run(arms, **options)
    assert not stub.calls
    assert not run.results.exists()


@pytest.mark.parametrize(
    ("paper", "message"),
    [
        ("nothing", "nothing has no runs at the paper's scale"),
        ("selu", "selu has no runs at the paper's scale"),
        ("Super-Convergence", "named like its module, such as super_convergence"),
        ("..evil", "named like its module"),
        ("selu.scale", "named like its module"),
    ],
)
def test_papers_without_such_runs_are_refused(paper, message):
    with pytest.raises(BadInput, match=message):
        scale_module(paper)


def test_a_module_that_fails_to_import_is_not_called_missing(stub, monkeypatch):
    def broken(name):
        raise ModuleNotFoundError("No module named 'fastmath'", name="fastmath")

    monkeypatch.setattr(press_scale.importlib, "import_module", broken)
    with pytest.raises(ModuleNotFoundError, match="fastmath"):
        scale_module("stub")


@pytest.mark.parametrize(
    ("model", "folder"),
    [
        ("NVIDIA H100 80GB HBM3", "nvidia-h100-80gb-hbm3"),
        ("Intel(R) Xeon(R) CPU @ 2.20GHz, 2 cores", "intel-xeon-cpu-2-20ghz-2-cores"),
        ("Fast(tm) Chip/7..", "fast-chip-7"),
    ],
)
def test_folders_are_named_after_models(model, folder):
    assert machine_folder(model) == folder


def command(*args):
    app = typer.Typer()
    app.command()(scale_command)
    return CliRunner().invoke(app, [str(a) for a in args])


def test_the_command(stub, run, tmp_path):
    options = ("--results", run.results, "--folder", run.folder, "--device", "cpu")
    stub.pauses = {("wide", 2)}
    done = command("stub", "wide", "tall", "--seeds", "0, 2", "--minutes", 60, *options)
    assert done.exit_code == 0, done.output
    assert stub.calls == [("wide", 0, 1), ("tall", 0, 1), ("wide", 2, 1), ("tall", 2, 1)]
    assert "left for the next piece: wide / seed 2" in done.output
    # checkpoints of papers lie apart
    assert stub.folder == run.folder / "stub"
    stub.calls.clear()
    done = command("stub", "--shorten", 50, *options)
    assert stub.calls == [("tall", 0, 50), ("wide", 0, 50)]
    assert "left" not in done.output


def test_the_command_lists_arms(stub, run):
    done = command("stub", "--list")
    assert done.exit_code == 0
    assert [line.split() for line in done.output.splitlines()] == [
        ["tall", "10,000", "iterations", stub.module.ARMS["tall"].dataset],
        ["wide", "200", "iterations", stub.module.ARMS["wide"].dataset],
    ]
    assert not stub.calls


@pytest.mark.parametrize("seeds", ["", "one", "1.5", "-1", "0,,1"])
def test_the_command_refuses_other_seeds(stub, run, seeds):
    done = command("stub", f"--seeds={seeds}", "--results", run.results, "--device", "cpu")
    assert done.exit_code
    assert isinstance(done.exception, BadInput)
    assert "--seeds is given as 0 or 0,1,2" in str(done.exception)
    assert not stub.calls


def test_the_module_runs_as_a_script_and_answers_bad_input_in_a_sentence(tmp_path):
    script = [sys.executable, "-m", "reproductions.press.scale", "super_convergence"]

    def answer(*args):
        return subprocess.run(
            [*script, *args], capture_output=True, text=True, cwd=tmp_path, check=False
        )

    listed = answer("--list")
    assert listed.returncode == 0, listed.stderr
    assert "cycle-10k" in listed.stdout
    refused = answer("no-such-arm")
    assert refused.returncode == 2
    assert "no arm 'no-such-arm'" in refused.stderr
    assert "Traceback" not in refused.stderr


def test_the_module_needs_nothing_for_notebooks(tmp_path):
    """On the machine with the GPU the book's own tools are missing."""
    missing = (
        *("nbformat", "nbclient", "papermill", "jupytext", "IPython", "ipykernel"),
        *("jupyter_client", "jupyter_book", "sphinx", "docutils", "bs4", "rich", "psutil"),
        *("dask", "distributed", "cvxpy"),
    )
    code = f"""
import sys

class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {missing!r}:
            raise ModuleNotFoundError(name, name=name)

sys.meta_path.insert(0, Missing())
import reproductions.press.scale, reproductions.press.scale_command
import reproductions.papers.super_convergence.scale
try:
    import reproductions.press.build
except ModuleNotFoundError as error:
    print("hidden:", error.name)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, check=False
    )
    assert done.returncode == 0, done.stderr[-500:]
    # the control: what makes notebooks does not import there
    assert done.stdout.startswith("hidden: ")
