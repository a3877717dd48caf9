"""What follows what: dropout before batch normalisation (L5), on sequences (L10), on outputs (L14),
with SELU (L22).
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
    DROPOUTS,
    LINEAR,
    PLAIN,
    RECURRENT,
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
    """Layers that run one after the other; None stands for what is not known. ``name``: of the
    variable that holds it.
    """

    layers: tuple[LayerCall | None, ...]
    name: str
    node: ast.AST


@lru_cache(maxsize=1)
def chains(module: Module) -> list[LayerChain]:
    """Every chain of a file: Sequential of PyTorch and Keras, from a literal, and Keras's
    ``model.add`` one after the other.
    """
    out = []
    for call in module.calls:
        if module.called(call) in ("torch.nn.Sequential", "keras.Sequential"):
            made = _elements(module, call)
            if made:
                out.append(
                    LayerChain(tuple(layer(module, e) for e in made), _target(module, call), call)
                )
    for scope in [module.tree, *module.functions] if ".add(" in module.text else []:
        out += _adds(module, scope)
    return out


def _elements(module: Module, call: ast.Call) -> list[ast.expr]:
    """The layers' expressions in a Sequential's call."""
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
    """``model.add(layer)`` statements on one name, one after the other in one block."""
    out = []
    for above in [scope, *module.own(scope, ast.stmt)]:
        for field in ("body", "orelse"):
            block = getattr(above, field, None)
            if isinstance(block, list) and not (
                isinstance(above, (ast.FunctionDef, ast.ClassDef)) and above is not scope
            ):
                out += _runs(module, block)
    return out


def _runs(module: Module, block: list[ast.stmt]) -> list[LayerChain]:
    """The runs of ``add`` in a block; what only prints does not end one."""
    out: list[LayerChain] = []
    name, made, first = "", list[LayerCall | None](), None
    for statement in [*block, ast.Pass()]:
        call = statement.value if isinstance(statement, ast.Expr) else None
        called = (dotted(call.func) or "") if isinstance(call, ast.Call) else ""
        if name and called in (f"{name}.summary", "print"):
            continue
        given = (
            call.args[0]
            if isinstance(call, ast.Call) and called.endswith(".add") and len(call.args) == 1
            else None
        )
        to = called.removesuffix(".add") if given is not None else ""
        if to != name:
            if any(made) and first is not None:
                out.append(LayerChain(tuple(made), name, first))
            name, made, first = to, [], call
        if given is not None and to:
            made.append(layer(module, given))
    return out


def _activation(made: LayerCall) -> str | None:
    """The activation that a layer applies last: "relu", "selu", "" where it is given but not to be
    seen; None where none.
    """
    if ACTIVATION.match(made.name):
        if made.name == "Activation":
            return _word(argument(made.call, "activation", 0))
        return made.name.lower()
    given = (
        argument(made.call, "activation", 1 if made.name == "Dense" else None)
        if made.home == "keras"
        else None
    )
    return (
        None
        if given is None or (isinstance(given, ast.Constant) and given.value is None)
        else _word(given)
    )


def _word(node: ast.AST | None) -> str:
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value.lower()
    return (dotted(node) or "").rpartition(".")[2].lower() if node is not None else ""


def l5(module: Module) -> Iterator[Finding]:
    """Signal: in one chain, dropout, then only linear, convolution, activation, pooling or shape
    layers, then batch normalisation; or the same by calls one after the other. Let pass: anything
    unknown between; other normalisations.
    """
    for chain in chains(module):
        for at, made in enumerate(chain.layers):
            if made is None or not made.drops:
                continue
            for after in chain.layers[at + 1 :]:
                if after is None:
                    break
                if BATCH_NORM.match(after.name):
                    yield module.finding(
                        "L5",
                        made.call,
                        f"{made.name} comes before {after.name} in {module.line(after.call.lineno)}",
                    )
                    break
                if not _is_plain(after):
                    break
    for call in module.calls:
        after = applied(module, call)
        drop = (
            _dropped_before(module, call)
            if after is not None and BATCH_NORM.match(after.name)
            else None
        )
        if after is not None and drop is not None:
            yield module.finding(
                "L5",
                call,
                f"{after.name} comes after {drop.name} of {module.line(drop.call.lineno)}",
            )


def _is_plain(made: LayerCall) -> bool:
    known = made.name in LINEAR or CONVOLUTION.match(made.name) or ACTIVATION.match(made.name)
    return bool(known or _BETWEEN.search(made.name))


def _dropped_before(module: Module, call: ast.Call) -> LayerCall | None:
    """The dropout behind a layer's call, with plain layers alone between."""
    given: ast.expr | None = call
    for _ in range(6):
        given = given.args[0] if isinstance(given, ast.Call) and given.args else None
        given = module.producer(given) if isinstance(given, ast.Name) else given
        made = applied(module, given)
        if made is None or made.drops:
            return made
        if not _is_plain(made):
            return None
    return None


_ROWS = RECURRENT | {
    "Embedding",
    "TransformerEncoder",
    "TransformerEncoderLayer",
    "TransformerDecoder",
    "MultiheadAttention",
}
_WHOLE = {"word", "words", "token", "tokens", "step", "time", "frame", "node"}


def l10(module: Module) -> Iterator[Finding]:
    """Signal: torch's Dropout1d or Dropout2d (or F.dropout1d, F.dropout2d) directly on what an
    embedding, a recurrent network or a transformer gives, in a chain or in a forward. Let pass:
    anything permuted, transposed or reshaped between; attributes whose name says that words or
    steps are to be dropped.
    """
    for chain in chains(module):
        for before, made in zip(chain.layers, chain.layers[1:], strict=False):
            if (
                made
                and before
                and made.home == "torch"
                and made.name in ("Dropout1d", "Dropout2d")
                and before.name in _ROWS
                and made.drops
            ):
                yield _rows(module, made.call, made.name, before.name)
    for call in module.calls:
        drop = applied(module, call)
        name = module.called(call).rpartition(".")[2]
        if (
            drop is not None
            and drop.home == "torch"
            and drop.name in ("Dropout1d", "Dropout2d")
            and drop.drops
        ):
            name = drop.name
        elif module.called(call) not in (
            "torch.nn.functional.dropout1d",
            "torch.nn.functional.dropout2d",
        ):
            continue
        source = _source(module, call)
        whole = words((dotted(call.func) or "").rpartition(".")[2]) & _WHOLE
        if source is not None and source.home == "torch" and source.name in _ROWS and not whole:
            yield _rows(module, call, name, source.name)


def _rows(module: Module, node: ast.AST, name: str, before: str) -> Finding:
    return module.finding(
        "L10",
        node,
        f"{name} follows {before}, whose output is [batch, time, features]: whole steps fall",
    )


def _source(module: Module, call: ast.Call) -> LayerCall | None:
    """The layer whose output a call is given, directly or by a local name."""
    if not call.args:
        return None
    given: ast.expr | None = call.args[0]
    if isinstance(given, ast.Name):
        given = module.producer(given)
    return applied(module, given)


_LOSS = re.compile(
    r"(CrossEntropy|NLL|BCE|BCEWithLogits|MSE|L1|SmoothL1)Loss|cross_entropy|nll_loss|binary_cross_entropy|mse_loss"
)
_PART = {"block", "layer", "feedforward", "forward", "ffn", "mlp", "attention", "encoder", "decoder", "embedding", "embed",
         "backbone", "projection", "extractor", "features", "stem", "cell", "module", "conv", "head", "feed", "part",
         "unit", "sublayer", "expert"}  # fmt: skip


def l14(module: Module) -> Iterator[Finding]:
    """Signal: a Keras chain that is compiled and ends in dropout; a torch chain that is called a model or net, whose parameters
    are trained and which ends in dropout of a linear layer; or a torch module whose forward returns dropout of a linear
    layer, where the same file makes one outside other modules and has a loss. Let pass: parts by name (block, encoder, head
    ...), modules made inside modules, chains that are used in others.
    """
    for chain in chains(module):
        last = chain.layers[-1]
        if last is None or not last.drops or last.home != "keras" or not chain.name:
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
            or last.home != "torch"
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
    """Whether a file makes this module, and nowhere inside another class."""
    made = [c for c in module.calls if isinstance(c.func, ast.Name) and c.func.id == owner.name]
    derived = any(owner.name in (dotted(b) for b in c.bases) for c in module.classes)
    return bool(made) and not derived and all(not _in_module(module, c) for c in made)


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
        functional = (
            module.called(value) == "torch.nn.functional.dropout" if value is not None else False
        )
        if not isinstance(value, ast.Call) or not (
            functional or (drop is not None and drop.name in DROPOUTS)
        ):
            continue
        before = _source(module, value)
        if before is not None and before.name in LINEAR:
            yield module.finding(
                "L14",
                value,
                f"forward returns dropout of {before.name}: the model's outputs are dropped",
            )


def l22(module: Module) -> Iterator[Finding]:
    """Signal: in a chain or a nested call, plain dropout directly on SELU, or alpha dropout
    directly on another activation. Let pass: activations chosen by a variable; layers between;
    attributes that may be several layers.
    """
    for chain in chains(module):
        for before, made in zip(chain.layers, chain.layers[1:], strict=False):
            if before and made and made.drops and _mismatch(_activation(before), made.name):
                yield _selu(module, made.call, made.name, _activation(before) or "")
                break
    seen = set()
    for call in module.calls:
        made = applied(module, call)
        if made is None or not made.drops or not call.args:
            continue
        given: ast.expr | None = call.args[0]
        given = module.producer(given) if isinstance(given, ast.Name) else given
        before = applied(module, given)
        name = _activation(before) if before is not None else _function(module, given)
        if _mismatch(name, made.name) and module.class_of(call) not in seen:
            seen.add(module.class_of(call))
            yield _selu(module, call, made.name, name or "")


def _function(module: Module, node: ast.AST | None) -> str | None:
    """The activation that a call of torch.nn.functional or torch applies."""
    home, _, name = module.called(node).rpartition(".") if node is not None else ("", "", "")
    return (
        name
        if home in ("torch.nn.functional", "torch", "torch.special")
        and ACTIVATION.match(_LAYER.get(name, ""))
        else None
    )


_LAYER = {"relu": "ReLU", "selu": "SELU", "gelu": "GELU", "elu": "ELU", "tanh": "Tanh", "sigmoid": "Sigmoid", "silu": "SiLU",
          "leaky_relu": "LeakyReLU", "relu6": "ReLU6", "mish": "Mish", "softplus": "Softplus"}  # fmt: skip


def _mismatch(activation: str | None, dropout: str) -> bool:
    if not activation or activation in ("linear", "softmax", "activation"):
        return False
    return dropout in (PLAIN if activation == "selu" else ALPHA)


def _selu(module: Module, node: ast.AST, dropout: str, activation: str) -> Finding:
    return module.finding("L22", node, f"{dropout} follows {activation}")
