"""The house: data flows one way, every import is declared, triton waits until it is asked for."""

import ast
import json
import re
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / "src" / "reproductions"
#: A room may import from the rooms named here, and from itself.
ALLOWED = {
    "kernels": {"_validate"},
    "papers": {"_validate", "kernels"},
    "chapter": {"_validate"},
    "press": {"_validate", "chapter"},
}


def imports(path: Path) -> set[str]:
    """Absolute module names that a file imports, relative imports resolved, functions included."""
    found = set()
    package = path.relative_to(SOURCE.parent).parent.parts if SOURCE in path.parents else ()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package[: len(package) - node.level + 1]) if node.level else ""
            module = ".".join(filter(None, [base, node.module]))
            found |= {module} | {f"{module}.{alias.name}" for alias in node.names}
    return found


def upward(room: str, modules: set[str]) -> set[str]:
    """Imports of other rooms that ``room`` may not make."""
    rooms = {m.split(".")[1] for m in modules if m.startswith("reproductions.")}
    return {r for r in rooms if r in {*ALLOWED, "_validate"}} - ALLOWED[room] - {room}


@pytest.mark.parametrize("room", ALLOWED)
def test_no_import_runs_upwards(room):
    for path in (SOURCE / room).rglob("*.py"):
        assert not upward(room, imports(path)), f"{path.relative_to(ROOT)} imports upwards"


def test_the_upward_check_can_fail():
    assert upward("kernels", {"reproductions.papers.selu"}) == {"papers"}
    assert upward("papers", {"reproductions.chapter.claims"}) == {"chapter"}
    assert not upward("papers", {"reproductions.kernels.replica", "torch"})


def declared(extras: tuple[str, ...] = ()) -> set[str]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lines = list(project["dependencies"])
    for extra in extras:
        lines += project["optional-dependencies"][extra]
    return {re.match(r"[A-Za-z0-9_.-]+", line).group().lower().replace("_", "-") for line in lines}


@pytest.mark.parametrize(
    ("folders", "extras"),
    [
        (("src", "chapters"), ("gpu", "scale", "test")),
        (("tests", "benchmarks", "conftest.py"), ("gpu", "scale", "test", "bench")),
    ],
)
def test_every_import_is_declared(folders, extras):
    owners = packages_distributions()
    local = {p.stem for f in folders for p in (ROOT / f).rglob("*.py")} | {"reproductions"}
    for folder in folders:
        top = ROOT / folder
        for path in [top] if top.is_file() else sorted(top.rglob("*.py")):
            for module in imports(path):
                name = module.split(".")[0]
                if not name or name in sys.stdlib_module_names or name in local:
                    continue
                names = {o.lower().replace("_", "-") for o in owners.get(name, [name])}
                assert names & declared(extras), (
                    f"{path.relative_to(ROOT)} imports {name}: declare it in pyproject.toml"
                )


def test_every_declared_package_is_locked():
    locked = {
        line.split("==")[0].lower().replace("_", "-")
        for line in (ROOT / "requirements.lock").read_text().splitlines()
        if "==" in line
    }
    missing = declared(("test", "gpu", "scale", "bench")) - locked
    assert not missing, f"run `make lock`: {sorted(missing)} have no exact version"
    assert "torch==2.13.0" in (ROOT / "requirements.lock").read_text().splitlines()


def test_recorded_runs_travel_with_the_package():
    """A chapter in Colab has the package alone; ``results/cpu`` has scores, which nobody reads."""
    shares = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    # results that a reader has made and not committed are no business of the package
    tracked = subprocess.run(
        ["git", "ls-files", "results"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if tracked.returncode:
        pytest.skip("this is no git checkout, which could say what belongs to the book")
    folders = {
        Path(name).parent
        for name in tracked.stdout.split()
        if name.endswith(".json") and "runs" in json.loads((ROOT / name).read_text())
    }
    assert folders
    expected = {f"share/reproductions/{folder}": [f"{folder}/*.json"] for folder in folders}
    assert shares["data-files"] == expected, "see [tool.setuptools.data-files] in pyproject.toml"


def test_environment_yml_repeats_no_version():
    text = (ROOT / "environment.yml").read_text()
    assert "-r requirements.lock" in text
    assert "==" not in text


def test_importing_the_package_imports_no_triton():
    rooms = (
        *(f"kernels.{folder.parent.name}" for folder in (SOURCE / "kernels").glob("*/__init__.py")),
        *(f"papers.{folder.parent.name}" for folder in (SOURCE / "papers").glob("*/__init__.py")),
        "chapter",
        "press.cli",
    )
    code = "import sys\n" + "".join(f"import reproductions.{r}\n" for r in rooms)
    code += "print(sorted(m for m in sys.modules if m == 'triton'))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
