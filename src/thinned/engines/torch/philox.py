"""Philox4x32-10 in torch operations, on any device: bit for bit the words of the NumPy engine."""

from __future__ import annotations

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor

from ...algebra.key import LOW, MULTIPLIERS, ROUNDS, TAG, WEYL, WORD, Key, derive
from .tensor_key import TensorKey, to_key

_LANES = 1 << 15  # blocks of a chunk, so few that its temporaries remain in cache


def philox(
    counter: tuple[Tensor, Tensor, Tensor, Tensor], key: tuple[Tensor | int, Tensor | int]
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return the four words of Philox4x32-10 as int64 tensors, for counters that broadcast.

    A product of two 32-bit numbers overflows int64 but keeps its 64 bits, so a shift and a mask
    read both halves.
    """
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(ROUNDS):
        a, b = c0 * MULTIPLIERS[0], c2 * MULTIPLIERS[1]
        c0, c1, c2, c3 = (
            (((b >> 32) ^ c1) ^ k0) & WORD,
            b & WORD,
            (((a >> 32) ^ c3) ^ k1) & WORD,
            a & WORD,
        )
        k0, k1 = (k0 + WEYL[0]) & WORD, (k1 + WEYL[1]) & WORD
    shape = torch.broadcast_shapes(c0.shape, c1.shape, c2.shape, c3.shape)
    return c0.expand(shape), c1.expand(shape), c2.expand(shape), c3.expand(shape)


def derived_key(tensor_key: TensorKey) -> tuple[Tensor, Tensor]:
    """Return the Philox key of one call of one layer as two tensors, without reading the seed."""
    seed = tensor_key.seed_step[0]
    stream = torch.full_like(seed, tensor_key.stream)
    counter = (
        stream & WORD,
        (stream >> 32) & WORD,
        torch.full_like(seed, tensor_key.call),
        torch.full_like(seed, TAG),
    )
    first, second, _, _ = philox(counter, (seed & WORD, (seed >> 32) & WORD))
    return first, second


def words(
    key: Key | TensorKey, examples: int, elements: int, device: torch.device | None = None
) -> Tensor:
    """Return the random words of the mask elements of each example.

    int64 [examples, elements], in [0, 2^32).
    """
    philox_key: tuple[Tensor | int, Tensor | int]
    if isinstance(key, TensorKey) and traced(key.seed_step):
        philox_key, step, ids = (
            derived_key(key),
            key.seed_step[1] if len(key.seed_step) > 1 else 0,
            key.sample_ids,
        )
        if ids is not None and ids.dim() == 2:
            ids, step = ids[0], ids[1]
    else:
        concrete = to_key(key) if isinstance(key, TensorKey) else key
        philox_key, step, ids = (
            derive(concrete.seed, concrete.stream, concrete.call),
            concrete.step,
            concrete.samples,
        )
    ids = (
        torch.arange(examples, device=device)
        if ids is None
        else torch.as_tensor(ids, dtype=torch.int64, device=device)
    )
    steps = torch.as_tensor(step, dtype=torch.int64, device=device).expand(examples)
    blocks = torch.arange((elements + 7) // 8, device=device)  # eight elements a block
    each, steps = ids[:, None], steps[:, None]
    if len(blocks) * examples <= _LANES or traced(ids):
        return _words_of_blocks(blocks, each, steps, philox_key)[:, :elements]
    out = torch.empty(examples, 8 * len(blocks), dtype=torch.int64, device=device)
    rows = max(1, _LANES // max(len(blocks), 1))
    columns = min(max(len(blocks), 1), _LANES)
    for i in range(0, examples, rows):
        for j in range(0, len(blocks), columns):
            part = _words_of_blocks(
                blocks[j : j + columns], each[i : i + rows], steps[i : i + rows], philox_key
            )
            out[i : i + rows, 8 * j : 8 * (j + columns)] = part
    return out[:, :elements]


def _words_of_blocks(
    blocks: Tensor, ids: Tensor, steps: Tensor, key: tuple[Tensor | int, Tensor | int]
) -> Tensor:
    """Return the words of whole blocks, [examples, 8 * blocks]; ids and steps are [examples, 1]."""

    def halves(flag: int) -> Tensor:
        four = torch.stack(philox((blocks[None] | flag, ids & WORD, ids >> 32, steps), key), -1)
        return torch.stack((four & 0xFFFF, four >> 16), -1).flatten(1)

    return halves(0) << 16 | halves(LOW)


def traced(t: Tensor) -> bool:
    """Return whether the values of a tensor cannot be read: while tracing, or under a transform."""
    return (
        torch.compiler.is_compiling()
        or isinstance(t, FakeTensor)
        or torch._C._functorch.is_functorch_wrapped_tensor(t)
    )
