"""One observed pass of a model: what draws, found by module hooks, a function mode, and the states
of the generators.
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
from ..nn.thinned_branches import BranchEnd
from .costs import MULTIPLYING, flops
from .draws import DRAWING, DROPOUTS, classify_draw, function_name
from .model_access import check_not_scripted, force_eager
from .model_call import ModelCall
from .preserve import restoring
from .tensor_values import count_dropped, count_zeros, shape_of


@dataclass(kw_only=True)
class SiteRecord:
    """What one call site drew in one pass.

    ``flops_before``, ``parameters_before``: the multiplications and parameters of the pass up to
    the first call. ``dropped`` of ``elements`` nonzero elements became 0 in ``calls`` calls.
    """

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
    dropped: int = 0
    elements: int = 0

    @property
    def place(self) -> tuple[str, str, str, str]:
        """What identifies the site: the module's name, the kind, the function, file and line."""
        return self.name, self.kind, self.function, self.where


class Observer:
    """Callbacks of an observed pass, for what a caller records itself; these do nothing."""

    def before_draw(self, arguments: Any) -> Any:
        """Called before a function that draws, with its arguments; :meth:`after_draw` receives the
        result as ``token``.
        """

    def after_draw(self, site: SiteRecord, x: Any, result: Any, token: Any) -> None:
        """Called when a site has drawn for the input ``x``; both tensors are None where unknown."""

    def draw_switched_off(
        self, name: str, function: str, where: str, rate: float, module: nn.Module | None
    ) -> None:
        """Called for a dropout function that was called with a rate, but switched off."""

    def after_call(self, name: str, func: Any, args: Any, kwargs: Any, result: Any) -> None:
        """Called after every torch function in the code of the module ``name``."""

    def before_module(self, name: str, module: nn.Module, args: Any) -> None:
        """Called before the forward of a module."""

    def after_module(self, name: str, module: nn.Module, args: Any, result: Any) -> None:
        """Called after the forward of a module."""


@dataclass
class Observation:
    """One observed pass: the sites that drew, in order, and the cost of the pass.

    ``draws``: how many calls drew. ``parameters``: of the modules that have run, each counted once.
    ``stack``: the modules that are running, with their names, the innermost last.
    """

    observer: Observer = field(default_factory=Observer)

    sites: dict[tuple[str, str, str, str], SiteRecord] = field(default_factory=dict)
    draws: int = 0
    flops: float = 0.0
    parameters: int = 0
    stack: list[tuple[str, nn.Module]] = field(default_factory=list)
    output: Any = None
    _counted: set[int] = field(default_factory=set)

    def record(
        self,
        kind: str,
        function: str,
        rate: float | None,
        shape: Any,
        dropped: int = 0,
        elements: int = 0,
        x: Any = None,
        result: Any = None,
        token: Any = None,
    ) -> None:
        """Record one call that drew, at the site of the innermost running module."""
        name, module = self.stack[-1] if self.stack else ("", None)
        new = SiteRecord(
            name=name,
            module=type(module).__name__,
            kind=kind,
            function=function,
            where=line_outside(),
            rate=rate,
            shape=None if shape is None else tuple(shape),
            flops_before=self.flops,
            parameters_before=self.parameters,
        )
        self.draws += 1
        site = self.sites.setdefault(new.place, new)
        site.calls += 1
        site.dropped += dropped
        site.elements += elements
        self.observer.after_draw(site, x, result, token)

    def take(self) -> Observation:
        """Return what was recorded so far, and start the next pass with an empty record."""
        recorded, root = copy.copy(self), self.stack[:1]
        self.__init__(self.observer)  # type: ignore[misc]
        self.stack = root
        return recorded

    def leave_module(self) -> None:
        """Remove the innermost module from the stack, and count its parameters once."""
        _, module = self.stack.pop()
        for p in module._parameters.values():
            if p is not None and id(p) not in self._counted:
                self._counted.add(id(p))
                self.parameters += p.numel()


@contextmanager
def preserve_state(model: nn.Module, inputs: Any) -> Iterator[None]:
    """Restore the model, its inputs and generators on exit; passes within compute no gradients.

    Raises :class:`thinned.InputError` for a scripted model, and for a model with lazy modules that
    have not run, because a pass would create their parameters.
    """
    check_not_scripted(model)
    for path, tensor in (*model.named_parameters(), *model.named_buffers()):
        if is_lazy(tensor):
            raise InputError(
                f"{path} is lazy and has no values yet; run the model once, then observe it"
            )
    with restoring(model, inputs), torch.no_grad():
        yield


def observe(model: nn.Module, call: ModelCall, observer: Observer | None = None) -> Observation:
    """Run ``model`` once and return what it drew."""
    with observing(model, observer) as observation:
        observation.output = call(model)
    return observation


@contextmanager
def observing(model: nn.Module, observer: Observer | None = None) -> Iterator[Observation]:
    """Observe everything that ``model`` does within, backward passes that recompute included."""
    # the model is the outermost module also where a function runs it, not its own call
    observation = Observation(observer or Observer(), stack=[("", model)])
    with ExitStack() as stack:
        _ModuleHooks(observation, model).register(stack)
        stack.enter_context(_python_draws(observation))
        stack.enter_context(_FunctionObserver(observation))
        force_eager(stack)
        yield observation


class _ModuleHooks:
    """Hooks on every module: they keep the stack, and record draws that no function mode sees.

    The layers of thinned draw in operators of their own, so the hooks compare their input with
    their result. For modules of other libraries the hooks compare the generators before and after:
    a generator that moved while no draw was recorded makes an "unseen" site. One pair of bound
    methods serves all modules, because thousands of closures would keep the garbage collector busy.
    """

    def __init__(self, observation: Observation, model: nn.Module) -> None:
        self.observation = observation
        self.names = {module: name for name, module in model.named_modules()}
        self.started: list[Any] = []  # (draws, states of the generators, token) per running module

    def register(self, stack: ExitStack) -> None:
        """Register the hooks; leaving ``stack`` removes them, also after an interrupt in here."""
        stack.callback(self.remove)
        for module in self.names:
            module.register_forward_pre_hook(self.before, with_kwargs=True)
            module.register_forward_hook(self.after, with_kwargs=True, always_call=True)

    def remove(self) -> None:
        """Remove the hooks that are registered."""
        for module in self.names:
            for kind, hook in (("forward_pre", self.before), ("forward", self.after)):
                hooks = getattr(module, f"_{kind}_hooks")
                for number in [n for n, h in hooks.items() if h == hook]:
                    del hooks[number]
                    for flag in ("with_kwargs", "always_called"):
                        getattr(module, f"_{kind}_hooks_{flag}", {}).pop(number, None)

    def before(self, module: nn.Module, args: Any, kwargs: Any) -> None:
        """Push the module, and record the states of the generators."""
        observation, name = self.observation, self.names[module]
        observation.stack.append((name, module))
        observer = observation.observer
        token = observer.before_draw((args, kwargs)) if isinstance(module, DropoutModule) else None
        # torch's own modules draw by functions that the mode sees. They need no comparison of
        # generators, which is slow.
        torchs = type(module).__module__.startswith("torch.nn.")
        self.started.append((observation.draws, None if torchs else generator_states(), token))
        observer.before_module(name, module, args)

    def after(self, module: nn.Module, args: Any, kwargs: Any, result: Any) -> None:
        """Record what the module drew, and pop it. ``result`` is None where the pass raised."""
        observation = self.observation
        draws, states, token = self.started.pop()
        if isinstance(module, DropoutModule):
            if module.mode() == "sample" and getattr(module, "p", True) and result is not None:
                x, out = first_tensor(args), first_tensor(result)
                # Units and examples that thinning left out have no element that became 0.
                forward = module.__dict__.get("forward")
                cut = None
                if isinstance(module, Thinned):
                    cut = module.dropped_units()
                elif isinstance(forward, BranchEnd):
                    cut = forward.branch.dropped
                dropped, elements = cut or count_dropped(x, out)
                rate = getattr(module, "p", None)
                observation.record(
                    "dropout",
                    type(module).__name__,
                    rate,
                    shape_of(x),
                    dropped,
                    elements,
                    x,
                    out,
                    token,
                )
        elif states is not None and draws == observation.draws and states != generator_states():
            x = first_tensor(args)
            observation.record(
                "unseen", type(module).__name__, None, shape_of(x), x=x, result=first_tensor(result)
            )
        observation.observer.after_module(self.names[module], module, args, result)
        observation.leave_module()


_MT19937 = 625 * 4  # bytes: 624 random 32-bit words and the position among them


def generator_states() -> tuple[bytes, bytes]:
    """Return the states of the global generators of torch and NumPy, to be compared."""
    numpy = sys.modules.get("numpy.random")
    numpy_state = b""
    if numpy is not None:
        generator = numpy.get_bit_generator()
        if type(generator).__name__ == "MT19937":
            # the content of get_state, read a hundred times faster
            numpy_state = ctypes.string_at(generator.ctypes.state_address, _MT19937)
        else:
            numpy_state = repr(generator.state).encode()
    return torch.get_rng_state().numpy().tobytes(), numpy_state


def first_tensor(value: Any) -> Tensor | None:
    """Return the first tensor in nested containers."""
    if value is None or isinstance(value, Tensor):
        return value
    if type(value) in (tuple, list):
        return next((x for x in map(first_tensor, value) if x is not None), None)
    found = torch.utils._pytree.tree_leaves(value)
    return next((t for t in found if isinstance(t, Tensor)), None)


_PYTHON_DRAWS = (
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


@contextmanager
def _python_draws(observation: Observation) -> Iterator[None]:
    """Record draws of Python's ``random``, by which some libraries skip layers."""
    originals = {name: getattr(random, name) for name in _PYTHON_DRAWS}

    def recorded(name: str) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            result = originals[name](*args, **kwargs)
            observation.record("python", f"random.{name}", None, None, result=result)
            return result

        return call

    try:
        for name in _PYTHON_DRAWS:
            setattr(random, name, recorded(name))
        yield
    finally:
        for name, original in originals.items():
            setattr(random, name, original)


_OBSERVED = DRAWING | MULTIPLYING


class _FunctionObserver(TorchFunctionMode):
    """Records the calls of torch functions that draw or multiply, with their arguments."""

    def __init__(self, observation: Observation) -> None:
        super().__init__()
        self.observation = observation
        # an observer that does not override after_call is spared the other functions
        self.all_functions = type(observation.observer).after_call is not Observer.after_call

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if not self.all_functions and func not in _OBSERVED:
            return func(*args, **kwargs)
        observation = self.observation
        observer = observation.observer
        name, module = observation.stack[-1] if observation.stack else ("", None)
        drawn = classify_draw(func, args, kwargs)
        if drawn is not None and _is_ours(module):  # the module hooks record our layers as a whole
            drawn = None
        kind, rate = drawn or ("", None)
        x = _input_before(args, kwargs) if kind else None
        token = observer.before_draw((args, kwargs)) if kind else None
        result = func(*args, **kwargs)
        if kind:
            dropped, elements = 0, 0
            if kind == "mask":
                dropped, elements = count_zeros(result)
            elif kind == "dropout":
                dropped, elements = count_dropped(x, first_tensor(result))
            shape = shape_of(first_tensor(result if kind == "noise" else (args, kwargs)))
            function = function_name(func)
            observation.record(kind, function, rate, shape, dropped, elements, x, result, token)
        elif rate and func in DROPOUTS:
            observer.draw_switched_off(name, function_name(func), line_outside(), rate, module)
        observer.after_call(name, func, args, kwargs, result)
        observation.flops += flops(func, args, kwargs, result)
        return result


def _is_ours(module: nn.Module | None) -> bool:
    return isinstance(module, DropoutModule) or (
        module is not None and isinstance(module.__dict__.get("forward"), Shrinking)
    )


def _input_before(args: Any, kwargs: Any) -> Tensor | None:
    """Return the input; a copy where the function may write its result over it."""
    x = first_tensor((args, kwargs))
    inplace = kwargs.get("inplace", any(a is True for a in args[3:4]))
    return x.clone() if x is not None and inplace else x


_INNER_FILES = (str(Path(torch.__file__).parent), str(Path(__file__).parent.parent))


def line_outside() -> str:
    """Return file and line of the innermost call that is in neither torch nor this package."""
    frame = sys._getframe(2)
    while frame is not None:
        name = frame.f_code.co_filename
        if not name.startswith(_INNER_FILES):
            return f"{name}:{frame.f_lineno}"
        frame = frame.f_back  # type: ignore[assignment]
    return ""
