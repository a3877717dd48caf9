"""How one network is built and trained, described by values that compare, hash and serialize."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import KW_ONLY, asdict, dataclass, field, replace
from typing import Any

from .._errors import InputError, real, unknown, whole
from ..algebra.drop import Drop

OPTIMIZERS = ("sgd", "adam", "adamw", "rmsprop", "adadelta", "adagrad")
ACTIVATIONS = ("relu", "tanh", "sigmoid", "selu", "gelu")
STEPS = ("linear", "norm", "act", "drop")
DECAYS = ("constant", "cosine")


def _check_at_least(minimum: float, **values: float | None) -> None:
    """Raise :class:`InputError` where a value is below ``minimum``; None is allowed."""
    for name, value in values.items():
        if value is not None and not real(value, name) >= minimum:
            raise InputError(f"{name} has to be at least {minimum:g}, but got {value}")


def _as_tuple(name: str, values: object) -> tuple[Any, ...]:
    """The values as a tuple: recipes are hashed, and lists cannot be."""
    if isinstance(values, str) or not isinstance(values, Iterable):
        raise InputError(f"{name} has to be a tuple, but got {values!r}")
    return tuple(values)


@dataclass(frozen=True)
class Mlp:
    """A multilayer perceptron.

    Dropout acts after the activation and before the next weights by default, as in Srivastava et
    al. 2014. With batch normalization, ``order=("linear", "norm", "act", "drop")`` normalizes
    before dropout, and ``order=("linear", "act", "drop", "norm")`` after it.

    Args:
        hidden: The widths of the hidden layers, each at least 1.
        activation: "relu", "tanh", "sigmoid", "selu" or "gelu".
        order: The steps of a hidden layer, in order: "linear" first, "act" (the activation) once,
            "norm" (batch normalization) and "drop" (dropout) at most once.

    Raises:
        InputError: Where a width, the activation or the order breaks a rule.

    Example:
        >>> Mlp((64, 32), activation="tanh").hidden
        (64, 32)
    """

    hidden: tuple[int, ...] = (128, 128)
    activation: str = "relu"
    order: tuple[str, ...] = ("linear", "act", "drop")

    def __post_init__(self) -> None:
        object.__setattr__(
            self,
            "hidden",
            tuple(whole(w, "a hidden width", 1) for w in _as_tuple("hidden", self.hidden)),
        )
        object.__setattr__(self, "order", _as_tuple("order", self.order))
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
                "order has to start with 'linear', have one 'act' and repeat nothing, but got "
                f"{self.order}"
            )

    @property
    def norm(self) -> bool:
        """Whether hidden layers have batch normalization."""
        return "norm" in self.order

    @property
    def bias(self) -> bool:
        """Whether hidden layers have a bias.

        Normalization directly after the weights cancels a bias, and its gradient would be rounding
        noise only.
        """
        return self.order[1:2] != ("norm",)


@dataclass(frozen=True)
class Cnn:
    """A small convolutional network for images.

    3 x 3 convolutions, each followed by 2 x 2 max pooling, then one dense layer and the output.

    Args:
        channels: The numbers of channels of the convolutions, each at least 1.
        dense: The width of the dense layer after them.
        order: The steps of every hidden layer, as in :class:`Mlp`.

    Raises:
        InputError: Where a width or the order breaks a rule.

    Example:
        >>> Cnn(channels=(8, 16), dense=64).hidden
        (8, 16, 64)
    """

    channels: tuple[int, ...] = (16, 32)
    dense: int = 128
    order: tuple[str, ...] = ("linear", "act", "drop")

    @property
    def hidden(self) -> tuple[int, ...]:
        """The widths of all hidden layers: the channels, then the dense layer."""
        return (*self.channels, self.dense)

    def __post_init__(self) -> None:
        object.__setattr__(self, "channels", _as_tuple("channels", self.channels))
        checked = Mlp(self.hidden, order=self.order)  # the same rules apply
        for name, value in (
            ("channels", checked.hidden[:-1]),
            ("dense", checked.hidden[-1]),
            ("order", checked.order),
        ):
            object.__setattr__(self, name, value)

    @property
    def norm(self) -> bool:
        """Whether hidden layers have batch normalization."""
        return "norm" in self.order

    @property
    def bias(self) -> bool:
        """Whether hidden layers have a bias; see :attr:`Mlp.bias`."""
        return self.order[1:2] != ("norm",)


@dataclass(frozen=True)
class Custom:
    """A network of the user's own.

    Dropout modules are put before each of its weight layers, and its own dropout is set to rate 0.

    Args:
        path: ``"module:function"`` or ``"file.py:function"``. The function is called with
            ``inputs=`` (the number of columns, or (channels, height, width) for images) and
            ``outputs=``, and returns an ``nn.Module``.

    Example:
        >>> Custom("my_net.py:build").path
        'my_net.py:build'
    """

    path: str


@dataclass(frozen=True)
class Optimizer:
    """An optimizer, its learning rates and their schedule.

    Args:
        name: "sgd", "adam", "adamw", "rmsprop", "adadelta" or "adagrad".
        lr: The peak learning rate, at least 0.
        momentum: The momentum of SGD and RMSProp, at least 0.
        nesterov: Whether SGD uses Nesterov momentum; needs a momentum above 0.
        weight_decay: The decoupled weight decay (Loshchilov and Hutter 2019), at least 0. None is
            0.01 for "adamw", which otherwise equals "adam", and 0 for the others.
        layer_lr: A factor of the learning rate for each weight layer from input to output
            (differential learning rates); layers beyond the last factor use the last.
        warmup: The fraction of all steps, in [0, 1), over which the rate rises from 0.
        decay: "constant", or "cosine" for half a cosine down to 0.

    Raises:
        InputError: Where a name is unknown or a number is out of its range.

    Example:
        >>> Optimizer("sgd", lr=0.1, momentum=0.9, decay="cosine").momentum
        0.9

    Reference:
        Loshchilov and Hutter 2019, "Decoupled weight decay regularization".
    """

    name: str = "adam"
    lr: float = 1e-3
    _: KW_ONLY
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
        _check_at_least(
            0,
            lr=self.lr,
            momentum=self.momentum,
            weight_decay=self.weight_decay,
            warmup=self.warmup,
        )
        object.__setattr__(self, "layer_lr", _as_tuple("layer_lr", self.layer_lr))
        for factor in self.layer_lr:
            _check_at_least(0, **{"a factor of layer_lr": factor})
        if self.nesterov and not self.momentum:
            raise InputError("nesterov needs a momentum above 0; 0.9 is usual")
        if self.warmup >= 1:
            raise InputError(
                f"warmup is a fraction of all steps and has to be below 1, but got {self.warmup}"
            )

    @property
    def decoupled_decay(self) -> float:
        """The decoupled weight decay that is applied, with the default of ``name`` for None."""
        if self.weight_decay is not None:
            return self.weight_decay
        return 0.01 if self.name == "adamw" else 0.0


@dataclass(frozen=True)
class Augment:
    """Data augmentation of the training inputs.

    Args:
        noise: The standard deviation of Gaussian noise added to the inputs.
        shift: For images: the largest shift along each axis, in pixels.
        rotate: For images: the largest rotation, in degrees.

    Raises:
        InputError: Where a number is below 0.

    Example:
        >>> bool(Augment()), Augment(shift=2.0).moves_images
        (False, True)
    """

    noise: float = 0.0
    shift: float = 0.0
    rotate: float = 0.0

    def __post_init__(self) -> None:
        _check_at_least(0, noise=self.noise, shift=self.shift, rotate=self.rotate)

    @property
    def moves_images(self) -> bool:
        """Whether images are shifted or rotated."""
        return bool(self.shift or self.rotate)

    def __bool__(self) -> bool:
        return bool(self.noise or self.moves_images)


@dataclass(frozen=True)
class Recipe:
    """Everything that determines one training run.

    Two equal recipes give the same weights, batches and masks, whether a network is trained by
    :func:`fit` or together with others by :func:`fit_population`.

    Args:
        network: The architecture: :class:`Mlp`, :class:`Cnn` or :class:`Custom`.
        drops: The dropout specs (``Drop`` values, or None for no dropout): one for the input, then
            one for each hidden layer. Missing ones are None.
        drop_connect: The DropConnect rate, in [0, 1], on the weights of every hidden layer.
        optimizer: The optimizer.
        l1: The factor of the penalty sum |W| over all weights, added to the loss.
        l2: The factor of the penalty sum W^2. With ``l1`` it is the elastic net.
        max_norm: The largest length of a hidden unit's incoming weight vector, enforced by
            projection after each step (Srivastava et al. 2014, section 5.1). None: no limit.
        label_smoothing: The label smoothing, in [0, 1); for classification only.
        clip: The largest norm of the gradient of the whole network. None: no limit.
        patience: Early stopping: the number of epochs without a lower validation loss after which
            training ends and the best weights are restored. None: no early stopping.
        augment: The data augmentation.
        epochs: The number of passes over the training rows.
        batch_size: The number of rows of a minibatch.
        seed: The seed of the weights and masks.
        shuffle: The seed of the order of the rows in each epoch.

    Raises:
        InputError: Where an argument breaks a rule.

    Example:
        >>> from thinned import presets
        >>> recipe = Recipe(Mlp((64,)), drops=(None, presets.dropout(0.5)), epochs=10)
        >>> recipe.at(seed=1).seed
        1
    """

    network: Mlp | Cnn | Custom = field(default_factory=Mlp)
    drops: tuple[Drop | None, ...] = ()
    _: KW_ONLY
    drop_connect: float = 0.0
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
        _check_at_least(
            0,
            drop_connect=self.drop_connect,
            l1=self.l1,
            l2=self.l2,
            label_smoothing=self.label_smoothing,
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
        object.__setattr__(self, "drops", _as_tuple("drops", self.drops))
        for spec in self.drops:
            if spec is not None and not isinstance(spec, Drop):
                raise InputError(
                    f"drops has to hold dropout specs (Drop) or None, but got {spec!r}; write "
                    "thinned.presets.dropout(rate)"
                )
        for name in ("max_norm", "clip"):
            value = getattr(self, name)
            if value is not None and not real(value, name) > 0:
                raise InputError(f"{name} has to be above 0, but got {value}; None turns it off")
        if self.label_smoothing >= 1 or self.drop_connect > 1:
            raise InputError(
                "label_smoothing has to be below 1 and drop_connect at most 1, but got "
                f"{self.label_smoothing} and {self.drop_connect}"
            )
        if self.drop_connect and (
            isinstance(self.network, Custom) or self.network.order[:2] != ("linear", "act")
        ):
            raise InputError(
                "drop_connect needs the activation directly after the linear step of a built-in "
                "network, because its inference integrates over both, but got "
                f"{self.network}; put 'act' second in order, or leave drop_connect at 0"
            )
        if not isinstance(self.network, Custom) and len(self.drops) > len(self.network.hidden) + 1:
            raise InputError(
                f"drops has {len(self.drops)} specs, but the network has only the input and "
                f"{len(self.network.hidden)} hidden layers to apply them to"
            )

    def drop(self, position: int) -> Drop | None:
        """The dropout spec at a position (0: the input, i: after hidden layer i).

        None where there is no spec or its rate is 0.
        """
        spec = self.drops[position] if position < len(self.drops) else None
        return spec if spec is not None and spec.rate else None

    def at(self, **changes: Any) -> Recipe:
        """A copy with the fields in ``changes`` replaced."""
        return replace(self, **changes)

    def to_json(self) -> dict[str, Any]:
        """A JSON-serializable dict, for records."""
        data = asdict(self) | {"drops": [d and d.to_json() for d in self.drops]}
        data["network"] = {type(self.network).__name__.lower(): data["network"]}
        return data
