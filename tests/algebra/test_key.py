"""Philox against the published answers of Random123, and the layout of the counter.

The layout is compared with the definition in integers.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch

from thinned import InputError
from thinned.algebra import Key, stream_of
from thinned.algebra.key import derive, philox
from thinned.engines import numpy as numpy_engine
from thinned.engines.torch import philox as torch_engine

# Random123 1.14, kat_vectors, philox4x32 with 10 rounds: counter, key, output.
KNOWN = [
    (
        "00000000 00000000 00000000 00000000",
        "00000000 00000000",
        "6627e8d5 e169c58d bc57ac4c 9b00dbd8",
    ),
    (
        "ffffffff ffffffff ffffffff ffffffff",
        "ffffffff ffffffff",
        "408f276d 41c83b0e a20bc7c6 6d5451fd",
    ),
    (
        "243f6a88 85a308d3 13198a2e 03707344",
        "a4093822 299f31d0",
        "d16cfe09 94fdcceb 5001e420 24126ea1",
    ),
]


def numbers(text: str) -> tuple[int, ...]:
    return tuple(int(word, 16) for word in text.split())


@pytest.mark.parametrize(("counter", "key", "output"), KNOWN)
def test_known_answers(counter, key, output):
    counter, key, output = numbers(counter), numbers(key), numbers(output)
    assert philox(counter, key) == output
    assert tuple(int(w) for w in numpy_engine.philox(counter, key)) == output
    tensors = tuple(torch.tensor(c) for c in counter)
    assert tuple(int(w) for w in torch_engine.philox(tensors, key)) == output


KEYS = [
    Key(0),
    Key(2**64 - 1, 2**64 - 1, 2**32 - 1, 2**32 - 1),
    Key(5, stream_of("layer1.0.drop"), 2, 7, [0, 5, 2**32, 2**63 - 1, 3]),
    Key(-1),
]


@pytest.mark.parametrize("key", KEYS, ids=str)
@pytest.mark.parametrize("elements", [1, 3, 8, 19])
def test_words_follow_the_definition(key, elements):
    ids = range(5) if key.samples is None else key.samples

    def half(block, element, sample):
        four = philox(
            (block, sample & 0xFFFFFFFF, sample >> 32, key.step),
            derive(key.seed, key.stream, key.call),
        )
        return four[element % 8 // 2] >> 16 * (element % 2) & 0xFFFF

    expected = [
        [half(c // 8, c, i) << 16 | half(c // 8 + 2**31, c, i) for c in range(elements)]
        for i in ids
    ]
    assert numpy_engine.words(key, 5, elements).tolist() == expected
    assert torch_engine.words(key, 5, elements).tolist() == expected


@pytest.mark.parametrize("lanes", [1, 7, 64])
def test_chunks_do_not_show(monkeypatch, lanes):
    expected = torch_engine.words(Key(3), 11, 50)
    monkeypatch.setattr(torch_engine, "_LANES", lanes)
    assert torch.equal(torch_engine.words(Key(3), 11, 50), expected)


def test_words_of_nothing():
    assert numpy_engine.words(Key(1), 0, 5).shape == (0, 5)
    assert torch_engine.words(Key(1), 3, 0).shape == (3, 0)


def test_stream_is_stable():
    # BLAKE2b-64 of b"layer1", little-endian; a change here breaks every stored experiment.
    assert stream_of("layer1") == int.from_bytes(
        __import__("hashlib").blake2b(b"layer1", digest_size=8).digest(), "little"
    )
    assert stream_of("layer1") == stream_of("layer1") != stream_of("layer2")


def test_derived_keys_differ():
    keys = {
        derive(seed, stream, call) for seed in range(8) for stream in range(8) for call in range(8)
    }
    assert len(keys) == 512


@pytest.mark.parametrize(("argument", "value"), [("step", -1), ("step", 2**32), ("call", -1)])
def test_bad_key(argument, value):
    with pytest.raises(InputError, match=rf"{argument} has to be in \[0, 2\^32\), but got {value}"):
        Key(0, **{argument: value})


def test_bits_are_balanced_and_uncorrelated():
    """4 million words of neighboring samples, elements and steps.

    Every bit is fair, and neighbors agree half the time.

    Alpha 1e-6 for each of 32 + 3 z tests.
    """
    draws = np.stack([numpy_engine.words(Key(1, step=s), 1000, 1000) for s in range(4)])
    bits = np.unpackbits(draws.view(np.uint8).reshape(4, 1000, 1000, 4), axis=-1)
    share = bits.reshape(-1, 32).mean(0)
    limit = 4.9 * 0.5 / np.sqrt(draws.size)
    assert np.abs(share - 0.5).max() < limit
    for axis in range(3):
        left, right = (
            np.take(draws, range(draws.shape[axis] - 1), axis),
            np.take(draws, range(1, draws.shape[axis]), axis),
        )
        agree = np.unpackbits((left ^ right).view(np.uint8)).mean()
        assert abs(agree - 0.5) < 4.9 * 0.5 / np.sqrt(left.size * 32)


@pytest.mark.parametrize("seed", ["x", 1.5, True, None])
def test_a_seed_is_a_whole_number(seed):
    with pytest.raises(InputError, match="seed has to be a whole number"):
        Key(seed)
