"""Names in texts exist: in docstrings, comments, messages, rules, advice and pages.

A text may name ``thinned.nn.DropPath``, ``nn.DropPath``, ``:func:`thinned.key``` or ``thinned check
--fix``; each name must be importable, each command and option must be in the command line.
"""

from __future__ import annotations

import ast
import dataclasses
import importlib
import importlib.util
import inspect
import io
import re
import textwrap
import tokenize
from functools import cache
from pathlib import Path

import pytest

import thinned
from thinned.checks import RULES
from thinned.presets import ADVICE

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "thinned"
# what a short prefix stands for in texts: the packages in which the name may be
PREFIXES = {
    "nn": ("thinned.nn", "torch.nn"),  # ours is under the name of torch's on purpose
    "tnn": ("thinned.nn",),
    "tF": ("thinned.functional",),
    "F": ("thinned.functional", "torch.nn.functional"),
    "functional": ("thinned.functional", "torch.nn.functional"),
    "presets": ("thinned.presets",),
    "algebra": ("thinned.algebra",),
    "tk": ("thinned.keras",),
    "surgery": ("thinned.surgery",),
}
DOTTED = re.compile(rf"(?<![\w./:@-])(thinned|{'|'.join(PREFIXES)})((?:\.[A-Za-z_]\w*)+)")
# a file name, an operator of torch, a package of another file format
OTHER = re.compile(r"\.(py|sarif|yaml|yml|toml|json|html|md|csv|svg|png|pt|cu|cpp|default)$")
ROLE = re.compile(r":(func|class|meth|mod|attr|data|exc|obj):`([\w.~<> \n]+)(?:\(\))?`")
COMMAND = re.compile(r"(?<![\w./-])thinned ([a-z]+)((?: (?!\|)[^\s`]+)*)")
OPTION = re.compile(r"(?<![\w-])--[a-z][a-z-]*")


@cache
def installed(package: str) -> bool:
    return importlib.util.find_spec(package) is not None


# the kind of object that a role names
KINDS = {"func": callable, "class": inspect.isclass, "mod": inspect.ismodule}


@cache
def exists(path: str, role: str = "") -> bool:
    """Whether a dotted path can be imported, or is an attribute of what can be."""
    parts = path.split(".")
    if parts[:2] == ["thinned", "keras"] or parts[0] == "keras":
        return keras_name(parts[2:] if parts[0] == "thinned" else parts[1:])
    if parts[:2] == ["thinned", "sklearn"] and not installed("sklearn"):
        return True
    for end in range(len(parts), 0, -1):
        try:
            value = importlib.import_module(".".join(parts[:end]))
        except ImportError:
            continue
        if has(value, parts[end:], role):  # otherwise a function with the name of its module
            return True
    return False


def has(value: object, names: list[str], role: str = "") -> bool:
    """Whether an object has a chain of attributes, or declares the last of them."""
    for name in names:
        if not hasattr(value, name):
            return declares(value, name)
        value = getattr(value, name)
    return KINDS.get(role, lambda value: True)(value)


def declares(value: object, name: str) -> bool:
    """Whether instances of a class have an attribute: a field, or set in one of its methods."""
    if not inspect.isclass(value):
        return False
    if dataclasses.is_dataclass(value) and name in {f.name for f in dataclasses.fields(value)}:
        return True
    for base in value.__mro__:
        if name in getattr(base, "__annotations__", {}):
            return True
        own = base.__module__.startswith("thinned")
        if own and re.search(rf"\bself\.{name}\b", inspect.getsource(base)):
            return True
    return False


def keras_name(parts: list[str]) -> bool:
    """Whether thinned.keras has a name, read in its source: importing needs a backend."""
    if not parts:
        return True
    package = SOURCE / "keras"
    for index, part in enumerate(parts):
        if (package / part).is_dir():
            package /= part
        elif (package / f"{part}.py").is_file():
            names = parts[index + 1 : index + 2]
            return not names or names[0] in (package / f"{part}.py").read_text()
        else:
            return part in all_of(package / "__init__.py")
    return True


def all_of(path: Path) -> list[str]:
    """The ``__all__`` of a file."""
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            return ast.literal_eval(node.value)
    return []


def missing(text: str, own: frozenset[str] = frozenset()) -> list[str]:
    """The names in a text that do not exist. ``own``: prefixes that are never torch's here."""
    found = []
    for match in DOTTED.finditer(text):
        prefix, names = match[1], match[2]
        if OTHER.search(match[0]) or (prefix == "thinned" and assigned(text)):
            continue
        packages = ("thinned",) if prefix == "thinned" else PREFIXES[prefix]
        if prefix in own:
            packages = packages[:1]
        if not any(exists(package + names) for package in packages):
            found.append(match[0])
    return found


def assigned(text: str) -> bool:
    """Whether a text uses ``thinned`` as a variable."""
    return bool(re.search(r"^\W*thinned = ", text, re.M))


def roles(text: str, module: str) -> list[str]:
    """The targets of Sphinx roles that do not exist, as seen from a module."""
    found = []
    for match in ROLE.finditer(text):
        role, target = match[1], re.sub(r"^.*<(.*)>$", r"\1", match[2], flags=re.S).lstrip("~.")
        target = " ".join(target.split())
        homes, package = ["", "thinned.", "thinned.nn.", f"{module}."], module
        while "." in package:
            package = package.rpartition(".")[0]
            homes.append(f"{package}.")
        if any(exists(home + target, role) for home in homes):
            continue
        if "." in target or not defined_here(module, target):
            found.append(match[0])
    return found


def defined_here(module: str, name: str) -> bool:
    """Whether a module defines a name in one of its classes."""
    path = SOURCE.parent.joinpath(*module.split("."))
    path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    return bool(re.search(rf"^ +(?:def )?{name}\b(?:\(|:| =)", path.read_text(), re.M))


@cache
def commands() -> dict[str, set[str]]:
    """The options of each command."""
    typer = pytest.importorskip("typer")
    from thinned.cli.app import app

    group = typer.main.get_command(app)
    return {
        name: {"--help"} | {o for p in command.params for o in (*p.opts, *p.secondary_opts)}
        for name, command in group.commands.items()
    }


def unknown_commands(text: str, code_only: bool) -> list[str]:
    """The commands and options in a text that do not exist.

    In prose, ``thinned networks`` is English, so that an unknown word counts only where it is
    written as code, or, with ``code_only``, where options follow.
    """
    found = []
    for match in COMMAND.finditer(text):
        name, rest = match[1], match[2]
        options = OPTION.findall(rest)
        quoted = text[: match.start()].endswith(("`", "$ ", "-m ", "run: ", "entry: "))
        if name not in commands():
            if quoted or (options and code_only):
                found.append(match[0])
            continue
        found += [f"thinned {name} {o}" for o in options if o not in commands()[name]]
    return found


def module_of(path: Path) -> str:
    return ".".join(path.relative_to(SOURCE.parent).with_suffix("").parts).removesuffix(".__init__")


def texts(path: Path):
    """(line, text) of each string and comment of a file."""
    source = path.read_text()
    tree = ast.parse(source)
    inner = {id(part) for n in ast.walk(tree) if isinstance(n, ast.JoinedStr) for part in n.values}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in inner:
            yield node.lineno, node.value
        elif isinstance(node, ast.JoinedStr):
            parts = (p.value if isinstance(p, ast.Constant) else "\0" for p in node.values)
            yield node.lineno, "".join(parts)
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            yield token.start[0], token.string


@pytest.mark.parametrize(
    "path", sorted(SOURCE.rglob("*.py")), ids=lambda p: p.relative_to(SOURCE).as_posix()
)
def test_names_in_source_exist(path):
    problems = []
    for line, text in texts(path):
        names = missing(text) + roles(text, module_of(path)) + unknown_commands(text, False)
        problems += [f"{path.name}:{line}: {name}" for name in names]
    assert not problems, "\n".join(problems)


PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


@pytest.mark.parametrize("path", PAGES, ids=lambda p: p.name)
def test_names_in_pages_exist(path):
    text = path.read_text()
    problems = unknown_commands(text, True)
    # each block of code has its own variables
    for part in re.split(r"^```.*$", text, flags=re.M):
        problems += missing(part)
    for match in re.finditer(r"`(--[a-z][a-z-]*)", text):
        known = {option for options in commands().values() for option in options}
        if match[1] not in known | scripts():
            problems.append(match[1])
    assert not problems, "\n".join(dict.fromkeys(problems))


@cache
def scripts() -> set[str]:
    """The options of benchmarks and examples."""
    files = [p for folder in ("benchmarks", "examples") for p in (ROOT / folder).rglob("*.py")]
    text = "\n".join(path.read_text() for path in files)
    return set(re.findall(r"[\"'](--[\w-]+)[\"']", text))


# texts that give advice speak of thinned's names, never of torch's
OWN = frozenset({"nn", "F", "functional"})


@pytest.mark.parametrize("code", RULES)
def test_names_in_rules_exist(code):
    rule = RULES[code]
    for text in (rule.title, rule.why, rule.remedy):
        assert not missing(text, OWN)
        assert not unknown_commands(text, True)


@pytest.mark.parametrize("name", ADVICE)
def test_names_in_advice_and_catalog_exist(name):
    advice, row = ADVICE[name], thinned.CATALOG[name]
    fields = (*dataclasses.astuple(advice), *(v for v in dataclasses.astuple(row)))
    for text in fields:
        if isinstance(text, str):
            assert not missing(text, OWN), text
    assert exists(f"thinned.{row.constructor}")


def test_help_of_commands_names_what_exists():
    for command in commands():
        module = importlib.import_module(f"thinned.cli.{command}")
        text = textwrap.dedent(inspect.getsource(module))
        assert not missing(text)


def test_the_check_sees_what_is_missing():
    assert missing("use thinned.nn.Uout or nn.DropWeight or presets.uout") == [
        "thinned.nn.Uout",
        "nn.DropWeight",
        "presets.uout",
    ]
    assert missing("nn.Linear", OWN) == ["nn.Linear"]
    assert not missing("nn.Linear, nn.DropPath, F.drop, F.relu, torch.nn.Nothing, thinned.yaml")
    assert not missing("thinned.Watch.load, thinned.Key.seed, thinned.keras.layers.DropPath")
    assert missing("thinned.keras.layers.Uout, thinned.keras.nothing")
    assert roles(":func:`drop_path` :class:`~thinned.nn.DropBlock`", "thinned.presets.depth") == []
    assert roles(":func:`thinned.presets.spatial`", "thinned.nn.dropout")
    assert unknown_commands("`thinned chek .` and `thinned check --fixx`", False) == [
        "thinned chek .",
        "thinned check --fixx",
    ]
    assert not unknown_commands("a thinned network; `thinned check src --fix`", True)
