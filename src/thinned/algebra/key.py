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
import operator
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
CONTRACT = 1  # the number of the mask contract; it changes where masks of equal keys would
MOST_ELEMENTS = 1 << 34  # mask elements of one example: 2^31 blocks of eight
COPY = 47  # a copy number is added to the sample id from this bit on


def check_contract(state: Any, what: str) -> None:
    """Raise unless ``state`` was stored under this mask contract; without a number it is 1."""
    number = state.get("contract", 1)
    if number != CONTRACT:
        raise InputError(
            f"this {what} was stored under mask contract {number!r}, but this version draws the "
            f"masks of contract {CONTRACT}; load it with the version of thinned that stored it"
        )


def check_size(elements: int) -> None:
    """Raise where one example has more mask elements than the counter numbers."""
    if isinstance(elements, int) and elements > MOST_ELEMENTS:  # sizes in graphs are no ints
        raise InputError(
            f"one example has {elements} mask elements, but a mask has at most 2^34; draw fewer "
            'axes separately, such as per="b c *", or split the tensor along the examples'
        )


def checked_seed(seed: Any) -> int:
    """Return a seed as an int of at most 64 bits, or raise :class:`InputError`."""
    return _checked_int("seed", seed, -(1 << 63), 64, "[-2^63, 2^64)")


def checked_number(name: str, value: Any) -> int:
    """Return a step or a call as an int in [0, 2^32), or raise :class:`InputError`."""
    return _checked_int(name, value, 0, 32, "[0, 2^32)")


def _checked_int(name: str, value: Any, low: int, bits: int, within: str) -> int:
    is_bool = isinstance(value, bool) or str(getattr(value, "dtype", "")).endswith("bool")
    try:
        number = None if is_bool else operator.index(value)
    except (TypeError, ValueError, RuntimeError):  # tensors raise any of these
        number = None
    if number is None:
        raise InputError(f"{name} has to be a whole number, but got {value!r}")
    if not low <= number < 1 << bits:
        raise InputError(f"{name} has to be in {within}, but got {number}")
    return number


@dataclass(frozen=True)
class Key:
    """The random key of a mask. Equal keys draw equal masks, on every engine and device.

    Args:
        seed: The seed of the run, in [-2^63, 2^64); negative ones are read modulo 2^64.
        stream: The 64-bit number of the layer, from :func:`stream_of`.
        call: How many times the layer was called before in this step, in [0, 2^32).
        step: The step of the optimizer, in [0, 2^32). Where examples are at different steps (a
            replayed rollout), an integer array or tensor with one step for each example.
        samples: The sample ids: a one-dimensional integer array or tensor with one id in
            [0, 2^63) for each example. None stands for 0, 1, 2 ...

    Raises:
        InputError: Where ``seed``, ``call``, ``step`` or ``samples`` is of another type or out of
            range.

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
        object.__setattr__(self, "seed", checked_seed(self.seed))
        object.__setattr__(self, "call", checked_number("call", self.call))
        if not _is_vector(self.step):
            object.__setattr__(self, "step", checked_number("step", self.step))
        elif isinstance(self.step, (list, tuple)):
            _check_list("step", self.step, 32)
        if self.samples is None:
            return
        if not _is_vector(self.samples):
            raise InputError(
                "samples has to be a 1-d tensor of integers, or an array or list of them, but "
                f"got {self.samples!r}; write list(samples)"
            )
        if isinstance(self.samples, (list, tuple)):
            _check_list("samples", self.samples, 63)


def _is_vector(value: Any) -> bool:
    """Whether ``value`` has several numbers: the engines check the dtypes of arrays."""
    return isinstance(value, (list, tuple, range)) or bool(getattr(value, "ndim", 0))


def _check_list(name: str, values: Any, bits: int) -> None:
    if not values:
        raise InputError(f"{name} has to hold one number for each example, but got {values!r}")
    for value in values:
        _checked_int(f"each of {name}", value, 0, bits, f"[0, 2^{bits})")


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
