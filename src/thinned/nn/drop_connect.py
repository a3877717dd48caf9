"""DropConnect: drops weights instead of activations."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .. import presets
from .._errors import InputError, choice
from ..algebra.drop import Drop
from ..algebra.fill import Zero
from ..algebra.moments import moments
from ..algebra.per import EXAMPLE, axes
from ..algebra.plan import averages, plan
from ..algebra.scale import Classic, Inverted
from ..algebra.schedule import SCHEDULES, Schedule
from ..engines.torch import dispatch
from ..engines.torch.dispatch import plan_constants
from ..engines.torch.tensor_key import TensorKey
from ..functional import Mode, core
from ..functional.activations import expected_activation, safe_sqrt
from .wrapper import ModuleWrapper, Names

Sampling = Literal["exact", "moments"]
Inference = Literal["mean", "moments"]


class DropConnect(ModuleWrapper):
    """DropConnect: drops the weights of a module instead of its activations.

    Input and output are those of ``module``; its parameters keep their names, so checkpoints load.

    A rate on a ``torch.nn.Linear`` is the method of the paper: each example has a mask of its own,
    over weights and bias. Input: [b, ..., in] with the examples first; the axes between share the
    mask of an example. Output: [b, ..., out]. On every other module, and where ``spec`` says so
    (``presets.drop_connect(p, per="batch")``, or any spec on a layout of weights, such as ``"o i
    *"`` with draws per ``"i"``), one mask serves the whole batch. It is drawn once a call, on the
    weight matrices or on the parameters in ``names``; biases are kept. Evaluation takes the mean of
    every weight. torch compiles no LSTM, GRU or RNN in one graph, with or without this layer.

    Args:
        module: Any module without dropout modules of this package.
        p: The probability of dropping a weight, in [0, 1]; a schedule of it; or a
            :class:`thinned.Drop` for the weights. A spec with a mask for each example has layout
            ``"b o i"``, fill ``Zero()`` and scale ``Inverted()`` or ``Classic()``.
        names: Which parameters change, by shell patterns on their qualified names. None: the weight
            matrices; of recurrent modules the weights on the state, ``weight_hh*``. With masks for
            each example weight and bias change, and None is the only choice.
        activation: Applied after the layer, inside this module, because the inference of the paper
            needs it. For masks of each example only, as the next two arguments.
        sampling: "exact" draws every weight (memory: batch x out x in). "moments" draws the
            pre-activation from its Gaussian limit, at the cost of two products: a sum over many
            weights has this distribution, and for few inputs "exact" is better. It takes inputs
            [b, in] only.
        inference: "mean" is a(q W v) in evaluation. "moments" is E[a(u)], u ~ N(q W v, p q W^2
            v^2), in closed form for ReLU and otherwise by quadrature. Without an activation the two
            agree.

    Raises:
        InputError: Where ``module``, ``p`` or ``names`` do not fit together, or an argument breaks
            another rule.

    Example:
        >>> from torch import nn
        >>> import thinned.nn as tnn
        >>> tnn.DropConnect(nn.Linear(3, 4), 0.5)
        DropConnect(in_features=3, out_features=4, bias=True, p=0.5)
        >>> tnn.DropConnect(nn.GRU(3, 4), 0.2).names
        ('weight_hh_l0',)

    Reference:
        Wan, Zeiler, Zhang, LeCun, Fergus 2013, "Regularization of neural networks using
        DropConnect"; :func:`thinned.presets.drop_connect`.
    """

    weight: Tensor  # of a Linear
    bias: Any  # a tensor or None

    def __init__(
        self,
        module: nn.Module,
        p: float | Drop | Schedule = 0.5,
        *,
        names: Names = None,
        activation: Callable[[Tensor], Tensor] | None = None,
        sampling: Sampling = "exact",
        inference: Inference = "mean",
    ) -> None:
        super().__init__(module, names)
        choice(sampling, "sampling", ("exact", "moments"))
        choice(inference, "inference", ("mean", "moments"))
        if activation is not None and not callable(activation):
            raise InputError(
                f"activation has to be a function, such as torch.relu, but got {activation!r}"
            )
        linear = isinstance(module, nn.Linear)
        if isinstance(p, SCHEDULES):
            self.schedule, p = p, p(0)
        spec = (
            p
            if isinstance(p, Drop)
            else presets.drop_connect(p, per="example" if linear and names is None else "batch")
        )
        self.per_example = EXAMPLE in axes(spec.of)
        if self.per_example:
            _check_per_example(module, spec, names, sampling)
        elif activation is not None or sampling != "exact" or inference != "mean":
            raise InputError(
                "activation, sampling and inference are for masks of each example, on a "
                "torch.nn.Linear"
            )
        else:
            for weight in self.selected_weights():
                plan(spec, tuple(weight.shape))
        if isinstance(module, nn.Linear):
            self.in_features, self.out_features = module.in_features, module.out_features
        self.base_spec = spec
        self.activation = activation
        self.sampling: Sampling = sampling
        self.inference: Inference = inference
        self.p = spec.rate

    @property
    def p(self) -> float:
        """The rate, in [0, 1], or the strength of noise that drops nothing; it may be set."""
        return self._rate

    @p.setter
    def p(self, rate: float) -> None:
        spec = self.base_spec.at(rate)
        rate = spec.rate
        # the spec at the present rate
        self.spec = self.base_spec if rate == self.base_spec.rate else spec
        self._rate = rate
        self._constants = plan_constants(self.spec)
        self._mean = averages(self.spec)
        self._moments = moments(self.spec) if self.per_example else None

    def moments(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Compute the mean and the variance of the pre-activation over the masks of each example.

        Args:
            x: The input, [b, ..., in].

        Returns:
            Mean and variance, [b, ..., out] each.

        Raises:
            InputError: Where the batch shares one mask.
        """
        m = self._moments
        if m is None:
            raise InputError(
                "masks that the batch shares have no moments here; use masks of each example, on "
                "a torch.nn.Linear"
            )
        square_bias = None if self.bias is None else self.bias.square()
        return (
            m.gain * F.linear(x, self.weight, self.bias),
            m.square * F.linear(x.square(), self.weight.square(), square_bias),
        )

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        mode = self.mode()
        no_noise = mode == "off" or (not torch.compiler.is_compiling() and self._rate == 0)
        if self.per_example:
            return self._forward_per_example("off" if no_noise else mode, *args, **kwargs)
        if no_noise or (mode == "mean" and self._mean == (1.0, 0.0)):
            return self.inner(*args, **kwargs)
        if mode == "mean":
            gain, shift = self._mean
            return self.run_with_weights(
                [w * gain + shift for w in self.selected_weights()], args, kwargs
            )
        tensor_key = self.call_key()
        return self.run_with_weights(
            [
                self._drawn(w, core.fold_in(tensor_key, i))
                for i, w in enumerate(self.selected_weights())
            ],
            args,
            kwargs,
        )

    def _drawn(self, weight: Tensor, tensor_key: TensorKey) -> Tensor:
        if torch.compiler.is_compiling() and self._constants is not None:
            return dispatch.sample_in_graph(
                weight, self.base_spec, self._constants, tensor_key, None
            )
        return core.drop(weight, self.spec, key=tensor_key)

    def _forward_per_example(self, mode: Mode, input: Tensor) -> Tensor:
        act = self.activation or (lambda u: u)
        if mode == "off":
            return act(F.linear(input, self.weight, self.bias))
        if mode == "sample":
            return act(
                self._gaussian(input)
                if self.sampling == "moments" and 0 < self._rate < 1
                else self._exact(input)
            )
        if self.inference == "mean" or self.activation is None:
            return act(self._mean[0] * F.linear(input, self.weight, self.bias))
        return expected_activation(act, *self.moments(input))

    def _exact(self, x: Tensor) -> Tensor:
        batched = x if x.dim() > 1 else x.unsqueeze(0)
        weight = self.weight
        if self.bias is not None:  # the bias is one more weight, on an input of 1
            weight = torch.cat((weight, self.bias.unsqueeze(1)), 1)
            batched = F.pad(batched, (0, 1), value=1.0)
        each = self._drawn(
            weight.expand(batched.shape[0], *weight.shape), self.call_key()
        )  # [b, o, i]
        y = torch.einsum("boi,b...i->b...o", each, batched)
        return y if x.dim() > 1 else y.squeeze(0)

    def _gaussian(self, x: Tensor) -> Tensor:
        if x.dim() > 2:
            raise InputError(
                "sampling='moments' needs input [b, in] while it draws, because the axes between "
                f"would need one mask, but got {list(x.shape)}; use sampling='exact'"
            )
        mean, var = self.moments(x)
        shape = (x.shape[0] if x.dim() > 1 else 1, self.out_features)
        eps = core.normal(shape, self.call_key(), mean)
        return mean + safe_sqrt(var) * eps.view(mean.shape).to(mean.dtype)

    def extra_repr(self) -> str:
        return super().extra_repr() + (
            f", sampling={self.sampling}" if self.sampling != "exact" else ""
        )


def _check_per_example(module: nn.Module, spec: Drop, names: Names, sampling: Sampling) -> None:
    """Raise unless each example can have masks of its own."""
    if not isinstance(module, nn.Linear):
        raise InputError(
            f"a mask for each example needs a torch.nn.Linear, but got {type(module).__name__}; "
            'share one over the batch: presets.drop_connect(p, per="batch")'
        )
    if "weight" not in module._parameters:
        raise InputError(
            "something rewrites the weight of this layer (pruning, weight norm or another "
            "parametrization); remove it first"
        )
    if names is not None:
        raise InputError(
            "names= is for masks that the batch shares; with masks of each example weights and "
            "bias are dropped"
        )
    if spec.of != "b o i" or spec.per not in ("b o i", "o i"):
        raise InputError(
            "DropConnect needs a spec of layout 'b o i' with draws per 'b o i' or 'o i', but got "
            f"{spec}"
        )
    if not (isinstance(spec.fill, Zero) and isinstance(spec.scale, (Inverted, Classic))):
        raise InputError(
            "DropConnect needs fill Zero() and scale Inverted() or Classic(), as its closed forms "
            f"do, but got {spec}"
        )
    if sampling == "moments" and spec.per != "b o i":
        raise InputError(
            "sampling='moments' needs draws per 'b o i': weights shared over the batch are not "
            "independent"
        )
