"""Keys: masks that are a function of seed, layer, step and example, not of a stream that all share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from .._errors import InputError
from ..algebra.key import Key, stream_of
from .host import Host, hosts


@dataclass(frozen=True)
class ModelKey:
    """The key of a model. Make it with :func:`key`, move it with :meth:`at`."""

    seed: int
    members: tuple[Host, ...]

    def at(self, step: int, samples: Any = None) -> None:
        """Say which optimizer step comes now, and which examples the batch holds.

        ``step``: in [0, 2^32). ``samples``: one id in [0, 2^63) for each example (tensor, array or list); None stands
        for 0, 1, 2 ... Raises :class:`thinned.InputError` for a bad step or bad ids.
        """
        if samples is not None:
            samples = torch.as_tensor(samples)
            if samples.dim() != 1 or samples.is_floating_point() or samples.is_complex():
                raise InputError(f"samples has to be a 1-d tensor of integers, but got {samples.dtype} {list(samples.shape)}")
            if samples.numel() and int(samples.min()) < 0:
                raise InputError(f"samples has to hold ids of at least 0, but got {int(samples.min())}")
        now = Key(self.seed, step=step, samples=samples)
        for host in self.members:
            host.current, host.calls = now, 0


def key(model: nn.Module, seed: int = 0) -> ModelKey:
    """Give every host in ``model`` a stream of its own under ``seed``, and return the key that moves them.

    From then on the masks depend on (seed, layer's name, call, step, example) alone: not on the batch's order or
    size, nor on torch's generator.

    Raises :class:`thinned.InputError` where the model has no host of ours.
    """
    named = list(hosts(model))
    if not named:
        raise InputError("this model has no thinned dropout to give a key to; build it with thinned.nn.Dropout")
    for name, host in named:
        host.stream, host.current, host.calls = stream_of(name), None, 0
    return ModelKey(int(seed), tuple(host for _, host in named))
