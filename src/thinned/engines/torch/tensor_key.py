"""Whose noise it is, in tensors: what an operator takes, so that no key is baked into a graph."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..._errors import InputError
from ...algebra.key import Key

_SIGN = 1 << 63
_ONE = (1,)


class TensorKey(NamedTuple):
    """``key``: int64 [1] or [2], seed and step. ``sample_ids``: int64 [n], the examples' ids; or [2, n],
    their ids and steps.

    ``stream`` and ``call``: as in :class:`thinned.algebra.Key`, the stream as a signed 64-bit
    number.
    """

    seed_step: Tensor
    sample_ids: Tensor | None = None
    stream: int = 0
    call: int = 0


def to_int64(value: int) -> int:
    """A 64-bit number as torch stores it."""
    return (value & (2 * _SIGN - 1) ^ _SIGN) - _SIGN


def random_key(generator: torch.Generator | None = None) -> TensorKey:
    """64 bits of ``generator`` (default: torch's global one for the CPU), without reading them.

    So ``torch.manual_seed``, ``fork_rng`` and activation checkpointing do for our masks what they
    do for torch's.
    """
    if generator is None:
        return TensorKey(torch.randint(-_SIGN, _SIGN - 1, _ONE, device="cpu"))
    return TensorKey(
        torch.randint(-_SIGN, _SIGN - 1, _ONE, generator=generator, device=generator.device)
    )


def from_key(key: Key) -> TensorKey:
    """A plain key in tensors."""
    ids = None if key.samples is None else int64_vector("samples", key.samples)
    if isinstance(key.step, int):
        return TensorKey(
            torch.tensor([to_int64(key.seed), key.step], device="cpu"),
            ids,
            to_int64(key.stream),
            key.call,
        )
    steps = int64_vector("step", key.step)
    ids = torch.arange(len(steps), device=steps.device) if ids is None else ids.to(steps.device)
    if len(ids) != len(steps):
        raise InputError(
            f"step and samples have to be of one length, but got {len(steps)} and {len(ids)}"
        )
    return TensorKey(
        torch.tensor([to_int64(key.seed)], device="cpu"),
        torch.stack((ids, steps)),
        to_int64(key.stream),
        key.call,
    )


def int64_vector(name: str, values: Any) -> Tensor:
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


def to_key(tensor_key: TensorKey) -> Key:
    """:func:`from_key`, backwards: reads the tensors."""
    seed, *step = tensor_key.seed_step.tolist()
    now = step[0] if step else 0
    ids, steps = (
        (tensor_key.sample_ids, now)
        if tensor_key.sample_ids is None or tensor_key.sample_ids.dim() == 1
        else (tensor_key.sample_ids[0], tensor_key.sample_ids[1])
    )
    return Key(seed, tensor_key.stream, tensor_key.call, steps, ids)
