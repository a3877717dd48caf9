"""Texts that do not parse: syntax of a newer Python than the one that runs is rewritten where that
is simple, and explained where it is not, as is Python 2.
"""

from __future__ import annotations

import ast
import re
import sys

from . import notebook

# (version, what is new, the signs of it); a sign counts only in a text that does not parse
_NEWER = (
    ((3, 10), "match statements", re.compile(r"^\s*match\s+[^=:]+:\s*(#.*)?\n\s+case\b", re.M)),
    ((3, 11), "except*", re.compile(r"^\s*except\s*\*", re.M)),
    ((3, 12), "type parameters", re.compile(r"^\s*(async\s+)?(def|class)\s+\w+\[", re.M)),
    ((3, 12), "type statements", re.compile(r"^\s*type\s+\w+(\[.*?\])?\s*=", re.M)),
    (
        (3, 12),
        "quotes inside an f-string of the same quotes",
        re.compile(r"""\bf"[^"\n]*\{[^}"\n]*"[^}\n]*\}|\bf'[^'\n]*\{[^}'\n]*'[^}\n]*\}"""),
    ),
    ((3, 14), "except without brackets", re.compile(r"^\s*except\s+[\w.]+\s*,.*:", re.M)),
    ((3, 14), "template strings", re.compile(r"""(?<![\w'"])[rR]?t[rR]?["']""")),
    ((3, 15), "lazy imports", re.compile(r"^\s*lazy\s+(import|from)\b", re.M)),
)
_PYTHON_TWO = re.compile(
    r"""^\s*print\s+["'\w%]|^\s*except\s+[\w.]+\s*,\s*[a-z_]\w*\s*:"""
    r"|\bxrange\(|\.iteritems\(|\.has_key\(",
    re.M,
)


def parsed(text: str) -> ast.Module | None:
    """The tree of a text after newer syntax is rewritten: type parameters are left out, ``type X =
    ...`` is an assignment, ``except A, B:`` gets its brackets, and a template string is an
    f-string. Lines and, but for ``except``, columns remain. None where that is not enough.
    """
    text = _EXCEPT.sub(lambda m: f"{m[1]}({m[2]}){m[3]}", text)
    text = _TEMPLATE.sub("f", text)
    text = _TYPE.sub(
        lambda m: f"{m[1]}{m[2]}{' ' * (len(m[0]) - len(m[1]) - len(m[2]) - 1)}=", text
    )
    text = _PARAMETERS.sub(lambda m: m[1] + " " * (len(m[0]) - len(m[1]) - 1) + m[3], text)
    try:
        return notebook.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


_EXCEPT = re.compile(r"^(\s*except\s*)([A-Z][\w.]*(?:\s*,\s*[A-Z][\w.]*)+)\s*(:)", re.M)
_TEMPLATE = re.compile(r"""(?<![\w'"])t(?=["'])""")
_TYPE = re.compile(r"^([ \t]*)type[ \t]+(\w+)(?:\[[^=\n]*\])?[ \t]*=", re.M)
_PARAMETERS = re.compile(
    r"^([ \t]*(?:async[ \t]+)?(?:def|class)[ \t]+\w+)(\[[^\n]*?\])([(:])", re.M
)


def explained(text: str, error: BaseException) -> str:
    """Why a text does not parse, where its age says so; "" otherwise."""
    if not isinstance(error, SyntaxError) or error.lineno is None:
        return ""
    if _PYTHON_TWO.search(text) or re.search("Missing parentheses|leading zeros", error.msg):
        return f"is not Python 3: {error.msg} (line {error.lineno})"
    for version, what, sign in _NEWER:
        if version > sys.version_info[:2] and sign.search(text):
            needed, running = f"{version[0]}.{version[1]}", "{}.{}".format(*sys.version_info)
            return (
                f"needs Python {needed} or newer ({what}, line {error.lineno}), and this is Python "
                f"{running}: run thinned with Python {needed}"
            )
    return ""
