"""A miniature of the book: its own prose, theme and settings around one small chapter."""

from __future__ import annotations

import base64
import io
import shutil
import time
from pathlib import Path
from typing import Any

import nbformat
import pytest
from PIL import Image, ImageDraw

from reproductions.chapter import claims as claims_module
from reproductions.chapter import figures as figures_module
from reproductions.press.book import Book
from reproductions.press.scoreboard import write_pages
from reproductions.press.site import SiteReport, build_site

ROOT = Path(__file__).resolve().parents[2]

CHAPTER = """# SELU fixed points

One layer moves mean and variance; watch them walk to (0, 1).

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


def figure_html(widget: str = "") -> str:
    stored = {
        "alt": "A line that rises and then levels off.",
        "caption": "The variance rises and then levels off at one.",
        "widget": widget,
        "config": {"alpha": 1.6732632423543773, "scale": 1.0507009873554805},
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
    for name in ("_config.yml", "_toc.yml"):
        shutil.copy(ROOT / name, root / name)
    generated = shutil.ignore_patterns("_generated", "scoreboard.*")
    shutil.copytree(ROOT / "book", root / "book", ignore=generated)
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
