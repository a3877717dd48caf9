"""What all layers share: checked keywords, a rate that may change, seeds and configurations."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from ..._errors import InputError
from .. import arguments
from ..state import RateState, make_seed_generator

PACKAGE = "thinned"


class ThinnedLayer:
    """Mixin of all layers: checks keywords, holds the seed and writes the configuration. Abstract.

    ``config_names`` lists the attributes that go into the configuration next to Keras's own.
    """

    abstract = True
    config_names: tuple[str, ...] = ("seed",)
    seed: int | None
    seed_generator: keras.random.SeedGenerator

    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        # Here and not in __init__: Keras's own check comes first there, and has no suggestions.
        arguments.check_keywords(cls, kwargs)
        return super().__new__(cls, *args, **kwargs)

    def start_seeds(self, seed: int | None) -> None:
        """Create the generator of the draws. Call it after Keras's ``__init__``."""
        self.seed = arguments.seed_of(seed)
        self.seed_generator = make_seed_generator(self.seed)
        self.supports_masking = True

    def build_at_init(self) -> None:
        """Mark the layer as built, unless a subclass has a ``build`` of its own to be called."""
        if type(self).build is keras.layers.Layer.build:  # type: ignore[attr-defined]
            self.built = True

    def _open_name_scope(self) -> Any:
        scope = super()._open_name_scope()  # type: ignore[misc]
        for state in self._seed_generators:  # type: ignore[attr-defined]
            if isinstance(state, RateState):
                parent: str = self._parent_path  # type: ignore[attr-defined]
                name: str = self.name  # type: ignore[attr-defined]
                state.move_to(f"{parent}/{name}" if parent else name)
        return scope

    def get_config(self) -> dict[str, Any]:
        own = {name: getattr(self, name) for name in self.config_names}
        return {**super().get_config(), **own}  # type: ignore[misc]


class RatedLayer(ThinnedLayer):
    """Mixin of layers with a ``rate`` and a ``seed``. Abstract.

    ``below_one``: rate 1 is refused. ``kind``: what :func:`thinned.keras.find` reports.
    ``other_rates``: the names of further rates.
    """

    abstract = True
    config_names: tuple[str, ...] = ("rate", "seed")
    below_one = False
    kind = "dropout"
    other_rates: tuple[str, ...] = ()

    def start(self, rate: float, seed: int | None) -> None:
        """Create the rate and the seeds. Call it after Keras's ``__init__``."""
        rate = arguments.rate_of(rate, below_one=self.below_one)
        self.rate_state = RateState(rate, self)
        self.start_seeds(seed)

    @property
    def rate(self) -> float:
        """The probability of dropping.

        May be set at any time; compiled steps read the new value.
        """
        return self.rate_state.read()

    @rate.setter
    def rate(self, rate: float) -> None:
        self.rate_state.assign(arguments.rate_of(rate, below_one=self.below_one))

    def now(self) -> Any:
        """The rate as a tensor, which compiled steps read."""
        return self.rate_state.state.value


def rate_property(name: str) -> Any:
    """A property for a rate next to ``rate``; compiled steps read ``self.<name>_state``."""
    state = f"{name}_state"

    def get(self: Any) -> float:
        rate: float = getattr(self, state).read()
        return rate

    def put(self: Any, rate: float) -> None:
        rate = arguments.rate_of(rate, name)
        if hasattr(self, state):
            getattr(self, state).assign(rate)
        else:
            setattr(self, state, RateState(rate, self, name))

    get.__doc__ = f"The {name.replace('_', ' ')}, in [0, 1]; may be set at any time."
    return property(get, put)


def floating(x: Any, layer: Any) -> Any:
    """``x`` as a tensor of a floating type, or :class:`thinned.InputError`."""
    x = ops.convert_to_tensor(x)
    if not keras.backend.is_float_dtype(keras.backend.standardize_dtype(x.dtype)):
        raise InputError(
            f"{type(layer).__name__} needs inputs of a floating type, but got {x.dtype}; "
            "cast them first"
        )
    return x
