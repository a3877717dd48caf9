"""Rates: a keep probability as a rate (L4), of one recurrent layer (L11), scaled twice (L17), 1
(L19).
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from ..finding import Finding
from .functional import MODES, TORCH_MODES, rate_of
from .layers import (
    AMPLITUDES,
    DRAWING,
    RECURRENT,
    applied,
    attribute,
    imports,
    in_evaluation,
    layer,
    maybe_torch,
    rate,
)
from .module import Module, argument, default, number, opaque
from .names import dotted

_KEEP = re.compile(
    r"(^|_)(keep|retain|survival|survive)_?(prob|probability|probs|rate|p|ratio|proba)s?$"
    r"|^p_?keep$|^keepprob$",
    re.I,
)
_DROPPED = re.compile(r"^(?!.*1(\.0*)? - ).*drop", re.I)
_OLD = re.compile(
    r"\.(placeholder|Session|InteractiveSession|contrib|get_variable|variable_scope"
    r"|truncated_normal|random_normal|app\.run|global_variables_initializer"
    r"|initialize_all_variables|random_uniform|disable_v2_behavior|disable_eager_execution"
    r"|nn\.rnn_cell|AdamOptimizer|GradientDescentOptimizer|logging\.set_verbosity)\b"
)
_NEW = re.compile(
    r"@tf\.function|GradientTape|\bcompat\.v1\b|\btf\.keras\b|tensorflow\.keras"
    r"|\btf\.random\.normal\b|\.shape\[0\]\.numpy"
)


# specs of thinned with the probability of dropping as their first argument
_PRESETS = {
    f"thinned.presets.{name}"
    for name in (
        "alpha_dropout",
        "batchwise_dropout",
        "drop_block",
        "drop_connect",
        "drop_message",
        "drop_node",
        "drop_path",
        "dropout",
        "feature_alpha_dropout",
        "gaussian_dropout",
        "locked_dropout",
        "spatial_dropout",
        "stochastic_depth",
        "token_dropout",
    )
}
_HAIKU = ("haiku.dropout", "hk.dropout")
_TENSORFLOW = (
    "tensorflow.nn.dropout",
    "tensorflow.layers.dropout",
    "tensorflow.compat.v1.layers.dropout",
)
_TENSORFLOW_ONE = ("tensorflow.compat.v1.nn.dropout", "tensorflow.compat.v1.dropout")


def _rates(module: Module) -> Iterator[tuple[ast.Call, ast.expr, str]]:
    """Every (call, rate, name) of a dropout layer, spec or function that takes the probability of
    dropping.
    """
    for call in module.calls:
        known = layer(module, call)
        name = module.called(call)
        value: ast.expr | None = None
        if known is not None:
            # the spec of a SpecDropout is a call of its own
            takes = known.name in DRAWING and known.name not in AMPLITUDES
            value = rate(known) if takes and known.spec is None else None
        elif name in MODES:
            value = rate_of(call, MODES[name])
        elif name in _PRESETS:
            value = argument(call, "p", 0)
        elif name in _HAIKU or name in _TENSORFLOW:
            value = argument(call, "rate", 1)
        elif name in _TENSORFLOW_ONE:
            value = argument(call, "rate")
        if value is not None:
            yield call, value, name or (dotted(call.func) or "").rpartition(".")[2]


def keep_probability_as_rate(module: Module) -> Iterator[Finding]:
    """Signal: a name or attribute such as keep_prob, unchanged, as the probability of dropping. Let
    pass: ``1 - keep_prob``; the keyword keep_prob=; tf.nn.dropout(x, keep_prob) in files that use
    the names of TensorFlow 1 or show no version; a name that the same function sets to 1 minus a
    value.
    """
    for call, value, name in _rates(module):
        inner = value.value if isinstance(value, ast.Subscript) else value
        last = (dotted(inner) or "").rpartition(".")[2]
        if not _KEEP.search(last) or _is_inverted(module, value):
            continue
        by_place = name == "tensorflow.nn.dropout" and not any(
            k.value is value for k in call.keywords
        )
        if by_place and (_OLD.search(module.text) or not _NEW.search(module.text)):
            continue
        text = module.source(value)
        change = (module.replace(value, f"1 - {text}"),) if _is_high(module, last) else ()
        message = f"{text} is passed as the probability of dropping"
        yield module.finding("L4", call, message, change)


def _is_high(module: Module, name: str) -> bool:
    """Whether every value that a file shows for a name is a literal above one half, so that the
    name is surely right and its use wrong. A fix without that would turn around a rate that merely
    has a misleading name.
    """
    values: list[ast.expr | None] = []
    for node in module.children:
        if isinstance(node, ast.keyword) and node.arg == name:
            values.append(node.value)
        elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            values.append(default(node, name))
        elif isinstance(node, (ast.Assign, ast.AnnAssign)):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            if any((dotted(t) or "").rpartition(".")[2] == name for t in targets):
                values.append(node.value)
        elif isinstance(node, ast.Call):
            flags = [a.value for a in node.args if isinstance(a, ast.Constant)]
            if any(isinstance(f, str) and f.lstrip("-").replace("-", "_") == name for f in flags):
                values.append(argument(node, "default", 1))
    numbers = [n for n in map(number, values) if n is not None]
    return bool(numbers) and all(0.5 < n <= 1 for n in numbers)


def _is_inverted(module: Module, value: ast.expr) -> bool:
    """Whether a name is a rate of dropping after all: its function sets it to 1 minus a value, or
    its class does for an attribute, or it is a parameter with a misleading name, for which the
    calls in the file pass a rate of dropping.
    """
    values = [v for v, _ in module.assigned(module.scope_of(value), dotted(value) or "")]
    values += attribute(module, value)
    passed = [
        k.value
        for c in module.calls
        for k in c.keywords
        if isinstance(value, ast.Name) and k.arg == value.id
    ]
    if any(
        _DROPPED.search(ast.unparse(v)) and not _KEEP.search((dotted(v) or "").rpartition(".")[2])
        for v in passed
    ):
        return True
    return any(
        isinstance(v, ast.BinOp) and isinstance(v.op, ast.Sub) and number(v.left) == 1
        for v in values
    )


def recurrent_dropout_of_one_layer(module: Module) -> Iterator[Finding]:
    """Signal: LSTM, GRU or RNN of torch receives a dropout that is not 0, and num_layers is left
    out or the literal 1. Let pass: ``**kwargs``; a number of layers that is an expression; Keras,
    where the argument drops inputs; a rate chosen by an if. thinned's recurrent layers raise an
    error instead.
    """
    for call in module.calls:
        network = layer(module, call)
        if network is None or network.framework != "torch" or network.name not in RECURRENT:
            continue
        value, layers = argument(call, "dropout", 5), argument(call, "num_layers", 2)
        if (
            opaque(call)
            or value is None
            or number(value) == 0
            or isinstance(value, ast.IfExp)
            or (layers is not None and number(layers) != 1)
        ):
            continue
        if isinstance(value, ast.Name):
            origin = module.producer(value)
            if number(origin) == 0 or isinstance(origin, ast.IfExp):
                continue
        message = f"{network.name} has one layer, so dropout={module.source(value)} is never used"
        yield module.finding("L11", call, message)


def scaled_twice(module: Module) -> Iterator[Finding]:
    """Signal: a method of a torch module applies nn.Dropout, F.dropout or thinned's dropout, and in
    a branch that runs only in evaluation multiplies by ``1 - p`` or by a name such as keep_prob.
    Let pass: dropout written by hand, which may not divide in training; ``scale="unscaled"``.
    """
    if not imports(module, "torch"):
        return
    for function in module.functions:
        if not maybe_torch(module, module.class_of(function)) or not any(
            _scales(module, c) for c in module.own(function, ast.Call)
        ):
            continue
        for node in module.own(function, ast.AST):
            if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mult):
                factors = [node.left, node.right]
            elif isinstance(node, ast.AugAssign) and isinstance(node.op, ast.Mult):
                factors = [node.value]
            else:
                continue
            shrink = next((f for f in factors if _shrinks(f)), None)
            if shrink is not None and in_evaluation(module, node):
                text = module.source(shrink)
                message = f"multiplied by {text} in evaluation, though dropout scales already"
                yield module.finding("L17", node, message)


def _scales(module: Module, call: ast.Call) -> bool:
    """Whether a call applies dropout of torch that scales by itself."""
    drop = applied(module, call)
    if drop is None:
        return module.called(call) in TORCH_MODES
    scale = argument(drop.call, "scale")
    literal = scale.value if isinstance(scale, ast.Constant) else None
    scales = scale is None or literal in ("inverted", "classic")
    return drop.framework == "torch" and drop.is_dropout and scales


def _shrinks(node: ast.expr) -> bool:
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Sub) and number(node.left) == 1:
        return bool(re.search(r"drop|(^|\.|_)(p|rate|prob)$", dotted(node.right) or ""))
    return bool(_KEEP.search((dotted(node) or "").rpartition(".")[2]))


# what these drop is replaced by another value, so that rate 1 leaves something
_REPLACING = {
    "Mixout",
    "ShakeDrop",
    "Swapout",
    "TargetedDropout",
    "TargetedUnitDropout",
    "Zoneout",
    "mixout",
    "shake_drop",
    "swapout",
    "targeted_dropout",
    "zoneout",
}


def nothing_left(module: Module) -> Iterator[Finding]:
    """Signal: a dropout layer or function with the literal rate 1. Let pass: calculated rates;
    lists of stacked ``DropPath``; methods that replace what they drop, such as Zoneout.
    """
    for call, value, name in _rates(module):
        last = name.rpartition(".")[2]
        if number(value) == 1 and last not in _REPLACING:
            yield module.finding("L19", call, f"{last} with rate 1 drops everything")
