"""State that is no weight: a rate that compiled steps read anew, and seeds."""

from __future__ import annotations

import hashlib

import keras


class Rate(keras.random.SeedGenerator):
    """One float32 number, read anew by every compiled step.

    Keras tracks the state of a seed generator among a layer's variables but not among its weights,
    so files, ``get_weights`` and the order of weights stay those of Keras's own dropout.
    """

    def __init__(self, value: float) -> None:
        self.name = "rate"
        self.state = keras.Variable(
            value, trainable=False, dtype="float32", autocast=False, name="rate"
        )


def seeds(seed: int | None) -> keras.random.SeedGenerator:
    """A seed generator whose draws are its own: on Keras's torch backend those of the seeds 1 and 2
    are one step apart.
    """
    if seed is None:
        return keras.random.SeedGenerator()
    word = hashlib.blake2b(str(seed).encode(), digest_size=4).digest()
    return keras.random.SeedGenerator(int.from_bytes(word, "little") >> 1)
