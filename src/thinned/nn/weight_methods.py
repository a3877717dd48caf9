"""Hosts on weights whose noise is a function: mixout, targeted dropout, shakeout."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from .. import functional
from .._errors import InputError
from ..algebra.schedule import Schedule
from ..engines.torch.tensor_key import TensorKey
from ..functional import core
from .wrapper import ModuleWrapper, Names


class WeightFunctionLayer(ModuleWrapper):
    """Base of the layers that call a function of weights. Abstract.

    ``method``: called as ``method(weight, p=, training=, key=, **settings)`` for each parameter
    that ``names`` means, once a call of the layer, so the batch shares its draws. ``anchored``: it
    takes a second weight, the parameter as it was when the layer was made (:meth:`anchor` takes it
    anew).
    """

    def __init__(
        self,
        method: Callable[..., Tensor],
        module: nn.Module,
        p: float | Schedule,
        names: Names = None,
        *,
        anchored: bool = False,
        **settings: Any,
    ) -> None:
        super().__init__(module, names)
        self.method, self.settings, self.anchored = method, settings, anchored
        self.start(p)
        self.anchor()
        self._changed(None)  # so that wrong settings are refused here

    @torch.no_grad()
    def anchor(self) -> None:
        """Keep the weights as they are now; buffers that no checkpoint holds."""
        if self.anchored:
            for i, weight in enumerate(self.weights()):
                self.register_buffer(f"anchor_{i}", weight.detach().clone(), persistent=False)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        mode = self.mode()
        if mode == "off" or (not torch.compiler.is_compiling() and self._rate == 0):
            return self.inner(*args, **kwargs)
        return self.run(self._changed(self.call_key() if mode == "sample" else None), args, kwargs)

    def _changed(self, tensor_key: TensorKey | None) -> list[Tensor]:
        """The weights of a call that draws ``tensor_key`` noise; of evaluation where that is None."""
        changed = []
        for i, weight in enumerate(self.weights()):
            key = None if tensor_key is None else core.fold_in(tensor_key, i)
            anchors = (self.get_buffer(f"anchor_{i}"),) if self.anchored else ()
            changed.append(
                self.method(
                    weight,
                    *anchors,
                    p=self.now(),
                    training=key is not None,
                    key=key,
                    **self.settings,
                )
            )
        return changed

    def extra_repr(self) -> str:
        shown = "".join(f", {name}={value}" for name, value in self.settings.items())
        return f"{super().extra_repr()}{shown}"


class MethodWeightDropout(WeightFunctionLayer):
    """A function of weights of your own as a layer around a module.

    Args and draws: those of the base class.
    """

    def extra_repr(self) -> str:
        return f"{self.method.__name__}, {super().extra_repr()}"


class Mixout(WeightFunctionLayer):
    """:func:`thinned.functional.mixout` of a module's weights with what they are now: make it after
    loading what is pretrained.

    ``module``: any, also a whole model; ``names``: as in :class:`DropConnect`. Checkpoints are those
    of ``module`` and do not hold the pretrained weights: to go on from one, load the pretrained
    weights, make this, then load the checkpoint.
    """

    def __init__(
        self,
        module: nn.Module,
        p: float | Schedule = 0.5,
        per: functional.weights.Per = "weight",
        names: Names = None,
    ) -> None:
        super().__init__(functional.mixout, module, p, names, anchored=True, per=per)


class TargetedDropout(WeightFunctionLayer):
    """:func:`thinned.functional.targeted_dropout` on a module's weights; ``names`` as in
    :class:`DropConnect`.

    Evaluation runs the pruned module. Raises :class:`thinned.InputError` for transposed
    convolutions, whose outputs are not on the weight's first axis.
    """

    def __init__(
        self,
        module: nn.Module,
        p: float | Schedule = 0.5,
        fraction: float = 0.5,
        per: functional.weights.Per = "weight",
        names: Names = None,
    ) -> None:
        _check_outputs_first(module)
        super().__init__(functional.targeted_dropout, module, p, names, fraction=fraction, per=per)


class TargetedUnitDropout(WeightFunctionLayer):
    """Targeted dropout of whole units: ``TargetedDropout(module, p, fraction, per="unit")``."""

    def __init__(
        self,
        module: nn.Module,
        p: float | Schedule = 0.5,
        fraction: float = 0.5,
        names: Names = None,
    ) -> None:
        _check_outputs_first(module)
        super().__init__(
            functional.targeted_dropout, module, p, names, fraction=fraction, per="unit"
        )


def _check_outputs_first(module: nn.Module) -> None:
    if any(isinstance(m, nn.modules.conv._ConvTransposeNd) for m in module.modules()):
        raise InputError(
            "targeted dropout ranks the weights of each output, which transposed convolutions hold "
            "on axis 1"
        )


class Shakeout(ModuleWrapper):
    """:func:`thinned.functional.shakeout` in the place of a ``torch.nn.Linear``, under its
    parameters' names.
    """

    weight: Tensor
    bias: Any  # a tensor or None

    def __init__(self, linear: nn.Linear, p: float | Schedule = 0.5, c: float = 0.1) -> None:
        if not isinstance(linear, nn.Linear):
            raise InputError(f"Shakeout needs a torch.nn.Linear, but got {type(linear).__name__}")
        super().__init__(linear)
        self.c = functional.weights.pull(c)
        self.start(p)

    def forward(self, input: Tensor) -> Tensor:
        if self.mode() != "sample" or (not torch.compiler.is_compiling() and self._rate == 0):
            return self.inner(input)
        return functional.shakeout(
            input, self.weight, self.bias, self.now(), self.c, key=self.call_key()
        )

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, c={self.c}"
