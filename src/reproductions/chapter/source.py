"""Show the code of an equation where the chapter explains it, so that it is never retyped."""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Callable
from typing import Any

__all__ = ["show_source", "source_without_docstring"]


def source_without_docstring(function: Callable[..., Any]) -> str:
    """Source of ``function`` as it stands in its file, its docstring left out."""
    lines = textwrap.dedent(inspect.getsource(function)).splitlines()
    definition = ast.parse("\n".join(lines)).body[0]
    if ast.get_docstring(definition) is not None:
        docstring = definition.body[0]
        del lines[docstring.lineno - 1 : docstring.end_lineno]
    return "\n".join(lines).strip()


def show_source(*functions: Callable[..., Any]) -> None:
    """Display the source of ``functions`` as highlighted Python, one block each."""
    from IPython.display import display

    for function in functions:
        code = source_without_docstring(function)
        bundle = {"text/markdown": f"```python\n{code}\n```", "text/plain": code}
        display(bundle, raw=True)
