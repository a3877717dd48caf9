"""Layouts named by the user: examples on another axis, flattened axes, and sharded axes."""

from __future__ import annotations

import re
from dataclasses import replace

import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

from .._errors import InputError, whole
from ..algebra.drop import Drop
from ..algebra.per import EXAMPLE, Block, expand
from ..algebra.plan import plan
from ..engines.torch import dispatch

_GROUP = re.compile(r"\(([^()]*)\)")


def _named(layout: str) -> tuple[list[list[str]], str]:
    """(the names of each axis of the input, the layout with its groups opened)."""
    flat = _GROUP.sub(lambda m: m.group(1), layout)
    groups = [
        m.group(1).split() if m.group(1) is not None else [m.group(2)]
        for m in re.finditer(r"\(([^()]*)\)|(\S+)", layout)
    ]
    wrong = (
        "(" in flat
        or ")" in flat
        or sum(len(g) > 1 for g in groups) > 1
        or any(len(g) > 2 or not g for g in groups)
    )
    if wrong or any(EXAMPLE not in g for g in groups if len(g) > 1):
        raise InputError(
            "a layout may flatten the examples b with one other axis, such as '(b t) d', but got "
            f"{layout!r}"
        )
    return groups, flat


def apply_layout(spec: Drop, layout: str, dims: int | None) -> Drop:
    """Return the spec for an input of ``layout``, which has the examples on its axis b.

    A spec with a draw for each element keeps one for each element. A spec with a draw for each
    example and channel needs the axis of the channels by its name, c.
    """
    if not isinstance(layout, str):
        raise InputError(
            f"layout has to be the names of the input's axes, such as 't b d', but got {layout!r}"
        )
    _, flat = _named(layout)
    names = flat.split()
    if EXAMPLE not in names:
        raise InputError(f"a layout names the axis of the examples, b, but got {layout!r}")
    if dims is not None or isinstance(spec.per, Block):
        raise InputError(
            "layout= is for specs with draws for elements or channels; layers on feature maps read "
            "their axes in torch's order"
        )
    if spec.per == spec.of:
        return replace(spec, of=flat, per=flat)
    own = str(spec.per).split()
    missing = [n for n in own if n not in names]
    if missing:
        raise InputError(
            f"this spec has a draw for each {spec.per!r}, but the layout {layout!r} has no axis "
            f"{missing[0]!r}"
        )
    return replace(spec, of=flat)


def unflatten_examples(x: Tensor, layout: str, sample_ids: Tensor | None) -> Tensor:
    """Split the flattened axis of ``layout`` in two; without ids each row is an example."""
    groups, _ = _named(layout)
    if x.dim() != len(groups) and "*" not in layout:
        raise InputError(
            f"layout {layout!r} needs a tensor of {len(groups)} axes, but got one of {x.dim()}"
        )
    at = next(i for i, g in enumerate(groups) if len(g) > 1)
    rows, count = x.shape[at], x.shape[at] if sample_ids is None else sample_ids.shape[-1]
    if count == 0 or rows % count:
        raise InputError(
            f"the axis {' '.join(groups[at])!r} of layout {layout!r} holds {rows} rows, which is "
            f"not a multiple of the {count} samples; pass one id for each example to "
            "key.at(step, samples=ids)"
        )
    other = rows // count
    return x.unflatten(at, (count, other) if groups[at][0] == EXAMPLE else (other, count))


def pack_again(y: Tensor, packed: PackedSequence) -> PackedSequence:
    """Pack the padded [t, b, ...], in the original order of the examples, like ``packed``."""
    if packed.sorted_indices is not None:
        y = y.index_select(1, packed.sorted_indices)
    steps = enumerate(packed.batch_sizes.tolist())
    return packed._replace(data=torch.cat([y[t, :count] for t, count in steps]))


def check_shard(shard: tuple[str, int, int], spec: Drop) -> tuple[str, int, int]:
    """Return (axis, index, count) after checking it."""
    if not isinstance(shard, (tuple, list)) or len(shard) != 3:
        raise InputError(
            f"shard has to be (axis, index, count), such as ('d', rank, ranks), but got {shard!r}"
        )
    axis, index, count = shard
    count = whole(count, "the count of shard", 1)
    index = whole(index, "the index of shard", 0)
    names = spec.of.split()
    if isinstance(spec.per, Block) or axis not in names or axis in (EXAMPLE, "*"):
        raise InputError(
            "shard names an axis of the layout that is neither b nor '*', such as "
            f"shard=('d', rank, ranks) with layout='b t d', but got axis {axis!r} of {spec.of!r}"
        )
    if not 0 <= index < count:
        raise InputError(f"shard is (axis, index, count) with 0 <= index < count, but got {shard}")
    return axis, index, count


def shard_of(
    spec: Drop, shape: tuple[int, ...], axis: str, index: int, count: int
) -> dispatch.PreparedPlan:
    """Prepare the plan of one part: the mask entries of the whole tensor, from its start on."""
    at = expand(spec.of, len(shape)).index(axis)
    whole = plan(spec, (*shape[:at], shape[at] * count, *shape[at + 1 :]))
    part = dispatch.prepare(plan(spec, shape))
    return part._replace(
        rows=0, strides=whole.strides, offset=index * shape[at] * whole.strides[at]
    )
