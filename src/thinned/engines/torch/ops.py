"""The operators ``thinned::*``: schemas, shapes, autograd, vmap, and a reference for every device.

They take only numbers and tensors:

* ``constants``, int64 [5]: the threshold, then the bits of the doubles gain, shift, dropped and
  spread;
* ``key`` and ``sample_ids``: see :class:`thinned.engines.torch.tensor_key.TensorKey`;
* ``strides``: the step between mask elements along each axis;
* ``axis``: the axis of the examples, or -1;
* ``grad``: leave out b of y = a x + b, as the backward pass does.

Rates, keys and ids are tensors, so new ones do not recompile a graph.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import _disable_current_modes

from ...algebra.key import LOW, WORD
from ...algebra.plan import WORDS, LawName
from . import native, philox, reference
from .tensor_key import TensorKey

TYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)  # that the kernels take
LAWS: tuple[LawName, ...] = ("bernoulli", "gaussian", "uniform")
_NOISE = (
    "Tensor constants, Tensor key, Tensor? sample_ids, SymInt[] strides, int axis, "
    "int distribution, SymInt offset, int stream, int call"
)

_library = torch.library.Library("thinned", "DEF")
_library.define(f"map(Tensor x, {_NOISE}, bool grad) -> Tensor")  # a x + b, below autograd
# the same, with autograd and vmap
_library.define(f"apply(Tensor x, {_NOISE}, bool grad) -> Tensor")
_library.define(f"map_add(Tensor x, Tensor residual, {_NOISE}) -> Tensor")  # residual + a x + b
_library.define(f"map_into(Tensor(a!) y, Tensor x, {_NOISE}, bool grad) -> ()")
_library.define(f"factor(Tensor like, {_NOISE}) -> Tensor")  # a
# the mask of consecutive elements, [examples, elements], True where kept
_library.define(
    "kept(Tensor constants, Tensor key, Tensor? sample_ids, int examples, int elements, bool own, "
    "int offset, int stream, int call) -> Tensor"
)
# where boxes around seeds drop, [examples, planes * map]; adds the number of kept elements to count
_library.define(
    "blocks(Tensor constants, Tensor key, Tensor? sample_ids, int examples, int planes, bool own, "
    "int[] seeds, int[] extent, int stream, int call, Tensor(a!) count) -> Tensor"
)
_library.define("masked(Tensor x, Tensor is_dropped, float gain) -> Tensor")
# for each example the indices of the `count` smallest of n words, int64 [examples, count]
_library.define(
    "subset(Tensor key, Tensor? sample_ids, int examples, int n, int count, int stream, int call) "
    "-> Tensor"
)
# the part of a contiguous matrix between ascending rows and columns, in units of `block` columns
_library.define("gather_part(Tensor matrix, Tensor? rows, Tensor? columns, int block) -> Tensor")
# the inverse, with 0 elsewhere
_library.define(
    "scatter_part(Tensor part, Tensor? rows, Tensor? columns, int height, int width, int block) "
    "-> Tensor"
)
_library.define("instructions(int choice) -> int")

missing = native.load()  # why there are no native kernels; empty where there are

apply = torch.ops.thinned.apply.default
map = torch.ops.thinned.map.default
map_add = torch.ops.thinned.map_add.default
map_into = torch.ops.thinned.map_into.default
factor = torch.ops.thinned.factor.default
kept = torch.ops.thinned.kept.default
blocks = torch.ops.thinned.blocks.default
masked = torch.ops.thinned.masked.default
subset = torch.ops.thinned.subset.default
gather_part = torch.ops.thinned.gather_part.default
scatter_part = torch.ops.thinned.scatter_part.default
# False too where the kernels were built before these three were written
has_parts = not missing and all(
    torch._C._dispatch_has_kernel_for_dispatch_key(f"thinned::{name}", "CPU")
    for name in ("subset", "gather_part", "scatter_part")
)


@contextmanager
def ordinary_tensors() -> Iterator[None]:
    """Make ordinary tensors within, whatever modes and transforms surround the call.

    For tensors that outlive the call.
    """
    with torch.inference_mode(False), _disable_current_modes(), torch._C._DisableFuncTorch():
        yield


def pack_constants(
    threshold: int, gain: float, shift: float, dropped: float, spread: float
) -> Tensor:
    """Return the constants of a plan as the operators take them; on the CPU."""
    if torch.compiler.is_compiling():
        return _new_constants(threshold, gain, shift, dropped, spread)
    return _cached_constants(threshold, gain, shift, dropped, spread)


def _new_constants(threshold: int, *doubles: float) -> Tensor:
    return torch.tensor(
        [threshold, *struct.unpack("4q", struct.pack("4d", *doubles))], device="cpu"
    )


@lru_cache(maxsize=4096)
def _cached_constants(*constants: Any) -> Tensor:
    with ordinary_tensors():
        return _new_constants(*constants)


def _words(
    like: Tensor,
    tensor_key: TensorKey,
    strides: Sequence[int],
    axis: int,
    offset: int,
    pairs: bool,
    coordinates: Sequence[Tensor] | None = None,
    examples: int = 1,
) -> tuple[Tensor, Tensor]:
    """Return (the word, the mask element) of every element of ``like``.

    With ``pairs``: (the words of both elements of its pair, which of the two it is). With
    ``coordinates``, one tensor for each axis, the elements of ``like`` are those there in a tensor
    of ``examples`` examples.
    """
    index = torch.full((), offset, dtype=torch.int64, device=like.device)
    if coordinates is None:
        for i, (n, stride) in enumerate(zip(like.shape, strides, strict=True)):
            along = torch.arange(n, device=like.device) * stride
            index = index + along.reshape([-1 if j == i else 1 for j in range(like.dim())])
        examples = like.shape[axis] if axis >= 0 else 1
    else:
        for at, stride in zip(coordinates, strides, strict=True):
            index = index + at * stride
    index = index.expand(like.shape)
    sample_ids = (
        torch.arange(examples, device=like.device)
        if tensor_key.sample_ids is None or axis < 0
        else tensor_key.sample_ids.to(like.device)
    )
    if sample_ids.dim() == 2:
        ids, steps = sample_ids
    elif len(tensor_key.seed_step) > 1:
        ids, steps = sample_ids, tensor_key.seed_step[1]
    else:
        ids, steps = sample_ids, torch.zeros((), dtype=torch.int64)
    if coordinates is None:
        along_axis = [-1 if j == axis else 1 for j in range(like.dim())]
        ids = ids.reshape(along_axis)
        steps = steps.reshape(along_axis) if steps.dim() else steps
    elif axis >= 0:
        ids = ids[coordinates[axis]]
        steps = steps[coordinates[axis]] if steps.dim() else steps
    steps = steps.to(like.device)
    mixed = philox.derived_key(tensor_key)
    key = (mixed[0].to(like.device), mixed[1].to(like.device))

    def draw_words(element: Tensor) -> Tensor:
        """Return the words of mask elements, each from its two Philox blocks."""

        def half(flag: int) -> Tensor:
            four = philox.philox(((element >> 3) & WORD | flag, ids & WORD, ids >> 32, steps), key)
            word = torch.stack([w.expand(like.shape) for w in four], -1)
            word = word.gather(-1, ((element >> 1) & 3).unsqueeze(-1)).squeeze(-1)
            return torch.where((element & 1).bool(), word >> 16, word & 0xFFFF)

        return half(0) << 16 | half(LOW)

    if not pairs:
        return draw_words(index), index
    first = index & ~1
    return torch.stack((draw_words(first), draw_words(first + 1)), -1), index & 1


def _affine_coefficients(
    like: Tensor,
    constants: Tensor,
    tensor_key: TensorKey,
    strides: Sequence[int],
    axis: int,
    law: int,
    offset: int,
    grad: bool,
    coordinates: Sequence[Tensor] | None = None,
    examples: int = 1,
) -> tuple[Tensor, Tensor]:
    """Return (a, b) of y = a x + b for every element, in float64."""
    doubles = constants[1:5].view(torch.float64).to(like.device)
    gain, shift, dropped, spread = doubles.unbind()

    def words(pairs: bool) -> tuple[Tensor, Tensor]:
        return _words(like, tensor_key, strides, axis, offset, pairs, coordinates, examples)

    if LAWS[law] == "bernoulli":
        word, _ = words(False)
        is_dropped = word < constants[0].to(like.device)
        a, b = torch.where(is_dropped, 0.0, gain), torch.where(is_dropped, dropped, shift)
    else:
        if LAWS[law] == "uniform":
            noise = reference.uniform(words(False)[0])
        else:
            pair, second = words(True)
            noise = reference.normal(pair).gather(-1, second.unsqueeze(-1)).squeeze(-1)
        a, b = gain * (1.0 + spread * noise), shift.expand(like.shape)
    return a, torch.zeros_like(b) if grad else b


def reference_map(
    x: Tensor,
    constants: Tensor,
    key: Tensor,
    sample_ids: Tensor | None,
    strides: Sequence[int],
    axis: int,
    law: int,
    offset: int,
    stream: int,
    call: int,
    grad: bool,
) -> Tensor:
    """``thinned::map`` in torch operations."""
    tensor_key = TensorKey(key, sample_ids, stream, call)
    a, b = _affine_coefficients(x, constants, tensor_key, strides, axis, law, offset, grad)
    wide = reference.wide(x)
    y = x.to(wide) * a.to(wide) + b.to(wide)
    # where everything is dropped, x may hold inf or NaN, and 0 * x would be NaN
    drops_everything = (constants[0] >= WORDS).to(x.device) & (law == 0)
    y = torch.where(drops_everything, b.to(wide), y)
    return torch.empty_like(x).copy_(y)


def reference_factor(
    like: Tensor,
    constants: Tensor,
    key: Tensor,
    sample_ids: Tensor | None,
    strides: Sequence[int],
    axis: int,
    law: int,
    offset: int,
    stream: int,
    call: int,
) -> Tensor:
    """``thinned::factor`` in torch operations."""
    tensor_key = TensorKey(key, sample_ids, stream, call)
    a, _ = _affine_coefficients(like, constants, tensor_key, strides, axis, law, offset, True)
    return torch.empty_like(like).copy_(a)


def factor_at(
    like: Tensor,
    coordinates: Sequence[Tensor],
    examples: int,
    constants: Tensor,
    tensor_key: TensorKey,
    strides: Sequence[int],
    axis: int,
    law: int,
) -> Tensor:
    """Return the factor of single elements of a tensor of ``examples`` examples.

    ``coordinates`` holds their indices along each axis, and broadcasts to the shape of ``like``.
    """
    a, _ = _affine_coefficients(
        like, constants, tensor_key, strides, axis, law, 0, True, coordinates, examples
    )
    return a.to(reference.wide(like))


def _reference_map_add(x: Tensor, residual: Tensor, *noise: Any) -> Tensor:
    return reference_map(x.to(reference.wide(x)), *(*noise, False)).add(residual).to(x.dtype)


def _reference_map_into(y: Tensor, x: Tensor, *noise: Any) -> None:
    y.copy_(reference_map(x, *noise))


def _on_gpu(name: str) -> Any:
    """Return the Triton kernel ``name``, which is imported at its first call."""

    def kernel(*arguments: Any) -> Any:
        from . import triton

        if triton.missing or arguments[0].dtype not in TYPES:
            return _REFERENCE[name](*arguments)
        return getattr(triton, name)(*arguments)

    return kernel


_REFERENCE: dict[str, Any] = {
    "map": reference_map,
    "map_add": _reference_map_add,
    "map_into": _reference_map_into,
    "factor": reference_factor,
}
for _name, _kernel in [*_REFERENCE.items(), ("apply", reference_map)]:
    if missing:
        _library.impl(_name, _kernel, "CPU")
    _library.impl(_name, _on_gpu("map" if _name == "apply" else _name), "CUDA")
    for _device in ("MPS", "XPU"):
        _library.impl(_name, _kernel, _device)

_library.impl("factor", torch.library.fallthrough_kernel, "Autograd")  # it has no gradient

for _name in ("map", "apply", "factor", "map_add"):
    torch.library.register_fake(
        f"thinned::{_name}", lambda x, *rest: torch.empty_like(x), lib=_library
    )
torch.library.register_fake("thinned::map_into", lambda *rest: None, lib=_library)


def _save(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    _, constants, key, sample_ids, *ctx.rest = inputs
    ctx.save_for_backward(constants, key, sample_ids)


def _backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    constants, key, sample_ids = ctx.saved_tensors
    strides, axis, law, offset, stream, call, _ = ctx.rest
    return (
        apply(grad, constants, key, sample_ids, strides, axis, law, offset, stream, call, True),
        *[None] * 10,
    )


torch.library.register_autograd("thinned::apply", _backward, setup_context=_save, lib=_library)


def _for_each(op: Any, written: int | None = None) -> Any:
    """Return the vmap rule that runs an operator once for each example.

    ``written``: which argument the operator writes into. The others are passed contiguous, as
    functions of one example see them.
    """

    def row(value: Any, dim: Any, i: int, as_it_is: bool) -> Any:
        if not isinstance(dim, int):
            return value
        return value.select(dim, i) if as_it_is else value.select(dim, i).contiguous()

    def rule(info: Any, in_dims: tuple[Any, ...], *arguments: Any) -> tuple[Any, int | None]:
        if written is not None and in_dims[written] is None:
            raise RuntimeError(
                f"vmap: {op} writes into a tensor that is not mapped, but is called with mapped "
                "ones; map the tensor that is written into"
            )
        rows = [
            op(
                *(
                    row(value, dim, i, position == written)
                    for position, (value, dim) in enumerate(zip(arguments, in_dims, strict=True))
                )
            )
            for i in range(info.batch_size)
        ]
        return (None, None) if rows[0] is None else (torch.stack(rows), 0)

    return rule


def _for_all(op: Any, tensors: int = 1, *, writes: bool = False) -> Any:
    """Return the vmap rule of an operator of noise on ``tensors`` tensors.

    With one key for all, the mapped axis shares the mask, and the operator runs once.
    """
    each = _for_each(op, 0 if writes else None)

    def rule(info: Any, in_dims: tuple[Any, ...], *arguments: Any) -> tuple[Any, int | None]:
        if any(dim is not None for dim in in_dims[tensors : tensors + 3]) or (
            writes and in_dims[0] is None
        ):
            result: tuple[Any, int | None] = each(info, in_dims, *arguments)
            return result
        mapped = [
            x.movedim(dim, 0) if dim is not None else x.expand(info.batch_size, *x.shape)
            for x, dim in zip(arguments[:tensors], in_dims, strict=False)
        ]
        noise = arguments[tensors : tensors + 3]
        strides, axis, *rest = arguments[tensors + 3 :]
        y = op(*mapped, *noise, [0, *strides], axis + (axis >= 0), *rest)
        return (None, None) if y is None else (y, 0)

    return rule


for _name, _rule in {
    "map": _for_all(map),
    "apply": _for_all(apply),
    "factor": _for_all(factor),
    "map_add": _for_all(map_add, 2),
    "map_into": _for_all(map_into, 2, writes=True),
    "kept": _for_each(kept),
    "blocks": _for_each(blocks, 10),
    "masked": _for_each(masked),
    "subset": _for_each(subset),
    "gather_part": _for_each(gather_part),
    "scatter_part": _for_each(scatter_part),
}.items():
    torch.library.register_vmap(f"thinned::{_name}", _rule, lib=_library)
