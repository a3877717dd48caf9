"""Applies any Drop to a tensor, and defines the keyed draws that the other functions use."""

from __future__ import annotations

import math
from typing import Literal, TypeAlias

import torch
from torch import Tensor

from .._errors import InputError, probability, unknown
from ..algebra.drop import Drop
from ..algebra.key import Key, check_size
from ..algebra.law import Bernoulli
from ..algebra.plan import WORDS, LawName, Plan, averages, plan
from ..algebra.scale import Classic
from ..engines.torch import dispatch, exported, native, parts, reference
from ..engines.torch import tensor_key as _tensor_key
from ..engines.torch.dispatch import Impl
from ..engines.torch.tensor_key import TensorKey
from .inputs import check_dense, check_tensor, is_dense, sample_structured

Mode = Literal["sample", "mean", "off"]
MODES = ("sample", "mean", "off")
KeyLike: TypeAlias = Key | TensorKey | None  # None: 64 bits of torch's generator
Rate: TypeAlias = float | Tensor  # a 0-d tensor where a graph must not capture the number


def drop(
    x: Tensor,
    spec: Drop,
    *,
    mode: Mode = "sample",
    key: KeyLike = None,
    generator: torch.Generator | None = None,
    inplace: bool = False,
    impl: Impl | None = None,
) -> Tensor:
    """Applies the dropout spec ``spec`` to ``x``.

    In mode "sample" it computes y = a x + b, with the factor a and the offset b drawn as the spec
    says. The noise of an element is a function of the key, of the sample id of its example and of
    its position, so it does not depend on the implementation, the device or the batch.

    Args:
        x: A floating-point or complex tensor of any shape that fits ``spec.of``.
        spec: What to drop, which axes have noise of their own, and how the result is scaled.
        mode: "sample" draws (training, or Monte Carlo inference). "mean" computes the evaluation of
            the spec: ``x`` itself, or with classic scaling the mean over all draws. "off" returns
            ``x``.
        key: The random key; equal keys draw equal noise. None takes 64 bits of torch's generator.
        generator: Where the 64 bits come from without a key; by default torch's global generator.
        inplace: Whether to write the result into ``x``.
        impl: "reference", "native" (CPU) or "triton" (GPU); "auto" and None choose the fastest that
            supports ``x``. All of them draw the same mask.

    Returns:
        A tensor of the shape, dtype and memory format of ``x``; ``x`` itself where nothing can be
        dropped.

    Raises:
        InputError: Where ``mode``, the dtype, the shape or the number of sample ids is wrong, or
            ``impl`` cannot run on this tensor.

    Example:
        >>> from thinned import Key, presets
        >>> x = torch.ones(2, 6)
        >>> drop(x, presets.dropout(0.5), key=Key(seed=1))
        tensor([[0., 0., 2., 0., 2., 0.],
                [2., 2., 2., 2., 2., 0.]])
        >>> drop(x, presets.dropout(0.5), mode="mean") is x
        True
    """
    if mode not in MODES:
        raise unknown("mode", mode, MODES)
    _check_spec(spec)
    if not isinstance(x, Tensor):
        check_tensor("drop", x, "x")
    if mode == "off" or not x.numel():
        return x
    if mode == "mean":
        # asked here although averages() would say so: compilers warn of calls to cached functions
        if not isinstance(spec.scale, Classic):
            return x
        factors = averages(spec)
        if factors == (1.0, 0.0):
            return x
        if factors[1] and not is_dense(x):
            check_dense("drop", x, "x")
        y = x * factors[0]
        y = y + factors[1] if factors[1] else y
        return x.copy_(y) if inplace else y
    if not is_dense(x):
        return sample_structured(x, spec, resolve_key(key, None, generator), inplace, impl)
    if exported.recorder():
        exported.check(spec, generator if key is None else key)
        y = exported.sample(x, spec)
        return x.copy_(y) if inplace else y
    in_graph = torch.compiler.is_dynamo_compiling() or exported.traced()
    if in_graph and (numbers := dispatch.constant_numbers(spec)):
        return sample_compiled(x, spec, numbers, key, generator, inplace, impl)
    return sample(x, dispatch.prepare(plan(spec, tuple(x.shape))), key, generator, inplace, impl)


def sample_compiled(
    x: Tensor,
    spec: Drop,
    numbers: list[int],
    key: KeyLike = None,
    generator: torch.Generator | None = None,
    inplace: bool = False,
    impl: Impl | None = None,
) -> Tensor:
    """Applies :func:`drop` in mode "sample" within a graph, with its constants as numbers.

    The rate is that of ``numbers``, and not that of ``spec``.
    """
    _check_floating(x)
    tensor_key = resolve_key(key, None, generator)
    if not is_dense(x):
        return sample_structured(x, spec, tensor_key, inplace, impl)
    if tensor_key.sample_ids is not None:
        axis = dispatch.noise_axes(str(spec.per), spec.of, x.dim())[1]
        if axis >= 0:
            check_sample_ids(tensor_key.sample_ids, axis, x.shape[axis])
    constants = torch.tensor(numbers, dtype=torch.int64, device="cpu")
    y = dispatch.sample_in_graph(x, spec, constants, tensor_key, impl)
    return x.copy_(y) if inplace else y


def sample(
    x: Tensor,
    prepared: dispatch.PreparedPlan,
    key: KeyLike = None,
    generator: torch.Generator | None = None,
    inplace: bool = False,
    impl: Impl | None = None,
) -> Tensor:
    """Applies :func:`drop` in mode "sample", with a spec prepared for the shape of ``x``."""
    if prepared.plan.is_identity:
        return x
    _check_floating(x)
    return dispatch.sample(x, prepared, resolve_key(key, prepared.plan, generator), inplace, impl)


def _check_floating(x: Tensor) -> None:
    if not (x.is_floating_point() or x.is_complex()):
        raise InputError(
            f"dropout needs a floating-point tensor, but got {x.dtype}; write x.float()"
        )


def mask(
    spec: Drop, shape: tuple[int, ...], key: Key | TensorKey, device: torch.device | None = None
) -> Tensor:
    """Computes which elements of a tensor of ``shape`` are kept under ``key``.

    A mask is a function of its key, so it need not be stored: the same call returns it again.

    Args:
        spec: A spec with Bernoulli noise.
        shape: The shape of the tensor that the spec would be applied to.
        key: The random key.
        device: The device of the mask; by default the CPU.

    Returns:
        A bool tensor that broadcasts to ``shape``, True where an element is kept. Axes that share
        their entries have length 1.

    Raises:
        InputError: Where the noise of ``spec`` is not Bernoulli, or the number of sample ids is
            wrong.

    Example:
        >>> from thinned import Key, presets
        >>> mask(presets.dropout(0.5), (2, 6), Key(seed=1))
        tensor([[False, False,  True, False,  True, False],
                [ True,  True,  True,  True,  True, False]])
    """
    _check_spec(spec)
    if not isinstance(spec.law, Bernoulli):
        raise InputError(
            f"only a spec with Bernoulli noise has a mask, but got {spec.law}; apply it with drop()"
        )
    planned = plan(spec, shape)
    return dispatch.mask(planned, resolve_key(key, planned), device)


def _check_spec(spec: object) -> None:
    """Raise unless ``spec`` is a Drop."""
    if not isinstance(spec, Drop):
        raise InputError(
            f"spec has to be a thinned.Drop, but got {spec!r}; for a rate write "
            "thinned.presets.dropout(p), or call thinned.functional.dropout(x, p)"
        )


def explain(x: Tensor, impl: Impl | None = None) -> str:
    """Names the implementation that draws for a tensor like ``x``, and the reason.

    Args:
        x: A tensor of the dtype and device in question.
        impl: "auto", "reference", "native" or "triton", as in :func:`drop`.

    Returns:
        The name of the implementation, a colon and the reason.

    Raises:
        InputError: Where ``impl`` cannot run on ``x``.

    Example:
        >>> explain(torch.zeros(2, dtype=torch.complex64))
        'reference: the kernels do not take torch.complex64'
    """
    check_tensor("explain", x, "x")
    kind, reason = dispatch.choose(x, impl)
    return f"{kind}{f' ({native.running()})' if kind == 'native' else ''}: {reason}"


def resolve_key(
    key: KeyLike, planned: Plan | None = None, generator: torch.Generator | None = None
) -> TensorKey:
    """Returns ``key`` as tensors, the form that all draws take; without a key, 64 random bits.

    A function that draws several times resolves its key once and derives one for each other draw by
    :func:`fold_in`, so that a call without a key takes its bits from torch's generator once.

    Args:
        key: A :class:`thinned.Key`, a :class:`TensorKey`, or None.
        planned: The plan of the tensor that is drawn for; the number of sample ids is checked
            against its number of examples. None skips the check.
        generator: Where the bits come from without a key; by default torch's global generator.

    Returns:
        The key, as a :class:`TensorKey`.

    Raises:
        InputError: Where the key has ids for another number of examples than ``planned``.

    Example:
        >>> from thinned import Key
        >>> resolve_key(Key(seed=7, step=2)).seed_step
        tensor([7, 2])
    """
    if recorder := exported.recorder():
        if key is not None:
            raise exported.keyed(recorder)
        raise exported.refused(recorder, "these draws")
    if key is None:
        return _tensor_key.random_key(generator)
    resolved = _tensor_key.from_key(key) if isinstance(key, Key) else key
    if not isinstance(resolved, TensorKey):
        raise InputError(
            f"key has to be a thinned.Key, a TensorKey or None, but got {key!r}; write "
            "key=thinned.Key(seed)"
        )
    if planned is not None and resolved.sample_ids is not None:
        check_sample_ids(resolved.sample_ids, planned.sample_axis, planned.examples)
    return resolved


def check_sample_ids(sample_ids: Tensor, axis: int | None, count: int) -> None:
    """Raise unless there is one id for each of ``count`` examples."""
    if axis is not None and sample_ids.shape[-1] != count:
        raise InputError(
            f"samples has to name each of the {count} examples on axis {axis}, but got "
            f"{sample_ids.shape[-1]} ids; pass one id for each row of the batch to "
            "key.at(step, samples=ids), and name the layout where the examples are on another "
            'axis, such as layout="t b d" or "(b t) d"'
        )


def check_rate(p: Rate, what: str = "dropout probability", *, below_one: bool = False) -> None:
    """Raise unless ``p`` is a rate; not within a graph, where the layer has already checked it."""
    if not isinstance(p, Tensor) and not torch.compiler.is_compiling():
        probability(p, what, below_one=below_one)


def is_noop(x: Tensor, p: Rate, training: bool) -> bool:
    """Whether there is nothing to draw: in evaluation, at rate 0, or for an empty tensor."""
    return not training or (not isinstance(p, Tensor) and p == 0) or not x.numel()


def bernoulli_mask(
    shape: tuple[int, ...], p: Rate, key: KeyLike, like: Tensor, per: str = "b *", of: str = "b *"
) -> Tensor:
    """Draws a mask with one Bernoulli entry for each index of the axes ``per``.

    This is the draw to build a dropout method of your own on. It also runs in compiled graphs,
    where ``p`` may be a tensor that a schedule changes.

    Args:
        shape: The shape of the tensor that is masked.
        p: The rate of dropping, in [0, 1], or a tensor that holds it and has no axes.
        key: The random key; equal keys draw equal noise. None takes 64 bits of torch's generator.
        like: A tensor on the device of the mask.
        per: The names of the axes that have entries of their own, such as ``"b c"``; the other axes
            share theirs.
        of: The names of all axes of ``shape``. ``b`` is the axis of the examples, which the sample
            ids of the key name; ``*`` stands for any number of axes.

    Returns:
        A bool tensor that broadcasts to ``shape``, True where kept; shared axes have length 1.

    Raises:
        InputError: Where ``p`` is not in [0, 1], ``per`` and ``of`` do not fit ``shape``, or the
            number of sample ids is wrong.

    Example:
        One entry for each example and channel, shared along the last axis:

        >>> from thinned import Key
        >>> x = torch.ones(2, 4, 3)
        >>> kept = bernoulli_mask((2, 4, 3), 0.5, Key(seed=1), x, per="b c", of="b c *")
        >>> kept.shape
        torch.Size([2, 4, 1])
        >>> kept.squeeze(-1)
        tensor([[False, False,  True, False],
                [ True,  True,  True,  True]])
    """
    if not isinstance(p, Tensor) and not torch.compiler.is_compiling():
        planned = plan(Drop(Bernoulli(p), per, of), shape)
        resolved = resolve_key(key, planned)
        resolved = _tensor_key.check_mapped(like, resolved)
        return dispatch.mask(planned, resolved, like.device)
    rate = p if isinstance(p, Tensor) else torch.tensor(p, dtype=torch.float64, device="cpu")
    threshold = (rate.double() * WORDS).round().to(torch.int64).reshape(1)
    numbers = torch.cat((threshold, torch.tensor([_ONE_BITS, 0, 0, 0], device=threshold.device)))
    return (
        _draw("bernoulli", numbers, shape, key, like.new_empty(0, dtype=torch.float32), per, of)
        != 0
    )


def keep_factor(
    shape: tuple[int, ...], p: Rate, key: KeyLike, like: Tensor, per: str = "b *", of: str = "b *"
) -> Tensor:
    """:func:`bernoulli_mask` as numbers: 1 / (1 - p) where kept and 0 where dropped.

    The dtype is that of ``like``, at least float32.
    """
    kept = bernoulli_mask(shape, p, key, like, per, of).to(reference.wide(like))
    return kept * inverse_keep(p)


def inverted_dropout(x: Tensor, p: Rate, key: KeyLike, per: str, of: str) -> Tensor:
    """``x`` under inverted dropout, with one Bernoulli draw for each index of the axes ``per``.

    It also runs within a graph and at a rate that a schedule changes.
    """
    if not isinstance(p, Tensor) and not torch.compiler.is_compiling():
        return drop(x, Drop(Bernoulli(p), per, of), key=key)
    return (x * keep_factor(tuple(x.shape), p, key, x, per, of)).to(x.dtype)


def check_same_shape(first: Tensor, second: Tensor, names: str) -> None:
    """Raise unless the two tensors, called ``names`` in the message, have the same shape."""
    if first.shape != second.shape:
        raise InputError(
            f"{names} have to be of one shape, but got {list(first.shape)} and {list(second.shape)}"
        )


def uniform(
    shape: tuple[int, ...], key: KeyLike, like: Tensor, per: str = "b *", of: str = "b *"
) -> Tensor:
    """Draws uniform numbers on (0, 1), one for each index of the axes ``per``.

    Args:
        shape: The shape of the tensor that they are drawn for.
        key: The random key; equal keys draw equal noise. None takes 64 bits of torch's generator.
        like: A tensor of the device and dtype to draw in; below float32, float32 is used.
        per: The names of the axes that have numbers of their own; the other axes share theirs.
        of: The names of all axes of ``shape``, as for :func:`bernoulli_mask`.

    Returns:
        A tensor that broadcasts to ``shape``; shared axes have length 1. It is never 0 or 1.

    Raises:
        InputError: Where ``per`` and ``of`` do not fit ``shape``, or the number of sample ids is
            wrong.

    Example:
        >>> from thinned import Key
        >>> uniform((2, 3), Key(seed=1), torch.empty(0))
        tensor([[0.2793, 0.3804, 0.6064],
                [0.9705, 0.6885, 0.5103]])
    """
    drawn = 0.5 * _noise("uniform", shape, key, like, per, of)
    return drawn.clamp(2.0**-33, 1.0 - torch.finfo(drawn.dtype).eps / 2)


def normal(
    shape: tuple[int, ...], key: KeyLike, like: Tensor, per: str = "b *", of: str = "b *"
) -> Tensor:
    """Draws standard normal numbers, one for each index of the axes ``per``.

    Args:
        shape: The shape of the tensor that they are drawn for.
        key: The random key; equal keys draw equal noise. None takes 64 bits of torch's generator.
        like: A tensor of the device and dtype to draw in; below float32, float32 is used.
        per: The names of the axes that have numbers of their own; the other axes share theirs.
        of: The names of all axes of ``shape``, as for :func:`bernoulli_mask`.

    Returns:
        A tensor that broadcasts to ``shape``; shared axes have length 1.

    Raises:
        InputError: Where ``per`` and ``of`` do not fit ``shape``, or the number of sample ids is
            wrong.

    Example:
        >>> from thinned import Key
        >>> normal((2, 3), Key(seed=1), torch.empty(0))
        tensor([[-1.1670,  1.0906,  0.5698],
                [-0.0923, -0.2267,  1.1040]])
    """
    return _noise("gaussian", shape, key, like, per, of) - 1.0


_ONE_BITS = 0x3FF0000000000000  # the bits of the double 1.0


def _noise(
    law: LawName, shape: tuple[int, ...], key: KeyLike, like: Tensor, per: str, of: str
) -> Tensor:
    """1 + the unit noise of ``law``; shared axes have length 1."""
    numbers = torch.tensor([0, _ONE_BITS, 0, 0, _ONE_BITS], device="cpu")
    return _draw(law, numbers, shape, key, like.new_empty(0, dtype=reference.wide(like)), per, of)


def _draw(
    law: LawName,
    numbers: Tensor,
    shape: tuple[int, ...],
    key: KeyLike,
    like: Tensor,
    per: str,
    of: str,
) -> Tensor:
    """The noise of ``law`` with the constants ``numbers``; shared axes have length 1."""
    own, axis = dispatch.noise_axes(per, of, len(shape))
    tensor_key = resolve_key(key)
    tensor_key = _tensor_key.check_mapped(like, tensor_key)
    if not torch.compiler.is_compiling():
        drawn = (n for i, n in enumerate(shape) if own[i] and i != axis)
        check_size(math.prod(drawn))
    if tensor_key.sample_ids is not None and axis >= 0:
        check_sample_ids(tensor_key.sample_ids, axis, shape[axis])
    return dispatch.draw_noise(
        [n if o else 1 for n, o in zip(shape, own, strict=True)],
        own,
        axis,
        law,
        numbers,
        tensor_key,
        like,
    )


def fold_in(key: KeyLike, index: int) -> TensorKey:
    """Derives the key of another independent draw within one call, like ``jax.random.fold_in``.

    A function that draws several times uses ``key`` for the first draw and ``fold_in(key, 1)``,
    ``fold_in(key, 2)`` and so on for the others. Only the stream of the key changes.

    Args:
        key: The random key; equal keys draw equal noise. None takes 64 bits of torch's generator.
        index: The number of the draw; 0 returns the key itself.

    Returns:
        The derived key.

    Example:
        >>> from thinned import Key
        >>> key = Key(seed=1)
        >>> normal((3,), key, torch.empty(0)), normal((3,), fold_in(key, 1), torch.empty(0))
        (tensor([-1.1670, -0.0923, -0.1015]), tensor([ 1.6677, -2.3024,  0.8691]))
    """
    tensor_key = resolve_key(key)
    return tensor_key._replace(stream=_tensor_key.to_int64(tensor_key.stream + index * _GOLDEN))


_GOLDEN = 0x9E3779B97F4A7C15  # an odd number far from every small multiple of itself, modulo 2^64


def random_subset(rows: int, n: int, count: int, key: KeyLike, device: torch.device) -> Tensor:
    """Draws ``count`` of ``n`` indices for each of ``rows`` examples, all subsets equally likely.

    Args:
        rows: How many examples there are; the sample ids of the key name them.
        n: How many indices there are to choose from.
        count: How many indices to choose, from 0 to ``n``.
        key: The random key; equal keys draw equal noise. None takes 64 bits of torch's generator.
        device: The device of the result.

    Returns:
        int64 [rows, count], ascending in each row.

    Raises:
        InputError: Where the number of sample ids is not ``rows``.

    Example:
        >>> from thinned import Key
        >>> random_subset(2, 10, 4, Key(seed=1), torch.device("cpu"))
        tensor([[0, 3, 6, 9],
                [5, 7, 8, 9]])
    """
    key = resolve_key(key)
    if key.sample_ids is not None:
        check_sample_ids(key.sample_ids, 0, rows)
    if not torch.compiler.is_compiling():
        check_size(n)
    if device.type == "cpu" and (found := parts.subset(rows, n, count, key)) is not None:
        return found
    drawn = uniform((rows, n), key, torch.empty(0, dtype=torch.float64, device=device))
    # numbers are multiples of 2^-33: of equal ones the smaller index comes first
    drawn = drawn + torch.arange(n, device=device) * 2.0**-53
    return drawn.topk(count, dim=1, largest=False).indices.sort(dim=1).values


def inverse_keep(p: Rate) -> Rate:
    """1 / (1 - p), the factor of kept elements under inverted scaling; 0 at rate 1."""
    if isinstance(p, Tensor):
        return torch.where(p < 1, 1 / (1 - p), 0.0)
    return 1 / (1 - p) if p < 1 else 0.0
