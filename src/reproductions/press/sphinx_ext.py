"""Sphinx extension of the book: no request leaves the page, chapters open with their strip.

Jupyter Book loads ``sphinx_thebe`` whatever the configuration says, and that extension points every
page at a script on another host; its listeners are removed here. A chapter's generated strip
(verdict counts, minutes, downloads) is put under the chapter's title, so that the notebook itself
stays readable outside the book, and the chapter's ``.py`` source is offered beside the notebook.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx

__all__ = ["STRIP_FILE", "setup"]

#: Where the strip of ``chapters/NAME`` is looked for, relative to the root of the book.
STRIP_FILE = "book/_generated/strip-{name}.html"


def _drop_thebe(app: Sphinx) -> None:
    for listeners in app.events.listeners.values():
        listeners[:] = [
            listener
            for listener in listeners
            if not listener.handler.__module__.startswith("sphinx_thebe")
        ]
    app.registry.css_files[:] = [
        entry for entry in app.registry.css_files if not entry[0].startswith("sphinx-thebe")
    ]


def _chapter(docname: str) -> str | None:
    folder, _, name = docname.rpartition("/")
    return name if folder == "chapters" else None


def _insert_strip(app: Sphinx, doctree: nodes.document) -> None:
    name = _chapter(app.env.docname)
    if name is None:
        return
    strip = Path(app.srcdir) / STRIP_FILE.format(name=name)
    if not strip.is_file():
        return
    app.env.note_dependency(str(strip))
    title = next(iter(doctree.findall(nodes.title)), None)
    if title is not None:
        html = nodes.raw("", strip.read_text(encoding="utf-8"), format="html")
        title.parent.insert(title.parent.index(title) + 1, html)


def _offer_python_source(
    app: Sphinx, pagename: str, templatename: str, context: dict[str, Any], doctree: Any
) -> None:
    name = _chapter(pagename)
    if name is None or not (Path(app.srcdir) / "chapters" / f"{name}.py").is_file():
        return
    for group in context.get("header_buttons", []):
        if group.get("label") == "download-buttons":
            group["buttons"].insert(
                1,
                {
                    "type": "link",
                    "url": f"{context['pathto']('_sources', 1)}/chapters/{name}.py",
                    "text": ".py",
                    "icon": "fas fa-file-code",
                    "tooltip": "Download the chapter as a Python file",
                    "label": "download-python-button",
                },
            )


def _plain_front_title(
    app: Sphinx, pagename: str, templatename: str, context: dict[str, Any], doctree: Any
) -> None:
    if pagename == app.config.root_doc:
        context["docstitle"] = ""  # the first page is titled like the book: once is enough


def _copy_python_sources(app: Sphinx, exception: Exception | None) -> None:
    if exception is not None or app.builder.format != "html":
        return
    for docname in app.env.found_docs:
        name = _chapter(docname)
        source = Path(app.srcdir) / "chapters" / f"{name}.py"
        if name is not None and source.is_file():
            target = Path(app.outdir) / "_sources" / "chapters" / source.name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, target)


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the extension with Sphinx."""
    _drop_thebe(app)
    app.connect("doctree-read", _insert_strip)
    # after the theme (501), which builds the buttons
    app.connect("html-page-context", _offer_python_source, priority=600)
    app.connect("html-page-context", _plain_front_title)
    app.connect("build-finished", _copy_python_sources)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
