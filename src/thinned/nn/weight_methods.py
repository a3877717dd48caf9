"""Layers on weights that call a function: mixout, targeted dropout, shakeout."""

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
from .method import check_method, name_of
from .wrapper import ModuleWrapper, Names


class WeightFunctionLayer(ModuleWrapper):
    """Base of the layers that call a function of the weights of a module. Abstract.

    Args:
        method: Called as ``method(weight, p=, training=, key=, **settings)`` for each parameter
            that ``names`` selects, once in each call of the layer, so the batch shares its draws.
        module: The module; its parameters keep their names.
        p: The rate, in [0, 1], or a schedule of it.
        names: Which parameters change; see :class:`DropConnect`.
        anchored: Whether ``method`` takes a second weight: the parameter as it was when the layer
            was built. :meth:`anchor` replaces it by the present one.
        settings: The other arguments of ``method``.

    Raises:
        InputError: Where an argument breaks a rule.
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
        check_method(method, {"p": 0, **settings})
        super().__init__(module, names)
        self.method, self.settings, self.anchored = method, settings, anchored
        self.set_initial_rate(p)
        self.anchor()
        self._changed_weights(None)  # so that wrong settings raise their error here

    @torch.no_grad()
    def anchor(self) -> None:
        """Keep the weights as they are now, in buffers that checkpoints do not hold."""
        if self.anchored:
            for i, weight in enumerate(self.selected_weights()):
                self.register_buffer(f"anchor_{i}", weight.detach().clone(), persistent=False)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        mode = self.mode()
        if mode == "off" or (not torch.compiler.is_compiling() and self._rate == 0):
            return self.inner(*args, **kwargs)
        tensor_key = self.call_key() if mode == "sample" else None
        return self.run_with_weights(self._changed_weights(tensor_key), args, kwargs)

    def _changed_weights(self, tensor_key: TensorKey | None) -> list[Tensor]:
        """The weights of a call with this key, or those of evaluation without one."""
        changed = []
        for i, weight in enumerate(self.selected_weights()):
            key = None if tensor_key is None else core.fold_in(tensor_key, i)
            anchors = (self.get_buffer(f"anchor_{i}"),) if self.anchored else ()
            changed.append(
                self.method(
                    weight,
                    *anchors,
                    p=self.current_rate(),
                    training=key is not None,
                    key=key,
                    **self.settings,
                )
            )
        return changed

    def extra_repr(self) -> str:
        settings = "".join(f", {name}={value}" for name, value in self.settings.items())
        return f"{super().extra_repr()}{settings}"


class MethodWeightDropout(WeightFunctionLayer):
    """Turns a function of weights of your own into a layer around a module.

    It calls ``method(weight, p=, training=, key=, **settings)`` for each parameter that ``names``
    selects, once in each call of the layer, and runs the module with the results. Input and output
    are those of ``module``. The batch shares the draws of a call.

    Args:
        method: The function; it returns a tensor of the shape of the weight.
        module: Any module without dropout modules of this package; its parameters keep their
            names, so checkpoints load both ways.
        p: The rate, in [0, 1], or a schedule of it.
        names: Which parameters change, by shell patterns on their qualified names; see
            :class:`DropConnect`.
        anchored: Whether ``method`` takes a second weight: the parameter as it was when the layer
            was built, as :class:`Mixout` does. :meth:`anchor` replaces it by the present one.
        settings: The other arguments of ``method``.

    Raises:
        InputError: Where ``method`` lacks an argument, or another argument breaks a rule.

    Example:
        >>> from torch import nn
        >>> import thinned.functional as TF
        >>> import thinned.nn as tnn
        >>> linear = nn.Linear(4, 2)
        >>> layer = tnn.MethodWeightDropout(TF.targeted_dropout, linear, 0.5, fraction=0.25)
        >>> layer.p, layer.settings
        (0.5, {'fraction': 0.25})

    Reference:
        docs/extending.md, "Write your own method".
    """

    def extra_repr(self) -> str:
        return f"{name_of(self.method)}, {super().extra_repr()}"


class Mixout(WeightFunctionLayer):
    """Mixout: replaces weights by their pretrained values with probability ``p``, keeping the mean.

    Build it after loading the pretrained weights. Input and output are those of ``module``. While
    training a weight w is u + m (w - u) / (1 - p), where u is its value when the layer was built;
    in evaluation it is w. Checkpoints are those of ``module`` and do not hold u: to resume from
    one, load the pretrained weights, build this layer, then load the checkpoint.

    Args:
        module: Any module without dropout modules of this package, also a whole model.
        p: The probability of taking the pretrained value, in [0, 1], or a schedule of it; 0.7 to
            0.9 for fine-tuning.
        per: "weight" draws for each weight, "unit" for each input (axis 1 of [out, in, ...]), as
            the code of the authors does.
        names: Which parameters change, by shell patterns on their qualified names; see
            :class:`DropConnect`.

    Raises:
        InputError: Where an argument breaks a rule.

    Example:
        >>> from torch import nn
        >>> import thinned.nn as tnn
        >>> tnn.Mixout(nn.Linear(4, 2), 0.9)
        Mixout(in_features=4, out_features=2, bias=True, p=0.9, per=weight)

    Reference:
        Lee, Cho, Kang 2020, "Mixout: effective regularization to finetune large-scale pretrained
        language models", equation 3; :func:`thinned.functional.mixout`.
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
    """Targeted dropout: drops the smallest weights, so that the network can be pruned.

    Input and output are those of ``module``. The candidates are the ``fraction`` of the weights of
    each output that are smallest in magnitude. While training each candidate is dropped with
    probability ``p``, and nothing is scaled. Evaluation drops all candidates: the pruned network.
    At p = 0 the module is unchanged, in evaluation too.

    Args:
        module: Any module without dropout modules of this package and without transposed
            convolutions.
        p: The probability of dropping a candidate, in [0, 1], or a schedule of it.
        fraction: The part of the weights that are candidates, in [0, 1].
        per: "weight"; or "unit", which ranks and drops whole outputs like
            :class:`TargetedUnitDropout`.
        names: Which parameters change, by shell patterns on their qualified names; see
            :class:`DropConnect`.

    Raises:
        InputError: Where an argument breaks a rule, or ``module`` holds a transposed convolution:
            its outputs are not on the first axis of the weight.

    Example:
        >>> from torch import nn
        >>> import thinned.nn as tnn
        >>> tnn.TargetedDropout(nn.Linear(4, 2), 0.5, fraction=0.25)
        TargetedDropout(in_features=4, out_features=2, bias=True, p=0.5, fraction=0.25, per=weight)

    Reference:
        Gomez, Zhang, Kamalakara, Madaan, Swersky, Gal, Hinton 2019, "Learning sparse networks using
        targeted dropout"; :func:`thinned.functional.targeted_dropout`.
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
    """Targeted dropout of whole units: drops the outputs with the smallest weights.

    Input and output are those of ``module``. The candidates are the ``fraction`` of the outputs
    with the smallest Euclidean norm of their weights. While training each candidate is dropped with
    probability ``p``, and nothing is scaled. Evaluation drops all candidates: the pruned network.

    Args:
        module: Any module without dropout modules of this package and without transposed
            convolutions.
        p: The probability of dropping a candidate, in [0, 1], or a schedule of it.
        fraction: The part of the outputs that are candidates, in [0, 1].
        names: Which parameters change, by shell patterns on their qualified names; see
            :class:`DropConnect`.

    Raises:
        InputError: Where an argument breaks a rule, or ``module`` holds a transposed convolution:
            its outputs are not on the first axis of the weight.

    Example:
        >>> from torch import nn
        >>> import thinned.nn as tnn
        >>> tnn.TargetedUnitDropout(nn.Conv2d(3, 8, 3), 0.5).settings
        {'fraction': 0.5, 'per': 'unit'}

    Reference:
        Gomez, Zhang, Kamalakara, Madaan, Swersky, Gal, Hinton 2019, "Learning sparse networks using
        targeted dropout"; :func:`thinned.functional.targeted_dropout`.
    """

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
    transposed = nn.modules.conv._ConvTransposeNd
    if isinstance(module, nn.Module) and any(isinstance(m, transposed) for m in module.modules()):
        raise InputError(
            "targeted dropout ranks the weights of each output, which transposed convolutions hold "
            "on axis 1"
        )


class Shakeout(ModuleWrapper):
    """Shakeout: a linear layer in which a dropped input turns its weights to -c sign(w).

    Input: [b, ..., in]. Output: [b, ..., out]. The weights are (m / q) w + c (m / q - 1) sign(w)
    with q = 1 - p and one Bernoulli draw m for each example and input. The mean is the linear
    layer, which is what evaluation computes. The parameters keep their names.

    Args:
        linear: A ``torch.nn.Linear``.
        p: The probability of dropping an input, in [0, 1], or a schedule of it.
        c: The strength, at least 0: 0 is dropout, and larger values pull weights to 0 as L1 does.

    Raises:
        InputError: Where ``linear`` is another module, or a number is out of range.

    Example:
        >>> from torch import nn
        >>> import thinned.nn as tnn
        >>> tnn.Shakeout(nn.Linear(4, 2), 0.3)
        Shakeout(in_features=4, out_features=2, bias=True, p=0.3, c=0.1)

    Reference:
        Kang, Li, Tao 2016, "Shakeout: a new regularized deep neural network training scheme",
        equation 3; :func:`thinned.functional.shakeout`.
    """

    weight: Tensor
    bias: Any  # a tensor or None

    def __init__(self, linear: nn.Linear, p: float | Schedule = 0.5, c: float = 0.1) -> None:
        if not isinstance(linear, nn.Linear):
            raise InputError(f"Shakeout needs a torch.nn.Linear, but got {type(linear).__name__}")
        super().__init__(linear)
        self.c = functional.weights.check_strength(c)
        self.set_initial_rate(p)

    def forward(self, input: Tensor) -> Tensor:
        if self.mode() != "sample" or (not torch.compiler.is_compiling() and self._rate == 0):
            y: Tensor = self.inner(input)
            return y
        return functional.shakeout(
            input, self.weight, self.bias, self.current_rate(), self.c, key=self.call_key()
        )

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, c={self.c}"
