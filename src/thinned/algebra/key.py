"""Whom a mask belongs to: the key, the counter, and the generator that turns them into random
words.

    half(block) = the (cell % 8)-th 16 bits of Philox4x32-10(key = f(seed, stream, call), counter =
    (block, sample, step)) word = half(cell // 8) * 2^16 + half(cell // 8 + 2^31)

A word's high half nearly always decides whether it is below a threshold, so kernels draw the low
half only where the high ones are equal: one Philox block for eight cells. Bit by bit: the counter's
four 32-bit words are (block, low half of sample, high half of sample, step); halves are counted
from the low one of the block's first word. f is the first two words of Philox4x32-10 under the key
(low half of seed, high half of seed) at the counter (low half of stream, high half of stream, call,
TAG). This file is the definition, in plain integers; the engines repeat it on arrays.

Salmon, Moraes, Dror, Shaw 2011, "Parallel random numbers: as easy as 1, 2, 3".
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from .._errors import InputError

MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
WEYL = (0x9E3779B9, 0xBB67AE85)
ROUNDS = 10
TAG = 0x7468696E  # "thin"
LOW = 1 << 31  # in the counter's first word: the block of low halves
WORD = 0xFFFFFFFF


@dataclass(frozen=True)
class Key:
    """What a mask is a function of.

    ``seed``: 64 bits, the user's. ``stream``: 64 bits, the layer's (:func:`stream_of`). ``call``:
    how many times the layer was called before in this step. ``step``: the optimizer's step, below
    2^32. ``samples``: the identity of each example, a one-dimensional integer array or tensor of
    values in [0, 2^63); None stands for 0, 1, 2 ... Where examples are at different steps (a
    replayed rollout), ``step`` is such an array too.
    """

    seed: int
    stream: int = 0
    call: int = 0
    step: Any = 0
    samples: Any = None

    def __post_init__(self) -> None:
        for name in ("call", "step"):
            value = getattr(self, name)
            if isinstance(value, int) and not 0 <= value < 1 << 32:
                raise InputError(f"{name} has to be in [0, 2^32), but got {value}")


def philox(counter: tuple[int, int, int, int], key: tuple[int, int]) -> tuple[int, int, int, int]:
    """Philox4x32-10 on plain integers: four 32-bit words.

    >>> [f"{w:08x}" for w in philox((0, 0, 0, 0), (0, 0))]
    ['6627e8d5', 'e169c58d', 'bc57ac4c', '9b00dbd8']
    """
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(ROUNDS):
        a, b = MULTIPLIERS[0] * c0, MULTIPLIERS[1] * c2
        c0, c1, c2, c3 = (b >> 32) ^ c1 ^ k0, b & WORD, (a >> 32) ^ c3 ^ k1, a & WORD
        k0, k1 = (k0 + WEYL[0]) & WORD, (k1 + WEYL[1]) & WORD
    return c0, c1, c2, c3


@lru_cache(maxsize=4096)
def derive(seed: int, stream: int, call: int) -> tuple[int, int]:
    """The Philox key of one call of one layer: f(seed, stream, call) above. Negative seeds wrap to
    64 bits.
    """
    first, second, _, _ = philox(
        (stream & WORD, stream >> 32 & WORD, call, TAG), (seed & WORD, seed >> 32 & WORD)
    )
    return first, second


@lru_cache(maxsize=4096)
def stream_of(name: str) -> int:
    """A layer's stream: the first 8 bytes, little-endian, of BLAKE2b of its qualified name in
    UTF-8.
    """
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "little")
