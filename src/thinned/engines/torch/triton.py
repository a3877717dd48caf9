"""The GPU kernels in Triton: the same Philox, thresholds and constants as the native kernels.

Where the layout allows it, a lane draws one Philox block for eight consecutive mask elements;
otherwise it draws two for each element. Seeds, steps, ids and rates are read from memory, so a
captured or compiled graph does not change with them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

try:
    import triton
    import triton.language as tl
except ImportError:
    triton = None

missing = "" if triton is not None else "Triton is not installed; pip install triton"
_DIMS = 4  # number of axes that a kernel walks, after merging
_BLOCK = 1024

if triton is not None:

    @triton.jit
    def _philox(c0, c1, c2, c3, k0, k1):  # type: ignore[no-untyped-def]
        """Return the four words of Philox4x32-10 for uint32 tensors of counters."""
        for _ in tl.static_range(10):
            p0, p2 = c0, c2
            c0 = tl.umulhi(tl.full(p2.shape, 0xCD9E8D57, tl.uint32), p2) ^ c1 ^ k0
            c2 = tl.umulhi(tl.full(p0.shape, 0xD2511F53, tl.uint32), p0) ^ c3 ^ k1
            c1 = p2 * tl.full(p2.shape, 0xCD9E8D57, tl.uint32)
            c3 = p0 * tl.full(p0.shape, 0xD2511F53, tl.uint32)
            k0 = k0 + tl.full(k0.shape, 0x9E3779B9, tl.uint32)
            k1 = k1 + tl.full(k1.shape, 0xBB67AE85, tl.uint32)
        return c0, c1, c2, c3

    @triton.jit
    def _words(blocks, samples, steps, seed, stream_low, stream_high, call):  # type: ignore[no-untyped-def]
        """Return the four words of each Philox block.

        The key is derived first (docs/masks.md).
        """
        zero = tl.zeros(blocks.shape, tl.uint32)
        low, high = (seed & 0xFFFFFFFF).to(tl.uint32), ((seed >> 32) & 0xFFFFFFFF).to(tl.uint32)
        k0, k1, _, _ = _philox(
            zero + stream_low.to(tl.uint32),
            zero + stream_high.to(tl.uint32),
            zero + call.to(tl.uint32),
            zero + tl.full(blocks.shape, 0x7468696E, tl.uint32),
            zero + low,
            zero + high,
        )
        return _philox(
            blocks.to(tl.uint32),
            (samples & 0xFFFFFFFF).to(tl.uint32),
            ((samples >> 32) & 0xFFFFFFFF).to(tl.uint32),
            steps.to(tl.uint32),
            k0,
            k1,
        )

    @triton.jit
    def _half(w0, w1, w2, w3, element):  # type: ignore[no-untyped-def]
        """Return the (element % 8)-th 16 bits of a block, for one mask element per lane."""
        pick = (element >> 1) & 3
        word = tl.where(pick < 2, tl.where(pick == 0, w0, w1), tl.where(pick == 2, w2, w3))
        return tl.where((element & 1) == 1, word >> 16, word & 0xFFFF)

    @triton.jit
    def _spread(w0, w1, w2, w3):  # type: ignore[no-untyped-def]
        """Return the eight halves of the block of each lane, in the order of mask elements."""
        even = tl.interleave(
            tl.interleave(w0 & 0xFFFF, w2 & 0xFFFF), tl.interleave(w1 & 0xFFFF, w3 & 0xFFFF)
        )
        odd = tl.interleave(tl.interleave(w0 >> 16, w2 >> 16), tl.interleave(w1 >> 16, w3 >> 16))
        return tl.interleave(even, odd)

    @triton.jit
    def _offset(i, n1, n2, n3, a0, a1, a2, a3):  # type: ignore[no-untyped-def]
        """Return the dot product of the index of element i with four strides."""
        i3, rest = i % n3, i // n3
        i2, rest = rest % n2, rest // n2
        return (rest // n1) * a0 + (rest % n1) * a1 + i2 * a2 + i3 * a3

    @triton.jit
    def _map_kernel(  # type: ignore[no-untyped-def]
        x,
        residual,
        y,
        constants,
        key,
        sample_ids,
        total,
        # the sizes of the last three axes; the strides of x, residual, y, the mask and the examples
        n1, n2, n3,
        x0, x1, x2, x3,
        r0, r1, r2, r3,
        y0, y1, y2, y3,
        c0, c1, c2, c3,
        e0, e1, e2, e3,
        offset,
        examples,
        stream_low,
        stream_high,
        call,
        LAW: tl.constexpr,
        EIGHTS: tl.constexpr,
        STEPPED: tl.constexpr,
        IDS: tl.constexpr,
        STEPS: tl.constexpr,
        ONES: tl.constexpr,
        ADD: tl.constexpr,
        GRAD: tl.constexpr,
        DOUBLE: tl.constexpr,
        BLOCK: tl.constexpr,
    ):  # fmt: skip
        i = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
        inside = i < total
        seed = tl.load(key)
        if EIGHTS:  # noqa: SIM108 - lanes of eight consecutive mask elements of one example
            g = tl.program_id(0).to(tl.int64) * BLOCK + 8 * tl.arange(0, BLOCK // 8)
        else:
            g = i
        element = offset + _offset(g, n1, n2, n3, c0, c1, c2, c3)
        example = _offset(g, n1, n2, n3, e0, e1, e2, e3)
        known = g < total
        sample = tl.load(sample_ids + example, mask=known, other=0) if IDS else example
        if STEPS:
            step = tl.load(sample_ids + examples + example, mask=known, other=0)
        elif STEPPED:
            step = tl.load(key + 1) + tl.zeros(g.shape, tl.int64)
        else:
            step = tl.zeros(g.shape, tl.int64)
        wide = tl.float64 if DOUBLE else tl.float32
        gain = tl.load(constants + 1).to(tl.float64, bitcast=True).to(wide)
        shift = tl.load(constants + 2).to(tl.float64, bitcast=True).to(wide)
        dropped = tl.load(constants + 3).to(tl.float64, bitcast=True).to(wide)
        spread = tl.load(constants + 4).to(tl.float64, bitcast=True).to(wide)
        if GRAD:
            shift, dropped = shift * 0, dropped * 0
        if ONES:
            value = tl.full(i.shape, 1.0, wide)
        else:
            value = tl.load(x + _offset(i, n1, n2, n3, x0, x1, x2, x3), mask=inside, other=0).to(
                wide
            )
        if LAW == 0:
            threshold = tl.load(constants)
            edge = threshold >> 16
            h0, h1, h2, h3 = _words(element >> 3, sample, step, seed, stream_low, stream_high, call)
            if EIGHTS:
                high = _spread(h0, h1, h2, h3).to(tl.int64)
                is_dropped = high < edge
                tie = (high == edge) & inside
                if tl.max(tie.to(tl.int32), 0) > 0:  # about one program in sixty
                    l0, l1, l2, l3 = _words(
                        (element >> 3) | 0x80000000,
                        sample,
                        step,
                        seed,
                        stream_low,
                        stream_high,
                        call,
                    )
                    is_dropped = is_dropped | (
                        tie & (_spread(l0, l1, l2, l3).to(tl.int64) < (threshold & 0xFFFF))
                    )
            else:
                l0, l1, l2, l3 = _words(
                    (element >> 3) | 0x80000000, sample, step, seed, stream_low, stream_high, call
                )
                word = (_half(h0, h1, h2, h3, element) << 16) | _half(l0, l1, l2, l3, element)
                is_dropped = word.to(tl.int64) < threshold
            out = value * tl.where(is_dropped, gain * 0, gain) + tl.where(
                is_dropped, dropped, shift
            )
            # where everything is dropped, x may hold inf or NaN
            out = tl.where(threshold > 0xFFFFFFFF, dropped + tl.zeros(i.shape, wide), out)
        else:
            h0, h1, h2, h3 = _words(element >> 3, sample, step, seed, stream_low, stream_high, call)
            l0, l1, l2, l3 = _words(
                (element >> 3) | 0x80000000, sample, step, seed, stream_low, stream_high, call
            )
            if LAW == 2:
                word = (_half(h0, h1, h2, h3, element) << 16) | _half(l0, l1, l2, l3, element)
                noise = (word.to(tl.float64) + 0.5) * (2.0 / 4294967296.0) - 1.0
            else:
                # Box-Muller on the words of both elements of the pair; in float64, because log is
                # steep near 0 and flat near 1
                first = element - (element & 1)
                word = (_half(h0, h1, h2, h3, first) << 16) | _half(l0, l1, l2, l3, first)
                other = (_half(h0, h1, h2, h3, first + 1) << 16) | _half(l0, l1, l2, l3, first + 1)
                u = (word.to(tl.float64) + 0.5) / 4294967296.0
                angle = (other.to(tl.float64) + 0.5) / 4294967296.0 * 6.283185307179586
                noise = tl.sqrt(-2.0 * tl.log(u)) * tl.where(
                    (element & 1) == 0, tl.cos(angle), tl.sin(angle)
                )
            out = value * (gain + gain * spread * noise.to(wide)) + shift
        if ADD:
            out += tl.load(
                residual + _offset(i, n1, n2, n3, r0, r1, r2, r3), mask=inside, other=0
            ).to(wide)
        tl.store(y + _offset(i, n1, n2, n3, y0, y1, y2, y3), out, mask=inside)

    @triton.jit
    def _norm_kernel(  # type: ignore[no-untyped-def]
        x,
        residual,
        weight,
        bias,
        total,
        y,
        means,
        rstds,
        constants,
        key,
        sample_ids,
        width,
        tokens,
        eps,
        stream_low,
        stream_high,
        call,
        STEPPED: tl.constexpr,
        IDS: tl.constexpr,
        BLOCK: tl.constexpr,
    ):
        """Compute one row of [examples, tokens, width].

        total = residual + dropout(x), y = layer_norm(total).
        """
        row = tl.program_id(0).to(tl.int64)
        column = tl.arange(0, BLOCK).to(tl.int64)
        inside = column < width
        example = row // tokens
        sample = tl.load(sample_ids + example) if IDS else example
        step = tl.load(key + 1) if STEPPED else sample * 0
        element = (row % tokens) * width + column
        zero = tl.zeros(column.shape, tl.int64)
        seed = tl.load(key)
        h0, h1, h2, h3 = _words(
            element >> 3, zero + sample, zero + step, seed, stream_low, stream_high, call
        )
        l0, l1, l2, l3 = _words(
            (element >> 3) | 0x80000000,
            zero + sample,
            zero + step,
            seed,
            stream_low,
            stream_high,
            call,
        )
        word = (_half(h0, h1, h2, h3, element) << 16) | _half(l0, l1, l2, l3, element)
        threshold = tl.load(constants)
        gain = tl.load(constants + 1).to(tl.float64, bitcast=True).to(tl.float32)
        a = tl.where(word.to(tl.int64) < threshold, gain * 0, gain)
        value = tl.load(x + row * width + column, mask=inside, other=0).to(tl.float32)
        h = tl.where(threshold > 0xFFFFFFFF, 0.0, value * a) + tl.load(
            residual + row * width + column, mask=inside, other=0
        ).to(tl.float32)
        mean = tl.sum(tl.where(inside, h, 0.0), 0) / width
        centered = tl.where(inside, h - mean, 0.0)
        rstd = 1.0 / tl.sqrt(tl.sum(centered * centered, 0) / width + eps)
        scale = tl.load(weight + column, mask=inside, other=0).to(tl.float32)
        out = centered * rstd * scale + tl.load(bias + column, mask=inside, other=0).to(tl.float32)
        tl.store(total + row * width + column, h, mask=inside)
        tl.store(y + row * width + column, out, mask=inside)
        tl.store(means + row, mean)
        tl.store(rstds + row, rstd)


def _walk(
    y: Tensor, others: Sequence[Tensor], mask_strides: Sequence[int], axis: int
) -> tuple[list[int], list[list[int]]] | None:
    """Merge the axes of tensors, in the order of y's memory.

    Returns (sizes, [strides of y, of each other tensor, of the mask, of the examples]), padded to
    ``_DIMS`` axes; None where more axes remain than the kernels walk.
    """
    rows = [
        (y.shape[d], [y.stride(d), *(t.stride(d) for t in others), mask_strides[d], int(d == axis)])
        for d in range(y.dim())
        if y.shape[d] > 1
    ]
    rows.sort(key=lambda r: -r[1][0])
    merged: list[tuple[int, list[int]]] = []
    for size, strides in rows:
        if merged and all(o == s * size for o, s in zip(merged[-1][1], strides, strict=True)):
            merged[-1] = (merged[-1][0] * size, strides)
        else:
            merged.append((size, strides))
    if len(merged) > _DIMS:
        return None
    width = len(others) + 3
    merged = [(1, [0] * width)] * (_DIMS - len(merged)) + merged
    return [size for size, _ in merged], [
        [strides[k] for _, strides in merged] for k in range(width)
    ]


def _run(
    x: Tensor | None,
    residual: Tensor | None,
    y: Tensor,
    constants: Tensor,
    key: Tensor,
    sample_ids: Tensor | None,
    mask_strides: Sequence[int],
    axis: int,
    law: int,
    offset: int,
    stream: int,
    call: int,
    grad: bool,
) -> None:
    """Write the map of ``x`` (of ones where it is None), plus ``residual``, to ``y``."""
    if not y.numel():
        return
    constants, key = constants.to(y.device), key.to(y.device)
    sample_ids = None if sample_ids is None or axis < 0 else sample_ids.to(y.device)
    inputs = [t for t in (x, residual) if t is not None]
    walked = _walk(y, inputs, mask_strides, axis)
    if walked is None:  # work in C order, where more axes merge
        out = torch.empty(y.shape, dtype=y.dtype, device=y.device)
        _run(
            None if x is None else x.contiguous(),
            None if residual is None else residual.contiguous(),
            out,
            constants,
            key,
            sample_ids,
            mask_strides,
            axis,
            law,
            offset,
            stream,
            call,
            grad,
        )
        y.copy_(out)
        return
    sizes, (ys, *mids, cs, es) = walked
    xs = mids[0] if x is not None else [0] * _DIMS
    rs = mids[-1] if residual is not None else [0] * _DIMS
    aligned = sizes[3] % 8 == 0 and offset % 8 == 0 and all(c % 8 == 0 for c in cs[:3])
    eights = law == 0 and cs[3] == 1 and aligned and not es[3]
    total = y.numel()
    _map_kernel[(triton.cdiv(total, _BLOCK),)](
        y if x is None else x,
        y if residual is None else residual,
        y,
        constants,
        key,
        key if sample_ids is None else sample_ids,
        total,
        *sizes[1:],
        *xs,
        *rs,
        *ys,
        *cs,
        *es,
        offset,
        0 if sample_ids is None else sample_ids.shape[-1],
        stream & 0xFFFFFFFF,
        (stream >> 32) & 0xFFFFFFFF,
        call,
        LAW=law,
        EIGHTS=eights,
        STEPPED=key.numel() > 1,
        IDS=sample_ids is not None,
        STEPS=sample_ids is not None and sample_ids.dim() == 2,
        ONES=x is None,
        ADD=residual is not None,
        GRAD=grad,
        DOUBLE=y.dtype == torch.float64,
        BLOCK=_BLOCK,
    )


def map(x: Tensor, *noise: Any) -> Tensor:
    """``thinned::map``."""
    y = torch.empty_like(x)
    _run(x, None, y, *noise)
    return y


def map_into(y: Tensor, x: Tensor, *noise: Any) -> None:
    """``thinned::map_into``."""
    _run(x, None, y, *noise)


def map_add(x: Tensor, residual: Tensor, *noise: Any) -> Tensor:
    """``thinned::map_add``."""
    y = torch.empty_like(x)
    _run(x, residual, y, *(*noise, False))
    return y


def factor(like: Tensor, *noise: Any) -> Tensor:
    """``thinned::factor``."""
    y = torch.empty_like(like)
    _run(None, None, y, *(*noise, True))
    return y


def add_norm(
    x: Tensor,
    residual: Tensor,
    weight: Tensor,
    bias: Tensor,
    eps: float,
    constants: Tensor,
    key: Tensor,
    sample_ids: Tensor | None,
    stream: int,
    call: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return (layer_norm(total), total, mean, 1 / deviation) of total = residual + dropout(x).

    [examples, ..., width], in one pass.
    """
    x, residual = x.contiguous(), residual.contiguous()
    width, rows = x.shape[-1], math.prod(x.shape[:-1])
    total, y = torch.empty_like(x), torch.empty_like(x)
    means, rstds = (
        torch.empty(*x.shape[:-1], 1, dtype=torch.float32, device=x.device) for _ in range(2)
    )
    if x.numel():
        _norm_kernel[(rows,)](
            x,
            residual,
            weight,
            bias,
            total,
            y,
            means,
            rstds,
            constants.to(x.device),
            key.to(x.device),
            key if sample_ids is None else sample_ids.to(x.device),
            width,
            rows // x.shape[0],
            eps,
            stream & 0xFFFFFFFF,
            (stream >> 32) & 0xFFFFFFFF,
            call,
            STEPPED=key.numel() > 1,
            IDS=sample_ids is not None,
            BLOCK=triton.next_power_of_2(width),
        )
    return y, total, means, rstds
