"""Thinning: what one pattern of the whole batch drops is cut out of the products, instead of being
multiplied as zeros.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from .._errors import InputError, whole
from .core import Keyed, check_rate, is_noop, random_subset, resolve_key

_WIDE, _FEW = 512, 64


def kept_count(n: int, p: float) -> int:
    """How many of ``n`` units stay at rate ``p``: (1 - p) n rounded, at least 1 unless ``p`` is 1.

    Rounded to a whole number; for ``n`` from 512, where at least 64 stay and 64 fall, to a multiple
    of 16, because products of such sizes are faster by up to a quarter. Whoever scales by n / count
    keeps the mean exact all the same.

    >>> kept_count(100, 0.3), kept_count(2048, 0.3), kept_count(10, 0.99), kept_count(10, 1.0)
    (70, 1440, 1, 0)
    """
    if p == 1 or not n:
        return 0
    count = round((1 - p) * n)
    return (
        16 * round((1 - p) * n / 16) if n >= _WIDE and _FEW <= count <= n - _FEW else max(1, count)
    )


def patterns(
    n: int, p: float, key: Keyed = None, groups: int = 1, device: torch.device | None = None
) -> Tensor:
    """Which of ``n`` units stay: int64 [groups, kept_count(n, p)], ascending; every subset of that
    size is as likely.

    The draw belongs to the batch and not to its examples: the same for the same seed, layer, call
    and step, in any order of the batch. Raises :class:`thinned.InputError` under a key that holds a
    step for each example.
    """
    check_rate(p)
    tensor_key = resolve_key(key)
    if tensor_key.sample_ids is not None and tensor_key.sample_ids.dim() > 1:
        raise InputError(
            "thinning draws one pattern for the batch, so it needs one step, but got one for each example"
        )
    return random_subset(
        groups,
        n,
        kept_count(n, p),
        tensor_key._replace(sample_ids=None),
        device or torch.device("cpu"),
    )


def part(
    weight: Tensor,
    inputs: Tensor | None = None,
    outputs: Tensor | None = None,
    units: int | None = None,
) -> Tensor:
    """The part of ``weight`` [out, in, ...] that joins the kept ``inputs`` [i] to the kept
    ``outputs`` [o].

    ``units``: into how many units the inputs are divided, where a unit is several columns, as a
    channel is after flattening. Its gradient is that of the whole weight, exactly zero outside.
    """
    if outputs is not None:  # rows are copied as they lie; columns then of what is left
        weight = weight.index_select(0, outputs)
    if inputs is None:
        return weight
    if units is None or units == weight.shape[1]:
        return weight.index_select(1, inputs)
    apart = weight.reshape(len(weight), units, -1, *weight.shape[2:])
    return apart.index_select(1, inputs).flatten(1, 2)


def in_parts(
    product: Callable[[Tensor, Tensor, Tensor | None], Tensor],
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    inputs: Tensor | None = None,
    outputs: Tensor | None = None,
    units: int | None = None,
) -> Tensor:
    """``product(x, weight, bias)`` on the kept part alone, group by group: ``inputs`` [groups, i],
    ``outputs`` [groups, o].

    ``x`` holds the kept inputs alone, and the result the kept outputs. Groups are consecutive rows
    of ``x``, as equal as they can be; an index with one row holds for all.
    """
    count = max(1 if index is None else len(index) for index in (inputs, outputs))
    results = []
    for group, rows in enumerate(x.tensor_split(count) if count > 1 else (x,)):
        ins = None if inputs is None else inputs[group % len(inputs)]
        outs = None if outputs is None else outputs[group % len(outputs)]
        offset = bias if bias is None or outs is None else bias.index_select(0, outs)
        results.append(product(rows, part(weight, ins, outs, units), offset))
    return results[0] if count == 1 else torch.cat(results)


def thinned_linear(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    inputs: Tensor | None = None,
    outputs: Tensor | None = None,
) -> Tensor:
    """A linear layer between thinned ones: the product of what stayed with what stays.

    ``x`` [b, ..., i] holds only the units ``inputs`` of the layer before (:func:`patterns`,
    [groups, i] or [i]); None: all. The result [b, ..., o] holds only the units ``outputs``.
    ``weight`` [out, in] and ``bias`` [out] are the whole ones, and their gradients are whole too,
    zero where something fell. It equals the dense product with zeros in the place of what fell.
    Scaling is left to the caller: n / count times what stayed keeps the mean exactly.

    Raises :class:`thinned.InputError` where ``x`` does not have as many columns as ``inputs``.

    Graham, Reizenstein, Robinson 2015, "Efficient batchwise dropout training using submatrices".
    """
    inputs, outputs = (
        i if i is None or i.dim() == 2 else i.unsqueeze(0) for i in (inputs, outputs)
    )
    wanted = weight.shape[1] if inputs is None else inputs.shape[1]
    if x.shape[-1] != wanted:
        raise InputError(
            f"x has to hold the {wanted} kept units in its last axis, but got {list(x.shape)}"
        )
    return in_parts(F.linear, x, weight, bias, inputs, outputs)


def thin_units(
    x: Tensor,
    p: float = 0.5,
    axis: int = -1,
    groups: int = 1,
    training: bool = True,
    *,
    key: Keyed = None,
) -> Tensor:
    """What thinning computes, on all units: about (1 - p) n of the n units on ``axis`` stay for the
    whole batch.

    y = x n / count where kept and 0 where not while training, so that E[y] = x exactly; x in
    evaluation. The count is fixed, :func:`thinned.functional.thinning.kept_count`, and every subset
    of that size as likely. ``groups``: consecutive parts of axis 0 with patterns of their own. The
    same law as a linked :class:`thinned.nn.Thinned`, and the same draw under the same key, at the
    price of the dense products. At p = 1 all is zero, with zero gradients.
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
    kept = patterns(n, p, key, groups, x.device)
    fell = torch.ones(groups, n, dtype=torch.bool, device=x.device).scatter_(
        1, kept, False
    )  # [groups, n]
    behind = x.dim() - 1 - axis % x.dim()
    if groups > 1 and behind + 1 < x.dim():
        sizes = [len(rows) for rows in torch.empty(x.shape[0], 0).tensor_split(groups)]
        fell = torch.cat([fell[g : g + 1].expand(size, n) for g, size in enumerate(sizes)])
        fell = fell.reshape(len(fell), *(1,) * (x.dim() - 2 - behind), n, *(1,) * behind)
    else:
        fell = fell[0].reshape(n, *(1,) * behind)
    return x.masked_fill(fell, 0.0) * (n / count)
