"""torch's dropout layers for ours."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn as torch_nn

from .. import nn
from .edits import Edits, Swap, done
from .kept import plain

_OURS: dict[type[torch_nn.Module], Callable[..., nn.Dropout]] = {
    torch_nn.Dropout: nn.Dropout,
    torch_nn.Dropout1d: nn.Dropout1d,
    torch_nn.Dropout2d: nn.Dropout2d,
    torch_nn.Dropout3d: nn.Dropout3d,
    torch_nn.AlphaDropout: nn.AlphaDropout,
    torch_nn.FeatureAlphaDropout: nn.FeatureAlphaDropout,
}

HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


def replace(model: torch_nn.Module) -> Edits:
    """Put our layer in the place of each of torch's dropout layers in ``model``, in place; the same law, at its rate.

    Names, parameters and ``state_dict`` stay as they are; training mode and rate are taken over, and a layer that stands in
    several places is replaced by one that does. Layers with hooks of their own and subclasses are left alone: what they do
    besides cannot be known. Returns what was changed; ``.undo()`` takes it back. Doing it again changes nothing.
    """
    made: dict[int, nn.Dropout] = {}
    edits = []
    for path, parent in plain(model).named_modules():
        for name, child in parent._modules.items():
            if child is None or type(child) not in _OURS or any(getattr(child, hooks) for hooks in HOOKS):
                continue
            if id(child) not in made:
                made[id(child)] = _OURS[type(child)](child.p, child.inplace)
                made[id(child)].train(child.training)
            edits.append(Swap(f"{path}.{name}".lstrip("."), parent, name, child, made[id(child)]))
    return done(edits)
