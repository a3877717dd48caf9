"""Which package may import which, read from the source."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent / "src" / "thinned"

# package -> the packages that it may import (itself always). "" is the root: _errors.
MAY = {
    "algebra": set(),
    "presets": {"algebra"},
    "engines.numpy": {"algebra"},
    "engines.torch": {"algebra"},
    "engines.keras": {"algebra"},
    "functional": {"algebra", "presets", "engines.torch"},
    "nn": {"algebra", "presets", "engines.torch", "functional"},
    "surgery": {"algebra", "presets", "engines.torch", "functional", "nn"},
    "predictions": {"algebra", "presets", "engines.torch", "functional", "nn", "surgery"},
    "checks": {"algebra", "presets", "functional", "nn", "surgery"},
    "keras": {"algebra", "presets", "engines.keras", "checks"},
    "train": {"algebra", "presets", "engines.torch", "functional", "nn"},
    "studies": {"algebra", "presets", "train", "nn", "functional"},
    "sklearn": {"algebra", "presets", "engines.torch", "functional", "nn"},
    "testing": {"algebra", "presets", "functional", "engines.numpy", "nn"},
    "integrations": {"checks", "nn", "surgery"},
    "cli": {"studies", "presets", "checks"},
}
# Third-party package -> the packages that may import it.
PACKAGES = {
    "numpy": {
        "engines.numpy",
        "engines.torch",
        "predictions",
        "nn",
        "functional",
        "keras",
        "train",
        "studies",
        "testing",
        "sklearn",
    },
    "torch": {
        "engines.torch",
        "functional",
        "nn",
        "surgery",
        "predictions",
        "checks",
        "train",
        "studies",
        "testing",
        "sklearn",
    }
    | {"integrations"},
    "triton": {"engines.torch"},
    "sklearn": {"studies", "sklearn"},
    "threadpoolctl": {"sklearn"},
    "pandas": {"studies"},
    "filelock": {"studies"},
    "scipy": {"studies", "sklearn", "predictions"},
    "matplotlib": {"studies", "checks"},
    "jinja2": {"studies"},
    "markupsafe": {"studies"},
    "rich": {"studies", "cli", "checks"},
    "typer": {"cli"},
    "lightning": {"integrations"},
    "pytorch_lightning": {"integrations"},
    "transformers": {"integrations"},
    "skorch": {"integrations"},
    "keras": {"integrations", "engines.keras", "keras"},
}
STDLIB = set(__import__("sys").stdlib_module_names)


def package_of(module: str) -> str:
    parts = module.split(".")
    return ".".join(parts[:2]) if parts[0] == "engines" else parts[0]


def is_module(name: str) -> bool:
    path = ROOT.parent.joinpath(*name.split("."))
    return path.is_dir() or path.with_suffix(".py").is_file()


def imports(path: Path):
    """(line, thinned module or None, package) of every import outside TYPE_CHECKING."""
    here = ["thinned", *path.relative_to(ROOT).with_suffix("").parts]
    tree = ast.parse(path.read_text())
    hidden = {
        id(node)
        for branch in ast.walk(tree)
        if isinstance(branch, ast.If) and getattr(branch.test, "id", "") == "TYPE_CHECKING"
        for node in ast.walk(branch)
    }
    for node in ast.walk(tree):
        if id(node) in hidden or not isinstance(node, (ast.Import, ast.ImportFrom)):
            continue
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif node.level:
            base = here[: len(here) - node.level]
            stem = [*base, *(node.module.split(".") if node.module else [])]
            inside = [
                ".".join([*stem, alias.name]) for alias in node.names
            ]  # a name may be a module of its own
            names = [n if is_module(n) else ".".join(stem) for n in inside]
        else:
            names = [node.module or ""]
        for name in names:
            own = name.split(".")[0] == "thinned"
            yield (
                node.lineno,
                name.removeprefix("thinned").lstrip(".") if own else None,
                name.split(".")[0],
            )


FILES = sorted(ROOT.rglob("*.py"))


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_import_directions(path):
    here = package_of(".".join(path.relative_to(ROOT).with_suffix("").parts))
    if here.startswith(("_", "engines.__init__")):
        return
    for line, ours, package in imports(path):
        if ours is not None:
            there = package_of(ours) if ours else ""
            allowed = there.startswith("_") or there in ("", here) or there in MAY[here]
            assert allowed, f"{path.name}:{line}: {here} may not import {there}"
        elif package not in STDLIB:
            assert here in PACKAGES.get(package, ()), (
                f"{path.name}:{line}: {here} may not import {package}"
            )


def test_every_room_is_in_the_plan():
    packages = {package_of(".".join(p.relative_to(ROOT).with_suffix("").parts)) for p in FILES}
    assert {r for r in packages if not r.startswith(("_", "engines.__init__"))} == set(MAY)


def test_studies_report_reads_plain_records():
    """What draws the report knows nothing of training."""
    for name in ("report.py", "figures.py", "stats.py"):
        for line, ours, package in imports(ROOT / "studies" / name):
            assert package != "torch", f"{name}:{line} imports torch"
            assert ours is None or package_of(ours) in ("studies", "") or ours.startswith("_"), (
                f"{name}:{line} imports {ours}"
            )
