"""Syntax of newer and of older versions of Python."""

from __future__ import annotations

import sys
import textwrap

import pytest

from thinned.checks import check_source

NET = """\
import torch.nn as nn
import torch.nn.functional as F

{}

class Net(nn.Module):
    def forward(self, x):
        return F.dropout(x, 0.5)
"""


@pytest.mark.parametrize(
    "piece",
    [
        "def first[T: (int, str)](x: list[T]) -> T:\n    return x[0]",
        "class Stack[T]:\n    pass",
        "class Stack[T](dict[str, T]):\n    pass",
        "type Pair[T] = tuple[T, T]",
        "try:\n    pass\nexcept ValueError, KeyError:\n    pass",
        "text = t'{F}'",
    ],
)
def test_newer_syntax_is_read(piece):
    """The finding is where the same text without the newer syntax has it."""
    (one,) = check_source(NET.format(piece))
    line = 8 + piece.count("\n") - 1
    assert (one.code, one.line, one.column) == ("L1", line + 1, 15)


def test_type_parameters_leave_columns_in_place():
    text = NET.format("").replace("forward(self, x)", "forward[T: str](self, x: T)")
    text = text.replace("\n        return F", " return F")
    (one,) = check_source(text)
    assert text.splitlines()[one.line - 1][one.column :].startswith("F.dropout")


@pytest.mark.skipif(sys.version_info >= (3, 12), reason="the running Python reads it")
def test_what_cannot_be_read_names_the_version_that_it_needs():
    found = check_source(NET.format("""name = f"{names["first"]}\""""), "net.py")
    ((file, why),) = found.unchecked
    assert (file, len(found)) == ("net.py", 0)
    assert why.startswith("needs Python 3.12 or newer (quotes inside an f-string")


@pytest.mark.parametrize(
    "old", ["print 'done'", "try:\n    pass\nexcept ValueError, error:\n    pass"]
)
def test_python_two_is_named(old):
    ((_, why),) = check_source(textwrap.dedent(NET.format(old))).unchecked
    assert why.startswith("is not Python 3: ")


def test_what_is_no_python_of_any_version():
    ((_, why),) = check_source(NET.format("def f(:")).unchecked
    assert why == "is not Python: invalid syntax (line 4)"
