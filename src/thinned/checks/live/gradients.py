"""Rules that need a backward pass."""

from __future__ import annotations

import contextlib
import math
import warnings
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from ...nn.module import DropoutModule
from ...surgery.model_access import seed_all
from ..finding import Finding
from .battery import Battery
from .evaluation import at, far
from .preserve import copied, floats, same
from .record import DROPS

STEPS = (1e-5, 1e-6, 1e-7)
TOLERANCE = 1e-4
DIRECTIONS = 2
ROUNDING = 1e-11  # of two passes in double precision; another mask moves a value by far more


def recomputed_otherwise(battery: Battery) -> Iterator[Finding]:
    """L8: the forward pass that checkpointing recomputes draws other masks than the first.

    Signal: a site draws within the backward pass, gradients on, with generators at a place where
    they stood at none of its first draws, and its mask is none of those that it drew first. Where
    masks cannot be seen (attention, recurrent networks) the generators decide, and for our keyed
    layers the masks. No statistics.
    """
    for record, _ in battery.with_gradient[:1]:
        first = [d for d in record.draws if not d.again]
        for place, again in record.of(
            again=True
        ).items():  # the caller's file and line are not on the stack any more
            alike = [d for d in first if d.place[1:3] == place[1:3]]
            was = [d for d in alike if d.name == place[0]] or alike
            if place[1] not in (*DROPS, "noise", "unseen") or not was:
                continue
            states, masks = {w.state for w in was}, {w.mask for w in was}
            other = [
                a for a in again if a.state not in states and (not a.mask or a.mask not in masks)
            ]
            if other:
                yield Finding("L8", f"{place[2]} draws again while its pass is recomputed, and otherwise", **at(was[0]),
                              evidence=(("recomputed draws", float(len(again))), ("others", float(len(other)))))  # fmt: skip


def no_effect(battery: Battery) -> Iterator[Finding]:
    """L21, effect: the model draws masks, and neither its output nor any gradient depends on them.

    Signal: the outputs of all training passes and the gradients of two are equal bit by bit, while
    a site's masks differed on at least two cells. A branch that starts at 0, as LoRA's, has
    gradients that differ, and is no finding.
    """
    if len(battery.with_gradient) < 2:
        return
    outputs = [r.output for r in battery.training]
    (one, grads), (two, others) = battery.with_gradient
    if any(far(outputs[0], o) for o in outputs[1:]) or far(one.output, two.output):
        return
    if any(
        (g is None) != (others[n] is None) or (g is not None and not same(g, others[n]))  # type: ignore[arg-type]
        for n, g in grads.items()
    ):
        return
    for place, calls in battery.early[0].of().items():
        masks = {d.mask for r in battery.training for d in r.of().get(place, [])[:1]}
        rate = calls[0].rate
        if (
            place[1] in ("dropout", "mask")
            and rate is not None
            and 0 < rate < 1
            and len(masks) > 1
            and calls[0].cells > 1
        ):
            yield Finding("L21", f"{place[2]} drops at rate {rate:g}, and no output and no gradient depends on it",
                          evidence=(("different masks", float(len(masks))),), **at(calls[0]))  # fmt: skip


def wrong(battery: Battery) -> Iterator[Finding]:
    """L30: with its masks held fixed the model's gradient is not that of the function that it
    computes.

    A copy in double precision is evaluated from one state of all generators. Statistic: central
    differences with steps 1e-5, 1e-6 and 1e-7 (relative to the size of each tensor) along two
    random directions in all parameters and inputs, against autograd. A finding needs all three to
    differ from autograd by more than 1e-4 of the sum of the tensors' shares, in both directions,
    and to lie nearer to one another than to a quarter of that; a kink does not pass this. It is
    none where the same model without dropout disagrees as well (a stopped gradient, a reversed
    one), or where the function does not move at all along what disagrees (a straight-through
    estimator).
    """
    if battery.unchecked and any(code == "L30" for code, _ in battery.unchecked):
        return
    if not any(d.place[1] in (*DROPS, "noise", "unseen") for d in battery.early[0].draws):
        return
    if any(True for _ in recomputed_otherwise(battery)):
        battery.unchecked.append(("L30", "L8 explains a gradient that is wrong"))
        return
    try:
        twin = battery.twin()
    except (RuntimeError, TypeError) as error:
        battery.unchecked.append(
            ("L30", f"the model cannot be copied in double precision: {str(error).splitlines()[0]}")
        )
        return
    try:
        checker = _Checker(battery, twin)
        try:
            gaps = checker.gaps(training=True)
        except RuntimeError:  # a model that sets requires_grad of what it is given
            checker.parameters_alone()
            gaps = checker.gaps(training=True)
        if gaps is None or any(g == 0.0 for g in gaps.values()):
            return
        rest = checker.gaps(training=False)
    except (RuntimeError, TypeError, ValueError, NotImplementedError) as error:
        battery.unchecked.append(
            ("L30", f"the copy in double precision raised: {str(error).splitlines()[0]}")
        )
        return
    except _Moved as reason:
        battery.unchecked.append(("L30", str(reason)))
        return
    if rest is not None and all(rest.values()):
        battery.unchecked.append(
            (
                "L30",
                "the gradient is another one without dropout too (a stopped or reversed gradient?)",
            )
        )
        return
    guilty = checker.guilty()
    if guilty:
        name, analytic, numeric = guilty
        yield Finding("L30", f"with the masks fixed, the slope along {name} is {numeric:.6g}, and autograd says {analytic:.6g}",
                      site=name.rpartition(".")[0], evidence=(("autograd", analytic), ("differences", numeric),
                      ("tolerance", TOLERANCE)))  # fmt: skip


class _Moved(Exception):
    """Two passes from one state of the generators differ."""


class _Checker:
    def __init__(self, battery: Battery, twin: nn.Module) -> None:
        self.battery, self.twin = battery, twin
        self.inputs, self.named = torch.utils._pytree.tree_map(
            _double, copied((battery.inputs, battery.named))
        )
        self.attributes = [
            (m, {n: v for n, v in vars(m).items() if not n.startswith("_")}) for m in twin.modules()
        ]
        self.buffers = [(b, b.detach().clone()) for b in twin.buffers()]
        self.tensors: dict[str, Any] = {n: p for n, p in twin.named_parameters() if p.requires_grad}
        given = [t for t in floats((self.inputs, self.named)) if t.is_floating_point()]
        self.tensors |= {f"input {i}": t.requires_grad_() for i, t in enumerate(given)}
        self.training = True

    def parameters_alone(self) -> None:
        """Inputs need no gradient from here on."""
        for name in [n for n in self.tensors if n.startswith("input ")]:
            self.tensors.pop(name).requires_grad_(False)

    def value(self) -> Tensor:
        """The scalar, from one state of everything."""
        with torch.no_grad():
            for buffer, was in self.buffers:
                buffer.copy_(was)
        for module, attributes in self.attributes:
            vars(module).update(attributes)
        self.twin.train(self.training)
        for module in self.twin.modules():
            if isinstance(module, DropoutModule) and module.owner is not None:
                module.calls.reset()
        seed_all(self.battery.seed + 50_000)
        self.battery.passes += 1
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            inputs, named = torch.utils._pytree.tree_map(_again, (self.inputs, self.named))
            value = self.battery.scalar(self.twin(*inputs, **named))
        if not torch.isfinite(value):
            raise _Moved("the model's output is not finite in double precision")
        return value

    def gaps(self, training: bool) -> dict[int, float] | None:
        """For each direction the difference between autograd and finite differences, 0 where it is
        within tolerance.
        """
        self.training = training
        with torch.enable_grad():
            for t in self.tensors.values():
                t.grad = None
            value = self.value()
            if not value.requires_grad:
                return None
            torch.autograd.backward(value)
        self.grads = {n: t.grad for n, t in self.tensors.items() if t.grad is not None}
        for t in self.tensors.values():
            t.grad = None
        with torch.no_grad():  # where other kernels may run, which round otherwise
            if not math.isclose(
                float(self.value()), float(value.detach()), rel_tol=ROUNDING, abs_tol=ROUNDING
            ):
                raise _Moved("two passes from one state of the generators differ")
        return {i: self._gap(self.direction(i, self.grads))[0] for i in range(DIRECTIONS)}

    def direction(self, number: int, names: Any) -> dict[str, Tensor]:
        """Random, in each tensor of its own size."""
        generator = torch.Generator().manual_seed(self.battery.seed + 60_000 + number)
        made = {}
        for name in names:
            t = self.tensors[name].detach()
            size = float(t.square().mean().sqrt()) if t.numel() else 0.0
            noise = torch.randn(t.shape, generator=generator, dtype=torch.float64).to(t.device)
            made[name] = noise * (size or 1.0)
        return made

    def _gap(self, direction: dict[str, Tensor]) -> tuple[float, float, float]:
        """(the gap, autograd's slope, the differences')."""
        parts = [float((self.grads[n] * d).sum()) for n, d in direction.items()]
        slope, scale = sum(parts), sum(abs(p) for p in parts)
        numeric = []
        for step in STEPS:
            ends = []
            for sign in (1.0, -1.0):
                with self._moved(direction, sign * step), torch.no_grad():
                    ends.append(float(self.value()))
            numeric.append((ends[0] - ends[1]) / (2 * step))
            if abs(numeric[-1] - slope) <= TOLERANCE * scale + 1e-9:
                return 0.0, slope, numeric[-1]
        gap = min(abs(n - slope) for n in numeric)
        agree = max(numeric) - min(numeric) <= 0.25 * gap
        return (gap if agree else 0.0), slope, numeric[0]

    @contextlib.contextmanager
    def _moved(self, direction: dict[str, Tensor], by: float) -> Iterator[None]:
        was = {n: self.tensors[n].detach().clone() for n in direction}
        with torch.no_grad():
            for name, d in direction.items():
                self.tensors[name].add_(d, alpha=by)
        try:
            yield
        finally:
            with torch.no_grad():
                for name, value in was.items():
                    self.tensors[name].copy_(value)

    def guilty(self) -> tuple[str, float, float] | None:
        """The first tensor along which alone the gradient is wrong, of those that the function
        depends on.
        """
        self.gaps(training=True)
        for name in self.grads:
            gap, slope, numeric = self._gap(self.direction(0, [name]))
            if gap and abs(numeric) > TOLERANCE * abs(slope):
                return name, slope, numeric
        return None


def _double(x: Any) -> Any:
    return x.detach().double() if isinstance(x, Tensor) and x.is_floating_point() else x


def _again(x: Any) -> Any:
    """The same tensor, safe from a pass that writes over its input."""
    return x.clone() if isinstance(x, Tensor) else x
