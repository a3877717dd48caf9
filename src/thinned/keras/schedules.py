"""Rates that move while a model trains."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import keras

from .._errors import InputError
from ..algebra.schedule import Schedule
from . import arguments, traversal
from .layers.base import Noisy
from .surgery import Where, means


class ScheduleCallback(keras.callbacks.Callback):
    """Sets the rates of our layers to ``schedule(step)`` at every step, or ``schedule(epoch)`` at
    every epoch, from 0.

    ``schedule``: one of :mod:`thinned.algebra`'s, such as ``Linear(0, 0.3, 1000)``, or any function
    of a whole number. ``where``: which layers, as :func:`thinned.keras.apply` reads it; None for
    all. ``unit``: "step" counts optimizer steps, on from where the optimizer stands; "epoch" counts
    epochs. A compiled step sees the change and is not compiled again. After training the last rate
    stays. With ``steps_per_execution`` above 1 rates move once an execution.

    Keras's own layers hold their rates as constants of the compiled step: where they alone are
    meant, training raises :class:`thinned.InputError`; put ours in their place with
    :func:`thinned.keras.apply`.
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
        self.layers: list[Noisy] = []
        self.step = 0

    def on_train_begin(self, logs: Any = None) -> None:
        meant = [
            (n, layer)
            for n, layer in traversal.layers(self.model)
            if self.where is None or means(self.where, n, layer)
        ]
        self.layers = [layer for _, layer in meant if isinstance(layer, Noisy)]
        if not self.layers:
            raise InputError(
                "no layer of thinned.keras is meant, so no rate can move; thinned.keras.apply(model, keras.layers.Dropout, "
                "rate) puts ours in the place of Keras's"
            )
        optimizer = getattr(self.model, "optimizer", None)
        self.step = int(optimizer.iterations) if optimizer is not None else 0
        if self.unit == "step":
            self._set(self.step)

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        if self.unit == "epoch":
            self._set(epoch)

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        if self.unit == "step" and self.layers[0].rate != self.schedule(self.step):
            if hasattr(
                self.model, "jax_state_sync"
            ):  # JAX keeps the state of a running epoch beside the variables
                self.model.jax_state_sync()
            self._set(self.step)

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self.step += int(getattr(self.model, "steps_per_execution", 1))

    def _set(self, at: int) -> None:
        rate = float(self.schedule(at))
        for layer in self.layers:
            layer.rate = rate
