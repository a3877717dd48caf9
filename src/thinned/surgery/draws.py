"""Which of torch's functions draw, of what kind and at which rate."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import resolve_name


def name_of(func: Any) -> str:
    known: str = resolve_name(func) or getattr(func, "__name__", repr(func))
    return (
        known.replace("torch.nn.functional.", "F.")
        .replace("torch._VF.", "torch.")
        .replace("torch._C._nn.", "F.")
    )


def given(args: Any, kwargs: Any, place: int, name: str, otherwise: Any) -> Any:
    return args[place] if len(args) > place else kwargs.get(name, otherwise)


DROPOUTS: dict[Any, tuple[str, bool]] = {  # the argument that switches them on, and its default
    F.dropout: ("training", True), F.dropout1d: ("training", True), F.dropout2d: ("training", True),
    F.dropout3d: ("training", True), F.alpha_dropout: ("training", False), F.feature_alpha_dropout: ("training", False),
    torch.dropout: ("train", True), torch.native_dropout: ("train", True), torch.feature_dropout: ("train", True),
    torch.alpha_dropout: ("train", True), torch.feature_alpha_dropout: ("train", True), torch.dropout_: ("train", True),
    torch.feature_dropout_: ("train", True), torch.alpha_dropout_: ("train", True),
}  # fmt: skip
MASKS = {torch.bernoulli, Tensor.bernoulli, Tensor.bernoulli_}
NOISE = {
    torch.rand, torch.rand_like, torch.randn, torch.randn_like, torch.randint, torch.randint_like, torch.randperm, torch.normal,
    torch.poisson, torch.multinomial, torch.binomial, Tensor.uniform_, Tensor.normal_, Tensor.random_, Tensor.exponential_,
    Tensor.geometric_, Tensor.cauchy_, Tensor.log_normal_, Tensor.multinomial, F.gumbel_softmax,
}  # fmt: skip
RECURRENT = {torch.lstm, torch.gru, torch.rnn_tanh, torch.rnn_relu}
_LEAKS = {torch.rrelu, F.rrelu}
_ATTENTION = {F.scaled_dot_product_attention, F.multi_head_attention_forward}
DRAW = frozenset(DROPOUTS.keys() | MASKS | NOISE | RECURRENT | _LEAKS | _ATTENTION)


def draw(func: Any, args: Any, kwargs: Any) -> tuple[str, float | None] | None:
    """(the kind, the rate) of a function that may draw; the kind is "" where it does not this time.
    None for all others.
    """
    if func not in DRAW:
        return None
    if func in DROPOUTS:
        switch, default = DROPOUTS[func]
        p, on = (
            float(given(args, kwargs, 1, "p", 0.5)),
            bool(given(args, kwargs, 2, switch, default)),
        )
        return ("dropout" if on and p > 0 else ""), p
    if func is F.scaled_dot_product_attention:
        p = float(given(args, kwargs, 4, "dropout_p", 0.0))
        return ("attention" if p > 0 else ""), p
    if func is F.multi_head_attention_forward:
        p, on = (
            float(given(args, kwargs, 10, "dropout_p", 0.0)),
            bool(given(args, kwargs, 13, "training", True)),
        )
        return ("attention" if on and p > 0 else ""), p
    if func in RECURRENT:
        packed = isinstance(
            args[3], (list, tuple)
        )  # (data, batch_sizes, hx, weights, ...) of packed sequences
        layers, p, train = args[5:8] if packed else args[4:7]
        return ("recurrent" if train and p > 0 and layers > 1 else ""), float(p)
    if func in _LEAKS:
        return ("noise" if given(args, kwargs, 3, "training", False) else ""), None
    if func in MASKS:
        keep = given(args, kwargs, 1, "p", 0.5 if func is Tensor.bernoulli_ else None)
        return "mask", (1.0 - float(keep) if isinstance(keep, (int, float)) else None)
    return "noise", None
