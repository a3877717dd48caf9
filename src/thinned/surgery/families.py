"""Which kind of network a model is, and what its paper dropped."""

from __future__ import annotations

from dataclasses import replace

from torch import nn
from torch.nn import functional as F

from .._errors import InputError
from ..algebra.drop import Drop
from ..presets import locked_dropout
from .costs import CONVOLUTIONS, RECURRENT
from .flow import activations, branches, has_layer, rated
from .policy import At, Policy, PolicyRule
from .rule_makers import depth_of, hidden_of, in_loops, input_of, on_branch, set_or_before
from .trace import Trace

_GRAPHS = (
    "GCNConv",
    "GraphConv",
    "SAGEConv",
    "GATConv",
    "GATv2Conv",
    "GraphConvolution",
    "GINConv",
)


def paper(seen: Trace) -> Policy:
    """The policy of the model's family. Raises :class:`thinned.InputError` for what is none of
    them.
    """
    for knows in (_graph, _recurrent, _attention, _residual, _convolutional, _perceptron):
        policy = knows(seen)
        if policy is not None:
            return policy
    raise InputError(
        "this model is none of those that 'paper' knows: perceptrons, convolutional networks with or without residual "
        "branches, recurrent language models, transformers, vision transformers, graph convolutions; choose 'hidden', 'head', "
        "'depth' or 'input', or write rules (thinned.Policy)"
    )


def _graph(seen: Trace) -> Policy | None:
    names = [n for n, m in seen.model.named_modules() if type(m).__name__ in _GRAPHS]
    if not names:
        return None
    rules = [set_or_before(seen, name, 0.5) for name in names]
    kind = type(seen.model.get_submodule(names[0])).__name__
    return Policy(
        tuple(rules),
        (f"a graph network ({kind}): 0.5 on what each layer reads, Kipf and Welling 2017",),
    )


def _recurrent(seen: Trace) -> Policy | None:
    modules = dict(seen.model.named_modules())
    cores = {n: m for n, m in modules.items() if isinstance(m, nn.RNNBase) and seen.calls[n]}
    words = [n for n, m in modules.items() if isinstance(m, nn.Embedding) and seen.calls[n]]
    if not cores or not words:
        return None
    rules = [
        PolicyRule("insert after", At("name", n), None, _locked(next(iter(cores.values()))))
        for n in words
    ]
    for name, core in cores.items():
        if core.num_layers > 1:
            rules.append(PolicyRule("set rate", At("name", name), 0.25))
        rules.append(PolicyRule("insert after", At("name", name), None, _locked(core)))
    why = "a recurrent language model (embedding and recurrent layers): 0.4 locked in time on the embedding and the output, 0.25 "
    more = "Merity et al. 2018 also drop 0.5 of the recurrent weights: thinned.nn.DropWeight(lstm, 0.5)"
    return Policy(tuple(rules), (why + "between layers, Merity et al. 2018", more))


def _locked(core: nn.RNNBase) -> Drop:
    spec = locked_dropout(0.4)
    return spec if core.batch_first else replace(spec, of="t b d")


def _attention(seen: Trace) -> Policy | None:
    attends = [
        e
        for e in seen.events
        if e.func in (F.scaled_dot_product_attention, F.multi_head_attention_forward)
    ]
    found = branches(seen)
    if not found or not (
        attends or any("attention" in type(m).__name__.lower() for m in seen.model.modules())
    ):
        return None
    embeds = [
        n for n, m in seen.model.named_modules() if isinstance(m, nn.Embedding) and seen.calls[n]
    ]
    if not embeds and any(e.func in CONVOLUTIONS for e in seen.events):
        why = "a vision transformer (attention on patches): drop path to 0.1 on residual branches, Touvron et al. 2021 (DeiT)"
        return Policy(tuple(depth_of(seen, 0.1)), (why, *in_loops(seen)))
    rules = [on_branch(seen, b, 0.1, None) for b in found]
    rules += [
        PolicyRule("set rate", At("name", n), 0.1)
        for n, m in seen.model.named_modules()
        if _attends(n, m)
    ]
    stem = _stem(seen)
    notes = [
        "a transformer (attention and residual branches): 0.1 on branches, embeddings and attention, Vaswani et al. 2017"
    ]
    if stem is not None:
        rules.append(stem)
    else:
        notes.append(
            "the sum of embeddings has no place of its own here; thinned.insert(model, 0.1, before=...) names one"
        )
    return Policy(tuple(dict.fromkeys(rules)), tuple(notes))


def _attends(name: str, module: nn.Module) -> bool:
    """Does this module hold the rate of attention weights?"""
    last = name.rpartition(".")[2]
    within = "att" in last.lower() and "drop" in last.lower()
    return isinstance(module, nn.MultiheadAttention) or (within and isinstance(module, nn.Dropout))


def _stem(seen: Trace) -> PolicyRule | None:
    """What the residual stream begins with: a dropout layer there, or the first block's input."""
    first = branches(seen)[0]
    outer, stream = first.block, first.stream
    layer = next((m for m in reversed(stream.outputs_of) if rated(seen, m)), None)
    if layer is not None:
        return PolicyRule("set rate", At("name", layer), 0.1)
    if stream.depth or not outer:  # layers with weights made it, so it is no sum of embeddings
        return None
    if seen.first.get(outer) is stream:
        while "." in outer and seen.first.get(outer.rpartition(".")[0]) is stream:
            outer = outer.rpartition(".")[0]
        return PolicyRule("insert before", At("name", outer), 0.1)
    return (
        PolicyRule("insert after", At("name", stream.outputs_of[-1]), 0.1)
        if stream.outputs_of
        else None
    )


def _residual(seen: Trace) -> Policy | None:
    if not branches(seen) or not any(e.func in CONVOLUTIONS for e in seen.events):
        return None
    why = "a residual convolutional network: stochastic depth to 0.5 on branches, Huang et al. 2016"
    more = "no unit is dropped, as batch normalisation would follow (Li et al. 2019)"
    return Policy(tuple(depth_of(seen, 0.5)), (why, more, *in_loops(seen)))


def _convolutional(seen: Trace) -> Policy | None:
    linear = [e for e in seen.events if e.func is F.linear]
    if not any(e.func in CONVOLUTIONS for e in seen.events) or len(linear) < 2 or _recurs(seen):
        return None
    rules = []
    for where, value in activations(seen):
        if len(value.last) == 1 and seen.events[next(iter(value.last))].func is F.linear:
            layer = has_layer(seen, value)
            rules.append(
                PolicyRule("set rate", At("name", layer), 0.5)
                if layer
                else PolicyRule("insert after", where, 0.5)
            )
    if not rules:
        return None
    why = "a convolutional network with linear layers: 0.5 after the hidden linear ones, Krizhevsky et al. 2012"
    return Policy(tuple(dict.fromkeys(rules)), (why,))


def _perceptron(seen: Trace) -> Policy | None:
    weighted = [e for e in seen.events if e.weighted]
    if not weighted or any(e.func is not F.linear for e in weighted) or branches(seen):
        return None
    rules, notes = hidden_of(seen, 0.5)
    first = input_of(seen, 0.2)
    if not rules or first is None:
        return None
    why = "a perceptron (linear layers alone): 0.2 on the input and 0.5 on hidden units, Srivastava et al. 2014"
    return Policy((first, *rules), (why, *notes))


def _recurs(seen: Trace) -> bool:
    return any(e.func in RECURRENT for e in seen.events)
