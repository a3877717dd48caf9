"""torch's dropout layers, and layers that drop whole paths, for ours."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace as replaced

import torch
from torch import nn as torch_nn

from .. import nn, presets
from ..algebra.drop import Drop
from ..nn.layer_of import layer_of
from ..nn.spec_layer import SpecLayer
from .edits import Edits, Swap, done
from .model_access import plain

_OURS: dict[type[torch_nn.Module], Callable[..., SpecLayer]] = {
    torch_nn.Dropout: nn.Dropout,
    torch_nn.Dropout1d: nn.Dropout1d,
    torch_nn.Dropout2d: nn.Dropout2d,
    torch_nn.Dropout3d: nn.Dropout3d,
    torch_nn.AlphaDropout: nn.AlphaDropout,
    torch_nn.FeatureAlphaDropout: nn.FeatureAlphaDropout,
}

_PATHS = re.compile(r"(DropPath|StochasticDepth)$")
HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


def replace(model: torch_nn.Module) -> Edits:
    """Put our layer in the place of each of torch's dropout layers in ``model``, in place; the same
    law, at its rate.

    So are layers named DropPath or StochasticDepth, such as those of timm, torchvision and
    transformers, if they do what the name says: alone, at rate 0.5, they drop rows or the batch,
    and do nothing in evaluation.

    Names, parameters and ``state_dict`` stay as they are; training mode and rate are taken over,
    and a layer that stands in several places is replaced by one that does. Layers with hooks of
    their own and subclasses are left alone: what they do besides cannot be known. Returns what was
    changed; ``.undo()`` takes it back. Doing it again changes nothing.
    """
    made: dict[int, SpecLayer] = {}
    edits = []
    for path, parent in plain(model).named_modules():
        for name, child in parent._modules.items():
            if child is None or any(getattr(child, hooks) for hooks in HOOKS):
                continue
            if id(child) not in made:
                ours = _ours(child)
                if ours is None:
                    continue
                made[id(child)] = ours.train(child.training)
            edits.append(Swap(f"{path}.{name}".lstrip("."), parent, name, child, made[id(child)]))
    return done(edits)


def _ours(child: torch_nn.Module) -> SpecLayer | None:
    if type(child) in _OURS:
        return _OURS[type(child)](child.p, child.inplace)
    if (
        not _PATHS.search(type(child).__name__)
        or next(child.children(), None) is not None
        or child.state_dict()
    ):
        return None
    name = next(
        (n for n in ("drop_prob", "p") if isinstance(getattr(child, n, None), (int, float))), ""
    )
    spec = _path(child, name) if name else None
    return None if spec is None else layer_of(spec.at(float(getattr(child, name))))


def _path(child: torch_nn.Module, name: str) -> Drop | None:
    """The point that a layer draws by, as it shows on ones at rate 0.5; None where that is no point
    that drops paths.
    """
    probe, ones = copy.copy(child), torch.ones(4, 3)
    setattr(probe, name, 0.5)
    with (
        suppress(TypeError, ValueError, RuntimeError),
        torch.random.fork_rng(devices=[]),
        torch.no_grad(),
    ):
        seen = torch.stack([probe.train()(ones) for _ in range(40)])
        values = set(seen.flatten().tolist())
        if (
            values in ({0.0, 2.0}, {0.0, 1.0})
            and bool((seen == seen[..., :1]).all())
            and torch.equal(probe.eval()(ones), ones)
        ):
            alike = bool((seen == seen[:, :1]).all())  # one coin for the batch
            return replaced(
                presets.drop_path(0.5, "inverted" if 2.0 in values else "unscaled"),
                per="" if alike else "b",
            )
    return None
