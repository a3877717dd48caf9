"""The passes of a check: which ones are made, in which order and mode, and what each one left."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from ...surgery.model_access import seed_all, tensors_in
from ...surgery.model_call import ModelCall
from ...surgery.observe import observe, observing
from ...surgery.tensor_values import (
    count_dropped,
    equal_tensors,
    float_parts,
    kind_of,
    shape_of,
    write_tensor,
)
from .preserve import float_tensors
from .record import LOSSES, NormInput, PassRecord

Rates = dict[tuple[str, str], float]


@dataclass
class CheckRun:
    """A model under check, and the records of the passes that were made.

    ``training_before``, ``training_after``: training passes before and after the evaluations.
    ``adapted_evaluation``: an evaluation with running statistics that fit the training passes.
    ``gradient_passes``: training passes with a backward pass, and their gradients by parameter.
    ``rate_snapshots``: rates before the evaluations, after them, and after training again.
    ``changed_statistics``: running statistics that an evaluation changed. ``zeroed``: parameters
    that a pass zeroed, and the zeroed share. ``left_in_training``: the modules that are in training
    mode after ``model.eval()``. ``purposes``: what the model is for, as given, or else as
    :meth:`infer_purposes` finds it. ``has_trained``: parameters had gradients. ``needs_grad``: the
    model differentiates in its forward pass.
    """

    model: nn.Module
    call: ModelCall
    seed: int
    samples: int
    loss: Callable[..., Tensor] | None = None
    target: Any = None
    purposes: frozenset[str] = frozenset()
    ddp: bool = False
    has_trained: bool = False
    training_before: list[PassRecord] = field(default_factory=list)
    evaluations: list[PassRecord] = field(default_factory=list)
    training_after: list[PassRecord] = field(default_factory=list)
    adapted_evaluation: PassRecord | None = None
    gradient_passes: list[tuple[PassRecord, dict[str, Tensor | None]]] = field(default_factory=list)
    rate_snapshots: list[Rates] = field(default_factory=list)
    changed_statistics: set[str] = field(default_factory=set)
    zeroed: dict[str, float] = field(default_factory=dict)
    left_in_training: set[str] = field(default_factory=set)
    unchecked: list[tuple[str, str]] = field(default_factory=list)
    passes: int = 0
    needs_grad: bool = False

    def not_dense(self) -> list[str]:
        """The parameters, buffers, inputs and outputs that are not dense, with their kinds."""
        named = [*self.model.named_parameters(), *self.model.named_buffers()]
        for what, value in (
            ("input", (self.call.inputs, self.call.named)),
            ("output", self._outputs()),
        ):
            named += [(f"{what} {i}", t) for i, t in enumerate(tensors_in(value))]
        return [f"{name} ({kind_of(t)})" for name, t in named if kind_of(t) != "dense"]

    def _outputs(self) -> Any:
        records = [*self.training_before[:1], *self.evaluations[:1]]
        return next((r.output for r in records if r.output is not None), None)

    @property
    def training(self) -> list[PassRecord]:
        """All training passes without a gradient."""
        return [*self.training_before, *self.training_after]

    def infer_purposes(self) -> None:
        """Infer what the model is for where it is clear; what is given remains.

        It is clear where one kind of loss is called or passed, or a softmax is the output.
        """
        if self.purposes:
            return
        record = self.training_before[0]
        kinds = {kind for kind, _ in record.losses} | _kinds_of_loss(self.loss)
        outputs = tensors_in(record.output)[:1]
        if not kinds and any(t is record.last_softmax for t in outputs):
            kinds = {"classification"}
        self.purposes = frozenset(kinds if len(kinds) == 1 else ())

    def make_passes(self) -> None:
        """Make two training passes, two evaluations, and the remaining training passes."""
        self.values = {n: p.detach().clone() for n, p in self.model.named_parameters()}
        self.training_before = [self.make_pass(True, i, keep_inputs=i == 0) for i in range(2)]
        self.rate_snapshots.append(rates(self.model))
        before = running_statistics(self.model)
        self.evaluations = [self.make_pass(False, i) for i in range(2)]
        after = running_statistics(self.model)
        self.changed_statistics = {
            n for n, b in before.items() if n in after and not equal_tensors(b, after[n])
        }
        self.rate_snapshots.append(rates(self.model))
        self.training_after = [self.make_pass(True, i) for i in range(2, self.samples)]
        self.rate_snapshots.append(rates(self.model))

    def make_pass(self, training: bool, number: int, keep_inputs: bool = False) -> PassRecord:
        """Make one pass in the given mode, from its own seed."""
        if training:
            self.model.train()
        else:
            self.model.eval()  # and not train(False): a model may have an eval of its own
            self.left_in_training = {n for n, m in self.model.named_modules() if m.training}
        name = f"{'training' if training else 'evaluation'} pass {number + 1}"
        record = self.observe_pass(name, number if training else 10_000 + number, keep_inputs)
        self._restore_parameters()
        return record

    def observe_pass(self, name: str, number: int, keep_inputs: bool = False) -> PassRecord:
        """Make one pass in the present modes."""
        seed_all(self.seed * 1_000_003 % 2**31 + number)
        self.passes += 1
        record = PassRecord(self.model, keep_inputs)
        try:
            with torch.set_grad_enabled(self.needs_grad), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                try:
                    observation = observe(self.model, self.call, record)
                except RuntimeError as error:
                    if self.needs_grad or "grad" not in str(error):
                        raise
                    self.needs_grad = True
                    return self.observe_pass(name, number, keep_inputs)
        except Exception as error:
            add_note(error, f"thinned.check: raised in {name}, seed {self.seed}")
            raise
        record.output = observation.output
        return record

    def _restore_parameters(self) -> None:
        for name, parameter in self.model.named_parameters():
            before = self.values.get(name)
            if (
                before is None
                or shape_of(before) != shape_of(parameter)
                or equal_tensors(before, parameter)
            ):
                continue
            zeroed, nonzero = count_dropped(before, parameter)
            if zeroed:
                self.zeroed.setdefault(name, zeroed / nonzero)
            with torch.no_grad():
                write_tensor(parameter, before)

    def scalar(self, output: Any) -> Tensor:
        """The loss; without one, the projection of the output on a fixed random direction."""
        if self.loss is not None:
            return self.loss(output) if self.target is None else self.loss(output, self.target)
        generator = torch.Generator().manual_seed(self.seed)
        total = torch.zeros((), dtype=torch.float64)
        for x in [part for t in float_tensors(output) for part in float_parts(t)]:
            x = torch.view_as_real(x) if x.is_complex() else x
            direction = torch.randn(x.shape, generator=generator, dtype=torch.float64).to(
                x.device, x.dtype
            )
            total = total + (x * direction).sum().double().cpu() / max(1, x.numel()) ** 0.5
        return total

    def make_gradient_passes(self) -> None:
        """Make two training passes with a backward pass, or note why there can be none."""
        for number in range(2):
            self.model.train(True)
            for p in self.model.parameters():
                p.grad = None
            seed_all(self.seed * 1_000_003 % 2**31 + 20_000 + number)
            self.passes += 1
            record = PassRecord(self.model)
            backward = False
            try:
                with torch.enable_grad(), warnings.catch_warnings(), observing(self.model, record):
                    warnings.simplefilter("ignore")
                    record.output = self.call(self.model)
                    value = self.scalar(record.output)
                    if not value.requires_grad:
                        why = "no gradient reaches the output of the model"
                        self.unchecked += [(code, why) for code in ("L8", "L30")]
                        return
                    backward = True
                    # Not Tensor.backward: its wrapper would hide what checkpointing recomputes
                    # from a function mode.
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
                if backward:  # an inference-only model may have none; the rest is checked
                    text = str(error).splitlines()[0] if str(error) else ""
                    why = f"the backward pass raised {type(error).__name__}: {text}"
                    self.unchecked += [(code, why) for code in ("L8", "L30")]
                    self.gradient_passes.clear()
                    return
                place = "the training pass with a gradient"
                add_note(error, f"thinned.check: raised in {place}, seed {self.seed}")
                raise
            gradients = {
                n: None if p.grad is None else p.grad.detach()
                for n, p in self.model.named_parameters()
            }
            self.gradient_passes.append((record, gradients))
            for p in self.model.parameters():
                p.grad = None

    def make_adapted_evaluation(self) -> None:
        """Make an evaluation with running statistics that are exact averages of the training
        passes.
        """
        norms = [norm for calls in self.training_before[0].norms.values() for norm in calls]
        if not any(norm.draws for norm in norms):
            return
        saved: list[tuple[Tensor, Tensor]] = []
        for name, module in self.model.named_modules():
            calls: list[NormInput] = [n for r in self.training for n in r.norms.get(name, [])]
            mean, var = getattr(module, "running_mean", None), getattr(module, "running_var", None)
            if not calls or mean is None or var is None:
                continue
            averages = ((mean, [n.mean for n in calls]), (var, [n.var for n in calls]))
            with torch.no_grad():
                for buffer, values in averages:
                    saved.append((buffer, buffer.detach().clone()))
                    buffer.copy_(torch.stack(values).mean(0).to(buffer))
        if saved:
            self.adapted_evaluation = self.make_pass(False, 2)
        with torch.no_grad():
            for buffer, before in saved:
                buffer.copy_(before)

    def double_copy(self) -> nn.Module:
        """A copy of the model in double precision."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return copy.deepcopy(self.model).double()


def _kinds_of_loss(loss: Any) -> set[str]:
    """What a loss of torch is for, a function or a module; empty for other losses."""
    kind = LOSSES.get(type(loss)) if isinstance(loss, nn.Module) else LOSSES.get(loss)
    return {kind} if kind else set()


def add_note(error: BaseException, text: str) -> None:
    """Add a note to an error, which Python prints from 3.11 on."""
    if hasattr(error, "add_note"):
        error.add_note(text)
    else:
        error.__notes__ = [*getattr(error, "__notes__", []), text]  # type: ignore[attr-defined]


def rates(model: nn.Module) -> Rates:
    """Every number that is a rate by its name, by module and attribute."""
    exact = {"p", "rate", "prob", "_rate"}
    return {
        (name, attribute): float(value)
        for name, module in model.named_modules()
        for attribute, value in vars(module).items()
        if isinstance(value, (int, float))
        and not isinstance(value, bool)
        and (attribute in exact or "drop" in attribute or "keep" in attribute)
    }


def running_statistics(model: nn.Module) -> dict[str, Tensor]:
    """Copies of all running means and variances, by name."""
    return {
        n: b.detach().clone()
        for n, b in model.named_buffers()
        if n.rpartition(".")[2] in ("running_mean", "running_var")
    }
