"""The order of layers: dropout before batch normalization (L5), on sequences (L10), on outputs
(L14), with SELU (L22).
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

from ..finding import Finding
from .layers import (
    ACTIVATION,
    ALPHA,
    BATCH_NORM,
    CONVOLUTION,
    LINEAR,
    RECURRENT,
    RECURRENT_WRAPPERS,
    ZEROING,
    LayerCall,
    applied,
    bases,
    is_torch,
    layer,
    methods,
    words,
)
from .module import Module, argument
from .names import dotted

_BETWEEN = re.compile(r"Pool|^(Identity|Flatten|ZeroPadding\w+|Permute|Reshape|UpSampling\w+)$")


@dataclass(frozen=True)
class LayerChain:
    """Layers that run one after the other.

    Args:
        layers: The layers; None for an unknown one.
        name: The variable that holds the chain; "" where there is none.
        node: The call that creates the chain, or the first ``add``.
    """

    layers: tuple[LayerCall | None, ...]
    name: str
    node: ast.AST


@lru_cache(maxsize=1)
def chains(module: Module) -> list[LayerChain]:
    """Every chain of a file: Sequential of PyTorch and Keras that is written out, and consecutive
    calls of ``model.add`` of Keras.
    """
    found = []
    for call in module.calls:
        if module.called(call) in ("torch.nn.Sequential", "keras.Sequential"):
            elements = tuple(layer(module, e) for e in _elements(module, call))
            if elements:
                found.append(LayerChain(elements, _target(module, call), call))
    adds = ".add(" in module.text or ".add_module(" in module.text
    for scope in [module.tree, *module.functions] if adds else []:
        found += _adds(module, scope)
    return found


def _elements(module: Module, call: ast.Call) -> list[ast.expr]:
    """The expressions of the layers in a call of Sequential."""
    if len(call.args) != 1:
        return list(call.args)
    only: ast.expr | None = (
        call.args[0].value if isinstance(call.args[0], ast.Starred) else call.args[0]
    )
    if isinstance(only, ast.Name):
        changed = {"append", "extend", "insert"}
        uses = [
            c
            for c in module.own(module.scope_of(call), ast.Call)
            if isinstance(c.func, ast.Attribute) and c.func.attr in changed
        ]
        if any(dotted(c.func.value) == only.id for c in uses if isinstance(c.func, ast.Attribute)):
            return []
        only = module.producer(only)
    if (
        isinstance(only, ast.Call)
        and module.called(only) == "collections.OrderedDict"
        and only.args
    ):
        only = only.args[0]
    if isinstance(only, (ast.List, ast.Tuple)):
        return [
            e.elts[1] if isinstance(e, ast.Tuple) and len(e.elts) == 2 else e for e in only.elts
        ]
    return list(call.args)


def _target(module: Module, call: ast.AST) -> str:
    above = module.parents.get(call)
    return (dotted(above.targets[0]) or "") if isinstance(above, ast.Assign) else ""


def _adds(module: Module, scope: ast.AST) -> list[LayerChain]:
    """The chains of consecutive ``model.add(layer)`` statements on one name in one block, and of
    ``model.add_module(name, layer)`` on a Sequential.
    """
    found = []
    for above in [scope, *module.own(scope, ast.stmt)]:
        for field in ("body", "orelse"):
            block = getattr(above, field, None)
            if isinstance(block, list) and not (
                isinstance(above, (ast.FunctionDef, ast.ClassDef)) and above is not scope
            ):
                found += _runs(module, block)
    return found


def _runs(module: Module, block: list[ast.stmt]) -> list[LayerChain]:
    """The runs of ``add`` in a block; a statement that only prints does not end a run."""
    found: list[LayerChain] = []
    name, layers, first = "", list[LayerCall | None](), None
    for statement in [*block, ast.Pass()]:
        call = statement.value if isinstance(statement, ast.Expr) else None
        called = (dotted(call.func) or "") if isinstance(call, ast.Call) else ""
        if name and called in (f"{name}.summary", "print"):
            continue
        added = None
        if isinstance(call, ast.Call) and called.endswith(".add") and len(call.args) == 1:
            added = call.args[0]
        elif isinstance(call, ast.Call) and called.endswith(".add_module") and len(call.args) == 2:
            chain = called.removesuffix(".add_module")
            values = [v for v, _ in module.assigned(module.scope_of(call), chain)]
            if [module.called(v) for v in values] == ["torch.nn.Sequential"]:
                added = call.args[1]
        target = called.rpartition(".")[0] if added is not None else ""
        if target != name:
            if any(layers) and first is not None:
                found.append(LayerChain(tuple(layers), name, first))
            name, layers, first = target, [], call
        if added is not None and target:
            layers.append(layer(module, added))
    return found


def _activation(layer_call: LayerCall) -> str | None:
    """The activation that a layer applies last: "relu", "selu"; "" where it is an unknown
    expression, None where the layer has none.
    """
    if ACTIVATION.match(layer_call.name):
        if layer_call.name == "Activation":
            return _word(argument(layer_call.call, "activation", 0))
        return layer_call.name.lower()
    if layer_call.framework != "keras":
        return None
    value = argument(layer_call.call, "activation", 1 if layer_call.name == "Dense" else None)
    if value is None or (isinstance(value, ast.Constant) and value.value is None):
        return None
    return _word(value)


def _word(node: ast.AST | None) -> str:
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value.lower()
    return (dotted(node) or "").rpartition(".")[2].lower() if node is not None else ""


def dropout_before_batchnorm(module: Module) -> Iterator[Finding]:
    """Signal: in one chain, dropout, then only linear, convolution, activation, pooling or shape
    layers, then batch normalization; or the same in consecutive calls. Let pass: any unknown layer
    between; other normalizations; UniformDropout, which hardly shifts the variance.
    """
    for chain in chains(module):
        for index, drop in enumerate(chain.layers):
            if drop is None or not _shifts(drop):
                continue
            for after in chain.layers[index + 1 :]:
                if after is None:
                    break
                if BATCH_NORM.match(after.name):
                    where = module.line(after.call.lineno)
                    message = f"{drop.name} comes before {after.name} in {where}"
                    yield module.finding("L5", drop.call, message)
                    break
                if not _may_stand_between(after):
                    break
    for call in module.calls:
        norm = applied(module, call)
        if norm is None or not BATCH_NORM.match(norm.name):
            continue
        drop = _dropped_before(module, call)
        if drop is not None:
            message = f"{norm.name} comes after {drop.name} of {module.line(drop.call.lineno)}"
            yield module.finding("L5", call, message)


def _shifts(drop: LayerCall) -> bool:
    """Whether dropout shifts the variance of what follows. UniformDropout is the remedy of L5."""
    return drop.drops and drop.name != "UniformDropout"


def _may_stand_between(layer_call: LayerCall) -> bool:
    name = layer_call.name
    known = name in LINEAR or CONVOLUTION.match(name) or ACTIVATION.match(name)
    return bool(known or _BETWEEN.search(name))


def _dropped_before(module: Module, call: ast.Call) -> LayerCall | None:
    """The dropout before the call of a layer, with only layers between that keep the shift."""
    node: ast.expr | None = call
    for _ in range(6):
        node = node.args[0] if isinstance(node, ast.Call) and node.args else None
        node = module.producer(node) if isinstance(node, ast.Name) else node
        before = applied(module, node)
        if before is None or _shifts(before):
            return before
        if not _may_stand_between(before):
            return None
    return None


_SEQUENCES = (
    RECURRENT
    | RECURRENT_WRAPPERS
    | {
        "Embedding",
        "EmbeddingDropout",
        "MultiheadAttention",
        "TransformerDecoder",
        "TransformerEncoder",
        "TransformerEncoderLayer",
    }
)
_WHOLE = {"word", "words", "token", "tokens", "step", "time", "frame", "node"}


def channel_dropout_on_sequences(module: Module) -> Iterator[Finding]:
    """Signal: Dropout1d or Dropout2d of torch or thinned, thinned's SpatialDropout, F.dropout1d or
    F.dropout2d directly on the output of an embedding, a recurrent network or a transformer, in a
    chain or in a forward; Dropout1d on [batch, features], which is flattened before. Let pass:
    anything permuted, transposed or reshaped between; a layout that is written out; attributes and
    comments that speak of words or steps.
    """
    for chain in chains(module):
        for before, drop in zip(chain.layers, chain.layers[1:], strict=False):
            if drop and before and _is_of_channels(drop) and before.name in _SEQUENCES:
                yield _on_sequence(module, drop.call, drop.name, before.name)
    for call in module.calls:
        drop = applied(module, call)
        called = module.called(call)
        if drop is not None and _is_of_channels(drop):
            name = drop.name
        elif called in ("torch.nn.functional.dropout1d", "torch.nn.functional.dropout2d"):
            name = called.rpartition(".")[2]
        else:
            continue
        if name in ("Dropout1d", "dropout1d") and call.args and _is_flat(module, call.args[0]):
            yield _on_rows(module, call, name)
            continue
        source = _source(module, call)
        if source is None or source.framework != "torch" or source.name not in _SEQUENCES:
            continue
        near = module.lines[call.lineno - 2] if call.lineno > 1 else ""
        texts = [(dotted(call.func) or "").rpartition(".")[2], near.partition("#")[2]]
        if not any(words(text) & _WHOLE for text in texts):
            yield _on_sequence(module, call, name, source.name)


def _is_flat(module: Module, node: ast.expr, depth: int = 0) -> bool:
    """Whether an expression surely has two axes, [batch, features]: flattened, or normalized by
    BatchNorm1d after a linear layer, or an activation of that.
    """
    if depth > 6:
        return False
    if isinstance(node, ast.Name):
        origin = module.producer(node)
        return origin is not None and _is_flat(module, origin, depth + 1)
    if not isinstance(node, ast.Call):
        return False
    known = applied(module, node)
    if known is not None:
        if known.name == "Flatten":
            return not known.call.args and not known.call.keywords
        inside = bool(node.args) and _is_flat(module, node.args[0], depth + 1)
        if known.name in LINEAR:
            return inside
        return inside and bool(known.name == "BatchNorm1d" or ACTIVATION.match(known.name))
    if _function(module, node) is not None and node.args:
        return _is_flat(module, node.args[0], depth + 1)
    name = module.called(node)
    if name == "torch.flatten":
        return _is_one(argument(node, "start_dim", 1)) and argument(node, "end_dim", 2) is None
    if isinstance(node.func, ast.Attribute) and not name:
        if node.func.attr in ("view", "reshape"):
            return len(node.args) == 2 and isinstance(node.args[1], (ast.UnaryOp, ast.Constant))
        if node.func.attr == "flatten":
            return len(node.args) == 1 and _is_one(node.args[0])
        if node.func.attr in ("relu", "tanh", "sigmoid") and not node.args:
            return _is_flat(module, node.func.value, depth + 1)
    return False


def _is_one(node: ast.expr | None) -> bool:
    return isinstance(node, ast.Constant) and node.value == 1


def _on_rows(module: Module, node: ast.AST, name: str) -> Finding:
    message = f"{name} on [batch, features] reads it as [channels, length]: it drops whole examples"
    return module.finding("L10", node, message, remedy="use Dropout")


def _is_of_channels(drop: LayerCall) -> bool:
    """Whether a layer of torch drops along the second axis of three: [batch, channel, length]."""
    if drop.framework != "torch" or not drop.drops:
        return False
    if drop.name == "SpatialDropout":
        return argument(drop.call, "layout") is None
    return drop.name in ("Dropout1d", "Dropout2d")


def _on_sequence(module: Module, node: ast.AST, name: str, before: str) -> Finding:
    output = f"{before}, which outputs [batch, time, features]"
    message = f"{name} follows {output}: whole steps are dropped"
    return module.finding("L10", node, message)


def _source(module: Module, call: ast.Call) -> LayerCall | None:
    """The layer that made the first argument of a call, directly or through a local name."""
    if not call.args:
        return None
    node: ast.expr | None = call.args[0]
    if isinstance(node, ast.Name):
        node = module.producer(node)
    return applied(module, node)


_LOSS = re.compile(
    r"(CrossEntropy|NLL|BCE|BCEWithLogits|MSE|L1|SmoothL1)Loss"
    r"|cross_entropy|nll_loss|binary_cross_entropy|mse_loss"
)
_PART = {
    "attention",
    "backbone",
    "block",
    "cell",
    "conv",
    "decoder",
    "embed",
    "embedding",
    "encoder",
    "expert",
    "extractor",
    "features",
    "feed",
    "feedforward",
    "ffn",
    "forward",
    "head",
    "layer",
    "mlp",
    "module",
    "part",
    "projection",
    "stem",
    "sublayer",
    "unit",
}


def dropout_on_outputs(module: Module) -> Iterator[Finding]:
    """Signal: a Keras chain that is compiled and ends in dropout; a torch chain named as a model
    or net, with trained parameters, that ends in dropout of a linear layer; or a torch module with
    a forward that returns dropout of a linear layer, where the same file creates it outside other
    modules and has a loss. Let pass: parts by name (block, encoder, head, ...), modules created
    inside modules, chains that are used in others.
    """
    for chain in chains(module):
        last = chain.layers[-1]
        if last is None or not last.drops or last.framework != "keras" or not chain.name:
            continue
        compiled = re.search(rf"\b{re.escape(chain.name)}\.compile\(", module.text)
        used = re.search(rf"[\[(,]\s*{re.escape(chain.name)}\s*[\]),]", module.text)
        if compiled and not used:
            yield module.finding(
                "L14", last.call, f"{chain.name} ends in {last.name}, so its outputs are dropped"
            )
    if not _LOSS.search(module.text):
        return
    yield from _chains_end(module)
    for owner in module.classes:
        if is_torch(module, owner) and not words(owner.name) & _PART and _is_whole(module, owner):
            for method in methods(owner):
                if method.name == "forward":
                    yield from _returned(module, method)


def _chains_end(module: Module) -> Iterator[Finding]:
    for chain in chains(module):
        last, before = chain.layers[-1], chain.layers[-2] if len(chain.layers) > 1 else None
        if (
            last is None
            or before is None
            or not last.drops
            or last.framework != "torch"
            or before.name not in LINEAR
        ):
            continue
        trained = chain.name and f"{chain.name}.parameters()" in module.text
        if (
            trained
            and words(chain.name) & {"model", "net", "network", "classifier", "mlp"}
            and not words(chain.name) & _PART - {"mlp"}
        ):
            yield module.finding(
                "L14", last.call, f"{chain.name} ends in {last.name}, so its outputs are dropped"
            )


def _is_whole(module: Module, owner: ast.ClassDef) -> bool:
    """Whether a file creates this module, and never inside another class."""
    calls = [c for c in module.calls if isinstance(c.func, ast.Name) and c.func.id == owner.name]
    derived = any(owner.name in (dotted(b) for b in c.bases) for c in module.classes)
    return bool(calls) and not derived and all(not _in_module(module, c) for c in calls)


def _in_module(module: Module, node: ast.AST) -> bool:
    owner = module.class_of(node)
    if owner is not None and any("Lightning" in b for b in bases(module, owner)):
        return False
    return owner is not None


def _returned(module: Module, method: ast.AST) -> Iterator[Finding]:
    for statement in module.own(method, ast.Return):
        value: ast.expr | None = statement.value
        if isinstance(value, ast.Name):
            value = module.producer(value)
        drop = applied(module, value)
        functions = ("torch.nn.functional.dropout", "torch.nn.functional.drop")
        if not isinstance(value, ast.Call) or not (
            module.called(value) in functions or (drop is not None and drop.is_dropout)
        ):
            continue
        before = _source(module, value)
        if before is not None and before.name in LINEAR:
            yield module.finding(
                "L14",
                value,
                f"forward returns dropout of {before.name}: the outputs of the model are dropped",
            )


def selu_without_alpha_dropout(module: Module) -> Iterator[Finding]:
    """Signal: in a chain or a nested call, dropout with zeros directly on SELU, or alpha dropout
    directly on another activation. Let pass: activations chosen by a variable; layers between;
    attributes that may be several layers.
    """
    for chain in chains(module):
        for before, drop in zip(chain.layers, chain.layers[1:], strict=False):
            if before and drop and drop.drops and _mismatch(_activation(before), drop.name):
                yield _selu(module, drop.call, drop.name, _activation(before) or "")
                break
    reported = set()
    for call in module.calls:
        drop = applied(module, call)
        if drop is None or not drop.drops or not call.args:
            continue
        node: ast.expr | None = call.args[0]
        node = module.producer(node) if isinstance(node, ast.Name) else node
        before = applied(module, node)
        name = _activation(before) if before is not None else _function(module, node)
        if _mismatch(name, drop.name) and module.class_of(call) not in reported:
            reported.add(module.class_of(call))
            yield _selu(module, call, drop.name, name or "")


_LAYER = {
    "relu": "ReLU",
    "selu": "SELU",
    "gelu": "GELU",
    "elu": "ELU",
    "tanh": "Tanh",
    "sigmoid": "Sigmoid",
    "silu": "SiLU",
    "leaky_relu": "LeakyReLU",
    "relu6": "ReLU6",
    "mish": "Mish",
    "softplus": "Softplus",
}


def _function(module: Module, node: ast.AST | None) -> str | None:
    """The activation that a call of torch.nn.functional or torch applies."""
    package, _, name = module.called(node).rpartition(".") if node is not None else ("", "", "")
    known = package in ("torch.nn.functional", "torch", "torch.special")
    return name if known and ACTIVATION.match(_LAYER.get(name, "")) else None


def _mismatch(activation: str | None, dropout: str) -> bool:
    if not activation or activation in ("linear", "softmax", "activation"):
        return False
    return dropout in (ZEROING if activation == "selu" else ALPHA)


def _selu(module: Module, node: ast.AST, dropout: str, activation: str) -> Finding:
    return module.finding("L22", node, f"{dropout} follows {activation}")
