"""Where a model draws: its own dropout layers, functional dropout, attention, recurrent networks, raw masks."""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from .._errors import InputError
from ..nn.host import Host
from . import page
from .costs import flops
from .draws import draw, name_of


@dataclass(frozen=True)
class Site:
    """A place where a model draws.

    ``name``: the qualified name of the module in whose code it stands, ``module`` its class. ``function``: what draws.
    ``where``: file and line of the call, in code that is neither torch's nor ours. ``kind``: "dropout", "attention",
    "recurrent", "mask" (a raw Bernoulli draw), "noise" (uniform, normal and other draws), "python" (``random``), or "unseen":
    the generator moved, and nothing that can be read says why. ``rate``: the probability of dropping that it is called
    with, ``measured`` the share that fell in this run; None where there is none. ``in_train``, ``in_eval``: does it draw there?
    ``shape``: of what is drawn for. ``calls``: in one pass. ``parameters_behind``, ``flops_behind``: the share of the model's
    parameters and of its multiplications that come after it. Without inputs what is measured is None, and ``in_train`` is
    what the layer would do.
    """

    name: str
    module: str
    kind: str
    function: str
    where: str
    rate: float | None
    measured: float | None
    in_train: bool
    in_eval: bool
    shape: tuple[int, ...] | None
    calls: int
    parameters_behind: float | None
    flops_behind: float | None


class Sites(tuple[Site, ...]):
    """All sites of a model, in the order of their first draw. Printed, it is a table; :meth:`save` makes a page of it."""

    __slots__ = ()

    def to_html(self, title: str = "Dropout in this model") -> str:
        """A page, whole in one file and without scripts: the model as a tree, its rates against what fell, modes, places."""
        return page.html(self, title)

    def save(self, path: str | Path, title: str = "Dropout in this model") -> None:
        """Write :meth:`to_html` into a file."""
        Path(path).write_text(self.to_html(title), encoding="utf-8")

    def plot(self, path: str | Path, title: str = "Dropout in this model") -> None:
        """Write a picture, one bar a site, into a file that ends in ``.svg``."""
        if Path(path).suffix.lower() != ".svg":
            raise InputError(f"the picture is SVG, so its file ends in .svg, but got {str(path)!r}")
        Path(path).write_text(page.svg(self, title), encoding="utf-8")

    def __str__(self) -> str:
        if not self:
            return "no randomness found"
        head = ("name", "kind", "draws by", "rate", "measured", "train", "eval", "shape", "behind", "where")
        rows = [head, *(_shown(site) for site in self)]
        widths = [max(len(row[i]) for row in rows) for i in range(len(head))]
        return "\n".join("  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in rows)


def _shown(site: Site) -> tuple[str, ...]:
    def share(x: float | None) -> str:
        return "" if x is None else f"{x:.3g}"

    drawn = {True: "draws", False: "quiet"}
    shape = "" if site.shape is None else "x".join(map(str, site.shape))
    behind = "" if site.flops_behind is None else f"{site.flops_behind:.0%}"
    name = site.name or "(the model)"
    return (
        name, site.kind, site.function, share(site.rate), share(site.measured), drawn[site.in_train], drawn[site.in_eval],
        shape, behind, site.where,
    )  # fmt: skip


def find(model: nn.Module, *inputs: Any, **named: Any) -> Sites:
    """Every place where ``model`` draws. With its inputs it is run, once in training and once in evaluation, and observed.

    Seen are calls: layers of torch, of ours and of anybody, ``F.dropout`` and its like, ``scaled_dot_product_attention``,
    ``nn.MultiheadAttention``, LSTM and GRU, raw draws of torch, and ``random`` of Python; by what they do, not by their
    names. Without inputs the layers are read instead, so that functional calls stay unseen.

    The model is left as it was: modes, buffers (of batch normalisation too) and the generators of torch and Python; no
    gradients are made. A compiled model is read through. Raises :class:`thinned.InputError` for a scripted one, which
    cannot be observed, and passes on what the model raises.
    """
    model = getattr(model, "_orig_mod", model)  # what torch.compile wraps
    if any(isinstance(m, torch.jit.ScriptModule) for m in model.modules()):
        raise InputError("a scripted model cannot be observed; pass the model that it was made from")
    if not inputs and not named:
        return Sites(_read(model))
    with left_as_it_was(model):
        runs = []
        for training in (True, False):
            model.train(training)
            runs.append(_observe(model, inputs, named))
    return Sites(_merged(*runs))


@contextmanager
def left_as_it_was(model: nn.Module) -> Iterator[None]:
    modes = [(m, m.training) for m in model.modules()]
    buffers = [(b, b.detach().clone()) for b in model.buffers()]
    state = random.getstate()
    try:
        with torch.random.fork_rng(), torch.no_grad():
            yield
    finally:
        random.setstate(state)
        for module, training in modes:
            module.training = training
        with torch.no_grad():
            for buffer, values in buffers:
                buffer.copy_(values)


@dataclass
class _Seen:
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


@dataclass
class _Run:
    """One pass: what drew, what was called, what it cost."""

    seen: dict[tuple[str, str, str, str], _Seen] = field(default_factory=dict)
    draws: int = 0
    flops: float = 0.0
    called: set[int] = field(default_factory=set)
    parameters: int = 0
    stack: list[tuple[str, nn.Module]] = field(default_factory=list)

    def note(self, kind: str, function: str, rate: float | None, shape: Any, fell: int = 0, of: int = 0) -> None:
        name, module = self.stack[-1] if self.stack else ("", None)
        new = _Seen(
            name, type(module).__name__, kind, function, line_outside(), rate, None if shape is None else tuple(shape),
            self.flops, self.parameters,
        )  # fmt: skip
        self.draws += 1
        one = self.seen.setdefault(new.place, new)
        one.calls, one.fell, one.of = one.calls + 1, one.fell + fell, one.of + of

    def enter(self, name: str, module: nn.Module) -> None:
        self.stack.append((name, module))

    def leave(self) -> None:
        _, module = self.stack.pop()
        for p in module._parameters.values():
            if p is not None and id(p) not in self.called:
                self.called.add(id(p))
                self.parameters += p.numel()


def _observe(model: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any]) -> _Run:
    run = _Run()
    with ExitStack() as stack:
        for name, module in model.named_modules():
            _hook(stack, run, name, module)
        stack.enter_context(_python_random(run))
        stack.enter_context(_Functions(run))
        model(*inputs, **named)
    return run


def _hook(stack: ExitStack, run: _Run, name: str, module: nn.Module) -> None:
    """Know when ``module`` runs; of our own layers also what they drop, of everybody's whether the generator moved unseen."""
    started: list[Any] = []
    known = type(module).__module__.startswith("torch.nn.")  # whose draws are all functions that are seen

    def before(_: Any, args: Any, kwargs: Any) -> None:
        run.enter(name, module)
        started.append((run.draws, None if known else torch.get_rng_state()))

    def after(_: Any, args: Any, kwargs: Any, result: Any) -> None:
        draws, state = started.pop()
        if isinstance(module, Host):
            if module.mode() == "sample" and getattr(module, "p", True):
                given, out = _first(args), _first(result)
                fell, of = _fell(given, out)
                run.note("dropout", type(module).__name__, getattr(module, "p", None), _shape(given), fell, of)
        elif state is not None and draws == run.draws and not torch.equal(state, torch.get_rng_state()):
            run.note("unseen", type(module).__name__, None, _shape(_first(args)))
        run.leave()

    for handle in (
        module.register_forward_pre_hook(before, with_kwargs=True),
        module.register_forward_hook(after, with_kwargs=True, always_call=False),
    ):
        stack.callback(handle.remove)


def _first(given: Any) -> Tensor | None:
    found = torch.utils._pytree.tree_leaves(given)
    return next((t for t in found if isinstance(t, Tensor)), None)


def _shape(x: Tensor | None) -> Any:
    return None if x is None else x.shape


def _fell(given: Tensor | None, result: Tensor | None) -> tuple[int, int]:
    """(how many elements became 0, of how many that were not)."""
    if given is None or result is None or given.shape != result.shape:
        return 0, 0
    was = given != 0
    return int((was & (result == 0)).sum()), int(was.sum())


@contextmanager
def _python_random(run: _Run) -> Iterator[None]:
    """See draws of Python's ``random``, which some libraries drop layers by."""
    names = ("random", "uniform", "randint", "choice", "choices", "sample", "shuffle", "gauss", "betavariate")
    originals = {name: getattr(random, name) for name in names}

    def seen(name: str) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            run.note("python", f"random.{name}", None, None)
            return originals[name](*args, **kwargs)

        return call

    try:
        for name in names:
            setattr(random, name, seen(name))
        yield
    finally:
        for name, original in originals.items():
            setattr(random, name, original)


class _Functions(TorchFunctionMode):
    """See torch's functions as they are called, with their arguments."""

    def __init__(self, run: _Run) -> None:
        super().__init__()
        self.run = run

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        within = self.run.stack[-1][1] if self.run.stack else None
        drawn = None if isinstance(within, Host) else draw(func, args, kwargs)
        result = func(*args, **kwargs)
        if drawn is not None and drawn[0]:
            kind, rate = drawn
            fell, of = 0, 0
            if kind == "mask":
                fell, of = int((result == 0).sum()), result.numel()
            elif kind == "dropout":
                fell, of = _fell(_first((args, kwargs)), _first(result))
            self.run.note(kind, name_of(func), rate, _shape(_first(result if kind == "noise" else (args, kwargs))), fell, of)
        self.run.flops += flops(func, args, kwargs, result)
        return result


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


def _merged(train: _Run, evaluation: _Run) -> Iterator[Site]:
    """The sites of both passes; what both saw is one."""
    for place in [*train.seen, *(p for p in evaluation.seen if p not in train.seen)]:
        one, run = (train.seen[place], train) if place in train.seen else (evaluation.seen[place], evaluation)
        yield Site(
            one.name, one.module, one.kind, one.function, one.where, one.rate, one.fell / one.of if one.of else None,
            place in train.seen, place in evaluation.seen, one.shape, one.calls,
            1.0 - one.parameters_before / run.parameters if run.parameters else None,
            1.0 - one.flops_before / run.flops if run.flops else None,
        )  # fmt: skip


_RATES = ("p", "drop_prob", "drop_rate", "dropout_p", "dropout", "rate", "prob", "drop")


def _read(model: nn.Module) -> Iterator[Site]:
    """The layers that hold a rate: hosts, dropout by class or name, attention and recurrent networks."""
    for name, module in model.named_modules():
        looks = isinstance(module, (Host, nn.modules.dropout._DropoutNd)) or "drop" in type(module).__name__.lower()
        kind = "dropout" if looks else "recurrent" if isinstance(module, nn.RNNBase) else ""
        kind = "attention" if isinstance(module, nn.MultiheadAttention) else kind
        if not kind:
            continue
        values = (getattr(module, a, None) for a in _RATES)
        rate = next((float(v) for v in values if isinstance(v, (int, float)) and not isinstance(v, bool)), None)
        if kind != "dropout" and not rate:
            continue
        draws = rate != 0 and (kind != "recurrent" or module.num_layers > 1)
        yield Site(name, type(module).__name__, kind, type(module).__name__, "", rate, None, draws, False, None, 0, None, None)
