"""Dropout of recurrent states: variational, without memory loss, and RNNDrop."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, TypeAlias

import keras
from keras import ops

from ...engines import keras as engine
from ...presets import dropout, locked_dropout
from .. import arguments
from .base import PACKAGE, RatedLayer, floating, rate_property

Thin = Callable[[str, Any], Any]  # (place, value) -> the value after the noise of that place
Method: TypeAlias = Literal["variational", "recurrent", "rnndrop"]
_CELLS = (keras.layers.LSTMCell, keras.layers.GRUCell, keras.layers.SimpleRNNCell)
# method -> the place that is dropped, the cells that have it, the scales and how long a mask lasts;
# the paper's choice comes first
_METHODS: dict[str, tuple[str, tuple[type, ...], tuple[str, ...], tuple[str, ...]]] = {
    "variational": ("hidden", _CELLS, ("inverted", "classic"), ("sequence",)),
    "recurrent": ("candidate", _CELLS[:2], ("classic", "inverted"), ("step", "sequence")),
    "rnndrop": ("memory", _CELLS[:1], ("classic",), ("sequence",)),
}
_LOCKED = locked_dropout(0.5)


def check_no_dropout(cell: Any) -> None:
    """Refuse a cell with dropout of its own."""
    if getattr(cell, "dropout", 0.0) or getattr(cell, "recurrent_dropout", 0.0):
        rule = "Expected a cell without dropout of its own; put LockedDropout before the layer."
        raise arguments.invalid("cell", rule, f"{type(cell).__name__}(dropout={cell.dropout}, ...)")


@keras.saving.register_keras_serializable(PACKAGE)
class DropStateCell(keras.layers.Layer):
    """The cell that :class:`DropState` runs, with the weights of the cell inside.

    While training its input is that of the step, followed by the mask: 1 for each unit that is
    kept. A cell cannot draw inside a compiled loop on every backend, so the layer draws beforehand.
    """

    def __init__(self, cell: keras.Layer, place: str, scale: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.cell, self.place, self.scale = cell, place, scale
        self.base_spec = dropout(0.5, "inverted" if scale == "inverted" else "classic")
        # Set by the layer. It is a function since the cell must not track the state a second time.
        self.read_rate: Callable[[], Any] | None = None
        self.state_size, self.output_size = cell.state_size, cell.output_size

    def build(self, input_shape: Any) -> None:
        if not self.cell.built:  # a cell from a file is built
            self.cell.build(input_shape)
        self.built = True

    def call(self, inputs: Any, states: Any, training: bool = False) -> Any:
        several = isinstance(states, (list, tuple))
        x, keep = inputs, None
        if training:
            x, keep = inputs[:, : -self.output_size], inputs[:, -self.output_size :] > 0

        def thin(place: str, y: Any) -> Any:
            if place != self.place:
                return y
            if keep is None:
                return engine.mean(y, self.base_spec, self._rate())
            return self._apply_mask(y, keep)

        step = next(f for kind, f in _STEPS.items() if isinstance(self.cell, kind))
        new = step(self.cell, x, tuple(states) if several else (states,), thin)
        return new[0], (new if several else new[0])

    def _rate(self) -> Any:
        return 0.5 if self.read_rate is None else self.read_rate()

    def _apply_mask(self, y: Any, keep: Any) -> Any:
        dtype = engine.noise_dtype(y)
        rate = ops.cast(self._rate(), dtype)
        gain, *_ = engine.coefficients(self.base_spec, rate)
        return ops.cast(ops.where(keep, ops.cast(y, dtype) * gain, 0.0), y.dtype)

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
    from_input, recurrent_bias = ops.matmul(x, cell.kernel), None
    if cell.use_bias:
        bias = ops.convert_to_tensor(cell.bias)
        if cell.reset_after:
            from_input, recurrent_bias = from_input + bias[0], bias[1]
        else:
            from_input = from_input + bias
    dropped = thin("hidden", h)
    weight = ops.convert_to_tensor(cell.recurrent_kernel)
    two_gates = 2 * cell.units
    # With reset_after the reset gate acts after the product with the recurrent kernel, so that one
    # product serves all gates; otherwise the candidate needs a product of its own.
    from_state = ops.matmul(dropped, weight if cell.reset_after else weight[:, :two_gates])
    from_state = from_state if recurrent_bias is None else from_state + recurrent_bias
    gates = cell.recurrent_activation(from_input[:, :two_gates] + from_state[:, :two_gates])
    z, r = ops.split(gates, 2, axis=-1)
    if cell.reset_after:
        recalled = r * from_state[:, two_gates:]
    else:
        recalled = ops.matmul(r * dropped, weight[:, two_gates:])
    candidate = cell.activation(from_input[:, two_gates:] + recalled)
    return [z * h + thin("candidate", (1 - z) * candidate)]


def _simple(cell: Any, x: Any, states: tuple[Any, ...], thin: Thin) -> list[Any]:
    y = ops.matmul(x, cell.kernel) + ops.matmul(thin("hidden", states[0]), cell.recurrent_kernel)
    y = ops.add(y, cell.bias) if cell.use_bias else y
    return [y if cell.activation is None else cell.activation(y)]


_STEPS: dict[type, Callable[..., list[Any]]] = dict(
    zip(_CELLS, (_lstm, _gru, _simple), strict=True)
)


class StateLayer(RatedLayer, keras.layers.RNN):
    """Base of the recurrent layers that drop their state. Abstract."""

    abstract = True
    kind, other_rates = "recurrent", ("inputs",)
    inputs = rate_property("inputs")

    def __init__(
        self,
        cell: keras.Layer,
        rate: float,
        method: str,
        *,
        inputs: float,
        per: str | None = None,
        scale: str | None = None,
        seed: int | None,
        **kwargs: Any,
    ) -> None:
        self.method = arguments.one_of(method, "method", tuple(_METHODS))
        place, cells, scales, durations = _METHODS[method]
        if not isinstance(cell, cells):
            rule = f"Expected for {method!r} a cell of {' or '.join(c.__name__ for c in cells)}."
            raise arguments.invalid("cell", rule, type(cell).__name__)
        check_no_dropout(cell)
        self.scale = arguments.one_of(scale or scales[0], "scale", scales)
        self.per = arguments.one_of(per or durations[0], "per", durations)
        policy = getattr(cell, "dtype_policy", None)
        super().__init__(DropStateCell(cell, place, self.scale, dtype=policy), **kwargs)
        self.start(rate, seed)
        self.cell.read_rate = self.now
        self.inputs = inputs

    def call(
        self, sequences: Any, initial_state: Any = None, mask: Any = None, training: bool = False
    ) -> Any:
        x = floating(sequences, self)
        if training:
            x = engine.sample(x, _LOCKED, self.inputs_state.state.value, self.seed_generator)
            b, t = ops.shape(x)[:2]
            units = self.cell.output_size
            shape = (b, t if self.per == "step" else 1, units)
            keep = engine.bernoulli_mask(
                shape, self.cell.base_spec, self.now(), self.seed_generator
            )
            keep = ops.cast(ops.broadcast_to(keep, (b, t, units)), x.dtype)
            x = ops.concatenate([x, keep], axis=-1)
        return super().call(x, initial_state=initial_state, mask=mask, training=training)

    def get_config(self) -> dict[str, Any]:
        cell = keras.saving.serialize_keras_object(self.cell.cell)
        return {**super().get_config(), "cell": cell}


@keras.saving.register_keras_serializable(PACKAGE)
class DropState(StateLayer):
    """A recurrent layer that drops its state, by any of three methods.

    Weights, files and outputs are those of ``keras.layers.RNN(cell)``. Input [b, t, d]. m is a mask
    [b, units]:

    - "variational", also :class:`VariationalRNNDropout`: m h in the product with the recurrent
      kernel, one m for all steps and gates. Keras's own ``recurrent_dropout`` has a mask for each
      gate, and does nothing at 1.
    - "recurrent", also :class:`RecurrentDropout`: c = f c + m i g in an LSTM, h = z h + (1 - z) m n
      in a GRU, so that the memory itself is never dropped.
    - "rnndrop", also :class:`RNNDrop`: c = m (f c + i g) in an LSTM, one m for all steps.

    Zoneout is :class:`Zoneout`, weight-drop :class:`WeightDrop`.

    Args:
        cell: A keras LSTMCell, GRUCell or SimpleRNNCell without dropout of its own.
        rate: The probability of dropping a unit, in [0, 1]; may be set at any time.
        method: "variational", "recurrent" (LSTM and GRU) or "rnndrop" (LSTM).
        inputs: The rate of :class:`LockedDropout` on the input, in [0, 1]; may be set at any
            time.
        per: "step" draws m at each step, "sequence" once. None is the paper's: "step" for
            "recurrent", "sequence" otherwise; the other methods have only that.
        scale: "inverted" divides m by 1 - rate, and evaluation is the layer without dropout;
            "classic" replaces m by 1 - rate in evaluation. None is the paper's: "inverted" for
            "variational", "classic" otherwise; "rnndrop" has only that.
        seed: An integer that fixes the draws; None takes a random one.
        **kwargs: Arguments of ``keras.layers.RNN``, such as ``return_sequences``.

    Raises:
        InputError: Where an argument breaks a rule, or does not go with the method. It is a
            ValueError.

    Example:
        >>> layer = DropState(keras.layers.LSTMCell(8), 0.25, method="recurrent")
        >>> layer.per, layer.scale
        ('step', 'classic')

    Reference:
        Gal and Ghahramani 2016, "A theoretically grounded application of dropout in recurrent
        neural networks"; Semeniuta, Severyn, Barth 2016, "Recurrent dropout without memory loss";
        Moon, Choi, Lee, Song 2015, "RNNDROP: a novel dropout for RNNs in ASR".
    """

    config_names = ("rate", "method", "inputs", "per", "scale", "seed")

    def __init__(
        self,
        cell: keras.Layer,
        rate: float = 0.5,
        method: Method = "variational",
        inputs: float = 0.0,
        per: Literal["step", "sequence"] | None = None,
        scale: Literal["inverted", "classic"] | None = None,
        seed: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            cell, rate, method, inputs=inputs, per=per, scale=scale, seed=seed, **kwargs
        )


@keras.saving.register_keras_serializable(PACKAGE)
class VariationalRNNDropout(StateLayer):
    """Variational recurrent dropout: one mask of the state for all steps and gates.

    The mask acts where the state meets the recurrent kernel. Weights, files and outputs are those
    of ``keras.layers.RNN(cell)``. Input [b, t, d].

    Args:
        cell: A keras LSTMCell, GRUCell or SimpleRNNCell without dropout of its own.
        rate: The probability of dropping a unit, in [0, 1]; may be set at any time.
        inputs: The rate of :class:`LockedDropout` on the input, in [0, 1]; may be set at any
            time.
        scale: "inverted" divides the mask by 1 - rate while training; "classic" multiplies by
            1 - rate in evaluation.
        seed: An integer that fixes the draws; None takes a random one.
        **kwargs: Arguments of ``keras.layers.RNN``, such as ``return_sequences``.

    Raises:
        InputError: Where an argument breaks a rule. It is a ValueError.

    Example:
        >>> VariationalRNNDropout(keras.layers.LSTMCell(8), 0.3, inputs=0.5).inputs
        0.5

    Reference:
        Gal and Ghahramani 2016, "A theoretically grounded application of dropout in recurrent
        neural networks".
    """

    config_names = ("rate", "inputs", "scale", "seed")

    def __init__(
        self,
        cell: keras.Layer,
        rate: float = 0.5,
        inputs: float = 0.0,
        scale: Literal["inverted", "classic"] = "inverted",
        seed: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(cell, rate, "variational", inputs=inputs, scale=scale, seed=seed, **kwargs)


@keras.saving.register_keras_serializable(PACKAGE)
class RecurrentDropout(StateLayer):
    """Recurrent dropout without memory loss: drops what an LSTM or GRU adds to its memory.

    c = f c + m i g in an LSTM, h = z h + (1 - z) m n in a GRU. Weights, files and outputs are those
    of ``keras.layers.RNN(cell)``. Input [b, t, d].

    Args:
        cell: A keras LSTMCell or GRUCell without dropout of its own.
        rate: The probability of dropping a unit, in [0, 1]; the paper uses 0.25 per step and 0.5
            per sequence. It may be set at any time.
        inputs: The rate of :class:`LockedDropout` on the input, in [0, 1]; may be set at any
            time.
        per: "step" draws the mask at each step, "sequence" once.
        scale: "classic" multiplies by 1 - rate in evaluation; "inverted" divides the mask by
            1 - rate while training.
        seed: An integer that fixes the draws; None takes a random one.
        **kwargs: Arguments of ``keras.layers.RNN``, such as ``return_sequences``.

    Raises:
        InputError: Where an argument breaks a rule. It is a ValueError.

    Example:
        >>> RecurrentDropout(keras.layers.GRUCell(8), per="sequence").rate
        0.25

    Reference:
        Semeniuta, Severyn, Barth 2016, "Recurrent dropout without memory loss".
    """

    config_names = ("rate", "inputs", "per", "scale", "seed")

    def __init__(
        self,
        cell: keras.Layer,
        rate: float = 0.25,
        inputs: float = 0.0,
        per: Literal["step", "sequence"] = "step",
        scale: Literal["inverted", "classic"] = "classic",
        seed: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            cell,
            rate,
            "recurrent",
            inputs=inputs,
            per=per,
            scale=scale,
            seed=seed,
            **kwargs,
        )


@keras.saving.register_keras_serializable(PACKAGE)
class RNNDrop(StateLayer):
    """RNNDrop: one mask of the memory of an LSTM for all steps.

    c = m (f c + i g) while training, with 1 - rate for m in evaluation. Weights, files and outputs
    are those of ``keras.layers.RNN(cell)``. Input [b, t, d].

    Args:
        cell: A keras LSTMCell without dropout of its own.
        rate: The probability of dropping a unit, in [0, 1]; may be set at any time.
        inputs: The rate of :class:`LockedDropout` on the input, in [0, 1]; may be set at any
            time.
        seed: An integer that fixes the draws; None takes a random one.
        **kwargs: Arguments of ``keras.layers.RNN``, such as ``return_sequences``.

    Raises:
        InputError: Where an argument breaks a rule. It is a ValueError.

    Example:
        >>> RNNDrop(keras.layers.LSTMCell(8)).rate
        0.2

    Reference:
        Moon, Choi, Lee, Song 2015, "RNNDROP: a novel dropout for RNNs in ASR".
    """

    config_names = ("rate", "inputs", "seed")

    def __init__(
        self,
        cell: keras.Layer,
        rate: float = 0.2,
        inputs: float = 0.0,
        seed: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(cell, rate, "rnndrop", inputs=inputs, seed=seed, **kwargs)
