"""One observed pass of a model: what it draws, by hooks on modules, a function mode, and the
generators themselves.
"""

from __future__ import annotations

import copy
import ctypes
import random
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.overrides import TorchFunctionMode

from .._errors import InputError
from ..nn import Thinned
from ..nn.module import DropoutModule
from ..nn.thinned import Shrinking
from .costs import COST, flops
from .draws import DRAW, DROPOUTS, draw, name_of
from .model_access import eagerly, generators_kept, not_scripted, tensors


@dataclass
class Seen:
    """What one call site did in one pass."""

    name: str
    module: str
    kind: str
    function: str
    where: str
    rate: float | None
    shape: tuple[int, ...] | None
    flops_before: float
    parameters_before: int
    calls: int = 0
    fell: int = 0
    of: int = 0

    @property
    def place(self) -> tuple[str, str, str, str]:
        return self.name, self.kind, self.function, self.where


class Observer:
    """What else somebody wants to know of a pass; this one wants nothing."""

    def before_draw(self, given: Any) -> Any:
        """Called before a function that may draw, with its arguments; what it returns comes back in
        :meth:`drawn`.
        """

    def drawn(self, one: Seen, given: Any, result: Any, before: Any) -> None:
        """A call site drew for ``given`` and made ``result``; both None where they are not known."""

    def idle(
        self, name: str, function: str, where: str, rate: float, module: nn.Module | None
    ) -> None:
        """A dropout function was called with a rate, and switched off."""

    def called(self, name: str, func: Any, args: Any, kwargs: Any, result: Any) -> None:
        """Any function of torch was called in the code of module ``name``."""

    def enters(self, name: str, module: nn.Module, args: Any) -> None:
        """A module starts."""

    def leaves(self, name: str, module: nn.Module, args: Any, result: Any) -> None:
        """A module ends."""


@dataclass
class Observation:
    """One pass: what drew, what was called, what it cost."""

    watch: Observer = field(default_factory=Observer)

    seen: dict[tuple[str, str, str, str], Seen] = field(default_factory=dict)
    draws: int = 0
    flops: float = 0.0
    called: set[int] = field(default_factory=set)
    parameters: int = 0
    stack: list[tuple[str, nn.Module]] = field(default_factory=list)
    output: Any = None

    def note(
        self, kind: str, function: str, rate: float | None, shape: Any, fell: int = 0, of: int = 0,
        given: Any = None, result: Any = None, before: Any = None,
    ) -> None:  # fmt: skip
        name, module = self.stack[-1] if self.stack else ("", None)
        new = Seen(
            name, type(module).__name__, kind, function, line_outside(), rate, None if shape is None else tuple(shape),
            self.flops, self.parameters,
        )  # fmt: skip
        self.draws += 1
        one = self.seen.setdefault(new.place, new)
        one.calls, one.fell, one.of = one.calls + 1, one.fell + fell, one.of + of
        self.watch.drawn(one, given, result, before)

    def taken(self) -> Observation:
        """What was seen so far, for itself; the next pass starts with nothing."""
        taken = copy.copy(self)
        self.__init__(self.watch)  # type: ignore[misc]
        return taken

    def leave(self) -> None:
        _, module = self.stack.pop()
        for p in module._parameters.values():
            if p is not None and id(p) not in self.called:
                self.called.add(id(p))
                self.parameters += p.numel()


@contextmanager
def preserve_state(model: nn.Module, inputs: Any) -> Iterator[None]:
    """Within, passes may be made; after, modes, buffers and generators are as before. No gradients
    are made.

    Raises :class:`thinned.InputError` for a scripted model, and for one with lazy modules that have
    not run: a pass would make their parameters.
    """
    not_scripted(model)
    for path, tensor in (*model.named_parameters(), *model.named_buffers()):
        if is_lazy(tensor):
            raise InputError(
                f"{path} is lazy and has no values yet; run the model once, then observe it"
            )
    modes = [(m, m.training) for m in model.modules()]
    buffers = [(b, b.detach().clone()) for b in model.buffers()]
    try:
        with (
            generators_kept([*model.parameters(), *model.buffers(), *tensors(inputs)]),
            torch.no_grad(),
        ):
            yield
    finally:
        for module, training in modes:
            module.training = training
        with torch.no_grad():
            for buffer, values in buffers:
                buffer.copy_(values)


def observe(
    model: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any], watch: Observer | None = None
) -> Observation:
    """Run ``model`` once and tell what it drew."""
    with observing(model, watch) as run:
        run.output = model(*inputs, **named)
    return run


@contextmanager
def observing(model: nn.Module, watch: Observer | None = None) -> Iterator[Observation]:
    """Within: what ``model`` does is seen, in a backward pass too where that recomputes."""
    run = Observation(watch or Observer())
    with ExitStack() as stack:
        _Hooks(run, model).hook(stack)
        stack.enter_context(_python_random(run))
        stack.enter_context(_Functions(run))
        eagerly(stack)
        yield run


class _Hooks:
    """Know when modules run; of our own layers also what they drop, of everybody's whether a
    generator moved unseen.

    One pair of functions serves all modules, for thousands of closures would keep the garbage
    collector busy.
    """

    def __init__(self, run: Observation, model: nn.Module) -> None:
        self.run = run
        self.names = {module: name for name, module in model.named_modules()}
        self.started: list[Any] = []

    def hook(self, stack: ExitStack) -> None:
        for module in self.names:
            stack.callback(module.register_forward_pre_hook(self.before, with_kwargs=True).remove)
            stack.callback(
                module.register_forward_hook(self.after, with_kwargs=True, always_call=True).remove
            )

    def before(self, module: nn.Module, args: Any, kwargs: Any) -> None:
        run, name = self.run, self.names[module]
        run.stack.append((name, module))
        given = run.watch.before_draw((args, kwargs)) if isinstance(module, DropoutModule) else None
        known = type(module).__module__.startswith(
            "torch.nn."
        )  # whose draws are all functions that are seen
        self.started.append((run.draws, None if known else generators(), given))
        run.watch.enters(name, module, args)

    def after(self, module: nn.Module, args: Any, kwargs: Any, result: Any) -> None:
        """``result`` is None where the pass was broken off."""
        run = self.run
        draws, state, token = self.started.pop()
        if isinstance(module, DropoutModule):
            if module.mode() == "sample" and getattr(module, "p", True) and result is not None:
                given, out = first(args), first(result)
                cut = module.fell() if isinstance(module, Thinned) else None
                fell, of = cut or count_fallen(given, out)
                rate = getattr(module, "p", None)
                run.note(
                    "dropout",
                    type(module).__name__,
                    rate,
                    _shape(given),
                    fell,
                    of,
                    given,
                    out,
                    token,
                )
        elif state is not None and draws == run.draws and state != generators():
            run.note(
                "unseen",
                type(module).__name__,
                None,
                _shape(first(args)),
                given=first(args),
                result=first(result),
            )
        run.watch.leaves(self.names[module], module, args, result)
        run.leave()


_MT19937 = 625 * 4  # bytes: 624 words and the place among them


def generators() -> tuple[bytes, bytes]:
    """A mark of where the global generators of torch and NumPy stand."""
    numpy = sys.modules.get("numpy.random")
    theirs = b""
    if numpy is not None:
        made = numpy.get_bit_generator()
        if type(made).__name__ == "MT19937":  # what get_state says, a hundred times faster
            theirs = ctypes.string_at(made.ctypes.state_address, _MT19937)
        else:
            theirs = repr(made.state).encode()
    return torch.get_rng_state().numpy().tobytes(), theirs


def first(given: Any) -> Tensor | None:
    """The first tensor in nested containers."""
    if given is None or isinstance(given, Tensor):
        return given
    if type(given) in (tuple, list):
        return next((x for x in map(first, given) if x is not None), None)
    found = torch.utils._pytree.tree_leaves(given)
    return next((t for t in found if isinstance(t, Tensor)), None)


def _shape(x: Tensor | None) -> Any:
    return None if x is None else x.shape


def count_fallen(given: Tensor | None, result: Tensor | None) -> tuple[int, int]:
    """(how many elements became 0, of how many that were not)."""
    if given is None or result is None or given.shape != result.shape:
        return 0, 0
    was = given != 0
    return int((was & (result == 0)).sum()), int(was.sum())


@contextmanager
def _python_random(run: Observation) -> Iterator[None]:
    """See draws of Python's ``random``, which some libraries drop layers by."""
    names = (
        "random",
        "uniform",
        "randint",
        "choice",
        "choices",
        "sample",
        "shuffle",
        "gauss",
        "betavariate",
    )
    originals = {name: getattr(random, name) for name in names}

    def seen(name: str) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            result = originals[name](*args, **kwargs)
            run.note("python", f"random.{name}", None, None, result=result)
            return result

        return call

    try:
        for name in names:
            setattr(random, name, seen(name))
        yield
    finally:
        for name, original in originals.items():
            setattr(random, name, original)


_SEEN = DRAW | COST


class _Functions(TorchFunctionMode):
    """See torch's functions as they are called, with their arguments."""

    def __init__(self, run: Observation) -> None:
        super().__init__()
        self.run = run
        self.all = type(run.watch).called is not Observer.called

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if not self.all and func not in _SEEN:
            return func(*args, **kwargs)
        name, within = self.run.stack[-1] if self.run.stack else ("", None)
        drawn = draw(func, args, kwargs)
        if drawn is not None and _ours(within):
            drawn = None
        draws = drawn is not None and drawn[0]
        given = _kept(args, kwargs) if draws else None
        before = self.run.watch.before_draw((args, kwargs)) if draws else None
        result = func(*args, **kwargs)
        if drawn is not None and drawn[0]:
            kind, rate = drawn
            fell, of = 0, 0
            if kind == "mask":
                fell, of = int((result == 0).sum()), result.numel()
            elif kind == "dropout":
                fell, of = count_fallen(given, first(result))
            shape = _shape(first(result if kind == "noise" else (args, kwargs)))
            self.run.note(kind, name_of(func), rate, shape, fell, of, given, result, before)
        elif drawn is not None and drawn[1] and func in DROPOUTS:
            self.run.watch.idle(name, name_of(func), line_outside(), drawn[1], within)
        self.run.watch.called(name, func, args, kwargs, result)
        self.run.flops += flops(func, args, kwargs, result)
        return result


def _ours(module: nn.Module | None) -> bool:
    return isinstance(module, DropoutModule) or (
        module is not None and isinstance(module.__dict__.get("forward"), Shrinking)
    )


def _kept(args: Any, kwargs: Any) -> Tensor | None:
    """The input as it was before a function that may write over it."""
    given = first((args, kwargs))
    inplace = kwargs.get("inplace", any(a is True for a in args[3:4]))
    return given.clone() if given is not None and inplace else given


_OURS = (str(Path(torch.__file__).parent), str(Path(__file__).parent.parent))


def line_outside() -> str:
    """File and line of the innermost call outside torch and this package."""
    frame = sys._getframe(2)
    while frame is not None:
        name = frame.f_code.co_filename
        if not name.startswith(_OURS):
            return f"{name}:{frame.f_lineno}"
        frame = frame.f_back  # type: ignore[assignment]
    return ""
