"""What stands around a dropout layer in the graph of a model: which layers before and behind it may
shrink.
"""

from __future__ import annotations

import operator
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import fx, nn
from torch.nn import functional as F

from ..nn import Dropout, Thinned

# Functions of each element alone with f(0) = 0: a unit that fell stays fallen behind them.
_KEEP_ZERO = (
    nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.RReLU, nn.ELU, nn.CELU, nn.SELU, nn.GELU, nn.SiLU, nn.Mish, nn.Tanh, nn.Hardtanh,
    nn.Hardswish, nn.Hardshrink, nn.Softshrink, nn.Softsign, nn.Tanhshrink, nn.Identity,
)  # fmt: skip
_ELEMENTWISE = (*_KEEP_ZERO, nn.Sigmoid, nn.LogSigmoid, nn.Hardsigmoid, nn.Softplus)
_ZERO_FUNCTIONS = {
    F.relu, F.relu6, F.leaky_relu, F.elu, F.celu, F.selu, F.gelu, F.silu, F.mish, F.tanh, F.hardtanh, F.hardswish, F.softsign,
    F.tanhshrink, torch.relu, torch.tanh, torch.celu, torch.selu,
}  # fmt: skip
_FUNCTIONS = _ZERO_FUNCTIONS | {F.sigmoid, F.logsigmoid, F.hardsigmoid, F.softplus, torch.sigmoid}
_ZERO_METHODS = {"relu", "tanh", "contiguous"}
_METHODS = _ZERO_METHODS | {"sigmoid"}
# Pooling acts in each channel alone, and has 0 where a map is 0.
_POOLS = (
    nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d, nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d, nn.AdaptiveAvgPool1d,
    nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d, nn.AdaptiveMaxPool1d, nn.AdaptiveMaxPool2d, nn.AdaptiveMaxPool3d,
)  # fmt: skip
_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_BRANCH = {operator.add, operator.iadd, torch.add, "add", "add_"}
Weighted: TypeAlias = nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d


@dataclass(frozen=True)
class Chain:
    """A dropout layer with the layer behind it, and the one before it where that may leave outputs
    out.
    """

    before: Weighted | None
    behind: Weighted
    units: int


class Tracer(fx.Tracer):
    """Reads one module's own forward pass; only plain Sequentials are looked into."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return type(m) is not nn.Sequential


def dims_of(module: object) -> int | None:
    """How many map axes stand behind the units of a layer with weights; None where it cannot
    shrink, or is none.
    """
    if not isinstance(module, nn.Module):
        return None
    lazy = isinstance(module, nn.modules.lazy.LazyModuleMixin) and module.has_uninitialized_params()
    if lazy or any(True for _ in module.children()):
        return None
    if isinstance(module, nn.Linear):
        return 0 if type(module).forward is nn.Linear.forward else None
    for dims, kind in enumerate(_CONVOLUTIONS, 1):
        if isinstance(module, kind) and type(module).forward is kind.forward and module.groups == 1:
            return dims
    return None


def zero_kept(what: Any) -> bool:
    """Is ``what``, a module or function, one of each element alone with f(0) = 0?"""
    return isinstance(what, _KEEP_ZERO) if isinstance(what, nn.Module) else what in _ZERO_FUNCTIONS


def elementwise(what: Any) -> bool:
    """Is ``what`` a function of each element alone?"""
    if isinstance(what, nn.PReLU):
        return what.num_parameters == 1
    return isinstance(what, _ELEMENTWISE) if isinstance(what, nn.Module) else what in _FUNCTIONS


def _does(root: nn.Module, node: fx.Node) -> Any:
    return root.get_submodule(str(node.target)) if node.op == "call_module" else node.target


def _in_each(root: nn.Module, node: fx.Node, dims: int, zeros: bool) -> bool:
    """Does ``node`` act in each unit by itself, and with ``zeros`` leave 0 where one fell?"""
    does = _does(root, node)
    if len(node.all_input_nodes) != 1:
        return False
    if node.op == "call_method":
        return does in (_ZERO_METHODS if zeros else _METHODS)
    if isinstance(does, nn.PReLU):
        return elementwise(does)
    if isinstance(does, _POOLS):
        return dims > 0 and not getattr(does, "return_indices", False)
    return zero_kept(does) if zeros else elementwise(does)


def _flattens(root: nn.Module, node: fx.Node) -> bool:
    """All axes but the examples' into one?"""
    does = _does(root, node)
    if isinstance(does, nn.Flatten):
        return (does.start_dim, does.end_dim) == (1, -1)
    given = dict(zip(("input", "start_dim", "end_dim"), node.args, strict=False)) | node.kwargs
    return does in (torch.flatten, "flatten") and (
        given.get("start_dim", 0),
        given.get("end_dim", -1),
    ) == (1, -1)


def chain(root: nn.Module, node: fx.Node, dims: int, once: set[nn.Module]) -> Chain | str:
    """What stands around the dropout ``node``, or why nothing around it can shrink. ``once``:
    modules with one place.
    """
    at, flat = node, False
    does: Any
    while True:
        if len(at.users) != 1:
            return "its result is used in several places" if at.users else "its result is not used"
        (at,) = at.users
        does = _does(root, at)
        found = dims_of(does)
        if found is not None:
            break
        if dims and not flat and _flattens(root, at):
            flat = True
        elif not _in_each(root, at, 0 if flat else dims, zeros=True):
            return _why(at, does)
    if found != (0 if flat else dims):
        return f"its units are not the inputs of {at.target}; channels fall by Dropout{found or ''}{'d' if found else ''}"
    if does not in once:
        return f"{at.target} is called in several places"
    before = _before(root, node, dims, once)
    if before is not None:
        units = len(before.weight)
    elif flat:
        return "the layer before it, whose channels fall, is not seen"
    else:
        units = does.weight.shape[1]
    if does.weight.shape[1] % units:
        return f"{at.target} does not take its units"
    return Chain(before, does, units)


def _before(root: nn.Module, node: fx.Node, dims: int, once: set[nn.Module]) -> Weighted | None:
    """The layer that may leave out what falls at ``node``."""
    at = node
    while at.all_input_nodes and len(at.all_input_nodes) == 1:
        at = at.all_input_nodes[0]
        if len(at.users) != 1 or at.op not in ("call_module", "call_function", "call_method"):
            return None
        does = _does(root, at)
        if dims_of(does) is not None:
            return does if dims_of(does) == dims and does in once else None
        if not _in_each(root, at, dims, zeros=False):
            return None
    return None


def _why(node: fx.Node, does: Any) -> str:
    if node.op == "output":
        return "nothing stands behind it; its result leaves the module"
    if does in _BRANCH:
        return "its result is added to something else, where what fell is not known to be 0"
    if isinstance(does, (Thinned, Dropout, nn.modules.dropout._DropoutNd)):
        return f"another dropout stands behind it ({node.target})"
    name = (
        f"{node.target} ({type(does).__name__})"
        if isinstance(does, nn.Module)
        else getattr(does, "__name__", str(does))
    )
    if isinstance(does, nn.Module) and elementwise(does):
        return f"{name} stands behind it, which is not 0 at 0; put the dropout behind it"
    return f"{name} stands behind it, before any linear layer that could leave out what fell"
