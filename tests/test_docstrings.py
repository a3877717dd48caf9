"""Public docstrings have the sections that a reader looks for, and name every argument."""

from __future__ import annotations

import ast
import dataclasses
import importlib
import importlib.util
import inspect
import re
import textwrap
from typing import Any

import pytest

import thinned

MODULES = [
    "thinned",
    "thinned.algebra",
    "thinned.presets",
    "thinned.functional",
    "thinned.nn",
    "thinned.surgery",
    "thinned.checks",
    "thinned.checks.live",
    "thinned.checks.static",
    "thinned.checks.watch",
    "thinned.train",
    "thinned.studies",
    "thinned.testing",
    *(["thinned.sklearn"] if importlib.util.find_spec("sklearn") else []),
    *(["thinned.keras", "thinned.keras.layers"] if importlib.util.find_spec("keras") else []),
]
SECTIONS = ("Args", "Attributes", "Returns", "Yields", "Raises", "Example", "Reference", "Note")
# calls that raise for their caller
RAISING = {"probability", "whole", "real", "unknown", "check_rate", "rate_of", "one_of", "whole_of"}


def public():
    seen = set()
    for name in MODULES:
        module = importlib.import_module(name)
        for item in module.__all__:
            value = getattr(module, item)
            written_here = getattr(value, "__module__", "").startswith("thinned")
            documented = inspect.isclass(value) or inspect.isfunction(value)
            if documented and written_here and id(value) not in seen:
                seen.add(id(value))
                yield pytest.param(value, id=f"{name}.{item}")


def sections(doc: str) -> dict[str, str]:
    """The text of each section; that before the first is under ""."""
    parts = re.split(rf"^({'|'.join(SECTIONS)}):$", doc, flags=re.M)
    return {"": parts[0], **dict(zip(parts[1::2], parts[2::2], strict=True))}


def parameters(value) -> list[str]:
    try:
        given = inspect.signature(value).parameters.values()
    except ValueError:  # an exception class has none
        return []
    kinds = (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)
    own = [p for p in given if p.kind not in kinds and not p.name.startswith("_")]
    return [p.name for p in own if p.name != "self"]


def raises(value) -> bool:
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(value)))
    except (OSError, SyntaxError):
        return False
    body = tree.body[0]
    if isinstance(body, ast.ClassDef):
        made = [f for f in body.body if getattr(f, "name", "") in ("__init__", "__post_init__")]
        nodes = [node for f in made for node in ast.walk(f)]
    else:
        nodes = list(ast.walk(body))
    return any(
        isinstance(node, ast.Raise)
        or (isinstance(node, ast.Call) and getattr(node.func, "id", "") in RAISING)
        for node in nodes
    )


def is_record(value) -> bool:
    """A value that is returned and not made by users: a record of results."""
    return inspect.isclass(value) and dataclasses.is_dataclass(value)


@pytest.mark.parametrize("value", list(public()))
def test_public_docstrings_have_their_sections(value):
    doc = inspect.cleandoc(value.__doc__ or "")
    found = sections(doc)
    summary = found[""].strip().split("\n\n")[0]
    problems = []
    if not summary.endswith("."):
        problems.append("the summary is no sentence")
    if len(summary.split("\n")) > 2:
        problems.append("the summary takes more than two lines")
    described = found.get("Args", "") + (found.get("Attributes", "") if is_record(value) else "")
    missing = [
        p for p in parameters(value) if not re.search(rf"^ *\*{{0,2}}{p}\b.*:", described, re.M)
    ]
    if missing:
        problems.append(f"Args does not describe {', '.join(missing)}")
    if inspect.isfunction(value):
        returned = inspect.signature(value).return_annotation
        if returned not in (None, "None") and not ({"Returns", "Yields"} & set(found)):
            problems.append("no Returns")
    if raises(value) and "Raises" not in found:
        problems.append("no Raises")
    if ">>>" not in doc and not issubclass(value if inspect.isclass(value) else int, Exception):
        problems.append("no Example with a doctest")
    if inspect.isclass(value):
        for name, method in vars(value).items():
            plain = isinstance(method, property) or inspect.isfunction(method)
            function = method.fget if isinstance(method, property) else method
            if plain and not name.startswith("_") and not (function.__doc__ or "").strip():
                inherited = any(name in vars(base) for base in value.__mro__[1:])
                if not inherited:
                    problems.append(f"{name} has no docstring")
    assert not problems, f"{value.__module__}.{value.__qualname__}: {'; '.join(problems)}"


def test_methods_name_their_paper():
    """Each layer and spec of the catalog has a Reference section."""
    for name, row in thinned.CATALOG.items():
        value = thinned
        for part in row.constructor.split("."):
            value = getattr(value, part)
        for made in (value, row.make):
            if callable(made) and name not in ("consistent_dropout", "monte_carlo"):
                found = sections(inspect.cleandoc(made.__doc__ or ""))
                assert "Reference" in found, f"{name}: {made.__qualname__} names no paper"


# What may be anything: what a model of the user takes, values that only the user's object or
# another library defines, and arrays of any library.
ANYTHING_GOES = {
    "*inputs", "**named", "*batch", "*args", "**kwargs", "**settings", "**changes", "**params",
    "target", "log", "logs", "step", "samples", "x", "inputs", "input_shape", "sequences_shape",
    "initial_state_shape", "sequences", "initial_state", "mask", "estimator", "param_grid",
    "scoring", "refit", "cv", "error_score", "data", "state",
}  # fmt: skip


@pytest.mark.parametrize("value", list(public()))
def test_arguments_have_types(value):
    """``Any`` stands only where anything goes."""
    methods = (
        [m for m in vars(value).values() if inspect.isfunction(m)] if inspect.isclass(value) else []
    )
    for function in (value, *methods):
        if function.__name__.startswith("_") or function is thinned.InputError:
            continue
        stars = {inspect.Parameter.VAR_POSITIONAL: "*", inspect.Parameter.VAR_KEYWORD: "**"}
        for p in inspect.signature(function).parameters.values():
            if p.annotation in (Any, "Any"):
                name = stars.get(p.kind, "") + p.name
                assert name in ANYTHING_GOES, f"{function.__qualname__}({name}: Any)"
