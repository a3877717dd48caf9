"""How a model is run on a batch: by its own call, by a function, or by its training step."""

from __future__ import annotations

import copy
import inspect
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from .._errors import InputError
from .model_access import tensors_in

Forward: TypeAlias = Callable[..., Any]

_KEPT = (nn.Module, type, torch.Generator, types.ModuleType, types.FunctionType, types.MethodType)


class ModelCall:
    """Runs a model on copies of one batch.

    Args:
        model: The model that will be run, or copied and run.
        inputs: Positional inputs.
        named: Named inputs.
        forward: A function of the model and the inputs that runs it. None calls the model; a
            LightningModule without ``forward`` is run by its ``training_step``, and a mapping is
            passed to a model of Hugging Face by name.

    Raises:
        InputError: Where ``forward`` is not a function, or the model has no ``forward``.
    """

    def __init__(
        self, model: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any], forward: Any = None
    ) -> None:
        if forward is not None and not callable(forward):
            raise InputError(
                "forward has to be a function of the model and its inputs, but got "
                f"{type(forward).__name__}; write forward=lambda model, batch: model.loss(batch)"
            )
        if forward is None:
            forward = own_step(model)
        if forward is None and len(inputs) == 1 and not named and _takes_names(model, inputs[0]):
            named, inputs = dict(inputs[0]), ()
        self.inputs, self.named, self.forward = inputs, named, forward

    def __bool__(self) -> bool:
        """Whether there is anything to run the model with."""
        return bool(self.inputs or self.named or self.forward)

    def copied(self, convert: Callable[[Tensor], Tensor] | None = None) -> tuple[Any, Any]:
        """Copies of the positional and the named inputs."""
        inputs, named = copy_inputs((self.inputs, self.named), convert or clone)
        return inputs, named

    def __call__(self, model: nn.Module, copied: tuple[Any, Any] | None = None) -> Any:
        """Run ``model`` on new copies of the inputs, or on ``copied`` ones."""
        inputs, named = copied or self.copied()
        with nothing_logged(model):
            if self.forward is None:
                return model(*inputs, **named)
            return self.forward(model, *inputs, **named)


def has_forward(model: nn.Module) -> bool:
    """Whether a model can be called: its class or the instance defines ``forward``."""
    if "forward" in vars(model):
        return True
    owner = next(c for c in type(model).__mro__ if "forward" in vars(c))
    return owner is not nn.Module and not _is_of_lightning(owner)


def own_step(model: nn.Module) -> Forward | None:
    """The training step of a LightningModule that cannot be called; None for other models.

    Raises :class:`thinned.InputError` where a model can be run in neither way.
    """
    if has_forward(model):
        return None
    name = type(model).__name__
    if not any(map(_is_of_lightning, type(model).__mro__)):
        raise InputError(
            f"{name} has no forward; pass forward=, a function of the model and its inputs that "
            "runs it"
        )
    return training_step(model)


def training_step(model: Any) -> Forward:
    """A function that runs the ``training_step`` of a LightningModule on a batch.

    Raises :class:`thinned.InputError` where the step would also take optimizer steps.
    """
    if not getattr(model, "automatic_optimization", True):
        raise InputError(
            f"the training_step of {type(model).__name__} optimizes by itself; pass forward=, a "
            "function of the model and the batch that computes the loss only"
        )
    takes_index = len(inspect.signature(model.training_step).parameters) > 1

    def step(model: Any, *batch: Any, **named: Any) -> Any:
        index = (0,) if takes_index and len(batch) == 1 and not named else ()
        return model.training_step(*batch, *index, **named)

    return step


def is_lightning_module(model: nn.Module) -> bool:
    """Whether a model is a LightningModule."""
    return any(map(_is_of_lightning, type(model).__mro__))


def _is_of_lightning(owner: type) -> bool:
    package = owner.__module__.partition(".")[0]
    return owner.__name__ == "LightningModule" and package in ("lightning", "pytorch_lightning")


def _takes_names(model: nn.Module, batch: Any) -> bool:
    """Whether a batch is a mapping of the named inputs of a model of Hugging Face."""
    names = {c.__name__ for c in type(model).__mro__}
    is_mapping = hasattr(batch, "keys") and hasattr(batch, "__getitem__")
    return is_mapping and bool(names & {"PreTrainedModel", "PeftModel"})


@contextmanager
def nothing_logged(model: nn.Module) -> Iterator[None]:
    """Within, the LightningModules of a model log nothing: a pass is no part of the training."""
    modules = [m for m in model.modules() if is_lightning_module(m)]
    names = ("log", "log_dict")
    before = [{n: vars(m)[n] for n in names if n in vars(m)} for m in modules]
    try:
        for module in modules:
            vars(module).update(dict.fromkeys(names, _log_nothing))
        yield
    finally:
        for module, found in zip(modules, before, strict=True):
            vars(module).update(found)
            for name in names:
                if name not in found:
                    vars(module).pop(name, None)


def _log_nothing(*args: Any, **kwargs: Any) -> None:
    """Takes the place of the log of a LightningModule."""


def clone(x: Tensor) -> Tensor:
    """A copy of a tensor that is a leaf and needs a gradient where the tensor does."""
    return x.detach().clone().requires_grad_(x.requires_grad)


def copy_inputs(value: Any, convert: Callable[[Tensor], Tensor] = clone) -> Any:
    """Copy inputs for a pass that may change them: containers, objects, and their tensors.

    ``convert`` copies a tensor. Modules, functions and generators are not copied; where an object
    cannot be copied, only the tensors in containers of torch's pytree are.
    """
    copies: dict[int, Any] = {}
    for item in _tensors_and_kept(value):
        copies[id(item)] = convert(item) if isinstance(item, Tensor) else item
    try:
        return copy.deepcopy(value, dict(copies))
    except Exception:  # noqa: BLE001 - objects of the user may raise anything
        return torch.utils._pytree.tree_map(
            lambda leaf: copies[id(leaf)] if isinstance(leaf, Tensor) else leaf, value
        )


def tensors_within(value: Any) -> list[Tensor]:
    """Return all tensors in containers and objects, at any depth, each once."""
    ordered = [*tensors_in(value), *_tensors_and_kept(value)]
    return list({id(t): t for t in ordered if isinstance(t, Tensor)}.values())


def _tensors_and_kept(value: Any) -> Iterator[Any]:
    """Yield the tensors in containers and objects at any depth, and what is not to be copied."""
    visited: dict[int, Any] = {}  # holds the objects, so that no id is used twice
    waiting = [value]
    while waiting:
        item = waiting.pop()
        if id(item) in visited or isinstance(item, (str, bytes, int, float, type(None))):
            continue
        visited[id(item)] = item
        if isinstance(item, (Tensor, *_KEPT)):
            yield item
            continue
        if isinstance(item, dict):
            waiting += item.values()
        elif isinstance(item, (list, tuple, set, frozenset)):
            waiting += item
        waiting += getattr(item, "__dict__", {}).values()
        slots = [s for c in type(item).__mro__ for s in _slots(c)]
        waiting += [getattr(item, s) for s in slots if hasattr(item, s)]


def _slots(owner: type) -> list[str]:
    slots = vars(owner).get("__slots__", ())
    return [slots] if isinstance(slots, str) else [s for s in slots if isinstance(s, str)]
