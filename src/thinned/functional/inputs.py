"""What functions and layers take: checks of inputs, and dropout of sparse and nested tensors."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

from .._errors import ArgumentError, InputError
from ..algebra.drop import Drop
from ..algebra.plan import plan
from ..engines.torch import dispatch, exported, ops
from ..engines.torch.dispatch import Impl
from ..engines.torch.tensor_key import TensorKey

Function = TypeVar("Function", bound=Callable[..., Any])
_COMPRESSED = (torch.sparse_csr, torch.sparse_csc)


def is_dense(x: Tensor) -> bool:
    """Whether ``x`` has strides and one shape: it is neither sparse nor nested."""
    return x.layout is torch.strided and not x.is_nested


def check_tensor(function: str, value: object, argument: str = "input") -> None:
    """Raise unless ``value`` is a tensor; the error is a TypeError and an InputError."""
    if not isinstance(value, (Tensor, torch.fx.Proxy)):
        raise wrong_type(function, value, argument)


def wrong_type(function: str, value: object, argument: str = "input") -> ArgumentError:
    """The error for a value that is no tensor; its text begins as that of torch."""
    remedy = "pass a tensor"
    if isinstance(value, PackedSequence):
        remedy = (
            "write torch.nn.utils.rnn.pad_packed_sequence; thinned.nn.LockedDropout and the layers "
            "of recurrent networks take packed sequences"
        )
    elif isinstance(value, (tuple, list)):
        remedy = "call it with each tensor in turn, or with torch.stack of them"
    elif value is not None:
        remedy = "write torch.as_tensor(...)"
    return ArgumentError(
        f"{function}(): argument {argument!r} must be Tensor, not {type(value).__name__}; {remedy}"
    )


def check_dense(function: str, value: object, argument: str = "input") -> None:
    """Raise unless ``value`` is a tensor with strides, neither sparse nor nested."""
    check_tensor(function, value, argument)
    if isinstance(value, Tensor) and not is_dense(value):
        kind = "a nested tensor" if value.is_nested else f"layout {value.layout}"
        remedy = "torch.nested.to_padded_tensor(x, 0.0)" if value.is_nested else "x.to_dense()"
        raise InputError(
            f"{function}(): argument {argument!r} must be a dense tensor, but got {kind}; "
            f"write {remedy}"
        )


def dense_inputs(function: Function) -> Function:
    """Decorate a function: its arguments annotated as tensors are checked before it runs.

    Layouts are checked where it draws: in evaluation most functions return any input as it is.
    """
    parameters = inspect.signature(function).parameters
    kinds = [str(p.annotation) if p.kind != p.VAR_POSITIONAL else "" for p in parameters.values()]
    positions = [i for i, kind in enumerate(kinds) if kind in ("Tensor", "Tensor | None")]
    optional = {i for i in positions if kinds[i] != "Tensor"}
    names = list(parameters)
    training = names.index("training") if "training" in names else None
    name = function.__name__

    @functools.wraps(function)
    def checked(*args: Any, **kwargs: Any) -> Any:
        draws = kwargs.get("training", True)
        if training is not None and len(args) > training:
            draws = args[training]
        for i in positions:
            if i >= len(args) and names[i] not in kwargs:
                continue
            value = args[i] if i < len(args) else kwargs[names[i]]
            if type(value) is Tensor and (not draws or is_dense(value)):
                continue
            if value is None and i in optional:
                continue
            (check_dense if draws else check_tensor)(name, value, names[i])
        return function(*args, **kwargs)

    return checked  # type: ignore[return-value]


def sample_structured(
    x: Tensor, spec: Drop, tensor_key: TensorKey, inplace: bool = False, impl: Impl | None = None
) -> Tensor:
    """The training output for a sparse or a nested tensor, with the structure of ``x``.

    The mask of a sparse tensor is that of the dense one, at its places. The examples of a nested
    tensor are those along its first axis. Each has the mask that it has in a batch of its own; that
    is its mask in the padded batch where the ragged axis comes next.
    """
    if not (x.is_floating_point() or x.is_complex()):
        raise InputError(
            f"dropout needs a floating-point tensor, but got {x.dtype}; write x.float()"
        )
    if inplace:
        raise InputError(
            "inplace=True needs a dense tensor, but got a sparse or nested one; use inplace=False"
        )
    if torch.compiler.is_compiling() or exported.recorder():
        raise InputError(
            "a graph takes dense tensors only, but got a sparse or nested one; call the "
            "layer outside the graph, or convert its input"
        )
    return (
        _sample_nested(x, spec, tensor_key, impl)
        if x.is_nested
        else _sample_sparse(x, spec, tensor_key)
    )


def _sample_sparse(x: Tensor, spec: Drop, tensor_key: TensorKey) -> Tensor:
    dense = f"but got layout {x.layout}; write x.to_dense()"
    if x.layout is not torch.sparse_coo and (x.layout not in _COMPRESSED or x.dim() != 2):
        raise InputError(f"dropout takes dense tensors, COO, and CSR and CSC of two axes, {dense}")
    prepared = dispatch.prepare(plan(spec, tuple(x.shape)))
    planned = prepared.plan
    if planned.is_identity:
        return x
    if planned.shift or planned.dropped or planned.kept_fraction:
        raise InputError(
            f"{spec.name or 'this spec'} does not map zeros to zeros element by element, so its "
            f"result is not sparse and the input has to be dense, {dense}"
        )
    if x.layout is torch.sparse_coo:
        x = x.coalesce()
        values, indices = x.values(), x.indices()
        rest = values.dim() - 1  # dense axes of a hybrid tensor
        coordinates = [row.reshape(-1, *[1] * rest) for row in indices]
        for i, n in enumerate(values.shape[1:]):
            along = torch.arange(n, device=x.device)
            coordinates.append(along.reshape(-1, *[1] * (rest - 1 - i)))
    else:
        is_row = x.layout is torch.sparse_csr
        pointers = x.crow_indices() if is_row else x.ccol_indices()
        others = x.col_indices() if is_row else x.row_indices()
        values = x.values()
        lines = torch.arange(len(pointers) - 1, device=x.device)
        lines = lines.repeat_interleave(pointers.diff())
        coordinates = [lines, others] if is_row else [others, lines]
    a = ops.factor_at(
        values.detach(),
        coordinates,
        x.shape[prepared.axis] if prepared.axis >= 0 else 1,
        prepared.constants,
        tensor_key,
        prepared.strides,
        prepared.axis,
        prepared.law,
    )
    # where everything is dropped, values may be infinite, and 0 * inf is NaN
    y = torch.zeros_like(values) if planned.drops_everything else (values * a).to(values.dtype)
    if x.layout is torch.sparse_coo:
        return torch.sparse_coo_tensor(
            x.indices(), y, x.shape, is_coalesced=True, check_invariants=False
        )
    return torch.sparse_compressed_tensor(
        pointers, others, y, x.shape, layout=x.layout, check_invariants=False
    )


def _sample_nested(x: Tensor, spec: Drop, tensor_key: TensorKey, impl: Impl | None) -> Tensor:
    flat = plan(spec, (2,) * x.dim())
    if flat.sample_axis not in (0, None) or flat.kept_fraction:
        raise InputError(
            "the examples of a nested tensor are on its first axis, and it has no counts over the "
            f"batch, which {spec.name or 'this spec'} needs; pad it: "
            "torch.nested.to_padded_tensor(x, 0.0)"
        )
    jagged = x.layout is torch.jagged
    if jagged and (x._ragged_idx != 1 or x.lengths() is not None):  # type: ignore[attr-defined]
        raise InputError(
            "a nested tensor of the jagged layout has to be contiguous, with its ragged axis after "
            "the examples; write x.contiguous() before axes are exchanged"
        )
    ids = tensor_key.sample_ids
    count = x.size(0)
    if ids is not None and ids.shape[-1] != count:
        raise InputError(
            f"samples has to name each of the {count} examples of the nested tensor, but got "
            f"{ids.shape[-1]} ids; pass one id for each to key.at(step, samples=ids)"
        )
    if ids is None:
        ids = torch.arange(count)
    parts = []
    for i, part in enumerate(x.unbind()):
        own = tensor_key._replace(sample_ids=ids[..., i : i + 1])
        row = part.unsqueeze(0)
        prepared = dispatch.prepare(plan(spec, tuple(row.shape)))
        if row.numel() and not prepared.plan.is_identity:
            row = dispatch.sample(row, prepared, own, False, impl)
        parts.append(row.squeeze(0))
    if jagged:  # with the offsets of x, so that the two can be added
        return torch.nested.nested_tensor_from_jagged(torch.cat(parts), offsets=x.offsets())  # type: ignore[attr-defined]
    return torch.nested.as_nested_tensor(parts, layout=torch.strided)
