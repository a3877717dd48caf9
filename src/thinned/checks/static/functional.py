"""Functions that do not know the model's mode: F.dropout and attention (L1, L2), and a rate
overwritten in evaluation (L3).
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from ..finding import Change, Finding
from .edits import added
from .layers import (
    attribute,
    guarded,
    has_self,
    imports,
    in_evaluation,
    is_torch,
    layer,
    maybe_torch,
    methods,
    of_mode,
    sampling,
    trains,
)
from .module import Module, argument, default, is_false, is_true, number, opaque, parameters, place
from .names import dotted

_F = "torch.nn.functional."
# name -> the name and place of its training argument, and whether leaving it out means training
MODES = {
    **{
        f"{_F}{n}": ("training", 2, True)
        for n in ("dropout", "dropout1d", "dropout2d", "dropout3d")
    },
    **{f"{_F}{n}": ("training", 2, False) for n in ("alpha_dropout", "feature_alpha_dropout")},
    **{
        f"torch.{n}": ("train", 2, True)
        for n in ("dropout", "alpha_dropout", "feature_dropout", "feature_alpha_dropout")
    },
}
# the last part of a name -> the name and place of the rate
_ATTENTION = {
    "scaled_dot_product_attention": ("dropout_p", 4),
    "flash_attn_func": ("dropout_p", 3),
    "flash_attn_kvpacked_func": ("dropout_p", 2),
    "flash_attn_qkvpacked_func": ("dropout_p", 1),
    "flash_attn_varlen_func": ("dropout_p", 7),
    "memory_efficient_attention": ("p", 4),
}


def l1(module: Module) -> Iterator[Finding]:
    """Signal: F.dropout and its kin with the training argument left out or the literal True, in a
    torch module or in a plain function of a file that imports torch. Let pass: rate 0; a branch
    that looks at the mode; ``*args``; functions or classes that say that they sample on purpose;
    plain functions that train, add noise or hand their rate on; scripts' top level; classes that
    are no modules.
    """
    for call in module.calls:
        mode = MODES.get(module.called(call))
        if mode is None or opaque(call):
            continue
        name, index, default = mode
        given = argument(call, name, index)
        if (
            not (is_true(given) or (given is None and default))
            or number(argument(call, "p", 1)) == 0
        ):
            continue
        if (
            guarded(module, call)
            or sampling(module, call)
            or not _is_model(module, call)
            or _is_chosen(module, call, given)
        ):
            continue
        said = "has training=True written in" if given is not None else f"is called without {name}="
        yield module.finding(
            "L1",
            call,
            f"{module.source(call.func)} {said}, so it drops in evaluation too",
            _switch(module, call, given, name),
        )


def _is_model(module: Module, call: ast.Call) -> bool:
    """Whether a call belongs to a model: a torch module's method, or a function that is not for
    training or noise.
    """
    owner, function = module.class_of(call), module.function_of(call)
    if owner is not None:
        return maybe_torch(module, owner)
    return (
        function is not None
        and not any(trains(f) for f in module.functions_of(call))
        and not _steps(module, function)
    )


def _is_chosen(module: Module, call: ast.Call, given: ast.expr | None) -> bool:
    """Whether whoever calls decides: by a rate that is a plain function's parameter without a value
    above 0, or in a function that is itself a dropout; or whoever wrote training=True says why
    beside it. Tacotron's prenets drop in evaluation by design.
    """
    function, owner = module.function_of(call), module.class_of(call)
    if given is not None:
        near = " ".join(module.lines[max(0, call.lineno - 3) : place(call, end=True)[0]])
        if re.search(r"#.*(training=True|eval|always|inference|test)", near) or (
            owner is not None and "prenet" in owner.name.lower()
        ):
            return True
    if function is None or owner is not None:
        return bool(owner) and bool(re.search(r"#.*always", module.lines[call.lineno - 1]))
    rate = argument(call, "p", 1)
    if "dropout" in function.name.lower():
        return True
    if not isinstance(rate, ast.Name) or rate.id not in parameters(function):
        return False
    return not number(default(function, rate.id))


def _steps(module: Module, function: ast.AST) -> bool:
    return any(
        isinstance(n.func, ast.Attribute) and n.func.attr == "backward"
        for n in module.own(function, ast.Call)
    )


def _switch(
    module: Module, call: ast.Call, given: ast.expr | None, name: str
) -> tuple[Change, ...]:
    """The change that passes ``self.training``, in a method of what is surely a torch module."""
    if not (is_torch(module, module.class_of(call)) and has_self(module.method_of(call))):
        return ()
    if given is not None:
        return (module.replace(given, "self.training"),)
    return added(module, call, f"{name}=self.training")


def l2(module: Module) -> Iterator[Finding]:
    """Signal: attention's dropout_p is, in a torch module, a number above 0 or an attribute set
    from one, with no look at the mode in the expression, in the local name it comes from or around
    the call. Let pass: a parameter handed on; attributes that are not set in the class; names with
    several values of which one depends on the mode; properties.
    """
    for call in module.calls:
        last = _last(module, call)
        if last not in _ATTENTION:
            continue
        name, index = _ATTENTION[last]
        given = argument(call, name, index)
        owner = module.class_of(call)
        if (
            given is None
            or not maybe_torch(module, owner)
            or guarded(module, call)
            or sampling(module, call)
        ):
            continue
        if _drops_always(module, given):
            text = module.source(given)
            changes: tuple[Change, ...] = ()
            if is_torch(module, owner) and has_self(module.method_of(call)):
                simple = isinstance(
                    given, (ast.Name, ast.Attribute, ast.Constant, ast.Call, ast.Subscript)
                )
                raw = module.segment(given)
                changes = (
                    module.replace(
                        given, f"{raw if simple else f'({raw})'} if self.training else 0.0"
                    ),
                )
            yield module.finding(
                "L2", call, f"{last} drops with {name}={text} in evaluation too", changes
            )


def _last(module: Module, call: ast.Call) -> str:
    """The last part of a called function's name, where it was imported or is an attribute of what
    was.
    """
    return module.called(call).rpartition(".")[2]


def _drops_always(module: Module, node: ast.expr, depth: int = 0) -> bool:
    """Whether an expression is a rate that is there in evaluation too; False where that is not to
    be seen.
    """
    if depth > 3 or of_mode(node):
        return False
    if number(node) is not None:
        return bool(number(node))
    if isinstance(node, ast.IfExp):
        return any(_drops_always(module, n, depth + 1) for n in (node.body, node.orelse))
    if (
        isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id == "float"
        and node.args
    ):
        return _drops_always(module, node.args[0], depth + 1)
    if isinstance(node, ast.Name):
        return _local_drops(module, node, depth)
    return isinstance(node, ast.Attribute) and _attribute_drops(module, node)


def _local_drops(module: Module, node: ast.Name, depth: int) -> bool:
    function = module.function_of(node)
    if function is None or node.id in parameters(function):
        return False
    values = module.assigned(function, node.id)
    if not values or any(
        of_mode(v) or guarded(module, s) or in_evaluation(module, s) for v, s in values
    ):
        return False
    return any(_drops_always(module, v, depth + 1) for v, _ in values)


_SETTING = re.compile(
    r"^self\.(cfg|conf|config|args|hparams|hp|opt|opts|options|params)\.(\w+\.)*\w*drop\w*$"
)


def _attribute_drops(module: Module, node: ast.Attribute) -> bool:
    """``self.p`` set from a number or a parameter and never by the mode; ``self.drop.p`` of a
    dropout layer; a setting such as ``self.config.dropout``.
    """
    owner = module.class_of(node)
    if owner is None:
        return False
    if _SETTING.search(dotted(node) or ""):
        return True
    if node.attr == "p":
        made = [layer(module, v) for v in attribute(module, node.value)]
        if made:
            return any(m is not None and m.drops for m in made)
    if any(
        m.name == node.attr or (m.name in ("train", "eval") and _sets(m, node.attr))
        for m in methods(owner)
    ):
        return False
    path = dotted(node) or ""
    stores = [s for m in methods(owner) for _, s in module.assigned(m, path)]
    if any(guarded(module, s) for s in stores):
        return False
    values = attribute(module, node)
    return (
        bool(values)
        and not all(number(v) == 0 for v in values)
        and not any(of_mode(v) for v in values)
    )


def _sets(method: ast.AST, name: str) -> bool:
    return any(
        isinstance(n, ast.Attribute) and n.attr == name and isinstance(n.ctx, ast.Store)
        for n in ast.walk(method)
    )


_RATE = re.compile(r"drop|^p$|rate$|prob", re.I)


def l3(module: Module) -> Iterator[Finding]:
    """Signal: in a branch that runs in evaluation alone, a method of a torch module sets an
    attribute whose name speaks of a rate to the literal 0. Let pass: local names; a method that
    sets the same attribute again elsewhere; ``train`` and ``eval``.
    """
    if not imports(module, "torch"):
        return
    for owner in module.classes:
        for method in methods(owner):
            if method.name in ("train", "eval", "__init__"):
                continue
            stores = [
                (s, t)
                for s in module.own(method, ast.Assign)
                for t in s.targets
                if isinstance(t, ast.Attribute)
            ]
            for statement, target in stores:
                zero = number(statement.value) == 0 or (
                    is_false(statement.value) and target.attr != "p"
                )
                path = ast.unparse(target)
                if not (
                    zero
                    and _RATE.search(target.attr)
                    and path.startswith("self.")
                    and in_evaluation(module, statement)
                ):
                    continue
                again = [t for s, t in stores if s is not statement and ast.unparse(t) == path]
                if not again and maybe_torch(module, owner):
                    yield module.finding(
                        "L3",
                        statement,
                        f"{path} becomes 0 in the first evaluation and stays so in training",
                    )
