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
from ...surgery.model_access import not_scripted, unwrapped
from ..finding import Findings
from .isolation import requires_collectives
from .judging import Verdict, judge
from .passes import measure
from .sinks import Sinks
from .units import Units

_SLOWEST = 5.0  # times the mean step: a longer pause between two steps, such as a validation, counts as this


class Watch:
    """A training run that is watched. Made by :func:`watch`; printed, it is a table and the
    verdict.

    ``history``: plain records, one for each sample and each validation.
    """

    def __init__(
        self,
        model: nn.Module,
        loss: Callable[..., Any] | None,
        forward: Callable[..., Any] | None,
        every: int | None,
        budget: float,
        window: int,
        active: bool,
        sinks: Sinks,
    ) -> None:
        self.history: list[dict[str, Any]] = []
        self.every, self.budget, self.window = every, budget, window
        self.steps = 0
        self.spent = self.elapsed = 0.0  # seconds
        self._model, self._loss, self._forward, self._active, self._sinks = (
            model,
            loss,
            forward,
            active,
            sinks,
        )
        self._units = Units()
        self._cost = 0.0
        self._before: float | None = None
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
        """End the live view and what was opened for logging. The records stay."""
        self._sinks.close()

    def step(self, *batch: Any, loss: Tensor | float | None = None, **named: Any) -> bool:
        """Call it once a training step, behind ``backward()`` and before gradients are set to None;
        True where it sampled.

        ``batch``: what the model is called with; with a loss function the last one is the target:
        ``watch.step(x, y)``, ``watch.step(x1, x2, y)``. ``named``: named inputs. ``loss``: the
        step's own loss, for the record. On a sampled step the batch goes twice through the model,
        as it stands and in evaluation, and once more where batch normalisation trains. Passes on
        what the model raises.
        """
        if not self._active:
            return False
        start = time.perf_counter()
        if self._before is not None:
            gap = start - self._before
            self.elapsed += (
                min(gap, _SLOWEST * self.elapsed / self.steps)
                if self.steps > 1 and self.elapsed
                else gap
            )
        self._before = start
        self.steps += 1
        if not self._due():
            return False
        record = {"what": "sample", "step": self.steps, "loss": _number(loss)}
        record |= measure(
            self._model, lambda model: self._run(model, batch, named), self._units, self.window
        )
        self._cost = time.perf_counter() - start
        self.spent += self._cost
        self._add(record | {"seconds": self._cost})
        self._before = time.perf_counter()  # what was spent here is no part of what training takes
        return True

    def validated(self, loss: Tensor | float) -> None:
        """Say what the validation loss is now, measured in evaluation mode by the same loss
        function.
        """
        if self._active:
            self._add({"what": "validation", "step": self.steps, "loss": _number(loss)})

    def _due(self) -> bool:
        if self.every is not None:
            return (self.steps - 1) % self.every == 0
        return self.spent + self._cost <= self.budget * self.elapsed or not self._cost

    def _run(self, model: nn.Module, batch: tuple[Any, ...], named: dict[str, Any]) -> Any:
        if self._forward is not None:
            return self._forward(model, *batch, **named)
        if self._loss is None:
            return loss_in(model(*batch, **named))
        if not batch:
            raise InputError(
                "with a loss function the last argument of watch.step has to be the target, but got none"
            )
        return self._loss(model(*batch[:-1], **named), batch[-1])

    def _add(self, record: dict[str, Any]) -> None:
        self.history.append(record)
        self._sinks.write(self, record)

    @property
    def verdicts(self) -> tuple[Verdict, ...]:
        """What the run says so far, in sentences; thresholds and their reasons stand in
        ``thinned.checks.watch.judging``.
        """
        return self._judge()[0]

    @property
    def findings(self) -> Findings:
        """The known mistakes that were seen."""
        return self._judge()[1]

    def _judge(self) -> tuple[tuple[Verdict, ...], Findings]:
        if self._judged[0] != len(self.history):
            self._judged = len(self.history), judge(self.history, self.window)
        result: tuple[tuple[Verdict, ...], Findings] = self._judged[1]
        return result

    @property
    def overhead(self) -> float:
        """Seconds that watching took over those that training took so far."""
        return self.spent / self.elapsed if self.elapsed else 0.0

    def __str__(self) -> str:
        from .watched import text

        return text(self)

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the records as JSON lines, beside ``path`` first and then renamed to it."""
        to = Path(path)
        beside = to.with_name(to.name + ".part")
        head = {"what": "watch", "version": 1, "steps": self.steps, "window": self.window}
        head |= {"spent": self.spent, "elapsed": self.elapsed}
        beside.write_text(
            "".join(json.dumps(r) + "\n" for r in (head, *self.history)), encoding="utf-8"
        )
        beside.replace(to)
        return to

    @staticmethod
    def load(path: str | os.PathLike[str]) -> Watch:
        """Read what :meth:`save` wrote, to be printed, judged and plotted. It cannot watch any
        further.

        Raises :class:`thinned.InputError` where the file holds no such records.
        """
        try:
            head, *history = [
                json.loads(line) for line in Path(path).read_text(encoding="utf-8").splitlines()
            ]
            if head["what"] != "watch" or head["version"] != 1:
                raise KeyError("version")
            made = Watch(nn.Identity(), None, None, None, 0.03, head["window"], False, Sinks(()))
            made.steps, made.spent, made.elapsed = head["steps"], head["spent"], head["elapsed"]
        except (ValueError, KeyError, TypeError) as e:
            raise InputError(
                f"{path} has to hold the records of a watch, as its save() writes them, but got {e!r}"
            ) from e
        made.history = history
        return made

    def state_dict(self) -> dict[str, Any]:
        """All that going on needs, for a checkpoint: plain values and tensors."""
        names = ("history", "steps", "spent", "elapsed")
        return {n: getattr(self, n) for n in names} | {
            "history": list(self.history),
            "units": self._units.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a checkpoint."""
        self.history, self.steps = list(state["history"]), state["steps"]
        self.spent, self.elapsed = state["spent"], state["elapsed"]
        self._units.load_state_dict(state["units"])
        self._judged = (-1, None)

    def plot(self, path: str | os.PathLike[str]) -> Path:
        """Draw rates, losses in both modes and dead units over the steps, as the file's ending
        says.

        Raises :class:`thinned.InputError` without samples, ``ImportError`` with the remedy without
        matplotlib.
        """
        from .charts import plot

        return plot(self, Path(path))


def _number(loss: Tensor | float | None) -> float | None:
    return (
        float(loss.detach()) if isinstance(loss, Tensor) else None if loss is None else float(loss)
    )


def loss_in(output: Any) -> Any:
    """The loss that an output holds, as models of Hugging Face give it; None where there is none."""
    if isinstance(output, dict):
        return output.get("loss")
    held = getattr(output, "loss", None)
    if (
        held is None
        and isinstance(output, tuple | list)
        and output
        and isinstance(output[0], Tensor)
    ):
        return output[0] if output[0].dim() == 0 else None
    if held is None and isinstance(output, Tensor) and output.dim() == 0:
        return output
    return held


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
    """Watch a training loop: what dropout does in it, and whether it is too much, too little, or
    broken.

    ``loss``: ``f(output, target)``, such as ``nn.CrossEntropyLoss()``; None where the model returns
    a loss itself, or where losses are not to be compared. ``forward``: instead of it, ``f(model,
    *batch, **named)`` which returns the loss. ``every``: sample each so many steps; None: as often
    as ``budget`` allows, a share of the time that training takes. ``window``: how many samples a
    verdict looks back. ``log``: where values go, one or a list of: a TensorBoard writer or anything
    with ``add_scalar``, a logger with ``log_metrics`` or ``log``, a function of a dict, or a folder
    for TensorBoard. ``show``: a live table in a terminal, lines elsewhere. ``ranks``: "first" or
    "all" watch under a process group.

    >>> net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Dropout(0.5), nn.Linear(8, 2))
    >>> with watch(net, loss=nn.CrossEntropyLoss()) as seen:
    ...     seen.step(torch.zeros(2, 4), torch.tensor([0, 1]))
    True
    >>> seen.history[0]["rates"]["2"]["nominal"]
    0.5

    On sampled steps the batch goes two or three times more through the model, without gradients: as
    it stands, in evaluation, and where batch normalisation trains also with dropout alone switched
    off. Generators, buffers, modes, gradients and the attributes of modules are put back, so that a
    watched run equals an unwatched one bit by bit; but hooks of yours run in these passes too, and
    objects that a pass changes in place stay changed. Compiled models are watched as they were
    written. Raises :class:`thinned.InputError` for bad arguments, for a scripted model, and where a
    forward pass speaks to other ranks (FSDP, SyncBatchNorm) and not all sample in the same steps.
    """
    if loss is not None and forward is not None:
        raise InputError(
            "loss and forward exclude each other, but got both; forward returns the loss itself"
        )
    if every is not None:
        every = whole(every, "every", 1)
    if not 0 < real(budget, "budget") <= 1:
        raise InputError(
            f"budget has to be above 0 and at most 1, the share of training time to spend, but got {budget}"
        )
    window = whole(window, "window", 4)
    if ranks not in ("first", "all"):
        raise InputError(f"ranks has to be 'first' or 'all', but got {ranks!r}")
    inside = unwrapped(model)
    not_scripted(inside)
    group = torch.distributed.is_available() and torch.distributed.is_initialized()
    if (
        group
        and torch.distributed.get_world_size() > 1
        and (what := requires_collectives(inside))
        and (ranks == "first" or every is None)
    ):
        raise InputError(
            f"passes of a model with {what} wait for all ranks; watch with ranks='all' and every=N"
        )
    first = not group or torch.distributed.get_rank() == 0
    active = first or ranks == "all"
    return Watch(
        inside,
        loss,
        forward,
        every,
        float(budget),
        window,
        active,
        Sinks.of(log if first else None, show and first),
    )
