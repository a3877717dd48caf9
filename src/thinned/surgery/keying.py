"""Random keys over whole models: every site is keyed, or the list of the others is raised."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence

from torch import nn

from .._errors import InputError
from ..algebra.key import checked_seed
from ..nn import keys
from ..nn.dropout import Dropout
from ..nn.keys import ModelKey
from ..nn.state_layer import StateLayer
from .foreign import foreign_sites
from .model_access import unwrap


def key(
    model: nn.Module,
    seed: int = 0,
    *,
    capturable: bool = False,
    partial: bool = False,
    shared: Mapping[str, Sequence[str]] | None = None,
) -> ModelKey:
    """Give every dropout site in ``model`` a random stream of its own under ``seed``.

    From then on the masks depend on (seed, name of the layer, call, step, sample id) alone: not on
    the order or size of the batch, the number of ranks, recomputation or compilation, nor on the
    generator of torch. Layers are identified by their names in ``model``, without the prefixes of
    DDP, FSDP, ``torch.compile`` and checkpoint wrappers.

    Args:
        model: The model, or a wrapper of it such as DistributedDataParallel.
        seed: An integer in [-2^63, 2^64); negative ones are read modulo 2^64.
        capturable: Whether to keep seed, step and sample ids at fixed addresses, as a captured CUDA
            graph needs. Then a backward pass has to run before the next :meth:`ModelKey.at`.
        partial: Whether to go on where a site has no layer of thinned. It draws from torch's
            generator then.
        shared: For each name of a shared stream the qualified names of the layers that draw from
            it, such as ``{"condition": ["text.drop", "image.drop"]}``. The first calls of these
            layers in a step draw one mask, their second calls another one, and so on.

    Returns:
        The key, which sets step and sample ids by :meth:`ModelKey.at`.

    Raises:
        InputError: Where a site that drops in training has no layer of thinned, the model has no
            dropout module of this package or has a key already, ``seed`` is not an integer of 64
            bits, or ``shared`` names a layer that the model does not have, or one twice.

    Warns:
        UserWarning: Where recurrent layers have time first and dropout layers no ``layout``.

    Example:
        >>> import torch
        >>> import thinned.nn as tnn
        >>> model = torch.nn.Sequential(torch.nn.Linear(4, 4), tnn.Dropout(0.5))
        >>> key(model, seed=7).layers
        ('1',)
    """
    checked_seed(seed)
    inner = unwrap(model)
    if not partial and (left := foreign_sites(inner).unkeyed):
        shown = "\n  ".join(left)
        raise InputError(
            f"no key reaches these sites of the model:\n  {shown}\nmake layers of them first, by "
            "thinned.replace(model), and by thinned.expose(model, *inputs) where functions are "
            "called; or write thinned.key(model, seed, partial=True) to let them draw from "
            "torch's generator"
        )
    made = keys.key(model, seed, capturable=capturable, shared=shared)
    _warn_of_time_first(inner)
    return made


def _warn_of_time_first(model: nn.Module) -> None:
    """Warn where time is first in recurrent layers, and dropout layers take axis 0 for examples."""
    recurrent = [
        name
        for name, module in model.named_modules()
        if isinstance(module, (nn.RNNBase, StateLayer)) and not module.batch_first
    ]
    dropping = [
        name
        for name, module in model.named_modules()
        if isinstance(module, Dropout) and module.layout is None and module.p
    ]
    if recurrent and dropping:
        warnings.warn(
            f"time is the first axis of {', '.join(recurrent)}, but {', '.join(dropping)} take the "
            'first axis for examples; where that is wrong, write thinned.replace(model, layout="t '
            'b *") and thinned.expose(model, *inputs, layout="t b *"), otherwise layout="b *"',
            UserWarning,
            stacklevel=3,
        )
