"""A layer of an LSTM whose states fall, with its backward pass written out: a third of the
operations that autograd needs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..engines.torch import dispatch


class Noise(NamedTuple):
    """What acts on the states of one layer and direction: [b, h], or a number, or None where
    nothing does.
    """

    hidden: Tensor | float | None = (
        None  # the factor of h where it meets weights; [gates, b, h] where gates are not tied
    )
    candidate: Tensor | float | None = (
        None  # the factor of what is written into the memory; or [t, b, h]
    )
    cell: Tensor | float | None = None  # the factor of the memory itself
    moves: Tensor | float | None = None  # how far h moves to its new value; [t, b, h]
    cell_moves: Tensor | float | None = None


def fits(x: Tensor, noise: Noise) -> bool:
    """May :class:`LSTMLayerFunction` run? Under compilation, transforms and autocast the readable loop does."""
    tensors = (
        all(n is None or isinstance(n, Tensor) for n in noise)
        and getattr(noise.hidden, "ndim", 2) == 2
    )
    plain = (
        not torch.compiler.is_compiling()
        and not dispatch.under_transform()
        and not torch.is_autocast_enabled(x.device.type)
    )
    return tensors and plain and x.dtype in (torch.float32, torch.float64)


def _each(mask: Tensor | None, steps: int, like: Tensor) -> list[Tensor | None]:
    """A mask for each step, in the type of ``like``."""
    if mask is None:
        return [None] * steps
    return list(mask.to(like.dtype).expand(steps, *mask.shape[-2:]).unbind(0))


class LSTMLayerFunction(torch.autograd.Function):
    """(outputs [t, b, h], last h, last c) of one layer in one direction.

    ``x`` [t, b, d]; weights and bias as torch's, the two biases added; ``noise`` a :class:`Noise`
    of tensors; ``readable``: the same by autograd, for second derivatives.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, h: Tensor, c: Tensor, inward: Tensor, weight: Tensor, bias: Tensor | None, noise: Noise,
        readable: Callable[..., tuple[Tensor, Tensor, Tensor]],
    ) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
        steps, (batch, size), start, c0 = len(x), h.shape, h, c
        gates = _linear(x, inward, bias)  # [t, b, 4 h], and activated in place below
        tanhs, states = gates.new_empty(steps, batch, size), gates.new_empty(steps, batch, size)
        cells = gates.new_empty(steps + 1, batch, size)  # the memory before each step, and the last
        cells[0] = c
        met = gates.new_empty(steps, batch, size)  # h as it meets the weights
        hidden, cell = (None if m is None else m.to(x.dtype) for m in (noise.hidden, noise.cell))  # type: ignore[union-attr]
        candidate, moves, cell_moves = (
            _each(m, steps, x)  # type: ignore[arg-type]
            for m in (noise.candidate, noise.moves, noise.cell_moves)
        )
        for t, gate in enumerate(gates.unbind(0)):
            torch.mul(h, 1.0 if hidden is None else hidden, out=met[t])
            gate.add_(_linear(met[t], weight))
            gate[:, : 2 * size].sigmoid_()
            gate[:, 3 * size :].sigmoid_()
            i, f, g, o = gate.chunk(4, 1)
            g.tanh_()
            c = cells[t]
            fresh = torch.mul(i, g, out=cells[t + 1])
            if (drawn := candidate[t]) is not None:
                fresh.mul_(drawn)
            fresh.addcmul_(f, c)
            if cell is not None:
                fresh.mul_(cell)
            torch.tanh(fresh, out=tanhs[t])
            new = torch.mul(o, tanhs[t], out=states[t])
            if (drawn := moves[t]) is not None:
                new = torch.lerp(h, new, drawn, out=states[t])
            if (drawn := cell_moves[t]) is not None:
                torch.lerp(c, fresh, drawn, out=fresh)
            h = new
        ctx.noise, ctx.readable = (hidden, cell, candidate, moves, cell_moves), readable
        ctx.save_for_backward(x, start, c0, inward, weight, bias, gates, cells, tanhs, met)
        ctx.first = noise
        return states, h.clone(), cells[-1].clone()

    @staticmethod
    def backward(ctx: Any, grads: Tensor, dh: Tensor, dc: Tensor) -> tuple[Tensor | None, ...]:
        x, _, _, inward, weight, bias, gates, cells, tanhs, met = ctx.saved_tensors
        if torch.is_grad_enabled():
            return _twice(ctx, (grads, dh, dc))
        hidden, cell, candidate, moves, cell_moves = ctx.noise
        size = met.shape[-1]
        slopes = torch.empty_like(gates)
        dh, dc = dh.clone(), dc.clone()
        buffer, turned = torch.empty_like(dc), weight.t().contiguous()
        for t in range(len(x) - 1, -1, -1):
            i, f, g, o = gates[t].chunk(4, 1)
            slope, tanh = slopes[t], tanhs[t]
            dh.add_(grads[t])
            stays_h = stays_c = None
            if moves[t] is not None:
                moved = dh * moves[t]
                stays_h, dh = dh.sub_(moved), moved
            if cell_moves[t] is not None:
                moved = dc * cell_moves[t]
                stays_c, dc = dc.sub_(moved), moved
            torch.mul(dh, o, out=buffer)
            dc.add_(torch.ops.aten.tanh_backward.grad_input(buffer, tanh, grad_input=buffer))
            if cell is not None:
                dc.mul_(cell)
            torch.mul(dc, cells[t], out=slope[:, size : 2 * size])
            torch.mul(dh, tanh, out=slope[:, 3 * size :])
            written = dc if candidate[t] is None else torch.mul(dc, candidate[t], out=buffer)
            torch.mul(written, g, out=slope[:, :size])
            torch.mul(written, i, out=slope[:, 2 * size : 3 * size])
            _through(gates[t], slope, size)
            dc = dc.mul_(f) if stays_c is None else stays_c.addcmul_(dc, f)
            dh = _linear(slope, turned)
            if hidden is not None:
                dh.mul_(hidden)
            if stays_h is not None:
                dh.add_(stays_h)
        flat, needed = slopes.flatten(0, 1), ctx.needs_input_grad
        turned = flat.t().contiguous()
        to_x = _linear(flat, inward.t().contiguous()).view_as(x) if needed[0] else None
        by_inward = _linear(turned, x.flatten(0, 1).t().contiguous()) if needed[3] else None
        by_weight = _linear(turned, met.flatten(0, 1).t().contiguous()) if needed[4] else None
        return to_x, dh, dc, by_inward, by_weight, None if bias is None else flat.sum(0), None, None


def _linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x W^T + bias: by oneDNN where torch has it, as torch's LSTM does it; its other products may
    be half as fast.
    """
    if (
        _ONEDNN is not None
        and x.dtype == torch.float32
        and x.is_cpu
        and torch.backends.mkldnn.enabled
    ):
        y: Tensor = _ONEDNN(x, weight, bias, "none", [], "")
        return y
    return torch.nn.functional.linear(x, weight, bias)


_ONEDNN = (
    getattr(torch.ops.mkldnn, "_linear_pointwise", None)
    if torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    else None
)


def _through(gate: Tensor, slope: Tensor, size: int) -> None:
    """Multiply what comes to the activated gates by the slopes of sigmoid and tanh, in place."""
    for part in (slice(0, 2 * size), slice(3 * size, 4 * size)):
        torch.ops.aten.sigmoid_backward.grad_input(
            slope[:, part], gate[:, part], grad_input=slope[:, part]
        )
    part = slice(2 * size, 3 * size)
    torch.ops.aten.tanh_backward.grad_input(
        slope[:, part], gate[:, part], grad_input=slope[:, part]
    )


def _twice(ctx: Any, grads: tuple[Tensor, ...]) -> tuple[Tensor | None, ...]:
    """The gradient as a graph that has a gradient itself: the readable loop's."""
    given = ctx.saved_tensors[:6]
    places = [n for n, needed in enumerate(ctx.needs_input_grad[:6]) if needed]
    results = ctx.readable(*given, ctx.first)
    found = torch.autograd.grad(
        results, [given[n] for n in places], grads, create_graph=True, allow_unused=True
    )
    slopes = dict(zip(places, found, strict=True))
    return (*(slopes.get(n) for n in range(6)), None, None)
