"""Dropout of recurrent states: variational, without memory loss, RNNDrop."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import keras
from keras import ops

from ...engines import keras as engine
from ...presets import dropout, locked_dropout
from .. import arguments
from ..state import Rate
from .base import PACKAGE, Noisy, floating, moving
from .recurrent import still

Thin = Callable[[str, Any], Any]  # what falls of a value at a place
_CELLS = (keras.layers.LSTMCell, keras.layers.GRUCell, keras.layers.SimpleRNNCell)
# method -> the place that falls, the cells that have it, scalings and how long a mask lasts, the
# paper's first
_METHODS: dict[str, tuple[str, tuple[type, ...], tuple[str, ...], tuple[str, ...]]] = {
    "variational": ("hidden", _CELLS, ("inverted", "classic"), ("sequence",)),
    "recurrent": ("candidate", _CELLS[:2], ("classic", "inverted"), ("step", "sequence")),
    "rnndrop": ("memory", _CELLS[:1], ("classic",), ("sequence",)),
}
_LOCKED = locked_dropout(0.5)


@keras.saving.register_keras_serializable(PACKAGE)
class DropStateCell(keras.layers.Layer):
    """The cell that :class:`DropState` runs; while training its input is the step's, followed by 1
    for each unit that stays.

    The weights are the cell's own. A cell cannot draw inside a compiled loop on every backend, so
    the layer draws beforehand.
    """

    def __init__(self, cell: keras.Layer, place: str, scale: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.cell, self.place, self.scale = cell, place, scale
        self.base_spec = dropout(0.5, "inverted" if scale == "inverted" else "classic")
        self.now = Rate(0.5)  # the layer puts its own here
        self.state_size, self.output_size = cell.state_size, cell.output_size

    def build(self, input_shape: Any) -> None:
        if not self.cell.built:  # a cell from a file is
            self.cell.build(input_shape)
        self.built = True

    def call(self, inputs: Any, states: Any, training: bool = False) -> Any:
        several = isinstance(states, (list, tuple))
        x, stays = inputs, None
        if training:
            x, stays = inputs[:, : -self.output_size], inputs[:, -self.output_size :] > 0

        def thin(place: str, y: Any) -> Any:
            if place != self.place:
                return y
            return (
                engine.mean(y, self.base_spec, self.now.state.value)
                if stays is None
                else self._fallen(y, stays)
            )

        step = next(f for kind, f in _STEPS.items() if isinstance(self.cell, kind))
        new = step(self.cell, x, tuple(states) if several else (states,), thin)
        return new[0], (new if several else new[0])

    def _fallen(self, y: Any, stays: Any) -> Any:
        dtype = engine.wide(y)
        gain, *_ = engine.coefficients(self.base_spec, ops.cast(self.now.state.value, dtype))
        return ops.cast(ops.where(stays, ops.cast(y, dtype) * gain, 0.0), y.dtype)

    def get_initial_state(self, batch_size: Any = None) -> Any:
        return self.cell.get_initial_state(batch_size=batch_size)

    def get_config(self) -> dict[str, Any]:
        own = {
            "cell": keras.saving.serialize_keras_object(self.cell),
            "place": self.place,
            "scale": self.scale,
        }
        return {**super().get_config(), **own}


def _lstm(cell: Any, x: Any, states: tuple[Any, ...], thin: Thin) -> list[Any]:
    h, c = states
    gates = ops.matmul(x, cell.kernel) + ops.matmul(thin("hidden", h), cell.recurrent_kernel)
    i, f, g, o = ops.split(ops.add(gates, cell.bias) if cell.use_bias else gates, 4, axis=-1)
    gate = cell.recurrent_activation
    c = thin("memory", gate(f) * c + thin("candidate", gate(i) * cell.activation(g)))
    return [gate(o) * cell.activation(c), c]


def _gru(cell: Any, x: Any, states: tuple[Any, ...], thin: Thin) -> list[Any]:
    (h,) = states
    inward, own = ops.matmul(x, cell.kernel), None
    if cell.use_bias:
        bias = ops.convert_to_tensor(cell.bias)
        inward, own = (inward + bias[0], bias[1]) if cell.reset_after else (inward + bias, None)
    met, weight, both = (
        thin("hidden", h),
        ops.convert_to_tensor(cell.recurrent_kernel),
        2 * cell.units,
    )
    inner = ops.matmul(met, weight if cell.reset_after else weight[:, :both])
    inner = inner if own is None else inner + own
    z, r = ops.split(cell.recurrent_activation(inward[:, :both] + inner[:, :both]), 2, axis=-1)
    recalled = r * inner[:, both:] if cell.reset_after else ops.matmul(r * met, weight[:, both:])
    fresh = cell.activation(inward[:, both:] + recalled)
    return [z * h + thin("candidate", (1 - z) * fresh)]


def _simple(cell: Any, x: Any, states: tuple[Any, ...], thin: Thin) -> list[Any]:
    y = ops.matmul(x, cell.kernel) + ops.matmul(thin("hidden", states[0]), cell.recurrent_kernel)
    y = ops.add(y, cell.bias) if cell.use_bias else y
    return [y if cell.activation is None else cell.activation(y)]


_STEPS: dict[type, Callable[..., list[Any]]] = dict(
    zip(_CELLS, (_lstm, _gru, _simple), strict=True)
)


@keras.saving.register_keras_serializable(PACKAGE)
class DropState(Noisy, keras.layers.RNN):
    """A recurrent layer whose state falls, by the masks of a paper.

    ``cell``: a keras LSTMCell, GRUCell or SimpleRNNCell without dropout of its own; weights, files
    and outputs are those of ``keras.layers.RNN(cell)``. m is a mask [b, units], ``rate`` in [0, 1]
    its rate. ``method``:

    - ``"variational"``: m h where it meets the recurrent kernel, one m for all steps and gates. Gal and Ghahramani 2016.
      Keras's own ``recurrent_dropout`` has a mask for each gate, and does nothing at 1.
    - ``"recurrent"``: c = f c + m i g in an LSTM, h = z h + (1 - z) m n in a GRU: what is remembered never falls.
      ``per="step"`` draws m anew (0.25 in the paper), ``"sequence"`` keeps it (0.5). Semeniuta, Severyn, Barth 2016.
    - ``"rnndrop"``: c = m (f c + i g) in an LSTM, one m for all steps. Moon, Choi, Lee, Song 2015.

    ``scale``: ``"inverted"`` divides m by 1 - rate, and evaluation is the plain layer;
    ``"classic"`` has 1 - rate for m in evaluation. None is the paper's: inverted for variational,
    else classic; rnndrop has no other. ``input_rate``: :class:`LockedDropout` on the input.
    ``kwargs``: keras.layers.RNN's, such as ``return_sequences``. Input [b, t, d]. Zoneout is
    :class:`Zoneout`, weight-drop :class:`DropConnect`. Raises :class:`thinned.InputError`, a
    ValueError.
    """

    kind, others = "recurrent", ("input_rate",)
    input_rate = moving("input_rate")

    def __init__(
        self,
        cell: keras.Layer,
        rate: float = 0.5,
        method: Literal["variational", "recurrent", "rnndrop"] = "variational",
        input_rate: float = 0.0,
        per: Literal["step", "sequence"] | None = None,
        scale: Literal["inverted", "classic"] | None = None,
        seed: int | None = None,
        **kwargs: Any,
    ) -> None:
        self.method = arguments.one_of(method, "method", tuple(_METHODS))
        place, cells, scales, lasts = _METHODS[method]
        if not isinstance(cell, cells):
            rule = f"Expected for {method!r} a cell of {' or '.join(c.__name__ for c in cells)}."
            raise arguments.invalid("cell", rule, type(cell).__name__)
        still(cell)
        self.scale = arguments.one_of(scale or scales[0], "scale", scales)
        self.per = arguments.one_of(per or lasts[0], "per", lasts)
        policy = getattr(cell, "dtype_policy", None)
        super().__init__(DropStateCell(cell, place, self.scale, dtype=policy), **kwargs)
        self.start(rate, seed)
        self.cell.now = self.moving_rate
        self.input_rate = input_rate

    def call(
        self, sequences: Any, initial_state: Any = None, mask: Any = None, training: bool = False
    ) -> Any:
        x = floating(sequences, self)
        if training:
            x = engine.sample(x, _LOCKED, self.moving_input_rate.state.value, self.seed_generator)
            b, t = ops.shape(x)[:2]
            units = self.cell.output_size
            coins = (b, t if self.per == "step" else 1, units)
            stays = engine.kept(
                coins, self.cell.spec, self.now(), self.seed_generator, None, "float32"
            )
            x = ops.concatenate(
                [x, ops.cast(ops.broadcast_to(stays, (b, t, units)), x.dtype)], axis=-1
            )
        return super().call(x, initial_state=initial_state, mask=mask, training=training)

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        config["cell"] = keras.saving.serialize_keras_object(self.cell.cell)
        own = ("rate", "method", "input_rate", "per", "scale", "seed")
        return {**config, **{name: getattr(self, name) for name in own}}
