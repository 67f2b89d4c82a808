"""Quoted code is the code that runs, without its docstring."""

from reproductions.chapter.source import source_without_docstring


def with_docstring(x):
    """One line."""
    return x + 1


def with_long_docstring(
    x,
    y=2,
):
    """Several

    lines.
    """
    # a comment stays
    return x * y


def without_docstring(x):
    return "not a docstring"


def test_the_docstring_goes_and_the_code_stays():
    assert source_without_docstring(with_docstring) == "def with_docstring(x):\n    return x + 1"
    code = source_without_docstring(with_long_docstring)
    assert "Several" not in code
    assert code.endswith("# a comment stays\n    return x * y")
    assert code.startswith("def with_long_docstring(\n    x,\n    y=2,\n):")
    assert 'return "not a docstring"' in source_without_docstring(without_docstring)
