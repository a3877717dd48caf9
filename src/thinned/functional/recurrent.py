"""Dropout in recurrent networks: of states, of recurrent weights, and between layers.

Inputs are [t, b, d], states [b, h], weights as in the recurrent modules of torch. Without noise on
the states the kernels of torch run; otherwise a loop over steps, with the products of the inputs
of all steps computed at once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Literal, NamedTuple, TypeAlias

import torch
from torch import Tensor
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from .. import presets
from . import lstm, thinning
from .core import (
    KeyLike,
    Rate,
    bernoulli_mask,
    check_same_shape,
    drop,
    fold_in,
    inverted_dropout,
    keep_factor,
    resolve_key,
)
from .inputs import dense_inputs
from .lstm import StateFactors
from .torch_functions import mode_of

Kind = Literal["lstm", "gru", "rnn_tanh", "rnn_relu"]
Method = Literal["variational", "recurrent", "rnndrop", "zoneout", "thinned"]
States: TypeAlias = tuple[Tensor, ...]  # (h,), or (h, c) of an LSTM


@dense_inputs
def zoneout(
    new: Tensor, previous: Tensor, p: float = 0.5, training: bool = True, *, key: KeyLike = None
) -> Tensor:
    """Zoneout: each unit of a recurrent state keeps its previous value with probability ``p``.

    previous + m (new - previous) while training, and in evaluation the mean,
    previous + (1 - p)(new - previous). p = 0 is the ordinary recurrence, p = 1 a constant state.

    Args:
        new: [b, ..., d], the state that the network computes.
        previous: The state of the previous step, of the same shape.
        p: The probability that a unit keeps its previous value, in [0, 1].
        training: Whether to draw; False computes the evaluation.
        key: The random key; equal keys draw equal noise. None takes 64 bits of torch's generator.

    Returns:
        A tensor of the shape of ``new``.

    Raises:
        InputError: Where the shapes differ, or ``p`` is not in [0, 1].

    Example:
        >>> from thinned import Key
        >>> zoneout(torch.ones(2, 6), torch.zeros(2, 6), 0.5, key=Key(seed=1))
        tensor([[0., 0., 1., 0., 1., 0.],
                [1., 1., 1., 1., 1., 0.]])

    Reference:
        Krueger et al. 2017, "Zoneout: regularizing RNNs by randomly preserving hidden activations",
        section 3.2.
    """
    check_same_shape(new, previous, "new and previous")
    return previous + drop(
        new - previous, presets.dropout(p, "classic"), mode=mode_of(training), key=key
    )


class Network(NamedTuple):
    """The structure of a recurrent network, without its weights."""

    kind: Kind
    layers: int
    directions: int
    hidden: int
    bias: bool
    projection: int = 0  # the size of h in an LSTM with proj_size; 0 is that of c

    @property
    def gates(self) -> int:
        return {"lstm": 4, "gru": 3}.get(self.kind, 1)

    @property
    def state_sizes(self) -> tuple[int, ...]:
        """The sizes of h, and of c in an LSTM."""
        size = self.projection or self.hidden
        return (size, self.hidden) if self.kind == "lstm" else (size,)

    @property
    def tensors(self) -> int:
        """The number of weights and biases in each layer and direction."""
        return (4 if self.bias else 2) + (self.projection > 0)


class StateNoise(NamedTuple):
    """How the noise on states is drawn: see :class:`thinned.nn.DropState`."""

    method: Method
    per_step: bool
    tied_gates: bool
    inverted: bool


_DRAWS = 7  # of a layer: 0 its input; for both directions 1, 2 weights; 3, 4 states; 5, 6 cells


def recurrent_stack(
    x: Tensor,
    state: States,
    weights: Sequence[Tensor],
    network: Network,
    rates: Mapping[str, Rate],
    state_noise: StateNoise,
    training: bool = True,
    *,
    locked: bool = True,
    key: KeyLike = None,
    lengths: Tensor | None = None,
) -> tuple[Tensor, States]:
    """Runs a stack of recurrent layers with dropout at the ``rates`` that are not 0.

    ``x`` [t, b, d]; ``state`` each [layers x directions, b, h]; ``weights`` in the order of the
    module of torch. Returns, as torch does, the outputs [t, b, directions x h] and the last states.
    The rates are those of :class:`thinned.nn.DropState`, and so is ``locked``. With ``lengths``
    [b], on the CPU, example n ends after ``lengths[n]`` steps: its last state is that of its own
    last step, its backward direction starts there, and its outputs from there on have no meaning.
    """
    if not training:
        rates = (
            {} if state_noise.inverted else {n: rates[n] for n in ("states", "cells") if n in rates}
        )
    count = network.tensors
    groups = [list(weights[i : i + count]) for i in range(0, len(weights), count)]
    if "weights" in rates:
        for n, group in enumerate(groups):
            draw = _DRAWS * (n // network.directions) + 1 + n % network.directions
            group[1] = weight_drop(group[1], rates["weights"], key=fold_in(key, draw))
    x = _locked_dropout(x, rates.get("inputs", 0.0), key=key)
    noisy = "states" in rates or "cells" in rates
    if noisy and state_noise.method == "thinned":
        x, state = _thinned_stack(network, x, state, groups, float(rates["states"]), key, lengths)
    elif not noisy and "between" not in rates:
        x, state = _torch_kernel(network, x, state, groups, lengths)
    else:
        noise = state_noise if noisy else None
        x, state = _layer_by_layer(
            network, x, state, groups, rates, noise, training, locked, key, lengths
        )
    if "outputs" in rates:
        x = _locked_dropout(x, rates["outputs"], key=fold_in(key, _DRAWS * network.layers))
    return x, state


def _locked_dropout(x: Tensor, p: Rate, *, key: KeyLike = None) -> Tensor:
    """:func:`thinned.presets.locked_dropout` on [t, b, d], also where the rate is a tensor."""
    if not isinstance(p, Tensor) and p == 0:
        return x
    return inverted_dropout(x, p, key, "b d", "t b d")


@dense_inputs
def weight_drop(
    weight: Tensor, p: Rate = 0.5, training: bool = True, *, key: KeyLike = None
) -> Tensor:
    """WeightDrop: drops recurrent weights, with one mask for all examples and steps of a call.

    w m / (1 - p) while training, ``weight`` in evaluation. The weight itself is not written to.

    Args:
        weight: [o, i], hidden-to-hidden weights.
        p: The rate of dropping, in [0, 1].
        training: Whether to draw; False computes the evaluation.
        key: The random key; equal keys draw equal noise. None takes 64 bits of torch's generator.

    Returns:
        A tensor of the shape and dtype of ``weight``.

    Raises:
        InputError: Where ``p`` is not in [0, 1].

    Example:
        >>> from thinned import Key
        >>> weight_drop(torch.ones(2, 4), 0.5, key=Key(seed=1))
        tensor([[0., 0., 2., 0.],
                [2., 0., 0., 2.]])

    Reference:
        Merity, Keskar, Socher 2018, "Regularizing and optimizing LSTM language models", section 2.
    """
    if not training or (not isinstance(p, Tensor) and p == 0):
        return weight
    return inverted_dropout(weight, p, key, "o i", "o i")


def _layer_by_layer(
    network: Network,
    x: Tensor,
    state: States,
    groups: list[list[Tensor]],
    rates: Mapping[str, Rate],
    state_noise: StateNoise | None,
    training: bool,
    locked: bool,
    key: KeyLike,
    lengths: Tensor | None,
) -> tuple[Tensor, States]:
    """Layer by layer, with dropout between them or on their states."""
    ends: list[States] = []
    running = None  # [t, b, 1], 1 where the example has not ended
    if lengths is not None:
        steps = torch.arange(len(x), device=x.device).unsqueeze(1)
        running = (steps < lengths.to(x.device)).unsqueeze(2).to(x.dtype)
    for layer in range(network.layers):
        own = slice(layer * network.directions, (layer + 1) * network.directions)
        start = tuple(s[own] for s in state)
        if layer and "between" in rates:
            of = "b d" if locked else "t b d"
            x = inverted_dropout(x, rates["between"], fold_in(key, _DRAWS * layer), of, "t b d")
        if state_noise is None:
            x, end = _torch_kernel(network._replace(layers=1), x, start, groups[own], lengths)
            ends.append(end)
            continue
        outputs = []
        for direction, group in enumerate(groups[own]):
            draw = _DRAWS * layer + 3 + direction
            noise = _state_factors(network, state_noise, rates, training, key, draw, x)
            if running is not None:
                ordered = running.flip(0) if direction else running
                noise = _hold(noise, ordered, network.state_sizes)
            ordered = x.flip(0) if direction else x
            y, end = _loop(network.kind, ordered, tuple(s[direction] for s in start), group, noise)
            outputs.append(y.flip(0) if direction else y)
            ends.append(tuple(s.unsqueeze(0) for s in end))
        x = outputs[0] if len(outputs) == 1 else torch.cat(outputs, -1)
    return x, tuple(torch.cat(parts) for parts in zip(*ends, strict=True))


def _thinned_stack(
    network: Network,
    x: Tensor,
    state: States,
    groups: list[list[Tensor]],
    p: float,
    key: KeyLike,
    lengths: Tensor | None,
) -> tuple[Tensor, States]:
    """Layer by layer by the kernel of torch on the kept units alone, one set for a whole call.

    A unit's state is read by its own gates, by the recurrent weights and as output. Where the last
    two are dropped, nothing depends on it, so its gates need not be computed. The scale of what the
    weights read is folded into their kept columns.
    """
    n, directions = network.hidden, network.directions
    count = thinning.kept_count(n, p)
    if count == 0:
        nothing = x.masked_fill(torch.ones((), dtype=torch.bool, device=x.device), 0.0).sum()
        y = nothing.expand(*x.shape[:2], directions * n)
        return y, tuple(torch.zeros_like(s) for s in state)
    scale = n / count
    tensor_key = resolve_key(key)
    small = network._replace(layers=1, hidden=count)
    ends: list[States] = []
    inputs: Tensor | None = None  # the units of the layer before that are kept
    for layer in range(network.layers):
        parts, units = [], []
        for direction in range(directions):
            draw = fold_in(tensor_key, _DRAWS * layer + 3 + direction)
            kept = thinning.draw_patterns(n, p, draw, device=x.device)[0]
            rows = torch.cat([kept + gate * n for gate in range(network.gates)])
            w_ih, w_hh, *biases = groups[layer * directions + direction]
            b_ih, b_hh = biases if biases else (None, None)
            part_ih, b_ih = thinning.kept_part(w_ih, b_ih, inputs, rows)
            part_hh, b_hh = thinning.kept_part(w_hh, b_hh, kept, rows)
            part_ih = part_ih if inputs is None else part_ih * scale
            parts.append([part_ih, part_hh * scale, *(b for b in (b_ih, b_hh) if b is not None)])
            units.append(kept)
        own = slice(layer * directions, (layer + 1) * directions)
        start = tuple(
            torch.stack([s[own][d].index_select(-1, kept) for d, kept in enumerate(units)])
            for s in state
        )
        x, end = _torch_kernel(small, x, start, parts, lengths)
        ends.append(
            tuple(
                torch.stack([_put_units(s[d], kept, n) for d, kept in enumerate(units)])
                for s in end
            )
        )
        inputs = torch.cat([kept + d * n for d, kept in enumerate(units)])
    assert inputs is not None
    y = _put_units(x * scale, inputs, directions * n)
    return y, tuple(torch.cat(of_layers) for of_layers in zip(*ends, strict=True))


def _put_units(x: Tensor, units: Tensor, n: int) -> Tensor:
    """``n`` units on the last axis that hold ``x`` at ``units``, and 0 elsewhere."""
    return x.new_zeros(*x.shape[:-1], n).index_copy(-1, units, x)


def _torch_kernel(
    network: Network,
    x: Tensor,
    state: States,
    groups: list[list[Tensor]],
    lengths: Tensor | None,
) -> tuple[Tensor, States]:
    """The kernel of torch."""
    rest = (
        [w for group in groups for w in group],
        network.bias,
        network.layers,
        0.0,
        torch.is_grad_enabled(),
        network.directions == 2,
        False,
    )
    run: Any = getattr(torch, network.kind)
    if lengths is None:
        y, *end = run(x, state if network.kind == "lstm" else state[0], *rest)
        return y, tuple(end)
    packed = pack_padded_sequence(x, lengths, enforce_sorted=False)
    state = tuple(s.index_select(1, packed.sorted_indices) for s in state)  # type: ignore[arg-type]
    start = state if network.kind == "lstm" else state[0]
    y, *end = run(packed.data, packed.batch_sizes, start, *rest[:-1])
    padded, _ = pad_packed_sequence(packed._replace(data=y), total_length=len(x))
    return padded, tuple(s.index_select(1, packed.unsorted_indices) for s in end)


def _hold(noise: StateFactors, running: Tensor, sizes: tuple[int, ...]) -> StateFactors:
    """``noise`` in which examples that have ended keep their states, as units under zoneout do."""

    def held(factor: Tensor | float | None, size: int) -> Tensor:
        return running.expand(-1, -1, size) * (1.0 if factor is None else factor)

    noise = noise._replace(update=held(noise.update, sizes[0]))
    if len(sizes) == 1:
        return noise
    return noise._replace(cell_update=held(noise.cell_update, sizes[1]))


def _state_factors(
    network: Network,
    state_noise: StateNoise,
    rates: Mapping[str, Rate],
    training: bool,
    key: KeyLike,
    draw: int,
    like: Tensor,
) -> StateFactors:
    """The draws of one layer and direction; in evaluation the numbers that replace them."""
    p = rates.get("states", 0.0)
    method, per_step, tied_gates, inverted = state_noise
    of_state, of_memory = network.state_sizes[0], network.hidden
    shape: tuple[int, ...]

    def zoneout_factor(p: Rate, index: int, size: int) -> Tensor | float | None:
        if not isinstance(p, Tensor) and p == 0:
            return None
        if not training:
            return 1.0 - p
        shape = (*like.shape[:2], size)
        return bernoulli_mask(shape, p, fold_in(key, index), like, "t b d", "t b d")

    if method == "zoneout":
        return StateFactors(
            update=zoneout_factor(p, draw, of_state),
            cell_update=zoneout_factor(rates.get("cells", 0.0), draw + 2, of_memory),
        )
    shape = (*like.shape[:2], of_state if method == "variational" else of_memory)
    mask: Tensor | float = 1.0 - p
    if training:
        shape, per, of = (
            (shape, "t b d" if per_step else "b d", "t b d")
            if tied_gates
            else ((network.gates, *shape[1:]), *_GATES)
        )
        mask = (keep_factor if inverted else bernoulli_mask)(
            shape, p, fold_in(key, draw), like, per, of
        )
        mask = mask[0] if tied_gates and not per_step else mask
    return StateFactors(**{_FIELDS[method]: mask})


_GATES = ("g b d", "g b d")  # per, of: a mask for each gate
_FIELDS = {"variational": "hidden", "recurrent": "candidate", "rnndrop": "cell"}


def _loop(
    kind: Kind, x: Tensor, state: States, weights: list[Tensor], noise: StateFactors
) -> tuple[Tensor, States]:
    """One layer in one direction, step by step."""
    weight_ih, weight, *rest = weights
    projection = rest.pop() if len(rest) % 2 else None
    bias, own = rest or (None, None)
    # in a GRU the reset gate multiplies the second bias, so the two cannot be added
    if kind != "gru" and bias is not None and own is not None:
        bias, own = bias + own, None
    if kind == "lstm" and projection is None and lstm.is_supported(x, noise):
        y, h, c = lstm.LSTMLayerFunction.apply(
            x, *state, weight_ih, weight, bias, noise, _reference_lstm
        )  # type: ignore[no-untyped-call]
        return y, (h, c)
    gates = torch.nn.functional.linear(x, weight_ih, bias)
    # on the CPU autocast does not convert the states of torch's GRU
    if kind != "gru" or x.device.type != "cpu":
        state = tuple(s.to(gates.dtype) for s in state)
    second = own if projection is None else projection  # the biases of an LSTM were added above
    ys, state = _CELLS[kind](gates.unbind(0), state, weight, second, noise)
    return torch.stack(ys), state


def _reference_lstm(
    x: Tensor,
    h: Tensor,
    c: Tensor,
    weight_ih: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    noise: StateFactors,
) -> tuple[Tensor, Tensor, Tensor]:
    """:class:`thinned.functional.lstm.LSTMLayerFunction` by autograd."""
    ys, (h, c) = _lstm(
        torch.nn.functional.linear(x, weight_ih, bias).unbind(0), (h, c), weight, None, noise
    )
    return torch.stack(ys), h, c


def _lstm(
    gates: Sequence[Tensor],
    state: States,
    weight: Tensor,
    projection: Tensor | None,
    noise: StateFactors,
) -> tuple[list[Tensor], States]:
    h, c = state
    candidate, update, cell_update = _steps(noise, len(gates), h)
    ys = []
    for t, gate in enumerate(gates):
        i, f, g, o = _add_recurrent(gate, h, weight, noise.hidden).chunk(4, 1)
        fresh = torch.addcmul(_multiply(i.sigmoid() * g.tanh(), candidate[t]), f.sigmoid(), c)
        fresh = _multiply(fresh, noise.cell)
        new = o.sigmoid() * fresh.tanh()
        new = new if projection is None else new @ projection.t()
        h = _interpolate(h, new, update[t])
        c = _interpolate(c, fresh, cell_update[t])
        ys.append(h)
    return ys, (h, c)


def _gru(
    gates: Sequence[Tensor], state: States, weight: Tensor, bias: Tensor | None, noise: StateFactors
) -> tuple[list[Tensor], States]:
    (h,) = state
    candidate, update, _ = _steps(noise, len(gates), h)
    sizes = [2 * h.shape[-1], h.shape[-1]]
    ys = []
    for t, gate in enumerate(gates):
        both, new = torch.split(gate, sizes, 1)
        both_h, new_h = torch.split(_add_recurrent(bias, h, weight, noise.hidden), sizes, 1)
        r, z = (both + both_h).sigmoid().chunk(2, 1)
        n = _multiply(torch.addcmul(new, r, new_h).tanh(), candidate[t])
        h = _interpolate(h, torch.addcmul(n, z, h - n), update[t])
        ys.append(h)
    return ys, (h,)


def _rnn(
    act: Callable[[Tensor], Tensor],
    gates: Sequence[Tensor],
    state: States,
    weight: Tensor,
    bias: Tensor | None,
    noise: StateFactors,
) -> tuple[list[Tensor], States]:
    (h,) = state
    _, update, _ = _steps(noise, len(gates), h)
    ys = []
    for t, gate in enumerate(gates):
        h = _interpolate(h, act(_add_recurrent(gate, h, weight, noise.hidden)), update[t])
        ys.append(h)
    return ys, (h,)


_CELLS: dict[Kind, Callable[..., tuple[list[Tensor], States]]] = {
    "lstm": _lstm,
    "gru": _gru,
    "rnn_tanh": partial(_rnn, torch.tanh),
    "rnn_relu": partial(_rnn, torch.relu),
}


def _add_recurrent(
    base: Tensor | None, h: Tensor, weight: Tensor, mask: Tensor | float | None
) -> Tensor:
    """base + W (mask * h), [b, gates x h]."""
    h = _multiply(h, mask)
    if h.dim() == 3:
        y = (
            torch.bmm(h, weight.reshape(len(h), -1, h.shape[-1]).transpose(1, 2))
            .transpose(0, 1)
            .flatten(1)
        )
        return y if base is None else base + y
    return h @ weight.t() if base is None else torch.addmm(base, h, weight.t())


def _steps(noise: StateFactors, steps: int, like: Tensor) -> list[Sequence[Any]]:
    """The factors ``candidate``, ``update`` and ``cell_update``, step by step."""
    factors: list[Sequence[Any]] = []
    for field in (noise.candidate, noise.update, noise.cell_update):
        if not isinstance(field, Tensor):
            factors.append([field] * steps)
            continue
        field = field.to(like.dtype) if field.dtype == torch.bool else field
        factors.append(field.expand(steps, *field.shape[-2:]).unbind(0))
    return factors


def _multiply(x: Tensor, by: Tensor | float | None) -> Tensor:
    return x if by is None else (x * by).to(x.dtype)


def _interpolate(old: Tensor, new: Tensor, by: Tensor | float | None) -> Tensor:
    return new if by is None else torch.lerp(old, new, by)
