"""The operators ``thinned::*``: schemas, shapes, autograd, vmap, and a readable kernel for every
device.

They see plain numbers and tensors alone. ``numbers`` int64 [5]: the threshold, then the bits of the
doubles gain, shift, dropped and spread. ``key`` and ``sample_ids``: see
:class:`thinned.engines.torch.tensor_key.TensorKey`. ``cells``: the stride in cells of each axis. ``axis``:
the examples' axis, or -1. ``grad``: leave out b, as backward does. Rates, keys and ids are tensors,
so changing them compiles nothing anew.
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
_NOISE = "Tensor numbers, Tensor key, Tensor? who, SymInt[] cells, int axis, int law, SymInt offset, int stream, int call"

_library = torch.library.Library("thinned", "DEF")
_library.define(f"map(Tensor x, {_NOISE}, bool grad) -> Tensor")  # a x + b, below autograd
_library.define(
    f"apply(Tensor x, {_NOISE}, bool grad) -> Tensor"
)  # the same, with autograd and vmap
_library.define(f"map_add(Tensor x, Tensor residual, {_NOISE}) -> Tensor")  # residual + a x + b
_library.define(f"map_into(Tensor(a!) y, Tensor x, {_NOISE}, bool grad) -> ()")
_library.define(f"factor(Tensor like, {_NOISE}) -> Tensor")  # a
_library.define(  # the coins of consecutive cells, [examples, cells], True where kept
    "kept(Tensor numbers, Tensor key, Tensor? who, int examples, int cells, bool own, int offset, int stream, int call)"
    " -> Tensor"
)
_library.define(  # where boxes around seeds fell, [examples, planes * map], and how many places are kept
    "blocks(Tensor numbers, Tensor key, Tensor? who, int examples, int planes, bool own, int[] seeds, int[] extent, int stream,"
    " int call, Tensor(a!) count) -> Tensor"
)
_library.define("masked(Tensor x, Tensor fell, float gain) -> Tensor")
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


@contextmanager
def plainly() -> Iterator[None]:
    """Within: tensors are ordinary ones, whatever modes and transforms surround the call. For what
    is kept beyond it.
    """
    with torch.inference_mode(False), _disable_current_modes(), torch._C._DisableFuncTorch():
        yield


def numbers(threshold: int, gain: float, shift: float, dropped: float, spread: float) -> Tensor:
    """A plan's numbers, as the operators take them; on the CPU."""
    if torch.compiler.is_compiling():
        return _numbers(threshold, gain, shift, dropped, spread)
    return _kept_numbers(threshold, gain, shift, dropped, spread)


def _numbers(threshold: int, *doubles: float) -> Tensor:
    return torch.tensor(
        [threshold, *struct.unpack("4q", struct.pack("4d", *doubles))], device="cpu"
    )


@lru_cache(maxsize=4096)
def _kept_numbers(*numbers: Any) -> Tensor:
    with plainly():
        return _numbers(*numbers)


def _words(
    like: Tensor, tensor_key: TensorKey, cells: Sequence[int], axis: int, offset: int, pairs: bool
) -> tuple[Tensor, Tensor]:
    """(the word, the cell) of every element of ``like``; with ``pairs`` (the words of both cells of
    its pair, which it is).
    """
    index = torch.full((), offset, dtype=torch.int64, device=like.device)
    for i, (n, stride) in enumerate(zip(like.shape, cells, strict=True)):
        along = torch.arange(n, device=like.device) * stride
        index = index + along.reshape([-1 if j == i else 1 for j in range(like.dim())])
    index = index.expand(like.shape)
    examples = like.shape[axis] if axis >= 0 else 1
    sample_ids = (
        torch.arange(examples, device=like.device)
        if tensor_key.sample_ids is None or axis < 0
        else tensor_key.sample_ids.to(like.device)
    )
    ids, steps = (
        (
            sample_ids,
            tensor_key.seed_step[1]
            if len(tensor_key.seed_step) > 1
            else torch.zeros((), dtype=torch.int64),
        )
        if sample_ids.dim() == 1
        else sample_ids
    )
    place = [-1 if j == axis else 1 for j in range(like.dim())]
    ids, steps = (
        ids.reshape(place),
        (steps.reshape(place) if steps.dim() else steps).to(like.device),
    )
    mixed = philox.derived_key(tensor_key)
    key = (mixed[0].to(like.device), mixed[1].to(like.device))

    def drawn(cell: Tensor) -> Tensor:
        """The words of cells, each from its own two blocks."""

        def half(flag: int) -> Tensor:
            four = philox.philox(((cell >> 3) & WORD | flag, ids & WORD, ids >> 32, steps), key)
            word = torch.stack([w.expand(like.shape) for w in four], -1)
            word = word.gather(-1, ((cell >> 1) & 3).unsqueeze(-1)).squeeze(-1)
            return torch.where((cell & 1).bool(), word >> 16, word & 0xFFFF)

        return half(0) << 16 | half(LOW)

    if not pairs:
        return drawn(index), index
    first = index & ~1
    return torch.stack((drawn(first), drawn(first + 1)), -1), index & 1


def _coefficients(
    like: Tensor,
    numbers: Tensor,
    tensor_key: TensorKey,
    cells: Sequence[int],
    axis: int,
    law: int,
    offset: int,
    grad: bool,
) -> tuple[Tensor, Tensor]:
    """(a, b) of every element, in float64."""
    doubles = numbers[1:5].view(torch.float64).to(like.device)
    gain, shift, dropped, spread = doubles.unbind()
    if LAWS[law] == "bernoulli":
        fell = _words(like, tensor_key, cells, axis, offset, False)[0] < numbers[0].to(like.device)
        a, b = torch.where(fell, 0.0, gain), torch.where(fell, dropped, shift)
    else:
        if LAWS[law] == "uniform":
            noise = reference.uniform(_words(like, tensor_key, cells, axis, offset, False)[0])
        else:
            pair, second = _words(like, tensor_key, cells, axis, offset, True)
            noise = reference.normal(pair).gather(-1, second.unsqueeze(-1)).squeeze(-1)
        a, b = gain * (1.0 + spread * noise), shift.expand(like.shape)
    return a, torch.zeros_like(b) if grad else b


def readable(x: Tensor, numbers: Tensor, key: Tensor, sample_ids: Tensor | None, cells: Sequence[int], axis: int, law: int,
             offset: int, stream: int, call: int, grad: bool) -> Tensor:  # fmt: skip
    a, b = _coefficients(
        x, numbers, TensorKey(key, sample_ids, stream, call), cells, axis, law, offset, grad
    )
    wide = reference.wide(x)
    y = x.to(wide) * a.to(wide) + b.to(wide)
    erased = (numbers[0] >= WORDS).to(x.device) & (law == 0)
    y = torch.where(erased, b.to(wide), y)
    return torch.empty_like(x).copy_(y)


def plain_factor(like: Tensor, numbers: Tensor, key: Tensor, sample_ids: Tensor | None, cells: Sequence[int], axis: int, law: int,
            offset: int, stream: int, call: int) -> Tensor:  # fmt: skip
    a, _ = _coefficients(
        like, numbers, TensorKey(key, sample_ids, stream, call), cells, axis, law, offset, True
    )
    return torch.empty_like(like).copy_(a)


def _map_add(x: Tensor, residual: Tensor, *noise: Any) -> Tensor:
    return readable(x.to(reference.wide(x)), *(*noise, False)).add(residual).to(x.dtype)


def _map_into(y: Tensor, x: Tensor, *noise: Any) -> None:
    y.copy_(readable(x, *noise))


def _on_gpu(name: str) -> Any:
    """A kernel that is imported when it is first called."""

    def kernel(*arguments: Any) -> Any:
        from . import triton

        if triton.missing or arguments[0].dtype not in TYPES:
            return _READABLE[name](*arguments)
        return getattr(triton, name)(*arguments)

    return kernel


_READABLE: dict[str, Any] = {
    "map": readable,
    "map_add": _map_add,
    "map_into": _map_into,
    "factor": plain_factor,
}
for _name, _kernel in [*_READABLE.items(), ("apply", readable)]:
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
    _, numbers, key, sample_ids, *ctx.rest = inputs
    ctx.save_for_backward(numbers, key, sample_ids)


def _backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    numbers, key, sample_ids = ctx.saved_tensors
    cells, axis, law, offset, stream, call, _ = ctx.rest
    return (
        apply(grad, numbers, key, sample_ids, cells, axis, law, offset, stream, call, True),
        *[None] * 10,
    )


torch.library.register_autograd("thinned::apply", _backward, setup_context=_save, lib=_library)


def _batched(op: Any) -> Any:
    """The rule under vmap. One key for all: the mapped axis shares its cells. A key for each: one
    call for each.
    """

    def rule(info: Any, in_dims: tuple[Any, ...], x: Tensor, numbers: Tensor, key: Tensor, sample_ids: Tensor | None,
             cells: Sequence[int], axis: int, *rest: Any) -> tuple[Tensor, int]:  # fmt: skip
        x_dim, numbers_dim, key_dim, who_dim, *_ = in_dims
        x = x.movedim(x_dim, 0) if x_dim is not None else x.expand(info.batch_size, *x.shape)
        if numbers_dim is None and key_dim is None and who_dim is None:
            return op(x, numbers, key, sample_ids, [0, *cells], axis + (axis >= 0), *rest), 0

        def row(t: Tensor | None, dim: int | None, i: int) -> Tensor | None:
            return t if t is None or dim is None else t.select(dim, i)

        rows = [
            op(
                x[i],
                row(numbers, numbers_dim, i),
                row(key, key_dim, i),
                row(sample_ids, who_dim, i),
                cells,
                axis,
                *rest,
            )
            for i in range(info.batch_size)
        ]
        return torch.stack(rows), 0

    return rule


for _name, _op in (("apply", apply), ("factor", factor)):
    torch.library.register_vmap(f"thinned::{_name}", _batched(_op), lib=_library)
