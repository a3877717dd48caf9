"""Thinning: one pattern for the whole batch; its dropped units are left out of the products.

Elementwise dropout multiplies zeros; here the products are of smaller matrices instead.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from .._errors import InputError, whole
from ..engines.torch import parts
from ..engines.torch.tensor_key import TensorKey
from .core import KeyLike, check_rate, is_noop, random_subset, resolve_key
from .inputs import dense_inputs

_MIN_WIDTH, _MIN_COUNT = 512, 64  # from which on counts are rounded to multiples of 16


def kept_count(n: int, p: float) -> int:
    """How many of ``n`` units are kept at rate ``p``: (1 - p) n, rounded; at least 1 unless p = 1.

    Rounded to a whole number, and for ``n`` from 512, where at least 64 units are kept and 64
    dropped, to a multiple of 16, because products of such sizes are up to a quarter faster. A
    scale of n / count keeps the mean exactly in any case.

    >>> kept_count(100, 0.3), kept_count(2048, 0.3), kept_count(10, 0.99), kept_count(10, 1.0)
    (70, 1440, 1, 0)
    """
    if p == 1 or not n:
        return 0
    count = round((1 - p) * n)
    return (
        16 * round((1 - p) * n / 16)
        if n >= _MIN_WIDTH and _MIN_COUNT <= count <= n - _MIN_COUNT
        else max(1, count)
    )


# Seconds on one core of an AVX-512 CPU: a multiplication and addition, forward and backward; the
# copy of a weight into a smaller matrix and of its gradient back; and what a layer adds in calls.
_MULTIPLY, _COPY, _CALLS = 4.2e-11, 4.5e-10, 1.2e-4
_MARGIN = 1.3  # where both ways cost about the same, zeroing is never much slower


def pays(width: int, weights_per_unit: int, rows: int, p: float) -> bool:
    """Whether leaving units out of the products saves more than the copies of weights cost.

    ``weights_per_unit``: the weights that read or write a unit. ``rows``: the rows of the products.
    The constants were measured by ``benchmarks/thinning.py --crossover``.

    >>> pays(2048, 2832, 128, 0.5), pays(256, 1040, 32, 0.5)
    (True, False)
    """
    weights = width * weights_per_unit
    return p * weights * rows * _MULTIPLY > _MARGIN * (weights * _COPY + _CALLS)


def draw_patterns(
    n: int, p: float, key: KeyLike = None, groups: int = 1, device: torch.device | None = None
) -> Tensor:
    """Draws which of ``n`` units are kept: int64 [groups, kept_count(n, p)], ascending in each row.

    Every subset of that size is equally likely. The draw is keyed by the batch and not by its
    examples: it is a function of seed, layer, call and step, whatever the order of the batch.
    Raises :class:`thinned.InputError` under a key that holds a step for each example.
    """
    check_rate(p)
    return _draw(n, kept_count(n, p), resolve_key(key), groups, device or torch.device("cpu"))


def _draw(n: int, count: int, tensor_key: TensorKey, groups: int, device: torch.device) -> Tensor:
    ids, of_batch = tensor_key.sample_ids, tensor_key
    if ids is not None and ids.dim() > 1:
        raise InputError(
            "thinning draws one pattern for the batch, so it needs one step, but got one for each "
            "example; pass a single step to key.at()"
        )
    if ids is not None:
        of_batch = TensorKey(tensor_key.seed_step, None, tensor_key.stream, tensor_key.call)
    if device.type == "cpu" and (kept := parts.subset(groups, n, count, of_batch)) is not None:
        return kept
    return random_subset(groups, n, count, of_batch, device)


def kept_part(
    weight: Tensor,
    bias: Tensor | None = None,
    inputs: Tensor | None = None,
    outputs: Tensor | None = None,
    units: int | None = None,
    ascending: bool = True,
) -> tuple[Tensor, Tensor | None]:
    """The part of ``weight`` [out, in, ...] between the kept ``inputs`` [i] and ``outputs`` [o],
    and that of ``bias`` [out].

    ``units``: into how many units the inputs are divided, where a unit is several columns, as a
    channel is after flattening. The gradient has the shape of the whole weight and is exactly zero
    outside the part. ``ascending``: whether the lists ascend, as drawn ones do; the native kernels
    need that.
    """
    if inputs is None and outputs is None:
        return weight, bias
    if ascending and parts.runs_native(weight, inputs, outputs):
        block = 1 if inputs is None else weight[0].numel() // (units or weight.shape[1])
        return parts.gather(weight, bias, outputs, inputs, block)
    offset = bias if bias is None or outputs is None else bias.index_select(0, outputs)
    return _submatrix(weight, inputs, outputs, units), offset


def _submatrix(
    weight: Tensor, inputs: Tensor | None, outputs: Tensor | None, units: int | None
) -> Tensor:
    if outputs is not None:  # rows first: they are contiguous, and fewer columns remain to copy
        weight = weight.index_select(0, outputs)
    if inputs is None:
        return weight
    if units is None or units == weight.shape[1]:
        return weight.index_select(1, inputs)
    by_unit = weight.reshape(len(weight), units, -1, *weight.shape[2:])
    return by_unit.index_select(1, inputs).flatten(1, 2)


def take_rows(x: Tensor, rows: Tensor) -> Tensor:
    """The ``rows`` [n] of ``x`` on its first axis; they ascend."""
    if x.dim() > 1 and parts.runs_native(x, rows):
        return parts.gather(x, None, rows, None, 1)[0]
    return x.index_select(0, rows)


def put_rows(x: Tensor, rows: Tensor, total: int) -> Tensor:
    """``total`` rows that hold ``x`` at the ascending ``rows`` [n], and 0 elsewhere."""
    if x.dim() > 1 and parts.runs_native(x, rows):
        return parts.scatter(x, rows, total)
    return x.new_zeros(total, *x.shape[1:]).index_copy(0, rows, x)


def grouped_product(
    product: Callable[[Tensor, Tensor, Tensor | None], Tensor],
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    inputs: Tensor | None = None,
    outputs: Tensor | None = None,
    units: int | None = None,
    ascending: bool = True,
) -> Tensor:
    """``product(x, weight, bias)`` on the kept part alone, group by group.

    ``inputs`` [groups, i] and ``outputs`` [groups, o] are indices of kept units. ``x`` holds the
    kept inputs alone, and the result the kept outputs. Groups are consecutive rows of ``x``, as
    equal as possible; an index with one row is used by all groups.
    """
    count = max(1 if index is None else len(index) for index in (inputs, outputs))
    results = []
    for group, rows in enumerate(x.tensor_split(count) if count > 1 else (x,)):
        own_inputs = None if inputs is None else inputs[group % len(inputs)]
        own_outputs = None if outputs is None else outputs[group % len(outputs)]
        part, offset = kept_part(weight, bias, own_inputs, own_outputs, units, ascending)
        results.append(product(rows, part, offset))
    return results[0] if count == 1 else torch.cat(results)


@dense_inputs
def thinned_linear(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    inputs: Tensor | None = None,
    outputs: Tensor | None = None,
) -> Tensor:
    """A linear layer between thinned layers: multiplies only kept inputs and kept outputs.

    It equals the dense product with zeros for the dropped units. Nothing is scaled: multiply the
    kept units by n / count to keep the mean exactly.

    Args:
        x: [b, ..., i], only the kept units of the previous layer.
        weight: [out, in], the whole weight. Its gradient has this shape too, with zeros for dropped
            units.
        bias: [out], the whole bias, or None.
        inputs: The indices of the kept inputs, [i], or [groups, i] for consecutive parts of the
            batch; None keeps all.
        outputs: The indices of the kept outputs, [o] or [groups, o]; None keeps all.

    Returns:
        [b, ..., o], only the kept outputs.

    Raises:
        InputError: Where the last axis of ``x`` does not have as many elements as ``inputs``.

    Example:
        >>> weight = torch.arange(12.0).reshape(3, 4)
        >>> kept = torch.tensor([0, 2])
        >>> thinned_linear(torch.ones(1, 4), weight, outputs=kept)
        tensor([[ 6., 38.]])

    Reference:
        Graham, Reizenstein, Robinson 2015, "Efficient batchwise dropout training using
        submatrices".
    """
    inputs, outputs = (
        i if i is None or i.dim() == 2 else i.unsqueeze(0) for i in (inputs, outputs)
    )
    width = weight.shape[1] if inputs is None else inputs.shape[1]
    if x.shape[-1] != width:
        raise InputError(
            f"x has to hold the {width} kept units in its last axis, but got {list(x.shape)}"
        )
    ascending = all(i is None or bool((i.diff() > 0).all()) for i in (inputs, outputs))
    return grouped_product(F.linear, x, weight, bias, inputs, outputs, None, ascending)


@dense_inputs
def thin_units(
    x: Tensor,
    p: float = 0.5,
    axis: int = -1,
    groups: int = 1,
    training: bool = True,
    *,
    key: KeyLike = None,
) -> Tensor:
    """Computes thinning by a mask on all units: one set of dropped units for the whole batch.

    y = x n / count where kept and 0 where dropped while training, so that E[y] = x exactly; ``x``
    in evaluation. The number of kept units is fixed, about (1 - p) n, and every subset of that size
    is equally likely. The noise is that of a linked :class:`thinned.nn.Thinned`, and the draw is
    the same under the same key, but the products remain dense. At p = 1 everything is zero, with
    zero gradients.

    Args:
        x: A tensor with its n units on ``axis``.
        p: The rate of dropping, in [0, 1].
        axis: The axis of the units.
        groups: The number of consecutive parts of axis 0 that have patterns of their own.
        training: Whether to draw; False computes the evaluation.
        key: The random key; equal keys draw equal noise. None takes 64 bits of torch's generator.

    Returns:
        A tensor of the shape and dtype of ``x``.

    Raises:
        InputError: Where ``p`` is not in [0, 1], ``groups`` is below 1, or the key holds a step for
            each example.

    Example:
        >>> from thinned import Key
        >>> thin_units(torch.ones(2, 6), 0.5, key=Key(seed=1))
        tensor([[2., 2., 0., 2., 0., 0.],
                [2., 2., 0., 2., 0., 0.]])

    Reference:
        Graham, Reizenstein, Robinson 2015, "Efficient batchwise dropout training using
        submatrices".
    """
    check_rate(p)
    groups = whole(groups, "groups", 1)
    if is_noop(x, p, training):
        return x
    n = x.shape[axis]
    count = kept_count(n, p)
    if count == n:
        return x
    if count == 0:
        return x.masked_fill(torch.ones((), dtype=torch.bool, device=x.device), 0.0)
    return zero_units(x, count, resolve_key(key), axis, groups)


def zero_units(x: Tensor, count: int, key: TensorKey, axis: int, groups: int) -> Tensor:
    """:func:`thin_units` with a count between 0 and n, all arguments checked."""
    return _zero_dropped(x, _draw(x.shape[axis], count, key, groups, x.device), axis)


def _zero_dropped(x: Tensor, kept: Tensor, axis: int) -> Tensor:
    """``x`` n / count at the ``kept`` units [groups, count] of ``axis``, and 0 at the others."""
    groups, n, count = len(kept), x.shape[axis], kept.shape[1]
    trailing = x.dim() - 1 - axis % x.dim()
    scale = n / count
    # float32 and wider hold the scale without bias, so one product does it
    exact = x.dtype in (torch.float32, torch.float64)
    if groups == 1:
        factor = x.new_zeros(n) if exact else x.new_ones(n, dtype=torch.bool)
        factor.index_fill_(0, kept[0], scale if exact else False)
        factor = factor.reshape(n, *(1,) * trailing) if trailing else factor
    else:
        factor = x.new_zeros((groups, n), dtype=x.dtype if exact else torch.bool)
        factor = factor.scatter_(1, kept, scale) if exact else ~factor.scatter_(1, kept, True)
        if trailing + 1 < x.dim():
            sizes = [len(rows) for rows in torch.empty(x.shape[0], 0).tensor_split(groups)]
            factor = torch.cat([factor[g : g + 1].expand(size, n) for g, size in enumerate(sizes)])
            factor = factor.reshape(
                len(factor), *(1,) * (x.dim() - 2 - trailing), n, *(1,) * trailing
            )
        else:
            factor = factor[0].reshape(n, *(1,) * trailing)
    return x * factor if exact else x.masked_fill(factor, 0.0) * scale
