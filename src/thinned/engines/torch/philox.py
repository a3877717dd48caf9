"""Philox4x32-10 in torch's own operations: the same words as the NumPy engine, bit for bit, on any
device.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor

from ...algebra.key import LOW, MULTIPLIERS, ROUNDS, TAG, WEYL, WORD, Key, derive
from .tensor_key import TensorKey, to_key

_LANES = 1 << 15  # a chunk whose temporaries stay in cache


def philox(
    counter: tuple[Tensor, Tensor, Tensor, Tensor], key: tuple[Tensor | int, Tensor | int]
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Four int64 tensors of 32-bit words, from counters that broadcast.

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
    """The Philox key of one call of one layer, where the seed may not be read: two tensors."""
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
    key: Key | TensorKey, samples: int, cells: int, device: torch.device | None = None
) -> Tensor:
    """The random words of ``cells`` cells for each of ``samples`` examples: int64 [samples, cells]
    in [0, 2^32).
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
        plainly = to_key(key) if isinstance(key, TensorKey) else key
        philox_key, step, ids = (
            derive(plainly.seed, plainly.stream, plainly.call),
            plainly.step,
            plainly.samples,
        )
    ids = (
        torch.arange(samples, device=device)
        if ids is None
        else torch.as_tensor(ids, dtype=torch.int64, device=device)
    )
    steps = torch.as_tensor(step, dtype=torch.int64, device=device).expand(samples)
    blocks = torch.arange((cells + 7) // 8, device=device)
    each, steps = ids[:, None], steps[:, None]
    if len(blocks) * samples <= _LANES or traced(ids):
        return _of_blocks(blocks, each, steps, philox_key)[:, :cells]
    out = torch.empty(samples, 8 * len(blocks), dtype=torch.int64, device=device)
    rows = max(1, _LANES // max(len(blocks), 1))
    columns = min(max(len(blocks), 1), _LANES)
    for i in range(0, samples, rows):
        for j in range(0, len(blocks), columns):
            part = _of_blocks(
                blocks[j : j + columns], each[i : i + rows], steps[i : i + rows], philox_key
            )
            out[i : i + rows, 8 * j : 8 * (j + columns)] = part
    return out[:, :cells]


def _of_blocks(
    blocks: Tensor, ids: Tensor, steps: Tensor, key: tuple[Tensor | int, Tensor | int]
) -> Tensor:
    """The words of whole blocks: [samples, 8 * blocks], from ids and steps [samples, 1]."""

    def halves(flag: int) -> Tensor:
        four = torch.stack(philox((blocks[None] | flag, ids & WORD, ids >> 32, steps), key), -1)
        return torch.stack((four & 0xFFFF, four >> 16), -1).flatten(1)

    return halves(0) << 16 | halves(LOW)


def traced(t: Tensor) -> bool:
    """Is this tensor's content out of reach: in a graph that is being traced, or under a transform?"""
    return (
        torch.compiler.is_compiling()
        or isinstance(t, FakeTensor)
        or torch._C._functorch.is_functorch_wrapped_tensor(t)
    )
