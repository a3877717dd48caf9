"""What one pass of a check writes down, beyond what ``find`` does."""

from __future__ import annotations

import hashlib
import math
import sys
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...nn.module import DropoutModule
from ...surgery.observe import Observer, Seen, line_outside
from ...surgery.rates import RATES
from .preserve import copied, floats

Place = tuple[str, str, str, str]  # module's name, kind, function, file and line
DROPS = ("dropout", "attention", "recurrent", "mask")
_SCALES = {"mul": 1, "__mul__": 1, "__rmul__": 1, "mul_": 1, "__imul__": 1, "multiply": 1,
           "div": -1, "__truediv__": -1, "div_": -1, "__itruediv__": -1, "true_divide": -1, "divide": -1}  # fmt: skip


@dataclass
class Drawn:
    """One call of a site."""

    place: Place
    rate: float | None
    shape: tuple[int, ...] | None
    state: str  # of the global generators before the draw
    mask: str  # of what fell, or of the values drawn; "" where it cannot be seen
    fell: int  # cells, not elements: a channel of Dropout2d is one
    cells: int
    again: bool  # inside a backward pass, with gradients on: a pass that is recomputed
    host: Any  # the layer, where it is one of ours
    stray: int  # id of a dropout layer that the model does not know; 0 where there is none
    after_selu: bool
    given: str  # of the input

    @property
    def name(self) -> str:
        return self.place[0]


@dataclass
class Norm:
    """What batch normalisation was given, per channel, in one call."""

    mean: Tensor
    var: Tensor
    draws: int
    direct: float | None  # the rate, where its input is what a dropout returned


@dataclass
class PassRecord(Observer):
    """One pass."""

    model: nn.Module
    keep_inputs: bool = False
    draws: list[Drawn] = field(default_factory=list)
    idles: list[tuple[str, str, str, float]] = field(default_factory=list)
    factors: list[tuple[str, str, float, tuple[int, ...]]] = field(default_factory=list)
    norms: dict[str, list[Norm]] = field(default_factory=dict)
    through: dict[str, list[tuple[str, str]]] = field(
        default_factory=dict
    )  # drop-like modules: input, output
    modules: set[str] = field(default_factory=set)
    inputs: dict[str, tuple[Any, Any]] = field(default_factory=dict)
    selu: bool = False
    output: Any = None
    last: tuple[Drawn, Tensor] | None = None
    _selus: list[Tensor] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.known = {id(m) for m in self.model.modules()}
        self.by_name = dict(self.model.named_modules())

    def before_draw(self, given: Any) -> tuple[str, bool]:
        tensors = floats(given)
        return state(next(iter(tensors), None)), any(
            t is s for t in tensors[:1] for s in self._selus
        )

    def drawn(self, one: Seen, given: Any, result: Any, before: Any) -> None:
        first = next(iter(floats(result)), None)
        fell, cells = _cells(one, given, first)
        before = before or ("", False)
        made = Drawn(
            one.place, one.rate, None if given is None else tuple(given.shape), before[0], _mask(one, given, result),
            fell, cells, recomputing(), self._host(one), self._stray(one), before[1],
            digest(given) if given is not None else "",
        )  # fmt: skip
        self.draws.append(made)
        if one.kind == "dropout" and first is not None:
            self.last = (made, first)

    def _host(self, one: Seen) -> DropoutModule | None:
        module = self.by_name.get(one.name)
        return module if isinstance(module, DropoutModule) else None

    def _stray(self, one: Seen) -> int:
        if not one.function.startswith(("F.", "torch.")) or one.kind != "dropout":
            return 0
        frame = sys._getframe(1)
        while frame is not None:
            if frame.f_code.co_filename == nn.modules.dropout.__file__:
                owner = frame.f_locals.get("self")
                return 0 if id(owner) in self.known else id(owner)
            frame = frame.f_back  # type: ignore[assignment]
        return 0

    def idle(
        self, name: str, function: str, where: str, rate: float, module: nn.Module | None
    ) -> None:
        if module is not None and module.training:
            self.idles.append((name, function, where, rate))

    def called(self, name: str, func: Any, args: Any, kwargs: Any, result: Any) -> None:
        if func in (F.selu, torch.selu, torch.selu_, F.selu_):
            self.selu = True
            self._selus.append(result)
        sign = _SCALES.get(getattr(func, "__name__", ""))
        if sign and len(args) == 2:
            tensors = [a for a in args if isinstance(a, Tensor) and a.dim()]
            numbers = [
                a
                for a in args
                if isinstance(a, (int, float)) or (isinstance(a, Tensor) and not a.dim())
            ]
            if len(tensors) == 1 and len(numbers) == 1 and float(numbers[0]) != 0:
                self.factors.append(
                    (name, line_outside(), float(numbers[0]) ** sign, tuple(tensors[0].shape))
                )

    def enters(self, name: str, module: nn.Module, args: Any) -> None:
        self.modules.add(name)
        given = next(iter(floats(args)), None)
        if given is None:
            return
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            axes = [a for a in range(given.dim()) if a != 1]
            x = given.detach().double()
            direct = self.last[0].rate if self.last is not None and self.last[1] is given else None
            draws = sum(
                d.place[1] in DROPS or drop_like(self.by_name.get(d.name)) for d in self.draws
            )
            self.norms.setdefault(name, []).append(
                Norm(x.mean(axes), x.var(axes, correction=0), draws, direct)
            )
        if self.keep_inputs and name not in self.inputs and replayable(module):
            self.inputs[name] = copied(args), {}

    def leaves(self, name: str, module: nn.Module, args: Any, result: Any) -> None:
        if drop_like(module) and not isinstance(module, DropoutModule):
            self.through.setdefault(name, []).append((digest(args), digest(result)))

    def of(self, again: bool = False) -> dict[Place, list[Drawn]]:
        """The draws by their places."""
        found: dict[Place, list[Drawn]] = {}
        for one in self.draws:
            if one.again == again:
                found.setdefault(one.place, []).append(one)
        return found


def recomputing() -> bool:
    """Is a forward pass made within a backward pass? A backward function that draws for itself has
    gradients off.
    """
    return torch._C._current_graph_task_id() != -1 and torch.is_grad_enabled()


def rate_of(module: nn.Module | None) -> tuple[str, float] | None:
    """(the attribute, the rate of dropping) of a layer; what is called a keep-probability is turned
    round.
    """
    if module is None:
        return None
    for name in (*RATES, "prob", "keep_prob", "keep_rate", "keep_p", "p_keep", "retain_prob"):
        value = getattr(module, name, None)
        if isinstance(value, (int, float)) and not isinstance(value, bool) and 0 < value < 1:
            return name, 1.0 - value if keeps(name) else float(value)
    return None


def keeps(name: str) -> bool:
    """Does this name stand for the probability of keeping?"""
    return "keep" in name or "retain" in name


def drop_like(module: nn.Module | None) -> bool:
    """A layer that says that it drops: by its class's name, or by an attribute that names a rate of
    dropping.
    """
    if module is None:
        return False
    named = "drop" in type(module).__name__.lower()
    return named or any(
        "drop" in n and isinstance(v, float) and 0 < v < 1 for n, v in vars(module).items()
    )


def replayable(module: nn.Module) -> bool:
    """May the layer be run alone to measure what it drops? It has a rate, says that it drops, and
    owns no parameters.
    """
    if (
        isinstance(module, DropoutModule)
        or next(module.parameters(), None) is not None
        or rate_of(module) is None
    ):
        return False
    return drop_like(module)


def state(given: Tensor | None) -> str:
    """A digest of where torch's generator stands, that of the tensor's device."""
    if given is None or given.device.type in ("cpu", "meta"):
        at = torch.get_rng_state()
    else:
        at = torch.get_device_module(given.device).get_rng_state(given.device)
    return hashlib.blake2b(at.numpy().tobytes(), digest_size=12).hexdigest()


def digest(given: Any) -> str:
    """A digest of all values in tensors, bit by bit."""
    made = hashlib.blake2b(digest_size=12)
    for x in floats(given) if not isinstance(given, Tensor) else [given]:
        x = x.detach()
        x = torch.view_as_real(x.resolve_conj()) if x.is_complex() else x
        made.update(str(tuple(x.shape)).encode())
        made.update(x.cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return made.hexdigest()


def _mask(one: Seen, given: Any, result: Any) -> str:
    if one.kind == "python":
        return repr(result)
    if one.kind in ("mask", "noise"):
        return digest(result)
    first = next(iter(floats(result)), None)
    if one.kind != "dropout" or given is None or first is None or first.shape != given.shape:
        return ""
    return digest((given != 0) & (first == 0)) if one.fell else digest(first)


def _cells(one: Seen, given: Any, result: Tensor | None) -> tuple[int, int]:
    """(how many independent cells fell, of how many): those of torch's functions, and of raw masks."""
    if result is None:
        return 0, 0
    if one.kind == "mask":
        return int((result == 0).sum()), result.numel()
    if (
        one.kind != "dropout"
        or given is None
        or not one.function.startswith(("F.", "torch."))
        or "alpha" in one.function
    ):
        return 0, 0
    was, fell = given != 0, (given != 0) & (result == 0)
    if (
        "1d" in one.function
        or "2d" in one.function
        or "3d" in one.function
        or "feature" in one.function
    ):
        lead = given.dim() - 1 if "1d" in one.function and given.dim() == 2 else min(2, given.dim())
        lead = (
            1
            if ("1d" in one.function and given.dim() == 2)
            or ("3d" in one.function and given.dim() == 4)
            else lead
        )
        was, fell = was.flatten(lead).any(-1), fell.flatten(lead).any(-1)
    return int(fell.sum()), int(was.sum())


def divergence(share: float, rate: float) -> float:
    """KL(share || rate) of two coins, in nats."""
    total = 0.0
    for a, b in ((share, rate), (1.0 - share, 1.0 - rate)):
        if a > 0:
            total += a * math.log(a / b) if b > 0 else math.inf
    return total


def is_off(share: float, rate: float, n: int, alpha: float) -> bool:
    """Chernoff's bound, exact for n independent values in [0, 1] of mean ``rate``: is their mean
    too far for chance?
    """
    return n > 0 and n * divergence(share, rate) > math.log(2.0 / alpha)
