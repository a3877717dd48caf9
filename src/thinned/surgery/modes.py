"""Context managers over whole models: thinned's layers and those of everybody else.

The layers of thinned obey :mod:`thinned.nn.modes`. Other sites are reached by what switches them:
modules by their ``training`` flag, which is set on the dropout module alone, and functions by a
torch function mode that is active while the module that calls them runs.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

from torch import nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from .._errors import InputError
from ..nn import modes
from ..nn.module import DropoutModule, disable_fused_kernels
from .calls import InterceptedForward
from .draws import DROPOUTS
from .model_access import check_not_scripted, unwrap_compiled
from .rates import rate_of
from .reading import source_draws

Switch = Literal["sample", "off"]
_OwnMode = Callable[[nn.Module], AbstractContextManager[None]]
_SWITCHES = {func: (2, name) for func, (name, _) in DROPOUTS.items()}
_SWITCHES[F.multi_head_attention_forward] = (13, "training")


@dataclass
class _Sites:
    """The sites of a model outside thinned's layers, by the way to reach them."""

    modules: list[tuple[str, nn.Module]] = field(default_factory=list)  # by their training flag
    callers: list[tuple[str, nn.Module]] = field(default_factory=list)  # by their function calls
    attention: list[str] = field(default_factory=list)  # a rate that is 0 when the call is made
    masks: list[str] = field(default_factory=list)  # drawn by hand


def _sites(model: nn.Module) -> _Sites:
    check_not_scripted(model)
    sites = _Sites()
    for name, module in model.named_modules():
        label = f"{name or 'the model'} ({type(module).__name__})"
        if isinstance(module, DropoutModule):
            continue
        if isinstance(module, (nn.MultiheadAttention, nn.RNNBase)) or _is_dropout_layer(module):
            if _never_drops(module):
                continue
            if _reads_training(module):
                sites.modules.append((label, module))
            else:
                sites.masks.append(label)
        else:
            exposed = _exposed(module)
            draws = [d for d in source_draws(module) if d.function.split(".")[-1] not in exposed]
            for draw in draws:
                where = f"{label}: {draw.function} at {draw.where}"
                product = draw.function == "F.scaled_dot_product_attention"
                if product and not draw.in_eval:
                    sites.attention.append(where)
                elif draw.kind == "mask":
                    sites.masks.append(where)
            if any(draw.kind in ("dropout", "attention") for draw in draws):
                sites.callers.append((label, module))
    return sites


def _exposed(module: nn.Module) -> set[str]:
    """The names of the functions that :func:`thinned.expose` sends through layers."""
    forward = module.__dict__.get("forward")
    return {n for n, _ in forward.handlers} if isinstance(forward, InterceptedForward) else set()


def _never_drops(module: nn.Module) -> bool:
    """Whether a dropout layer, attention or recurrent network has rate 0, or one layer only."""
    rate = rate_of(module)
    is_single = isinstance(module, nn.RNNBase) and module.num_layers == 1
    return is_single or (rate is not None and getattr(module, rate) == 0.0)


def _is_dropout_layer(module: nn.Module) -> bool:
    """Whether a module does nothing but drop: it has "drop" in its name, and nothing inside."""
    named = "drop" in type(module).__name__.lower()
    empty = next(module.children(), None) is None and next(module.parameters(), None) is None
    return isinstance(module, nn.modules.dropout._DropoutNd) or (named and empty)


def _reads_training(module: nn.Module) -> bool:
    if type(module).__module__.startswith("torch."):
        return True
    try:
        return "self.training" in inspect.getsource(type(module))
    except (OSError, TypeError):
        return False


class _SwitchFunctions(TorchFunctionMode):
    """Sets the argument that switches functional dropout on or off."""

    def __init__(self, switch: Switch) -> None:
        super().__init__()
        self.switch = switch

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func in _SWITCHES:
            index, name = _SWITCHES[func]
            on = self.switch == "sample"
            if len(args) > index:
                args = (*args[:index], on, *args[index + 1 :])
            else:
                kwargs = {**kwargs, name: on}
        elif func is F.scaled_dot_product_attention and self.switch == "off":
            if len(args) > 4:
                args = (*args[:4], 0.0, *args[5:])
            else:
                kwargs = {**kwargs, "dropout_p": 0.0}
        return func(*args, **kwargs)


def _refuse(what: str, unreached: list[str], remedy: str) -> None:
    if unreached:
        shown = "\n  ".join(unreached)
        raise InputError(
            f"{what} does not reach every site of this model:\n  {shown}\n{remedy}; or write "
            f"{what}(model, partial=True) to leave these sites as they are"
        )


@contextmanager
def _switched(model: nn.Module, sites: _Sites, switch: Switch) -> Iterator[None]:
    """The sites outside thinned's layers, switched on or off."""
    before = [(module, module.training) for _, module in sites.modules]
    active: list[_SwitchFunctions] = []

    def enter(module: nn.Module, args: Any) -> None:
        active.append(_SwitchFunctions(switch))
        active[-1].__enter__()  # type: ignore[no-untyped-call]

    def leave(module: nn.Module, args: Any, result: Any) -> None:
        active.pop().__exit__(None, None, None)  # type: ignore[no-untyped-call]

    with ExitStack() as stack:
        for _, module in sites.callers:
            stack.callback(module.register_forward_pre_hook(enter).remove)
            stack.callback(module.register_forward_hook(leave, always_call=True).remove)
        try:
            for module, _ in before:
                stack.callback(disable_fused_kernels(module).remove)
                module.training = switch == "sample"
            yield
        finally:
            for module, training in before:
                module.training = training


def _over_model(
    model: nn.Module, what: str, switch: Switch, partial: bool, own: _OwnMode
) -> AbstractContextManager[None]:
    sites = _sites(unwrap_compiled(model))
    unreached = list(sites.masks)
    if switch == "sample":
        unreached += sites.attention
    if unwrap_compiled(model) is not model:
        unreached += [f"{label}, in a compiled model" for label, _ in sites.callers]
        sites.callers = []
    if not partial:
        _refuse(what, unreached, _EXPOSE)
    return _entered(model, sites, switch, own)


@contextmanager
def _entered(model: nn.Module, sites: _Sites, switch: Switch, own: _OwnMode) -> Iterator[None]:
    with _switched(unwrap_compiled(model), sites, switch), own(model):
        yield


_EXPOSE = (
    "make these calls layers first by thinned.expose(model, *inputs), or write them with "
    "thinned.nn and thinned.functional"
)
_REPLACE = (
    "first make torch's layers thinned's by thinned.replace(model), and functional and attention "
    "dropout by thinned.expose(model, *inputs)"
)


def sampling(model: nn.Module, *, partial: bool = False) -> AbstractContextManager[None]:
    """Make dropout draw masks whatever ``model.training`` is: Monte Carlo dropout.

    It reaches the whole model as it is: the layers of thinned, those of torch and of other
    libraries, functional dropout, ``nn.MultiheadAttention`` and the dropout of LSTM and GRU. Other
    layers, such as BatchNorm, remain in evaluation. The mean of many passes is the prediction, and
    their spread is the uncertainty of the model.

    Args:
        model: The model.
        partial: Whether to go on where a site cannot be reached, and leave it as it is.

    Returns:
        A context manager.

    Raises:
        InputError: Before anything runs, where a site cannot be reached: masks drawn by hand, and
            ``scaled_dot_product_attention`` that is called with rate 0 in evaluation.

    Example:
        >>> import torch
        >>> model = torch.nn.Sequential(torch.nn.Dropout(0.5)).eval()
        >>> with sampling(model):
        ...     passes = torch.stack([model(torch.ones(1000)) for _ in range(4)])
        >>> bool((passes == 0).any()), model[0].training
        (True, False)

    Reference:
        Gal and Ghahramani 2016, "Dropout as a Bayesian approximation", section 4.
    """
    return _over_model(model, "thinned.sampling", "sample", partial, modes.sampling)


def off(model: nn.Module, *, partial: bool = False) -> AbstractContextManager[None]:
    """Switch all dropout off: layers return their result without noise, not even scaled.

    It reaches the whole model as it is, as :func:`sampling` does; attention dropout too.

    Args:
        model: The model.
        partial: Whether to go on where a site cannot be reached, and leave it as it is.

    Returns:
        A context manager.

    Raises:
        InputError: Before anything runs, where a site cannot be reached: masks drawn by hand.

    Example:
        >>> import torch
        >>> model = torch.nn.Sequential(torch.nn.Dropout(0.5))
        >>> with off(model):
        ...     model(torch.ones(3))
        tensor([1., 1., 1.])
    """
    return _over_model(model, "thinned.off", "off", partial, modes.off)


def _only_own(model: nn.Module, what: str, partial: bool) -> None:
    """Refuse a model with sites that hold no random key."""
    if not partial:
        sites = _sites(unwrap_compiled(model))
        foreign = [label for label, _ in (*sites.modules, *sites.callers)]
        _refuse(what, foreign + sites.masks, _REPLACE)


def frozen(model: nn.Module, *, partial: bool = False) -> AbstractContextManager[None]:
    """Make every dropout module draw the same noise in all its calls: one fixed sub-network.

    In a keyed model it is the noise of the present step and of call 0. Otherwise each module takes
    64 bits of torch's generator.

    Args:
        model: The model, with dropout modules of thinned.
        partial: Whether to go on where a site cannot be reached, and leave it as it is.

    Returns:
        A context manager.

    Raises:
        InputError: Before anything runs, where other dropout than thinned's is in the model, or in
            a keyed model before the first ``key.at``.

    Example:
        >>> import torch
        >>> import thinned.nn as tnn
        >>> model = torch.nn.Sequential(tnn.Dropout(0.5))
        >>> with frozen(model):
        ...     bool((model(torch.ones(100)) == model(torch.ones(100))).all())
        True
    """
    _only_own(model, "thinned.frozen", partial)
    return modes.frozen(model)


def recording(model: nn.Module, *, partial: bool = False) -> AbstractContextManager[modes.Tape]:
    """Record the key of every call of every dropout module on a tape.

    For consistent dropout in policy gradients, record the rollout, and compute the
    log-probabilities of the update under :func:`replaying`. The ratio is then 1 at the first step.

    Args:
        model: The model, with dropout modules of thinned.
        partial: Whether to go on where a site cannot be reached, and leave it as it is.

    Returns:
        A context manager that yields the :class:`thinned.Tape` that is written.

    Raises:
        InputError: Before anything runs, where other dropout than thinned's is in the model.

    Example:
        >>> import torch
        >>> import thinned.nn as tnn
        >>> model = torch.nn.Sequential(tnn.Dropout(0.5))
        >>> with recording(model) as tape:
        ...     _ = model(torch.ones(2)), model(torch.ones(2))
        >>> len(tape.drawn["0"])
        2

    Reference:
        Hausknecht and Wagener 2022, "Consistent dropout for policy gradient reinforcement
        learning".
    """
    _only_own(model, "thinned.recording", partial)
    return modes.recording(model)


def replaying(
    model: nn.Module, tape: modes.Tape, *, partial: bool = False
) -> AbstractContextManager[None]:
    """Make every dropout module draw what a tape holds, call by call, from its start.

    A layer that is called more often than it was recorded raises :class:`thinned.InputError`.

    Args:
        model: The model of the recording, or a copy with the same names.
        tape: What :func:`recording` wrote.
        partial: Whether to go on where a site cannot be reached, and leave it as it is.

    Returns:
        A context manager.

    Raises:
        InputError: Before anything runs, where other dropout than thinned's is in the model.

    Example:
        >>> import torch
        >>> import thinned.nn as tnn
        >>> model = torch.nn.Sequential(tnn.Dropout(0.5))
        >>> with recording(model) as tape:
        ...     first = model(torch.ones(100))
        >>> with replaying(model, tape):
        ...     bool((model(torch.ones(100)) == first).all())
        True

    Reference:
        Hausknecht and Wagener 2022, "Consistent dropout for policy gradient reinforcement
        learning".
    """
    _only_own(model, "thinned.replaying", partial)
    return modes.replaying(model, tape)
