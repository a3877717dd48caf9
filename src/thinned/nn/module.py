"""The bases of all dropout modules: mode, random key and rate; and how to find them in a model."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from .._errors import ArgumentError, InputError, learned_rate, nearest_argument, probability
from ..algebra.schedule import SCHEDULES, Schedule
from ..engines.torch import exported
from ..engines.torch.tensor_key import (
    ModelTensorKey,
    TensorKey,
    eager_random_key,
    mapped_levels,
    random_key,
)
from ..functional import Mode
from ..functional.core import Rate
from .contexts import any_active, value_of
from .recompute import (
    CallCounter,
    modes_kept,
    recomputed_key,
    recomputed_mode,
    remember_key,
    remember_mode,
)

if TYPE_CHECKING:
    from typing_extensions import Self

    from .keys import ModelKey

# Wrappers hold a model under an attribute of their own. The name of a layer leaves them out, so
# that its masks do not depend on how the model is wrapped.
_WRAPPERS = ("_orig_mod", "_checkpoint_wrapped_module", "_fsdp_wrapped_module")
_PARALLEL = ("DistributedDataParallel", "DataParallel", "FullyShardedDataParallel")


def check_argument_names(name: str, function: Any, arguments: dict[str, Any]) -> None:
    """Raise :class:`ArgumentError` where ``function`` does not take one of ``arguments``."""
    parameters = inspect.signature(function).parameters
    kinds = [parameter.kind for parameter in parameters.values()]
    if inspect.Parameter.VAR_KEYWORD in kinds:
        return
    by_name = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    known = [n for n, parameter in parameters.items() if parameter.kind in by_name and n != "self"]
    for argument in arguments:
        if argument not in known:
            hint = nearest_argument(argument, known)
            raise ArgumentError(f"{name} has no argument {argument!r}; {hint}")


class CheckedArguments:
    """Raises an error with a suggestion where a class is called with an unknown keyword."""

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        """Check the keywords, then create the object; copying and unpickling pass none."""
        if kwargs:
            check_argument_names(cls.__name__, cls.__init__, kwargs)
        return super().__new__(cls)


class DropoutModule(CheckedArguments):
    """Base of every module that draws random numbers: it provides the mode and the random key.

    Use it together with ``torch.nn.Module``, named first: ``class MyDropout(DropoutModule,
    nn.Module)``. In ``forward`` ask :meth:`mode` what to do, and pass :meth:`call_key` to the draws
    of :mod:`thinned.functional`. Then :func:`thinned.key`, :func:`thinned.sampling`,
    :func:`thinned.off`, :func:`thinned.frozen`, :func:`thinned.recording`, activation checkpointing
    and ``torch.compile`` work with the module, and :func:`thinned.find` lists it. A module with one
    rate of dropping derives from :class:`RatedModule`.

    Attributes:
        training: The flag of ``torch.nn.Module`` that ``train()`` and ``eval()`` set.
        mode_override: The mode that a context manager such as :func:`thinned.sampling` sets for
            this thread or coroutine, or None; read only.
        model_key: The :class:`ModelKey` of the model that the module is part of, or None.
        stream: The random stream of the module under its model key: a hash of its name.
        calls: The counter of the calls of the module within a step, under its model key.
        schedule_step: The step that :meth:`step` moved the schedules to last; None before, and
            where there is no schedule.
        frozen_key: The key of every call while :func:`thinned.frozen` is active, or None; read
            only.
        tape: What records or replays keys while :func:`thinned.recording` or
            :func:`thinned.replaying` is active, or None; read only.

    Example:
        Noise of a fixed size on every element:

        >>> import torch
        >>> from torch import nn
        >>> import thinned
        >>> import thinned.nn as tnn
        >>> from thinned.functional import normal
        >>> class AdditiveNoise(tnn.DropoutModule, nn.Module):
        ...     def forward(self, x):
        ...         if self.mode() != "sample":
        ...             return x
        ...         return x + normal(tuple(x.shape), self.call_key(), x)
        >>> model = nn.Sequential(AdditiveNoise())
        >>> key = thinned.key(model, seed=1)
        >>> key.at(step=0)
        >>> first = model(torch.zeros(2, 3))
        >>> key.at(step=0)
        >>> bool((model(torch.zeros(2, 3)) == first).all())
        True
    """

    training: bool
    model_key: ModelKey | None = None
    stream: int = 0
    calls: CallCounter
    schedule_step: int | None = None

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        """Create the module as a leaf of ``torch.fx``, which enters no module of ``torch.nn``.

        What a dropout module draws depends on its mode and key at each call, so a trace of its
        ``forward`` would fix them. Tracers read the name on the instance; that of the class, which
        pickling and :mod:`inspect` read, is its own.
        """
        module = super().__new__(cls, *args, **kwargs)
        module.__dict__["__module__"] = "torch.nn"
        return module

    def __prepare_scriptable__(self) -> Self:
        """Raise: ``torch.jit.script`` calls this, and cannot compile keys and modes."""
        name = type(self).__name__
        raise InputError(
            f"torch.jit.script cannot compile thinned's {name}; write torch.jit.trace(model.eval(),"
            " inputs), or script a model with torch's layers: after edits = thinned.replace(model),"
            " edits.undo() puts them back and keeps the trained weights"
        )

    @property
    def mode_override(self) -> Mode | None:
        """The mode that a context manager sets, or None."""
        mode: Mode | None = value_of("mode", self)
        return mode

    @property
    def frozen_key(self) -> TensorKey | None:
        """The key of every call within :func:`thinned.frozen`, or None."""
        frozen_key: TensorKey | None = value_of("frozen_key", self)
        return frozen_key

    @property
    def tape(self) -> Any:
        """What records or replays the keys of this module, or None."""
        return value_of("tape", self)

    def register_parameter(self, name: str, param: nn.Parameter | None) -> None:
        """Register a parameter; assigning one to the rate ``p`` raises, as it is not learned."""
        if name == "p" and isinstance(getattr(type(self), name, None), property):
            raise learned_rate(param)
        super().register_parameter(name, param)  # type: ignore[misc]

    def mode(self) -> Mode:
        """Return what this call has to do.

        Returns:
            "sample" in training: draw. "mean" in evaluation: return the result of evaluation,
            without drawing. "off": return the result without any noise, not even scaled. A context
            manager such as :func:`thinned.sampling` decides instead of ``training`` while active.
        """
        if not any_active() and not modes_kept():
            return "sample" if self.training else "mean"
        override: Mode | None = value_of("mode", self)
        if not torch.compiler.is_compiling():
            recomputing, kept = recomputed_mode(self)
            if recomputing:
                override = kept
            elif override is not None:
                remember_mode(self, override)
        return override or ("sample" if self.training else "mean")

    def call_key(self) -> TensorKey:
        """Return the random key of this call; ask once in each call that draws.

        It is the only source of randomness of a layer: pass it as ``key=`` to the draws of
        :mod:`thinned.functional`, and derive the keys of other independent draws of the same call
        from it by ``fold_in``.

        Returns:
            The key of this layer, step and call in a keyed model (:func:`thinned.key`). In a model
            without a key, 64 bits of torch's generator. The frozen or replayed key under
            :func:`thinned.frozen` and :func:`thinned.replaying`.

        Raises:
            InputError: In a keyed model before the first ``key.at``, and where
                ``torch.onnx.export`` or ``torch.jit.trace`` would store one key in its graph.
        """
        if self.model_key is None and not any_active() and exported.runs_eagerly():
            return recomputed_key(self) or eager_random_key()
        if recorder := exported.recorder():
            if not self.draws_unkeyed():
                raise exported.keyed(recorder)
            raise exported.refused(recorder, f"the draws of {type(self).__name__}")
        frozen_key, tape = self.frozen_key, self.tape
        keyed = self.model_key is not None or frozen_key is not None or tape is not None
        if keyed and exported.traced():
            raise exported.keyed("make_fx or aot_function")
        if frozen_key is None and tape is None:
            return self.next_key()
        if torch.compiler.is_compiling():
            return frozen_key or tape.turn(self)
        recomputed = recomputed_key(self)
        if recomputed is not None:
            return recomputed
        return remember_key(self, frozen_key) if frozen_key else tape.turn(self)

    def draws_unkeyed(self) -> bool:
        """Return whether this call draws from torch's generator, and no tape records it.

        Returns:
            False in a keyed model and under :func:`thinned.frozen`, recording or replaying.
        """
        return self.model_key is None and self.frozen_key is None and self.tape is None

    def step(self, step: int) -> None:
        """Move schedules to ``step``. The base has none; :class:`RatedModule` moves its rate.

        Args:
            step: The number of the optimizer step, from 0. :meth:`ModelKey.at` and
                :func:`thinned.step` pass it.
        """

    def next_key(self) -> TensorKey:
        """Return the key of the next call, ignoring :func:`thinned.frozen` and tapes.

        Layers call :meth:`call_key`; this is for tools that record keys.

        Returns:
            The key, as tensors.
        """
        if self.model_key is not None:
            if getattr(self, "_is_replica", False):
                raise InputError(
                    "a keyed model does not run as replicas of DataParallel, which know no sample "
                    "ids of their own; use DistributedDataParallel, or call key.remove() first"
                )
            coming = self.calls.next(self.model_key.tensor_key(), self.stream, self)
            if torch.compiler.is_compiling():
                active = torch._C._are_functorch_transforms_active()
                return ModelTensorKey(*coming) if active else coming
            if torch._C._functorch.maybe_current_level() is None:
                return coming
            if mapped_levels(coming.sample_ids):
                self.calls.last = None  # mapped ids must not outlive their vmap
            return ModelTensorKey(*coming)
        if torch.compiler.is_compiling():
            return random_key()
        # A checkpointed segment remembers only keys that were frozen or replayed. Otherwise torch
        # restores its own generator before it recomputes the segment.
        return recomputed_key(self) or random_key()


def disable_fused_kernels(module: nn.Module) -> Any:
    """Keep the fused kernels of torch from bypassing ``module``, and return the hook's handle.

    The fused transformer layer reads the weights past the layers that hold them. torch does not use
    it where any module inside has a hook, so this registers a hook that does nothing.
    """
    return module.register_forward_pre_hook(do_nothing)


def do_nothing(module: nn.Module, args: Any) -> None:
    return None


def check_module(layer: nn.Module, argument: str, module: object) -> None:
    """Raise unless the value of an argument of ``layer`` is a module."""
    if not isinstance(module, nn.Module):
        raise InputError(
            f"{argument} of {type(layer).__name__} has to be a torch.nn.Module, but got {module!r}"
        )


class RatedModule(DropoutModule):
    """Base of the dropout modules with one rate of dropping, which a schedule may move.

    Use it like :class:`DropoutModule`: ``class MyDropout(RatedModule, nn.Module)``. Call
    :meth:`set_initial_rate` at the end of ``__init__``, and draw at the rate :meth:`current_rate`.

    Attributes:
        schedule: The schedule of the rate, or None.
        p: The rate, in [0, 1]; it may be set at any time. See also :class:`DropoutModule`.

    Example:
        >>> from torch import nn
        >>> import thinned.nn as tnn
        >>> from thinned.algebra import Linear
        >>> from thinned.functional import bernoulli_mask
        >>> class PositionDropout(tnn.RatedModule, nn.Module):
        ...     def __init__(self, p=0.1):
        ...         super().__init__()
        ...         self.set_initial_rate(p)
        ...     def forward(self, x):
        ...         if self.mode() != "sample" or self.p == 0:
        ...             return x
        ...         shape, key = tuple(x.shape), self.call_key()
        ...         return x * bernoulli_mask(shape, self.current_rate(), key, x)
        >>> layer = PositionDropout(Linear(0.0, 0.4, steps=100))
        >>> layer.step(50)
        >>> layer.p
        0.2
    """

    schedule: Schedule | None = None

    def set_initial_rate(self, p: float | Schedule) -> None:
        """Set the rate at construction, from the argument of the user.

        Args:
            p: The rate, in [0, 1], or a schedule of it. With a schedule the rate is that of step 0
                until :meth:`step` moves it.

        Raises:
            InputError: Where the rate is outside [0, 1].
        """
        self.schedule = p if isinstance(p, SCHEDULES) else None
        # checked before it is set: torch would register a module as a child
        self.p = p(0) if isinstance(p, SCHEDULES) else probability(p)

    def step(self, step: int) -> None:
        """Take the rate that the schedule has at ``step``; without a schedule nothing changes.

        Args:
            step: The number of the optimizer step, from 0.
        """
        if self.schedule is None:
            return
        self.schedule_step = step
        if (rate := self.schedule(step)) != self.p:
            self.p = rate

    @property
    def p(self) -> float:
        """The rate, in [0, 1]. It may be set at any time."""
        return self._rate

    @p.setter
    def p(self, rate: float) -> None:
        self._rate = probability(rate)
        self._rate_tensor = torch.tensor(self._rate, dtype=torch.float64, device="cpu")

    def current_rate(self) -> Rate:
        """Return the rate to draw at, in the form that suits this call.

        A compiled graph captures numbers as constants, so with a schedule it would have to be
        compiled again at every step.

        Returns:
            ``p`` as a float; or, within a graph and with a schedule, a float64 tensor without axes,
            which the graph reads at every call.
        """
        if self.schedule is not None and torch.compiler.is_compiling():
            return self._rate_tensor
        return self._rate


def dropout_modules(model: nn.Module) -> Iterator[tuple[str, DropoutModule]]:
    """Yield the dropout modules of a model with their qualified names, without those of wrappers.

    A shared module comes once, under its first name.
    """
    visited: set[int] = set()

    def walk(module: nn.Module, path: tuple[str, ...]) -> Iterator[tuple[str, DropoutModule]]:
        if id(module) in visited:
            return
        visited.add(id(module))
        if isinstance(module, DropoutModule):
            yield ".".join(path), module
        parallel = type(module).__name__ in _PARALLEL
        for name, child in module.named_children():
            transparent = name in _WRAPPERS or (parallel and name == "module")
            yield from walk(child, path if transparent else (*path, name))

    yield from walk(model, ())
