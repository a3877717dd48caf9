"""Whose noise it is, in tensors: what an operator takes, so that no key is baked into a graph."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ...algebra.key import Key

_SIGN = 1 << 63
_ONE = (1,)


class Whose(NamedTuple):
    """``key``: int64 [1] or [2], seed and step. ``who``: int64 [n], the examples' ids; or [2, n], their ids and steps.

    ``stream`` and ``call``: as in :class:`thinned.algebra.Key`, the stream as a signed 64-bit number.
    """

    key: Tensor
    who: Tensor | None = None
    stream: int = 0
    call: int = 0


def signed(value: int) -> int:
    """A 64-bit number as torch stores it."""
    return (value & (2 * _SIGN - 1) ^ _SIGN) - _SIGN


def draw(generator: torch.Generator | None = None) -> Whose:
    """64 bits of ``generator`` (default: torch's global one for the CPU), without reading them.

    So ``torch.manual_seed``, ``fork_rng`` and activation checkpointing do for our masks what they do for torch's.
    """
    if generator is None:
        return Whose(torch.randint(-_SIGN, _SIGN - 1, _ONE))
    return Whose(torch.randint(-_SIGN, _SIGN - 1, _ONE, generator=generator, device=generator.device))


def of(key: Key) -> Whose:
    """A plain key in tensors."""
    ids = None if key.samples is None else torch.as_tensor(key.samples, dtype=torch.int64).contiguous()
    if isinstance(key.step, int):
        return Whose(torch.tensor([signed(key.seed), key.step]), ids, signed(key.stream), key.call)
    steps = torch.as_tensor(key.step, dtype=torch.int64, device=None if ids is None else ids.device)
    ids = torch.arange(len(steps), device=steps.device) if ids is None else ids
    return Whose(torch.tensor([signed(key.seed)]), torch.stack((ids, steps)), signed(key.stream), key.call)


def plain(whose: Whose) -> Key:
    """:func:`of`, backwards: reads the tensors."""
    seed, *step = whose.key.tolist()
    now = step[0] if step else 0
    ids, steps = (whose.who, now) if whose.who is None or whose.who.dim() == 1 else (whose.who[0], whose.who[1])
    return Key(seed, whose.stream, whose.call, steps, ids)
