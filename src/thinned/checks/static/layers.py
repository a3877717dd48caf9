"""What calls and attributes are: layers of PyTorch, Keras, Flax, Equinox and Haiku; kinds of
classes; purpose and mode.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass

from .module import Function, Module, number, parameters
from .names import dotted

FRAMEWORK = {
    "torch.nn": "torch",
    "keras.layers": "keras",
    "flax.linen": "flax",
    "flax.nnx": "nnx",
    "equinox.nn": "equinox",
}
PLAIN = {
    "Dropout",
    "Dropout1d",
    "Dropout2d",
    "Dropout3d",
    "SpatialDropout1D",
    "SpatialDropout2D",
    "SpatialDropout3D",
}
ALPHA = {"AlphaDropout", "FeatureAlphaDropout"}
PATHS = {"DropPath", "StochasticDepth", "DropBlock", "DropBlock2d", "DropBlock2D", "StochDropPath"}
DROPOUTS = PLAIN | ALPHA | PATHS | {"GaussianDropout", "GaussianNoise"}
LINEAR = {"Linear", "LazyLinear", "Dense", "Bilinear"}
CONVOLUTION = re.compile(
    r"^(Lazy|Separable|Depthwise)?(Conv|Convolution)(Transpose)?[123][dD](Transpose)?$"
)
BATCH_NORM = re.compile(r"^(Lazy|Sync)?BatchNorm([123]d)?$|^BatchNormalization$")
ACTIVATION = re.compile(
    r"^(Leaky|P|C|R|Thresholded)?(ReLU6?|RELU)$|^(ELU|CELU|GELU|SELU|SiLU|Mish|Tanh|Sigmoid|Hard\w+|Softplus|Activation)$"
)
RECURRENT = {"LSTM", "GRU", "RNN"}


@dataclass(frozen=True)
class LayerCall:
    """A layer that a call makes: whose, and what it is called there."""

    home: str
    name: str
    call: ast.Call

    @property
    def drops(self) -> bool:
        """Whether it is dropout with a rate that is not a literal 0."""
        return self.name in DROPOUTS and number(rate(self)) != 0


def layer(module: Module, node: ast.AST | None) -> LayerCall | None:
    """The layer that an expression makes; None where it makes none that is known."""
    if not isinstance(node, ast.Call):
        return None
    key = ("layer", node)
    if key not in module.memo:
        module.memo[key] = _layer(module, node)
    made: LayerCall | None = module.memo[key]
    return made


def _layer(module: Module, node: ast.Call) -> LayerCall | None:
    home, _, name = module.called(node).rpartition(".")
    if home in FRAMEWORK:
        return LayerCall(FRAMEWORK[home], name, node)
    last = name or (dotted(node.func) or "").rpartition(".")[2]
    if (
        last in PATHS
        and not home.startswith(("keras", "tensorflow", "flax", "jax"))
        and imports(module, "torch")
    ):
        return LayerCall("torch", last, node)
    return None


def rate(made: LayerCall) -> ast.expr | None:
    """The rate that a dropout layer is given."""
    names = ("p", "rate", "drop_prob", "drop_rate")
    by_name = next((k.value for k in made.call.keywords if k.arg in names), None)
    return by_name or next((a for a in made.call.args[:1] if not isinstance(a, ast.Starred)), None)


def attribute(module: Module, node: ast.AST) -> list[ast.expr]:
    """All that ``self.x`` is assigned in its class's methods; empty where it is not such or is not
    assigned there.
    """
    name = dotted(node)
    owner = module.class_of(node)
    if name is None or owner is None or not name.startswith("self.") or name.count(".") != 1:
        return []
    return [v for method in methods(owner) for v, _ in module.assigned(method, name)]


def applied(module: Module, node: ast.AST | None) -> LayerCall | None:
    """The layer that a call applies: ``self.drop(x)``, ``drop(x)`` of a local layer or
    ``nn.Dropout(0.5)(x)``.
    """
    if not isinstance(node, ast.Call):
        return None
    key = ("applied", node)
    if key not in module.memo:
        module.memo[key] = _applied(module, node)
    made: LayerCall | None = module.memo[key]
    return made


def _applied(module: Module, node: ast.Call) -> LayerCall | None:
    if isinstance(node.func, ast.Call):
        return layer(module, node.func)
    if isinstance(node.func, ast.Name):
        return layer(module, module.producer(node.func))
    made = [layer(module, value) for value in attribute(module, node.func)]
    return made[0] if made and made[0] and len({m.name if m else None for m in made}) == 1 else None


def methods(owner: ast.ClassDef) -> Iterator[Function]:
    """The functions that stand directly in a class."""
    return (n for n in owner.body if isinstance(n, (ast.FunctionDef, ast.AsyncFunctionDef)))


def bases(module: Module, owner: ast.ClassDef, seen: frozenset[str] = frozenset()) -> set[str]:
    """The canonical names of a class's bases, through classes of the same file; what was not
    imported goes by its last name.
    """
    out: set[str] = set()
    for base in owner.bases:
        plain = dotted(base) or ""
        local = [
            c for c in module.classes if c.name == plain and c is not owner and c.name not in seen
        ]
        for one in local:
            out |= bases(module, one, seen | {owner.name})
        if not local and plain:
            out.add(module.imports.resolve(base) or "?." + plain.rpartition(".")[2])
    return out


def is_torch(module: Module, owner: ast.ClassDef | None) -> bool:
    """Whether a class is surely a torch module, so that it has ``.training``."""
    known = re.compile(
        r"^torch\.nn\.\w+$|(^|\.)(LightningModule|PreTrainedModel|MessagePassing|PyTorchModelHubMixin)$|^timm\."
    )
    return owner is not None and any(known.search(b) for b in bases(module, owner))


def maybe_torch(module: Module, owner: ast.ClassDef | None) -> bool:
    """Whether a class is a torch module or, from a base that is not to be seen, most likely one."""
    if owner is None or not imports(module, "torch"):
        return False
    if is_torch(module, owner):
        return True
    unknown = any(
        not b.startswith(("keras", "flax", "equinox", "haiku", "object", "jax"))
        for b in bases(module, owner)
    )
    return unknown and any(m.name == "forward" for m in methods(owner))


def is_keras(module: Module, owner: ast.ClassDef | None) -> bool:
    """Whether a class is a Keras layer or model."""
    return owner is not None and any(b.startswith("keras.") for b in bases(module, owner))


def is_flax(module: Module, owner: ast.ClassDef | None) -> bool:
    """Whether a class is a Flax (linen) module."""
    return owner is not None and "flax.linen.Module" in bases(module, owner)


def imports(module: Module, package: str) -> bool:
    """Whether a file imports from a package."""
    homes = [*module.imports.table.values(), *module.imports.stars]
    return any(home == package or home.startswith(package + ".") for home in homes)


# Purpose and mode

_PURPOSE = {"mc", "mcd", "mcdropout", "monte", "montecarlo", "bayes", "bayesian", "sample", "samples", "sampler", "sampling",
            "stochastic", "uncertainty", "uncertainties", "epistemic", "tta", "ensemble"}  # fmt: skip
_SAID = re.compile(
    r"monte[ -]?carlo|\bmc[ _-]?(dropout|sampl)|bayesian|uncertaint|at test time|always on|on purpose|stays? on",
    re.I,
)
_TRAINS = {
    "train",
    "training",
    "fit",
    "augment",
    "augmentation",
    "noise",
    "noisy",
    "corrupt",
    "perturb",
    "denoise",
    "pretrain",
}
_MODE = re.compile(
    r"train|eval|infer|determin|phase|(^|_)mode$|(^|_)mc(_|$)|test_?time|sampling", re.I
)


def words(name: str) -> set[str]:
    """The words of a name: ``mcPredict_once`` has mc, predict and once."""
    return {w.lower() for w in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+", name)} | set(
        name.lower().split("_")
    )


def around(
    module: Module, node: ast.AST
) -> list[ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef]:
    """The functions and classes around a node."""
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    return [a for a in module.ancestors(node) if isinstance(a, kinds)]


def sampling(module: Module, node: ast.AST) -> bool:
    """Whether a name, docstring or comment around a node says that it samples on purpose, as Monte
    Carlo dropout does.
    """
    places = around(module, node)
    stem = re.sub(r"\.\w+$", "", re.split(r"[\\/]", module.filename)[-1])
    if any(words(name) & _PURPOSE for name in [stem, *(p.name for p in places)]):
        return True
    line = node.lineno  # type: ignore[attr-defined]
    comments = " ".join(t.partition("#")[2] for t in module.lines[max(0, line - 2) : line])
    said = [
        comments,
        ast.get_docstring(module.tree) or "",
        *(ast.get_docstring(p) or "" for p in places),
    ]
    return any(_SAID.search(text) for text in said)


def trains(function: Function) -> bool:
    """Whether a function's name says that it belongs to training or makes noise."""
    return bool(words(function.name) & _TRAINS)


def of_mode(node: ast.AST | None) -> bool:
    """Whether an expression looks at the mode: ``self.training``, ``not train``, ``deterministic``
    ...
    """
    if node is None:
        return False
    names = (
        n.id if isinstance(n, ast.Name) else n.attr
        for n in ast.walk(node)
        if isinstance(n, (ast.Name, ast.Attribute))
    )
    return any(_MODE.search(name) for name in names)


def side(test: ast.expr) -> int:
    """1 where a test is true in training (``self.training``), -1 where in evaluation (``not
    self.training``), 0 unknown.
    """
    if isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not):
        return -side(test.operand)
    if (
        isinstance(test, ast.Compare)
        and len(test.ops) == 1
        and isinstance(test.ops[0], (ast.Is, ast.Eq))
    ):
        right = test.comparators[0]
        if isinstance(right, ast.Constant) and isinstance(right.value, bool):
            return side(test.left) if right.value else -side(test.left)
        return 0
    last = (dotted(test) or "").rpartition(".")[2]
    return 1 if last in ("training", "is_training", "train", "is_train", "in_training") else 0


def in_evaluation(module: Module, node: ast.AST) -> bool:
    """Whether a node stands in a branch that runs in evaluation alone, or behind ``if
    self.training: return``.
    """
    below = node
    for above in module.ancestors(node):
        block = getattr(above, "body", None)
        if isinstance(block, list) and below in block:
            before = [
                s for s in block[: block.index(below)] if isinstance(s, ast.If) and _leaves(s)
            ]
            if any(side(s.test) == 1 for s in before):
                return True
        if isinstance(above, (ast.FunctionDef, ast.AsyncFunctionDef)):
            return False
        if isinstance(above, (ast.If, ast.IfExp)):
            body = above.body if isinstance(above.body, list) else [above.body]
            other = above.orelse if isinstance(above.orelse, list) else [above.orelse]
            if (side(above.test) == -1 and below in body) or (
                side(above.test) == 1 and below in other
            ):
                return True
        below = above
    return False


def guarded(module: Module, node: ast.AST) -> bool:
    """Whether a node runs only in one mode: in a branch that looks at it, or behind ``if not
    training: return``.
    """
    below = node
    for above in module.ancestors(node):
        if (
            isinstance(above, (ast.If, ast.IfExp, ast.While))
            and below is not above.test
            and of_mode(above.test)
        ):
            return True
        for name in ("body", "orelse", "finalbody"):
            block = getattr(above, name, None)
            if (
                isinstance(block, list)
                and below in block
                and any(_leaves(s) for s in block[: block.index(below)])
            ):
                return True
        if isinstance(above, (ast.FunctionDef, ast.AsyncFunctionDef)):
            return False
        below = above
    return False


def _leaves(statement: ast.stmt) -> bool:
    return (
        isinstance(statement, ast.If)
        and of_mode(statement.test)
        and isinstance(statement.body[-1], (ast.Return, ast.Raise, ast.Continue))
    )


def has_self(function: Function | None) -> bool:
    """Whether a function is a method on ``self``."""
    return function is not None and parameters(function)[:1] == ["self"]
