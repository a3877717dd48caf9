"""Where papers put dropout, found in a model by what it does; or in what was seen of it, a
:class:`Trace`.
"""

from __future__ import annotations

from typing import Any

from torch import nn

from .._errors import InputError, probability
from . import families
from .flow import heads
from .policy import Policy
from .rule_makers import depth_of, hidden_of, in_loops, input_of, set_or_before
from .trace import Trace, trace


def hidden(model: nn.Module | Trace, *inputs: Any, rate: float = 0.5, **named: Any) -> Policy:
    """Dropout after every hidden activation, modules and functions alike.

    Left out are gates (a sigmoid that something is multiplied with), activations that no weights
    follow, such as an output's, and those that batch normalisation reads directly (Li et al. 2019).
    A dropout layer that is there already has its rate set.

    Srivastava, Hinton, Krizhevsky, Sutskever, Salakhutdinov 2014, "Dropout": 0.5 for hidden units.
    """
    seen = _seen(model, inputs, named)
    rules, notes = hidden_of(seen, rate)
    if not rules:
        why = "; ".join(notes) or "no hidden activation was seen in this model"
        raise InputError(f"{why}; name the places: thinned.insert(model, rate, after=...)")
    return Policy(tuple(rules), (*notes, "after hidden activations: Srivastava et al. 2014"))


def head(model: nn.Module | Trace, *inputs: Any, rate: float = 0.5, **named: Any) -> Policy:
    """Dropout before the last layer with weights, which gives the output; in a model with several
    heads before each.

    Raises :class:`thinned.InputError` where several layers make the output together, as at the end
    of a residual stream. Hinton, Srivastava, Krizhevsky, Sutskever, Salakhutdinov 2012; in
    EfficientNet and in BERT's classifiers it is the only such place.
    """
    seen = _seen(model, inputs, named)
    rules = [set_or_before(seen, name, rate) for name in heads(seen)]
    if not rules:
        raise InputError(
            "the output of this model is not that of one last layer with weights; name the place: "
            "thinned.insert(model, rate, before=...)"
        )
    return Policy(tuple(rules), ("before the layer that gives the output: Hinton et al. 2012",))


def depth(model: nn.Module | Trace, *inputs: Any, rate: float = 0.5, **named: Any) -> Policy:
    """Drop path on every residual branch, more in depth: the branches of block l of L fall with l /
    L * ``rate``.

    A branch is known by what happens to it: it is added to something nearer to the input that it
    comes of. Branches whose sums stand in one module's code are one block, and each turn of a loop
    is. Drop path and stochastic depth layers that end a branch have their rates set; others get a
    layer just before the sum. ``notes`` say where one place serves several sums.

    Huang, Sun, Liu, Sedra, Weinberger 2016, "Deep networks with stochastic depth", equation 4; here
    one coin for each example and scaled while training, as timm and torchvision do.
    """
    seen = _seen(model, inputs, named)
    rules = depth_of(seen, rate)
    if not rules:
        raise InputError(
            "no residual branch was seen in this model: nothing is added to what it comes of"
        )
    return Policy(
        tuple(rules),
        (
            f"residual branches, from {rules[0].rate:g} to {rate:g}: Huang et al. 2016",
            *in_loops(seen),
        ),
    )


def input(model: nn.Module | Trace, *inputs: Any, rate: float = 0.2, **named: Any) -> Policy:
    """Dropout on the model's input.

    Raises :class:`thinned.InputError` where the first input holds whole numbers: drop their
    embedding instead. Srivastava et al. 2014: 0.2 for inputs of real numbers.
    """
    seen = _seen(model, inputs, named)
    rule = input_of(seen, rate)
    if rule is None:
        raise InputError(
            "the model's first input is no tensor of real numbers; drop what its embedding gives: "
            "thinned.insert(model, rate, after=torch.nn.Embedding)"
        )
    return Policy((rule,), ("on the input: Srivastava et al. 2014",))


def paper(
    model: nn.Module | Trace, *inputs: Any, rate: float | None = None, **named: Any
) -> Policy:
    """What the paper of this kind of network did. ``notes`` say which kind was recognised, by what,
    and the source.

    Graph convolutions: 0.5 before each (Kipf and Welling 2017). Recurrent language models: 0.4
    locked in time after the embedding and after the recurrent layers, 0.25 between them (Merity et
    al. 2018). Attention on tokens: 0.1 on the ends of residual branches, on the sum of embeddings
    and on attention weights (Vaswani et al. 2017). Attention on patches: drop path to 0.1 (Touvron
    et al. 2021). Convolutions with residual branches: stochastic depth to 0.5 (Huang et al. 2016).
    Convolutions without, and several linear layers: 0.5 after hidden linear layers (Krizhevsky et
    al. 2012). Linear layers alone: 0.2 on the input, 0.5 on hidden units (Srivastava et al. 2014).

    ``rate``: None, for the papers give rates. Raises :class:`thinned.InputError` for what is none
    of these.
    """
    if rate is not None:
        raise InputError(
            "the policy 'paper' has rates of its own; leave rate out, or take another policy"
        )
    seen = _seen(model, inputs, named)
    return families.paper(seen)


def _seen(model: nn.Module | Trace, inputs: Any, named: dict[str, Any]) -> Trace:
    if isinstance(model, Trace):
        return model
    if not inputs and not named:
        raise InputError(
            'an automatic policy runs the model; pass its inputs: thinned.apply(model, "hidden", x, rate=0.5)'
        )
    return trace(model, inputs, named)


AUTOMATIC = {"hidden": hidden, "head": head, "depth": depth, "input": input, "paper": paper}


def automatic(
    name: str, model: nn.Module | Trace, inputs: Any, named: dict[str, Any], rate: float | None
) -> Policy:
    """The automatic policy of a name, at a rate or at its own."""
    settings = {} if rate is None else {"rate": probability(rate, "rate")}
    return AUTOMATIC[name](model, *inputs, **settings, **named)
