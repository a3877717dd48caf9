"""The torch functions that draw at random: their kinds and the rates of a call."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import resolve_name

from .costs import RECURRENT


def function_name(func: Any) -> str:
    """Return the short public name of a torch function, such as ``F.dropout``."""
    known: str = resolve_name(func) or getattr(func, "__name__", repr(func))
    return (
        known.replace("torch.nn.functional.", "F.")
        .replace("torch._VF.", "torch.")
        .replace("torch._C._nn.", "F.")
    )


def argument(args: Any, kwargs: Any, index: int, name: str, default: Any) -> Any:
    """Return an argument of a call, whether it was passed by position or by name."""
    return args[index] if len(args) > index else kwargs.get(name, default)


# function: (the name of the argument that switches it on, the default of that argument)
DROPOUTS: dict[Any, tuple[str, bool]] = {
    F.dropout: ("training", True),
    F.dropout1d: ("training", True),
    F.dropout2d: ("training", True),
    F.dropout3d: ("training", True),
    F.alpha_dropout: ("training", False),
    F.feature_alpha_dropout: ("training", False),
    torch.dropout: ("train", True),
    torch.native_dropout: ("train", True),
    torch.feature_dropout: ("train", True),
    torch.alpha_dropout: ("train", True),
    torch.feature_alpha_dropout: ("train", True),
    torch.dropout_: ("train", True),
    torch.feature_dropout_: ("train", True),
    torch.alpha_dropout_: ("train", True),
}
MASKS = {torch.bernoulli, Tensor.bernoulli, Tensor.bernoulli_}
NOISE = {
    torch.rand,
    torch.rand_like,
    torch.randn,
    torch.randn_like,
    torch.randint,
    torch.randint_like,
    torch.randperm,
    torch.normal,
    torch.poisson,
    torch.multinomial,
    torch.binomial,
    Tensor.uniform_,
    Tensor.normal_,
    Tensor.random_,
    Tensor.exponential_,
    Tensor.geometric_,
    Tensor.cauchy_,
    Tensor.log_normal_,
    Tensor.multinomial,
    F.gumbel_softmax,
}
_RANDOM_RELUS = {torch.rrelu, F.rrelu}
_ATTENTION = {F.scaled_dot_product_attention, F.multi_head_attention_forward}
DRAWING = frozenset(DROPOUTS.keys() | MASKS | NOISE | RECURRENT | _RANDOM_RELUS | _ATTENTION)


def classify_draw(func: Any, args: Any, kwargs: Any) -> tuple[str, float | None] | None:
    """Return (kind, rate) for a call of a function that can draw, None for other functions.

    The kind is "" where the function does not draw in this call.
    """
    if func not in DRAWING:
        return None
    if func in DROPOUTS:
        switch, default = DROPOUTS[func]
        p = float(argument(args, kwargs, 1, "p", 0.5))
        on = bool(argument(args, kwargs, 2, switch, default))
        return ("dropout" if on and p > 0 else ""), p
    if func is F.scaled_dot_product_attention:
        p = float(argument(args, kwargs, 4, "dropout_p", 0.0))
        return ("attention" if p > 0 else ""), p
    if func is F.multi_head_attention_forward:
        p = float(argument(args, kwargs, 10, "dropout_p", 0.0))
        on = bool(argument(args, kwargs, 13, "training", True))
        return ("attention" if on and p > 0 else ""), p
    if func in RECURRENT:
        # for packed sequences the arguments are (data, batch_sizes, hx, weights, ...)
        packed = isinstance(args[3], (list, tuple))
        layers, p, train = args[5:8] if packed else args[4:7]
        return ("recurrent" if train and p > 0 and layers > 1 else ""), float(p)
    if func in _RANDOM_RELUS:
        return ("noise" if argument(args, kwargs, 3, "training", False) else ""), None
    if func in MASKS:
        keep = argument(args, kwargs, 1, "p", 0.5 if func is Tensor.bernoulli_ else None)
        return "mask", (1.0 - float(keep) if isinstance(keep, (int, float)) else None)
    return "noise", None
