"""Which implementation runs a plan on a tensor, and how autograd sees it.

The map itself is never stored: backward draws it again from the key. For small tensors autograd's
Python function would cost more than the work, so there the factor is drawn as a tensor and torch
multiplies.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor
from torch.autograd import forward_ad

from ..._errors import InputError, unknown
from ...algebra.drop import Drop
from ...algebra.law import Bernoulli
from ...algebra.per import Block
from ...algebra.plan import WORDS, LawName, Plan, plan, strides
from . import native, ops, reference
from .tensor_key import TensorKey

Impl = Literal["auto", "reference", "native", "triton"]
IMPLEMENTATIONS = ("auto", "reference", "native", "triton")
SMALL = 1 << 15  # elements up to which the factor is stored for autograd
TINY = 1 << 12  # and without autograd
_EXACT = (torch.float32, torch.float64)  # where a stored factor holds the gain without bias


class PreparedPlan(NamedTuple):
    """A plan as the operators take it."""

    plan: Plan
    numbers: Tensor
    cells: tuple[int, ...]
    axis: int
    law: int
    offset: int
    small: bool  # may the factor stand for the map?
    rows: (
        int  # and columns: for an element mask on an input whose first axis is the examples; else 0
    )
    columns: int


@lru_cache(maxsize=4096)
def prepare(plan: Plan) -> PreparedPlan:
    """Prepare a plan, once."""
    numbers = ops.numbers(plan.threshold, plan.gain, plan.shift, plan.dropped, plan.spread)
    axis = -1 if plan.sample_axis is None else plan.sample_axis
    small = not (plan.shift or plan.dropped or plan.erased or plan.kept_fraction)
    plain = small and plan.law == "bernoulli" and 0 < plan.threshold < WORDS
    rows = plan.shape[0] if plain and axis == 0 and plan.cells_shape == plan.shape else 0
    return PreparedPlan(
        plan, numbers, plan.strides, axis, ops.LAWS.index(plan.law), 0, small, rows, plan.cells
    )


def plan_constants(drop: Drop) -> Tensor | None:
    """A point's numbers where they do not depend on the shape; None for blocks."""
    if isinstance(drop.per, Block):
        return None
    with ops.plainly():
        return prepare(plan(drop, (1,) * max(1, drop.of.count(" ") + 1))).numbers.clone()


def sample_in_graph(
    x: Tensor, drop: Drop, numbers: Tensor, tensor_key: TensorKey, impl: Impl | None
) -> Tensor:
    """:func:`sample` in a graph: the numbers are an input of the graph, and sizes may be symbols."""
    if impl == "reference" or x.dtype not in ops.TYPES:
        return reference.sample(x, plan(drop, tuple(int(n) for n in x.shape)), tensor_key)
    own, axis, law = _layout(drop, x.dim())
    noise = (
        numbers,
        tensor_key.seed_step,
        tensor_key.sample_ids,
        strides(x.shape, own, axis),
        axis,
        law,
        0,
        tensor_key.stream,
        tensor_key.call,
    )
    return ops.apply(x, *noise, False)


@torch._dynamo.assume_constant_result
def _layout(drop: Drop, rank: int) -> tuple[tuple[bool, ...], int, int]:
    """(which axes have cells of their own, the examples' axis or -1, the law's number), for any
    sizes.
    """
    return *noise_axes(str(drop.per), drop.of, rank), prepare(plan(drop, (2,) * rank)).law


def default() -> Impl:
    """The implementation that ``THINNED_IMPL`` names; "auto" without it."""
    name = os.environ.get("THINNED_IMPL", "auto")
    if name not in IMPLEMENTATIONS:
        raise unknown("THINNED_IMPL", name, IMPLEMENTATIONS)
    return name  # type: ignore[return-value]


_DEFAULT = default()


def choose(x: Tensor, impl: Impl | None = None) -> tuple[Impl, str]:
    """The implementation for ``x`` and why. An explicit choice that cannot be kept is an
    :class:`InputError`.
    """
    wanted = impl or _DEFAULT
    if wanted not in IMPLEMENTATIONS:
        raise unknown("impl", wanted, IMPLEMENTATIONS)
    if wanted == "reference":
        return "reference", "asked for"
    kind: Impl = "native" if x.device.type == "cpu" else "triton"
    if wanted not in ("auto", kind):
        raise InputError(f"impl={wanted!r} does not run on {x.device}; use impl='auto'")
    if kind == "native":
        obstacle = ops.missing
    elif x.device.type == "cuda":
        from . import triton

        obstacle = triton.missing
    else:
        obstacle = f"there are no kernels for {x.device.type}"
    if not obstacle and x.dtype not in ops.TYPES:
        obstacle = f"the kernels do not take {x.dtype}"
    if obstacle and wanted != "auto":
        raise InputError(f"impl={wanted!r} cannot run: {obstacle}; use impl='auto'")
    return ("reference", obstacle) if obstacle else (kind, "the fastest for this tensor")


def sample(
    x: Tensor,
    prepared: PreparedPlan,
    tensor_key: TensorKey,
    inplace: bool = False,
    impl: Impl | None = None,
) -> Tensor:
    """What training sees: ``x`` with its noise, under autograd. ``x`` is not empty and
    ``prepared.plan`` not the identity.
    """
    if inplace:
        _check_writable(x)
        if x.is_neg():
            return x.copy_(sample(x.resolve_neg(), prepared, tensor_key, False, impl))
    if torch._C._get_tracing_state() is not None:
        raise InputError(
            "torch.jit.trace would bake one mask into its graph; trace model.eval(), or use torch.compile or torch.export"
        )
    if x.is_nested:
        raise InputError(
            "nested tensors have no layout for masks; apply dropout to x.values(), or pad them"
        )
    if (
        _DEFAULT != "auto"
        or impl is not None
        or x.dtype not in ops.TYPES
        or x.device.type != "cpu"
        or ops.missing
    ):
        kind, _ = choose(x, impl)
        if kind == "reference":
            part = prepared.offset or prepared.cells != prepared.plan.strides
            y = (
                ops.readable(x, *(*_noise(prepared, tensor_key), False))
                if part
                else reference.sample(x, prepared.plan, tensor_key)
            )
            return x.copy_(y) if inplace else y
    plan = prepared.plan
    lifted = under_transform()
    if plan.kept_fraction and not plan.erased:
        if lifted:
            y = reference.affine(x, plan, mask(plan, tensor_key, x.device))
            return x.copy_(y) if inplace else y
        return _Blocks.apply(x, plan, tensor_key, inplace)
    if torch.compiler.is_compiling() or type(x) not in _PLAIN:
        if isinstance(x, FakeTensor):
            prepared, tensor_key = (
                prepared._replace(numbers=_fake(x, prepared.numbers)),
                tensor_key._replace(seed_step=_fake(x, tensor_key.seed_step)),
            )
        y = ops.apply(x, *_noise(prepared, tensor_key), False)
        return x.copy_(y) if inplace else y
    if lifted:
        y = _by_factor(x, plan, _noise(prepared, tensor_key))
        return x.copy_(y) if inplace else y
    learns = x.requires_grad and torch.is_grad_enabled()
    if prepared.small and x.numel() <= (SMALL if learns else TINY) and x.dtype in _EXACT:
        a = _small_factor(x, prepared, tensor_key)
        return x.mul_(a) if inplace else x * a
    noise = _noise(prepared, tensor_key)
    if not learns:
        if inplace:
            ops.map_into(x, x, *noise, False)
            torch.autograd.graph.increment_version(x)
            return x
        return ops.map(x, *noise, False)
    return _Map.apply(x, noise, inplace)


def _small_factor(x: Tensor, prepared: PreparedPlan, tensor_key: TensorKey) -> Tensor:
    """``thinned::factor`` without the dispatcher, which would cost more than the work."""
    key, sample_ids = tensor_key.seed_step, tensor_key.sample_ids
    a = torch.empty_like(x)
    direct = (
        prepared.rows
        and type(a) is Tensor
        and a.is_contiguous()
        and key.is_cpu
        and native.factor is not None
    )
    listed = sample_ids is None or (
        sample_ids.dim() == 1
        and sample_ids.is_cpu
        and sample_ids.dtype == torch.int64
        and sample_ids.is_contiguous()
    )
    if not (direct and listed) or torch._C._len_torch_dispatch_stack():
        return ops.factor(x, *_noise(prepared, tensor_key))
    native.factor(  # type: ignore[misc]
        a.data_ptr(), prepared.numbers.data_ptr(), key.data_ptr(), 0 if sample_ids is None else sample_ids.data_ptr(), prepared.rows,
        prepared.columns, tensor_key.stream, tensor_key.call, (x.dtype == torch.float64) + 2 * (key.numel() > 1),
    )  # fmt: skip
    return a


def under_transform() -> bool:
    """Is a transform at work that an autograd function of ours does not know: vmap, grad, forward
    mode?
    """
    return torch._C._are_functorch_transforms_active() or forward_ad._current_level >= 0


def _noise(prepared: PreparedPlan, tensor_key: TensorKey) -> tuple[Any, ...]:
    return (
        prepared.numbers,
        tensor_key.seed_step,
        tensor_key.sample_ids,
        prepared.cells,
        prepared.axis,
        prepared.law,
        prepared.offset,
        tensor_key.stream,
        tensor_key.call,
    )


def _check_writable(x: Tensor) -> None:
    """Raise what torch raises, before anything is written."""
    if x.is_leaf and x.requires_grad and torch.is_grad_enabled():
        raise RuntimeError(
            "a leaf Variable that requires grad is being used in an in-place operation."
        )
    if torch._debug_has_internal_overlap(x) == 1:
        raise RuntimeError(
            "unsupported operation: more than one element of the written-to tensor refers to a single memory location. "
            "Please clone() the tensor before performing the operation."
        )


def _fake(x: FakeTensor, t: Tensor) -> Tensor:
    return t if isinstance(t, FakeTensor) else x.fake_mode.from_tensor(t)


_PLAIN = (Tensor, torch.nn.Parameter)


def _by_factor(x: Tensor, plan: Plan, noise: tuple[Any, ...]) -> Tensor:
    """a x + b in torch's own operations, which every transform understands; a comes from an
    operator without gradient.
    """
    if plan.erased:
        return torch.where(torch.ones((), dtype=torch.bool, device=x.device), plan.dropped, x)
    exact = x.dtype in _EXACT
    wide = x if exact else x.float()
    a = ops.factor(wide.detach(), *noise)
    y = wide * a
    if plan.shift or plan.dropped:
        y = y + a.new_full((), plan.dropped).where(a == 0, plan.shift)
    return y if exact else y.to(x.dtype)


class _Map(torch.autograd.Function):
    """The map under autograd: nothing but the key is kept."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, noise: tuple[Any, ...], inplace: bool) -> Tensor:
        ctx.rest = noise[3:]
        ctx.save_for_backward(*noise[:3])
        if not inplace:
            return ops.map(x, *noise, False)
        ops.map_into(x, x, *noise, False)
        ctx.mark_dirty(x)
        return x

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
        noise = (*ctx.saved_tensors, *ctx.rest)
        if (
            torch.is_grad_enabled() and grad.requires_grad
        ):  # a second derivative: the same map again
            return ops.apply(grad, *noise, True), None, None
        return ops.map(grad, *noise, True), None, None


class _Add(torch.autograd.Function):
    """residual + the map, in one pass."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, residual: Tensor, noise: tuple[Any, ...]) -> Tensor:
        ctx.rest = noise[3:]
        ctx.save_for_backward(*noise[:3])
        return ops.map_add(x, residual, *noise)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
        return ops.apply(grad, *ctx.saved_tensors, *ctx.rest, True), grad, None


class _Rectified(torch.autograd.Function):
    """The map of max(0, x + bias): the result itself says where the gradient flows, so nothing else
    is kept or drawn.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, bias: Tensor | None, gain: float, noise: tuple[Any, ...]
    ) -> Tensor:
        y = torch.relu(x) if bias is None else (x + bias).relu_()
        ops.map_into(y, y, *noise, False)
        ctx.gain, ctx.bias = gain, None if bias is None else bias.shape
        ctx.save_for_backward(y)
        return y

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
        (y,) = ctx.saved_tensors
        grad = torch.ops.aten.threshold_backward(grad, y, 0) * ctx.gain
        return grad, None if ctx.bias is None else grad.sum_to_size(ctx.bias), None, None


def fused(x: Tensor, prepared: PreparedPlan) -> bool:
    """Do the fused pairs run natively for this tensor? Else their parts run one after the other."""
    plan = prepared.plan
    simple = not (plan.shift or plan.dropped or plan.kept_fraction) and plan.law == "bernoulli"
    here = (
        _DEFAULT == "auto"
        and x.device.type == "cpu"
        and not ops.missing
        and x.dtype in ops.TYPES
        and type(x) in _PLAIN
    )
    return simple and here and not under_transform() and not torch.compiler.is_compiling()


def add(x: Tensor, residual: Tensor, prepared: PreparedPlan, tensor_key: TensorKey) -> Tensor:
    """residual + what training sees of ``x``."""
    same = x.shape == residual.shape and x.dtype == residual.dtype and type(residual) in _PLAIN
    if not (same and fused(x, prepared)):
        return residual + sample(x, prepared, tensor_key)
    return _Add.apply(x, residual, _noise(prepared, tensor_key))


class _AddNorm(torch.autograd.Function):
    """layer_norm(residual + the map) by one Triton kernel; backward by torch's own and the map."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        residual: Tensor,
        weight: Tensor,
        bias: Tensor,
        eps: float,
        noise: tuple[Any, ...],
    ) -> Tensor:
        from . import triton

        numbers, key, sample_ids, *_, stream, call = noise
        y, total, mean, rstd = triton.add_norm(
            x, residual, weight, bias, eps, numbers, key, sample_ids, stream, call
        )
        ctx.rest = noise[3:]
        ctx.save_for_backward(total, mean, rstd, weight, bias, *noise[:3])
        return y

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
        total, mean, rstd, weight, bias, *noise = ctx.saved_tensors
        normed = torch.ops.aten.native_layer_norm_backward
        into, weights, biases = normed(
            grad, total, weight.shape, mean, rstd, weight, bias, [True, True, True]
        )
        return ops.apply(into, *noise, *ctx.rest, True), into, weights, biases, None, None


def add_norm(
    x: Tensor,
    residual: Tensor,
    weight: Tensor,
    bias: Tensor,
    eps: float,
    prepared: PreparedPlan,
    tensor_key: TensorKey,
) -> Tensor:
    """layer_norm(residual + what training sees of ``x``), on a GPU."""
    return _AddNorm.apply(x, residual, weight, bias, eps, _noise(prepared, tensor_key))


def rectified(
    x: Tensor, bias: Tensor | None, prepared: PreparedPlan, tensor_key: TensorKey
) -> Tensor:
    """What training sees of max(0, x + bias)."""
    if not fused(x, prepared) or (bias is not None and bias.dtype != x.dtype):
        return sample(torch.relu(x if bias is None else x + bias), prepared, tensor_key)
    return _Rectified.apply(x, bias, prepared.plan.gain, _noise(prepared, tensor_key))


class _Blocks(torch.autograd.Function):
    """Blocks: the seeds' coins, grown, counted and applied; backward draws them again."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, plan: Plan, tensor_key: TensorKey, inplace: bool) -> Tensor:
        ctx.plan, ctx.rest = plan, tensor_key[2:]
        ctx.save_for_backward(tensor_key.seed_step, tensor_key.sample_ids)
        y = _blocked(x, plan, tensor_key)
        if not inplace:
            return y
        ctx.mark_dirty(x)
        return x.copy_(y)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
        key, sample_ids = ctx.saved_tensors
        return _blocked(grad, ctx.plan, TensorKey(key, sample_ids, *ctx.rest)), None, None, None


def _blocked(x: Tensor, plan: Plan, tensor_key: TensorKey) -> Tensor:
    """The map of a plan whose scale is the realised one."""
    boxes = _boxes(plan)
    twice = x.requires_grad and torch.is_grad_enabled()  # a second derivative
    if (
        boxes is None
        or ops.missing
        or _DEFAULT == "reference"
        or not (x.is_cpu and x.is_contiguous())
        or twice
    ):
        return reference.affine(x, plan, mask(plan, tensor_key, x.device))
    count = torch.zeros(1, dtype=torch.int64)
    fell = _fell(plan, tensor_key, boxes, count)
    if fell.numel() != x.numel():
        return reference.affine(x, plan, ~fell)
    return ops.masked(x, fell, plan.gain * x.numel() / max(1, int(count)))


def _fell(
    plan: Plan, tensor_key: TensorKey, boxes: tuple[list[int], list[int]], count: Tensor
) -> Tensor:
    """Where boxes fell, on the shape of the cells grown; adds to ``count`` how many places are
    kept.
    """
    seeds, extent = boxes
    own, numbers, planes = (
        plan.sample_axis is not None,
        prepare(plan).numbers,
        plan.cells // math.prod(seeds),
    )
    sample_ids = None if tensor_key.sample_ids is None or not own else tensor_key.sample_ids
    fell = ops.blocks(
        numbers,
        tensor_key.seed_step,
        sample_ids,
        plan.samples,
        planes,
        own,
        seeds,
        extent,
        tensor_key.stream,
        tensor_key.call,
        count,
    )
    return fell.reshape([n + e - 1 for n, e in zip(plan.cells_shape, plan.extent, strict=True)])


@lru_cache(maxsize=4096)
def _boxes(plan: Plan) -> tuple[list[int], list[int]] | None:
    """(seeds, extent) of three last axes that hold all blocks; None where the examples are not
    first, or there are none.
    """
    inner = [i for i, e in enumerate(plan.extent) if e > 1]
    if not inner or plan.sample_axis not in (0, None) or len(plan.shape) - inner[0] > 3:
        return None
    start = inner[0]
    pad = [1] * (3 - len(plan.shape) + start)
    return pad + list(plan.cells_shape[start:]), pad + list(plan.extent[start:])


def mask(plan: Plan, tensor_key: TensorKey, device: torch.device | None = None) -> Tensor:
    """The mask of a Bernoulli plan, True where kept; bool, broadcasts to ``plan.shape``."""
    if (
        ops.missing
        or _DEFAULT == "reference"
        or (device is not None and device.type != "cpu")
        or torch.compiler.is_compiling()
    ):
        return reference.kept(plan, tensor_key, device)
    boxes = _boxes(plan)
    if boxes is not None:
        return ~_fell(plan, tensor_key, boxes, torch.zeros(1, dtype=torch.int64))
    numbers, own = prepare(plan).numbers, plan.sample_axis is not None
    draw_noise = ops.kept(
        numbers,
        tensor_key.seed_step,
        tensor_key.sample_ids,
        plan.samples,
        plan.cells,
        own,
        0,
        tensor_key.stream,
        tensor_key.call,
    )
    return reference.grown(draw_noise, plan)


def draw_noise(size: Sequence[int], own: tuple[bool, ...], axis: int, law: LawName, numbers: Tensor, tensor_key: TensorKey, like: Tensor
          ) -> Tensor:  # fmt: skip
    """The factor a of every cell of ``size``, of the type and device of ``like``. It makes no plan:
    sizes may be symbols.
    """
    cells = like.new_empty(list(size))
    noise = (
        numbers,
        tensor_key.seed_step,
        tensor_key.sample_ids,
        strides(size, own, axis),
        axis,
        ops.LAWS.index(law),
        0,
        tensor_key.stream,
        tensor_key.call,
    )
    return ops.plain_factor(cells, *noise) if _DEFAULT == "reference" else ops.factor(cells, *noise)


@torch._dynamo.assume_constant_result
def noise_axes(per: str, of: str, rank: int) -> tuple[tuple[bool, ...], int]:
    """(which axes have cells of their own, the examples' axis or -1), for any sizes."""
    one = plan(Drop(Bernoulli(0.5), per, of), (2,) * rank)
    return tuple(n > 1 for n in one.cells_shape), -1 if one.sample_axis is None else one.sample_axis
