"""Any point on any tensor, and the draws that every other function is made of."""

from __future__ import annotations

from typing import Literal, TypeAlias

import torch
from torch import Tensor

from .._errors import InputError, probability, unknown
from ..algebra.drop import Drop
from ..algebra.key import Key
from ..algebra.law import Bernoulli
from ..algebra.plan import WORDS, LawName, Plan, averages, plan
from ..algebra.scale import Classic
from ..engines.torch import dispatch, native, reference
from ..engines.torch import tensor_key as _tensor_key
from ..engines.torch.dispatch import Impl
from ..engines.torch.tensor_key import TensorKey

Mode = Literal["sample", "mean", "off"]
MODES = ("sample", "mean", "off")
Keyed: TypeAlias = Key | TensorKey | None
Rate: TypeAlias = float | Tensor  # a tensor of no axes where a graph must not hold the number


def drop(
    x: Tensor,
    spec: Drop,
    *,
    mode: Mode = "sample",
    key: Key | TensorKey | None = None,
    generator: torch.Generator | None = None,
    inplace: bool = False,
    impl: Impl | None = None,
) -> Tensor:
    """Apply the point ``spec`` to ``x``.

    ``mode``: ``"sample"`` draws (training, or Monte Carlo inference), ``"mean"`` is the point's
    evaluation, ``"off"`` returns ``x``. ``key`` says whom the mask belongs to; without one, 64 bits
    are drawn from ``generator`` or from torch's global generator. ``x`` is floating point or
    complex, of any shape that fits ``spec.of``; the result has its shape, dtype and memory format,
    and is ``x`` itself where nothing can fall. ``impl``: "reference", "native" or "triton" instead
    of the fastest that fits; all give the same mask.

    Raises :class:`thinned.InputError` (a ValueError) for a wrong mode, dtype, shape or sample ids,
    or for an ``impl`` that cannot run here.
    """
    if mode not in MODES:
        raise unknown("mode", mode, MODES)
    if mode == "off" or not x.numel():
        return x
    if mode == "mean":
        if not isinstance(
            spec.scale, Classic
        ):  # asked here too, since a compiler warns of calls to what is cached
            return x
        factors = averages(spec)
        if factors == (1.0, 0.0):
            return x
        y = x * factors[0]
        y = y + factors[1] if factors[1] else y
        return x.copy_(y) if inplace else y
    return sample(x, dispatch.prepare(plan(spec, tuple(x.shape))), key, generator, inplace, impl)


def sample(
    x: Tensor,
    ready: dispatch.PreparedPlan,
    key: Key | TensorKey | None = None,
    generator: torch.Generator | None = None,
    inplace: bool = False,
    impl: Impl | None = None,
) -> Tensor:
    """:func:`drop` in mode "sample", of a point that was made ready for the shape of ``x``."""
    if ready.plan.identity:
        return x
    if not (x.is_floating_point() or x.is_complex()):
        raise InputError(
            f"dropout needs a floating-point tensor, but got {x.dtype}; write x.float()"
        )
    return dispatch.sample(x, ready, resolve_key(key, ready.plan, generator), inplace, impl)


def mask(
    spec: Drop, shape: tuple[int, ...], key: Key | TensorKey, device: torch.device | None = None
) -> Tensor:
    """Which elements of a tensor of ``shape`` are kept under ``key``: bool, True where kept,
    broadcasts to ``shape``.

    A mask is a function of its key, so it can be looked at without having been stored. ``spec`` has
    a Bernoulli law.
    """
    if not isinstance(spec.law, Bernoulli):
        raise InputError(f"only a Bernoulli law has a mask, but got {spec.law}")
    planned = plan(spec, shape)
    return dispatch.mask(planned, resolve_key(key, planned), device)


def explain(x: Tensor, impl: Impl | None = None) -> str:
    """Which implementation draws for a tensor like ``x``, and why.

    >>> explain(torch.zeros(2, dtype=torch.complex64))
    'reference: the kernels do not take torch.complex64'
    """
    kind, why = dispatch.choose(x, impl)
    return f"{kind}{f' ({native.running()})' if kind == 'native' else ''}: {why}"


def resolve_key(
    key: Keyed, planned: Plan | None = None, generator: torch.Generator | None = None
) -> TensorKey:
    """The random key ``key`` as tensors; without one, 64 fresh random bits of ``generator``.

    ``planned``: the plan whose examples the sample ids of the key have to match.
    """
    if key is None:
        return _tensor_key.random_key(generator)
    resolved = _tensor_key.from_key(key) if isinstance(key, Key) else key
    if planned is not None and resolved.sample_ids is not None:
        check_samples(resolved.sample_ids, planned.sample_axis, planned.samples)
    return resolved


def check_samples(sample_ids: Tensor, axis: int | None, count: int) -> None:
    """Raise unless there is one id for each of ``count`` examples."""
    if axis is not None and sample_ids.shape[-1] != count:
        raise InputError(
            f"samples has to name each of the {count} examples on axis {axis}, but got {sample_ids.shape[-1]} ids; pass one id a "
            "row of the batch to key.at(step, samples=ids), and name the layout where the examples are on another axis, "
            'such as layout="t b d" or "(b t) d"'
        )


def check_rate(p: Rate, what: str = "dropout probability", *, below_one: bool = False) -> None:
    """Raise unless ``p`` is a rate; within a graph its layer has seen to that."""
    if not isinstance(p, Tensor) and not torch.compiler.is_compiling():
        probability(p, what, below_one=below_one)


def is_noop(x: Tensor, p: Rate, training: bool) -> bool:
    """Is there nothing to draw: evaluation, rate 0, or an empty tensor?"""
    return not training or (not isinstance(p, Tensor) and p == 0) or not x.numel()


def bernoulli_mask(
    shape: tuple[int, ...], p: Rate, key: Keyed, like: Tensor, per: str = "b *", of: str = "b *"
) -> Tensor:
    """One coin for each of the axes ``per`` of a tensor of ``shape``: bool, True where kept,
    broadcasts to ``shape``.

    ``p`` is the rate of dropping. ``like`` says the device.
    """
    if not isinstance(p, Tensor) and not torch.compiler.is_compiling():
        planned = plan(Drop(Bernoulli(p), per, of), shape)
        return dispatch.mask(planned, resolve_key(key, planned), like.device)
    rate = p if isinstance(p, Tensor) else torch.tensor(p, dtype=torch.float64, device="cpu")
    threshold = (rate.double() * WORDS).round().to(torch.int64).reshape(1)
    numbers = torch.cat((threshold, torch.tensor([_ONE, 0, 0, 0], device=threshold.device)))
    return (
        _drawn("bernoulli", numbers, shape, key, like.new_empty(0, dtype=torch.float32), per, of)
        != 0
    )


def factor(
    shape: tuple[int, ...], p: Rate, key: Keyed, like: Tensor, per: str = "b *", of: str = "b *"
) -> Tensor:
    """:func:`bernoulli_mask` as numbers: 1 / (1 - p) where kept and 0 where not, of the dtype of ``like``,
    at least float32.
    """
    kept = bernoulli_mask(shape, p, key, like, per, of).to(reference.wide(like))
    return kept * inverse_keep(p)


def dropped(x: Tensor, p: Rate, key: Keyed, per: str, of: str) -> Tensor:
    """``x`` under inverted dropout with a coin for each of the axes ``per``, also within a graph
    and at a rate that moves.
    """
    if not isinstance(p, Tensor) and not torch.compiler.is_compiling():
        return drop(x, Drop(Bernoulli(p), per, of), key=key)
    return (x * factor(tuple(x.shape), p, key, x, per, of)).to(x.dtype)


def one_shape(first: Tensor, second: Tensor, names: str) -> None:
    """Raise unless the two tensors that ``names`` names are of one shape."""
    if first.shape != second.shape:
        raise InputError(
            f"{names} have to be of one shape, but got {list(first.shape)} and {list(second.shape)}"
        )


def uniform(
    shape: tuple[int, ...], key: Keyed, like: Tensor, per: str = "b *", of: str = "b *"
) -> Tensor:
    """Uniform numbers on (0, 1), one for each of the axes ``per``; of the device and dtype of
    ``like``, at least float32.
    """
    drawn = 0.5 * _noise("uniform", shape, key, like, per, of)
    return drawn.clamp(2.0**-33, 1.0 - torch.finfo(drawn.dtype).eps / 2)


def normal(
    shape: tuple[int, ...], key: Keyed, like: Tensor, per: str = "b *", of: str = "b *"
) -> Tensor:
    """Standard normal numbers, one for each of the axes ``per``; of the device and dtype of
    ``like``, at least float32.
    """
    return _noise("gaussian", shape, key, like, per, of) - 1.0


_ONE = 0x3FF0000000000000  # the bits of the double 1.0


def _noise(
    law: LawName, shape: tuple[int, ...], key: Keyed, like: Tensor, per: str, of: str
) -> Tensor:
    """1 + the unit noise of ``law``; 1 long on shared axes."""
    numbers = torch.tensor([0, _ONE, 0, 0, _ONE], device="cpu")
    return _drawn(law, numbers, shape, key, like.new_empty(0, dtype=reference.wide(like)), per, of)


def _drawn(
    law: LawName,
    numbers: Tensor,
    shape: tuple[int, ...],
    key: Keyed,
    like: Tensor,
    per: str,
    of: str,
) -> Tensor:
    own, axis = dispatch.noise_axes(per, of, len(shape))
    tensor_key = resolve_key(key)
    if tensor_key.sample_ids is not None and axis >= 0:
        check_samples(tensor_key.sample_ids, axis, shape[axis])
    return dispatch.draw_noise(
        [n if o else 1 for n, o in zip(shape, own, strict=True)],
        own,
        axis,
        law,
        numbers,
        tensor_key,
        like,
    )


def fold_in(key: Keyed, which: int) -> TensorKey:
    """Whose draws are the ``which``-th further ones of a call: as good as independent of the first."""
    tensor_key = resolve_key(key)
    return tensor_key._replace(stream=_tensor_key.to_int64(tensor_key.stream + which * _GOLDEN))


_GOLDEN = 0x9E3779B97F4A7C15  # an odd number far from every small multiple of itself, modulo 2^64


def random_subset(rows: int, n: int, count: int, key: Keyed, device: torch.device) -> Tensor:
    """``count`` of ``n`` places for each of ``rows`` examples, every subset as likely, in their
    order: int64 [rows, count].
    """
    drawn = uniform((rows, n), key, torch.empty(0, dtype=torch.float64, device=device))
    return drawn.topk(count, dim=1, largest=False).indices.sort(dim=1).values


def inverse_keep(p: Rate) -> Rate:
    """1 / (1 - p), what inverted scaling multiplies survivors by; 0 at rate 1, where there are
    none.
    """
    if isinstance(p, Tensor):
        return torch.where(p < 1, 1 / (1 - p), 0.0)
    return 1 / (1 - p) if p < 1 else 0.0
