"""The base of the layers on weights: it replaces a module, and calls it with changed weights."""

from __future__ import annotations

from collections.abc import Iterable
from fnmatch import fnmatchcase
from operator import attrgetter
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.nn.utils.stateless import _reparametrize_module

from .._errors import InputError, unknown
from .module import DropoutModule, RatedModule, disable_fused_kernels

Names = str | Iterable[str] | None


class ModuleWrapper(RatedModule, nn.Module):
    """Base of the layers that replace ``module`` and call it with changed weights. Abstract.

    The parameters, buffers and children of the module are those of the layer too, under the same
    names, so checkpoints of either load into the other. The module itself is no child. The two
    share their dictionaries, so moving one to a device moves both.

    Args:
        module: A module without dropout modules of this package.
        names: Which parameters change, by shell patterns on their qualified names. None: the weight
            matrices, without biases; of recurrent modules those on the state (``weight_hh*``).

    Raises:
        InputError: Where ``module`` is a dropout module or no module, a parameter has no shape yet,
            or a pattern matches nothing.
    """

    inner: nn.Module

    def __init__(self, module: nn.Module, names: Names = None) -> None:
        super().__init__()
        if not isinstance(module, nn.Module) or isinstance(module, DropoutModule):
            raise InputError(
                f"{type(self).__name__} needs a module that is no dropout module itself, but got "
                f"{type(module).__name__}"
            )
        self.names = _matching_names(module, names)
        # not registered as a child: its parameters would be in the tree twice
        self.__dict__["inner"] = module
        for shared in ("_parameters", "_buffers", "_modules", "_non_persistent_buffers_set"):
            self.__dict__[shared] = getattr(module, shared)
        self.training = module.training
        disable_fused_kernels(self)

    def train(self, mode: bool = True) -> Any:
        """Set the training mode of the layer and of the module inside."""
        self.inner.training = mode
        return super().train(mode)

    def __getattr__(self, name: str) -> Any:
        """Look up attributes of the module inside, such as its sizes, for code that reads them."""
        try:
            return super().__getattr__(name)
        except AttributeError:
            if "inner" not in self.__dict__ or name.startswith("__"):
                raise
            return getattr(self.__dict__["inner"], name)

    def selected_weights(self) -> list[Tensor]:
        """Return the parameters that change, in the order of ``names``."""
        # functional_call puts other tensors in the place of parameters
        return [attrgetter(name)(self) for name in self.names]

    def run_with_weights(
        self, weights: list[Tensor], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """Call the module with ``weights`` in place of its own; nothing is written into it."""
        replaced = dict(zip(self.names, weights, strict=True))
        result = call_with_weights(self.inner, replaced, args, kwargs)
        if isinstance(self.inner, nn.RNNBase):
            # otherwise it would keep the weights of this call, and their autograd graph
            self.inner._update_flat_weights()
        return result

    def extra_repr(self) -> str:
        inside = self.inner.extra_repr()
        kind = "" if isinstance(self.inner, nn.Linear) else f"{type(self.inner).__name__}: "
        return f"{kind}{inside}, p={self.p}" if inside else f"{kind}p={self.p}"


def call_with_weights(
    module: nn.Module,
    replaced: dict[str, Tensor],
    args: tuple[Any, ...],
    kwargs: dict[str, Any] | None = None,
) -> Any:
    """Call ``module`` with the weights ``replaced`` in place of its own."""
    if torch.compiler.is_dynamo_compiling() or not torch._C._is_tracing():
        return torch.func.functional_call(module, replaced, args, kwargs)
    # functional_call refuses modules of TorchScript by refusing all calls while tracing
    with _reparametrize_module(module, replaced):
        return module(*args, **(kwargs or {}))


def _matching_names(module: nn.Module, names: Names) -> tuple[str, ...]:
    """The names of the parameters that ``names`` selects."""
    known = dict(module.named_parameters())
    lazy = [name for name, parameter in known.items() if is_lazy(parameter)]
    if lazy:
        raise InputError(
            f"parameter {lazy[0]!r} has no shape yet; call the module once before it is wrapped"
        )
    if names is None:
        recurrent = isinstance(module, (nn.RNNBase, nn.RNNCellBase))
        last = {name: name.rpartition(".")[2] for name in known}
        found = [n for n, p in known.items() if p.dim() > 1 and "bias" not in last[n]]
        found = [n for n in found if not recurrent or last[n].startswith("weight_hh")]
        if not found:
            raise InputError(
                f"{type(module).__name__} has no weight matrix; name what changes, such as "
                "names='weight'"
            )
        return tuple(found)
    patterns = (names,) if isinstance(names, str) else _listed(names)
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in known):
            raise unknown("parameter", pattern, known)
    if not patterns:
        raise InputError("names is empty; leave it out for all weight matrices")
    return tuple(name for name in known if any(fnmatchcase(name, pattern) for pattern in patterns))


def _listed(names: Any) -> tuple[str, ...]:
    """``names`` as a tuple, or an error unless it is a list of strings."""
    listed = tuple(names) if isinstance(names, Iterable) and not isinstance(names, Tensor) else None
    if listed is None or not all(isinstance(name, str) for name in listed):
        raise InputError(
            "names has to be a pattern of parameter names such as 'weight', or a list of them, "
            f"but got {names!r}"
        )
    return listed
