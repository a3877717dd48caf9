"""State of a layer that is not a weight: its rate, which compiled steps read, and its seeds."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np

import keras


class RateState(keras.random.SeedGenerator):
    """One float32 number that every compiled step reads again.

    It is a SeedGenerator because Keras tracks the state of a seed generator among the variables of
    a layer, but not among its weights. So files, ``get_weights`` and the order of weights are those
    of Keras's own dropout.
    """

    def __init__(self, value: float, owner: keras.Layer, name: str = "rate") -> None:
        self.name, self.number = name, value
        # the path is that of the layer, since paths have to differ within a model
        with keras.name_scope(owner.name):
            self.state = keras.Variable(
                # a function, so that layers can be made while Keras builds without state
                lambda shape, dtype: keras.ops.full(shape, value, dtype),
                shape=(),
                trainable=False,
                dtype="float32",
                autocast=False,
                name=name,
            )

    def assign(self, value: float) -> None:
        """Set the number."""
        self.number = value
        self.state.assign(value)

    def read(self) -> float:
        """The number that steps read: the one that was set last, in double precision, unless the
        variable was assigned another one, as by ``model.set_state_tree``.
        """
        value = np.float32(float(self.state.value))
        if value != np.float32(self.number):
            self.number = float(str(value))  # 0.3 and not 0.30000001192092896
        return self.number

    def move_to(self, path: Any) -> None:
        """Let the path of the variable begin with ``path``, that of the layer in its model."""
        self.state._path = f"{path}/{self.name}"


def make_seed_generator(seed: int | None) -> keras.random.SeedGenerator:
    """A seed generator with draws that are independent of those of neighboring seeds.

    On Keras's torch backend the generators of the seeds 1 and 2 are one step apart, so the seed is
    hashed first.
    """
    if seed is None:
        return keras.random.SeedGenerator()
    digest = hashlib.blake2b(str(seed).encode(), digest_size=4).digest()
    return keras.random.SeedGenerator(int.from_bytes(digest, "little") >> 1)
