"""Random keys, and the counter-based generator that turns a key into random 32-bit words.

    half(block) = the (element % 8)-th 16 bits of
                  Philox4x32-10(key = f(seed, stream, call), counter = (block, sample, step))
    word        = half(element // 8) * 2^16 + half(element // 8 + 2^31)

The high half of a word nearly always decides whether the word is below a threshold, so kernels
draw the low half only where the high halves are equal: one Philox block serves eight elements.

Bit by bit: the four 32-bit words of the counter are (block, low half of sample, high half of
sample, step). Halves are counted from the low half of the first word of the block. f returns the
first two words of Philox4x32-10 under the key (low half of seed, high half of seed) at the counter
(low half of stream, high half of stream, call, TAG). This file is the definition, in integers; the
engines repeat it on arrays.

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
TAG = 0x7468696E  # "thin"; it separates the derivation of keys from the drawing of masks
LOW = 1 << 31  # added to the first word of the counter: the block of low halves
WORD = 0xFFFFFFFF


@dataclass(frozen=True)
class Key:
    """The random key of a mask. Equal keys draw equal masks, on every engine and device.

    Args:
        seed: The seed of the run, read modulo 2^64.
        stream: The 64-bit number of the layer, from :func:`stream_of`.
        call: How many times the layer was called before in this step, in [0, 2^32).
        step: The step of the optimizer, in [0, 2^32). Where examples are at different steps (a
            replayed rollout), an integer array or tensor with one step for each example.
        samples: The sample ids: a one-dimensional integer array or tensor with one id in
            [0, 2^63) for each example. None stands for 0, 1, 2 ...

    Raises:
        InputError: Where ``call`` or ``step`` is out of range.

    Example:
        >>> import torch
        >>> from thinned import functional as F
        >>> from thinned.presets import dropout
        >>> x = torch.ones(2, 4)
        >>> torch.equal(F.drop(x, dropout(0.5), key=Key(7)), F.drop(x, dropout(0.5), key=Key(7)))
        True
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
    """Return the four 32-bit words of Philox4x32-10 at a counter under a key.

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
    """Return the Philox key f(seed, stream, call) of one call of one layer.

    Negative seeds are read modulo 2^64.
    """
    first, second, _, _ = philox(
        (stream & WORD, stream >> 32 & WORD, call, TAG), (seed & WORD, seed >> 32 & WORD)
    )
    return first, second


@lru_cache(maxsize=4096)
def stream_of(name: str) -> int:
    """Return the random stream of a layer: the first 8 bytes of BLAKE2b of its name.

    Args:
        name: The qualified name of the layer, as in ``model.named_modules()``.

    Returns:
        The bytes of the UTF-8 name's hash as a little-endian number in [0, 2^64).

    Example:
        >>> stream_of("encoder.0.dropout") == stream_of("encoder.0.dropout")
        True
        >>> stream_of("encoder.0.dropout") == stream_of("encoder.1.dropout")
        False
    """
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "little")
