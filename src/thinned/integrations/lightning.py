"""Callbacks for Lightning 2: watching, keys, schedules, checks, and sampling in prediction."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

from .._optional import missing
from ..checks.finding import Findings
from ..checks.watch import Watch, watch
from ..nn import step
from ..surgery import key, sampling
from ..surgery.model_call import has_forward, training_step
from .attempts import Attempts
from .shared import check_and_warn, combine_logs

try:
    from lightning.pytorch.callbacks import Callback
except ImportError:
    try:
        from pytorch_lightning.callbacks import Callback  # type: ignore[assignment, unused-ignore]
    except ImportError as e:
        raise ImportError(missing(e, "lightning")) from e


def inputs_of(batch: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """(positional, named) inputs of a batch: those of a dict are named."""
    if isinstance(batch, dict):
        return (), batch
    return (tuple(batch), {}) if isinstance(batch, (tuple, list)) else ((batch,), {})


class WatchCallback(Callback):  # type: ignore[misc, unused-ignore]
    """:func:`thinned.watch` in a ``Trainer``; its ``watch`` is the :class:`thinned.Watch`.

    Values are sent to the loggers of the trainer: ``Trainer(callbacks=[WatchCallback()])``. By
    default a sample runs ``training_step``, which logs nothing then. An error of a sample ends the
    watching with a warning, not the training.

    Args:
        loss: A function of output and target that returns the loss; the batch is then the inputs
            of ``LightningModule.forward`` followed by the target. None runs ``training_step``, as
            for modules without ``forward``.
        unpack: A function of the batch that returns such a tuple, or a dict of named inputs.
        monitor: The name under which the module logs its validation loss.
        forward: In place of ``loss``; see :func:`thinned.watch`, as for the following arguments.
        every: Sample every so many steps; None samples as often as ``budget`` allows.
        budget: The share of the training time that watching may take.
        window: How many samples a verdict is based on.
        log: Where values are sent in addition.
        show: Whether to show a live table.
        ranks: Which ranks sample, "first" or "all".
    """

    def __init__(
        self,
        loss: Callable[..., Any] | None = None,
        unpack: Callable[[Any], Any] | None = None,
        monitor: str = "val_loss",
        *,
        forward: Callable[..., Any] | None = None,
        every: int | None = None,
        budget: float = 0.03,
        window: int = 8,
        log: Any = None,
        show: bool = False,
        ranks: str = "first",
    ) -> None:
        self.loss, self.forward, self.unpack, self.monitor = loss, forward, unpack, monitor
        self.every, self.budget, self.window = every, budget, window
        self.show, self.ranks = show, ranks
        self._receivers = log  # not self.log, which Lightning overwrites in callbacks
        self.watch: Watch | None = None
        self._state: dict[str, Any] | None = None
        self._attempts = Attempts("watching")
        self._takes_batches = False

    def on_fit_start(self, trainer: Any, pl_module: Any) -> None:
        def log_to_trainer(values: dict[str, float]) -> None:
            values.pop("watch/step", None)
            for logger in trainer.loggers:
                logger.log_metrics(values, step=trainer.global_step)

        loss, forward = self.loss, self.forward
        default = loss is None and forward is None and self.unpack is None
        self._takes_batches = forward is None and (default or not has_forward(pl_module))
        if self._takes_batches:
            loss, forward = None, training_step(pl_module)
        self._attempts = Attempts("watching")
        self.watch = watch(
            pl_module,
            loss=loss,
            forward=forward,
            every=self.every,
            budget=self.budget,
            window=self.window,
            log=combine_logs(self._receivers, log_to_trainer),
            show=self.show,
            ranks=self.ranks,
        )
        if self._state is not None:
            self.watch.load_state_dict(self._state)

    def on_train_batch_end(
        self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self._attempts(self._step, batch, outputs)

    def _step(self, batch: Any, outputs: Any) -> None:
        assert self.watch is not None
        args: tuple[Any, ...] = (batch,)
        named: dict[str, Any] = {}
        if not self._takes_batches:
            args, named = inputs_of(self.unpack(batch) if self.unpack else batch)
        loss = outputs.get("loss") if isinstance(outputs, dict) else outputs
        self.watch.step(*args, loss=loss, **named)

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        value = trainer.callback_metrics.get(self.monitor)
        if self.watch is not None and value is not None and not trainer.sanity_checking:
            self._attempts(self.watch.validated, value)

    def teardown(self, trainer: Any, pl_module: Any, stage: str) -> None:
        if self.watch is not None:
            self._attempts(self.watch.close)

    def state_dict(self) -> dict[str, Any]:
        return {} if self.watch is None else self.watch.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._state = state_dict or None


class ThinnedCallback(Callback):  # type: ignore[misc, unused-ignore]
    """Does for thinned layers what a training loop does, at the right hooks of the trainer.

    ``findings`` holds what ``check=True`` found.

    Args:
        key: A seed: masks are functions of the optimizer step (:func:`thinned.key`), and differ on
            each rank. None leaves the model unkeyed.
        samples: A function of the batch that returns its sample ids: masks are then functions of
            example and step, the same on any number of ranks.
        schedules: Whether to move rates to ``trainer.global_step``; a key does so anyway.
        check: Whether to run :func:`thinned.check` on the first batch and warn of its findings.
        unpack: A function of the batch that returns the inputs of the model for ``check``; by
            default ``training_step`` is checked on the batch.
        sampling: Whether dropout draws in ``trainer.predict`` (:func:`thinned.sampling`);
            :class:`thinned.InputError` is raised there where the module has none, or a site cannot
            be reached.
    """

    def __init__(
        self,
        key: int | None = None,
        samples: Callable[[Any], Any] | None = None,
        schedules: bool = True,
        check: bool = False,
        unpack: Callable[[Any], Any] | None = None,
        sampling: bool = False,
    ) -> None:
        self.seed, self.samples, self.schedules, self.check = key, samples, schedules, check
        self.unpack, self.sampling = unpack, sampling
        self.findings: Any = None
        self._key: Any = None
        self._last_step: int | None = None
        self._attempts = Attempts("keying by samples")
        self._predicting = ExitStack()

    def on_fit_start(self, trainer: Any, pl_module: Any) -> None:
        self.on_fit_end(trainer, pl_module)  # in case an error ended the last fit
        if self.seed is not None:
            self._key = key(pl_module, self.seed + (0 if self.samples else trainer.global_rank))
        self._last_step, self._attempts = None, Attempts("keying by samples")

    def on_train_batch_start(
        self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int
    ) -> None:
        global_step = trainer.global_step
        if self._key is not None and self.samples is not None:
            self._key_samples(global_step, batch)
        elif self._key is not None and global_step != self._last_step:
            self._key.at(global_step)  # micro-batches of a step count as further calls
        elif self._key is None and self.schedules:
            step(pl_module, global_step)
        self._last_step = global_step
        if self.check and self.findings is None:
            self._check(pl_module, batch)

    def _key_samples(self, global_step: int, batch: Any) -> None:
        """Set step and ids. An error in the first batch is that of an argument, and raised."""
        assert self.samples is not None
        if self._last_step is None:
            self._key.at(global_step, self.samples(batch))
        else:
            ids = self._attempts(self.samples, batch)
            if self._attempts(self._key.at, global_step, ids) is None and self._attempts.failed:
                self._key.at(global_step)

    def _check(self, model: Any, batch: Any) -> None:
        self.findings = Findings()  # once, whatever happens
        found = Attempts("the check")(self._findings, model, batch)
        self.findings = self.findings if found is None else found

    def _findings(self, model: Any, batch: Any) -> Findings:
        if self.unpack:
            args, named = inputs_of(self.unpack(batch))
            return check_and_warn(model, args, named)
        return check_and_warn(model, (batch,), {}, training_step(model))

    def on_fit_end(self, trainer: Any, pl_module: Any) -> None:
        if self._key is not None:
            self._key.remove()
            self._key = None

    def on_predict_start(self, trainer: Any, pl_module: Any) -> None:
        if self.sampling:
            self._predicting.enter_context(sampling(pl_module))

    def on_predict_end(self, trainer: Any, pl_module: Any) -> None:
        self._predicting.close()
