"""Zoneout: units of a recurrent state that keep their previous value."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from ...engines import keras as engine
from ...presets import dropout
from .. import arguments
from ..state import Rate
from .base import PACKAGE, Noisy, moving

_POINT = dropout(0.5, "classic")


def still(cell: Any) -> None:
    """Refuse a cell that drops by itself."""
    if getattr(cell, "dropout", 0.0) or getattr(cell, "recurrent_dropout", 0.0):
        rule = "Expected a cell without dropout of its own; put LockedDropout before the layer."
        raise arguments.invalid("cell", rule, f"{type(cell).__name__}(dropout={cell.dropout}, ...)")


@keras.saving.register_keras_serializable(PACKAGE)
class ZoneoutCell(keras.layers.Layer):
    """The cell that :class:`Zoneout` runs: its input is the step's, followed for each unit by 1
    where it moves and 0 where not.

    A cell cannot draw inside a compiled loop on every backend, so the layer draws for all steps
    beforehand.
    """

    def __init__(self, cell: keras.Layer, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.cell = cell
        sizes = cell.state_size
        self.sizes = tuple(sizes) if isinstance(sizes, (list, tuple)) else (sizes,)
        self.state_size, self.output_size = sizes, cell.output_size
        self.rates: tuple[Rate, ...] = ()

    def build(self, input_shape: Any) -> None:
        if not self.cell.built:  # a cell from a file is
            self.cell.build((*input_shape[:-1], input_shape[-1] - sum(self.sizes)))
        self.built = True

    def call(self, inputs: Any, states: Any, training: bool = False) -> Any:
        states = list(states) if isinstance(states, (list, tuple)) else [states]
        x = inputs[:, : -sum(self.sizes)]
        given = {"training": training} if self.cell._call_has_training_arg else {}
        _, new = self.cell(x, states if len(states) > 1 else states[0], **given)
        new = list(new) if isinstance(new, (list, tuple)) else [new]
        zoned, at = [], inputs.shape[-1] - sum(self.sizes)
        for rate, before, after, size in zip(self.rates, states, new, self.sizes, strict=True):
            step = after - before
            if training:
                step = ops.where(inputs[:, at : at + size] > 0, step, ops.zeros_like(step))
            else:
                step = engine.mean(step, _POINT, rate.state.value)
            zoned.append(before + step)
            at += size
        return zoned[0], (zoned if len(zoned) > 1 else zoned[0])

    def get_initial_state(self, batch_size: Any = None) -> Any:
        return self.cell.get_initial_state(batch_size=batch_size)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "cell": keras.saving.serialize_keras_object(self.cell)}


@keras.saving.register_keras_serializable(PACKAGE)
class Zoneout(Noisy, keras.layers.RNN):
    """A recurrent layer whose units keep their previous value with probability ``rate``; Krueger et
    al. 2017.

    ``cell``: a keras LSTMCell, GRUCell or SimpleRNNCell, or any cell whose output is its first
    state, without dropout of its own. ``rate`` is that of the hidden state, ``cell_rate`` that of
    an LSTM's cell state (``rate`` if None); both in [0, 1]. previous + m (new - previous) while
    training, previous + (1 - rate)(new - previous), its mean, in evaluation; coins anew at each
    step. At rate 0 it is ``keras.layers.RNN(cell)``; at 1 the state never moves. ``kwargs``:
    keras.layers.RNN's, such as ``return_sequences``. Input [b, t, d]. Raises
    :class:`thinned.InputError`, a ValueError.
    """

    kind, others = "recurrent", ("cell_rate",)
    cell_rate = moving("cell_rate")

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
        still(cell)
        super().__init__(ZoneoutCell(cell), **kwargs)
        self.start(rate, seed)
        self.cell_rate = rate if cell_rate is None else cell_rate
        count = len(self.cell.sizes)
        if count > 2:
            raise arguments.invalid(
                "cell",
                "Expected a cell of one or two states.",
                f"{type(cell).__name__}({count} states)",
            )
        self.cell.rates = (self.moving_rate, *([self.moving_cell_rate] if count == 2 else []))

    def build(self, sequences_shape: Any, initial_state_shape: Any = None) -> None:
        super().build((*sequences_shape[:-1], sequences_shape[-1] + sum(self.cell.sizes)))

    def call(
        self, sequences: Any, initial_state: Any = None, mask: Any = None, training: bool = False
    ) -> Any:
        b, t = ops.shape(sequences)[:2]
        moves = [
            engine.kept(
                (b, t, size), _POINT, rate.state.value, self.seed_generator, None, "float32"
            )
            if training
            else ops.ones((b, t, size), dtype="bool")
            for rate, size in zip(self.cell.rates, self.cell.sizes, strict=True)
        ]
        wide = ops.concatenate([sequences, *(ops.cast(m, sequences.dtype) for m in moves)], axis=-1)
        return super().call(wide, initial_state=initial_state, mask=mask, training=training)

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        config["cell"] = keras.saving.serialize_keras_object(self.cell.cell)
        return {**config, "rate": self.rate, "cell_rate": self.cell_rate, "seed": self.seed}
