"""The passes of a check: which are made, in which order and mode, and what each left behind."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from ...surgery.model_access import seed_all
from ...surgery.observe import observe, observing
from .preserve import copied, floats, same
from .record import Norm, PassRecord

Rates = dict[tuple[str, str], float]


@dataclass
class Battery:
    """A model under check. ``early`` and ``late``: passes in training, before and after those in
    evaluation.
    """

    model: nn.Module
    inputs: tuple[Any, ...]
    named: dict[str, Any]
    seed: int
    samples: int
    loss: Callable[..., Tensor] | None = None
    target: Any = None
    purpose: str | None = None
    ddp: bool = False
    train_given: bool = False
    early: list[PassRecord] = field(default_factory=list)
    evaluations: list[PassRecord] = field(default_factory=list)
    late: list[PassRecord] = field(default_factory=list)
    adapted: PassRecord | None = None
    with_gradient: list[tuple[PassRecord, dict[str, Tensor | None]]] = field(default_factory=list)
    rates: list[Rates] = field(
        default_factory=list
    )  # before the evaluations, after them, after training again
    moved: set[str] = field(default_factory=set)  # running statistics that an evaluation changed
    lost: dict[str, float] = field(
        default_factory=dict
    )  # parameters that a pass zeroed, and the share
    unchecked: list[tuple[str, str]] = field(default_factory=list)
    passes: int = 0
    grad: bool = False

    @property
    def training(self) -> list[PassRecord]:
        """All passes in training without a gradient."""
        return [*self.early, *self.late]

    def run(self) -> None:
        """Two passes in training, two in evaluation, the rest in training."""
        self.values = {n: p.detach().clone() for n, p in self.model.named_parameters()}
        self.early = [self.one(True, i, keep_inputs=i == 0) for i in range(2)]
        self.rates.append(rates(self.model))
        before = statistics(self.model)
        self.evaluations = [self.one(False, i) for i in range(2)]
        after = statistics(self.model)
        self.moved = {n for n, b in before.items() if n in after and not same(b, after[n])}
        self.rates.append(rates(self.model))
        self.late = [self.one(True, i) for i in range(2, self.samples)]
        self.rates.append(rates(self.model))

    def one(self, training: bool, number: int, keep_inputs: bool = False) -> PassRecord:
        """One pass in a mode, from a seed of its own."""
        self.model.train(training)
        name = f"{'training' if training else 'evaluation'} pass {number + 1}"
        record = self.observed(name, number if training else 10_000 + number, keep_inputs)
        self._parameters()
        return record

    def observed(self, name: str, number: int, keep_inputs: bool = False) -> PassRecord:
        """One pass in the mode that the model is in."""
        seed_all(self.seed * 1_000_003 % 2**31 + number)
        self.passes += 1
        record = PassRecord(self.model, keep_inputs)
        inputs, named = copied((self.inputs, self.named))
        try:
            with torch.set_grad_enabled(self.grad), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                try:
                    run = observe(self.model, inputs, named, record)
                except RuntimeError as error:
                    if self.grad or "grad" not in str(error):
                        raise
                    self.grad = True  # a model that differentiates within its forward pass
                    return self.observed(name, number, keep_inputs)
        except Exception as error:
            noted(error, f"thinned.check: raised in {name}, seed {self.seed}")
            raise
        record.output = run.output
        return record

    def _parameters(self) -> None:
        for name, p in self.model.named_parameters():
            was = self.values.get(name)
            if was is None or was.shape != p.shape or same(was, p):
                continue
            nonzero = was != 0
            share = float((nonzero & (p == 0)).sum()) / max(1, int(nonzero.sum()))
            if share > 0:
                self.lost.setdefault(name, share)
            with torch.no_grad():
                p.copy_(was)

    def scalar(self, output: Any) -> Tensor:
        """The loss; without one, the output's projection on a fixed random direction."""
        if self.loss is not None:
            return self.loss(output) if self.target is None else self.loss(output, self.target)
        generator = torch.Generator().manual_seed(self.seed)
        total = torch.zeros((), dtype=torch.float64)
        for x in floats(output):
            x = torch.view_as_real(x) if x.is_complex() else x
            direction = torch.randn(x.shape, generator=generator, dtype=torch.float64).to(
                x.device, x.dtype
            )
            total = total + (x * direction).sum().double().cpu() / max(1, x.numel()) ** 0.5
        return total

    def gradients(self) -> None:
        """Two passes in training with a backward pass, observed throughout. Says why where there
        can be none.
        """
        for number in range(2):
            self.model.train(True)
            for p in self.model.parameters():
                p.grad = None
            seed_all(self.seed * 1_000_003 % 2**31 + 20_000 + number)
            self.passes += 1
            record = PassRecord(self.model)
            inputs, named = copied((self.inputs, self.named))
            backward = False
            try:
                with torch.enable_grad(), warnings.catch_warnings(), observing(self.model, record):
                    warnings.simplefilter("ignore")
                    record.output = self.model(*inputs, **named)
                    value = self.scalar(record.output)
                    if not value.requires_grad:
                        self.unchecked += [
                            (code, "the model's output needs no gradient") for code in ("L8", "L30")
                        ]
                        return
                    backward = True
                    # past torch's own wrapper, which would hide the recomputation from a function
                    # mode
                    torch.autograd.Variable._execution_engine.run_backward(
                        (value,),
                        (torch.ones_like(value),),
                        False,
                        False,
                        (),
                        allow_unreachable=True,
                        accumulate_grad=True,
                    )
            except Exception as error:
                if (
                    backward
                ):  # a model for inference alone may have none; everything else is checked
                    why = f"the backward pass raised {type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
                    self.unchecked += [(code, why) for code in ("L8", "L30")]
                    self.with_gradient.clear()
                    return
                noted(
                    error,
                    f"thinned.check: raised in the training pass with a gradient, seed {self.seed}",
                )
                raise
            found = {
                n: None if p.grad is None else p.grad.detach()
                for n, p in self.model.named_parameters()
            }
            self.with_gradient.append((record, found))
            for p in self.model.parameters():
                p.grad = None

    def adapt(self) -> None:
        """An evaluation whose running statistics are the averages of what training saw, so that
        they fit exactly.
        """
        if not any(norm.draws for norms in self.early[0].norms.values() for norm in norms):
            return
        saved: list[tuple[Tensor, Tensor]] = []
        for name, module in self.model.named_modules():
            seen: list[Norm] = [n for r in self.training for n in r.norms.get(name, [])]
            mean, var = getattr(module, "running_mean", None), getattr(module, "running_var", None)
            if not seen or mean is None or var is None:
                continue
            with torch.no_grad():
                for buffer, value in ((mean, [n.mean for n in seen]), (var, [n.var for n in seen])):
                    saved.append((buffer, buffer.detach().clone()))
                    buffer.copy_(torch.stack(value).mean(0).to(buffer))
        if saved:
            self.adapted = self.one(False, 2)
        with torch.no_grad():
            for buffer, was in saved:
                buffer.copy_(was)

    def twin(self) -> nn.Module:
        """A copy in double precision."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return copy.deepcopy(self.model).double()


def noted(error: BaseException, text: str) -> None:
    """Say on an error which pass it came from; from Python 3.11 on it is printed."""
    if hasattr(error, "add_note"):
        error.add_note(text)
    else:
        error.__notes__ = [*getattr(error, "__notes__", []), text]  # type: ignore[attr-defined]


def rates(model: nn.Module) -> Rates:
    """Every number that is a rate by its name, in all modules."""
    exact = {"p", "rate", "prob", "_rate"}
    return {
        (name, attribute): float(value)
        for name, module in model.named_modules()
        for attribute, value in vars(module).items()
        if isinstance(value, (int, float)) and not isinstance(value, bool)
        and (attribute in exact or "drop" in attribute or "keep" in attribute)
    }  # fmt: skip


def statistics(model: nn.Module) -> dict[str, Tensor]:
    """Copies of all running means and variances."""
    return {
        n: b.detach().clone()
        for n, b in model.named_buffers()
        if n.rpartition(".")[2] in ("running_mean", "running_var")
    }
