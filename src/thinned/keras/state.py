"""State of a layer that is not a weight: its rate, which compiled steps read, and its seeds."""

from __future__ import annotations

import hashlib

import keras


class RateState(keras.random.SeedGenerator):
    """One float32 number that every compiled step reads again.

    It is a SeedGenerator because Keras tracks the state of a seed generator among the variables of
    a layer, but not among its weights. So files, ``get_weights`` and the order of weights are those
    of Keras's own dropout.
    """

    def __init__(self, value: float) -> None:
        self.name = "rate"
        self.state = keras.Variable(
            value, trainable=False, dtype="float32", autocast=False, name="rate"
        )


def make_seed_generator(seed: int | None) -> keras.random.SeedGenerator:
    """A seed generator with draws that are independent of those of neighboring seeds.

    On Keras's torch backend the generators of the seeds 1 and 2 are one step apart, so the seed is
    hashed first.
    """
    if seed is None:
        return keras.random.SeedGenerator()
    digest = hashlib.blake2b(str(seed).encode(), digest_size=4).digest()
    return keras.random.SeedGenerator(int.from_bytes(digest, "little") >> 1)
