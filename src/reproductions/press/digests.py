"""Digests of what a stored output depends on: the source, the modules it imports, the versions.

Imports are read from the syntax tree, nothing is executed. Imports inside functions count, and so
do the ``__init__`` files of all packages on the way and the data files that lie beside a module.
"""

from __future__ import annotations

import ast
import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path

from reproductions.press.book import Book, Chapter
from reproductions.press.errors import BadInput

__all__ = ["combine", "environment_digest", "file_digest", "module_digests"]

_LENGTH = 16


def file_digest(path: Path) -> str:
    """Digest of a file's bytes, the same for both conventions of line ends."""
    return _digest(path.read_bytes().replace(b"\r\n", b"\n"))


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:_LENGTH]


def combine(parts: Mapping[str, str]) -> str:
    """One digest for many."""
    return _digest(json.dumps(dict(parts), sort_keys=True).encode())


def environment_digest(book: Book) -> str:
    """Digest of the pinned versions, comments left out; empty where nothing is pinned."""
    if not book.requirements.is_file():
        return ""
    lines = (line.partition("#")[0].strip() for line in book.requirements.read_text().splitlines())
    return _digest("\n".join(sorted(line for line in lines if line)).encode())


def module_digests(chapter: Chapter) -> dict[str, str]:
    """Module (or data file) -> digest, for all that the chapter imports from the book's ``src``."""
    src = chapter.book.src
    found: dict[str, Path] = {}
    queue = list(_imports(chapter.source, package=""))
    while queue:
        module = queue.pop()
        for name, path in _locate(module, src):
            if name not in found:
                found[name] = path
                package = name if path.name == "__init__.py" else name.rpartition(".")[0]
                queue.extend(_imports(path, package))
    files = {**found, **_data_beside(found.values(), src)}
    return {name: file_digest(files[name]) for name in sorted(files)}


def _locate(module: str, src: Path) -> Iterator[tuple[str, Path]]:
    """The files behind ``module``, its parent packages first; stops where no file is."""
    parts = module.split(".")
    for k in range(1, len(parts) + 1):
        base = src.joinpath(*parts[:k])
        name = ".".join(parts[:k])
        if (base / "__init__.py").is_file():
            yield name, base / "__init__.py"
        elif base.with_suffix(".py").is_file():
            yield name, base.with_suffix(".py")
            return
        elif not base.is_dir():
            return


def _imports(path: Path, package: str) -> Iterator[str]:
    try:
        tree = ast.parse(path.read_text(encoding="utf-8"), filename=path.name)
    except (SyntaxError, UnicodeDecodeError) as error:
        raise BadInput(f"{package or path.name}, {path.name}: no valid Python ({error})") from None
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parents = package.split(".")
                above = parents[: len(parents) - node.level + 1]
                base = ".".join([*above, base] if base else above)
            yield base
            # what is imported may be a submodule; where it is not, no file is found for it
            yield from (f"{base}.{alias.name}" for alias in node.names if alias.name != "*")
        elif isinstance(node, ast.Call) and _is_import_module(node.func) and node.args:
            target = node.args[0]
            if isinstance(target, ast.Constant) and isinstance(target.value, str):
                name = target.value
                relative = name.startswith(".")
                yield f"{package}{name}" if relative else name


def _is_import_module(func: ast.expr) -> bool:
    name = func.attr if isinstance(func, ast.Attribute) else getattr(func, "id", "")
    return name == "import_module"


def _data_beside(modules: Iterator[Path], src: Path) -> dict[str, Path]:
    """Files that are no Python, in the modules' folders and in subfolders that are no packages."""
    data: dict[str, Path] = {}
    for folder in {path.parent for path in modules}:
        pending = [folder]
        while pending:
            for entry in pending.pop().iterdir():
                if entry.name.startswith((".", "__pycache__")):
                    continue
                if entry.is_dir():
                    if not any(entry.glob("*.py")) and entry.name.find(".") < 0:
                        pending.append(entry)
                elif entry.suffix not in (".py", ".pyc", ".so", ".pyd"):
                    data[entry.relative_to(src).as_posix()] = entry
    return data
