"""Whose noise it is, in tensors: what an operator takes, so that no key is baked into a graph."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..._errors import InputError
from ...algebra.key import Key

_SIGN = 1 << 63
_ONE = (1,)


class Whose(NamedTuple):
    """``key``: int64 [1] or [2], seed and step. ``who``: int64 [n], the examples' ids; or [2, n],
    their ids and steps.

    ``stream`` and ``call``: as in :class:`thinned.algebra.Key`, the stream as a signed 64-bit
    number.
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

    So ``torch.manual_seed``, ``fork_rng`` and activation checkpointing do for our masks what they
    do for torch's.
    """
    if generator is None:
        return Whose(torch.randint(-_SIGN, _SIGN - 1, _ONE, device="cpu"))
    return Whose(
        torch.randint(-_SIGN, _SIGN - 1, _ONE, generator=generator, device=generator.device)
    )


def of(key: Key) -> Whose:
    """A plain key in tensors."""
    ids = None if key.samples is None else integers("samples", key.samples)
    if isinstance(key.step, int):
        return Whose(
            torch.tensor([signed(key.seed), key.step], device="cpu"),
            ids,
            signed(key.stream),
            key.call,
        )
    steps = integers("step", key.step)
    ids = torch.arange(len(steps), device=steps.device) if ids is None else ids.to(steps.device)
    if len(ids) != len(steps):
        raise InputError(
            f"step and samples have to be of one length, but got {len(steps)} and {len(ids)}"
        )
    return Whose(
        torch.tensor([signed(key.seed)], device="cpu"),
        torch.stack((ids, steps)),
        signed(key.stream),
        key.call,
    )


def integers(name: str, values: Any) -> Tensor:
    """``values`` as a 1-d int64 tensor, or :class:`thinned.InputError`."""
    given = torch.as_tensor(values)
    if (
        given.dim() != 1
        or given.is_floating_point()
        or given.is_complex()
        or given.dtype == torch.bool
    ):
        raise InputError(
            f"{name} has to be a 1-d tensor of integers, but got {given.dtype} {list(given.shape)}"
        )
    return given.to(torch.int64).contiguous()


def plain(whose: Whose) -> Key:
    """:func:`of`, backwards: reads the tensors."""
    seed, *step = whose.key.tolist()
    now = step[0] if step else 0
    ids, steps = (
        (whose.who, now)
        if whose.who is None or whose.who.dim() == 1
        else (whose.who[0], whose.who[1])
    )
    return Key(seed, whose.stream, whose.call, steps, ids)
