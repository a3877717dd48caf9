"""The random keys of the passes: which masks thinned's own layers draw in which pass."""

from __future__ import annotations

import math
from collections import Counter
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from .._errors import InputError
from ..algebra.key import stream_of
from ..algebra.plan import WORDS, Plan
from ..engines.torch.tensor_key import MaskKey, TensorKey, to_int64
from ..functional.core import fold_in, uniform
from ..nn.module import DropoutModule

_LENGTHS = (17, 19, 23, 29, 31)  # of blocks: primes that fit into a word
MOST_UNITS = 16  # of exact enumeration


class Draws:
    """Independent draws; the noise is a function of seed, layer, draw, call and sample id.

    Args:
        seed: The seed.
    """

    limit = 32  # how many draws may run in one call of the model
    length = 32  # a call does not cross the multiples of this

    def __init__(self, seed: int) -> None:
        self.seed = to_int64(seed)
        self.calls: Counter[str] = Counter()
        self.asked = False
        self.ids = torch.zeros(0, dtype=torch.int64)
        self.steps: range = range(0)

    def begin(self, ids: Tensor, steps: range) -> None:
        """Before a pass: the sample ids of the batch, and the draws that run in this pass."""
        self.ids, self.steps = ids, steps
        self.calls.clear()

    def end_batch(self) -> None:
        """After all passes of a batch."""

    def turn(self, name: str, module: DropoutModule) -> TensorKey:
        """The key of the coming call of a layer."""
        self.asked = True
        call = self.calls[name]
        self.calls[name] += 1
        return self.key(name, to_int64(stream_of(name)), call)

    def key(self, name: str, stream: int, call: int) -> TensorKey:
        """The key of one call of a layer in the present pass."""
        if len(self.steps) == 1:
            step = torch.tensor([self.seed, self.steps[0]], device=self.ids.device)
            return TensorKey(step, self.ids, stream, call)
        steps = torch.arange(self.steps.start, self.steps.stop, device=self.ids.device)
        ids = torch.stack((self.ids.repeat(len(steps)), steps.repeat_interleave(len(self.ids))))
        seed = torch.tensor([self.seed], device=self.ids.device)
        return TensorKey(seed, ids, stream, call)


class StratifiedDraws(Draws):
    """Draws in blocks of a prime length n: in each, a unit is kept k times, at random places.

    With q the probability of keeping and u uniform, k is the floor of n q + u, so that each draw
    alone has the mask distribution of its layer. Draw t keeps the unit where (a t + b) mod n < k,
    with a and b uniform, a > 0: any two draws are then at two different places of the n, all pairs
    equally likely, as for a uniform permutation. The variance of a mean depends on pairs alone.
    Noise other than inverted and classic Bernoulli dropout is drawn independently.

    Args:
        seed: The seed.
        samples: The number of draws; None where it is not known.
    """

    def __init__(self, seed: int, samples: int | None = None) -> None:
        super().__init__(seed)
        self.length = _LENGTHS[-1] if samples is None else _best_length(samples)
        self.words: dict[tuple[Any, ...], Tensor] = {}
        self.block = -1

    def begin(self, ids: Tensor, steps: range) -> None:
        """See :meth:`Draws.begin`; the words of another block are not kept."""
        super().begin(ids, steps)
        if steps[0] // self.length != self.block:
            self.block = steps[0] // self.length
            self.words.clear()

    def end_batch(self) -> None:
        """Forget the words of this batch."""
        self.words.clear()
        self.block = -1

    def key(self, name: str, stream: int, call: int) -> TensorKey:
        """See :meth:`Draws.key`."""
        key = _StratifiedKey(*super().key(name, stream, call))
        key.draws = self
        return key

    def words_of(
        self, stream: int, call: int, planned: Plan, count: int, device: torch.device
    ) -> Tensor:
        """Words of 32 bits, int32 [count, elements]: bit t is the mask entry of draw t."""
        place = (stream, call, count, planned.elements, planned.threshold)
        if place not in self.words:
            own = planned.sample_axis is not None
            step = torch.tensor([self.seed, self.block], device=device)
            key = TensorKey(step, self.ids if own else None, stream, call)
            self.words[place] = _words(key, count, planned, self.length, device)
        return self.words[place]


class _StratifiedKey(MaskKey):
    draws: StratifiedDraws

    def mask(self, planned: Plan, device: torch.device) -> Tensor:
        """See :meth:`MaskKey.mask`."""
        steps = self.draws.steps
        axis = planned.sample_axis
        count = 1 if axis is None else _examples(planned, len(self.draws.ids), len(steps))
        words = self.draws.words_of(self.stream, self.call, planned, count, device)
        places = [1 << step % self.draws.length for step in steps]
        bits = torch.tensor(places, dtype=torch.int32, device=device)
        kept = words.bitwise_and(bits.reshape(-1, 1, 1)) != 0  # [draws, count, elements]
        return _laid_out(kept.reshape(-1, planned.elements), planned)


def _examples(planned: Plan, ids: int, draws: int) -> int:
    if planned.examples != ids * draws:
        raise InputError(
            f"a dropout layer got {planned.examples} examples, but the batch has {ids * draws}; "
            'name the layout where the examples are on another axis, such as layout="t b d" or '
            '"(b t) d", or use draws="independent" and masks="example"'
        )
    return ids


def _words(key: TensorKey, count: int, planned: Plan, length: int, device: torch.device) -> Tensor:
    """The mask entries of each unit in all draws of a block, as bits."""
    expected = length * (1.0 - planned.threshold / WORDS)
    fewer = int(expected)
    shape, like = (count, planned.elements), torch.empty(0, device=device, dtype=torch.float64)
    number = length * (length - 1)  # of pairs (a, b)
    index = (uniform(shape, key, like) * number).long()
    more = uniform(shape, fold_in(key, 1), like) < expected - fewer
    table = _table(length, fewer).to(device)
    return table[index.add_(more, alpha=number)]


@lru_cache(maxsize=256)
def _table(length: int, fewer: int) -> Tensor:
    """The words of all pairs (a, b) for k = ``fewer``, then for one more, int32."""
    words = [
        sum(1 << t for t in range(length) if (a * t + b) % length < k)
        for k in (fewer, fewer + 1)
        for a in range(1, length)
        for b in range(length)
    ]
    return torch.tensor(words, dtype=torch.int32)


def _best_length(samples: int) -> int:
    """The block length with the smallest variance of a linear mean over ``samples`` draws.

    In units of the variance of one draw: rounding of n q to k leaves about 0.8 in each full block,
    and r draws of the last block leave r (1 - (r - 1) / (n - 1)).
    """

    def left(length: int) -> float:
        full, rest = divmod(samples, length)
        return 0.8 * full + rest * (1 - (rest - 1) / (length - 1))

    return min(reversed(_LENGTHS), key=left)


def _laid_out(kept: Tensor, planned: Plan) -> Tensor:
    """A mask [examples, elements] with the axes of the plan."""
    axis = planned.sample_axis
    if axis is None:
        return kept.reshape(planned.mask_shape)
    rest = [n for i, n in enumerate(planned.mask_shape) if i != axis]
    return kept.reshape(-1, *rest).movedim(0, axis)


class ExactDraws(Draws):
    """All masks of at most 16 units, each shared by all examples, with their probabilities."""

    limit = 1

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        self.units: dict[tuple[int, int], tuple[int, int]] = {}  # (first unit, number) of each call
        self.keep: list[float] = []
        self.counting = True

    def key(self, name: str, stream: int, call: int) -> TensorKey:
        """See :meth:`Draws.key`."""
        key = _ExactKey(*super().key(name, stream, call))
        key.draws = self
        return key

    def check(self) -> None:
        """After the counting pass: whether the masks can be enumerated."""
        self.counting = False
        if len(self.keep) > MOST_UNITS:
            raise InputError(
                f'method="exact" enumerates the masks of at most {MOST_UNITS} droppable units, but '
                f'this model has {len(self.keep)}; use method="monte carlo"'
            )

    @property
    def count(self) -> int:
        """The number of masks."""
        return 1 << len(self.keep)

    def weights(self) -> Any:
        """The probability of each mask, float64 [count]."""
        kept = (torch.arange(self.count)[:, None] >> torch.arange(len(self.keep))) & 1
        keep = torch.tensor(self.keep, dtype=torch.float64)
        return torch.where(kept == 1, keep, 1.0 - keep).prod(1).numpy()


class _ExactKey(MaskKey):
    draws: ExactDraws

    def mask(self, planned: Plan, device: torch.device) -> Tensor:
        """See :meth:`MaskKey.mask`."""
        draws, place = self.draws, (self.stream, self.call)
        if draws.counting:
            draws.units[place] = (len(draws.keep), planned.elements)
            if len(draws.keep) + planned.elements > 1 << 20:
                planned_units = len(draws.keep) + planned.elements
                raise InputError(
                    f'method="exact" enumerates at most {MOST_UNITS} droppable units, but this '
                    f'model has {planned_units} or more; use method="monte carlo"'
                )
            draws.keep += [1.0 - planned.threshold / WORDS] * planned.elements
        first, number = draws.units.get(place, (0, -1))
        if number != planned.elements:
            raise InputError(
                'method="exact" needs a model that makes the same calls of dropout in every pass; '
                'use method="monte carlo"'
            )
        bits = (draws.steps[0] >> torch.arange(first, first + number, device=device)) & 1
        shape = [1 if i == planned.sample_axis else n for i, n in enumerate(planned.mask_shape)]
        assert math.prod(shape) == number
        return (bits == 1).reshape(shape)
