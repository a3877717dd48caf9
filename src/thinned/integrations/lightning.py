"""Callbacks for Lightning 2: watch a training, move keys and schedules, check at the start, sample
in prediction.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

from .._optional import missing
from ..checks.watch import Watch, watch
from ..nn import key, sampling, step
from .shared import checked, needs_ours, sinks

try:
    from lightning.pytorch.callbacks import Callback
except ImportError:
    try:
        from pytorch_lightning.callbacks import Callback  # type: ignore[assignment, unused-ignore]
    except ImportError as e:
        raise ImportError(missing(e, "lightning")) from e


def inputs_of(batch: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """(positional, named) of a batch: a tuple or list is positional, a dict is named."""
    if isinstance(batch, dict):
        return (), batch
    return (tuple(batch), {}) if isinstance(batch, (tuple, list)) else ((batch,), {})


class WatchCallback(Callback):  # type: ignore[misc, unused-ignore]
    """:func:`thinned.watch` in a ``Trainer``. ``watch`` is the :class:`thinned.Watch`; values go to
    the trainer's loggers.

    ``loss``: ``f(output, target)``; the batch is then ``(*inputs, target)`` of
    ``LightningModule.forward``. ``unpack``: a function of the batch that gives such a tuple (or a
    dict of named inputs). ``monitor``: the name under which the validation loss is logged.
    ``options``: of :func:`thinned.watch`, such as ``forward``, ``every``, ``budget``, ``show``.

    ``trainer = Trainer(callbacks=[WatchCallback(loss=F.cross_entropy)])``
    """

    def __init__(
        self,
        loss: Callable[..., Any] | None = None,
        unpack: Callable[[Any], Any] | None = None,
        monitor: str = "val_loss",
        **options: Any,
    ) -> None:
        self.loss, self.unpack, self.monitor, self.options = loss, unpack, monitor, options
        self.watch: Watch | None = None
        self._state: dict[str, Any] | None = None

    def on_fit_start(self, trainer: Any, pl_module: Any) -> None:
        def log(values: dict[str, float]) -> None:
            values.pop("watch/step", None)
            for logger in trainer.loggers:
                logger.log_metrics(values, step=trainer.global_step)

        self.watch = watch(
            pl_module,
            loss=self.loss,
            **{**self.options, "log": sinks(self.options.get("log"), log)},
        )
        if self._state is not None:
            self.watch.load_state_dict(self._state)

    def on_train_batch_end(
        self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        assert self.watch is not None
        args, named = inputs_of(self.unpack(batch) if self.unpack else batch)
        loss = outputs.get("loss") if isinstance(outputs, dict) else outputs
        self.watch.step(*args, loss=loss, **named)

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        value = trainer.callback_metrics.get(self.monitor)
        if self.watch is not None and value is not None and not trainer.sanity_checking:
            self.watch.validated(value)

    def teardown(self, trainer: Any, pl_module: Any, stage: str) -> None:
        if self.watch is not None:
            self.watch.close()

    def state_dict(self) -> dict[str, Any]:
        return {} if self.watch is None else self.watch.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._state = state_dict or None


class ThinnedCallback(Callback):  # type: ignore[misc, unused-ignore]
    """What a training loop does for thinned layers, done by the trainer.

    ``key``: a seed; the masks are then functions of the optimizer step (:func:`thinned.key`), other
    ones on each rank. ``samples``: a function of the batch that gives its examples' ids; then masks
    are the examples' own, on any number of ranks. ``schedules``: move rates to
    ``trainer.global_step``. ``check``: run ``thinned.check`` on the first batch, and warn of what
    it finds; ``unpack`` gives the model's inputs of a batch (default: all but the last of a tuple).
    ``sampling``: our layers draw in ``trainer.predict`` too; raises :class:`thinned.InputError`
    there where the module has none.
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
        self._last: int | None = None
        self._predicting = ExitStack()

    def on_fit_start(self, trainer: Any, pl_module: Any) -> None:
        self.on_fit_end(trainer, pl_module)  # of a fit that an error ended
        if self.seed is not None:
            self._key = key(pl_module, self.seed + (0 if self.samples else trainer.global_rank))
        self._last = None

    def on_train_batch_start(
        self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int
    ) -> None:
        now = trainer.global_step
        if self._key is not None and (self.samples is not None or now != self._last):
            self._key.at(
                now, None if self.samples is None else self.samples(batch)
            )  # micro-batches count as more calls
        elif self._key is None and self.schedules:
            step(pl_module, now)
        self._last = now
        if self.check and self.findings is None:
            self._checked(pl_module, batch)

    def _checked(self, model: Any, batch: Any) -> None:
        given = (
            self.unpack(batch)
            if self.unpack
            else batch[:-1]
            if isinstance(batch, (tuple, list))
            else batch
        )
        args, named = inputs_of(given)
        self.findings = checked(model, args, named)

    def on_fit_end(self, trainer: Any, pl_module: Any) -> None:
        if self._key is not None:
            self._key.remove()
            self._key = None

    def on_predict_start(self, trainer: Any, pl_module: Any) -> None:
        if self.sampling:
            needs_ours(pl_module, "sampling=True")
            self._predicting.enter_context(sampling(pl_module))

    def on_predict_end(self, trainer: Any, pl_module: Any) -> None:
        self._predicting.close()
