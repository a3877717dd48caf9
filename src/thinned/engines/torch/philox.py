"""Philox4x32-10 in torch's own operations: the same words as the NumPy engine, bit for bit, on any device."""

from __future__ import annotations

import torch
from torch import Tensor

from ...algebra.key import MULTIPLIERS, ROUNDS, WEYL, WORD, Key, derive

_LANES = 1 << 16  # a chunk whose temporaries stay in cache


def philox(counter: tuple[Tensor, Tensor, Tensor, Tensor], key: tuple[int, int]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Four int64 tensors of 32-bit words, from counters that broadcast.

    A product of two 32-bit numbers overflows int64 but keeps its 64 bits, so a shift and a mask read both halves.
    """
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(ROUNDS):
        a, b = c0 * MULTIPLIERS[0], c2 * MULTIPLIERS[1]
        c0, c1, c2, c3 = (((b >> 32) ^ c1) ^ k0) & WORD, b & WORD, (((a >> 32) ^ c3) ^ k1) & WORD, a & WORD
        k0, k1 = (k0 + WEYL[0]) & WORD, (k1 + WEYL[1]) & WORD
    shape = torch.broadcast_shapes(c0.shape, c1.shape, c2.shape, c3.shape)
    return c0.expand(shape), c1.expand(shape), c2.expand(shape), c3.expand(shape)


def words(key: Key, samples: int, cells: int, device: torch.device | None = None, steps: Tensor | None = None) -> Tensor:
    """The random words of ``cells`` cells for each of ``samples`` examples: int64 [samples, cells] in [0, 2^32).

    ``steps``: a step for each example, where they are not all at ``key.step``.
    """
    if key.samples is None:
        ids = torch.arange(samples, device=device)
    else:
        ids = torch.as_tensor(key.samples, dtype=torch.int64, device=device)
    if steps is None:
        steps = torch.full((samples,), key.step, device=device)
    blocks = torch.arange((cells + 3) // 4, device=device)
    philox_key = derive(key.seed, key.stream, key.call)
    out = torch.empty(samples, len(blocks), 4, dtype=torch.int64, device=device)
    rows = max(1, _LANES // max(len(blocks), 1))
    columns = min(max(len(blocks), 1), _LANES)
    for i in range(0, samples, rows):
        some = ids[i : i + rows, None]
        for j in range(0, len(blocks), columns):
            counter = (blocks[None, j : j + columns], some & WORD, some >> 32, steps[i : i + rows, None])
            torch.stack(philox(counter, philox_key), dim=-1, out=out[i : i + rows, j : j + columns])
    return out.view(samples, 4 * len(blocks))[:, :cells]
