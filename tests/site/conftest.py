"""A miniature of the book: its own prose, theme and settings around one small chapter."""

from __future__ import annotations

import base64
import io
import math
import re
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat
import numpy as np
import pytest
from PIL import Image, ImageDraw

sys.path.insert(0, str(Path(__file__).parent))

from site_browser import Browser

from reproductions.chapter import claims as claims_module
from reproductions.chapter import figures as figures_module
from reproductions.press.book import Book
from reproductions.press.scoreboard import write_pages
from reproductions.press.site import SiteReport, build_site

ROOT = Path(__file__).resolve().parents[2]

CHAPTER = """# SELU fixed points

One layer moves mean and variance; watch them walk to (0, 1).
(First `%pip install -q git+https://github.com/theory-you-can-run/theory-you-can-run`.)

## In one minute

{cite:t}`klambauer2017self` choose $\\alpha$ and $\\lambda$ so that $(0, 1)$ is a fixed point,

```{math}
:label: eq-map
\\tilde{\\nu} = \\E\\, \\selu(z)^2 - \\tilde{\\mu}^2, \\qquad z \\sim \\N(\\mu\\omega, \\nu\\tau).
```

Equation {eq}`eq-map` is the whole chapter; {ref}`ex-map` asks for it.

```{margin}
A margin note, which must not float into the text on a phone.
```

```{prf:theorem} Contraction
:label: thm-contraction
On the box the spectral norm $\\norm{J}_2$ of the Jacobian is below one.
```
"""

EXERCISE = """## Exercises

```{exercise}
:label: ex-map
Show that $\\Var(aX) = a^2 \\Var(X)$.
```

```{solution} ex-map
:class: dropdown
Expand the square inside $\\E$.
```
"""


def _png(theme: str) -> str:
    ink = {"light": "#0b62a4", "dark": "#6cb8f0"}[theme]
    image = Image.new("RGBA", (1110, 540), (0, 0, 0, 0))
    ImageDraw.Draw(image).line([(40, 500), (400, 200), (1080, 60)], fill=ink, width=6)
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()


SELU = {"alpha": 1.6732632423543773, "scale": 1.0507009873554805}


def circle() -> dict[str, Any]:
    """Made up so that what the figure has to say about it is known without computing."""
    angles = np.linspace(-math.pi, math.pi, 13)
    times = [0, 1, 3.16, 10, 31.6, 100]
    limit = 2 + np.cos(angles)
    above = np.array(
        [[0.1, 0.21, 0.32, 0.43, 0.54, 0.65], [0.001, 0.001, 0.002, -0.02, -0.2, -0.3]]
    )
    mean = np.outer(times, np.sin(angles)) / 200
    sd = np.tile(np.linspace(0.15, 0.1, 6)[:, None], 13)
    # two standard deviations away at the first angle, which is also the last, and the next two
    away = np.array([2, 2, 2, *[0] * 9, 2])
    return {
        "angles": angles.tolist(),
        "points": [[-2.0, 0.3], [-0.5, -0.4], [0.5, 0.4], [2.0, -0.3]],
        "widths": [16, 64],
        "times": times,
        "f": [(mean + away * sd).tolist(), mean.tolist()],
        "kernel": ((1 + above)[:, :, None] * limit).tolist(),
        "mean": mean.tolist(),
        "sd": sd.tolist(),
        "limit": limit.tolist(),
        "depths": [2, 3, 4],
        "shapes": [(1 - (1 - np.cos(angles)) / (2 * d)).tolist() for d in (2, 3, 4)],
        "start": {"width": 0, "time": 1, "depth": 1},
    }


def figure_html(widget: str = "", config: dict[str, Any] = SELU) -> str:
    stored = {
        "alt": "A line that rises and then levels off.",
        "caption": "The variance rises and then levels off at one.",
        "widget": widget,
        "config": config,
    }
    return figures_module.render_html(stored, _png("light"), _png("dark"))


def claims_data() -> dict[str, Any]:
    table = claims_module.Claims(
        "selu_fixed_points",
        {
            "C3": ("The Jacobian at (0, 1) has a spectral norm below one.", "Eq. 6, p. 4"),
            "C16": ("Deep networks keep their AUC on Tox21.", "Table 2, p. 8"),
        },
    )
    table.settle(
        "C3",
        claims_module.measured(
            "spectral norm", 0.78767336046572, claims_module.below(1.0), paper=0.7877
        ),
        claims_module.measured("analytic equals autograd", True, claims_module.holds()),
    )
    table.not_run("C16", "the data set is not public")
    return table.data(complete=True)


def notebook() -> nbformat.NotebookNode:
    def output(html: str, stored: dict[str, Any] | None = None) -> nbformat.NotebookNode:
        data = {"text/html": html, "text/plain": "as text"} | (stored or {})
        return nbformat.v4.new_output("display_data", data)

    def cell(source: str, *outputs: nbformat.NotebookNode) -> nbformat.NotebookNode:
        return nbformat.v4.new_code_cell(source, execution_count=1, outputs=list(outputs))

    data = claims_data()
    wide = "image_mu, image_nu = moment_map(mu, nu, omega, tau, alpha=ALPHA, scale=SCALE)  # "
    cells = [
        nbformat.v4.new_markdown_cell(CHAPTER),
        cell(
            wide + "x" * (88 - len(wide)),
            nbformat.v4.new_output("stream", name="stdout", text="1 box\n"),
        ),
        cell("draw()", output(figure_html(), {figures_module.FIGURE_MIME: {}})),
        cell("play()", output(figure_html("selu-map"), {figures_module.FIGURE_MIME: {}})),
        cell(
            "train()", output(figure_html("ntk-circle", circle()), {figures_module.FIGURE_MIME: {}})
        ),
        cell("uci()", output('<p class="repro-skipped">HTRU2 is not here.</p>')),
        cell(
            "claims.table()",
            output(claims_module.render_html(data), {claims_module.CLAIMS_MIME: data}),
        ),
        nbformat.v4.new_markdown_cell(EXERCISE),
    ]
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    return nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": kernel})


def write_book(root: Path) -> None:
    shutil.copy(ROOT / "_config.yml", root)
    listed = (ROOT / "_toc.yml").read_text(encoding="utf-8").splitlines(keepends=True)
    other = re.compile(r"- file: chapters/(?!selu_fixed_points\b)")
    (root / "_toc.yml").write_text("".join(line for line in listed if not other.search(line)))
    generated = shutil.ignore_patterns("_generated", "scoreboard.*")
    shutil.copytree(ROOT / "book", root / "book", ignore=generated)
    # this book has one chapter: the introduction leads to it
    intro = root / "book" / "intro.md"
    text = intro.read_text(encoding="utf-8").replace("/super_convergence.", "/selu_fixed_points.")
    intro.write_text(text, encoding="utf-8")
    (root / "chapters").mkdir()
    nbformat.write(notebook(), root / "chapters" / "selu_fixed_points.ipynb")
    (root / "chapters" / "selu_fixed_points.py").write_text("# %%\n", encoding="utf-8")
    write_pages(Book(root))


@pytest.fixture(scope="session")
def book(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("book")
    write_book(root)
    return root


@pytest.fixture(scope="session")
def report(book: Path) -> SiteReport:
    started = time.monotonic()
    built = build_site(book)
    assert built.seconds <= time.monotonic() - started
    return built


@pytest.fixture(scope="session")
def browser(report: SiteReport, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    opened = Browser(tmp_path_factory.mktemp("profile"), report.html_dir)
    yield opened
    opened.close()
