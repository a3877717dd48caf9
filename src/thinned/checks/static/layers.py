"""What calls and attributes are: layers of PyTorch, Keras, Flax, Equinox, Haiku and thinned; kinds
of classes; purpose and mode.
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

# The names of dropout layers, of all frameworks together, by what the rules ask. Those that only
# thinned has are listed with the others: names.py gives them torch's and Keras's paths.

# zeros for what is dropped, elements or whole channels, steps, tokens and nodes
ZEROING = {
    "Dropout",
    "Dropout1d",
    "Dropout2d",
    "Dropout3d",
    "SpatialDropout1D",
    "SpatialDropout2D",
    "SpatialDropout3D",
    "SpatialDropout",
    "LockedDropout",
    "BatchwiseDropout",
    "TokenDropout",
    "DropMessage",
    "DropNode",
}
# SELU's negative limit for what is dropped
ALPHA = {"AlphaDropout", "FeatureAlphaDropout"}
# residual branches, and blocks of a map; also recognized where a file defines the class itself
PATHS = {
    "DropPath",
    "StochasticDepth",
    "DropBlock",
    "DropBlock1d",
    "DropBlock2d",
    "DropBlock3d",
    "DropBlock1D",
    "DropBlock2D",
    "DropBlock3D",
    "StochDropPath",
}
# the first argument is the strength of the noise and not a probability
AMPLITUDES = {"GaussianNoise", "UniformDropout"}
DROPOUTS = (
    ZEROING
    | ALPHA
    | PATHS
    | AMPLITUDES
    | {
        "GaussianDropout",
        "SpecDropout",
        "HiddenCut",
        "Disout",
        "WeightedChannelDropout",
        "Jumpout",
        "ConcreteDropout",
        "VariationalDropout",
    }
)
# recurrent networks of thinned, wrapped around torch's or around a cell of Keras
RECURRENT_WRAPPERS = {
    "DropState",
    "RNNDrop",
    "RecurrentDropout",
    "VariationalRNNDropout",
    "WeightDrop",
    "Zoneout",
}
# Layers that draw too, but not on an activation that a chain passes through them: on weights,
# states, ids, attention, edges, pairs of branches.
OTHER_DRAWING = RECURRENT_WRAPPERS | {
    "AttentionDropout",
    "Cutout",
    "DropConnect",
    "DropEdge",
    "DropHead",
    "DropHeadAttention",
    "DropKey",
    "DropKeyAttention",
    "EmbeddingDropout",
    "InformationDropout",
    "LayerDrop",
    "LoraDropout",
    "MaxPoolDropout1d",
    "MaxPoolDropout2d",
    "MaxPoolDropout3d",
    "MethodDropout",
    "MethodWeightDropout",
    "Mixout",
    "PatchDropout",
    "ShakeDrop",
    "ShakeShake",
    "Shakeout",
    "SparseVariationalDropout",
    "Standout",
    "Swapout",
    "TargetedDropout",
    "TargetedUnitDropout",
    "Thinned",
    "WordDropout",
}
DRAWING = DROPOUTS | OTHER_DRAWING
# The place of the rate where it is not the first argument; None where a layer has no single rate.
# In Keras ConcreteDropout wraps a layer too, and the rate of VariationalDropout comes first.
_RATE_PLACE: dict[str, int | None] = {
    "ConcreteDropout": 1,
    "Cutout": None,
    "DropConnect": 1,
    "DropHeadAttention": None,
    "DropKeyAttention": None,
    "EmbeddingDropout": 1,
    "InformationDropout": None,
    "Jumpout": None,
    "LayerDrop": 1,
    "LoraDropout": 3,
    "MaxPoolDropout1d": 2,
    "MaxPoolDropout2d": 2,
    "MaxPoolDropout3d": 2,
    "MethodDropout": None,
    "MethodWeightDropout": 2,
    "Mixout": 1,
    "RNNDrop": 1,
    "RecurrentDropout": 1,
    "ShakeShake": None,
    "Shakeout": 1,
    "SparseVariationalDropout": None,
    "SpecDropout": None,
    "Standout": None,
    "TargetedDropout": 1,
    "TargetedUnitDropout": 1,
    "VariationalDropout": 1,
    "VariationalRNNDropout": 1,
    "WeightDrop": 1,
    "Zoneout": 1,
}
_RATE_PLACE_KERAS: dict[str, int | None] = {"DropState": 1, "VariationalDropout": 0}
_RATE_PLACE_TORCH: dict[str, int | None] = {"DropState": None}
_RATE_NAMES = ("p", "rate", "drop_prob", "drop_rate", "beta", "stddev")

LINEAR = {"Linear", "LazyLinear", "Dense", "Bilinear"}
CONVOLUTION = re.compile(
    r"^(Lazy|Separable|Depthwise)?(Conv|Convolution)(Transpose)?[123][dD](Transpose)?$"
)
BATCH_NORM = re.compile(r"^(Lazy|Sync)?BatchNorm([123]d)?$|^BatchNormalization$")
ACTIVATION = re.compile(
    r"^(Leaky|P|C|R|Thresholded)?(ReLU6?|RELU)$"
    r"|^(ELU|CELU|GELU|SELU|SiLU|Mish|Tanh|Sigmoid|Hard\w+|Softplus|Activation)$"
)
RECURRENT = {"LSTM", "GRU", "RNN"}


@dataclass(frozen=True)
class LayerCall:
    """A layer that a call creates.

    Args:
        framework: The framework of the layer: "torch", "keras", "flax", "nnx" or "equinox".
        name: The class name of the layer there.
        call: The call that creates the layer.
        spec: The call of a preset, where the layer is ``SpecDropout(presets.locked_dropout(0.5))``;
            ``name`` is then the layer of that method.
    """

    framework: str
    name: str
    call: ast.Call
    spec: ast.Call | None = None

    @property
    def is_dropout(self) -> bool:
        """Whether it is a dropout layer for activations, whatever its rate."""
        wraps = self.framework == "keras" and self.name == "ConcreteDropout"
        return self.name in DROPOUTS and not wraps

    @property
    def drops(self) -> bool:
        """Whether it is dropout for activations with a rate that is not a literal 0."""
        return self.is_dropout and number(rate(self)) != 0

    @property
    def draws(self) -> bool:
        """Whether it draws any noise: :attr:`drops`, or dropout of weights, states, ids, ..."""
        return self.name in DRAWING and number(rate(self)) != 0


def layer(module: Module, node: ast.AST | None) -> LayerCall | None:
    """The layer that an expression creates; None where it creates no known layer."""
    if not isinstance(node, ast.Call):
        return None
    key = ("layer", node)
    if key not in module.memo:
        module.memo[key] = _layer(module, node)
    result: LayerCall | None = module.memo[key]
    return result


def _layer(module: Module, node: ast.Call) -> LayerCall | None:
    package, _, name = module.called(node).rpartition(".")
    if package in FRAMEWORK:
        spec = _preset(module, node) if name == "SpecDropout" else None
        if spec is not None:
            method = module.called(spec).rpartition(".")[2]
            name = "".join(part.capitalize() for part in method.split("_"))
        return LayerCall(FRAMEWORK[package], name, node, spec)
    last = name or (dotted(node.func) or "").rpartition(".")[2]
    if (
        last in PATHS
        and not package.startswith(("keras", "tensorflow", "flax", "jax"))
        and imports(module, "torch")
    ):
        return LayerCall("torch", last, node)
    return None


def _preset(module: Module, node: ast.Call) -> ast.Call | None:
    """The call of a preset that is the spec of a SpecDropout; None for other specs."""
    spec = node.args[0] if node.args else None
    known = isinstance(spec, ast.Call) and module.called(spec).startswith("thinned.presets.")
    return spec if known and isinstance(spec, ast.Call) else None


def rate(layer_call: LayerCall) -> ast.expr | None:
    """The rate that a dropout layer receives; None where it has none, or its default."""
    call, place = layer_call.spec or layer_call.call, 0 if layer_call.spec else None
    if layer_call.spec is None:
        own = _RATE_PLACE_KERAS if layer_call.framework == "keras" else _RATE_PLACE_TORCH
        place = own.get(layer_call.name, _RATE_PLACE.get(layer_call.name, 0))
    if place is None:
        return None
    by_name = next((k.value for k in call.keywords if k.arg in _RATE_NAMES), None)
    if by_name is not None or any(isinstance(a, ast.Starred) for a in call.args[: place + 1]):
        return by_name
    return call.args[place] if place < len(call.args) else None


def attribute(module: Module, node: ast.AST) -> list[ast.expr]:
    """All values that the methods of a class assign to ``self.x``; empty for other expressions."""
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
    result: LayerCall | None = module.memo[key]
    return result


def _applied(module: Module, node: ast.Call) -> LayerCall | None:
    if isinstance(node.func, ast.Call):
        return layer(module, node.func)
    if isinstance(node.func, ast.Name):
        return layer(module, module.producer(node.func))
    layers = [layer(module, value) for value in attribute(module, node.func)]
    same = len({known.name if known else None for known in layers}) == 1
    return layers[0] if same else None


def methods(owner: ast.ClassDef) -> Iterator[Function]:
    """The methods of a class, in order."""
    return (n for n in owner.body if isinstance(n, (ast.FunctionDef, ast.AsyncFunctionDef)))


def bases(module: Module, owner: ast.ClassDef, seen: frozenset[str] = frozenset()) -> set[str]:
    """The canonical names of the bases of a class, through classes of the same file. A base that
    was not imported is "?." and its last name.
    """
    names: set[str] = set()
    for base in owner.bases:
        written = dotted(base) or ""
        local = [
            c for c in module.classes if c.name == written and c is not owner and c.name not in seen
        ]
        for parent in local:
            names |= bases(module, parent, seen | {owner.name})
        if not local and written:
            names.add(module.imports.resolve(base) or "?." + written.rpartition(".")[2])
    return names


_TORCH_BASE = re.compile(
    r"^torch\.nn\.\w+$|^timm\."
    r"|(^|\.)(LightningModule|PreTrainedModel|MessagePassing|PyTorchModelHubMixin)$"
)


def is_torch(module: Module, owner: ast.ClassDef | None) -> bool:
    """Whether a class is surely a torch module, so that it has ``.training``."""
    return owner is not None and any(_TORCH_BASE.search(b) for b in bases(module, owner))


def maybe_torch(module: Module, owner: ast.ClassDef | None) -> bool:
    """Whether a class is a torch module, or most likely is: it has a ``forward`` and a base from
    another file.
    """
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


# the parts of thinned that are layers and functions of a framework
_PARTS = {"torch": ("thinned.nn", "thinned.functional"), "keras": ("thinned.keras",)}


def imports(module: Module, package: str) -> bool:
    """Whether a file imports from a package, or uses the part of thinned that is for it."""
    key = (f"imports {package}", module.tree)
    if key not in module.memo:
        module.memo[key] = _imports(module, package)
    result: bool = module.memo[key]
    return result


def _imports(module: Module, package: str) -> bool:
    paths = [*module.imports.table.values(), *module.imports.stars]
    for name in (package, *_PARTS.get(package, ())):
        if any(path == name or path.startswith(name + ".") for path in paths):
            return True
    if package not in _PARTS or "thinned" not in paths:
        return False
    # "import thinned" does not show which part is used
    return any(module.called(call).startswith(package + ".") for call in module.calls)


def calls_thinned(module: Module, scope: ast.AST | None, *names: str) -> bool:
    """Whether a scope, or a file where it is None, calls one of these functions of thinned."""
    calls = module.calls if scope is None else module.own(scope, ast.Call)
    return any(module.called(call) in {f"thinned.{name}" for name in names} for call in calls)


def draws(module: Module) -> bool:
    """Whether a file creates a layer that draws, under whatever name it was imported."""
    return any(
        known is not None and known.draws for known in (layer(module, c) for c in module.calls)
    )


# Words such as "sample" and "stochastic" are not among them: they mean other things in the names of
# samplers of neighbors, of depth and of diffusion.
_PURPOSE = {
    "bayes",
    "bayesian",
    "epistemic",
    "mc",
    "mcd",
    "mcdropout",
    "monte",
    "montecarlo",
    "posterior",
    "tta",
    "uncertain",
    "uncertainties",
    "uncertainty",
}
_PURPOSE_IN_TEXT = re.compile(
    r"monte[ -]?carlo|\bmc[ _-]?(dropout|sampl)|bayesian|uncertaint|posterior|predictive sampl"
    r"|at (test|inference) time|always on|on purpose|stay(s|ing)? on|training and inference",
    re.I,
)
_PURPOSE_NEAR = re.compile(r"\bexplor|diversity", re.I)
_TRAINS = {
    "augment",
    "augmentation",
    "corrupt",
    "denoise",
    "fit",
    "noise",
    "noisy",
    "perturb",
    "pretrain",
    "train",
    "training",
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
    """Whether a node samples on purpose, as Monte Carlo dropout does: a name, docstring or comment
    around it says so, a test that it depends on, a docstring of a sibling, or the name of the file
    or of a folder that it is in.
    """
    key = ("sampling", node)
    if key not in module.memo:
        module.memo[key] = _sampling(module, node)
    result: bool = module.memo[key]
    return result


def _sampling(module: Module, node: ast.AST) -> bool:
    places = around(module, node)
    parts = re.split(r"[\\/]", module.filename)
    names = [re.sub(r"\.\w+$", "", parts[-1]), *parts[-4:-1], *(p.name for p in places)]
    tests = [
        a.test
        for a in module.ancestors(node)
        if isinstance(a, (ast.If, ast.IfExp)) and node is not a.test
    ]
    names += [name for test in tests for name in names_in(test)]
    if any(words(name) & _PURPOSE for name in names):
        return True
    line = node.lineno  # type: ignore[attr-defined]
    end = node.end_lineno or line  # type: ignore[attr-defined]
    near = " ".join(t.partition("#")[2] for t in module.lines[max(0, line - 3) : end])
    if _PURPOSE_NEAR.search(near) or _PURPOSE_IN_TEXT.search(near):
        return True
    siblings = [
        s
        for p in places
        for s in getattr(module.parents[p], "body", [])
        if isinstance(s, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef))
    ]
    texts = [ast.get_docstring(p) or "" for p in (module.tree, *places, *siblings)]
    return any(_PURPOSE_IN_TEXT.search(text) for text in texts)


def names_in(node: ast.AST) -> list[str]:
    """The names and attributes in an expression."""
    return [
        n.id if isinstance(n, ast.Name) else n.attr
        for n in ast.walk(node)
        if isinstance(n, (ast.Name, ast.Attribute))
    ]


def trains(function: Function) -> bool:
    """Whether the name of a function says that it is for training, or that it adds noise."""
    return bool(words(function.name) & _TRAINS)


def of_mode(node: ast.AST | None) -> bool:
    """Whether an expression depends on the mode: ``self.training``, ``not train``,
    ``deterministic``, ...
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
    """When a test is true: 1 in training (``self.training``), -1 in evaluation (``not
    self.training``), 0 where unknown.
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
    """Whether a node is in a branch that runs only in evaluation, or after ``if self.training:
    return``.
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
    """Whether a node runs in one mode only: in a branch that tests the mode, or after ``if not
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
    """Whether the first parameter of a function is ``self``."""
    return function is not None and parameters(function)[:1] == ["self"]
