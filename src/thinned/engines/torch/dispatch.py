"""Chooses the implementation that runs a plan on a tensor, and defines the gradients.

The noise itself is never stored: the backward pass draws it again from the key. For small tensors a
Python autograd function would cost more than the work, so there the factor is drawn as a tensor and
torch multiplies.
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
from . import native, ops, reference, sharded
from .tensor_key import TensorKey, check_mapped, is_wrapped

Impl = Literal["auto", "reference", "native", "triton"]
IMPLEMENTATIONS = ("auto", "reference", "native", "triton")
SMALL = 1 << 15  # number of elements up to which the factor is stored for autograd
TINY = 1 << 12  # the same without autograd
_EXACT = (torch.float32, torch.float64)  # in these a stored factor holds the gain without bias


class PreparedPlan(NamedTuple):
    """A plan with the arguments of its operators.

    ``constants``, ``strides``, ``axis``, ``law`` and ``offset`` are those of the operators
    (:mod:`thinned.engines.torch.ops`). ``small``: whether y = a x, so that the factor a can replace
    the map. ``rows`` and ``columns``: the examples and elements of an element mask on an input with
    the examples on its first axis, for the direct call of the kernel; ``rows`` is 0 for others.
    """

    plan: Plan
    constants: Tensor
    strides: tuple[int, ...]
    axis: int
    law: int
    offset: int
    small: bool
    rows: int
    columns: int


@lru_cache(maxsize=4096)
def prepare(plan: Plan) -> PreparedPlan:
    """Prepare a plan; the result is cached."""
    constants = ops.pack_constants(plan.threshold, plan.gain, plan.shift, plan.dropped, plan.spread)
    axis = -1 if plan.sample_axis is None else plan.sample_axis
    small = not (plan.shift or plan.dropped or plan.drops_everything or plan.kept_fraction)
    by_threshold = small and plan.law == "bernoulli" and 0 < plan.threshold < WORDS
    by_element = axis == 0 and plan.mask_shape == plan.shape
    return PreparedPlan(
        plan=plan,
        constants=constants,
        strides=plan.strides,
        axis=axis,
        law=ops.LAWS.index(plan.law),
        offset=0,
        small=small,
        rows=plan.shape[0] if by_threshold and by_element else 0,
        columns=plan.elements,
    )


def plan_constants(drop: Drop) -> Tensor | None:
    """Return the constants of a spec, which do not depend on the shape; None for blocks."""
    if isinstance(drop.per, Block):
        return None
    with ops.ordinary_tensors():
        return prepare(plan(drop, (1,) * max(1, drop.of.count(" ") + 1))).constants.clone()


@torch._dynamo.assume_constant_result
def constant_numbers(drop: Drop) -> list[int]:
    """Return :func:`plan_constants` as numbers; an empty list for blocks."""
    constants = plan_constants(drop)
    with ops.ordinary_tensors():
        return [] if constants is None else constants.tolist()


def sample_in_graph(
    x: Tensor, drop: Drop, constants: Tensor, tensor_key: TensorKey, impl: Impl | None
) -> Tensor:
    """:func:`sample` in a graph: the constants are an input, and sizes may be symbolic."""
    transformed = torch._C._are_functorch_transforms_active()
    if transformed:
        tensor_key = check_mapped(x, tensor_key)
    if impl == "reference" or x.dtype not in ops.TYPES:
        return reference.sample(x, plan(drop, tuple(int(n) for n in x.shape)), tensor_key)
    own, axis, law = _layout(drop, x.dim())
    noise = (
        constants,
        tensor_key.seed_step,
        tensor_key.sample_ids,
        strides(x.shape, own, axis),
        axis,
        law,
        0,
        tensor_key.stream,
        tensor_key.call,
    )
    if not transformed:
        return ops.apply(x, *noise, False)
    # in torch operations, which every transform understands
    exact = x.dtype in _EXACT
    wide = x if exact else x.float()
    a = ops.factor(wide.detach(), *noise)
    y = wide * a
    if ops.LAWS[law] == "bernoulli":
        _, shift, dropped, _ = constants[1:].view(torch.float64).to(a).unbind()
        all_dropped = (constants[0] >= WORDS).to(x.device)  # whatever x holds, also inf and NaN
        y = torch.where(all_dropped, 0.0, y) + torch.where(a == 0, dropped, shift)
    return y if exact else y.to(x.dtype)


@torch._dynamo.assume_constant_result
def _layout(drop: Drop, rank: int) -> tuple[tuple[bool, ...], int, int]:
    """Return (which axes are drawn separately, the axis of the examples or -1, the distribution).

    For any sizes, so it is a constant of a graph.
    """
    return *noise_axes(str(drop.per), drop.of, rank), prepare(plan(drop, (2,) * rank)).law


def default() -> Impl:
    """Return the implementation that ``THINNED_IMPL`` names; "auto" without it."""
    name = os.environ.get("THINNED_IMPL", "auto")
    if name not in IMPLEMENTATIONS:
        raise unknown("THINNED_IMPL", name, IMPLEMENTATIONS)
    return name  # type: ignore[return-value]


_DEFAULT = default()


def is_reference() -> bool:
    """Return whether ``THINNED_IMPL`` asks for torch operations everywhere."""
    return _DEFAULT == "reference"


def check_impl(impl: Impl | None) -> Impl | None:
    """Return ``impl``, or raise :class:`InputError` unless it is None or an implementation."""
    if impl is not None and impl not in IMPLEMENTATIONS:
        raise unknown("impl", impl, IMPLEMENTATIONS)
    return impl


def choose(x: Tensor, impl: Impl | None = None) -> tuple[Impl, str]:
    """Return the implementation for ``x``, and the reason.

    Raises :class:`InputError` where an explicit choice cannot run.
    """
    wanted = check_impl(impl) or _DEFAULT
    if wanted == "reference":
        return "reference", "requested"
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
    """Return the training output, under autograd.

    ``x`` must not be empty, and ``prepared.plan`` must not be the identity.
    """
    if type(x) not in _ORDINARY_TYPES and sharded.is_distributed(x):
        return _sample_shard(x, prepared, tensor_key, inplace, impl)
    if inplace:
        _check_writable(x)
        if x.is_neg():
            return x.copy_(sample(x.resolve_neg(), prepared, tensor_key, False, impl))
    if (
        _DEFAULT != "auto"
        or impl is not None
        or x.dtype not in ops.TYPES
        or x.device.type != "cpu"
        or ops.missing
    ):
        kind, _ = choose(x, impl)
        if kind == "reference":
            is_shard = prepared.offset or prepared.strides != prepared.plan.strides
            y = (
                ops.reference_map(x, *(*_noise(prepared, tensor_key), False))
                if is_shard
                else reference.sample(x, prepared.plan, tensor_key)
            )
            return x.copy_(y) if inplace else y
    plan = prepared.plan
    transformed = under_transform()
    if transformed:
        tensor_key = check_mapped(x, tensor_key)
    if plan.kept_fraction and not plan.drops_everything:
        if transformed:
            y = reference.affine(x, plan, mask(plan, tensor_key, x.device))
            return x.copy_(y) if inplace else y
        return _BlockMap.apply(x, plan, tensor_key, inplace)
    if torch.compiler.is_compiling() or type(x) not in _ORDINARY_TYPES:
        if isinstance(x, FakeTensor):
            prepared = prepared._replace(constants=_fake(x, prepared.constants))
            tensor_key = tensor_key._replace(seed_step=_fake(x, tensor_key.seed_step))
        y = ops.apply(x, *_noise(prepared, tensor_key), False)
        return x.copy_(y) if inplace else y
    if transformed:
        y = _by_factor(x, plan, _noise(prepared, tensor_key))
        return x.copy_(y) if inplace else y
    needs_gradient = x.requires_grad and torch.is_grad_enabled()
    if prepared.small and x.numel() <= (SMALL if needs_gradient else TINY) and x.dtype in _EXACT:
        a = _small_factor(x, prepared, tensor_key)
        return x.mul_(a) if inplace else x * a
    noise = _noise(prepared, tensor_key)
    if not needs_gradient:
        if inplace:
            ops.map_into(x, x, *noise, False)
            torch.autograd.graph.increment_version(x)
            return x
        return ops.map(x, *noise, False)
    return _AffineMap.apply(x, noise, inplace)


def _sample_shard(
    x: Tensor, prepared: PreparedPlan, tensor_key: TensorKey, inplace: bool, impl: Impl | None
) -> Tensor:
    def run(local: Tensor, plan: Plan, start: tuple[int, ...], key: TensorKey) -> Tensor:
        offset = sum(n * stride for n, stride in zip(start, prepared.strides, strict=True))
        part = prepared._replace(plan=plan, rows=0, offset=prepared.offset + offset)
        return sample(local, part, key, False, impl)

    def keep(plan: Plan, key: TensorKey) -> Tensor:
        return mask(plan, key, torch.device(x.device))

    return sharded.sample(x, prepared.plan, tensor_key, inplace, run, keep)


def _small_factor(x: Tensor, prepared: PreparedPlan, tensor_key: TensorKey) -> Tensor:
    """``thinned::factor``, without the dispatcher where possible: it costs more than the work.

    The direct call passes addresses, so it needs contiguous CPU tensors, and no mode or subclass
    that expects to see an operator.
    """
    key, sample_ids = tensor_key.seed_step, tensor_key.sample_ids
    a = torch.empty_like(x)
    direct = (
        prepared.rows
        and type(a) is Tensor
        and a.is_contiguous()
        and key.is_cpu
        and native.factor is not None
    )
    ids_fit = sample_ids is None or (
        sample_ids.dim() == 1
        and sample_ids.is_cpu
        and sample_ids.dtype == torch.int64
        and sample_ids.is_contiguous()
    )
    if not (direct and ids_fit) or torch._C._len_torch_dispatch_stack():
        return ops.factor(x, *_noise(prepared, tensor_key))
    native.factor(  # type: ignore[misc]
        a.data_ptr(),
        prepared.constants.data_ptr(),
        key.data_ptr(),
        0 if sample_ids is None else sample_ids.data_ptr(),
        prepared.rows,
        prepared.columns,
        tensor_key.stream,
        tensor_key.call,
        (x.dtype == torch.float64) + 2 * (key.numel() > 1),
    )
    return a


def under_transform() -> bool:
    """Return whether vmap, grad or forward mode is active: they do not know these functions."""
    return torch._C._are_functorch_transforms_active() or forward_ad._current_level >= 0


def _noise(prepared: PreparedPlan, tensor_key: TensorKey) -> tuple[Any, ...]:
    return (
        prepared.constants,
        tensor_key.seed_step,
        tensor_key.sample_ids,
        prepared.strides,
        prepared.axis,
        prepared.law,
        prepared.offset,
        tensor_key.stream,
        tensor_key.call,
    )


def _check_writable(x: Tensor) -> None:
    """Raise as torch does for in-place operations, before anything is written."""
    if x.is_leaf and x.requires_grad and torch.is_grad_enabled():
        raise RuntimeError(
            "a leaf Variable that requires grad is being used in an in-place operation."
        )
    if torch._debug_has_internal_overlap(x) == 1:
        raise RuntimeError(
            "unsupported operation: more than one element of the written-to tensor refers to a "
            "single memory location. Please clone() the tensor before performing the operation."
        )


def _fake(x: FakeTensor, t: Tensor) -> Tensor:
    return t if isinstance(t, FakeTensor) else x.fake_mode.from_tensor(t)


_ORDINARY_TYPES = (Tensor, torch.nn.Parameter)


def _by_factor(x: Tensor, plan: Plan, noise: tuple[Any, ...]) -> Tensor:
    """Return a x + b in torch operations, which every transform understands.

    a comes from an operator without a gradient.
    """
    if plan.drops_everything:
        return torch.where(torch.ones((), dtype=torch.bool, device=x.device), plan.dropped, x)
    exact = x.dtype in _EXACT
    wide = x if exact else x.float()
    a = ops.factor(wide.detach(), *noise)
    y = wide * a
    if plan.shift or plan.dropped:
        y = y + a.new_full((), plan.dropped).where(a == 0, plan.shift)
    return y if exact else y.to(x.dtype)


class _AffineMap(torch.autograd.Function):
    """y = a x + b under autograd; only the key is stored."""

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
        if torch.is_grad_enabled() and grad.requires_grad:  # for a second derivative
            return ops.apply(grad, *noise, True), None, None
        return ops.map(grad, *noise, True), None, None


class _AddMap(torch.autograd.Function):
    """residual + a x + b, in one pass."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, residual: Tensor, noise: tuple[Any, ...]) -> Tensor:
        ctx.rest = noise[3:]
        ctx.save_for_backward(*noise[:3])
        return ops.map_add(x, residual, *noise)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
        return ops.apply(grad, *ctx.saved_tensors, *ctx.rest, True), grad, None


class _ReluMap(torch.autograd.Function):
    """The dropout of max(0, x + bias).

    The result shows where the gradient flows, so nothing else is stored or drawn again.
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


def runs_fused(x: Tensor, prepared: PreparedPlan) -> bool:
    """Return whether the fused pairs run natively for ``x``; otherwise their parts run in turn."""
    plan = prepared.plan
    simple = not (plan.shift or plan.dropped or plan.kept_fraction) and plan.law == "bernoulli"
    has_kernels = (
        _DEFAULT == "auto"
        and x.device.type == "cpu"
        and not ops.missing
        and x.dtype in ops.TYPES
        and type(x) in _ORDINARY_TYPES
    )
    return simple and has_kernels and not under_transform() and not torch.compiler.is_compiling()


def add(x: Tensor, residual: Tensor, prepared: PreparedPlan, tensor_key: TensorKey) -> Tensor:
    """Return residual + the training output of ``x``."""
    same = (
        x.shape == residual.shape
        and x.dtype == residual.dtype
        and type(residual) in _ORDINARY_TYPES
    )
    if not (same and runs_fused(x, prepared)):
        return residual + sample(x, prepared, tensor_key)
    return _AddMap.apply(x, residual, _noise(prepared, tensor_key))


class _AddNormMap(torch.autograd.Function):
    """layer_norm(residual + a x + b) by one Triton kernel.

    The backward pass is that of torch's layer norm, then the map.
    """

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

        constants, key, sample_ids, *_, stream, call = noise
        y, total, mean, rstd = triton.add_norm(
            x, residual, weight, bias, eps, constants, key, sample_ids, stream, call
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
    """Return layer_norm(residual + the training output of ``x``), on a GPU."""
    return _AddNormMap.apply(x, residual, weight, bias, eps, _noise(prepared, tensor_key))


def relu_dropout(
    x: Tensor, bias: Tensor | None, prepared: PreparedPlan, tensor_key: TensorKey
) -> Tensor:
    """Return the training output of max(0, x + bias)."""
    if not runs_fused(x, prepared) or (bias is not None and bias.dtype != x.dtype):
        return sample(torch.relu(x if bias is None else x + bias), prepared, tensor_key)
    return _ReluMap.apply(x, bias, prepared.plan.gain, _noise(prepared, tensor_key))


class _BlockMap(torch.autograd.Function):
    """Blocks: seeds are drawn, grown, counted and applied; the backward pass draws them again."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, plan: Plan, tensor_key: TensorKey, inplace: bool) -> Tensor:
        ctx.plan, ctx.rest = plan, tensor_key[2:]
        ctx.save_for_backward(tensor_key.seed_step, tensor_key.sample_ids)
        y = _apply_blocks(x, plan, tensor_key)
        if not inplace:
            return y
        ctx.mark_dirty(x)
        return x.copy_(y)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
        key, sample_ids = ctx.saved_tensors
        return (
            _apply_blocks(grad, ctx.plan, TensorKey(key, sample_ids, *ctx.rest)),
            None,
            None,
            None,
        )


def _apply_blocks(x: Tensor, plan: Plan, tensor_key: TensorKey) -> Tensor:
    """Return the training output of a plan that divides by the kept fraction."""
    sizes = _seeds_and_extent(plan)
    second_derivative = x.requires_grad and torch.is_grad_enabled()
    if (
        sizes is None
        or ops.missing
        or _DEFAULT == "reference"
        or not (x.is_cpu and x.is_contiguous())
        or second_derivative
    ):
        return reference.affine(x, plan, mask(plan, tensor_key, x.device))
    kept_count = torch.zeros(1, dtype=torch.int64)
    is_dropped = _dropped_by_blocks(plan, tensor_key, sizes, kept_count)
    if is_dropped.numel() != x.numel():  # the mask is shared along an axis
        return reference.affine(x, plan, ~is_dropped)
    return ops.masked(x, is_dropped, plan.gain * x.numel() / max(1, int(kept_count)))


def _dropped_by_blocks(
    plan: Plan, tensor_key: TensorKey, sizes: tuple[list[int], list[int]], kept_count: Tensor
) -> Tensor:
    """Return which elements the blocks drop, and add the number of kept ones to ``kept_count``.

    The result has the mask's shape, with the seeds grown to blocks.
    """
    seeds, extent = sizes
    own = plan.sample_axis is not None
    is_dropped = ops.blocks(
        prepare(plan).constants,
        tensor_key.seed_step,
        tensor_key.sample_ids if own else None,
        plan.examples,
        plan.elements // math.prod(seeds),
        own,
        seeds,
        extent,
        tensor_key.stream,
        tensor_key.call,
        kept_count,
    )
    shape = [n + e - 1 for n, e in zip(plan.mask_shape, plan.extent, strict=True)]
    return is_dropped.reshape(shape)


@lru_cache(maxsize=4096)
def _seeds_and_extent(plan: Plan) -> tuple[list[int], list[int]] | None:
    """Return the sizes of the seeds and of a block along three last axes that hold all blocks.

    None where the examples are not on the first axis, or there are no such axes.
    """
    inner = [i for i, e in enumerate(plan.extent) if e > 1]
    if not inner or plan.sample_axis not in (0, None) or len(plan.shape) - inner[0] > 3:
        return None
    start = inner[0]
    pad = [1] * (3 - len(plan.shape) + start)
    return pad + list(plan.mask_shape[start:]), pad + list(plan.extent[start:])


def mask(plan: Plan, tensor_key: TensorKey, device: torch.device | None = None) -> Tensor:
    """Return the mask of a Bernoulli plan, True where kept; it broadcasts to ``plan.shape``."""
    if (
        ops.missing
        or _DEFAULT == "reference"
        or (device is not None and device.type != "cpu")
        or torch.compiler.is_compiling()
        or (tensor_key.sample_ids is not None and is_wrapped(tensor_key.sample_ids))
        or is_wrapped(tensor_key.seed_step)
    ):
        return reference.kept(plan, tensor_key, device)
    sizes = _seeds_and_extent(plan)
    if sizes is not None:
        return ~_dropped_by_blocks(plan, tensor_key, sizes, torch.zeros(1, dtype=torch.int64))
    draws = ops.kept(
        prepare(plan).constants,
        tensor_key.seed_step,
        tensor_key.sample_ids,
        plan.examples,
        plan.elements,
        plan.sample_axis is not None,
        0,
        tensor_key.stream,
        tensor_key.call,
    )
    return reference.mask_of_draws(draws, plan)


def draw_noise(
    size: Sequence[int],
    own: tuple[bool, ...],
    axis: int,
    law: LawName,
    constants: Tensor,
    tensor_key: TensorKey,
    like: Tensor,
) -> Tensor:
    """Return the factor a of every mask element of ``size``, of the dtype and device of ``like``.

    No plan is made, because sizes may be symbolic.
    """
    out = like.new_empty(list(size))
    noise = (
        constants,
        tensor_key.seed_step,
        tensor_key.sample_ids,
        strides(size, own, axis),
        axis,
        ops.LAWS.index(law),
        0,
        tensor_key.stream,
        tensor_key.call,
    )
    return ops.reference_factor(out, *noise) if _DEFAULT == "reference" else ops.factor(out, *noise)


@torch._dynamo.assume_constant_result
def noise_axes(per: str, of: str, rank: int) -> tuple[tuple[bool, ...], int]:
    """Return (which axes are drawn separately, the axis of the examples or -1), for any sizes."""
    planned = plan(Drop(Bernoulli(0.5), per, of), (2,) * rank)
    own = tuple(n > 1 for n in planned.mask_shape)
    return own, -1 if planned.sample_axis is None else planned.sample_axis
