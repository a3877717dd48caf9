"""Every static rule holds for the layers and functions of thinned as for torch's and Keras's."""

from __future__ import annotations

import ast
import importlib
import inspect
import json
import textwrap
from pathlib import Path

import pytest

from thinned.checks import check_source
from thinned.checks.finding import Change
from thinned.checks.static import fixed_source, notebook
from thinned.checks.static.fix import applied
from thinned.checks.static.functional import MODES
from thinned.checks.static.layers import AMPLITUDES, DRAWING, layer, rate
from thinned.checks.static.module import Module

from .programs import programs

torch = pytest.importorskip("torch")
import thinned  # noqa: E402

PACKAGES = {"torch.nn": "nn", "torch.nn.functional": "functional", "keras.layers": "keras.layers"}
PACKAGE_OF = {"torch": "thinned.nn", "keras": "thinned.keras.layers"}
# how a program may import a part of thinned: the import, and what stands before a name
STYLES = {
    "qualified": lambda part: ("import thinned", f"thinned.{part}"),
    "alias": lambda part: (f"import thinned.{part} as own_{part[0]}", f"own_{part[0]}"),
    "from": lambda part: (
        "from thinned import " + part.replace("keras.layers", "keras"),
        part,
    ),
    "name": lambda part: (f"from thinned.{part} import {{name}} as own_{{name}}", ""),
}


def keras_names() -> set[str]:
    """The layers of thinned.keras, read in its source: importing it needs a backend."""
    source = Path(thinned.__file__).parent / "keras" / "layers" / "__init__.py"
    body = ast.parse(source.read_text()).body
    return set(ast.literal_eval(next(n.value for n in body if isinstance(n, ast.Assign))))


# the names that thinned has, by the package of torch or Keras
OWN = {
    "torch.nn": set(thinned.nn.__all__),
    "torch.nn.functional": set(thinned.functional.__all__),
    "keras.layers": keras_names(),
}


def rewritten(text: str, style: str) -> str:
    """A program with torch's and Keras's dropout replaced by thinned's, on the same lines."""
    module = Module(text, "program.py", notebook.parse(text))
    changes, imports = [], {}
    inside = set()  # parts of a name that was replaced
    for node in module.children:
        if not isinstance(node, ast.Attribute | ast.Name) or node in inside:
            continue
        package, _, name = (module.name(node) or "").rpartition(".")
        if name not in OWN.get(package, ()) or isinstance(getattr(node, "ctx", None), ast.Store):
            continue
        inside |= set(ast.walk(node))
        statement, prefix = STYLES[style](PACKAGES[package])
        imports[statement.format(name=name)] = None
        changes.append(module.replace(node, f"{prefix}.{name}" if prefix else f"own_{name}"))
    if imports:
        first = min(
            (n for n in module.tree.body if isinstance(n, ast.Import | ast.ImportFrom)),
            key=lambda n: n.module == "__future__" if isinstance(n, ast.ImportFrom) else False,
        )
        at = (first.lineno, first.col_offset)
        changes.append(Change(*at, *at, "; ".join(imports) + "; "))
    return applied(text, changes)


def codes(text, filename="program.py"):
    found = check_source(text, filename)
    assert not found.unchecked
    return sorted((finding.code, finding.line) for finding in found)


def source(program) -> str:
    """The Python of a program; of a notebook all cells in one text."""
    if program.path.suffix == ".py":
        return program.text
    return "\n".join(notebook.python(cell.text) for cell in notebook.cells(program.text))


PROGRAMS = programs()
REWRITTEN = [p for p in PROGRAMS if rewritten(source(p), "alias") != source(p)]


def test_most_programs_can_be_rewritten():
    assert len(REWRITTEN) >= 80


# No program is an exception: thinned.functional has torch's defaults (training=True, and False for
# alpha dropout), the Keras layers take training=, and the corpus uses no feature that only
# thinned's layers add. Where such a feature changes a finding, a test below says so.
@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("program", REWRITTEN, ids=lambda p: p.name)
def test_a_program_in_names_of_thinned_has_the_same_findings(program, style):
    text = source(program)
    own = rewritten(text, style)
    assert "thinned" in own
    assert codes(own) == codes(text)


def test_changes_are_the_same():
    for program in REWRITTEN:
        own = rewritten(source(program), "alias")
        assert fixed_source(own)[0] == rewritten(fixed_source(source(program))[0], "alias")


# The names that only thinned has


@pytest.mark.parametrize("framework", ["torch", "keras"])
def test_every_layer_is_known_with_the_place_of_its_rate(framework):
    try:
        package = importlib.import_module(PACKAGE_OF[framework])
    except ImportError as error:
        pytest.skip(str(error))
    for name in package.__all__:
        value = getattr(package, name)
        drawing = inspect.isclass(value) and (
            framework == "keras"
            or issubclass(value, thinned.nn.DropoutModule | thinned.nn.LoraDropout)
        )
        # bases; FastDropout computes the mean and the variance and draws nothing
        # MultiheadAttention has torch's name and arguments, so the rules treat it as torch's
        if not drawing or name in (
            "DropoutModule",
            "RatedModule",
            "FastDropout",
            "MultiheadAttention",
        ):
            continue
        assert name in DRAWING, name
        parameters = list(inspect.signature(value).parameters)
        call = f"thinned.{package.__name__.partition('.')[2]}.{name}"
        text = f"import thinned\nx = {call}({', '.join(parameters)})"
        module = Module(text, "x.py", ast.parse(text))
        passed = rate(layer(module, module.calls[0]))
        strength = ("p", "rate", "beta") if name in AMPLITUDES else ("p", "rate")
        expected = next((p for p in parameters if p in strength), None)
        assert (None if passed is None else passed.id) == expected, name


def test_every_function_with_a_mode_is_known():
    for name in thinned.functional.__all__:
        parameters = inspect.signature(getattr(thinned.functional, name)).parameters
        mode = parameters.get("training") or (parameters.get("mode") if name == "drop" else None)
        known = MODES.get(f"torch.nn.functional.{name}")
        assert (known is None) == (mode is None), name
        if mode is None:
            continue
        places = list(parameters)
        assert known.name == mode.name
        assert known.draws == (mode.default is not False)
        by_place = mode.kind is not inspect.Parameter.KEYWORD_ONLY
        assert known.place == (places.index(mode.name) if by_place else None), name
        rate_place = places.index("p") if "p" in places and name != "drop_edge" else None
        assert known.rate_place == rate_place, name


HEAD = """\
import torch
from torch import nn
import thinned
import thinned.nn as tnn
import thinned.functional as tF
"""
NET = f"{HEAD}class Net(nn.Module):\n    def forward(self, x, spec=None):\n        return "


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        # L1: all functions with a mode, and the mode of functional.drop
        ("tF.drop_head(x, 0.1)", {"L1"}),
        ("tF.drop_head(x, 0.1, self.training)", set()),
        ("tF.drop(x, spec)", {"L1"}),
        ('tF.drop(x, spec, mode="sample")', {"L7"}),
        ('tF.drop(x, spec, mode="sample" if self.training else "mean")', set()),
        ("tF.attention_dropout(x, x, x, p=0.0)", set()),
        # L32: layers of any kind made in forward
        ("tnn.DropConnect(self.linear, 0.5)(x)", {"L32"}),
        ("tnn.LockedDropout(0.5)(x)", {"L32"}),
        ("tnn.LockedDropout(0)(x)", set()),
    ],
)
def test_forward(body, expected):
    text = f"{NET}{body}\n"
    assert check_source(text).codes == expected
    assert not check_source(fixed_source(text)[0]).codes & {"L1"}


@pytest.mark.parametrize(
    ("layers", "expected"),
    [
        ("nn.Embedding(9, 9), tnn.SpatialDropout(0.5)", {"L10"}),
        ('nn.Embedding(9, 9), tnn.SpatialDropout(0.5, layout="b t c")', set()),
        ("nn.Embedding(9, 9), tnn.LockedDropout(0.5)", set()),
        ("nn.Embedding(9, 9), tnn.SpecDropout(thinned.presets.spatial_dropout(0.5))", {"L10"}),
        ("tnn.EmbeddingDropout(nn.Embedding(9, 9)), tnn.Dropout2d(0.5)", {"L10"}),
        ("nn.SELU(), tnn.SpatialDropout(0.5)", {"L22"}),
        ("nn.ReLU(), tnn.FeatureAlphaDropout(0.5)", {"L22"}),
        ("nn.ReLU(), tnn.SpecDropout(thinned.presets.alpha_dropout(0.1))", {"L22"}),
        ("tnn.GaussianDropout(0.5), nn.Linear(9, 9), nn.BatchNorm1d(9)", {"L5"}),
        # uniform noise is what L5 recommends
        ("tnn.UniformDropout(0.1), nn.Linear(9, 9), nn.BatchNorm1d(9)", set()),
        ("tnn.SpecDropout(thinned.presets.uniform_dropout(0.1)), nn.BatchNorm1d(9)", set()),
        ("tnn.LockedDropout(1.0)", {"L19"}),
        ("tnn.DropConnect(nn.Linear(9, 9), 1.0)", {"L19"}),
        ("tnn.SpecDropout(thinned.presets.dropout(1))", {"L19"}),
        # beta is no probability, and Zoneout keeps the state before
        ("tnn.UniformDropout(1.0)", set()),
        ("tnn.Zoneout(nn.LSTM(9, 9), 1.0)", set()),
        ("tnn.TokenDropout(keep_prob)", {"L4"}),
        ("tnn.EmbeddingDropout(nn.Embedding(9, 9), keep_prob)", {"L4"}),
        ("tnn.SpecDropout(thinned.presets.drop_block(keep_prob))", {"L4"}),
        ("tnn.WeightDrop(nn.LSTM(9, 9, dropout=0.5), 0.5)", {"L11"}),
    ],
)
def test_chains(layers, expected):
    assert check_source(f"{HEAD}net = nn.Sequential({layers})\n").codes == expected


def test_a_chain_of_a_model_that_ends_in_a_dropout_of_thinned():
    text = f"{HEAD}model = nn.Sequential(nn.Linear(9, 9), tnn.UniformDropout(0.1))\n"
    text += "adam = torch.optim.Adam(model.parameters())\nloss = nn.CrossEntropyLoss()\n"
    assert check_source(text).codes == {"L14"}


def test_layer_drop_under_ddp():
    text = HEAD + "stack = tnn.LayerDrop(layers, 0.2)\nnn.parallel.DistributedDataParallel(stack)\n"
    assert check_source(text).codes == {"L28"}
    assert not check_source(text.replace("(stack)", "(stack, find_unused_parameters=True)"))
    assert not check_source(text.replace("tnn.LayerDrop", "tnn.DropPath"))


def test_a_branch_that_is_not_scaled_in_training_may_be_scaled_in_evaluation():
    text = f"{HEAD}class Block(nn.Module):\n    def __init__(self):\n        super().__init__()\n"
    text += "        self.p = 0.1\n        self.drop = tnn.DropPath(0.1)\n"
    text += "    def forward(self, x):\n        if not self.training:\n"
    text += "            return x + x * (1 - self.p)\n        return x + self.drop(x)\n"
    assert check_source(text).codes == {"L17"}
    assert not check_source(text.replace("DropPath(0.1)", 'DropPath(0.1, scale="unscaled")'))


@pytest.mark.parametrize("star", ["thinned.nn", "thinned.nn.dropout"])
def test_names_of_an_import_of_all(star):
    text = f"from torch.nn import *\nfrom {star} import *\nnet = Sequential(SELU(), Dropout(0.5))\n"
    assert check_source(text).codes == {"L22"}


# The remedies of thinned silence the rule that names them


def remedied(name: str, call: str) -> str:
    """A wrong program of the corpus with a call of thinned after its imports."""
    text = next(p.text for p in PROGRAMS if p.name == name)
    return f"import thinned\n{text}\n{call}\n"


@pytest.mark.parametrize("name", ["l08_blocks_wrong.py", "l09_distributed_wrong.py"])
def test_masks_by_key(name):
    assert check_source(remedied(name, ""))
    assert not check_source(remedied(name, "thinned.key(model, seed=0)"))


def test_dropout_off_while_ratios_are_compared():
    text = next(p.text for p in PROGRAMS if p.name == "l13_ppo_wrong.py")
    line = next(li for li in text.splitlines() if ".train()" in li)
    indent = line[: len(line) - len(line.lstrip())]
    off = text.replace(line, f"{line}\n{indent}thinned.off(policy).__enter__()")
    assert check_source(text).codes == {"L13"}
    assert not check_source("import thinned\n" + off)


def test_sampling_does_not_replace_eval():
    """thinned.sampling leaves batch normalization alone, so that eval() is needed as before."""
    text = HEAD + textwrap.dedent(
        """
        class Net(nn.Module):
            def __init__(self):
                super().__init__()
                self.drop = tnn.Dropout(0.5)

            def forward(self, x):
                return self.drop(x)

        @torch.no_grad()
        def predict(x):
            model = Net()
            with thinned.sampling(model):
                return model(x)

        predict(3)
        """
    )
    assert check_source(text).codes == {"L25"}
    assert not check_source(text.replace("Net()\n", "Net().eval()\n"))


def test_a_notebook():
    cells = [
        "from torch import nn\nimport thinned.functional as F",
        "class Net(nn.Module):\n    def forward(self, x):\n        return F.dropout(x)",
    ]
    raw = json.dumps({"cells": [{"cell_type": "code", "source": c} for c in cells]})
    (one,) = check_source(raw, "n.ipynb")
    assert (one.code, one.cell, one.line) == ("L1", 2, 3)
