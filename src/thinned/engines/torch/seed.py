"""The seed of an unkeyed call: one draw from torch's own generator."""

from __future__ import annotations

import torch

from ...algebra.key import Key


def draw(generator: torch.Generator | None = None) -> Key:
    """A key from 64 bits of ``generator`` (default: torch's global one for the CPU).

    So ``torch.manual_seed``, ``fork_rng`` and activation checkpointing do for our masks what they do for torch's.
    """
    device = generator.device if generator is not None else torch.device("cpu")
    seed = torch.empty((), dtype=torch.int64, device=device).random_(-(1 << 63), None, generator=generator)
    return Key(int(seed) & 0xFFFFFFFFFFFFFFFF)
