"""The base of the layers that apply a :class:`thinned.Drop`, and the layer of any spec."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor
from torch._subclasses.functional_tensor import FunctionalTensor
from torch.nn.modules.dropout import _DropoutNd
from torch.nn.utils.rnn import PackedSequence, pad_packed_sequence

from .. import presets
from .._errors import InputError, flag
from ..algebra.drop import Drop
from ..algebra.per import EXAMPLE, Block
from ..algebra.plan import plan
from ..algebra.scale import Classic
from ..algebra.schedule import SCHEDULES, Schedule
from ..engines.torch import dispatch, exported, ops, sharded
from ..engines.torch.dispatch import Impl, PreparedPlan, plan_constants
from ..engines.torch.tensor_key import MaskKey
from ..functional import core, maps, torch_functions
from ..functional.inputs import check_dense, is_dense, wrong_type
from . import layouts
from .module import RatedModule, disable_fused_kernels

_SHAPES = 64  # how many input shapes a layer remembers
_TRACED = (FakeTensor, FunctionalTensor)  # what make_fx and aot_function pass
Shard = tuple[str, int, int]


class SpecLayer(RatedModule, _DropoutNd):
    """Base of the layers that apply a :class:`thinned.Drop` to activations. Abstract.

    It is a ``torch.nn.modules.dropout._DropoutNd``, so tools that look for dropout find it.

    Args:
        make: Returns the spec of a rate and ``settings``.
        rate: The rate, or a schedule of it.
        inplace: Whether to write the result into the input.
        dims: The number of spatial axes (1, 2 or 3) that the input has to have, read as torch's
            Dropout1d, 2d and 3d read it; None takes any.
        layout: The input's axes by name where the examples are not first, such as ``"t b d"``, or
            ``"(b t) d"`` for examples and tokens flattened into one axis (a keyed model reads the
            number of examples from their ids).
        shard: (axis, index, count) where this rank holds one of ``count`` equal parts of an axis,
            so that it draws its part of the whole tensor's mask.
        impl: The implementation; see :func:`thinned.functional.drop`.
        settings: The other arguments of ``make``.

    Raises:
        InputError: Where an argument breaks a rule; the message names the argument and the remedy.
    """

    def __init__(
        self,
        make: Callable[..., Drop],
        rate: float | Schedule,
        inplace: bool = False,
        *,
        dims: int | None = None,
        layout: str | None = None,
        shard: Shard | None = None,
        impl: Impl | None = None,
        **settings: Any,
    ) -> None:
        if isinstance(rate, (str, Drop)):
            raise _no_rate(type(self).__name__, rate)
        flag(inplace, "inplace")
        self.schedule = rate if isinstance(rate, SCHEDULES) else None
        spec = make(rate(0) if isinstance(rate, SCHEDULES) else rate, **settings)
        if layout is not None:
            spec = layouts.apply_layout(spec, layout, dims)
        self.base_spec = spec
        self.dims = dims
        self.layout = layout
        self.shard = layouts.check_shard(shard, spec) if shard is not None else None
        self.impl: Impl | None = dispatch.check_impl(impl)
        self._settings = settings
        # torch's own check is for probabilities; the spec has checked its rate
        super().__init__(0.0, inplace)
        self.p = spec.rate
        self._make_unfusable()

    @property
    def p(self) -> float:
        """The rate of dropping, in [0, 1], or the strength of noise that drops nothing.

        May be set at any time, also in a compiled model.
        """
        return self._rate

    @p.setter
    def p(self, rate: float) -> None:
        spec = self.base_spec.at(rate)
        rate = spec.rate
        self.spec = self.base_spec if rate == self.base_spec.rate else spec
        self._rate = rate
        self._prepared: dict[tuple[int, ...], PreparedPlan] = {}
        self._constants = plan_constants(self.spec)
        per, of = self.base_spec.per, self.base_spec.of
        blocks = isinstance(per, Block) and per == Block("*", per.size) and of == "b c *"
        self._block_size = per.size if isinstance(per, Block) and blocks else None
        # a graph reads the rate from a tensor, so that a schedule never compiles anew
        self._rate_tensor = torch.tensor(rate, dtype=torch.float64, device="cpu")

    def set_spec(self, spec: Drop) -> None:
        """Take another spec, at the present rate."""
        self.base_spec = spec
        self.p = self._rate
        self._make_unfusable()

    def _make_unfusable(self) -> None:
        """A classic layer acts in evaluation, where torch's fused kernels would pass it by."""
        if isinstance(self.base_spec.scale, Classic) and not self._forward_pre_hooks:
            disable_fused_kernels(self)

    def forward(self, input: Tensor) -> Tensor:
        if not isinstance(input, Tensor):
            return self._forward_packed(input)
        mode = self.mode()
        if mode != "sample" or not input.numel():
            return core.drop(input, self.spec, mode=mode, inplace=self.inplace)
        if not is_dense(input):
            return self._forward_structured(input)
        if not exported.runs_eagerly() and (y := self._sample_traced(input)) is not None:
            return y
        if self._rate == 0.0:
            return input
        x = input
        if self.layout is not None and "(" in self.layout:
            ids = None if self.model_key is None else self.model_key.tensor_key().sample_ids
            x = layouts.unflatten_examples(input, self.layout, ids)
        if type(x) in _TRACED and self._constants is not None and self.shard is None:
            return self._sample_in_graph(x, self._constants).view_as(input)
        shape = tuple(x.shape)
        prepared = self._prepared.get(shape)
        if prepared is None:
            prepared = self._prepared[shape] = self._prepare(x)
            if len(self._prepared) > _SHAPES:
                self._prepared = {shape: prepared}
        key = self.call_key()
        if isinstance(key, MaskKey) and prepared.small and prepared.plan.law == "bernoulli":
            kept = key.mask(prepared.plan, x.device)
            y = torch.where(kept, x * prepared.plan.gain, 0.0).view_as(input)
            return input.copy_(y) if self.inplace else y
        checked = key.sample_ids is None and x.dtype.is_floating_point
        if checked and not prepared.plan.is_identity:
            y = dispatch.sample(x, prepared, key, self.inplace, self.impl)
        else:
            y = core.sample(x, prepared, key, None, self.inplace, self.impl)
        return y if x is input else y.view_as(input)

    def _sample_traced(self, input: Tensor) -> Tensor | None:
        """The training output for what records this call; None where the eager way serves it."""
        if exported.recorder():
            return self._sample_exported(input)
        if torch.compiler.is_compiling() and sharded.is_distributed(input):
            return self._sample_outside(input)
        if torch.compiler.is_compiling() and self.layout is None and self.shard is None:
            if self._constants is not None:
                return self._sample_in_graph(input, self._constants)
            if self._block_size is not None and input.dim() > 2:
                return self._blocks_in_graph(input, self._rate_tensor)
        if self._block_size is not None and input.dim() > 2 and exported.traced():
            return self._blocks_in_graph(input, torch.tensor(self._rate, dtype=torch.float64))
        return None

    def _blocks_in_graph(self, x: Tensor, rate: Tensor) -> Tensor:
        return maps.disout(x, rate, self._block_size, 0.0, key=self.call_key())  # type: ignore[arg-type]

    @torch.compiler.disable
    def _sample_outside(self, input: Tensor) -> Tensor:
        """Between two graphs: the ranks of a distributed tensor agree on a seed."""
        return self.forward(input)

    def _sample_exported(self, input: Tensor) -> Tensor:
        """For a graph that runs without this package; raises where it cannot hold the draws."""
        unkeyed = self.draws_unkeyed()
        exported.check(self.spec, None if unkeyed and self.shard is None else self.call_key())
        x = input
        if self.layout is not None and "(" in self.layout:
            x = layouts.unflatten_examples(input, self.layout, None)
        y = exported.sample(x, self._laid_out(self.spec, x))
        return y if x is input else y.view_as(input)

    def _forward_structured(self, x: Tensor) -> Tensor:
        """The training output for a sparse or nested tensor."""
        if self.shard is not None or (self.layout is not None and "(" in self.layout):
            check_dense(type(self).__name__, x)
        if self._rate == 0.0:
            return x
        spec = self._laid_out(self.spec, x)
        return core.drop(x, spec, key=self.call_key(), inplace=self.inplace, impl=self.impl)

    def _forward_packed(self, packed: object) -> Any:
        """A packed sequence under the noise of the padded batch."""
        names = (self.layout or "b t").split()
        reads = EXAMPLE in names[:2] and "c" not in self.base_spec.of.split()
        if not isinstance(packed, PackedSequence) or not reads:
            raise wrong_type(type(self).__name__, packed)
        if self.inplace:
            raise InputError(
                f"inplace=True of {type(self).__name__} needs a tensor, but got a PackedSequence; "
                "use inplace=False"
            )
        batch_first = names[0] == EXAMPLE
        x, _ = pad_packed_sequence(packed, batch_first)
        y = self.forward(x)
        if y is x:
            return packed
        return layouts.pack_again(y.transpose(0, 1) if batch_first else y, packed)

    def _laid_out(self, spec: Drop, x: Tensor) -> Drop:
        if self.dims is None:
            return spec
        return torch_functions.spec_for_rank(spec, x, self.dims, lambda: type(self).__name__)

    def _prepare(self, x: Tensor) -> PreparedPlan:
        spec = self._laid_out(self.spec, x)
        if self.shard is not None:
            return layouts.shard_of(spec, tuple(x.shape), *self.shard)
        return dispatch.prepare(plan(spec, tuple(x.shape)))

    def _sample_in_graph(self, x: Tensor, constants: Tensor) -> Tensor:
        """Within a graph: the rate is read from a tensor, and sizes may be symbols."""
        # the base spec: its distribution and axes are those of the present one, and it is never
        # another object, so that a new rate does not compile anew
        spec = self._laid_out(self.base_spec, x)
        if not torch.compiler.is_dynamo_compiling() and not torch.compiler.is_exporting():
            # make_fx and aot_function take no tensors from outside the graph
            with ops.ordinary_tensors():
                values = constants.tolist()
            constants = torch.tensor(values, dtype=constants.dtype)
        return dispatch.sample_in_graph(x, spec, constants, self.call_key(), self.impl)

    def extra_repr(self) -> str:
        settings = {name: value for name, value in self._settings.items() if name != "scale"}
        scale = type(self.base_spec.scale).__name__.lower()
        if "scale" in self._settings and scale != "inverted":
            settings["scale"] = scale
        if self.layout:
            settings["layout"] = self.layout
        settings_text = "".join(f", {name}={value!r}" for name, value in settings.items())
        return super().extra_repr() + settings_text


def _no_rate(layer: str, rate: str | Drop) -> InputError:
    """The error for a spec, or the name of a method, in the place of a rate."""
    remedy = "write a number such as 0.1"
    if isinstance(rate, Drop):
        remedy = "the layer of a Drop is thinned.nn.SpecDropout(drop)"
    elif rate in presets.CATALOG:
        remedy = f"that method is thinned.{presets.CATALOG[rate].constructor}"
    return InputError(f"{layer} takes a rate, but got {rate!r}; {remedy}")


class SpecDropout(SpecLayer):
    """The layer of any :class:`thinned.Drop`: the way from a spec of your own to a module.

    While training it draws y = a x + b as the spec says; in evaluation it does what the spec's
    scale says. The methods of the catalog have layers of their own names.

    Args:
        spec: What to drop, with its rate.
        inplace: Whether to write the result into the input.
        schedule: A schedule of the rate; the spec's own is then not used.
        layout: The input's axes by name where the examples are not first, such as ``"t b d"``, or
            ``"(b t) d"`` for examples and tokens flattened into one axis.
        shard: (axis, index, count) where this rank holds one of ``count`` equal parts of an axis.
        impl: "auto", "reference", "native" or "triton"; see :func:`thinned.functional.drop`.

    Raises:
        InputError: Where ``spec`` is no Drop, or does not go with ``layout`` or ``shard``.

    Example:
        >>> import thinned.nn as tnn
        >>> from thinned import Drop
        >>> from thinned.algebra import Bernoulli
        >>> tnn.SpecDropout(Drop(Bernoulli(0.3), per="b d", of="b t d"))
        SpecDropout(p=0.3, inplace=False, per='b d', of='b t d')

    Reference:
        The algebra of affine noise maps: docs/design.md.
    """

    def __init__(
        self,
        spec: Drop,
        inplace: bool = False,
        *,
        schedule: Schedule | None = None,
        layout: str | None = None,
        shard: Shard | None = None,
        impl: Impl | None = None,
    ) -> None:
        if not isinstance(spec, Drop):
            raise InputError(
                f"spec has to be a thinned.Drop, but got {spec!r}; for a rate alone write "
                "thinned.nn.Dropout(p)"
            )
        if schedule is not None and not isinstance(schedule, SCHEDULES):
            raise InputError(
                "schedule has to be a schedule such as thinned.algebra.Linear(0.0, 0.3, 1000), but "
                f"got {schedule!r}; for another rate write spec.at(rate)"
            )
        rate = spec.rate if schedule is None else schedule
        super().__init__(
            lambda rate: spec if rate == spec.rate else spec.at(rate),
            rate,
            inplace,
            layout=layout,
            shard=shard,
            impl=impl,
        )

    def extra_repr(self) -> str:
        spec = self.base_spec
        kind = f", {spec.name}" if spec.name else f", per={spec.per!r}, of={spec.of!r}"
        return super().extra_repr() + kind
