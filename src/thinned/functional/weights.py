"""What happens to weights."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from .. import presets
from .._errors import InputError
from .core import Keyed, drop


def mixout(weight: Tensor, pretrained: Tensor, p: float = 0.5, training: bool = True, *, key: Keyed = None) -> Tensor:
    """Mixout: each weight is replaced by its pretrained value with probability ``p``, and the mean is kept.

    (m w + (1 - m) u - p u) / (1 - p) = u + m (w - u) / (1 - p) while training, w in evaluation; ``weight`` w and
    ``pretrained`` u of one shape, any. E = w, Var = p / (1 - p) (w - u)^2; with u = 0 it is inverted DropConnect shared by
    the batch. p = 0.7 to 0.9 for fine-tuning. The gradient is m / (1 - p); the authors' backward leaves out the division.

    Lee, Cho, Kang 2020, "Mixout: effective regularization to finetune large-scale pretrained language models", equation 3.
    """
    if weight.shape != pretrained.shape:
        raise InputError(f"the pretrained weight has to be of shape {list(weight.shape)}, but got {list(pretrained.shape)}")
    if not training:
        return weight
    return pretrained + drop(weight - pretrained, replace(presets.dropout(p), per="*", of="*"), key=key)


def shakeout(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    p: float = 0.5,
    c: float = 0.1,
    training: bool = True,
    *,
    key: Keyed = None,
) -> Tensor:
    """A linear layer under shakeout: a dropped input turns its weights to -c sign(w) instead of 0.

    Weights (m / q) w + c (m / q - 1) sign(w), q = 1 - p, one coin for each example and input; E is the plain layer, which
    evaluation is. ``input`` [b, ..., in], ``weight`` [out, in], ``c`` >= 0: 0 is dropout, more pulls weights to 0 as L1 does.

    Kang, Li, Tao 2016, "Shakeout: a new regularized deep neural network training scheme", equation 3.
    """
    if not c >= 0:
        raise InputError(f"c has to be at least 0, but got {c}; 0 is dropout")
    if not training or p == 0:
        return torch.nn.functional.linear(input, weight, bias)
    signs = c * weight.sign()
    kept = torch.nn.functional.linear(drop(input, presets.dropout(p), key=key), weight + signs, bias)
    return kept - torch.nn.functional.linear(input, signs)
