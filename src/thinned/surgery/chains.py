"""The operations around a dropout layer: which layers with weights before and behind it may leave
dropped units out of their products.
"""

from __future__ import annotations

import inspect
import operator
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import fx, nn
from torch.nn import functional as F

from ..nn import Dropout, Thinned
from .preserve import restoring_attributes

# Between a dropout and the layer behind it, a dropped unit has to remain 0, since that layer leaves
# it out. So only functions of each element with f(0) = 0 may be there. Between the layer before and
# the dropout, any function of each element may be: its value at a dropped unit is not used.
_KEEP_ZERO = (
    nn.ReLU,
    nn.ReLU6,
    nn.LeakyReLU,
    nn.RReLU,
    nn.ELU,
    nn.CELU,
    nn.SELU,
    nn.GELU,
    nn.SiLU,
    nn.Mish,
    nn.Tanh,
    nn.Hardtanh,
    nn.Hardswish,
    nn.Hardshrink,
    nn.Softshrink,
    nn.Softsign,
    nn.Tanhshrink,
    nn.Identity,
)
_ELEMENTWISE = (*_KEEP_ZERO, nn.Sigmoid, nn.LogSigmoid, nn.Hardsigmoid, nn.Softplus)
_KEEP_ZERO_FUNCTIONS = {
    F.relu,
    F.relu6,
    F.leaky_relu,
    F.elu,
    F.celu,
    F.selu,
    F.gelu,
    F.silu,
    F.mish,
    F.tanh,
    F.hardtanh,
    F.hardswish,
    F.softsign,
    F.tanhshrink,
    torch.relu,
    torch.tanh,
    torch.celu,
    torch.selu,
}
_ELEMENTWISE_FUNCTIONS = _KEEP_ZERO_FUNCTIONS | {
    F.sigmoid,
    F.logsigmoid,
    F.hardsigmoid,
    F.softplus,
    torch.sigmoid,
}
_KEEP_ZERO_METHODS = {"relu", "tanh", "contiguous"}
_ELEMENTWISE_METHODS = _KEEP_ZERO_METHODS | {"sigmoid"}
# Pooling acts on each channel separately, and its result is 0 where a map is 0.
_POOLS = (
    nn.MaxPool1d,
    nn.MaxPool2d,
    nn.MaxPool3d,
    nn.AvgPool1d,
    nn.AvgPool2d,
    nn.AvgPool3d,
    nn.AdaptiveAvgPool1d,
    nn.AdaptiveAvgPool2d,
    nn.AdaptiveAvgPool3d,
    nn.AdaptiveMaxPool1d,
    nn.AdaptiveMaxPool2d,
    nn.AdaptiveMaxPool3d,
)
_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_ADDITIONS = {operator.add, operator.iadd, torch.add, "add", "add_"}
Weighted: TypeAlias = nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d


@dataclass(frozen=True)
class Chain:
    """The weight layers around one call of a dropout layer.

    ``before``: the layer before, if it can leave dropped outputs out; otherwise None.
    ``behind``: the layer that reads the units. ``units``: the number of units of the dropout.
    """

    before: Weighted | None
    behind: Weighted
    units: int


class Tracer(fx.Tracer):
    """Reads the forward of one module; of its children only ordinary Sequentials are entered.

    Each module is read by itself, so an operation that torch.fx cannot trace affects only the
    module that has it in its code.
    """

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return type(m) is not nn.Sequential

    def create_args_for_root(
        self, root_fn: Any, is_module: bool, concrete_args: Any = None
    ) -> tuple[Any, list[Any]]:
        """Read the forward within its decorators, as it runs without further keyword arguments."""
        code: Any = inspect.unwrap(root_fn)
        function, args = super().create_args_for_root(code, is_module, concrete_args)
        if code.__code__.co_flags & inspect.CO_VARKEYWORDS and isinstance(args[-1], fx.Proxy):
            placeholder, args[-1] = args[-1].node, {}
            self.graph.erase_node(placeholder)
        return function, args


def trace(root: nn.Module) -> fx.Graph:
    """Return the graph of the forward of ``root``; raise where torch.fx cannot trace it.

    The forward runs on proxies, and what it sets on ``root`` is restored.

    Arguments that are None by default, such as masks of transformer layers, are None where the code
    asks for their value.
    """
    try:
        with restoring_attributes(root):
            return Tracer().trace(root)
    except Exception:
        parameters = inspect.signature(type(root).forward).parameters.values()
        defaults = {p.name: None for p in parameters if p.default is None}
        if not defaults:
            raise
        with restoring_attributes(root):
            return Tracer().trace(root, defaults)


def spatial_dims(module: object) -> int | None:
    """Return how many spatial axes follow the units of a layer with weights: 0 for a linear layer;
    None for other modules, and for layers that cannot leave units out.

    Lazy and parametrized layers and convolutions with groups cannot, and neither can subclasses
    with a forward of their own.
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


def keeps_zero(operation: Any) -> bool:
    """Return whether a module or function acts on each element separately and has f(0) = 0."""
    if isinstance(operation, nn.Module):
        return isinstance(operation, _KEEP_ZERO)
    return operation in _KEEP_ZERO_FUNCTIONS


def is_elementwise(operation: Any) -> bool:
    """Return whether a module or function acts on each element separately."""
    if isinstance(operation, nn.PReLU):
        return operation.num_parameters == 1
    if isinstance(operation, nn.Module):
        return isinstance(operation, _ELEMENTWISE)
    return operation in _ELEMENTWISE_FUNCTIONS


def _operation(root: nn.Module, node: fx.Node) -> Any:
    """Return what a node calls: a module, a function, or the name of a method."""
    return root.get_submodule(str(node.target)) if node.op == "call_module" else node.target


def _acts_per_unit(root: nn.Module, node: fx.Node, dims: int, zeros: bool) -> bool:
    """Return whether ``node`` acts on each unit separately and, with ``zeros``, keeps it at 0."""
    operation = _operation(root, node)
    if len(node.all_input_nodes) != 1:
        return False
    if node.op == "call_method":
        return operation in (_KEEP_ZERO_METHODS if zeros else _ELEMENTWISE_METHODS)
    if isinstance(operation, nn.PReLU):  # f(0) = 0 for every slope
        return is_elementwise(operation)
    if isinstance(operation, _POOLS):
        return dims > 0 and not getattr(operation, "return_indices", False)
    return keeps_zero(operation) if zeros else is_elementwise(operation)


def _flattens(root: nn.Module, node: fx.Node) -> bool:
    """Return whether ``node`` flattens all axes but that of the examples into one."""
    operation = _operation(root, node)
    if isinstance(operation, nn.Flatten):
        return (operation.start_dim, operation.end_dim) == (1, -1)
    names = ("input", "start_dim", "end_dim")
    arguments = dict(zip(names, node.args, strict=False)) | node.kwargs
    return operation in (torch.flatten, "flatten") and (
        arguments.get("start_dim", 0),
        arguments.get("end_dim", -1),
    ) == (1, -1)


def find_chain(root: nn.Module, dropout: fx.Node, dims: int, once: set[nn.Module]) -> Chain | str:
    """Return the chain around a call of a dropout layer, or the reason why there is none.

    The walk goes forward from the dropout to the first layer with weights, over operations that
    keep dropped units at 0, then backward from the dropout for the layer before it. ``dims``: the
    spatial axes of the dropout (0 for single units). ``once``: the modules that are in one place
    and are called once, so that leaving units out of them affects no other call.
    """
    node, flat = dropout, False
    operation: Any
    while True:
        if len(node.users) != 1:
            return (
                "its result is used in several places" if node.users else "its result is not used"
            )
        (node,) = node.users
        operation = _operation(root, node)
        found = spatial_dims(operation)
        if found is not None:
            break
        if dims and not flat and _flattens(root, node):
            # each channel is now several columns of the linear layer behind
            flat = True
        elif not _acts_per_unit(root, node, 0 if flat else dims, zeros=True):
            return _obstacle(node, operation)
    if found != (0 if flat else dims):
        layer = f"Dropout{found}d" if found else "Dropout"
        return f"its units are not the inputs of {node.target}; channels are dropped by {layer}"
    if operation not in once:
        return f"{node.target} is called in several places"
    before = _layer_before(root, dropout, dims, once)
    if before is not None:
        units = len(before.weight)
    elif flat:
        # without it the number of channels, and so of columns per channel, is unknown
        return "the layer before it is not seen, so its channels cannot be left out"
    else:
        units = operation.weight.shape[1]
    if operation.weight.shape[1] % units:
        return f"{node.target} does not take its units"
    return Chain(before, operation, units)


def _layer_before(
    root: nn.Module, dropout: fx.Node, dims: int, once: set[nn.Module]
) -> Weighted | None:
    """Return the layer that may leave out the units dropped at ``dropout``, or None."""
    node = dropout
    while node.all_input_nodes and len(node.all_input_nodes) == 1:
        node = node.all_input_nodes[0]
        if len(node.users) != 1 or node.op not in ("call_module", "call_function", "call_method"):
            return None
        operation = _operation(root, node)
        if spatial_dims(operation) is not None:
            fits = spatial_dims(operation) == dims and operation in once
            return operation if fits else None
        if not _acts_per_unit(root, node, dims, zeros=False):
            return None
    return None


def _obstacle(node: fx.Node, operation: Any) -> str:
    """Return the reason why the walk from a dropout ends at ``node``."""
    if node.op == "output":
        return "no layer follows it; its result leaves the module"
    if operation in _ADDITIONS:
        return "its result is added to something else, where dropped units are not known to be 0"
    if isinstance(operation, (Thinned, Dropout, nn.modules.dropout._DropoutNd)):
        return f"another dropout follows it ({node.target})"
    name = (
        f"{node.target} ({type(operation).__name__})"
        if isinstance(operation, nn.Module)
        else getattr(operation, "__name__", str(operation))
    )
    if isinstance(operation, nn.Module) and is_elementwise(operation):
        return f"{name} follows it and is not 0 at 0; put the dropout after that"
    return f"{name} follows it, before any linear layer that could leave the dropped units out"
