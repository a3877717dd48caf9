"""Context managers over whole models: thinned's layers and those of everybody else.

The layers of thinned obey :mod:`thinned.nn.modes`. Other sites are reached by what decides about
them: their ``training`` flag, as the calls of this thread or coroutine read it; the arguments of
the functions that they call; and, for masks that have to come again, torch's generator, seeded for
each call.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .._errors import InputError
from ..engines.torch.tensor_key import TensorKey, random_key
from ..nn import modes
from ..nn.contexts import Context, entered
from ..nn.module import dropout_modules
from ..nn.recompute import recomputed_key, remember_key
from .calls import CallPath, find_caller
from .draws import DRAWING, DROPOUTS, function_name
from .foreign import ForeignSites, foreign_sites
from .model_access import preserve_torch_generators, unwrap_compiled
from .switching import switchable

Switch = Literal["sample", "off"]
_OwnMode = Callable[[nn.Module], AbstractContextManager[Any]]
# function: the position and the name of the argument that switches it on
_SWITCHES = {func: (2, name) for func, (name, _) in DROPOUTS.items()}
_SWITCHES[F.multi_head_attention_forward] = (13, "training")
_SWITCHED = frozenset(_SWITCHES) | {F.scaled_dot_product_attention}
_EXPOSE = (
    "make these calls layers first by thinned.expose(model, *inputs), or write them with "
    "thinned.nn and thinned.functional"
)


def _refuse(what: str, unreached: list[str], remedy: str) -> None:
    if unreached:
        shown = "\n  ".join(unreached)
        raise InputError(
            f"{what} does not reach every site of this model:\n  {shown}\n{remedy}; or write "
            f"{what}(model, partial=True) to leave these sites as they are"
        )


def _set_argument(args: Any, kwargs: Any, index: int, name: str, value: Any) -> tuple[Any, Any]:
    if len(args) > index:
        return (*args[:index], value, *args[index + 1 :]), kwargs
    return args, {**kwargs, name: value}


def _switch_context(sites: ForeignSites, switch: Switch) -> Context:
    """A context that switches the sites outside thinned's layers on or off."""
    on = switch == "sample"
    callers = {id(module) for module in sites.callers.values()}

    def handle(call: Any, func: Any, args: Any, kwargs: Any) -> Any:
        switched = recomputed_key(handle)
        if switched is None:
            switched = remember_key(handle, id(find_caller()[0]) in callers)
        if switched:
            if func in _SWITCHES:
                args, kwargs = _set_argument(args, kwargs, *_SWITCHES[func], on)
            elif not on:
                args, kwargs = _set_argument(args, kwargs, 4, "dropout_p", 0.0)
        return call(*args, **kwargs)

    return Context(
        values={"training": dict.fromkeys(_with_flags(sites, switch), on)},
        functions=_SWITCHED if callers else frozenset(),
        handler=handle if callers else None,
    )


def _with_flags(sites: ForeignSites, switch: Switch) -> list[nn.Module]:
    """The modules with flags to set. A transformer layer of torch reads its own only to decide
    whether a fused kernel takes the place of the modules inside.
    """
    return [*sites.flags.values(), *(sites.fused if switch == "sample" else [])]


def _over_model(
    model: nn.Module, what: str, switch: Switch, partial: bool, own: _OwnMode
) -> AbstractContextManager[None]:
    inner = unwrap_compiled(model)
    sites = foreign_sites(inner)
    unreached = sites.not_sampled if switch == "sample" else sites.not_switched_off
    if sites.is_compiled or inner is not model:
        # A graph has no frames in which the caller of a function could be found.
        unreached = unreached + [
            f"{label}, in a compiled model"
            for label in (sites.callers if switch == "sample" else sites.always)
        ]
        sites.callers = {}
    elif switch == "off":
        sites.callers = {**sites.callers, **sites.always}
    if not partial:
        _refuse(what, unreached, _EXPOSE)
        nothing = not sites.drawing and not sites.at_rate_0 and not any(dropout_modules(inner))
        if switch == "sample" and nothing:
            raise InputError(
                "thinned.sampling finds no dropout in this model, so all passes would be equal; "
                "insert some with thinned.insert or thinned.apply, or write "
                "thinned.sampling(model, partial=True)"
            )
    return _entered(model, sites, switch, own)


@contextmanager
def _entered(
    model: nn.Module, sites: ForeignSites, switch: Switch, own: _OwnMode
) -> Iterator[None]:
    with (
        switchable(_with_flags(sites, switch)),
        entered(_switch_context(sites, switch)),
        own(model),
    ):
        yield


_OWN = TensorKey(torch.empty(0), None)  # a call that draws as its own code says


class _SeededCalls:
    """Makes the calls that draw in a model's other sites under keys, like those of our layers.

    ``turn`` returns the key of a call from (the module, its name, the call site, the number of this
    site within the module).
    """

    def __init__(
        self,
        names: dict[nn.Module, str],
        turn: Callable[[nn.Module, str, int], TensorKey],
    ) -> None:
        self.names = {id(module): (module, name) for module, name in names.items()}
        self.turn = turn
        self.sites: dict[int, dict[tuple[Any, CallPath], int]] = {}

    def __call__(self, call: Any, func: Any, args: Any, kwargs: Any) -> Any:
        key = recomputed_key(self)
        if key is None:
            key = remember_key(self, self.next_key(func, kwargs))
        if key is _OWN:
            return call(*args, **kwargs)
        tensors = [a for a in (*args, *kwargs.values()) if isinstance(a, Tensor)]
        with preserve_torch_generators(tensors, seed=int(key.seed_step.reshape(-1)[0])):
            return call(*args, **kwargs)

    def next_key(self, func: Any, kwargs: Any) -> TensorKey:
        """Return the key of the coming call; ``_OWN`` where it is no call of the model."""
        caller, path = find_caller()
        if caller is None or id(caller) not in self.names:
            return _OWN
        module, name = self.names[id(caller)]
        if kwargs.get("generator") is not None:
            raise InputError(
                f"{name or 'the model'} ({type(module).__name__}) passes generator= to "
                f"{function_name(func)}, so its draws cannot be made again; remove this argument"
            )
        sites = self.sites.setdefault(id(module), {})
        site = sites.setdefault((func, path), len(sites))
        return self.turn(module, name, site)


def _seeded(
    model: nn.Module, what: str, partial: bool, turn: Callable[[nn.Module, str, int], TensorKey]
) -> AbstractContextManager[None]:
    """A context in which the other sites of a model draw under the keys of ``turn``."""
    inner = unwrap_compiled(model)
    sites = foreign_sites(inner)
    unreached = sites.not_seeded
    if sites.is_compiled or inner is not model:
        unreached = unreached + [f"{label}, in a compiled model" for label in sites.drawing]
        sites.drawing = {}
    if not partial:
        _refuse(what, unreached, _REPLACE)
    names = {module: sites.names[module] for module in sites.drawing.values()}
    if not names:
        return entered(Context())
    return entered(Context(functions=DRAWING, handler=_SeededCalls(names, turn)))


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
        InputError: Before anything runs, where the model has no dropout, or a site cannot be
            reached: masks drawn by hand, and
            rates that are 0 in evaluation, in a module that its mode also switches otherwise.

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


def averaging(model: nn.Module, *, partial: bool = False) -> AbstractContextManager[None]:
    """Make every site return its result of evaluation, scaled weights included, without noise."""
    return _over_model(model, "thinned.predict", "off", partial, modes.averaging)


def frozen(model: nn.Module, *, partial: bool = False) -> AbstractContextManager[None]:
    """Make every site draw the same noise in all its calls: one fixed sub-network.

    It reaches the whole model as it is. In a keyed model the noise of thinned's layers is that of
    the present step and of call 0. Every other site takes 64 bits of torch's generator; outside
    thinned's layers its noise then depends on the shapes of the batch, as torch's does.

    Args:
        model: The model.
        partial: Whether to go on where a site cannot be reached, and leave it as it is.

    Returns:
        A context manager.

    Raises:
        InputError: Before anything runs, where a site cannot be reached (Python's ``random``,
            functional dropout in a compiled model), or in a keyed model before the first
            ``key.at``.

    Example:
        >>> import torch
        >>> import thinned.nn as tnn
        >>> model = torch.nn.Sequential(tnn.Dropout(0.5))
        >>> with frozen(model):
        ...     bool((model(torch.ones(100)) == model(torch.ones(100))).all())
        True
    """
    seeds: dict[nn.Module, int] = {}

    def turn(module: nn.Module, name: str, site: int) -> TensorKey:
        if module not in seeds:
            seeds[module] = int(random_key().seed_step.reshape(-1)[0])
        return TensorKey(torch.tensor([_mix(seeds[module], site), 0]), None)

    return _both(_seeded(model, "thinned.frozen", partial, turn), modes.frozen(model))


def recording(model: nn.Module, *, partial: bool = False) -> AbstractContextManager[modes.Tape]:
    """Record the key of every call of every site on a tape.

    It reaches the whole model as it is. Sites outside thinned's layers draw from torch's generator,
    seeded for each call; replay them on batches of the same shape.

    For consistent dropout in policy gradients, record the rollout, and compute the
    log-probabilities of the update under :func:`replaying`. The ratio is then 1 at the first step.

    Args:
        model: The model.
        partial: Whether to go on where a site cannot be reached, and leave it as it is.

    Returns:
        A context manager that yields the :class:`thinned.Tape` that is written.

    Raises:
        InputError: Before anything runs, where a site cannot be reached: Python's ``random``, or
            functional dropout in a compiled model.

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
    tape = modes.Tape()

    def turn(module: nn.Module, name: str, site: int) -> TensorKey:
        drawn = random_key()
        tape.drawn.setdefault(name, []).append(drawn)
        return drawn

    seeded = _seeded(model, "thinned.recording", partial, turn)
    return _both(seeded, modes.recording(model, tape), result=tape)


def replaying(
    model: nn.Module, tape: modes.Tape, *, partial: bool = False
) -> AbstractContextManager[None]:
    """Make every site draw what a tape holds, call by call, from its start.

    A site that is called more often than it was recorded raises :class:`thinned.InputError`.

    Args:
        model: The model of the recording, or a copy with the same names.
        tape: What :func:`recording` wrote.
        partial: Whether to go on where a site cannot be reached, and leave it as it is.

    Returns:
        A context manager.

    Raises:
        InputError: Before anything runs, where a site cannot be reached: Python's ``random``, or
            functional dropout in a compiled model.

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
    positions: dict[str, int] = {}

    def turn(module: nn.Module, name: str, site: int) -> TensorKey:
        position = positions.get(name, 0)
        positions[name] = position + 1
        return modes.recorded_key(tape, name, position)

    seeded = _seeded(model, "thinned.replaying", partial, turn)
    return _both(seeded, modes.replaying(model, tape))


def _mix(seed: int, site: int) -> int:
    """The seed of one of the sites of a module."""
    return seed if site == 0 else hash((seed, site)) & (2**63 - 1)


@contextmanager
def _both(
    first: AbstractContextManager[Any], second: AbstractContextManager[Any], result: Any = None
) -> Iterator[Any]:
    with first, second:
        yield result
