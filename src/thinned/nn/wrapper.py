"""What hosts on weights share: they stand in the place of a module, and call it with other weights."""

from __future__ import annotations

from collections.abc import Iterable
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from .._errors import InputError, unknown
from .module import DropoutModule, RatedModule, disable_fused_kernels

Names = str | Iterable[str] | None


class ModuleWrapper(RatedModule, nn.Module):
    """A host in the place of ``module``, which is called with changed weights. Abstract.

    The module's parameters, buffers and children stand on the host under their own names, so
    checkpoints of either load into the other. The module itself stays out of the tree; the two
    share their dictionaries, so what moves one moves both. ``names``: which parameters change, by
    shell patterns on their qualified names. None: the weight matrices, no biases; of recurrent
    modules those on the state (``weight_hh*``).
    """

    inner: nn.Module

    def __init__(self, module: nn.Module, names: Names = None) -> None:
        super().__init__()
        if not isinstance(module, nn.Module) or isinstance(module, DropoutModule):
            raise InputError(
                f"{type(self).__name__} needs a module without a host of its own, but got {type(module).__name__}"
            )
        self.names = _chosen(module, names)
        self.__dict__["inner"] = module  # no child: its parameters would stand in the tree twice
        for shared in ("_parameters", "_buffers", "_modules", "_non_persistent_buffers_set"):
            self.__dict__[shared] = getattr(module, shared)
        self.training = module.training
        disable_fused_kernels(self)

    def train(self, mode: bool = True) -> Any:
        """As of any module; the one inside follows."""
        self.inner.training = mode
        return super().train(mode)

    def __getattr__(self, name: str) -> Any:
        """What code that knows the module asks it for: its sizes, its settings."""
        try:
            return super().__getattr__(name)
        except AttributeError:
            if "inner" not in self.__dict__ or name.startswith("__"):
                raise
            return getattr(self.__dict__["inner"], name)

    def weights(self) -> list[Tensor]:
        """The parameters that change, in the order of ``names``."""
        return [self.get_parameter(name) for name in self.names]

    def run(self, weights: list[Tensor], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """What the module gives with ``weights`` for its own; nothing is written into it."""
        given = dict(zip(self.names, weights, strict=True))
        result = torch.func.functional_call(self.inner, given, args, kwargs)
        if isinstance(self.inner, nn.RNNBase):
            self.inner._update_flat_weights()  # it would hold the weights of this call, and their graph
        return result

    def extra_repr(self) -> str:
        inside = self.inner.extra_repr()
        what = "" if isinstance(self.inner, nn.Linear) else f"{type(self.inner).__name__}: "
        return f"{what}{inside}, p={self.p}" if inside else f"{what}p={self.p}"


def _chosen(module: nn.Module, names: Names) -> tuple[str, ...]:
    """The names of the parameters that ``names`` means."""
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
                f"{type(module).__name__} has no weight matrix; say what changes, such as names='weight'"
            )
        return tuple(found)
    patterns = (names,) if isinstance(names, str) else tuple(names)
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in known):
            raise unknown("parameter", pattern, known)
    if not patterns:
        raise InputError("names is empty; leave it out for all weight matrices")
    return tuple(name for name in known if any(fnmatchcase(name, pattern) for pattern in patterns))
