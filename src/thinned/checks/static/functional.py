"""Functions that ignore the mode of the model: F.dropout and attention (L1, L2), and a rate that is
overwritten in evaluation (L3).
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass

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


@dataclass(frozen=True)
class ModeArgument:
    """The argument of a dropout function that switches evaluation off.

    Args:
        name: Its name.
        place: Its place in the signature; None where it is keyword-only.
        draws: Whether the function draws where the argument is left out.
        rate_place: The place of the rate ``p``; None where the function has none.
    """

    name: str = "training"
    place: int | None = 2
    draws: bool = True
    rate_place: int | None = 1


# torch's functions, which thinned.functional has under the same names
TORCH_MODES = {
    **{f"{_F}{n}": ModeArgument() for n in ("dropout", "dropout1d", "dropout2d", "dropout3d")},
    **{f"{_F}{n}": ModeArgument(draws=False) for n in ("alpha_dropout", "feature_alpha_dropout")},
    **{
        f"torch.{n}": ModeArgument("train")
        for n in ("dropout", "alpha_dropout", "feature_dropout", "feature_alpha_dropout")
    },
}
# the other functions of thinned.functional that draw: the places of ``training`` and of the rate
_PLACES: dict[str, tuple[int | None, int | None]] = {
    "attention_dropout": (6, 5),
    "bias_act_dropout": (4, 3),
    "concrete_dropout": (3, None),
    "cutout": (3, None),
    "disout": (5, 1),
    "drop_edge": (None, None),
    "drop_head": (2, 1),
    "drop_key": (2, 1),
    "dropout_add": (3, 2),
    "dropout_add_layer_norm": (5, 4),
    "embedding_dropout": (3, 2),
    "hidden_cut": (2, 1),
    "information_dropout": (2, None),
    "jumpout": (2, None),
    "max_pool_dropout": (4, 3),
    "mixout": (3, 2),
    "patch_dropout": (3, 1),
    "shake_drop": (2, 1),
    "shake_shake": (2, None),
    "shakeout": (5, 3),
    "standout": (4, None),
    "swapout": (3, 2),
    "targeted_dropout": (3, 1),
    "thin_units": (4, 1),
    "variational_dropout": (2, None),
    "weight_drop": (2, 1),
    "weighted_channel_dropout": (3, 1),
    "word_dropout": (3, 2),
    "zoneout": (3, 2),
}
# functions of graph libraries, and of attention, that draw where ``training`` is left out
_OTHERS = {
    "torch_geometric.utils.dropout_adj": ModeArgument("training", 5, True, 2),
    "torch_geometric.utils.dropout_edge": ModeArgument("training", 3),
    "torch_geometric.utils.dropout_node": ModeArgument("training", 3),
    "torch_geometric.utils.dropout_path": ModeArgument("training", 6),
    f"{_F}multi_head_attention_forward": ModeArgument("training", 13, True, 10),
}
# canonical name of a function -> its mode argument
MODES = {
    **TORCH_MODES,
    **_OTHERS,
    **{
        f"{_F}{n}": ModeArgument("training", place, True, rate_place)
        for n, (place, rate_place) in _PLACES.items()
    },
    f"{_F}drop": ModeArgument("mode", None, True, None),
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


def dropout_without_training(module: Module) -> Iterator[Finding]:
    """Signal: F.dropout or a similar function without the training argument, or with the method
    ``self.train`` as its value, in a torch module or in a function of a file that imports torch;
    ``functools.partial`` of one; dropout_edge and similar functions of torch_geometric; thinned's
    functions, and ``mode`` of thinned.functional.drop; slim.dropout without is_training in a file
    without arg_scope. Let pass: rate 0; a branch that tests the mode; ``*args``; functions or
    classes that say that they sample on purpose; functions outside classes that train, add noise or
    take their rate from their caller, unless a module of the file calls them with a rate and
    without a mode; the top level of scripts; classes that are not modules. A literal True is L7.
    """
    for call in module.calls:
        mode = MODES.get(module.called(call))
        if mode is None or opaque(call) or not mode.draws:
            continue
        value = argument(call, mode.name, mode.place)
        if (
            value is not None
            and dotted(value) == "self.train"
            and is_torch(module, module.class_of(call))
        ):
            yield module.finding(
                "L1",
                call,
                f"{mode.name}=self.train passes the method train, which is always true",
                (module.replace(value, "self.training"),),
                "pass self.training",
            )
        elif value is None and _ignores_mode(module, call, mode):
            yield module.finding(
                "L1",
                call,
                f"{module.source(call.func)} is called without {mode.name}=, so it drops in "
                "evaluation too",
                _switch(module, call, mode),
                "" if mode.name != "mode" else f"pass {mode.name}={_BY_MODE}, or use a layer",
            )
    yield from _partial(module)
    yield from _slim(module)


def _partial(module: Module) -> Iterator[Finding]:
    """Findings of ``functools.partial`` of a dropout function in a torch module."""
    for call in module.calls:
        if module.called(call) != "functools.partial" or not call.args:
            continue
        mode = MODES.get(module.name(call.args[0]) or "")
        if mode is None or not mode.draws or len(call.args) > 1 or opaque(call):
            continue
        passed = {k.arg: k.value for k in call.keywords}
        above = module.parents[call]
        names = {dotted(t) for t in above.targets} if isinstance(above, ast.Assign) else set()
        uses = [c for c in module.calls if dotted(c.func) in names]
        if (
            mode.name not in passed
            and number(passed.get("p")) != 0
            and maybe_torch(module, module.class_of(call))
            and not sampling(module, call)
            and uses
            and not any(
                opaque(c) or guarded(module, c) or argument(c, mode.name, mode.place) is not None
                for c in uses
            )
        ):
            name = module.source(call.args[0])
            message = f"partial of {name} without {mode.name}=, so it drops in evaluation too"
            yield module.finding("L1", call, message)


def _slim(module: Module) -> Iterator[Finding]:
    """Findings of ``slim.dropout`` of TensorFlow 1, which draws by default."""
    if "slim" not in module.text or "arg_scope" in module.text:
        return
    for call in module.calls:
        if (
            re.search(r"(^|\.)slim\.dropout$", module.called(call) or dotted(call.func) or "")
            and argument(call, "is_training", 3) is None
            and not opaque(call)
            and not guarded(module, call)
            and not any(trains(f) for f in module.functions_of(call))
        ):
            message = "slim.dropout has is_training=True by default, so it drops in evaluation too"
            yield module.finding("L1", call, message, remedy="pass is_training=is_training")


def literal_modes(module: Module) -> Iterator[tuple[ast.Call, str]]:
    """Every (call, argument) of a dropout function of torch or thinned that has the mode written
    in: ``training=True``, ``mode="sample"``.
    """
    for call in module.calls:
        mode = MODES.get(module.called(call))
        if mode is None or opaque(call):
            continue
        value = argument(call, mode.name, mode.place)
        draws = is_true(value) or (isinstance(value, ast.Constant) and value.value == "sample")
        if value is not None and draws and _ignores_mode(module, call, mode):
            yield call, f"{mode.name}={module.source(value)}"


def _ignores_mode(module: Module, call: ast.Call, mode: ModeArgument) -> bool:
    """Whether a call of a dropout function is part of a model, drops, and no mode is tested around
    it.
    """
    value = argument(call, mode.name, mode.place)
    return not (
        number(rate_of(call, mode)) == 0
        or guarded(module, call)
        or sampling(module, call)
        or not _is_model(module, call)
        or _is_chosen(module, call, value)
    )


def rate_of(call: ast.Call, mode: ModeArgument) -> ast.expr | None:
    """The rate that a call of a function with a mode passes; None where it passes none."""
    return argument(call, "p", mode.rate_place)


def _is_model(module: Module, call: ast.Call) -> bool:
    """Whether a call is part of a model: in a method of a torch module, or in a function that is
    neither for training nor for noise.
    """
    owner, function = module.class_of(call), module.function_of(call)
    if owner is not None:
        return maybe_torch(module, owner)
    if module.called(call).startswith("torch_geometric."):
        return False  # outside modules it augments graphs
    return (
        function is not None
        and not any(trains(f) for f in module.functions_of(call))
        and not _steps(module, function)
    )


def _is_chosen(module: Module, call: ast.Call, training: ast.expr | None) -> bool:
    """Whether drawing in evaluation is a choice: the rate is a parameter of a function outside
    classes, without a default above 0; the function is itself a dropout; or a comment next to
    training=True gives the reason. Tacotron's prenets drop in evaluation by design.
    """
    function, owner = module.function_of(call), module.class_of(call)
    if training is not None:
        near = " ".join(module.lines[max(0, call.lineno - 3) : place(call, end=True)[0]])
        if re.search(r"#.*(training=True|eval|always|inference|test)", near) or (
            owner is not None and "prenet" in owner.name.lower()
        ):
            return True
    if function is not None and owner is not None:
        rate = rate_of(call, MODES[module.called(call)])
        given = isinstance(rate, ast.Name) and number(default(function, rate.id)) == 0
        if given:  # an argument of the method, for callers that ask for noise
            return True
    if function is None or owner is not None:
        return bool(owner) and bool(re.search(r"#.*always", module.lines[call.lineno - 1]))
    rate = rate_of(call, MODES[module.called(call)])
    if not isinstance(rate, ast.Name) or rate.id not in parameters(function):
        return "dropout" in function.name.lower()
    if training is None and _is_fed_by_a_module(module, function, rate.id):
        return False
    return "dropout" in function.name.lower() or not number(default(function, rate.id))


_MODE_NAME = re.compile(r"train|eval|infer|determin|mode", re.I)


def _is_fed_by_a_module(module: Module, function: ast.AST, rate: str) -> bool:
    """Whether a method of a torch module in the same file calls a helper with a rate, and in no way
    with the mode.
    """
    assert isinstance(function, (ast.FunctionDef, ast.AsyncFunctionDef))
    names = parameters(function)
    if any(_MODE_NAME.search(name) for name in names):
        return False
    calls = [c for c in module.calls if dotted(c.func) == function.name]
    return any(
        maybe_torch(module, module.class_of(call))
        and not guarded(module, call)
        and not sampling(module, call)
        and not of_mode(argument(call, rate, names.index(rate)))
        and number(argument(call, rate, names.index(rate))) != 0
        and argument(call, rate, names.index(rate)) is not None
        for call in calls
    )


def _steps(module: Module, function: ast.AST) -> bool:
    return any(
        isinstance(n.func, ast.Attribute) and n.func.attr == "backward"
        for n in module.own(function, ast.Call)
    )


_BY_MODE = '"sample" if self.training else "mean"'


def _switch(module: Module, call: ast.Call, mode: ModeArgument) -> tuple[Change, ...]:
    """The change that passes ``self.training``, in a method of what is surely a torch module."""
    if not (is_torch(module, module.class_of(call)) and has_self(module.method_of(call))):
        return ()
    text = "self.training" if mode.name != "mode" else _BY_MODE
    return added(module, call, f"{mode.name}={text}")


def attention_without_training(module: Module) -> Iterator[Finding]:
    """Signal: in a torch module, the dropout_p of attention is a number above 0 or an attribute set
    from one, and the mode is tested neither in the expression, nor in the local name that it comes
    from, nor around the call. Let pass: a parameter that is passed on; attributes that are not set
    in the class; names with several values of which one depends on the mode; properties.
    """
    for call in module.calls:
        last = _last(module, call)
        if last not in _ATTENTION:
            continue
        name, index = _ATTENTION[last]
        rate = argument(call, name, index)
        owner = module.class_of(call)
        if (
            rate is None
            or not maybe_torch(module, owner)
            or guarded(module, call)
            or sampling(module, call)
            or not _drops_always(module, rate)
        ):
            continue
        changes: tuple[Change, ...] = ()
        if is_torch(module, owner) and has_self(module.method_of(call)):
            simple = (ast.Name, ast.Attribute, ast.Constant, ast.Call, ast.Subscript)
            text = module.segment(rate)
            text = text if isinstance(rate, simple) else f"({text})"
            changes = (module.replace(rate, f"{text} if self.training else 0.0"),)
        message = f"{last} drops with {name}={module.source(rate)} in evaluation too"
        yield module.finding("L2", call, message, changes)


def _last(module: Module, call: ast.Call) -> str:
    """The last part of the name of a called function that is imported, or kept on self; "" for
    others.
    """
    name = module.called(call)
    if not name:
        names = {module.name(v) or "" for v in attribute(module, call.func)}
        name = names.pop() if len(names) == 1 else ""
    return name.rpartition(".")[2]


def _drops_always(module: Module, node: ast.expr, depth: int = 0) -> bool:
    """Whether an expression is a rate above 0 in evaluation too; False where the file does not
    show it.
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
    """Whether an attribute is a rate that ignores the mode: ``self.p`` set from a number or a
    parameter, ``self.drop.p`` of a dropout layer, a setting such as ``self.config.dropout``.
    """
    owner = module.class_of(node)
    if owner is None:
        return False
    if _SETTING.search(dotted(node) or ""):
        return True
    if node.attr == "p":
        layers = [layer(module, v) for v in attribute(module, node.value)]
        if layers:
            return any(known is not None and known.drops for known in layers)
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
        and not all(number(v) == 0 or never_passed(module, v) for v in values)
        and not any(of_mode(v) for v in values)
    )


def never_passed(module: Module, value: ast.expr) -> bool:
    """Whether a value is a parameter of ``__init__`` with default 0, for which no call in the file
    passes anything.
    """
    owner, function = module.class_of(value), module.function_of(value)
    if owner is None or function is None or not isinstance(value, ast.Name):
        return False
    if number(default(function, value.id)) != 0 or value.id not in parameters(function):
        return False
    index = parameters(function).index(value.id) - 1
    return not any(
        opaque(call) or argument(call, value.id, index) is not None
        for call in module.calls
        if (dotted(call.func) or "").rpartition(".")[2] == owner.name
    )


def _sets(method: ast.AST, name: str) -> bool:
    return any(
        isinstance(n, ast.Attribute) and n.attr == name and isinstance(n.ctx, ast.Store)
        for n in ast.walk(method)
    )


_RATE = re.compile(r"drop|^p$|rate$|prob", re.I)


def rate_lost_in_eval(module: Module) -> Iterator[Finding]:
    """Signal: in a branch that runs only in evaluation, a method of a torch module sets an
    attribute with the name of a rate to the literal 0. Let pass: local names; a method that sets
    the same attribute again elsewhere; ``train`` and ``eval``.
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
                        f"{path} becomes 0 in the first evaluation and remains 0 in training",
                    )
