"""Evaluation without eval() (L25), and training in evaluation mode (L21)."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from ..finding import Finding
from .functional import MODES
from .layers import (
    attribute,
    draws,
    guarded,
    is_torch,
    maybe_torch,
    methods,
    names_in,
    sampling,
    words,
)
from .modes import without_gradient
from .module import Function, Module, argument, is_false, number, opaque, parameters, place
from .names import dotted

_MEASURES = {
    "eval",
    "evaluate",
    "evaluation",
    "infer",
    "inference",
    "predict",
    "prediction",
    "score",
    "test",
    "val",
    "valid",
    "validate",
    "validation",
}
_DRAWS = re.compile(r"[dD]ropout|BatchNorm|DropPath|batch_norm|droppath")
_HELD_OUT = re.compile(r"(^|_)(val|valid|validation|test|dev|eval|holdout)", re.I)
_OFF = re.compile(
    r"\.eval\(\)|\.train\((mode=)?False\)|\beval_mode"
    r"|\.train\((mode=)?(was|prev|mode|training|is_)|training\s*=\s*False|set_eval|\.eval\b"
)


def validation_in_training_mode(module: Module) -> Iterator[Finding]:
    """Signal: in a file that creates dropout or batch normalization of torch, (a) a function named
    as an evaluation runs a model without gradients, and neither it, nor a function that it calls in
    the file, nor any caller of it in the file switches to eval(); it has a caller there or creates
    the model itself. (b) A scope that trains by backward() runs the model without gradients in a
    loop over validation or test data, and eval() occurs nowhere in the file. (c) The same for a
    function named as an evaluation and a model at the top level of the file, or kept by an object.
    (d) ``model.eval`` without brackets, or ``model.training = False``. Let pass: methods of modules
    (their caller decides), classes that call eval() anywhere, Lightning, models from
    from_pretrained, Monte Carlo by name.
    """
    if not module.imports.table or "torch" not in module.text:
        return
    if not (_DRAWS.search(module.text) or draws(module)):
        return
    yield from _no_brackets(module)
    trains = any(
        isinstance(c.func, ast.Attribute) and c.func.attr == "backward" for c in module.calls
    )
    if not trains and ".train()" in module.text:
        return  # a file that only measures, and says so
    never_off = trains and not _OFF.search(module.text) and "ightning" not in module.text
    for function in module.functions:
        tokens = words(function.name)
        if (
            not tokens & _MEASURES
            or "train" in tokens
            or sampling(module, function)
            or function.name.startswith("test_")
        ):
            continue
        run = _run(module, function)
        in_class = isinstance(module.parents[function], ast.ClassDef)
        if run is None and never_off and "from_pretrained" not in module.text:
            run = _run_of_file(module, function)
            if run is not None:
                yield module.finding(
                    "L25",
                    run,
                    f"{function.name} runs {module.source(run.func)}, which the file trains, and "
                    "no code here calls eval()",
                )
        elif run is not None and not in_class and _unguarded(module, function, run):
            yield module.finding(
                "L25",
                run,
                f"{function.name} runs {module.source(run.func)}, and no code here calls eval()",
            )
    yield from _in_training(module)


def _run(module: Module, scope: ast.AST) -> ast.Call | None:
    """The first call of a model without gradients in a scope: of a parameter, or of a model that
    the scope creates.
    """
    names = (
        set(parameters(scope))
        if isinstance(scope, (ast.FunctionDef, ast.AsyncFunctionDef))
        else set()
    )
    for call in module.own(scope, ast.Call):
        if (
            not isinstance(call.func, ast.Name)
            or not call.args
            or not without_gradient(module, call)
        ):
            continue
        is_model = bool(
            words(call.func.id)
            & {"model", "net", "network", "classifier", "encoder", "decoder", "generator"}
        )
        if is_model and (call.func.id in names or _creates(module, scope, call.func.id)):
            return call
    return None


_MODELS = {"model", "net", "network", "classifier"}


def _run_of_file(module: Module, function: Function) -> ast.Call | None:
    """The first call without gradients, in a function, of a model that the file creates at its top
    level, or that an object which is no module keeps.
    """
    owner = module.class_of(function)
    if owner is not None and (is_torch(module, owner) or maybe_torch(module, owner)):
        return None
    for call in module.own(function, ast.Call):
        path = dotted(call.func) or ""
        if not call.args or not words(path.rpartition(".")[2]) & _MODELS:
            continue
        if path.startswith("self.") and path.count(".") == 1:
            known = owner is not None and bool(attribute(module, call.func))
        else:
            known = path not in module.bound(function) and bool(
                "." not in path and module.assigned(module.tree, path)
            )
        if known and without_gradient(module, call) and not sampling(module, call):
            return call
    return None


def _no_brackets(module: Module) -> Iterator[Finding]:
    """Findings of ``model.eval`` without brackets, and of a flag that is set on one module only."""
    for node in module.children:
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Attribute):
            path = dotted(node.value) or ""
            base, _, last = path.rpartition(".")
            if last in ("eval", "train") and words(base.rpartition(".")[2]) & _MODELS:
                text = f"{path} without brackets calls nothing: the mode remains as it was"
                yield module.finding("L25", node, text, remedy=f"write {path}()")
        elif isinstance(node, ast.Assign) and is_false(node.value):
            path = dotted(node.targets[0]) or ""
            base, _, last = path.rpartition(".")
            if (
                last == "training"
                and base
                and base != "self"
                and words(base.rpartition(".")[2]) & _MODELS
                and not re.search(rf"\b{re.escape(base)}\.eval\(\)", module.text)
            ):
                text = f"{path} = False sets one flag: the layers inside {base} still drop"
                yield module.finding("L25", node, text, remedy=f"write {base}.eval()")


def _creates(module: Module, scope: ast.AST, name: str) -> bool:
    """Whether a scope assigns an instance of a torch class of this file to a name."""
    for value, _ in module.assigned(scope, name):
        inner = value
        while isinstance(inner, ast.Call) and isinstance(
            inner.func, ast.Attribute
        ):  # Net().to(device)
            inner = inner.func.value
        name_of_class = (
            inner.func.id
            if isinstance(inner, ast.Call) and isinstance(inner.func, ast.Name)
            else None
        )
        if any(c.name == name_of_class and is_torch(module, c) for c in module.classes):
            return True
    return False


def _unguarded(module: Module, function: Function, run: ast.Call) -> bool:
    """Whether no scope on the way to an evaluation switches to eval()."""
    callers = [
        c for c in module.calls if isinstance(c.func, ast.Name) and c.func.id == function.name
    ]
    assert isinstance(run.func, ast.Name)
    if not callers and run.func.id in parameters(function):
        return False
    scopes: list[ast.AST] = [function]
    for _ in range(3):  # callers of callers of callers
        found = [
            c
            for c in module.calls
            if any(isinstance(s, ast.FunctionDef) and dotted(c.func) == s.name for s in scopes)
        ]
        more = [module.class_of(c) or module.scope_of(c) for c in found]
        if not [m for m in more if m not in scopes]:
            break
        scopes += [m for m in more if m not in scopes]
    for scope in list(scopes):
        for call in module.own(scope, ast.Call):
            name = (dotted(call.func) or "").rpartition(".")[2]
            scopes += [f for f in module.functions if f.name == name and f not in scopes]
    texts = (_code(module, s) for s in scopes)
    return not any(_OFF.search(t) or "from_pretrained" in t for t in texts)


def _code(module: Module, scope: ast.AST) -> str:
    """The text of a scope; of a file, only its top level."""
    if isinstance(scope, ast.Module):
        kept = [
            s
            for s in scope.body
            if not isinstance(s, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef))
        ]
        return "\n".join(ast.unparse(s) for s in kept)
    return ast.unparse(scope)


def _in_training(module: Module) -> Iterator[Finding]:
    """Signal (b) of L25."""
    if _OFF.search(module.text) or "from_pretrained" in module.text or "ightning" in module.text:
        return
    for scope in [module.tree, *module.functions]:
        if not any(
            isinstance(c.func, ast.Attribute) and c.func.attr == "backward"
            for c in module.own(scope, ast.Call)
        ):
            continue
        for call in module.own(scope, ast.Call):
            loops = [a for a in module.ancestors(call) if isinstance(a, ast.For)]
            held_out = any(_HELD_OUT.search(n) for loop in loops for n in names_in(loop.iter))
            is_model = isinstance(call.func, ast.Name) and bool(
                words(call.func.id) & {"model", "net", "network", "classifier"}
            )
            if (
                held_out
                and is_model
                and without_gradient(module, call)
                and not sampling(module, call)
            ):
                model = module.source(call.func)
                message = f"{model} is measured in training mode: no code calls eval()"
                yield module.finding("L25", call, message)
                break


_NEVER_DROPS = ("tensorflow.layers.dropout", "tensorflow.compat.v1.layers.dropout")


def dead_dropout(module: Module) -> Iterator[Finding]:
    """Signal: (a) a module calls F.alpha_dropout or F.feature_alpha_dropout without training=, or
    any code tf.layers.dropout, and its default is False; (b) a scope puts a model in evaluation,
    and on every path from there to a backward() of its output in a loop with step() no train()
    follows; the scope passes the parameters of the model on, and the file names dropout or
    from_pretrained; (c) the training loop of a class runs self.model and calls a method that puts
    it in evaluation, and train() occurs at most in __init__. Let pass: models passed to functions
    that are not in the file, frozen models, models that run without gradients.
    """
    for call in module.calls:
        mode = MODES.get(module.called(call))
        if mode is None or mode.draws or opaque(call):
            continue
        left_out = argument(call, mode.name, mode.place) is None
        if left_out and maybe_torch(module, module.class_of(call)) and not guarded(module, call):
            text = f"{module.source(call.func)} has {mode.name}=False by default, so it never drops"
            yield module.finding("L21", call, text, remedy=f"pass {mode.name}=self.training")
    for call in module.calls:
        if (
            module.called(call) in _NEVER_DROPS
            and argument(call, "training", 4) is None
            and not opaque(call)
            and number(argument(call, "rate", 1)) != 0
        ):
            text = f"{module.source(call.func)} has training=False by default, so it never drops"
            yield module.finding("L21", call, text, remedy="pass training=is_training")
    speaks = re.search(r"[dD]ropout|drop_?path|from_pretrained|drop_rate", module.text)
    if ".eval()" not in module.text or not (speaks or draws(module)):
        return
    for scope in [module.tree, *module.functions]:
        yield from _left_off(module, scope)
    for owner in module.classes:
        yield from _left_off_by_a_method(module, owner)


def _left_off(module: Module, scope: ast.AST) -> Iterator[Finding]:
    """Findings for models that a scope trains while they are in evaluation mode."""
    calls = list(module.own(scope, ast.Call))
    methods = {c.func.attr for c in calls if isinstance(c.func, ast.Attribute)}
    if not {"eval", "backward", "step"} <= methods:
        return
    evals = [
        c
        for c in calls
        if isinstance(c.func, ast.Attribute) and c.func.attr == "eval" and not c.args
    ]
    for name in dict.fromkeys(
        dotted(c.func.value) for c in evals if isinstance(c.func, ast.Attribute)
    ):
        if (
            name is None
            or f"{name}.requires_grad_(False)" in module.text
            or not _optimised(module, scope, name)
        ):
            continue
        walk = _Walk(module, name)
        walk.block(scope.body)  # type: ignore[attr-defined]
        if walk.found is not None:
            yield module.finding(
                "L21",
                walk.found,
                f"{name} remains in evaluation mode while {module.line(walk.where)} trains it",
            )


def _left_off_by_a_method(module: Module, owner: ast.ClassDef) -> Iterator[Finding]:
    """Findings for a model that one method puts in evaluation mode, called between two iterations
    of the training loop of another.
    """
    after_start = [m for m in methods(owner) if m.name != "__init__"]
    calls = [c for m in after_start for c in module.own(m, ast.Call)]
    if any(isinstance(c.func, ast.Attribute) and c.func.attr == "train" for c in calls):
        return
    for method in methods(owner):
        calls = list(module.own(method, ast.Call))
        names = {dotted(c.func) or "" for c in calls}
        if not {"backward", "step"} <= {
            c.func.attr for c in calls if isinstance(c.func, ast.Attribute)
        }:
            continue
        for other in methods(owner):
            inside = [
                c for c in calls if dotted(c.func) == f"self.{other.name}" and _in_loop(module, c)
            ]
            for call in module.own(other, ast.Call) if inside and other is not method else ():
                model, _, last = (dotted(call.func) or "").rpartition(".")
                if last == "eval" and model.startswith("self.") and model in names:
                    message = (
                        f"{model} remains in evaluation mode while {method.name} trains it, in "
                        f"{module.line(inside[0].lineno)}"
                    )
                    yield module.finding("L21", call, message)


def _in_loop(module: Module, node: ast.AST) -> bool:
    return any(isinstance(a, (ast.For, ast.While)) for a in module.ancestors(node))


def _optimised(module: Module, scope: ast.AST, name: str) -> bool:
    """Whether the parameters of a model are passed on in its scope, or in its file where the name
    is global. A loop over them is not: it freezes or counts them.
    """
    for call in module.calls if scope is not module.tree else module.own(scope, ast.Call):
        if (
            isinstance(call.func, ast.Attribute)
            and call.func.attr in ("parameters", "named_parameters")
            and dotted(call.func.value) == name
        ):
            near = list(module.ancestors(call))[:2]
            if not any(isinstance(a, (ast.For, ast.comprehension)) for a in near):
                return True
    return False


# functions that leave the mode of a model alone
_HARMLESS = re.compile(
    r"(^|\.)(print|len|isinstance|type|id|summary|save|load|DataParallel|compile|Adam\w*|SGD)$"
)
_HARMLESS_METHOD = re.compile(
    r"(state_dict|load_state_dict|parameters|named_parameters|to|cuda|cpu|zero_grad|half|float)$"
)


class _Walk:
    """Follows the mode of one model through a scope. ``off`` is the eval() call that surely is in
    effect; None where there is none.
    """

    def __init__(self, module: Module, name: str) -> None:
        self.module, self.name = module, name
        self.off: ast.Call | None = None
        self.ran: ast.Call | None = None  # a forward pass with gradients since, in evaluation
        self.found: ast.Call | None = None
        self.where = 0
        self.loops = 0

    def block(self, statements: list[ast.stmt]) -> bool:
        """Whether a block surely leaves its loop or scope."""
        return any(self.statement(s) for s in statements)

    def statement(self, node: ast.stmt) -> bool:
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            return False
        if isinstance(node, ast.If):
            self.calls(node.test)
            return self._branches(node.body, node.orelse)
        if isinstance(node, (ast.For, ast.AsyncFor, ast.While)):
            self._loop(node)
            return False
        if isinstance(node, (ast.With, ast.AsyncWith)):
            for item in node.items:
                self.calls(item.context_expr)
            return self.block(node.body)
        if isinstance(node, ast.Try):
            self.block(node.body)
            for handler in node.handlers:
                self._branches(handler.body, [])
            return self.block([*node.orelse, *node.finalbody])
        if isinstance(node, (ast.Assign, ast.AnnAssign)):
            self.calls(node)
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            if any(dotted(t) == self.name for t in targets) and not (
                node.value is not None and self.name in _paths(node.value)
            ):
                self.off = None
            return False
        self.calls(node)
        return isinstance(node, (ast.Return, ast.Raise, ast.Break, ast.Continue))

    def _branches(self, first: list[ast.stmt], second: list[ast.stmt]) -> bool:
        before = self.off
        ended = self.block(first)
        after, self.off = self.off, before
        other = self.block(second)
        if not ended and not other and (after is None or self.off is None):
            self.off = None
        elif other and not ended:
            self.off = after
        return ended and other

    def _loop(self, node: ast.For | ast.AsyncFor | ast.While) -> None:
        before, self.ran = self.off, None
        self.calls(node.test if isinstance(node, ast.While) else node.iter)
        self.loops += 1
        for _ in range(2):
            self.block(node.body)
        self.loops -= 1
        self.block(node.orelse)
        if before is None and self.off is not None and _is_optional(node):
            self.off = None

    def calls(self, node: ast.AST) -> None:
        for call in sorted(
            (n for n in ast.walk(node) if isinstance(n, ast.Call)), key=lambda c: place(c, end=True)
        ):
            self.call(call)

    def call(self, call: ast.Call) -> None:
        name = dotted(call.func) or ""
        base, _, last = name.rpartition(".")
        if base == self.name and last == "eval":
            self.off, self.ran = call, None
        elif base == self.name and last == "train" and not is_false(argument(call, "mode", 0)):
            self.off = None  # train(mode) may switch on
        elif isinstance(call.func, ast.Call) and any(
            dotted(a) == self.name for a in call.func.args
        ):
            self.off = None  # getattr(model, mode)()
        elif name == self.name:
            if self.off is not None and not without_gradient(self.module, call):
                self.ran = call
        elif base == self.name and not _HARMLESS_METHOD.match(last):
            self.off = None
        elif (
            last == "backward"
            and self.off is not None
            and self.ran is not None
            and self.loops
            and self.found is None
        ):
            self.found, self.where = self.off, call.lineno
        elif any(dotted(a) == self.name for a in [*call.args, *(k.value for k in call.keywords)]):
            self.passed(call, name)

    def passed(self, call: ast.Call, name: str) -> None:
        """Follow the model into a function of the file that receives it; a function of another file
        may do anything.
        """
        functions = self.module.named(name)
        if not functions:
            if not _HARMLESS.search(name):
                self.off = None
            return
        body = ast.unparse(functions[-1])
        if ".train(" in body:
            self.off = None
        elif ".eval()" in body:
            self.off, self.ran = call, None


def _paths(node: ast.AST) -> set[str]:
    return {
        d for n in ast.walk(node) if isinstance(n, (ast.Name, ast.Attribute)) and (d := dotted(n))
    }


def _is_optional(node: ast.stmt) -> bool:
    """Whether a loop may run zero times; loops over data are assumed to run."""
    return isinstance(node, ast.While)
