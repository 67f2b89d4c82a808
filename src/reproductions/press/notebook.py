"""A chapter's two files: read the source, put outputs beside it, write the pair's other half.

Everything in a stored notebook but the outputs comes from the ``.py`` file. After an execution the
outputs are taken over into a freshly read notebook, so nothing papermill writes can stay behind.
"""

from __future__ import annotations

import ast
import hashlib
import json
import os
import re
import tempfile
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jupytext
import nbformat
from nbformat import NotebookNode

from reproductions.press.book import PROFILES, Chapter
from reproductions.press.digests import combine, environment_digest, file_digest, module_digests
from reproductions.press.errors import BadInput

__all__ = [
    "ALLOWED_TAGS",
    "clean_outputs",
    "code_cells",
    "inject",
    "mask_addresses",
    "merge_streams",
    "output_digest",
    "output_faults",
    "parameters_of",
    "provenance",
    "read_source",
    "read_stored",
    "stamp",
    "take_outputs",
    "write",
]

#: Tags a cell may carry. None of them makes nbval skip a cell or forget its output.
ALLOWED_TAGS = frozenset(
    {
        *("parameters", "exercise", "solution", "face"),
        *("hide-input", "hide-output", "hide-cell", "remove-input"),
        *("full-width", "margin", "popout", "scroll-output"),
    }
)

_KEPT = {"tags", "mystnb", "name", "slideshow"}
_KERNEL = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}
_ANSI = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
_ADDRESS = re.compile(r"\bat 0x[0-9a-fA-F]+")
_OVERWRITTEN = re.compile(r"^.*\r(?=[^\n])", re.MULTILINE)
_ERASED = re.compile(r"[^\n]\x08")
_BASE64 = re.compile(r"(?<=;base64,)[A-Za-z0-9+/=\s]+")


def read_source(chapter: Chapter) -> NotebookNode:
    """The notebook that ``chapter``'s source describes, without outputs, always the same bytes."""
    try:
        text = chapter.source.read_text(encoding="utf-8")
        ast.parse(text, filename=chapter.source.name)
        notebook = jupytext.reads(text, fmt="py:percent")
    except (SyntaxError, UnicodeDecodeError) as error:
        line = getattr(error, "lineno", None)
        at = f", line {line}" if line else ""
        raise BadInput(f"chapters/{chapter.source.name}{at}: no valid Python ({error})") from None
    header = notebook.metadata.get("jupytext", {})
    header.get("text_representation", {}).pop("jupytext_version", None)
    notebook.metadata = nbformat.from_dict({"jupytext": header, "kernelspec": _KERNEL})
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    for position, cell in enumerate(notebook.cells):
        # jupytext also notes how many blank lines follow a cell
        kept = {key: cell.metadata[key] for key in sorted(_KEPT & set(cell.metadata))}
        cell.metadata = nbformat.from_dict(kept)
        content = f"{position}:{cell.cell_type}:{cell.source}"
        cell.id = hashlib.sha256(content.encode()).hexdigest()[:12]
    return notebook


def read_stored(path: Path) -> NotebookNode:
    """A notebook file; BadInput when it is none."""
    try:
        return nbformat.read(path, as_version=4)
    except (
        *(nbformat.reader.NotJSONError, nbformat.ValidationError, nbformat.NBFormatError),
        *(UnicodeDecodeError, AttributeError, KeyError),
    ):
        raise BadInput(f"{path.name} is no notebook file; build it again") from None


def code_cells(notebook: NotebookNode) -> list[NotebookNode]:
    """The code cells, in order."""
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def parameters_of(notebook: NotebookNode) -> dict[str, Any]:
    """Name -> value of the parameters cell.

    Raises ValueError saying what is wrong with it: exactly one cell has the tag ``parameters``, and
    it assigns a profile, a seed and a device, each a plain literal.
    """
    tagged = [c for c in notebook.cells if "parameters" in c.metadata.get("tags", [])]
    if len(tagged) != 1:
        raise ValueError(f"{len(tagged)} cells are tagged parameters; exactly one must be")
    values: dict[str, Any] = {}
    for statement in ast.parse(tagged[0].source).body:
        plain = (
            isinstance(statement, ast.Assign)
            and len(statement.targets) == 1
            and isinstance(statement.targets[0], ast.Name)
            and isinstance(statement.value, ast.Constant)
        )
        if not plain:
            code = ast.unparse(statement)
            raise ValueError(f"the parameters cell has `{code}`, which sets no plain literal")
        values[statement.targets[0].id] = statement.value.value
    if sorted(values) != ["device", "profile", "seed"]:
        raise ValueError(
            f"the parameters cell sets {', '.join(values) or 'nothing'}; it must set exactly "
            "profile, seed and device"
        )
    if values["profile"] not in PROFILES or type(values["seed"]) is not int:
        raise ValueError(
            f"the parameters cell needs one of {', '.join(PROFILES)} as profile and an integer as "
            f"seed; it has {values['profile']!r} and {values['seed']!r}"
        )
    return values


def inject(notebook: NotebookNode, parameters: Mapping[str, Any]) -> NotebookNode:
    """Add a cell that sets ``parameters`` below the parameters cell; nothing to set adds none."""
    if not parameters:
        return notebook
    source = "\n".join(f"{name} = {value!r}" for name, value in parameters.items())
    cell = nbformat.v4.new_code_cell(source, metadata={"tags": ["injected-parameters"]})
    cell.id = hashlib.sha256(source.encode()).hexdigest()[:12]
    place = next(
        k for k, c in enumerate(notebook.cells) if "parameters" in c.metadata.get("tags", [])
    )
    notebook.cells.insert(place + 1, cell)
    return notebook


def take_outputs(notebook: NotebookNode, executed: NotebookNode) -> NotebookNode:
    """Put the outputs of ``executed`` into ``notebook``, made comparable."""
    for cell, ran in zip(code_cells(notebook), code_cells(executed), strict=True):
        cell.execution_count = ran.execution_count
        cell.outputs = clean_outputs(ran.outputs)
    return notebook


def clean_outputs(outputs: list[NotebookNode]) -> list[NotebookNode]:
    """Outputs without what differs from run to run: stream chunks, colors, memory addresses."""
    return [_clean(output) for output in merge_streams(outputs)]


def _clean(output: NotebookNode) -> NotebookNode:
    output = nbformat.from_dict(json.loads(json.dumps(output)))
    if output.output_type == "stream":
        output.text = mask_addresses(_ANSI.sub("", output.text))
    for mime, value in output.get("data", {}).items():
        if mime.startswith("text/") and isinstance(value, str):
            output.data[mime] = mask_addresses(_ANSI.sub("", value))
    return output


def mask_addresses(text: str) -> str:
    """Replace the address in ``<object at 0x7f...>``."""
    return _ADDRESS.sub("at 0x…", text)


def merge_streams(outputs: list[NotebookNode]) -> list[NotebookNode]:
    """One output a stream, at the place of its first chunk, with \\r and \\b carried out."""
    merged: list[NotebookNode] = []
    streams: dict[str, NotebookNode] = {}
    for output in outputs:
        output = nbformat.from_dict(dict(output))
        if output.output_type == "stream" and output.name in streams:
            streams[output.name].text += output.text
            continue
        if output.output_type == "stream":
            streams[output.name] = output
        merged.append(output)
    for output in streams.values():
        before = None
        while before != output.text:
            before = output.text
            output.text = _ERASED.sub("", before)
        output.text = _OVERWRITTEN.sub("", output.text)
    return merged


def output_digest(outputs: list[NotebookNode]) -> str:
    """Digest of a cell's outputs: an edited or removed output is noticed without a re-run."""
    return hashlib.sha256(json.dumps(outputs, sort_keys=True).encode()).hexdigest()[:12]


def output_faults(outputs: list[NotebookNode], root: Path) -> list[str]:
    """What must not be in a stored output, one phrase each."""
    faults = []
    for output in outputs:
        if output.output_type == "error":
            faults.append(f"has an error output ({output.ename})")
        elif output.output_type == "stream" and output.name == "stderr":
            line = output.text.strip().splitlines()[0] if output.text.strip() else ""
            faults.append(f"writes to stderr ({line[:60]!r}); turn the warning off at its source")
        data = output.get("data", {})
        if any(mime.startswith("application/vnd.jupyter.widget") for mime in data):
            faults.append("shows a widget, which says nothing in a static page")
        if any(mime in data for mime in ("image/png", "image/jpeg", "image/svg+xml")):
            faults.append(
                "has a picture without a data summary, which no re-run can compare; draw it with "
                "reproductions.chapter.figure"
            )
        found = _machine_path(output, root)
        if found:
            faults.append(f"shows a path of this machine ({found})")
    return list(dict.fromkeys(faults))


def _machine_path(output: NotebookNode, root: Path) -> str:
    """The first absolute path in what ``output`` shows; empty if there is none."""
    texts = [output.get("text", ""), *output.get("traceback", [])]
    for value in output.get("data", {}).values():
        texts.append(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))
    text = _BASE64.sub("", "\n".join(texts))
    places = {root, Path.home(), Path(tempfile.gettempdir())} - {Path("/")}
    own = "|".join(re.escape(str(place)) for place in sorted(places))
    pattern = (
        rf"(?<![\w.:/~<-])({own})(?![\w-])[^\s'\"<>]*"
        r"|(?<![\w.:/~<-])/(home|root|tmp|Users|private|var|usr|opt|mnt|srv)/[^\s'\"<>]+"
        r"|(?<![A-Za-z])[A-Z]:\\{1,2}[\w.][^\s'\"<>]*"
        r"|[^\s'\"<>]*site-packages[^\s'\"<>]*"
    )
    match = re.search(pattern, text)
    return match.group(0)[:80] if match else ""


def provenance(chapter: Chapter) -> dict[str, Any]:
    """Digests of everything the outputs of ``chapter`` depend on, as it is at this moment."""
    modules = module_digests(chapter)
    return {
        "env": environment_digest(chapter.book),
        "modules": modules,
        "py": file_digest(chapter.source),
        "src": combine(modules),
    }


def stamp(notebook: NotebookNode, made_from: Mapping[str, Any]) -> NotebookNode:
    """Record what the outputs depend on (as of before the execution) and a digest of each."""
    outputs = {cell.id: output_digest(cell.outputs) for cell in code_cells(notebook)}
    notebook.metadata["repro"] = {**made_from, "outputs": outputs}
    return notebook


def write(notebook: NotebookNode, path: Path) -> None:
    """Write ``notebook`` in one step: a reader sees the old file or the new one, never a part."""
    text = json.dumps(notebook, indent=1, ensure_ascii=False, sort_keys=True) + "\n"
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.part")
    try:
        temporary.write_text(text, encoding="utf-8", newline="\n")
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
