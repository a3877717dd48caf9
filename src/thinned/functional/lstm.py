"""An LSTM layer with noise on its states and a hand-written backward pass.

It takes a third of the operations that autograd needs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..engines.torch import dispatch


class StateFactors(NamedTuple):
    """The factors on the states of one layer and direction: [b, h], a number, or None."""

    # of h before it is multiplied by the weights; [gates, b, h] where gates are not tied
    hidden: Tensor | float | None = None
    # of what is written into the memory; or [t, b, h]
    candidate: Tensor | float | None = None
    cell: Tensor | float | None = None  # of the memory itself
    # the fraction of the way from the previous h (c) to the new one; [t, b, h]
    update: Tensor | float | None = None
    cell_update: Tensor | float | None = None


def is_supported(x: Tensor, noise: StateFactors) -> bool:
    """Whether :class:`LSTMLayerFunction` can run.

    Compilation, transforms and autocast need the loop that autograd differentiates.
    """
    tensors = (
        all(n is None or isinstance(n, Tensor) for n in noise)
        and getattr(noise.hidden, "ndim", 2) == 2
    )
    eager = (
        not torch.compiler.is_compiling()
        and not dispatch.under_transform()
        and not x.is_meta
        and not torch.is_autocast_enabled(x.device.type)
    )
    return tensors and eager and x.dtype in (torch.float32, torch.float64)


def _each(mask: Tensor | None, steps: int, like: Tensor) -> list[Tensor | None]:
    """A mask for each step, in the dtype of ``like``."""
    if mask is None:
        return [None] * steps
    return list(mask.to(like.dtype).expand(steps, *mask.shape[-2:]).unbind(0))


class LSTMLayerFunction(torch.autograd.Function):
    """Computes (outputs [t, b, h], last h, last c) of one layer in one direction.

    ``x`` [t, b, d]; weights and bias as in torch, with the two biases added; ``noise`` a
    :class:`StateFactors` of tensors; ``reference``: the same by autograd, for second derivatives.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        h: Tensor,
        c: Tensor,
        weight_ih: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        noise: StateFactors,
        reference: Callable[..., tuple[Tensor, Tensor, Tensor]],
    ) -> tuple[Tensor, Tensor, Tensor]:
        steps, (batch, size), start, c0 = len(x), h.shape, h, c
        gates = _linear(x, weight_ih, bias)  # [t, b, 4 h], and activated in place below
        tanhs, states = gates.new_empty(steps, batch, size), gates.new_empty(steps, batch, size)
        cells = gates.new_empty(steps + 1, batch, size)  # the memory before each step, and the last
        cells[0] = c
        masked = gates.new_empty(steps, batch, size)  # h after its mask, before the weights
        hidden, cell = (None if m is None else m.to(x.dtype) for m in (noise.hidden, noise.cell))  # type: ignore[union-attr]
        candidate, update, cell_update = (
            _each(m, steps, x)  # type: ignore[arg-type]
            for m in (noise.candidate, noise.update, noise.cell_update)
        )
        for t, gate in enumerate(gates.unbind(0)):
            torch.mul(h, 1.0 if hidden is None else hidden, out=masked[t])
            gate.add_(_linear(masked[t], weight))
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
            if (drawn := update[t]) is not None:
                new = torch.lerp(h, new, drawn, out=states[t])
            if (drawn := cell_update[t]) is not None:
                torch.lerp(c, fresh, drawn, out=fresh)
            h = new
        ctx.noise, ctx.reference = (hidden, cell, candidate, update, cell_update), reference
        ctx.save_for_backward(x, start, c0, weight_ih, weight, bias, gates, cells, tanhs, masked)
        ctx.reference_noise = noise
        return states, h.clone(), cells[-1].clone()

    @staticmethod
    def backward(ctx: Any, grads: Tensor, dh: Tensor, dc: Tensor) -> tuple[Tensor | None, ...]:
        x, _, _, weight_ih, weight, bias, gates, cells, tanhs, masked = ctx.saved_tensors
        if torch.is_grad_enabled():
            return _double_backward(ctx, (grads, dh, dc))
        hidden, cell, candidate, update, cell_update = ctx.noise
        size = masked.shape[-1]
        slopes = torch.empty_like(gates)
        dh, dc = dh.clone(), dc.clone()
        buffer, transposed = torch.empty_like(dc), weight.t().contiguous()
        for t in range(len(x) - 1, -1, -1):
            i, f, g, o = gates[t].chunk(4, 1)
            slope, tanh = slopes[t], tanhs[t]
            dh.add_(grads[t])
            kept_dh = kept_dc = None
            if update[t] is not None:
                moved = dh * update[t]
                kept_dh, dh = dh.sub_(moved), moved
            if cell_update[t] is not None:
                moved = dc * cell_update[t]
                kept_dc, dc = dc.sub_(moved), moved
            torch.mul(dh, o, out=buffer)
            dc.add_(torch.ops.aten.tanh_backward.grad_input(buffer, tanh, grad_input=buffer))
            if cell is not None:
                dc.mul_(cell)
            torch.mul(dc, cells[t], out=slope[:, size : 2 * size])
            torch.mul(dh, tanh, out=slope[:, 3 * size :])
            written = dc if candidate[t] is None else torch.mul(dc, candidate[t], out=buffer)
            torch.mul(written, g, out=slope[:, :size])
            torch.mul(written, i, out=slope[:, 2 * size : 3 * size])
            _gate_backward(gates[t], slope, size)
            dc = dc.mul_(f) if kept_dc is None else kept_dc.addcmul_(dc, f)
            dh = _linear(slope, transposed)
            if hidden is not None:
                dh.mul_(hidden)
            if kept_dh is not None:
                dh.add_(kept_dh)
        flat, needed = slopes.flatten(0, 1), ctx.needs_input_grad
        transposed = flat.t().contiguous()
        grad_x = _linear(flat, weight_ih.t().contiguous()).view_as(x) if needed[0] else None
        grad_ih = _linear(transposed, x.flatten(0, 1).t().contiguous()) if needed[3] else None
        grad_hh = _linear(transposed, masked.flatten(0, 1).t().contiguous()) if needed[4] else None
        return grad_x, dh, dc, grad_ih, grad_hh, None if bias is None else flat.sum(0), None, None


def _linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x W^T + bias, by oneDNN where torch has it, as in the LSTM of torch.

    The other products of torch can be half as fast.
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


def _gate_backward(gate: Tensor, slope: Tensor, size: int) -> None:
    """Multiply the gradients of the activated gates by the slopes of sigmoid and tanh, in place."""
    for part in (slice(0, 2 * size), slice(3 * size, 4 * size)):
        torch.ops.aten.sigmoid_backward.grad_input(
            slope[:, part], gate[:, part], grad_input=slope[:, part]
        )
    part = slice(2 * size, 3 * size)
    torch.ops.aten.tanh_backward.grad_input(
        slope[:, part], gate[:, part], grad_input=slope[:, part]
    )


def _double_backward(ctx: Any, grads: tuple[Tensor, ...]) -> tuple[Tensor | None, ...]:
    """The gradient as a graph that can be differentiated again: that of the reference loop."""
    inputs = ctx.saved_tensors[:6]
    indices = [n for n, needed in enumerate(ctx.needs_input_grad[:6]) if needed]
    results = ctx.reference(*inputs, ctx.reference_noise)
    grads_of_inputs = torch.autograd.grad(
        results, [inputs[n] for n in indices], grads, create_graph=True, allow_unused=True
    )
    slopes = dict(zip(indices, grads_of_inputs, strict=True))
    return (*(slopes.get(n) for n in range(6)), None, None)
