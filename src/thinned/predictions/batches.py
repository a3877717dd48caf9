"""The data of a prediction, batch by batch."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import (
    DataLoader,
    Dataset,
    RandomSampler,
    SubsetRandomSampler,
    WeightedRandomSampler,
)

from .._errors import InputError

Inputs: TypeAlias = tuple[tuple[Any, ...], dict[str, Any]]  # positional and named
_SHUFFLING = (RandomSampler, SubsetRandomSampler, WeightedRandomSampler)


def read(
    data: Any, batch_size: int, unpack: Callable[[Any], Any] | None, model: nn.Module
) -> Iterator[tuple[Inputs, int]]:
    """Yield the inputs of each batch on the device of the model, and the number of examples."""
    parameter = next((p for p in model.parameters() if p.is_floating_point()), None)
    batches = _slices(data, batch_size) if _is_arrays(data) else _batches(data, unpack)
    for position, batch in enumerate(batches):
        inputs = _converted(_as_inputs(batch), parameter)
        yield inputs, _examples(inputs, position)


def check(data: Any) -> None:
    """Raise where the data cannot be read in order, before any work."""
    if _is_arrays(data):
        leaves = _leaves(data)
        if not leaves:
            raise InputError("data holds no tensor; pass a tensor, an array or a loader")
        lengths = {len(leaf) if np.ndim(leaf) else -1 for leaf in leaves}
        if len(lengths) > 1 or -1 in lengths:
            raise InputError(
                "the tensors of data have to have one row for each example, but got the shapes "
                f"{[tuple(leaf.shape) for leaf in leaves]}"
            )
        if not max(lengths):
            raise InputError("data has no examples; pass at least one")
        for leaf in leaves:
            _check_finite(leaf, "data")
        return
    if isinstance(data, Dataset):
        raise InputError(
            "data has to be a tensor, an array, a tuple or dict of them, or a loader, but got a "
            "Dataset; write DataLoader(data, batch_size=128)"
        )
    if not isinstance(data, Iterable) or isinstance(data, (str, bytes)):
        raise InputError(
            "data has to be a tensor, an array, a tuple or dict of them, or a loader of batches, "
            f"but got {type(data).__name__}"
        )
    if isinstance(data, DataLoader):
        inner = getattr(data.batch_sampler, "sampler", data.sampler)
        if isinstance(data.sampler, _SHUFFLING) or isinstance(inner, _SHUFFLING):
            raise InputError(
                "this loader shuffles, so no row of the result could be matched with its example; "
                "use DataLoader(dataset, batch_size=..., shuffle=False)"
            )


def _is_array(value: Any) -> bool:
    return isinstance(value, (Tensor, np.ndarray))


def _is_arrays(data: Any) -> bool:
    if isinstance(data, Mapping):
        return all(_is_array(v) for v in data.values())
    return _is_array(data) or (isinstance(data, tuple) and all(_is_array(v) for v in data))


def _leaves(data: Any) -> list[Any]:
    if isinstance(data, Mapping):
        return list(data.values())
    return list(data) if isinstance(data, tuple) else [data]


def _slices(data: Any, batch_size: int) -> Iterator[Any]:
    for start in range(0, len(_leaves(data)[0]), batch_size):
        rows = slice(start, start + batch_size)
        if isinstance(data, Mapping):
            yield {name: value[rows] for name, value in data.items()}
        else:
            yield tuple(v[rows] for v in data) if isinstance(data, tuple) else data[rows]


def _batches(data: Any, unpack: Callable[[Any], Any] | None) -> Iterator[Any]:
    for batch in data:
        if unpack is not None:
            yield unpack(batch)
        elif isinstance(batch, (tuple, list)) and len(batch) > 1:
            yield tuple(batch[:-1])  # the last is the target
        else:
            yield tuple(batch) if isinstance(batch, list) else batch


def _as_inputs(batch: Any) -> Inputs:
    if isinstance(batch, Mapping):
        return (), dict(batch)
    return (tuple(batch), {}) if isinstance(batch, (tuple, list)) else ((batch,), {})


def _converted(inputs: Inputs, parameter: Tensor | None) -> Inputs:
    device = torch.device("cpu") if parameter is None else parameter.device
    dtype = torch.get_default_dtype() if parameter is None else parameter.dtype

    def convert(value: Any) -> Any:
        if isinstance(value, np.ndarray):
            value = torch.from_numpy(np.ascontiguousarray(value))
            if value.is_floating_point():
                value = value.to(dtype)
        return value.to(device) if isinstance(value, Tensor) else value

    mapped: Inputs = torch.utils._pytree.tree_map(convert, inputs)
    return mapped


def _examples(inputs: Inputs, position: int) -> int:
    tensors = [v for v in torch.utils._pytree.tree_leaves(inputs) if isinstance(v, Tensor)]
    if not tensors or not tensors[0].dim():
        raise InputError(
            f"batch {position} holds no tensor of examples; pass unpack=, a function of the batch "
            "that returns the inputs of the model: a tensor, a tuple, or a dict of named inputs"
        )
    for tensor in tensors:
        _check_finite(tensor, f"batch {position}")
    return len(tensors[0])


def _check_finite(values: Any, what: str) -> None:
    if isinstance(values, np.ndarray):
        bad = values.dtype.kind == "f" and bool(np.isnan(values).any())
    else:
        bad = values.is_floating_point() and bool(values.isnan().any())
    if bad:
        raise InputError(f"{what} holds NaN; fill or remove these examples before predicting")
