"""What a check records of one pass, in addition to what :func:`thinned.find` records."""

from __future__ import annotations

import hashlib
import math
import sys
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...nn import module as our_module
from ...nn.module import DropoutModule
from ...surgery.observe import Observer, SiteRecord, line_outside
from ...surgery.rates import RATES
from ...surgery.tensor_values import (
    aligned_parts,
    count_dropped,
    count_zeros,
    is_dense,
    kind_of,
    shape_of,
    value_parts,
)
from .preserve import copy_tensors, float_tensors

Place = tuple[str, str, str, str]  # name of the module, kind, function, file and line
DROPOUT_KINDS = ("dropout", "attention", "recurrent", "mask")
_KEEP_RATES = ("keep_prob", "keep_rate", "keep_p", "p_keep", "retain_prob")
_FACTOR_EXPONENTS = {
    **dict.fromkeys(("mul", "__mul__", "__rmul__", "mul_", "__imul__", "multiply"), 1),
    **dict.fromkeys(("div", "__truediv__", "div_", "__itruediv__", "true_divide", "divide"), -1),
}

LOSSES: dict[Any, str] = {  # what a model with this loss, a function or a module, is for
    F.cross_entropy: "classification",
    F.nll_loss: "classification",
    F.binary_cross_entropy: "classification",
    F.binary_cross_entropy_with_logits: "classification",
    F.mse_loss: "regression",
    F.l1_loss: "regression",
    F.smooth_l1_loss: "regression",
    F.huber_loss: "regression",
    F.gaussian_nll_loss: "regression",
    nn.CrossEntropyLoss: "classification",
    nn.NLLLoss: "classification",
    nn.BCELoss: "classification",
    nn.BCEWithLogitsLoss: "classification",
    nn.MSELoss: "regression",
    nn.L1Loss: "regression",
    nn.SmoothL1Loss: "regression",
    nn.HuberLoss: "regression",
    nn.GaussianNLLLoss: "regression",
}
_SOFTMAXES = {
    F.softmax,
    F.log_softmax,
    torch.softmax,
    torch.log_softmax,
    Tensor.softmax,
    Tensor.log_softmax,
}


@dataclass(kw_only=True)
class DrawRecord:
    """One call that drew.

    ``state``: digest of the global generator before the draw. ``mask``: digest of the dropped
    elements, or of the drawn values; "" where it is unknown. ``entries``: the number of independent
    mask entries (a channel of Dropout2d is one), of which ``dropped`` were dropped; 0 where it is
    unknown. ``recomputed``: drawn in a forward pass that the backward pass recomputes. ``layer``:
    the layer of :mod:`thinned.nn` that drew. ``unregistered``: the id of a dropout layer that is
    not a submodule of the model, or 0. ``after_selu``: the input is the output of SELU.
    """

    place: Place
    rate: float | None
    shape: tuple[int, ...] | None
    state: str
    mask: str
    dropped: int
    entries: int
    recomputed: bool
    layer: DropoutModule | None
    unregistered: int
    after_selu: bool

    @property
    def name(self) -> str:
        return self.place[0]

    @property
    def kind(self) -> str:
        return self.place[1]

    @property
    def function(self) -> str:
        return self.place[2]

    @property
    def spec(self) -> Any:
        """The :class:`thinned.Drop` of the layer, or None."""
        return getattr(self.layer, "base_spec", None)


@dataclass
class NormInput:
    """Moments of the input of batch normalization in one call, per channel.

    ``draws``: the number of dropout draws before it. ``direct_rate``: the rate of the dropout that
    returned the input, or None.
    """

    mean: Tensor
    var: Tensor
    draws: int
    direct_rate: float | None


@dataclass
class PassRecord(Observer):
    """What one pass did.

    ``digests``: the digests of input and output of modules that look like dropout, by name.
    ``factors``: multiplications of a tensor by a number: (module, file and line, factor, shape).
    ``last_dropout``: the last dropout that drew, with its output. ``losses``: the calls of loss
    functions, as what they are for and their input. ``last_softmax``: the result of the last one.
    """

    model: nn.Module
    keep_inputs: bool = False
    draws: list[DrawRecord] = field(default_factory=list)
    switched_off: list[tuple[str, str, str, float]] = field(default_factory=list)
    factors: list[tuple[str, str, float, tuple[int, ...]]] = field(default_factory=list)
    norms: dict[str, list[NormInput]] = field(default_factory=dict)
    digests: dict[str, list[tuple[str, str]]] = field(default_factory=dict)
    modules: set[str] = field(default_factory=set)
    inputs: dict[str, tuple[Any, Any]] = field(default_factory=dict)
    selu_ran: bool = False
    output: Any = None
    last_dropout: tuple[DrawRecord, Tensor] | None = None
    losses: list[tuple[str, Any]] = field(default_factory=list)
    last_softmax: Any = None
    _selu_outputs: list[Tensor] = field(default_factory=list)
    _unregistered: list[Any] = field(default_factory=list)  # so that no id is used twice

    def __post_init__(self) -> None:
        self.known = {id(m) for m in self.model.modules()}
        self.by_name = dict(self.model.named_modules())

    def before_draw(self, arguments: Any) -> tuple[str, bool]:
        tensors = float_tensors(arguments)[:1]
        after_selu = any(t is s for t in tensors for s in self._selu_outputs)
        return generator_state(next(iter(tensors), None)), after_selu

    def after_draw(self, site: SiteRecord, x: Any, result: Any, token: Any) -> None:
        first = next(iter(float_tensors(result)), None)
        dropped, entries = _count_entries(site, x, first)
        state, after_selu = token or ("", False)
        unregistered = _unregistered_layer(site, self.known)
        place, rate = site.place, site.rate
        if isinstance(unregistered, DropoutModule):  # seen only as a draw of torch's generator
            place = (site.name, "dropout", type(unregistered).__name__, site.where)
            rate = getattr(unregistered, "p", None)
        self._unregistered.append(unregistered)
        module = self.by_name.get(site.name)
        draw = DrawRecord(
            place=place,
            rate=rate,
            shape=shape_of(x),
            state=state,
            mask=_mask_digest(site, x, result),
            dropped=dropped,
            entries=entries,
            recomputed=recomputing(),
            layer=module if isinstance(module, DropoutModule) else None,
            unregistered=0 if unregistered is None else id(unregistered),
            after_selu=after_selu,
        )
        self.draws.append(draw)
        if site.kind == "dropout" and first is not None:
            self.last_dropout = (draw, first)

    def draw_switched_off(
        self, name: str, function: str, where: str, rate: float, module: nn.Module | None
    ) -> None:
        if module is not None and module.training:
            self.switched_off.append((name, function, where, rate))

    def after_call(self, name: str, func: Any, args: Any, kwargs: Any, result: Any) -> None:
        if func in (F.selu, torch.selu, torch.selu_, F.selu_):
            self.selu_ran = True
            self._selu_outputs.append(result)
        if func in LOSSES and (tensors := [*args[:1], kwargs.get("input")]):
            self.losses.append((LOSSES[func], next(t for t in tensors if t is not None)))
        elif func in _SOFTMAXES:
            self.last_softmax = result
        exponent = _FACTOR_EXPONENTS.get(getattr(func, "__name__", ""))
        if exponent and len(args) == 2:
            tensors = [a for a in args if isinstance(a, Tensor) and a.dim()]
            numbers = [a for a in args if _is_number(a)]
            if len(tensors) == 1 and len(numbers) == 1 and float(numbers[0]) != 0:
                factor = float(numbers[0]) ** exponent
                shape = shape_of(tensors[0]) or ()
                self.factors.append((name, line_outside(), factor, shape))

    def before_module(self, name: str, module: nn.Module, args: Any) -> None:
        self.modules.add(name)
        x = next(iter(float_tensors(args)), None)
        if x is None:
            return
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and is_dense(x):
            self.norms.setdefault(name, []).append(self._norm_input(x))
        if self.keep_inputs and name not in self.inputs and replayable(module):
            self.inputs[name] = copy_tensors(args), {}

    def _norm_input(self, x: Tensor) -> NormInput:
        draws = sum(
            d.kind in DROPOUT_KINDS or looks_like_dropout(self.by_name.get(d.name))
            for d in self.draws
        )
        last = self.last_dropout
        direct_rate = last[0].rate if last is not None and last[1] is x else None
        axes = [a for a in range(x.dim()) if a != 1]
        values = x.detach().double()
        return NormInput(values.mean(axes), values.var(axes, correction=0), draws, direct_rate)

    def after_module(self, name: str, module: nn.Module, args: Any, result: Any) -> None:
        if looks_like_dropout(module) and not isinstance(module, DropoutModule):
            self.digests.setdefault(name, []).append((digest(args), digest(result)))

    def by_place(self, recomputed: bool = False) -> dict[Place, list[DrawRecord]]:
        """The draws of each place, in order: those of the first pass, or the recomputed ones."""
        found: dict[Place, list[DrawRecord]] = {}
        for draw in self.draws:
            if draw.recomputed == recomputed:
                found.setdefault(draw.place, []).append(draw)
        return found


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) or (
        isinstance(value, Tensor) and not value.dim() and is_dense(value)
    )


def _unregistered_layer(site: SiteRecord, known: set[int]) -> nn.Module | None:
    """The dropout layer, of torch or of ours, that drew without being a submodule of the model.

    No hook reaches such a layer. What is visible is the torch function that it calls: a dropout
    function, or for a layer of ours the draw of its random key.
    """
    if site.kind == "dropout" and site.function.startswith(("F.", "torch.")):
        file = nn.modules.dropout.__file__
    elif site.kind == "noise":
        file = our_module.__file__
    else:
        return None
    frame = sys._getframe(1)
    while frame is not None:
        if frame.f_code.co_filename == file:
            layer = frame.f_locals.get("self")
            return None if id(layer) in known else layer
        frame = frame.f_back  # type: ignore[assignment]
    return None


def recomputing() -> bool:
    """Whether a forward pass runs within a backward pass, as activation checkpointing does.

    Gradients are on there; a backward function that draws for itself has them off.
    """
    return torch._C._current_graph_task_id() != -1 and torch.is_grad_enabled()


def named_rate(module: nn.Module | None) -> tuple[str, float] | None:
    """(attribute, rate of dropping) of a layer; a keep-probability is turned into a rate."""
    if module is None:
        return None
    for name in (*RATES, "prob", *_KEEP_RATES):
        value = getattr(module, name, None)
        if isinstance(value, (int, float)) and not isinstance(value, bool) and 0 < value < 1:
            return name, 1.0 - value if names_keep_probability(name) else float(value)
    return None


def names_keep_probability(name: str) -> bool:
    """Whether an attribute of this name holds the probability of keeping."""
    return "keep" in name or "retain" in name


def looks_like_dropout(module: nn.Module | None) -> bool:
    """Whether the class, or an attribute that holds a rate, has "drop" in its name."""
    if module is None:
        return False
    named = "drop" in type(module).__name__.lower()
    return named or any(
        "drop" in n and isinstance(v, float) and 0 < v < 1 for n, v in vars(module).items()
    )


def replayable(module: nn.Module) -> bool:
    """Whether the layer can run alone, so that its rate is measured.

    It looks like dropout, has a rate, owns no parameters and is not a layer of ours: the
    contract tests measure their rates.
    """
    if (
        isinstance(module, DropoutModule)
        or next(module.parameters(), None) is not None
        or named_rate(module) is None
    ):
        return False
    return looks_like_dropout(module)


def generator_state(x: Tensor | None) -> str:
    """A digest of the state of torch's generator on the device of ``x``."""
    if x is None or x.device.type in ("cpu", "meta"):
        state = torch.get_rng_state()
    else:
        state = torch.get_device_module(x.device).get_rng_state(x.device)
    return hashlib.blake2b(state.numpy().tobytes(), digest_size=12).hexdigest()


def digest(value: Any) -> str:
    """A digest of all values of the tensors in ``value``, bit by bit.

    Of sparse tensors it covers the indices too; on the meta device, the shape alone.
    """
    hashed = hashlib.blake2b(digest_size=12)
    for tensor in float_tensors(value) if not isinstance(value, Tensor) else [value]:
        hashed.update(f"{kind_of(tensor)}{shape_of(tensor)}".encode())
        for x in value_parts(tensor.detach()) or ():
            x = torch.view_as_real(x.resolve_conj()) if x.is_complex() else x
            hashed.update(str(tuple(x.shape)).encode())
            hashed.update(x.cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return hashed.hexdigest()


def _mask_digest(site: SiteRecord, x: Any, result: Any) -> str:
    if site.kind == "python":
        return repr(result)
    first = next(iter(float_tensors(result)), None)
    if first is not None and kind_of(first) == "meta":
        return ""
    if site.kind in ("mask", "noise"):
        return digest(result)
    pairs = aligned_parts(x, first) if site.kind == "dropout" else []
    if first is None or not pairs:
        return ""
    if not site.dropped:
        return digest(first)
    return " ".join(digest((before != 0) & (after == 0)) for before, after in pairs)


def _count_entries(site: SiteRecord, x: Any, result: Tensor | None) -> tuple[int, int]:
    """(dropped, all) independent mask entries of a dropout function of torch, or of a raw mask.

    (0, 0) for everything else: alpha dropout fills with another value than 0, and the entries of
    our layers are not counted, because nothing that is measured by them can go wrong there.
    """
    if result is None:
        return 0, 0
    if site.kind == "mask":
        return count_zeros(result)
    function = site.function
    torch_dropout = site.kind == "dropout" and function.startswith(("F.", "torch."))
    if x is None or not torch_dropout or "alpha" in function:
        return 0, 0
    if not is_dense(x) or not is_dense(result):
        return count_dropped(x, result) if function.endswith(".dropout") else (0, 0)
    nonzero = x != 0
    dropped = nonzero & (result == 0)
    if any(part in function for part in ("1d", "2d", "3d", "feature")):
        # a channel is one entry; unbatched inputs have no axis of examples
        unbatched = ("1d" in function and x.dim() == 2) or ("3d" in function and x.dim() == 4)
        axes = 1 if unbatched else min(2, x.dim())
        nonzero, dropped = nonzero.flatten(axes).any(-1), dropped.flatten(axes).any(-1)
    return int(dropped.sum()), int(nonzero.sum())


def divergence(share: float, rate: float) -> float:
    """KL(share || rate) of two Bernoulli distributions, in nats."""
    total = 0.0
    for a, b in ((share, rate), (1.0 - share, 1.0 - rate)):
        if a > 0:
            total += a * math.log(a / b) if b > 0 else math.inf
    return total


def differs_beyond_chance(share: float, rate: float, n: int, alpha: float) -> bool:
    """Whether the mean ``share`` of ``n`` values differs from ``rate`` by more than chance.

    Chernoff's bound, which is exact for independent values in [0, 1] with the mean ``rate``: a
    chance of at most ``alpha`` for a false alarm.
    """
    return n > 0 and n * divergence(share, rate) > math.log(2.0 / alpha)
