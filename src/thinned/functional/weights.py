"""What happens to weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, overload

import torch
from torch import Tensor

from .._errors import InputError, probability, unknown
from ..algebra.key import stream_of
from ..engines.torch import reference
from ..engines.torch import tensor_key as _tensor_key
from .core import Keyed, Rate, bernoulli_mask, dropped, is_noop, resolve_key

Per = Literal["weight", "unit"]


def mixout(
    weight: Tensor,
    pretrained: Tensor,
    p: Rate = 0.5,
    training: bool = True,
    *,
    per: Per = "weight",
    key: Keyed = None,
) -> Tensor:
    """Mixout: each weight is replaced by its pretrained value with probability ``p``, and the mean
    is kept.

    (m w + (1 - m) u - p u) / (1 - p) = u + m (w - u) / (1 - p) while training, w in evaluation;
    ``weight`` w and ``pretrained`` u of one shape, any. E = w, Var = p / (1 - p) (w - u)^2; with u
    = 0 it is inverted DropConnect shared by the batch. ``per="unit"``: one coin for each input,
    axis 1 of [out, in, ...], as the authors' code ties them. p = 0.7 to 0.9 for fine-tuning; at 1
    the result is u. The gradient is m / (1 - p); the authors' backward leaves out the division.

    Lee, Cho, Kang 2020, "Mixout: effective regularization to finetune large-scale pretrained
    language models", equation 3.
    """
    _known(per, weight)
    if weight.shape != pretrained.shape:
        raise InputError(
            f"the pretrained weight has to be of shape {list(weight.shape)}, but got {list(pretrained.shape)}"
        )
    if is_noop(weight, p, training):
        return weight
    anchor = pretrained.to(reference.wide(weight))
    moved = weight.to(anchor.dtype) - anchor
    fallen = (
        dropped(moved, p, key, "*", "*")
        if per == "weight"
        else dropped(moved, p, key, "i", "o i *")
    )
    return (anchor + fallen).to(weight.dtype)


@overload
def dare(tuned: Tensor, base: Tensor, p: float = ..., *, key: Keyed = ...) -> Tensor: ...
@overload
def dare(
    tuned: Mapping[str, Tensor], base: Mapping[str, Tensor], p: float = ..., *, key: Keyed = ...
) -> dict[str, Tensor]: ...
def dare(
    tuned: Tensor | Mapping[str, Tensor],
    base: Tensor | Mapping[str, Tensor],
    p: float = 0.9,
    *,
    key: Keyed = None,
) -> Tensor | dict[str, Tensor]:
    """DARE: of what fine-tuning changed, a part ``p`` is dropped once, and the rest is divided by 1
    - p.

    base + m (tuned - base) / (1 - p), m one coin for each weight: :func:`mixout`, done once to
    finished weights, so that the deltas of several models can be added with fewer collisions.
    ``tuned`` and ``base``: tensors of one shape, or two state dicts of the same names; a key's
    draws belong to the names, and entries that are not floating point are ``tuned``'s. ``p`` in [0,
    1]: 0.9, or 0.99 for large models; nothing is trained. 1 gives ``base``.

    Yu, Yu, Yu, Huang, Li 2024, "Language models are super Mario".
    """
    if isinstance(tuned, Tensor) and isinstance(base, Tensor):
        return mixout(tuned, base, p, key=key)
    if isinstance(tuned, Tensor) or isinstance(base, Tensor):
        raise InputError(
            "tuned and base have to be two tensors or two state dicts, but got one of each"
        )
    differ = sorted(tuned.keys() ^ base.keys())
    if differ:
        raise InputError(
            f"tuned and base have to hold the same names, but only one of them has {differ[0]!r}"
        )
    tensor_key, merged = resolve_key(key), dict(tuned)
    for name, weight in tuned.items():
        if weight.is_floating_point():
            own = tensor_key._replace(
                stream=_tensor_key.to_int64(tensor_key.stream + stream_of(name))
            )
            merged[name] = mixout(weight, base[name], p, key=own)
    return merged


def targeted_dropout(
    weight: Tensor,
    p: Rate = 0.5,
    fraction: float = 0.5,
    training: bool = True,
    *,
    per: Per = "weight",
    key: Keyed = None,
) -> Tensor:
    """Targeted dropout: only the smallest weights fall, so that the network learns to do without
    them.

    ``weight`` [out, ...]. Candidates are the ``fraction`` of each output's weights that are
    smallest in magnitude; with ``per="unit"`` the ``fraction`` of outputs whose weights have the
    smallest Euclidean norm. floor(fraction n) of n, but no part of several equal ones. While
    training each candidate falls with probability ``p``, nothing is scaled; evaluation drops all
    candidates, which is the pruned network. ``p`` = 0 is the plain weight, in evaluation too; ``p``
    = 1 prunes in every step. ``fraction`` = 1 is DropConnect without scaling, shared by the batch.
    The paper uses 0.5 and 0.5, up to 0.75 and 0.9.

    Gomez, Zhang, Kamalakara, Madaan, Swersky, Gal, Hinton 2019, "Learning sparse networks using
    targeted dropout".
    """
    _known(per, weight)
    fraction = probability(fraction, "the fraction of candidates")
    if weight.dim() < 2:
        raise InputError(
            f"targeted dropout needs a weight of shape [out, in, ...], but got {list(weight.shape)}"
        )
    if is_noop(weight, p, True):
        return weight
    fallen = _smallest(weight.detach().flatten(1), fraction, per).reshape(
        weight.shape if per == "weight" else (-1, *[1] * (weight.dim() - 1))
    )
    if training:
        layout = ("*", "*") if per == "weight" else ("o", "o *")
        fallen = fallen & ~bernoulli_mask(tuple(weight.shape), p, key, weight, *layout)
    return weight.masked_fill(fallen, 0.0)


def _smallest(rows: Tensor, fraction: float, per: Per) -> Tensor:
    """Which weights of each row, or which rows, are candidates."""
    size = (
        rows.abs()
        if per == "weight"
        else torch.linalg.vector_norm(rows, dim=1, dtype=reference.wide(rows))
    )
    n = size.shape[-1]
    count = int(fraction * n + 1e-6)  # 0.29 * 100 is 28.999999999999996
    if count == n:
        return torch.ones_like(size, dtype=torch.bool)
    return size < size.topk(count + 1, dim=-1, largest=False).values.amax(-1, keepdim=True)


def _known(per: Per, weight: Tensor) -> None:
    if per not in ("weight", "unit"):
        raise unknown("per", per, ("weight", "unit"))
    if per == "unit" and weight.dim() < 2:
        raise InputError(
            f'per="unit" needs a weight of shape [out, in, ...], but got {list(weight.shape)}'
        )


def pull(c: float) -> float:
    """The strength of shakeout, checked."""
    if not c >= 0:
        raise InputError(f"c has to be at least 0, but got {c}; 0 is dropout")
    return c


def shakeout(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    p: Rate = 0.5,
    c: float = 0.1,
    training: bool = True,
    *,
    key: Keyed = None,
) -> Tensor:
    """A linear layer under shakeout: a dropped input turns its weights to -c sign(w) instead of 0.

    Weights (m / q) w + c (m / q - 1) sign(w), q = 1 - p, one coin for each example and input; E is
    the plain layer, which evaluation is. ``input`` [b, ..., in], ``weight`` [out, in], ``c`` >= 0:
    0 is dropout, more pulls weights to 0 as L1 does.

    Kang, Li, Tao 2016, "Shakeout: a new regularized deep neural network training scheme", equation
    3.
    """
    pull(c)
    if is_noop(input, p, training):
        return torch.nn.functional.linear(input, weight, bias)
    signs = c * weight.sign()
    kept = torch.nn.functional.linear(dropped(input, p, key, "b *", "b *"), weight + signs, bias)
    return kept - torch.nn.functional.linear(input, signs)
