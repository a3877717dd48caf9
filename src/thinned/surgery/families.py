"""The policy "paper": recognizes the family of a network and returns what its paper dropped."""

from __future__ import annotations

from dataclasses import replace

from torch import nn
from torch.nn import functional as F

from .._errors import InputError
from ..algebra.drop import Drop
from ..presets import locked_dropout
from .costs import CONVOLUTIONS, RECURRENT
from .flow import activations, branches, functional_dropout_before, is_dropout_layer
from .policy import At, Policy, PolicyRule
from .rates import rate_of
from .rule_makers import (
    branch_rule,
    depth_rules,
    hidden_rules,
    input_rule,
    rule_after,
    rule_before,
    shared_place_notes,
)
from .trace import Trace

_GRAPH_LAYERS = (
    "GCNConv",
    "GraphConv",
    "SAGEConv",
    "GATConv",
    "GATv2Conv",
    "GraphConvolution",
    "GINConv",
)


def paper(trace: Trace) -> Policy:
    """Return the policy of the first family that recognizes the model.

    Raises :class:`thinned.InputError` where none does.
    """
    for family in (_graph, _recurrent, _attention, _residual, _convolutional, _perceptron):
        policy = family(trace)
        if policy is not None:
            return policy
    raise InputError(
        "the policy 'paper' does not recognize this model; it recognizes perceptrons, "
        "convolutional networks with or without residual branches, recurrent language models, "
        "transformers, vision transformers and graph convolutions; choose 'hidden', 'head', "
        "'depth' or 'input', or write rules (thinned.Policy)"
    )


def _graph(trace: Trace) -> Policy | None:
    names = [n for n, m in trace.model.named_modules() if type(m).__name__ in _GRAPH_LAYERS]
    if not names:
        return None
    placed = [rule_before(trace, name, 0.5) for name in names]
    rules = [rule for found, _ in placed for rule in found]
    notes = [note for _, found in placed for note in found]
    if not rules:
        raise InputError("; ".join(notes))
    kind = type(trace.model.get_submodule(names[0])).__name__
    note = f"a graph network ({kind}): 0.5 on the input of each layer, Kipf and Welling 2017"
    return Policy(tuple(dict.fromkeys(rules)), (note, *notes))


def _recurrent(trace: Trace) -> Policy | None:
    modules = dict(trace.model.named_modules())
    cores = {n: m for n, m in modules.items() if isinstance(m, nn.RNNBase) and trace.calls[n]}
    embeddings = [n for n, m in modules.items() if isinstance(m, nn.Embedding) and trace.calls[n]]
    if not cores or not embeddings:
        return None
    rules: list[PolicyRule] = []
    left: list[str] = []

    def place(name: str, core: nn.RNNBase) -> None:
        value = next((v for v in trace.values if name in v.outputs_of), None)
        placed, notes = rule_after(trace, At("name", name), value, 0.4, _locked(core))
        rules.extend(placed)
        left.extend(notes)

    for name in embeddings:
        place(name, next(iter(cores.values())))
    for name, core in cores.items():
        if core.num_layers > 1:
            rules.append(PolicyRule("set rate", At("name", name), 0.25))
        place(name, core)
    if not rules:
        raise InputError("; ".join(left))
    notes = (
        *left,
        "a recurrent language model (embedding and recurrent layers): 0.4 locked in time on the "
        "embedding and the output, 0.25 between layers, Merity et al. 2018",
        "Merity et al. 2018 also drop 0.5 of the recurrent weights: "
        "thinned.nn.WeightDrop(lstm, 0.5)",
    )
    return Policy(tuple(dict.fromkeys(rules)), notes)


def _locked(core: nn.RNNBase) -> Drop:
    spec = locked_dropout(0.4)
    return spec if core.batch_first else replace(spec, of="t b d")


def _attention(trace: Trace) -> Policy | None:
    """Return the policy of transformers, for tokens or for images."""
    calls = [
        e
        for e in trace.events
        if e.func in (F.scaled_dot_product_attention, F.multi_head_attention_forward)
    ]
    found = branches(trace)
    if not found or not (
        calls or any("attention" in type(m).__name__.lower() for m in trace.model.modules())
    ):
        return None
    embeddings = [
        n for n, m in trace.model.named_modules() if isinstance(m, nn.Embedding) and trace.calls[n]
    ]
    if not embeddings and any(e.func in CONVOLUTIONS for e in trace.events):
        note = (
            "a vision transformer (attention on patches): drop path to 0.1 on residual branches, "
            "Touvron et al. 2021 (DeiT)"
        )
        return Policy(tuple(depth_rules(trace, 0.1)), (note, *shared_place_notes(trace)))
    rules, left = [], []
    for branch in found:
        call = None if branch.layers else functional_dropout_before(trace, branch.value)
        if call is None:
            rules.append(branch_rule(trace, branch, 0.1, None))
        else:
            left.append(
                f"nothing before {branch.call}: functional dropout is there ({call.where}); "
                "thinned.expose makes it a layer"
            )
    left += [
        f"the rate of attention is that of its call ({e.where}); thinned.expose makes it a layer"
        for e in calls
        if e.module and not _has_attention_layer(trace, e.module)
    ]
    rules += [
        PolicyRule("set rate", At("name", n), 0.1)
        for n, m in trace.model.named_modules()
        if _has_attention_rate(n, m)
    ]
    stem = _stem_rule(trace)
    notes = [
        *dict.fromkeys(left),
        "a transformer (attention and residual branches): 0.1 on branches, embeddings and "
        "attention, Vaswani et al. 2017",
    ]
    if stem is not None:
        rules.append(stem)
    else:
        notes.append(
            "the sum of embeddings has no place of its own here; "
            "thinned.insert(model, 0.1, before=...) names one"
        )
    return Policy(tuple(dict.fromkeys(rules)), tuple(notes))


def _has_attention_layer(trace: Trace, name: str) -> bool:
    """Return whether the rate of an attention call is that of a module in it, or of itself."""
    module = trace.model.get_submodule(name)
    return (
        any(_has_attention_rate(n, m) for n, m in module.named_modules())
        or rate_of(module) is not None
    )


def _has_attention_rate(name: str, module: nn.Module) -> bool:
    """Return whether this module holds the dropout rate of attention weights."""
    last = name.rpartition(".")[2]
    named = "att" in last.lower() and "drop" in last.lower()
    return isinstance(module, nn.MultiheadAttention) or (named and isinstance(module, nn.Dropout))


def _stem_rule(trace: Trace) -> PolicyRule | None:
    """Return the rule for the start of the residual stream: the dropout layer that is there, or the
    input of the first block.
    """
    first = branches(trace)[0]
    outer, stream = first.block, first.stream
    layer = next((m for m in reversed(stream.outputs_of) if is_dropout_layer(trace, m)), None)
    if layer is not None:
        return PolicyRule("set rate", At("name", layer), 0.1)
    if (
        stream.depth or not outer
    ):  # layers with weights computed it, so it is not a sum of embeddings
        return None
    if trace.first_inputs.get(outer) is stream:
        # the outermost of the nested modules that read the stream first
        while "." in outer and trace.first_inputs.get(outer.rpartition(".")[0]) is stream:
            outer = outer.rpartition(".")[0]
        return PolicyRule("insert before", At("name", outer), 0.1)
    return (
        PolicyRule("insert after", At("name", stream.outputs_of[-1]), 0.1)
        if stream.outputs_of
        else None
    )


def _residual(trace: Trace) -> Policy | None:
    if not branches(trace) or not any(e.func in CONVOLUTIONS for e in trace.events):
        return None
    notes = (
        "a residual convolutional network: stochastic depth to 0.5 on branches, Huang et al. 2016",
        "no unit is dropped, as batch normalization would follow (Li et al. 2019)",
    )
    return Policy(tuple(depth_rules(trace, 0.5)), (*notes, *shared_place_notes(trace)))


def _convolutional(trace: Trace) -> Policy | None:
    linear = [e for e in trace.events if e.func is F.linear]
    if (
        not any(e.func in CONVOLUTIONS for e in trace.events)
        or len(linear) < 2
        or any(e.func in RECURRENT for e in trace.events)
    ):
        return None
    rules, notes = [], []
    for where, value in activations(trace):
        last = value.last_weighted
        if len(last) == 1 and trace.events[next(iter(last))].func is F.linear:
            found, left = rule_after(trace, where, value, 0.5)
            rules += found
            notes += left
    if not rules and notes:
        raise InputError("; ".join(notes))
    if not rules:
        return None
    note = (
        "a convolutional network with linear layers: 0.5 after the hidden linear ones, "
        "Krizhevsky et al. 2012"
    )
    return Policy(tuple(dict.fromkeys(rules)), (note, *notes))


def _perceptron(trace: Trace) -> Policy | None:
    weighted = [e for e in trace.events if e.weighted]
    if not weighted or any(e.func is not F.linear for e in weighted) or branches(trace):
        return None
    rules, notes = hidden_rules(trace, 0.5)
    first = input_rule(trace, 0.2)
    if first is None or not (rules or notes):
        return None
    if not rules and not first[0]:
        raise InputError("; ".join(notes + first[1]))
    note = (
        "a perceptron (linear layers only): 0.2 on the input and 0.5 on hidden units, "
        "Srivastava et al. 2014"
    )
    return Policy((*first[0], *rules), (note, *notes, *first[1]))
