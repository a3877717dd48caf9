"""How one network is built and trained, as plain data."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from .._errors import InputError, real, unknown, whole
from ..algebra.drop import Drop

OPTIMIZERS = ("sgd", "adam", "adamw", "rmsprop", "adadelta", "adagrad")
ACTIVATIONS = ("relu", "tanh", "sigmoid", "selu", "gelu")
STEPS = ("linear", "norm", "act", "drop")
DECAYS = ("constant", "cosine")


def _at_least(minimum: float, **values: float | None) -> None:
    for name, value in values.items():
        if value is not None and not real(value, name) >= minimum:
            raise InputError(f"{name} has to be at least {minimum:g}, but got {value}")


def _tuple(name: str, values: Any) -> tuple[Any, ...]:
    """Lists as tuples, because recipes are compared and hashed."""
    if isinstance(values, str) or not isinstance(values, Iterable):
        raise InputError(f"{name} has to be a tuple, but got {values!r}")
    return tuple(values)


@dataclass(frozen=True)
class Mlp:
    """A multilayer perceptron.

    ``hidden``: the widths. ``order``: what a hidden layer does, in order; ``"linear"`` comes first,
    ``"act"`` once, ``"norm"`` (batch normalisation) and ``"drop"`` at most once. Dropout after the
    activation and before the next weights is Srivastava's place; ``("linear", "norm", "act",
    "drop")`` is normalisation, then dropout; ``("linear", "act", "drop", "norm")`` the other order.
    """

    hidden: tuple[int, ...] = (128, 128)
    activation: str = "relu"
    order: tuple[str, ...] = ("linear", "act", "drop")

    def __post_init__(self) -> None:
        object.__setattr__(
            self,
            "hidden",
            tuple(whole(w, "a hidden width", 1) for w in _tuple("hidden", self.hidden)),
        )
        object.__setattr__(self, "order", _tuple("order", self.order))
        if not self.hidden:
            raise InputError("hidden has to be one or more widths of at least 1, but got ()")
        if self.activation not in ACTIVATIONS:
            raise unknown("activation", self.activation, ACTIVATIONS)
        for step in self.order:
            if step not in STEPS:
                raise unknown("step of a layer", step, STEPS)
        if (
            self.order[:1] != ("linear",)
            or "act" not in self.order
            or len(set(self.order)) != len(self.order)
        ):
            raise InputError(
                f"order has to start with 'linear', have one 'act' and repeat nothing, but got {self.order}"
            )

    @property
    def norm(self) -> bool:
        return "norm" in self.order

    @property
    def bias(self) -> bool:
        """Normalisation right after the weights removes their bias, whose gradient would be
        rounding noise.
        """
        return self.order[1:2] != ("norm",)


@dataclass(frozen=True)
class Cnn:
    """A small convolutional network: 3 x 3 convolutions with 2 x 2 max pooling, then one dense
    layer.

    ``channels``: of the convolutions; ``dense``: the width after them; ``order`` as in
    :class:`Mlp`, for all layers.
    """

    channels: tuple[int, ...] = (16, 32)
    dense: int = 128
    order: tuple[str, ...] = ("linear", "act", "drop")

    @property
    def hidden(self) -> tuple[int, ...]:
        return (*self.channels, self.dense)

    def __post_init__(self) -> None:
        object.__setattr__(self, "channels", _tuple("channels", self.channels))
        alike = Mlp(self.hidden, order=self.order)  # the same rules
        for name, value in (
            ("channels", alike.hidden[:-1]),
            ("dense", alike.hidden[-1]),
            ("order", alike.order),
        ):
            object.__setattr__(self, name, value)

    @property
    def norm(self) -> bool:
        return "norm" in self.order

    @property
    def bias(self) -> bool:
        return self.order[1:2] != ("norm",)


@dataclass(frozen=True)
class Custom:
    """The user's own network: ``"module:function"``, called with ``inputs=`` and ``outputs=``,
    returns an ``nn.Module``.
    """

    path: str


@dataclass(frozen=True)
class Optimizer:
    """An optimizer and its learning rates.

    ``lr``: the peak rate. ``momentum``: of SGD and RMSProp. ``layer_lr``: a factor for each weight
    layer from input to output, repeated from the last (differential learning rates). ``warmup``:
    the share of all steps over which the rate rises from 0. ``decay``: ``"constant"`` or
    ``"cosine"`` to 0. ``weight_decay``: decoupled (Loshchilov and Hutter 2019), so ``adamw`` is
    ``adam`` with a default of 0.01.
    """

    name: str = "adam"
    lr: float = 1e-3
    momentum: float = 0.0
    nesterov: bool = False
    weight_decay: float | None = None
    layer_lr: tuple[float, ...] = ()
    warmup: float = 0.0
    decay: str = "constant"

    def __post_init__(self) -> None:
        if self.name not in OPTIMIZERS:
            raise unknown("optimizer", self.name, OPTIMIZERS)
        if self.decay not in DECAYS:
            raise unknown("decay", self.decay, DECAYS)
        _at_least(
            0,
            lr=self.lr,
            momentum=self.momentum,
            weight_decay=self.weight_decay,
            warmup=self.warmup,
        )
        object.__setattr__(self, "layer_lr", _tuple("layer_lr", self.layer_lr))
        for factor in self.layer_lr:
            _at_least(0, **{"a factor of layer_lr": factor})
        if self.nesterov and not self.momentum:
            raise InputError("nesterov needs a momentum above 0; 0.9 is usual")
        if self.warmup >= 1:
            raise InputError(
                f"warmup is a share of all steps and has to be below 1, but got {self.warmup}"
            )

    @property
    def shrink(self) -> float:
        """The decoupled weight decay that acts."""
        return (
            self.weight_decay
            if self.weight_decay is not None
            else 0.01
            if self.name == "adamw"
            else 0.0
        )


@dataclass(frozen=True)
class Augment:
    """Noise on training inputs: ``noise``, a standard deviation; for images ``shift`` in pixels,
    ``rotate`` in degrees.
    """

    noise: float = 0.0
    shift: float = 0.0
    rotate: float = 0.0

    def __post_init__(self) -> None:
        _at_least(0, noise=self.noise, shift=self.shift, rotate=self.rotate)

    @property
    def moves(self) -> bool:
        return bool(self.shift or self.rotate)

    def __bool__(self) -> bool:
        return bool(self.noise or self.moves)


@dataclass(frozen=True)
class Recipe:
    """Everything that decides one training run.

    ``drops``: a point for the input, then one for each hidden layer; missing ones are None.
    ``connect``: the rate of DropConnect on every hidden layer's weights. ``l1``, ``l2``: the loss
    gains l1 * sum|W| + l2 * sum W^2 over weights (both: elastic net). ``max_norm``: the longest
    incoming weight vector of a unit, by projection after each step. ``label_smoothing``: in [0, 1),
    classification only. ``clip``: the longest gradient of the whole network. ``patience``: early
    stopping after so many epochs without a better validation loss, best weights restored. ``seed``:
    of weights and masks. ``shuffle``: of the batches' order.
    """

    network: Mlp | Cnn | Custom = field(default_factory=Mlp)
    drops: tuple[Drop | None, ...] = ()
    connect: float = 0.0
    optimizer: Optimizer = field(default_factory=Optimizer)
    l1: float = 0.0
    l2: float = 0.0
    max_norm: float | None = None
    label_smoothing: float = 0.0
    clip: float | None = None
    patience: int | None = None
    augment: Augment = field(default_factory=Augment)
    epochs: int = 30
    batch_size: int = 64
    seed: int = 0
    shuffle: int = 0

    def __post_init__(self) -> None:
        _at_least(
            0, connect=self.connect, l1=self.l1, l2=self.l2, label_smoothing=self.label_smoothing
        )
        for name, minimum in (
            ("epochs", 1),
            ("batch_size", 1),
            ("patience", 1),
            ("seed", 0),
            ("shuffle", 0),
        ):
            if name != "patience" or self.patience is not None:
                object.__setattr__(self, name, whole(getattr(self, name), name, minimum))
        object.__setattr__(self, "drops", _tuple("drops", self.drops))
        for spec in self.drops:
            if spec is not None and not isinstance(spec, Drop):
                raise InputError(
                    f"drops has to hold points or None, but got {spec!r}; write thinned.presets.dropout(rate)"
                )
        for name in ("max_norm", "clip"):
            value = getattr(self, name)
            if value is not None and not real(value, name) > 0:
                raise InputError(f"{name} has to be above 0, but got {value}; None switches it off")
        if self.label_smoothing >= 1 or self.connect > 1:
            raise InputError(
                f"label_smoothing has to be below 1 and connect at most 1, but got {self.label_smoothing}, {self.connect}"
            )
        if self.connect and (
            isinstance(self.network, Custom) or self.network.order[:2] != ("linear", "act")
        ):
            raise InputError(
                "connect needs the activation right after the linear step of a built-in network, because its inference "
                f"does, but got {self.network}; put 'act' second in order, or leave connect at 0"
            )
        if not isinstance(self.network, Custom) and len(self.drops) > len(self.network.hidden) + 1:
            raise InputError(
                f"drops has {len(self.drops)} places, but there are the input and {len(self.network.hidden)} hidden layers"
            )

    def drop(self, place: int) -> Drop | None:
        """The point at a place (0: input, i: after hidden layer i) that does something, else None."""
        spec = self.drops[place] if place < len(self.drops) else None
        return spec if spec is not None and spec.rate else None

    def at(self, **changes: Any) -> Recipe:
        """A changed copy."""
        return replace(self, **changes)

    def to_json(self) -> dict[str, Any]:
        """A plain dict, for records."""
        data = asdict(self) | {"drops": [d and d.to_json() for d in self.drops]}
        data["network"] = {type(self.network).__name__.lower(): data["network"]}
        return data
