"""Watch what dropout does in a training loop, without changing a bit of it."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from torch import Tensor, nn

from ..._errors import InputError, real, whole
from ...surgery.model_access import check_not_scripted, unwrap
from ...surgery.model_call import copy_inputs, nothing_logged, own_step
from ..finding import Findings
from .isolation import requires_collectives
from .judging import LEAST, Verdict, judge
from .passes import measure
from .sinks import Sinks
from .units import Units

FIRST = tuple(2**n for n in range(LEAST))  # steps that are sampled whatever the budget is
_LONGEST_STEP = 5.0  # times the mean step; a longer pause, such as a validation, counts as this


class Watch:
    """A watched training run. :func:`watch` makes it; printed, it is a table with verdicts.

    Its ``history`` has a record (a dict) for each sample and for each validation.

    Args:
        model: The model, without wrappers.
        loss: A function of output and target that returns the loss; see :func:`watch`.
        forward: A function of model and batch that returns the loss; see :func:`watch`.
        every: Sample every so many steps; None samples as often as ``budget`` allows.
        budget: The share of the training time that watching may take.
        window: How many samples a verdict is based on.
        active: Whether this process samples.
        sinks: Where the values are sent.

    Example:
        >>> run = watch(nn.Sequential(nn.Linear(4, 2), nn.Dropout(0.5)))
        >>> run.step(torch.zeros(2, 4))
        True
        >>> run.verdicts[0].text
        'It is too early to judge the fit: no loss is known (pass loss=).'
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        loss: Callable[..., Any] | None = None,
        forward: Callable[..., Any] | None = None,
        every: int | None = None,
        budget: float = 0.03,
        window: int = 8,
        active: bool = True,
        sinks: Sinks | None = None,
    ) -> None:
        self.history: list[dict[str, Any]] = []
        self.every, self.budget, self.window = every, budget, window
        self.steps = 0
        self.spent = self.elapsed = 0.0  # seconds
        self._model, self._loss, self._forward = model, loss, forward
        self._active = active
        self._sinks = sinks or Sinks(())
        self._units = Units()
        self._last_cost = 0.0  # of a sample, in seconds
        self._last_step: float | None = None
        self._judged: tuple[int, Any] = (-1, None)

    def __enter__(self) -> Watch:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the live view and close what was opened for logging. The records are kept."""
        self._sinks.close()

    def step(self, *batch: Any, loss: Tensor | float | None = None, **named: Any) -> bool:
        """Count a training step, and sample where one is due. Returns whether it sampled.

        Call it once per training step, after ``backward()`` and before gradients are set to None.
        In a step that samples, the batch passes through the model twice more, in its present mode
        and in evaluation mode, and a third time where batch normalization trains. Errors of the
        model pass through.

        Args:
            batch: The positional inputs of the model; with a loss function the last one is the
                target: ``watch.step(x, y)``, ``watch.step(x1, x2, y)``.
            loss: The loss of the step itself, for the record.
            named: Named inputs of the model.
        """
        if not self._active:
            return False
        start = time.perf_counter()
        if self._last_step is not None:
            duration = start - self._last_step
            if self.steps > 1 and self.elapsed:
                duration = min(duration, _LONGEST_STEP * self.elapsed / self.steps)
            self.elapsed += duration
        self._last_step = start
        self.steps += 1
        if not self._due():
            return False
        record = {"what": "sample", "step": self.steps, "loss": _number(loss)}
        record |= measure(
            self._model, lambda model: self._run(model, batch, named), self._units, self.window
        )
        self._last_cost = time.perf_counter() - start
        self.spent += self._last_cost
        self._add(record | {"seconds": self._last_cost})
        self._last_step = time.perf_counter()  # sampling does not count as training time
        return True

    def validated(self, loss: Tensor | float) -> None:
        """Record a validation loss, measured in evaluation mode by the same loss function.

        Call it while the model is still in evaluation mode; in training mode it is a finding (L25),
        and the loss is in no verdict.
        """
        if self._active:
            record = {"what": "validation", "step": self.steps, "loss": _number(loss)}
            self._add(record | {"training": self._model.training})

    def _due(self) -> bool:
        if self.every is not None:
            return (self.steps - 1) % self.every == 0
        if self.steps in FIRST:
            return True
        return self.spent + self._last_cost <= self.budget * self.elapsed or not self._last_cost

    def _run(self, model: nn.Module, batch: tuple[Any, ...], named: dict[str, Any]) -> Any:
        batch, named = copy_inputs((batch, named))  # a pass may change them
        with nothing_logged(model):
            return self._loss_of(model, batch, named)

    def _loss_of(self, model: nn.Module, batch: tuple[Any, ...], named: dict[str, Any]) -> Any:
        if self._forward is not None:
            return loss_in(self._forward(model, *batch, **named))
        if self._loss is None:
            return loss_in(model(*batch, **named))
        if not batch:
            raise InputError(
                "with a loss function the last argument of watch.step has to be the target, but "
                "got no arguments; write watch.step(x, y)"
            )
        return self._loss(model(*batch[:-1], **named), batch[-1])

    def _add(self, record: dict[str, Any]) -> None:
        self.history.append(record)
        self._sinks.write(self, record)

    @property
    def verdicts(self) -> tuple[Verdict, ...]:
        """Verdicts on the run so far, one sentence each.

        ``thinned.checks.watch.judging`` has the thresholds and their reasons.
        """
        return self._judge()[0]

    @property
    def findings(self) -> Findings:
        """The known mistakes that showed."""
        return self._judge()[1]

    def _judge(self) -> tuple[tuple[Verdict, ...], Findings]:
        if self._judged[0] != len(self.history):
            self._judged = len(self.history), judge(self.history, self.window)
        result: tuple[tuple[Verdict, ...], Findings] = self._judged[1]
        return result

    @property
    def overhead(self) -> float:
        """Seconds that watching took, divided by those that training took so far."""
        return self.spent / self.elapsed if self.elapsed else 0.0

    def __str__(self) -> str:
        from .report import text

        return text(self)

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the records as JSON lines, first to ``path`` + ".part", which is then renamed."""
        to = Path(path)
        part = to.with_name(to.name + ".part")
        head = {"what": "watch", "version": 1, "steps": self.steps, "window": self.window}
        head |= {"spent": self.spent, "elapsed": self.elapsed}
        lines = [json.dumps(record) + "\n" for record in (head, *self.history)]
        part.write_text("".join(lines), encoding="utf-8")
        part.replace(to)
        return to

    @staticmethod
    def load(path: str | os.PathLike[str]) -> Watch:
        """Read what :meth:`save` wrote, to print, judge and plot it; it takes no more samples.

        Raises :class:`thinned.InputError` where the file does not contain such records.
        """
        try:
            head, *history = [
                json.loads(line) for line in Path(path).read_text(encoding="utf-8").splitlines()
            ]
            if head["what"] != "watch" or head["version"] != 1:
                raise KeyError("version")
            run = Watch(nn.Identity(), window=head["window"], active=False)
            run.steps, run.spent, run.elapsed = head["steps"], head["spent"], head["elapsed"]
        except (ValueError, KeyError, TypeError) as e:
            raise InputError(
                f"{path} has to hold the records of a watch, as its save() writes them, but got "
                f"{e!r}"
            ) from e
        run.history = history
        return run

    def state_dict(self) -> dict[str, Any]:
        """Everything that continuing needs, for a checkpoint: numbers, strings and tensors."""
        names = ("history", "steps", "spent", "elapsed")
        return {n: getattr(self, n) for n in names} | {
            "history": list(self.history),
            "units": self._units.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a checkpoint."""
        self.history, self.steps = list(state["history"]), state["steps"]
        self.spent, self.elapsed = state["spent"], state["elapsed"]
        self._units.load_state_dict(state["units"])
        self._judged = (-1, None)

    def plot(self, path: str | os.PathLike[str]) -> Path:
        """Plot losses, rates and dead units over the steps, to a file of any format of matplotlib.

        Raises :class:`thinned.InputError` without samples, ``ImportError`` without matplotlib.
        """
        from .charts import plot

        return plot(self, Path(path))


def _number(loss: Tensor | float | None) -> float | None:
    if loss is None:
        return None
    return float(loss.detach()) if isinstance(loss, Tensor) else float(loss)


def loss_in(output: Any) -> Any:
    """The loss in the output of a model, as those of Hugging Face return it, or None."""
    if isinstance(output, dict):
        return output.get("loss")
    loss = getattr(output, "loss", None)
    if loss is not None:
        return loss
    if isinstance(output, tuple | list) and output and isinstance(output[0], Tensor):
        return output[0] if output[0].dim() == 0 else None
    return output if isinstance(output, Tensor) and output.dim() == 0 else None


def watch(
    model: nn.Module,
    *,
    loss: Callable[..., Any] | None = None,
    forward: Callable[..., Any] | None = None,
    every: int | None = None,
    budget: float = 0.03,
    window: int = 8,
    log: Any = None,
    show: bool = False,
    ranks: str = "first",
) -> Watch:
    """Watch a training loop: what dropout does in it, and whether it is too much or too little.

    In a step that samples, the batch passes through the model two or three times more, without
    gradients: in its present mode, in evaluation mode, and, where batch normalization trains, with
    only dropout switched off. Generators, buffers, modes, gradients and the attributes of modules
    are restored, so a watched run equals an unwatched one bit by bit; but hooks of the model run in
    these passes too, and tensors other than buffers that a pass changes in place are not restored.
    Compiled models are watched without compilation.

    Args:
        model: The model that trains.
        loss: A function of output and target that returns the loss, such as
            ``nn.CrossEntropyLoss()``; None where the model returns its loss itself, or where
            losses are not compared.
        forward: In place of ``loss``, a function that gets the model and the arguments of
            ``step`` and returns the loss, or an output that holds it. By default a LightningModule
            without ``forward`` is run by its ``training_step``.
        every: Sample every so many steps, at least 1; None samples steps 1, 2, 4 and 8, and then
            as often as ``budget`` allows.
        budget: The share of the training time that watching may take, in (0, 1].
        window: How many samples a verdict is based on, at least 4.
        log: Where values are sent, one or a list of: a TensorBoard writer or another object with
            ``add_scalar``, a logger with ``log_metrics`` or ``log``, a function of a dict, or a
            folder for TensorBoard.
        show: Whether to show a live table in a terminal, and lines of text elsewhere.
        ranks: Which ranks of a process group sample, "first" or "all".

    Returns:
        The :class:`Watch`; the loop calls its ``step``.

    Raises:
        InputError: Where an argument is outside its range, where the model is scripted or cannot
            be run, or where its forward pass communicates with other ranks (FSDP, SyncBatchNorm)
            and not all ranks sample in the same steps.

    Example:
        >>> net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Dropout(0.5), nn.Linear(8, 2))
        >>> with watch(net, loss=nn.CrossEntropyLoss()) as run:
        ...     run.step(torch.zeros(2, 4), torch.tensor([0, 1]))
        True
        >>> run.history[0]["rates"]["2"]["nominal"]
        0.5
    """
    if loss is not None and forward is not None:
        raise InputError(
            "loss and forward exclude each other, but got both; forward returns the loss itself"
        )
    if every is not None:
        every = whole(every, "every", 1)
    if not 0 < real(budget, "budget") <= 1:
        raise InputError(
            "budget has to be above 0 and at most 1, a share of the training time, but got "
            f"{budget}"
        )
    window = whole(window, "window", 4)
    if ranks not in ("first", "all"):
        raise InputError(f"ranks has to be 'first' or 'all', but got {ranks!r}")
    inner = unwrap(model)
    check_not_scripted(inner)
    step = None if forward is not None else own_step(inner)
    if step is not None and loss is not None:
        raise InputError(
            f"{type(inner).__name__} has no forward, and its training_step computes the loss; "
            "leave loss out"
        )
    group = torch.distributed.is_available() and torch.distributed.is_initialized()
    if (
        group
        and torch.distributed.get_world_size() > 1
        and (cause := requires_collectives(inner))
        and (ranks == "first" or every is None)
    ):
        raise InputError(
            f"passes of a model with {cause} wait for all ranks; watch with ranks='all' and every=N"
        )
    first = not group or torch.distributed.get_rank() == 0
    return Watch(
        inner,
        loss=loss,
        forward=forward or step,
        every=every,
        budget=float(budget),
        window=window,
        active=first or ranks == "all",
        sinks=Sinks.of(log if first else None, show and first),
    )
