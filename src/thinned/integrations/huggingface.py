"""For the Trainer of Hugging Face: watch a training, move keys and schedules, check at the start,
sample predictions.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .._errors import InputError, whole
from .._optional import missing
from ..checks.watch import Watch, watch
from ..nn import key, sampling, step
from .shared import checked, needs_ours, sinks

try:
    from transformers import TrainerCallback
except ImportError as e:
    raise ImportError(missing(e, "hf")) from e

_COUNTED = ("num_items_in_batch",)  # by which the Trainer scales a loss over micro-batches


class _Inputs:
    """The inputs of a model's last training pass, which no callback is given."""

    def __init__(self, model: Any) -> None:
        self.args: tuple[Any, ...] = ()
        self.named: dict[str, Any] | None = None
        self._handle = model.register_forward_pre_hook(self._keep, with_kwargs=True)

    def _keep(self, model: Any, args: Any, kwargs: Any) -> None:
        if model.training:
            self.args, self.named = args, {k: v for k, v in kwargs.items() if k not in _COUNTED}

    def close(self) -> None:
        self._handle.remove()
        self.args, self.named = (), None


class _Ids:
    """Takes the examples' ids out of a model's named inputs, which it does not know, and says them
    while training.
    """

    def __init__(self, model: Any, name: str, say: Callable[[Any], None]) -> None:
        self.name, self.say = name, say
        self.said = False  # in this optimizer step
        self._handle = model.register_forward_pre_hook(self._take, with_kwargs=True)

    def _take(self, model: Any, args: Any, kwargs: Any) -> Any:
        if self.name in kwargs:
            kwargs = dict(kwargs)
            ids = kwargs.pop(self.name)
            if model.training:
                self.say(ids)
                self.said = True
        elif model.training and not self.said:
            raise InputError(
                f"samples={self.name!r} has to be among the inputs of each training batch, but got {', '.join(kwargs)}; pass "
                f"train_dataset=Indexed(data, name={self.name!r}) and TrainingArguments(remove_unused_columns=False)"
            )
        return args, kwargs

    def close(self) -> None:
        self._handle.remove()


class WatchCallback(TrainerCallback):  # type: ignore[misc, unused-ignore]
    """:func:`thinned.watch` in a ``Trainer``. ``watch`` is the :class:`thinned.Watch`.

    The loss is the model's own (pass ``labels``), the validation loss the Trainer's ``eval_loss``.
    ``options``: of :func:`thinned.watch`, such as ``every``, ``budget``, ``show``, ``log``. A
    callback knows no Trainer, so to log through it, call ``WatchCallback().attach(trainer)``; else
    give it as ``callbacks=[WatchCallback()]``.
    """

    def __init__(self, **options: Any) -> None:
        self.options = options
        self.watch: Watch | None = None
        self._trainer: Any = None
        self._inputs: _Inputs | None = None

    def attach(self, trainer: Any) -> WatchCallback:
        """Watch this trainer, and log through it."""
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
        self._end()  # of a training that an error ended
        self._inputs = _Inputs(kwargs["model"])
        through = [] if self._trainer is None else [self._log]
        self.watch = watch(
            kwargs["model"], **{**self.options, "log": sinks(self.options.get("log"), *through)}
        )

    def on_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Gradients still stand here."""
        assert self.watch is not None
        assert self._inputs is not None
        if self._inputs.named is not None:
            self.watch.step(*self._inputs.args, **self._inputs.named)

    def on_evaluate(
        self, args: Any, state: Any, control: Any, metrics: Any = None, **kwargs: Any
    ) -> None:
        if self.watch is not None and metrics and "eval_loss" in metrics:
            self.watch.validated(metrics["eval_loss"])

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._end()

    def _end(self) -> None:
        if self._inputs is not None:
            self._inputs.close()
        if self.watch is not None:
            self.watch.close()


class ThinnedCallback(TrainerCallback):  # type: ignore[misc, unused-ignore]
    """What a training loop does for thinned layers, done by the Trainer.

    ``key``: a seed; the masks are then functions of the optimizer step (:func:`thinned.key`), other
    ones on each rank. ``samples``: the name under which batches hold their examples' ids, as
    ``Indexed(data, name=...)`` of :mod:`thinned.integrations.data` gives them; then masks are the
    examples' own, on any number of ranks. The Trainer keeps what the model does not know only with
    ``remove_unused_columns=False``; the ids are taken out before the model is called.
    ``schedules``: move rates to ``state.global_step``. ``check``: run ``thinned.check`` on the
    first batch, and warn of what it finds. To sample in prediction is no callback's, which hear of
    a prediction when it is done: :func:`mc_predict`.

    Raises :class:`thinned.InputError` for ``samples`` without ``key``, and in training where a
    batch has no ids.
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
                f"samples needs a key to give ids to, but got samples={samples!r} alone; pass key=0 too"
            )
        self.seed, self.schedules, self.check, self.samples = key, schedules, check, samples
        self.findings: Any = None
        self._key: Any = None
        self._ids: _Ids | None = None
        self._inputs: _Inputs | None = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._end()  # of a training that an error ended, as auto_find_batch_size catches it
        if self.seed is not None:
            self._key = key(
                kwargs["model"], self.seed + (0 if self.samples else args.process_index)
            )
        if self.samples is not None:
            self._ids = _Ids(
                kwargs["model"], self.samples, lambda ids: self._key.at(state.global_step, ids)
            )
        if self.check:
            self._inputs = _Inputs(kwargs["model"])

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self._ids is not None:
            self._ids.said = False
        if self._key is not None:
            self._key.at(state.global_step)
        elif self.schedules:
            step(kwargs["model"], state.global_step)

    def on_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self._inputs is None or self._inputs.named is None or self.findings is not None:
            return
        self.findings = checked(kwargs["model"], self._inputs.args, self._inputs.named)
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


def mc_predict(trainer: Any, data: Any, passes: int = 20) -> list[Any]:
    """What ``trainer.predict(data)`` gives, ``passes`` times, with masks drawn each time: Monte
    Carlo dropout.

    Only our layers draw, so call ``thinned.replace(model)`` first; normalisation stays in
    evaluation. ``numpy.stack`` the ``predictions`` of what is returned: their mean is the
    prediction, their spread the model's uncertainty. (Gal and Ghahramani 2016.) ``evaluate``
    samples in the same way: ``with thinned.sampling(model): trainer.evaluate()``.

    Raises :class:`thinned.InputError` for less than one pass, and for a model in which nothing of
    ours draws.
    """
    passes = whole(passes, "passes", 1)
    needs_ours(trainer.model, "mc_predict")
    with sampling(trainer.model):
        return [trainer.predict(data) for _ in range(passes)]
