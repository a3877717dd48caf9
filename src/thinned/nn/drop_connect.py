"""The host on weights whose noise is a point: DropConnect."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .. import presets
from .._errors import InputError, unknown
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
from ..functional.activations import expected, root
from .wrapper import ModuleWrapper, Names

Sampling = Literal["exact", "moments"]
Inference = Literal["mean", "moments"]


class DropConnect(ModuleWrapper):
    """A module whose weights fall: DropConnect, Wan et al. 2013.

    ``module``: its parameters are taken over under the same names, so checkpoints load. ``p``: the
    rate, a schedule of it, or a point. On a ``torch.nn.Linear`` a rate is the paper's method: each
    example has masks of its own, over weights and bias. On every other module, and wherever the
    point says so (``presets.drop_connect(p, per="batch")``, or any point on a layout of weights,
    such as ``"o i *"`` with coins per ``"i"``), one mask serves the whole batch: drawn once a call,
    on the weight matrices, or on the parameters whose names match the patterns ``names``; of LSTM,
    GRU and RNN by default on the recurrent weights ``weight_hh*``. Biases stay. Evaluation takes
    every weight's mean. torch compiles no LSTM, GRU or RNN in one graph, with this or without.

    For masks of each example alone: the point has layout ``b o i``, fill ``Zero()`` and scale
    ``Inverted()`` or ``Classic()``. ``activation``: follows the layer inside the host, because the
    paper's inference needs it. ``sampling``: ``"exact"`` draws every weight's coin (memory: batch x
    out x in); ``"moments"`` draws the pre-activation from its Gaussian limit, at the cost of two
    products (a sum over many weights has this law; for few inputs prefer exact). ``inference``:
    ``"mean"`` is a(q W v); ``"moments"`` is E[a(u)], u ~ N(q W v, p q W^2 v^2), in closed form for
    ReLU and by quadrature else. With no activation they agree. Input [b, ..., in]; the first axis
    is the examples, and the axes between share an example's mask (``"moments"`` cannot share: it
    draws for [b, in] alone). Output [b, ..., out].

    Raises :class:`thinned.InputError` for other modules, points, names or shapes.

    >>> DropConnect(nn.Linear(3, 4), 0.5), DropConnect(nn.GRU(3, 4), 0.2).names
    (DropWeight(in_features=3, out_features=4, bias=True, p=0.5), ('weight_hh_l0',))
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
        for what, value, known in (
            ("sampling", sampling, ("exact", "moments")),
            ("inference", inference, ("mean", "moments")),
        ):
            if value not in known:
                raise unknown(what, value, known)
        linear = isinstance(module, nn.Linear)
        if isinstance(p, SCHEDULES):
            self.schedule, p = p, p(0)
        spec = (
            p
            if isinstance(p, Drop)
            else presets.drop_connect(p, per="example" if linear and names is None else "batch")
        )
        self.each = EXAMPLE in axes(spec.of)
        if self.each:
            _check_each(module, spec, names, sampling)
        elif activation is not None or sampling != "exact" or inference != "mean":
            raise InputError(
                "activation, sampling and inference are for masks of each example, on a torch.nn.Linear"
            )
        else:
            for weight in self.weights():
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
        """The rate, in [0, 1] (or the strength of a law that drops nothing)."""
        return self._rate

    @p.setter
    def p(self, rate: float) -> None:
        rate = float(rate)
        self.spec = (
            self.base_spec if rate == self.base_spec.rate else self.base_spec.at(rate)
        )  # as the point acts now
        self._rate = rate
        self._numbers = plan_constants(self.spec)
        self._mean = averages(self.spec)
        self._moments = moments(self.spec) if self.each else None

    def moments(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and variance of the pre-activation over the masks of each example: [b, ..., out]
        each.
        """
        m = self._moments
        if m is None:
            raise InputError(
                "masks that the batch shares have no moments here; use masks of each example, on a torch.nn.Linear"
            )
        square_bias = None if self.bias is None else self.bias.square()
        return (
            m.gain * F.linear(x, self.weight, self.bias),
            m.square * F.linear(x.square(), self.weight.square(), square_bias),
        )

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        mode = self.mode()
        quiet = mode == "off" or (not torch.compiler.is_compiling() and self._rate == 0)
        if self.each:
            return self._of_each("off" if quiet else mode, *args, **kwargs)
        if quiet or (mode == "mean" and self._mean == (1.0, 0.0)):
            return self.inner(*args, **kwargs)
        if mode == "mean":
            gain, shift = self._mean
            return self.run([w * gain + shift for w in self.weights()], args, kwargs)
        tensor_key = self.call_key()
        return self.run(
            [self._drawn(w, core.fold_in(tensor_key, i)) for i, w in enumerate(self.weights())],
            args,
            kwargs,
        )

    def _drawn(self, weight: Tensor, tensor_key: TensorKey) -> Tensor:
        if torch.compiler.is_compiling() and self._numbers is not None:
            return dispatch.sample_in_graph(weight, self.base_spec, self._numbers, tensor_key, None)
        return core.drop(weight, self.spec, key=tensor_key)

    def _of_each(self, mode: Mode, input: Tensor) -> Tensor:
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
        return expected(act, *self.moments(input))

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
                f"sampling='moments' needs input [b, in] while it draws, because the axes between would need one mask, but got "
                f"{list(x.shape)}; use sampling='exact'"
            )
        mean, var = self.moments(x)
        shape = (x.shape[0] if x.dim() > 1 else 1, self.out_features)
        eps = core.normal(shape, self.call_key(), mean)
        return mean + root(var) * eps.view(mean.shape).to(mean.dtype)

    def extra_repr(self) -> str:
        return super().extra_repr() + (
            f", sampling={self.sampling}" if self.sampling != "exact" else ""
        )


def _check_each(module: nn.Module, spec: Drop, names: Names, sampling: Sampling) -> None:
    """Raise unless each example can have masks of its own."""
    if not isinstance(module, nn.Linear):
        raise InputError(
            f"a mask for each example needs a torch.nn.Linear, but got {type(module).__name__}; share one over the batch: "
            'presets.dropconnect(p, per="batch")'
        )
    if "weight" not in module._parameters:
        raise InputError(
            "something rewrites this layer's weight (pruning, weight norm or another parametrization); remove it first"
        )
    if names is not None:
        raise InputError(
            "names= is for masks that the batch shares; with masks of each example weights and bias fall"
        )
    if spec.of != "b o i" or spec.per not in ("b o i", "o i"):
        raise InputError(
            f"DropWeight needs a point of layout 'b o i' with coins per 'b o i' or 'o i', but got {spec}"
        )
    if not (isinstance(spec.fill, Zero) and isinstance(spec.scale, (Inverted, Classic))):
        raise InputError(
            f"DropWeight needs fill Zero() and scale Inverted() or Classic(), as its closed forms do, but got {spec}"
        )
    if sampling == "moments" and spec.per != "b o i":
        raise InputError(
            "sampling='moments' needs coins per 'b o i': weights shared over the batch are not independent"
        )
