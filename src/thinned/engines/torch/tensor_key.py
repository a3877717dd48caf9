"""The random key as tensors.

Operators take it as an input, so that compiled graphs do not capture one key.
"""

from __future__ import annotations

import random
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch._functorch import config
from torch._subclasses.fake_tensor import FakeTensor
from torch.fx import traceback
from torch.utils import checkpoint
from torch.utils._python_dispatch import _get_current_dispatch_mode_stack

from ..._errors import InputError
from ...algebra.key import Key
from ...algebra.plan import Plan

_SIGN = 1 << 63
_ONE = (1,)


class TensorKey(NamedTuple):
    """A :class:`thinned.Key` as tensors, the form that layers and compiled graphs use.

    Layers return it, and every ``key`` argument of :mod:`thinned.functional` takes it.

    Args:
        seed_step: int64 [1], the seed, or [2], the seed and the step.
        sample_ids: int64 [n], the sample id of each example; or [2, n], their ids and their steps.
            None numbers the examples 0, 1, 2 and so on.
        stream: The stream of the layer, as a signed 64-bit number.
        call: How many times the layer was called before in this step.

    Example:
        >>> TensorKey(torch.tensor([7, 2])).seed_step  # the seed 7 and the step 2
        tensor([7, 2])
    """

    seed_step: Tensor
    sample_ids: Tensor | None = None
    stream: int = 0
    call: int = 0


def to_int64(value: int) -> int:
    """Return a 64-bit number as the signed one that torch stores."""
    return (value & (2 * _SIGN - 1) ^ _SIGN) - _SIGN


class _SeedDraw:
    """Draws a seed from the global generator; in a compiled graph the seed is an input.

    A draw inside the graph may be repeated in the backward pass, for other masks than those of the
    loss, because the partitioner decides by memory what to recompute. An input is never recomputed.
    torch.compile calls functions equal to ``random.random`` before the graph and passes the number
    in; there is no other way to have a new input at every call.
    """

    def __eq__(self, other: object) -> bool:
        return other is self or other is random.random

    def __hash__(self) -> int:
        return hash(random.random)

    def __call__(self) -> int:
        return int(torch.randint(-_SIGN, _SIGN - 1, _ONE, device="cpu").item())


_draw_seed = _SeedDraw()


def random_key(generator: torch.Generator | None = None) -> TensorKey:
    """Return a key with a seed of 64 bits from ``generator``, without reading them.

    The default is the global generator of torch for the CPU. ``torch.manual_seed``, ``fork_rng``
    and activation checkpointing therefore treat these masks like those of torch.
    """
    if generator is not None:
        seed = _drawn_from(generator)
    elif (
        torch.compiler.is_dynamo_compiling()
        and not torch.compiler.is_exporting()
        and not _drawn_in_graph()
    ):
        return TensorKey(torch.as_tensor(_draw_seed()).reshape(1))
    elif torch.compiler.is_compiling() or not torch._C._len_torch_dispatch_stack():
        seed = torch.randint(-_SIGN, _SIGN - 1, _ONE, device="cpu")
    else:
        seed = _of_first_pass(_saved_draw())
    return TensorKey(seed)


def eager_random_key() -> TensorKey:
    """:func:`random_key` where nothing traces the call."""
    return TensorKey(torch.randint(-_SIGN, _SIGN - 1, _ONE, device="cpu"))


@torch.compiler.disable
def _drawn_from(generator: torch.Generator) -> Tensor:
    """Draw a seed; not within a graph, where it could be repeated in the backward pass."""
    return torch.randint(-_SIGN, _SIGN - 1, _ONE, generator=generator, device=generator.device)


@torch._dynamo.assume_constant_result
def _drawn_in_graph() -> bool:
    """Return whether a surrounding transform of torch.func needs a draw inside the graph.

    vmap needs one for a draw of its own for each example, and the other transforms take no number
    from outside. A partitioner repeats such a draw where memory is short.
    """
    functorch = torch._C._functorch
    types, modes = functorch.TransformType, functorch.RandomnessType
    inside = False
    for interpreter in functorch.get_interpreter_stack() or []:
        if interpreter.key() == types.Vmap:
            mode = functorch.CVmapInterpreterPtr(interpreter).randomness()
            inside |= mode != modes.Same  # where it is Error, the draw raises the error of torch
        else:
            inside |= interpreter.key() != types.Functionalize
    if inside and torch.is_grad_enabled() and config.activation_memory_budget < 1:
        raise InputError(
            "under torch.compile, a draw inside torch.func.grad or vmap(..., "
            'randomness="different") is repeated in the backward pass, for other masks than those '
            "of the loss, where activation_memory_budget is below 1; use a budget of 1, or a key: "
            "thinned.key(model)"
        )
    return inside


def _saved_draw() -> Tensor:
    """Draw a seed; in a graph that ``aot_function`` traces, one that no partitioner recomputes."""
    traced = torch._C._get_dispatch_mode(torch._C._TorchDispatchModeKey.PROXY) is not None
    if traced and torch.is_grad_enabled() and not config.activation_memory_budget:
        raise InputError(
            "a graph of aot_function with activation_memory_budget=0 draws again in its backward "
            "pass, for other masks than those of the loss; use torch.compile, or a budget above 0"
        )
    meta = traceback.current_meta
    before = dict(meta)
    meta["recompute"] = checkpoint.CheckpointPolicy.MUST_SAVE
    try:
        return torch.randint(-_SIGN, _SIGN - 1, _ONE, device="cpu")
    finally:
        meta.clear()
        meta.update(before)


def _of_first_pass(seed: Tensor) -> Tensor:
    """Return the seed of the first pass where selective checkpointing recomputes a draw.

    The saved output of an operator has the mask of the first pass, and so has to have its gradient,
    also without the state of the generator. The seeds are kept next to the saved outputs.
    """
    for mode in reversed(_get_current_dispatch_mode_stack()):
        if isinstance(mode, checkpoint._CachingTorchDispatchMode):
            mode.storage["thinned"][len(mode.storage["thinned"])] = seed
        elif isinstance(mode, checkpoint._CachedTorchDispatchMode):
            seeds = mode.storage["thinned"]
            return seeds.pop(next(iter(seeds))) if seeds else seed
    return seed


def from_key(key: Key) -> TensorKey:
    """Return a key as tensors."""
    ids = None if key.samples is None else int64_vector("samples", key.samples)
    if isinstance(key.step, int):
        return TensorKey(
            torch.tensor([to_int64(key.seed), key.step], device="cpu"),
            ids,
            to_int64(key.stream),
            key.call,
        )
    steps = int64_vector("step", key.step, 32)
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


def int64_vector(name: str, values: Any, bits: int = 63) -> Tensor:
    """Return ``values`` as a 1-d int64 tensor, or raise :class:`thinned.InputError`.

    Values on the CPU have to be in [0, 2^bits). Reading them from another device would wait for it,
    and those that a transform such as vmap maps cannot be read.
    """
    rule = (
        f"{name} has to be a 1-d tensor of integers in [0, 2^{bits}), or an array or list of them"
    )
    if not isinstance(values, Tensor):
        values = _from_array(rule, values)
    if (
        values.dim() != 1
        or values.layout != torch.strided
        or values.is_floating_point()
        or values.is_complex()
        or values.dtype == torch.bool
    ):
        raise InputError(f"{rule}, but got {values.dtype} {list(values.shape)}")
    readable = values.device.type == "cpu" and not (
        is_wrapped(values) or isinstance(values, FakeTensor) or torch.compiler.is_compiling()
    )
    integers = values.to(torch.int64).contiguous()
    if readable and integers.numel():
        low, high = int(integers.min()), int(integers.max())
        if low < 0 or high >> bits:
            raise InputError(
                f"{name} has to hold ids of at least 0 and below 2^{bits}, but got "
                f"{low if low < 0 else high}"
            )
    return integers


def _from_array(rule: str, values: Any) -> Tensor:
    """Return an array, a list or a range of integers as a tensor, or raise ``rule``."""
    if isinstance(values, (list, tuple, range)):
        if not values:
            raise InputError(f"{rule}, but got the empty {type(values).__name__} {values!r}")
        wrapped = any(isinstance(v, Tensor) and is_wrapped(v) for v in values)
        if wrapped or not all(hasattr(v, "__index__") for v in values):
            raise InputError(f"{rule}, but got {values!r}")
        if any(isinstance(v, bool) for v in values):
            raise InputError(f"{rule}, but got torch.bool [{len(values)}]: {values!r}")
    elif not hasattr(values, "__array__"):
        raise InputError(f"{rule}, but got {values!r}; write list(...) around an iterator")
    try:
        array = np.asarray(values)
    except (TypeError, ValueError, OverflowError, RuntimeError) as error:
        raise InputError(f"{rule}, but got {values!r} ({error})") from error
    if array.dtype.kind not in "iu":
        raise InputError(f"{rule}, but got {array.dtype} {list(array.shape)}: {values!r}")
    if array.dtype.kind == "u" and array.size and int(array.max()) >> 63:
        raise InputError(f"{rule}, but got {int(array.max())}")
    return torch.from_numpy(array.astype(np.int64))


def is_wrapped(t: Tensor) -> bool:
    """Return whether ``t`` is inside a transform of torch.func, which must not be switched off."""
    return torch._C._functorch.is_functorch_wrapped_tensor(t)


def without_gradients(t: Tensor) -> Tensor:
    """Return integers without the wrappers of grad and jvp, which do not outlive a transform."""
    while torch._C._functorch.is_gradtrackingtensor(t):
        t = torch._C._functorch.get_unwrapped(t)
    return t


def mapped_levels(t: Tensor | None) -> set[int]:
    """Return the levels of vmap that map ``t``."""
    levels: set[int] = set()
    while t is not None and is_wrapped(t):
        if torch._C._functorch.is_batchedtensor(t):
            levels.add(torch._C._functorch.maybe_get_level(t))
        elif not torch._C._functorch.is_gradtrackingtensor(t):
            break
        t = torch._C._functorch.get_unwrapped(t)
    return levels


class ModelTensorKey(TensorKey):
    """The key of a keyed model inside a transform of torch.func; see :func:`check_mapped`."""


class MaskKey(TensorKey):
    """A key that draws masks itself, for draws that depend on one another."""

    def mask(self, planned: Plan, device: torch.device) -> Tensor:
        """Return the mask of a plan, True where kept; it broadcasts to the shape of the plan."""
        raise NotImplementedError


def check_mapped(x: Tensor, tensor_key: TensorKey) -> TensorKey:
    """Return the key; raise where vmap maps ``x`` but not the ids of a keyed model.

    All mapped inputs would share one mask.
    """
    if not isinstance(tensor_key, ModelTensorKey):
        return tensor_key
    if torch.compiler.is_dynamo_compiling():  # where wrappers can be read in a node of the graph
        seed_step = _check_levels(x, tensor_key.seed_step, tensor_key.sample_ids)
        return tensor_key._replace(seed_step=seed_step)
    _check_levels(x, tensor_key.seed_step, tensor_key.sample_ids)
    return tensor_key


@torch._dynamo.allow_in_graph
def _check_levels(x: Tensor, seed_step: Tensor, sample_ids: Tensor | None) -> Tensor:
    """Return the seed and step; raise where vmap maps ``x``, but not the ids."""
    levels = mapped_levels(x) - mapped_levels(sample_ids)
    functorch = torch._C._functorch
    for interpreter in functorch.get_interpreter_stack() or [] if levels else []:
        if interpreter.level() in levels and interpreter.key() == functorch.TransformType.Vmap:
            mode = functorch.CVmapInterpreterPtr(interpreter).randomness()
            if mode != functorch.RandomnessType.Same:
                raise InputError(
                    "vmap maps the input of a keyed dropout layer, but not its sample ids, so all "
                    "mapped inputs would share one mask; map the ids too and call "
                    "key.at(step, samples=ids) inside the mapped function, where ids is a tensor "
                    '[b], or share the mask with vmap(..., randomness="same")'
                )
    return seed_step


def to_key(tensor_key: TensorKey) -> Key:
    """Return the key of tensors, reading their values: the inverse of :func:`from_key`."""
    seed, *step = tensor_key.seed_step.tolist()
    now = step[0] if step else 0
    ids, steps = (
        (tensor_key.sample_ids, now)
        if tensor_key.sample_ids is None or tensor_key.sample_ids.dim() == 1
        else (tensor_key.sample_ids[0], tensor_key.sample_ids[1])
    )
    return Key(seed, tensor_key.stream, tensor_key.call, steps, ids)
