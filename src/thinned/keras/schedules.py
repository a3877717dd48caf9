"""Rates that change while a model trains."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import keras

from .._errors import InputError
from ..algebra.schedule import Schedule
from . import arguments, traversal
from .layers.base import RatedLayer
from .surgery import Where, matches


class ScheduleCallback(keras.callbacks.Callback):
    """Sets the rates of layers of this library by a schedule while a model trains.

    Each step sets ``schedule(step)``, or each epoch ``schedule(epoch)``, both counted from 0. A
    compiled step sees the change and is not compiled again. After training the last rate remains.
    With ``steps_per_execution`` above 1 rates change once for each execution. Keras's own layers
    hold their rates as constants of the compiled step; replace them by
    :func:`thinned.keras.apply`.

    Args:
        schedule: One of :mod:`thinned.algebra`, such as ``Linear(0, 0.3, 1000)``, or any function
            of a whole number that returns a rate.
        where: The layers, as in :func:`thinned.keras.apply`; None takes all.
        unit: "step" counts the steps of the optimizer, including earlier ones; "epoch" counts
            epochs.

    Raises:
        InputError: Where an argument breaks a rule; at the start of training, where no layer of
            this library is selected.

    Example:
        >>> from thinned.algebra import Linear
        >>> callback = ScheduleCallback(Linear(0.0, 0.3, 1000))
        >>> callback.unit
        'step'
    """

    def __init__(
        self,
        schedule: Schedule | Callable[[int], float],
        where: Where = None,
        unit: Literal["step", "epoch"] = "step",
    ) -> None:
        super().__init__()
        if not callable(schedule):
            rule = "Expected a schedule or a function of the step."
            raise arguments.invalid("schedule", rule, repr(schedule))
        self.schedule, self.where = schedule, where
        self.unit = arguments.one_of(unit, "unit", ("step", "epoch"))
        self.layers: list[RatedLayer] = []
        self.step = 0

    def on_train_begin(self, logs: Any = None) -> None:
        selected = [
            layer
            for name, layer in traversal.layers(self.model)
            if self.where is None or matches(self.where, name, layer)
        ]
        self.layers = [layer for layer in selected if isinstance(layer, RatedLayer)]
        if not self.layers:
            raise InputError(
                "no layer of thinned.keras is selected, so no rate can change; "
                "thinned.keras.apply(model, keras.layers.Dropout, rate) replaces Keras's layers by "
                "those of thinned.keras"
            )
        optimizer = getattr(self.model, "optimizer", None)
        self.step = int(optimizer.iterations) if optimizer is not None else 0
        if self.unit == "step":
            self._set_rates(self.step)

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        if self.unit == "epoch":
            self._set_rates(epoch)

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        if self.unit == "step" and self.layers[0].rate != self.schedule(self.step):
            if hasattr(self.model, "jax_state_sync"):
                # JAX keeps the state of a running epoch apart from the variables
                self.model.jax_state_sync()
            self._set_rates(self.step)

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self.step += int(getattr(self.model, "steps_per_execution", 1))

    def _set_rates(self, step: int) -> None:
        rate = float(self.schedule(step))
        for layer in self.layers:
            layer.rate = rate
