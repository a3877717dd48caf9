"""Zoneout: units of a recurrent state that keep their previous value."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
from keras import ops

from ...engines import keras as engine
from ...presets import dropout
from .. import arguments
from .base import PACKAGE, RatedLayer, rate_property
from .recurrent import check_no_dropout

_CLASSIC = dropout(0.5, "classic")


@keras.saving.register_keras_serializable(PACKAGE)
class ZoneoutCell(keras.layers.Layer):
    """The cell that :class:`Zoneout` runs.

    Its input is that of the step, followed for each unit by 1 where it is updated and 0 where it
    keeps its value. A cell cannot draw inside a compiled loop on every backend, so the layer draws
    for all steps beforehand.
    """

    def __init__(self, cell: keras.Layer, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.cell = cell
        sizes = cell.state_size
        self.sizes = tuple(sizes) if isinstance(sizes, (list, tuple)) else (sizes,)
        self.state_size, self.output_size = sizes, cell.output_size
        # Set by the layer. It is a function since the cell must not track the states a second time.
        self.read_rates: Callable[[], tuple[Any, ...]] = tuple

    def build(self, input_shape: Any) -> None:
        if not self.cell.built:  # a cell from a file is built
            self.cell.build((*input_shape[:-1], input_shape[-1] - sum(self.sizes)))
        self.built = True

    def call(self, inputs: Any, states: Any, training: bool = False) -> Any:
        states = list(states) if isinstance(states, (list, tuple)) else [states]
        x = inputs[:, : -sum(self.sizes)]
        keywords = {"training": training} if self.cell._call_has_training_arg else {}
        _, new = self.cell(x, states if len(states) > 1 else states[0], **keywords)
        new = list(new) if isinstance(new, (list, tuple)) else [new]
        zoned, column = [], inputs.shape[-1] - sum(self.sizes)
        for rate, before, after, size in zip(
            self.read_rates(), states, new, self.sizes, strict=True
        ):
            step = after - before
            if training:
                updated = inputs[:, column : column + size] > 0
                step = ops.where(updated, step, ops.zeros_like(step))
            else:
                step = engine.mean(step, _CLASSIC, rate)
            zoned.append(before + step)
            column += size
        return zoned[0], (zoned if len(zoned) > 1 else zoned[0])

    def get_initial_state(self, batch_size: Any = None) -> Any:
        return self.cell.get_initial_state(batch_size=batch_size)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "cell": keras.saving.serialize_keras_object(self.cell)}


@keras.saving.register_keras_serializable(PACKAGE)
class Zoneout(RatedLayer, keras.layers.RNN):
    """Zoneout: units of a recurrent layer keep their previous value with probability ``rate``.

    previous + m (new - previous) while training, with a mask m for each step; previous + (1 - rate)
    (new - previous), the mean, in evaluation. At rate 0 it is ``keras.layers.RNN(cell)``; at 1 the
    state never changes. Input [b, t, d].

    Args:
        cell: A keras LSTMCell, GRUCell or SimpleRNNCell, or any cell that outputs its first
            state, without dropout of its own.
        rate: The rate of the hidden state, in [0, 1]; may be set at any time.
        cell_rate: The rate of the cell state of an LSTM, in [0, 1]; None is ``rate``. It may be set
            at any time.
        seed: An integer that fixes the draws; None takes a random one.
        **kwargs: Arguments of ``keras.layers.RNN``, such as ``return_sequences``.

    Raises:
        InputError: Where an argument breaks a rule. It is a ValueError.

    Example:
        >>> Zoneout(keras.layers.LSTMCell(8), 0.05, cell_rate=0.5).cell_rate
        0.5

    Reference:
        Krueger et al. 2017, "Zoneout: regularizing RNNs by randomly preserving hidden activations".
    """

    kind, other_rates = "recurrent", ("cell_rate",)
    config_names = ("rate", "cell_rate", "seed")
    cell_rate = rate_property("cell_rate")

    def __init__(
        self,
        cell: keras.Layer,
        rate: float = 0.1,
        cell_rate: float | None = None,
        seed: int | None = None,
        **kwargs: Any,
    ) -> None:
        if isinstance(cell, ZoneoutCell):
            cell = cell.cell
        check_no_dropout(cell)
        super().__init__(ZoneoutCell(cell), **kwargs)
        self.start(rate, seed)
        self.cell_rate = rate if cell_rate is None else cell_rate
        count = len(self.cell.sizes)
        if count > 2:
            rule = "Expected a cell of one or two states."
            raise arguments.invalid("cell", rule, f"{type(cell).__name__}({count} states)")
        self.cell.read_rates = self.read_rates

    def build(self, sequences_shape: Any, initial_state_shape: Any = None) -> None:
        super().build((*sequences_shape[:-1], sequences_shape[-1] + sum(self.cell.sizes)))

    def read_rates(self) -> tuple[Any, ...]:
        """The rates of the states of the cell, as tensors, which compiled steps read."""
        states = (self.rate_state, self.cell_rate_state)
        return tuple(state.state.value for state in states[: len(self.cell.sizes)])

    def call(
        self, sequences: Any, initial_state: Any = None, mask: Any = None, training: bool = False
    ) -> Any:
        b, t = ops.shape(sequences)[:2]
        masks = [
            engine.bernoulli_mask((b, t, size), _CLASSIC, rate, self.seed_generator)
            if training
            else ops.ones((b, t, size), dtype="bool")
            for rate, size in zip(self.read_rates(), self.cell.sizes, strict=True)
        ]
        x = ops.concatenate([sequences, *(ops.cast(m, sequences.dtype) for m in masks)], axis=-1)
        return super().call(x, initial_state=initial_state, mask=mask, training=training)

    def get_config(self) -> dict[str, Any]:
        cell = keras.saving.serialize_keras_object(self.cell.cell)
        return {**super().get_config(), "cell": cell}
