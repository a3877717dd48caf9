"""Dropout as functions, with torch's names, arguments and errors; and :func:`drop`, which takes any point."""

from __future__ import annotations

import math
import warnings
from dataclasses import replace
from functools import lru_cache
from typing import Literal

import torch
from torch import Tensor

from . import presets
from ._errors import InputError, probability, unknown
from .algebra.drop import Drop
from .algebra.key import Key
from .algebra.law import Bernoulli
from .algebra.per import Block
from .algebra.plan import Plan, averages, plan
from .engines.torch import dispatch, native
from .engines.torch import whose as _whose
from .engines.torch.dispatch import Impl
from .engines.torch.whose import Whose

Mode = Literal["sample", "mean", "off"]
MODES = ("sample", "mean", "off")


def drop(
    x: Tensor,
    spec: Drop,
    *,
    mode: Mode = "sample",
    key: Key | Whose | None = None,
    generator: torch.Generator | None = None,
    inplace: bool = False,
    impl: Impl | None = None,
) -> Tensor:
    """Apply the point ``spec`` to ``x``.

    ``mode``: ``"sample"`` draws (training, or Monte Carlo inference), ``"mean"`` is the point's evaluation, ``"off"``
    returns ``x``. ``key`` says whom the mask belongs to; without one, 64 bits are drawn from ``generator`` or from
    torch's global generator. ``x`` is floating point or complex, of any shape that fits ``spec.of``; the result has
    its shape, dtype and memory format, and is ``x`` itself where nothing can fall. ``impl``: "reference", "native" or
    "triton" instead of the fastest that fits; all give the same mask.

    Raises :class:`thinned.InputError` (a ValueError) for a wrong mode, dtype, shape or sample ids, or for an ``impl``
    that cannot run here.
    """
    if mode not in MODES:
        raise unknown("mode", mode, MODES)
    if mode == "off" or not x.numel():
        return x
    if mode == "mean":
        factors = averages(spec)
        if factors == (1.0, 0.0):
            return x
        y = x * factors[0]
        y = y + factors[1] if factors[1] else y
        return x.copy_(y) if inplace else y
    return sample(x, dispatch.ready(plan(spec, tuple(x.shape))), key, generator, inplace, impl)


def sample(
    x: Tensor,
    ready: dispatch.Ready,
    key: Key | Whose | None = None,
    generator: torch.Generator | None = None,
    inplace: bool = False,
    impl: Impl | None = None,
) -> Tensor:
    """:func:`drop` in mode "sample", of a point that was made ready for the shape of ``x``."""
    if ready.plan.identity:
        return x
    if not (x.is_floating_point() or x.is_complex()):
        raise InputError(f"dropout needs a floating-point tensor, but got {x.dtype}; write x.float()")
    return dispatch.sample(x, ready, _belonging(key, ready.plan, generator), inplace, impl)


def mask(spec: Drop, shape: tuple[int, ...], key: Key | Whose, device: torch.device | None = None) -> Tensor:
    """Which elements of a tensor of ``shape`` are kept under ``key``: bool, True where kept, broadcasts to ``shape``.

    A mask is a function of its key, so it can be looked at without having been stored. ``spec`` has a Bernoulli law.
    """
    if not isinstance(spec.law, Bernoulli):
        raise InputError(f"only a Bernoulli law has a mask, but got {spec.law}")
    planned = plan(spec, shape)
    return dispatch.mask(planned, _belonging(key, planned), device)


def explain(x: Tensor, impl: Impl | None = None) -> str:
    """Which implementation draws for a tensor like ``x``, and why.

    >>> explain(torch.zeros(2, dtype=torch.complex64))
    'reference: the kernels do not take torch.complex64'
    """
    kind, why = dispatch.choose(x, impl)
    return f"{kind}{f' ({native.running()})' if kind == 'native' else ''}: {why}"


def _belonging(key: Key | Whose | None, planned: Plan, generator: torch.Generator | None = None) -> Whose:
    """Whose noise ``key`` means, checked against the plan's examples; without a key, fresh bits."""
    if key is None:
        return _whose.draw(generator)
    whose = _whose.of(key) if isinstance(key, Key) else key
    if whose.who is not None:
        check_samples(whose.who, planned.sample_axis, planned.samples)
    return whose


def check_samples(who: Tensor, axis: int | None, count: int) -> None:
    """Raise unless there is one id for each of ``count`` examples."""
    if axis is not None and who.shape[-1] != count:
        raise InputError(
            f"samples has to name each of the {count} examples on axis {axis}, but got {who.shape[-1]} ids; pass one id a "
            "row of the batch to key.at(step, samples=ids), and name the layout where the examples are on another axis, "
            'such as layout="t b d" or "(b t) d"'
        )


def _mode(training: bool) -> Mode:
    return "sample" if training else "mean"


def dropout(input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    """:func:`thinned.presets.dropout` on every element, as ``torch.nn.functional.dropout``.

    Unlike in torch, a NaN ``p`` is an error.
    """
    if isinstance(p, Tensor):  # the cache below knows a tensor by its identity alone
        p = float(p)
    if not training or not input.numel():
        return drop(input, presets.dropout(p), mode="off")  # evaluation is the identity
    return sample(input, _elementwise(p, tuple(input.shape)), None, None, inplace)


@lru_cache(maxsize=4096)
def _elementwise(p: float, shape: tuple[int, ...]) -> dispatch.Ready:
    return dispatch.ready(plan(presets.dropout(p), shape))


def dropout1d(input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    """:func:`thinned.presets.spatial` on [n, c, l] or unbatched [c, l], as ``torch.nn.functional.dropout1d``.

    Raises RuntimeError for other ranks.
    """
    return _channels(1, input, p, training, inplace)


def dropout2d(input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    """:func:`thinned.presets.spatial` on [n, c, h, w], as ``torch.nn.functional.dropout2d``.

    As in torch a 3-d input is read as [n, c, l], with a warning; for one image [c, h, w] write ``x.unsqueeze(0)``.
    """
    return _channels(2, input, p, training, inplace)


def dropout3d(input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    """:func:`thinned.presets.spatial` on [n, c, d, h, w] or unbatched [c, d, h, w], as ``torch.nn.functional.dropout3d``."""
    return _channels(3, input, p, training, inplace)


def alpha_dropout(input: Tensor, p: float = 0.5, training: bool = False, inplace: bool = False) -> Tensor:
    """:func:`thinned.presets.alpha`, as ``torch.nn.functional.alpha_dropout``: ``training`` is False by default, as there."""
    return drop(input, presets.alpha(p), mode=_mode(training), inplace=inplace)


def feature_alpha_dropout(input: Tensor, p: float = 0.5, training: bool = False, inplace: bool = False) -> Tensor:
    """:func:`thinned.presets.feature_alpha`, as ``torch.nn.functional.feature_alpha_dropout``."""
    return drop(input, presets.feature_alpha(p), mode=_mode(training), inplace=inplace)


def dropout_add(
    input: Tensor, residual: Tensor, p: float = 0.5, training: bool = True, *, key: Key | Whose | None = None
) -> Tensor:
    """``residual + dropout(input, p)``, in one pass over memory where the native kernels run.

    ``residual``: of a shape that broadcasts with ``input``. The end of a transformer's sublayer.
    """
    if not training or not input.numel() or p == 0:
        return residual + dropout(input, p, training)
    return dispatch.add(input, residual, *_drawn(input, p, key))


def dropout_add_layer_norm(
    input: Tensor,
    residual: Tensor,
    weight: Tensor,
    bias: Tensor,
    p: float = 0.5,
    training: bool = True,
    eps: float = 1e-5,
    *,
    key: Key | Whose | None = None,
) -> Tensor:
    """``layer_norm(residual + dropout(input, p))`` over the last axis: the end of a post-norm sublayer.

    ``weight`` and ``bias``: [d]. On a GPU with Triton the forward pass of [b, ..., d] is one kernel.
    """
    fits = input.shape == residual.shape and input.dim() > 1 and input.numel() > 0
    if training and 0 < p < 1 and fits and dispatch.choose(input)[0] == "triton":
        return dispatch.add_norm(input, residual, weight, bias, eps, *_drawn(input, p, key))
    total = dropout_add(input, residual, p, training, key=key)
    return torch.nn.functional.layer_norm(total, weight.shape, weight, bias, eps)


def bias_act_dropout(
    input: Tensor,
    bias: Tensor | None,
    activation: Literal["relu", "gelu"] = "relu",
    p: float = 0.5,
    training: bool = True,
    *,
    key: Key | Whose | None = None,
) -> Tensor:
    """``dropout(activation(input + bias), p)``, saving less: for ReLU one tensor instead of two and no mask.

    ``bias``: of a shape that broadcasts with ``input``, or None. The middle of a transformer's feed-forward layer.
    """
    if activation not in ("relu", "gelu"):
        raise unknown("activation", activation, ("relu", "gelu"))
    fits = bias is None or torch.broadcast_shapes(bias.shape, input.shape) == input.shape  # type: ignore[no-untyped-call]
    if training and input.numel() and 0 < p < 1 and activation == "relu" and fits:
        return dispatch.rectified(input, bias, *_drawn(input, p, key))
    x = input if bias is None else input + bias
    x = torch.relu(x) if activation == "relu" else torch.nn.functional.gelu(x)
    return drop(x, presets.dropout(p), mode=_mode(training), key=key)


def zoneout(new: Tensor, previous: Tensor, p: float = 0.5, training: bool = True, *, key: Key | Whose | None = None) -> Tensor:
    """Zoneout: each unit of a recurrent state keeps its previous value with probability ``p``.

    ``new`` and ``previous``: [b, ..., d]. previous + m (new - previous) while training, previous + (1 - p)(new - previous)
    in evaluation, which is the mean. p = 0 is the plain recurrence, p = 1 a state that never moves.

    Krueger et al. 2017, "Zoneout: regularizing RNNs by randomly preserving hidden activations", section 3.2.
    """
    if new.shape != previous.shape:
        raise InputError(f"new and previous have to be of one shape, but got {list(new.shape)} and {list(previous.shape)}")
    return previous + drop(new - previous, presets.dropout(p, "classic"), mode=_mode(training), key=key)


def mixout(
    weight: Tensor, pretrained: Tensor, p: float = 0.5, training: bool = True, *, key: Key | Whose | None = None
) -> Tensor:
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
    key: Key | Whose | None = None,
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


def embedding_dropout(
    ids: Tensor, weight: Tensor, p: float = 0.1, training: bool = True, *, key: Key | Whose | None = None
) -> Tensor:
    """An embedding whose words fall: one coin for each row of the table, so a word falls wherever it stands in the batch.

    ``ids`` whole numbers in [0, n), any shape; ``weight`` [n, d]; the result [*ids.shape, d], survivors divided by 1 - p.
    The coins belong to the call, not to examples: a key's samples take no part.

    Gal and Ghahramani 2016, section 4.2. Raises :class:`thinned.InputError` for ids outside the table.
    """
    if ids.numel() and (int(ids.min()) < 0 or int(ids.max()) >= len(weight)):
        wrong = int(ids.min()) if int(ids.min()) < 0 else int(ids.max())
        raise InputError(f"ids have to be at least 0 and below {len(weight)}, the rows of the table, but got {wrong}")
    coins = replace(presets.dropout(p), per="v", of="v d")
    return torch.nn.functional.embedding(ids, drop(weight, coins, key=key) if training else weight)


def word_dropout(
    ids: Tensor, unknown_id: int, p: float = 0.1, training: bool = True, *, key: Key | Whose | None = None
) -> Tensor:
    """Word dropout: each token becomes ``unknown_id`` with probability ``p``; nothing is scaled. ``ids`` [b, ...] of integers.

    Iyyer, Manjunatha, Boyd-Graber, Daume 2015, "Deep unordered composition rivals syntactic methods", section 2.3.
    """
    if not training or not ids.numel():
        return ids
    return ids.masked_fill(~_mask_of(ids, presets.dropout(p), key), unknown_id)


def drop_head(heads: Tensor, p: float = 0.1, training: bool = True, *, key: Key | Whose | None = None) -> Tensor:
    """DropHead: whole attention heads fall, and the rest is scaled so that the sum over heads keeps its weight.

    ``heads`` [b, h, ...], before the output projection; ``p`` in [0, 1). One coin for each example and head; survivors are
    multiplied by h / (how many stayed) in their example. Where all h heads of an example would fall (probability p^h), all
    stay: published code divides by zero there.

    Zhou, Ge, Wei, Zhou, Xu 2020, "Scheduled DropHead", section 3.
    """
    if heads.dim() < 3:
        raise InputError(f"drop_head needs heads of shape [b, h, ...], but got {list(heads.shape)}")
    probability(p, "the rate of heads", below_one=True)
    if not training or p == 0 or not heads.numel():
        return heads
    stays = _some(_mask_of(heads, replace(presets.dropout(p), per="b h", of="b h *"), key), 1)
    return heads * (stays * (heads.shape[1] / stays.sum(1, keepdim=True))).to(heads.dtype)


def drop_key(scores: Tensor, p: float = 0.1, training: bool = True, *, key: Key | Whose | None = None) -> Tensor:
    """DropKey: attention scores fall to -inf before the softmax, so that the rest still sums to 1.

    ``scores`` [b, ..., keys]; ``p`` in [0, 1). One coin for each element. Where all keys of a query would fall, all stay,
    so the softmax is never NaN. Keys that a mask already put at -inf may be all that stays: apply that mask after this and
    such rows are yours to handle, as they are without dropout.

    Li, Hu, Nie, Zhang, Sebe, Wang 2023, "DropKey", equation 5.
    """
    probability(p, "the rate of keys", below_one=True)
    if not training or p == 0 or not scores.numel():
        return scores
    stays = _some(_mask_of(scores, presets.dropout(p), key), -1)
    return scores.masked_fill(~stays, -math.inf)


def _mask_of(x: Tensor, spec: Drop, key: Key | Whose | None) -> Tensor:
    planned = plan(spec, tuple(x.shape))
    return dispatch.mask(planned, _belonging(key, planned), x.device)


def _some(stays: Tensor, axis: int) -> Tensor:
    """The mask, with all where along ``axis`` nothing would stay."""
    return stays | ~stays.any(axis, keepdim=True)


def _drawn(x: Tensor, p: float, key: Key | Whose | None) -> tuple[dispatch.Ready, Whose]:
    ready = _elementwise(float(p), tuple(x.shape))
    return ready, _belonging(key, ready.plan)


_SHAPES = {1: "[n, c, l] or [c, l]", 2: "[n, c, h, w]", 3: "[n, c, d, h, w] or [c, d, h, w]"}


def laid_out(spec: Drop, x: Tensor, dims: int, name: str) -> Drop:
    """``spec`` of layout ``b c *`` made ready for ``x``, a map of ``dims`` axes: torch's rules for its rank.

    Unbatched [c, l] and [c, d, h, w] are read as such; [c, h, w] cannot be told from [n, c, l].
    """
    if x.dim() == dims + 2:
        return spec
    if spec.of != "b c *" or (spec.per not in ("b c", "b c *") and not isinstance(spec.per, Block)):
        return spec  # coins of another layout: the rank does not matter
    if x.dim() == dims + 1 and dims != 2:
        per = replace(spec.per, per="c *") if isinstance(spec.per, Block) else spec.per.replace("b ", "")
        return replace(spec, per=per, of="c *")
    message = f"{name}: expected an input of shape {_SHAPES[dims]}, but got {list(x.shape)}"
    if dims == 1 or x.dim() < 2 or isinstance(spec.per, Block):
        raise RuntimeError(f"{message}; for one example write x.unsqueeze(0)")
    reading = "it is read as [n, c, l]" if x.dim() == 3 else "each of the first two axes has its own coins"
    warnings.warn(f"{message}; {reading}. Add a batch axis, or use the function for this rank.", stacklevel=3)
    return spec


def _channels(dims: int, x: Tensor, p: float, training: bool, inplace: bool) -> Tensor:
    spec = laid_out(presets.spatial(p), x, dims, f"dropout{dims}d")
    return drop(x, spec, mode=_mode(training), inplace=inplace)
