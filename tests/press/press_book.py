"""A miniature book: two chapters that build in seconds, a small package that they import."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import psutil
from typer.testing import CliRunner

from reproductions.press.book import Book, Chapter
from reproductions.press.cli import app

PARAMETERS = '# %% tags=["parameters"]\nprofile = "cpu"\nseed = 0\ndevice = "auto"\n\n'

ALPHA = """\
# %% [markdown]
# # Alpha and friends
#
# Some prose.

# %% tags=["parameters"]
profile = "cpu"
seed = 0
device = "auto"

# %%
from pathlib import Path

import numpy as np

from minilib import fast
from reproductions.chapter import Claims, figure, measured, near
from reproductions.chapter.datasets._skipping import show_skipped

claims = Claims(
    "alpha",
    {
        "C1": ("Doubling doubles.", "Theorem 1"),
        "C2": ("The table sums to six.", "Table 1"),
        "C3": ("Nobody can run this.", "Section 9"),
    },
)
values = np.linspace(0.0, 1.0 + seed, 11)
print(f"doubled: {fast.double(2.0):.3f}, seed {seed}")

# %% tags=["face"]
@figure("Doubling is a line.", alt="A rising line.", data={"doubled": fast.double(values)})
def draw(fig, ink):
    fig.subplots().plot(values, fast.double(values), color=ink.cycle[0])

# %%
claims.settle("C1", measured("slope", fast.double(1.0), near(2.0, abs=0.1), drift=1e-3))
claims.show("C1")

# %%
table = Path("../data/table.txt")
if table.is_file():
    total = sum(map(float, table.read_text().split()))
    claims.settle("C2", measured("sum", total, near(6.0, abs=0.5), drift=1e-6))
    claims.show("C2")
else:
    message = "Skipped: the table cannot be had here; C2 is stored, not re-run here."
    show_skipped({"schema": 1, "dataset": "table", "claims": ["C2"], "message": message})
    claims.stored("C2", because="the table is missing")

# %%
claims.not_run("C3", "it takes a year")
claims.table()
"""

# No torch and no figure: a kernel that starts fast. The data of the table are made by hand.
BETA = """\
# %% [markdown]
# # Beta

# %% tags=["parameters"]
profile = "cpu"
seed = 0
device = "auto"

# %%
from minilib.slow import triple

print(triple(seed + 1))

# %%
from minilib.board import show

show("beta")
"""

MINILIB = {
    "__init__.py": "",
    "fast.py": "def double(x):\n    return 2 * x\n",
    "slow/__init__.py": "from .inner import triple\n",
    "slow/inner.py": "def triple(x):\n    return 3 * x\n",
    "slow/factors.csv": "3\n",
    "board.py": """\
def show(name):
    from IPython.display import display
    from reproductions.chapter.claims import CLAIMS_MIME, render_html, render_text

    row = {"id": "C1", "statement": "Tripling triples.", "source": "Lemma 1",
           "verdict": "not run here", "because": "no time", "measurements": []}
    data = {"schema": 1, "chapter": name, "complete": True, "rows": [row]}
    bundle = {CLAIMS_MIME: data, "text/html": render_html(data), "text/plain": render_text(data)}
    display(bundle, raw=True)
""",
}


def write_book(root: Path) -> Book:
    (root / "chapters").mkdir(parents=True)
    (root / "book").mkdir()
    (root / "data").mkdir()
    (root / "data" / "table.txt").write_text("1 2 3\n")
    (root / "_config.yml").write_text("title: Miniature\n")
    (root / "_toc.yml").write_text(
        "format: jb-book\nroot: book/intro\nchapters:\n"
        "  - file: chapters/beta\n  - file: chapters/alpha\n"
    )
    (root / "requirements.lock").write_text("numpy==2.4.6\n")
    (root / "chapters" / "alpha.py").write_text(ALPHA)
    (root / "chapters" / "beta.py").write_text(BETA)
    for name, text in MINILIB.items():
        path = root / "src" / "minilib" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return Book(root)


def add_chapter(book: Book, name: str, *cells: str) -> Chapter:
    """A chapter with a parameters cell and ``cells``."""
    body = "\n".join(f"# %%\n{textwrap.dedent(cell).strip()}\n" for cell in cells)
    path = book.chapters_folder / f"{name}.py"
    path.write_text(f"# %% [markdown]\n# # {name}\n\n{PARAMETERS}{body}")
    return book.chapter(name)


def reproduce(*args: str | Path):
    """The command in this process: exit_code, stdout, stderr."""
    return CliRunner().invoke(app, [str(a) for a in args], catch_exceptions=False)


def start_reproduce(*args: str | Path, **kwargs) -> subprocess.Popen[str]:
    """The command in a process of its own, which hears interrupts even if this one ignores them.

    A test run that a shell put into the background ignores them, and children inherit that.
    """
    command = [sys.executable, "-m", "reproductions.press.cli", *map(str, args)]
    return subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        **kwargs,
    )


def processes_in(root: Path) -> list[psutil.Process]:
    """Living processes whose working folder or command line lies in the book at ``root``."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.pid == os.getpid() or process.status() == psutil.STATUS_ZOMBIE:
                continue
            command = " ".join(process.cmdline())
            inside = str(root) in command or process.cwd().startswith(str(root))
            if inside:
                found.append(process)
        except psutil.Error:
            continue
    return found
