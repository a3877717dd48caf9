"""Rates: kept for dropped (L4), of one recurrent layer (L11), scaled twice (L17), 1 (L19)."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from ..finding import Finding
from .functional import MODES
from .layers import (
    DROPOUTS,
    RECURRENT,
    applied,
    attribute,
    imports,
    in_evaluation,
    layer,
    maybe_torch,
    rate,
)
from .module import Module, argument, number, opaque
from .names import dotted

_KEEP = re.compile(
    r"(^|_)(keep|retain|survival|survive)_?(prob|probability|probs|rate|p|ratio|proba)s?$|^p_?keep$|^keepprob$",
    re.I,
)
_DROPPED = re.compile(r"^(?!.*1(\.0*)? - ).*drop", re.I)
_OLD = re.compile(
    r"\.(placeholder|Session|InteractiveSession|contrib|get_variable|variable_scope|truncated_normal|random_normal|app\.run|"
    r"global_variables_initializer|initialize_all_variables|random_uniform|disable_v2_behavior|disable_eager_execution|"
    r"nn\.rnn_cell|AdamOptimizer|GradientDescentOptimizer|logging\.set_verbosity)\b"
)
_NEW = re.compile(
    r"@tf\.function|GradientTape|\bcompat\.v1\b|\btf\.keras\b|tensorflow\.keras|\btf\.random\.normal\b|\.shape\[0\]\.numpy"
)


def _rates(module: Module) -> Iterator[tuple[ast.Call, ast.expr, str]]:
    """Every (call, rate, name) of a dropout layer or function whose rate is the probability of
    dropping.
    """
    for call in module.calls:
        made = layer(module, call)
        name = module.called(call)
        given: ast.expr | None = None
        if made is not None and made.name in DROPOUTS:
            given = rate(made)
        elif name in MODES:
            given = argument(call, "p", 1)
        elif (
            name in ("haiku.dropout", "hk.dropout")
            or name == "tensorflow.nn.dropout"
            or name in ("tensorflow.layers.dropout", "tensorflow.compat.v1.layers.dropout")
        ):
            given = argument(call, "rate", 1)
        elif name in ("tensorflow.compat.v1.nn.dropout", "tensorflow.compat.v1.dropout"):
            given = argument(call, "rate")
        if given is not None:
            yield call, given, name or (dotted(call.func) or "").rpartition(".")[2]


def l4(module: Module) -> Iterator[Finding]:
    """Signal: a name or attribute such as keep_prob, as it is, where the probability of dropping
    belongs. Let pass: ``1 - keep_prob``; the keyword keep_prob=; tf.nn.dropout(x, keep_prob) in
    files that use TensorFlow 1's names or show no version; a name that the same function sets to 1
    minus something.
    """
    for call, given, name in _rates(module):
        inner = given.value if isinstance(given, ast.Subscript) else given
        last = (dotted(inner) or "").rpartition(".")[2]
        if not _KEEP.search(last) or _is_inverted(module, given):
            continue
        by_place = name == "tensorflow.nn.dropout" and not any(
            k.value is given for k in call.keywords
        )
        if by_place and (_OLD.search(module.text) or not _NEW.search(module.text)):
            continue
        text = module.source(given)
        yield module.finding(
            "L4",
            call,
            f"{text} is passed as the probability of dropping",
            (module.replace(given, f"1 - {text}"),),
        )


def _is_inverted(module: Module, given: ast.expr) -> bool:
    """Whether a name was set to 1 minus something in its function, or an attribute in its class; or
    is a parameter whose name misleads, for the file's own calls pass a rate of dropping for it.
    """
    values = module.assigned(module.scope_of(given), dotted(given) or "")
    values += [(v, module.tree.body[0]) for v in attribute(module, given)]
    passed = [
        k.value
        for c in module.calls
        for k in c.keywords
        if isinstance(given, ast.Name) and k.arg == given.id
    ]
    if any(
        _DROPPED.search(ast.unparse(v)) and not _KEEP.search((dotted(v) or "").rpartition(".")[2])
        for v in passed
    ):
        return True
    return any(
        isinstance(v, ast.BinOp) and isinstance(v.op, ast.Sub) and number(v.left) == 1
        for v, _ in values
    )


def l11(module: Module) -> Iterator[Finding]:
    """Signal: torch's LSTM, GRU or RNN is given a dropout that is not 0 and its layers are left out
    or are the literal 1. Let pass: ``**kwargs``; a number of layers that is an expression; Keras,
    whose dropout acts on the inputs; a rate chosen by an if.
    """
    for call in module.calls:
        made = layer(module, call)
        if made is None or made.home != "torch" or made.name not in RECURRENT or opaque(call):
            continue
        given, layers = argument(call, "dropout", 5), argument(call, "num_layers", 2)
        if (
            given is None
            or number(given) == 0
            or isinstance(given, ast.IfExp)
            or (layers is not None and number(layers) != 1)
        ):
            continue
        if isinstance(given, ast.Name):
            value = module.producer(given)
            if number(value) == 0 or isinstance(value, ast.IfExp):
                continue
        yield module.finding(
            "L11",
            call,
            f"{made.name} has one layer, so dropout={module.source(given)} is never used",
        )


def l17(module: Module) -> Iterator[Finding]:
    """Signal: a method of a torch module applies nn.Dropout or F.dropout, and in a branch for
    evaluation alone multiplies by ``1 - p`` or by a name that speaks of keeping. Let pass: dropout
    written by hand, for it may not divide in training.
    """
    if not imports(module, "torch"):
        return
    for function in module.functions:
        if not maybe_torch(module, module.class_of(function)) or not any(
            _inverted(module, c) for c in module.own(function, ast.Call)
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
                yield module.finding(
                    "L17",
                    node,
                    f"multiplied by {module.source(shrink)} in evaluation, though training divided by it already",
                )


def _inverted(module: Module, call: ast.Call) -> bool:
    made = applied(module, call)
    return module.called(call) in MODES or (
        made is not None and made.home == "torch" and made.name in DROPOUTS
    )


def _shrinks(node: ast.expr) -> bool:
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Sub) and number(node.left) == 1:
        return bool(re.search(r"drop|(^|\.|_)(p|rate|prob)$", dotted(node.right) or ""))
    return bool(_KEEP.search((dotted(node) or "").rpartition(".")[2]))


def l19(module: Module) -> Iterator[Finding]:
    """Signal: a dropout layer or function with the literal rate 1. Let pass: calculated rates;
    stacked ``DropPath`` lists.
    """
    for call, given, name in _rates(module):
        if number(given) == 1:
            what = name.rpartition(".")[2]
            yield module.finding("L19", call, f"{what} with rate 1 drops everything")
