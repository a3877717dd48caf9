"""For the Trainer of Hugging Face: watching, keys, schedules, checks, Monte Carlo prediction."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .._errors import InputError, whole
from .._optional import missing
from ..checks.watch import Watch, watch
from ..nn import step
from ..surgery import key, sampling
from .attempts import Attempts
from .shared import check_and_warn, combine_logs

try:
    from transformers import TrainerCallback
except ImportError as e:
    raise ImportError(missing(e, "hf")) from e

_NOT_INPUTS = ("num_items_in_batch",)  # the Trainer scales a loss over micro-batches by it


class _InputRecorder:
    """Records the inputs of the last training pass, which callbacks do not get."""

    def __init__(self, model: Any) -> None:
        self.args: tuple[Any, ...] = ()
        self.named: dict[str, Any] | None = None
        self._handle = model.register_forward_pre_hook(self._record, with_kwargs=True)

    def _record(self, model: Any, args: Any, kwargs: Any) -> None:
        if model.training:
            self.args, self.named = args, {k: v for k, v in kwargs.items() if k not in _NOT_INPUTS}

    def close(self) -> None:
        self._handle.remove()
        self.args, self.named = (), None


def _call(function: Callable[..., Any], *args: Any) -> Any:
    return function(*args)


class _SampleIds:
    """Removes the sample ids from the named inputs, which the model does not know, and passes them
    to ``use`` in training.
    """

    def __init__(self, model: Any, name: str, use: Callable[[Any], None]) -> None:
        self.name, self.use = name, use
        self.used = False  # in this optimizer step
        self.began = False
        self.attempts = Attempts("keying by samples")
        self._handle = model.register_forward_pre_hook(self._take, with_kwargs=True)

    def _take(self, model: Any, args: Any, kwargs: Any) -> Any:
        if self.name in kwargs:
            kwargs = dict(kwargs)
            ids = kwargs.pop(self.name)
            if model.training:
                use = self.attempts if self.began else _call
                use(self.use, ids)
                self.used = self.began = True
        elif model.training and not self.used and self.began:
            self.attempts(self._raise_missing, kwargs)
        elif model.training and not self.used:
            self._raise_missing(kwargs)
        return args, kwargs

    def _raise_missing(self, kwargs: Any) -> None:
        raise InputError(
            f"samples={self.name!r} has to be among the inputs of each training batch, but got "
            f"{', '.join(kwargs)}; pass train_dataset=Indexed(data, name={self.name!r}) and "
            "TrainingArguments(remove_unused_columns=False)"
        )

    def close(self) -> None:
        self._handle.remove()


class WatchCallback(TrainerCallback):  # type: ignore[misc, unused-ignore]
    """:func:`thinned.watch` in a ``Trainer``; its ``watch`` is the :class:`thinned.Watch`.

    By default the loss is that of the model itself (batches need ``labels``); the validation loss
    is ``eval_loss`` of the Trainer. Pass it as ``callbacks=[WatchCallback()]``; a callback has no
    access to its Trainer, so to log through it, call ``WatchCallback().attach(trainer)`` instead.

    An error of a sample ends the watching with a warning, not the training.

    Args:
        loss: A function of output and target that returns the loss; see :func:`thinned.watch`, as
            for the following arguments.
        forward: In place of ``loss``, a function of the model and the inputs.
        every: Sample every so many optimizer steps; None samples as often as ``budget`` allows.
        budget: The share of the training time that watching may take.
        window: How many samples a verdict is based on.
        log: Where values are sent in addition.
        show: Whether to show a live table.
        ranks: Which ranks sample, "first" or "all".
    """

    def __init__(
        self,
        *,
        loss: Callable[..., Any] | None = None,
        forward: Callable[..., Any] | None = None,
        every: int | None = None,
        budget: float = 0.03,
        window: int = 8,
        log: Any = None,
        show: bool = False,
        ranks: str = "first",
    ) -> None:
        self.loss, self.forward = loss, forward
        self.every, self.budget, self.window = every, budget, window
        self.log, self.show, self.ranks = log, show, ranks
        self.watch: Watch | None = None
        self._attempts = Attempts("watching")
        self._trainer: Any = None
        self._inputs: _InputRecorder | None = None

    def attach(self, trainer: Any) -> WatchCallback:
        """Add the callback to ``trainer``, and log through ``trainer.log``."""
        self._trainer = trainer
        trainer.add_callback(self)
        return self

    def _log(self, values: dict[str, float]) -> None:
        self._trainer.log(
            {
                name: v
                for name, v in values.items()
                if not name.startswith(("watch/gradient", "watch/step"))
            }
        )

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._end()  # in case an error ended the last training
        self._attempts = Attempts("watching")
        self._inputs = _InputRecorder(kwargs["model"])
        log_to_trainer = [] if self._trainer is None else [self._log]
        self.watch = watch(
            kwargs["model"],
            loss=self.loss,
            forward=self.forward,
            every=self.every,
            budget=self.budget,
            window=self.window,
            log=combine_logs(self.log, *log_to_trainer),
            show=self.show,
            ranks=self.ranks,
        )

    def on_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Sample here, where the gradients still exist."""
        assert self.watch is not None
        assert self._inputs is not None
        if self._inputs.named is not None:
            self._attempts(self.watch.step, *self._inputs.args, **self._inputs.named)

    def on_evaluate(
        self, args: Any, state: Any, control: Any, metrics: Any = None, **kwargs: Any
    ) -> None:
        if self.watch is not None and metrics and "eval_loss" in metrics:
            self._attempts(self.watch.validated, metrics["eval_loss"])

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._end()

    def _end(self) -> None:
        if self._inputs is not None:
            self._inputs.close()
        if self.watch is not None:
            self._attempts(self.watch.close)


class ThinnedCallback(TrainerCallback):  # type: ignore[misc, unused-ignore]
    """Does for thinned layers what a training loop does, at the right hooks of the Trainer.

    ``findings`` holds what ``check=True`` found. Callbacks are called only after a prediction is
    done, so sampling in prediction is a function, :func:`mc_predict`.

    Args:
        key: A seed: masks are functions of the optimizer step (:func:`thinned.key`), and differ on
            each rank. None leaves the model unkeyed.
        schedules: Whether to move rates to ``state.global_step``; a key does so anyway.
        check: Whether to run :func:`thinned.check` on the first batch and warn of its findings.
        samples: The name of the sample ids in the batches, as ``Indexed(data, name=...)`` of
            :mod:`thinned.integrations.data` adds them: masks are then functions of example and
            step, the same on any number of ranks. The Trainer drops inputs that the model does not
            know, so pass ``remove_unused_columns=False``; the callback removes the ids before the
            model is called.

    Raises:
        InputError: Where ``samples`` is passed without ``key``; in training, where a batch has no
            ids.
    """

    def __init__(
        self,
        key: int | None = None,
        schedules: bool = True,
        check: bool = False,
        samples: str | None = None,
    ) -> None:
        if samples is not None and key is None:
            raise InputError(
                f"samples needs a key, but got only samples={samples!r}; pass key=0 too"
            )
        self.seed, self.schedules, self.check, self.samples = key, schedules, check, samples
        self.findings: Any = None
        self._key: Any = None
        self._ids: _SampleIds | None = None
        self._inputs: _InputRecorder | None = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._end()  # in case an error ended the last training; auto_find_batch_size catches some
        if self.seed is not None:
            self._key = key(
                kwargs["model"], self.seed + (0 if self.samples else args.process_index)
            )
        if self.samples is not None:
            self._ids = _SampleIds(
                kwargs["model"], self.samples, lambda ids: self._key.at(state.global_step, ids)
            )
        if self.check:
            self._inputs = _InputRecorder(kwargs["model"])

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self._ids is not None:
            self._ids.used = False
        if self._key is not None:
            self._key.at(state.global_step)
        elif self.schedules:
            step(kwargs["model"], state.global_step)

    def on_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self._inputs is None or self._inputs.named is None or self.findings is not None:
            return
        self.findings = check_and_warn(kwargs["model"], self._inputs.args, self._inputs.named)
        self._inputs.close()

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._end()

    def _end(self) -> None:
        if self._key is not None:
            self._key.remove()
            self._key = None
        if self._ids is not None:
            self._ids.close()
            self._ids = None
        if self._inputs is not None:
            self._inputs.close()


def mc_predict(trainer: Any, data: Any, samples: int = 20) -> list[Any]:
    """Monte Carlo dropout: call ``trainer.predict(data)`` several times with independent masks.

    Only our layers draw, so call ``thinned.replace(model)`` first; normalization remains in
    evaluation mode. The mean over the results is the prediction, their standard deviation its
    uncertainty: ``numpy.stack([result.predictions for result in results])``. To sample in
    ``evaluate``, write ``with thinned.sampling(model): trainer.evaluate()``.

    Args:
        trainer: The Trainer.
        data: The data set, as for ``trainer.predict``.
        samples: The number of passes, at least 1.

    Returns:
        The results of ``trainer.predict``, one per pass.

    Raises:
        InputError: Where ``samples`` is below 1, or where the model has no layer of ours.

    Reference:
        Gal, Ghahramani 2016, "Dropout as a Bayesian approximation: representing model uncertainty
        in deep learning".
    """
    samples = whole(samples, "samples", 1)
    with sampling(trainer.model):
        return [trainer.predict(data) for _ in range(samples)]
