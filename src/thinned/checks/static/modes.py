"""The mode overridden or lost: Monte Carlo by train() (L6), literals (L7), layers created in a
forward (L32).
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from ..finding import Finding
from .functional import literal_modes
from .layers import (
    BATCH_NORM,
    DRAWING,
    LayerCall,
    applied,
    guarded,
    imports,
    is_flax,
    is_torch,
    layer,
    sampling,
    trains,
    words,
)
from .module import Function, Module, argument, is_false, is_true
from .names import dotted

_PREDICTS = {
    "epistemic",
    "infer",
    "inference",
    "mc",
    "mcd",
    "monte",
    "montecarlo",
    "predict",
    "prediction",
    "predictions",
    "predictive",
    "uncertainties",
    "uncertainty",
}


def without_gradient(module: Module, node: ast.AST) -> bool:
    """Whether a node runs under torch.no_grad or torch.inference_mode."""
    for above in module.ancestors(node):
        contexts: list[ast.expr] = []
        if isinstance(above, (ast.With, ast.AsyncWith)):
            contexts = [item.context_expr for item in above.items]
        elif isinstance(above, (ast.FunctionDef, ast.AsyncFunctionDef)):
            contexts = above.decorator_list
        if any(_no_gradient(module, context) for context in contexts):
            return True
    return False


def _no_gradient(module: Module, node: ast.expr) -> bool:
    name = module.imports.resolve(node.func if isinstance(node, ast.Call) else node) or ""
    off = (
        name == "torch.set_grad_enabled"
        and isinstance(node, ast.Call)
        and bool(node.args)
        and is_false(node.args[0])
    )
    return off or name in (
        "torch.no_grad",
        "torch.inference_mode",
        "torch.autograd.no_grad",
        "torch.autograd.grad_mode.no_grad",
    )


def _method_calls(module: Module, scope: ast.AST, name: str) -> list[ast.Call]:
    """The calls ``something.name()`` in a scope."""
    return [
        c
        for c in module.own(scope, ast.Call)
        if isinstance(c.func, ast.Attribute) and c.func.attr == name
    ]


def switches_on(call: ast.Call) -> bool:
    """Whether ``x.train(...)`` surely switches training on."""
    mode = argument(call, "mode", 0)
    return mode is None or is_true(mode)


def batchnorm_moves_at_inference(module: Module) -> Iterator[Finding]:
    """Signal: a function named for predicting or Monte Carlo calls train() on a model outside any
    loop over modules and runs it without gradients, in a file that creates batch normalization of
    torch. Let pass: functions that call eval() on anything after that, or that name BatchNorm;
    train() at the end, before training continues.
    """
    layers = [layer(module, call) for call in module.calls]
    if not any(m and m.framework == "torch" and BATCH_NORM.match(m.name) for m in layers):
        return
    for function in module.functions:
        if not words(function.name) & _PREDICTS or re.search(
            "BatchNorm|batch_?norm|_bn", ast.unparse(function)
        ):
            continue
        for call in _method_calls(module, function, "train"):
            assert isinstance(call.func, ast.Attribute)
            name = dotted(call.func.value)
            loops = [
                a for a in module.ancestors(call) if isinstance(a, (ast.For, ast.comprehension))
            ]
            if name is None or not switches_on(call) or any(_over_modules(loop) for loop in loops):
                continue
            runs = [
                c
                for c in module.own(function, ast.Call)
                if dotted(c.func) == name and c.lineno >= call.lineno
            ]
            back = [
                c
                for c in _method_calls(module, function, "eval")
                if call.lineno <= c.lineno <= max((r.lineno for r in runs), default=0)
            ]
            if not back and any(without_gradient(module, r) for r in runs):
                yield module.finding(
                    "L6",
                    call,
                    f"{name}.train() puts batch normalization in training too, in {function.name}",
                )


def _over_modules(loop: ast.AST) -> bool:
    return bool(re.search(r"modules\(|children\(|layers|parameters\(", ast.unparse(loop.iter)))  # type: ignore[attr-defined]


def training_literal(module: Module) -> Iterator[Finding]:
    """Signal: F.dropout of torch or a function of thinned with the literal training=True in a
    module, a Keras dropout layer called with it, or a Flax dropout (linen or nnx) that is created
    or called with the literal deterministic=False. A literal may be meant, so it is a warning that
    --fix does not touch. Let pass: names, docstrings, comments, tests and folders that speak of
    Monte Carlo, Bayes or uncertainty; functions that train; calls of whole models.
    """
    for call, argument_text in literal_modes(module):
        text = f"{module.source(call.func)} has {argument_text} written in"
        yield module.finding("L7", call, f"{text}, so it drops in evaluation too")
    keras = any(imports(module, p) for p in ("keras", "tensorflow", "tf_keras"))
    flax = imports(module, "flax")
    if not keras and not flax:
        return
    for call in module.calls:
        drop, owner = applied(module, call) or layer(module, call), module.class_of(call)
        if (
            drop is None
            or drop.name not in DRAWING
            or sampling(module, call)
            or any(trains(f) for f in module.functions_of(call))
        ):
            continue
        for keyword in call.keywords:
            if drop.framework == "keras" and keyword.arg == "training" and is_true(keyword.value):
                message = f"{drop.name} is called with training=True"
                yield module.finding("L7", call, message)
            elif (
                drop.framework in ("flax", "nnx")
                and keyword.arg == "deterministic"
                and is_false(keyword.value)
                and (is_flax(module, owner) or (drop.framework == "nnx" and call is not drop.call))
            ):
                message = f"{drop.name} has deterministic=False written in"
                yield module.finding("L7", call, message)


_RUNS = {"forward", "__call__", "call"}


def dropout_made_in_forward(module: Module) -> Iterator[Finding]:
    """Signal: the forward of a torch module creates a dropout layer; any other method of a torch
    module, or a function of a torch file, creates one and applies it at once. Let pass: Keras,
    which passes the mode on; compact modules of Flax; rate 0, a layer that receives the mode by
    ``.train(self.training)`` or ``.eval()``, branches that test the mode, layers kept on self after
    a test for their presence, functions that train, the top level of scripts.
    """
    for call in module.calls:
        drop = layer(module, call)
        if drop is None or not drop.draws or drop.framework != "torch":
            continue
        method, owner = module.method_of(call), module.class_of(call)
        if _is_created_here(module, drop, method, owner) and not _knows_mode(module, call):
            where = method.name if method is not None else module.functions_of(call)[0].name
            why = "a new layer is always in training mode"
            yield module.finding("L32", call, f"{drop.name} is created inside {where}: {why}")


def _is_created_here(
    module: Module, drop: LayerCall, method: Function | None, owner: ast.ClassDef | None
) -> bool:
    above = module.parents[drop.call]
    at_once = isinstance(above, ast.Call) and above.func is drop.call
    if method is not None:
        if not is_torch(module, owner):
            return False
        return method.name in _RUNS or (at_once and method.name != "__init__")
    functions = module.functions_of(drop.call)
    return at_once and bool(functions) and owner is None and not any(trains(f) for f in functions)


def _knows_mode(module: Module, call: ast.Call) -> bool:
    above = module.parents[call]
    if isinstance(above, ast.Attribute) and above.attr in ("train", "eval"):
        return True
    if guarded(module, call) or sampling(module, call):
        return True
    scope = module.scope_of(call)
    if isinstance(above, ast.Assign):
        name = dotted(above.targets[0]) or ""
        calls = [c for kind in ("train", "eval") for c in _method_calls(module, scope, kind)]
        if any(isinstance(c.func, ast.Attribute) and dotted(c.func.value) == name for c in calls):
            return True
        if name.startswith("self."):
            return any(
                isinstance(a, ast.If) and name.removeprefix("self.") in ast.unparse(a.test)
                for a in module.ancestors(call)
            )
    return False
