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
from ...surgery.model_call import copy_inputs
from ...surgery.tensor_values import equal_tensors, is_dense, kind_of, write_tensor
from ..finding import Finding
from .check_run import CheckRun
from .evaluation import largest_difference, location
from .preserve import float_tensors
from .record import DROPOUT_KINDS, DrawRecord

STEPS = (1e-5, 1e-6, 1e-7)
TOLERANCE = 1e-4
DIRECTIONS = 2
ROUNDING = 1e-11  # of two passes in double precision; another mask moves a value by far more


def recomputed_otherwise(run: CheckRun) -> Iterator[Finding]:
    """L8: the forward pass that checkpointing recomputes draws other masks than the first one.

    Signal: a site draws within the backward pass, with gradients on, while the generators are in a
    state that they had at none of its first draws, and its mask is none of those that it drew
    first. Where masks cannot be observed (attention, recurrent networks) the generators decide, and
    for our keyed layers the masks. No statistics.
    """
    for record, _ in run.gradient_passes[:1]:
        first = [d for d in record.draws if not d.recomputed]
        for place, again in record.by_place(recomputed=True).items():
            # the file and line of the caller are not on the stack any more
            alike = [d for d in first if d.place[1:3] == place[1:3]]
            originals = [d for d in alike if d.name == place[0]] or alike
            if place[1] not in (*DROPOUT_KINDS, "noise", "unseen") or not originals:
                continue
            states, masks = {d.state for d in originals}, {d.mask for d in originals}
            others = [
                d for d in again if d.state not in states and (not d.mask or d.mask not in masks)
            ]
            if others:
                text = f"{place[2]} draws another mask when its forward pass is recomputed"
                evidence = (
                    ("recomputed draws", float(len(again))),
                    ("others", float(len(others))),
                )
                yield Finding("L8", text, evidence=evidence, **location(originals[0]))


def no_effect(run: CheckRun) -> Iterator[Finding]:
    """L21, effect: the model draws masks, and neither its output nor any gradient depends on them.

    Signal: the outputs of all training passes and the gradients of two are equal bit by bit, while
    the masks of a site differed, and have at least two entries. A branch that starts at 0, such as
    that of LoRA, has gradients that differ, and is not reported.
    """
    if len(run.gradient_passes) < 2:
        return
    outputs = [r.output for r in run.training]
    (one, gradients), (two, others) = run.gradient_passes
    if any(largest_difference(outputs[0], output) for output in outputs[1:]):
        return
    if largest_difference(one.output, two.output):
        return
    if not all(_equal_or_none(gradient, others[n]) for n, gradient in gradients.items()):
        return
    for place, calls in run.training_before[0].by_place().items():
        draw = calls[0]
        masks = {d.mask for r in run.training for d in r.by_place().get(place, [])[:1]}
        drops = draw.kind in ("dropout", "mask") and draw.rate is not None and 0 < draw.rate < 1
        if drops and len(masks) > 1 and _many_entries(draw):
            text = (
                f"{draw.function} drops at rate {draw.rate:g}, but no output and no gradient "
                "depends on it"
            )
            evidence = (("different masks", float(len(masks))),)
            yield Finding("L21", text, evidence=evidence, **location(draw))


def _many_entries(draw: DrawRecord) -> bool:
    """Whether the mask has at least two entries; those of our layers are not counted."""
    return draw.entries > 1 or draw.layer is not None


def _equal_or_none(one: Tensor | None, other: Tensor | None) -> bool:
    if one is None or other is None:
        return one is other
    return equal_tensors(one, other)


def wrong(run: CheckRun) -> Iterator[Finding]:
    """L30: with fixed masks, the gradient of the model is not that of the function it computes.

    A copy in double precision is evaluated from one state of all generators. Statistic: central
    differences with steps 1e-5, 1e-6 and 1e-7 (relative to the size of each tensor) along two
    random directions in all parameters and inputs, compared with autograd. For a finding all three
    have to differ from autograd by more than 1e-4 of the sum of the contributions of the tensors,
    in both directions, and have to be nearer to one another than a quarter of that difference; a
    kink near by does not satisfy this. At a kink itself, such as that of max pooling over equal
    values, the slopes to both sides differ, and nothing is reported either. Nothing is reported
    where the same model without dropout disagrees as well (a stopped gradient, a reversed one), or
    where the function is constant along what disagrees (a straight-through estimator).
    """
    if any(code == "L30" for code, _ in run.unchecked):
        return
    kinds = (*DROPOUT_KINDS, "noise", "unseen")
    if not any(d.kind in kinds for d in run.training_before[0].draws):
        return
    if any(True for _ in recomputed_otherwise(run)):
        run.unchecked.append(("L30", "L8 explains the wrong gradient"))
        return
    try:
        twin = run.double_copy()
    except (RuntimeError, TypeError, KeyError) as error:  # KeyError: jagged tensors
        text = str(error).partition("\n")[0]
        run.unchecked.append(("L30", f"the model has no copy in double precision: {text}"))
        return
    try:
        checker = _GradientChecker(run, twin)
        try:
            gaps = checker.gaps(training=True)
        except RuntimeError:  # a model that sets requires_grad of its input
            checker.check_parameters_alone()
            gaps = checker.gaps(training=True)
        if gaps is None or any(g == 0.0 for g in gaps.values()):
            if gaps is not None and checker.at_kink:
                why = "the function has a kink here (equal values in max pooling, 0 in ReLU)"
                run.unchecked.append(("L30", f"{why}; other inputs show more"))
            return
        gaps_without = checker.gaps(training=False)
    except (RuntimeError, TypeError, ValueError, NotImplementedError) as error:
        text = str(error).splitlines()[0]
        run.unchecked.append(("L30", f"the copy in double precision raised: {text}"))
        return
    except _NotRepeatable as reason:
        run.unchecked.append(("L30", str(reason)))
        return
    if gaps_without is not None and all(gaps_without.values()):
        why = "the gradient differs without dropout too (a stopped or reversed gradient?)"
        run.unchecked.append(("L30", why))
        return
    tensor = checker.first_wrong_tensor()
    if tensor:
        name, analytic, numeric = tensor
        text = (
            f"with fixed masks the slope along {name} is {numeric:.6g}, but autograd gives "
            f"{analytic:.6g}"
        )
        evidence = (("autograd", analytic), ("differences", numeric), ("tolerance", TOLERANCE))
        yield Finding("L30", text, site=name.rpartition(".")[0], evidence=evidence)


class _NotRepeatable(Exception):
    """Two passes from one state of the generators differ."""


class _GradientChecker:
    """Compares autograd with finite differences, on a copy of the model in double precision."""

    def __init__(self, run: CheckRun, twin: nn.Module) -> None:
        self.run, self.twin = run, twin
        self.inputs, self.named = run.call.copied(_to_double)
        self.attributes = [
            (m, {n: v for n, v in vars(m).items() if not n.startswith("_")}) for m in twin.modules()
        ]
        self.buffers = [(b, b.detach().clone()) for b in twin.buffers()]
        self.tensors: dict[str, Any] = {n: p for n, p in twin.named_parameters() if p.requires_grad}
        inputs = [t for t in float_tensors((self.inputs, self.named)) if t.is_floating_point()]
        self.tensors |= {f"input {i}": t.requires_grad_() for i, t in enumerate(inputs)}
        for name, t in list(self.tensors.items()):
            if not is_dense(t):
                del self.tensors[name]
                why = f"the gradient along {name}, a {kind_of(t)} tensor, is not checked"
                run.unchecked.append(("L30", why))
        self.training, self.at_kink = True, False

    def check_parameters_alone(self) -> None:
        """Leave the inputs out from here on."""
        for name in [n for n in self.tensors if n.startswith("input ")]:
            self.tensors.pop(name).requires_grad_(False)

    def value(self) -> Tensor:
        """The scalar, always from the same state of buffers, attributes and generators."""
        with torch.no_grad():
            for buffer, before in self.buffers:
                write_tensor(buffer, before)
        for module, attributes in self.attributes:
            vars(module).update(attributes)
        self.twin.train(self.training)
        for module in self.twin.modules():
            if isinstance(module, DropoutModule) and module.model_key is not None:
                module.calls.reset()
        seed_all(self.run.seed + 50_000)
        self.run.passes += 1
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            copied = copy_inputs((self.inputs, self.named), Tensor.clone)
            value = self.run.scalar(self.run.call(self.twin, copied))
        if not torch.isfinite(value):
            raise _NotRepeatable("the output of the model is not finite in double precision")
        return value

    def gaps(self, training: bool) -> dict[int, float] | None:
        """For each direction the difference between autograd and finite differences.

        It is 0 where it is within tolerance. Returns None where the output needs no gradient.
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
        with torch.no_grad():  # other kernels, which round otherwise, may run here
            self.here = float(self.value())
            if not math.isclose(
                self.here, float(value.detach()), rel_tol=ROUNDING, abs_tol=ROUNDING
            ):
                raise _NotRepeatable("two passes from one state of the generators differ")
        return {i: self._gap(self.direction(i, self.grads))[0] for i in range(DIRECTIONS)}

    def direction(self, number: int, names: Any) -> dict[str, Tensor]:
        """A random direction; in each tensor it has the size of the tensor."""
        generator = torch.Generator().manual_seed(self.run.seed + 60_000 + number)
        parts = {}
        for name in names:
            t = self.tensors[name].detach()
            size = float(t.square().mean().sqrt()) if t.numel() else 0.0
            noise = torch.randn(t.shape, generator=generator, dtype=torch.float64).to(t.device)
            parts[name] = noise * (size or 1.0)
        return parts

    def _gap(self, direction: dict[str, Tensor]) -> tuple[float, float, float]:
        """(the difference, the slope of autograd, the slope of the finite differences)."""
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
        # the slopes to both sides, with the smallest step
        bend = abs(ends[0] + ends[1] - 2 * self.here) / STEPS[-1]
        if agree and bend > gap:
            self.at_kink = True
            agree = False
        return (gap if agree else 0.0), slope, numeric[0]

    @contextlib.contextmanager
    def _moved(self, direction: dict[str, Tensor], by: float) -> Iterator[None]:
        before = {n: self.tensors[n].detach().clone() for n in direction}
        with torch.no_grad():
            for name, d in direction.items():
                self.tensors[name].add_(d, alpha=by)
        try:
            yield
        finally:
            with torch.no_grad():
                for name, value in before.items():
                    self.tensors[name].copy_(value)

    def first_wrong_tensor(self) -> tuple[str, float, float] | None:
        """(name, slope of autograd, slope of the differences) of the first tensor along which the
        gradient is wrong, of those that the function depends on.
        """
        self.gaps(training=True)
        for name in self.grads:
            gap, slope, numeric = self._gap(self.direction(0, [name]))
            if gap and abs(numeric) > TOLERANCE * abs(slope):
                return name, slope, numeric
        return None


def _to_double(x: Tensor) -> Tensor:
    x = x.detach().clone()
    return x.double() if x.is_floating_point() else x
