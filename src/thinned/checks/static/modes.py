"""The mode written in or lost: Monte Carlo by train() (L6), literals (L7), layers made in forward
(L32).
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from ..finding import Change, Finding
from .edits import removed
from .layers import (
    BATCH_NORM,
    DROPOUTS,
    LayerCall,
    applied,
    guarded,
    imports,
    is_flax,
    is_keras,
    is_torch,
    layer,
    sampling,
    trains,
    words,
)
from .module import Function, Module, argument, is_false, is_true, parameters
from .names import dotted

_PREDICTS = {"predict", "prediction", "predictions", "predictive", "infer", "inference", "mc", "mcd", "uncertainty",
             "uncertainties", "montecarlo", "monte", "epistemic"}  # fmt: skip


def without_gradient(module: Module, node: ast.AST) -> bool:
    """Whether a node runs under torch.no_grad or torch.inference_mode."""
    for above in module.ancestors(node):
        given: list[ast.expr] = []
        if isinstance(above, (ast.With, ast.AsyncWith)):
            given = [item.context_expr for item in above.items]
        elif isinstance(above, (ast.FunctionDef, ast.AsyncFunctionDef)):
            given = above.decorator_list
        if any(_no_gradient(module, g) for g in given):
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
    given = argument(call, "mode", 0)
    return given is None or is_true(given)


def l6(module: Module) -> Iterator[Finding]:
    """Signal: a function whose name speaks of predicting or Monte Carlo calls train() on a model
    outside any loop over modules and runs it without gradients, in a file that makes torch's batch
    normalisation. Let pass: functions in which anything is put back to eval() after that, or that
    speak of BatchNorm; train() at the end, to go on training.
    """
    if not any(
        (made := layer(module, c)) and made.home == "torch" and BATCH_NORM.match(made.name)
        for c in module.calls
    ):
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
                    f"{name}.train() puts batch normalisation in training too, in {function.name}",
                )


def _over_modules(loop: ast.AST) -> bool:
    return bool(re.search(r"modules\(|children\(|layers|parameters\(", ast.unparse(loop.iter)))  # type: ignore[attr-defined]


def l7(module: Module) -> Iterator[Finding]:
    """Signal: a Keras dropout layer called with the literal training=True, or a Flax dropout made
    or called with the literal deterministic=False. Let pass: names, docstrings and comments that
    speak of Monte Carlo, Bayes, sampling or uncertainty; functions that train; calls of whole
    models.
    """
    keras, flax = (
        any(imports(module, p) for p in ("keras", "tensorflow", "tf_keras")),
        imports(module, "flax"),
    )
    if not keras and not flax:
        return
    for call in module.calls:
        made = applied(module, call) or layer(module, call)
        if (
            made is None
            or made.name not in DROPOUTS
            or sampling(module, call)
            or any(trains(f) for f in module.functions_of(call))
        ):
            continue
        for keyword in call.keywords:
            if made.home == "keras" and keyword.arg == "training" and is_true(keyword.value):
                yield module.finding(
                    "L7",
                    call,
                    f"{made.name} is called with training=True",
                    _keras_fix(module, call, keyword),
                )
            elif (
                made.home == "flax"
                and keyword.arg == "deterministic"
                and is_false(keyword.value)
                and is_flax(module, module.class_of(call))
            ):
                yield module.finding(
                    "L7",
                    call,
                    f"{made.name} has deterministic=False written in",
                    _flax_fix(module, keyword),
                )


def _keras_fix(module: Module, call: ast.Call, keyword: ast.keyword) -> tuple[Change, ...]:
    method = module.method_of(call)
    if method is not None and "training" in parameters(method):
        return (module.replace(keyword.value, "training"),)
    return removed(module, call, keyword)


def _flax_fix(module: Module, keyword: ast.keyword) -> tuple[Change, ...]:
    method = module.method_of(keyword)
    names = parameters(method) if method is not None else []
    for name, text in (
        ("deterministic", "deterministic"),
        ("train", "not train"),
        ("training", "not training"),
    ):
        if name in names:
            return (module.replace(keyword.value, text),)
    return ()


_RUNS = {"forward", "__call__", "call"}


def l32(module: Module) -> Iterator[Finding]:
    """Signal: in a torch module's forward, or a Keras layer's call, a dropout layer is made; in any
    other method or in a function of a torch file, one is made and applied at once. Let pass: Flax's
    compact modules, Keras's functional models, rate 0, a layer that is told the mode by
    ``.train(self.training)`` or ``.eval()``, branches that look at the mode, layers kept on self
    behind a test whether they are there, functions that train, scripts' top level.
    """
    for call in module.calls:
        made = layer(module, call)
        if (
            made is None
            or made.name not in DROPOUTS
            or not made.drops
            or made.home not in ("torch", "keras")
        ):
            continue
        method, owner = module.method_of(call), module.class_of(call)
        if _is_made_here(module, made, method, owner) and not _knows_mode(module, call):
            where = method.name if method is not None else module.functions_of(call)[0].name
            why = (
                "a new layer is always in training mode"
                if made.home == "torch"
                else "each call makes a new one"
            )
            yield module.finding("L32", call, f"{made.name} is made inside {where}: {why}")


def _is_made_here(
    module: Module, made: LayerCall, method: Function | None, owner: ast.ClassDef | None
) -> bool:
    above = module.parents[made.call]
    at_once = isinstance(above, ast.Call) and above.func is made.call
    if made.home == "keras":
        return method is not None and method.name == "call" and is_keras(module, owner)
    if method is not None:
        if not is_torch(module, owner):
            return False
        return method.name in _RUNS or (at_once and method.name != "__init__")
    functions = module.functions_of(made.call)
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
        told = [c for kind in ("train", "eval") for c in _method_calls(module, scope, kind)]
        if any(isinstance(c.func, ast.Attribute) and dotted(c.func.value) == name for c in told):
            return True
        if name.startswith("self."):
            return any(
                isinstance(a, ast.If) and name.removeprefix("self.") in ast.unparse(a.test)
                for a in module.ancestors(call)
            )
    return False
