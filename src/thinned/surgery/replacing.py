"""Replacing the dropout layers of torch and of other libraries by those of thinned."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace as replace_fields

import torch
from torch import nn as torch_nn

from .. import nn, presets
from .._errors import InputError
from ..algebra.drop import Drop
from ..nn.layer_of import layer_of
from ..nn.spec_layer import SpecLayer
from .edits import Edits, Swap, apply_edits
from .foreign import foreign_sites
from .model_access import unwrap_compiled

_LAYERS: dict[type[torch_nn.Module], Callable[..., SpecLayer]] = {
    torch_nn.Dropout: nn.Dropout,
    torch_nn.Dropout1d: nn.Dropout1d,
    torch_nn.Dropout2d: nn.Dropout2d,
    torch_nn.Dropout3d: nn.Dropout3d,
    torch_nn.AlphaDropout: nn.AlphaDropout,
    torch_nn.FeatureAlphaDropout: nn.FeatureAlphaDropout,
}

_RECURRENT = (torch_nn.LSTM, torch_nn.GRU, torch_nn.RNN)
PATH_NAMES = re.compile(r"(DropPath|StochasticDepth)$")
HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


def replace(model: torch_nn.Module, *, layout: str | None = None) -> Edits:
    """Replace torch's dropout layers by the layers of thinned with the same distribution, in place.

    ``nn.MultiheadAttention`` becomes :class:`thinned.nn.MultiheadAttention`, and ``nn.LSTM``,
    ``GRU`` and ``RNN`` with dropout between their layers :class:`thinned.nn.DropState` with
    ``locked=False``; both share the parameters.

    Layers named DropPath or StochasticDepth, such as those of timm, torchvision and transformers,
    are replaced too, if they do what the name says: each is run alone at rate 0.5, and has to drop
    rows or the whole batch in training, and nothing in evaluation.

    Names, parameters and ``state_dict`` are unchanged; the training mode and the rate are copied; a
    layer that is in several places is replaced by one layer in all of them. Layers with hooks
    and subclasses of torch's layers are left as they are, since what else they do is unknown. What
    still drops without a layer of thinned is listed in ``notes``. A second call changes nothing.

    Args:
        model: The model to change.
        layout: The axes of what ``nn.Dropout`` drops, where the examples are not first, such as
            ``"t b *"`` in a model with time first; see :class:`thinned.nn.Dropout`.

    Returns:
        The changes; ``undo()`` puts the old layers back, with the parameters as they are now.

    Raises:
        InputError: Where ``layout`` does not name the axis of the examples.

    Example:
        >>> model = torch_nn.Sequential(torch_nn.Linear(4, 4), torch_nn.Dropout(0.5))
        >>> len(replace(model)), isinstance(model[1], nn.Dropout)
        (1, True)
    """
    layers: dict[int, torch_nn.Module] = {}
    edits = []
    check_layout(layout)
    inner = unwrap_compiled(model)
    for path, parent in inner.named_modules():
        for name, child in parent._modules.items():
            if child is None or any(getattr(child, hooks) for hooks in HOOKS):
                continue
            if id(child) not in layers:
                layer = replacement(child, layout)
                if layer is None:
                    continue
                layers[id(child)] = layer.train(child.training)
            edits.append(
                Swap(
                    path=f"{path}.{name}".lstrip("."),
                    parent=parent,
                    child=name,
                    old=child,
                    new=layers[id(child)],
                )
            )
    done = apply_edits(edits)
    notes = [f"no key reaches {site}{_remedy(site)}" for site in foreign_sites(inner).unkeyed]
    return replace_fields(done, notes=tuple(notes))


def _remedy(site: str) -> str:
    return "; thinned.expose(model, *inputs) makes a layer of it" if " at " in site else ""


def check_layout(layout: str | None) -> None:
    """Raise where the layout of what dropout layers drop is none."""
    if layout is not None:
        nn.Dropout(0.5, layout=layout)


def replacement(child: torch_nn.Module, layout: str | None = None) -> torch_nn.Module | None:
    """Return the layer that takes the place of ``child``, or None."""
    if type(child) is torch_nn.Dropout:
        return nn.Dropout(child.p, child.inplace, layout=layout)
    if type(child) in _LAYERS:
        return _LAYERS[type(child)](child.p, child.inplace)
    if type(child) is torch_nn.MultiheadAttention and child.dropout:  # not a subclass
        return nn.MultiheadAttention.from_torch(child)
    if (
        isinstance(child, torch_nn.RNNBase)
        and type(child) in _RECURRENT
        and child.dropout
        and child.num_layers > 1
    ):
        with suppress(InputError):  # its parameters are rewritten by something else
            return nn.DropState(child, locked=False)
        return None
    if (
        not PATH_NAMES.search(type(child).__name__)
        or next(child.children(), None) is not None
        or child.state_dict()
    ):
        return None
    name = next(
        (n for n in ("drop_prob", "p") if isinstance(getattr(child, n, None), (int, float))), ""
    )
    spec = _measured_path_spec(child, name) if name else None
    return None if spec is None else layer_of(spec.at(float(getattr(child, name))))


def _measured_path_spec(child: torch_nn.Module, name: str) -> Drop | None:
    """Return the dropout spec of a layer that drops paths, measured by running a copy of it on ones
    at rate 0.5; None where it does something else.
    """
    probe, ones = copy.copy(child), torch.ones(4, 3)
    setattr(probe, name, 0.5)
    with (
        suppress(TypeError, ValueError, RuntimeError),
        torch.random.fork_rng(devices=[]),
        torch.no_grad(),
    ):
        results = torch.stack([probe.train()(ones) for _ in range(40)])
        values = set(results.flatten().tolist())
        if (
            values in ({0.0, 2.0}, {0.0, 1.0})
            and bool((results == results[..., :1]).all())
            and torch.equal(probe.eval()(ones), ones)
        ):
            # whether all rows of every pass are equal: one Bernoulli draw for the batch
            batchwise = bool((results == results[:, :1]).all())
            return replace_fields(
                presets.drop_path(0.5, "inverted" if 2.0 in values else "unscaled"),
                per="" if batchwise else "b",
            )
    return None
