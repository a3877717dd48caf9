"""What happens to a recurrent state, and the cells that it happens in.

Inputs [t, b, d], states [b, h], weights as torch's recurrent modules hold them. Where no state
falls torch's own kernels run; else a loop over steps, with the product of the inputs of all steps
taken at once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Literal, NamedTuple, TypeAlias

import torch
from torch import Tensor

from .. import presets
from . import lstm
from .core import Keyed, Rate, bernoulli_mask, drop, dropped, factor, fold_in, one_shape
from .lstm import Noise
from .torch_functions import mode_of

Kind = Literal["lstm", "gru", "rnn_tanh", "rnn_relu"]
Method = Literal["variational", "recurrent", "rnndrop", "zoneout"]
States: TypeAlias = tuple[Tensor, ...]  # (h,), or (h, c) of an LSTM


def zoneout(
    new: Tensor, previous: Tensor, p: float = 0.5, training: bool = True, *, key: Keyed = None
) -> Tensor:
    """Zoneout: each unit of a recurrent state keeps its previous value with probability ``p``.

    ``new`` and ``previous``: [b, ..., d]. previous + m (new - previous) while training, previous +
    (1 - p)(new - previous) in evaluation, which is the mean. p = 0 is the plain recurrence, p = 1 a
    state that never moves.

    Krueger et al. 2017, "Zoneout: regularizing RNNs by randomly preserving hidden activations",
    section 3.2.
    """
    one_shape(new, previous, "new and previous")
    return previous + drop(
        new - previous, presets.dropout(p, "classic"), mode=mode_of(training), key=key
    )


class Network(NamedTuple):
    """What a recurrent network is, without its weights."""

    kind: Kind
    layers: int
    directions: int
    hidden: int
    bias: bool

    @property
    def gates(self) -> int:
        return {"lstm": 4, "gru": 3}.get(self.kind, 1)


class Falling(NamedTuple):
    """How states fall: see :class:`thinned.nn.DropState`."""

    method: Method
    each_step: bool
    tied: bool
    inverted: bool


_SITES = 7  # draws of a layer: its input, then for both directions weights, states, cells


def stack(
    x: Tensor,
    state: States,
    weights: Sequence[Tensor],
    network: Network,
    rates: Mapping[str, Rate],
    falling: Falling,
    training: bool = True,
    *,
    key: Keyed = None,
) -> tuple[Tensor, States]:
    """A stack of recurrent layers under the ``rates`` that are not 0; see
    :class:`thinned.nn.DropState`.

    ``x`` [t, b, d]; ``state`` each [layers x directions, b, h]; ``weights`` in the order of torch's
    module. The result is torch's: outputs [t, b, directions x h], and the last states.
    """
    if not training:
        rates = {} if falling.inverted else {n: rates[n] for n in ("states", "cells") if n in rates}
    each = 4 if network.bias else 2
    groups = [list(weights[i : i + each]) for i in range(0, len(weights), each)]
    if "weights" in rates:
        for n, group in enumerate(groups):
            at = _SITES * (n // network.directions) + 1 + n % network.directions
            group[1] = weight_drop(group[1], rates["weights"], key=fold_in(key, at))
    x = _locked(x, rates.get("inputs", 0.0), key=key)
    noisy = "states" in rates or "cells" in rates
    if not noisy and "between" not in rates:
        x, state = _fused(network, x, state, groups)
    else:
        x, state = _layers(
            network, x, state, groups, rates, falling if noisy else None, training, key
        )
    if "outputs" in rates:
        x = _locked(x, rates["outputs"], key=fold_in(key, _SITES * network.layers))
    return x, state


def _locked(x: Tensor, p: Rate, *, key: Keyed = None) -> Tensor:
    """:func:`thinned.presets.locked` on [t, b, d], also where the rate is a tensor."""
    if not isinstance(p, Tensor) and p == 0:
        return x
    return dropped(x, p, key, "b d", "t b d")


def weight_drop(
    weight: Tensor, p: Rate = 0.5, training: bool = True, *, key: Keyed = None
) -> Tensor:
    """The recurrent weights [o, i] of a call, each of them 0 with probability ``p``, the rest
    divided by 1 - p.

    One mask for all examples and steps of the call; the weight itself is not written to. Evaluation
    is the weight.

    Merity, Keskar, Socher 2018, "Regularizing and optimizing LSTM language models", section 2.
    """
    if not training or (not isinstance(p, Tensor) and p == 0):
        return weight
    return dropped(weight, p, key, "o i", "o i")


def _layers(
    network: Network, x: Tensor, state: States, groups: list[list[Tensor]], rates: Mapping[str, Rate],
    falling: Falling | None, training: bool, key: Keyed,
) -> tuple[Tensor, States]:  # fmt: skip
    """Layer by layer, with what falls between them."""
    ends: list[States] = []
    for layer in range(network.layers):
        own = slice(layer * network.directions, (layer + 1) * network.directions)
        start = tuple(s[own] for s in state)
        if layer and "between" in rates:
            x = _locked(x, rates["between"], key=fold_in(key, _SITES * layer))
        if falling is None:
            x, end = _fused(network._replace(layers=1), x, start, groups[own])
            ends.append(end)
            continue
        ways = []
        for way, group in enumerate(groups[own]):
            site = _SITES * layer + 3 + way
            noise = _noise(
                network, falling, rates, (*x.shape[:2], network.hidden), training, key, site, x
            )
            read = x.flip(0) if way else x
            y, end = _loop(network.kind, read, tuple(s[way] for s in start), group, noise)
            ways.append(y.flip(0) if way else y)
            ends.append(tuple(s.unsqueeze(0) for s in end))
        x = ways[0] if len(ways) == 1 else torch.cat(ways, -1)
    return x, tuple(torch.cat(parts) for parts in zip(*ends, strict=True))


def _fused(
    network: Network, x: Tensor, state: States, groups: list[list[Tensor]]
) -> tuple[Tensor, States]:
    """torch's own kernel."""
    rest = (
        network.bias,
        network.layers,
        0.0,
        torch.is_grad_enabled(),
        network.directions == 2,
        False,
    )
    run: Any = getattr(torch, network.kind)
    y, *end = run(
        x,
        state if network.kind == "lstm" else state[0],
        [w for group in groups for w in group],
        *rest,
    )
    return y, tuple(end)


def _noise(
    network: Network, falling: Falling, rates: Mapping[str, Rate], shape: tuple[int, ...], training: bool, key: Keyed,
    site: int, like: Tensor,
) -> Noise:  # fmt: skip
    """The draws of one layer and direction; in evaluation what stands for them."""
    p = rates.get("states", 0.0)
    method, each_step, tied, inverted = falling

    def moves(p: Rate, which: int) -> Tensor | float | None:
        if not isinstance(p, Tensor) and p == 0:
            return None
        return (
            bernoulli_mask(shape, p, fold_in(key, which), like, "t b d", "t b d")
            if training
            else 1.0 - p
        )

    if method == "zoneout":
        return Noise(moves=moves(p, site), cell_moves=moves(rates.get("cells", 0.0), site + 2))
    mask: Tensor | float = 1.0 - p
    if training:
        shape, per, of = (
            (shape, "t b d" if each_step else "b d", "t b d")
            if tied
            else ((network.gates, *shape[1:]), *_GATES)
        )
        mask = (factor if inverted else bernoulli_mask)(shape, p, fold_in(key, site), like, per, of)
        mask = mask[0] if tied and not each_step else mask
    return Noise(**{_PLACES[method]: mask})


_GATES = ("g b d", "g b d")
_PLACES = {"variational": "hidden", "recurrent": "candidate", "rnndrop": "cell"}


def _loop(
    kind: Kind, x: Tensor, state: States, weights: list[Tensor], noise: Noise
) -> tuple[Tensor, States]:
    """One layer in one direction, step by step."""
    inward, weight, *biases = weights
    bias, own = biases or (None, None)
    if (
        kind != "gru" and bias is not None and own is not None
    ):  # a GRU's reset gate stands between the two
        bias, own = bias + own, None
    if kind == "lstm" and lstm.fits(x, noise):
        y, h, c = lstm.LSTMLayerFunction.apply(x, *state, inward, weight, bias, noise, _readable)  # type: ignore[no-untyped-call]
        return y, (h, c)
    gates = torch.nn.functional.linear(x, inward, bias)
    if (
        kind != "gru" or x.device.type != "cpu"
    ):  # there autocast leaves the states of torch's GRU as they are
        state = tuple(s.to(gates.dtype) for s in state)
    ys, state = _CELLS[kind](gates.unbind(0), state, weight, own, noise)
    return torch.stack(ys), state


def _readable(
    x: Tensor,
    h: Tensor,
    c: Tensor,
    inward: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    noise: Noise,
) -> tuple[Tensor, Tensor, Tensor]:
    """:class:`thinned.functional.lstm.Layer` by autograd."""
    ys, (h, c) = _lstm(
        torch.nn.functional.linear(x, inward, bias).unbind(0), (h, c), weight, None, noise
    )
    return torch.stack(ys), h, c


def _lstm(
    gates: Sequence[Tensor], state: States, weight: Tensor, bias: Tensor | None, noise: Noise
) -> tuple[list[Tensor], States]:
    h, c = state
    candidate, moves, cell_moves = _steps(noise, len(gates), h)
    ys = []
    for t, gate in enumerate(gates):
        i, f, g, o = _meet(gate, h, weight, noise.hidden).chunk(4, 1)
        fresh = torch.addcmul(_times(i.sigmoid() * g.tanh(), candidate[t]), f.sigmoid(), c)
        fresh = _times(fresh, noise.cell)
        h = _moved(h, o.sigmoid() * fresh.tanh(), moves[t])
        c = _moved(c, fresh, cell_moves[t])
        ys.append(h)
    return ys, (h, c)


def _gru(
    gates: Sequence[Tensor], state: States, weight: Tensor, bias: Tensor | None, noise: Noise
) -> tuple[list[Tensor], States]:
    (h,) = state
    candidate, moves, _ = _steps(noise, len(gates), h)
    sizes = [2 * h.shape[-1], h.shape[-1]]
    ys = []
    for t, gate in enumerate(gates):
        both, new = torch.split(gate, sizes, 1)
        both_h, new_h = torch.split(_meet(bias, h, weight, noise.hidden), sizes, 1)
        r, z = (both + both_h).sigmoid().chunk(2, 1)
        n = _times(torch.addcmul(new, r, new_h).tanh(), candidate[t])
        h = _moved(h, torch.addcmul(n, z, h - n), moves[t])
        ys.append(h)
    return ys, (h,)


def _rnn(
    act: Callable[[Tensor], Tensor],
    gates: Sequence[Tensor],
    state: States,
    weight: Tensor,
    bias: Tensor | None,
    noise: Noise,
) -> tuple[list[Tensor], States]:
    (h,) = state
    _, moves, _ = _steps(noise, len(gates), h)
    ys = []
    for t, gate in enumerate(gates):
        h = _moved(h, act(_meet(gate, h, weight, noise.hidden)), moves[t])
        ys.append(h)
    return ys, (h,)


_CELLS: dict[Kind, Callable[..., tuple[list[Tensor], States]]] = {
    "lstm": _lstm,
    "gru": _gru,
    "rnn_tanh": partial(_rnn, torch.tanh),
    "rnn_relu": partial(_rnn, torch.relu),
}


def _meet(base: Tensor | None, h: Tensor, weight: Tensor, mask: Tensor | float | None) -> Tensor:
    """base + W h, of what the mask leaves of h: [b, gates x h]."""
    h = _times(h, mask)
    if h.dim() == 3:
        y = (
            torch.bmm(h, weight.reshape(len(h), -1, h.shape[-1]).transpose(1, 2))
            .transpose(0, 1)
            .flatten(1)
        )
        return y if base is None else base + y
    return h @ weight.t() if base is None else torch.addmm(base, h, weight.t())


def _steps(noise: Noise, steps: int, like: Tensor) -> list[Sequence[Any]]:
    """Candidate, moves and cell_moves, step by step."""
    each: list[Sequence[Any]] = []
    for field in (noise.candidate, noise.moves, noise.cell_moves):
        if not isinstance(field, Tensor):
            each.append([field] * steps)
            continue
        field = field.to(like.dtype) if field.dtype == torch.bool else field
        each.append(field.expand(steps, *field.shape[-2:]).unbind(0))
    return each


def _times(x: Tensor, by: Tensor | float | None) -> Tensor:
    return x if by is None else (x * by).to(x.dtype)


def _moved(old: Tensor, new: Tensor, by: Tensor | float | None) -> Tensor:
    return new if by is None else torch.lerp(old, new, by)
